r"""Sharpness: the Hessian of the loss in the weights, its trace, and its average under noise.

.. math:: \operatorname{tr} \nabla^2 L = \sum_i \big[ \sigma_i^2 |\nabla\varphi_i|^2 + g_i \Delta\varphi_i \big],
          \qquad \mathrm{E} L(\theta + \xi) - L(\theta)

Reference: arXiv:2503.11891.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sympy
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Integers
from flowsim.network import DiagonalNetwork
from flowsim.problem import Problem, require_squares
from flowsim.symbolic.expectation import term_bound
from flowsim.symbolic.kernels import kernels

#: Expressions with at most this many terms are simplified.
SHORT = 100


@dataclass(frozen=True)
class Sharpness:
    """Formulas for one coordinate."""

    #: ``g d2phi/dw_a dw_b + sigma^2 dphi/dw_a dphi/dw_b``, the coordinate's diagonal block; blocks of two coordinates
    #: are ``dphi_i/dw_a Sigma_ij dphi_j/dw_b``
    hessian: sympy.ImmutableDenseMatrix
    trace: sympy.Expr  #: ``sigma^2 |grad phi|^2 + g Laplace phi``
    #: the part of ``E L(w + xi) - L(w)`` that depends on the data through sigma alone: ``sigma^2/2 V``
    average: sympy.Expr
    #: ``m - phi``; if it is 0, `average` is the average sharpness, otherwise ``L(m) - L(phi)`` is added
    bias: sympy.Expr


def sharpness_of(
    phi: sympy.Expr,
    mean: sympy.Expr,
    variance: sympy.Expr,
    x: Sequence[sympy.Symbol],
    g: sympy.Symbol,
    sigma: sympy.Symbol,
) -> Sharpness:
    """The formulas of one coordinate."""
    slope = [phi.diff(w) for w in x]
    hessian = sympy.ImmutableDenseMatrix(
        [[g * slope[a].diff(w) + sigma**2 * slope[a] * slope[b] for b, w in enumerate(x)] for a in range(len(x))]
    )
    trace = sigma**2 * sum(s**2 for s in slope) + g * sum(s.diff(w) for s, w in zip(slope, x, strict=True))
    bias = sympy.S.Zero if mean == phi else mean - phi
    if bias.is_polynomial(*x) and term_bound(bias) <= SHORT:
        bias = sympy.expand(bias)
    return Sharpness(hessian, trace, sigma**2 / 2 * variance, bias)


def loss_hessian(net: DiagonalNetwork, problem: Problem, w: ArrayLike) -> Array:
    """Hessian of ``L(phi(w))`` in the flat weights (C order of (k, d)), shape (k d, k d). Dense X only.

    Parameters
    ----------
    net : DiagonalNetwork
    problem : Problem
        With one target.
    w : array (k, d)
    """
    w, beta, slope, kind = _state(net, problem, w)
    if not problem.is_dense:
        raise ValueError("`problem` must hold a dense X for its full Hessian; `hessian_trace` takes any.")
    k, d = w.shape
    curvature = np.empty((k, k, d))
    kernels(net).hessian(w, kind, curvature)
    sigma = (problem.X.T * problem.curvatures(problem.predict(beta))) @ problem.X / problem.n
    full = slope[:, :, None, None] * sigma[None, :, None, :] * slope[None, None]
    index = np.arange(d)
    full[:, index, :, index] += np.moveaxis(problem.gradient(beta) * curvature, 2, 0)
    return full.reshape(k * d, k * d)


def hessian_trace(net: DiagonalNetwork, problem: Problem, w: ArrayLike) -> float:
    """``tr Hess L = sum_i sigma_i^2 |grad phi_i|^2 + g_i Laplace phi_i``; any X; squares."""
    problem = require_squares(problem, "the trace of the Hessian")
    w, beta, slope, kind = _state(net, problem, w)
    curvature = np.empty((len(w), *w.shape))
    kernels(net).hessian(w, kind, curvature)
    laplacian = np.einsum("aai->i", curvature)
    return float(problem.feature_variances @ np.sum(slope**2, axis=0) + problem.gradient(beta) @ laplacian)


def average_sharpness(net: DiagonalNetwork, problem: Problem, w: ArrayLike) -> float:
    """``E L(w + xi) - L(w)`` under the network's noise; exact where its expectations are."""
    if net.noise is None:
        raise ValueError("`net` must have noise for its average sharpness; it has none.")
    problem = require_squares(problem, "the average sharpness")
    w, beta, _, kind = _state(net, problem, w)
    K, std = kernels(net), net.stds
    mean, variance = np.empty_like(beta), np.empty_like(beta)
    K.mean(w, kind, std, mean)
    K.variance(w, kind, std, variance)
    # L(m) - L(beta) as a product, without the difference of two large losses.
    shift = problem.predict(mean - beta)
    between = problem.predict((mean + beta) / 2) - problem.y
    return float(shift @ between / problem.n + 0.5 * problem.feature_variances @ variance)


