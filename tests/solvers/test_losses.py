"""Any convex loss, natively: against SciPy's Radau with tight tolerances, and against squares."""

import functools
import math

import numpy as np
import pytest
from numba import njit, types
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp
from scipy.special import expit

from flowsim.solvers import SeparableFlow, Status, integrate_separable
from tests.solvers.separable_families import draw, two_layer

VECTOR = types.float64[::1]
SIGNATURE = types.void(VECTOR, VECTOR, VECTOR, VECTOR, VECTOR)


def logistic(f, y, w, d1, d2):
    for i in range(len(f)):
        p = 1.0 / (1.0 + math.exp(-abs(f[i])))
        d1[i] = -w[i] * y[i] / (1.0 + math.exp(y[i] * f[i]))
        d2[i] = w[i] * p * (1.0 - p)


def poisson(f, y, w, d1, d2):
    for i in range(len(f)):
        rate = math.exp(f[i])
        d1[i], d2[i] = w[i] * (rate - y[i]), w[i] * rate


def log_cosh(f, y, w, d1, d2):
    for i in range(len(f)):
        d1[i] = w[i] * math.tanh(f[i] - y[i])
        d2[i] = w[i] / math.cosh(f[i] - y[i]) ** 2


def squared(f, y, w, d1, d2):
    for i in range(len(f)):
        d1[i], d2[i] = w[i] * (f[i] - y[i]), w[i]


@functools.cache
def compiled(function):
    """When a test needs it: on import each process that collects the tests would compile all of them."""
    return njit(SIGNATURE, error_model="numpy")(function)


SLOPES = {
    "logistic": (logistic, lambda f, y: -y * expit(-y * f), lambda f, y: expit(f) * expit(-f)),
    "poisson": (poisson, lambda f, y: np.exp(f) - y, lambda f, y: np.exp(f)),
    "log-cosh": (log_cosh, lambda f, y: np.tanh(f - y), lambda f, y: 1 / np.cosh(f - y) ** 2),
}


def case(name, seed, n, d):
    rng = np.random.default_rng(seed)
    X, w = rng.standard_normal((n, d)), np.zeros(d)
    w[:2] = 1.0, -0.7
    f = X @ w
    y = {"logistic": np.where(rng.random(n) < expit(f), 1.0, -1.0), "poisson": rng.poisson(np.exp(f / 2)) * 1.0}
    return X, y.get(name, f + rng.standard_t(2, n))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("digits", [0, 2, 60, 1000])
@pytest.mark.parametrize("name", list(SLOPES))
def test_a_flow_with_a_general_loss_is_that_of_a_tight_integration(name, digits):
    kernel, slope, curvature = SLOPES[name]
    X, y = case(name, digits, 30, 4)
    gamma, n, d, tol = digits * math.log(10.0), 30, 4, 1e-6
    flow = two_layer(X, y, gamma)
    flow = SeparableFlow(X, y, n, *flow.exponential, loss=compiled(kernel))
    t_end = 5 * max(gamma, 1.0)
    run = integrate_separable(flow, t_end, tol=tol)
    assert run.status is Status.COMPLETED
    # One evaluation of the exponentials a step, as a rule.
    assert run.stats["nfev"] < 1.5 * (run.stats["steps"] + run.stats["rejected"]) + 10

    def beta(z):
        return np.sinh(2 * z) if gamma == 0 else (np.exp(2 * (z - gamma)) - np.exp(2 * (-z - gamma))) / 2

    def beta_z(z):
        return np.exp(2 * (z - gamma)) + np.exp(2 * (-z - gamma))

    with np.errstate(over="ignore", invalid="ignore"):
        exact = solve_ivp(
            lambda t, z: -X.T @ slope(X @ beta(z), y) / n, (0, t_end), np.zeros(d), "Radau", rtol=1e-9, atol=1e-9,
            jac=lambda t, z: -(X.T * curvature(X @ beta(z), y)) @ X / n * beta_z(z), max_step=t_end / 100,
            t_eval=np.linspace(0, t_end, 40),
        )  # fmt: skip
    assert_allclose(run(exact.t), exact.y.T, rtol=0, atol=5 * tol)


@pytest.mark.parametrize("shape", [(12, 30), (20, 200), (90, 80)])
def test_squares_as_a_general_loss_are_the_squares(shape):
    """Through every way to solve: inverse, factor in the coordinates, factor in the rows."""
    rng = np.random.default_rng(5)
    X, y, weights = rng.standard_normal(shape), rng.standard_normal(shape[0]), rng.uniform(0.5, 2.0, shape[0])
    root, gamma = np.sqrt(weights), 3.0
    own = two_layer(root[:, None] * X, root * y, gamma)
    plain = two_layer(X, y, gamma)
    general = SeparableFlow(X, y + 0.3, shape[0], *plain.exponential, loss=compiled(squared), weights=weights,
                            offset=np.full(shape[0], 0.3))  # fmt: skip
    t = np.linspace(0, 30.0, 20)
    first, second = (integrate_separable(flow, 30.0, tol=1e-8) for flow in (own, general))
    assert first.status is second.status is Status.COMPLETED
    assert_allclose(second(t), first(t), rtol=0, atol=1e-7)


def test_an_exponential_loss_that_overflows_rejects_the_step():
    X, y = case("poisson", 1, 20, 3)
    plain = two_layer(300.0 * X, y, 30.0)
    flow = SeparableFlow(300.0 * X, y, 20, *plain.exponential, loss=compiled(poisson))
    run = integrate_separable(flow, 1.0, tol=1e-6)
    assert run.status is Status.COMPLETED
    assert np.isfinite(run.z).all()
    tight = integrate_separable(flow, 1.0, tol=1e-9)
    assert_allclose(run(tight.t), tight.z, rtol=0, atol=1e-5)


def test_a_loss_with_products_or_very_many_coordinates_is_refused():
    _, X, y = draw(3)
    flow = two_layer(X, y, 3.0)
    wide = np.zeros((1, SeparableFlow.MOST_WITH_LOSS + 1))
    with pytest.raises(ValueError, match="take no more than"):
        integrate_separable(
            SeparableFlow(wide, y[:1], 1, *two_layer(wide, y[:1], 3.0).exponential, loss=compiled(squared)), 1.0
        )
    assert flow.loss is None


@pytest.mark.parametrize("tol", [1e-6, 1e-9])
def test_a_general_loss_is_not_taken_for_rest_over_long_steps(tol):
    """Squares, as a loss like any other, through all jumps at alpha = 1e-1000."""
    X, y = case("log-cosh", 7, 30, 6)
    own = two_layer(X, y, 1000 * math.log(10.0))
    general = SeparableFlow(X, y, 30, *own.exponential, loss=compiled(squared))
    t_end = 12 * 1000 * math.log(10.0)
    first, second = (integrate_separable(flow, t_end, tol=tol) for flow in (own, general))
    assert_allclose(second.z[-1], first.z[-1], rtol=0, atol=20 * tol)
