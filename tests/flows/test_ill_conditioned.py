"""Features like spectra, polynomials and the Hilbert matrix, large weights with noise, and long horizons."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import flowsim as fs
from flowsim.network import InitialScale

NET = fs.DiagonalNetwork("u*v")


def standardised(X):
    X = X - X.mean(axis=0)
    return X / np.sqrt((X**2).mean(axis=0))


def spectra(width):
    """Sums of eight bumps on a grid of eight, twenty rows, and the height of the first."""
    rng = np.random.default_rng(1)
    grid, centre, height = np.linspace(0, 1, 8), rng.random((20, 8)), rng.random((20, 8))
    X = (height[:, :, None] * np.exp(-((grid - centre[:, :, None]) ** 2) / (2 * width**2))).sum(1)
    return standardised(X), height[:, 0] - height[:, 0].mean()


def polynomials(degree):
    x = np.sort(np.random.default_rng(2).uniform(-1, 1, 40))
    return standardised(x[:, None] ** np.arange(1, degree + 1)), np.sin(3 * x) - np.sin(3 * x).mean()


def hilbert(n):
    X = 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
    return X, X.sum(axis=1)


@pytest.mark.parametrize(
    ("data", "horizon", "steps"),
    [
        (lambda: spectra(0.4), 1e12, 1500),  # condition 6e6
        (lambda: spectra(0.5), 1e13, 1600),  # 1e8
        (lambda: spectra(0.7), 1e13, 1800),  # 1e10
        (lambda: spectra(1.0), 1e13, 1800),  # 2e12
        (lambda: polynomials(10), 1e12, 2300),  # 2e3
        (lambda: polynomials(15), 1e12, 3900),  # 3e5
        (lambda: polynomials(20), 1e12, 5000),  # 5e7
    ],
)
def test_flows_on_ill_conditioned_features_follow_the_limit_in_few_steps(data, horizon, steps):
    X, y = data()
    problem = fs.Regression(X, y)
    path = fs.saddle_to_saddle(NET, problem)
    run = fs.gradient_flow(NET, problem, horizon, alpha="1e-100", clock="accelerated")
    assert run.stats["steps"] <= steps
    limit = path.saddles[np.searchsorted(path.jump_times, horizon)]
    # A jump is over, to this, 230 e-foldings per unit of the dual after it; rounding of X and y is felt beside it.
    assert np.abs(run.beta[-1] - limit).max() <= 1e-6 * np.abs(limit).max()


@pytest.mark.parametrize("alpha", ["1e-10", "1e-100"])
@pytest.mark.parametrize("delta", [1e-6, 1e-9, 1e-13])
def test_coefficients_that_nearly_cancel_come_to_rest(delta, alpha):
    """beta_1 + beta_2 = 1 of terms of 1 / delta, known to 0.1 or so; what is slow does not see that."""
    problem = fs.Regression([[1.0, 1.0], [0.0, delta]], [1.0, 1.0])
    run = fs.gradient_flow(NET, problem, 100 / delta, alpha=alpha, clock="accelerated")
    assert run.stats["steps"] <= 300
    assert np.abs(run.beta[-1] - np.array([1 - 1 / delta, 1 / delta])).max() <= 1e-10 / delta


def test_a_flow_says_what_its_data_do_not_determine():
    X, y = spectra(1.4)  # condition 2e14
    run = fs.gradient_flow(NET, fs.Regression(X, y), 1e13, alpha="1e-100", clock="accelerated")
    assert "late jumps are not determined by the data: features nearly depend on others" in run.message
    X, y = spectra(2.0)  # 7e15
    run = fs.gradient_flow(NET, fs.Regression(X, y), 1e11, alpha="1e-100", clock="accelerated")
    assert "X has rank 7 to rounding, and motion along its other directions is left out" in run.message


@pytest.mark.parametrize(("n", "d"), [(10, 5), (5, 10)])
@pytest.mark.parametrize("twice", [False, True])
def test_nothing_is_said_of_features_that_depend_on_others_or_on_none(n, d, twice):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    for y in (X[:, :2].sum(axis=1), rng.standard_normal(n)):
        run = fs.gradient_flow(NET, fs.Regression(np.hstack([X, X]) if twice else X, y), 1e12, alpha=1e-100)
        assert run.message == "reached the end of the interval"


def test_the_flow_of_the_hilbert_matrix_is_that_of_an_independent_method():
    """SciPy's Radau in the row space; with few bits of the dual lost, 1e-5 of beta in 1e-7 of its 230 e-foldings."""
    X, y = hilbert(8)  # condition 2e10
    horizon, gamma = 1e6, InitialScale.parse("1e-100").gamma
    R, b = X / np.sqrt(8), y / np.sqrt(8)

    def beta(z):
        size = np.abs(z)
        return np.sign(z) * 0.5 * (np.exp(np.minimum(2 * gamma * (size - 1), 600)) - np.exp(-2 * gamma * (size + 1)))

    def slope(z):
        size = np.abs(z)
        return gamma * (np.exp(np.minimum(2 * gamma * (size - 1), 600)) + np.exp(-2 * gamma * (size + 1)))

    with np.errstate(over="ignore", invalid="ignore"):
        done = solve_ivp(
            lambda t, nu: b - R @ beta(R.T @ nu), (0, horizon), np.zeros(8), "Radau", [horizon],
            jac=lambda t, nu: -(R * slope(R.T @ nu)) @ R.T, rtol=1e-9, atol=1e-12,
        )  # fmt: skip
    run = fs.gradient_flow(NET, fs.Regression(X, y), horizon, alpha="1e-100", clock="accelerated")
    assert run.stats["steps"] <= 600
    expected = beta(R.T @ done.y[:, -1])
    assert np.abs(run.beta[-1] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_features_that_depend_on_others_are_not_taken_for_ill_conditioned():
    from flowsim.solvers.separable.row_factor import graded_rows

    rng = np.random.default_rng(0)
    X, b = rng.standard_normal((12, 5)), rng.standard_normal(12)
    assert graded_rows(X, b) is None
    assert graded_rows(np.hstack([X, X, np.zeros((12, 1))]), b) is None
    assert graded_rows(X * 10.0 ** np.array([-200, -100, 0, 100, 140]), b) is None
    found = graded_rows(np.hstack([X, X[:, :1] + 1e-6 * rng.standard_normal((12, 1))]), b)
    assert found is not None
    R, rotated = found
    A = np.hstack([X, X[:, :1]])
    assert R.shape == (6, 6)
    assert np.abs(R.T @ R - A.T @ A).max() < 1e-4
    assert np.abs(R.T @ rotated - A.T @ b)[:5].max() < 1e-13
    # Rows fall off as singular values do: the last is as small as what sets the columns apart.
    assert np.abs(R[-1]).max() < 1e-5


@pytest.mark.parametrize("seed", range(12))
def test_large_weights_with_noise_rest_where_they_should_and_know_their_error(seed):
    """The state decays while noise dies away: what is read inside steps is not thrown off by the projection."""
    rng = np.random.default_rng(seed)
    net = fs.DiagonalNetwork(["u**2+u*v-3*v**2", "u*v", "u**2-v**2"][seed % 3], noise=fs.GaussianNoise(0.01))
    scale = float(rng.choice([5.0, 10.0, 30.0]))
    d = 1 + seed % 2
    problem = fs.Regression(np.eye(d) + 0.1 * rng.standard_normal((d, d)), rng.standard_normal(d))
    start = {"u": rng.uniform(0.5, 1.0, d), "v": rng.uniform(0.3, 0.6, d)}
    t = np.linspace(0, 50, 200)
    arguments = {"alpha": scale, "start": start, "t_eval": t}
    run = fs.gradient_flow(net, problem, 50.0, rtol=1e-4, estimate_error=True, **arguments)
    exact = fs.gradient_flow(net, problem, 50.0, rtol=1e-11, **arguments)
    error = np.abs(run.beta - exact.beta).max(axis=1)
    assert (error <= 2 * run.error_estimate + 1e-9).all()
    rest = np.linalg.solve(problem.X, problem.y)
    assert np.abs(run.beta[-1] - rest).max() <= 1e-2 * max(1.0, np.abs(rest).max())
    assert run.stats["steps"] <= 400


def test_once_at_rest_a_longer_horizon_asks_for_no_more():
    rng = np.random.default_rng(0)
    X, truth = rng.standard_normal((30, 8)), np.array([2.0, -1.0, 0.5, 0, 0, 0, 0, 0])
    problem = fs.Regression(X, X @ truth + 0.1 * rng.standard_normal(30))
    least_squares = np.linalg.lstsq(X, problem.y)[0]
    for net, alpha, end in (
        (NET, 1e-8, 1e12),
        (fs.DiagonalNetwork(depth=3), 1e-3, 1e12),
        # Under noise z goes on for ever, to make up for the decay of the weights.
        (fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.3)), 1e-8, 1e6),
    ):
        short, long = (fs.gradient_flow(net, problem, T, alpha=alpha) for T in (1e5, end))
        assert long.stats["steps"] <= 1.2 * short.stats["steps"]
        assert np.abs(long.beta[-1] - short.beta[-1]).max() < 1e-9
        if net is NET:
            assert np.abs(long.beta[-1] - least_squares).max() < 1e-9


