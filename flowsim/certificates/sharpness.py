"""Clara, Langer & Schmidt-Hieber, arXiv 2503.11891: the factorisation of least sharpness."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.certificates.certificate import Evidence, assume
from flowsim.certificates.noise import BATCH, DRAWS, PAPER, STANDARD_ERRORS, drawable, draws, sample_weights
from flowsim.certificates.registry import theorem
from flowsim.certificates.setting import Setting
from flowsim.problem import Regression

#: Number of coordinates whose factorisation is optimised; coordinates are independent.
_FACTORISED = 6
#: What a coordinate explains of y, relative to it, that may be rounding.
_ROUNDING = 1e-13


def _factorised(setting: Setting) -> tuple[Array, Index]:
    """beta to factorise: the least-squares solution and its largest coordinates."""
    beta = setting.least_squares
    chosen = np.argsort(-np.abs(beta))[:_FACTORISED]
    explained = np.abs(beta) * np.sqrt(setting.problem.n * setting.problem.feature_variances)
    chosen = chosen[explained[chosen] > _ROUNDING * np.linalg.norm(setting.problem.y)]
    assume(len(chosen), "the least-squares solution is 0: it has one balanced factorisation, all weights 0")
    return beta, np.sort(chosen)


def _factor(beta: Array, depth: int, logs: Array) -> Array:
    """Weights (L, d) with product beta and ``ln |w_l| = ln |beta| / L + logs_l``, logs summing to 0."""
    w = np.abs(beta) ** (1.0 / depth) * np.exp(logs)
    w[0] *= np.where(beta < 0, -1.0, 1.0)
    return w


def _least(objective: Callable[[Array], float], depth: int, size: int, rng: np.random.Generator) -> float:
    """Minimise over factorisations, from three random ones."""
    from scipy.optimize import minimize

    def free(x: Array) -> float:
        logs = np.vstack([x.reshape(depth - 1, size), -x.reshape(depth - 1, size).sum(axis=0)])
        return objective(logs) / unit

    # The iteration's tolerance is absolute.
    unit = 1.0
    unit = free(np.zeros((depth - 1) * size)) or 1.0
    return unit * min(
        float(minimize(free, rng.normal(0.0, 0.5, (depth - 1) * size), method="BFGS", options={"gtol": 1e-9}).fun)
        for _ in range(3)
    )


def _hessian_trace(problem: Regression, w: Array, chosen: Index) -> float:
    """Trace over the chosen coordinates' weights by second differences of L, exact: L is quadratic in each weight."""
    middle = float(problem.loss(w.prod(axis=0)))
    total, size = 0.0, float(np.abs(w[:, chosen]).max())
    for a in range(len(w)):
        for i in chosen:
            values = []
            for step in (size, -size):
                moved = w.copy()
                moved[a, i] += step
                values.append(float(problem.loss(moved.prod(axis=0))))
            total += (sum(values) - 2 * middle) / size**2
    return total


@theorem("least-hessian-trace", PAPER, "among factorisations of beta the Hessian trace is least at equal |w_l|")
def least_hessian_trace(setting: Setting) -> Evidence:
    depth = setting.product_depth
    beta, chosen = _factorised(setting)

    def trace(logs: Array) -> float:
        full = np.zeros((depth, setting.problem.d))
        full[:, chosen] = logs
        return _hessian_trace(setting.squares, _factor(beta, depth, full), chosen)

    variances = setting.problem.feature_variances[chosen]
    predicted = float(depth * variances @ np.abs(beta[chosen]) ** (2 - 2 / depth))
    measured = _least(trace, depth, len(chosen), setting.rng())
    return Evidence(
        f"product of {depth} weights; {len(chosen)} coordinates of the least-squares solution",
        predicted=predicted,
        measured=measured,
        error=abs(measured / predicted - 1),
        tolerance=1e-5,
        unit="relative difference: L sum s_i^2 |beta_i|^(2 - 2/L) against minimising second differences of the loss",
    )


@theorem("least-sharpness", PAPER, "among factorisations of beta E L(w + xi) - L(w) is least at equal |w_l|")
def least_sharpness(setting: Setting) -> Evidence:
    from flowsim.symbolic import kernels

    depth, eta = setting.product_depth, setting.eta
    beta, chosen = _factorised(setting)
    kernel, std = kernels(setting.diagonal), np.full(depth, eta)
    kind = np.zeros(len(chosen), dtype=np.int64)
    variances = setting.problem.feature_variances[chosen]

    def sharpness(logs: Array) -> float:
        out = np.empty(len(chosen))
        kernel.variance(np.ascontiguousarray(_factor(beta[chosen], depth, logs)), kind, std, out)
        return float(variances @ out) / 2

    squares = np.abs(beta[chosen]) ** (2 / depth)
    predicted = float(variances @ ((squares + eta**2) ** depth - squares**depth)) / 2
    measured = _least(sharpness, depth, len(chosen), setting.rng())
    return Evidence(
        f"product of {depth} weights, noise std {eta:g}",
        predicted=predicted,
        measured=measured,
        error=abs(measured / predicted - 1),
        tolerance=1e-6,
        unit="relative difference: 1/2 sum s_i^2 [(|beta_i|^(2/L) + eta^2)^L - beta_i^2] against its numerical minimum",
    )


@theorem("sharpness-identity", PAPER, "L = 2: E L(w + xi) - L(w) = eta^2/2 tr Hess L + eta^4/2 sum s_i^2 (Monte Carlo)")
def sharpness_identity(setting: Setting) -> Evidence:
    assume(setting.product_depth == 2, "stated for two layers")
    eta, problem = setting.eta, setting.squares
    drawable(setting)
    rng = setting.rng()
    w = sample_weights(setting, rng)
    trace = _hessian_trace(problem, w, np.arange(problem.d))
    predicted = eta**2 / 2 * trace + eta**4 / 2 * float(problem.feature_variances.sum())
    base = float(problem.loss(w.prod(axis=0)))
    rises = np.concatenate([problem.loss(draws(setting, w, rng)[0].prod(axis=0)) - base for _ in range(DRAWS // BATCH)])
    measured, deviation = float(rises.mean()), float(rises.std(ddof=1) / math.sqrt(len(rises)))
    return Evidence(
        f"u*v, noise std {eta:g}; {len(rises)} draws at one random point",
        predicted=predicted,
        measured=measured,
        error=abs(measured - predicted) / deviation,
        tolerance=STANDARD_ERRORS,
        unit="difference in standard errors",
    )
