"""Losses other than squares: one logistic flow beside the stiff integrators, separable data far below any float."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

import flowsim as fs
from benchmarks.harness import Report, best, timed
from benchmarks.integrators import TARGET, cells_of, evaluation_seconds, verdict, work_precision
from benchmarks.peers import CAP, Flow

Array = NDArray[np.float64]

ALPHAS = ("1e-8", "1e-60")
#: Digits of the loss at the end on separable data.
DIGITS = (100, 10_000, 1_000_000)
_LN10 = math.log(10.0)


@numba.njit(cache=True)
def rhs(y: Array, B: Array, b: Array, scale: float, gamma: float, out: Array) -> None:
    """``scale / unit * b / (1 + exp(b f))``, ``f = unit B beta``, ``unit = sqrt(n scale)``; b: labels."""
    r, d = B.shape
    unit = math.sqrt(r * scale)
    for a in range(r):
        out[a] = 0.0
    for i in range(d):
        z = 0.0
        for a in range(r):
            z += B[a, i] * y[a]
        beta = 0.5 * (math.exp(min(2 * (z - gamma), CAP)) - math.exp(min(2 * (-z - gamma), CAP)))
        for a in range(r):
            out[a] += B[a, i] * beta
    for a in range(r):
        out[a] = scale / unit * b[a] / (1.0 + math.exp(min(b[a] * unit * out[a], 700.0)))


@numba.njit(cache=True)
def jacobian(y: Array, B: Array, scale: float, gamma: float, out: Array) -> None:
    """``-scale W B D B^T`` with the coordinates that count."""
    r, d = B.shape
    unit = math.sqrt(r * scale)
    f = np.zeros(r)
    out[:] = 0.0
    for i in range(d):
        z = 0.0
        for a in range(r):
            z += B[a, i] * y[a]
        up, down = math.exp(min(2 * (z - gamma), CAP)), math.exp(min(2 * (-z - gamma), CAP))
        if up + down < 1e-14:
            continue
        for a in range(r):
            f[a] += unit * B[a, i] * 0.5 * (up - down)
            for c in range(r):
                out[a, c] -= scale * (up + down) * B[a, i] * B[c, i]
    for a in range(r):
        tail = math.exp(-abs(f[a]))
        for c in range(r):
            out[a, c] *= tail / (1.0 + tail) ** 2


class LogisticFlow(Flow):
    """Random labels on Gaussian features: with d > n they can be separated, and beta grows like the logarithm of t."""

    rhs, jacobian = staticmethod(rhs), staticmethod(jacobian)
    diffsl = "{scale!r} / {unit!r} * b_i / (1.0 + exp(min({unit!r} * b_i * q_i, 700.0)))"

    @staticmethod
    def draw(rng: np.random.Generator, n: int, d: int) -> fs.Problem:
        X = rng.standard_normal((n, d))
        return fs.Problem(X, np.sign(rng.standard_normal(n)), "logistic")

    def pull(self, q: Any, b: Any, exp: Any) -> Any:
        return self.scale / self.unit * b / (1.0 + exp(self.unit * b * q))

    def target(self) -> Array:
        return self.problem.y

    def gradient(self, beta: Array) -> Array:
        X, y = self.problem.X, self.problem.y
        return X.T @ (-y / (1.0 + np.exp(y * (X @ beta)))) / self.problem.n


def separable_run(loss: str, digits: int) -> fs.Trajectory:
    """20 x 50 separable data from alpha = 1 to a loss of 10^-digits."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 50))
    problem = fs.Problem(X, np.sign(X @ np.r_[1.0, -1.0, 0.5, np.zeros(47)]), loss)
    end = digits * _LN10
    return fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, end, alpha=1.0, clock="log_loss", t_eval=[end])


def run(quick: bool) -> Report:
    """Peers at equal error for both alphas; counts and seconds of separable data."""
    columns = ["contender", *(f"alpha = {alpha}" for alpha in ALPHAS)]
    cells: dict[str, list[str]] = {}
    raw: dict[str, Any] = {}
    missing: list[str] = []
    for column, alpha in enumerate(ALPHAS):
        flow = LogisticFlow(alpha)
        series, missing = work_precision(flow, quick, every=True)
        for name, cell in cells_of(series).items():
            cells.setdefault(name, ["-"] * len(ALPHAS))[column] = cell
        raw[alpha] = {"series": [asdict(each) for each in series], **verdict(flow, series)}
    deep = []
    for loss in ("logistic", "exponential"):
        for digits in DIGITS[:2] if quick else DIGITS:
            found, _, seconds = timed(lambda loss=loss, digits=digits: separable_run(loss, digits), 1 if quick else 3)
            counts = {key: value for key, value in found.stats.items() if isinstance(value, int)}
            floor = counts["nfev"] * evaluation_seconds(np.zeros((20, 50)))
            raw[f"separable, {loss}, 1e-{digits}"] = {"seconds": seconds, "floor": floor, **counts}
            deep.append(
                f"{loss} to 1e-{digits}: {best(seconds):.2f} s, {counts['steps']} steps, floor {1e3 * floor:.1f} ms"
            )
    return Report(
        "losses",
        f"One flow with the logistic loss, n=20, d=50, u*v: milliseconds to an error of {TARGET:g} in beta (ratio to "
        "flowsim)",
        columns,
        [[name, *row] for name, row in cells.items()],
        [
            *(raw[alpha]["summary"] for alpha in ALPHAS if "summary" in raw[alpha]), *missing,
            "Separable data, n=20, d=50, alpha = 1, clock log_loss: " + "; ".join(deep) + ". Floor: one exponential "
            "per coordinate and two products with X for each evaluation.",
            "Error, coordinates and timing as in the case of squares; horizon 20 ln(1/alpha).",
        ],
        raw,
    )  # fmt: skip
