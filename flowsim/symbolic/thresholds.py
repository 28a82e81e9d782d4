r"""Growth thresholds of order three and more: the values of the dual at which a coordinate leaves 0.

With ``phi_L`` the lowest homogeneous part at 0 and a the direction of the start,

- a product of L >= 3 weights: with S the integral below and a_L the weight of smallest modulus,

  .. math:: S(a) = \frac12 \int_0^\infty \frac{ds}{\prod_j \sqrt{s + a_j^2}}, \qquad
            S_0(a) = \int_0^\infty \frac{ds}{\sqrt s \prod_{j<L} \sqrt{s + a_j^2 - a_L^2}},

  the side of the product's sign has S, the other ``S_0 - S`` (infinite if two weights tie for the smallest modulus);
- any other L >= 3: the blow-up time of ``x' = +- grad phi_L(x)`` from a, by integration on the sphere.

Those of order two, and the general statement: :mod:`flowsim.growth.arrivals`.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array
from flowsim.symbolic.series import Series

#: Step of the trapezoidal rule in log s: its error, exp(-2 pi^2 / step), is below rounding.
_LOG_STEP = 0.5
_LOG_TAIL = 80.0
_CHUNK = 1 << 20
#: A start that does not grow within this multiple of the natural time converges to a stationary direction.
_NEVER = 1e9
_MAX_SPANS = 200


def product_thresholds(start: Array) -> tuple[Array, Array]:
    """Product of L >= 3 weights started along `start` (L, d)."""
    size = np.sort(np.abs(start), axis=0)
    scale = size[-1]
    order = len(start)
    is_nonzero = scale > 0
    divisor = np.where(is_nonzero, scale, 1.0)
    unit = size / divisor
    tied = size[0] == size[1]
    with np.errstate(divide="ignore", over="ignore"):
        unscale = scale ** (2.0 - order)
    own = np.full(unit.shape[1], np.inf)
    across = np.full(unit.shape[1], np.inf)
    own_side = is_nonzero & (unit[1] > 0)
    own[own_side] = _half_integral(unit[:, own_side] ** 2)
    crossing = is_nonzero & ~tied
    # Differences of squares as products, of which differences of floats are exact for near-ties.
    shifted = (size - size[0]) / divisor * (unit + unit[0])
    across[crossing] = 2.0 * _half_integral(shifted[:, crossing]) - own[crossing]
    negative = np.prod(np.sign(start), axis=0) < 0
    plus, minus = np.where(negative, across, own), np.where(negative, own, across)
    return plus * unscale, minus * unscale


def _half_integral(squares: Array) -> Array:
    r"""``1/2 int_0^inf ds / prod sqrt(s + squares_j)`` for columns with at most one zero: trapezoidal rule in log s."""
    order, count = squares.shape
    out = np.empty(count)
    positive = squares[1:].min(axis=0)
    low = np.log(np.where(squares[0] > 0, np.minimum(squares[0], positive), positive)) - _LOG_TAIL
    high = _LOG_TAIL / (order / 2 - 1)
    block = max(1, _CHUNK // (8 * (1 + int((high - low.min(initial=0.0)) / _LOG_STEP))))
    for first in range(0, count, block):
        part = slice(first, first + block)
        x = np.arange(low[part].min(initial=0.0), high + _LOG_STEP, _LOG_STEP)
        s = np.exp(x)[:, None]
        integrand = 0.5 * s
        for row in squares[:, part]:
            integrand = integrand / np.sqrt(s + row)
        out[part] = _LOG_STEP * integrand.sum(axis=0)
    return out


def blow_up_time(part: Series, start: Array, sign: float) -> float:
    r"""Blow-up time of ``x' = sign * grad phi_L(x)`` from `start`; inf if it does not blow up.

    On the sphere, ``x = r w`` and ``d sigma = r^(2-L) d tau``:
    ``w' = G(w) - (w.G) w``, ``(ln r)' = w.G = L phi_L(w)``, which never decreases; once it is positive the rest of the
    time is ``r^(2-L) / (L (L-2) phi_L)`` up to terms that vanish as r grows.
    """
    from scipy.integrate import solve_ivp

    order = int(part.degree[0])
    radius = float(np.linalg.norm(start))
    if radius == 0.0:
        return math.inf
    scale = float(np.abs(part.coefficient).max())

    def flow(_: float, state: Array) -> Array:
        w, log_r = state[:-2], state[-2]
        g = sign * part.gradient(w)
        rate = float(w @ g)
        return np.concatenate([g - rate * w, [rate, math.exp((2 - order) * log_r)]])

    state = np.concatenate([start / radius, [0.0, 0.0]])
    span = 4.0 / scale
    for _ in range(_MAX_SPANS):
        solution = solve_ivp(flow, (0.0, span), state, method="DOP853", rtol=1e-12, atol=1e-14)
        state = solution.y[:, -1]
        state[:-2] /= np.linalg.norm(state[:-2])
        change = flow(0.0, state)
        speed, rate, elapsed = np.abs(change[:-2]).max(), change[-2], state[-1]
        if rate > 0:
            rest = math.exp((2 - order) * state[-2]) / ((order - 2) * rate)
            if rest <= 1e-13 * elapsed or speed <= 1e-13 * rate:
                return (elapsed + rest) * radius ** (2 - order)
        elif speed <= 1e-13 * scale or (speed <= 1e-9 * scale and abs(rate) <= 1e-9 * scale):
            return math.inf
        if elapsed > _NEVER / scale:
            return math.inf
        span *= 1.5
    raise ValueError("`start` is so close to a stationary direction that its growth threshold cannot be computed.")
