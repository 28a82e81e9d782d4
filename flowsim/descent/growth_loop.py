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
from numpy.typing import NDArray

from flowsim.arrays import Array
from flowsim.descent.products import Data, dense_products, move_on, products
from flowsim.descent.settings import Settings
from flowsim.descent.tiles import LANES, ROWS, add_multiple, aligned_buffer, copy_to, is_any, lane_residuals, tile
from flowsim.solvers.compilation import INTEGERS, TABLE, VECTOR, bare, compiled, part
from flowsim.solvers.simd import EIGHT, add_up, constant, load, store

Integers = NDArray[np.int64]

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
    """The state: components and velocities ``(c, v) * 2**e`` (k, N), factors of the conserved quantities (pairs, N),
    beta (N,), and per lane the length of the path and the step at which the loss ceased to be finite."""

    c: Array
    v: Array
    e: Integers
    scale: Array
    factor: Array
    factor_e: Integers
    beta: Array
    length: Array
    stopped: Integers


class GrowthRecord(NamedTuple):
    """Recorded states, with a leading axis T before the shapes of :class:`GrowthState`."""

    beta: Array
    c: Array
    e: Integers
    factor: Array
    factor_e: Integers
    length: Array


@bare()
def _strays(x):
    # Vectorised, and rarely true.
    found = False
    for i in range(x.size):
        found |= (abs(x[i]) > _LARGE) | ((abs(x[i]) < _SMALL) & (x[i] != 0.0))
    return found


@part()
def _normalise(c, v, e, scale, coefficient):
    if not (_strays(c.ravel()) or _strays(v.ravel())):
        return
    for a in range(c.shape[0]):
        for i in range(c.shape[1]):
            size = max(abs(c[a, i]), abs(v[a, i]))
            if (size > _LARGE or size < _SMALL) and 0.0 < size < math.inf:
                shift = math.frexp(size)[1]
                c[a, i] = math.ldexp(c[a, i], -shift)
                v[a, i] = math.ldexp(v[a, i], -shift)
                e[a, i] += shift
                scale[a, i] = math.ldexp(coefficient[a, i], max(min(2 * e[a, i], 4000), -4000))


@part()
def _normalise_factor(factor, factor_e):
    if not _strays(factor.ravel()):
        return
    for pair in range(factor.shape[0]):
        for i in range(factor.shape[1]):
            size = abs(factor[pair, i])
            if (size > _LARGE or size < _SMALL) and 0.0 < size < math.inf:
                shift = math.frexp(size)[1]
                factor[pair, i] = math.ldexp(factor[pair, i], -shift)
                factor_e[pair, i] += shift


@part()
def _predict(c, scale, beta):
    for i in range(c.shape[1]):
        beta[i] = c[0, i] * c[0, i] * scale[0, i]
    for a in range(1, c.shape[0]):
        for i in range(c.shape[1]):
            beta[i] += c[a, i] * c[a, i] * scale[a, i]


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


@bare(fastmath={"contract"}, forceinline=True)
def _multiply_pair(a, rate, c0, c1, scale0, scale1, factor, beta):
    """Multiply both components and the conserved quantity of every coordinate; returns the squared step of beta."""
    size = beta.size
    whole = size - size % EIGHT
    steps = constant(0.0)
    for i in range(0, whole, EIGHT):
        steps = _multiply_eight(i, load(a, i), rate, c0, c1, scale0, scale1, factor, beta, steps)
    total = add_up(steps)
    for i in range(whole, size):
        turn = a[i] * rate[i]
        c0[i] *= 1.0 - turn
        c1[i] *= 1.0 + turn
        factor[i] *= 1.0 - turn * turn
        new = c0[i] * c0[i] * scale0[i] + c1[i] * c1[i] * scale1[i]
        total += (new - beta[i]) ** 2
        beta[i] = new
    return total


