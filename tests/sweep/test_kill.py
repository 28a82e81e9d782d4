"""Whatever is killed, and whenever: what had finished is kept, and the end is the same to the last bit."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from flowsim.sweep import Store

VICTIM = Path(__file__).with_name("victim.py")
WORKERS = 2
#: Points a sweep may have handed out and not yet stored, per worker.
IN_FLIGHT = 4
#: A worker that has just been killed is asked for results that long, by default half a minute.
DASK = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}


def launch(
    folder: Path, points: int, where: str, store: str = "store.sweep", result: str = "result.nc"
) -> subprocess.Popen[bytes]:
    arguments = [store and str(folder / store), str(folder / "log"), str(folder / result), str(points), where]
    return background(folder / "stderr", str(VICTIM), *arguments, start_new_session=True)


def background(log: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    with log.open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(VICTIM.parent), **DASK},
            **options,
        )


def uninterrupted(folder: Path, points: int) -> xarray.Dataset:
    process = launch(folder, points, "1", store="", result="reference.nc")
    assert process.wait(300) == 0, (folder / "stderr").read_text()
    (folder / "log").unlink()
    return read(folder / "reference.nc")


def read(path: Path) -> xarray.Dataset:
    with xarray.open_dataset(path, engine="scipy") as opened:
        return opened.load()


def assert_same_bits(found: xarray.Dataset, expected: xarray.Dataset) -> None:
    xarray.testing.assert_equal(found, expected)
    assert found.attrs["code"] == expected.attrs["code"]
    for name in expected.variables:
        if expected[name].dtype.kind in "fiu":
            assert found[name].values.tobytes() == expected[name].values.tobytes()


def kill_and_resume(folder: Path, points: int, kills: int, where: str, rng: random.Random) -> int:
    """Start again and again, kill at random moments, then let it finish. Returns how often it was really killed."""
    killed = 0
    for _ in range(kills):
        process = launch(folder, points, where)
        random_moment(process, folder / "log", rng)
        if process.poll() is None:
            killed += 1
            # Alone, so that its workers are orphans, or with all of its family.
            (os.kill if rng.random() < 0.5 else os.killpg)(process.pid, signal.SIGKILL)
            process.wait()
        else:  # it finished before: the next kills begin a new sweep
            assert process.returncode == 0, (folder / "stderr").read_text()
            break
    process = launch(folder, points, where)
    assert process.wait(300) == 0, (folder / "stderr").read_text()
    return killed


def random_moment(process: subprocess.Popen[bytes], log: Path, rng: random.Random) -> None:
    """Somewhere in the start, or so many points later."""
    pause = rng.uniform(0.0, 2.0)
    if rng.random() < 0.8:
        target = lines(log) + rng.randint(1, 20)
        wait_until(lambda: lines(log) >= target or process.poll() is not None)
        pause = rng.uniform(0.0, 0.05)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(pause)


def lines(log: Path) -> int:
    return log.read_text().count("\n") if log.exists() else 0


def reached(log: Path, count: int) -> bool:
    return lines(log) >= count


def repeated(folder: Path) -> int:
    """Points that were computed more than once; none may have been skipped."""
    counts = Counter((folder / "log").read_text().split())
    return sum(counts.values()) - len(counts)


def check_killed_sweeps(folder: Path, points: int, kills: int, where: str) -> None:
    rng = random.Random(20)
    expected = uninterrupted(folder, points)
    killed = 0
    while killed < kills:
        for path in folder.glob("store.sweep*"):
            path.unlink()
        (folder / "log").unlink(missing_ok=True)
        now = kill_and_resume(folder, points, kills - killed, where, rng)
        assert_same_bits(read(folder / "result.nc"), expected)
        assert set((folder / "log").read_text().split()) == {str(x) for x in range(points)}
        assert repeated(folder) <= (now + 1) * WORKERS * IN_FLIGHT
        print(f"{now} kills, {repeated(folder)} of {points} points computed again")
        killed += now


def test_a_killed_sweep_resumes_to_the_same_bits(tmp_path: Path) -> None:
    check_killed_sweeps(tmp_path, points=60, kills=3, where=str(WORKERS))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_of_a_sweep_on_processes_lose_nothing(tmp_path: Path) -> None:
    check_killed_sweeps(tmp_path, points=200, kills=50, where=str(WORKERS))


class Cluster:
    """A Dask scheduler and workers, each a process of its own on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._run("dask_scheduler", "--no-dashboard", "--port", "0", "--no-show")
        self.workers = [self.add_worker() for _ in range(WORKERS)]

    def _run(self, command: str, *options: str) -> subprocess.Popen[bytes]:
        process = background(
            self.folder / "dask", "-m", f"distributed.cli.{command}", "--scheduler-file", str(self.file),
            "--host", "127.0.0.1", *options, cwd=self.folder,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def add_worker(self) -> subprocess.Popen[bytes]:
        return self._run("dask_worker", "--no-nanny", "--no-dashboard", "--nthreads", "1")

    def replace_a_worker(self, rng: random.Random) -> None:
        victim = self.workers.pop(rng.randrange(len(self.workers)))
        self.workers.append(self.add_worker())
        victim.kill()
        victim.wait()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed")
    running = Cluster(folder)
    try:
        deadline = time.monotonic() + 60
        while not running.file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield running
    finally:
        running.close()


@pytest.mark.slow
def test_a_dask_cluster_computes_while_workers_die_and_join(tmp_path: Path) -> None:
    expected = uninterrupted(tmp_path, 100)
    with cluster(tmp_path) as dask:
        process = launch(tmp_path, 100, str(dask.file))
        rng = random.Random(1)
        log = tmp_path / "log"
        for finished in (10, 40):
            wait_until(functools.partial(reached, log, finished))
            dask.replace_a_worker(rng)
        assert process.wait(120) == 0, (tmp_path / "stderr").read_text()
    assert_same_bits(read(tmp_path / "result.nc"), expected)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_on_dask_of_workers_and_of_the_sweep_lose_nothing(tmp_path: Path) -> None:
    expected = uninterrupted(tmp_path, 200)
    rng = random.Random(2)
    with cluster(tmp_path) as dask:
        kills = 0
        while kills < 50:
            for path in tmp_path.glob("store.sweep*"):
                path.unlink()
            (tmp_path / "log").unlink(missing_ok=True)
            process = launch(tmp_path, 200, str(dask.file))
            while kills < 50 and process.poll() is None:
                random_moment(process, tmp_path / "log", rng)
                kills += 1
                if rng.random() < 0.5:
                    dask.replace_a_worker(rng)
                elif process.poll() is None:
                    process.kill()
                    process.wait()
                    process = launch(tmp_path, 200, str(dask.file))
            assert process.wait(300) == 0, (tmp_path / "stderr").read_text()
            assert_same_bits(read(tmp_path / "result.nc"), expected)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_family(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_keeps_what_has_finished_and_ends_the_workers(tmp_path: Path) -> None:
    process = launch(tmp_path, 1000, str(WORKERS))
    log = tmp_path / "log"
    wait_until(lambda: reached(log, 20))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) != 0
    with Store(tmp_path / "store.sweep") as store:
        stored = len(store)
    assert 20 - WORKERS * IN_FLIGHT <= stored < 1000
    wait_until(lambda: not has_family(process.pid))


def test_orphaned_workers_leave(tmp_path: Path) -> None:
    process = launch(tmp_path, 1000, str(WORKERS))
    log = tmp_path / "log"
    wait_until(lambda: reached(log, 10))
    process.kill()
    process.wait()
    wait_until(lambda: not has_family(process.pid))


@pytest.mark.slow
def test_two_processes_share_one_store(tmp_path: Path) -> None:
    expected = uninterrupted(tmp_path, 100)
    first = launch(tmp_path, 100, "1", result="first.nc")
    second = launch(tmp_path, 100, "1", result="second.nc")
    assert first.wait(120) == 0
    assert second.wait(120) == 0
    assert_same_bits(read(tmp_path / "first.nc"), expected)
    assert_same_bits(read(tmp_path / "second.nc"), expected)
    assert repeated(tmp_path) < 60  # they share the work, too
    assert np.isfinite(expected["sum"]).all()
