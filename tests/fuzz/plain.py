"""What a method of SciPy costs in the plain weights: the measure of a run whose method was asked for by name."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence

import numpy as np
from scipy.integrate import solve_ivp

import flowsim as fs
from flowsim.flows.coordinates import SAFETY
from flowsim.solvers.scipy_methods import SMALLEST_RTOL
from tests.fuzz import oracles


def seconds_in_weights(
    net: fs.DiagonalNetwork, problem: fs.Problem, start: Sequence[np.ndarray], t_end: float, method: str, rtol: float
) -> float:
    """Processor time of SciPy's `method` from weights ``start`` (k, d), by NumPy alone, until it ends or fails.

    Its local tolerance is that of flows of global tolerance `rtol`.
    """
    rtol = max(SAFETY * rtol, SMALLEST_RTOL)
    d, noise = problem.d, "" if net.noise is None else net.noise.name
    std = 0.0 if net.noise is None else float(net.noise.std)
    kinds, y0 = net.kinds(d), np.concatenate(start)
    own = [
        (np.flatnonzero(kinds == kind), oracles.parts(formula.text, net.weights, noise, "numpy"))
        for kind, formula in enumerate(net.distinct)
    ]
    squares, decay = problem.feature_variances / 2, net.weight_decay

    def field(t: float, y: np.ndarray) -> np.ndarray:
        w = y.reshape(-1, d)
        k, mean, slopes = len(w), np.empty(d), np.empty((2 * len(w), d))
        for where, seen in own:
            mean[where], *found, _ = seen(*w[:, where], std)
            for row, value in zip(slopes, found, strict=True):
                row[where] = value
        g = problem.X.T @ problem.slopes(problem.X @ mean) / problem.n
        rate = decay if isinstance(decay, float) else decay.rate(t)
        return -(g * slopes[:k] + squares * slopes[k:] + rate * w).ravel()

    began = time.process_time()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(ValueError, ArithmeticError, np.linalg.LinAlgError):
            solve_ivp(field, (0.0, t_end), y0, method=method, rtol=rtol, atol=rtol * np.abs(y0).max())
    return time.process_time() - began
