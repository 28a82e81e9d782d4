"""Clara, Langer & Schmidt-Hieber, arXiv 2503.11891: the expected gradient, and balancing by noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from flowsim.arrays import Array, gauss_points
from flowsim.certificates.certificate import Evidence, NotMetError, assume
from flowsim.certificates.registry import theorem
from flowsim.certificates.setting import Setting
from flowsim.network import DiagonalNetwork, MomentNoise
from flowsim.results import Trajectory

PAPER = "Clara, Langer & Schmidt-Hieber, arXiv 2503.11891"

#: Draws of the noise, and how many are processed together.
DRAWS, BATCH = 8192, 256
#: Gauss nodes between the points at which a law is tested.
_NODES = 5
#: Tolerance in standard errors: a true statement about 10^4 numbers fails with probability 10^-9.
STANDARD_ERRORS = 7.0


def formula_functions(net: DiagonalNetwork, d: int) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """phi and its gradient at weights (k, N, d), straight from the formula: (N, d) and (k, N, d)."""
    import sympy

    kinds, names = net.kinds(d), net.weights
    parts = []
    for formula in net.distinct:
        by_name = {symbol.name: symbol for symbol in formula.expression.free_symbols}
        symbols = [by_name.get(name, sympy.Symbol(name, real=True)) for name in names]
        phi = sympy.lambdify(symbols, formula.expression, "numpy")
        slopes = [sympy.lambdify(symbols, sympy.diff(formula.expression, symbol), "numpy") for symbol in symbols]
        parts.append((phi, slopes))

    def value(w: Array) -> Array:
        out = np.zeros(w.shape[1:])
        for kind, (phi, _) in enumerate(parts):
            here = kinds == kind
            out[:, here] = phi(*w[:, :, here])
        return out

    def gradient(w: Array) -> Array:
        out = np.zeros(w.shape)
        for kind, (_, slopes) in enumerate(parts):
            here = kinds == kind
            for a, slope in enumerate(slopes):
                out[a][:, here] = slope(*w[:, :, here])
        return out

    return value, gradient


def draws(setting: Setting, w: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """A batch of perturbed weights, (k, batch, d), and their derivative by the weights."""
    noise = setting.net.noise
    assert noise is not None
    std = setting.net.stds[:, None, None]
    xi = std * noise.draw(rng, (w.shape[0], BATCH, w.shape[1]))
    if noise.multiplicative:
        return w[:, None] * (1 + xi), 1 + xi
    return w[:, None] + xi, np.ones_like(xi)


def drawable(setting: Setting) -> None:
    assume(not isinstance(setting.net.noise, MomentNoise), "noise given by its moments cannot be drawn")


def sample_weights(setting: Setting, rng: np.random.Generator) -> Array:
    """Random weights of the size of the solution's, bounded away from 0."""
    size = math.sqrt(float(np.abs(setting.least_squares).max()) or 1.0)
    shape = (len(setting.net.weights), setting.problem.d)
    return min(size, 3.0) * rng.uniform(0.3, 1.0, shape) * rng.choice([-1.0, 1.0], shape)


@theorem("expected-gradient", PAPER, "the mean gradient at noisy weights is that of E L: residual and variance term")
def expected_gradient(setting: Setting) -> Evidence:
    from flowsim.symbolic import kernels

    net, problem = setting.diagonal, setting.problem
    if net.noise is None:
        raise NotMetError("the network has no weight noise")
    drawable(setting)
    rng = setting.rng()
    w = sample_weights(setting, rng)
    value, slope = formula_functions(net, problem.d)
    total, squares, count = np.zeros_like(w), np.zeros_like(w), 0
    for _ in range(DRAWS // BATCH):
        noisy, inner = draws(setting, w, rng)
        residual = problem.predict(value(noisy)) - problem.y
        g = np.asarray(problem.X.T @ residual.T).T / problem.n
        sample = slope(noisy) * inner * g
        total += sample.sum(axis=1)
        squares += (sample**2).sum(axis=1)
        count += BATCH
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0) / (count - 1))
    kernel, kind = kernels(net), net.kinds(problem.d)
    std = net.stds
    center, field = np.empty(problem.d), np.empty_like(w)
    kernel.mean(w, kind, std, center)
    kernel.field(w, kind, std, problem.gradient(center), problem.feature_variances, field)
    used = deviation > 0
    score = np.abs(mean + field)[used] / deviation[used]
    worst = np.unravel_index(
        int(np.argmax(np.where(used, np.abs(mean + field) / np.where(used, deviation, 1), 0))), w.shape
    )
    return Evidence(
        f"{net.noise.name} noise; {count} draws at one random point",
        predicted=float(-field[worst]),
        measured=float(mean[worst]),
        error=float(score.max()),
        tolerance=STANDARD_ERRORS,
        unit=f"largest difference of {w.size} components in standard errors (that component is shown)",
    )


