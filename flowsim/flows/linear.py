r"""Gradient flow of a two-layer linear network.

.. math:: \dot U = \tfrac1n X^\top E V - \eta_V^2 m \Sigma U, \qquad
          \dot V = \tfrac1n E^\top X U - \eta_U^2\, \mathrm{tr}(\Sigma) V, \qquad E = Y - X U V^\top.

Three exact reductions, whatever the start: the width falls to the row space of ``(U_0; V_0)``, U to the row space of X
(the rest never moves), and the right factor of the start is carried along untouched. What is left is
:class:`flowsim.flows.linear_system.TwoLayerSystem`, of size rank X + m.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.errors import IntegrationError
from flowsim.flows.happenings import happened, outcome, search
from flowsim.flows.linear_run import SMALLEST_PLAIN_LOG, LinearRun, one_thread, run_native, run_scipy
from flowsim.flows.linear_system import TwoLayerSystem
from flowsim.network import InitialScale, LinearNetwork
from flowsim.network.compression import Compression, LiftedWeights
from flowsim.network.linear_algebra import LinearData
from flowsim.network.linear_start import compressed_start
from flowsim.problem import Regression
from flowsim.results import Clock, Deferred, State, Trajectory
from flowsim.results.events import Event
from flowsim.solvers import SCIPY_METHODS, ArcLength, Occurrence
from flowsim.solvers.quasilinear import factor

__all__ = ["IMBALANCE_LIMIT", "linear_flow"]

Array = NDArray[np.float64]

#: A run ends in an error once the imbalance is off by this share of its value at 0.
IMBALANCE_LIMIT = 0.1


def linear_flow(
    net: LinearNetwork,
    problem: Regression,
    t_end: float,
    *,
    alpha: float | str | Decimal | Fraction | InitialScale = 1.0,
    start: Mapping[str, ArrayLike] | None = None,
    clock: Clock = "time",
    t_eval: Array | None = None,
    method: str = "auto",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_steps: int = 200_000,
    progress: bool = False,
    events: Sequence[Event] = (),
    imbalance_limit: float = IMBALANCE_LIMIT,
) -> Trajectory:
    r"""Integrate U and V; what :func:`flowsim.gradient_flow` calls for a LinearNetwork.

    Parameters
    ----------
    net : LinearNetwork
    problem : Regression
        y (n,) or (n, m).
    t_end : float
        In the unit of `clock`.
    alpha : float, str, Decimal, Fraction
        Scale of the start.
    start : mapping, optional
        U (D, h) and V (m, h), multiplied by alpha; see :func:`flowsim.linear_start`. Default: independent Gaussian
        entries of std ``h**-0.5``, always the same ones. Wide arrays are kept by
        reference, not copied: leave them unchanged while the trajectory's weights are in use.
    clock, t_eval, max_steps, progress, events
        As in :func:`flowsim.gradient_flow`.
    method : {"auto", "native", "LSODA", "BDF", "Radau", "DOP853"}
        ``native`` (and ``auto``): Gauss collocation of order 12 in the values of the gradient
        (:mod:`flowsim.solvers.quasilinear`), which conserves the imbalance to rounding at every tolerance.
    rtol, atol : float
        native: a step may change the weights by a relative ``rtol``; `atol` is not used. SciPy: local tolerances.
    imbalance_limit : float
        The run ends in an error once the imbalance is off its law by this share of its value at 0; inf: never. With
        ``native`` U V^T is then still right at any alpha, as long as no direction that was learned is unlearned and
        learned again with the other sign: only there does the lost imbalance act.

    Returns
    -------
    Trajectory
        ``beta`` (T, D, m), ``imbalance`` (T, k, k) with k = min(h, D + m), in the compressed basis where k < h;
        ``weights`` are lifted to width h when asked for (``weights.compressed``, ``weights.basis``); files keep the
        compressed ones. ``imbalance_drift`` is measured on U and V; under noise against the integral of
        ``d/dt (U^T U - V^T V) = -2 eta_V^2 m U^T Sigma U + 2 eta_U^2 tr(Sigma) V^T V`` along the run, taken at the ends
        of steps with the method's own nodes: it shows rounding, not truncation.

    Raises
    ------
    ValueError
        For arguments the caller can mend.
    IntegrationError
        If the run cannot be continued, or the imbalance is lost: below alpha of about 1e-7 it is smaller than the
        rounding of U and V once they have grown to order one.

    References
    ----------
    Min, Tarmoun, Vidal, Mallada, arXiv 2105.06351.
    """
    if clock == "log_loss":
        raise ValueError("`clock` must be 'time', 'accelerated' or 'arclength' for a LinearNetwork.")
    scale = InitialScale.parse(alpha)
    if scale.gamma <= 0 and clock == "accelerated":
        raise ValueError(f"`alpha` must be < 1 on the accelerated clock; received {scale}.")
    if method not in ("auto", "native", *SCIPY_METHODS):
        raise ValueError(f"`method` must be one of auto, native, {', '.join(SCIPY_METHODS)}; received {method!r}.")
    acceleration = 1.0 / scale.gamma if scale.gamma > 0 else 1.0
    flow = _Flow.of(net, problem, scale, start)
    horizon = t_end if clock == "time" else t_end / acceleration
    longest = t_end if clock == "arclength" else math.inf
    watch = _Watch(flow, acceleration, longest, events)
    shared: dict[str, Any] = {
        "length_end": t_end if clock == "arclength" else None,
        "done": watch if watch.terminal else None,
        "speed": lambda Z, shift: acceleration + flow.velocity(Z, shift),
        "watch": lambda Z, shift, law: flow.watch(Z, shift, law, imbalance_limit, native=method in ("auto", "native")),
        "max_steps": max_steps,
    }
    if method not in ("auto", "native"):
        if scale.log < SMALLEST_PLAIN_LOG:
            raise IntegrationError(
                f"`alpha` = {scale} puts products of weights below the range of floats that {method} needs; use "
                "method='native'."
            )
        shared |= {"method": method, "rtol": rtol, "atol": atol}
    else:
        shared["tolerance"] = rtol
    integrate: Callable[..., LinearRun] = run_scipy if "method" in shared else run_native
    with one_thread(flow.rows), _bar(progress, horizon) as advance:
        run = integrate(flow.system, flow.graded, flow.log_alpha, horizon, progress=advance, **shared)
        dense = _Dense(flow, run, acceleration)
        found, last = search(dense, events, longest)
        success, message = outcome(run.status.success, run.message, last, watch.stopped)
        steps = run.t if last is None else np.append(run.t[: last.step + 1], last.t)
        if t_eval is not None and success:
            states, departure = dense.sample(np.asarray(t_eval, dtype=float), clock, last)
        elif clock == "arclength" and success and last is None:
            lengths = dense.arclength.values
            states, departure = dense.sample(np.append(lengths[lengths < t_end], t_end), clock)
        else:
            states, departure = dense.sample(steps, "time")
        drift = max(departure.max(), dense.departure(steps, *run(steps)).max())
        events_found = happened(dense, found)
    if success and not (np.isfinite(states.beta).all() and np.isfinite(states.loss).all()):
        success, message = False, "U V^T left the range of floats"
    trajectory = Trajectory(
        **vars(states),
        imbalance_drift=float(drift),
        imbalance_departure=departure,
        success=success,
        message=message,
        stats=run.stats,
        events=events_found,
        invariants=("U^T U - V^T V",),
        feature_names=problem.feature_names,
        info={
            "network": repr(net),
            "alpha": scale.text,
            "log_alpha": scale.log,
            "default_start": start is None,
            "coordinates": "linear",
            "compressed_width": flow.compression.width,
            "rank": flow.data.rank,
            "least_loss": flow.data.least_loss,
            "clock": clock,
            "t_end": float(t_end),
            "method": "native" if method == "auto" else method,
            "rtol": rtol,
            "atol": atol,
        },
        dense=dense,
    )
    if not success:
        raise IntegrationError(
            f"the flow stopped at {trajectory.clock_values(clock)[-1]:.6g} of {t_end:.6g} in {clock}: {message}.",
            trajectory,
        )
    return trajectory


@dataclass(frozen=True, eq=False)
class _Flow:
    """The reduced problem, and the way back from its states.

    States are ``Z = (U_1; V)`` in the compressed basis, times ``exp(-shift)``, shift (P,). The imbalance is handled in
    units of alpha^2.
    """

    data: LinearData
    compression: Compression
    system: TwoLayerSystem
    static: Array
    moving: Array
    log_alpha: float

    @classmethod
    def of(
        cls, net: LinearNetwork, problem: Regression, scale: InitialScale, start: Mapping[str, ArrayLike] | None
    ) -> _Flow:
        data = LinearData.of(problem)
        damping_u, damping_v = data.damping(net)
        compression = compressed_start(net, problem, start)
        if data.rank == 0:
            raise ValueError("`problem` must have X != 0: with X = 0 no weight moves.")
        inside, static = data.reduce(compression.A)
        # Rounding in the projection must not pass for a start.
        rounding = 4 * np.finfo(float).eps * np.sqrt(data.D) * np.linalg.norm(compression.A, axis=0)
        inside[np.abs(inside) <= rounding] = 0.0
        moving = np.concatenate([inside, compression.B])
        if not moving.any():
            raise ValueError(
                "`start` must not have V = 0 and U outside the row space of X: that is a saddle a flow never leaves."
            )
        system = TwoLayerSystem(data.signal, data.curvatures, damping_u, damping_v)
        return cls(data, compression, system, static, moving, scale.log)

    @property
    def rows(self) -> int:
        """Of the largest linear system solved on the way."""
        return 6 * len(self.moving)

    @cached_property
    def graded(self) -> Any:
        return factor(self.moving, self.log_alpha)

    @cached_property
    def static_gram(self) -> Array:
        return self.static.T @ self.static

    @cached_property
    def initial(self) -> Array:
        """The imbalance at 0."""
        return self.signed_gram(self.moving) + self.static_gram

    @cached_property
    def reference(self) -> float:
        """What departures are measured by."""
        U1, V = self.moving[: self.data.rank], self.moving[self.data.rank :]
        terms = np.linalg.norm(U1.T @ U1 + self.static_gram) + np.linalg.norm(V.T @ V)
        size = float(np.linalg.norm(self.initial))
        balanced = size <= 1e3 * np.finfo(float).eps * terms
        return float(terms) if balanced else size

    def conserved(self, Z: Array, shift: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            scale = np.exp(2 * (shift - self.log_alpha))[:, None, None]
            return scale * self.signed_gram(Z) + self.static_gram

    def signed_gram(self, Z: Array) -> Array:
        """``Z^T J Z``."""
        return np.swapaxes(Z, -1, -2) @ (self.system.signature[:, None] * Z)

    def departure(self, Z: Array, shift: Array, law: Array | float = 0.0) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            gap = np.linalg.norm(self.conserved(Z, shift) - self.initial - law, axis=(-2, -1)) / self.reference
        return np.where(np.isfinite(gap), gap, np.inf)

    def watch(self, Z: Array, shift: float, law: Array, limit: float, native: bool) -> str | None:
        off = float(self.departure(Z[None], np.array([shift]), law)[0])
        if not off > limit:
            return None
        size = self._text(math.log(self.reference) + 2 * self.log_alpha)
        if native:
            return (
                f"the imbalance U^T U - V^T V has drowned in the rounding of U and V: it is of size {size} and is off "
                f"by {off:.0e} times that; use a larger `alpha`, or flowsim.flows.linear.linear_flow with "
                "imbalance_limit=inf if only U V^T matters"
            )
        return (
            f"the imbalance U^T U - V^T V, of size {size}, is off by {off:.1e} times that; use method='native', which "
            "conserves it, or tighten `rtol`"
        )

    @staticmethod
    def _text(logarithm: float) -> str:
        exponent = math.floor(logarithm / math.log(10))
        return f"{math.exp(logarithm - exponent * math.log(10)):.1f}e{exponent}"

    def velocity(self, Z: Array, shift: Array) -> Array:
        """``||beta'||``."""
        with np.errstate(under="ignore"):
            r = self.data.rank
            square = np.exp(2 * shift)[:, None, None]
            beta1 = square * (Z[:, :r] @ np.swapaxes(Z[:, r:], -1, -2))
            rate = self.system.generator(self.data.signal - self.data.curvatures[:, None] * beta1) @ Z
            V, dV = np.swapaxes(Z[:, r:], -1, -2), np.swapaxes(rate[:, r:], -1, -2)
            inside = rate[:, :r] @ V + Z[:, :r] @ dV
            outside = self.still(shift) @ dV
            total = np.sum(inside**2, axis=(-2, -1)) + np.sum(outside**2, axis=(-2, -1))
            return np.exp(2 * shift) * np.sqrt(total)

    def still(self, shift: Array) -> Array:
        """The part of U that never moves, on the scale of the states."""
        with np.errstate(under="ignore"):
            return np.exp(self.log_alpha - shift)[:, None, None] * self.static

    def read(
        self, t: Array, Z: Array, shift: Array, acceleration: float, arclength: Array, speed: Callable[[], Array]
    ) -> State:
        r = self.data.rank
        U1, V = Z[:, :r], Z[:, r:]
        with np.errstate(under="ignore", over="ignore", divide="ignore"):
            square = np.exp(2 * shift)[:, None, None]
            beta1 = square * (U1 @ np.swapaxes(V, -1, -2))
            beta = self.data.directions @ beta1 + square * (self.still(shift) @ np.swapaxes(V, -1, -2))
            # On the larger of the two scales: neither the square of alpha nor its inverse need be a float.
            top = np.maximum(shift, self.log_alpha)
            conserved = np.exp(2 * (shift - top))[:, None, None] * self.signed_gram(Z)
            conserved += np.exp(2 * (self.log_alpha - top))[:, None, None] * self.static_gram
            weights = _Weights(U1, V, self.data.directions, self.still(shift), shift)
            return State(
                t=t,
                accelerated_time=t * acceleration,
                arclength=arclength,
                beta=beta,
                weights=self._lift(weights),
                log_abs_weights=_Logarithms(self._lift(weights.plain()), shift),
                loss=self.data.least_loss + self.data.excess(beta1),
                imbalance=np.exp(2 * top)[:, None, None] * conserved,
                log_imbalance=np.log(np.abs(conserved)) + 2 * top[:, None, None],
                speed=Deferred(speed),  # type: ignore[arg-type]
            )

    def _lift(self, weights: _Weights) -> Mapping[str, Array]:
        basis = self.compression.basis
        return weights if basis is None else LiftedWeights(weights, basis)


