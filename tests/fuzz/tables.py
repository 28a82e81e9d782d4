"""Small tables of every kind: wide, dependent, with ties, of one row or column, with nothing to learn."""

from __future__ import annotations

import numpy as np

KINDS = (
    "plain", "plain", "wide", "duplicated", "deficient", "zero", "scaled", "integer", "collinear", "one row",
    "one column", "y = 0",
)  # fmt: skip


def data(rng: np.random.Generator, kind: str, orthogonal: bool) -> tuple[np.ndarray, np.ndarray]:
    """X and y; columns that are orthogonal exactly where that is asked for."""
    if orthogonal:
        signs = np.array([[1, 1, 1], [1, -1, 1], [1, 1, -1], [1, -1, -1]], dtype=float)
        d = 1 if kind == "one column" else int(rng.integers(1, 4))
        return signs[:, :d] * rng.integers(1, 4, d), rng.standard_normal(4) * (kind != "y = 0")
    n, d = {"wide": (2, 4), "one row": (1, 2), "one column": (3, 1)}.get(kind, (3, int(rng.integers(2, 4))))
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    if kind == "duplicated":
        X[:, -1] = X[:, 0]
    elif kind == "deficient":
        X[:, -1] = X[:, :-1].sum(axis=1)
    elif kind == "zero":
        X[:, 0] = 0
    elif kind == "scaled":
        X *= 10.0 ** rng.uniform(-1.5, 0.5, d)
    elif kind == "integer":
        X, y = rng.integers(-2, 3, (n, d)).astype(float), rng.integers(-2, 3, n).astype(float)
    elif kind == "collinear":
        X[:, -1] = X[:, 0] + 10.0 ** rng.uniform(-8, -2) * rng.standard_normal(n)
    elif kind == "y = 0":
        y[:] = 0
    return X, y
