"""The flow of a two-layer linear network: its frame (:mod:`flowsim.growth.frame`) as coordinates for the driver."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Unpack

import numpy as np

from flowsim.arrays import Array, log_abs
from flowsim.errors import IntegrationError
from flowsim.flows.checks import check_accelerated
from flowsim.flows.coordinates import Coordinates, IntegrationOptions
from flowsim.flows.driver import run_flow
from flowsim.flows.flow_options import FlowOptions
from flowsim.growth.couplings import ReducedData
from flowsim.growth.frame import LinearGrowth
from flowsim.network.compression import lifted
from flowsim.network.decay import jumps
from flowsim.network.linear_algebra import require_range
from flowsim.network.linear_start import LinearCase
from flowsim.problem import matrix_targets
from flowsim.problem.cancellation import CANCELS, is_lost
from flowsim.results import Trajectory
from flowsim.solvers import InitialValueProblem
from flowsim.solvers.frames import FrameSolution, FrameStates, factor_frame, integrate_frame
from flowsim.solvers.threads import one_blas_thread
from flowsim.symbolic.clock import acceleration

#: Bound on logarithms of starts whose squares are floats, for SciPy's methods.
_SMALLEST_PLAIN_LOG = -100.0
#: Unknowns up to which SciPy's implicit methods are given the analytic Jacobian as an array.
_LARGEST_JACOBIAN = 1000
#: Least tolerance of the native method; ln of the excess of products of weights at the start up to which it is taken at
#: any; ln of the least ratio of weights that keeps its digits.
FINEST, HARMLESS, _BESIDE = 1e-13, 5.0, -18.0
#: Products of weights are rounded once, and their sums in part cancel it.
_PRODUCTS = 8.0
#: SciPy's methods: a run fails once the imbalance is off by this part of its value at 0.
_IMBALANCE_LIMIT = 0.1
#: Rows of a linear system up to which one BLAS thread is faster than several.
_SMALL_SYSTEM = 2000


def linear_flow(case: LinearCase, options: FlowOptions) -> Trajectory:
    """The flow of a linear network: arguments as in :func:`flowsim.gradient_flow`, checked."""
    method, scale = options.method, case.scale
    check_accelerated(options.clock, scale)
    case = case._replace(problem=matrix_targets(case.problem))
    chosen: Any = FrameCoordinates(case, native=method in ("auto", "native"))
    if method == "auto":
        method = "native" if chosen.resolves(options.rtol) else "Radau"
    trajectory = run_flow(chosen, case.problem, options._replace(method=method), **common(case, chosen))
    part = math.exp(-chosen.excess) if method == "native" else chosen.visible_part
    if is_lost(part, options.rtol, _PRODUCTS):
        begin = float(np.abs(trajectory.at(0.0).beta).max())
        if is_lost(max(part, begin * math.exp(-2 * chosen.growth.start.scale)), options.rtol, _PRODUCTS):
            raise IntegrationError(f"at `alpha` = {scale} {CANCELS}; use a smaller `alpha`.", trajectory)
    return trajectory


def common(case: LinearCase, coordinates: FrameCoordinates) -> dict[str, Any]:
    """What runs on all clocks tell the driver: the accelerated clock, and entries of a trajectory's `info`."""
    net, scale = case.net, case.scale
    start = {"network": repr(net), "alpha": scale.text, "log_alpha": scale.log, "default_start": case.start is None}
    return {"acceleration": acceleration(net, scale), "info": start | coordinates.info}


