"""Pesme & Flammarion, arXiv 2304.00488: the flow at small alpha against its limit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Lasso, lars_path

import flowsim as fs
from flowsim.studies import measured_jump_times, plateau_times

UV = fs.DiagonalNetwork("u*v")


@pytest.fixture(scope="module")
def path(diabetes: fs.Regression) -> fs.SaddlePath:
    return fs.saddle_to_saddle(UV, diabetes)


def first_deactivation(path: fs.SaddlePath) -> int:
    return next((event.jump for event in path.events if event.kind == "deactivated"), len(path.jump_times))


def test_jump_times_are_the_inverse_lars_knots(diabetes: fs.Regression, path: fs.SaddlePath) -> None:
    knots = 1 / lars_path(diabetes.X, diabetes.y, method="lasso")[0][:-1]
    count = first_deactivation(path)
    assert count >= 8
    np.testing.assert_allclose(path.jump_times[:count], knots[:count], rtol=1e-9)


def test_the_time_average_is_the_lasso_up_to_the_first_deactivation(
    diabetes: fs.Regression, path: fs.SaddlePath
) -> None:
    limit = path.jump_times[first_deactivation(path)]
    for t in np.geomspace(0.01, 0.999 * limit, 12):
        lasso = Lasso(alpha=1 / t, fit_intercept=False, tol=1e-14, max_iter=500_000).fit(diabetes.X, diabetes.y)
        np.testing.assert_allclose(path.time_average(t), lasso.coef_, atol=1e-8)


def test_the_flow_approaches_the_limit_at_mid_plateaus_as_alpha_falls(
    diabetes: fs.Regression, path: fs.SaddlePath
) -> None:
    times = plateau_times(path, 1.5 * path.jump_times[-1])
    distances = []
    for alpha in ("1e-3", "1e-16", "1e-100", "1e-1000"):
        traj = fs.gradient_flow(UV, diabetes, times[-1], alpha=alpha, clock="accelerated", t_eval=times, rtol=1e-9)
        distances.append(np.abs(traj.beta - path.saddles).max(axis=1))
    medians = np.median(distances, axis=1)
    assert (np.diff(medians[:3]) < 0).all()
    assert medians[3] < 1e-7  # what rtol leaves of coefficients of size 40
    assert distances[-1].max() < 1e-4 * np.abs(path.saddles).max()


def test_jump_times_measured_on_the_flow_approach_the_predictions_like_one_over_gamma(
    diabetes: fs.Regression, path: fs.SaddlePath
) -> None:
    errors, gammas = [], np.array([100, 1000, 10000]) * np.log(10)
    for exponent in (100, 1000, 10000):
        traj = fs.gradient_flow(UV, diabetes, 1.5 * path.jump_times[-1], alpha=f"1e-{exponent}", clock="accelerated")
        errors.append(np.abs(measured_jump_times(traj, path) - path.jump_times))
    slopes = np.log(np.array(errors[0]) / errors[2]) / np.log(gammas[2] / gammas[0])
    np.testing.assert_allclose(slopes, 1.0, atol=0.1)


def test_the_first_half_rise_comes_when_theory_says(diabetes: fs.Regression) -> None:
    """t = [gamma + 1/2 ln(4 beta/p0^2)] / |g_j(0)| for the first feature, p0 = u0 + v0, beta the new height."""
    traj = fs.gradient_flow(UV, diabetes, 0.03, alpha="1e-1000", clock="accelerated", rtol=1e-8)
    rate, gamma = np.abs(diabetes.gradient(np.zeros(10))).max(), 1000 * np.log(10)
    j = int(np.argmax(np.abs(diabetes.gradient(np.zeros(10)))))
    height = rate / diabetes.feature_variances[j]
    low, high = 0.02, 0.0232
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if traj.at(middle, "accelerated").beta[j] < height / 2 else (low, middle)
    # half height of a logistic of height H: exp(2 (rate t - gamma)) 2 / 4 * 2 = H  (p0^2 = 2 alpha^2)
    predicted = (gamma + 0.5 * np.log(4 * height / 2)) / rate / gamma
    assert low == pytest.approx(predicted, rel=1e-5)


def test_the_sign_switching_problem_goes_negative_zero_positive(sign_switching: fs.Regression) -> None:
    limit = fs.saddle_to_saddle(UV, sign_switching)
    np.testing.assert_allclose(limit.jump_times, [0.50, 1.28, 1.33, 2.55, 7.73], atol=0.01)
    times = plateau_times(limit, 12.0)
    signs = np.sign(np.round(limit.saddles[:, 0], 9))
    assert [sign for k, sign in enumerate(signs) if k == 0 or sign != signs[k - 1]] == [0, -1, 0, 1]
    for alpha in ("1e-20", "1e-60", "1e-1000"):
        traj = fs.gradient_flow(UV, sign_switching, 12.0, alpha=alpha, clock="accelerated", t_eval=times)
        late = slice(None) if alpha == "1e-1000" else slice(-1, None)
        np.testing.assert_allclose(traj.beta[late], limit.saddles[late], atol=2e-3)