def minimal_trace(net: DiagonalNetwork, beta: ArrayLike) -> Array:
    r"""The weights of least ``|grad phi_i|^2`` with ``phi_i(w_i) = beta_i``.

    At an interpolator these have the least Hessian trace.

    Parameters
    ----------
    net : DiagonalNetwork
    beta : array (d,)

    Returns
    -------
    w : array (k, d)
        For a product of L weights ``|w_l| = |beta|^(1/L)``, the sign on the last; otherwise the best of several
        constrained minimisations.

    Raises
    ------
    ValueError
        If no weights reach some beta_i.
    """
    beta = np.asarray(beta, dtype=float)
    if beta.ndim != 1 or not np.isfinite(beta).all():
        raise ValueError(f"`beta` must be a finite vector; received shape {beta.shape}.")
    w = np.zeros((len(net.weights), beta.size))
    for kind, (formula, rows, here) in enumerate(net.parts(beta.size)):
        for i in here:
            if formula.product_of is not None:
                w[rows, i] = abs(beta[i]) ** (1 / len(rows))
                w[rows[-1], i] *= np.sign(beta[i])
            else:
                w[rows, i] = _least_gradient(net, kind, rows, beta[i])
    return w


def _least_gradient(net: DiagonalNetwork, kind: int, rows: Integers, target: float) -> Array:
    from scipy.optimize import minimize

    K, k = kernels(net), len(net.weights)
    which = np.array([kind], dtype=np.int64)
    full, value, slope, curvature = np.zeros((k, 1)), np.empty(1), np.empty((k, 1)), np.empty((k, k, 1))

    def at(x: Array) -> tuple[float, Array, Array]:
        full[rows, 0] = x
        K.value(full, which, value)
        K.gradient(full, which, slope)
        K.hessian(full, which, curvature)
        return float(value[0]), slope[rows, 0].copy(), curvature[np.ix_(rows, rows)][:, :, 0].copy()

    def cost(x: Array) -> tuple[float, Array]:
        _, gradient, hessian = at(x)
        return float(gradient @ gradient), 2 * hessian @ gradient

    constraint = {"type": "eq", "fun": lambda x: at(x)[0] - target, "jac": lambda x: at(x)[1]}
    rng, best, least = np.random.default_rng(0), None, np.inf
    for _ in range(12):
        start = rng.standard_normal(len(rows)) * max(1.0, np.sqrt(abs(target)))
        with np.errstate(all="ignore"):
            found = minimize(
                cost, start, jac=True, constraints=[constraint], method="SLSQP", options={"ftol": 1e-14, "maxiter": 300}
            )
        reached = abs(at(found.x)[0] - target) <= 1e-7 * max(1.0, abs(target))
        if found.success and reached and found.fun < least:
            best, least = found.x, found.fun
    if best is None:
        raise ValueError(
            f"`beta` contains {target:.6g}, which no weights of {net.distinct[kind].text!r} were found to reach."
        )
    return best


def _state(net: DiagonalNetwork, problem: Problem, w: ArrayLike) -> tuple[Array, Array, Array, Integers]:
    """The weights (k, d), the predictor, its slopes (k, d) and the kinds of the coordinates."""
    w = np.ascontiguousarray(w, dtype=float)
    if w.shape != (len(net.weights), problem.d):
        raise ValueError(f"`w` must have shape ({len(net.weights)}, {problem.d}); received {w.shape}.")
    if problem.y.ndim != 1:
        raise ValueError(f"`problem` must have one target for a diagonal network; it has {problem.n_targets}.")
    kind, K = net.kinds(problem.d), kernels(net)
    beta, slope = np.empty(problem.d), np.empty_like(w)
    K.value(w, kind, beta)
    K.gradient(w, kind, slope)
    return w, beta, slope, kind
