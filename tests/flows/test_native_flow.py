"""The native method at the front door: every quadratic network, noise and start, at every scale, and where it ends."""

import math

import numpy as np
import pytest
from scipy.optimize import linprog

import flowsim as fs
from tests.solvers.separable_families import EXPONENTS, draw

FORMULAS = ("u*v", "u**2 - v**2", "2*u**2 - v**2", "2*a*b + c**2 - a**2", "u*v + 0.3*u**2")


def case(seed):
    """A problem, a network and a start of random kind; alpha 1 with any start is a pretrained network."""
    rng = np.random.default_rng(seed)
    n, d = rng.integers(1, 25, 2)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    noise = None if seed % 2 else fs.GaussianNoise(float(rng.choice([0.05, 0.3, 1.0])))
    net = fs.DiagonalNetwork(FORMULAS[seed % 5], noise=noise)
    exponent = (40, 6, 0, 100000)[seed % 4]
    start = {name: rng.standard_normal(d) * 10.0 ** rng.uniform(-3, 0.3, d) for name in net.weights}
    end = 15 * max(1, exponent) * math.log(10) / np.abs(X.T @ y / n).max()
    return fs.Regression(X, y), net, f"1e-{exponent}", start, end


@pytest.mark.parametrize("seed", range(20))
def test_any_quadratic_network_noise_and_start_stay_within_twenty_tolerances(seed):
    problem, net, alpha, start, end = case(seed)
    run = fs.gradient_flow(net, problem, end, alpha=alpha, start=start)
    tight = fs.gradient_flow(net, problem, end, alpha=alpha, start=start, rtol=1e-9)
    assert run.info["method"] == "native"
    times = np.unique(np.concatenate([run.t, (run.t[1:] + run.t[:-1]) / 2]))
    beta, reference = run.at(times).beta, tight.at(times).beta
    assert np.abs(beta - reference).max() <= 20e-6 * max(1.0, np.abs(reference).max())


def test_a_flow_that_is_run_again_is_that_of_the_present_data_and_tolerance():
    """What was set up for the runs before is used bit by bit, or not at all."""
    rng, net = np.random.default_rng(0), fs.DiagonalNetwork("u*v")
    kept = fs.Regression(rng.standard_normal((7, 12)), rng.standard_normal(7))
    for number, rtol in enumerate((1e-6, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6, 1e-8, 1e-6, 1e-6, 1e-6)):
        anew = fs.Regression(kept.X.copy(), kept.y.copy())
        runs = [fs.gradient_flow(net, each, 30.0, alpha=1e-3, rtol=rtol) for each in (kept, anew)]
        np.testing.assert_array_equal(runs[0].beta, runs[1].beta)
        kept.X[:, 3] *= -2.0 if number == 3 else 1.0


@pytest.mark.sampled(4)
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_native_and_scipy_give_one_flow_in_time_and_arc_length(seed):
    rng = np.random.default_rng(seed)
    problem = fs.Regression(rng.standard_normal((8, 12)), rng.standard_normal(8))
    net = fs.DiagonalNetwork("u*v", noise=None if seed % 2 else fs.GaussianNoise(0.2))
    arguments = {"alpha": "1e-12", "clock": "accelerated"}
    native = fs.gradient_flow(net, problem, 20.0, **arguments)
    stepped = fs.gradient_flow(net, problem, 20.0, method="Radau", rtol=1e-7, **arguments)
    times = np.linspace(0, 20, 200)
    one, other = native.at(times, "accelerated"), stepped.at(times, "accelerated")
    assert np.abs(one.beta - other.beta).max() < 1e-5
    assert np.abs(one.arclength - other.arclength).max() < 1e-5


