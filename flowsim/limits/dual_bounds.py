"""The network in the limit process: thresholds, penalties of noise and weight decay, and an offset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Integers, chosen, compact
from flowsim.growth.modes import Memory, Modes, start_memory
from flowsim.growth.origin_curves import origin_curves
from flowsim.growth.vanishing import VanishingGrowth, is_product, order_of, thresholds_and_rates
from flowsim.limits.start_state import StartState
from flowsim.network import Decay, DiagonalNetwork, GivenWeights, InitialScale, Logs, quadratic_form, read_start
from flowsim.plain_numbers import side_pair
from flowsim.problem import Problem


@dataclass(frozen=True)
class DualBounds:
    r"""The interval in which the dual of a coordinate moves while the coordinate is 0, and the growth at its ends.

    .. math:: -(t^-_i + \kappa^-_i t) \;\le\; s_i(t) \;\le\; t^+_i + \kappa^+_i t .

    At the upper bound the coordinate can be positive, at the lower one negative. All arrays (d,).
    """

    thresholds: tuple[Array, Array]  #: t^+ and t^-
    penalties: tuple[Array, Array]  #: kappa^+ and kappa^-
    growth: VanishingGrowth
    offset: Array | float = 0.0

    def of_path(self) -> dict[str, Any]:
        """The keyword arguments of :class:`flowsim.limits.saddle_list.Saddles` that hold them."""
        growth = self.growth
        return {
            "thresholds": self.thresholds,
            "penalties": self.penalties,
            "speeds": growth.speeds,
            "order": growth.order,
            "memory": growth.memory,
            "curves": growth.curves,
            "offset": self.offset,
        }

    def of(self, keep: Integers) -> DualBounds:
        """The bounds of some coordinates."""
        return DualBounds(
            (chosen(self.thresholds[0], keep), chosen(self.thresholds[1], keep)),
            (chosen(self.penalties[0], keep), chosen(self.penalties[1], keep)),
            self.growth.among(keep),
            chosen(self.offset, keep) if isinstance(self.offset, np.ndarray) else self.offset,
        )


def network_bounds(
    net: DiagonalNetwork,
    problem: Problem,
    start: Mapping[str, ArrayLike | Logs] | StartState | None,
    thresholds: tuple[ArrayLike, ArrayLike] | None,
    penalties: tuple[ArrayLike, ArrayLike] | None,
) -> DualBounds:
    """Thresholds and penalties of a network, or the given ones.

    Raises ValueError for a network or noise without such a limit, and for given values outside their range.
    """
    d = problem.d
    if net.is_mixed:
        net.kinds(d)  # checks their number
    memory: Memory | None
    logs = None if start is None or isinstance(start, StartState) else _of_logs(net, start, d)
    given = start if logs is None else logs[3]
    direction = None if isinstance(given, StartState) else cast("GivenWeights | None", given)
    if isinstance(start, StartState):
        if thresholds is not None:
            raise ValueError("`thresholds` and a `start` state exclude each other: the state holds its own.")
        if start.beta.shape != (d,):
            raise ValueError(f"`start` must be a state of d={d} coordinates; received {len(start.beta)}.")
        *own, rates = thresholds_and_rates(net, net.direction(None, d), d)
        upper, lower = start.upper, start.lower
        memory = start.memory
    elif logs is not None:
        if thresholds is not None:
            raise ValueError("`thresholds` and a `start` in logarithms exclude each other: they say the same.")
        upper, lower, rates = logs[:3]
        own = [np.divide(2.0, rate, out=np.full(d, np.inf), where=rate > 0) for rate in rates]
    elif thresholds is not None:
        net.direction(direction, d)
        own = upper, lower = list(side_pair("thresholds", thresholds, d, "> 0"))
        rates = 2.0 / np.stack(own)
    else:
        *own, rates = thresholds_and_rates(net, net.direction(direction, d), d)
        upper, lower = own
    order = order_of(net)
    if not isinstance(start, StartState):
        memory = (
            _no_memory_needed if order > 2 and is_product(net) else start_memory(net, net.direction(direction, d), True)
        )
    # Products become balanced as they grow.
    speeds = rates if order == 2 else [np.broadcast_to(float(order) if is_product(net) else np.nan, (d,))] * 2
    if penalties is not None:
        up_cost, low_cost = side_pair("penalties", penalties, d, ">= 0 and finite")
        offset: Array | float = 0.0
    else:
        upper, lower, up_cost, low_cost, offset = _with_noise(net, problem, upper, lower)
        if net.weight_decay:
            upper, lower, up_cost, low_cost = _with_decay(net, (upper, lower), (own[0], own[1]), (up_cost, low_cost))
    curves = origin_curves(net, net.direction(direction, d), order, fresh=not isinstance(start, StartState))
    growth = VanishingGrowth(
        order, (compact(speeds[0]), compact(speeds[1])), memory, curves, _weights_of(start, order, d)
    )
    return DualBounds((compact(upper), compact(lower)), (up_cost, low_cost), growth, offset)


def _of_logs(
    net: DiagonalNetwork, start: Mapping[str, ArrayLike | Logs], d: int
) -> tuple[Array, Array, Array, dict[str, Array]] | None:
    """Thresholds, rates (2, d) and a direction of a start in logarithms; None for a start in floats.

    ``ln c_k^2 = l_k + r_k z`` reaches 0 at ``-l_k / r_k``: thresholds are in units of z, and time is not rescaled.

    """
    parts = read_start(net, start, None, InitialScale("1", 0.0), d)
    if parts is None:
        return None
    if any(quadratic_form(formula) is None for formula in net.distinct):
        raise ValueError("`start` in logarithms has a known limit for quadratic formulas alone.")
    modes = Modes.of(net, parts)
    if (modes.log_start[modes.sign != 0] >= 0).any():
        raise ValueError("`start` must be small for its limit: logarithms of its components below 0.")
    thresholds, rates = np.full((2, d), np.inf), np.zeros((2, d))
    for side, sign in enumerate((1.0, -1.0)):
        growing = (sign * modes.rate > 0) & (modes.sign != 0)
        wait = np.divide(-modes.log_start, np.abs(modes.rate), out=np.full(modes.rate.shape, np.inf), where=growing)
        first = wait.argmin(axis=1)
        thresholds[side] = wait.min(axis=1)
        rates[side] = np.where(growing.any(axis=1), np.abs(modes.rate)[np.arange(d), first], 0.0)
    signs, log = parts.parts[0]
    top = np.where(np.isfinite(log), log, -np.inf).max(axis=0)
    own = signs * np.exp(log - np.where(np.isfinite(top), top, 0.0))
    return thresholds[0], thresholds[1], rates, dict(zip(net.weights, own, strict=True))


def _weights_of(start: Mapping[str, ArrayLike | Logs] | StartState | None, order: int, d: int) -> Array | None:
    if order == 2 or not isinstance(start, StartState):
        return None
    if start.weights is not None:
        return start.weights
    return np.broadcast_to(np.where(start.beta == 0, 0.0, np.nan), (order, d))


def _no_memory_needed(coordinates: Integers) -> tuple[Array, Array]:
    """Deep products become independent of their start as they grow."""
    empty = np.zeros((0, len(coordinates)))
    return empty, empty


def _with_noise(
    net: DiagonalNetwork, problem: Problem, upper: Array, lower: Array
) -> tuple[Array, Array, Array, Array, Array | float]:
    """Quadratic formulas: ``theta' = -(g H + eta^2 sigma^2 H^2) theta``, so ``kappa^+- = eta^2 sigma^2 / t^+-``."""
    d = problem.d
    zero = np.broadcast_to(0.0, (d,))
    stds = net.stds
    if net.noise is None or not stds.any():
        return upper, lower, zero, zero, 0.0
    if net.noise.multiplicative:
        raise ValueError("`noise` must be additive for this limit; received multiplicative noise.")
    up_cost, low_cost, offset = np.zeros(d), np.zeros(d), np.zeros(d)
    upper, lower = np.array(upper), np.array(lower)
    for formula, rows, mine in net.parts(d):
        own = stds[rows]
        form = quadratic_form(formula)
        if form is None:
            if formula.product_of is None or not own.all():
                raise ValueError(
                    f"`noise` has a known limit for quadratic formulas, and for products if every weight carries it; "
                    f"received {formula.text!r} with std {own.tolist()}."
                )
            # The noise makes the origin stable: no coordinate leaves it.
            upper[mine], lower[mine] = np.inf, np.inf
            continue
        if np.ptp(own) > 0:
            raise ValueError(f"`noise` must have one std for all weights of a coordinate; received {own.tolist()}.")
        if own[0] > 0 and np.diag(form).any() and net.noise.unit_moment(3) != 0:
            raise ValueError(
                "`noise` must not be skewed where weights enter by their squares: it would be a constant force on them."
            )
        values = np.linalg.eigvalsh(form)
        significant = values[np.abs(values) > 1e-12 * np.abs(values).max()]
        for side in (significant[significant > 0], significant[significant < 0]):
            if own[0] > 0 and len(side) and np.ptp(side) > 1e-12 * np.abs(side).max():
                raise ValueError(
                    f"`noise` has no known limit for {formula.text!r}: directions of different curvature compete."
                )
        spread = own[0] ** 2 * problem.feature_variances[mine]
        up_cost[mine] = 2.0 * values.max() * spread if values.max() > 0 else 0.0
        low_cost[mine] = -2.0 * values.min() * spread if values.min() < 0 else 0.0
        offset[mine] = own[0] ** 2 * values.sum()
    return upper, lower, up_cost, low_cost, offset if offset.any() else 0.0


