"""The driver of all flows: from coordinates and a clock to a Trajectory with its dense output."""

from __future__ import annotations

import contextlib
import math
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from flowsim.arrays import Array
from flowsim.compiling import compiling_note
from flowsim.errors import IntegrationError
from flowsim.flows.coordinates import Coordinates
from flowsim.flows.dense import NOTHING, DenseOutput, View
from flowsim.flows.determined import undetermined
from flowsim.flows.estimate import COMPANION_STEPS, companions, error_estimate, in_common, unmoved
from flowsim.flows.event_location import located_events, outcome, search
from flowsim.flows.flow_options import FlowOptions
from flowsim.flows.solving import Watcher, solve
from flowsim.problem import Problem, Regression
from flowsim.results import TIME_CLOCKS, Clock, Trajectory
from flowsim.results.state import CLOCKS
from flowsim.solvers import SeparableSolution, Solution, Status
from flowsim.version import __version__

#: Clocks whose end is overshot by the last step, and located in it.
OVERSHOT: tuple[Clock, ...] = ("arclength", "log_loss")
#: Rates whose squares do not overflow, and slopes whose cubes do not underflow.
_FASTEST, _FLATTEST = math.sqrt(sys.float_info.max), sys.float_info.min ** (1 / 3)
#: Step budget of a companion, many times what a method of any order needs: so many, and so many for each of the run's.
_STEPS, _STEPS_PER_STEP = 2000, 40
#: Ratio of the sizes of columns of X from which it is named as a remedy of a run that failed.
_UNEVEN = 1e8
CLOCK_WORDS = dict(zip(CLOCKS, (*TIME_CLOCKS, "ln(1/L)"), strict=True))


def run_flow(
    coordinates: Coordinates,
    problem: Problem,
    options: FlowOptions,
    *,
    acceleration: float,
    info: dict[str, Any],
    exponent: int = 0,
    reader: type[DenseOutput] = DenseOutput,
    safe_size: float | None = None,
) -> Trajectory:
    """Integrate to the end and read the result.

    Raises IntegrationError with the trajectory so far, if the integrator could not reach the end.

    Parameters
    ----------
    acceleration : float
        ``d accelerated_time / dt``, t in the coordinates' unit.
    exponent : int
        The coordinates' unit of time is ``exp(log_unit) 2^exponent``: data may have been scaled by powers of two.
    reader : type
        The class of the run's dense output.
    safe_size : float, optional
        That of the problem, if known.
    """
    # On all clocks the integrator's variable is time. Arc length is a regular variable too, but its speed has a kink
    # wherever beta is stationary, at which every implicit method stalls on errors of the size of its tolerance.
    t_end, clock, t_eval, events = options.t_end, options.clock, options.t_eval, options.events
    run = reader(coordinates, problem, NOTHING, acceleration, exponent=exponent)
    limit = (clock, t_end) if clock in OVERSHOT else None
    if t_eval is None and clock == "time" and math.isinf(run.unit):
        t_eval = np.array([0.0, t_end])  # the flow is constant over all times within the range of floats
    watch = Watcher(run, limit, events) if events or limit is not None else None
    with progress_bar(run, watch, clock, t_end) if options.progress else contextlib.nullcontext() as advance:
        solution = solve(coordinates, run.horizon(t_end, clock), options, advance, watch)
    if watch is not None:  # which has read the first one
        run = reader(coordinates, problem, NOTHING, acceleration, exponent=exponent)
    run.solution = solution
    found, last = search(run, events, limit) if events else ([], None)
    success, message = solution.status.success, solution.message
    if watch is not None:
        success, message = outcome(success, message, last, watch.stopped)
    end = None if last is None else (last.step, last.position)
    if clock == "log_loss" and success and last is None and not (watch is not None and watch.reached >= t_end):
        success, message = False, coordinates.verdict or "the loss does not tend to 0: it has come to rest"
    if limit is not None and success and last is None:
        end, passed = _where_reached(run, clock, t_end)
        t_eval = passed if t_eval is None else t_eval
    view = run.steps(last) if t_eval is None or not success else run.look(t_eval, clock, last)
    run.end, estimate = end, None
    if options.estimate_error and success and len(solution.h):
        estimate = _estimate(run, view, options)
    # Advice for steps that fell to the spacing of floats.
    advice = coordinates.at_floor if solution.status is Status.STEP_FLOOR else None
    message = "; ".join([message, *([advice] if advice else []), *undetermined(coordinates, solution)])
    if success and (beyond := _beyond_floats(view, problem, safe_size)):
        success, message = False, beyond
    trajectory = Trajectory.of(
        view.field,
        **({"beta": view.beta} if success else {}),
        success=success,
        message=message,
        stats=solution.stats,
        invariants=coordinates.invariants,
        info={
            **info,
            "coordinates": coordinates.name,
            "clock": clock,
            "t_end": float(t_end),
            "method": options.method,
            "rtol": options.rtol,
            "atol": options.atol,
            "versions": dict(_versions()),
            **coordinates.remarks(solution),
        },
        error_estimate=estimate,
        events=located_events(run, found),
        dense=run,
    )
    if not success:
        message = _reason(coordinates, problem, solution, view) or message
        raise IntegrationError(
            f"the flow stopped at {trajectory.clock_values(clock)[-1]:.6g} of {t_end:.6g} in {CLOCK_WORDS[clock]}: "
            f"{message}.",
            trajectory,
        )
    return trajectory


def _where_reached(run: DenseOutput, clock: Clock, t_end: float) -> tuple[tuple[int, float], Array]:
    """The step and position at which the clock reaches its end; values of the clock at all steps up to there."""
    _, step, position = run.places(np.array([t_end]), clock)
    passed = run.steps().on(clock)
    return (int(step[0]), float(position[0])), np.append(passed[passed < t_end], t_end)


