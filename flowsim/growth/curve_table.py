"""The curves of many coordinates as arrays, and compiled functions that read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from flowsim.arrays import Array, Bools, Integers
from flowsim.growth.chebyshev import DEGREE
from flowsim.growth.curve import Curve, Piece
from flowsim.solvers.compilation import compiled, part
from flowsim.solvers.multistep.curves import clenshaw, piece_of


class CurveTable(NamedTuple):
    """C curves in P pieces, those of curve c from ``first[c]`` to ``first[c + 1]``, by ascending z.

    Pieces are closed forms, sums of exponentials in K components, or Chebyshev polynomials of degree N.
    """

    first: Integers  #: (C + 1,)
    #: (P,), of each piece
    low: Array
    high: Array
    closed: Bools  #: (P,), whether it is a closed form
    #: (P, K)
    log_c: Array
    sign_c: Array
    #: (C, K), mu, and ``mu |q|^2 / 2``: ``B = constant + sum_k energy_k c_k^2``
    rate: Array
    energy: Array
    constant: Array  #: (C,)
    basis: Array  #: (C, K, K), ``theta = basis c``
    #: (P, N + 1), of B and B'
    beta: Array
    slope: Array
    weights: Array  #: (P, K, N + 1)
    curvature: Array  #: (P, N + 1), of B''


def curve_table(curves: Sequence[Curve], k: int) -> CurveTable:
    """All pieces of curves with at most k weights each."""
    pieces: list[list[Piece]] = [[*reversed(curve.below.pieces), *curve.above.pieces] for curve in curves]
    flat = [piece for each in pieces for piece in each]
    count = len(flat)
    table = CurveTable(
        first=np.concatenate([[0], np.cumsum([len(each) for each in pieces])]).astype(np.int64),
        low=np.array([piece.low for piece in flat]),
        high=np.array([piece.high for piece in flat]),
        closed=np.array([piece.weights is None for piece in flat], dtype=bool),
        log_c=np.full((count, k), -np.inf),
        sign_c=np.zeros((count, k)),
        rate=np.zeros((len(curves), k)),
        energy=np.zeros((len(curves), k)),
        constant=np.array([curve.constant for curve in curves]),
        basis=np.zeros((len(curves), k, k)),
        beta=np.zeros((count, DEGREE + 1)),
        slope=np.zeros((count, DEGREE + 1)),
        weights=np.zeros((count, k, DEGREE + 1)),
        curvature=np.zeros((count, DEGREE + 1)),
    )
    for row, piece in enumerate(flat):
        own = len(piece.log_c)
        if piece.weights is None:
            table.log_c[row, :own], table.sign_c[row, :own] = piece.log_c, piece.sign_c
        else:
            table.beta[row], table.slope[row], table.weights[row, :own] = piece.beta, piece.slope, piece.weights
    for row, curve in enumerate(curves):
        own = len(curve.direction)
        origin = curve.origin
        table.rate[row, :own] = origin.rate
        table.energy[row, :own] = 0.5 * origin.rate * origin.metric
        table.basis[row, :own, :own] = origin.basis
    length = np.where(table.closed, 1.0, table.high - table.low)
    table.curvature[:, :-1] = chebyshev.chebder(table.slope, axis=1) * (2.0 / length)[:, None]
    return table


def primitives(table: CurveTable) -> Array:
    """Chebyshev coefficients (P, N + 2) of a primitive of B, continuous along each curve; constants of closed forms."""
    half = np.where(table.closed, 0.0, (table.high - table.low) / 2)[:, None]
    area: Array = np.ascontiguousarray(half * chebyshev.chebint(table.beta, axis=1))
    _join(table, area)
    return area


@part()
def _chebyshev(coefficients, x):
    return clenshaw(coefficients, 0, coefficients.shape[0], x)


@part()
def _closed(table, c, p, z):
    """B and B' of a closed form."""
    value, rise = table.constant[c], 0.0
    for k in range(table.rate.shape[1]):
        if table.sign_c[p, k] != 0.0:
            square = table.energy[c, k] * np.exp(2.0 * (table.log_c[p, k] + table.rate[c, k] * z))
            value += square
            rise += 2.0 * table.rate[c, k] * square
    return value, rise


@part()
def _closed_inverse(table, c, p, beta):
    """z and B' of a closed form at B, its components of one rate."""
    rate = 0.0
    for k in range(table.rate.shape[1]):
        if table.sign_c[p, k] != 0.0:
            rate = 2.0 * table.rate[c, k]
    return np.log(beta / (_closed(table, c, p, 0.0)[0])) / rate, rate * beta


