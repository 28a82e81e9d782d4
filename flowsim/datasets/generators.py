"""Seeded random problems."""

from __future__ import annotations

import numpy as np

from flowsim.hints import hinting
from flowsim.plain_numbers import count, finite, read_seed
from flowsim.problem import Regression


@hinting
def sparse_regression(n: int, d: int, sparsity: int, noise: float = 0.0, seed: int = 0) -> Regression:
    """Gaussian features and a sparse truth with entries ±1, kept as ``problem.truth``.

    Parameters
    ----------
    n, d : int
        Rows and columns of X, with independent standard normal entries.
    sparsity : int
        Number of non-zero entries of the truth, at random places with random signs.
    noise : float
        Standard deviation of the label noise.
    seed : int
        Seed of ``numpy.random.default_rng``.

    Raises
    ------
    ValueError
        For sizes below 1, a sparsity outside [0, d], or negative noise.
    """
    n, d = count("n", n), count("d", d)
    if count("sparsity", sparsity, 0) > d:
        raise ValueError(f"`sparsity` must lie between 0 and d={d}; received {sparsity}.")
    noise = finite("noise", noise, least=0.0)
    rng = np.random.default_rng(read_seed(seed))
    X = rng.standard_normal((n, d))
    beta = np.zeros(d)
    beta[rng.permutation(d)[:sparsity]] = rng.choice([-1.0, 1.0], size=sparsity)
    return Regression(X, X @ beta + noise * rng.standard_normal(n), truth=beta)
