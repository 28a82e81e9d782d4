"""Noise on the gradient and Langevin dynamics, against plain NumPy, and their law."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs
from flowsim.network import Noise

NET = fs.DiagonalNetwork("u*v")
PROBLEM = fs.Regression([[1.0, 0.5], [0.25, -1.0]], [1.0, 0.5])


class Signs(Noise):
    """The same signs at every step: what NumPy repeats."""

    name = "signs"

    def moment(self, order: int) -> float:
        return float(order % 2 == 0)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(np.resize([1.0, -1.0, 1.0], shape[1:]), shape).copy()


def test_noise_on_the_gradient_is_what_the_equation_says() -> None:
    step = 0.1 / np.arange(1, 51)
    run = fs.gradient_descent(NET, PROBLEM, step, 50, alpha=0.5, gradient_noise=Signs(0.3), seed=0)
    w = np.array([[0.5 * 2**0.5] * 2, [0.0] * 2])
    xi = np.resize([1.0, -1.0, 1.0], 4).reshape(2, 2)
    for h in step:
        g = PROBLEM.gradient(w[0] * w[1])
        w = w - h * (np.stack([g * w[1], g * w[0]]) + 0.3 * xi)
    np.testing.assert_allclose(run.beta[-1], w[0] * w[1], rtol=1e-12)


def test_temperature_is_noise_of_size_sqrt_2_t_h() -> None:
    step, T = 0.05, 0.01
    one = fs.gradient_descent(NET, PROBLEM, step, 200, alpha=0.5, temperature=T, seed=3)
    other = fs.gradient_descent(NET, PROBLEM, step, 200, alpha=0.5, gradient_noise=(2 * T / step) ** 0.5, seed=3)
    np.testing.assert_allclose(one.beta, other.beta, rtol=1e-12)
    again = fs.gradient_descent(NET, PROBLEM, step, 200, alpha=0.5, temperature=T, seed=3, record_every=7)
    assert (again.beta[-1] == one.beta[-1]).all() and one.info["temperature"] == T


def test_langevin_dynamics_samples_the_gibbs_measure() -> None:
    """Of one weight, phi = w: L = (w - 1)^2 / 2 and h small, w ~ N(1, T / (1 - h / 2))."""
    h, T = 0.2, 0.04
    runs = fs.gradient_descents(
        fs.DiagonalNetwork("w"), fs.Regression([[1.0]], [1.0]), h, 60, alpha=1.0, runs=1000, temperature=T, seed=0,
        record_every=60,
    )  # fmt: skip
    w = runs.beta[:, -1, 0]
    assert w.mean() == pytest.approx(1.0, abs=5 * (T / 1000) ** 0.5)
    assert w.var() == pytest.approx(T / (1 - h / 2), rel=5 * (2 / 1000) ** 0.5)


def test_other_streams_do_not_depend_on_it() -> None:
    plain = fs.gradient_descent(NET, PROBLEM, 0.05, 30, alpha=0.5, batch_size=1, label_noise=0.1, seed=1)
    noisy = fs.gradient_descent(
        NET, PROBLEM, 0.05, 30, alpha=0.5, batch_size=1, label_noise=0.1, seed=1, gradient_noise=1e-12,
        coordinates="weights",
    )  # fmt: skip
    np.testing.assert_allclose(noisy.beta, plain.beta, rtol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "`temperature` must be >= 0"),
        ({"gradient_noise": -1.0}, "`gradient_noise` must be >= 0"),
        ({"temperature": 1.0, "gradient_noise": 1.0}, "`gradient_noise` must be left out"),
        ({"temperature": 1.0, "coordinates": "growth"}, "noise is added to the weights"),
    ],
)
def test_bad_noise_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.gradient_descent(NET, PROBLEM, 0.1, 3, alpha=0.5, **options)


def test_linear_networks_refuse_it_by_name() -> None:
    with pytest.raises(ValueError, match="`gradient_noise` and `temperature` are for a DiagonalNetwork"):
        fs.gradient_descent(fs.LinearNetwork(2), PROBLEM, 0.1, 3, alpha=0.5, temperature=0.1)
