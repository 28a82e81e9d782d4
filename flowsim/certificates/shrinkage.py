"""Clara, Langer & Schmidt-Hieber, arXiv 2503.11891: ends of flows with weight noise."""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array, Bools
from flowsim.certificates.certificate import Evidence, UnresolvedError, assume
from flowsim.certificates.noise import PAPER
from flowsim.certificates.registry import theorem
from flowsim.certificates.setting import Setting
from flowsim.network import InitialScale
from flowsim.problem import Regression

_DOUBLINGS = 8
_STATIONARY = 1e-5
#: Relative change of the coefficients over a doubling of time that counts as zero.
_AT_REST = 1e-7
#: Coefficients of the support, relative to those of least squares.
_ACTIVE = 1e-6
#: Size of the start relative to the sufficient bound of the trap.
_TRAP_DEPTH = 0.9


def _shrunk(setting: Setting) -> tuple[Array, Array, float]:
    """End of the noisy two-layer flow, its penalties, and the largest violation of the weighted Lasso's conditions."""
    assume(setting.product_depth == 2, "stated for two layers; deeper networks: depth-end-point and depth-trap")
    problem, kappa = setting.squares, setting.eta**2 * setting.problem.feature_variances
    scale = float(np.abs(setting.correlation).max())
    assume(scale > 0, "X^T y = 0: nothing grows")
    alpha = setting.alpha if setting.alpha is not None else InitialScale.parse(1e-3)
    t_end = 10.0 / float(kappa[kappa > 0].min())
    beta, worst, moved = np.zeros(problem.d), math.inf, math.inf
    for _ in range(_DOUBLINGS):
        before, beta = beta, setting.run(t_end, alpha=alpha).beta[-1]
        worst = _lasso_violation(problem, beta, kappa, _ACTIVE * _coefficient_size(setting)) / scale
        moved = float(np.abs(beta - before).max())
        # Stationary, or violating stationarity without any change over twice the time and longer than a plateau.
        excess = np.abs(problem.gradient(beta)) - kappa
        waiting = excess[(np.abs(beta) <= _AT_REST * np.abs(beta).max()) & (excess > _STATIONARY / 10 * scale)]
        is_plateau = bool((waiting * t_end < 4 * alpha.gamma).any())
        if worst < _STATIONARY / 10 or (moved <= _AT_REST * float(np.abs(beta).max()) and not is_plateau):
            return beta, kappa, worst
        t_end *= 2
    raise UnresolvedError(f"the flow is not at rest by t = {t_end / 2:.3g}: it misses stationarity by {worst:.1e}")


def _coefficient_size(setting: Setting) -> float:
    """The largest coefficient of least squares on one feature alone: what decays to 0 is small beside it."""
    variances = setting.problem.feature_variances
    return float(np.abs(setting.correlation / np.where(variances > 0, variances, 1.0)).max())


def _lasso_violation(problem: Regression, beta: Array, kappa: Array, least: float) -> float:
    """``max |g_i + kappa_i sign beta_i|`` where ``|beta_i| > least``, ``(|g_i| - kappa_i)_+`` elsewhere."""
    g = problem.gradient(beta)
    slack = np.where(np.abs(beta) > least, np.abs(g + kappa * np.sign(beta)), np.maximum(np.abs(g) - kappa, 0.0))
    return float(slack.max())


@theorem("shrinkage-thresholding", PAPER, "orthogonal design, L = 2: the end soft-thresholds X^T y / n at eta^2 s_i^2")
def shrinkage_thresholding(setting: Setting) -> Evidence:
    variances = setting.orthogonal_variances
    beta, kappa, _ = setting.once(_shrunk)
    c = setting.correlation
    target = np.sign(c) * np.maximum(np.abs(c) - kappa, 0.0) / np.where(variances > 0, variances, 1.0)
    size = _coefficient_size(setting)
    error = float(np.abs(beta - target).max()) / size
    return Evidence(
        f"X^T X / n is diagonal, noise std {setting.eta:g}",
        predicted=f"{int((target != 0).sum())} of {len(target)} survive",
        measured=f"{int((np.abs(beta) > 1e-4 * size).sum())} survive",
        error=error,
        tolerance=1e-4,
        unit="largest difference of a coordinate, relative to the largest least-squares coordinate",
        details={"predicted": target, "measured": beta},
    )


