"""A run's own estimate of its error against tight references."""

import numpy as np
import pytest

import flowsim as fs


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
