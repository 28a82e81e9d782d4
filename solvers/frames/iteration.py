"""Compiled iterations for the equations of a collocation step.

The fixed point ``G <- G + (1 + K)^{-1} r(G)``, r the residual and K the :mod:`.relaxation` of the start, accelerated by
Anderson's method; and one step of Newton's method by GMRES with the same preconditioner.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import FAST, compiled, part
from flowsim.solvers.frames.collocation import Damping, perturb, products, stages
from flowsim.solvers.frames.relaxation import answer
from flowsim.solvers.gauss import GaussTableau

Complex = NDArray[np.complex128]

#: Relative distance below which earlier directions count as dependent on later ones.
_DEPENDENT = 1e-10
#: Part of the tolerance for the nonlinear solver, and the rounding below which it cannot converge.
SHARE, FLOOR = 0.01, 2e-13
NEWTON_ITERATIONS, ANDERSON_ITERATIONS, ANDERSON_DEPTH = 12, 20, 6
#: Growth of the update at which the iteration stops as divergent.
FIXED_POINT_GROWTH, NEWTON_GROWTH = 4.0, 20.0
#: Steps that go straight to Newton's method after one that needed it.
CAREFUL_STEPS = 10
_GMRES_TOLERANCE, _GMRES_VECTORS = 1e-2, 60


class EigenPairs(NamedTuple):
    """One eigenvalue of each complex pair of the tableau, with eigenvectors: twice the real part is the pair's."""

    values: Complex
    vectors: Complex
    inverse: Complex


@cache
def eigen_pairs(tableau: GaussTableau) -> EigenPairs:
    one_of_each = np.flatnonzero(tableau.eigenvalues.imag >= 0)
    values = tableau.eigenvalues[one_of_each]
    vectors = tableau.vectors[:, one_of_each] * np.where(values.imag > 0, 2.0, 1.0)
    return EigenPairs(values, np.ascontiguousarray(vectors), np.ascontiguousarray(tableau.inverse[one_of_each]))


class StepData(NamedTuple):
    """The data of the iterations of one step."""

    h: float
    damping: Damping
    #: (R, q), (p, q), (q, q) or (0, 0), the state, ``Z_1 Z_2^T = first gram second^T``
    first: Array
    second: Array
    gram: Array
    decay: Array  #: (s,), the factor of the damping that is separated, at the nodes


@part()
def relax(pairs, factors, residual):
    """The response of G at all nodes to a residual: one relaxation per pair of eigenvalues of the tableau."""
    s, R, p = residual.shape
    K = len(pairs.values)
    turned = np.zeros((K, R, p), np.complex128)
    for k in range(K):
        for j in range(s):
            weight = pairs.inverse[k, j]
            for i in range(R):
                for c in range(p):
                    turned[k, i, c] += weight * residual[j, i, c]
    turned = answer(factors, turned)
    out = np.zeros((s, R, p))
    for j in range(s):
        for k in range(K):
            weight = pairs.vectors[j, k]
            for i in range(R):
                for c in range(p):
                    out[j, i, c] += weight.real * turned[k, i, c].real - weight.imag * turned[k, i, c].imag
    return out


@part(fastmath=FAST)
def largest(values):
    """The largest Frobenius norm among the nodes."""
    top = 0.0
    for j in range(values.shape[0]):
        total = 0.0
        for i in range(values.shape[1]):
            for c in range(values.shape[2]):
                total += values[j, i, c] * values[j, i, c]
        top = max(top, total)
    return math.sqrt(top)


@part(fastmath=FAST)
def _inner(x, y):
    total = 0.0
    for k in range(len(x)):
        total += x[k] * y[k]
    return total


@part(fastmath=FAST)
def _subtract(x, factor, y):
    for k in range(len(x)):
        x[k] -= factor * y[k]


@part()
def _copy(x, y):
    for k in range(len(x)):
        y[k] = x[k]


@part()
def _scaled(x, factor):
    out = np.empty(len(x))
    for k in range(len(x)):
        out[k] = factor * x[k]
    return out


@part(fastmath=FAST)
def accelerate(points, updates, count):
    """The combination of the last `count` points with the least update, plus that update (Anderson's method).

    Least squares in the differences to the latest, by Gram-Schmidt orthogonalisation, later ones first.
    """
    size, last = points.shape[1], count - 1
    new, rest = np.empty(size), np.empty(size)
    for k in range(size):
        new[k], rest[k] = points[last, k] + updates[last, k], updates[last, k]
    directions, moves = np.zeros((count, size)), np.zeros((count, size))
    for i in range(last):
        older = last - 1 - i
        d, m = directions[i], moves[i]
        for k in range(size):
            d[k] = updates[last, k] - updates[older, k]
            m[k] = d[k] + points[last, k] - points[older, k]
        length = math.sqrt(_inner(d, d))
        for k in range(i):
            along = _inner(directions[k], d)
            _subtract(d, along, directions[k])
            _subtract(m, along, moves[k])
        left = math.sqrt(_inner(d, d))
        scale = 1.0 / left if left > _DEPENDENT * length else 0.0
        for k in range(size):
            d[k] *= scale
            m[k] *= scale
        along = _inner(d, rest)
        _subtract(rest, along, d)
        _subtract(new, along, m)
    return new


@part(fastmath=FAST)
def _residual(coupling, product, G):
    out = np.empty_like(G)
    for j in range(G.shape[0]):
        for i in range(G.shape[1]):
            for c in range(G.shape[2]):
                bend = coupling.rows[i] * product[j, i, c] * coupling.columns[c]
                out[j, i, c] = coupling.signal[i, c] - bend - G[j, i, c]
    return out