@theorem("weighted-lasso", PAPER, "any design, L = 2: the end is the Lasso with penalties eta^2 s_i^2 (KKT)")
def weighted_lasso(setting: Setting) -> Evidence:
    beta, kappa, worst = setting.once(_shrunk)
    support = int((np.abs(beta) > _ACTIVE * _coefficient_size(setting)).sum())
    return Evidence(
        f"u*v, noise std {setting.eta:g}",
        predicted="KKT violation 0",
        measured=worst,
        error=worst,
        tolerance=_STATIONARY,
        unit="largest violation of the optimality conditions, relative to max |X^T y| / n",
        details={"beta": beta, "penalties": kappa, "support": support},
    )


@theorem("depth-end-point", PAPER, "L >= 3: survivors end balanced at |g_i| = V_i'(|beta_i|)")
def depth_end_point(setting: Setting) -> Evidence:
    depth, eta = setting.product_depth, setting.eta
    assume(depth >= 3, "two layers: shrinkage-thresholding and weighted-lasso")
    problem, names = setting.problem, setting.diagonal.weights
    assume(setting.correlation.any(), "X^T y = 0: nothing grows")
    variances = problem.feature_variances
    start = {name: np.full(problem.d, 1.0 - 0.2 * k / depth) for k, name in enumerate(names)}
    alpha = setting.large_alpha
    rate = float(variances[variances > 0].min()) * eta**2 * (alpha**2 + eta**2) ** (depth - 2)
    t_end, scale = 5.0 / rate, float(np.abs(setting.correlation).max())
    found: tuple[Array, Bools, float, float] | None = None
    for _ in range(_DOUBLINGS):
        w = _end_of_decay(setting, t_end, alpha, start)
        beta = w.prod(axis=0)
        survives = (np.abs(beta) > 1e-3 * np.abs(beta).max(initial=1e-300)) & (variances > 0)
        size = np.abs(w).max(axis=0)
        unbalanced = float(((size - np.abs(w).min(axis=0))[survives] / size[survives]).max(initial=0.0))
        # Below the trap's scale no coordinate survives: the predictor tends to 0.
        assume(
            np.abs(beta[variances > 0]).max() >= eta**depth * 1e-6,
            f"noise of std {eta:g} is too strong here: every coordinate falls into the trap at 0",
        )
        b = np.abs(beta[survives])
        penalty = variances[survives] * ((b ** (2 / depth) + eta**2) ** (depth - 1) * b ** (2 / depth - 1) - b)
        violation = float(np.abs(problem.gradient(beta)[survives] + np.sign(beta[survives]) * penalty).max()) / scale
        found = (beta, survives, violation, unbalanced)
        if max(violation, unbalanced) < 1e-6:
            break
        t_end *= 2
    assert found is not None
    beta, survives, violation, unbalanced = found
    details: dict[str, object] = {"survivors": np.flatnonzero(survives), "beta": beta, "unbalanced": unbalanced}
    if depth == 3:
        floor = 2 * math.sqrt(2) * variances[survives] * eta**3
        is_felt = floor > 0  # a column of zeros is not
        ratio = np.abs(problem.gradient(beta)[survives])[is_felt] / floor[is_felt]
        details["least_gradient_over_floor"] = float(ratio.min(initial=math.inf))
    return Evidence(
        f"product of {depth} weights, noise std {eta:g}, start of size {alpha:.3g}; {int(survives.sum())} survive",
        predicted="stationary and balanced",
        measured=f"off by {violation:.1e} and {unbalanced:.1e}",
        error=max(violation, unbalanced),
        tolerance=1e-4,
        unit="violation relative to max |X^T y| / n, or relative spread of the |w_l| of a coordinate",
        details=details,
    )


def _end_of_decay(setting: Setting, t_end: float, alpha: float, start: dict[str, Array]) -> Array:
    """Last weights of a SciPy run of the generated field, in which coordinates may tend to 0."""
    from scipy.integrate import solve_ivp

    from flowsim.symbolic import kernels

    net, problem = setting.diagonal, setting.problem
    kernel, kind, std = kernels(net), net.kinds(problem.d), net.stds
    shape = (len(net.weights), problem.d)
    center, field = np.empty(problem.d), np.empty(shape)

    def rhs(_: float, flat: Array) -> Array:
        w = np.ascontiguousarray(flat.reshape(shape))
        kernel.mean(w, kind, std, center)
        kernel.field(w, kind, std, problem.gradient(center), problem.feature_variances, field)
        return field.ravel().copy()

    w0 = alpha * np.array([start[name] for name in net.weights])
    run = solve_ivp(rhs, (0.0, t_end), w0.ravel(), method="LSODA", rtol=1e-10, atol=1e-12, t_eval=[t_end])
    if not run.success or not np.isfinite(run.y).all():
        raise UnresolvedError(f"the flow with noise stopped at t = {run.t[-1] if len(run.t) else 0:.3g}: {run.message}")
    return run.y[:, -1].reshape(shape)


