"""Random systems of many kinds, for tests of robustness."""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers import SeparableFlow

KINDS = ("plain", "correlated", "rank deficient", "duplicated", "scaled", "sparse target")
EXPONENTS = (2, 8, 50, 1000, 100000)


def two_layer(X, y, gamma, kappa=0.0):
    """The flow of ``u*v`` from (sqrt(2) alpha, 0): ``beta = (exp(2(z - gamma)) - exp(2(-z - gamma))) / 2``."""
    d = X.shape[1]
    half = np.broadcast_to(-math.log(2.0) - 2.0 * np.asarray(gamma), (2, d)).copy()
    sign = np.repeat([[1.0], [-1.0]], d, axis=1)
    return SeparableFlow(
        X, y, X.shape[0], half, sign, 2 * sign, np.broadcast_to(2.0 * np.asarray(kappa), (2, d)).copy()
    )


def draw(seed):
    """(kind, X, y) of random shape, both in 1..60."""
    rng = np.random.default_rng(seed)
    n, d = rng.integers(1, 61, 2)
    kind = KINDS[seed % len(KINDS)]
    X = rng.standard_normal((n, d))
    if kind == "correlated":
        X = X + 3 * rng.standard_normal((n, 1)) * rng.choice([-1.0, 1.0], d)
    elif kind == "rank deficient":
        rank = rng.integers(1, min(n, d) + 1)
        X = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d))
    elif kind == "duplicated":
        X = X[:, rng.integers(0, d, d)]
    elif kind == "scaled":
        X = X * 10.0 ** rng.uniform(-3, 3, d)
    if kind == "sparse target":
        w = np.zeros(d)
        w[: rng.integers(1, d + 1)] = rng.standard_normal()
        y = X @ w
    else:
        y = rng.standard_normal(n)
    return kind, X, y
