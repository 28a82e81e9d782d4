"""Collocation steps of a paired frame whose coupling is linear, as many as there are to take, compiled.

One attempt at a step is a guess, the nonlinear equations, the end, and the error estimate. :mod:`.steps` does the same
for other frames and couplings.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import bare
from flowsim.solvers.frames.collocation import Damping, damping_of, propagated
from flowsim.solvers.frames.iteration import (
    EigenPairs,
    Solvers,
    StepData,
    System,
    eigen_pairs,
    solve_stages,
    solvers,
)
from flowsim.solvers.frames.pairs import Pairs, advanced, all_columns, begun, example, halves, keep, stack_of, stored
from flowsim.solvers.frames.problem import Linear
from flowsim.solvers.frames.relaxation import defects, factored, fastest
from flowsim.solvers.frames.step_control import (
    AT_MINIMUM,
    CAUTIOUS_GROWTH,
    LARGEST_CUT,
    NEWTON_CUT,
    SAFETY,
    SMALLEST_STEP,
    TREND,
    Control,
    judge,
    rests,
    turning,
)
from flowsim.solvers.gauss import GaussTableau, gauss_tableau
from flowsim.solvers.matrices.algebra import add_combinations, copy, product_nt
from flowsim.solvers.matrices.bare_arrays import shaped
from flowsim.solvers.matrices.calls import entry
from flowsim.solvers.matrices.scratch import empty, empty_complex, in_use, release, zeros
from flowsim.solvers.precompile import compile_ahead

#: A guess is extrapolated over this many lengths of the step before, and from so many of its last nodes.
_EXTRAPOLATED, _GUESS_NODES = 1.5, 4
#: Rate times length of a step that damps what relaxes by four orders.
_DAMPED = 10.0
#: How a march ended.
GOES_ON, STEP_FLOOR, NON_FINITE, NEEDS_NEWTON = 0, 1, 2, 3


class GaussMethod(NamedTuple):
    """Gauss's: 0, the nodes and 1; the polynomial at both ends; for the iteration; no damping."""

    nodes: Array
    at_ends: Array
    pairs: EigenPairs
    damping: Damping


class MarchPosition(NamedTuple):
    """Time and its end, the next length, steps that still go straight to Newton's method, the last error."""

    t: float
    t_end: float
    h: float
    careful: int
    missed: float  #: error of the last step over the tolerance, 0 if there is none


class Counts(NamedTuple):
    """Counters of a march."""

    rejected: int
    begun: int
    iterations: int


@cache
def method_of(tableau: GaussTableau) -> GaussMethod:
    nodes = np.concatenate([[0.0], tableau.c, [1.0]])
    return GaussMethod(nodes, tableau.at_ends, eigen_pairs(tableau), damping_of(tableau, 0.0, np.zeros(1), np.zeros(1)))


@bare()
def _value(work, coupling, frame):
    """G at a frame."""
    first, second = halves(work, frame)
    G = product_nt(work, first, second)
    for i in range(G.shape[0]):
        for c in range(G.shape[1]):
            G[i, c] = coupling.signal[i, c] - coupling.rows[i] * G[i, c] * coupling.columns[c]
    return G


@bare()
def _guess(work, method, G0, before, stretch):
    """G on the nodes: by the polynomial through the last nodes of the step before; constant for stretch 0."""
    s, (R, p) = len(method.nodes) - 2, G0.shape
    guess, weights, first = zeros(work, (s, R, p)), empty(work, (1, s, _GUESS_NODES)), s + 2 - _GUESS_NODES
    for j in range(s):
        if stretch == 0.0:
            copy(G0, guess[j])
        x = 1.0 + stretch * method.nodes[j + 1]
        for a in range(_GUESS_NODES):
            weight, own = 1.0, method.nodes[first + a]
            for b in range(first, s + 2):
                if b != first + a:
                    weight *= (x - method.nodes[b]) / (own - method.nodes[b])
            weights[0, j, a] = weight
    if stretch != 0.0:
        add_combinations(guess, 1.0, weights, shaped(before, first * R * p, (_GUESS_NODES, R, p), 0.0))
    return guess


