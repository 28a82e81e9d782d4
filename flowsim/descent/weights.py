"""Descent in the weights, for any formula and any noise."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.descent.draws import Draws
from flowsim.descent.growth_loop import StepPlan
from flowsim.descent.machine import LaneMachine, Read, recorded_steps
from flowsim.descent.products import Data
from flowsim.descent.schedules import batch_variances
from flowsim.descent.settings import Settings
from flowsim.descent.tiles import aligned, side_by_side
from flowsim.descent.weights_loop import (
    Companion,
    Formula,
    WeightMemory,
    WeightOptions,
    WeightRecord,
    WeightState,
    run_weights,
)
from flowsim.network import DiagonalNetwork, InitialScale, decay_of
from flowsim.problem import Problem
from flowsim.symbolic.kernels import Kernels, kernels

#: Squares of weights above this part of the final ones keep seven digits beside them.
_RESOLVED = 1e-9


class WeightMachine(LaneMachine):
    """Weights of every coordinate and lane as plain floats.

    Raises ValueError if the start underflows and no noise dominates it.

    Parameters
    ----------
    net, problem, data
        The network, its problem, and the data in the layout of the loops.
    scale, direction : InitialScale, array (k, d)
        The start.
    steps : array (lanes,)
        Step sizes.
    kicks : Draws, optional
        Noise of std 1; every step subtracts it from the weights, times ``kick_sizes(step)``.
    """

    name = "weights"

    @cached_property
    def kernels(self) -> Kernels:
        return kernels(self.stepped)

    @cached_property
    def formula(self) -> Formula:
        return Formula.of(self.kernels, self.options.expected)

    def __init__(
        self,
        net: DiagonalNetwork,
        problem: Problem,
        data: Data,
        scale: InitialScale,
        direction: Array,
        settings: Settings,
        steps: Array,
        kicks: Draws | None = None,
    ) -> None:
        self.net, self.data, self.settings, self.kicks = net, data, settings, kicks
        # Drawn noise needs phi and its gradient alone.
        self.stepped = net if settings.expected or net.noise is None else net.variant()
        self.invariants: tuple[str, ...] = self.kernels.invariant_names
        self.lanes, self.d, self.steps = len(steps), problem.d, steps
        std = net.stds
        multiplicative = net.noise is not None and net.noise.multiplicative
        sampled = (bool(std.any()) and not settings.expected) or kicks is not None
        start = scale.value * direction
        lost = (np.abs(start) < np.finfo(float).tiny) & (direction != 0)
        if lost.any() and (multiplicative or not sampled):
            raise ValueError(
                f"`alpha` = {scale} puts weights of {net} below the range of floats, where only growth coordinates "
                "can follow them."
            )
        self.target = side_by_side(problem.y, self.lanes)
        self.is_product = all(
            formula.product_of is not None and len(formula.product_of) == len(net.weights) for formula in net.distinct
        )
        has_law = self.is_product and settings.momentum == 0 and settings.radius is None and not std.any()
        has_law = has_law and not net.weight_decay and kicks is None
        kind = np.repeat(net.kinds(problem.d), self.lanes)
        variances = problem.feature_variances if std.any() else np.zeros(problem.d)
        self.sees_batches = settings.expected and bool(std.any())
        self.options = WeightOptions(
            steps / (settings.batch_size or problem.n),
            kind,
            std,
            np.repeat(variances, self.lanes) * np.tile(steps, problem.d),
            self.sees_batches,
            multiplicative,
            np.inf if settings.radius is None else settings.radius,
            has_law,
            decay_of(net.weight_decay).rate(0.0) * np.tile(steps, problem.d),
        )
        w = aligned(np.repeat(start, self.lanes, axis=1))
        if settings.radius is not None and np.linalg.norm(start) > settings.radius:
            raise ValueError(
                f"`radius` must hold the start, of norm {np.linalg.norm(start):.6g}; received {settings.radius}."
            )
        beta = aligned(np.empty(w.shape[1]))
        self.kernels.value(w, kind, beta)
        self.memory = WeightMemory.of(w, self.target, self.lanes)
        self.companion = _companion(w, self.lanes, problem.coefficient_size)
        pairs = len(net.weights) - 1 if has_law else 0
        self.state = WeightState(
            w, np.zeros_like(w), np.ones((pairs, w.shape[1])), beta, np.zeros(self.lanes), np.full(self.lanes, -1)
        )
        slots = len(recorded_steps(settings.n_steps, settings.record_every))
        self.record = WeightRecord(
            np.empty((slots, w.shape[1])),
            np.empty((slots, *w.shape)),
            np.empty((slots, pairs, w.shape[1])),
            np.full((slots, self.lanes), -1.0),
        )

    @property
    def parted(self) -> Integers:
        """The step from which on the coefficients of a lane are lost to rounding; -1 while they are accurate."""
        return self.companion.parted

    def set_step(self, size: float) -> None:
        """Set the size of the next steps."""
        factor = size / self.steps[0]
        self.options.scale[:] *= factor
        self.options.penalty[:] *= factor
        self.options.shrink[:] *= factor
        self.steps = np.full_like(self.steps, size)

    def set_decay(self, rates: Array) -> None:
        """Set the weight decay of the next steps, for each lane."""
        self.options.shrink[:] = np.tile(rates * self.steps, self.d)

    def _look_at(self, rows: Integers) -> None:
        variances = batch_variances(self.data, rows, self.d)
        self.options.penalty[:] = np.repeat(variances, self.lanes) * np.tile(self.steps, self.d)

    def _advance(self, first: int, last: int, rows: Integers, labels: Array, noise: Array) -> bool:
        plan = StepPlan.of(self.settings, first, last)
        kicks = np.empty((0, *self.state.w.shape))
        if self.kicks is not None:
            drawn = self.kicks.block(last - first).reshape(last - first, *self.state.w.shape)
            kicks = drawn * np.tile(-self.settings.kick_sizes(self.steps), self.d)
        return bool(
            run_weights(
                self.formula,
                self.located,
                self.target,
                (labels, rows, noise, kicks),
                self.options,
                self.state,
                self.companion,
                plan,
                self.record,
                self.memory,
            )
        )

    def read(self, lane: int, count: int) -> Read:
        w = self.record.w[:count, :, lane :: self.lanes]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            imbalance, log_imbalance = self._imbalance(w)
            log_weights = np.log(np.abs(w))
            factor = self.record.factor[:count, :, lane :: self.lanes]
            log_law = np.log(np.abs(factor))
        has_law = self.options.has_law
        names = self.net.weights
        return Read(
            beta=self.record.beta[:count, lane :: self.lanes].copy(),
            weights={name: w[:, a].copy() for a, name in enumerate(names)},
            log_abs_weights={name: log_weights[:, a] for a, name in enumerate(names)},
            imbalance=imbalance,
            log_imbalance=log_imbalance,
            imbalance_sign=np.sign(imbalance),
            terms=(w[0] ** 2).sum(axis=0),
            length=self.record.length[:count, lane].copy(),
            log_law=log_law if has_law else None,
            law_sign=np.sign(factor) if has_law else None,
            has_law=has_law,
        )

    def _imbalance(self, w: Array) -> tuple[Array, Array]:
        count, _, d = w.shape
        if self.is_product:
            # Factored, so that the logarithm is finite where the square underflows.
            less, more = w[:, :1] - w[:, 1:], w[:, :1] + w[:, 1:]
            return less * more, np.log(np.abs(less)) + np.log(np.abs(more))
        flat = np.ascontiguousarray(w.transpose(1, 0, 2).reshape(w.shape[1], -1))
        out = np.empty((len(self.invariants), flat.shape[1]))
        self.kernels.invariants(flat, np.tile(self.net.kinds(d), count), out)
        imbalance = out.reshape(-1, count, d).transpose(1, 0, 2)
        return imbalance, np.log(np.abs(imbalance))


def _companion(w: Array, lanes: int, coefficient: float) -> Companion:
    """A companion where conserved quantities may be lost beside the final weights, else one without entries."""
    size = np.abs(w)
    least, grown = float(size[size > 0].min(initial=np.inf)), max(1.0, coefficient, float(size.max()) ** 2)
    if least**2 > _RESOLVED * grown:
        none = np.empty((len(w), 0))
        return Companion(none, none, none, np.zeros(lanes), np.full(lanes, -1))
    nudge = np.zeros_like(w)
    for a in range(len(w)):
        equal = [(size[a] == size[b]) for b in range(a)]
        nudge[a] = (-1.0) ** a * (1 + 2 * (a // 2))
        for b in reversed(range(a)):
            nudge[a] = np.where(equal[b], nudge[b], nudge[a])
    return Companion(w.copy(), np.zeros_like(w), nudge, np.zeros(lanes), np.full(lanes, -1))
