"""Many features end to end: the flow, and everything a user does with it, `flowsim run` included."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

import flowsim as fs
from benchmarks.harness import Report, best, timed
from benchmarks.integrators import evaluation_seconds

NET, ALPHA = fs.DiagonalNetwork("u*v"), "1e-100"


def dense(d: int) -> fs.Regression:
    """60 rows, twenty coefficients that are not zero, noise of size one."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, d))
    return fs.Regression(X, X[:, :20] @ rng.standard_normal(20) + rng.standard_normal(60))


def sparse(d: int) -> fs.Regression:
    """200 rows of density 0.001."""
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((200, d), density=1e-3, rng=rng, format="csr")
    X.data = rng.standard_normal(X.nnz)
    return fs.Regression(X, rng.standard_normal(200))


def steps_of(problem: fs.Regression, repeats: int, jumps: int | None = None) -> dict[str, list[float]]:
    """Seconds of each thing a user does."""
    from matplotlib import pyplot as plt

    path, _, limit = timed(lambda: fs.saddle_to_saddle(NET, problem, max_jumps=jumps), repeats)
    end = (1.5 if jumps is None else 1.05) * float(path.jump_times[-1])
    run, _, flow = timed(lambda: fs.gradient_flow(NET, problem, end, alpha=ALPHA, clock="accelerated"), repeats)
    seconds = {"limit": limit, "flow": flow}
    seconds["floor of the flow"] = [run.stats["passes"] * _pass_seconds(problem)]
    seconds["jump times"] = timed(lambda: fs.studies.measured_jump_times(run, path), repeats)[2]

    def figure() -> None:
        drawn = fs.plot.overview(run, path)
        drawn.canvas.draw()
        plt.close(drawn)

    seconds["figure"] = timed(figure, repeats)[2]
    return seconds


def _pass_seconds(problem: fs.Regression) -> float:
    if isinstance(problem.X, np.ndarray):
        return evaluation_seconds(problem.X, 100)
    z = np.linspace(-1, 1, problem.d)
    return best(timed(lambda: problem.X.T @ (problem.X @ np.exp(z)), 5)[2])


def command(problem: fs.Regression) -> dict[str, list[float]]:
    """`flowsim run` on a table, and starting it on a small one."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        small = fs.Regression(np.asarray(problem.X)[:, :3], problem.y)
        for name, each in (("start-up", small), ("flowsim run", problem)):
            table = Path(folder) / "table.csv"
            header = ",".join([*(f"x{i}" for i in range(each.d)), "y"])
            np.savetxt(table, np.column_stack([each.X, each.y]), delimiter=",", header=header, comments="")
            arguments = [sys.executable, "-m", "flowsim", "run", str(table), "--target", "y", "--alpha", ALPHA]
            for repeat in range(2):  # the first may compile
                began = time.perf_counter()
                subprocess.run(
                    [*arguments, "--out", f"{folder}/{name}{repeat}"], check=True, capture_output=True, cwd=folder
                )
                seconds[name] = [time.perf_counter() - began]
    return seconds


def run(quick: bool) -> Report:
    """Seconds of each step, over those of the flow."""
    sizes: dict[str, Any] = {"dense 60 x 7,000": lambda: dense(1000 if quick else 7000)}
    if not quick:
        sizes["sparse 200 x 1,000,000, ten jumps"] = lambda: sparse(1_000_000)
    rows, raw = [], {}
    for name, make in sizes.items():
        problem = make()
        seconds = steps_of(problem, 1 if quick else 3, None if "dense" in name else 10)
        if "dense" in name:
            seconds |= command(problem)
        raw[name] = seconds
        flow = best(seconds["flow"])
        for step, repeats in seconds.items():
            rows.append([name, step, f"{best(repeats):.3f}", f"{best(repeats) / flow:.1f}"])
    return Report(
        "features",
        f"Many features, u*v at alpha = {ALPHA}: seconds",
        ["case", "step", "seconds", "over the flow"],
        rows,
        ["Floor: one exponential per coordinate and the two products with X for each pass over all features."],
        raw,
    )
