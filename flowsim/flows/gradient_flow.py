"""The front door of continuous time."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.errors import IntegrationError
from flowsim.flows.checks import check_clock, check_steps, check_times, check_tolerances, positive
from flowsim.flows.coordinates import Coordinates, NativeCoordinates
from flowsim.flows.driver import run_flow
from flowsim.flows.dual import DualCoordinates
from flowsim.flows.growth import GrowthCoordinates, takes_loss
from flowsim.flows.loss_clock import log_loss_flow
from flowsim.flows.rest import flow_to_rest
from flowsim.flows.scaled import Exponents, ScaledCoordinates, exponents_for
from flowsim.growth.blow_up_map import BlowUpMap, admits_blow_up
from flowsim.growth.curve_map import CurveMap, admits_curves
from flowsim.growth.exponential import admits_growth
from flowsim.growth.product_map import ProductMap, admits_products
from flowsim.hints import hinting
from flowsim.network import (
    Decay,
    DiagonalNetwork,
    InitialScale,
    LinearNetwork,
    Logs,
    Start,
    read_start,
    resolve_alpha,
)
from flowsim.problem import MatrixSensing, Problem, Regression, require_squares
from flowsim.results import Clock, Trajectory
from flowsim.results.events import Event, EventFunction, as_events
from flowsim.solvers import SCIPY_METHODS, SeparableFlow
from flowsim.symbolic.clock import acceleration, log_acceleration

__all__ = ["gradient_flow"]

Array = NDArray[np.float64]

COORDINATES = ("auto", "growth", "log", "curve", "weights")
#: From so many e-foldings of decay on z is so large that its rounding is felt, and from so many for each of the start's
#: late jumps are over; weights, up to this many, come to rest.
_LONG, _LATE, _FEW = 1e7, 1e4, 400
UNIT_SCALE = InitialScale("1", 0.0)
METHODS = ("auto", "native", *SCIPY_METHODS)


@hinting
def gradient_flow(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    t_end: float | None = None,
    *,
    alpha: float | str | Decimal | Fraction | None = None,
    start: Mapping[str, ArrayLike | Logs] | None = None,
    pretrained: Mapping[str, ArrayLike] | None = None,
    clock: Clock = "time",
    t_eval: ArrayLike | None = None,
    method: str = "auto",
    coordinates: str = "auto",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_steps: int = 200_000,
    progress: bool = False,
    estimate_error: bool = False,
    events: Event | EventFunction | Sequence[Event | EventFunction] = (),
) -> Trajectory:
    r"""Integrate the gradient flow of a network on a problem.

    .. math:: \dot\theta_i = -\Big( g_i(m) \nabla m_i + \tfrac12 \sigma_i^2 \nabla V_i \Big), \qquad
              \theta(0) = \alpha \, \theta^*,

    with ``m_i = E phi_i(theta_i + xi_i)`` and ``V_i`` its variance under the network's weight noise; without noise
    this is ``theta_i' = -g_i grad phi_i``, gradient flow on ``L(beta)``, with squares ``||X beta - y||^2 / (2n)``.

    Parameters
    ----------
    net : DiagonalNetwork or LinearNetwork
    problem : Problem
        A single target for a DiagonalNetwork. With a loss other than squares the expectation under weight noise does
        not reduce to m and V; it is exact for Gaussian noise on quadratic formulas, in closed form (exponential,
        Poisson) or by quadrature to rounding (logistic, log-cosh): :mod:`flowsim.flows.noisy_loss`.
    t_end : float, optional
        End of the run in the unit of `clock`, > 0. None, for squares: run until the flow rests, found by doubling.
    alpha : float, str, Decimal or Fraction
        Scale of initialisation, > 0; text and Decimal reach below the range of floats (``"1e-1000"``). Default: 1e-3,
        or 1 where `start` is given.
    start : mapping weight -> array (d,), number or Logs, optional
        The direction ``theta^*``. Default: ``sqrt(2)`` on the first weight and 0 on the second of ``u*v``, ones
        elsewhere.
        :class:`flowsim.Logs` gives signs and logarithms, of any size per weight and coordinate.
        For a LinearNetwork ``{"U": (D, h), "V": (m, h)}``; default: independent Gaussian entries of std ``h**-0.5``,
        always the same ones. Wide arrays are kept by reference: leave them unchanged while ``traj.weights`` is in use.
    pretrained : mapping weight -> array or number, optional
        Weights that alpha does not multiply: the start is ``pretrained + alpha * start``, also where alpha is far below
        the rounding of the weights (as in :func:`flowsim.saddle_to_saddle`).
    clock : {"time", "accelerated", "arclength", "log_loss"}
        The unit of `t_end` and `t_eval`; see :class:`flowsim.Trajectory`. "log_loss" is ``ln(1/L)``, for separable data
        under a loss that tends to 0 (:mod:`flowsim.flows.loss_clock`): 2.3e6 is a loss of 1e-1000000.
    t_eval : array (T,), optional
        Times to report, non-decreasing, inside [0, t_end]. Default: the steps taken.
    method : {"auto", "native", "LSODA", "BDF", "Radau", "DOP853"}
        ``native`` (:mod:`flowsim.solvers.separable`) needs growth or log coordinates, where ``auto`` takes it.
    coordinates : {"auto", "growth", "log", "curve", "weights"}
        ``auto`` takes growth coordinates for quadratic networks (:mod:`flowsim.growth.exponential`), log coordinates
        for products of three weights or more (:mod:`flowsim.growth.product_map`), and curve coordinates for any other
        formula without noise (:mod:`flowsim.growth.curve_map`), whenever they are exact.
    rtol : float
        Relative accuracy of the weights, in (0, 1).
    atol : float
        Absolute accuracy of the weights; growth coordinates need none, they control relative accuracy at every scale.
    max_steps : int
        Budget of accepted steps.
    progress : bool
        Show a progress bar.
    estimate_error : bool
        Also run at a tighter tolerance and report the distance, with a margin, as ``traj.error_estimate``.
    events : Event, function (t, State) or sequence of these
        What to look for along the run, to the accuracy of its states (:mod:`flowsim.events`); found in
        ``traj.events``. A terminal one ends the run: its time is then the last of ``traj.t``, behind those of `t_eval`
        that come before it.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        For arguments the caller can mend; the text names the argument and what was found.
    IntegrationError
        If the flow cannot be continued, or its result could not be trusted; carries the trajectory so far.

    References
    ----------
    Pesme & Flammarion, arXiv 2304.00488, Section 2; Clara, Langer & Schmidt-Hieber, arXiv 2503.11891, Section 2.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[1.0]], [2.0])
    >>> traj = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 3.0, alpha="1e-1000", clock="accelerated")
    >>> round(float(traj.beta[-1, 0]), 6), traj.info["coordinates"]
    (2.0, 'growth')
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"`problem` must be a Problem; received {type(problem).__name__}.")
    check_clock(clock)
    if coordinates not in COORDINATES:
        raise ValueError(f"`coordinates` must be one of {', '.join(COORDINATES)}; received {coordinates!r}.")
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}; received {method!r}.")
    rtol, atol = check_tolerances(rtol, atol)
    max_steps = check_steps(max_steps)
    scale = resolve_alpha(alpha, start)
    if t_end is None:
        if t_eval is not None:
            raise ValueError("`t_eval` needs `t_end`.")

        def until(end: float) -> Trajectory:
            return gradient_flow(
                net, problem, end, alpha=alpha, start=start, pretrained=pretrained, clock=clock, method=method,
                coordinates=coordinates, rtol=rtol, atol=atol, max_steps=max_steps, progress=progress,
                estimate_error=estimate_error, events=events,
            )  # fmt: skip

        return flow_to_rest(until, net, problem, scale, clock, rtol)
    t_end = positive("t_end", t_end)
    points = None if t_eval is None else check_times(t_eval, t_end)
    measured = isinstance(problem, MatrixSensing)
    if measured and not isinstance(net, LinearNetwork):
        raise ValueError(f"`net` must be a LinearNetwork for measurements of a matrix; received {net!r}.")
    if isinstance(net, LinearNetwork) and net.noise is not None and not measured:
        require_squares(problem, "weight noise on a LinearNetwork (gradient_descent draws noise with any loss)")
    common: dict[str, Any] = {
        "clock": clock,
        "t_eval": points,
        "rtol": rtol,
        "atol": atol,
        "max_steps": int(max_steps),
        "progress": progress,
        "estimate_error": bool(estimate_error),
    }
    if isinstance(net, LinearNetwork):
        m, h = problem.n_targets, net.width
        looked_for = as_events(
            events, {"beta": (problem.d, m), "U": (problem.d, h), "V": (m, h)}, rtol, lambda: problem.coefficient_size
        )
        if coordinates != "auto":
            raise ValueError(f"`coordinates` must be 'auto' for a LinearNetwork; received {coordinates!r}.")
        from flowsim.flows.loss_frames import linear_flow_on

        plain = cast("Mapping[str, ArrayLike] | None", start)
        return linear_flow_on(net, problem, t_end, scale, plain, pretrained, method=method, events=looked_for, **common)
    if not isinstance(net, DiagonalNetwork):
        raise ValueError(f"`net` must be a DiagonalNetwork or LinearNetwork; received {type(net).__name__}.")
    if problem.y.ndim == 2:
        if problem.n_targets > 1:
            raise ValueError(
                f"`problem` must have a single target for a DiagonalNetwork; received {problem.n_targets}."
            )
        problem = problem.with_target(problem.y[:, 0])
    looked_for = (
        as_events(events, dict.fromkeys(("beta", *net.weights), (problem.d,)), rtol, lambda: problem.coefficient_size)
        if events
        else ()
    )
    parts = read_start(net, start, pretrained, scale, problem.d)
    plain = cast("Mapping[str, ArrayLike] | None", start)
    direction = net.direction(plain, problem.d) if parts is None else np.ones(parts.shape)
    if start is not None and not direction.any():
        raise ValueError("`start` must not be zero everywhere: the origin is a saddle that a flow never leaves.")
    info = {
        "network": repr(net),
        "formulas": [formula.text for formula in net.formulas],
        "alpha": scale.text,
        "log_alpha": scale.log,
        "default_start": start is None and pretrained is None,
    }
    if clock == "log_loss":
        if net.noise is not None:
            raise ValueError("`clock` cannot be 'log_loss' with weight noise: the expected loss does not tend to 0.")
        if parts is not None:
            raise ValueError("`clock` cannot be 'log_loss' from pretrained weights or a start in logarithms.")
        return log_loss_flow(
            net, problem, t_end, scale, direction, method=method, acceleration=acceleration(net, scale),
            events=looked_for, info=info, **common,
        )  # fmt: skip
    time = t_end * (scale.gamma if clock == "accelerated" else 1.0)
    chosen, reason, exponents = _in_units(net, problem, scale, direction, parts, coordinates, method, rtol, time)
    if method == "auto":
        method = "native" if getattr(chosen, "native", hasattr(chosen, "integrate")) else "LSODA"
    if clock == "accelerated" and scale.gamma <= 0:
        raise ValueError(f"`alpha` must be < 1 on the accelerated clock; received {scale}.")
    unit = chosen.log_unit
    if unit or (chosen.name == "weights" and clock == "time"):
        # Accelerated time itself may be below the range of floats; time is not.
        rate = max(math.exp(log_acceleration(net, scale) + unit), sys.float_info.min)
    else:
        rate = acceleration(net, scale)
    try:
        rate = math.ldexp(rate, exponents.time)
    except OverflowError:
        rate = math.inf
    if not 0 < rate < math.inf:
        raise ValueError("`problem` is scaled so that its own unit of time, 1/(X^T X), is no float.")
    return run_flow(
        chosen,
        problem,
        t_end,
        acceleration=rate,
        method=method,
        events=looked_for,
        exponent=exponents.time,
        info={**info, "not_growth_because": reason, **getattr(chosen, "facts", {})},
        **common,
    )


