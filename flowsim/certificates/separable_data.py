r"""Separable data under the logistic and the exponential loss: growth of the margin, and the direction of escape.

From the default start of ``u*v``, ``beta_i = alpha^2 sinh(2 z_i)`` with ``z = X^T (y \circ lambda)``, and ``lambda``,
the integral of minus the slopes in the margins over n, never decreases.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array, log_abs
from flowsim.certificates.certificate import Evidence, NotMetError, UnresolvedError, assume
from flowsim.certificates.registry import theorem
from flowsim.certificates.resolution import PAPER, RESOLVED
from flowsim.certificates.setting import Setting
from flowsim.network import InitialScale, quadratic_form
from flowsim.problem.margins import is_separable, max_margin_l1, weighted_rows
from flowsim.results import State, Trajectory

LYU_LI = "Lyu & Li, arXiv 1906.05890"
MOROSHKO = "Moroshko et al., arXiv 2007.06738"

#: ``ln(1/L)`` at the end, and at the points at which the direction is measured.
_DEEP = 1e6
_LOOKS = np.array([1e2, 1e4, _DEEP])
_LARGE = InitialScale("1", 0.0)
#: Relative rounding and tolerance of a margin.
_ROUNDING = 1e-6
#: Tolerance of the dual, which has the accuracy of the flow.
_DUAL = 1e-5
#: Coordinates below this are computed from the logarithms of weights; ``arcsinh(x) = ln(2 x)`` beyond this ln x.
_TINY, _FAR = 1e-290, 300.0
#: Gap to the largest margin that counts as closed.
_CLOSED = 1e-6
#: gamma of the larger of the two scales of the limit.
_GAMMA = 1e4 * math.log(10.0)
#: Range in which the inverse of the logistic loss is computed by its formula.
_NEAR_LEAST, _NEAR = 6.0, 37.0
#: Relative change under doubling of gamma below which an error is not due to finite alpha.
_SAME_RATIO = 0.3
#: Increase of ``ln(1/L)`` beyond its value at the last saddle from which on beta counts as escaping.
_AWAY = 1.0


def _margins(setting: Setting) -> None:
    """The hypotheses: exponential tails, separable data."""
    problem, net = setting.problem, setting.diagonal
    assume(
        problem.loss_function.is_margin,
        f"the {problem.loss_function.name} loss is no function of the margin that tends to 0",
    )
    assume(net.noise is None, "stated without weight noise")
    assume(all(quadratic_form(formula) is not None for formula in net.distinct), "stated for quadratic formulas")
    assume(is_separable(problem), "no direction separates the data: the loss has a minimum, or an infimum above 0")


def _deep_run(setting: Setting) -> Trajectory:
    alpha = _LARGE if setting.alpha is None else setting.alpha
    return setting.run(_DEEP, alpha=alpha, clock="log_loss")


def _smoothed(setting: Setting, log_loss: Array) -> Array:
    """A margin that every row has: ``g(ln 1/(n L))``, g the inverse of the loss at the exponential of minus it."""
    total = -log_loss - math.log(setting.problem.n)
    if setting.problem.loss_function.name != "logistic":
        return total
    # -ln(exp(exp(-x)) - 1), which is x to rounding far above 0.
    near = np.clip(total, -_NEAR_LEAST, _NEAR)
    return np.where(total > _NEAR, total, -np.log(np.expm1(np.exp(-near))))


@theorem(
    "smoothed-margin",
    LYU_LI,
    "once L < 1/n the smoothed margin ln(1/(nL)) / ||theta||^2 never decreases",
    any_loss=True,
)
def smoothed_margin(setting: Setting) -> Evidence:
    _margins(setting)
    assume(setting.problem.sample_weight is None, "stated without sample weights")
    flow = setting.once(_deep_run)
    assert flow.log_loss is not None
    margin = _smoothed(setting, flow.log_loss)
    squares = sum(np.sum(np.asarray(flow.weights[name]) ** 2, axis=1) for name in setting.diagonal.weights)
    ratio = (margin / squares)[margin > 0]
    drop = float(np.max(-np.diff(ratio) / ratio[1:], initial=0.0))
    return Evidence(
        f"separable data; {len(ratio)} steps from L = 1/n down to ln(1/L) = {-flow.log_loss[-1]:.3g}",
        predicted="never decreases",
        measured=f"from {ratio[0]:.3e} to {ratio[-1]:.6g}",
        error=drop,
        tolerance=_ROUNDING,
        unit="largest fall from one step to the next, relative",
        details={"first": ratio[0], "last": ratio[-1]},
    )


@theorem(
    "l1-max-margin",
    MOROSHKO,
    "u*v, fixed alpha, L -> 0: the direction of beta goes to the largest l1 margin",
    any_loss=True,
)
def l1_max_margin(setting: Setting) -> Evidence:
    from scipy.optimize import nnls

    _margins(setting)
    problem = setting.problem
    assume(setting.product_depth == 2 and setting.start is None, "stated for u*v from the default start")
    best = max_margin_l1(problem).margin
    flow = setting.once(_deep_run)
    scale = _LARGE if setting.alpha is None else setting.alpha
    state = flow.at(_LOOKS, clock="log_loss")
    beta = state.beta
    rows = (problem.y[:, None] * setting.X)[weighted_rows(problem)]
    weights = problem.entry_weights[weighted_rows(problem)]
    size = np.abs(beta).sum(axis=1)
    gap = 1.0 - (beta @ rows.T).min(axis=1) / (best * size)
    outside = nnls(rows.T, z := _dual(scale, state[-1]), maxiter=100 * problem.n)[1] / float(np.linalg.norm(z))
    falls = np.where(gap[1:] < _CLOSED, 0.0, gap[1:] / gap[:-1])
    beyond = max(0.0, -float(gap.min())) / _CLOSED
    # The smoothed margin never decreases; the margin differs from it by this much at most.
    slack = (
        math.log(weights.sum() / weights.min()) / _LOOKS[:-1]
        + problem.d * math.exp(2 * scale.log) / size[:-1]
        + _CLOSED
    )
    if max(outside / _DUAL, beyond) <= 1.0 < falls.max() + _CLOSED and (np.diff(gap) <= slack).all():
        raise UnresolvedError(
            f"from alpha = {scale} the gap to the largest margin, {gap[-1]:.2g}, does not close by then"
        )
    return Evidence(
        f"separable data, alpha = {scale}, ln(1/L) = " + ", ".join(f"{value:.0e}" for value in _LOOKS),
        predicted=best,
        measured=float((1.0 - gap[-1]) * best),
        error=max(float(falls.max()), outside / _DUAL, beyond),
        tolerance=1.0,
        unit="ratio of the gaps to the largest margin, each to the one before; or what of the dual is no combination "
        f"of rows with weights >= 0, over {_DUAL:g}",
        details={"gaps": gap, "outside": outside},
    )


def _dual(scale: InitialScale, state: State) -> Array:
    """z of ``beta = alpha^2 sinh(2 z)``, from logarithms where beta underflows, with signs from the weights."""
    weights, moduli = tuple(state.weights.values()), tuple(state.log_abs_weights.values())
    logs = np.where(np.abs(state.beta) < _TINY, sum(moduli), log_abs(state.beta)) - 2 * scale.log
    signs = np.where(np.signbit(weights[0]) == np.signbit(weights[1]), 0.5, -0.5)
    return signs * np.where(logs > _FAR, logs + math.log(2.0), np.arcsinh(np.exp(np.minimum(logs, _FAR))))


@theorem(
    "escape",
    PAPER,
    "alpha -> 0 on separable data: beta escapes along the active features alone, at the limit's time",
    any_loss=True,
)
def escape(setting: Setting) -> Evidence:
    _margins(setting)
    away = setting.limit.escape
    if away is None:
        raise NotMetError("the limit does not escape")
    problem = setting.problem
    rest = np.flatnonzero(away.direction == 0)
    # Every coordinate of the last active set may move; only waiting ones stay small.
    rest = np.setdiff1d(rest, np.concatenate([setting.limit.active_sets[-1], away.hits]))
    last = -float(np.asarray(problem.log_loss(setting.limit.saddles[-1])))
    gamma = setting.alpha.gamma if setting.alpha is not None else _GAMMA
    assume(gamma > 0, "alpha must be below 1")

    def seen(factor: float) -> Array:
        """The accelerated time of escape over the limit's, and the largest waiting coordinate over the largest."""
        scale = InitialScale(f"exp(-{factor * gamma:.4g})", -factor * gamma)
        flow = setting.run(last + _AWAY, alpha=scale, clock="log_loss")
        assert flow.accelerated_time is not None
        size = np.abs(flow.beta[-1])
        return np.array([float(flow.accelerated_time[-1]) / away.time, float(size[rest].max(initial=0.0) / size.max())])

    first, second = seen(1.0), seen(2.0)
    off = _extrapolated(first, second)
    if (off > RESOLVED).any():
        closer = _extrapolated(second, seen(4.0))
        # The error of a false statement does not decrease as alpha vanishes.
        if not ((closer > RESOLVED) & (np.abs(off - closer) <= _SAME_RATIO * closer)).any():
            raise UnresolvedError(
                f"at alpha = exp(-{gamma:.4g}) still off by {off.max():.1e}, and moving as alpha falls"
            )
    return Evidence(
        f"the active features separate the data from {away.time:.6g} on, with margin {away.margin:.6g}",
        predicted=away.time,
        measured=(2 * second[0] - first[0]) * away.time,
        error=float(off.max()),
        tolerance=RESOLVED,
        unit="relative error of the time (two alphas, extrapolated), or the largest coordinate at rest over the "
        "largest",
        details={"margin": away.margin, "at_rest": second[1], "times": [first[0] * away.time, second[0] * away.time]},
    )


def _extrapolated(first: Array, second: Array) -> Array:
    """Errors of the time, linear in 1/gamma, and of waiting coordinates, exponential, from gamma and 2 gamma."""
    return np.array([abs(2 * second[0] - first[0] - 1.0), second[1]])
