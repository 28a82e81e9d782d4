"""Clara, Langer & Schmidt-Hieber, arXiv 2503.11891: weight noise, sharpness and shrinkage."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flowsim.certificates.certificate import Evidence, NotMetError, UnmeasuredError
from flowsim.certificates.registry import theorem
from flowsim.certificates.setting import Setting
from flowsim.network import DiagonalNetwork, MomentNoise
from flowsim.problem import Regression
from flowsim.results import Trajectory

__all__ = [
    "balancing",
    "balancing_rate",
    "depth_end_point",
    "depth_trap",
    "expected_gradient",
    "least_hessian_trace",
    "least_sharpness",
    "sharpness_identity",
    "shrinkage_thresholding",
    "weighted_lasso",
]

Array = NDArray[np.float64]

PAPER = "Clara, Langer & Schmidt-Hieber, arXiv 2503.11891"

#: Draws of the noise, and how many are looked at together.
_DRAWS, _BATCH = 8192, 256
#: Standard errors: a true statement about 10^4 numbers fails with probability 10^-9.
_STANDARD_ERRORS = 7.0
#: Coordinates whose factorisation is optimised; they are independent, so a few tell as much as all.
_FACTORISED = 6
_DOUBLINGS = 8
_STATIONARY = 1e-5
#: The trap is entered this far below the sufficient bound.
_TRAP_DEPTH = 0.9


def _functions(net: DiagonalNetwork, d: int) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
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


def _draws(setting: Setting, w: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """A batch of perturbed weights, (k, batch, d), and their derivative by the weights."""
    noise = setting.net.noise
    assert noise is not None
    std = noise.stds(setting.net.weights)[:, None, None]
    xi = std * noise.draw(rng, (w.shape[0], _BATCH, w.shape[1]))
    if noise.multiplicative:
        return w[:, None] * (1 + xi), 1 + xi
    return w[:, None] + xi, np.ones_like(xi)


def _drawable(setting: Setting) -> None:
    if isinstance(setting.net.noise, MomentNoise):
        raise NotMetError("noise given by its moments cannot be drawn")


def _sample_weights(setting: Setting, rng: np.random.Generator) -> Array:
    """Weights of the size that solutions have, every one away from 0."""
    size = math.sqrt(float(np.abs(setting.least_squares).max()) or 1.0)
    shape = (len(setting.net.weights), setting.problem.d)
    w: Array = min(size, 3.0) * rng.uniform(0.3, 1.0, shape) * rng.choice([-1.0, 1.0], shape)
    return w


@theorem("expected-gradient", PAPER, "the mean gradient at noisy weights is that of E L: residual and variance term")
def expected_gradient(setting: Setting) -> Evidence:
    from flowsim.symbolic import kernels

    net, problem = setting.diagonal, setting.problem
    if net.noise is None:
        raise NotMetError("the network has no weight noise")
    _drawable(setting)
    rng = setting.rng()
    w = _sample_weights(setting, rng)
    value, slope = _functions(net, problem.d)
    total, squares, count = np.zeros_like(w), np.zeros_like(w), 0
    for _ in range(_DRAWS // _BATCH):
        noisy, inner = _draws(setting, w, rng)
        residual = problem.predict(value(noisy)) - problem.y
        g = np.asarray(problem.X.T @ residual.T).T / problem.n
        sample = slope(noisy) * inner * g
        total += sample.sum(axis=1)
        squares += (sample**2).sum(axis=1)
        count += _BATCH
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0) / (count - 1))
    kernel, kind = kernels(net), net.kinds(problem.d)
    std = net.noise.stds(net.weights)
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
        float(-field[worst]),
        float(mean[worst]),
        float(score.max()),
        _STANDARD_ERRORS,
        f"largest difference of {w.size} components in standard errors (that component is shown)",
    )


def _balancing_run(setting: Setting) -> tuple[Trajectory, Array, Array]:
    """A run in the weights, w_1^2 - w_l^2 along it (T, L-1, d), and the integral of its predicted rate."""
    depth, eta, d = setting.product_depth, setting.eta, setting.problem.d
    names = setting.diagonal.weights
    variances = setting.problem.feature_variances
    start = {name: np.full(d, 1.0 - 0.5 * k / depth) for k, name in enumerate(names)}
    # Long enough for the slowest pair to lose a factor e^4 at least, were its other weights small.
    slowest = 2 * float(variances[variances > 0].min()) * eta ** (2 * (depth - 1))
    size = setting.large_alpha
    # Weights grow from `size` to the solution's; none may decay into rounding.
    fastest = 2 * float(variances.max()) * eta**2 * (9 * size**2 + eta**2) ** (depth - 2)
    t_end = min(4.0 / slowest, 12.0 / fastest)
    flow = setting.run(t_end, alpha=size, start=start, coordinates="weights", method="LSODA", rtol=1e-10, atol=1e-13)
    edges = np.linspace(0.0, flow.t[-1], 401)
    nodes, weights = np.polynomial.legendre.leggauss(5)
    half = np.diff(edges) / 2
    points = (edges[:-1] + half)[:, None] + half[:, None] * nodes
    state = flow.at(points.ravel())
    w2 = np.array([state.weights[name] for name in names]) ** 2 + eta**2
    rates = np.empty((len(half), 5, depth - 1, d))
    for pair in range(1, depth):
        others = [a for a in range(depth) if a not in (0, pair)]
        product = np.prod(w2[others], axis=0) if others else np.ones_like(w2[0])
        rates[:, :, pair - 1] = (2 * eta**2 * variances * product).reshape(len(half), 5, d)
    integral = np.concatenate(
        [np.zeros((1, depth - 1, d)), np.cumsum(np.einsum("sq,sqpd->spd", half[:, None] * weights, rates), axis=0)]
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
        float(np.exp(-integral[-1][:, moving].max())), float(share[-1][:, moving].min()), float(error), 1e-4,
        "largest difference of the imbalance from its law, relative to its start (end of the fastest pair shown)",
    )  # fmt: skip


@theorem(
    "balancing-rate",
    PAPER,
    "w_1^2 - w_l^2 decays at rate >= 2 s_i^2 eta^(2(L-1)), with = for L = 2",
)
def balancing_rate(setting: Setting) -> Evidence:
    depth, eta = setting.product_depth, setting.eta
    flow, gap, _ = setting.once(_balancing_run)
    variances = setting.problem.feature_variances
    moving = variances > 0
    predicted = 2 * variances[moving] * eta ** (2 * (depth - 1))
    # Half way through the run nothing has decayed to rounding yet.
    middle = len(gap) // 2
    measured = -np.log(gap[middle] / gap[0])[:, moving] / (flow.t[-1] / 2)
    ratio = measured / predicted
    if depth == 2:
        worst = int(np.argmax(np.abs(ratio[0] - 1)))
        return Evidence(
            f"two layers, noise std {eta:g}", float(predicted[worst]), float(measured[0][worst]),
            float(np.abs(ratio[0][worst] - 1)), 1e-4, "relative error of the decay rate, the worst coordinate",
        )  # fmt: skip
    pair, worst = divmod(int(np.argmin(ratio)), ratio.shape[1])
    return Evidence(
        f"product of {depth} weights, noise std {eta:g}", float(predicted[worst]), float(measured[pair, worst]),
        float(1 / ratio[pair, worst]), 1 + 1e-6, "bound over measured rate, at the pair where they are closest",
    )  # fmt: skip


def _factorised(setting: Setting) -> tuple[Array, NDArray[np.intp]]:
    """beta to factorise: the least-squares solution and its largest coordinates."""
    beta = setting.least_squares
    chosen = np.argsort(-np.abs(beta))[:_FACTORISED]
    chosen = chosen[beta[chosen] != 0]
    if not len(chosen):
        raise NotMetError("the least-squares solution is 0: it has one balanced factorisation, all weights 0")
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
        return objective(logs)

    return min(
        float(minimize(free, rng.normal(0.0, 0.5, (depth - 1) * size), method="BFGS", options={"gtol": 1e-9}).fun)
        for _ in range(3)
    )


def _hessian_trace(problem: Regression, w: Array, chosen: NDArray[np.intp]) -> float:
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
        return _hessian_trace(setting.problem, _factor(beta, depth, full), chosen)

    variances = setting.problem.feature_variances[chosen]
    predicted = float(depth * variances @ np.abs(beta[chosen]) ** (2 - 2 / depth))
    measured = _least(trace, depth, len(chosen), setting.rng())
    return Evidence(
        f"product of {depth} weights; {len(chosen)} coordinates of the least-squares solution", predicted, measured,
        abs(measured / predicted - 1), 1e-5,
        "relative difference: L sum s_i^2 |beta_i|^(2 - 2/L) against minimising second differences of the loss",
    )  # fmt: skip


@theorem(
    "least-sharpness",
    PAPER,
    "among factorisations of beta E L(w + xi) - L(w) is least at equal |w_l|",
)
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
        f"product of {depth} weights, noise std {eta:g}", predicted, measured, abs(measured / predicted - 1), 1e-6,
        "relative difference: 1/2 sum s_i^2 [(|beta_i|^(2/L) + eta^2)^L - beta_i^2] against its numerical minimum",
    )  # fmt: skip


@theorem("sharpness-identity", PAPER, "L = 2: E L(w + xi) - L(w) = eta^2/2 tr Hess L + eta^4/2 sum s_i^2 (Monte Carlo)")
def sharpness_identity(setting: Setting) -> Evidence:
    if setting.product_depth != 2:
        raise NotMetError("stated for two layers")
    eta, problem = setting.eta, setting.problem
    _drawable(setting)
    rng = setting.rng()
    w = _sample_weights(setting, rng)
    trace = _hessian_trace(problem, w, np.arange(problem.d))
    predicted = eta**2 / 2 * trace + eta**4 / 2 * float(problem.feature_variances.sum())
    base = float(problem.loss(w.prod(axis=0)))
    draws = np.concatenate(
        [problem.loss(_draws(setting, w, rng)[0].prod(axis=0)) - base for _ in range(_DRAWS // _BATCH)]
    )
    measured, deviation = float(draws.mean()), float(draws.std(ddof=1) / math.sqrt(len(draws)))
    return Evidence(
        f"u*v, noise std {eta:g}; {len(draws)} draws at one random point", predicted, measured,
        abs(measured - predicted) / deviation, _STANDARD_ERRORS, "difference in standard errors",
    )  # fmt: skip


def _shrunk(setting: Setting) -> tuple[Array, Array, float]:
    """End of the noisy two-layer flow, its penalties, and the largest violation of the weighted Lasso's conditions."""
    if setting.product_depth != 2:
        raise NotMetError("stated for two layers; deeper networks: depth-end-point and depth-trap")
    problem, kappa = setting.problem, setting.eta**2 * setting.problem.feature_variances
    scale = float(np.abs(setting.correlation).max())
    alpha = setting.alpha if setting.alpha is not None else 1e-3
    t_end = 10.0 / float(kappa[kappa > 0].min())
    beta, worst = np.zeros(problem.d), math.inf
    for _ in range(_DOUBLINGS):
        beta = setting.run(t_end, alpha=alpha).beta[-1]
        worst = _lasso_violation(problem, beta, kappa) / scale
        if worst < _STATIONARY / 10:
            break
        t_end *= 2
    return beta, kappa, worst


