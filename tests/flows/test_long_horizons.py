"""Flows that rest, over horizons up to 1e60: no step more, and what moves without effect moves on at its own rate."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs

HORIZONS = (1e6, 1e20, 1e60)


@pytest.mark.parametrize("t", HORIZONS)
def test_what_falls_to_zero_falls_as_its_closed_form_says(t: float) -> None:
    """``u**2`` on one feature: ``beta' = 4 beta (y - beta)``, the logistic equation, here with y = -0.2."""
    y, alpha, times = -0.2, 0.1, np.array([1.0, 10.0, 1e3, t / 3, t])
    run = fs.gradient_flow(fs.DiagonalNetwork("u**2"), fs.Regression([[1.0]], [y]), t, alpha=alpha, t_eval=times)
    # beta = y / (1 - (1 - y / beta_0) e^(-4 y t)), by its logarithm: ln(beta) = ln|y| + 4 y t - ln((1 - y/beta_0) - ..)
    log_beta = np.log(-y) + 4 * y * times - np.log(1 - y / alpha**2 - np.exp(4 * y * times))
    np.testing.assert_allclose(run.log_abs_weights["u"][:, 0], 0.5 * log_beta, rtol=1e-7, atol=1e-6)
    assert run.stats["steps"] < 60


@pytest.mark.parametrize("y", [(1.0, -1.0), (1.0, -0.2), (-1.0, -1.0)])
def test_squares_of_weights_rest_on_the_least_squares_of_one_sign(y: tuple[float, float]) -> None:
    problem = fs.Regression([[1.0, 0.3], [0.2, 1.0]], y)
    net, size = fs.DiagonalNetwork("u**2"), np.abs(problem.gradient(np.zeros(2))).max()
    runs = [fs.gradient_flow(net, problem, t, alpha=0.1, t_eval=[0.0, t / 3, t]) for t in HORIZONS]
    for run in runs:
        beta, gradient = run.beta[-1], problem.gradient(run.beta[-1])
        assert np.abs(gradient[beta > 1e-300]).max(initial=0.0) < 1e-13 * size
        assert gradient.min() > -1e-13 * size
        # ln|u| falls at the rate 2 dL/dbeta.
        falling = beta < 1e-300
        before, last = run.log_abs_weights["u"][1:, falling]
        np.testing.assert_allclose((last - before) / (run.t[2] - run.t[1]), -2 * gradient[falling], rtol=1e-9)
        assert run.stats["steps"] <= runs[0].stats["steps"] + 20


@pytest.mark.sampled(7)
@pytest.mark.parametrize("loss", ["squared", "log-cosh", "pseudo-huber", "poisson", "logistic"])
@pytest.mark.parametrize("formula", ["u*v", "u*v + u**3*v"])
@pytest.mark.parametrize("kind", ["rows that do not fit", "more features than rows", "dependent features"])
def test_any_loss_rests_at_its_minimum(loss: str, formula: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    n, d = (4, 7) if kind.startswith("more") else (8, 4)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    if kind.startswith("dependent"):
        X[:, 2], X[:, 3] = X[:, 0], -X[:, 1]
    if loss == "logistic":  # not separable: rows with both labels
        X[n // 2 :], y = X[: n // 2], np.repeat([1.0, -1.0], n // 2)
    elif loss == "poisson":
        y = 1.0 + np.round(np.abs(y))
    problem, net = fs.Problem(X, y, loss), fs.DiagonalNetwork(formula)
    runs = [fs.gradient_flow(net, problem, t, alpha=0.1) for t in (1e8, 1e20, 1e60)]
    size = np.abs(problem.gradient(np.zeros(d))).max() if loss != "logistic" else 1.0
    for run in runs:
        assert np.abs(problem.gradient(run.beta[-1])).max() < 1e-11 * size
        np.testing.assert_allclose(run.beta[-1], runs[0].beta[-1], rtol=1e-7, atol=1e-9)
        assert run.stats["steps"] <= runs[0].stats["steps"] + 50
        assert run.imbalance_drift < 1e-12


def test_a_row_without_curvature_is_not_taken_for_rest() -> None:
    """Counts of 0 have no least loss: the slope of a prediction that falls for ever soon is below rounding."""
    X, y = np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]), np.array([2.0, 0.0, 0.0])
    problem, net = fs.Problem(X, y, "poisson"), fs.DiagonalNetwork("u*v")

    def end(t: float) -> float:
        try:
            return float(fs.gradient_flow(net, problem, t, alpha=0.1, max_steps=2000).beta[-1, 1])
        except fs.IntegrationError:
            return np.nan  # the step budget is spent

    # Along what the first row, at ln 2, leaves free beta falls like -ln t.
    early, later, last = (end(t) for t in (1e6, 1e8, 1e20))
    assert (later - early) / np.log(1e2) < -0.5
    assert np.isnan(last) or (last - later) / np.log(1e12) < -0.5
