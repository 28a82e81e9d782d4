"""Functions that worker processes import by name: what the tests import would triple the start of a worker."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np


def product(x: float, y: float) -> float:
    return x * y


def spectrum(n: int, seed: int) -> dict[str, Any]:
    matrix = np.random.default_rng(seed).standard_normal((n, n))
    return {"trace": np.trace(matrix), "eigenvalues": np.linalg.eigvalsh(matrix + matrix.T), "kind": f"{n} by {n}"}


def fails_at_two(x: int) -> float:
    if x == 2:
        raise ArithmeticError("two is not welcome")
    return x / 2


def dies_at_two(x: int) -> int:
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x