class FrameCoordinates(Coordinates):
    """U and V in a graded frame (native), or themselves (SciPy's methods)."""

    name = "frame"
    invariants = ("U^T U - V^T V",)

    def __init__(self, case: LinearCase, *, native: bool = True, data: ReducedData | None = None) -> None:
        self.problem, self.scale, self.native = case.problem, case.scale, native
        require_range(case.problem)
        self.growth = LinearGrowth.of(case, data)
        if not native and self.growth.start.scale < _SMALLEST_PLAIN_LOG:
            raise IntegrationError(
                f"`alpha` = {case.scale} puts products of weights below the range of floats that SciPy's methods need; "
                "use method='native'."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "ivp"}  # made again on demand

    @property
    def info(self) -> dict[str, Any]:
        """Entries of a trajectory's `info` about the reductions."""
        data = self.growth.data
        lost = self.growth.lost
        remark = {
            "taken_as_rounding": f"directions of size {lost:.1e} against the rest of the start were taken for its "
            "rounding and left out; give the rest as `pretrained` and them as `start` to have them followed"
        }
        return (remark if lost else {}) | {
            "compressed_width": self.growth.compression.width,
            "rank": data.rank,
            "least_loss": data.least_loss,
            "frame": "paired" if self.growth.start.is_paired else "plain",
        }

    def integrate(self, t_end: float, **options: Unpack[IntegrationOptions]) -> FrameSolution:
        parts: list[FrameSolution] = []
        tol = options["rtol"] * math.exp(-self.excess)
        calls: Any = {"progress": options.get("progress"), "done": options.get("done")}
        # On systems this small more threads only cost time, up to sixty times as much on a busy machine.
        with one_blas_thread(6 * sum(self.growth.problem.shape) <= _SMALL_SYSTEM):
            for flow, end in self.growth.pieces(t_end):
                frame, since = (parts[-1].steps[-1].end, float(parts[-1].t[-1])) if parts else (self.growth.start, 0.0)
                left = options["max_steps"] - sum(len(part.steps) for part in parts)
                part = integrate_frame(flow, frame, end, since=since, tol=tol, max_steps=left, **calls)
                parts.append(part)
                if part.t[-1] < end:
                    break
        return FrameSolution.joined(parts)

    @cached_property
    def excess(self) -> float:
        """ln of how much larger products of weights are at the start than those that fit the data, if they are.

        A relative error of the frame is one of the product times this. 0 where there is nothing to fit.
        """
        coupling, shape = self.growth.problem.coupling, self.growth.problem.shape
        size = float(np.linalg.norm(coupling.value(np.zeros(shape)), 2))
        if not size > 0:
            return 0.0
        curvature = float(coupling.curvature_rows.max() * coupling.curvature_columns.max())
        return max(0.0, 2 * self.growth.start.scale - math.log(size / curvature))

    @cached_property
    def visible_part(self) -> float:
        """The part of SciPy's tolerance, of weights, that coefficients need: their size over that of their terms."""
        scale = self.growth.start.scale
        U, V = (weights * math.exp(-scale) for weights in self.growth.start.value())
        size = max(float(np.abs(U @ V.T).max()), math.exp(-self.excess))
        return size / max(size, float(np.linalg.norm(U, axis=1).max() * np.linalg.norm(V, axis=1).max()))

    def resolves(self, rtol: float) -> bool:
        """Whether the native method reaches the tolerance, or else SciPy's, of the weights themselves, do not either.

        The frame of large U and tiny V has V as a difference. Weights far below others are lost in their rounding.
        """
        start = self.growth.start
        smallest = min(start.logs.min(), start.minus_logs.min(initial=math.inf))
        size = sum(self.growth.problem.shape) * self.growth.hidden.shape[1]
        plain = smallest - start.scale > _BESIDE and size <= _LARGEST_JACOBIAN
        return not plain or self.excess <= max(math.log(rtol / FINEST), HARMLESS)

    def _states(self, y: Any) -> FrameStates:
        """States of the native method, or of flat arrays (K, N k)."""
        if isinstance(y, FrameStates):
            return y
        (R, p), k = self.growth.problem.shape, self.growth.hidden.shape[1]
        whole = np.asarray(y).reshape(-1, R + p, k)
        return _PlainStates(whole[:, :R], whole[:, R:], self.growth)

    def velocity(self, t: Array, y: Any) -> Array:
        return self.growth.velocity(t, self._states(y))

    def predictor(self, t: Array, y: Any) -> Array:
        return self.growth.beta(t, self._states(y))

    def loss(self, t: Array, y: Any) -> Array | None:
        """The loss, without the cancellation of ``X beta - Y`` where that can be avoided; else None."""
        data = self.growth.data
        if data.excess is None or data.least_loss is None:
            return None
        return data.least_loss + data.excess(self.growth.reduced_beta(self._states(y)))

    def levels(self, t: Array, y: Any) -> Array | None:
        """``1 + l_j / gamma``, (T, w), descending: 0 at the start, 1 for grown directions; -inf for absent ones."""
        if self.scale.gamma <= 0:
            return None
        return 1.0 + self._states(y).logs / self.scale.gamma

    def observe(self, t: Array, y: Any) -> LinearObserved:
        return LinearObserved(self.growth, t, self._states(y))

    def departure(self, t: Array, y: Any, seen: Any) -> Array:
        return self.growth.departure(t, self._states(y))

    def departure_along(self, solution: Any, t: Array) -> Array:
        """The same for a run by one of SciPy's methods, where the law needs the whole run."""
        return self.growth.departure_along(solution.t, lambda times: self._states(solution(times)), t)

    @cached_property
    def ivp(self) -> InitialValueProblem:
        flow, growth = self.growth.problem, self.growth
        (R, p), k = flow.shape, growth.hidden.shape[1]
        damping, decay = np.concatenate([flow.damping_rows, flow.damping_columns])[:, None], growth.data.decay
        first = decay.rate(0.0)

        def rhs(t: float, y: Array) -> Array:
            Z = y.reshape(R + p, k)
            G = flow.coupling.value(Z[:R] @ Z[R:].T)
            return (np.concatenate([G @ Z[R:], G.T @ Z[:R]]) - (damping + (decay.rate(t) - first)) * Z).ravel()

        def jacobian(t: float, y: Array) -> Array:
            return flow.jacobian(y.reshape(R + p, k)) - (decay.rate(t) - first) * np.eye(len(y))

        def check(t: float, y: Array) -> str | None:
            if not growth.start.is_paired:
                return None
            off = float(growth.departure(np.array([t]), self._states(y))[0])
            if off <= _IMBALANCE_LIMIT:
                return None
            return (
                f"the imbalance U^T U - V^T V is off by {off:.1e} times its size; use method='native', which conserves "
                "it, or tighten `rtol`"
            )

        start = np.concatenate(growth.start.value())
        return InitialValueProblem(
            rhs=rhs,
            y0=start.ravel(),
            jacobian=jacobian if start.size <= _LARGEST_JACOBIAN else None,
            check=check,
            breaks=jumps(decay),
        )

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        # Beside weights of this size, others of this size times the ratio of the fit to their products are seen.
        largest = float(np.abs(self.ivp.y0).max())
        absolute = max(atol * min(1.0, largest * math.exp(-self.excess)), float(np.finfo(float).tiny))
        return rtol * self.visible_part, np.full(len(self.ivp.y0), absolute)


