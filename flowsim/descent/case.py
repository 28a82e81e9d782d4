"""A descent of one network on one problem from one start, without step size and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Integers
from flowsim.descent.draws import Draws
from flowsim.descent.linear import LinearMachine, LinearStart
from flowsim.descent.machine import Machine, Read, drive, recorded_steps
from flowsim.descent.multipliers import Multipliers, why_not_growth
from flowsim.descent.products import load_data
from flowsim.descent.result import assemble, finite_records
from flowsim.descent.settings import Settings
from flowsim.descent.streams import Streams, child_seeds
from flowsim.errors import IntegrationError
from flowsim.growth.continuation import read_any_start
from flowsim.network import (
    Decay,
    DiagonalNetwork,
    GivenWeights,
    InitialScale,
    LinearNetwork,
    Logs,
    Start,
    quadratic_form,
)
from flowsim.network.decay import rates
from flowsim.network.networks import check_types
from flowsim.problem import Problem, matrix_targets, require_squares, single_target
from flowsim.problem.cancellation import CANCELS, is_lost, visible_part
from flowsim.problem.losses import no_fault
from flowsim.results import State, Trajectory
from flowsim.symbolic.clock import acceleration

#: Relative deviation of the imbalance from its law beyond which it is lost.
_LOST = 0.1


def check_pair(net: Any, problem: Any) -> None:
    """Check the types of network and problem, and that they fit."""
    check_types(net, problem)
    if isinstance(net, DiagonalNetwork):
        single_target(problem)


#: ln(alpha) below which waiting directions are lost in the rounding of active ones.
_LOST_IN_ROUNDING = -14.0


class Case:
    """A network, its data in the layout of the loops, and its start.

    Arguments are as checked by :func:`flowsim.gradient_descent`.
    """

    def __init__(
        self,
        net: DiagonalNetwork | LinearNetwork,
        problem: Problem,
        scale: InitialScale,
        start: Mapping[str, ArrayLike | Logs] | State | None,
        settings: Settings,
    ) -> None:
        self.net, self.scale, self.settings = net, scale, settings
        if settings.expected and net.is_noisy:
            require_squares(problem, "descent on an expectation over weight noise (drawn noise takes any loss)")
        if settings.label_noise is not None and problem.loss_function.fault is not no_fault:
            name = problem.loss_function.name
            raise ValueError(f"`label_noise` must be 0 for the {name} loss: it has no such targets.")
        problem = single_target(problem) if isinstance(net, DiagonalNetwork) else matrix_targets(problem)
        self.problem, self.default_start = problem, start is None
        self.rate = acceleration(net, scale)
        self.reason: str | None = "U V^T is not coordinate-separable"
        self.noise = None if settings.expected or not net.is_noisy else net.noise
        if isinstance(net, LinearNetwork):
            if settings.gradient_noise is not None:
                raise ValueError(
                    "`gradient_noise` and `temperature` are for a DiagonalNetwork: independent noise on all entries of "
                    "U and V leaves the row space of the start, in which a LinearNetwork is followed."
                )
            if settings.coordinates == "growth":
                raise ValueError(f"`coordinates` cannot be 'growth' for {net}: {self.reason}.")
            if isinstance(start, State):
                raise ValueError("`start` can be a state for a DiagonalNetwork only.")
            plain = cast("GivenWeights | None", start)
            self.linear_start = LinearStart(net, problem, scale, plain, self.noise is not None)
            return
        found = read_any_start(net, start, None, scale, problem.d)
        #: the start in logarithms, if given so or as the state of another run
        self.parts = found if isinstance(found, Start) else None
        self.direction = np.ones(found.shape) if isinstance(found, Start) else found
        self.reason = self._why_not_growth()
        if self.reason is None and self._cancels():
            if settings.coordinates == "growth":
                raise ValueError(f"`coordinates` cannot be 'growth' at `alpha` = {scale}: {CANCELS}.")
            self.reason = CANCELS
            if self._cancels(in_weights=True):
                raise IntegrationError(f"at `alpha` = {scale} {CANCELS}; use a smaller `alpha`.")
        self.data = load_data(problem)

    def _why_not_growth(self) -> str | None:
        assert isinstance(self.net, DiagonalNetwork)
        reason = why_not_growth(self.net, expected=self.settings.expected)
        if reason is None and self.settings.radius is not None:
            reason = "`radius` bounds the weights"
        if reason is None and self.settings.gradient_noise is not None:
            reason = "noise is added to the weights"
        asked = self.settings.coordinates
        if asked == "growth" and reason is not None:
            raise ValueError(f"`coordinates` cannot be 'growth' for {self.net}: {reason}.")
        return reason if asked != "weights" else "`coordinates` was 'weights'"

    def _cancels(self, *, in_weights: bool = False) -> bool:
        """Whether beta is a difference of terms that growth coordinates, or weights, round."""
        own = self.multipliers
        squares = np.ldexp(own.mantissa**2, np.clip(2 * own.exponent, -2000, 1000))
        terms, start = (np.abs(own.coefficient) * squares).sum(axis=0), (own.coefficient * squares).sum(axis=0)
        if in_weights and self.parts is None:
            monomials = _monomials(cast(DiagonalNetwork, self.net), self.direction)
            terms = self.scale.value**2 * np.abs(monomials).sum(axis=0)
        part = visible_part(self.problem, start, float(terms.max()))
        return part < 1.0 and is_lost(part, 0.0)

    @property
    def can_share(self) -> bool:
        """Whether several runs can share the products with X."""
        return isinstance(self.net, DiagonalNetwork) and not self.data.is_sparse and self.data.loss == 0

    @cached_property
    def multipliers(self) -> Multipliers:
        """Rates and starts of the components in growth coordinates."""
        assert isinstance(self.net, DiagonalNetwork)
        scale, start = (self.scale, self.direction) if self.parts is None else (InitialScale("1", 0.0), self.parts)
        return Multipliers.of(self.net, self.problem.feature_variances, scale, start)

    def decays(self, steps: Array) -> Array | None:
        """Weight decay at the beginning of every step, (n_steps, lanes), for step sizes (lanes,); None if constant."""
        decay = getattr(self.net, "weight_decay", 0.0)
        if not isinstance(decay, Decay):
            return None
        count, sizes = self.settings.n_steps, self.settings.sizes
        times = np.arange(count)[:, None] * steps
        if sizes is not None:
            times = np.concatenate([[0.0], np.cumsum(sizes)])[:count, None] * np.ones(len(steps))
        return rates(decay, times)

    def machine(self, settings: Settings, steps: Array, seeds: Sequence[np.random.SeedSequence]) -> Machine:
        """A new machine at the start, one lane per step size and seed."""
        if isinstance(self.net, LinearNetwork):
            plain = (
                settings.batch_size is None
                and settings.label_noise is None
                and settings.momentum == 0.0
                and settings.radius is None
                and self.noise is None
                and settings.coordinates == "auto"
            )
            if plain and self.scale.log < _LOST_IN_ROUNDING:
                from flowsim.descent.frame_descent import FrameMachine

                return FrameMachine(self.net, self.problem, self.linear_start, settings, steps)
            return LinearMachine(self.net, self.problem, self.linear_start, settings, steps)
        if self.reason is None:
            from flowsim.descent.growth_machine import GrowthMachine

            return GrowthMachine(self.multipliers, self.data, self.problem.y, self.net.weights, settings, steps)
        from flowsim.descent.weights import WeightMachine

        kicks = None
        if settings.gradient_noise is not None:
            unit = replace(settings.gradient_noise, std=1.0)
            kicks = Draws(unit, [child_seeds(seed, 4)[3] for seed in seeds], np.ones(self.direction.size))
        scale, direction = (self.scale, self.direction) if self.parts is None else self.parts.collapsed()
        return WeightMachine(self.net, self.problem, self.data, scale, direction, settings, steps, kicks)

    def run(self, settings: Settings, steps: Array, seeds: Sequence[np.random.SeedSequence]) -> Machine:
        """A machine that has taken all steps."""
        machine = self.machine(settings, steps, seeds)
        drive(machine, self.streams(settings, seeds), settings.n_steps, settings.sizes, self.decays(steps))
        return machine

    def streams(self, settings: Settings, seeds: Sequence[np.random.SeedSequence]) -> Streams:
        """The random numbers of all lanes."""
        stds = np.zeros(len(self.net.weights)) if self.noise is None else self.net.stds
        if isinstance(self.net, LinearNetwork):
            # One row: first U, then V.
            sizes = self.linear_start.U.size, self.linear_start.V.size
            stds = np.repeat(stds, sizes)
            shape: tuple[int, ...] = (sum(sizes),)
        else:
            shape = self.direction.shape
        rows = np.ones(self.problem.n) if self.problem.row_scale is None else self.problem.row_scale
        return Streams(
            seeds,
            self.problem.n,
            settings.batch_size,
            settings.shuffle,
            settings.label_noise,
            self.noise,
            stds,
            shape,
            np.repeat(rows, self.problem.n_targets),
            settings.batches,
        )

    def trajectory(
        self,
        read: Read,
        machine: Machine,
        ks: Integers,
        step: float,
        sequence: np.random.SeedSequence,
        fault: str | None,
        seconds: float,
    ) -> Trajectory:
        """The Trajectory of one lane; `fault` is the reason of an early end, or None."""
        s = self.settings
        taken = int(ks[-1])
        return assemble(
            read,
            self.problem,
            t=np.asarray(
                ks * step if s.sizes is None else np.concatenate([[0.0], np.cumsum(s.sizes)])[ks], dtype=float
            ),
            rate=self.rate,
            invariants=machine.invariants,
            success=fault is None,
            message=f"took {taken} steps" if fault is None else fault,
            stats={"steps": taken, "rejected": 0, "nfev": taken, "njev": 0, "seconds": seconds},
            info={
                "network": repr(self.net),
                "formulas": [formula.text for formula in getattr(self.net, "formulas", ())],
                "alpha": self.scale.text,
                "log_alpha": self.scale.log,
                "default_start": self.default_start,
                "method": "descent",
                "coordinates": machine.name,
                "not_growth_because": self.reason,
                "step": step if s.sizes is None else float(s.sizes.mean()),
                "schedule": None if s.sizes is None else "given",
                "n_steps": s.n_steps,
                "batch_size": s.batch_size,
                "batches": None if s.batches is None else "given",
                "shuffle": s.shuffle,
                "label_noise": None if s.label_noise is None else repr(s.label_noise),
                "gradient_noise": None if s.gradient_noise is None or s.temperature else repr(s.gradient_noise),
                "temperature": s.temperature,
                "momentum": s.momentum,
                "nesterov": s.nesterov,
                "expected": s.expected,
                "radius": s.radius,
                "record_every": s.record_every,
                "seed": {"entropy": sequence.entropy, "spawn_key": list(sequence.spawn_key)},
                "imbalance_law": "descent" if read.has_law else "constant",
            },
        )


def first_bad_step(machine: Machine, lane: int, case: Case) -> tuple[int | None, Read | None]:
    """The first step outside the range of floats, or None; and the records read to find it."""
    s = case.settings
    ks = recorded_steps(s.n_steps, s.record_every)
    stopped = int(machine.stopped[lane])
    count = len(ks) if stopped < 0 else int(np.searchsorted(ks, stopped))
    read = machine.read(lane, count) if count else None
    good = 0 if read is None else finite_records(read, case.problem)
    if good < count:
        return int(ks[good]), read
    return (None if stopped < 0 else stopped), read


def parted_step(machine: Machine, lane: int) -> int | None:
    """The step from which on the coefficients of a lane are lost to rounding, or None."""
    parted = getattr(machine, "parted", None)
    return None if parted is None or parted[lane] < 0 else int(parted[lane])


def fault_message(case: Case, step: float, diverged: int | None, parted: int | None) -> str | None:
    """The reason why a run ends early, or None."""
    n_steps = case.settings.n_steps
    if diverged == 0:
        return "the loss at the start is beyond the range of floats; give a smaller `start`, or `alpha`."
    if diverged is not None and (parted is None or diverged <= parted):
        return (
            f"the descent diverged: its loss left the range of floats at step {diverged} of {n_steps} "
            f"(t = {diverged * step:.6g}); try a smaller `step` than {step:g}."
        )
    if parted is None:
        return None
    return (
        f"what the weights keep of their start is lost to rounding by step {parted} of {n_steps} "
        f"(t = {parted * step:.6g}), and with it where a coordinate goes that shrinks or changes sign; use a larger "
        "`alpha`" + (", or growth coordinates." if case.settings.coordinates == "weights" else ".")
    )


def cancellation(trajectory: Trajectory) -> str | None:
    """The message for a linear network's run in floats whose imbalance deviates from its exact law; else None."""
    if trajectory.info["coordinates"] in ("growth", "weights") or trajectory.info["imbalance_law"] != "descent":
        return None
    assert trajectory.imbalance_departure is not None
    bad = np.flatnonzero(~(trajectory.imbalance_departure <= _LOST))
    if not len(bad):
        return None
    return (
        f"the imbalance is lost to cancellation by t = {trajectory.t[bad[0]]:.6g}: it is off by "
        f"{trajectory.imbalance_departure[bad[0]]:.1e} times its value at 0, and what descent does when a coordinate "
        "changes sign is lost with it; use a larger `alpha`."
    )


def _monomials(net: DiagonalNetwork, direction: Array) -> Array:
    """The terms ``M_ab w_a w_b`` of quadratic formulas, (k k, d)."""
    k, d = direction.shape
    out = np.zeros((k, k, d))
    for formula, rows, here in net.parts(d):
        form, w = cast(Array, quadratic_form(formula)), direction[np.ix_(rows, here)]
        out[np.ix_(rows, rows, here)] += form[:, :, None] * w[:, None] * w
    return out.reshape(k * k, d)