@bare()
def _is_minimum(coupling, G):
    """Whether G at a product is that of a minimum, to rounding."""
    distance = largest = 0.0
    for i in range(G.shape[0]):
        for c in range(G.shape[1]):
            bend = coupling.rows[i] * coupling.columns[c]
            distance = max(distance, abs(G[i, c]) / bend)
            largest = max(largest, abs(coupling.signal[i, c] - G[i, c]) / bend)
    return distance <= AT_MINIMUM * largest


class Equations(NamedTuple):
    """What all steps have in common."""

    method: GaussMethod
    propagator: Any  #: :func:`.collocation.propagation`
    solvers: Solvers
    coupling: Linear
    kappa: float  #: damping
    tol: float  #: relative error of Z that a step may make


@bare()
def _attempt(work, equations, common, frame, G, h, careful):
    """One step of a length, from a guess of G on the nodes, which it replaces.

    Returns
    -------
    end : Pairs
        The frame at the end, if the iterations converge.
    iterations, converged, careful
    """
    method, kappa = equations.method, equations.kappa
    s = len(method.nodes) - 2
    decay, mus = empty(work, (s,)), empty_complex(work, (len(method.pairs.values),))
    for j in range(s):
        decay[j] = math.exp(-2.0 * kappa * h * method.nodes[j + 1])
    for k in range(len(mus)):
        mus[k] = h * method.pairs.values[k]
    data = StepData(h, method.damping, common[0], common[1], common[2], decay)
    factors = factored(work, common[3], mus)
    system = System(equations.coupling, data, method.pairs, factors, equations.propagator)
    iterations, converged, careful = solve_stages(work, equations.solvers, system, G, careful, equations.tol)
    if not converged:
        return frame, iterations, converged, careful
    first, second = all_columns(work, frame)
    first, second = propagated(work, equations.propagator, G, h, method.damping, first, second)[1]
    return advanced(work, frame, first, second, kappa * h), iterations, converged, careful


@bare()
def _is_finite(X):
    total = 0.0
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            total += X[i, j]
    return math.isfinite(total)


@bare()
def _judged(work, method, relaxation, path, h, tol):
    """:func:`judge` of a step with G at 0, the nodes and 1."""
    s, mu = len(method.nodes) - 2, empty_complex(work, (1,))
    mu[0] = complex(h)
    inner = shaped(path, path[0].size, (s, path.shape[1], path.shape[2]), 0.0)
    size = defects(work, factored(work, relaxation, mu), method.at_ends, inner, path[0], path[s + 1])
    for k in range(len(size)):
        size[k] *= h
    return judge(size, tol, s)


def _examples() -> tuple[Any, ...]:
    G, path, start = np.zeros((1, 1)), np.zeros((1, 3, 1, 1)), MarchPosition(0.0, 0.0, 0.0, 0, 0.0)
    method, vector = method_of(gauss_tableau(1)), np.zeros(1)
    equations = Equations(method, 0, Solvers(0, 0), Linear(G, vector, vector), 0.0, 0.0)
    stack = stack_of(example(), 2)
    control = Control(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)
    return equations, control, G, (0.0, path[0]), start, (vector, vector, path, stack)


