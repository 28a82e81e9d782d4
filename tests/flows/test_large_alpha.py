"""Starts of large alpha fit like a kernel method: coefficients are small differences of large terms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp

import flowsim as fs

TIMES = np.array([0.1, 1.0, 3.0])


def data():
    rng = np.random.default_rng(5)
    return rng.standard_normal((6, 4)), rng.standard_normal(6)


def kernel_flow(alpha, start, damping=0.0, loss=lambda f, y: f - y):
    """u*v from ``alpha (u, 0)`` in ``U = u/alpha`` and ``W = alpha v``, none of which cancels, at times / alpha^2."""
    X, y = data()
    n, d = X.shape

    def rhs(t, state):
        U, W = state[:d], state[d:]
        g = X.T @ loss(X @ (U * W), y) / n
        return np.concatenate([-g * W / alpha**4, -g * U]) - np.tile(damping / alpha**2 * np.ones(d), 2) * state

    found = solve_ivp(rhs, (0, TIMES[-1]), [start] * d + [0.0] * d, "DOP853", TIMES, rtol=1e-12, atol=1e-14)
    return (found.y[:d] * found.y[d:]).T


def run(net, alpha, start, problem=None, **options):
    problem = problem or fs.Regression(*data())
    traj = fs.gradient_flow(
        net, problem, TIMES[-1] / alpha**2, alpha=alpha, start=start, t_eval=TIMES / alpha**2, estimate_error=True,
        **options,
    )  # fmt: skip
    return traj


@pytest.mark.parametrize(
    ("alpha", "method"), [(10.0, "auto"), (300.0, "auto"), (300.0, "BDF"), (1e4, "auto"), (1e20, "BDF")]
)
def test_flows_of_large_alpha_are_those_of_the_kernel(alpha, method):
    right = kernel_flow(alpha, np.sqrt(2))
    traj = run(fs.DiagonalNetwork("u*v"), alpha, None, method=method)
    errors = np.abs(traj.beta - right).max(axis=1)
    assert errors.max() <= 1e-6 * np.abs(right).max()
    assert (errors <= 2 * traj.error_estimate + 1e-11).all()
    # u^2 - v^2 from u = v has the same kernel, and a curvature that vanishes as alpha grows.
    twice = run(fs.DiagonalNetwork("u**2 - v**2"), alpha, {"u": 0.5, "v": 0.5}, method=method)
    assert_allclose(twice.beta, right, atol=(1e-6 + 1 / alpha**4) * np.abs(right).max())


@pytest.mark.parametrize("alpha", [300.0, 1e7])
@pytest.mark.parametrize("damped", ["noise", "decay", "loss"])
def test_so_are_those_with_noise_decay_and_other_losses(alpha, damped):
    X, y = data()
    variances, problem = (X**2).mean(axis=0), None
    net, damping, slope = fs.DiagonalNetwork("u*v"), np.zeros(4), lambda f, y: f - y
    if damped == "noise":
        # So large that it is seen at all within the time of the fit.
        net, damping = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(alpha / 2)), alpha**2 / 4 * variances
    elif damped == "decay":
        net, damping = fs.DiagonalNetwork("u*v", weight_decay=alpha**2 / 4), np.full(4, alpha**2 / 4)
    else:
        problem, slope = fs.Problem(X, y, loss="log-cosh"), lambda f, y: np.tanh(f - y)
    right = kernel_flow(alpha, np.sqrt(2), damping, slope)
    assert_allclose(run(net, alpha, None, problem).beta, right, atol=2e-6 * np.abs(right).max())


@pytest.mark.parametrize("formula", ["u*v + u**3*v", "u**4 - v**4"])
@pytest.mark.parametrize("alpha", [10.0, 100.0, 1e4])
def test_formulas_of_higher_order_are_solved_to_the_tolerance_or_refused(formula, alpha):
    X, y = data()
    S, fit = X.T @ X / 6, np.linalg.lstsq(X, y)[0]
    eigenvalues, Q = np.linalg.eigh(S)
    product = formula.startswith("u*v")
    kernel, start = ((alpha + alpha**3) ** 2, {"u": 1.0, "v": 0.0}) if product else (32 * alpha**6, None)
    net, times = fs.DiagonalNetwork(formula), TIMES / kernel

    def flow():
        return fs.gradient_flow(net, fs.Regression(X, y), times[-1], alpha=alpha, start=start, t_eval=times).beta

    if product or alpha < 100:
        right = fit - (Q @ (np.exp(-eigenvalues * TIMES[:, None]) * (Q.T @ fit)).T).T
        assert_allclose(flow(), right, atol=2e-6 * np.abs(right).max())
    else:
        with pytest.raises(fs.IntegrationError, match="differences of terms so large"):
            flow()


def test_small_data_are_the_same_as_a_large_start():
    X, y = data()
    one = fs.gradient_flow(fs.DiagonalNetwork("u*v"), fs.Regression(X, y), 3e-4, alpha=100.0, t_eval=TIMES / 1e4)
    other = fs.gradient_flow(
        fs.DiagonalNetwork("u*v"), fs.Regression(X, y * 2.0**-20), 3e-4 * 2.0**20, alpha=100.0 / 2.0**10,
        t_eval=TIMES / 1e4 * 2.0**20,
    )  # fmt: skip
    assert_allclose(other.beta * 2.0**20, one.beta, rtol=1e-6)


@pytest.mark.parametrize("alpha", [1e4, 1e7])
def test_descent_takes_weights_where_growth_coordinates_would_round_coefficients_away(alpha):
    X, y = data()
    u, v, h = np.full(4, alpha * np.sqrt(2)), np.zeros(4), 0.01 / alpha**2
    for _ in range(50):
        g = X.T @ (X @ (u * v) - y) / 6
        u, v = u - h * g * v, v - h * g * u
    descent = fs.gradient_descent(fs.DiagonalNetwork("u*v"), fs.Regression(X, y), h, 50, alpha=alpha)
    assert descent.info["coordinates"] == "weights"
    assert_allclose(descent.beta[-1], u * v, rtol=1e-12)
    with pytest.raises(ValueError, match="cannot be 'growth' at `alpha`"):
        fs.gradient_descent(fs.DiagonalNetwork("u*v"), fs.Regression(X, y), h, 50, alpha=alpha, coordinates="growth")


def test_the_native_method_is_refused_where_it_would_round_coefficients_away():
    with pytest.raises(ValueError, match="cannot be 'native' at `alpha`"):
        run(fs.DiagonalNetwork("u*v"), 1e7, None, method="native")


def test_descent_is_refused_where_weights_cancel_as_well():
    with pytest.raises(fs.IntegrationError, match="differences of terms so large"):
        fs.gradient_descent(fs.DiagonalNetwork("u**2 - v**2"), fs.Regression(*data()), 1e-16, 5, alpha=1e7)


def test_modified_flows_of_large_alpha_are_solved_to_the_tolerance_or_refused():
    net, problem = fs.DiagonalNetwork("u*v"), fs.Regression(*data())
    right = kernel_flow(300.0, np.sqrt(2))
    found = fs.modified_flow(net, problem, 1e-14, 3 / 300**2, alpha=300.0, t_eval=TIMES / 300**2)
    assert_allclose(found.beta, right, atol=1e-6 * np.abs(right).max())
    with pytest.raises(ValueError, match="`alpha` must be smaller"):
        fs.modified_flow(net, problem, 1e-14, 3e-12, alpha=1e6)


def linear_start(kind):
    """U and V with U V^T = 0."""
    rng, Q = np.random.default_rng(3), np.linalg.qr(np.random.default_rng(4).standard_normal((3, 3)))[0]
    return rng.standard_normal((4, 2)) @ Q[:, :2].T, (kind == "unaligned") * rng.standard_normal((1, 1)) * Q[:, 2]


@pytest.mark.parametrize(("alpha", "kind"), [(3e3, "unaligned"), (1e6, "one layer")])
def test_linear_networks_that_start_from_zero_fit_with_the_kernel_of_both_layers(alpha, kind):
    X, y = data()
    U, V = linear_start(kind)
    kernel = (U @ U.T + (V @ V.T) * np.eye(4)) @ X.T / 6  # beta' = -(g V V^T + U U^T g) to first order
    right = solve_ivp(lambda t, b: kernel @ (y - X @ b), (0, 3), np.zeros(4), "LSODA", TIMES, rtol=1e-11, atol=1e-13)
    traj = fs.gradient_flow(
        fs.LinearNetwork(U.shape[1]), fs.Regression(X, y), 3 / alpha**2, alpha=alpha, start={"U": U, "V": V},
        t_eval=TIMES / alpha**2,
    )  # fmt: skip
    assert_allclose(traj.beta[..., 0], right.y.T, atol=2e-6 * np.abs(right.y).max())


def test_linear_networks_whose_large_products_cancel_are_refused():
    U, V = linear_start("unaligned")
    mirrored = {"U": np.hstack([U, -U]), "V": np.ones((1, 6))}
    with pytest.raises(fs.IntegrationError, match="differences of terms so large"):
        fs.gradient_flow(fs.LinearNetwork(6), fs.Regression(*data()), 1e-14, alpha=1e7, start=mirrored)
    with pytest.raises(fs.IntegrationError, match="differences of terms so large"):
        fs.gradient_flow(fs.LinearNetwork(3), fs.Regression(*data()), 1e-14, alpha=1e7, start={"U": U, "V": V})
    assert fs.gradient_flow(
        fs.LinearNetwork(3), fs.Regression(*data()), 1e-14, alpha=1e7, start={"U": U + 1, "V": V + 1}
    ).success


@pytest.mark.parametrize(("method", "rtol", "most"), [("LSODA", 1e-6, 900), ("Radau", 1e-5, 500), ("BDF", 1e-6, 900)])
def test_scipys_methods_come_to_rest_where_small_weights_stand_beside_large_ones(method, rtol, most):
    problem = fs.Regression(*data())
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("u*v"), problem, 10.0, start={"u": 1e4, "v": 1e-4}, method=method, rtol=rtol,
        estimate_error=True,
    )  # fmt: skip
    fit = np.linalg.lstsq(*data())[0]
    assert traj.stats["steps"] < most
    assert np.abs(traj.beta[-1] - fit).max() <= rtol * np.abs(fit).max()
    assert traj.error_estimate[-1] <= rtol * np.abs(fit).max()


SLOPES = {
    "squared": lambda f, y: f - y,
    "log-cosh": lambda f, y: np.tanh(f - y),
    "logistic": lambda f, s: -s / (1 + np.exp(s * f)),
    "exponential": lambda f, s: -s * np.exp(-s * f),
}


def far_apart(large, other, times, loss="squared", damping=0.0):
    """u*v from u = (large, 1e-2, 1e-2, 1e-2), v = other, in u over its start and v times that."""
    X, y = data()
    X, y = X[:3], np.sign(y[:3]) if loss in ("logistic", "exponential") else y[:3]
    unit = np.array([large, 1.0, 1.0, 1.0])

    def rhs(t, state):
        U, W = state[:4], state[4:]
        g = X.T @ SLOPES[loss](X @ (U * W), y) / 3
        return np.concatenate([-g * W / unit**2, -g * U * unit**2]) - np.tile(damping * np.ones(4), 2) * state

    begin = np.concatenate([np.array([1.0, 1e-2, 1e-2, 1e-2]), other * unit])
    right = solve_ivp(rhs, (0, times[-1]), begin, "Radau", times, rtol=1e-9, atol=1e-12)
    return (right.y[:4] * right.y[4:]).T


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("large", "other", "loss", "damped"),
    [
        (1e6, 0.0, "log-cosh", ""), (1e6, 1e-2, "squared", ""), (1e8, 1e-6, "squared", ""),
        (1e6, 0.0, "squared", "decay"), (1e6, 1e-2, "squared", "noise"), (1e4, 0.0, "log-cosh", "decay"),
    ],
)  # fmt: skip
def test_a_coordinate_that_starts_far_above_the_others_has_an_unknown_of_its_own(large, other, loss, damped):
    X, y = data()
    times = np.array([1e-3, 0.1, 10.0])
    damping = {"": 0.0, "decay": 0.1, "noise": 0.09 * (X[:3] ** 2).mean(axis=0)}[damped]
    net = fs.DiagonalNetwork(
        "u*v", noise=fs.GaussianNoise(0.3) if damped == "noise" else None, weight_decay=0.1 * (damped == "decay")
    )
    traj = fs.gradient_flow(
        net, fs.Problem(X[:3], y[:3], loss=loss), 10.0, start={"u": [large, 1e-2, 1e-2, 1e-2], "v": other},
        t_eval=times, estimate_error=True,
    )  # fmt: skip
    errors = np.abs(traj.beta - far_apart(large, other, times, loss, damping)).max(axis=1)
    assert errors.max() <= 2e-6
    assert (errors <= 2 * traj.error_estimate + 1e-8).all()
    assert traj.error_estimate.max() <= 1e-4


def test_so_it_has_on_the_clock_of_the_loss():
    X, y = data()
    problem, start = fs.Problem(X[:3], np.sign(y[:3]), loss="logistic"), {"u": [1e6, 1e-2, 1e-2, 1e-2], "v": 0.0}
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("u*v"), problem, 1.0, start=start, clock="log_loss", t_eval=[0.8, 1.0], rtol=1e-4,
        max_steps=1000,
    )  # fmt: skip
    assert_allclose(traj.beta, far_apart(1e6, 0.0, traj.t, "logistic"), atol=1e-3)  # time is known to rtol, too


def test_a_coordinate_below_the_range_of_floats_grows_beside_one_that_starts_far_above_the_fit():
    X, y = data()
    start = {"u": fs.Logs(1.0, np.append(np.log([1e6, 1e-2, 1e-2]), -2300.0)), "v": 0.0}
    traj = fs.gradient_flow(fs.DiagonalNetwork("u*v"), fs.Regression(X, y), 1e5, start=start, rtol=1e-4)
    assert_allclose(traj.beta[-1], np.linalg.lstsq(X, y)[0], rtol=1e-3)


def test_coefficients_that_decay_to_nothing_are_not_asked_for_more_digits_than_at_the_start():
    problem = fs.Problem(data()[0], np.zeros(6), loss="pseudo-huber")
    net, start = fs.DiagonalNetwork("2*u**2 - v**2", weight_decay=1e-3), {"u": 0.6, "v": 0.8}
    traj = fs.gradient_flow(net, problem, 40.0, alpha=3.0, start=start, method="Radau", rtol=1e-5)
    assert np.abs(traj.beta[-1]).max() <= 1e-5 * np.abs(traj.beta[0]).max()


def test_large_starts_that_decay_for_long_end_at_the_lasso():
    X, y = data()
    problem = fs.Regression(X, 20 * y)
    traj = fs.gradient_flow(fs.DiagonalNetwork("u*v", weight_decay=1.0), problem, 120.0, alpha=1e6, rtol=1e-4)
    right = fs.studies.weighted_lasso(problem, 1.0)
    assert_allclose(traj.beta[-1], right, atol=1e-3 * np.abs(right).max())


@pytest.mark.parametrize("kind", ["logarithms", "pretrained"])
def test_starts_in_logarithms_and_pretrained_ones_keep_what_their_large_terms_leave(kind):
    large, small, times = 1e7, 3e-8, np.array([1e-2, 1.0]) / 1e14
    given = {
        "logarithms": {"start": {"u": fs.Logs(1.0, np.log(large)), "v": fs.Logs(1.0, np.log(small))}},
        "pretrained": {"pretrained": {"u": np.full(4, large), "v": np.full(4, small)}, "alpha": 1e-20},
    }
    start = {"start": {"u": large, "v": small}}
    net, problem = fs.DiagonalNetwork("u*v"), fs.Regression(*data())
    X, y = data()
    eigenvalues, Q = np.linalg.eigh(X.T @ X / 6)
    fit = np.linalg.lstsq(X, y)[0]
    # To first order in 1/large beta' = -large^2 (S beta - X^T y / n) from large small.
    away = Q @ (np.exp(-eigenvalues * (times * large**2)[:, None]) * (Q.T @ (np.full(4, large * small) - fit))).T
    for options in (start, given[kind]):
        beta = fs.gradient_flow(net, problem, times[-1], t_eval=times, **options).beta
        assert_allclose(beta, fit + away.T, atol=1e-6)


@pytest.mark.parametrize("alpha", [1e4, 1e6])
def test_linear_networks_refuse_a_large_start_on_the_clock_of_the_loss(alpha):
    X, y = data()
    problem = fs.Problem(X[:3], np.sign(y[:3]), loss="logistic")
    with pytest.raises(ValueError, match="`alpha` must be smaller on the clock .*differences of terms so large"):
        fs.gradient_flow(fs.LinearNetwork(2), problem, 4.0, alpha=alpha, clock="log_loss")


@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_the_clock_of_the_loss_reads_the_same_kernel(loss):
    X, y = data()
    values = []
    for alpha in (10.0, 1e6):
        problem = fs.Problem(X[:3], np.sign(y[:3]), loss=loss)
        traj = fs.gradient_flow(
            fs.DiagonalNetwork("u*v"), problem, 4.0, alpha=alpha, clock="log_loss", t_eval=[1.0, 2.0, 4.0],
            estimate_error=True,
        )  # fmt: skip
        assert traj.error_estimate.max() <= 2e-6
        values.append(np.column_stack([traj.t * alpha**2, traj.beta]))
    slope = SLOPES[loss]
    steps = solve_ivp(
        lambda t, b: -2 * X[:3].T @ slope(X[:3] @ b, np.sign(y[:3])) / 3, (0, values[1][-1, 0]), np.zeros(4), "LSODA",
        values[1][:, 0], rtol=1e-11, atol=1e-13,
    )  # fmt: skip
    assert_allclose(values[1][:, 1:], steps.y.T, rtol=3e-6, atol=3e-6)
    assert_allclose(values[0], values[1], rtol=1e-2)


@pytest.mark.parametrize("loss", ["squared", "log-cosh", "logistic"])
@pytest.mark.parametrize("size", [1e8, 1e12, 1e16, 1e30, 1e100, 1e150])
def test_starts_below_one_are_large_beside_small_coefficients(loss: str, size: float) -> None:
    """Features of size s >> 1 / alpha^2 have the flow of a kernel method, ``beta' = -2 alpha^2 grad L``."""
    rng = np.random.default_rng(1)
    X = rng.integers(-3, 4, (8, 4)).astype(float)
    y = X @ np.array([1.0, -2.0, 0.0, 0.0]) + rng.standard_normal(8)
    y = np.sign(y) if loss == "logistic" else y
    plain, scaled = fs.Problem(X, y, loss), fs.Problem(size * X, y, loss)
    run = fs.gradient_flow(fs.DiagonalNetwork("u*v"), scaled, 300.0 / size / size, alpha=0.1)
    right = solve_ivp(lambda t, b: -0.02 * plain.gradient(b), (0.0, 300.0), np.zeros(4), rtol=1e-10, atol=1e-12)
    assert run.t[-1] == 300.0 / size / size
    np.testing.assert_allclose(size * run.beta[-1], right.y[:, -1], rtol=0, atol=2e-6 * np.abs(right.y[:, -1]).max())