def _in_units(
    net: DiagonalNetwork,
    problem: Problem,
    scale: InitialScale,
    direction: Array,
    parts: Start | None,
    coordinates: str,
    method: str,
    rtol: float,
    horizon: float,
) -> tuple[Any, str | None, Exponents]:
    """Coordinates of the data in powers of two near one, why they are no growth coordinates, and those powers."""
    homogeneous = parts is None and coordinates in ("auto", "growth", "log")
    exponents = exponents_for(net, problem, method in ("auto", "native") and homogeneous)
    own, data = exponents.network(net), exponents.problem(problem)
    inner, reason = _choose(own, data, exponents.scale(scale), parts or direction, coordinates, method, rtol)
    if coordinates == method == "auto" and parts is None and isinstance(inner, GrowthCoordinates) and not exponents.k:
        inner = _for_good(inner, own, data, scale, direction, math.ldexp(horizon, -exponents.time))
    if exponents.k and not getattr(inner, "native", hasattr(inner, "integrate")):  # weights are integrated as they are
        exponents = replace(exponents, k=0)
        own, data = exponents.network(net), exponents.problem(problem)
        inner, _ = _choose(own, data, scale, direction, "weights", method, rtol)
    return ScaledCoordinates(cast(NativeCoordinates, inner), exponents) if exponents.k else inner, reason, exponents


