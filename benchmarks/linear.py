"""Two-layer linear networks: width, SciPy's methods with compiled fields at equal error, condition, scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

import flowsim as fs
from benchmarks.harness import Report, best, limited, timed, timed_in_turn
from flowsim.network.compression import compress

WIDTHS = (30, 10**3, 10**6)
TOLERANCES = {"native": (1e-2, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6), "DOP853": (1e-4, 1e-5, 1e-6, 1e-7, 1e-8),
              "LSODA": (1e-5, 1e-6, 1e-7, 1e-8)}  # fmt: skip
#: The clock of the scales, the scales at which methods are compared, and those whose cost is.
CLOCK = "accelerated"
COMPARED, SCALES = ("1", "1e-3", "1e-8", "1e-60", "1e-1000"), ("1e-8", "1e-60", "1e-1000", "1e-10000")
#: Scales at which an ill-conditioned Sigma is compared as well.
CONDITIONED = COMPARED[:2]
#: A peer that takes so many seconds is stopped.
LIMIT = 8.0
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
    rows = [*_widths(repeats, raw), *_scales(repeats, raw)]
    for alpha in CONDITIONED if quick else COMPARED:
        for condition in (1.0, 100.0) if alpha in CONDITIONED and not quick else (1.0,):
            rows += _methods(repeats, raw, alpha, condition)
    return Report(
        "linear",
        "Two-layer linear networks, D = 20, m = 5",
        ["case", "seconds", "ratio", "floor", "over the floor", "error", "imbalance drift"],
        rows,
        [
            "Width: seconds over those of width 30; starts given as arrays, default tolerances.",
            "Floor: the bare products of flowsim's evaluations in the basis of D + m columns, compiled.",
            "Scale: n = 100, accelerated time 3, default tolerances; seconds over those of 1e-8. Starts are given "
            "as arrays, but for the default one, which is drawn in its reduced size.",
            f"Methods: width 30, the loosest tolerance that reaches an error of {TARGET:g} in U V^T at a tenth of the "
            "time and at its end; SciPy's methods integrate (U, V) in the basis of D + m columns, field and Jacobian "
            "compiled, with an atol of rtol / 100 or of that times alpha, whichever serves them better, and are "
            f"stopped after {LIMIT:g} s; the reference is the native method at rtol 1e-12.",
        ],
        raw,
    )


def problem_of(condition: float = 1.0) -> fs.Regression:
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((size, 20)))[0] for size in (40, 20))
    X = np.sqrt(40) * (left * np.geomspace(1.0, condition**-0.5, 20)) @ right.T
    return fs.Regression(X, rng.standard_normal((40, 5)))


def _floor(traj: fs.Trajectory, seconds: float) -> tuple[float, list[str]]:
    """Seconds of the bare products of a run, and the two cells of the table."""
    D, m = traj.beta.shape[1:]
    floor = traj.stats["nfev"] * evaluation_seconds(D, m, 2000)
    return floor, [f"{floor:.4f}", f"{seconds / floor:.1f}"]


def _widths(repeats: int, raw: dict[str, object]) -> list[list[str]]:
    problem, calls = problem_of(10.0), {}
    for width in WIDTHS:
        net = fs.LinearNetwork(width)
        calls[f"width {width:,}"] = partial(
            fs.gradient_flow, net, problem, 100.0, alpha=0.1, start=fs.linear_start(net, problem)
        )
    return _ratios(timed_in_turn(calls, repeats), 3, raw)


def _ratios(
    found: dict[str, tuple[fs.Trajectory, list[float]]], digits: int, raw: dict[str, object]
) -> list[list[str]]:
    """Rows of runs against the first of them."""
    rows, base = [], best(next(iter(found.values()))[1])
    for name, (traj, seconds) in found.items():
        floor, cells = _floor(traj, best(seconds))
        raw[name] = {"seconds": seconds, "floor": floor, **_counts(traj)}
        ratio = f"{best(seconds) / base:.2f}"
        rows.append([name, f"{best(seconds):.{digits}f}", ratio, *cells, "", f"{traj.imbalance_drift:.1e}"])
    return rows


def _counts(traj: fs.Trajectory) -> dict[str, int]:
    return {key: traj.stats[key] for key in ("steps", "nfev")}


def _scales(repeats: int, raw: dict[str, object]) -> list[list[str]]:
    rng = np.random.default_rng(0)
    problem = fs.Regression(rng.standard_normal((100, 20)), rng.standard_normal((100, 5)))
    calls, wide = {}, (10**6, "1e-100")
    for width, alpha, given in [*((30, alpha, True) for alpha in SCALES), (*wide, True), (*wide, False)]:
        net = fs.LinearNetwork(width)
        name = f"alpha {alpha}" if width < 1000 else f"alpha {alpha}, width {width:,}"
        calls[name if given else f"{name}, default start"] = partial(
            fs.gradient_flow, net, problem, 3.0, alpha=alpha, clock=CLOCK,
            start=fs.linear_start(net, problem) if given else None,
        )  # fmt: skip
    return _ratios(timed_in_turn(calls, repeats), 4, raw)


def _methods(repeats: int, raw: dict[str, object], alpha: str, condition: float) -> list[list[str]]:
    problem, net = problem_of(condition), fs.LinearNetwork(30)
    gamma = fs.network.InitialScale.parse(alpha).gamma
    t_end = 20.0 * condition * max(1.0, gamma / 10.0)  # growth takes gamma
    t_eval = np.array([t_end / 10, t_end])
    start = fs.linear_start(net, problem)
    case = f"alpha {alpha}, condition of Sigma {condition:g}"

    def native(rtol: float) -> fs.Trajectory:
        return fs.gradient_flow(net, problem, t_end, alpha=alpha, start=start, rtol=rtol, t_eval=t_eval)

    reference = native(1e-12).beta
    peer, rows = Peer(problem, start, float(alpha)), []

    def call(method: str, rtol: float, share: float) -> NDArray[np.float64]:
        if method == "native":
            return native(rtol).beta
        return peer.beta(method, t_end, rtol, t_eval, share * rtol / 100)

    calls: dict[str, Callable[[], NDArray[np.float64]]] = {}
    chosen: dict[str, list[tuple[str, float, float]]] = {method: [] for method in TOLERANCES}
    least = dict.fromkeys(TOLERANCES, np.inf)
    for method, tolerances in TOLERANCES.items():
        for share in (1.0,) if method == "native" or float(alpha) in (0.0, 1.0) else (1.0, float(alpha)):
            for rtol in tolerances:
                one = partial(call, method, rtol, share)
                try:
                    with limited(0.0 if method == "native" else LIMIT):
                        error = float(np.abs(one() - reference).max())
                except TimeoutError:
                    break
                least[method] = min(least[method], error)
                if error <= TARGET:
                    calls[name := f"{method} {rtol:g} {share:g}"] = one
                    chosen[method].append((name, rtol, error))
                    break
    timings = timed_in_turn(calls, repeats)
    base = None
    for method, found in chosen.items():
        if not found:
            rows.append([f"{method}, {case}", "", "", "", "", f"never: {least[method]:.0e}", ""])
            continue
        name, rtol, error = min(found, key=lambda each: best(timings[each[0]][1]))
        seconds = timings[name][1]
        raw[f"{method} {rtol:g}, {case}"] = {"seconds": seconds, "error": error}
        base = base or best(seconds)
        cells = _floor(native(rtol), best(seconds))[1] if method == "native" else ["", ""]
        ratio = f"{best(seconds) / base:.2f}"
        rows.append([f"{method}, {case}", f"{best(seconds):.4f}", ratio, *cells, f"{error:.0e}", ""])
    return rows


class Peer:
    """SciPy's methods on (U, V) in the basis of D + m columns, field and Jacobian compiled."""

    def __init__(self, problem: fs.Regression, start: Mapping[str, NDArray[np.float64]], alpha: float) -> None:
        X, Y = np.asarray(problem.X), problem.y
        self.Sigma, self.signal = X.T @ X / len(X), X.T @ Y / len(X)
        small = compress(start["U"], start["V"])
        self.shape = *self.signal.shape, small.width
        self.y0 = alpha * np.concatenate([small.A.ravel(), small.B.ravel()])
        for compiled in (_field, _jacobian):
            compiled(self.y0, self.Sigma, self.signal, small.width)

    def beta(
        self, method: str, t_end: float, rtol: float, t_eval: NDArray[np.float64], atol: float
    ) -> NDArray[np.float64]:
        D, m, k = self.shape
        given: dict[str, object] = {}
        if method == "LSODA":
            given["jac"] = lambda _, y: _jacobian(np.ascontiguousarray(y), self.Sigma, self.signal, k)
        solution = solve_ivp(
            lambda _, y: _field(np.ascontiguousarray(y), self.Sigma, self.signal, k), (0.0, t_end), self.y0,
            method=method, rtol=rtol, atol=max(atol, 1e-300), t_eval=t_eval, **given,
        )  # fmt: skip
        U, V = solution.y[: D * k].T.reshape(-1, D, k), solution.y[D * k :].T.reshape(-1, m, k)
        return np.asarray(U @ np.swapaxes(V, -1, -2))


