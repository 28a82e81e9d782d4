"""Peak memory of the flow and of the limit beside X, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import Report

CODE = """
import json, pathlib
import numpy as np, scipy.sparse
import flowsim as fs
rng = np.random.default_rng(0)
n, d, density = {size}
if density < 1:
    X = scipy.sparse.random_array((n, d), density=density, rng=rng, format="csr")
    X.data = rng.standard_normal(X.nnz)
    size = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
else:
    X = rng.standard_normal((n, d))
    size = X.nbytes
y = rng.standard_normal(n)
# screened, as what is measured is: its code is compiled apart
small, net = fs.Regression(rng.standard_normal((5, 1000)), rng.standard_normal(5)), fs.DiagonalNetwork("u*v")
end = 1.05 * fs.saddle_to_saddle(net, small).jump_times[0]
fs.gradient_flow(net, small, end, alpha="1e-60", clock="accelerated")

def peak():  # not getrusage: its maximum is inherited from the process that started this one
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

before = peak()
problem = fs.Regression(X, y)
path = fs.saddle_to_saddle(net, problem, max_jumps=10)
limit = peak()
end = 1.05 * float(path.jump_times[-1])
run = fs.gradient_flow(net, problem, end, alpha="1e-60", clock="accelerated", t_eval=[0.0, end])
print(json.dumps(dict(data=size, vector=8 * d, before=before, limit=limit - before, flow=peak() - before,
                      steps=run.stats["steps"])))
"""


def run(quick: bool) -> Report:
    """Growth of the resident set over that with data, compiled code and warm caches in place."""
    sizes: dict[str, tuple[int, int, float]] = {
        "dense 200 x 20000": (200, 20_000, 1.0),
        "sparse 200 x 200000, density 0.001": (200, 200_000, 1e-3),
    }
    if not quick:
        sizes["sparse 200 x 1000000, density 0.001"] = (200, 1_000_000, 1e-3)
    rows, raw = [], {}
    if not Path("/proc/self/status").exists():
        sizes = {}
    for name, size in sizes.items():
        raw[name] = case = _measure(size)
        flow = case["flow"] / (case["data"] + case["vector"])
        rows.append([name, *(f"{case[key] / 2**20:.0f}" for key in ("data", "vector", "limit", "flow")), f"{flow:.1f}"])
    return Report(
        "memory",
        "Memory of ten jumps at alpha = 1e-60, MiB",
        ["case", "X", "one vector of d", "limit adds", "flow and limit add", "over X and a vector (the floor)"],
        rows,
        ["On Linux: added to a process that holds X, compiled code and libraries; beta at two times only."],
        raw,
    )


def _measure(size: tuple[int, int, float]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", CODE.format(size=size)], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))