class _Weights(Mapping[str, Array]):
    """U (T, D, k) and V (T, m, k) put together when asked for."""

    def __init__(self, U1: Array, V: Array, directions: Array, still: Array, shift: Array) -> None:
        self._U1, self._V, self._directions, self._still, self._shift = U1, V, directions, still, shift

    def __getitem__(self, name: str) -> Array:
        if name not in ("U", "V"):
            raise KeyError(name)
        value = self._directions @ self._U1 + self._still if name == "U" else self._V
        with np.errstate(under="ignore"):
            return np.exp(self._shift)[..., None, None] * value

    def __iter__(self) -> Iterator[str]:
        return iter(("U", "V"))

    def __len__(self) -> int:
        return 2

    def plain(self) -> _Weights:
        """The weights times exp(-shift)."""
        return _Weights(self._U1, self._V, self._directions, self._still, np.zeros_like(self._shift))

    def select(self, index: Any) -> _Weights:
        return _Weights(self._U1[index], self._V[index], self._directions, self._still[index], self._shift[index])


class _Logarithms(Mapping[str, Array]):
    """``ln |weight|`` of weights times exp(-shift)."""

    def __init__(self, plain: Mapping[str, Array], shift: Array) -> None:
        self._plain, self._shift = plain, shift

    def __getitem__(self, name: str) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(np.abs(self._plain[name])) + np.asarray(self._shift)[..., None, None]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)

    @property
    def stored(self) -> _Logarithms:
        return _Logarithms(getattr(self._plain, "stored", self._plain), self._shift)

    def select(self, index: Any) -> _Logarithms:
        return _Logarithms(self._plain.select(index), self._shift[index])  # type: ignore[attr-defined]


