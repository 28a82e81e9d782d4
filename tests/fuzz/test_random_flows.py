"""Random flows against an oracle of arbitrary precision: wrong, refused, slow and estimates too small are counted."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

import flowsim as fs

sys.path.insert(0, str(Path(__file__).parent))
import precise_flow

#: Of polynomials the noise has moments; the others run without.
POLYNOMIALS = ("u*v", "u**2 - v**2", "2*u**2 - v**2", "u*v + u**2*v**2", "u*v + u**3*v", "w1*w2*w3")
OTHERS = ("tanh(u)*v", "sin(u)*v", "sinh(u)*sinh(v)", "u*v*exp(u)")
KINDS = ("plain", "wide", "duplicated", "zero", "scaled", "integer", "collinear", "one row", "one column", "y = 0")
METHODS = ("auto", "auto", "auto", "LSODA", "BDF")
QUICK, MANY = 10, 2000
#: Times the median after which a run is slow, and what counts as no time.
SLOW, NO_TIME = 50.0, 1.0


def data(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    n, d = {"wide": (1, 3), "one row": (1, 2), "one column": (2, 1)}.get(kind, (2, 2))
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    if kind == "duplicated":
        X[:, -1] = X[:, 0]
    elif kind == "zero":
        X[:, 0] = 0
    elif kind == "scaled":
        X *= 10.0 ** rng.uniform(-1, 0.5, d)
    elif kind == "integer":
        X, y = rng.integers(-2, 3, (n, d)).astype(float), rng.integers(-2, 3, n).astype(float)
    elif kind == "collinear":
        X[:, -1] = X[:, 0] + 1e-3 * rng.standard_normal(n)
    elif kind == "y = 0":
        y[:] = 0
    return X, y


def case(seed: int) -> tuple[str, dict]:
    """What to run, and what is wrong with it: empty, or a line that says what."""
    rng = np.random.default_rng(seed)
    polynomial = rng.random() < 0.6
    formula = str(rng.choice(POLYNOMIALS if polynomial else OTHERS))
    std = float(rng.choice([0.0, 0.0, 0.1])) if polynomial else 0.0
    kind = str(rng.choice(KINDS))
    X, y = data(rng, kind)
    net = fs.DiagonalNetwork(formula, noise=fs.GaussianNoise(std) if std else None)
    alpha = float(10.0 ** rng.uniform(-4, 0))
    directions = {name: rng.uniform(0.3, 1.0, X.shape[1]) * rng.choice([1.0, 1.0, -1.0]) for name in net.weights}
    if rng.random() < 0.3:  # symmetric starts
        directions = dict.fromkeys(net.weights, directions[net.weights[0]])
    end = float(10.0 ** rng.uniform(0, 1.3))
    rtol = float(10.0 ** rng.uniform(-9, -4))
    what = {"formula": formula, "std": std, "kind": kind, "alpha": alpha, "rtol": rtol, "t_end": end}
    what["method"] = str(rng.choice(METHODS))
    began = time.perf_counter()
    try:
        run = fs.gradient_flow(
            net, fs.Regression(X, y), end, alpha=alpha, start=directions, t_eval=[end / 2, end], rtol=rtol,
            method=what["method"], estimate_error=True,
        )  # fmt: skip
    except fs.IntegrationError as error:
        return f"refused: {error}", what
    what["seconds"] = time.perf_counter() - began
    right, size = precise_flow.flow(formula, X, y, {k: alpha * v for k, v in directions.items()}, end, std)
    error = np.abs(run.beta - right).max(axis=1)
    what |= {"error": float(error.max()), "estimate": float(run.error_estimate.max())}
    floor = 1e-11 * (1.0 + float(size))
    if not error.max() <= 100 * rtol * (1.0 + float(size)) + floor:
        return "wrong", what
    if not (error <= 2 * run.error_estimate + floor).all():
        return "estimate too small", what
    return "", what


def campaign(seeds: range) -> list[tuple[int, str, dict]]:
    """Faults found, with the seed of each."""
    found, times = [], []
    for seed in seeds:
        fault, what = case(seed)
        times.append(what.get("seconds", 0.0))
        if fault:
            found.append((seed, fault, what))
    slow = SLOW * float(np.median(times)) + NO_TIME
    return found + [(seed, f"slow: {took:.1f} s", {}) for seed, took in zip(seeds, times, strict=True) if took > slow]


def test_a_few_random_flows_agree_with_arbitrary_precision() -> None:
    case(0)  # compiles
    assert campaign(range(QUICK)) == []


@pytest.mark.slow
def test_thousands_of_random_flows_agree_with_arbitrary_precision() -> None:
    assert campaign(range(1000, 1000 + MANY)) == []


def test_the_oracle_knows_the_closed_form_of_one_coordinate() -> None:
    """u = v: beta' = -2 beta (beta - 1), a logistic curve."""
    start = {"u": np.array([0.1]), "v": np.array([0.1])}
    right, _ = precise_flow.flow("u*v", np.ones((1, 1)), np.ones(1), start, 6.0)
    times = np.array([3.0, 6.0])
    exact = 0.01 * np.exp(2 * times) / (1 - 0.01 + 0.01 * np.exp(2 * times))
    np.testing.assert_allclose(right[:, 0], exact, rtol=1e-13)
