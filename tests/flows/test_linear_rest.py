"""Two-layer linear networks that have come to rest cost nothing more, at any horizon, and rest where theory says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

import flowsim as fs


def data(loss: str = "squared") -> fs.Problem:
    rng = np.random.default_rng(0)
    X, B = rng.standard_normal((20, 3)), rng.standard_normal((3, 5))
    Y = X @ B + 0.3 * rng.standard_normal((20, 5))
    if loss in ("logistic", "poisson"):
        Y = np.sign(rng.standard_normal(Y.shape)) if loss == "logistic" else rng.poisson(1.5, Y.shape).astype(float)
    return fs.Regression(X, Y) if loss == "squared" else fs.Problem(X, Y, loss=loss)


def reduced_rank(problem: fs.Problem, rank: int) -> np.ndarray:
    """The least-squares matrix of at most a rank."""
    fitted = np.linalg.lstsq(problem.X, problem.y, rcond=None)[0]
    right = np.linalg.svd(problem.X @ fitted)[2][:rank]
    return np.asarray(fitted @ right.T @ right)


@pytest.mark.parametrize("alpha", ["1e-1", "1e-3", "1e-60", "1e-1000"])
@pytest.mark.parametrize("width", [1, 2])
def test_a_network_narrower_than_the_rank_rests_at_reduced_rank_regression(width: int, alpha: str) -> None:
    problem = data()
    runs = [fs.gradient_flow(fs.LinearNetwork(width), problem, t, alpha=alpha) for t in (1e6, 1e20, 1e60)]
    for run in runs:
        np.testing.assert_allclose(run.beta[-1], reduced_rank(problem, width), rtol=0, atol=1e-6)
        assert run.stats["steps"] == runs[0].stats["steps"] < 100
        assert run.imbalance_drift <= 1e-9


@pytest.mark.parametrize("rtol", [1e-4, 1e-10])
def test_rest_is_found_at_any_tolerance(rtol: float) -> None:
    problem = data()
    run = fs.gradient_flow(fs.LinearNetwork(2), problem, 1e60, alpha=1e-3, rtol=rtol)
    np.testing.assert_allclose(run.beta[-1], reduced_rank(problem, 2), rtol=0, atol=2 * rtol)


def test_a_saddle_is_not_rest() -> None:
    """Beside the saddle of rank one nothing moves visibly until the second direction has grown."""
    problem = data()
    path = fs.saddle_to_saddle(fs.LinearNetwork(2), problem)
    gamma, (first, second) = 300 * np.log(10.0), path.jump_times[:2]
    for time, rank in ((0.5 * gamma * (first + second), 1), (2.0 * gamma * second, 2)):
        run = fs.gradient_flow(fs.LinearNetwork(2), problem, time, alpha="1e-300")
        np.testing.assert_allclose(run.beta[-1], reduced_rank(problem, rank), rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", ["log-cosh", "pseudo-huber"])
def test_a_narrow_network_rests_at_a_minimum_of_any_loss(loss: str) -> None:
    problem, width = data(loss), 2

    def value(flat: np.ndarray) -> float:
        U, V = np.split(flat.reshape(-1, width), [problem.d])
        return float(problem.loss(U @ V.T))

    runs = [fs.gradient_flow(fs.LinearNetwork(width), problem, t, alpha=1e-3) for t in (1e6, 1e60)]
    assert runs[0].stats["steps"] == runs[1].stats["steps"] < 60
    weights = runs[1].weights
    found = minimize(value, np.concatenate([weights["U"][-1], weights["V"][-1]]).ravel(), method="BFGS")
    U, V = np.split(found.x.reshape(-1, width), [problem.d])
    assert runs[1].loss[-1] <= found.fun * (1 + 1e-9)
    np.testing.assert_allclose(runs[1].beta[-1], U @ V.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "eta", "alpha"),
    [(6, 0.3, "1e-3"), (6, 0.3, "1e-1000"), (2, 0.3, "1e-1"), (6, 2.0, "1e-3"), (1, 2.0, "1e-60")],
)
def test_weight_noise_rests_at_soft_thresholding(width: int, eta: float, alpha: str) -> None:
    """Directions below the threshold only shrink; above all singular values everything does."""
    problem = data()
    sigma = problem.X.T @ problem.X / problem.n
    values, vectors = np.linalg.eigh(sigma)
    root = (vectors / np.sqrt(values)) @ vectors.T
    left, size, right = np.linalg.svd(root @ problem.X.T @ problem.y / problem.n, full_matrices=False)
    size = np.maximum(size - eta**2 * np.sqrt(5 * np.trace(sigma)), 0.0)
    size[width:] = 0.0
    net = fs.LinearNetwork(width, noise=fs.GaussianNoise(eta))
    runs = [fs.gradient_flow(net, problem, t, alpha=alpha) for t in (1e6, 1e20, 1e60)]
    for run in runs:
        np.testing.assert_allclose(run.beta[-1], root @ (left * size) @ right, rtol=0, atol=1e-6)
        assert run.stats["steps"] == runs[0].stats["steps"] < 150


@pytest.mark.parametrize("loss", ["log-cosh", "pseudo-huber", "logistic", "poisson"])
def test_a_wide_network_rests_at_the_minimum_of_any_loss(loss: str) -> None:
    problem = data(loss)
    shape = problem.d, problem.n_targets
    found = minimize(
        lambda b: float(problem.loss(b.reshape(shape))), np.zeros(shape).ravel(), method="BFGS", options={"gtol": 1e-9},
        jac=lambda b: problem.gradient(b.reshape(shape)).ravel(),
    )  # fmt: skip
    runs = [fs.gradient_flow(fs.LinearNetwork(6), problem, t, alpha=1e-3) for t in (1e6, 1e60)]
    np.testing.assert_allclose(runs[1].beta[-1], found.x.reshape(shape), rtol=0, atol=2e-6)
    assert runs[0].stats["steps"] == runs[1].stats["steps"] < 80


def test_separable_data_never_rest() -> None:
    """Coefficients grow as ln t: the gradient tends to 0, but no step of Newton's method is short."""
    problem = fs.Problem(np.array([[1.0, 0.4], [0.3, 1.0]]), np.array([[1.0], [-1.0]]), loss="logistic")
    sizes = [float(np.abs(fs.gradient_flow(fs.LinearNetwork(2), problem, t).beta[-1]).max()) for t in (1e4, 1e6, 1e8)]
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=0.2)
    assert sizes[1] > sizes[0] + 1.0