@dataclass(frozen=True, eq=False)
class _Dense:
    """The state at any value of any clock."""

    flow: _Flow
    run: LinearRun
    acceleration: float
    #: arc length before the run begins
    covered: float = 0.0

    @property
    def t(self) -> Array:
        return self.run.t

    @property
    def h(self) -> Array:
        return np.diff(self.run.t)

    @property
    def size(self) -> int:
        return self.flow.data.D * self.flow.data.m

    @cached_property
    def arclength(self) -> ArcLength:
        length = self.run.arclength
        return replace(length, values=length.values + self.covered)

    @cached_property
    def travelled(self) -> ArcLength:
        """Distance alone."""
        return self.run.arclength.plus(-self.acceleration)

    def __call__(self, values: Array, clock: Clock) -> State:
        with one_thread(self.flow.rows):
            return self.sample(values, clock)[0]

    def sample(self, values: Array, clock: Clock, end: Occurrence | None = None) -> tuple[State, Array]:
        """States, and the departure of their imbalance from its law; at last where an event ended the run."""
        if end is not None:
            last = {
                "time": end.t,
                "accelerated": end.t * self.acceleration,
                "arclength": float(self.arclength.at(np.array([end.t]))[0]),
            }[clock]
            values = np.append(values[values < last], last)
        if clock == "accelerated":
            t = np.minimum(values / self.acceleration, self.run.t[-1])
        else:
            t = self.arclength.inverse(values) if clock == "arclength" else values
        if end is not None:
            t = np.append(t[:-1], end.t)
        state = self.state(t, values if clock == "arclength" else self.arclength.at(t))
        return state, self.departure(t, *self.run(t))

    def state(self, t: Array, arclength: Array) -> State:
        """What is seen at times."""

        def speed() -> Array:
            return np.maximum(self.arclength.rates(*self.arclength.locate(t)) / self.acceleration - 1.0, 0.0)

        return self.flow.read(t, *self.run(t), self.acceleration, arclength, speed)

    def at_steps(self, step: NDArray[np.intp], position: Array) -> _Seen:
        """What is seen at positions, 0 to 1, of steps."""
        return _Seen(self, self.t[step] + position * self.h[step])

    def departure(self, t: Array, Z: Array, shift: Array) -> Array:
        """Departure of the imbalance from its law; under noise read at the end of the step a time lies in."""
        law = self.run.law
        if law is None:
            return self.flow.departure(Z, shift)
        ends = np.searchsorted(self.run.t, t, side="left").clip(0, len(self.run.t) - 1)
        return self.flow.departure(*self.run(self.run.t[ends]), law[ends])


@dataclass(frozen=True, eq=False)
class _Seen:
    """States at some times, read when they are looked at."""

    dense: _Dense
    t: Array

    @cached_property
    def state(self) -> State:
        return self.dense.state(self.t, self.dense.arclength.at(self.t))


class _Watch:
    """Looks at every new step: True once a terminal event has happened."""

    def __init__(self, flow: _Flow, acceleration: float, longest: float, events: Sequence[Event]) -> None:
        self.flow, self.acceleration, self.longest = flow, acceleration, longest
        self.terminal = [event for event in events if event.terminal]
        self.covered, self.stopped = 0.0, False

    def __call__(self, step: LinearRun) -> bool:
        dense = _Dense(self.flow, step, self.acceleration, self.covered)
        self.stopped = search(dense, self.terminal, self.longest)[1] is not None
        self.covered = float(dense.arclength.values[-1])
        return self.stopped


def _bar(shown: bool, end: float) -> Any:
    from flowsim.flows.driver import progress_bar

    return progress_bar(shown, end, lambda t: t)
