"""SGD as a stochastic flow: conserved along every path, of the method's strong order, and SGD in the mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flowsim as fs
from flowsim.flows.stochastic import _Driven
from flowsim.growth.exponential import ExponentialMap
from flowsim.network import InitialScale

RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 5))
DATA = fs.Regression(X, X @ np.array([1.0, -1.0, 0.0, 0.0, 0.5]) + 0.3 * RNG.standard_normal(8))
UV = fs.DiagonalNetwork("u*v")
KINDS = [{"label_noise": 0.5}, {"batch_size": 2}, {"batch_size": 2, "label_noise": 0.3}]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("alpha", [0.3, "1e-1000"])
def test_the_conserved_quantity_is_constant_along_every_path(options: dict, alpha) -> None:
    """ln|pq| + <N>, from the components themselves."""
    start = {"u": 1.0, "v": 0.4}
    sde = fs.stochastic_flow(
        UV, DATA, 6000.0 if alpha != 0.3 else 10.0, step=0.01, alpha=alpha, start=start, n_paths=5, seed=0,
        n_steps=4000, record_every=100, **options,
    )  # fmt: skip
    scale = InitialScale.parse(alpha)
    expected = math.log(1.4 * 0.6) + 2 * scale.log
    logs = sde.log_abs_components.sum(axis=-1) + sde.quadratic_variation
    np.testing.assert_allclose(logs, expected, atol=1e-9 * max(1.0, abs(expected)))
    np.testing.assert_allclose(sde.log_conserved[..., 0], expected, atol=1e-9 * max(1.0, abs(expected)))
    assert sde.quadratic_variation[:, -1].min() > 0


@pytest.mark.sampled(3)
@pytest.mark.parametrize("options", KINDS)
def test_mean_and_spread_are_those_of_descent_with_small_steps(options: dict) -> None:
    runs, h, n_steps = 1000, 0.004, 1500
    sde = fs.stochastic_flow(
        UV, DATA, h * n_steps, step=h, alpha=0.3, n_paths=runs, n_steps=600, record_every=300, seed=1, **options
    )
    sgd = fs.gradient_descents(UV, DATA, h, n_steps, alpha=0.3, runs=runs, record_every=750, seed=2, **options)
    error = np.hypot(sde.standard_error, sgd.beta.std(axis=0, ddof=1) / math.sqrt(runs))
    np.testing.assert_array_less(np.abs(sde.mean - sgd.beta.mean(axis=0))[1:], 3 * error[1:])
    ratio = sde.beta.std(axis=0)[-1] / sgd.beta.std(axis=0)[-1]
    assert np.abs(np.log(ratio)).max() < 0.25


def in_weights(h: float, delta: float, batch: int, W: np.ndarray, V: np.ndarray, dt: float) -> np.ndarray:
    """Euler-Maruyama for du = v dN, dv = u dN in the weights, of paths (R,); increments (steps, R, n)."""
    n = DATA.n
    u, v = np.full((W.shape[1], 5), 0.5), np.full((W.shape[1], 5), 0.2)
    for dW, dV in zip(W, V, strict=True):
        r = (u * v) @ X.T - DATA.y
        noise = math.sqrt(h * (n / batch - 1) * n / (n - 1)) * r * (dW - dW.mean(axis=1, keepdims=True))
        dN = (-dt * r + noise + delta * math.sqrt(h * n / batch) * dV) @ X / n
        u, v = u + v * dN, v + u * dN
    return u * v


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("delta", "batch", "h", "t_end", "order"), [(0.5, 8, 0.05, 2.0, 1.0), (0.0, 2, 0.5, 0.5, 0.5)])
@pytest.mark.slow
def test_strong_order(delta: float, batch: int, h: float, t_end: float, order: float) -> None:
    """On the same Brownian paths: against the finest step, and that one against the weights' own equation."""
    fine, paths = 2**12, 200
    rng = np.random.default_rng(5)
    W, V = (math.sqrt(t_end / fine) * rng.standard_normal((fine, paths, 8)) for _ in range(2))
    growth = ExponentialMap.of(UV, DATA, InitialScale.parse(1.0), np.repeat([[0.5], [0.2]], 5, axis=1))
    driven = _Driven(growth, DATA, h, batch, delta)

    def run(steps: int) -> np.ndarray:
        nu, variation, dt = np.zeros((paths, 8)), np.zeros((paths, 5)), t_end / steps
        for k, (dW, dV) in enumerate(
            zip(*(each.reshape(steps, -1, paths, 8).sum(axis=1) for each in (W, V)), strict=True)
        ):
            nu, variation = driven.advance(k * dt, dt, nu, variation, dW, dV)
        return growth.mean(driven.exponents(t_end, driven.drive(nu), variation))

    best = run(fine)
    assert np.abs(best - in_weights(h, delta, batch, W, V, t_end / fine)).mean() < 3e-3
    counts = np.array([32, 64, 128, 256])
    errors = [np.abs(run(int(steps)) - best).mean() for steps in counts]
    # The reference errs too, at 2^12 steps: what is fitted is C (dt^p - dt_best^p).
    trial = np.linspace(0.3, 1.3, 401)
    misfit = [np.ptp(np.log(errors) - np.log((t_end / counts) ** p * (1 - (counts / fine) ** p))) for p in trial]
    assert trial[int(np.argmin(misfit))] == pytest.approx(order, abs=0.1)