def _lasso_violation(problem: Regression, beta: Array, kappa: Array) -> float:
    """``max |g_i + kappa_i sign beta_i|`` on the support, ``(|g_i| - kappa_i)_+`` off it; never larger than the sum."""
    g = problem.gradient(beta)
    size = np.abs(beta).max(initial=0.0)
    active = np.abs(beta) > 1e-6 * size
    slack = np.where(active, np.abs(g + kappa * np.sign(beta)), np.maximum(np.abs(g) - kappa, 0.0))
    return float(slack.max())


@theorem(
    "shrinkage-thresholding",
    PAPER,
    "orthogonal design, L = 2: the end soft-thresholds X^T y / n at eta^2 s_i^2",
)
def shrinkage_thresholding(setting: Setting) -> Evidence:
    gram = setting.X.T @ setting.X / setting.problem.n
    off = float(np.abs(gram - np.diag(np.diag(gram))).max() / np.abs(gram).max())
    if off > 1e-10:
        raise NotMetError(f"X^T X / n is not diagonal: its largest entry off the diagonal is {off:.1e} of the largest")
    beta, kappa, _ = setting.once(_shrunk)
    c = setting.correlation
    variances = np.diag(gram)
    target = np.sign(c) * np.maximum(np.abs(c) - kappa, 0.0) / np.where(variances > 0, variances, 1.0)
    size = float(np.abs(c / np.where(variances > 0, variances, 1.0)).max())
    error = float(np.abs(beta - target).max()) / size
    return Evidence(
        f"X^T X / n is diagonal, noise std {setting.eta:g}",
        f"{int((target != 0).sum())} of {len(target)} survive",
        f"{int((np.abs(beta) > 1e-4 * size).sum())} survive",
        error, 1e-4, "largest difference of a coordinate, relative to the largest least-squares coordinate",
        {"predicted": target, "measured": beta},
    )  # fmt: skip


