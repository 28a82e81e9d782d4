r"""The clock ``ln(1/L)`` of two-layer linear networks: the flow of ``ln L`` in a graded frame.

.. math:: \frac{dZ}{d\sigma} = \begin{pmatrix} 0 & G \\ G^\top & 0 \end{pmatrix} Z, \qquad
          G = -\nabla \ln L = X^\top (Y \circ q), \qquad d\sigma = L \, dt.

Time is computed from the run, ``t = int exp(ln(1/L)) d sigma``, until it overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.flows.coordinates import IntegrationOptions
from flowsim.flows.flow_options import FlowOptions
from flowsim.flows.frames import FINEST, HARMLESS, FrameCoordinates, common, linear_flow
from flowsim.flows.loss_clock import require_decreasing, run_on_loss_clock
from flowsim.flows.loss_growth import LAST_TIME
from flowsim.growth.couplings import LogarithmOfLoss, reduce_data
from flowsim.network import LinearNetwork
from flowsim.network.linear_start import LinearCase
from flowsim.problem import Problem, matrix_targets
from flowsim.problem.cancellation import CANCELS
from flowsim.results import Trajectory
from flowsim.solvers.frames import FrameSolution

#: Part of the tolerance used: a looser one lets the softmax weights of the loss oscillate, whose time constants are
#: shorter by a factor ln(1/L).
_SHARE, _FINEST = 1e-2, 1e-12
#: Chebyshev points of ln(1/L) in a step, and Gauss points on each piece over which it rises by `_RISE` at most.
_POINTS, _GAUSS, _RISE = 12, 8, 0.5
#: Steps before the first test for a stalled loss, steps between tests, and the logarithm below which a direction waits.
_STALLED, _LOOK, _WAITS = 128, 16, -12.0
#: Largest ln(1/L) at which floats resolve the differences between margins, on which the direction depends.
_RESOLVED = 1e15
#: Relative rounding of the norm of a matrix of labels.
_ROUNDING = 1e-9


def linear_flow_on(case: LinearCase, options: FlowOptions) -> Trajectory:
    """The flow of a linear network on any clock; on "log_loss" until ``ln(1/L)`` is `t_end`.

    Raises ValueError for a loss that does not tend to 0, data that no matrix separates, or none of the network's
    rank by Forster's bound, and an end or a large start that floats do not resolve.
    Raises IntegrationError with the trajectory so far; also where the network is too narrow to separate the data.
    """
    if options.clock != "log_loss":
        return linear_flow(case, options)
    require_decreasing(case.net, case.problem)
    if options.t_end > _RESOLVED:
        raise ValueError(
            f"`t_end` must be at most {_RESOLVED:g} on the clock 'log_loss', beyond which floats do not resolve the "
            f"differences between margins; received {options.t_end:g}."
        )
    case = case._replace(problem=matrix_targets(case.problem))
    _require_width(case.net, case.problem)
    if options.method not in ("auto", "native"):
        raise ValueError(f"`method` must be 'auto' or 'native' on the clock 'log_loss'; received {options.method!r}.")
    coordinates: Any = FrameLossClock(case)
    if coordinates.excess > max(math.log(options.rtol / FINEST), HARMLESS):
        raise ValueError(f"`alpha` must be smaller on the clock 'log_loss': at {case.scale} {CANCELS}.")
    options = options._replace(method="native")
    return run_on_loss_clock(coordinates, case.problem, options, **common(case, coordinates))


def _require_width(net: LinearNetwork, problem: Problem) -> None:
    r"""Refuse labels Y (n, m) that are not the signs of a matrix of rank `width`: the infimum of the loss is positive.

    Such a matrix has rank at least ``sqrt(n m) / ||Y||_2`` (Forster, J. Comput. Syst. Sci. 65, 2002); at width 1 that
    says that Y has rank one.
    """
    Y = problem.y if problem.sample_weight is None else problem.y[problem.sample_weight > 0]
    least = math.sqrt(Y.size) / float(np.linalg.norm(Y, 2))
    if net.width < least * (1 - _ROUNDING):
        raise ValueError(
            f"`width` must be at least {math.ceil(least * (1 - _ROUNDING))} on the clock 'log_loss' for these labels; "
            f"received {net.width}: no narrower network separates them, and its loss does not tend to 0."
        )


class FrameLossClock(FrameCoordinates):
    """The frame over sigma."""

    def __init__(self, case: LinearCase) -> None:
        super().__init__(case, data=reduce_data(case.net, case.problem, of_logarithm=True))

    @property
    def first(self) -> float:
        """``ln(1/L)`` at the start."""
        nothing = FrameSolution(self.growth.start, [], np.zeros(1), None, "")  # type: ignore[arg-type]
        return -float(self.log_loss(nothing.y)[0])

    def log_loss(self, y: Any) -> Array:
        """ln L of states."""
        coupling = self.growth.data.coupling
        assert isinstance(coupling, LogarithmOfLoss)
        return coupling.log_loss(self.growth.reduced_beta(self._states(y)))

    def integrate(self, t_end: float, **options: Unpack[IntegrationOptions]) -> FrameSolution:
        """Integrate over [0, t_end] in sigma, or until the loss is found to stall above 0."""
        self.verdict = None
        options["rtol"] = max(_SHARE * options["rtol"], _FINEST)
        options["done"] = _Stalling(self, options["max_steps"], options.get("done"))
        return super().integrate(t_end, **options)

    def times(self, solution: FrameSolution, elapsed: float) -> Callable[[Index, Array, Any], Array]:
        """The map (step, position, state) to time, infinite on overflow."""
        return ElapsedTime.along(solution, lambda states: -self.log_loss(states), elapsed)


class _Stalling:
    """Called after every step: whether a run is done, also because the loss stalls.

    Data are separated once the loss is below that of one entry at margin 0. Where a network is too narrow the loss
    decreases ever more slowly towards a positive infimum. A run stalls where no direction waits to grow and the rise
    of ln(1/L) over the last half of the steps, if repeated at each doubling of their number up to the budget, would not
    separate the data.
    """

    def __init__(self, clock: FrameLossClock, max_steps: int, done: Callable[[FrameSolution], bool] | None) -> None:
        self.clock, self.max_steps, self.done = clock, max_steps, done
        problem = clock.problem
        least = problem.entry_weights[problem.entry_weights > 0].min()
        at_zero = problem.log_loss(np.zeros((problem.d, problem.n_targets)))
        #: ln(1/L) from which on the data are separated
        self.separated = -float(at_zero + np.log(least / problem.entry_weights.sum()))
        self.seen: list[float] = []

    def __call__(self, steps: FrameSolution) -> bool:
        if self.done is not None and self.done(steps):
            return True
        self.seen.append(-float(self.clock.log_loss(steps.y)[-1]))
        count, now = len(self.seen), self.seen[-1]
        if now >= self.separated or count < _STALLED or count % _LOOK:
            return False
        logs = steps.steps[-1].end.logs
        gained = now - self.seen[count // 2]
        if logs[logs > -np.inf].min() < _WAITS or gained * math.log2(self.max_steps / count) > self.separated - now:
            return False
        self.clock.verdict = (
            f"the network is too narrow to separate the data, as far as the steps left can tell: ln(1/L) rose by "
            f"{gained:.2g} over the last half of {count} steps, and the data are separated above {self.separated:.3g}"
        )
        return True


@dataclass(frozen=True, eq=False)
class ElapsedTime:
    """``int exp(ln(1/L)) d sigma`` along a solution, by pieces over which the exponent changes little."""

    #: (P + 1,), ends of the pieces, as step + position, and the time there
    edges: Array
    values: Array
    exponents: Array  #: (S, _POINTS), Chebyshev coefficients of ln(1/L) in each step, in ``2 position - 1``
    h: Array  #: (S,)

    @classmethod
    def along(cls, solution: FrameSolution, exponent: Callable[[Any], Array], elapsed: float) -> ElapsedTime:
        """Integrate until the time overflows."""
        chebyshev = np.polynomial.chebyshev
        points = chebyshev.chebpts2(_POINTS)
        inverse = np.linalg.inv(chebyshev.chebvander(points, _POINTS - 1))
        ends = exponent(solution.y)
        count = int(np.sum(ends[:-1] < LAST_TIME)) if len(solution.h) else 0
        step = np.repeat(np.arange(count), _POINTS)
        positions = np.tile((points + 1) / 2, count)
        sampled = exponent(solution.at_steps(step, positions)).reshape(count, _POINTS)
        coefficients = sampled @ inverse.T
        rise = np.ptp(sampled, axis=1)
        pieces = [np.linspace(k, k + 1, max(1, int(np.ceil(rise[k] / _RISE))) + 1)[:-1] for k in range(count)]
        edges = np.concatenate([*pieces, [float(count)]])
        made = cls(edges, np.zeros(len(edges)), coefficients, solution.h[:count])
        parts = made._between(edges[:-1], edges[1:], np.floor(edges[:-1]).astype(np.intp))
        return cls(edges, elapsed + np.concatenate([[0.0], np.cumsum(parts)]), coefficients, solution.h[:count])

    def __call__(self, step: Index, position: Array, y: Any) -> Array:
        """Times at positions, 0 to 1, in steps; infinite on overflow."""
        count = len(self.h)
        if count == 0:
            return np.full(len(step), self.values[0])
        place = np.minimum(step + position, float(count))
        piece = np.clip(np.searchsorted(self.edges, place, side="right") - 1, 0, len(self.edges) - 2)
        inside = np.clip(np.floor(self.edges[piece]).astype(np.intp), 0, count - 1)
        time = self.values[piece] + self._between(self.edges[piece], place, inside)
        return np.where(step + position <= count, time, np.inf)

    def _between(self, low: Array, high: Array, step: Index) -> Array:
        """The time between two points of the same step."""
        if not len(low):
            return np.zeros(0)
        nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
        length = high - low
        at = low[:, None] - step[:, None] + length[:, None] * (nodes + 1) / 2
        powers = np.polynomial.chebyshev.chebvander(2 * at - 1, _POINTS - 1)
        exponent = np.einsum("pgk,pk->pg", powers, self.exponents[step])
        with np.errstate(over="ignore", invalid="ignore"):
            out = self.h[step] * length / 2 * (np.exp(exponent) @ weights)
        return np.where(length > 0.0, out, 0.0)
