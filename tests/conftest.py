"""Shared problems, figures that never open a window, and one thread a process: tests run side by side."""

# ruff: noqa: E402
from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator

for library in ("OMP", "OPENBLAS", "MKL"):  # read when NumPy is imported, and by every process that a test starts
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

os.environ.setdefault("FLOWSIM_INTERPRET", "0")  # the digits of a test do not depend on what is compiled already

gc.disable()  # what is imported to collect the tests stays; see pytest_collection_finish

import matplotlib
import numpy as np
import pytest

import flowsim as fs

matplotlib.use("Agg")


#: What compiles little of the library: of two processes one begins here, while the other compiles the integrators that
#: both need. Processes that need a function at the same time wait for the one that compiles it.
COMPILES_LITTLE = (
    "tests/test_architecture.py", "tests/solvers/test_compilation.py", "tests/network/", "tests/symbolic/",
    "tests/sweep/",
)  # fmt: skip


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Of the cases under ``@pytest.mark.sampled(k)`` that are not slow, the first of every k stays quick.

    Of those that are left, those that compile little come first in the second half, with which a second process begins.
    """
    seen: Counter[str] = Counter()
    for item in items:
        sampled = item.get_closest_marker("sampled")
        if sampled is not None and item.get_closest_marker("slow") is None:
            function = item.nodeid.partition("[")[0]
            if seen[function] % sampled.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[function] += 1
    yield
    little = [item for room in COMPILES_LITTLE for item in items if item.nodeid.startswith(room)]
    others = [item for item in items if not item.nodeid.startswith(COMPILES_LITTLE)]
    half = len(items) // 2
    items[:] = others[:half] + little + others[half:]


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector does not go through it again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session")
def diabetes() -> fs.Regression:
    return fs.datasets.diabetes()


@pytest.fixture(scope="session")
def sign_switching() -> fs.Regression:
    """Three observations, six features; coordinate 0 of the `u*v` flow goes negative, to zero, positive."""
    rng = np.random.default_rng(0)
    for _ in range(77):
        X, y = rng.standard_normal((3, 6)), rng.standard_normal(3)
    return fs.Regression(X, y)
