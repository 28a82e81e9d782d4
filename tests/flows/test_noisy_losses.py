"""Weight noise with losses other than squares: Gauss-Hermite quadrature over the weights, Monte Carlo, any scale."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import flowsim as fs
from flowsim.flows.noisy_loss import NoisyLossCoordinates
from flowsim.network import InitialScale
from flowsim.problem.exponential_sums import exponential_sum

LOSSES = ("logistic", "exponential", "poisson", "log-cosh")
#: phi and its derivatives
FORMULAS = {
    "u*v": (lambda u, v: u * v, lambda u, v: (v, u)),
    "u**2 - v**2": (lambda u, v: u**2 - v**2, lambda u, v: (2 * u, -2 * v)),
    "2*u*v + u**2": (lambda u, v: 2 * u * v + u**2, lambda u, v: (2 * v + 2 * u, 2 * u)),
}


def noisy(eta: float, formula: str = "u*v") -> fs.DiagonalNetwork:
    return fs.DiagonalNetwork(formula, noise=fs.GaussianNoise(eta))


def draw(loss: str, n: int, d: int, seed: int = 0) -> fs.Problem:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) / 2
    y = {
        "logistic": rng.choice([-1.0, 1.0], n), "exponential": rng.choice([-1.0, 1.0], n),
        "poisson": rng.poisson(1.5, n).astype(float), "log-cosh": rng.standard_normal(n),
    }[loss]  # fmt: skip
    return fs.Problem(X, y, loss, sample_weight=rng.uniform(0.5, 2.0, n))


def by_hermite(problem: fs.Problem, w: np.ndarray, eta: float, formula: str, nodes: int) -> np.ndarray:
    """Minus the mean gradient at weights (2, d), by a tensor grid of Gauss-Hermite nodes over all 2 d weights."""
    phi, slopes = FORMULAS[formula]
    x, weight = np.polynomial.hermite_e.hermegauss(nodes)
    weight = weight / weight.sum()
    axes = np.meshgrid(*[np.arange(nodes)] * w.size, indexing="ij")
    index = np.array(axes).reshape(w.size, -1)
    share = weight[index].prod(axis=0)
    moved = w[:, None] + eta * x[index].reshape(2, problem.d, -1).swapaxes(1, 2)
    pull = -problem.slopes(phi(*moved) @ problem.X.T) @ problem.X / problem.n
    return np.array([share @ (pull * slope) for slope in slopes(*moved)])


def by_coordinates(problem: fs.Problem, w: np.ndarray, eta: float, formula: str) -> np.ndarray:
    chosen = NoisyLossCoordinates(noisy(eta, formula), problem, InitialScale("1", 0.0), w)
    moving = -0.5 * chosen.rate * chosen.forces(np.zeros(w.size)) * chosen.modes.start
    return np.einsum("iak,ik->ai", np.broadcast_to(chosen.modes.basis, (problem.d, 2, 2)), moving)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("formula", FORMULAS)
def test_the_expected_gradient_is_that_of_quadrature_over_the_weights(loss: str, formula: str) -> None:
    rng = np.random.default_rng(1)
    for d, nodes in ((1, 120), (2, 16)):
        problem, w = draw(loss, 4, d), 0.7 * rng.standard_normal((2, d))
        exact = by_hermite(problem, w, 0.25, formula, nodes)
        tolerance = 1e-11 if d == 1 else 1e-6
        np.testing.assert_allclose(by_coordinates(problem, w, 0.25, formula), exact, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_expected_gradient_is_that_of_monte_carlo(loss: str) -> None:
    rng = np.random.default_rng(2)
    d, eta, draws = 5, 0.3, 200_000
    problem, w = draw(loss, 6, d), 0.7 * rng.standard_normal((2, d))
    u, v = w[:, None] + eta * rng.standard_normal((2, draws, d))
    pull = -problem.slopes((u * v) @ problem.X.T) @ problem.X / problem.n
    sample = np.array([pull * v, pull * u])
    score = (by_coordinates(problem, w, eta, "u*v") - sample.mean(axis=1)) / (sample.std(axis=1) / np.sqrt(draws))
    assert np.abs(score).max() < 5


@pytest.mark.parametrize(
    ("loss", "problem", "t_end"),
    [
        *((loss, draw(loss, 3, 1), 20.0) for loss in LOSSES),
        pytest.param("far", fs.Problem([[1.0]], [40.0], "log-cosh"), 8.0, marks=pytest.mark.slow),
    ],
    ids=[*LOSSES, "far"],
)
def test_a_flow_is_that_of_the_weights_themselves(loss: str, problem: fs.Problem, t_end: float) -> None:
    eta, start = 0.2, {"u": 0.8, "v": 0.1}
    run = fs.gradient_flow(noisy(eta), problem, t_end, alpha=1.0, start=start, rtol=1e-8)

    def field(t: float, flat: np.ndarray) -> np.ndarray:
        return by_hermite(problem, flat.reshape(2, 1), eta, "u*v", 60).ravel()

    exact = solve_ivp(field, (0, t_end), [0.8, 0.1], "DOP853", t_eval=run.t, rtol=1e-10, atol=1e-12).y
    np.testing.assert_allclose(run.beta[:, 0], exact[0] * exact[1], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(run.weights["u"][:, 0], exact[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(run.imbalance[:, 0, 0], exact[0] ** 2 - exact[1] ** 2, rtol=1e-5, atol=1e-7)
    assert run.info["expectation"] == ("closed form" if loss in ("exponential", "poisson") else "quadrature")


def test_descent_with_drawn_noise_follows_the_flow_on_average() -> None:
    problem, eta, h, steps = draw("logistic", 12, 3), 0.3, 0.05, 400
    runs = [
        fs.gradient_descent(noisy(eta), problem, h, steps, alpha=0.5, seed=seed, record_every=steps).beta[-1]
        for seed in range(40)
    ]
    flow = fs.gradient_flow(noisy(eta), problem, h * steps, alpha=0.5).beta[-1]
    calm = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, h * steps, alpha=0.5).beta[-1]
    error = np.std(runs, axis=0) / np.sqrt(len(runs))
    assert (np.abs(np.mean(runs, axis=0) - flow) < 5 * error + 0.02).all()
    assert np.abs(flow - calm).max() > 0.08


@pytest.mark.sampled(3)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("alpha", ["0.1", "1e-1000"])
def test_any_scale_errs_by_less_than_twenty_tolerances(loss: str, alpha: str) -> None:
    problem, times = draw(loss, 6, 3), np.linspace(0, 20.0, 41)
    options = {"alpha": alpha, "clock": "accelerated", "t_eval": times}
    run = fs.gradient_flow(noisy(0.2), problem, 20.0, **options)
    tight = fs.gradient_flow(noisy(0.2), problem, 20.0, rtol=1e-8, method="BDF", **options)
    np.testing.assert_allclose(run.beta, tight.beta, atol=20 * 1e-6 * max(1.0, np.abs(tight.beta).max()))


def test_clocks_estimates_invariants_and_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    problem = draw("logistic", 6, 3)
    run = fs.gradient_flow(
        noisy(0.2), problem, 12.0, alpha=1e-4, clock="arclength", estimate_error=True, t_eval=np.linspace(0, 12, 13),
        events=lambda t, state: np.abs(state.beta).max(axis=-1) - 0.01,
    )  # fmt: skip
    assert run.error_estimate.max() < 2e-5
    assert len(run.events) == 1
    u, v = run.weights["u"], run.weights["v"]
    np.testing.assert_allclose(u * v, run.beta, atol=1e-12)
    np.testing.assert_allclose(run.imbalance[:, 0], u**2 - v**2, atol=1e-12)
    # Noise balances the weights: |u^2 - v^2| decays, at a rate that depends on the predictions.
    assert (np.diff(np.abs(run.imbalance[:, 0]), axis=0) < 0).all()
    assert fs.load(run.save(tmp_path / "run.nc")).info["expectation"] == "quadrature"
    gamma = 10 * np.log(10.0)
    logs = {"u": fs.Logs(np.ones(3), np.full(3, -gamma)), "v": fs.Logs(np.ones(3), np.full(3, np.log(0.5) - gamma))}
    late = fs.gradient_flow(noisy(0.2), problem, 400.0, start=logs)
    near = fs.gradient_flow(noisy(0.2), problem, 400.0, alpha="1e-10", start={"u": 1.0, "v": 0.5})
    np.testing.assert_allclose(late.beta[-1], near.beta[-1], atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_noise_it_is_the_flow_without_noise(loss: str) -> None:
    problem = draw(loss, 8, 4)
    for more in ({}, {"weight_decay": 0.05}):
        still = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.0), **more)
        run = fs.gradient_flow(still, problem, 30.0, alpha=1e-3, rtol=1e-8)
        plain = fs.gradient_flow(fs.DiagonalNetwork("u*v", **more), problem, 30.0, alpha=1e-3, rtol=1e-8)
        np.testing.assert_allclose(run.at(plain.t).beta, plain.beta, atol=1e-6)


def test_sums_of_exponentials_are_the_slopes_to_rounding() -> None:
    f = np.linspace(-30.0, 30.0, 301)
    for loss in LOSSES:
        kind = fs.Problem([[1.0]], [1.0], loss).loss_function
        for y in (1.0, -1.0) if loss != "poisson" else (0.0, 3.0):
            target = np.full_like(f, y)
            slope = kind.slope(f, target)
            found = exponential_sum(kind, target, 30.0)
            assert found is not None
            np.testing.assert_allclose(found.slope(f), slope, atol=2e-15 * np.abs(slope).max())


@pytest.mark.parametrize(
    ("net", "loss", "options", "message"),
    [
        (noisy(2.0), "exponential", {}, r"`noise` makes the expected exponential loss infinite: \|x\| eta\^2 = "),
        (noisy(0.1), "pseudo-huber", {}, "no closed form and no quadrature.*gradient_descent draws any noise"),
        (fs.DiagonalNetwork("u*v", noise=fs.UniformNoise(0.1)), "logistic", {}, "needs Gaussian noise"),
        (fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.1)), "logistic", {}, "not a quadratic form"),
        (fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise([0.1, 0.2])), "logistic", {}, "different noise"),
        (noisy(0.1), "logistic", {"method": "native"}, "`method` cannot be 'native' for weight noise"),
        (noisy(0.1), "logistic", {"coordinates": "weights"}, "`coordinates` cannot be 'weights' for weight noise"),
        (noisy(0.1), "logistic", {"clock": "log_loss"}, "`clock` cannot be 'log_loss' with weight noise"),
        (fs.LinearNetwork(4, noise=fs.GaussianNoise(0.1)), "logistic", {}, "squared loss for weight noise on a Lin"),
    ],
)
def test_what_is_not_exact_is_refused_by_name(net, loss: str, options: dict, message: str) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    y = np.sign(rng.standard_normal(6))
    with pytest.raises(ValueError, match=message):
        fs.gradient_flow(net, fs.Problem(rng.standard_normal((6, 3)), y, loss), 1.0, alpha=0.1, **options)
    large = fs.Problem(rng.standard_normal((4000, 60)), np.sign(rng.standard_normal(4000)), "logistic")
    with pytest.raises(ValueError, match="too large for expected losses"):
        fs.gradient_flow(noisy(0.1), large, 1.0, alpha=0.1)


@pytest.mark.parametrize("start", [(8.0, 8.0), (12.0, 13.0)])
def test_a_start_whose_predictions_are_large_has_the_quadrature_that_it_needs(start: tuple[float, float]) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    one, other = np.meshgrid(0.2 * nodes, 0.2 * nodes, indexing="ij")
    weight = np.outer(weights, weights) / weights.sum() ** 2

    def field(_: float, state: np.ndarray) -> list[float]:
        u, v = state[0] + one, state[1] + other
        slope = weight * 1.3 / (1 + np.exp(-1.3 * u * v))
        return [-(slope * v).sum(), -(slope * u).sum()]

    true = solve_ivp(field, (0, 2), start, method="DOP853", rtol=1e-10, atol=1e-12).y[:, -1].prod()
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.2))
    problem = fs.Problem([[1.3]], [-1.0], loss="logistic")
    run = fs.gradient_flow(net, problem, 2.0, start={"u": start[0], "v": start[1]}, rtol=1e-8)
    np.testing.assert_allclose(run.beta[-1], true, rtol=1e-6)