@theorem("depth-trap", PAPER, "L >= 3: from max |w|^(L-2) < eta^(2(L-1)) s_i / sqrt(2 E L) all falls to 0")
def depth_trap(setting: Setting) -> Evidence:
    depth, eta, problem = setting.product_depth, setting.eta, setting.problem
    assume(depth >= 3, "two layers have no trap: any coordinate with |c_i| > kappa_i escapes from 0")
    assume(setting.correlation.any(), "X^T y = 0: the origin is the minimiser")
    variances = problem.feature_variances
    moving = variances > 0
    # E L(0) at a start of size s is at most its value at s = eta; iterate once from there.
    size = eta
    for _ in range(50):
        loss = _expected_loss(setting, np.full((depth, problem.d), size))
        bound = (eta ** (2 * (depth - 1)) * math.sqrt(float(variances[moving].min()) / (2 * loss))) ** (1 / (depth - 2))
        size = min(size, _TRAP_DEPTH * bound)
    share = (size / bound) ** (depth - 2)
    slack = (1 - share) * float(variances[moving].min()) * eta ** (2 * (depth - 1))
    t_end = 1.0 / slack
    # Logarithms of the weights keep their relative accuracy on the way to 0.
    start = np.full((depth, problem.d), size)
    start[0] *= np.where(setting.correlation < 0, -1.0, 1.0)
    end = _logarithmic_decay(setting, start, t_end)
    largest = float(np.abs(end[:, moving]).max()) / size
    predicted = math.exp(-slack * t_end)
    return Evidence(
        f"product of {depth} weights, noise std {eta:g}, start {size:.2e} below the bound {bound:.2e}",
        predicted=f"max |w| shrinks to <= {predicted:.3f}",
        measured=f"{largest:.3g}",
        error=largest / predicted,
        tolerance=1.0 + 1e-9,
        unit=f"largest weight at t = {t_end:.3g} over its bound exp(-(1 - share) s^2 eta^(2(L-1)) t)",
        details={"start": size, "bound": bound, "t_end": t_end},
    )


def _expected_loss(setting: Setting, w: Array) -> float:
    problem, eta = setting.problem, setting.eta
    variance = np.prod(w**2 + eta**2, axis=0) - np.prod(w**2, axis=0)
    return float(problem.loss(w.prod(axis=0)) + problem.feature_variances @ variance / 2)


def _logarithmic_decay(setting: Setting, start: Array, t_end: float) -> Array:
    """The flow of products under noise in ``ln |w|``, implemented independently; signs never change."""
    from scipy.integrate import solve_ivp

    problem, eta2 = setting.problem, setting.eta**2
    signs = np.sign(start)

    def rhs(_: float, flat: Array) -> Array:
        logs = flat.reshape(start.shape)
        w = signs * np.exp(logs)
        beta = w.prod(axis=0)
        g = problem.gradient(beta)
        squares = w**2
        rate = np.empty_like(w)
        for a in range(len(w)):
            others = np.delete(squares, a, axis=0)
            penalty = (others + eta2).prod(axis=0) - others.prod(axis=0)
            others_product = np.exp(logs.sum(axis=0) - 2 * logs[a])  # |beta| / w_a^2: squares may underflow
            rate[a] = -g * np.prod(signs, axis=0) * others_product - problem.feature_variances * penalty
        return rate.ravel()

    run = solve_ivp(
        rhs, (0.0, t_end), np.log(np.abs(start)).ravel(), method="LSODA", rtol=1e-9, atol=1e-9, t_eval=[t_end]
    )
    if not run.success or not np.isfinite(run.y).all():
        raise UnresolvedError(f"the flow with noise stopped before t = {t_end:.3g}: {run.message}")
    return signs * np.exp(run.y[:, -1].reshape(start.shape))