@theorem("weighted-lasso", PAPER, "any design, L = 2: the end is the Lasso with penalties eta^2 s_i^2 (KKT)")
def weighted_lasso(setting: Setting) -> Evidence:
    beta, kappa, worst = setting.once(_shrunk)
    size = np.abs(beta).max(initial=0.0)
    support = int((np.abs(beta) > 1e-6 * size).sum()) if size > 0 else 0
    return Evidence(
        f"u*v, noise std {setting.eta:g}", "KKT violation 0", worst, worst, _STATIONARY,
        "largest violation of the optimality conditions, relative to max |X^T y| / n",
        {"beta": beta, "penalties": kappa, "support": support},
    )  # fmt: skip


@theorem(
    "depth-end-point",
    PAPER,
    "L >= 3: survivors end balanced at |g_i| = V_i'(|beta_i|)",
)
def depth_end_point(setting: Setting) -> Evidence:
    depth, eta = setting.product_depth, setting.eta
    if depth < 3:
        raise NotMetError("two layers: shrinkage-thresholding and weighted-lasso")
    problem, names = setting.problem, setting.diagonal.weights
    variances = problem.feature_variances
    start = {name: np.full(problem.d, 1.0 - 0.2 * k / depth) for k, name in enumerate(names)}
    alpha = setting.large_alpha
    rate = float(variances[variances > 0].min()) * eta**2 * (alpha**2 + eta**2) ** (depth - 2)
    t_end, scale = 5.0 / rate, float(np.abs(setting.correlation).max())
    found: tuple[Array, NDArray[np.bool_], float, float] | None = None
    for _ in range(_DOUBLINGS):
        w = _end_of_decay(setting, t_end, alpha, start)
        beta = w.prod(axis=0)
        alive = np.abs(beta) > 1e-3 * np.abs(beta).max(initial=1e-300)
        size = np.abs(w).max(axis=0)
        unbalanced = float(((size - np.abs(w).min(axis=0)) / size)[alive].max(initial=0.0))
        # Below the trap's scale nothing survives: the predictor is on its way to 0.
        if np.abs(beta).max() < eta**depth * 1e-6:
            raise NotMetError(f"noise of std {eta:g} is too strong here: every coordinate falls into the trap at 0")
        b = np.abs(beta[alive])
        pull = variances[alive] * ((b ** (2 / depth) + eta**2) ** (depth - 1) * b ** (2 / depth - 1) - b)
        violation = float(np.abs(problem.gradient(beta)[alive] + np.sign(beta[alive]) * pull).max()) / scale
        found = (beta, alive, violation, unbalanced)
        if max(violation, unbalanced) < 1e-6:
            break
        t_end *= 2
    assert found is not None
    beta, alive, violation, unbalanced = found
    details: dict[str, object] = {"survivors": np.flatnonzero(alive), "beta": beta, "unbalanced": unbalanced}
    if depth == 3:
        floor = 2 * math.sqrt(2) * variances[alive] * eta**3
        details["least_gradient_over_floor"] = float((np.abs(problem.gradient(beta)[alive]) / floor).min())
    return Evidence(
        f"product of {depth} weights, noise std {eta:g}, start of size {alpha:.3g}; {int(alive.sum())} survive",
        "stationary and balanced", f"off by {violation:.1e} and {unbalanced:.1e}", max(violation, unbalanced), 1e-4,
        "violation relative to max |X^T y| / n, or relative spread of the |w_l| of a coordinate", details,
    )  # fmt: skip


