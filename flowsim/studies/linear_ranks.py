r"""Incremental rank: the plateaus of a two-layer linear network from a small start.

Singular directions of U V^T are activated one after the other, with waits of order ``gamma = ln(1/alpha)``. On
whitened data, ``Sigma = c 1``, the i-th is at ``t = gamma / s_i``, s_i the i-th singular value of ``X^T Y / n``; in
general the first is at ``gamma / s_1``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.card import one_line
from flowsim.network.linear_algebra import LinearData
from flowsim.problem import Regression
from flowsim.results import Trajectory

#: A singular value counts towards the rank once it exceeds this part of the largest of the whole run.
_COUNTS = 0.02
#: beta is at rest while it moves by less than this part of its final size per unit of accelerated time.
_REST = 0.3
_SAMPLES = 4000


@dataclass(frozen=True, eq=False)
class RankPlateaus:
    """The plateaus of U V^T.

    Attributes
    ----------
    starts, ends : array (K,)
        In accelerated time.
    ranks : array (K,)
        Number of singular values above the threshold.
    losses : array (K,)
        The loss at the middle.
    jumps : array (J,)
        Accelerated times at which a singular value first reaches half of its value on the next plateau.
    times : array (T,)
        The samples, and
    singular_values : array (T, min(D, m))
        of U V^T at those times.
    """

    starts: Array
    ends: Array
    ranks: Integers
    losses: Array
    jumps: Array
    times: Array
    singular_values: Array

    __repr__ = one_line


def rank_plateaus(
    traj: Trajectory, *, shortest: float = 0.05, rest: float = _REST, counts: float = _COUNTS
) -> RankPlateaus:
    """Find the plateaus of a run of a LinearNetwork.

    Parameters
    ----------
    traj : Trajectory
        With alpha < 1 and dense output.
    shortest : float
        Shortest plateau, in accelerated time.
    rest, counts : float
        See the two constants of this module.
    """
    if traj.beta.ndim != 3:
        raise ValueError("`traj` must be a run of a LinearNetwork.")
    times = np.linspace(0.0, traj.accelerated_time[-1], _SAMPLES)
    state = traj.at(times, "accelerated")
    values = np.asarray(np.linalg.svd(state.beta, compute_uv=False), dtype=np.float64)
    largest = float(values.max())
    speed = np.linalg.norm(np.diff(state.beta, axis=0), axis=(1, 2)) / np.diff(times)
    still = speed <= rest * largest
    edges = np.flatnonzero(np.diff(np.concatenate([[False], still, [False]]).astype(int)))
    spans = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if times[b] - times[a] >= shortest]
    middles = [(a + b) // 2 for a, b in spans]
    ranks = np.array([int((values[i] > counts * largest).sum()) for i in middles], dtype=np.int64)
    jumps = []
    for before, after in itertools.pairwise(middles):
        for index in range(values.shape[1]):
            if values[before, index] <= counts * largest < values[after, index]:
                half = 0.5 * values[after, index]
                passed = before + int(np.argmax(values[before : after + 1, index] >= half))
                jumps.append(times[passed])
    return RankPlateaus(
        starts=np.array([times[a] for a, _ in spans]),
        ends=np.array([times[b] for _, b in spans]),
        ranks=ranks,
        losses=state.loss[middles],
        jumps=np.array(jumps),
        times=times,
        singular_values=values,
    )


def activation_times(problem: Regression) -> Array:
    """``1 / s_i(X^T Y / n)`` in accelerated time: exact as alpha -> 0 on whitened data, the first always."""
    values = np.asarray(np.linalg.svd(LinearData.of(problem).signal, compute_uv=False), dtype=np.float64)
    with np.errstate(divide="ignore"):
        return 1.0 / values