def _reason(
    coordinates: Coordinates, problem: Problem, solution: Solution | SeparableSolution, view: View
) -> str | None:
    """A reason of failure that is more specific than the integrator's message; else None."""
    if not len(solution.h) and (too_fast := _too_fast(coordinates, view)):
        return too_fast
    too_flat = _too_flat(problem, view) if solution.status is Status.STEP_BUDGET else None
    return too_flat or _uneven(problem, solution.message)


def _uneven(problem: Problem, message: str) -> str | None:
    """The message with a remedy, if columns of X are of sizes so different that one hides the others in sums."""
    if not isinstance(getattr(problem, "X", None), np.ndarray):
        return None
    sizes = np.abs(problem.X).max(axis=0)
    least, most = float(sizes[sizes > 0].min(initial=math.inf)), float(sizes.max())
    if not least * _UNEVEN < most:
        return None
    return (
        f"{message}; columns of X are of sizes from {least:.2g} to {most:.2g}: scale them to one size, as "
        "`problem.standardise()` does"
    )


def _too_fast(coordinates: Coordinates, start: View) -> str | None:
    """The reason of a run that took no step, if it starts at a rate whose square overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        rate = float(
            np.nan_to_num(np.abs(coordinates.velocity(start.t, start.y)), nan=np.inf, posinf=np.inf).max(initial=0.0)
        )
    if rate < _FASTEST:
        return None
    return (
        f"beta, up to {np.abs(start.beta).max():.3g} at the start, moves at a rate of {rate:.2g} there, whose square "
        "is beyond the range of floats: the loss is that steep; start closer to the data, with a smaller `alpha`"
        + (", or leave `method` to 'auto'" if math.isfinite(rate) else "")
    )


def _too_flat(problem: Problem, view: View) -> str | None:
    """The reason of a spent step budget, if the slope of the loss underflows while beta grows like ln t."""
    slopes = np.abs(problem.slopes(problem.predict(view.beta[-1])))
    least = float(slopes[slopes > 0].min(initial=math.inf))
    if isinstance(problem, Regression) or least > _FLATTEST:
        return None
    return (
        f"the loss of a row tends to 0, its slope is {least:.2g}, whose cube is below the range of floats; beta "
        "grows like the logarithm of time: shorten `t_end`, or use a larger `alpha`"
    )


def _beyond_floats(view: View, problem: Problem, safe_size: float | None) -> str | None:
    """The reason if predictor or loss overflowed; the loss, a pass over X, is computed for large beta only."""
    # No entry is larger than the norm of all, and NaN fails every comparison.
    if math.sqrt(np.vdot(view.beta, view.beta)) <= (problem.safe_size if safe_size is None else safe_size):
        return None
    if not np.isfinite(view.beta).all():
        return "the predictor left the range of floats"
    with np.errstate(over="ignore"):
        if np.isfinite(view.loss).all():
            return None
    size = float(np.abs(problem.y).max(initial=0.0))
    return (
        f"the loss left the range of floats, as squares of y up to {size:.2g} do: divide y by a power of ten c, and "
        "alpha by its square root, for the same flow divided by c"
    )


def _estimate(run: DenseOutput, view: View, options: FlowOptions) -> Array:
    rtol, step_count = options.rtol, len(run.h)
    step, position = (step_count - 1, 1.0) if run.end is None else run.end
    until = float(run.variable(run.at_steps(np.array([step]), np.array([position])))[0])
    goal = run.goal(until)
    least = 0.0 if options.method == "native" else run.coordinates.least_tolerance(run.solution.y)
    for factor in companions(rtol, least):
        budget = min(COMPANION_STEPS * options.max_steps, _STEPS + _STEPS_PER_STEP * step_count)
        tighter = options._replace(rtol=rtol * factor, atol=options.atol * factor, max_steps=budget)
        horizon = until if goal is None else run.horizon(until, goal[0])
        watch = None if goal is None else Watcher(replace(run, solution=NOTHING), goal, ())
        other = solve(run.coordinates, horizon, tighter, None, watch)
        if other.status.success:
            own, companion = (lambda t, side=side: side.at(t).beta for side in (run, replace(run, solution=other)))
            knots = run.variable(run.steps())
            edges, at = np.append(knots[knots < until], until), run.variable(view)
            found = error_estimate(edges, at, view.beta, own, companion)
            common = in_common(options.method, step_count, len(other.h), rtol, least)
            found += common * np.abs(view.beta).reshape(len(at), -1).max(axis=1)
            if options.method == "native":
                found += run.coordinates.rounding(view.t, view.y)
            if goal is not None:
                return found
            start, flat = run.at_steps(np.array([0]), np.array([0.0])), view.beta.reshape(len(at), -1)
            velocity = run.coordinates.velocity(start.t, start.y)
            return np.maximum(found, unmoved(velocity, at - start.t[0], flat - start.beta.ravel(), flat, rtol))
    return np.full(len(view.t), np.inf)


@contextlib.contextmanager
def progress_bar(
    run: DenseOutput, watch: Watcher | None, clock: Clock, end: float
) -> Iterator[Callable[[float], None] | None]:
    """A progress bar over the clock of a run; the callable that it yields is given times."""
    from tqdm.auto import tqdm

    units = {"time": run.unit, "accelerated": run.acceleration}

    with (
        compiling_note(True),
        tqdm(total=100.0, desc="flow", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}") as bar,
    ):

        def advance(t: float) -> None:
            reached = units[clock] * t if watch is None or clock in units else watch.reached
            bar.update(min(100.0, 100.0 * reached / end) - bar.n)

        yield advance
        bar.update(100.0 - bar.n)


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    import scipy

    return {
        "flowsim": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
