r"""Growth thresholds: the values of the dual at which a coordinate leaves 0.

With ``s_i = -int g_i`` in the units of accelerated time, coordinate i started at ``s * a`` (a its direction, s -> 0)
becomes positive when s_i reaches ``t_i^+`` and negative at ``-t_i^-``. The lowest homogeneous part ``phi_L`` at 0
determines them:

- L = 2: ``t^+ = 1/lambda_max``, ``t^- = -1/lambda_min`` of ``Hess phi(0)``, over the excited eigenspaces;
- a product of L >= 3 weights: with S the integral below and a_L the weight of smallest modulus,

  .. math:: S(a) = \frac12 \int_0^\infty \frac{ds}{\prod_j \sqrt{s + a_j^2}}, \qquad
            S_0(a) = \int_0^\infty \frac{ds}{\sqrt s \prod_{j<L} \sqrt{s + a_j^2 - a_L^2}},

  the side of the product's sign has S, the other ``S_0 - S`` (infinite if two weights tie for the smallest modulus);
- any other L >= 3: the blow-up time of ``x' = +- grad phi_L(x)`` from a, by integration on the sphere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array
from flowsim.network import DiagonalNetwork, Formula
from flowsim.symbolic.origin import LeadingPart, leading_part, order_at_origin

#: A projection below this, relative to the direction, counts as zero: eigenvectors have rounding errors.
_PROJECTION = 1e-13
#: Step of the trapezoidal rule in log s: its error, exp(-2 pi^2 / step), is below rounding.
_LOG_STEP = 0.5
_LOG_TAIL = 80.0
_CHUNK = 1 << 20
#: A start that does not grow within this multiple of the natural time converges to a stationary direction.
_NEVER = 1e9
_MAX_SPANS = 200


class HigherOrderError(ValueError):
    """The start has no component along the fastest direction, and terms of higher order can create one."""


def thresholds(net: DiagonalNetwork, direction: ArrayLike, d: int) -> tuple[Array, Array]:
    r"""``(t^+, t^-)`` for each coordinate; infinite for a side that cannot be reached.

    Parameters
    ----------
    net : DiagonalNetwork
    direction : array (k, d)
        The direction that alpha multiplies, ``net.direction(start, d)``.
    d : int

    Returns
    -------
    t_plus, t_minus : array (d,)
        Both positive, in units of accelerated time times gradient.

    Raises
    ------
    ValueError
        If the origin is not a critical point with value 0, if formulas of different order are mixed (their time
        scales differ), or if no threshold is known.

    References
    ----------
    arXiv:2607.12332.
    """
    direction = np.asarray(direction, dtype=float)
    if direction.shape != (len(net.weights), d):
        raise ValueError(f"`direction` must have shape ({len(net.weights)}, {d}); received {direction.shape}.")
    orders = {formula: order_at_origin(formula) for formula in net.distinct}
    for formula, order in orders.items():
        if order < 2:
            what = "phi(0) != 0" if order == 0 else "grad phi(0) != 0"
            raise ValueError(
                f"`formula` {formula.text!r} has {what}: the origin is not a critical point with value 0, "
                "so a vanishing initialisation has no growth thresholds."
            )
    if len(set(orders.values())) > 1:
        listed = ", ".join(f"{formula.text!r}: {order}" for formula, order in orders.items())
        raise ValueError(
            f"`formula` mixes orders at the origin ({listed}); their time scales differ, so there is no common limit."
        )
    plus, minus = np.empty(d), np.empty(d)
    kinds = net.kinds(d)
    for kind, formula in enumerate(net.distinct):
        chosen = np.flatnonzero(kinds == kind)
        if chosen.size:
            rows = [net.weights.index(name) for name in formula.weights]
            plus[chosen], minus[chosen] = _of_formula(formula, direction[rows][:, chosen])
    return plus, minus


def _of_formula(formula: Formula, start: Array) -> tuple[Array, Array]:
    order = order_at_origin(formula)
    if order == 2:
        return _second_order(formula, start)
    if formula.product_of is not None:
        return product_thresholds(start)
    columns, inverse = np.unique(start, axis=1, return_inverse=True)
    part = leading_part(formula)
    pairs = np.array([[blow_up_time(part, column, sign) for column in columns.T] for sign in (1.0, -1.0)])
    return pairs[0][inverse.ravel()], pairs[1][inverse.ravel()]


def _second_order(formula: Formula, start: Array) -> tuple[Array, Array]:
    if formula.product_of is not None:
        # p = u + v and q = u - v decouple, with exact zeros.
        return (
            np.where(start[0] + start[1] != 0, 1.0, np.inf),
            np.where(start[0] - start[1] != 0, 1.0, np.inf),
        )
    k = start.shape[0]
    hessian = np.zeros((k, k))
    for powers, c in leading_part(formula).items():
        a, b = [index for index, power in enumerate(powers) for _ in range(power)]
        hessian[a, b] += c
        hessian[b, a] += c
    values, vectors = np.linalg.eigh(hessian)
    projected = vectors.T @ start
    scale = np.linalg.norm(start, axis=0)
    plus = _first_excited(formula, values, vectors, projected, scale)
    minus = _first_excited(formula, -values[::-1], vectors[:, ::-1], projected[::-1], scale)
    return plus, minus


def _first_excited(formula: Formula, values: Array, vectors: Array, projected: Array, scale: Array) -> Array:
    """1/lambda for the largest positive eigenvalue with an excited eigenspace; ascending `values`."""
    result = np.full(projected.shape[1], np.inf)
    waiting = np.ones(projected.shape[1], dtype=bool)
    tolerance = 1e-10 * np.abs(values).max()
    top = len(values)
    while top > 0 and values[top - 1] > tolerance and waiting.any():
        bottom = top - 1
        while bottom > 0 and values[top - 1] - values[bottom - 1] <= tolerance:
            bottom -= 1
        excited = np.linalg.norm(projected[bottom:top], axis=0) > _PROJECTION * scale
        result[waiting & excited] = 1.0 / values[bottom:top].mean()
        waiting &= ~excited
        if (waiting & (scale > 0)).any() and not _stays_unexcited(formula, vectors[:, bottom:top]):
            raise HigherOrderError(
                f"`start` has no part along the fastest direction {np.round(vectors[:, top - 1], 6).tolist()} of "
                f"{formula.text!r}, and its higher-order terms can create one: no threshold is known."
            )
        top = bottom
    return result


def _stays_unexcited(formula: Formula, vectors: Array) -> bool:
    """Whether weights orthogonal to these vectors remain so: ``grad phi`` is orthogonal to them there."""
    part = leading_part(formula)
    import sympy

    symbols = [sympy.Symbol(name, real=True) for name in formula.weights]
    phi = formula.expression
    if phi.is_polynomial(*symbols) and sympy.Poly(phi, *symbols).total_degree() == sum(next(iter(part))):
        return True
    slope = sympy.lambdify(symbols, [phi.diff(x) for x in symbols], "numpy")
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (20, len(symbols)))
    samples -= samples @ vectors @ vectors.T
    for sample in samples:
        gradient = np.array(slope(*sample), dtype=float)
        if not np.abs(vectors.T @ gradient).max() <= 1e-12 * max(1.0, np.abs(gradient).max()):
            return False
    return True


def product_thresholds(start: Array) -> tuple[Array, Array]:
    """Product of L >= 3 weights started along `start` (L, d)."""
    size = np.abs(start)
    scale = size.max(axis=0)
    order = len(start)
    alive = scale > 0
    unit = np.sort(size, axis=0) / np.where(alive, scale, 1.0)
    tied = unit[0] == unit[1]
    with np.errstate(divide="ignore", over="ignore"):
        unscale = scale ** (2.0 - order)
    own = np.full(unit.shape[1], np.inf)
    across = np.full(unit.shape[1], np.inf)
    own_side = alive & (unit[1] > 0)
    own[own_side] = _half_integral(unit[:, own_side] ** 2)
    crossing = alive & ~tied
    # Differences of squares as products, accurate for near-ties.
    shifted = (unit - unit[0]) * (unit + unit[0])
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


def blow_up_time(part: LeadingPart, start: Array, sign: float) -> float:
    r"""Blow-up time of ``x' = sign * grad phi_L(x)`` from `start`; inf if it does not blow up.

    On the sphere, ``x = r w`` and ``d sigma = r^(2-L) d tau``:
    ``w' = G(w) - (w.G) w``, ``(ln r)' = w.G = L phi_L(w)``, which never decreases; once it is positive the rest of the
    time is ``r^(2-L) / (L (L-2) phi_L)`` up to terms that vanish as r grows.
    """
    from scipy.integrate import solve_ivp

    order = sum(next(iter(part)))
    gradient = _gradient_of(part, len(start))
    radius = float(np.linalg.norm(start))
    if radius == 0.0:
        return math.inf
    scale = max(map(abs, part.values()))

    def flow(_: float, state: Array) -> Array:
        w, log_r = state[:-2], state[-2]
        g = sign * gradient(w)
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


def _gradient_of(part: LeadingPart, k: int) -> Callable[[Array], Any]:
    powers = np.array(list(part), dtype=float)
    coefficients = np.array(list(part.values()))

    def gradient(w: Array) -> Array:
        out = np.zeros(k)
        for a in range(k):
            lowered = powers.copy()
            lowered[:, a] = np.maximum(lowered[:, a] - 1, 0)
            out[a] = np.sum(coefficients * powers[:, a] * np.prod(w**lowered, axis=1))
        return out

    return gradient
