r"""Products of L >= 3 weights that noise or weight decay shrinks while they wait.

Where all weights of a coordinate are far below the noise's standard deviation eta, they shrink at the rate
:math:`k_i = \lambda + \sigma_i^2 \eta^{2(L-1)}`: with :math:`w = e^{-kt} \varphi`

.. math:: \dot \varphi_l = -g\, e^{-(L-2) k t} \prod_{m \ne l} \varphi_m ,

the flow without noise and decay, with the rate of the dual reduced by :math:`e^{-E}`, :math:`E = (L-2)\,k t`. Where
weights are much larger than eta the effect of noise is of order eta^2, and at rest that of k is of order k: with both
below the tolerance E is constant there, and the remaining effect of noise and decay is that the imbalance decays,

.. math:: \frac{d}{dt} \ln |w_l^2 - w_m^2| = -2 \rho_i, \qquad
          \rho_i = \lambda + \sigma_i^2 \eta^2 (w^2 + \eta^2)^{L-2} .
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array
from flowsim.growth.product_map import ProductMap, admits_products, log_visible_distance
from flowsim.network import Decay, DiagonalNetwork, InitialScale
from flowsim.problem import Problem, Regression

#: Largest effect of noise on weights of size one, as a part of the tolerance.
_NOISE_PART = 0.1
#: E is frozen over a jump: while it changes by this part of the tolerance, or for so many times as long as
#: coordinates are visible before they arrive. Bound on the second-order error, as a part of the tolerance.
_STILL_PART, _SEEN_TIMES, _SECOND_ORDER = 0.1, 100.0, 0.01
#: Ratio of shrinkage to growth above which the accelerated clock does not resolve a coordinate.
_OWN = 1e6
#: Bound on logarithms of rates, and e-foldings after which an imbalance counts as zero.
_LARGEST, _BALANCED = 690.0, 400.0


class ShrinkingMap(ProductMap):
    """Growth of ``w_1 ... w_L`` with shrinkage by noise and decay.

    States are those of a product's map, its distances times exp(-E), then E, then the exponent R of the imbalance's
    decay, (T, 4 d).
    """

    is_constant = False

    def __init__(
        self,
        net: DiagonalNetwork,
        problem: Problem,
        scale: InitialScale,
        direction: Array,
        clock: InitialScale | None = None,
    ) -> None:
        super().__init__(net, scale, direction, clock)
        self.log_decay, self.log_noise, self.log_eta2 = _logs_of(net, problem)
        log_k = np.logaddexp(self.log_decay, self.log_noise + (self.depth - 1) * self.log_eta2)
        #: of E, in the unit of time
        self.shrinkage = self._rates(np.asarray(log_k + math.log(self.depth - 2)))

    def _rates(self, logs: Array) -> Array:
        return np.exp(np.minimum(logs + self.log_unit, _LARGEST))

    def balancing(self, y: Array) -> Array:
        """rho (d,) at a state, in the unit of time."""
        log_w2 = 2 * self._logs(y[None])[0][0].min(axis=0)
        seen = self.log_eta2 + (self.depth - 2) * np.logaddexp(log_w2, self.log_eta2)
        return self._rates(np.logaddexp(self.log_decay, self.log_noise + seen))

    def resistance(self, y: Array) -> Array:
        """The gradient (d,) that keeps weights much larger than eta at a state at rest against noise and decay."""
        logs, sign = self._logs(y[None])
        log_w = logs[0].min(axis=0)
        noise = self.log_noise + self.log_eta2 + math.log(self.depth - 1) + (self.depth - 2) * log_w
        return np.asarray(
            sign[0] * np.exp(np.minimum(np.logaddexp(self.log_decay - (self.depth - 2) * log_w, noise), _LARGEST))
        )

    def state(self, z: Array) -> Array:
        distances = super().state(z)
        return np.concatenate([distances, np.zeros_like(distances)], axis=-1)

    def _logs(self, y: Array, farther: Array | float = 0.0) -> tuple[Array, Array]:
        distances, E, R = np.split(y, [2 * self.d, 3 * self.d], axis=1)
        with np.errstate(invalid="ignore"):
            faster = np.where(np.isfinite(E), np.clip(R - E / (self.depth - 2), 0.0, _BALANCED), 0.0)
        # w = e^-R P(e^((2-L) R) e^E Y), with the imbalance of the start in P.
        logs, sign = super()._logs(distances, -(self.depth - 2) * faster)
        return logs - (E / (self.depth - 2) + faster)[:, None], sign

    def conserved(self, y: Array, t: Array | float) -> tuple[Array, Array]:
        log_pairs = self.law(np.zeros(len(y))) - 2 * y[:, None, 3 * self.d :]
        return np.sign(self.gaps[:1] - self.gaps[1:]) * np.exp(log_pairs), log_pairs


def _logs_of(net: DiagonalNetwork, problem: Problem) -> tuple[float, Array, float]:
    """Logarithms of lambda, of sigma^2 where there is noise, and of eta^2."""
    eta = float(net.stds.max())
    with np.errstate(divide="ignore"):
        noise = np.log(problem.feature_variances if eta else np.zeros(problem.d))
        decay, eta2 = np.log([float(net.weight_decay), eta or 1.0])  # type: ignore[arg-type]
    return float(decay), noise, 2 * float(eta2)


def gradient_bound_at(problem: Problem, loss: float) -> Array:
    """Bound on |g| (d,) where the squared loss is at most `loss`."""
    return np.sqrt(2 * loss * problem.feature_variances)


def admits_shrinking(
    net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array, rtol: float
) -> str | None:
    """None if noise and decay act within the tolerance only while weights wait, else the reason why not."""
    if not isinstance(problem, Regression):
        return "noise or decay under a loss that is no square"
    if not isinstance(net.weight_decay, float | int) or isinstance(net.weight_decay, Decay):
        return "weight decay changes in time"
    stds = net.stds
    if net.noise is not None and stds.any() and (net.noise.multiplicative or np.ptp(stds)):
        return "noise is not additive and equal on all weights"
    if net.is_mixed and len(net.distinct) > 1:
        return "the network mixes formulas"
    plain = DiagonalNetwork(net.distinct[0].text)
    reason = admits_products(plain, problem, scale, direction, rtol)
    if reason is not None:
        return reason
    try:
        growth = ShrinkingMap(net, problem, scale, direction)
    except ArithmeticError as error:
        return str(error)
    return _why_visible(growth, problem, float(stds.max()), rtol)


def still_time(growth: ShrinkingMap, problem: Problem, steepest: float, fastest: float, rtol: float) -> float:
    """How long E may be frozen, given its fastest rate and the bound `steepest` on the gradient."""
    if fastest == 0:
        return math.inf
    return min(max(_STILL_PART * rtol / fastest, _seen_time(growth, problem, steepest, rtol)), _longest(fastest, rtol))


def _longest(fastest: float, rtol: float) -> float:
    return math.sqrt(_SECOND_ORDER * rtol) / fastest


def _seen_time(growth: ShrinkingMap, problem: Problem, steepest: float, rtol: float) -> float:
    if steepest == 0:
        return math.inf
    seen = log_visible_distance(growth.depth, problem, steepest, rtol) - growth.unit.near - math.log(steepest)
    return _SEEN_TIMES * math.exp(min(seen, _LARGEST))


def _why_visible(growth: ShrinkingMap, problem: Regression, eta: float, rtol: float) -> str | None:
    """Why noise or decay changes weights that do not wait by more than the tolerance; None if it does not."""
    depth, waiting = growth.depth, growth.distance.min(axis=0)
    start = growth.value(growth.state(np.zeros(growth.d))[None], 0.0)[0]
    bound = gradient_bound_at(problem, float(problem.loss(start)))
    with np.errstate(invalid="ignore", over="ignore"):
        grows = ~(growth.shrinkage * waiting > bound) & np.isfinite(waiting)
    small = (depth - 1) * np.exp(2 * growth._logs(growth.state(np.zeros(growth.d))[None])[0][0].max(axis=0))
    if eta and (small > _NOISE_PART * rtol * eta**2)[~grows].any():
        return "weights that noise keeps from growing are not far below it"
    if not grows.any():
        with np.errstate(over="ignore"):
            scale = (growth.shrinkage * waiting)[np.isfinite(waiting)]
        return "weights shrink on a clock of their own" if (scale > _OWN * bound.max()).any() else None
    if (depth - 1) * eta**2 > _NOISE_PART * rtol:
        needed = (depth - 1) * eta**2 / _NOISE_PART
        return f"noise of {eta:.2g} changes weights of size one by more than `rtol`; one of {needed:.1g} allows it"
    steepest, fastest = float(np.abs(problem.gradient(start)).max()), float(growth.shrinkage[grows].max())
    if fastest > 0 and _seen_time(growth, problem, steepest, rtol) > _longest(fastest, rtol):
        return "noise or decay changes visible weights by more than `rtol`"
    return None
