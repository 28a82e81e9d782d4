"""General formulas, depth, and noise at depth 3: who is right, and what it takes, beside SciPy in the weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flowsim as fs
from benchmarks.harness import Report, best, limited, timed
from benchmarks.integrators import evaluation_seconds
from flowsim.symbolic import kernels

Array = NDArray[np.float64]

#: Relative error of the end beyond which an answer is called wrong.
WRONG = 1e-3
PEERS = ("LSODA", "Radau", "DOP853")
#: A run that takes more seconds is timed once; a peer that takes more than LIMIT is stopped.
LONG, LIMIT = 1.0, 8.0
#: Copies of the coordinates in one call of a kernel whose time is taken, which leave nothing of the call's own.
COPIES = 1000


def problem() -> fs.Regression:
    """Coefficients within the reach of every formula: sin(u*v) has a critical point at 1, u*v + u**2*v**2 at -1/4."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 6))
    return fs.Regression(X, X @ np.array([0.75, -0.15, 0.5, 0, 0, 0]) + 0.02 * rng.standard_normal(30))


#: name -> (network, alpha)
CASES: dict[str, tuple[Callable[[], fs.DiagonalNetwork], str]] = {
    **{
        f"{formula}, alpha {alpha}": (lambda f=formula: fs.DiagonalNetwork(f), alpha)
        for formula in ("tanh(u)*v", "sin(u*v)", "u*v + u**2*v**2") for alpha in ("1e-3", "1e-8", "1e-30")
    },
    **{
        f"depth {depth}, alpha {alpha}": (lambda L=depth: fs.DiagonalNetwork(depth=L), alpha)
        for depth in (3, 4) for alpha in ("1e-2", "1e-4")
    },
    "depth 3, noise 0.3, alpha 1": (lambda: fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.3)), "1"),
}  # fmt: skip


def run(quick: bool) -> Report:
    """The end of each run against that of flowsim at 1e-10, and milliseconds."""
    data, rows, raw = problem(), [], {}
    for name, (make, alpha) in CASES.items():
        net = make()
        clock = "time" if net.noise is not None else "accelerated"
        end = 1e3 if net.noise is not None else 3.0 * float(fs.saddle_to_saddle(net, data).jump_times[-1])

        def flow(net: Any = net, alpha: str = alpha, end: float = end, clock: str = clock, **options: Any) -> Any:
            return fs.gradient_flow(net, data, end, alpha=alpha, clock=clock, t_eval=[0.0, end], **options)

        tight = 1e-10 if net.noise is None else 1e-8  # noise at depth 3 takes minutes at 1e-10
        reference = flow(rtol=tight, atol=tight / 1e3).beta[-1]
        cell, own = _measured(flow, reference, quick)
        own["floor"] = own["nfev"] * evaluation_floor(net, data)
        raw[f"{name}, flowsim"], cells = own, [name, cell, f"{1e3 * own['floor']:.2f}"]
        for method in PEERS:
            peer = partial(flow, method=method, coordinates="weights")
            with suppress(fs.IntegrationError):
                peer(end=1e-9 * end)  # compiled, apart from the limit
            cell, raw[f"{name}, {method}"] = _measured(peer, reference, quick, LIMIT)
            cells.append(cell)
        rows.append(cells)
    return Report(
        "formulas", "General formulas, depth and noise: milliseconds at default tolerances, and the error of the end",
        ["case", "flowsim", "floor", *(f"weights, SciPy {method}" for method in PEERS)], rows,
        [f"Error: of the end, relative to the largest coefficient, against a run at 1e-10 (noise: 1e-8). "
         f"Wrong: above {WRONG:g}. Peers are stopped after {LIMIT:g} s.",
         "Floor: for each of flowsim's evaluations value and gradient of the formula in every coordinate (under noise "
         "the expected field), by the generated kernels, and two products with X.",
         "SciPy's methods are given flowsim's compiled field and Jacobian in the weights; a run of theirs is refused "
         "where its errors decide the end."],
        raw,
    )  # fmt: skip


def evaluation_floor(net: fs.DiagonalNetwork, data: fs.Regression) -> float:
    """Seconds of one evaluation: the generated kernels on every coordinate, and the two products with X."""
    made, shape = kernels(net), (len(net.weights), COPIES * data.d)
    w, kind = np.random.default_rng(0).uniform(0.1, 1.0, shape), net.kinds(shape[1])
    value, slope = np.empty(shape[1]), np.empty(shape)

    def evaluate() -> None:
        if net.noise is not None:
            made.field(w, kind, net.noise.stds(net.weights), value, np.ones(shape[1]), slope)
        else:
            made.value(w, kind, value)
            made.gradient(w, kind, slope)

    value[:] = 1.0
    return best(timed(evaluate, 20)[2]) / COPIES + evaluation_seconds(data.X, exponentials=False)


def _measured(
    solve: Callable[[], Any], reference: Array, quick: bool, limit: float = 0.0
) -> tuple[str, dict[str, Any]]:
    try:
        with limited(limit):
            done, first, _ = timed(solve, 0)
        seconds = [first] if first > LONG else timed(solve, 1 if quick else 5)[2]
    except fs.IntegrationError as failure:
        return "refused", {"failure": str(failure)}
    except TimeoutError as failure:
        return f"> {1e3 * limit:.0f}", {"failure": str(failure)}
    error = float(np.abs(done.beta[-1] - reference).max() / np.abs(reference).max())
    verdict = " **wrong**" if error > WRONG else ""
    return f"{1e3 * best(seconds):.2f}, {error:.0e}{verdict}", {
        "seconds": seconds,
        "error": error,
        "nfev": done.stats["nfev"],
    }