@numba.njit(cache=True)
def _field(
    y: NDArray[np.float64], Sigma: NDArray[np.float64], signal: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    D, m = signal.shape
    U, V = y[: D * k].reshape(D, k), y[D * k :].reshape(m, k)
    G = signal - np.dot(Sigma, np.dot(U, V.T))
    out = np.empty_like(y)
    out[: D * k] = np.dot(G, V).ravel()
    out[D * k :] = np.dot(G.T, U).ravel()
    return out


@numba.njit(cache=True)
def _jacobian(
    y: NDArray[np.float64], Sigma: NDArray[np.float64], signal: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    D, m = signal.shape
    U, V = y[: D * k].reshape(D, k), y[D * k :].reshape(m, k)
    G, moved, square = signal - np.dot(Sigma, np.dot(U, V.T)), np.dot(Sigma, U), np.dot(V.T, V)
    inner = np.dot(U.T, moved)
    J = np.zeros((len(y), len(y)))
    for a in range(k):
        for i in range(D):
            row = i * k + a
            for b in range(k):
                for j in range(D):
                    J[row, j * k + b] -= Sigma[i, j] * square[b, a]
                for c in range(m):
                    J[row, (D + c) * k + b] -= moved[i, b] * V[c, a]
            for c in range(m):
                J[row, (D + c) * k + a] += G[i, c]
        for c in range(m):
            row = (D + c) * k + a
            for i in range(D):
                J[row, i * k + a] += G[i, c]
                for b in range(k):
                    J[row, i * k + b] -= moved[i, a] * V[c, b]
            for b in range(k):
                J[row, (D + c) * k + b] -= inner[b, a]
    return J