@pytest.mark.parametrize(
    ("formula", "slope"),
    [("tanh(u)*v", np.tanh(0.1)), ("u*v + u**3*v", 0.101), ("w1*w2*w3", 0.01), ("a*b + c*d", 0.02**0.5)],
)
@pytest.mark.parametrize("size", [1e12, 1e30, 1e100])
def test_a_weight_that_starts_at_zero_is_resolved_where_coefficients_are_tiny(
    formula: str, slope: float, size: float
) -> None:
    """``beta' = -|grad phi|^2 grad L`` with the gradient of the formula at the start; the last weights start at 0."""
    X, y = data()
    net, plain = fs.DiagonalNetwork(formula), fs.Regression(X, y)
    start = {name: float(name in ["a", "c", "u", "w1", "w2"]) for name in net.weights}
    run = fs.gradient_flow(net, fs.Regression(size * X, y), 3.0 / slope**2 / size / size, alpha=0.1, start=start)
    right = solve_ivp(lambda t, b: -plain.gradient(b), (0.0, 3.0), np.zeros(4), rtol=1e-10, atol=1e-12).y[:, -1]
    assert_allclose(size * run.beta[-1], right, rtol=0, atol=2e-6 * np.abs(right).max())


@pytest.mark.parametrize("method", ["auto", "DOP853", "BDF"])
@pytest.mark.parametrize("size", [1e4, 1e12, 1e16, 1e30, 1e60])
def test_linear_networks_with_one_factor_zero_are_kernel_methods_where_coefficients_are_tiny(
    size: float, method: str
) -> None:
    """From ``V = 0``, ``beta' = -U U^T grad L`` with the U of the start."""
    rng = np.random.default_rng(3)
    X, U = rng.standard_normal((8, 4)), 0.1 * rng.standard_normal((4, 6))
    Y = X @ rng.standard_normal((4, 2)) + 0.3 * rng.standard_normal((8, 2))
    kernel, t_end = U @ U.T, 30.0
    rates, vectors = np.linalg.eig(kernel @ X.T @ X / 8)
    aim = np.linalg.solve(vectors, np.linalg.solve(X.T @ X, X.T @ Y))
    right = (vectors * -np.expm1(-rates * t_end)) @ aim
    run = fs.gradient_flow(
        fs.LinearNetwork(6), fs.Problem(size * X, Y), t_end / size / size, alpha=1.0,
        start={"U": U, "V": np.zeros((2, 6))}, method=method,
    )  # fmt: skip
    assert_allclose(size * run.beta[-1], right, rtol=0, atol=5e-6 * np.abs(right).max())