def _end_of_decay(setting: Setting, t_end: float, alpha: float, start: dict[str, Array]) -> Array:
    """Last weights of a run through SciPy on the kernel's own field: coordinates may sink to 0 here."""
    from scipy.integrate import solve_ivp

    from flowsim.symbolic import kernels

    net, problem = setting.diagonal, setting.problem
    assert net.noise is not None
    kernel, kind, std = kernels(net), net.kinds(problem.d), net.noise.stds(net.weights)
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
        raise UnmeasuredError(f"the flow with noise stopped at t = {run.t[-1] if len(run.t) else 0:.3g}: {run.message}")
    end: Array = run.y[:, -1].reshape(shape)
    return end


@theorem("depth-trap", PAPER, "L >= 3: from max |w|^(L-2) < eta^(2(L-1)) s_i / sqrt(2 E L) all falls to 0")
def depth_trap(setting: Setting) -> Evidence:
    depth, eta, problem = setting.product_depth, setting.eta, setting.problem
    if depth < 3:
        raise NotMetError("two layers have no trap: any coordinate with |c_i| > kappa_i escapes from 0")
    if np.abs(setting.correlation).max() == 0:
        raise NotMetError("X^T y = 0: the origin is the minimiser")
    variances = problem.feature_variances
    moving = variances > 0
    # E L(0) at a start of size s is at most what it is at s = eta; iterate once from there.
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
        f"max |w| shrinks to <= {predicted:.3f}", f"{largest:.3g}", largest / predicted, 1.0 + 1e-9,
        f"largest weight at t = {t_end:.3g} over its bound exp(-(1 - share) s^2 eta^(2(L-1)) t)",
        {"start": size, "bound": bound, "t_end": t_end},
    )  # fmt: skip