def test_without_noise_it_is_the_flow_and_decay_is_kept() -> None:
    for decay in (0.0, 0.2):
        net = fs.DiagonalNetwork("u**2 - v**2", weight_decay=decay)
        sde = fs.stochastic_flow(net, DATA, 5.0, step=0.1, alpha=0.3, n_steps=5_000, record_every=5_000)
        flow = fs.gradient_flow(net, DATA, 5.0, alpha=0.3, t_eval=[5.0])
        np.testing.assert_allclose(sde.beta[0, -1], flow.beta[0], atol=4e-3)
        assert np.isnan(sde.standard_error).all() and sde.risk(DATA).shape == (1, 2)


def test_what_does_not_fit_is_refused() -> None:
    cases = [
        (fs.DiagonalNetwork("u*v*w"), {}, "quadratic formulas"),
        (fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1)), {}, "no weight noise"),
        (UV, {"batch_size": 9}, "`batch_size` must be at most"),
        (UV, {"label_noise": -1.0}, "`label_noise` must be >= 0"),
        (UV, {"n_paths": 0}, "`n_paths` must be an integer >= 1"),
        (UV, {"step": 0.0}, "`step` must be > 0"),
    ]
    for net, options, match in cases:
        with pytest.raises(ValueError, match=match):
            fs.stochastic_flow(net, DATA, 1.0, **{"step": 0.1, **options})
    with pytest.raises(fs.IntegrationError, match="range of floats"):
        fs.stochastic_flow(UV, DATA, 1e4, step=0.1, alpha=1.0, n_steps=40, label_noise=5.0, seed=0)


def test_a_seed_that_is_none_is_named() -> None:
    problem = fs.Regression([[1.0], [2.0]], [1.0, 2.0])
    with pytest.raises(ValueError, match="`seed` must be an integer >= 0"):
        fs.stochastic_flow(fs.DiagonalNetwork("u*v"), problem, 1.0, step=0.01, batch_size=1, seed="a")


def test_noise_on_labels_is_weighed_like_its_rows() -> None:
    """``X^T W e / n`` has the variances ``sum_i w_i^2 x_ij^2 delta^2 / n^2``."""
    X, w = np.array([[1.0, 2.0], [0.5, -1.0]]), np.array([0.3, 2.5])
    problem = fs.Regression(X, [1.0, 0.0], sample_weight=w)
    path = fs.stochastic_flow(fs.DiagonalNetwork("u*v"), problem, 2.0, step=0.1, alpha=0.1, label_noise=0.5, seed=0)
    variation = 2.0 * 0.1 * 0.5**2 * (w[:, None] ** 2 * X**2).sum(axis=0) / 4
    np.testing.assert_allclose(path.quadratic_variation[..., -1, :].ravel(), variation, rtol=1e-12)
