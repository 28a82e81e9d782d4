"""The loop over steps in the weights themselves, for any formula.

It is compiled once for all networks, whose generated kernels it calls by their addresses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.descent.growth_loop import any_running, slot_of
from flowsim.descent.products import move_on, products
from flowsim.descent.tiles import ROWS, add_multiple, aligned, copy_to, is_any
from flowsim.solvers.compilation import INTEGERS, TABLE, VECTOR, address_of, bare, compiled
from flowsim.solvers.simd import EIGHT, caller, pointer
from flowsim.symbolic.kernels import Kernels

_KINDS = {
    "value": (TABLE, INTEGERS, VECTOR),
    "mean": (TABLE, INTEGERS, VECTOR, VECTOR),
    "gradient": (TABLE, INTEGERS, TABLE),
    "field": (TABLE, INTEGERS, VECTOR, VECTOR, VECTOR, TABLE),
}
call_value, call_mean, call_gradient, call_field = (caller(*kinds) for kinds in _KINDS.values())


class Formula(NamedTuple):
    """Addresses of the network's kernels; 0 for those of another kind of step."""

    value: int
    mean: int
    gradient: int
    field: int

    @classmethod
    def of(cls, kernels: Kernels, expected: bool) -> Formula:
        needed = ("value", "mean", "field") if expected else ("value", "gradient")
        return cls(
            *(address_of(getattr(kernels, name), *kinds) if name in needed else 0 for name, kinds in _KINDS.items())
        )


class WeightOptions(NamedTuple):
    """Constants of a run; N = d * lanes. `scale` (lanes,) are steps over the number of rows, `penalty` (N,) is
    h sigma_i^2; `radius` is inf without projection."""

    scale: Array
    kind: Integers
    std: Array
    penalty: Array
    expected: bool
    multiplicative: bool
    radius: float
    has_law: bool
    #: h lambda of weight decay, (N,)
    shrink: Array


class WeightState(NamedTuple):
    """Weights and velocities (k, N), factors of the imbalance (k - 1, N), beta (N,), length and stopped (lanes,)."""

    w: Array
    v: Array
    factor: Array
    beta: Array
    length: Array
    stopped: Integers


class Companion(NamedTuple):
    """A copy of the weights, rounded differently and moved by the same forces; empty arrays where none is needed.

    `nudge` (k, N) are units in the last place by which a step may perturb a weight, equal for weights that start with
    equal moduli, so that symmetries of a start are kept. `largest` and `parted` (lanes,): the largest coefficient so
    far, and the step from which on the coefficients of the two differ, or -1.
    """

    w: Array
    v: Array
    nudge: Array
    largest: Array
    parted: Integers


class WeightRecord(NamedTuple):
    """Recorded states, a leading axis T before the shapes of :class:`WeightState`."""

    beta: Array
    w: Array
    factor: Array
    length: Array