@part()
def _fixed_point(coupling, data, pairs, factors, G, allowed):
    """Until the update is below ``allowed[0] min(1, h |G|)`` or ``allowed[1]``."""
    iterations, depth = ANDERSON_ITERATIONS, ANDERSON_DEPTH
    shape = G.shape
    points, updates = np.empty((depth + 1, G.size)), np.empty((depth + 1, G.size))
    count, best = 0, np.inf
    for iteration in range(iterations):
        at = stages(G, data.h, data.damping, data.first, data.second)
        update = relax(pairs, factors, _residual(coupling, products(at.Z1, at.Z2, data.gram, data.decay), G))
        size = data.h * largest(update)
        if not size <= FIXED_POINT_GROWTH * best:
            return G, iteration + 1, False
        if size <= max(allowed[0] * min(1.0, data.h * largest(G)), allowed[1]):
            return G, iteration + 1, True
        best = min(best, size)
        if count > depth:
            for k in range(depth):
                _copy(points[k + 1], points[k])
                _copy(updates[k + 1], updates[k])
            count -= 1
        _copy(G.reshape(-1), points[count])
        _copy(update.reshape(-1), updates[count])
        count += 1
        G = accelerate(points, updates, count).reshape(shape)
    return G, iterations, False


@part()
def _derivative(coupling, data, at, G, change):
    """The derivative of ``G - value(products)``."""
    d1, d2 = perturb(G, data.h, data.damping, at, change)
    first, second = products(d1, at.Z2, data.gram, data.decay), products(at.Z1, d2, data.gram, data.decay)
    out = np.empty_like(change)
    for j in range(G.shape[0]):
        for i in range(G.shape[1]):
            for c in range(G.shape[2]):
                moved = first[j, i, c] + second[j, i, c]
                out[j, i, c] = change[j, i, c] + coupling.rows[i] * moved * coupling.columns[c]
    return out


@part()
def _newton(coupling, data, pairs, factors, G, allowed):
    """The same by Newton's method."""
    last = np.inf
    for iteration in range(NEWTON_ITERATIONS):
        at = stages(G, data.h, data.damping, data.first, data.second)
        update = relax(pairs, factors, _residual(coupling, products(at.Z1, at.Z2, data.gram, data.decay), G))
        size = data.h * largest(update)
        if not size <= NEWTON_GROWTH * last:
            return G, iteration + 1, False
        if size <= max(allowed[0] * min(1.0, data.h * largest(G)), allowed[1]):
            return G, iteration + 1, True
        last = size
        step = _krylov(coupling, data, pairs, factors, at, G, update, _GMRES_VECTORS, allowed[2])
        _subtract(step, -1.0, G.reshape(-1))
        G = step.reshape(G.shape)
    return G, NEWTON_ITERATIONS, False


@part()
def _krylov(coupling, data, pairs, factors, at, G, update, count, tolerance):
    """GMRES for Newton's step, preconditioned by the relaxation; `update` is the response to the residual."""
    count = min(count, G.size)
    basis = np.zeros((count + 1, G.size))
    H = np.zeros((count + 1, count))
    cosines, sines, right = np.zeros(count), np.zeros(count), np.zeros(count + 1)
    start = update.reshape(-1)
    size = math.sqrt(_inner(start, start))
    _copy(_scaled(start, 1.0 / size), basis[0])
    right[0] = size
    used = 0
    for k in range(count):
        used = k + 1
        moved = _derivative(coupling, data, at, G, basis[k].reshape(G.shape))
        vector = relax(pairs, factors, moved).reshape(-1)
        for i in range(k + 1):
            H[i, k] = _inner(basis[i], vector)
            _subtract(vector, H[i, k], basis[i])
        H[k + 1, k] = math.sqrt(_inner(vector, vector))
        if H[k + 1, k] > 0.0:
            _copy(_scaled(vector, 1.0 / H[k + 1, k]), basis[k + 1])
        for i in range(k):
            upper = cosines[i] * H[i, k] + sines[i] * H[i + 1, k]
            H[i + 1, k] = cosines[i] * H[i + 1, k] - sines[i] * H[i, k]
            H[i, k] = upper
        length = math.hypot(H[k, k], H[k + 1, k])
        if length == 0.0:
            used = k
            break
        cosines[k], sines[k] = H[k, k] / length, H[k + 1, k] / length
        H[k, k], H[k + 1, k] = length, 0.0
        right[k + 1], right[k] = -sines[k] * right[k], cosines[k] * right[k]
        if abs(right[k + 1]) <= tolerance * size:
            break
    step = np.zeros(G.size)
    for k in range(used - 1, -1, -1):
        for i in range(k + 1, used):
            right[k] -= H[k, i] * right[i]
        right[k] /= H[k, k]
        _subtract(step, -right[k], basis[k])
    return step


@part()
def solve_stages(coupling, data, pairs, factors, G, careful, tol):
    """Solve for G at the nodes, from a guess: by the fixed point, else by Newton's method.

    `careful`: steps that still go straight to Newton's method; `tol`: relative error of Z that the step may make.

    Returns
    -------
    G, iterations, converged, careful
    """
    allowed, spent = (SHARE * tol, FLOOR, _GMRES_TOLERANCE), 0
    if careful == 0:
        solved, spent, converged = _fixed_point(coupling, data, pairs, factors, G, allowed)
        if converged:
            return solved, spent, converged, careful
    solved, more, converged = _newton(coupling, data, pairs, factors, G, allowed)
    if careful > 0:
        careful -= 1
    elif converged:
        careful = CAREFUL_STEPS
    return solved, spent + more, converged, careful


#: Entry point for Python.
iterate = compiled()(solve_stages.py_func)