@pytest.mark.parametrize("loss", ["log-cosh", "logistic", "poisson"])
@pytest.mark.parametrize("width", [6, 2])
def test_without_an_end_a_linear_network_runs_until_rest_under_any_loss(width: int, loss: str) -> None:
    problem, net = data(loss), fs.LinearNetwork(width)
    run, later = (fs.gradient_flow(net, problem, t, alpha="1e-30") for t in (None, 1e60))
    np.testing.assert_allclose(run.beta[-1], later.beta[-1], rtol=0, atol=1e-5)


def test_without_an_end_a_diagonal_network_runs_until_rest_under_any_loss() -> None:
    problem = fs.Problem(np.array([[1.0, 0.5], [0.2, 1.0], [1.0, 1.0]]), np.array([1.0, 1.0, -1.0]), loss="logistic")
    run = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, alpha="1e-30")
    assert np.abs(problem.gradient(run.beta[-1])).max() <= 1e-6


def test_without_an_end_a_long_plateau_is_not_taken_for_rest() -> None:
    """The second direction grows after seven times the time that the first takes."""
    X = np.eye(3)
    problem = fs.Regression(X, np.diag([6.0, 0.9, 0.0]))
    run = fs.gradient_flow(fs.LinearNetwork(3), problem, alpha="1e-1000")
    np.testing.assert_allclose(run.beta[-1], np.diag([6.0, 0.9, 0.0]), atol=1e-4)


@pytest.mark.parametrize("t_end", [40.0, 1e3, 1e60])
@pytest.mark.parametrize("loss", ["squared", "log-cosh"])
def test_an_imbalance_that_decays_beside_grown_directions_is_waited_for(loss: str, t_end: float) -> None:
    """Of one hidden unit under weight decay: what U holds beside its growing direction enters beta to first order."""
    X, target = 2 * np.eye(4), np.array([1.0, -0.5, 0.3, 0.2])
    problem = fs.Problem(X, (X @ target)[:, None], loss=loss)
    start = {"U": np.array([[-0.5], [0.25], [0.75], [0.5]]), "V": np.array([[0.15]])}
    run = fs.gradient_flow(fs.LinearNetwork(1, weight_decay=0.2), problem, t_end, start=start)

    def penalised(beta: np.ndarray) -> float:
        return float(problem.loss(beta[:, None]) + 0.2 * np.linalg.norm(beta))

    exact = minimize(penalised, target, tol=1e-14, options={"gtol": 1e-9}).x
    np.testing.assert_allclose(run.beta[-1].ravel(), exact, rtol=0, atol=2e-6)


@pytest.mark.parametrize("t_end", [100.0, 300.0, 1000.0])
def test_weights_that_no_sample_sees_outlive_those_that_noise_shrinks(t_end: float) -> None:
    """Outside the row space U decays with the penalty; p, q = U_1 +- V by ``exp(-(2.27 -+ 0.1) t)``, to the end."""
    problem = fs.Regression(np.array([[1.0, 0.0, 0.0]]), np.array([[0.1]]))
    net = fs.LinearNetwork(2, noise=fs.GaussianNoise(1.5), weight_decay=0.02)
    start = {"U": np.array([[0.3, 0.1], [0.2, -0.4], [0.0, 0.5]]), "V": np.array([[0.1, 0.2]])}
    run = fs.gradient_flow(net, problem, t_end, start=start)
    np.testing.assert_allclose(run.weights["U"][-1][1:], np.exp(-0.02 * t_end) * start["U"][1:], rtol=1e-12)
    logs = [run.log_abs_weights[name][-1] for name in ("U", "V")]
    np.testing.assert_allclose(logs[0][1], np.log(np.abs(start["U"][1])) - 0.02 * t_end, rtol=1e-12)
    # U_1 V^T feeds G by less than 0.02 at the start, and by nothing after a few units of time.
    half = np.log((start["U"][0] + start["V"][0]) / 2) - 2.17 * t_end
    np.testing.assert_allclose(logs[1][0], half, atol=0.05)
    np.testing.assert_allclose(logs[0][0], half if t_end < 1000 else -np.inf, atol=0.05)
    V = np.exp(logs[1][0] - logs[1].max())
    np.testing.assert_allclose(V / V.max(), (start["U"] + start["V"])[0] / 0.4, rtol=1e-6)
