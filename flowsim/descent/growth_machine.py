"""Descent of quadratic networks in growth coordinates."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array, Integers, log_abs, signed_exp
from flowsim.descent.growth_loop import Components, GrowthState, StepPlan, run_growth, run_lanes, run_plain
from flowsim.descent.machine import LaneMachine, Read, recorded_steps
from flowsim.descent.multipliers import Multipliers
from flowsim.descent.products import Data
from flowsim.descent.schedules import batch_variances
from flowsim.descent.settings import Settings
from flowsim.descent.tiles import LANES, aligned, side_by_side

_LN2 = float(np.log(2.0))


class GrowthMachine(LaneMachine):
    """Components of every coordinate and lane as ``mantissa * 2**exponent``.

    `multipliers`: rates and start of the network's components; `steps` (lanes,): step sizes.
    """

    name = "growth"

    def __init__(
        self,
        multipliers: Multipliers,
        data: Data,
        target: Array,
        weights: tuple[str, ...],
        settings: Settings,
        steps: Array,
    ) -> None:
        self.multipliers, self.data, self.weights, self.settings = multipliers, data, weights, settings
        self.modes = multipliers.modes
        self.invariants = self.modes.invariants
        self.sees_batches = settings.expected and bool(multipliers.per_variance.any())
        lanes = len(steps)
        self.lanes, self.d, self.steps = lanes, multipliers.rate.shape[1], steps
        self.variances = batch_variances(data, np.arange(len(target)), self.d)
        self.target = side_by_side(target, lanes)
        self.scale = steps / (settings.batch_size or len(target))
        # Coordinates that pad a vector have zero weights, which stay zero.
        spread, own = partial(side_by_side, lanes=lanes), multipliers
        self.kappa, self.extra = own.kappa, np.zeros(lanes)
        self.parts = Components(
            spread(own.rate),
            spread(own.kappa),
            spread(own.coefficient),
            spread(own.shift),
            spread(own.powers),
            own.is_paired,
        )
        self._set_parts()
        c, e = spread(multipliers.mantissa), spread(multipliers.exponent)
        with np.errstate(over="ignore", invalid="ignore"):
            scale = np.ldexp(self.parts.coefficient, np.clip(2 * e, -4000, 4000))
            beta = np.sum(c**2 * scale, axis=0)
        self.pairs = len(multipliers.powers)
        values, work = self._values(1), max(c.shape[1], self.target.size + LANES)
        for part, start in zip(self._split(values), (beta, c, e, 1.0, 0, 0.0), strict=True):
            part[:] = start
        self.state = GrowthState(
            aligned(values[0]), e.ravel(), np.zeros(c.size), aligned(scale), aligned(np.empty(work)), np.full(lanes, -1)
        )
        self.record = self._values(len(recorded_steps(settings.n_steps, settings.record_every)))
        self.record[:, -LANES:] = -1.0

    def _values(self, count: int) -> Array:
        """Memory for recorded states, in the order of :class:`GrowthState`."""
        components, size = self.parts.rate.shape
        return np.empty((count, (1 + 2 * components + 2 * self.pairs) * size + LANES))

    def _split(self, values: Array) -> list[NDArray[Any]]:
        """Beta, components, their exponents, factors, theirs, and lengths, of every recorded state."""
        count, (k, size) = len(values), self.parts.rate.shape
        ends = np.cumsum([size, k * size, self.pairs * size, k * size, self.pairs * size])
        beta, *parts, length = np.split(values, ends, axis=1)
        c, factor, e, factor_e = (part.reshape(count, part.shape[1] // size, size) for part in parts)
        return [beta, c, e.view(np.int64), factor, factor_e.view(np.int64), length]

    def set_step(self, size: float) -> None:
        """Set the size of the next steps."""
        self.scale *= size / self.steps
        self.steps = np.full_like(self.steps, size)
        self._set_parts()

    def set_decay(self, rates: Array) -> None:
        """Set the weight decay of the next steps, for each lane."""
        self.extra = rates - self.multipliers.weight_decay
        self._set_parts()

    def _set_parts(self) -> None:
        """Set h kappa of every component and lane."""
        spread = side_by_side(self.kappa, lanes=self.lanes)
        count = spread.shape[1] // self.lanes
        self.parts.decay[:] = (spread + np.tile(self.extra, count)) * np.tile(self.steps, count)

    def _look_at(self, rows: Integers) -> None:
        own = self.multipliers
        self.kappa = own.kappa + own.per_variance * (batch_variances(self.data, rows, self.d) - self.variances)
        self._set_parts()

    def _advance(self, first: int, last: int, rows: Integers, labels: Array, noise: Array) -> bool:
        data, parts, plan = self.data, self.parts, StepPlan.of(self.settings, first, last)
        values, (k, size) = self.state.values, parts.rate.shape
        exponents = values[(1 + k + self.pairs) * size : -LANES].view(np.int64)
        state = self.state._replace(exponents=exponents)  # here: in an unpickled machine arrays share no memory
        is_plain = parts.is_paired and not (plan.momentum or parts.shift.any() or parts.decay.any())
        if is_plain and not (data.is_sparse or data.loss or len(labels) or len(rows)):
            common = self.target, self.scale, parts.rate, parts.coefficient, state, plan, self.record
            if self.lanes > 1:
                return bool(run_lanes((data.packed, data.packed_columns), *common))
            return bool(run_plain(data.X, *common))
        return bool(run_growth(self.located, self.target, labels, rows, self.scale, parts, state, plan, self.record))

    def read(self, lane: int, count: int) -> Read:
        beta, c, e, factor, factor_e, length = self._split(self.record)

        def pick(values: NDArray) -> NDArray:
            return values[:count, ..., lane :: self.lanes][..., : self.d]

        mantissa, exponent = pick(c), pick(e)
        logs = log_abs(mantissa) + exponent * _LN2
        log_law = log_abs(pick(factor)) + pick(factor_e) * _LN2
        weights, log_weights = self.modes.weights(logs, np.sign(mantissa))
        signs, log_imbalance = self.modes.products(logs, np.sign(mantissa))
        tracked = self.settings.momentum == 0.0
        return Read(
            beta=pick(beta).copy(),
            weights={name: weights[:, b] for b, name in enumerate(self.weights)},
            log_abs_weights={name: log_weights[:, b] for b, name in enumerate(self.weights)},
            imbalance=signed_exp(signs, log_imbalance),
            log_imbalance=log_imbalance,
            imbalance_sign=signs,
            terms=np.ones(self.d),  # components that are exactly zero stay zero
            length=length[:count, lane].copy(),
            log_law=log_law if tracked else None,
            law_sign=np.sign(pick(factor)) if tracked else None,
            has_law=tracked,
        )