def _expected_loss(setting: Setting, w: Array) -> float:
    problem, eta = setting.problem, setting.eta
    variance = np.prod(w**2 + eta**2, axis=0) - np.prod(w**2, axis=0)
    return float(problem.loss(w.prod(axis=0)) + problem.feature_variances @ variance / 2)


def _logarithmic_decay(setting: Setting, start: Array, t_end: float) -> Array:
    """The flow of products under noise in ``ln |w|``, written out by hand; signs never change."""
    from scipy.integrate import solve_ivp

    problem, eta2 = setting.problem, setting.eta**2
    signs = np.sign(start)

    def rhs(_: float, flat: Array) -> Array:
        w = signs * np.exp(flat.reshape(start.shape))
        beta = w.prod(axis=0)
        g = problem.gradient(beta)
        squares = w**2
        rate = np.empty_like(w)
        for a in range(len(w)):
            others = np.delete(squares, a, axis=0)
            pull = (others + eta2).prod(axis=0) - others.prod(axis=0)
            rate[a] = -g * beta / squares[a] - problem.feature_variances * pull
        return rate.ravel()

    run = solve_ivp(
        rhs, (0.0, t_end), np.log(np.abs(start)).ravel(), method="LSODA", rtol=1e-9, atol=1e-9, t_eval=[t_end]
    )
    if not run.success or not np.isfinite(run.y).all():
        raise UnmeasuredError(f"the flow with noise stopped before t = {t_end:.3g}: {run.message}")
    end: Array = signs * np.exp(run.y[:, -1].reshape(start.shape))
    return end
