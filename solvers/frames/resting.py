r"""Long steps: active directions come to rest while the other directions wait.

Active directions are independent of the others, whose squares are below the tolerance. One step (:mod:`.grown`)
advances them, as far as their own accuracy allows, if they are stable by themselves (the Jacobian of the flow on them
has no growing rate that such a step would not resolve). In the resulting G(t) the equation of the others is linear:
they are advanced by collocation steps as short as their growth and G require, without iteration, or, once G is nearly
constant, by one exponential (:mod:`.plateau`). In the known G errors of active directions would grow like waiting ones:
at the end of every step they are reset to their known values. At a minimum to rounding one step goes to the end of the
run: any other would follow the rounding of G.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.frames import step_control
from flowsim.solvers.frames.collocation import damping_of, propagate
from flowsim.solvers.frames.frame import Frame
from flowsim.solvers.frames.grown import GrownDirections, newton_step
from flowsim.solvers.frames.nonlinear import growth_of
from flowsim.solvers.frames.plateau import HeadPath, Plateau, PlateauStep, rest_of
from flowsim.solvers.frames.problem import FrameProblem, rates_of
from flowsim.solvers.frames.solution import CollocationStep
from flowsim.solvers.gauss import GaussTableau, gauss_tableau, relaxing_tableau

#: Logarithm of a ratio of two directions that is below their rounding.
BELOW_ROUNDING = 30.0
#: Half of the logarithm, below the tolerance, of invisible contributions to the product, and its least value.
_UNSEEN, _WAITING = 4.0, -23.0
#: Logarithm of the ratio of active to waiting directions from which on they are separated.
_APART = 20.0
#: Part of the tolerance for the mean of G in a plateau step, and its least length in ordinary steps.
_PLATEAU_SHARE, _PLATEAU_LEAST = 0.1, 2.0
#: Steps of active directions alone: stages; the least length worth taking in ordinary steps; the distance from rest,
#: relative to the rate of waiting directions, at which they begin, and after a failed one, or after so many steps.
_STAGES, _LONG_LEAST, NEAR_REST, _PATIENCE, _AGAIN = 11, 3.0, 0.002, 0.6, 16
#: Error of active directions over the filtered defect at the start, as measured; a factor on it under unequal damping,
#: where they drift for long and errors of many steps add up; the largest growth of a step after one that was reduced;
#: condition number of columns by which directions are given.
_MISSED, _ADDED_UP, _LONGER, _WELL_CONDITIONED = 2.0, 10.0, 4.0, 1e3
#: Number of ordinary steps that a plateau step must replace, and of those up to which they are halved; parts of a path
#: tried for plateau steps, points of the rule for its mean, and the power that moves them to the start.
_WORTH, _HALVED, _TRIED, _POINTS, _GRADED = 12, 1000, 12, 8, 3
#: Its least length where nothing waits: Gauss's method, unlike Radau's, leaves what is fast in it near its tolerance.
_ALONE_LEAST = 0.05
#: Part of the tolerance for the distance from rest, and its square for that from a minimum of losses but squares.
_REST_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class CarriedStep(CollocationStep):
    """A step in a known G, with active directions on their path; positions of start and end on that path."""

    path: HeadPath
    places: tuple[float, float]

    def frame(self, position: float) -> Frame:
        G, h, damping = self.up_to(position)
        place = np.array([self.places[0] + position * (self.places[1] - self.places[0])])
        return self.path.over(self.start, G[None], np.array([h]), damping, self.damping, place)[1]

    def values(self, position: float, shift: float) -> tuple[Array, Array]:
        return self.frame(position).value(shift)


class LongSteps:
    """Long steps of one run.

    `tableau`: the method of ordinary steps; `linear`: rate times length resolved by an ordinary step; `scale`:
    logarithm of the size of grown Z; `stats`: counters of the run.
    """

    def __init__(
        self, problem: FrameProblem, tableau: GaussTableau, tol: float, linear: float, scale: float,
        stats: dict[str, Any],
    ) -> None:  # fmt: skip
        self.problem, self.tableau, self.tol, self.linear, self.stats = problem, tableau, tol, linear, stats
        self.scale = scale
        #: logarithm below which a direction waits: it has no effect on the product
        self.waits = scale + max(0.5 * math.log(tol) - _UNSEEN, _WAITING)
        #: the ratio from which it is apart, as a logarithm
        self.apart = max(_APART, _UNSEEN - math.log(tol))
        self.nodes = np.concatenate([[0.0], tableau.c, [1.0]])
        self.stages = min(_STAGES, 2 * tableau.stages)
        #: of G where there is no product
        self.size = max(float(np.linalg.norm(problem.coupling.value(np.zeros(problem.shape)))), 1e-300)
        self.t = 0.0
        #: number of active directions, the distance from rest or step of the next attempt, and these at the last one
        self.grown, self.patience, self.again = 0, np.inf, 0
        self.before: GrownDirections | None = None
        #: the length of the last long step, if it had to be reduced
        self.reduced = np.inf

    def take(self, t: float, left: float, frame: Frame, G: Array) -> list[CollocationStep | PlateauStep] | None:
        """Steps from a state at time t, if its active directions are near enough to rest.

        Parameters
        ----------
        left : float
            The time to be covered.
        """
        self.t = t
        grown = int(np.sum(frame.logs > self.waits))
        waiting = frame.logs[grown:]
        outer = max(frame.neutral_log, frame.minus_logs.max(initial=-np.inf))
        first = waiting.max(initial=-np.inf)
        gap = frame.logs[grown - 1] - first if grown else np.inf
        hidden = outer <= self.waits and gap >= self.apart
        minimum = Plateau.constant(frame) if self._is_minimum(frame, G, left) else None
        if (rested := minimum or self._rest(frame, G, grown, hidden, left)) is not None:
            self.stats["rests"] += 1
            return [self._plateau_step(rested, t, left)]
        if not hidden or (first == -np.inf and not (grown and self.problem.is_damped)):
            return None
        if grown != self.grown:
            self.grown, self.before, self.patience, self.reduced = grown, None, np.inf, np.inf
        # Where nothing waits, long steps replace those that resolve growth against damping.
        growth = growth_of(self.problem, frame, G, self.waits) if first > -np.inf else float(np.linalg.norm(G, 2))
        if growth <= 0 or _shrinks(frame, G, grown):
            return None
        least = _LONG_LEAST if first > -np.inf else _ALONE_LEAST if grown else _PLATEAU_LEAST
        least = min(least * self.linear / growth, left)
        rest = rest_of(self.problem, G, frame, grown)
        if rest > NEAR_REST * growth or (rest > self.patience and self.stats["steps"] < self.again):
            return None
        ceiling = self.waits + 1.0
        if grown == 0:
            plateau = Plateau.of(self.problem, G, frame, grown)
            h = min(left, (ceiling - max(first, outer)) / plateau.growth) if plateau.growth > 0 else 0.0
            return [self._plateau_step(plateau, t, h)] if h >= least else None
        if BELOW_ROUNDING < gap < np.inf:
            frame = frame.separated(grown)
            first = frame.logs[grown]
        if first > -np.inf and not self._is_apart(frame, grown, ceiling - first):
            return None
        # Waiting directions may turn towards faster ones.
        fastest = max(growth, float(np.linalg.norm(G, 2)) - (self.problem.uniform or 0.0))
        h = min(left, (ceiling - max(first, outer)) / fastest)
        if h < least:
            return None
        steps = self._relaxing(frame, G, grown, (h, least), growth)
        # The next attempt is nearer to rest, or later: the rest of ordinary steps is that of their tolerance.
        self.patience, self.again = (np.inf, 0) if steps else (_PATIENCE * rest, self.stats["steps"] + _AGAIN)
        return steps

    def _is_minimum(self, frame: Frame, G: Array, left: float) -> bool:
        """Whether G, zero at a minimum, is small relative to its curvature, but not times the time left."""
        if self.problem.is_damped or not float(np.abs(G).max()) * left > self.tol:
            return False
        one, other = frame.value()
        product, coupling = one @ other.T, self.problem.coupling
        share = _REST_SHARE**2 * self.tol if coupling.signal is None else step_control.AT_MINIMUM
        return newton_step(coupling, product, G) <= share * float(np.abs(product).max())

    def _rest(self, frame: Frame, G: Array, grown: int, hidden: bool, left: float) -> Plateau | None:
        """The plateau without end of a state near a stable rest: all its columns have grown, or what waits shrinks.

        `hidden`: whether what waits does not act on the product.
        """
        columns, kappa = frame.rows.shape[1], self.problem.uniform or 0.0
        part = GrownDirections(self.problem, self.stages, frame) if grown >= columns else None
        if part is not None and part.Z.shape[1] == columns and part.sizes[-1] >= math.exp(self.waits):
            plateau = Plateau.constant(frame, kappa)
        elif hidden and self.problem.is_damped and self._is_apart(frame, grown, 0.0) and not _shrinks(frame, G, grown):
            plateau = Plateau.of(self.problem, G, frame, grown)
            part = GrownDirections(self.problem, self.stages, frame.head(grown)) if grown else None
        else:
            return None
        if plateau.growth > 0 or (part is not None and not part.is_at_rest(_REST_SHARE * self.tol)):
            return None
        # Directions are constant on a plateau: what decays there, the imbalance too, must not enter the product.
        (one, other), (first, second) = frame.value(), plateau.after(left).value()
        product = one @ other.T
        size = max(float(np.abs(product).max()), math.exp(2 * self.scale))
        return plateau if np.abs(first @ second.T - product).max() <= _REST_SHARE * self.tol * size else None

    def _is_apart(self, frame: Frame, grown: int, rise: float) -> bool:
        """Whether waiting rows, grown by exp(rise), do not enter the product to first order, along active ones."""
        with np.errstate(under="ignore"):
            waiting = np.exp(frame.logs[grown:] + rise - self.scale)[:, None] * frame.rows[grown:]
        return np.abs(frame.rows[:grown] @ waiting.T).max(initial=0.0) <= _PLATEAU_SHARE * self.tol

    def _plateau_step(self, plateau: Plateau, t: float, h: float, path: HeadPath | None = None) -> PlateauStep:
        self.stats["plateau_steps"] += 1
        end = plateau.after(h)
        return PlateauStep(t, h, plateau, path, end if path is None else plateau.turned(end, path.at(np.ones(1))[0]))

    def _relaxing(
        self, frame: Frame, G0: Array, grown: int, lengths: tuple[float, float], growth: float
    ) -> list[CollocationStep | PlateauStep] | None:
        """Steps over which the first `grown` directions, independently of the others, come to rest.

        One step for these, as long as it resolves their relaxation.
        """
        h, least = lengths
        grown_part = self.before = GrownDirections(self.problem, self.stages, frame.head(grown), self.before)
        # Active directions must be stable by themselves: a long step would not resolve their departure.
        h = grown_part.longest(h, self.linear)
        self.stats["njev"] += grown_part.origin is grown_part
        if h >= least:
            h = max(least, min(grown_part.settling(h, self.tol), _LONGER * self.reduced))
        begun, error_factor = h, _MISSED if frame.is_paired else _MISSED * _ADDED_UP
        columns = frame.factor * np.exp(frame.logs[:grown, None]) * (frame.rows[:grown] @ grown_part.basis)
        # Damping included: at rest they are constant.
        known = len(columns) == columns.shape[1] and np.linalg.cond(columns) < _WELL_CONDITIONED
        turn = np.asarray(np.linalg.inv(columns)) if known else np.zeros(columns.shape[::-1])
        while h >= least:
            moved, iterations = grown_part.step(h, self.tol)
            self.stats["nfev"] += iterations * self.stages
            self.stats["nlu"] += iterations
            if moved is None:
                self.stats["rejected"] += 1
                h *= step_control.NEWTON_CUT
                continue
            ratio = error_factor * moved.error / max(self.tol, step_control.ROUNDING_FLOOR)
            path = HeadPath(moved, turn, None)
            if not known:
                path, missed = self._propagated(frame, path)
                ratio = max(ratio, missed / self.tol)
            if ratio <= 1.0:
                break
            self.stats["rejected"] += 1
            h *= max(step_control.LARGEST_CUT, step_control.SAFETY * ratio ** (-1 / (self.stages + 1)))
        else:
            return None
        self.reduced = h if h < begun else np.inf
        growth = max(growth, float(np.linalg.norm(self._G(path, np.ones(1))[0], 2)))
        if frame.logs[grown:].max(initial=-np.inf) == -np.inf:
            # The rest decays, and no error of it grows.
            return [self._plateau(frame, path, self.t, self._mean(path, np.zeros(1), np.ones(1))[0][0])]
        return self._advanced(frame, path, least, growth)

    def _G(self, path: HeadPath, places: Array) -> Array:
        """G at positions of a path, (P, R, p)."""
        Z, R = path.Z(places), len(self.problem.damping_rows)
        # One column after the other: products of many small matrices are slow.
        product = np.zeros((len(Z), *self.problem.shape))
        for a in range(Z.shape[2]):
            product += Z[:, :R, None, a] * Z[:, None, R:, a]
        return np.asarray(self.problem.coupling.value(product))

    def _propagated(self, frame: Frame, path: HeadPath) -> tuple[HeadPath, float]:
        """The path with directions propagated in its G, and the defect of the polynomial through G at the start."""
        moved, count, kappa = path.grown, path.turn.shape[1], self.problem.uniform
        tableau = relaxing_tableau(self.stages, moved.decay)
        rates = rates_of(self.problem) if kappa is None else (np.full(1, kappa),) * 2
        A, B = np.ascontiguousarray(frame.A[:, :count]), np.ascontiguousarray(frame.B[:, :count])
        G = np.ascontiguousarray(self._G(path, moved.places))
        at = propagate(G[1:], moved.h, damping_of(tableau, moved.h, *rates), A, B)[0]
        directions = np.concatenate([np.concatenate([A, B])[None], np.concatenate([at.Z1, at.Z2], axis=1)])
        missed = np.tensordot(tableau.at_ends[0], G[1:], axes=1) - G[0]
        return replace(path, directions=directions), float(np.linalg.norm(missed)) / self.size

    def _advanced(
        self, frame: Frame, path: HeadPath, least: float, growth: float
    ) -> list[CollocationStep | PlateauStep] | None:
        """Steps of the directions that wait, along a path.

        With the mean of G, to second order in the variation of G, or where that is too large by collocation steps in
        the known G.
        """
        allowed, h = _PLATEAU_SHARE * self.tol * growth, path.h
        count = math.ceil(h * growth / self.linear)
        steps: list[CollocationStep | PlateauStep] = []
        for begin, end, known in self._pieces(path, count, allowed, _WORTH if frame.is_paired else least / h * count):
            if known is not None:
                part = path.along(frame, begin / count, end / count)
                steps.append(self._plateau(frame, part, self.t + h * begin / count, known))
            elif frame.is_paired:
                steps += self._carried(frame, path, count, begin, end)
            else:
                break
            frame = steps[-1].end
        return steps or None

    def _plateau(self, frame: Frame, path: HeadPath, t: float, mean: Array) -> PlateauStep:
        plateau = Plateau.of(self.problem, mean, frame, path.turn.shape[1])
        return self._plateau_step(plateau, t, path.h, path)

    def _carried(
        self, frame: Frame, path: HeadPath, count: int, begin: int, end: int
    ) -> list[CollocationStep | PlateauStep]:
        """Those from `begin` to `end` of `count` collocation steps in the known G of a path.

        Where the polynomial through G does not resolve it, steps are halved.
        """
        ends, missed = np.arange(begin, end + 1) / count, True
        while missed:
            lengths = np.diff(ends)
            G = self._G(path, (ends[:-1, None] + lengths[:, None] * self.nodes).ravel())
            G = G.reshape(len(lengths), len(self.nodes), -1)
            defects = np.linalg.norm(self.tableau.at_ends @ G[:, 1:-1] - G[:, [0, -1]], axis=2).max(axis=1)
            bad = step_control.DEFECT_WEIGHT * path.h * lengths * defects > self.tol
            missed = bool(bad.any()) and len(ends) < _HALVED
            if missed:
                ends = np.sort(np.concatenate([ends, (ends[:-1] + 0.5 * lengths)[bad]]))
        G, h = G.reshape(len(lengths), len(self.nodes), *self.problem.shape), path.h * lengths
        damping, kappa = damping_of(self.tableau, 0.0, np.zeros(1), np.zeros(1)), self.problem.uniform or 0.0
        frames = path.over(frame, np.ascontiguousarray(G[:, 1:-1]), h, damping, kappa, ends[1:])
        return [
            CarriedStep(
                self.t + ends[n] * path.h, h[n], frames[n], frames[n + 1], self.nodes, G[n], self.problem, 0.0,
                path, (ends[n], ends[n + 1]),
            )
            for n in range(len(h))
        ]  # fmt: skip

    def _pieces(
        self, path: HeadPath, count: int, allowed: float, worth: float
    ) -> Iterator[tuple[int, int, Array | None]]:
        """Parts of a path of `count` ordinary steps, and the mean of G there, if one step with it is enough and pays.

        `allowed` bounds the integral of the squared distance from the mean, `worth` the least number of ordinary steps.
        """
        tried = np.linspace(0, count, _TRIED + 1), np.geomspace(1, count, _TRIED)
        ends = np.unique(np.concatenate(tried).astype(int))
        last = len(ends) - 1
        begin, end = np.triu_indices(last + 1, 1)
        length = np.diff(ends) / count
        mean, variation = self._mean(path, ends[:-1] / count, ends[1:] / count)
        # From the end, where G hardly moves.
        origin = mean[-1].copy()
        mean = (mean - origin).reshape(last, -1)
        variation += path.h * length * (mean**2).sum(axis=1)
        mean, variation = (np.cumsum(np.pad(each, [(1, 0)] + [(0, 0)] * (each.ndim - 1)), axis=0) for each in (
            length[:, None] * mean, variation
        ))  # fmt: skip
        whole = (ends[end] - ends[begin]) / count
        mean = (mean[end] - mean[begin]) / whole[:, None]
        variation = variation[end] - variation[begin] - path.h * whole * (mean**2).sum(axis=1)
        fits = np.flatnonzero((variation <= allowed) & (ends[end] - ends[begin] >= worth))
        at = 0
        while at < last:
            later = fits[begin[fits] >= at]
            if len(later) == 0:
                yield int(ends[at]), count, None
                return
            first = int(begin[later[0]])
            if first > at:
                yield int(ends[at]), int(ends[first]), None
            chosen = later[begin[later] == first][-1]
            at = int(end[chosen])
            yield int(ends[first]), int(ends[at]), origin + mean[chosen].reshape(origin.shape)

    def _mean(self, path: HeadPath, begin: Array, end: Array) -> tuple[Array, Array]:
        """The mean of G between positions, (K, R, p), and the integral over the time of its squared distance from G."""
        rule = gauss_tableau(_POINTS)
        c, b = (np.repeat(each[None], len(begin), axis=0) for each in (rule.c, rule.b))
        # The first part begins with what relaxes fast.
        c[0], b[0] = rule.c**_GRADED, _GRADED * rule.c ** (_GRADED - 1) * rule.b
        # From the end, where G hardly moves.
        G = self._G(path, (begin[:, None] + (end - begin)[:, None] * c).ravel())
        origin = G[-1].copy()
        G = (G - origin).reshape(len(begin), _POINTS, -1)
        mean = (b[:, :, None] * G).sum(axis=1)
        square = (b * ((G - mean[:, None]) ** 2).sum(axis=2)).sum(axis=1)
        return origin + mean.reshape(-1, *origin.shape), path.h * (end - begin) * square


def _shrinks(frame: Frame, G: Array, grown: int) -> bool:
    """Whether a waiting pair that is far from a change of sign shrinks.

    Its f^+ must not mix with rounding of its growing f^-, which needs steps that treat the two halves alike.
    """
    if not frame.is_paired:
        return False
    A, B = frame.A[:, grown:], frame.B[:, grown:]
    rates = np.einsum("ij,ij->j", A, G @ B)
    with np.errstate(invalid="ignore"):
        apart = frame.logs[grown:] - frame.minus_logs[grown:]
    return bool(((rates < 0) & (apart > BELOW_ROUNDING) & (frame.logs[grown:] > -np.inf)).any())
