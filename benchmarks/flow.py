"""The native integrator against peers on one flow: work at equal error, in one run.

    python -m benchmarks.flow [--repeats 15] [--output flow.json]

The flow: ``u*v`` from (sqrt(2) alpha, 0), n = 20, d = 50 Gaussian, about 30 jumps up to accelerated time 20. Every
method works in growth coordinates with the same compiled right-hand side; SciPy also with NumPy's. For each method
the loosest tolerance of a ladder whose largest error in beta, over a common grid of times, is at most the target is
timed. Compilation is not. Peers store their steps only; the native run keeps its dense output. CyRK takes part if it
is installed. A peer that never reaches the target is listed with what it reached.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from scipy.integrate import solve_ivp

from flowsim.solvers import SeparableFlow, integrate_ensemble, integrate_separable

TARGET = 1e-6
EXPONENTS = (8, 60)
GRID = 4000

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((20, 50)), rng.standard_normal(20)
N, D = X.shape


@njit(fastmath=True)
def field(nu, gamma, out):
    """``y - X beta``, with the exponentials that are not negligible."""
    out[:] = Y
    for j in range(D):
        z = 0.0
        for i in range(N):
            z += X[i, j] * nu[i]
        z /= N
        beta = 0.0
        up, down = 2.0 * (z - gamma), 2.0 * (-z - gamma)
        # A predictor may overshoot: exp goes on as a straight line.
        if up > -60.0:
            beta += 0.5 * math.exp(min(up, 60.0)) * (1.0 + max(up - 60.0, 0.0))
        if down > -60.0:
            beta -= 0.5 * math.exp(min(down, 60.0)) * (1.0 + max(down - 60.0, 0.0))
        if beta != 0.0:
            for i in range(N):
                out[i] -= X[i, j] * beta


def flow_of(gamma: float) -> SeparableFlow:
    half = np.full((2, D), -math.log(2.0) - 2.0 * gamma)
    sign = np.repeat([[1.0], [-1.0]], D, axis=1)
    return SeparableFlow(X, Y, N, half, sign, 2 * sign, np.zeros((2, D)))


def numpy_field(gamma: float) -> Callable[[float, np.ndarray], np.ndarray]:
    def rhs(t: float, nu: np.ndarray) -> np.ndarray:
        z = nu @ X / N
        beta = 0.5 * (np.exp(2 * np.minimum(z - gamma, 30)) - np.exp(2 * np.minimum(-z - gamma, 30)))
        return Y - X @ beta

    return rhs


def peers(gamma: float, end: float) -> dict[str, Callable[[float, np.ndarray | None], np.ndarray | None]]:
    """name -> run(tolerance, times): nu at the times, (K, n), or None if none were asked for."""
    plain = numpy_field(gamma)

    def compiled(t: float, nu: np.ndarray) -> np.ndarray:
        out = np.empty(N)
        field(np.ascontiguousarray(nu), gamma, out)
        return out

    def scipy(method: str, rhs: Callable) -> Callable:
        def run(tol: float, times: np.ndarray | None) -> np.ndarray | None:
            solution = solve_ivp(rhs, (0.0, end), np.zeros(N), method, times, rtol=1e-13, atol=tol)
            return solution.y.T if times is not None and solution.success else None

        return run

    found: dict[str, Callable] = {
        "SciPy LSODA, NumPy": scipy("LSODA", plain),
        "SciPy LSODA, compiled": scipy("LSODA", compiled),
        "SciPy BDF, compiled": scipy("BDF", compiled),
    }
    try:
        from CyRK import nb_diffeq_addr, nbsolve2_ivp
    except ImportError:
        return found
    import numba

    def callback(dy, t, y, args):
        field(numba.carray(y, N), gamma, numba.carray(dy, N))

    address = nb_diffeq_addr(callback)

    def cyrk(method: str) -> Callable:
        def run(tol: float, times: np.ndarray | None) -> np.ndarray | None:
            solution = nbsolve2_ivp(
                address, (0.0, end), np.zeros(N), method=method, t_eval=times, rtol=1e-13, atol=tol,
                max_num_steps=400_000,
            )  # fmt: skip
            return solution.y.T if times is not None and solution.success else None

        return run

    return found | {"CyRK BDF": cyrk("BDF"), "CyRK LSODA": cyrk("LSODA"), "CyRK Radau": cyrk("RADAU")}


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


def study(exponent: int, repeats: int) -> dict[str, Any]:
    gamma = exponent * math.log(10)
    end, flow = 20 * gamma, flow_of(gamma)
    tight = integrate_separable(flow, end, tol=1e-11)
    # Half of the times where steps are short: in the jumps.
    times = np.unique(np.concatenate([np.linspace(0, end, GRID), tight.t[:: max(1, len(tight.t) // GRID)]]))
    reference = flow.beta(tight(times), times)

    def error(z: np.ndarray) -> float:
        return float(np.abs(flow.beta(z, times) - reference).max())

    rows: dict[str, Any] = {}
    ladder = 10.0 ** -np.arange(4.0, 9.01, 0.25)
    for tol in ladder:
        reached = error(integrate_separable(flow, end, tol=tol)(times))
        if reached <= TARGET:
            break
    runs = {"native": (tol, reached, lambda: integrate_separable(flow, end, tol=tol))}
    for name, run in peers(gamma, end).items():
        best = math.inf
        for loose in ladder * 1e-2:
            nu = run(loose, times)
            reached = math.inf if nu is None else error(nu @ X / N)
            best = min(best, reached)
            if reached <= TARGET:
                runs[name] = (loose, reached, lambda run=run, loose=loose: run(loose, None))
                break
        else:
            rows[name] = {"reached": best, "seconds": None}
    for name, (tol, reached, call) in runs.items():
        call()
        rows[name] = {"tolerance": float(tol), "reached": reached, "seconds": timed(call, repeats)}
    native = min(rows["native"]["seconds"])
    print(f"\nalpha = 1e-{exponent}, largest error in beta <= {TARGET:g}")
    for name, row in rows.items():
        if row["seconds"] is None:
            print(f"  {name:24s} reaches {row['reached']:.1e} only")
        else:
            best = min(row["seconds"])
            print(f"  {name:24s} {1e3 * best:9.2f} ms  {best / native:6.1f} x   error {row['reached']:.1e}")
    return rows


def ensemble(repeats: int) -> dict[str, list[float]]:
    """Many flows on one and on two threads."""
    gammas = np.linspace(8, 60, 64) * math.log(10)
    flows, ends = [flow_of(gamma) for gamma in gammas], [20 * gamma for gamma in gammas]
    seconds = {str(k): timed(lambda k=k: integrate_ensemble(flows, ends, workers=k), repeats) for k in (1, 2)}
    print(f"\n64 flows: two threads {min(seconds['1']) / min(seconds['2']):.2f} times as fast as one")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    report = {
        "machine": platform.processor() or platform.machine(),
        "target": TARGET,
        "flows": {f"1e-{exponent}": study(exponent, options.repeats) for exponent in EXPONENTS},
        "ensemble": ensemble(max(3, options.repeats // 5)),
    }
    if options.output:
        options.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
