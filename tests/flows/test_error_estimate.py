"""A run's own estimate of its error against tight references."""

import gmpy2
import numpy as np
import pytest
from scipy.linalg import expm

import flowsim as fs


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", ["native", "LSODA"])
@pytest.mark.parametrize("alpha", ["1e-2", "1e-8", "1e-50"])
def test_the_estimate_bounds_the_true_error(method, alpha):
    for seed in range(8 if method == "native" else 2):
        rng = np.random.default_rng(seed)
        n, d = rng.integers(1, 25, 2)
        problem = fs.Regression(rng.standard_normal((n, d)), rng.standard_normal(n))
        net = fs.DiagonalNetwork("u*v")
        arguments = {"alpha": alpha, "clock": "accelerated"}
        run = fs.gradient_flow(net, problem, 20.0, method=method, rtol=1e-5, estimate_error=True, **arguments)
        reference = fs.gradient_flow(net, problem, 20.0, t_eval=run.accelerated_time, rtol=1e-10, **arguments)
        error = np.abs(run.beta - reference.beta).max(axis=1)
        assert run.error_estimate.shape == (len(run),)
        # The reference errs by 1e-10 or so itself, and times are rounded on the way to it and back.
        assert (error <= run.error_estimate + 1e-9).all()
        assert run.error_estimate.max() <= 5 * error.max() + 1e-9


def test_there_is_no_estimate_unless_asked_for():
    run = fs.gradient_flow(fs.DiagonalNetwork("u*v"), fs.Regression([[1.0]], [1.0]), 2.0, clock="accelerated")
    assert run.error_estimate is None


def test_the_estimate_of_a_deep_product_and_on_arc_length_bounds_the_error():
    X = np.array([[1.0, 0.5, 0.7, 0.0], [0.5, 1.0, 0.1, 0.7]])
    problem = fs.Regression(X, [1.0, 0.0])
    net = fs.DiagonalNetwork(depth=3)
    run = fs.gradient_flow(net, problem, 10.0, alpha=1e-3, clock="arclength", estimate_error=True)
    reference = fs.gradient_flow(net, problem, float(run.t[-1]), alpha=1e-3, rtol=1e-10)
    error = np.abs(run.beta - reference.at(run.t).beta).max(axis=1)
    assert (error <= run.error_estimate + 1e-9).all()


def test_the_estimate_of_a_linear_network_bounds_the_error():
    rng = np.random.default_rng(0)
    problem = fs.Regression(rng.standard_normal((6, 4)), rng.standard_normal((6, 2)))
    net = fs.LinearNetwork(width=5)
    run = fs.gradient_flow(net, problem, 20.0, alpha=1e-2, rtol=1e-4, estimate_error=True)
    reference = fs.gradient_flow(net, problem, 20.0, alpha=1e-2, rtol=1e-10, t_eval=run.t)
    error = np.abs(run.beta - reference.beta).max(axis=(1, 2))
    assert (error <= run.error_estimate + 1e-12).all()
    some = fs.gradient_flow(net, problem, 20.0, alpha=1e-2, rtol=1e-4, estimate_error=True, t_eval=[1.0, 20.0])
    error = np.abs(some.beta - reference.at(some.t).beta).max(axis=(1, 2))
    assert (error <= some.error_estimate + 1e-9).all()


@pytest.mark.parametrize("seed", range(40))
def test_the_estimate_is_no_more_than_twice_too_small_on_random_runs_read_inside_steps(seed):
    rng = np.random.default_rng(seed)
    n, d = rng.integers(1, 7, 2)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    if d > 1 and seed % 4 == 0:
        X[:, -1] = X[:, 0]
    problem = fs.Regression(X, y)
    noise = fs.GaussianNoise(float(rng.choice([0.01, 0.1, 0.3]))) if seed % 3 == 0 else None
    net = fs.DiagonalNetwork(str(rng.choice(["u*v", "2*u**2 - v**2", "u**2 + u*v - 3*v**2"])), noise=noise)
    end = float(10.0 ** rng.uniform(0, 2.5))
    arguments = {"alpha": float(10.0 ** rng.uniform(-9, 1.3)), "t_eval": np.sort(rng.uniform(0, end, 30))}
    rtol = float(10.0 ** rng.uniform(-11, -3))
    run = fs.gradient_flow(net, problem, end, rtol=rtol, estimate_error=True, **arguments)
    reference = fs.gradient_flow(net, problem, end, rtol=1e-12, **arguments)
    error = np.abs(run.beta - reference.beta).max(axis=1)
    assert (error <= 2 * run.error_estimate + 1e-10 * max(1.0, np.abs(reference.beta).max())).all()


