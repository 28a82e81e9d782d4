"""Features like spectra and polynomials, beside SciPy's stiff methods in the coordinates of the row space of X."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

import flowsim as fs
from benchmarks.harness import Point, Report, Series, best, time_at_error, timed
from benchmarks.integrators import evaluation_seconds
from flowsim.network import InitialScale

Array = NDArray[np.float64]

ALPHA, TARGET = "1e-100", 1e-5
NET = fs.DiagonalNetwork("u*v")
#: Exponents are cut off here: far above one, below overflow.
_CAP = 600.0


def spectra(width: float, n: int, d: int) -> tuple[Array, Array]:
    """Sums of eight bumps on a grid, standardised, and the height of the first."""
    rng = np.random.default_rng(1)
    grid, centre, height = np.linspace(0, 1, d), rng.random((n, 8)), rng.random((n, 8))
    X = (height[:, :, None] * np.exp(-((grid - centre[:, :, None]) ** 2) / (2 * width**2))).sum(1)
    return standardised(X), height[:, 0] - height[:, 0].mean()


def polynomials(degree: int, n: int) -> tuple[Array, Array]:
    """Powers 1 to `degree` of points in (-1, 1), standardised, and a sine of them."""
    x = np.sort(np.random.default_rng(2).uniform(-1, 1, n))
    return standardised(x[:, None] ** np.arange(1, degree + 1)), np.sin(3 * x) - np.sin(3 * x).mean()


def standardised(X: Array) -> Array:
    X = X - X.mean(axis=0)
    return np.asarray(X / np.sqrt((X**2).mean(axis=0)))


def hilbert(n: int) -> tuple[Array, Array]:
    """The Hilbert matrix and its row sums."""
    X = 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
    return X, X.sum(axis=1)


#: name -> (X and y, horizon in accelerated time)
CASES = {
    "spectra, 20 x 8": (lambda: spectra(0.4, 20, 8), 1e7),
    "polynomials of degree 10, 40 x 10": (lambda: polynomials(10, 40), 1e7),
    "polynomials of degree 15, 40 x 15": (lambda: polynomials(15, 40), 1e7),
    "Hilbert matrix, 9 x 9": (lambda: hilbert(9), 1e7),
}


class RowFlow:
    """``nu' = b - R beta(R^T nu)`` with R a triangular factor of X: what a skilled user hands to SciPy."""

    def __init__(self, X: Array, y: Array, horizon: float) -> None:
        Q, R = np.linalg.qr(X)
        self.R, self.b = R / np.sqrt(len(y)), Q.T @ y / np.sqrt(len(y))
        self.gamma, self.times = InitialScale.parse(ALPHA).gamma, np.geomspace(1.0, horizon, 200)

    def beta(self, nu: Array) -> Array:
        s = np.abs(nu @ self.R)
        up, down = np.exp(np.minimum(2 * self.gamma * (s - 1), _CAP)), np.exp(-2 * self.gamma * (s + 1))
        return np.asarray(np.sign(nu @ self.R) * 0.5 * (up - down))

    def jacobian(self, _t: float, nu: Array) -> Array:
        s = np.abs(self.R.T @ nu)
        slope = np.exp(np.minimum(2 * self.gamma * (s - 1), _CAP)) + np.exp(-2 * self.gamma * (s + 1))
        return np.asarray(-self.gamma * (self.R * slope) @ self.R.T)

    def solve(self, method: str, tolerance: float) -> tuple[Array, bool, dict[str, int]]:
        with np.errstate(all="ignore"):
            done = solve_ivp(
                lambda t, nu: self.b - self.R @ self.beta(nu), (0, self.times[-1]), np.zeros(len(self.b)), method,
                self.times, jac=self.jacobian, rtol=tolerance, atol=1e-3 * tolerance,
            )  # fmt: skip
            nu = np.asarray(done.y).T
            beta = self.beta(nu) if nu.ndim == 2 else np.full((1, len(self.b)), np.nan)
        return beta, bool(done.success), {"nfev": int(done.nfev)}


def run(quick: bool) -> Report:
    """Steps and milliseconds to one error, beside LSODA and Radau."""
    rows, raw = [], {}
    for name, (data, horizon) in CASES.items():
        X, y = data()
        flow, problem = RowFlow(X, y, horizon), fs.Regression(X, y)
        reference = flow.solve("Radau", 1e-9)[0]

        def own(tolerance: float, problem: Any = problem, flow: RowFlow = flow) -> tuple[Array, bool, dict[str, int]]:
            run = fs.gradient_flow(
                NET, problem, float(flow.times[-1]), alpha=ALPHA, clock="accelerated", t_eval=flow.times, rtol=tolerance
            )
            return run.beta, run.success, {key: run.stats[key] for key in ("steps", "rejected", "nfev")}

        contenders = {"flowsim": own} | {
            method: (lambda tol, m=method, f=flow: f.solve(m, tol)) for method in ("LSODA", "Radau")
        }
        series = {key: _series(key, solve, reference, quick) for key, solve in contenders.items()}
        raw[name] = {key: asdict(each) for key, each in series.items()}
        mine = time_at_error(series["flowsim"], TARGET)
        nfev = _counts(series["flowsim"], "nfev")
        floor = None if nfev == "-" else int(nfev) * evaluation_seconds(X)
        cells = [name, f"{np.linalg.cond(X):.0e}", _counts(series["flowsim"], "steps"), _milliseconds(mine)]
        cells.append(_milliseconds(floor))
        for key in ("LSODA", "Radau"):
            theirs = time_at_error(series[key], TARGET)
            ratio = "" if mine is None or theirs is None else f" ({theirs / mine:.1f}x)"
            cells += [_counts(series[key], "nfev"), _milliseconds(theirs) + ratio]
        rows.append(cells)
    return Report(
        "ill_conditioned",
        f"Ill-conditioned features, u*v at alpha = {ALPHA}: milliseconds to an error of {TARGET:g} (ratio to flowsim)",
        ["case", "condition", "steps", "flowsim", "floor", "LSODA nfev", "SciPy LSODA", "Radau nfev", "SciPy Radau"],
        rows,
        ["Error: largest over 200 sample times, relative to the largest coefficient, against Radau at 1e-9.",
         "SciPy integrates in the row space of X, with the exact Jacobian and a NumPy field.",
         "Floor: one exponential per coordinate and two products with X for each of flowsim's evaluations."],
        raw,
    )  # fmt: skip


def _series(name: str, solve: Any, reference: Array, quick: bool) -> Series:
    points = []
    for tolerance in (1e-5, 1e-6, 1e-7) if quick else (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9):
        try:
            (beta, success, counts), _, seconds = timed(lambda t=tolerance: solve(t), 1 if quick else 3)
        except fs.IntegrationError as failure:
            points.append(Point(tolerance, None, [np.nan], claimed_success=False, note=str(failure)[:200]))
            continue
        error = None
        if beta.shape == reference.shape and np.isfinite(beta).all():
            error = float(np.abs(beta - reference).max() / np.abs(reference).max())
        points.append(Point(tolerance, error, seconds, counts, success))
    return Series(name, points)


def _counts(series: Series, what: str) -> str:
    accurate = [point for point in series.points if point.error is not None and point.error <= TARGET]
    return str(min(accurate, key=lambda point: best(point.seconds)).counts[what]) if accurate else "-"


def _milliseconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{1e3 * seconds:.1f}"