def test_of_many_ends_a_flow_at_rest_keeps_its_own_at_any_horizon():
    """The interpolant of least entropy: no drift along the others, whose loss is as small."""
    net, problem = fs.DiagonalNetwork("u**2 - v**2"), fs.Regression([[2, -1, 0, 1], [0, 3, 2, 0]], [0, 6])
    end = fs.studies.min_entropy(net, problem, 1e-4)
    for rtol in (1e-6, 1e-12):
        steps = []
        for horizon in (1e2, 1e6, 1e10):
            run = fs.gradient_flow(net, problem, horizon, alpha=1e-4, rtol=rtol, estimate_error=True)
            steps.append(run.stats["steps"])
            error = np.abs(run.beta[-1] - end).max()
            assert error <= 1e-3 * rtol + 1e-12 and error <= 2 * run.error_estimate[-1]
        assert max(steps) <= 1.2 * min(steps)


def test_columns_of_very_different_sizes_are_named_where_a_run_fails() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 3)) * [1e50, 1.0, 1e-50]
    with pytest.raises(fs.IntegrationError, match=r"columns of X are of sizes from .*e-50 to .*e\+50: scale them"):
        fs.gradient_flow(fs.DiagonalNetwork("u*v"), fs.Regression(X, X[:, 1]), 10.0, alpha=1e-3, max_steps=200)


def test_other_losses_reach_long_horizons_on_ill_conditioned_features():
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal(shape))[0] for shape in ((20, 6), (6, 6)))
    problem = fs.Problem(np.sqrt(20) * (U * np.geomspace(1, 1e-6, 6)) @ V.T, rng.standard_normal(20), loss="log-cosh")
    traj = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 1e14, alpha=0.1, max_steps=9000)
    assert traj.info["method"] == "LSODA"  # the native method spends any budget
    assert np.abs(problem.gradient(traj.beta[-1])).max() <= 1e-9
