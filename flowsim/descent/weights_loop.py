"""The loop over steps in the weights themselves, for any formula.

It is the same text for every network: appended to the network's generated kernels it calls them, and Numba compiles and
caches the two together.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowsim.network import DiagonalNetwork

__all__ = ["WeightOptions", "WeightRecord", "WeightState", "load_loop"]

Array = NDArray[np.float64]


class WeightOptions(NamedTuple):
    """What is constant along a run; N = d * lanes. `penalty` (N,) is h sigma_i^2; `radius` is inf if there is none."""

    kind: NDArray[np.int64]
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
    stopped: NDArray[np.int64]


class WeightRecord(NamedTuple):
    """Recorded states, a leading axis T before the shapes of :class:`WeightState`."""

    beta: Array
    w: Array
    factor: Array
    length: Array


LOOP = """
import numpy as np

from flowsim.descent.products import move_on, products
from flowsim.descent.tiles import ROWS, aligned_buffer


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _project(w, v, radius, lanes):
    for lane in range(lanes):
        square = 0.0
        for a in range(w.shape[0]):
            for i in range(lane, w.shape[1], lanes):
                square += w[a, i] * w[a, i]
        if square > radius * radius:
            shrink = radius / math.sqrt(square)
            for a in range(w.shape[0]):
                for i in range(lane, w.shape[1], lanes):
                    inside = w[a, i] * shrink
                    v[a, i] += inside - w[a, i]
                    w[a, i] = inside


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _imbalance_law(w, a, factor):
    # w_1^2 - w_l^2 is multiplied by 1 - (h g prod of the other weights)^2.
    for pair in range(factor.shape[0]):
        for i in range(w.shape[1]):
            turn = a[i]
            for m in range(1, w.shape[0]):
                if m != pair + 1:
                    turn *= w[m, i]
            factor[pair, i] *= 1.0 - turn * turn


@numba.njit(cache=True, nogil=True, error_model="numpy")
def run_weights(data, target, labels, rows, noise, scale, options, state, plan, record):
    w, v, beta, stopped = state.w, state.v, state.beta, state.stopped
    kind, std = options.kind, options.std
    count, size = w.shape
    lanes = scale.size
    tiles = aligned_buffer(-(-(size // lanes) // ROWS) * ROWS * lanes)
    a = tiles[:size]
    slope = np.empty((count, size))
    point = np.empty((count, size))
    predicted = aligned_buffer(size)
    residual = aligned_buffer(target.size)
    square = np.empty(lanes)
    noisy = np.zeros(target.size)
    every_row = np.empty(0, np.int64)
    moves = plan.nesterov or noise.shape[0] > 0
    shrinks = options.shrink.any()
    is_plain = plan.momentum == 0.0 and not options.expected and not options.multiplicative and not shrinks
    for k in range(plan.first, plan.last + 1):
        if k % plan.every == 0 or k == plan.n_steps:
            slot = k // plan.every if k % plan.every == 0 else k // plan.every + 1
            if record.length[slot, 0] < 0.0:
                record.beta[slot] = beta
                record.w[slot] = w
                record.factor[slot] = state.factor
                record.length[slot] = state.length
        if k == plan.last:
            break
        aim = target
        if labels.shape[0]:
            noisy[: labels.shape[1]] = target[: labels.shape[1]] + labels[k - plan.first]
            aim = noisy
        batch = rows[k - plan.first] if rows.shape[0] else every_row
        here = w
        if moves:
            for m in range(count):
                for i in range(size):
                    x = w[m, i] + plan.momentum * v[m, i] if plan.nesterov else w[m, i]
                    if noise.shape[0]:
                        xi = noise[k - plan.first, m, i]
                        x = x + (x * xi if options.multiplicative else xi)
                    point[m, i] = x
            here = point
        if options.expected:
            mean(here, kind, std, predicted)
        elif moves:
            value(here, kind, predicted)
        else:
            predicted[:] = beta
        products(data, aim, batch, predicted, scale, residual, tiles, square)
        if options.expected:
            field(here, kind, std, a, options.penalty, slope)
        else:
            gradient(here, kind, slope)
            if not is_plain:
                for m in range(count):
                    for i in range(size):
                        slope[m, i] *= -a[i]
            if options.multiplicative and noise.shape[0]:
                # The chain rule: what is descended is theta -> L(theta (1 + xi)).
                for m in range(count):
                    for i in range(size):
                        slope[m, i] *= 1.0 + noise[k - plan.first, m, i]
        if shrinks:
            # At the weights themselves, or where the momentum leads: the noise is none of the decay's.
            ahead = plan.momentum if plan.nesterov else 0.0
            for m in range(count):
                for i in range(size):
                    slope[m, i] -= options.shrink[i] * (w[m, i] + ahead * v[m, i])
        alive = False
        for lane in range(lanes):
            if math.isfinite(square[lane]):
                alive = alive or stopped[lane] < 0
            elif stopped[lane] < 0:
                stopped[lane] = k
        if not alive:
            return False
        if options.has_law:
            _imbalance_law(w, a, state.factor)
        if is_plain:
            for m in range(count):
                for i in range(size):
                    w[m, i] -= a[i] * slope[m, i]
        elif plan.momentum == 0.0:
            for m in range(count):
                for i in range(size):
                    w[m, i] += slope[m, i]
        else:
            for m in range(count):
                for i in range(size):
                    v[m, i] = plan.momentum * v[m, i] + slope[m, i]
                    w[m, i] += v[m, i]
        if options.radius < math.inf:
            _project(w, v, options.radius, lanes)
        value(w, kind, predicted)
        move_on(predicted, beta, state.length)
    return True
"""


def load_loop(net: DiagonalNetwork) -> ModuleType:
    """The kernels of a network with `run_weights` among them, made anew where anything that they call has changed."""
    from flowsim.solvers.compilation.disk import digest_of_sources
    from flowsim.symbolic import kernels
    from flowsim.symbolic.codegen import load_generated

    return load_generated(f"{kernels(net).source}\n{LOOP}\n# with {digest_of_sources()}\n", "descent")
