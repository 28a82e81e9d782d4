"""What the first use of each entry point costs on a machine that has compiled nothing yet."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Report
from flowsim.solvers.compilation.claims import Claim

TRIVIAL = "import numba, numpy; f = numba.njit(lambda x: x.sum()); f(numpy.ones(3))"
_RUN = [sys.executable, "-m", "flowsim", "run", "--no-progress"]
#: Of a trivial function and of a first run, each with empty caches.
_REPEATS = 3
_SMALL = "import flowsim as fs; p = fs.datasets.sparse_regression(20, 6, sparsity=2, seed=1); "
_TARGETS = "import numpy as np; q = fs.Problem(p.X, p.X @ np.random.default_rng(2).standard_normal((6, 3))); "
_LARGER = (
    "import flowsim as fs, numpy as np; r = np.random.default_rng(0); X = r.standard_normal((100, 20)); "
    "q = fs.Problem(X, X @ r.standard_normal((20, 5))); "
)
_SIGNS = "import numpy as np; q = fs.Problem(p.X, np.sign(p.y), loss='logistic'); "

#: Entry points after a first `flowsim run`: commands of the command line, or code.
DOORS = {
    "flowsim compare": ["compare"],
    "flowsim limit": ["limit", "--alphas", "1e-10,1e-100"],
    "flowsim certify": ["certify", "--theorem", "jump-times"],
    "flowsim run --width 8": ["run", "--width", "8"],
    "flowsim limit --width 8": ["limit", "--width", "8", "--alphas", "1e-10,1e-100"],
    "flowsim compare --width 8": ["compare", "--width", "8"],
    "flowsim certify --width 8": ["certify", "--width", "8"],
    "depth 3": _SMALL + "fs.gradient_flow(fs.DiagonalNetwork(depth=3), p, 5.0, alpha=0.01)",
    "general formula": _SMALL + "fs.gradient_flow(fs.DiagonalNetwork('tanh(u)*v'), p, 5.0, alpha=0.01)",
    "noise of u*v": _SMALL + "fs.gradient_flow(fs.DiagonalNetwork('u*v', noise=fs.GaussianNoise(.1)), p, 5.0)",
    "linear network": _SMALL + "fs.gradient_flow(fs.LinearNetwork(8), p, 5.0)",
    "linear network at 1e-60": _SMALL
    + "fs.gradient_flow(fs.LinearNetwork(8), p, 3., alpha='1e-60', clock='accelerated')",
    "linear network with noise at 1e-60": _SMALL
    + _TARGETS
    + "fs.gradient_flow(fs.LinearNetwork(8, noise=fs.GaussianNoise(.05)), q, 3., alpha='1e-60', clock='accelerated')",
    "linear network at 1e-60, logistic loss": _SMALL
    + _SIGNS
    + "fs.gradient_flow(fs.LinearNetwork(8), q, 3., alpha='1e-60', clock='accelerated')",
    "linear network, 20 features, 5 targets, at 1e-60": _LARGER
    + "fs.gradient_flow(fs.LinearNetwork(30), q, 3., alpha='1e-60', clock='accelerated')",
    "certificates of a linear network": _SMALL + _TARGETS + "fs.certify(fs.LinearNetwork(8), q)",
    "logistic loss": _SMALL + _SIGNS + "fs.gradient_flow(fs.DiagonalNetwork('u*v'), q, 5.0)",
    "gradient descent": _SMALL + "fs.gradient_descent(fs.DiagonalNetwork('u*v'), p, .05, 100, alpha=.1)",
    "descent of a linear network at 1e-60": _SMALL
    + "fs.gradient_descent(fs.LinearNetwork(8), p, .05, 2000, alpha='1e-60')",
    "descent of a linear network": _SMALL + "fs.gradient_descent(fs.LinearNetwork(8), p, .05, 2000, alpha=.1)",
    "descent, depth 3": _SMALL + "fs.gradient_descent(fs.DiagonalNetwork(depth=3), p, .05, 2000, alpha=.1)",
    "descent, general formula": _SMALL + "fs.gradient_descent(fs.DiagonalNetwork('tanh(u)*v'), p, .01, 2000, alpha=.1)",
}


def seconds(command: list[str], cache: Path, folder: Path) -> tuple[float, float]:
    """Seconds by the clock, and of processor time, of a process of its own and those that it starts and waits for."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"FLOWSIM_CACHE_DIR": str(cache), "XDG_CACHE_HOME": str(cache), "MPLBACKEND": "Agg"}
    environment |= {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    del environment["FLOWSIM_INTERPRET"]
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder)
    passed, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def settle(cache: Path, quiet: float = 3.0) -> None:
    """Wait until no process has compiled for some seconds: what a command leaves to others would slow the next."""
    last = time.monotonic()
    while time.monotonic() < last + quiet:
        claims = [Claim(path) for path in cache.rglob("*.lock")]
        if not all(claim.take() for claim in claims):
            last = time.monotonic()
        for claim in claims:
            claim.release()
        time.sleep(0.5)


def _twice(command: list[str], cache: Path, folder: Path) -> tuple[tuple[float, float], tuple[float, float]]:
    """The first use and a later one."""
    cache.mkdir(exist_ok=True)
    cold = seconds(command, cache, folder)
    settle(cache)
    return cold, seconds(command, cache, folder)


def _row(name: str, cold: tuple[float, float], warm: tuple[float, float], added: str) -> list[str]:
    return [name, *(f"{value:.1f}" for value in (*cold, *warm)), added]


def run(quick: bool) -> Report:
    """Seconds of each entry point in a fresh process, with empty caches and again."""
    rows, raw = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        caches = folder / "first"
        caches.mkdir()
        trivial = sorted(seconds([sys.executable, "-c", TRIVIAL], caches, folder) for _ in range(_REPEATS))
        rows.append(["one trivial Numba function", *(f"{value:.1f}" for value in trivial[_REPEATS // 2]), "", "", ""])
        runs = [_twice(_RUN, folder / f"{number}", folder) for number in range(_REPEATS - 1)]
        runs = sorted([*runs, _twice(_RUN, caches, folder)])
        cold, warm = runs[_REPEATS // 2]
        raw = {"trivial": trivial[_REPEATS // 2], "flowsim run": [cold, warm], "repeats": [trivial, runs]}
        rows.append(_row("flowsim run, the whole command", cold, warm, ""))
        for name, door in list(DOORS.items())[: 2 if quick else None]:
            command = (
                [sys.executable, "-c", door] if isinstance(door, str) else [sys.executable, "-m", "flowsim", *door]
            )
            own = folder / "own"
            shutil.copytree(caches, own)
            cold, warm = _twice(command, own, folder)
            shutil.rmtree(own)
            raw[name] = [cold, warm]
            rows.append(_row(name, cold, warm, f"{cold[0] - warm[0]:.1f}"))
    notes = [
        "A command compiles on two cores, in processes that it does not wait for the end of: their processor time is "
        "not counted. A later use begins when they have ended.",
        "Seconds by the clock mean something on an idle machine only.",
        f"A trivial function and the first run: the median of {_REPEATS}, each with empty caches. Every further door "
        "is opened once, with what a first run has left in the cache.",
    ]
    columns = ["what", "first", "processor", "again", "processor", "the first adds"]
    return Report("first_use", "First use, nothing compiled yet: seconds", columns, rows, notes, raw)