def test_large_weights_read_inside_long_steps_are_estimated():
    """At rest at 0.5, but for what the continuous extension errs: the estimate says so."""
    net = fs.DiagonalNetwork("u**2 + u*v - 3*v**2", noise=fs.GaussianNoise(0.01))
    problem, times = fs.Regression([[1.0]], [0.5]), np.linspace(0, 50, 400)
    arguments = {"alpha": 10.0, "start": {"u": 1.0, "v": 0.6}, "t_eval": times}
    run = fs.gradient_flow(net, problem, 50.0, rtol=1e-4, estimate_error=True, **arguments)
    reference = fs.gradient_flow(net, problem, 50.0, rtol=1e-12, **arguments)
    assert (np.abs(run.beta - reference.beta).max(axis=1) <= run.error_estimate + 1e-8).all()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("rtol", [1e-8, 1e-10, 1e-12])
@pytest.mark.parametrize("formula", ["u**4 - v**4", "u**2 - v**2"])
def test_at_the_tightest_tolerances_there_is_an_estimate_of_rounding(formula, rtol):
    """No run is tighter than one at rtol 1e-12; the end at this scale is known in arbitrary precision."""
    problem = fs.Regression([[1.0, 1.0, 1.0], [3.0, 0.0, 1.0]], [3.0, 3.0])
    degree = 4 if "4" in formula else 2
    alpha = 1e-9 ** (1 / degree)
    run = fs.gradient_flow(
        fs.DiagonalNetwork(formula), problem, 2e9 / alpha ** (degree - 2), alpha=alpha, rtol=rtol, atol=1e-18,
        estimate_error=True, t_eval=[0.0, 2e9 / alpha ** (degree - 2)],
    )  # fmt: skip
    assert np.isfinite(run.error_estimate).all()
    error = np.abs(run.beta[-1] - end_of_power(degree, alpha)).max()
    assert error <= 2 * run.error_estimate[-1]


def end_of_power(degree: int, alpha: float) -> np.ndarray:
    """Where u^k - v^k rests from u = v = alpha on ``X = [[1, 1, 1], [3, 0, 1]]``, y = (3, 3).

    ``u^(2-k)`` falls by ``k (k - 2) z`` and ``v^(2-k)`` rises by it (ln u and -ln v rise by 2 z if k = 2), z in the row
    space: orthogonal to (1, 2, -3), along which beta may move from the limit of small alpha.
    """
    null = (1, 2, -3)
    with gmpy2.context(gmpy2.get_context(), precision=250):
        a, t = gmpy2.mpfr(alpha), 1 / (1 + (gmpy2.sqrt(gmpy2.mpfr(3)) / (gmpy2.sqrt(gmpy2.mpfr(2)) + 1)) ** -2)
        limit = [1 - t, 2 * (1 - t), 3 * t] if degree == 4 else [gmpy2.mpfr(0), gmpy2.mpfr(0), gmpy2.mpfr(3)]

        def dual(beta):
            """z, in units of alpha^-2 / 8 for k = 4."""
            if degree == 2:
                return gmpy2.asinh(beta / (2 * a**2)) / 4
            w = a**2 / gmpy2.sqrt(beta)  # 1 - z
            for _ in range(40):
                w -= (a**4 * (w**-2 - (2 - w) ** -2) - beta) / (-2 * a**4 * (w**-3 + (2 - w) ** -3))
            return 1 - w

        def off(c):
            return sum(n * dual(b + c * n) for n, b in zip(null, limit, strict=True))

        low, high = (gmpy2.mpfr("-1e-3"), gmpy2.mpfr("1e-3")) if degree == 4 else (gmpy2.mpfr(0), gmpy2.mpfr(1))
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if off(middle) < 0 else (low, middle)
        return np.array([float(b + low * n) for n, b in zip(null, limit, strict=True)])


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("alpha", [1e-6, 1e-5, 1e-4])
def test_motion_below_the_tolerance_is_part_of_the_estimate(rtol: float, alpha: float) -> None:
    """u = v, y = 0: beta = b / (1 + 2 b t), b = alpha^2; a run may stand still instead."""
    run = fs.gradient_flow(
        fs.DiagonalNetwork("u*v"), fs.Regression([[1.0]], [0.0]), 3.0, alpha=alpha, start={"u": 1.0, "v": 1.0},
        rtol=rtol, estimate_error=True, t_eval=[1.0, 3.0],
    )  # fmt: skip
    right = alpha**2 / (1 + 2 * alpha**2 * run.t)
    error = np.abs(run.beta[:, 0] - right)
    assert run.error_estimate is not None
    assert (error <= 2 * run.error_estimate).all() and (run.error_estimate <= rtol * alpha**2).all()