class _PlainStates(FrameStates):
    """States given by U and V themselves: the conserved quantity is computed from them."""

    def __init__(self, first: Array, second: Array, growth: LinearGrowth) -> None:
        count = len(first)
        nowhere = np.zeros(count, dtype=np.intp), np.zeros(count)
        super().__init__(first, second, np.zeros(count), None, *nowhere)  # type: ignore[arg-type]
        object.__setattr__(self, "growth", growth)

    @property
    def conserved(self) -> list[tuple[Array, float]]:
        return [(u.T @ u - v.T @ v, 0.0) for u, v in zip(self.first, self.second, strict=True)]

    @property
    def logs(self) -> Array:
        paired = self.growth.start.is_paired  # type: ignore[attr-defined]
        return np.array(
            [factor_frame([(u, v, 0.0)], paired).logs for u, v in zip(self.first, self.second, strict=True)]
        )


class LinearObserved:
    """Weights and imbalance at some times, each computed on first access."""

    def __init__(self, growth: LinearGrowth, t: Array, states: FrameStates) -> None:
        self._growth, self._t, self._states = growth, t, states

    @cached_property
    def weights(self) -> Mapping[str, Array]:
        weights = _Weights(self._growth, self._t, self._states, np.arange(len(self._t)), plain=False)
        return lifted(weights, self._growth.compression.basis)

    @cached_property
    def log_abs_weights(self) -> Mapping[str, Array]:
        plain = _Weights(self._growth, self._t, self._states, np.arange(len(self._t)), plain=True)
        return lifted(plain, self._growth.compression.basis, self._growth.log_units(self._t, self._states))

    @cached_property
    def _imbalance(self) -> tuple[Array, Array]:
        return self._growth.imbalance(self._t, self._states)

    @property
    def imbalance(self) -> Array:
        matrix, unit = self._imbalance
        with np.errstate(under="ignore", over="ignore"):
            return np.exp(unit)[:, None, None] * matrix

    @property
    def log_imbalance(self) -> Array:
        matrix, unit = self._imbalance
        return log_abs(matrix) + unit[:, None, None]


class _Weights(Mapping[str, Array]):
    """U (T, D, k) and V (T, m, k), assembled on access; in units of the growth map if `plain`."""

    def __init__(self, growth: LinearGrowth, t: Array, states: FrameStates, index: Any, plain: bool) -> None:
        self._growth, self._t, self._states, self._index, self._plain = growth, t, states, index, plain

    @cached_property
    def _both(self) -> dict[str, Array]:
        weights = self._growth.weights(self._t, self._states)
        if not self._plain:
            units = self._growth.log_units(self._t, self._states)
            with np.errstate(under="ignore"):
                weights = {name: np.exp(units[name])[:, None, None] * each for name, each in weights.items()}
        return {name: each[self._index] for name, each in weights.items()}

    def __getitem__(self, name: str) -> Array:
        if name not in ("U", "V"):
            raise KeyError(name)
        return self._both[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("U", "V"))

    def __len__(self) -> int:
        return 2

    def select(self, index: Any) -> _Weights:
        return _Weights(self._growth, self._t, self._states, self._index[index], self._plain)
