"""Flows with any convex loss: closed forms, 120-digit arithmetic, tight runs and independent minimisers."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

import flowsim as fs
from flowsim.flows.reduced import level_set
from tests.flows.precise import precise_growth_flow

NET = fs.DiagonalNetwork("u*v")
LOSSES = ("logistic", "exponential", "log-cosh", "pseudo-huber", "poisson")


def draw(seed: int, loss: str, n: int = 40, d: int = 6) -> fs.Problem:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    X[:, 1] += 0.7 * X[:, 0]
    signal = X @ np.r_[1.5, -1.0, 0.7, np.zeros(d - 3)]
    if loss in ("logistic", "exponential"):
        y = np.where(rng.random(n) < expit(signal), 1.0, -1.0)
    elif loss == "poisson":
        y = rng.poisson(np.exp(0.5 * signal)).astype(float)
    else:
        y = signal + rng.standard_t(2, n)
    return fs.Problem(X, y, loss)


#: Derivatives of the losses in f, in arbitrary precision.
SLOPES = {
    "logistic": lambda f, y: -y / (1 + mpmath.exp(y * f)),
    "log-cosh": lambda f, y: mpmath.tanh(f - y),
    "poisson": lambda f, y: mpmath.exp(f) - y,
    "exponential": lambda f, y: -y * mpmath.exp(-y * f),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("alpha", ["1e-2", "1e-40", "1e-1000"])
def test_a_flow_errs_by_less_than_twenty_tolerances(loss: str, alpha: str) -> None:
    for seed in range(2):
        problem = draw(seed, loss)
        options = {"alpha": alpha, "clock": "accelerated"}
        run = fs.gradient_flow(NET, problem, 12.0, **options)
        tight = fs.gradient_flow(NET, problem, 12.0, rtol=1e-9, **options)
        times = np.linspace(0.0, 12.0, 97)
        error = np.abs(run.at(times, "accelerated").beta - tight.at(times, "accelerated").beta).max()
        assert error <= 20 * 1e-6 * max(1.0, np.abs(tight.beta).max())
        np.testing.assert_allclose(run.loss, problem.loss(run.beta), rtol=1e-12)
        np.testing.assert_allclose(run.log_loss, np.log(run.loss), rtol=1e-9, atol=1e-12)
        assert (np.diff(run.loss) <= 1e-9).all()


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 200), marks=pytest.mark.slow)])
def test_two_hundred_random_flows_err_by_less_than_twenty_tolerances(seeds: range) -> None:
    times = np.linspace(0.0, 12.0, 101)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        loss = ("logistic", "log-cosh", "poisson")[seed % 3]
        problem = draw(seed, loss, n=int(rng.integers(15, 60)), d=int(rng.integers(3, 12)))
        for alpha in ("1e-2", "1e-8", "1e-100", "1e-1000"):
            run, tight = (
                fs.gradient_flow(NET, problem, 12.0, alpha=alpha, clock="accelerated", rtol=rtol).at(
                    times, "accelerated"
                )
                for rtol in (1e-6, 1e-10)
            )
            error = np.abs(run.beta - tight.beta).max()
            assert error <= 20 * 1e-6 * max(1.0, np.abs(tight.beta).max()), (seed, loss, alpha, error)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("loss", ["logistic", "log-cosh", "poisson"])
def test_the_native_method_and_radau_agree_with_any_loss(loss: str) -> None:
    times = np.linspace(0.0, 8.0, 60)
    for seed, alpha in enumerate(("1e-2", "1e-1000")):
        problem = draw(seed, loss, n=20)
        run, other = (
            fs.gradient_flow(NET, problem, 8.0, alpha=alpha, clock="accelerated", t_eval=times, **options).beta
            for options in ({"rtol": 1e-8}, {"rtol": 1e-8, "method": "Radau"})
        )
        np.testing.assert_allclose(run, other, atol=20 * 1e-8 * max(1.0, np.abs(other).max()))


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("alpha", "loss"),
    [
        *(("0.1", loss) for loss in SLOPES),
        *(("1e-2", loss) for loss in SLOPES),
        *(("1e-8", loss) for loss in SLOPES),
        *(pytest.param("1e-30", loss, marks=[pytest.mark.slow] * (loss != "logistic")) for loss in SLOPES),
    ],
)
def test_small_flows_agree_with_120_digits(alpha: str, loss: str) -> None:
    y = {"poisson": [2.0, 0.0, 1.0], "log-cosh": [1.0, -1.0, 0.5]}.get(loss, [1.0, -1.0, -1.0])
    problem = fs.Problem([[1.0, 0.4], [-0.3, 0.8], [0.5, -0.9]], y, loss)
    jumps = fs.saddle_to_saddle(NET, problem).jump_times
    times = -np.log(float(alpha)) * np.append(jumps, 1.5 * jumps[-1])
    exact = precise_growth_flow(SLOPES[loss], problem.X, problem.y, alpha, times)
    run = fs.gradient_flow(NET, problem, times[-1], alpha=alpha, t_eval=times)
    assert np.abs(run.beta - exact).max() <= 2e-6 * np.abs(exact).max()


@pytest.mark.parametrize("coordinates", ["growth", "weights"])
def test_one_logistic_feature_follows_its_closed_form(coordinates: str) -> None:
    # z' = sigmoid(-beta), beta = alpha^2 sinh(2 z): t = int (1 + exp(beta(x))) dx.
    alpha = 0.5
    run = fs.gradient_flow(
        NET, fs.Problem([[1.0]], [1.0], "logistic"), 5.0, alpha=alpha, coordinates=coordinates, rtol=1e-8
    )
    z = np.arcsinh(run.beta[-1, 0] / alpha**2) / 2
    exact = mpmath.quad(lambda x: 1 + mpmath.exp(alpha**2 * mpmath.sinh(2 * x)), [0, float(z)])
    assert float(exact) == pytest.approx(5.0, rel=1e-6)


@pytest.mark.parametrize("loss", ["logistic", "poisson"])
def test_the_weights_of_any_formula_reach_the_minimiser(loss: str) -> None:
    problem = draw(1, loss)
    best = minimize(problem.loss, np.zeros(6), jac=problem.gradient, method="BFGS", options={"gtol": 1e-9}).x
    starts = {"u*v": {"u": 1.0, "v": 0.1}, "u**2 - v**2": {}, "u*v*w": {"u": 1.0, "v": 1.1, "w": 0.02}}
    for formula, start in starts.items():
        run = fs.gradient_flow(
            fs.DiagonalNetwork(formula), problem, 4e3, alpha=0.5, start=start or None, coordinates="weights"
        )
        np.testing.assert_allclose(run.beta[-1], best, atol=2e-4)


def test_events_clocks_error_estimates_and_files_work_with_any_loss(tmp_path) -> None:  # type: ignore[no-untyped-def]
    problem = draw(0, "logistic")
    run = fs.gradient_flow(
        NET, problem, 15.0, alpha="1e-30", clock="arclength", estimate_error=True,
        events=lambda t, state: state.loss - 0.5, t_eval=np.linspace(0, 15.0, 30),
    )  # fmt: skip
    assert run.error_estimate.max() < 1e-4
    assert len(run.events) == 1
    assert problem.loss(run.events.states.beta)[0] == pytest.approx(0.5, abs=1e-6)
    again = fs.load(run.save(tmp_path / "run.nc"))
    np.testing.assert_array_equal(again.log_loss, run.log_loss)
    assert run.at(1.0, "arclength").log_loss == pytest.approx(float(problem.log_loss(run.at(1.0, "arclength").beta)))


def test_an_overshoot_of_two_exponentials_stays_finite() -> None:
    for seed in range(4):
        for loss in ("exponential", "poisson"):
            run = fs.gradient_flow(NET, draw(seed, loss), 15.0, alpha="1e-1000", clock="accelerated")
            assert np.isfinite(run.beta).all()


def test_sample_weights_are_repeated_rows() -> None:
    problem = draw(5, "logistic", n=12)
    weight = np.r_[np.full(6, 2.0), np.ones(6)]
    weighted = fs.Problem(problem.X, problem.y, "logistic", sample_weight=weight)
    twice = np.r_[np.arange(6), np.arange(12)]
    repeated = fs.Problem(problem.X[twice], problem.y[twice], "logistic")
    # The mean is over 12 and 18 rows: the second clock runs slower by 3/2.
    one = fs.gradient_flow(NET, weighted, 20.0, alpha=1e-3, rtol=1e-8)
    other = fs.gradient_flow(NET, repeated, 30.0, alpha=1e-3, rtol=1e-8)
    np.testing.assert_allclose(one.beta[-1], other.beta[-1], rtol=1e-5)


def test_what_needs_squares_says_so() -> None:
    problem, noisy = draw(0, "logistic"), fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1))
    with pytest.raises(ValueError, match="squared loss for a reference"):
        fs.studies.min_l1(problem)
    with pytest.raises(ValueError, match="squared loss for the modified flow under weight noise"):
        fs.modified_flow(noisy, problem, 0.1, 1.0, alpha=0.1)


@pytest.mark.parametrize("size", [1e3, 1e6])
@pytest.mark.parametrize("loss", ["log-cosh", "pseudo-huber"])
def test_residuals_far_beyond_the_bend_of_a_robust_loss_are_not_leapt_over(loss: str, size: float) -> None:
    # At the start the curvature has all but vanished: 1e-19 at a residual of 23.
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 4))
    problem = fs.Problem(X, size * (X @ np.r_[1.0, -1.0, 0.5, 0.0]) + rng.standard_normal(30), loss)
    path = fs.saddle_to_saddle(NET, problem)
    run = fs.gradient_flow(NET, problem, 1.2 * path.jump_times[-1], alpha="1e-100", clock="accelerated")
    assert (np.diff(run.loss) <= 1e-6 * run.loss[0]).all()
    assert np.abs(run.beta).max() < 1.01 * np.abs(path.saddles).max()
    np.testing.assert_allclose(run.beta[-1], path.end, atol=1e-6 * size)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("loss", ["exponential", "poisson", "logistic"])
@pytest.mark.parametrize("size", [1e-3, 1e3, 1e6])
def test_exponentials_of_large_predictions_neither_overflow_nor_mislead(loss: str, size: float) -> None:
    base = draw(3, loss)
    problem = fs.Problem(size * base.X, base.y, loss)
    path, plain = fs.saddle_to_saddle(NET, problem), fs.saddle_to_saddle(NET, base)
    # beta = beta'/size and t = t'/size: nothing else changes.
    np.testing.assert_allclose(path.end * size, plain.end, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(path.jump_times * size, plain.jump_times, rtol=1e-9)
    run = fs.gradient_flow(NET, problem, 1.2 * path.jump_times[-1], alpha="1e-100", clock="accelerated")
    np.testing.assert_allclose(run.beta[-1], path.end, rtol=1e-5, atol=1e-8 / size)
    far = np.full(problem.d, 1e6 / size)
    assert problem.loss(far) > 1e4 and not np.isnan(problem.loss(far))
    if loss == "exponential":
        assert np.isinf(problem.loss(far)) and 1e4 < problem.log_loss(far) < 1e8


def test_descent_whose_exponentials_overflow_says_so() -> None:
    problem = fs.Problem(1e3 * draw(0, "exponential").X, draw(0, "exponential").y, "exponential")
    with pytest.raises(fs.IntegrationError, match=r"the descent diverged: its loss left the range of floats at step"):
        fs.gradient_descent(NET, problem, 1e-3, 50, alpha=0.1)


@pytest.mark.slow
def test_a_loss_whose_gradient_starts_beyond_1e150_is_followed_by_every_method_or_refused_for_that():
    # Of w^2 under exp(beta): beta' = -4 beta exp(beta), so that E1(beta) - E1(beta(0)) = 4 t.
    net, problem, times = fs.DiagonalNetwork("w**2"), fs.Problem([[1.0]], [0.0], loss="poisson"), [1e-100, 0.03, 0.2]
    begin = mpmath.mpf(19.3) ** 2
    with mpmath.workdps(30):
        truth = [
            [float(mpmath.findroot(lambda b, t=t: mpmath.e1(b) / (mpmath.e1(begin) + 4 * t) - 1, guess))]
            for t, guess in zip(times, (225, 1.5, 0.3), strict=True)
        ]
    for method in ("auto", "Radau"):
        traj = fs.gradient_flow(net, problem, 0.2, alpha=19.3, start={"w": 1.0}, t_eval=times, method=method)
        np.testing.assert_allclose(traj.beta, truth, rtol=1e-5, err_msg=method)
        np.testing.assert_allclose(traj.arclength[-1] - 0.2, 19.3**2 - traj.beta[-1, 0], rtol=1e-4, err_msg=method)
    with pytest.raises(fs.IntegrationError, match=r"at a rate of 8\.\de\+164 there, whose square .* to 'auto'"):
        fs.gradient_flow(net, problem, 0.2, alpha=19.3, start={"w": 1.0}, method="native")
    with pytest.raises(fs.IntegrationError, match="moves at a rate of inf there"):
        fs.gradient_flow(net, problem, 0.2, alpha=30.0, start={"w": 1.0})


@pytest.mark.sampled(2)
@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_an_escape_beyond_what_floats_hold_of_its_slope_says_so(loss):
    # Coordinate 0 separates its row and escapes like ln t; the other row waits, at margin 0, to t = 1e300 and more.
    problem, net = fs.Problem([[1.0, 0.0], [0.0, 0.6]], [1.0, 1.0], loss=loss), fs.DiagonalNetwork(depth=3)
    with pytest.raises(fs.IntegrationError, match=r"its slope is .*e-1\d\d, whose cube is below the range of floats"):
        fs.gradient_flow(net, problem, 30.0, alpha="1e-300", clock="accelerated")


@pytest.mark.parametrize("method", ["LSODA", "BDF", "Radau", "DOP853"])
@pytest.mark.parametrize(("loss", "y"), [("exponential", [1.0]), ("poisson", [4.0])])
def test_every_method_takes_predictions_of_thousands(method: str, loss: str, y: list[float]) -> None:
    """A row that is separated stands still; with counts and a predictor far below 0 the slope is -y, and z = y t."""
    sign = 1.0 if loss == "exponential" else -1.0
    problem = fs.Problem([[1.0]], y, loss=loss)
    run = fs.gradient_flow(
        fs.DiagonalNetwork("u*v"), problem, 0.1, alpha=63.0, start={"u": 1.0, "v": 0.7 * sign}, method=method
    )  # fmt: skip
    z = 0.0 if loss == "exponential" else 0.4
    grown, shrunk = (1.0 + 0.7 * sign) ** 2 * np.exp(2 * z), (1.0 - 0.7 * sign) ** 2 * np.exp(-2 * z)
    np.testing.assert_allclose(run.beta[-1], 63.0**2 * (grown - shrunk) / 4, rtol=1e-5)


def test_level_sets_hold_what_falling_losses_can_predict() -> None:
    problem = fs.Problem(np.eye(2), [4.0, 0.0], loss="poisson")
    low, high = level_set(problem, np.array([-8000.0, -1.0]), is_damped=False)
    np.testing.assert_allclose(low, [-8001.0, -np.inf], atol=0.2)
    top = 2 * float(problem.loss([-8000.0, -1.0])) - float(problem.loss_function.infimum(problem.y).sum())
    np.testing.assert_allclose(high[1], np.log(top) + 1.0, atol=1e-3)
    assert np.isinf(level_set(fs.Problem(np.eye(2), [1.0, -1.0], loss="exponential"), np.zeros(2), False)[1][0])