class WeightMemory(NamedTuple):
    """Memory of the loop: predicted beta and the force on it, padded with zeros to whole vectors or tiles; slopes and
    shifted weights (k, N); residuals and noisy targets; a square of each lane; and what stands for no rows, no noise.
    """

    predicted: Array
    force: Array
    slope: Array
    point: Array
    residual: Array
    noisy: Array
    square: Array
    no_rows: Integers
    no_noise: Array

    @classmethod
    def of(cls, w: Array, target: Array, lanes: int) -> WeightMemory:
        count, size = w.shape
        whole = EIGHT if lanes == 1 else ROWS * lanes
        predicted, force = (aligned(np.zeros(size), -(-size // whole) * whole) for _ in range(2))
        slope, point = np.empty((2, count, size))
        residual, noisy = (aligned(np.zeros(target.size)) for _ in range(2))
        nothing = np.empty(0, np.int64), np.empty((count, 0))
        return cls(predicted, force, slope, point, residual, noisy, np.empty(lanes), *nothing)


#: Difference of coefficients, relative to the largest, from which on they are lost to rounding.
_PARTED = 1e-6
_ULP = 2.0**-52


@bare()
def _keep(x, record, slot):
    """``record[slot] = x``."""
    entries, kept = pointer(x, 0), pointer(record, slot * x.size)
    for i in range(x.size):
        kept[i] = entries[i]


@bare()
def _shrink(w, v, factor, lane, lanes):
    for a in range(w.shape[0]):
        for i in range(lane, w.shape[1], lanes):
            inside = w[a, i] * factor
            v[a, i] += inside - w[a, i]
            w[a, i] = inside


@bare()
def _project(w, v, companion, radius, lanes):
    for lane in range(lanes):
        square = 0.0
        for a in range(w.shape[0]):
            for i in range(lane, w.shape[1], lanes):
                square += w[a, i] * w[a, i]
        if square > radius * radius:
            _shrink(w, v, radius / math.sqrt(square), lane, lanes)
            if companion.w.shape[1]:
                _shrink(companion.w, companion.v, radius / math.sqrt(square), lane, lanes)


@bare()
def _imbalance_law(w, a, factor):
    # w_1^2 - w_l^2 is multiplied by 1 - (h g prod of the other weights)^2.
    for pair in range(factor.shape[0]):
        for i in range(w.shape[1]):
            turn = a[i]
            for m in range(1, w.shape[0]):
                if m != pair + 1:
                    turn *= w[m, i]
            factor[pair, i] *= 1.0 - turn * turn


@bare()
def _place(w, v, xi, options, plan, point):
    # The point at which the gradient is evaluated.
    for m in range(w.shape[0]):
        for i in range(w.shape[1]):
            x = w[m, i] + plan.momentum * v[m, i] if plan.nesterov else w[m, i]
            if xi.shape[1]:
                x = x + (x * xi[m, i] if options.multiplicative else xi[m, i])
            point[m, i] = x


@bare()
def _descend(formula, here, a, xi, options, slope):
    # The descent direction: a is the force on beta.
    count, size = slope.shape
    if options.expected:
        call_field(formula.field, (here, options.kind, options.std, a, options.penalty, slope))
    else:
        call_gradient(formula.gradient, (here, options.kind, slope))
        for m in range(count):
            for i in range(size):
                slope[m, i] *= -a[i]
                if options.multiplicative and xi.shape[1]:
                    # The chain rule for theta -> L(theta (1 + xi)).
                    slope[m, i] *= 1.0 + xi[m, i]


@bare()
def _move(w, v, kick, options, plan, slope):
    # One step of w.
    count, size = w.shape
    if is_any(options.shrink):
        # At the weights, or at the extrapolated point, without noise.
        ahead = plan.momentum if plan.nesterov else 0.0
        for m in range(count):
            for i in range(size):
                slope[m, i] -= options.shrink[i] * (w[m, i] + ahead * v[m, i])
    for m in range(count):
        for i in range(size):
            move = slope[m, i] + kick[m, i] if kick.shape[1] else slope[m, i]
            if plan.momentum != 0.0:
                move += plan.momentum * v[m, i]
                v[m, i] = move
            w[m, i] += move


@bare()
def _compare(beta, other, companion, k):
    # Perturb the companion by at most a unit in the last place; record lanes whose coefficients differ.
    lanes = companion.parted.size
    for i in range(beta.size):
        companion.largest[i % lanes] = max(companion.largest[i % lanes], abs(beta[i]))
    for i in range(beta.size):
        lane = i % lanes
        if companion.parted[lane] < 0 and abs(other[i] - beta[i]) > _PARTED * companion.largest[lane]:
            companion.parted[lane] = k
    # Pseudorandom signs of period 2**31.
    sign = 1.0 if ((k * 1103515245 + 12345) >> 16) & 1 else -1.0
    for m in range(companion.w.shape[0]):
        for i in range(companion.w.shape[1]):
            companion.w[m, i] *= 1.0 + sign * _ULP * companion.nudge[m, i]


@compiled(once=True, counted=False)
def run_weights(formula, data, target, draws, options, state, companion, plan, record, memory):
    """Take the steps of `plan`; returns False as soon as no lane has a finite loss."""
    labels, rows, noise, kicks = draws
    w, v, beta, kind = state.w, state.v, state.beta, options.kind
    a, predicted, slope, point = memory.force[: beta.size], memory.predicted[: beta.size], memory.slope, memory.point
    moves = plan.nesterov or noise.shape[0] > 0
    has_companion = companion.w.shape[1] > 0
    for k in range(plan.first, plan.last + 1):
        slot = slot_of(plan, k)
        if slot >= 0 and record.length[slot, 0] < 0.0:
            _keep(beta, record.beta, slot)
            _keep(w, record.w, slot)
            _keep(state.factor, record.factor, slot)
            _keep(state.length, record.length, slot)
        if k == plan.last:
            break
        aim = target
        if labels.shape[0]:
            add_multiple(target, 1.0, labels[k - plan.first], memory.noisy)
            aim = memory.noisy
        batch = rows[k - plan.first] if rows.shape[0] else memory.no_rows
        xi = noise[k - plan.first] if noise.shape[0] else memory.no_noise
        kick = kicks[k - plan.first] if kicks.shape[0] else memory.no_noise
        here = w
        if moves:
            _place(w, v, xi, options, plan, point)
            here = point
        if options.expected:
            call_mean(formula.mean, (here, kind, options.std, predicted))
        elif moves:
            call_value(formula.value, (here, kind, predicted))
        else:
            copy_to(beta, predicted)
        products(data, aim, batch, memory.predicted, options.scale, memory.residual, memory.force, memory.square)
        if not any_running(memory.square, state.stopped, k):
            return False
        if options.has_law:
            _imbalance_law(w, a, state.factor)
        _descend(formula, here, a, xi, options, slope)
        _move(w, v, kick, options, plan, slope)
        if has_companion:
            other = companion.w
            if moves:
                _place(companion.w, companion.v, xi, options, plan, point)
                other = point
            _descend(formula, other, a, xi, options, slope)
            _move(companion.w, companion.v, kick, options, plan, slope)
        if options.radius < math.inf:
            _project(w, v, companion, options.radius, state.length.size)
        if has_companion:
            call_value(formula.value, (companion.w, kind, a))
        call_value(formula.value, (w, kind, predicted))
        if has_companion:
            _compare(predicted, a, companion, k + 1)
        move_on(predicted, beta, state.length, memory.square)
    return True
