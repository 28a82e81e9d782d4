"""What the machinery itself costs, beside the work; ratios of one run, for clocks on shared machines lie."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import flowsim as fs
from flowsim.sweep.execution import plan


def spin(x: int, ms: float) -> float:
    """Work of so many milliseconds of CPU time: a busy neighbour makes it last longer, not less."""
    end = time.thread_time() + ms / 1000
    while time.thread_time() < end:
        pass
    return float(x)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_ten_thousand_points_are_planned_stored_and_assembled_in_little_cpu_time(tmp_path: Path) -> None:
    start = time.process_time()
    fs.sweep(lambda x: float(x), {"x": range(2000)}, store=tmp_path / "s", progress=False)
    assert (time.process_time() - start) / 2000 < 1e-3


@pytest.mark.slow
def test_a_point_of_a_millisecond_costs_at_most_a_millisecond_more(tmp_path: Path) -> None:
    n, blocks = 10_000, 10
    fs.sweep(spin, {"x": [0], "ms": 1.0})  # imports
    overheads = []
    for block in range(blocks):
        grid = {"x": range(block * n // blocks, (block + 1) * n // blocks), "ms": 1.0}
        bare = seconds(lambda grid=grid: [spin(x, 1.0) for x in grid["x"]])  # type: ignore[misc]
        swept = seconds(lambda grid=grid: fs.sweep(spin, grid, store=tmp_path / "s", progress=False))  # type: ignore[misc]
        overheads.append((swept - bare) / (n / blocks))
    print("overhead per point in ms:", np.round(1000 * np.array(overheads), 3))
    assert np.median(overheads) < 1e-3


@pytest.mark.slow
def test_ten_thousand_points_of_a_millisecond_on_processes(tmp_path: Path) -> None:
    n = 10_000
    bare = seconds(lambda: two_at_once(n // 2, 1.0))
    swept = seconds(lambda: fs.sweep(spin, {"x": range(n), "ms": 1.0}, workers=2, store=tmp_path / "s", progress=False))
    print(
        f"two bare processes {bare:.2f} s, sweep {swept:.2f} s, overhead per point {1000 * (swept - bare) / n:.3f} ms"
    )
    assert (swept - bare) / n < 1e-3


@pytest.mark.slow
def test_two_processes_are_nearly_twice_as_fast(tmp_path: Path) -> None:
    n, ms = 300, 50.0
    alone = seconds(lambda: [spin(x, ms) for x in range(n)])
    pair = seconds(lambda: two_at_once(n // 2, ms))
    possible = alone / pair  # what this machine gives two processes just now, 2 if nobody else is at work
    one = seconds(lambda: fs.sweep(spin, {"x": range(n), "ms": ms}, store=tmp_path / "a", progress=False))
    two = seconds(lambda: fs.sweep(spin, {"x": range(n), "ms": ms}, workers=2, store=tmp_path / "b", progress=False))
    print(f"possible here {possible:.2f}, sweep {one / two:.2f}")
    assert one / two > 0.9 * min(possible, 2.0)


def test_the_work_per_point_does_not_grow_with_the_grid() -> None:
    small, large = (
        min(seconds(lambda n=n: plan(spin, {"x": range(n), "ms": 1.0})) / n for _ in range(3)) for n in (500, 4000)
    )  # type: ignore[misc]
    assert large < 3 * small


def two_at_once(count: int, ms: float) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=many, args=(count, ms)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def many(count: int, ms: float) -> None:
    for x in range(count):
        spin(x, ms)
