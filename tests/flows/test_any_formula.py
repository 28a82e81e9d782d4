"""Every kind of formula, from every scale of initialisation, is held to its tolerance by arbitrary precision."""

from itertools import product

import numpy as np
import pytest
from gmpy2 import mpfr
from numpy.testing import assert_allclose

import flowsim as fs
from flowsim.network import InitialScale
from tests.flows.any_formula import ALL, PRODUCTS, accelerated_unit, exact_flow, weights_of
from tests.fuzz import oracles
from tests.fuzz.oracles import Data

ALPHAS = ("1", "1e-3", "1e-16", "1e-30", "1e-100", "1e-1000")
#: A coordinate that changes sign, columns that share alike, and a target of 0; each with a start (4, d).
DATA = {
    "flip": ([[-0.5, -2.0], [-1.5, -2.0]], [-0.5, 2.0], [[0.8, -0.5], [0.3, 0.9], [0.5, -0.6], [0.9, 0.4]]),
    "tie": ([[1.0, 0.3], [0.3, 1.0]], [0.8, 0.8], [[0.7, 0.7], [0.7, 0.7], [0.5, 0.5], [0.9, 0.9]]),
    "zero": ([[1.0, 0.0], [0.0, 1.0]], [0.7, 0.0], [[0.6, 0.5], [-0.9, 0.4], [0.5, -0.6], [0.8, 0.7]]),
}
#: Between jumps and within them, on the accelerated clock; products wait for longer.
TIMES, LONGER = np.array([0.5, 1.05, 1.7, 2.9, 4.5]), 3.0
#: Newton's method at every evaluation of an oracle takes seconds.
SLOW = ("u*v+u**3*v", "u*v*exp(u)", "log(1+u)*v")


def _cases():
    """All, those that are not quick marked: one of each formula is."""
    for number, formula in enumerate(ALL):
        quick = ("1e-3" if formula in PRODUCTS else ALPHAS[number % 6], list(DATA)[number % 3])
        for case in product(ALPHAS, DATA):
            slow = case != quick or formula in SLOW
            yield pytest.param(formula, *case, marks=[pytest.mark.slow] * slow)


@pytest.mark.sampled(13)
@pytest.mark.parametrize("formula", [pytest.param(f, marks=[pytest.mark.slow] * (f in SLOW)) for f in ALL])
def test_the_oracle_is_the_flow_of_the_weights(formula):
    X, y, start = map(np.array, DATA["flip"])
    names, times = weights_of(formula), [3.0, 10.0]
    with oracles.precision(40):
        scaled = [[mpfr(w) / 100 for w in row] for row in start[: len(names)]]
        right = oracles.weight_flow(formula, names, Data(X, y), scaled, times, finest=-26)
    found = exact_flow(formula, X, y, "0.01", start[: len(names)], times)
    assert_allclose(found, np.array(right, dtype=float), atol=1e-12)


@pytest.mark.sampled(5)
@pytest.mark.timeout(3600)  # products at 1e-1000
@pytest.mark.parametrize(("formula", "alpha", "data"), list(_cases()))
def test_a_formula_follows_its_flow_to_the_tolerance(formula, alpha, data):
    X, y, start = map(np.array, DATA[data])
    names = weights_of(formula)
    start, times = start[: len(names)], TIMES * (LONGER if formula in PRODUCTS else 1.0)
    # With a scale of its own for every weight, within the range of floats of each other.
    share = np.array([[0.0, -0.2], [-0.25, 0.1], [0.05, -0.1], [-0.1, 0.0]])[: len(names)]
    scales = min(-InitialScale.parse(alpha).log, 1000.0) * share * (data == "zero")
    truth = exact_flow(formula, X, y, alpha, start, times, scales, accelerated_unit(formula, alpha))
    logs = {
        name: fs.Logs(np.sign(w), np.log(np.abs(w)) + own) for name, w, own in zip(names, start, scales, strict=True)
    }
    for rtol in (1e-6, 1e-10):
        traj = fs.gradient_flow(
            fs.DiagonalNetwork(formula), fs.Regression(X, y), times[-1], alpha=alpha, start=logs, t_eval=times,
            clock="time" if alpha == "1" else "accelerated", rtol=rtol, atol=1e-3 * rtol,
        )  # fmt: skip
        assert np.abs(traj.beta - truth).max() <= 20 * rtol * max(1.0, np.abs(truth).max())
