"""Flows of diagonal networks: choice of the coordinates that are exact for a network, and the run in them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from flowsim.errors import IntegrationError
from flowsim.flows.chambers import ChamberCoordinates
from flowsim.flows.checks import check_accelerated
from flowsim.flows.coordinates import Coordinates
from flowsim.flows.damped_rest import measured_from_rest
from flowsim.flows.driver import run_flow
from flowsim.flows.dual import DualCoordinates, takes_steps
from flowsim.flows.flow_options import FlowOptions
from flowsim.flows.growth import GrowthCoordinates, takes_loss
from flowsim.flows.horizon import acceleration_in_units, gradient_bound, longest
from flowsim.flows.loss_clock import log_loss_flow
from flowsim.flows.scaled import Exponents, ScaledCoordinates, exponents_for
from flowsim.flows.shrinking import ShrinkingCoordinates
from flowsim.flows.weights import WeightCoordinates
from flowsim.growth.blow_up_map import BlowUpMap, admits_blow_up
from flowsim.growth.continuation import read_any_start
from flowsim.growth.curve_map import CurveMap
from flowsim.growth.exponential import admits_growth
from flowsim.growth.formula_origin import origin_of
from flowsim.growth.product_map import ProductMap, admits_products
from flowsim.growth.resolved_curves import admits_curves, lost_beside_others
from flowsim.growth.shrinking_map import ShrinkingMap, admits_shrinking
from flowsim.network import DiagonalNetwork, GivenWeights, InitialScale, Logs, Start
from flowsim.problem import Problem, Regression, require_squares, single_target
from flowsim.problem.cancellation import CANCELS, is_lost
from flowsim.results import State, Trajectory
from flowsim.solvers import SeparableFlow, Status
from flowsim.symbolic.clock import acceleration

#: e-foldings of decay from which on z is so large that its rounding error reaches 1e-11.
_FELT = 1e5
#: For other losses: e-foldings, in all and per e-folding of the start, after which late jumps are over, so that weights
#: (this many coordinates at most) come to rest.
_LONG, _LATE, _FEW = 1e7, 1e4, 400
_UNIT_SCALE = InitialScale("1", 0.0)
#: Entries of data up to which prepared runs are cached.
_FEW_ENTRIES = 4096


def diagonal_flow(
    net: DiagonalNetwork,
    problem: Problem,
    scale: InitialScale,
    start: Mapping[str, ArrayLike | Logs] | State | None,
    pretrained: GivenWeights | None,
    options: FlowOptions,
) -> Trajectory:
    """The flow of a diagonal network: arguments as in :func:`flowsim.gradient_flow`, checked.

    Raises ValueError for a combination that has no flow, such as `pretrained` weights beside a state; IntegrationError
    for a start below the range of floats in coordinates that need it, and where the run cannot reach its end.
    """
    asked = CoordinateOptions(options.coordinates, options.method, options.clock, options.rtol, options.t_end)
    if start is None and pretrained is None and asked.clock != "log_loss" and _is_soon_prepared(net, problem):
        kept = _from_default_start(net, problem, scale, asked)
        if kept is not None:
            return kept.run(problem, options)
    problem = single_target(problem)
    direction = read_any_start(net, start, pretrained, scale, problem.d)
    info = _info(net, scale, start is None and pretrained is None)
    if asked.clock == "log_loss":
        if net.noise is not None:
            raise ValueError("`clock` cannot be 'log_loss' with weight noise: the expected loss does not tend to 0.")
        if isinstance(direction, Start):
            raise ValueError("`clock` cannot be 'log_loss' from pretrained weights or a start in logarithms.")
        return log_loss_flow(net, problem, scale, direction, options, acceleration=acceleration(net, scale), info=info)
    return _prepare(FlowCase(net, problem, scale, direction), asked, info).run(problem, options)


class FlowCase(NamedTuple):
    """What is integrated, and from where."""

    net: DiagonalNetwork
    problem: Problem
    scale: InitialScale
    direction: Any  #: (k, d), which the scale multiplies; or the start itself, a Start


class CoordinateOptions(NamedTuple):
    """The options that decide the coordinates of a run."""

    coordinates: str
    method: str
    clock: str
    rtol: float
    t_end: float


@dataclass(frozen=True)
class _Prepared:
    """The parts of a run that do not depend on its times."""

    coordinates: Any
    method: str
    acceleration: float
    exponent: int
    info: dict[str, Any]
    safe_size: float

    def run(self, problem: Problem, options: FlowOptions) -> Trajectory:
        run = partial(
            run_flow,
            problem=problem,
            acceleration=self.acceleration,
            exponent=self.exponent,
            safe_size=self.safe_size,
            info={**self.info, "formulas": list(self.info["formulas"])},
        )
        try:
            return run(self.coordinates, options=options._replace(method=self.method))
        except IntegrationError as error:
            other = self._otherwise(error, options)
            if other is None:
                raise
            with contextlib.suppress(IntegrationError):
                return run(other, options=options._replace(method="LSODA" if options.method == "auto" else self.method))
            raise

    def _otherwise(self, error: IntegrationError, options: FlowOptions) -> Coordinates | None:
        """Coordinates for SciPy's methods that may reach the end where those chosen first did not."""
        if error.trajectory is None:
            return None
        if error.trajectory.message.startswith(Status.STEP_BUDGET.value):
            if options.method != "auto" or not takes_steps(self.coordinates):
                return None
            # Where features are so ill-conditioned that rounding limits its steps, LSODA takes longer ones.
            stepped = copy(self.coordinates)
            stepped.native = False
            return stepped
        if Status.STEP_FLOOR.value in error.trajectory.message:  # in any coordinates time is what it was
            return None
        # Distances from mirrors keep what weights lose to the tolerance, in steps that take longer.
        symmetric = getattr(self.coordinates, "symmetric", None)
        chambers = None if symmetric is None else symmetric()
        return chambers if chambers is not None and chambers.is_wall.all() and not chambers.too_small else None