def _for_good(
    growth: GrowthCoordinates,
    net: DiagonalNetwork,
    problem: Problem,
    scale: InitialScale,
    direction: Array,
    horizon: float,
) -> Coordinates:
    """Coordinates that come to rest, where decay moves z for so long that its rounding is felt in beta."""
    size = direction.size
    foldings = float(growth.map.decay.max()) * horizon
    if growth.map.schedule is not None or size > _FEW or not foldings > max(_LONG, _LATE * scale.gamma):
        return growth
    from flowsim.flows.chambers import ChamberCoordinates

    symmetric = ChamberCoordinates(net, problem, scale, direction)
    return symmetric if symmetric.is_wall.all() else growth


def _choose(
    net: DiagonalNetwork,
    problem: Problem,
    scale: InitialScale,
    direction: Array | Start,
    asked: str,
    method: str,
    rtol: float,
) -> tuple[Coordinates, str | None]:
    if net.noise is not None and not isinstance(problem, Regression):
        from flowsim.flows.noisy_loss import noisy_loss_coordinates

        own = UNIT_SCALE if isinstance(direction, Start) else scale
        return noisy_loss_coordinates(net, problem, own, direction, asked, method), None
    scheduled = isinstance(net.weight_decay, Decay)
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
        own = UNIT_SCALE if isinstance(direction, Start) else scale
        return GrowthCoordinates(net, problem, own, direction, native=native_growth), None
    if isinstance(direction, Start):
        scale, direction = direction.collapsed()
    not_log = admits_products(net, problem, scale, direction, rtol)
    if net.weight_decay:
        not_log = "weight decay moves each weight by itself"
    if not_log is None and not native:
        not_log = f"{method} does not resolve them with this loss"
    if not_log is None and asked in ("auto", "log"):
        return DualCoordinates(net, problem, ProductMap(net, scale, direction)), reason
    if asked == "log":
        raise ValueError(f"`coordinates` cannot be 'log' for {net}: {not_log}.")
    plain = not net.is_mixed and net.distinct[0].product_of is not None
    if asked == "curve" or (asked == "auto" and not plain):
        not_curve = admits_curves(net, scale, direction, rtol)
        if not_curve is None:
            native_curve = native_growth and problem.d <= SeparableFlow.MOST_WITH_LOSS
            curves = CurveMap(net, scale, direction, problem.coefficient_size)
            return DualCoordinates(net, problem, curves, native=native_curve), reason
        if native and admits_blow_up(net, scale) is None:
            try:
                return DualCoordinates(net, problem, BlowUpMap(net, scale, direction, problem.coefficient_size)), reason
            except ArithmeticError as error:
                not_curve = str(error)
        if asked == "curve":
            raise ValueError(f"`coordinates` cannot be 'curve' for {net}: {not_curve}.")
    if method == "native":
        why = "`coordinates` is 'weights'" if asked == "weights" else f"{reason}, and {not_log}"
        raise ValueError(f"`method` cannot be 'native' for {net}: it works in growth or log coordinates, but {why}.")
    if net.noise is not None or net.weight_decay:
        from flowsim.flows.chambers import ChamberCoordinates

        noisy = ChamberCoordinates(net, problem, scale, direction)
        if noisy.too_small:
            raise IntegrationError(f"`alpha` = {scale} puts weights below the range of floats; {noisy.remedy()}.")
        return noisy, reason
    from flowsim.flows.weights import WeightCoordinates

    chosen = WeightCoordinates(net, problem, scale, direction, growth_applies=reason is None)
    if asked == "auto" and chosen.guard.watched.any() and not chosen.unresolved:
        from flowsim.flows.chambers import ChamberCoordinates

        symmetric = ChamberCoordinates(net, problem, scale, direction)
        if not symmetric.too_small:
            return symmetric, reason
    if chosen.too_small:
        raise IntegrationError(
            f"`alpha` = {scale} puts weights, or what they conserve, below the range of floats; {chosen.remedy()}."
        )
    if chosen.unresolved:
        raise IntegrationError(
            f"`alpha` = {scale} puts weights where the formula's gradient cancels to rounding; {chosen.remedy()}."
        )
    return chosen, reason