@part()
def _plain_steps(data, target, size, rate, state, a, steps):
    """A fast path for `steps` steps of ``u*v`` without noise, batches or momentum.

    Returns how many were taken before the loss ceased to be finite.
    """
    c, scale, every_row = state.c, state.scale, np.empty(0, np.int64)
    c0, c1, scale0, scale1, rate0, factor0 = c[0], c[1], scale[0], scale[1], rate[0], state.factor[0]
    length = 0.0
    taken = steps
    for k in range(steps):
        if not math.isfinite(dense_products(data.X, target, every_row, state.beta, size, a)):
            taken = k
            break
        length += math.sqrt(_multiply_pair(a, rate0, c0, c1, scale0, scale1, factor0, state.beta))
    state.length[0] += length
    return taken


@part()
def _plain_lanes(data, target, size, rate, state, first, steps):
    """The same for LANES runs: every tile of X^T r is applied to its coordinates before the next is computed.

    Returns how many steps were taken before the loss of every lane ceased to be finite.
    """
    c, scale, beta = state.c, state.scale, state.beta
    columns = beta.size // LANES
    n = data.packed_columns.size // columns
    c0, c1, scale0, scale1, rate0, factor0 = c[0], c[1], scale[0], scale[1], rate[0], state.factor[0]
    residual, square, moved = aligned_buffer(target.size), np.empty(LANES), np.empty(LANES)
    for k in range(steps):
        lane_residuals(data.packed, target, beta, size, residual, square)
        if not _some_alive(square, state.stopped, first + k):
            return k
        total = constant(0.0)
        for column in range(0, columns, ROWS):
            s0, s1, s2, s3 = tile(data.packed_columns, column * n, residual, n)
            i = column * LANES
            total = _multiply_eight(i, s0, rate0, c0, c1, scale0, scale1, factor0, beta, total)
            total = _multiply_eight(i + LANES, s1, rate0, c0, c1, scale0, scale1, factor0, beta, total)
            total = _multiply_eight(i + 2 * LANES, s2, rate0, c0, c1, scale0, scale1, factor0, beta, total)
            total = _multiply_eight(i + 3 * LANES, s3, rate0, c0, c1, scale0, scale1, factor0, beta, total)
        store(moved, 0, total)
        for lane in range(LANES):
            state.length[lane] += math.sqrt(moved[lane])
    return steps


@part()
def _some_alive(square, stopped, k):
    """Record step k for lanes whose loss is no longer finite; returns whether one is left."""
    alive = False
    for lane in range(square.size):
        if math.isfinite(square[lane]):
            alive = alive or stopped[lane] < 0
        elif stopped[lane] < 0:
            stopped[lane] = k
    return alive


@part()
def _keep(record, state, plan, k):
    """Record the state before step k, where the plan says so."""
    if k % plan.every != 0 and k != plan.n_steps:
        return
    slot = k // plan.every if k % plan.every == 0 else k // plan.every + 1
    if record.length[slot, 0] < 0.0:  # not recorded yet: the last step of a block is the first of the next
        copy_to(state.beta, record.beta[slot])
        copy_to(state.c.ravel(), record.c[slot].ravel())
        copy_to(state.e.ravel(), record.e[slot].ravel())
        copy_to(state.factor.ravel(), record.factor[slot].ravel())
        copy_to(state.factor_e.ravel(), record.factor_e[slot].ravel())
        copy_to(state.length, record.length[slot])


@part()
def _multiply(c, factor, a, parts):
    """A step without momentum, of components and conserved quantities; ``a = step * gradient``."""
    count, size = c.shape
    for m in range(count):
        for i in range(size):
            c[m, i] *= 1.0 - a[i] * parts.rate[m, i] - parts.decay[m, i]
    for pair in range(factor.shape[0]):
        if parts.is_paired:
            for i in range(size):
                kept = 1.0 - parts.decay[0, i]
                turn = a[i] * parts.rate[0, i]
                factor[pair, i] *= kept * kept - turn * turn
            continue
        for i in range(size):
            for m in range(count):
                power = parts.powers[pair, m, i]
                if power != 0.0:
                    factor[pair, i] *= (1.0 - a[i] * parts.rate[m, i] - parts.decay[m, i]) ** power


