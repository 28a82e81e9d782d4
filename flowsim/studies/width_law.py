r"""Width and implicit bias: the distance of the end of a wide network to the minimum-norm solution.

Entries :math:`\mathcal N(0, h^{-2a})`, 1/4 < a <= 1/2: the distance of ``U V^T`` to the minimum-norm solution falls as
:math:`h^{1/2 - 2a}` where X has a null space. Instance by instance, without asymptotics,

.. math:: \lVert U_2 V^\top(\infty) \rVert \le
          \exp\Big( \frac{\sqrt{2 \lambda_1(\Sigma) (L(0) - L^*)}}{\lambda_r(\Sigma)\, c} \Big)
          \big\lVert (U_1; V)(0)\, U_2^\top \big\rVert,

since :math:`Z U_2^\top`, ``Z = (U_1; V)``, obeys ``(Z U_2^T)' = A(G) Z U_2^T`` with ``|A(G)| = |G|`` and
``|G| <= sqrt(2 lambda_1 (L - L*))``, integrated with the exponential rate ``2 lambda_r c``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.card import Plotted, one_line
from flowsim.flows.gradient_flow import gradient_flow
from flowsim.network import LinearNetwork
from flowsim.network.linear_algebra import LinearData
from flowsim.network.linear_start import compressed_gaussian
from flowsim.plain_numbers import count
from flowsim.problem import Regression
from flowsim.studies.linear_rates import rate_bound

WIDTHS = (100, 1_000, 10_000, 100_000, 1_000_000)
_TOLERANCE = 0.05
#: Time constants of the guaranteed rate after which the distance has converged to rounding.
_LONG = 40.0


@dataclass(frozen=True, eq=False)
class WidthLaw(Plotted):
    """Distances against widths.

    Attributes
    ----------
    exponent : float
        a.
    widths : array (W,)
    distances : array (W, S)
        ``|U V^T(inf) - min-norm solution|``, one column per seed.
    bounds : array (W, S)
        The bound above; inf where no rate is guaranteed.
    predicted : float
        ``1/2 - 2a``.
    measured, uncertainty : float
        Slope of log distance against log width: mean over seeds and its standard error.
    holds : bool
        Slope within 0.05 of the prediction, and no distance above its bound.
    """

    _plotted_by = "width_law"

    exponent: float
    widths: Integers
    distances: Array
    bounds: Array
    predicted: float
    measured: float
    uncertainty: float
    holds: bool

    __repr__ = one_line


def width_law(
    problem: Regression,
    exponent: float = 0.5,
    *,
    widths: Sequence[int] = WIDTHS,
    n_seeds: int = 5,
    seed: int = 0,
    rtol: float = 1e-6,
) -> WidthLaw:
    """Measure the law on one problem; the cost does not depend on the widths.

    Parameters
    ----------
    problem : Regression
        rank X < D, so that X has a null space.
    exponent : float
        a in (1/4, 1/2].
    widths : sequence of int
        Above D + m, at least two.
    n_seeds : int
        Starts per width.

    References
    ----------
    Min, Tarmoun, Vidal, Mallada, arXiv 2105.06351, Theorem 3.
    """
    data = LinearData.of(problem)
    if not 0.25 < exponent <= 0.5:
        raise ValueError(f"`exponent` must lie in (1/4, 1/2]; received {exponent}.")
    if data.rank == data.D:
        raise ValueError(f"`problem` must have rank X < D; received rank {data.rank} = D.")
    n_seeds = count("n_seeds", n_seeds)
    k = data.D + data.m
    sizes = np.array(sorted({count("widths", width) for width in widths}))
    if len(sizes) < 2 or sizes[0] <= k:
        raise ValueError(f"`widths` must hold at least two widths above D + m = {k}; received {list(widths)}.")
    # In the basis of its row space a start of any width has width D + m.
    net = LinearNetwork(k)
    distances = np.empty((len(sizes), n_seeds))
    bounds = np.empty_like(distances)
    for row, width in enumerate(sizes):
        for column in range(n_seeds):
            # The same random numbers at every width, so that the scatter between seeds cancels in each slope.
            A, B = compressed_gaussian(data.D, data.m, int(width), exponent=exponent, seed=[seed, column])
            start = {"U": A, "V": B}
            bound = rate_bound(net, problem, alpha=1.0, start=start)
            rate = bound.rate if bound.rate > 0 else float(data.curvatures[-1])
            traj = gradient_flow(net, problem, _LONG / rate, alpha=1.0, start=start, rtol=rtol)
            distances[row, column] = np.linalg.norm(traj.beta[-1] - data.min_norm)
            inside, outside = data.reduce(A)
            crossing = np.linalg.norm(np.concatenate([inside, B]) @ outside.T)
            growth = np.inf
            if bound.rate > 0:  # = 2 lambda_r c
                growth = 2 * np.sqrt(2 * data.curvatures[0] * bound.initial_excess) / bound.rate
            with np.errstate(over="ignore"):
                bounds[row, column] = np.exp(growth) * crossing
    slope, error = _slope(np.log(sizes), np.log(distances))
    predicted = 0.5 - 2 * exponent
    return WidthLaw(
        exponent=exponent,
        widths=sizes,
        distances=distances,
        bounds=bounds,
        predicted=predicted,
        measured=slope,
        uncertainty=error,
        holds=bool(abs(slope - predicted) <= _TOLERANCE and (distances <= bounds * (1 + 1e-6)).all()),
    )


def _slope(x: Array, y: Array) -> tuple[float, float]:
    """Least-squares slopes of the columns of y (W, S) against x (W,): their mean and its standard error."""
    centred = x - x.mean()
    slopes = centred @ y / (centred @ centred)
    count = len(slopes)
    error = float(slopes.std(ddof=1) / np.sqrt(count)) if count > 1 else np.inf
    return float(slopes.mean()), error