def _info(net: DiagonalNetwork, scale: InitialScale, is_default_start: bool) -> dict[str, Any]:
    return {
        "network": repr(net),
        "formulas": [formula.text for formula in net.formulas],
        "alpha": scale.text,
        "log_alpha": scale.log,
        "default_start": is_default_start,
    }


def _prepare(case: FlowCase, asked: CoordinateOptions, info: dict[str, Any]) -> _Prepared:
    net, problem, scale, _ = case
    method, clock = asked.method, asked.clock
    time = longest(net, scale, asked.t_end, clock)
    chosen, reason, exponents = _in_units(case, asked, time)
    if method == "auto":
        # LSODA may step to where an exponential overflows, and does not recover.
        scheduled = not isinstance(net.weight_decay, float)
        stepped = "BDF" if scheduled and chosen.name == "growth" else "LSODA"
        method = "native" if chosen.native else stepped
    check_accelerated(clock, scale)
    return _Prepared(
        chosen,
        method,
        acceleration_in_units(net, scale, chosen, clock, exponents.time),
        exponents.time,
        {**info, "not_growth_because": reason, **chosen.facts},
        problem.safe_size,
    )


def _is_soon_prepared(net: DiagonalNetwork, problem: Problem) -> bool:
    """Whether preparing a run may cost as much as many of its steps: few data."""
    if not (problem.is_dense and problem.X.size <= _FEW_ENTRIES and problem.y.ndim == 1):
        return False
    is_damped = net.noise is not None or net.weight_decay
    return not is_damped or (isinstance(problem, Regression) and isinstance(net.weight_decay, float))


def _from_default_start(
    net: DiagonalNetwork, problem: Problem, scale: InitialScale, asked: CoordinateOptions
) -> _Prepared | None:
    """The prepared run of the data as they are now, kept; None without growth coordinates.

    Entries may change in place. They are compared: to hash them would take longer.
    """
    # What damps the weights is measured from rest by horizon: to a factor of two.
    until = math.ldexp(1.0, math.frexp(asked.t_end)[1]) if net.noise is not None or net.weight_decay else math.inf
    asked = asked._replace(t_end=until)
    kept = _kept(net, problem, scale, asked)
    if kept is None:
        return None
    X, y = problem.X.tobytes(), problem.y.tobytes()
    found = kept[0] if kept else None
    if found is None or found[0] != X or found[1] != y:
        direction, info = net.direction(None, single_target(problem).d), _info(net, scale, True)
        kept[:] = [found := (X, y, _prepare(FlowCase(net, problem, scale, direction), asked, info))]
    return found[2]


@lru_cache(maxsize=16)
def _kept(net: DiagonalNetwork, *_: Any) -> list[tuple[bytes, bytes, _Prepared]] | None:
    """For the entries of X and y and the run prepared with them; None without growth coordinates."""
    return [] if admits_growth(net) is None else None