@entry(_examples)
@bare()
def march_steps(work, equations, control, G0, before, place, records):
    """Fills `lengths` (n,), `stiff` (n,), `kept` (n, s + 2, R, p) and `frames`; see :func:`march`."""
    method, _, _, coupling, kappa, tol = equations
    lengths, stiff, kept, frames = records
    s, bends = len(method.nodes) - 2, (coupling.rows, coupling.columns)
    t, t_end, h, careful, missed = place
    last, path = before
    count, rejected, begins, iterations, code = 0, 0, 0, 0, GOES_ON
    nothing = in_use(work)
    while count < len(lengths) and t < t_end and code == GOES_ON:
        release(work, nothing)
        frame = stored(frames, count)
        common = begun(work, frame, G0, bends)
        growth = common[4] - kappa
        begins += 1
        is_minimum = kappa == 0.0 and _is_minimum(coupling, G0)
        if count > 0 and (is_minimum or rests(work, frame, G0, kappa, growth, control)):
            break
        growth = max(growth, turning(work, frame, G0, control.answered, 2 * s + 1))
        limit = control.linear / growth if growth > 0.0 else np.inf
        retry, failed, begun_with = False, 0, in_use(work)
        while True:
            release(work, begun_with)
            h = min(h, limit, t_end - t)
            if not h > SMALLEST_STEP * max(t, 2.3e-308):
                code = STEP_FLOOR
                break
            stretch = 0.0 if retry or last == 0.0 or h > _EXTRAPOLATED * last else h / last
            G = _guess(work, method, G0, path, stretch)
            end, spent, converged, still_careful = _attempt(work, equations, common, frame, G, h, careful)
            iterations += spent
            if still_careful < 0:
                code = NEEDS_NEWTON
                break
            careful = still_careful
            if not converged:
                rejected += 1
                h *= NEWTON_CUT
                retry = True
                continue
            new = kept[count]
            copy(G0, new[0])
            copy(G, shaped(new, G0.size, G.shape, 0.0))
            copy(_value(work, coupling, end), new[s + 1])
            ratio, relaxes, scale = _judged(work, method, common[3], new, h, tol)
            if not ratio <= 1.0:
                rejected += 1
                # Where errors of the last step relax, the observed order is lower: each cut exceeds the one before.
                failed += 1
                h *= max(scale * 0.5 ** (failed - 1), LARGEST_CUT)
                if relaxes:
                    # Remaining errors of earlier steps: the method damps rates that are not large against 1/h.
                    h = min(h, _DAMPED / fastest(common[3]))
                retry = True
                continue
            if not (_is_finite(end.A) and _is_finite(end.B)):
                code = NON_FINITE
                break
            if missed > 0.0:
                # The next error may change as this one did (Gustafsson's control; Hairer and Wanner, II, IV.8).
                scale = min(scale, max(SAFETY * scale * h / last * (missed / ratio) ** (1.0 / (s + 1)), LARGEST_CUT))
            path, G0 = new, new[s + 1]
            lengths[count], stiff[count], last, missed = h, 1.0 if relaxes else 0.0, h, max(ratio, TREND)
            t = t_end if t + h >= t_end * (1.0 - 1e-15) else t + h
            h *= min(scale, CAUTIOUS_GROWTH) if retry else scale
            count += 1
            keep(frames, count, end)
            break
    return count, MarchPosition(t, t_end, h, careful, missed), Counts(rejected, begins, iterations), code


class March(NamedTuple):
    """Steps: lengths, whether relaxation limited them, G at 0, the nodes and 1, (n, s + 2, R, p), frames (n + 1)."""

    lengths: Array
    stiff: NDArray[np.bool_]
    G: Array
    frames: Pairs
    place: MarchPosition
    counts: Counts
    code: int


def march(
    equations: Equations,
    control: Control,
    frame: Pairs,
    G0: Array,
    before: tuple[float, Array],
    place: MarchPosition,
    most: int,
) -> March:
    """Steps from a frame, until long ones may be taken, or `most`.

    `G0`: G at the frame; `before`: length of the step before, 0 if there is none, and its G.
    """
    nodes = len(equations.method.nodes)
    given = equations, control, G0, before, place
    records = _records(frame, nodes, 1)
    if not march_steps.is_interpreted(*given, records):
        records = _records(frame, nodes, most)
    count, *how = march_steps(*given, records)
    if how[-1] == NEEDS_NEWTON:
        # Compiled now; the steps before stay.
        equations = equations._replace(solvers=solvers(with_newton=True))
        if count == 0:
            return march(equations, control, frame, G0, before, place, most)
        how[-1] = GOES_ON
    lengths, stiff, kept, frames = records
    frames = Pairs(*(each[: count + 1] for each in frames))
    return March(lengths[:count], stiff[:count] > 0, kept[:count], frames, *how)


def _records(frame: Pairs, nodes: int, most: int) -> tuple[Array, Array, Array, Pairs]:
    """For up to so many steps."""
    shape = most, nodes, len(frame.A), len(frame.B)
    return np.empty(most), np.empty(most), np.empty(shape), stack_of(frame, most + 1)


@cache
def compile_in_advance() -> None:
    """Start to compile what a first run interprets, or else compiles itself meanwhile, from the other end."""
    names = ["pair_exponential:_exponential", "collocation_march:march_steps", "iteration:fixed_point"]
    names += "collocation:propagation", "graded:rows_added", "collocation:propagated", "iteration:solve_stages"
    names += "relaxation:factored", "pairs:advanced", "pairs:_carry"
    compile_ahead(names, room=__name__.rpartition(".")[0])
