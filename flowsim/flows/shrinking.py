r"""Flows of products of L >= 3 weights that noise or weight decay shrinks while they wait.

On a plateau, of duration :math:`\alpha^{2-L}`, active coordinates are at rest and f = -grad L is constant: with
:math:`\kappa = (L-2)\, k` (:mod:`flowsim.growth.shrinking_map`) distances move by

.. math:: f\, e^{-E}\, (1 - e^{-\kappa t}) / \kappa ,

to just before the next coordinate becomes visible. Over the jump E is frozen, for a time short against
:math:`1/\kappa` and long enough for all active coordinates to come to rest: the native integrator takes the flow
without noise and decay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Unpack, cast

import numpy as np

from flowsim.arrays import Array, Bools, Index
from flowsim.flows.coordinates import Coordinates, IntegrationOptions
from flowsim.flows.dual import DualCoordinates
from flowsim.growth.shrinking_map import ShrinkingMap, gradient_bound_at, still_time
from flowsim.solvers import SeparableFlow, SeparableSolution, Status, integrate_separable
from flowsim.solvers.separable.distance_steps import DistanceSteps

#: Part of a jump's duration by which it begins before an arrival; factors by which it may be prolonged.
_BEFORE, _LONGER = 0.1, (1.0, 2.0, 4.0, 8.0)
#: Slack of the bound on |f|. Coefficients below this part of the tolerance count as waiting, not as at rest.
_SLACK, _UNSEEN = 1.01, 1e-3
#: Relative eigenvalue of dependent active columns, and the part of their shrinkage that may act on their sum.
_DEPENDENT, _EVEN = 1e-13, 1e-6
#: Time constants of the slowest mode after which it is at rest.
_TIMES = 30.0
_SLOW = "active coordinates come to rest more slowly than noise or decay moves waiting ones"
#: Largest exponent E by which distances are rescaled.
_LARGEST = 700.0


@dataclass(frozen=True, eq=False)
class ShrinkingState:
    """A state of the map: distances times exp(-E), (2, d), E and R."""

    distance: Array
    E: Array
    R: Array

    @property
    def row(self) -> Array:
        return np.concatenate([self.distance.ravel(), self.E, self.R])

    @property
    def true_distance(self) -> Array:
        """Distances (2, d); infinite on overflow, where no gradient brings a coordinate to its blow-up."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.where(np.isinf(self.E), math.inf, self.distance * np.exp(self.E))


@dataclass(frozen=True, eq=False)
class Jump:
    """Steps of the native integrator, over which E is frozen, and so are infinite distances.

    `shrinkage` (d,) is the rate of E for weights that wait before and after, which shrink meanwhile; else 0.
    """

    begin: float
    steps: DistanceSteps
    before: ShrinkingState
    shrinkage: Array
    loaded: None = None

    @property
    def t(self) -> Array:
        return self.begin + self.steps.t

    @property
    def h(self) -> Array:
        return self.steps.h

    def speeds(self, nodes: Array) -> Array:
        """``|d beta/dt|`` at positions `nodes` in every step."""
        return self.steps.speeds(nodes)

    def states(self, flow: SeparableFlow, step: Index, theta: Array) -> tuple[Array, Array]:
        """States at positions `theta` in steps."""
        out = np.tile(self.before.row, (len(step), 1))
        moved = self.steps.states(flow, step, theta)[0]
        known = np.isfinite(moved)
        shrunk = moved * np.exp(-np.tile(self.before.E, 2))
        out[:, : moved.shape[1]] = np.where(known, shrunk, out[:, : moved.shape[1]])
        passed = self.steps.t[step] + theta * self.steps.h[step]
        with np.errstate(over="ignore"):
            E = passed[:, None] * self.shrinkage
        out[:, moved.shape[1] :] += np.hstack([E, E / (flow.power - 2)])
        return out, np.empty((0, flow.rows))


