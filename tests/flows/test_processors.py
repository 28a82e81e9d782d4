"""Other processors, threads and forks: the same answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import flowsim as fs

ROOT = Path(__file__).parents[2]


def answers(_: object = None) -> list[list[float]]:
    """A flow and a descent far below the range of floats."""
    problem, net = fs.Regression([[1.0, 0.5, -0.2], [0.25, -1.0, 0.4]], [1.0, 0.5]), fs.DiagonalNetwork("u*v")
    flow = fs.gradient_flow(net, problem, 3.0, alpha="1e-100", clock="accelerated", rtol=1e-8)
    descent = fs.gradient_descent(net, problem, 0.1, 2000, alpha="1e-30", record_every=2000)
    return [flow.beta[-1].tolist(), descent.beta[-1].tolist()]


@pytest.mark.slow
def test_a_processor_without_its_own_instructions_gives_the_same_to_tolerance() -> None:
    out = subprocess.run(
        [sys.executable, "-W", "error", __file__], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    for generic, own in zip(json.loads(out.stdout), answers(), strict=True):
        np.testing.assert_allclose(generic, own, rtol=0, atol=1e-8)


def test_threads_give_the_same_bits() -> None:
    right = answers()
    with ThreadPoolExecutor(4) as pool:
        assert all(found == right for found in pool.map(answers, range(8)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are POSIX's")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_after_the_first_run_gives_the_same_bits() -> None:
    right = answers()
    with get_context("fork").Pool(2) as pool:
        assert pool.map(answers, range(4)) == [right] * 4


if __name__ == "__main__":
    print(json.dumps(answers()))
