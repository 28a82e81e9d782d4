"""The saddle-to-saddle process: the limit of gradient flow as the initial scale vanishes."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Mapping
from typing import cast, overload

import numpy as np
from numpy.typing import ArrayLike

from flowsim.growth.vanishing import thresholds_and_rates
from flowsim.hints import hinting
from flowsim.limits.convex import saying_what_is_unbounded
from flowsim.limits.diagonal import DiagonalProcess
from flowsim.limits.dual_bounds import network_bounds
from flowsim.limits.exactly import exactly
from flowsim.limits.joint import joint_process
from flowsim.limits.linear_path import LinearSaddlePath
from flowsim.limits.path import SaddlePath
from flowsim.limits.start_state import StartState, pretrained_state
from flowsim.network import DiagonalNetwork, GivenWeights, LinearNetwork, Logs
from flowsim.network.networks import check_types
from flowsim.problem import Problem, require_squares, single_target


@overload
def saddle_to_saddle(
    net: LinearNetwork,
    problem: Problem,
    start: Mapping[str, ArrayLike | Logs] | None = None,
    *,
    pretrained: GivenWeights | None = None,
    max_jumps: int | None = None,
    t_end: float | None = None,
    progress: bool = False,
) -> LinearSaddlePath: ...


@overload
def saddle_to_saddle(
    net: DiagonalNetwork,
    problem: Problem,
    start: Mapping[str, ArrayLike | Logs] | StartState | None = None,
    *,
    pretrained: GivenWeights | None = None,
    thresholds: tuple[ArrayLike, ArrayLike] | None = None,
    penalties: tuple[ArrayLike, ArrayLike] | None = None,
    joint_noise: float | None = None,
    max_jumps: int | None = None,
    t_end: float | None = None,
    exact: bool = False,
    progress: bool = False,
) -> SaddlePath: ...


@hinting
def saddle_to_saddle(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    start: Mapping[str, ArrayLike | Logs] | StartState | None = None,
    *,
    pretrained: GivenWeights | None = None,
    thresholds: tuple[ArrayLike, ArrayLike] | None = None,
    penalties: tuple[ArrayLike, ArrayLike] | None = None,
    joint_noise: float | None = None,
    max_jumps: int | None = None,
    t_end: float | None = None,
    exact: bool = False,
    progress: bool = False,
) -> SaddlePath | LinearSaddlePath:
    r"""The limit process of gradient flow from vanishing initialisation.

    .. math:: \dot s = -\nabla L(\beta), \qquad
              \beta(t) \in \arg\min_\beta \; L(\beta) + \sum_i \kappa_i^+ \beta_i^+ + \kappa_i^- \beta_i^-

    over :math:`\beta_i \ge 0` where :math:`s_i = t_i^+ + \kappa_i^+ t` (the upper bound), :math:`\beta_i \le 0` where
    :math:`s_i = -(t_i^- + \kappa_i^- t)` (the lower bound), and :math:`\beta_i = 0` in between. The path is
    piecewise constant in accelerated time and jumps when a coordinate reaches a bound. A :class:`LinearNetwork` learns
    rank by rank instead: its saddles are reduced-rank regressions (Notes).

    Parameters
    ----------
    net : DiagonalNetwork or LinearNetwork
        Diagonal: two-layer type (``u*v``, ``u**2 - v**2``, ...), with or without noise, a product of L >= 3 weights,
        or another formula whose lowest terms at 0 have order 2 or more.
    problem : Problem
        With one target, or several for a LinearNetwork. Any convex loss; weight noise and `exact` need squares. Where
        the loss has no minimum on a cone (separable data) the path ends: ``path.escape``.
    start : dict weight -> array or Logs, or StartState, optional
        With :class:`flowsim.Logs` every coordinate has a scale of its own: thresholds, and time, are then those of the
        flow itself, ``-ln|p|`` and ``-ln|q|`` for ``u*v``, not in units of ``ln(1/alpha)``.
        The direction that the vanishing scale multiplies, as in :func:`flowsim.gradient_flow`; or a state of an
        earlier path, ``path.state(t)``, to be continued with other data.
    pretrained : dict weight -> array, optional
        Weights that do not vanish: the start is ``pretrained + alpha * start``. Coordinates with a weight that is
        not 0 are active from the start; the first plateau is the point to which they relax.
    thresholds : (t_plus, t_minus), optional
        Growth thresholds, each a number or an array (d,), > 0 (inf: that side cannot be reached), instead of
        the network's own.
    penalties : (kappa_plus, kappa_minus), optional
        Penalties, each a number or an array (d,), >= 0, instead of the network's own.
    joint_noise : float, optional
        c of weight noise that vanishes with the scale, ``eta = c alpha^((L-2)/(2(L-1)))``, for products of L >= 3
        weights: it slows all duals, and traps coordinates at 0 (:mod:`flowsim.limits.joint`).
    max_jumps : int, optional
        Stop after so many jumps.
    t_end : float, optional
        Stop at this accelerated time.
    exact : bool
        Compute in rational arithmetic, without tolerances; for small problems (``path.exact`` holds the fractions).
    progress : bool
        Show a progress bar.

    Returns
    -------
    SaddlePath, or LinearSaddlePath for a LinearNetwork

    Raises
    ------
    ValueError
        For invalid arguments, or a network without this limit.
    IntegrationError
        If rounding keeps the active set from converging, if the formula cannot attain a saddle, or if active columns
        are linearly dependent and it is not known which minimiser the flow reaches.

    Notes
    -----
    Each jump costs at most one pass over X (far less with many dense features: :mod:`flowsim.limits.duals`) and an
    update of an orthonormal factor of the active columns. Sparse X needs memory in proportion to its entries.
    Hits closer than rounding form one jump, whose result does not depend on their order. If active columns are
    linearly dependent the minimiser is not unique; the flow selects one, by the direction of its start
    (:mod:`flowsim.limits.selection`).

    Linear networks, :math:`\beta = U V^\top`, from a start in general position: with
    :math:`\Sigma = X^\top X / n`, :math:`A^* = \Sigma^{-1/2} X^\top Y / n = \sum_i s_i a_i b_i^\top`, saddle r is

    .. math:: \beta_r = \Sigma^{-1/2} \sum_{i \le r} (s_i - \eta^2 \sqrt{m \, \mathrm{tr}\, \Sigma})_+ a_i b_i^\top

    (:math:`\eta` the standard deviation of weight noise; with weight decay, `pretrained` weights or another loss, where
    the orbit from saddle r - 1 ends). Waiting directions have levels that rise at the sorted eigenvalues of the
    generator ``[[-a, G], [G^T, -b]]``, ``G = X^T (Y - X beta_r) / n``, from 0; the one that reaches 1 is activated
    next. Data that decouple exactly evolve part by part (:mod:`flowsim.limits.linear_blocks`).

    References
    ----------
    Pesme, Flammarion, *Saddle-to-saddle dynamics in diagonal linear networks*, arXiv 2304.00488, Algorithm 1.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[2.0, 0.0], [0.0, 1.0]], [2.0, 3.0])
    >>> path = fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), problem)
    >>> path.jump_times, path.end
    (array([0.5       , 0.66666667]), array([1., 3.]))
    """
    if max_jumps is not None and not (_is_number(max_jumps) and max_jumps >= 0 and max_jumps % 1 == 0):
        raise ValueError(f"`max_jumps` must be an integer >= 0; received {max_jumps!r}.")
    if t_end is not None and not (_is_number(t_end) and t_end > 0):
        raise ValueError(f"`t_end` must be a number > 0; received {t_end!r}.")
    if t_end is not None and sys.float_info.max < t_end < math.inf:
        raise ValueError(f"`t_end` must be in the range of floats, or infinite; received {t_end!r}.")
    if max_jumps is not None:
        max_jumps = int(min(max_jumps, sys.maxsize))
    check_types(net, problem)
    if isinstance(net, LinearNetwork):
        if isinstance(start, StartState):
            raise ValueError("`start` must map 'U' and 'V' to arrays; received StartState.")
        given: dict[str, object] = {
            "joint_noise": joint_noise,
            "thresholds": thresholds,
            "penalties": penalties,
            "exact": exact or None,
        }
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"`{name}` is for a DiagonalNetwork; received it with a LinearNetwork.")
        plain = cast("GivenWeights | None", start)
        with saying_what_is_unbounded(problem):
            from flowsim.limits.linear_networks import linear_saddle_to_saddle

            return linear_saddle_to_saddle(net, problem, plain, pretrained=pretrained, max_jumps=max_jumps, t_end=t_end)
    if exact or net.noise is not None:
        require_squares(problem, "rational arithmetic" if exact else "the limit of weight noise")
    problem = single_target(problem)
    if joint_noise is not None:
        others = (pretrained, thresholds, penalties, exact or None, start if isinstance(start, StartState) else None)
        if any(other is not None for other in others):
            raise ValueError("`joint_noise` goes with `start` weights, `max_jumps` and `t_end` alone.")
        squares = require_squares(problem, "the limit of weight noise")
        plain = cast("GivenWeights | None", start)
        last = math.inf if t_end is None else float(t_end)
        return joint_process(net, squares, plain, joint_noise, max_jumps, last, progress)
    if pretrained is not None:
        if start is not None and not isinstance(start, Mapping):
            raise ValueError("`pretrained` and a `start` state exclude each other.")
        direction = net.direction(cast("GivenWeights | None", start), problem.d)
        start = pretrained_state(net, pretrained, direction, thresholds_and_rates(net, direction, problem.d)[:2])
    elif (
        isinstance(start, Mapping)
        and len(start)
        and not any(isinstance(value, Logs) or np.any(value) for value in start.values())
    ):
        raise ValueError("`start` must not be zero everywhere: the origin is a saddle that a flow never leaves.")
    state = start if isinstance(start, StartState) else None
    bounds = network_bounds(net, problem, start, thresholds, penalties)
    horizon = math.inf if t_end is None else float(t_end)
    if exact:
        return exactly(require_squares(problem, "rational arithmetic"), bounds, state, max_jumps, horizon)
    with saying_what_is_unbounded(problem):
        return DiagonalProcess(problem, bounds, state).run(max_jumps, horizon, progress)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
