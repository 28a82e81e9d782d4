"""What the first use of each entry point costs on a machine that has compiled nothing yet."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Report

TRIVIAL = "import numba, numpy; f = numba.njit(lambda x: x.sum()); f(numpy.ones(3))"
_RUN = [sys.executable, "-m", "flowsim", "run", "--no-progress"]
_SMALL = "import flowsim as fs; p = fs.datasets.sparse_regression(20, 6, sparsity=2, seed=1); "
_SIGNS = "import numpy as np; q = fs.Problem(p.X, np.sign(p.y), loss='logistic'); "

#: Entry points after a first `flowsim run`: commands of the command line, or code.
DOORS = {
    "flowsim compare": ["compare"],
    "flowsim limit": ["limit", "--alphas", "1e-10,1e-100"],
    "flowsim certify": ["certify", "--theorem", "jump-times"],
    "depth 3": _SMALL + "fs.gradient_flow(fs.DiagonalNetwork(depth=3), p, 5.0, alpha=0.01)",
    "general formula": _SMALL + "fs.gradient_flow(fs.DiagonalNetwork('tanh(u)*v'), p, 5.0, alpha=0.01)",
    "noise of u*v": _SMALL + "fs.gradient_flow(fs.DiagonalNetwork('u*v', noise=fs.GaussianNoise(.1)), p, 5.0)",
    "linear network": _SMALL + "fs.gradient_flow(fs.LinearNetwork(8), p, 5.0)",
    "logistic loss": _SMALL + _SIGNS + "fs.gradient_flow(fs.DiagonalNetwork('u*v'), q, 5.0)",
    "gradient descent": _SMALL + "fs.gradient_descent(fs.DiagonalNetwork('u*v'), p, .05, 100, alpha=.1)",
}
#: Seconds: the whole first run, a later one, and what every other first use may add.
FIRST, LATER, FURTHER = 8.0, 3.0, 5.0


def processor_seconds(command: list[str], cache: Path, folder: Path) -> float:
    """User and system time of a process of its own: waiting for a machine that others use does not count."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"FLOWSIM_CACHE_DIR": str(cache), "XDG_CACHE_HOME": str(cache), "MPLBACKEND": "Agg"}
    environment |= {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def run(quick: bool) -> Report:
    """Processor seconds of each entry point in a fresh process, with empty caches and again."""
    rows, raw = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        caches = folder / "first"
        caches.mkdir()
        trivial = processor_seconds([sys.executable, "-c", TRIVIAL], caches, folder)
        rows.append(["one trivial Numba function (Numba's own floor)", f"{trivial:.1f}", "", "", ""])
        whole = max(FIRST, 5.0 * trivial)
        cold, warm = (processor_seconds(_RUN, caches, folder) for _ in range(2))
        raw = {"trivial": trivial, "flowsim run": [cold, warm]}
        met = "met" if cold <= whole and warm <= LATER else "missed"
        rows.append(
            ["flowsim run, the whole command", f"{cold:.1f}", f"{warm:.1f}", "", f"{whole:g}, {LATER:g}: {met}"]
        )
        for name, door in list(DOORS.items())[: 2 if quick else None]:
            command = (
                [sys.executable, "-c", door] if isinstance(door, str) else [sys.executable, "-m", "flowsim", *door]
            )
            own = folder / "own"
            shutil.copytree(caches, own)
            cold, warm = (processor_seconds(command, own, folder) for _ in range(2))
            shutil.rmtree(own)
            raw[name] = [cold, warm]
            added = cold - warm
            limit = f"{FURTHER:g} more: {'met' if added <= FURTHER else 'missed'}"
            rows.append([name, f"{cold:.1f}", f"{warm:.1f}", f"{added:.1f}", limit])
    notes = [
        "Processor time (user and system) of a process of its own, so that other work on the machine does not count.",
        "Every further door is opened with what a first `flowsim run` has left in the cache.",
    ]
    columns = ["what", "first", "again", "the first adds", "asked"]
    return Report("first_use", "First use, nothing compiled yet: processor seconds", columns, rows, notes, raw)