@compiled()
def read_table(table, curve, z, beta, slope):
    """B and B' of points z (P,) on curves (P,); continued by straight lines beyond the ends of a curve."""
    for i in range(z.shape[0]):
        c = curve[i]
        p = piece_of(table, c, z[i])
        at = min(max(z[i], table.low[p]), table.high[p])
        if table.closed[p]:
            value, rise = _closed(table, c, p, at)
        else:
            x = (2.0 * at - table.low[p] - table.high[p]) / (table.high[p] - table.low[p])
            value, rise = _chebyshev(table.beta[p], x), max(_chebyshev(table.slope[p], x), 0.0)
        beta[i], slope[i] = value + rise * (z[i] - at), rise


@compiled()
def read_weights(table, curve, z, weights, logs):
    """Weights (K, P) and the logarithms of their moduli."""
    count = table.rate.shape[1]
    c_log = np.empty(count)
    for i in range(z.shape[0]):
        c = curve[i]
        p = piece_of(table, c, z[i])
        at = min(max(z[i], table.low[p]), table.high[p])
        if table.closed[p]:
            for k in range(count):
                c_log[k] = table.log_c[p, k] + table.rate[c, k] * at if table.sign_c[p, k] != 0.0 else -np.inf
            for a in range(count):
                # A signed sum of exponentials, scaled by its largest term.
                top = -np.inf
                for k in range(count):
                    if table.basis[c, a, k] != 0.0:
                        top = max(top, c_log[k])
                total = 0.0
                if top > -np.inf:
                    for k in range(count):
                        total += table.basis[c, a, k] * table.sign_c[p, k] * np.exp(c_log[k] - top)
                logs[a, i] = top + np.log(abs(total)) if total != 0.0 else -np.inf
                weights[a, i] = np.sign(total) * np.exp(logs[a, i])
        else:
            x = (2.0 * at - table.low[p] - table.high[p]) / (table.high[p] - table.low[p])
            for a in range(count):
                weights[a, i] = _chebyshev(table.weights[p, a], x)
                logs[a, i] = np.log(abs(weights[a, i]))


@part()
def _primitive(table, area, curve, p, z):
    """A primitive of B at z on piece p."""
    if not table.closed[p]:
        return _chebyshev(area[p], (2.0 * z - table.low[p] - table.high[p]) / (table.high[p] - table.low[p]))
    total = area[p, 0] + table.constant[curve] * z
    for k in range(table.rate.shape[1]):
        if table.sign_c[p, k] != 0.0 and table.rate[curve, k] != 0.0:
            square = table.energy[curve, k] * np.exp(2.0 * (table.log_c[p, k] + table.rate[curve, k] * z))
            total += square / (2.0 * table.rate[curve, k])
    return total


@compiled()
def _join(table, area):
    """Constants of integration that make the primitives of neighbouring pieces continuous."""
    for curve in range(table.first.shape[0] - 1):
        for p in range(table.first[curve] + 1, table.first[curve + 1]):
            z = table.low[p]
            area[p, 0] += _primitive(table, area, curve, p - 1, z) - _primitive(table, area, curve, p, z)


@compiled()
def read_potential(table, area, curve, z, potential):
    """A primitive of B at points z (P,) on curves (P,); continued as in :func:`read_table`."""
    beta, slope = np.empty(z.shape[0]), np.empty(z.shape[0])
    read_table(table, curve, z, beta, slope)
    for i in range(z.shape[0]):
        c = curve[i]
        p = piece_of(table, c, z[i])
        at = min(max(z[i], table.low[p]), table.high[p])
        over = z[i] - at
        # B is linear beyond its last piece.
        potential[i] = _primitive(table, area, c, p, at) + over * (beta[i] - 0.5 * slope[i] * over)


@compiled()
def read_inverse(table, curve, beta, z, slope):
    """z and B' where curves (P,) have coefficients (P,); at the end of a curve for those beyond it.

    A closed form needs components of one common rate.
    """
    for i in range(beta.shape[0]):
        c = curve[i]
        low, high = table.first[c], table.first[c + 1] - 1
        while low < high:
            middle = (low + high) // 2
            top = (
                table.beta[middle].sum()
                if not table.closed[middle]
                else _closed(table, c, middle, table.high[middle])[0]
            )
            if beta[i] < top:
                high = middle
            else:
                low = middle + 1
        p = low
        if table.closed[p]:
            z[i], slope[i] = _closed_inverse(table, c, p, beta[i])
            continue
        left, right, half = -1.0, 1.0, 0.5 * (table.high[p] - table.low[p])
        x = 0.0
        for _ in range(60):
            error = _chebyshev(table.beta[p], x) - beta[i]
            if error > 0.0:
                right = x
            else:
                left = x
            rise = half * _chebyshev(table.slope[p], x)
            new = x - error / rise if rise > 0.0 else 2.0
            if not left <= new <= right:
                new = 0.5 * (left + right)
            if abs(new - x) <= 1e-15:
                break
            x = new
        z[i], slope[i] = table.low[p] + half * (x + 1.0), max(_chebyshev(table.slope[p], x), 0.0)
