"""One two-layer flow: work and precision of flowsim and of the stiff integrators a skilled user would take.

All peers but the last group integrate the same n unknowns in growth coordinates, y' = scale (b - B beta(B^T y)), with
the same compiled right-hand side; the last group integrates weights, as the obvious code does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Point, Report, Series, best, time_at_error, timed
from benchmarks.peers import Flow, Solve

Array = NDArray[np.float64]

TARGET = 1e-6
#: All contenders run at these; the quick ones also at the others.
ALPHAS = ("1e-8", "1e-60", "1e-1000")
OTHERS = ("1e-2", "1e-16", "1e-10000")
#: A contender that takes so many seconds twice running is spared the tighter tolerances.
_PATIENCE = 3.0


@numba.njit(cache=True)
def _evaluate(X: Array, z: Array, beta: Array, nu: Array, exponentials: bool, count: int) -> None:
    for _ in range(count):
        if exponentials:
            for i in range(len(z)):
                beta[i] = math.exp(z[i])
        np.dot(X, beta, nu)
        np.dot(X.T, nu, z)
        z *= 1e-3


def evaluation_seconds(X: Array, count: int = 10_000, *, exponentials: bool = True) -> float:
    """The floor of one evaluation: one exponential per coordinate and the two products with X, compiled, one core."""
    X = np.ascontiguousarray(X)
    z, beta, nu = np.linspace(-1, 1, X.shape[1]), np.zeros(X.shape[1]), np.empty(X.shape[0])
    _evaluate(X, z, beta, nu, exponentials, 1)
    return best(timed(lambda: _evaluate(X, z, beta, nu, exponentials, count), 5)[2]) / count


def contenders(flow: Flow, quick: bool, every: bool) -> dict[str, tuple[Callable[[], Solve], tuple[float, ...]]]:
    """Name -> (how to prepare it, tolerances)."""
    ladder = (1e-5, 1e-6, 1e-7, 1e-8) if quick else (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
    table: dict[str, tuple[Callable[[], Solve], tuple[float, ...]]] = {
        "flowsim": (flow.flowsim, (1e-3, *ladder)),
        "flowsim, integrator alone": (flow.kernel, (1e-3, *ladder)),
        # Looser tolerances make it crawl, or overflow, far from the target.
        "CyRK BDF": (lambda: flow.cyrk("BDF"), tuple(each for each in ladder if each < 5e-6)),
        "CyRK LSODA": (lambda: flow.cyrk("LSODA"), ladder),
        "SUNDIALS CVODE": (flow.cvode, ladder),
        "SciPy LSODA, Numba": (lambda: flow.scipy("LSODA"), ladder),
        "heyoka": (flow.heyoka, (1e-6, 1e-8, 1e-10)),
        "(u, v) SciPy LSODA": (lambda: flow.weights("LSODA", "u, v"), (1e-6, 1e-9)),
    }
    if not quick:
        table |= {
            "CyRK Radau": (lambda: flow.cyrk("RADAU"), ladder),
            "diffsol BDF": (lambda: flow.diffsol("bdf"), ladder),
            "diffsol Tsit45": (lambda: flow.diffsol("tsit45"), ladder[1:4]),
            "diffrax Tsit5": (lambda: flow.diffrax("Tsit5"), ladder[1:4]),
            "(w+, w-) SciPy LSODA, atol 0": (lambda: flow.weights("LSODA", "w+, w-"), (1e-6, 1e-8, 1e-10)),
        }
    if not quick and every:
        table |= {
            "SciPy LSODA, NumPy": (lambda: flow.scipy("LSODA", compiled=False), ladder),
            "SciPy BDF, Numba": (lambda: flow.scipy("BDF"), ladder),
            "SciPy Radau, Numba": (lambda: flow.scipy("Radau"), ladder[:5]),
            "SciPy DOP853, Numba": (lambda: flow.scipy("DOP853"), ladder[2:]),
            **{
                f"SciPy {method}, NumPy": (lambda name=method: flow.scipy(name, compiled=False), ladder[1:])
                for method in ("BDF", "Radau", "DOP853")
            },
            "diffrax Kvaerno5": (lambda: flow.diffrax("Kvaerno5"), ladder[1:]),
            "heyoka, steps of at most 2": (lambda: flow.heyoka(2.0), (1e-6, 1e-8, 1e-10)),
            "(u, v) SciPy DOP853": (lambda: flow.weights("DOP853", "u, v"), (1e-6, 1e-9)),
            "(w+, w-) SciPy Radau, atol 0": (lambda: flow.weights("Radau", "w+, w-"), (1e-6,)),
        }
    return table


def work_precision(flow: Flow, quick: bool, every: bool) -> tuple[list[Series], list[str]]:
    """Run every contender that is installed over its tolerances."""
    series, missing = [], []
    for name, (prepare, tolerances) in contenders(flow, quick, every).items():
        try:
            solve = prepare()
        except ImportError as error:
            missing.append(f"{name} left out: {error.name} is not installed (the extra `bench` brings it).")
            continue
        points, first_call = [], None
        for tolerance in tolerances:
            try:
                (beta, success, counts), first, _ = timed(lambda t=tolerance, s=solve: s(t), 0)
                repeats = 3 if quick or first > 0.5 else 11
                seconds = timed(lambda t=tolerance, s=solve: s(t), repeats)[2] if first < 3 else [first]
            except Exception as failure:
                points.append(Point(tolerance, None, [math.nan], claimed_success=False, note=str(failure)[:200]))
                continue
            first_call = first if first_call is None else first_call
            points.append(Point(tolerance, flow.error(beta), seconds, counts, success))
            if len(points) > 1 and min(points[-2].seconds[0], first) > _PATIENCE:
                break
        series.append(Series(name, points, first_call))
    return series, missing


def run(quick: bool) -> Report:
    """flowsim against its peers at equal error, for each alpha."""
    alphas = (
        (ALPHAS[0], OTHERS[1], *ALPHAS[1:])
        if quick
        else (*OTHERS[:1], *ALPHAS[:1], *OTHERS[1:2], *ALPHAS[1:], *OTHERS[2:])
    )
    columns = ["contender", *(f"alpha = {alpha}" for alpha in alphas)]
    cells: dict[str, list[str]] = {}
    raw, notes = {}, []
    for column, alpha in enumerate(alphas):
        flow = Flow(alpha)
        series, missing = work_precision(flow, quick, alpha in ALPHAS)
        notes = missing
        raw[alpha] = {"jumps": len(flow.path.jump_times), "series": [asdict(each) for each in series]}
        for name, cell in cells_of(series).items():
            cells.setdefault(name, ["-"] * len(alphas))[column] = cell
        raw[alpha] |= verdict(flow, series)
    return Report(
        name="integrators",
        title=f"One flow, n=20, d=50, u*v: milliseconds to an error of {TARGET:g} in beta (ratio to flowsim)",
        columns=columns,
        rows=[[name, *row] for name, row in cells.items()],
        notes=[*(raw[alpha]["summary"] for alpha in alphas if "summary" in raw[alpha]), *notes,
               "Error: largest over 200 sample times and all coordinates, relative to the largest coefficient, "
               "against Radau at 1e-12; times interpolated between tolerances; compilation apart.",
               "Peers without `(u, v)` or `(w+, w-)` integrate growth coordinates, with one compiled right-hand side."],
        raw=raw,
    )  # fmt: skip


def cells_of(series: list[Series]) -> dict[str, str]:
    """Contender -> milliseconds to the target error; flowsim is the first."""
    own = time_at_error(series[0], TARGET)
    return {each.name: _cell(each, own) for each in series}


def verdict(flow: Flow, series: list[Series]) -> dict[str, Any]:
    """Ratio of the fastest peer to flowsim, and a sentence; empty where one of them does not reach the target."""
    own = time_at_error(series[0], TARGET)
    rivals = {each.name: time_at_error(each, TARGET) for each in series if not each.name.startswith("flowsim")}
    reached = {name: seconds for name, seconds in rivals.items() if seconds is not None}
    if own is None or not reached:
        return {}
    fastest = min(reached, key=lambda name: reached[name])
    accurate = [point for point in series[0].points if point.error is not None and point.error <= TARGET]
    nfev = max(accurate, key=lambda point: point.tolerance).counts["nfev"]
    floor = nfev * evaluation_seconds(flow.problem.X)
    summary = (
        f"alpha = {flow.alpha}: flowsim {1e3 * own:.2f} ms; fastest peer {fastest} {1e3 * reached[fastest]:.2f} ms, "
        f"{reached[fastest] / own:.1f} times as long. The floor of flowsim's "
        f"evaluations (one exponential per coordinate, two products with X) is {1e3 * floor:.2f} ms, "
        f"flowsim {own / floor:.1f} times that."
    )
    return {"ratio": reached[fastest] / own, "floor": floor, "summary": summary}


def _cell(series: Series, own: float | None) -> str:
    seconds = time_at_error(series, TARGET)
    if seconds is not None:
        ratio = f" ({seconds / own:.1f}x)" if own else ""
        return f"{1e3 * seconds:.2f}{ratio}"
    known = [point for point in series.points if point.error is not None]
    if not known:
        return "failed"
    most_accurate = min(known, key=lambda point: point.error)  # type: ignore[arg-type, return-value]
    word = "claims success" if most_accurate.claimed_success else "says it failed"
    return f"never: error {most_accurate.error:.0e} in {1e3 * best(most_accurate.seconds):.0f} ms, {word}"
