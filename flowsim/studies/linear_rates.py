r"""Rate and end of the training of a two-layer linear network: bounds, tested on runs.

With ``Lambda = U_1^T U_1 - V^T V`` (conserved; U_1 the part of U in the row space of X), ``lambda_k`` a k-th largest
eigenvalue, r the rank of X and ``L*`` the least loss,

.. math:: L(t) - L^* \le e^{-2 \lambda_r(\Sigma)\, c\, t} (L(0) - L^*), \qquad c = c_U + c_V,

.. math:: c_V = \max\Big( [\lambda_m(-\Lambda)]_+,\ \tfrac12\big(-p + \sqrt{p^2 + 4 \sigma^2}\big) 1_{r \ge m} \Big),
          \quad p = [\lambda_1(\Lambda)]_+,

and c_U the same with ``-Lambda``, r and m exchanged; the margin is
:math:`\sigma = [\sigma_{\min}(\hat\Theta) - \sqrt{2 (L(0) - L^*) / \lambda_r(\Sigma)}]_+`.

Proof. ``dL/dt = -|G V|^2 - |G^T U_1|^2 <= -2 lambda_r(Sigma) (lambda_m(V V^T) + lambda_r(U_1 U_1^T)) (L - L*)``, and
``V^T V >= -Lambda`` gives the first term of c_V. For the second take the lowest eigenvector of ``V V^T``, of
eigenvalue l: ``V U_1^T U_1 V^T = V Lambda V^T + (V V^T)^2`` gives ``l^2 + p l >= sigma_min(U_1 V^T)^2``, and the loss
never rises, so ``U_1 V^T`` stays within the second term of the margin of the least-squares solution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array
from flowsim.card import Plotted, one_line
from flowsim.flows.gradient_flow import gradient_flow
from flowsim.network import Alpha, GivenWeights, InitialScale, LinearNetwork
from flowsim.network.linear_algebra import LinearData
from flowsim.network.linear_start import compressed_start
from flowsim.problem import Regression, require_squares
from flowsim.results import Trajectory

#: Losses below this part of the loss at 0 are not compared with the bound: they are rounding ...
_ROUNDING = 1e-20
#: ... and those that rounding of U_1 V^T alone makes, relative to U_1, V and the least-squares solution.
_PRODUCT_ROUNDING = 1e-14
#: Relative slack for the integration error of the loss.
_SLACK = 1e-6


@dataclass(frozen=True)
class RateBound:
    """``L(t) - L* <= exp(-rate * t) (L(0) - L*)``.

    Attributes
    ----------
    rate : float
        ``2 lambda_r(Sigma) (c_u + c_v)``; 0 where the theorem guarantees nothing.
    c_u, c_v : float
        Lower bounds of the least eigenvalues of ``U_1 U_1^T`` and ``V V^T`` along the whole run.
    margin : float
    from_imbalance, from_margin : float
        c from the imbalance alone, and from the margin alone.
    initial_excess : float
        ``L(0) - L*``.
    """

    rate: float
    c_u: float
    c_v: float
    margin: float
    from_imbalance: float
    from_margin: float
    initial_excess: float

    def __call__(self, t: ArrayLike) -> Array:
        """The bound on ``L(t) - L*``."""
        return self.initial_excess * np.exp(-self.rate * np.asarray(t, dtype=float))


def rate_bound(
    net: LinearNetwork,
    problem: Regression,
    *,
    alpha: Alpha | InitialScale = 1.0,
    start: GivenWeights | None = None,
) -> RateBound:
    """The exponential rate guaranteed by the start alone.

    Raises
    ------
    ValueError
        For a network with weight noise or weight decay, whose loss does not converge to its infimum, another network,
        measurements of a matrix, or another loss.

    References
    ----------
    Min, Tarmoun, Vidal, Mallada, arXiv 2105.06351, Theorem 1.
    """
    if not isinstance(net, LinearNetwork):
        raise ValueError(f"`net` must be a LinearNetwork; received {net!r}.")
    if net.is_noisy or net.weight_decay != 0.0:
        raise ValueError(f"`net` must be free of weight noise and weight decay, as the theorem is; received {net!r}.")
    data = LinearData.of(require_squares(problem, "the rate of a linear network"))
    if data.rank == 0:
        raise ValueError("`problem` must have a feature that is not zero: nothing moves.")
    scale = InitialScale.parse(alpha).value
    compression = compressed_start(net, problem, start)
    U1, V = scale * data.reduce(compression.A)[0], scale * compression.B
    r, m = data.rank, data.m
    slowest = float(data.curvatures[-1])
    excess = float(data.excess(U1 @ V.T))
    spectrum = np.asarray(np.linalg.eigvalsh(U1.T @ U1 - V.T @ V)[::-1], dtype=np.float64)
    lowest = float(np.linalg.svd(data.target, compute_uv=False)[-1])
    margin = max(0.0, lowest - float(np.sqrt(2 * excess / slowest)))
    by_imbalance = [max(0.0, _kth(-spectrum[::-1], m)), max(0.0, _kth(spectrum, r))]
    by_margin = [
        _root(max(0.0, float(spectrum[0])), margin) if r >= m else 0.0,
        _root(max(0.0, float(-spectrum[-1])), margin) if m >= r else 0.0,
    ]
    c_v, c_u = (max(pair) for pair in zip(by_imbalance, by_margin, strict=True))
    return RateBound(
        rate=2 * slowest * (c_u + c_v),
        c_u=c_u,
        c_v=c_v,
        margin=margin,
        from_imbalance=sum(by_imbalance),
        from_margin=sum(by_margin),
        initial_excess=excess,
    )


@dataclass(frozen=True, eq=False)
class RateCertificate(Plotted):
    """The bound compared with a run.

    Attributes
    ----------
    predicted : float
        The guaranteed rate.
    measured : float
        The largest rate for which the bound would still have held on the run.
    holds : bool
        Whether the loss never exceeded the bound.
    tightness : float
        predicted / measured, in [0, 1] if the theorem holds.
    worst : float
        Largest ``(L(t) - L*) / bound(t)``.
    bound : RateBound
    trajectory : Trajectory
    """

    _plotted_by = "loss_bound"

    predicted: float
    measured: float
    holds: bool
    tightness: float
    worst: float
    bound: RateBound
    trajectory: Trajectory

    __repr__ = one_line


def certify_rate(
    net: LinearNetwork,
    problem: Regression,
    *,
    alpha: Alpha = 1.0,
    start: GivenWeights | None = None,
    t_end: float | None = None,
    rtol: float = 1e-6,
) -> RateCertificate:
    """Run the flow and compare its loss with the bound at every step.

    Parameters
    ----------
    t_end : float, optional
        Default: 23 times the guaranteed time scale (ten decades of loss), or 50 times that of the slowest mode of X
        where nothing is guaranteed.
    """
    bound = rate_bound(net, problem, alpha=alpha, start=start)
    if t_end is None:
        slowest = float(LinearData.of(problem).curvatures[-1])
        t_end = 23.0 / bound.rate if bound.rate > 0 else 50.0 / slowest
    traj = gradient_flow(net, problem, t_end, alpha=alpha, start=start, rtol=rtol)
    data = LinearData.of(problem)
    excess = data.excess(data.directions.T @ traj.beta)  # without cancellation
    least = max(_ROUNDING * bound.initial_excess, rounding_of_excess(problem, traj))
    seen = (excess > least) & (traj.t > 0)
    with np.errstate(under="ignore"):
        promised = bound(traj.t)
    compared = (promised > least) & (traj.t > 0)
    worst = float(np.max(excess[compared] / promised[compared], initial=0.0))
    if not seen.any() or bound.initial_excess == 0.0:
        measured = np.inf
    else:
        measured = float(np.min(np.log(bound.initial_excess / excess[seen]) / traj.t[seen]))
    return RateCertificate(
        predicted=bound.rate,
        measured=measured,
        holds=worst <= 1.0 + _SLACK,
        tightness=bound.rate / measured if measured > 0 else float(bound.rate > 0),
        worst=worst,
        bound=bound,
        trajectory=traj,
    )


@dataclass(frozen=True)
class InvariantSetCertificate:
    """A run that starts on ``{U_2 V^T = 0, U_1 U_2^T = 0}``.

    Attributes
    ----------
    predicted, measured : float
        Distance of ``U V^T`` to the minimum-norm solution at the end, relative to that solution: 0, and the measured
        one.
    departure : float
        Largest ``|U_2 V^T|`` or ``|U_1 U_2^T|`` along the run, relative to ``|U| |V|`` or ``|U|^2`` at the end.
    holds : bool
    trajectory : Trajectory
    """

    predicted: float
    measured: float
    departure: float
    holds: bool
    trajectory: Trajectory

    __repr__ = one_line


def certify_invariant_set(
    net: LinearNetwork,
    problem: Regression,
    *,
    alpha: Alpha = 1.0,
    start: GivenWeights | None = None,
    t_end: float | None = None,
    tolerance: float = 1e-7,
) -> InvariantSetCertificate:
    """Run the flow from the set (default: ``linear_start(..., "invariant")``) and measure departure and end.

    Raises
    ------
    ValueError
        If the start is not on the set.

    References
    ----------
    Min, Tarmoun, Vidal, Mallada, arXiv 2105.06351, Proposition 2.
    """
    from flowsim.network import linear_start

    if start is None:
        start = linear_start(net, problem, "invariant")
    data = LinearData.of(problem)
    U, V = (np.asarray(start[name], dtype=float) for name in ("U", "V"))
    off = _off_set(data, U, V)
    if off > 1e-12:
        raise ValueError(f"`start` must lie on the invariant set; received one off it by a relative {off:.1e}.")
    if t_end is None:
        rate = rate_bound(net, problem, alpha=alpha, start=start).rate
        t_end = 50.0 / rate if rate > 0 else 1000.0 / float(data.curvatures[-1])
    traj = gradient_flow(net, problem, t_end, alpha=alpha, start=start)
    weights = getattr(traj.weights, "compressed", traj.weights)
    departure = max(_off_set(data, U, V) for U, V in zip(weights["U"], weights["V"], strict=True))
    solution = data.min_norm
    measured = float(np.linalg.norm(traj.beta[-1] - solution) / np.linalg.norm(solution))
    return InvariantSetCertificate(
        predicted=0.0,
        measured=measured,
        departure=departure,
        holds=measured <= tolerance and departure <= 1e-12,
        trajectory=traj,
    )


def _off_set(data: LinearData, U: Array, V: Array) -> float:
    inside, outside = data.reduce(U)
    size_u, size_v = np.linalg.norm(U), np.linalg.norm(V)
    first = np.linalg.norm(outside @ V.T) / (size_u * size_v) if size_u * size_v else 0.0
    second = np.linalg.norm(inside @ outside.T) / size_u**2 if size_u else 0.0
    return float(max(first, second))


def rounding_of_excess(problem: Regression, traj: Trajectory) -> float:
    """``lambda_1(Sigma)/2 |d(U_1 V^T)|^2`` for the rounding of the product at the start and of the solution."""
    data, weights = LinearData.of(problem), getattr(traj.weights, "compressed", traj.weights)
    size = np.linalg.norm(weights["U"][0]) * np.linalg.norm(weights["V"][0]) + np.linalg.norm(data.target)
    return float(data.curvatures[0] / 2 * (_PRODUCT_ROUNDING * size) ** 2)


def _kth(falling: Array, k: int) -> float:
    """The k-th largest eigenvalue, 0 beyond the width."""
    return float(falling[k - 1]) if k <= len(falling) else 0.0


def _root(p: float, sigma: float) -> float:
    """The positive root of ``l^2 + p l = sigma^2``, without cancellation."""
    return 2 * sigma**2 / (p + np.sqrt(p**2 + 4 * sigma**2)) if sigma > 0 else 0.0