def test_the_imbalance_law_holds_to_1e_minus_10_at_every_scale():
    for seed in range(6):
        _, X, y = draw(seed)
        for exponent in EXPONENTS:
            for noise in (None, fs.GaussianNoise(0.1)):
                net = fs.DiagonalNetwork("u*v", noise=noise)
                problem = fs.Regression(X, y)
                end = 5 * exponent * math.log(10) / np.abs(X.T @ y / len(y)).max()
                run = fs.gradient_flow(net, problem, end, alpha=f"1e-{exponent}", t_eval=np.linspace(0, end, 20))
                floor = 16 * np.finfo(float).eps * float(np.abs(run.log_imbalance).max())
                assert run.imbalance_drift <= max(1e-10, floor)


@pytest.mark.parametrize("exponent", [50, 1000, 100000])
def test_the_end_point_has_least_l1_norm_up_to_one_over_gamma(exponent):
    gamma = exponent * math.log(10)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((6, 15)), rng.standard_normal(6)
        run = fs.gradient_flow(
            fs.DiagonalNetwork("u*v"), fs.Regression(X, y), 300.0, alpha=f"1e-{exponent}", clock="accelerated"
        )
        beta = run.beta[-1]
        assert np.abs(X @ beta - y).max() < 1e-6
        least = linprog(np.ones(30), A_eq=np.hstack([X, -X]), b_eq=y, method="highs").fun
        gap = np.abs(beta).sum() / least - 1
        assert -1e-6 <= gap <= 10 / gamma
        # The dual certificate, z in units of gamma, reaches 1 where beta is not zero and never goes beyond.
        certificate = (run.log_abs_weights["u"][-1] + gamma) / gamma
        assert (certificate <= 1 + 10 / gamma).all()


def test_late_jumps_under_noise_ask_for_no_more_than_floats_give() -> None:
    # The exponents are differences of terms of 1e8 by then.
    rng = np.random.default_rng(82)
    problem = fs.Regression(rng.standard_normal((4, 6)), rng.standard_normal(4))
    net = fs.DiagonalNetwork("2*u**2 - v**2", noise=fs.GaussianNoise(0.1))
    path = fs.saddle_to_saddle(net, problem)
    end = 1.2 * float(path.jump_times[-1])
    traj = fs.gradient_flow(net, problem, end, alpha="1e-10000", clock="accelerated", rtol=1e-11)
    np.testing.assert_allclose(traj.beta[-1], path.end, atol=1e-8)
    assert traj.stats["steps"] < 4000


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_flow_that_was_prepared_before_is_of_the_data_as_they_are(loss):
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((5, 8)), np.sign(rng.standard_normal(5))

    def end(problem, alpha):
        return fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 20.0, alpha=alpha).beta[-1]

    problem = fs.Problem(X, y, loss)
    for alpha in ("1e-4", "1e-9", "1e-4"):
        np.testing.assert_array_equal(end(problem, alpha), end(fs.Problem(X, y, loss), alpha))
    problem.X[1, 2], X[1, 2] = 0.25, 0.25
    np.testing.assert_array_equal(end(problem, "1e-4"), end(fs.Problem(X, y, loss), "1e-4"))
    problem.y = -y
    np.testing.assert_array_equal(end(problem, "1e-4"), end(fs.Problem(X, -y, loss), "1e-4"))


@pytest.mark.parametrize("t_end", [20.0, 1e9])
@pytest.mark.parametrize("options", [{"noise": fs.GaussianNoise(0.3)}, {"weight_decay": 0.01}])
def test_a_damped_flow_that_was_prepared_before_is_of_its_data_network_and_horizon(options, t_end):
    """At 1e9 the dual is measured from its line at rest, which depends on X and y."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((9, 4)), rng.standard_normal(9)

    def end(problem, t_end, **options):
        return fs.gradient_flow(fs.DiagonalNetwork("u*v", **options), problem, t_end, alpha="1e-4").beta[-1]

    problem = fs.Regression(X, y)
    for horizon, chosen in ((1e9, options), (t_end, {}), (t_end, options), (t_end, options)):
        np.testing.assert_array_equal(end(problem, horizon, **chosen), end(fs.Regression(X, y), horizon, **chosen))
    problem.y[0], y[0] = -2.0, -2.0
    np.testing.assert_array_equal(end(problem, t_end, **options), end(fs.Regression(X, y), t_end, **options))