def _in_units(case: FlowCase, asked: CoordinateOptions, horizon: float) -> tuple[Any, str | None, Exponents]:
    """Coordinates of data scaled by powers of two to near one, why they are not growth coordinates, the exponents."""
    net, problem, scale, start = case
    in_logarithms = isinstance(start, Start)
    free = asked.coordinates in ("auto", "growth", "log")
    exponents = exponents_for(net, problem, free, asked.method in ("auto", "native"))
    own = FlowCase(
        exponents.network(net),
        exponents.problem(problem),
        exponents.scale(scale),
        exponents.start(start) if in_logarithms else start,
    )
    inner, reason = choose(own, asked, math.inf if exponents.k else horizon)
    free = asked.coordinates == asked.method == "auto" and not in_logarithms
    if free and isinstance(inner, GrowthCoordinates) and inner.native:
        inner = _for_good(inner, own._replace(scale=scale), horizon, exponents.time)
    if exponents.k and not (exponents.degree == 2 or inner.native):  # weights are integrated unscaled
        exponents = replace(exponents, k=0)
        own = case._replace(net=exponents.network(net), problem=exponents.problem(problem))
        inner, _ = choose(own, asked._replace(coordinates="weights"), free=True)
    return ScaledCoordinates(inner, exponents) if exponents.k else inner, reason, exponents


def _for_good(growth: GrowthCoordinates, case: FlowCase, horizon: float, exponent: int) -> Coordinates:
    """Coordinates that come to rest, where decay moves z for so long that its rounding would be visible in beta.

    The unit of time of `growth` is 2 to the power `exponent` of that of `horizon`.
    """
    if growth.map.schedule is not None or not growth.map.is_damped:
        return growth
    with np.errstate(over="ignore"):
        folds = float(growth.map.decay.max()) * float(np.ldexp(horizon, -exponent))
    if isinstance(case.problem, Regression):
        return measured_from_rest(growth, case.problem) if folds > _FELT else growth
    if case.direction.size > _FEW or not folds > max(_LONG, _LATE * case.scale.gamma):
        return growth
    symmetric = ChamberCoordinates(*case)
    return symmetric if symmetric.is_wall.all() else growth


def choose(
    case: FlowCase, options: CoordinateOptions, horizon: float = math.inf, free: bool = False
) -> tuple[Coordinates, str | None]:
    """The coordinates of a flow until a time, and why they are not growth coordinates.

    `free`: weights are the choice of no user, and distances from mirrors may stand for them.

    Raises ValueError where those asked for are not exact; IntegrationError where none resolves the start.
    """
    net, problem, scale, direction = case
    asked, method, rtol = options.coordinates, options.method, options.rtol
    own = case._replace(scale=_UNIT_SCALE) if isinstance(direction, Start) else case
    if net.noise is not None and not isinstance(problem, Regression):
        from flowsim.flows.noisy_loss import noisy_loss_coordinates

        return noisy_loss_coordinates(*own, asked, method), None
    # A number or a schedule: an isinstance check against a protocol costs as much as some steps of a small flow.
    scheduled = not isinstance(net.weight_decay, float)
    if method == "native" and scheduled:
        raise ValueError("`method` cannot be 'native' for weight decay that changes in time.")
    native = method in ("auto", "native") and isinstance(problem, Regression) and not scheduled
    native_growth = native or (method in ("auto", "native") and takes_loss(problem) and not scheduled)
    reason = admits_growth(net)
    if method == "native" and not native_growth:
        require_squares(problem, "method='native'")
    if reason is not None and asked == "growth":
        raise ValueError(f"`coordinates` cannot be 'growth' for {net}: {reason}.")
    if reason is None and asked in ("auto", "growth"):
        growth = GrowthCoordinates(*own, native=native_growth)
        if native_growth and not native and method == "auto" and growth.starts_too_fast():
            growth = GrowthCoordinates(*own, native=False)
        if growth.cancels(rtol):
            if method == "native":
                raise ValueError(f"`method` cannot be 'native' at `alpha` = {scale}: {CANCELS}; leave it out.")
            growth = growth.summed_apart(own.scale, direction, rtol)
        return growth, None
    clock = scale
    scale, direction = direction.collapsed() if isinstance(direction, Start) else (scale, direction)
    case = FlowCase(net, problem, scale, direction)
    shrinks = net.is_noisy or bool(net.weight_decay)
    admits = admits_shrinking if shrinks else admits_products
    not_log = admits(*case, rtol)
    if not_log is None and not native_growth:
        takes = method not in ("auto", "native")
        not_log = f"`method` is {method!r}; 'auto' takes them" if takes else "the loss has no compiled derivatives"
    if not_log is None and asked in ("auto", "log"):
        try:
            if shrinks:
                return ShrinkingCoordinates(net, problem, ShrinkingMap(*case, clock)), reason
            return DualCoordinates(net, problem, ProductMap(net, scale, direction, clock)), reason
        except ArithmeticError as error:
            not_log = str(error)
    if asked == "log":
        raise ValueError(f"`coordinates` cannot be 'log' for {net}: {not_log}.")
    plain, why_not = not net.is_mixed and net.distinct[0].product_of is not None, not_log
    if asked in ("auto", "curve"):
        curves = _along_curves(case, clock, rtol, native_growth, horizon)
        if not isinstance(curves, str):
            return curves, reason
        why_not = not_log if plain else curves
        if asked == "curve":
            raise ValueError(f"`coordinates` cannot be 'curve' for {net}: {curves}.")
    if method == "native":
        why = "`coordinates` is 'weights'" if asked == "weights" else f"{reason}, and {not_log}"
        raise ValueError(f"`method` cannot be 'native' for {net}: it works in growth or log coordinates, but {why}.")
    names = "log" if plain else "curve"
    advice = f"{names} coordinates, which have no such limit, are not taken here: {why_not}" if why_not else None
    if asked == "weights" and not free and net.noise is None and not net.weight_decay:
        advice = "leave out `coordinates`: others, which have no such limit, are taken where they are exact"
    chosen = _in_weights(case, free or asked == "auto", reason is None, advice)
    if is_lost(chosen.visible_part, rtol):
        # Where data give coefficients no size, all of them vanish with alpha, those of higher orders first.
        smaller = "a smaller `alpha` or " if problem.coefficient_size > 0 else ""
        raise IntegrationError(f"at `alpha` = {scale} {CANCELS}; use {smaller}a larger `rtol`.")
    return chosen, reason