def _balancing_run(setting: Setting) -> tuple[Trajectory, Array, Array]:
    """A run in the weights, w_1^2 - w_l^2 along it (T, L-1, d), and the integral of its predicted rate."""
    depth, eta, d = setting.product_depth, setting.eta, setting.problem.d
    names = setting.diagonal.weights
    variances = setting.problem.feature_variances
    start = {name: np.full(d, 1.0 - 0.5 * k / depth) for k, name in enumerate(names)}
    # Long enough for the slowest pair to decay by a factor e^4 at least, if its other weights are small.
    slowest = 2 * float(variances[variances > 0].min()) * eta ** (2 * (depth - 1))
    size = setting.large_alpha
    # Weights grow from `size` to the solution's; none may decay into rounding.
    fastest = 2 * float(variances.max()) * eta**2 * (9 * size**2 + eta**2) ** (depth - 2)
    t_end = min(4.0 / slowest, 12.0 / fastest)
    flow = setting.run(t_end, alpha=size, start=start, coordinates="weights", method="LSODA", rtol=1e-10, atol=1e-13)
    edges = np.linspace(0.0, flow.t[-1], 401)
    points, weights = gauss_points(edges, _NODES)
    state = flow.at(points.ravel())
    w2 = np.array([state.weights[name] for name in names]) ** 2 + eta**2
    rates = np.empty((*points.shape, depth - 1, d))
    for pair in range(1, depth):
        others = [a for a in range(depth) if a not in (0, pair)]
        product = np.prod(w2[others], axis=0) if others else np.ones_like(w2[0])
        rates[:, :, pair - 1] = (2 * eta**2 * variances * product).reshape(*points.shape, d)
    integral = np.concatenate(
        [np.zeros((1, depth - 1, d)), np.cumsum(np.einsum("sq,sqpd->spd", weights, rates), axis=0)]
    )
    at = flow.at(edges)
    w = np.array([at.weights[name] for name in names])
    gap = np.moveaxis(w[0] ** 2 - w[1:] ** 2, 0, 1)
    return flow, gap, integral


@theorem("balancing", PAPER, "w_1^2 - w_l^2 decays as exp(-2 s^2 eta^2 int prod_{k != 1,l}(w_k^2 + eta^2))")
def balancing(setting: Setting) -> Evidence:
    depth, eta = setting.product_depth, setting.eta
    flow, gap, integral = setting.once(_balancing_run)
    share = gap / gap[:1]
    error = np.abs(share - np.exp(-integral)).max()
    moving = setting.problem.feature_variances > 0
    return Evidence(
        f"product of {depth} weights, noise std {eta:g}; measured in weight coordinates to t = {flow.t[-1]:.3g}",
        predicted=float(np.exp(-integral[-1][:, moving].max())),
        measured=float(share[-1][:, moving].min()),
        error=float(error),
        tolerance=1e-4,
        unit="largest difference of the imbalance from its law, relative to its start (end of the fastest pair shown)",
    )


@theorem("balancing-rate", PAPER, "w_1^2 - w_l^2 decays at rate >= 2 s_i^2 eta^(2(L-1)), with = for L = 2")
def balancing_rate(setting: Setting) -> Evidence:
    depth, eta = setting.product_depth, setting.eta
    flow, gap, _ = setting.once(_balancing_run)
    variances = setting.problem.feature_variances
    moving = variances > 0
    predicted = 2 * variances[moving] * eta ** (2 * (depth - 1))
    # Half way through the run no imbalance has decayed to rounding.
    middle = len(gap) // 2
    measured = -np.log(gap[middle] / gap[0])[:, moving] / (flow.t[-1] / 2)
    ratio = measured / predicted
    if depth == 2:
        worst = int(np.argmax(np.abs(ratio[0] - 1)))
        return Evidence(
            f"two layers, noise std {eta:g}",
            predicted=float(predicted[worst]),
            measured=float(measured[0][worst]),
            error=float(np.abs(ratio[0][worst] - 1)),
            tolerance=1e-4,
            unit="relative error of the decay rate, the worst coordinate",
        )
    pair, worst = divmod(int(np.argmin(ratio)), ratio.shape[1])
    return Evidence(
        f"product of {depth} weights, noise std {eta:g}",
        predicted=float(predicted[worst]),
        measured=float(measured[pair, worst]),
        error=float(1 / ratio[pair, worst]),
        tolerance=1 + 1e-6,
        unit="bound over measured rate, at the pair where they are closest",
    )