def _with_decay(
    net: DiagonalNetwork, bounds: tuple[Array, Array], thresholds: tuple[Array, Array], costs: tuple[Array, Array]
) -> tuple[Array, Array, Array, Array]:
    """Quadratic formulas: a component grows at ``2 mu z - lambda t``, so ``kappa^+- = lambda t^+-`` is added."""
    if isinstance(net.weight_decay, Decay):
        raise ValueError(
            "`weight_decay` must be constant for this limit; received a schedule: go on with the next decay from "
            "`path.state(t)`, t on the accelerated clock."
        )
    d = len(bounds[0])
    upper, lower = (np.array(side) for side in bounds)
    up_cost, low_cost = (np.array(side) for side in costs)
    for formula, _, mine in net.parts(d):
        if quadratic_form(formula) is not None:
            for cost, threshold in zip((up_cost, low_cost), thresholds, strict=True):
                own = threshold[mine]
                cost[mine] += np.where(np.isfinite(own), net.weight_decay * np.where(np.isfinite(own), own, 0.0), 0.0)
        elif formula.product_of is not None:
            # The decay makes the origin stable: no coordinate leaves it.
            upper[mine], lower[mine] = np.inf, np.inf
        else:
            raise ValueError(
                f"`weight_decay` has a known limit for quadratic formulas and products; received {formula.text!r}."
            )
    return upper, lower, up_cost, low_cost