@part()
def _accelerate(c, v, ahead, a, parts, plan):
    """A step with momentum: heavy ball, or Nesterov with the gradient at the extrapolated point `ahead`."""
    for m in range(c.shape[0]):
        for i in range(c.shape[1]):
            turn = a[i] * parts.rate[m, i] + parts.decay[m, i]
            if plan.nesterov:
                new = ahead[m, i] * (1.0 - turn)
                v[m, i] = new - c[m, i]
                c[m, i] = new
            else:
                v[m, i] = plan.momentum * v[m, i] - c[m, i] * turn
                c[m, i] += v[m, i]


@part()
def _normalise_all(state, parts):
    _normalise(state.c, state.v, state.e, state.scale, parts.coefficient)
    _normalise_factor(state.factor, state.factor_e)


#: Types of the arguments of :func:`run_growth`.
_CUBE, _COUNTS, _COUNT_CUBE = float64[:, :, ::1], int64[:, ::1], int64[:, :, ::1]


def _tuple_of(cls, *kinds):
    return types.NamedTuple(kinds, cls)


_CALL = (
    _tuple_of(Data, TABLE, VECTOR, INTEGERS, INTEGERS, boolean, VECTOR, VECTOR, int64, VECTOR),
    VECTOR, TABLE, _COUNTS, VECTOR,
    _tuple_of(Components, TABLE, TABLE, TABLE, VECTOR, _CUBE, boolean),
    _tuple_of(GrowthState, TABLE, TABLE, _COUNTS, TABLE, TABLE, _COUNTS, VECTOR, VECTOR, INTEGERS),
    _tuple_of(StepPlan, int64, int64, int64, int64, float64, boolean),
    _tuple_of(GrowthRecord, TABLE, _CUBE, _COUNT_CUBE, _CUBE, _COUNT_CUBE, TABLE),
)  # fmt: skip


@compiled(declared=_CALL)
def run_growth(data, target, labels, rows, scale, parts, state, plan, record):
    """Take the steps of `plan`; returns False as soon as no lane has a finite loss.

    `labels` (B, n * lanes) is label noise and `rows` (B, b) the batches of this block of B steps; either may be empty.
    """
    count, size = state.c.shape
    a, residual = aligned_buffer(size), aligned_buffer(target.size)
    ahead, point = np.empty((count, size)), np.empty(size)
    square, noisy = np.empty(scale.size), np.zeros(target.size)
    every_row = np.empty(0, np.int64)
    has_shift, has_decay = is_any(parts.shift), is_any(parts.decay.ravel())
    is_plain = parts.is_paired and not has_shift and not has_decay and plan.momentum == 0.0
    is_plain = is_plain and not data.is_sparse and data.loss == 0 and labels.shape[0] == 0 and rows.shape[0] == 0
    k = plan.first
    while True:
        _keep(record, state, plan, k)
        if k == plan.last:
            break
        if is_plain:
            steps = min(plan.every - k % plan.every, plan.last - k, _LOOK_EVERY)
            if scale.size == 1:
                taken = _plain_steps(data, target, scale[0], parts.rate, state, a, steps)
                if taken < steps:
                    state.stopped[0] = k + taken
            else:
                taken = _plain_lanes(data, target, scale, parts.rate, state, k, steps)
            k += taken
            if taken < steps:
                return False
            if k // _LOOK_EVERY != (k - taken) // _LOOK_EVERY:
                _normalise_all(state, parts)
            continue
        aim = target
        if labels.shape[0]:
            add_multiple(target, 1.0, labels[k - plan.first], noisy)
            aim = noisy
        batch = rows[k - plan.first] if rows.shape[0] else every_row
        if plan.nesterov:
            add_multiple(state.c.ravel(), plan.momentum, state.v.ravel(), ahead.ravel())
            _predict(ahead, state.scale, point)
        else:
            copy_to(state.beta, point)
        if has_shift:
            add_multiple(point, 1.0, parts.shift, point)
        products(data, aim, batch, point, scale, residual, a, square)
        if not _some_alive(square, state.stopped, k):
            return False
        if plan.momentum == 0.0:
            _multiply(state.c, state.factor, a, parts)
        else:
            _accelerate(state.c, state.v, ahead, a, parts, plan)
        if k % _LOOK_EVERY == 0:
            _normalise_all(state, parts)
        _predict(state.c, state.scale, point)
        move_on(point, state.beta, state.length)
        k += 1
    return True