@dataclass(frozen=True, eq=False)
class ShrinkingLine:
    """One step with constant f = -grad L (d,) from a state.

    `shrinkage` (d,) is the rate of E and `balancing` (d,) that of R, for coordinates at rest and waiting ones.
    """

    begin: float
    length: float
    before: ShrinkingState
    force: Array
    rests: Bools
    shrinkage: Array
    balancing: Array
    depth: int
    loaded: None = None

    @property
    def t(self) -> Array:
        return np.array([self.begin, self.begin + self.length])

    @property
    def h(self) -> Array:
        return np.array([self.length])

    def speeds(self, nodes: Array) -> Array:
        """Zero: no visible coordinate moves."""
        return np.zeros((1, len(nodes)))

    def states(self, flow: SeparableFlow, step: Index, theta: Array) -> tuple[Array, Array]:
        """States at positions `theta` in the step."""
        return np.array([self.after(x * self.length).row for x in theta]), np.empty((0, flow.rows))

    def arrivals(self) -> Array:
        """Times at which coordinates reach their blow-up, (d,); infinite for those that never do."""
        above, below = self.before.true_distance
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            wait = np.where(self.force > 0, above, below) / np.abs(self.force)
            share = wait * self.shrinkage
            slowed = -np.log1p(-np.minimum(share, 1.0)) / self.shrinkage
            return np.where((self.force == 0) | ~(share < 1), math.inf, np.where(self.shrinkage > 0, slowed, wait))

    def _travelled(self, x: Array) -> Array:
        """``|f| int exp(-shrinkage t) dt`` over times x (d,)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slowed = -np.expm1(-self.shrinkage * x) / self.shrinkage
        return np.abs(self.force) * np.where(self.shrinkage > 0, slowed, x)

    def after(self, x: float) -> ShrinkingState:
        """The state after a time x."""
        if x == 0:
            return self.before
        with np.errstate(over="ignore"):
            E, R = self.before.E + self.shrinkage * x, self.before.R + self.balancing * x
            stretch = np.exp(np.minimum((self.depth - 2) * self.balancing * x, _LARGEST))
        change = np.exp(-self.before.E) * self._travelled(np.full(len(E), x))
        each, ahead = np.arange(len(E)), np.where(self.force > 0, 0, 1)
        distance = self.before.distance.copy()
        distance[ahead, each] -= change
        distance[1 - ahead, each] += change
        # The remaining distance to the blow-up, where there is one, without cancellation.
        left = self.arrivals() - x
        goes = np.flatnonzero(np.isfinite(left))
        rest = np.exp(-E) * self._travelled(np.where(np.isfinite(left), np.maximum(left, 0.0), 0.0))
        distance[ahead[goes], goes] = rest[goes]
        # The imbalance of coordinates at rest decays, and the blow-up of the other side recedes.
        rests = np.flatnonzero(self.rests)
        far = distance[:, rests].argmax(axis=0)
        with np.errstate(over="ignore"):
            distance[far, rests] *= stretch[rests]
        return ShrinkingState(distance, E, R)


@dataclass(eq=False)
class ShrinkingSolution(SeparableSolution):
    """Jumps and plateaus, in the states of a :class:`~flowsim.growth.shrinking_map.ShrinkingMap`."""

    first: ShrinkingState | None = None

    @property
    def start(self) -> Array:
        assert self.first is not None
        return self.first.row


class ShrinkingCoordinates(DualCoordinates):
    """The flow of products under noise or decay that :func:`~flowsim.growth.shrinking_map.admits_shrinking` admits."""

    map: ShrinkingMap

    def integrate(self, t_end: float, **options: Unpack[IntegrationOptions]) -> SeparableSolution:
        """Integrate over [0, t_end]."""
        return _Run(self, t_end, options["rtol"], options["max_steps"]).solve(
            options.get("progress"), options.get("done")
        )

    def remarks(self, solution: SeparableSolution) -> dict[str, bool]:
        """Whether some waiting coordinate will still grow at the gradient of the last state."""
        y = solution.y[-1]
        distances, E, R = np.split(y, [2 * self.map.d, 3 * self.map.d])
        beta, at_start = (
            self.predictor(np.zeros(1), row[None])[0] for row in (y, self.map.state(np.zeros(self.map.d)))
        )
        force, least = -self.problem.gradient(beta), _UNSEEN * np.abs(self.problem.gradient(at_start)).max()
        waits = (np.abs(beta) <= _UNSEEN * np.abs(beta).max()) & (np.abs(force) > least)
        state, still = ShrinkingState(distances.reshape(2, -1), E, R), np.zeros(len(E), dtype=bool)
        line = ShrinkingLine(0.0, 0.0, state, np.where(waits, force, 0.0), still, self.map.shrinkage, R, self.map.depth)
        return {"waits": bool(np.isfinite(line.arrivals()).any())}

    departure = Coordinates.departure  # 0: weights are computed from conserved quantities that obey their law


class _Run:
    """One integration: its state, and the pieces so far."""

    def __init__(self, coordinates: ShrinkingCoordinates, t_end: float, rtol: float, max_steps: int) -> None:
        self.map, self.problem, self.flow = coordinates.map, coordinates.problem, coordinates.flow
        self.t_end, self.rtol, self.max_steps = t_end, rtol, max_steps
        nothing = np.zeros(self.map.d)
        self.first = self.state = ShrinkingState(self.map.distance, nothing, nothing)
        self.t, self.taken = 0.0, list[Jump | ShrinkingLine]()
        self.stats = dict.fromkeys(("steps", "rejected", "nfev", "njev", "nlu", "passes"), 0)
        self.force, self.rests = -self.problem.gradient(self._beta()), np.zeros(self.map.d, dtype=bool)
        self.waits = ~self.rests
        self.bound = _SLACK * gradient_bound_at(self.problem, float(self.problem.loss(self._beta())))

    def _beta(self) -> Array:
        return np.asarray(self.map.value(self.state.row[None], 0.0)[0])

    def solve(
        self, progress: Callable[[float], None] | None, done: Callable[[SeparableSolution], bool] | None
    ) -> SeparableSolution:
        began, failure = time.perf_counter(), ""
        status, take = Status.COMPLETED, self._wait if self._is_trapped().all() else self._jump
        while self.t < self.t_end:
            looked = len(self.taken)
            failure = take()
            if failure or (self.stats["steps"] >= self.max_steps and self.t < self.t_end):
                status = Status.STOPPED if failure else Status.STEP_BUDGET
                break
            if progress is not None:
                progress(self.t)
            if (
                done is not None
                and len(self.taken) > looked
                and done(self._solution(Status.COMPLETED, "", looked, began))
            ):
                break
            take = self._jump if take == self._wait else self._wait
        return self._solution(status, failure, 0, began)

    def _solution(self, status: Status, failure: str, first: int, began: float) -> ShrinkingSolution:
        pieces = self.taken[first:]
        t = np.concatenate([np.zeros(1) if not first else pieces[0].t[:1], *(piece.t[1:] for piece in pieces)])
        return ShrinkingSolution(
            flow=self.flow,
            t=t,
            h=np.concatenate([np.zeros(0), *(piece.h for piece in pieces)]),
            status=status,
            message=failure or status.value,
            stats={**self.stats, "seconds": time.perf_counter() - began},
            chunks=pieces,
            first=self.first,
        )

    def _is_trapped(self) -> Bools:
        """Coordinates that can no longer grow at any admissible gradient."""
        with np.errstate(over="ignore"):
            return np.asarray(self.map.shrinkage * self.state.true_distance.min(axis=0) > self.bound)

    def _still(self) -> float:
        """How long E may be frozen."""
        fastest = float(self.map.shrinkage[~self._is_trapped()].max(initial=0.0))
        return still_time(self.map, self.problem, float(np.abs(self.force).max()), fastest, self.rtol)

    def _plateau(self, length: float) -> ShrinkingLine:
        depth, shrinkage = self.map.depth, np.where(self.rests, 0.0, self.map.shrinkage)
        balancing = np.where(self.rests, self.map.balancing(self.state.row), shrinkage / (depth - 2))
        force = np.where(self.rests, 0.0, self.force)
        return ShrinkingLine(self.t, length, self.state, force, self.rests, shrinkage, balancing, depth)

    def _wait(self) -> str:
        """Take a plateau, to just before the next arrival; returns why that fails, or an empty text."""
        plateau = self._plateau(0.0)
        arrival, length = float(plateau.arrivals().min()), self.t_end - self.t
        if arrival < math.inf:
            length = min(length, arrival - _BEFORE * self._still())
        if length > 0:
            self._take(replace(plateau, length=length))
            self.state = plateau.after(length)
            self.stats["steps"] += 1
        return ""

    def _take(self, piece: Jump | ShrinkingLine) -> None:
        self.taken.append(piece)
        # The rest is below the rounding of the end.
        self.t = self.t_end if piece.t[-1] >= self.t_end * (1 - 1e-15) else float(piece.t[-1])

    def _jump(self) -> str:
        """Take a jump, until active coordinates are at rest; returns why they do not come to rest, or an empty text."""
        trapped = self._is_trapped()
        distance = np.where(trapped, math.inf, self.state.true_distance)
        squares = np.asarray(self.flow.squares) * np.exp(-2 * self.state.R)
        flow, still = replace(self.flow, distance=distance, squares=squares), self._still()
        for longer in _LONGER:
            length = min(longer * still, self.t_end - self.t)
            steps = integrate_separable(flow, length, tol=self.rtol, max_steps=self.max_steps - self.stats["steps"])
            for key in self.stats:
                self.stats[key] += steps.stats[key]
            chunks = cast("tuple[DistanceSteps, ...]", tuple(steps.chunks))
            if not steps.status.success or length == self.t_end - self.t or chunks[-1].order[-1] == 0:
                break
        else:
            return _SLOW
        begin, before, waited = self.t, self.state, ~self.rests
        if steps.status.success:
            self._set_state(chunks[-1], length, trapped)
        shrinkage = np.where(waited & self.waits, self.map.shrinkage, 0.0)
        for chunk in chunks:
            self._take(Jump(begin, chunk, before, shrinkage))
        if not steps.status.success:
            return steps.message
        return self._not_at_rest(length) if self.t < self.t_end else ""

    def _set_state(self, last: DistanceSteps, length: float, trapped: Bools) -> None:
        """Set the state after the last steps of a jump, and the active coordinates there."""
        moved = np.exp(-self.state.E) * last.place[-1]
        self.state = replace(self.state, distance=np.where(trapped, self.state.distance, moved))
        self.force, beta = last.f[-1], np.abs(self._beta())
        self.waits = beta <= _UNSEEN * self.rtol * max(beta.max(), self.problem.coefficient_size)
        self.rests = (self.force == 0) & ~self.waits
        self.state = replace(self._plateau(length), force=np.zeros(self.map.d)).after(length)

    def _not_at_rest(self, length: float) -> str:
        """Why active coordinates are not at rest to within the tolerance; empty if they are."""
        active = np.flatnonzero(self.rests)
        if not len(active):
            return ""
        X = np.asarray(self.problem.X @ np.eye(self.map.d)[:, active])
        root = np.sqrt(self.map.slope(self.state.row[None], 0.0)[0, active])
        rates, modes = np.linalg.eigh(root[:, None] * (X.T @ X / self.problem.n) * root)
        drive = root * self.map.resistance(self.state.row)[active]
        along, free = modes.T @ drive, rates < _DEPENDENT * rates[-1]
        if np.linalg.norm(along[free]) > _EVEN * np.linalg.norm(drive):
            return "active columns of X are linearly dependent, and noise or decay decides between them"
        if rates[~free].min() < _TIMES / length:
            return _SLOW
        shift = np.abs(root * (modes[:, ~free] @ (along[~free] / rates[~free]))).max() / np.abs(self._beta()).max()
        if shift > self.rtol:
            return f"noise moves active coefficients by {shift:.1e} of the largest: loosen `rtol` to that"
        return ""
