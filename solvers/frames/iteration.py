"""Compiled iterations for the equations of a collocation step.

The fixed point ``G <- G + (1 + K)^{-1} r(G)``, r the residual and K the :mod:`.relaxation` of the start, accelerated by
Anderson's method; and one step of Newton's method by GMRES with the same preconditioner.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import FAST, bare
from flowsim.solvers.frames.collocation import Damping, damping_of, perturb, products, stages
from flowsim.solvers.frames.problem import Linear
from flowsim.solvers.frames.relaxation import Factors, answer
from flowsim.solvers.frames.relaxation import examples as relaxation_examples
from flowsim.solvers.gauss import GaussTableau, gauss_tableau
from flowsim.solvers.matrices.algebra import (
    add,
    complex_combinations,
    copied,
    copy,
    flat,
    inner,
    norm,
    real_combinations,
    scale,
)
from flowsim.solvers.matrices.bare_arrays import call_at, shaped
from flowsim.solvers.matrices.calls import Entry, separate
from flowsim.solvers.matrices.interpreted import stands_for
from flowsim.solvers.matrices.scratch import empty, in_use, release, zeros

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


@bare()
def relax(work, pairs, factors, residual):
    """The response of G at all nodes to a residual: one relaxation per pair of eigenvalues of the tableau."""
    turned = complex_combinations(work, pairs.inverse, residual)
    return real_combinations(work, pairs.vectors, answer(work, factors, turned))


@bare()
def largest(values):
    """The largest Frobenius norm among the nodes."""
    top = 0.0
    for j in range(len(values)):
        top = max(top, norm(values[j]))
    return top


@bare(fastmath=FAST)
def accelerate(work, points, updates, count):
    """The combination of the last `count` points with the least update, plus that update (Anderson's method).

    Least squares in the differences to the latest, by Gram-Schmidt orthogonalisation, later ones first.
    """
    size, last = points.shape[1], count - 1
    new, rest = copied(work, points[last]), copied(work, updates[last])
    add(new, 1.0, rest)
    directions, moves = empty(work, (count, size)), empty(work, (count, size))
    for i in range(last):
        older = last - 1 - i
        d, m = directions[i], moves[i]
        copy(updates[last], d)
        add(d, -1.0, updates[older])
        copy(points[last], m)
        add(m, -1.0, points[older])
        add(m, 1.0, d)
        length = math.sqrt(inner(d, d))
        for k in range(i):
            along = inner(directions[k], d)
            add(d, -along, directions[k])
            add(m, -along, moves[k])
        left = math.sqrt(inner(d, d))
        factor = 1.0 / left if left > _DEPENDENT * length else 0.0
        scale(d, factor)
        scale(m, factor)
        along = inner(d, rest)
        add(rest, -along, d)
        add(new, -along, m)
    return new


class System(NamedTuple):
    """The equations ``G = value(products(G))`` of a step, with their preconditioner."""

    coupling: Linear
    data: StepData
    pairs: EigenPairs
    factors: Factors
    propagator: Any  #: :func:`.collocation.propagation`


@bare(fastmath=FAST)
def _residual(work, coupling, product, G):
    out = empty(work, G.shape)
    for j in range(G.shape[0]):
        for i in range(G.shape[1]):
            for c in range(G.shape[2]):
                bend = coupling.rows[i] * product[j, i, c] * coupling.columns[c]
                out[j, i, c] = coupling.signal[i, c] - bend - G[j, i, c]
    return out


@stands_for(_residual)
def _(work: None, coupling: Linear, product: Array, G: Array) -> Array:
    return np.asarray(coupling.signal - coupling.rows[:, None] * product * coupling.columns - G)


@bare()
def _update(work, system, G):
    """The stages for G, and the response of G to its residual."""
    data = system.data
    at = stages(work, system.propagator, G, data.h, data.damping, data.first, data.second)
    product = products(work, at.Z1, at.Z2, data.gram, data.decay)
    return at, relax(work, system.pairs, system.factors, _residual(work, system.coupling, product, G))


@bare()
def _is_enough(data, size, G, share):
    """Whether an update is below ``share min(1, h |G|)`` or rounding."""
    return size <= max(share * min(1.0, data.h * largest(G)), FLOOR)


@bare()
def _remember(points, count, new):
    """`new` behind `count` earlier rows, without the first of them if they are all."""
    if count == len(points):
        for k in range(count - 1):
            copy(points[k + 1], points[k])
        count -= 1
    copy(new, points[count])


def _examples() -> tuple[Any, ...]:
    """Arguments of both solvers, of the usual types."""
    G, matrix, vector = np.zeros((1, 1, 1)), np.zeros((1, 1)), np.zeros(1)
    tableau = gauss_tableau(1)
    data = StepData(0.0, damping_of(tableau, 0.0, vector, vector), matrix, matrix, matrix, vector)
    factors = relaxation_examples()[2]
    return System(Linear(matrix, vector, vector), data, eigen_pairs(tableau), factors, 0), G, 0.0, vector


@separate(_examples)
@bare()
def fixed_point(work, system, G, share, outcome):
    """Changes G until the update is small enough; `outcome`: the number of iterations, and 1 if it is, else 0."""
    points, updates = empty(work, (ANDERSON_DEPTH + 1, G.size)), empty(work, (ANDERSON_DEPTH + 1, G.size))
    count, best, used = 0, np.inf, in_use(work)
    outcome[1] = 0.0
    for iteration in range(ANDERSON_ITERATIONS):
        outcome[0] = iteration + 1
        update = _update(work, system, G)[1]
        size = system.data.h * largest(update)
        if not size <= FIXED_POINT_GROWTH * best:
            break
        if _is_enough(system.data, size, G, share):
            outcome[1] = 1.0
            break
        best = min(best, size)
        _remember(points, count, flat(G))
        _remember(updates, count, flat(update))
        count = min(count + 1, len(points))
        copy(accelerate(work, points, updates, count), flat(G))
        release(work, used)


@bare()
def _derivative(work, system, at, G, change):
    """The derivative of ``G - value(products)``."""
    coupling, data = system.coupling, system.data
    d1, d2 = perturb(work, G, data.h, data.damping, at, change)
    first = products(work, d1, at.Z2, data.gram, data.decay)
    second = products(work, at.Z1, d2, data.gram, data.decay)
    out = empty(work, G.shape)
    for j in range(G.shape[0]):
        for i in range(G.shape[1]):
            for c in range(G.shape[2]):
                moved = first[j, i, c] + second[j, i, c]
                out[j, i, c] = change[j, i, c] + coupling.rows[i] * moved * coupling.columns[c]
    return out


@separate(_examples)
@bare()
def newton(work, system, G, share, outcome):
    """The same as :func:`fixed_point` by Newton's method."""
    last, used = np.inf, in_use(work)
    outcome[1] = 0.0
    for iteration in range(NEWTON_ITERATIONS):
        outcome[0] = iteration + 1
        at, update = _update(work, system, G)
        size = system.data.h * largest(update)
        if not size <= NEWTON_GROWTH * last:
            break
        if _is_enough(system.data, size, G, share):
            outcome[1] = 1.0
            break
        last = size
        add(flat(G), 1.0, _krylov(work, system, at, G, update))
        release(work, used)


@bare()
def _krylov(work, system, at, G, update):
    """GMRES for Newton's step, preconditioned by the relaxation; `update` is the response to the residual."""
    count = min(_GMRES_VECTORS, G.size)
    basis, H = empty(work, (count + 1, G.size)), zeros(work, (count + 1, count))
    cosines, sines, right = empty(work, (count,)), empty(work, (count,)), zeros(work, (count + 1,))
    step = zeros(work, (G.size,))
    copy(flat(update), basis[0])
    size = math.sqrt(inner(basis[0], basis[0]))
    scale(basis[0], 1.0 / size)
    right[0] = size
    done, used = 0, in_use(work)
    for k in range(count):
        done = k + 1
        moved = _derivative(work, system, at, G, shaped(basis[k], 0, G.shape, 0.0))
        vector = flat(relax(work, system.pairs, system.factors, moved))
        for i in range(k + 1):
            H[i, k] = inner(basis[i], vector)
            add(vector, -H[i, k], basis[i])
        H[k + 1, k] = math.sqrt(inner(vector, vector))
        if H[k + 1, k] > 0.0:
            copy(vector, basis[k + 1])
            scale(basis[k + 1], 1.0 / H[k + 1, k])
        release(work, used)
        for i in range(k):
            upper = cosines[i] * H[i, k] + sines[i] * H[i + 1, k]
            H[i + 1, k] = cosines[i] * H[i + 1, k] - sines[i] * H[i, k]
            H[i, k] = upper
        length = math.hypot(H[k, k], H[k + 1, k])
        if length == 0.0:
            done = k
            break
        cosines[k], sines[k] = H[k, k] / length, H[k + 1, k] / length
        H[k, k], H[k + 1, k] = length, 0.0
        right[k + 1], right[k] = -sines[k] * right[k], cosines[k] * right[k]
        if abs(right[k + 1]) <= _GMRES_TOLERANCE * size:
            break
    for k in range(done - 1, -1, -1):
        for i in range(k + 1, done):
            right[k] -= H[k, i] * right[i]
        right[k] /= H[k, k]
        add(step, right[k], basis[k])
    return step


class Solvers(NamedTuple):
    """:func:`fixed_point` and :func:`newton`; 0: not compiled yet."""

    fixed_point: Any
    newton: Any


@bare()
def solve_stages(work, solvers, system, G, careful, tol):
    """Solve for G at the nodes, from a guess, which it replaces: by the fixed point, else by Newton's method.

    `careful`: steps that still go straight to Newton's method; `tol`: relative error of Z that the step may make.

    Returns
    -------
    iterations, converged, careful : int, bool, int
        The last is -1 if Newton's method is needed and not compiled yet.
    """
    guess, outcome, spent = copied(work, G), empty(work, (2,)), 0
    if careful == 0:
        call_at(solvers.fixed_point, (work, system, G, SHARE * tol, outcome))
        spent = int(outcome[0])
        if outcome[1] > 0.0:
            return spent, True, careful
        copy(guess, G)
    if solvers.newton == 0:
        return spent, False, -1
    call_at(solvers.newton, (work, system, G, SHARE * tol, outcome))
    if careful > 0:
        careful -= 1
    elif outcome[1] > 0.0:
        careful = CAREFUL_STEPS
    return spent + int(outcome[0]), outcome[1] > 0.0, careful


def solvers(with_newton: bool = False) -> Solvers:
    """The solvers that are compiled, at least that by the fixed point."""
    return Solvers(fixed_point, newton if with_newton or newton.is_compiled else 0)


def _solving_examples() -> tuple[Any, ...]:
    system, G, _, _ = _examples()
    return Solvers(0, 0), system, G, 0, 0.0


def _relaxing_examples() -> tuple[Any, ...]:
    system, G, _, _ = _examples()
    return system.pairs, system.factors, G


#: Entry points for Python; :func:`iterate` changes G in place.
iterate = Entry(solve_stages, _solving_examples)
apply_relaxation = Entry(relax, _relaxing_examples)
combine = Entry(accelerate, lambda: (np.zeros((1, 1)), np.zeros((1, 1)), 0))
