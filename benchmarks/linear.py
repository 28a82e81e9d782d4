"""Two-layer linear networks: width, drift of the imbalance against SciPy's methods at equal error, condition."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

import flowsim as fs
from benchmarks.harness import Report, best, timed
from flowsim.errors import IntegrationError

WIDTHS = (30, 10**3, 10**6)
TOLERANCES = {"native": (1e-3, 1e-5, 1e-7), "LSODA": (1e-6, 1e-9, 1e-11), "BDF": (1e-6, 1e-8, 1e-10),
              "Radau": (1e-5, 1e-7, 1e-9), "DOP853": (1e-5, 1e-8, 1e-11)}  # fmt: skip
#: Largest entry of the error in U V^T at which methods are compared.
TARGET = 1e-6


@numba.njit(cache=True)
def _evaluate(
    S: NDArray[np.float64], U: NDArray[np.float64], V: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The products of one evaluation: S U V^T, which stands for the gradient G, then G V and G^T U."""
    dU, dV = np.empty_like(U), np.empty_like(V)
    W = np.empty((U.shape[0], V.shape[0]))
    G = np.empty_like(W)
    for _ in range(count):
        np.dot(U, V.T, W)
        np.dot(S, W, G)
        np.dot(G, V, dU)
        np.dot(G.T, U, dV)
    return dU, dV


def evaluation_seconds(D: int, m: int, count: int = 20_000) -> float:
    """The floor of one evaluation: its bare products in the basis of D + m columns, compiled, one core."""
    rng = np.random.default_rng(0)
    S, U, V = (rng.standard_normal(shape) for shape in ((D, D), (D, D + m), (m, D + m)))
    _evaluate(S, U, V, 1)
    return best(timed(lambda: _evaluate(S, U, V, count), 5)[2]) / count


def run(quick: bool) -> Report:
    """Least of the repeats; ratios within this run."""
    repeats = 3 if quick else 7
    raw: dict[str, object] = {}
    widths, floor = _widths(repeats, raw)
    rows = [*widths, *_methods(repeats, raw, (1.0,) if quick else (1.0, 100.0))]
    return Report(
        "linear",
        "Two-layer linear networks, D = 20, m = 5",
        ["case", "seconds", "ratio", "error", "imbalance drift"],
        rows,
        [
            "Width: seconds over those of width 30; starts given as arrays, default tolerances.",
            f"Floor: the bare products of flowsim's evaluations at width 30, compiled, take {1e3 * floor[0]:.1f} ms; "
            f"flowsim takes {floor[1] / floor[0]:.1f} times that.",
            f"Methods: width 30, the loosest of three tolerances that reaches an error of {TARGET:g} in U V^T; "
            "the reference is the native method at rtol 1e-12, itself checked by DOP853 in the tests.",
        ],
        raw,
    )


def _problem(condition: float = 1.0) -> fs.Regression:
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((size, 20)))[0] for size in (40, 20))
    X = np.sqrt(40) * (left * np.geomspace(1.0, condition**-0.5, 20)) @ right.T
    return fs.Regression(X, rng.standard_normal((40, 5)))


def _widths(repeats: int, raw: dict[str, object]) -> tuple[list[list[str]], tuple[float, float]]:
    """The rows, and for the least width the seconds of the floor and of flowsim."""
    problem, rows = _problem(10.0), []
    base, floor = None, 0.0
    for width in WIDTHS:
        net = fs.LinearNetwork(width)
        start = fs.linear_start(net, problem)
        traj, _, seconds = timed(
            lambda n=net, s=start: fs.gradient_flow(n, problem, 100.0, alpha=0.1, start=s), repeats
        )  # fmt: skip
        if base is None:
            base, floor = best(seconds), traj.stats["nfev"] * evaluation_seconds(problem.d, problem.n_targets)
        raw[f"width {width}"] = {"seconds": seconds, "steps": traj.stats["steps"], "nfev": traj.stats["nfev"]}
        ratio = f"{best(seconds) / base:.2f}"
        rows.append([f"width {width:,}", f"{best(seconds):.3f}", ratio, "", f"{traj.imbalance_drift:.1e}"])
    assert base is not None
    return rows, (floor, base)


def _methods(repeats: int, raw: dict[str, object], conditions: tuple[float, ...]) -> list[list[str]]:
    rows = []
    for condition in conditions:
        problem, net = _problem(condition), fs.LinearNetwork(30)
        t_end = 20.0 * condition
        reference = fs.gradient_flow(net, problem, t_end, alpha=1.0, rtol=1e-12, t_eval=[t_end / 10, t_end]).beta
        base = None
        for method, tolerances in TOLERANCES.items():
            for rtol in tolerances:
                try:
                    traj, _, seconds = timed(
                        lambda m=method, r=rtol, p=problem, t=t_end, net=net: fs.gradient_flow(
                            net, p, t, alpha=1.0, method=m, rtol=r, atol=r / 100, t_eval=[t / 10, t]
                        ),
                        repeats,
                    )
                except IntegrationError as failure:
                    raw[f"{method} {rtol:g}, condition {condition:g}"] = str(failure)
                    continue
                error = float(np.abs(traj.beta - reference).max())
                raw[f"{method} {rtol:g}, condition {condition:g}"] = {"seconds": seconds, "error": error}
                if error <= TARGET:
                    base = base or best(seconds)
                    rows.append([
                        f"{method}, condition of Sigma {condition:g}", f"{best(seconds):.3f}",
                        f"{best(seconds) / base:.2f}", f"{error:.0e}", f"{traj.imbalance_drift:.1e}",
                    ])  # fmt: skip
                    break
            else:
                rows.append([f"{method}, condition of Sigma {condition:g}", "", "", f"above {TARGET:g}", ""])
    return rows