def _along_curves(case: FlowCase, clock: InitialScale, rtol: float, native: bool, horizon: float) -> Coordinates | str:
    """Coordinates along the curves of the weights from their start, or why there are none."""
    net, problem, scale, direction = case
    if (apart := lost_beside_others(net, direction)) is not None:
        return apart
    native = native and problem.d <= SeparableFlow.MOST_WITH_LOSS
    is_singular = any(origin_of(formula).order == 0 for formula in net.distinct)
    reach = horizon * gradient_bound(problem, scale, direction) if net.is_mixed or is_singular else math.inf
    unresolved = admits_curves(net, scale, direction, rtol, reach)
    if unresolved is None:
        curves = CurveMap(net, scale, direction, problem.coefficient_size, reach)
        along = DualCoordinates(net, problem, curves, native=native)
        return CANCELS if is_lost(along.visible_part, rtol) else along
    why_not = admits_blow_up(net, scale) or (None if native else "no compiled method takes the loss, or so many")
    if why_not is not None:
        return unresolved if is_singular else why_not
    try:
        return DualCoordinates(net, problem, BlowUpMap(net, scale, direction, problem.coefficient_size, clock))
    except OverflowError:
        return "weights start too far apart"
    except ArithmeticError as error:
        return str(error)


def _in_weights(case: FlowCase, free: bool, growth_applies: bool, advice: str | None) -> Coordinates:
    """The weights as coordinates; if `free`, distances from mirrors where symmetric weights need them.

    `advice` is part of the error message for a start that is too small.
    """
    scale = case.scale
    if case.net.noise is not None or case.net.weight_decay:
        noisy = ChamberCoordinates(*case)
        if noisy.too_small:
            raise IntegrationError(
                f"`alpha` = {scale} puts weights, or the rates they grow at, below the range of floats; "
                f"{noisy.remedy()}."
            )
        noisy.at_floor = advice
        return noisy
    chosen = WeightCoordinates(*case, growth_applies=growth_applies)
    chosen.advice, chosen.at_floor = advice or chosen.advice, advice
    if free and chosen.guard.watched.any() and not chosen.unresolved:
        symmetric = ChamberCoordinates(*case)
        if not symmetric.too_small:
            return symmetric
    if free:
        chosen.symmetric = partial(ChamberCoordinates, *case)
    if chosen.too_small:
        raise IntegrationError(
            f"`alpha` = {scale} puts weights, or what they conserve, below the range of floats; {chosen.remedy()}."
        )
    if chosen.unresolved:
        raise IntegrationError(
            f"`alpha` = {scale} puts weights where the formula's gradient cancels to rounding; {chosen.remedy()}."
        )
    return chosen
