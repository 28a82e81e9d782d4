"""What is computed from a problem's data, kept for as long as their entries are the same: they may change in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from flowsim.arrays import Array

T = TypeVar("T")

#: Bytes hashed at once: a copy of so many stays in the cache.
_AT_ONCE = 1 << 18
_KEPT: WeakKeyDictionary[Any, dict[str, tuple[Any, Any]]] = WeakKeyDictionary()


def kept(problem: Any, name: str, compute: Callable[[], T]) -> T:
    """The result for X, y and the sample weights as they are now; an operator counts as unchanged."""
    X, known = problem.X, _KEPT.setdefault(problem, {})
    entries = (X.data, X.indices, X.indptr) if hasattr(X, "tocsr") else (X,)
    data = [_hash(part) if isinstance(part, np.ndarray) else part for part in (*entries, problem.y)]
    data.append(None if problem.sample_weight is None else _hash(problem.sample_weight))
    if name not in known or known[name][0] != data:
        known[name] = data, compute()
    result: T = known[name][1]
    return result


def _hash(array: Array) -> tuple[object, ...]:
    """Shape and a 64-bit hash of all entries, bit by bit."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    parts = (hash(flat[first : first + _AT_ONCE].tobytes()) for first in range(0, len(flat), _AT_ONCE))
    return array.shape, hash(tuple(parts))
