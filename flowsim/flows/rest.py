"""Flows until they are at rest: the time is found by doubling, from the limit's last jump as the first guess."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flowsim.errors import IntegrationError
from flowsim.limits import saddle_to_saddle
from flowsim.network import DecaySchedule, DiagonalNetwork, InitialScale, LinearNetwork
from flowsim.problem import Problem, Regression
from flowsim.problem.margins import is_attained
from flowsim.results import Clock, Trajectory
from flowsim.symbolic.clock import acceleration

#: A flow of finite alpha makes its last jump somewhat after the limit's.
_AFTER_LAST_JUMP = 1.5
_MOST_DOUBLINGS = 60
#: At rest: change over the second half of the run, in tolerances.
_STILL = 10.0


def flow_to_rest(
    run: Callable[[float], Trajectory],
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    scale: InitialScale,
    clock: Clock,
    rtol: float,
) -> Trajectory:
    """The flow up to a time at which it is at rest.

    It is at rest where the gradient is below `rtol` of its size at 0 (without noise), at a stable point of a linear
    network, or where no coefficient has changed by more than a few `rtol` of the largest over the second half of the
    run, the last jump of the limit process being past; of diagonal networks without a known limit over three quarters.

    `run` makes the flow up to a time in the unit of `clock`.
    Raises ValueError if the loss has no minimum, which neither noise nor decay provides.
    """
    if net.noise is None and not net.weight_decay and not is_attained(problem):
        raise ValueError(
            f"`t_end` must be given: the loss {problem.loss_function.name!r} has no minimum on these data, along some "
            "direction it decreases without end, and the flow never comes to rest."
        )
    zero = np.zeros(problem.beta_shape)
    steepest = float(np.abs(problem.gradient(zero)).max())
    last, known = _last_jump(net, problem)
    rate = acceleration(net, scale) if clock == "time" else 1.0
    first = last if last > 0 else 2.0 / steepest if steepest > 0 else 1.0
    t_end = _AFTER_LAST_JUMP * first / rate
    for _ in range(_MOST_DOUBLINGS):
        if not np.isfinite(t_end):
            break
        trajectory = run(t_end)
        past = trajectory.accelerated_time[-1] >= _AFTER_LAST_JUMP * last * (1 - 1e-9)
        if not trajectory.success or trajectory.t[-1] == 0 or "ended by the event" in trajectory.message:
            return trajectory
        end = trajectory.beta[-1]
        if isinstance(net.weight_decay, DecaySchedule) and trajectory.t[-1] <= max(net.weight_decay.times, default=0.0):
            t_end *= 2.0
            continue
        if net.noise is None and np.abs(problem.gradient(end.reshape(zero.shape))).max() <= rtol * steepest:
            return trajectory
        if trajectory.stats.get("rests") or (
            (past and (known or isinstance(net, DiagonalNetwork)))
            and not trajectory.info.get("waits")
            and _is_still(trajectory, clock, 0.5 if known else 0.25, _STILL * rtol)
        ):
            return trajectory
        t_end *= 2.0
    raise IntegrationError(
        f"`t_end` None: the flow is still moving at {trajectory.t[-1]:.3g}; give a `t_end`.", trajectory
    )


def _last_jump(net: DiagonalNetwork | LinearNetwork, problem: Problem) -> tuple[float, bool]:
    """The last jump in accelerated time, 0 if there is none; and whether the limit is known."""
    if isinstance(net, LinearNetwork) and not isinstance(problem, Regression):
        return 0.0, False
    try:
        jumps = saddle_to_saddle(net, problem).jump_times
    except (ValueError, NotImplementedError, IntegrationError):
        return 0.0, False
    return (float(jumps[-1]) if len(jumps) else 0.0), True


def _is_still(trajectory: Trajectory, clock: Clock, since: float, tolerance: float) -> bool:
    own = trajectory.clock_values(clock)
    end = trajectory.beta[-1]
    seen = [trajectory.at(since * own[-1], clock).beta[None], trajectory.beta[own >= since * own[-1]]]
    largest = max(float(np.abs(end).max()), np.finfo(float).tiny)
    return bool(np.abs(np.concatenate(seen) - end).max() <= tolerance * largest)
