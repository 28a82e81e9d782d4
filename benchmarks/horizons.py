"""What a longer horizon costs: flows that have come to rest, from 1e3 to 1e12."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import flowsim as fs
from benchmarks.harness import Report, best, timed
from benchmarks.integrators import evaluation_seconds
from benchmarks.linear import evaluation_seconds as product_seconds

HORIZONS = (1e3, 1e6, 1e9, 1e12)


def cases() -> dict[str, Callable[[float], Any]]:
    """name -> a flow to a horizon."""
    rng = np.random.default_rng(0)
    Z, truth = rng.standard_normal((30, 8)), np.array([2.0, -1.0, 0.5, 0, 0, 0, 0, 0])
    X, noise = 30.0 * Z, 0.1 * rng.standard_normal(30)  # features so large that all are at rest before 1e3
    problem, slow = fs.Regression(X, X @ truth + noise), fs.Regression(Z, Z @ truth + noise)
    plain = fs.DiagonalNetwork("u*v")
    noisy = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.3))
    deep = fs.DiagonalNetwork(depth=3)
    deep_noisy = fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.3))
    general, linear = fs.DiagonalNetwork("tanh(u)*v"), fs.LinearNetwork(width=20)
    several = fs.Regression(Z, Z @ rng.standard_normal((8, 3)))
    return {
        "u*v, alpha 1e-8": lambda T: fs.gradient_flow(plain, problem, T, alpha=1e-8),
        "u*v, noise 0.3": lambda T: fs.gradient_flow(noisy, problem, T, alpha=1e-8),
        "depth 3, alpha 1e-3": lambda T: fs.gradient_flow(deep, problem, T, alpha=1e-3),
        "depth 3, noise 0.3, alpha 1": lambda T: fs.gradient_flow(deep_noisy, slow, T, alpha=1.0),
        "tanh(u)*v, alpha 1e-8": lambda T: fs.gradient_flow(general, problem, T, alpha=1e-8),
        "U V^T, 3 targets, alpha 1e-8": lambda T: fs.gradient_flow(linear, several, T, alpha=1e-8),
    }


def run(quick: bool) -> Report:
    """Milliseconds and steps at each horizon, and the last over the first."""
    rows, raw = [], {}
    for name, flow in cases().items():
        cells, seconds = [name], []
        for horizon in HORIZONS:
            done, _, repeats = timed(lambda T=horizon, f=flow: f(T), 3 if quick else 7)
            seconds.append(best(repeats))
            moved = float(np.abs(done.beta[-1] - done.at(horizon / 2).beta).max())
            raw[f"{name}, {horizon:g}"] = {"seconds": repeats, "steps": done.stats["steps"], "moved": moved}
            cells.append(f"{1e3 * seconds[-1]:.2f} ({done.stats['steps']})")
        linear = "targets" in name
        floor = done.stats["nfev"] * (product_seconds(8, 3) if linear else evaluation_seconds(np.zeros((30, 8))))
        rows.append([*cells, f"{seconds[-1] / seconds[0]:.2f}", f"{1e3 * floor:.2f}"])
    return Report(
        "horizons",
        "Flows to horizons of 1e3 to 1e12: milliseconds (steps)",
        ["flow", *(f"{horizon:g}" for horizon in HORIZONS), "1e12 over 1e3", "floor at 1e12"],
        rows,
        [
            "Floor: one exponential per coordinate and two products with X for each evaluation; of U V^T its products.",
        ],
        raw,
    )
