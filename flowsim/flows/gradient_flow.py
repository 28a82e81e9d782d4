"""The public function of continuous time: the gradient flow of any network on any problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from numpy.typing import ArrayLike

from flowsim.flows.checks import check_options, check_times, positive
from flowsim.flows.diagonal_flow import diagonal_flow
from flowsim.flows.flow_options import FlowOptions
from flowsim.flows.rest import flow_to_rest
from flowsim.hints import hinting
from flowsim.network import Alpha, DiagonalNetwork, GivenWeights, InitialScale, LinearNetwork, Logs, resolve_alpha
from flowsim.network.linear_start import LinearCase
from flowsim.network.networks import check_types
from flowsim.problem import MatrixSensing, Problem, require_squares
from flowsim.results import Clock, State, Trajectory
from flowsim.results.events import Event, EventFunction, as_events


@hinting
def gradient_flow(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    t_end: float | None = None,
    *,
    alpha: Alpha | None = None,
    start: Mapping[str, ArrayLike | Logs] | State | None = None,
    pretrained: GivenWeights | None = None,
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
        End of the run in the unit of `clock`, > 0. None: run until the flow is at rest, found by doubling, for losses
        that have a minimum on the data.
    alpha : float, str, Decimal or Fraction
        Scale of initialisation, > 0; text and Decimal reach below the range of floats (``"1e-1000"``). Default: 1e-3,
        or 1 where `start` is given.
    start : mapping weight -> array (d,), number or Logs, optional
        The direction ``theta^*``. Default: ``sqrt(2)`` on the first weight and 0 on the second of ``u*v``, ones
        elsewhere.
        :class:`flowsim.Logs` gives signs and logarithms, of any size per weight and coordinate. A state of an earlier
        run of the same DiagonalNetwork, ``traj`` or ``traj.at(t)``, is continued, at any scale.
        For a LinearNetwork ``{"U": (D, h), "V": (m, h)}``; default: independent Gaussian entries of std ``h**-0.5``,
        always the same ones; Logs give each factor its own scale. Wide arrays are kept by reference: leave them
        unchanged while ``traj.weights`` is in use.
    pretrained : mapping weight -> array or number, optional
        Weights that alpha does not multiply: the start is ``pretrained + alpha * start``, also where alpha is far below
        the rounding of the weights (as in :func:`flowsim.saddle_to_saddle`).
    clock : {"time", "accelerated", "arclength", "log_loss"}
        The unit of `t_end` and `t_eval`; see :class:`flowsim.Trajectory`. "log_loss" is ``ln(1/L)``, for separable data
        under a loss that tends to 0 (:mod:`flowsim.flows.loss_clock`): 2.3e6 is a loss of 1e-1000000.
    t_eval : array (T,), optional
        Times to report, non-decreasing, inside [0, t_end]. Default: the steps taken.
    method : {"auto", "native", "LSODA", "BDF", "Radau", "DOP853"}
        ``native`` (:mod:`flowsim.solvers.separable`) needs growth, log or curve coordinates, where ``auto`` takes it,
        and LSODA should it spend its budget or round large terms away; or a linear network, where ``auto`` takes it
        unless weights start far above those that fit the data.
    coordinates : {"auto", "growth", "log", "curve", "weights"}
        ``auto`` takes growth coordinates for quadratic networks (:mod:`flowsim.growth.exponential`), log coordinates
        for products of three weights or more (:mod:`flowsim.growth.product_map`; with noise or decay that affects
        waiting weights alone within the tolerance, :mod:`flowsim.growth.shrinking_map`), and curve coordinates for any
        other formula without noise (:mod:`flowsim.growth.curve_map`), whenever they are exact.
    rtol : float
        Relative accuracy of the weights, in (0, 1); of the largest coefficients where these are small differences of
        large terms, as with `alpha` far above 1.
    atol : float
        Absolute accuracy of the weights; unused in growth coordinates, which control relative accuracy at every scale.
    max_steps : int
        Budget of accepted steps.
    progress : bool
        Show a progress bar.
    estimate_error : bool
        Also run at a tighter tolerance and report the distance, with a margin, as ``traj.error_estimate``.
    events : Event, function (t, State) or sequence of these
        Events to locate along the run, to the accuracy of its states (:mod:`flowsim.events`); found in
        ``traj.events``. A terminal one ends the run: its time is then the last of ``traj.t``, behind those of `t_eval`
        that come before it.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        For invalid arguments; the message names the argument and what was found.
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
    check_types(net, problem)
    rtol, atol, max_steps = check_options(clock, coordinates, method, rtol, atol, max_steps)
    scale = resolve_alpha(alpha, start)
    if t_end is None and t_eval is not None:
        raise ValueError("`t_eval` needs `t_end`.")
    end = math.inf if t_end is None else positive("t_end", t_end)
    points = None if t_eval is None else check_times(t_eval, end)
    options = FlowOptions(
        t_end=end,
        clock=clock,
        t_eval=points,
        method=method,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
        progress=progress,
        estimate_error=bool(estimate_error),
        coordinates=coordinates,
        events=_events(net, problem, events, rtol),
    )

    def run(end: float) -> Trajectory:
        return _flow(net, problem, scale, start, pretrained, options._replace(t_end=end))

    return run(end) if t_end is not None else flow_to_rest(run, net, problem, scale, clock, rtol)


def _events(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    events: Event | EventFunction | Sequence[Event | EventFunction],
    rtol: float,
) -> tuple[Event, ...]:
    """The events, once their functions are known to read states of the network."""
    if not events:
        return ()
    d, m = problem.d, problem.n_targets
    if isinstance(net, LinearNetwork):
        shapes: dict[str, tuple[int, ...]] = {"beta": (d, m), "U": (d, net.width), "V": (m, net.width)}
    else:
        shapes = dict.fromkeys(("beta", *net.weights), (d,))
    return as_events(events, shapes, rtol, lambda: problem.coefficient_size)


def _flow(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    scale: InitialScale,
    start: Mapping[str, ArrayLike | Logs] | State | None,
    pretrained: GivenWeights | None,
    options: FlowOptions,
) -> Trajectory:
    """The flow of a network of either kind."""
    measured = isinstance(problem, MatrixSensing)
    if not isinstance(net, LinearNetwork):
        if measured:
            raise ValueError(f"`net` must be a LinearNetwork for measurements of a matrix; received {net!r}.")
        return diagonal_flow(net, problem, scale, start, pretrained, options)
    if net.noise is not None and not measured:
        require_squares(problem, "weight noise on a LinearNetwork (gradient_descent draws noise with any loss)")
    if options.coordinates != "auto":
        raise ValueError(f"`coordinates` must be 'auto' for a LinearNetwork; received {options.coordinates!r}.")
    if isinstance(start, State):
        raise ValueError("`start` can be a state for a DiagonalNetwork only.")
    from flowsim.flows.loss_frames import linear_flow_on

    return linear_flow_on(LinearCase(net, problem, scale, start, pretrained), options)