@pytest.mark.parametrize("rtol", [1e-6, 5e-10, 1e-12])
@pytest.mark.parametrize("t", [2e-4, 0.2, 20.0, 2e3, 2e4])
def test_a_product_that_leaves_zero_is_estimated_from_its_first_rounding_on(t: float, rtol: float) -> None:
    """u = v = a / cos s and w = a tan s, s = a y t, far below y; the distances of w to both poles nearly cancel."""
    y, a = 1e16, 1e-5
    run = fs.gradient_flow(
        fs.DiagonalNetwork(depth=3), fs.Regression([[1.0]], [y]), t / y, alpha=a, rtol=rtol, estimate_error=True,
        start={"w1": 1.0, "w2": 1.0, "w3": 0.0},
    )  # fmt: skip
    exact = a**3 * np.tan(a * t) / np.cos(a * t) ** 2
    assert abs(run.beta[-1, 0] - exact) <= 2 * run.error_estimate[-1] <= (3 * rtol + 1e-8 / t) * exact


def test_what_is_tiny_errs_by_the_rounding_of_its_logarithm() -> None:
    """u = v = 1e-138 on y = 1: beta = alpha^2 sinh(2 t), exactly while it is tiny."""
    t = np.array([0.1, 3.0, 40.0])
    run = fs.gradient_flow(
        fs.DiagonalNetwork("u**2 - v**2"), fs.Regression([[1.0]], [1.0]), 40.0, alpha=1e-138, rtol=1e-12, t_eval=t,
        estimate_error=True,
    )  # fmt: skip
    with gmpy2.context(gmpy2.get_context(), precision=200):
        exact = np.array([float(2 * gmpy2.mpfr(1e-138) ** 2 * gmpy2.sinh(4 * gmpy2.mpfr(float(s)))) for s in t])
    error = np.abs(run.beta[:, 0] - exact)
    assert (error <= 2 * run.error_estimate).all() and (run.error_estimate <= 1e-11 * exact).all()


def test_a_companion_of_the_same_few_steps_leaves_what_the_tolerance_lets_pass() -> None:
    # Far below its end the weights are exp(t S) times their start; two steps do, at any tolerance.
    x, Y = np.array([-0.852, 1.847, 1.636]), np.array([[1.72, -0.525], [-0.651, 1.127], [-0.95, 0.995]])
    G, Z = x[None] @ Y / 3, np.array([[0.818, 0.082], [-0.085, -0.228], [0.018, 1.082]])
    run = fs.gradient_flow(
        fs.LinearNetwork(2), fs.Regression(x[:, None], Y), 0.773, alpha=1e-9, start={"U": Z[:1], "V": Z[1:]},
        rtol=5e-6, estimate_error=True,
    )  # fmt: skip
    end = 1e-9 * expm(0.773 * np.block([[np.zeros((1, 1)), G], [G.T, np.zeros((2, 2))]])) @ Z
    error = np.abs(run.beta[-1] - end[:1] @ end[1:].T).max()
    assert error <= 2 * run.error_estimate[-1] <= 1e-5 * np.abs(run.beta[-1]).max()


@pytest.mark.parametrize("alpha", ["1e-3", "1e-100", "1e-330"])
def test_the_far_blow_up_of_an_unbalanced_product_is_not_felt(alpha: str) -> None:
    """Of two distances to where a product blows up, alpha^-1 apart, beta has the rounding of the nearer one."""
    start = {"w1": 1.0, "w2": 1.3, "w3": 1.6}
    traj = fs.gradient_flow(
        fs.DiagonalNetwork(depth=3), fs.Regression([[1.0]], [1.0]), 20.0, alpha=alpha, start=start, clock="accelerated",
        t_eval=[0.01, 10.0, 20.0], estimate_error=True,
    )  # fmt: skip
    assert traj.error_estimate is not None
    assert (abs(traj.beta[1:, 0] - 1.0) <= 2 * traj.error_estimate[1:] + 1e-15).all()
    assert (traj.error_estimate[1:] < 1e-4).all()
