r"""The loop over steps in growth coordinates: exact at any scale of initialisation.

For ``phi = sum_a m_a c_a^2`` (``u*v``: c = (u + v, u - v)) one step of descent multiplies every component,

.. math:: c_a \leftarrow c_a (1 - h \lambda_a g - h \kappa_a), \qquad \lambda_a = \pm 1 \text{ for } u v,

so that a component, kept as ``mantissa * 2**exponent``, is a product of factors, accurate to rounding at any size,
without a logarithm or an exponential in the loop.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import boolean, float64, int64, types

from flowsim.arrays import Array, Integers
from flowsim.descent.products import Data, dense_products, move_on, products
from flowsim.descent.settings import Settings
from flowsim.descent.tiles import LANES, ROWS, add_multiple, aligned_buffer, copy_to, is_any, lane_residuals, tile
from flowsim.solvers.compilation import INTEGERS, TABLE, VECTOR, bare, compiled
from flowsim.solvers.simd import EIGHT, add_up, below, constant, greater, largest, load, magnitude, pointer, store

#: Mantissas are renormalised to [1/2, 1) when outside [2**-64, 2**64], tested every 32 steps.
_LARGE = 2.0**64
_SMALL = 2.0**-64
_LOOK_EVERY = 32


class StepPlan(NamedTuple):
    """Steps `first` to `last` of `n_steps`; every `every`-th state is recorded."""

    first: int
    last: int
    n_steps: int
    every: int
    momentum: float
    nesterov: bool

    @classmethod
    def of(cls, settings: Settings, first: int, last: int) -> StepPlan:
        """A block of the steps of a run."""
        return cls(first, last, settings.n_steps, settings.record_every, settings.momentum, settings.nesterov)


class Components(NamedTuple):
    """Constants of a run; arrays (k, N) with N = d * lanes, `shift` (N,), `powers` (pairs, k, N)."""

    rate: Array
    decay: Array
    coefficient: Array
    shift: Array
    powers: Array
    is_paired: bool


class GrowthState(NamedTuple):
    """The state. N is a multiple of EIGHT.

    `values` is what is recorded: beta (N,), components c (k, N), factors of the conserved quantities (pairs, N), the
    exponents of both as integers, and the length of the path of each lane, in one row aligned to a cache line;
    `exponents` are those integers. Components and velocities `v` (k N,) are ``(c, v) * 2**e``; `scale` (k, N) are
    coefficients times ``4**e``, `work` is memory for a step, `stopped` the step at which the loss of a lane ceased to
    be finite.
    """

    values: Array
    exponents: Integers
    v: Array
    scale: Array
    work: Array
    stopped: Integers


@bare()
def _strays(x, size):
    # Rarely true.
    far = constant(0.0)
    for i in range(0, size, EIGHT):
        entry, zero = magnitude(load(x, i)), constant(0.0)
        small = below(entry, constant(_SMALL), below(zero, entry, constant(1.0), zero), zero)
        far = greater(below(constant(_LARGE), entry, constant(1.0), small), far)
    return largest(far) > 0.0


@bare()
def _shift_of(size):
    """The exponent by which a mantissa of that size is to be divided, 0 while it is near 1."""
    if (size > _LARGE or size < _SMALL) and 0.0 < size < math.inf:
        return math.frexp(size)[1]
    return 0


@bare()
def _normalise_all(state, coefficient):
    count, size = coefficient.shape
    c, e, v, all_of_them = pointer(state.values, size), state.exponents, pointer(state.v, 0), count * size
    if _strays(c, all_of_them) or _strays(v, all_of_them):
        for i in range(all_of_them):
            shift = _shift_of(max(abs(c[i]), abs(v[i])))
            if shift != 0:
                c[i], v[i] = math.ldexp(c[i], -shift), math.ldexp(v[i], -shift)
                e[i] += shift
                kept = pointer(coefficient, i)[0]
                pointer(state.scale, i)[0] = math.ldexp(kept, max(min(2 * e[i], 4000), -4000))
    factor, pairs = pointer(c, all_of_them), e.size - all_of_them
    if _strays(factor, pairs):
        for i in range(pairs):
            shift = _shift_of(abs(factor[i]))
            if shift != 0:
                factor[i] = math.ldexp(factor[i], -shift)
                e[all_of_them + i] += shift


@bare()
def _predict(c, scale, beta):
    for i in range(beta.size):
        beta[i] = c[i] * c[i] * scale[0, i]
    for a in range(1, scale.shape[0]):
        for i in range(beta.size):
            beta[i] += c[a * beta.size + i] * c[a * beta.size + i] * scale[a, i]


@bare(forceinline=True)
def _multiply_eight(i, a, rate, c0, c1, scale0, scale1, factor, beta, total):
    """Entries i to i + 8: eight coordinates of one run, or one coordinate of eight runs; `a` is already loaded.

    Returns `total` plus their squared steps.
    """
    turn = a * load(rate, i)
    p, q = load(c0, i) * (1.0 - turn), load(c1, i) * (1.0 + turn)
    store(c0, i, p)
    store(c1, i, q)
    store(factor, i, load(factor, i) * (1.0 - turn * turn))
    new = p * p * load(scale0, i) + q * q * load(scale1, i)
    step = new - load(beta, i)
    store(beta, i, new)
    return step * step + total


@bare()
def _plain_steps(design, target, step, rate, state, first, steps):
    """`steps` steps of one run. Returns whether its loss was finite."""
    size = rate.shape[1]
    beta, a, rows, length = state.values, state.work, pointer(state.stopped, 0), state.values.size - LANES
    c0, c1, factor = pointer(beta, size), pointer(beta, 2 * size), pointer(beta, 3 * size)
    scale0, scale1 = pointer(state.scale, 0), pointer(state.scale, size)
    for k in range(steps):
        if not math.isfinite(dense_products(design, target, rows, 0, beta, step[0], a)):
            state.stopped[0] = first + k
            return False
        total = constant(0.0)
        for i in range(0, size, EIGHT):
            total = _multiply_eight(i, load(a, i), rate, c0, c1, scale0, scale1, factor, beta, total)
        beta[length] += math.sqrt(add_up(total))
    return True


@bare()
def _plain_lanes(design, target, step, rate, state, first, steps):
    """The same for LANES runs: every tile of X^T r is applied to its coordinates before the next is computed."""
    (packed, packed_columns), size, beta = design, rate.shape[1], state.values
    columns, length, square = size // LANES, beta.size - LANES, pointer(state.work, target.size)
    n = packed_columns.size // columns
    c0, c1, factor = pointer(beta, size), pointer(beta, 2 * size), pointer(beta, 3 * size)
    scale0, scale1 = pointer(state.scale, 0), pointer(state.scale, size)
    for k in range(steps):
        lane_residuals(packed, target, beta, step, state.work, square)
        if not any_running(square, state.stopped, first + k):
            return False
        total = constant(0.0)
        for column in range(0, columns, ROWS):
            s0, s1, s2, s3 = tile(packed_columns, column * n, state.work, n)
            i = column * LANES
            total = _multiply_eight(i, s0, rate, c0, c1, scale0, scale1, factor, beta, total)
            total = _multiply_eight(i + LANES, s1, rate, c0, c1, scale0, scale1, factor, beta, total)
            total = _multiply_eight(i + 2 * LANES, s2, rate, c0, c1, scale0, scale1, factor, beta, total)
            total = _multiply_eight(i + 3 * LANES, s3, rate, c0, c1, scale0, scale1, factor, beta, total)
        store(square, 0, total)
        for lane in range(LANES):
            beta[length + lane] += math.sqrt(square[lane])
    return True


@bare()
def any_running(square, stopped, k):
    """Record step k for lanes whose loss is no longer finite; returns whether one is left."""
    is_running = False
    for lane in range(stopped.size):
        if math.isfinite(square[lane]):
            is_running = is_running or stopped[lane] < 0
        elif stopped[lane] < 0:
            stopped[lane] = k
    return is_running


@bare()
def slot_of(plan, k):
    """Where the state before step k is recorded; -1 if it is not."""
    if k % plan.every == 0:
        return k // plan.every
    return k // plan.every + 1 if k == plan.n_steps else -1


@bare()
def _keep(record, state, plan, k):
    """Record the state before step k, where the plan says so."""
    slot, size = slot_of(plan, k), state.values.size
    if slot < 0:
        return
    kept = pointer(record, slot * size)
    if kept[size - LANES] < 0.0:  # not recorded yet: the last step of a block is the first of the next
        for i in range(0, size, EIGHT):
            store(kept, i, load(state.values, i))


@bare()
def _multiply(c, factor, a, parts):
    """A step without momentum, of components and conserved quantities; ``a = step * gradient``."""
    count, size = parts.rate.shape
    for m in range(count):
        for i in range(size):
            c[m * size + i] *= 1.0 - a[i] * parts.rate[m, i] - parts.decay[m, i]
    for pair in range(parts.powers.shape[0]):
        for i in range(size):
            if parts.is_paired:
                kept, turn = 1.0 - parts.decay[0, i], a[i] * parts.rate[0, i]
                factor[pair * size + i] *= kept * kept - turn * turn
                continue
            for m in range(count):
                power = parts.powers[pair, m, i]
                if power != 0.0:
                    factor[pair * size + i] *= (1.0 - a[i] * parts.rate[m, i] - parts.decay[m, i]) ** power


@bare()
def _accelerate(c, v, ahead, a, parts, plan):
    """A step with momentum: heavy ball, or Nesterov with the gradient at the extrapolated point `ahead`."""
    for m in range(parts.rate.shape[0]):
        for i in range(parts.rate.shape[1]):
            at, turn = m * parts.rate.shape[1] + i, a[i] * parts.rate[m, i] + parts.decay[m, i]
            if plan.nesterov:
                new = ahead[at] * (1.0 - turn)
                v[at] = new - c[at]
                c[at] = new
            else:
                v[at] = plan.momentum * v[at] - c[at] * turn
                c[at] += v[at]


#: Types of the arguments of the loops.
CUBE = float64[:, :, ::1]


def tuple_of(cls, *kinds):
    return types.NamedTuple(kinds, cls)


_STATE = tuple_of(GrowthState, VECTOR, INTEGERS, VECTOR, TABLE, VECTOR, INTEGERS)
PLAN = tuple_of(StepPlan, int64, int64, int64, int64, float64, boolean)
_PLAIN = VECTOR, VECTOR, TABLE, TABLE, _STATE, PLAN, TABLE
_PARTS = tuple_of(Components, TABLE, TABLE, TABLE, VECTOR, CUBE, boolean)
_DATA = tuple_of(Data, TABLE, VECTOR, INTEGERS, INTEGERS, boolean, VECTOR, VECTOR, int64, VECTOR, int64)


@bare()
def _until(plan, k):
    """How many steps to take before the next look at the state."""
    return min(plan.every - k % plan.every, plan.last - k, _LOOK_EVERY)


@bare()
def _after(state, coefficient, k, steps):
    if (k + steps) // _LOOK_EVERY != k // _LOOK_EVERY:
        _normalise_all(state, coefficient)
    return k + steps


@compiled(explicit=True, declared=(TABLE, *_PLAIN))
def run_plain(design, target, step, rate, coefficient, state, plan, record):
    """:func:`run_growth` for one run of ``u*v``, squares and dense data, without noise, batches, decay or momentum."""
    k = plan.first
    while k < plan.last:
        _keep(record, state, plan, k)
        steps = _until(plan, k)
        if not _plain_steps(design, target, step, rate, state, k, steps):
            return False
        k = _after(state, coefficient, k, steps)
    _keep(record, state, plan, k)
    return True


@compiled(explicit=True, declared=(types.UniTuple(VECTOR, 2), *_PLAIN))
def run_lanes(design, target, step, rate, coefficient, state, plan, record):
    """The same for LANES runs; `design` is X packed by rows and by columns."""
    k = plan.first
    while k < plan.last:
        _keep(record, state, plan, k)
        steps = _until(plan, k)
        if not _plain_lanes(design, target, step, rate, state, k, steps):
            return False
        k = _after(state, coefficient, k, steps)
    _keep(record, state, plan, k)
    return True


@compiled(declared=(_DATA, VECTOR, TABLE, types.Array(int64, 2, "C"), VECTOR, _PARTS, _STATE, PLAN, TABLE))
def run_growth(data, target, labels, rows, scale, parts, state, plan, record):
    """Take the steps of `plan`; returns False as soon as no lane has a finite loss.

    `labels` (B, n * lanes) is label noise and `rows` (B, b) the batches of this block of B steps; either may be empty.
    """
    count, size = parts.rate.shape
    a, residual, beta = aligned_buffer(size), aligned_buffer(target.size), state.values[:size]
    c, factor, v = pointer(state.values, size), pointer(state.values, (1 + count) * size), pointer(state.v, 0)
    length = state.values[state.values.size - LANES :][: scale.size]
    ahead, point = np.empty(state.v.size), aligned_buffer(size)
    square, noisy = np.empty(scale.size), np.zeros(target.size)
    every_row = np.empty(0, np.int64)
    has_shift = is_any(parts.shift)
    for k in range(plan.first, plan.last):
        _keep(record, state, plan, k)
        aim = target
        if labels.shape[0]:
            add_multiple(target, 1.0, labels[k - plan.first], noisy)
            aim = noisy
        batch = rows[k - plan.first] if rows.shape[0] else every_row
        if plan.nesterov:
            add_multiple(c, plan.momentum, state.v, ahead)
            _predict(ahead, state.scale, point)
        else:
            copy_to(beta, point)
        if has_shift:
            add_multiple(point, 1.0, parts.shift, point)
        products(data, aim, batch, point, scale, residual, a, square)
        if not any_running(square, state.stopped, k):
            return False
        if plan.momentum == 0.0:
            _multiply(c, factor, a, parts)
        else:
            _accelerate(c, v, ahead, a, parts, plan)
        if k % _LOOK_EVERY == 0:
            _normalise_all(state, parts.coefficient)
        _predict(c, state.scale, point)
        move_on(point, beta, length, square)
    _keep(record, state, plan, plan.last)
    return True
