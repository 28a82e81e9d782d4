r"""Early stopping on a limit path: at the least risk on other data, or where the gradient is at the level of noise.

Null gradient: with targets ``y = X beta* + eps``, eps of standard deviation s, the gradient at beta* is that of noise,
``X^T eps / n``. The rule stops at the first plateau at which no coordinate's gradient, relative to the norm of its
column, exceeds a quantile of its largest value under noise alone,

.. math:: \max_i \frac{|g_i|}{\sigma_i} \le q_\ell \Big( \max_i \frac{|x_i^\top \varepsilon|}{n \sigma_i} \Big).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array
from flowsim.plain_numbers import count, finite, read_seed
from flowsim.problem import Problem

#: Draws of noise processed together.
_BATCH = 64


@dataclass(frozen=True)
class Stop:
    """A plateau to stop on.

    Attributes
    ----------
    plateau : int
        Index into ``path.saddles``.
    begins, ends : float
        Accelerated times.
    beta : array
    value, level : float
        The criterion there, the risk or the largest normalised gradient, and its reference value: the
        second smallest risk, or the quantile under noise.
    """

    plateau: int
    begins: float
    ends: float
    beta: Array
    value: float
    level: float


def null_level(problem: Problem, std: float, level: float, draws: int, seed: int | None) -> float:
    """The quantile `level` of ``max_i |x_i . eps| / (n sigma_i)`` under Gaussian noise of standard deviation `std`."""
    rng = np.random.default_rng(read_seed(seed))
    sigma = np.sqrt(problem.feature_variances)
    used = sigma > 0
    largest: list[float] = []
    while len(largest) < draws:
        noise = std * rng.standard_normal((problem.n, min(_BATCH, draws - len(largest))))
        g = np.abs(np.asarray(problem.X.T @ noise)[used] / (problem.n * sigma[used, None]))
        largest += g.max(axis=0).tolist()
    return float(np.quantile(largest, level))


def at_noise_level(
    saddles: Array, problem: Problem, noise: float, level: float, draws: int, seed: int | None
) -> tuple[int, float, float]:
    """The first plateau with a gradient at the level of noise or the last one, its largest gradient, the quantile."""
    noise = finite("noise", noise, above=0.0)
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie in (0, 1); received {level!r}.")
    draws = count("draws", draws)
    if problem.y.ndim != 1:
        raise ValueError("the null gradient is for a single target; give `problem` instead.")
    threshold = null_level(problem, noise, level, draws, seed)
    sigma = np.sqrt(problem.feature_variances)
    scale = np.divide(1.0, sigma, out=np.zeros_like(sigma), where=sigma > 0)
    largest = np.array([float((np.abs(problem.gradient(beta)) * scale).max()) for beta in saddles])
    below = np.flatnonzero(largest <= threshold)
    plateau = int(below[0]) if len(below) else len(saddles) - 1
    return plateau, float(largest[plateau]), threshold
