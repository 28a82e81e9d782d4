"""What a user waits for before anything is integrated: imports, help, derivation, compilation."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benchmarks.harness import Report, best, timed

COMMANDS = {
    "import flowsim": [sys.executable, "-c", "import flowsim"],
    "flowsim --help": [sys.executable, "-m", "flowsim", "--help"],
    "import numpy (the floor)": [sys.executable, "-c", "import numpy"],
    "python -c pass": [sys.executable, "-c", "pass"],
}
LIMITS = {"import flowsim": 0.3, "flowsim --help": 0.5}

KERNELS = "import flowsim as fs; from flowsim.symbolic import kernels; kernels({net}).value"
DERIVE = "import flowsim as fs; fs.derive({net}).thresholds"
FLOW = (
    "import flowsim as fs; "
    "fs.gradient_flow({net}, fs.Regression([[1.0]], [2.0]), 3.0, alpha='1e-60', clock='accelerated')"
)
PAIR = "fs.DiagonalNetwork('u*v')"
#: What a process of its own runs.
WORK = {
    "generated code of u*v": KERNELS.format(net=PAIR),
    "derivation of u*v": DERIVE.format(net=PAIR),
    "one flow of u*v": FLOW.format(net=PAIR),
    "generated code of depth 6 with noise": KERNELS.format(
        net="fs.DiagonalNetwork(depth=6, noise=fs.GaussianNoise(0.1))"
    ),
}


def run(quick: bool) -> Report:
    """Seconds, least of the repeats, each in a process of its own."""
    repeats = 3 if quick else 10
    rows, raw = [], {}
    for name, command in COMMANDS.items():
        seconds = timed(lambda c=command: subprocess.run(c, check=True, capture_output=True), repeats)[2]
        raw[name] = seconds
        rows.append([name, f"{best(seconds):.3f}", f"{LIMITS[name]:g}" if name in LIMITS else ""])
    for name, code in WORK.items() if not quick else list(WORK.items())[:2]:
        command = [sys.executable, "-c", code]
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {"XDG_CACHE_HOME": cache, "NUMBA_CACHE_DIR": cache}
            _, cold, warm = timed(
                lambda c=command, e=environment: subprocess.run(c, check=True, capture_output=True, env=e), 3
            )
        raw[name] = {"cold": cold, "warm": warm}
        rows.append([f"{name}, nothing compiled yet", f"{cold:.2f}", ""])
        rows.append([f"{name}, later process", f"{best(warm):.2f}", ""])
    return Report("startup", "Start-up, seconds", ["what", "seconds", "limit"], rows, raw=raw)
