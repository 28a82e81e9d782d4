"""Noises: exact moments against integrals and samples; bad parameters named."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import integrate, stats

import flowsim as fs
from flowsim.network import Noise

NAMED = [fs.GaussianNoise, fs.UniformNoise, fs.RademacherNoise, fs.LaplaceNoise]
DENSITIES = {
    fs.GaussianNoise: stats.norm(),
    fs.UniformNoise: stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    fs.LaplaceNoise: stats.laplace(scale=math.sqrt(0.5)),
}


@pytest.mark.parametrize("kind", list(DENSITIES))
@pytest.mark.parametrize("order", range(9))
def test_moments_are_the_integrals(kind: type[Noise], order: int) -> None:
    law = DENSITIES[kind]
    low, high = law.support()
    expected = integrate.quad(lambda z: z**order * law.pdf(z), low, 0, limit=200)[0]
    expected += integrate.quad(lambda z: z**order * law.pdf(z), 0, high, limit=200)[0]
    assert float(kind(1.0).moment(order)) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("kind", NAMED)
def test_moments_are_exact_fractions_with_unit_variance(kind: type[Noise]) -> None:
    noise = kind(0.3)
    assert [noise.moment(j) for j in range(4)] == [1, 0, 1, 0]
    assert all(isinstance(noise.moment(j), Fraction) for j in range(60))
    assert noise.unit_moment(8) == float(noise.moment(8))


@pytest.mark.parametrize("kind", NAMED)
def test_samples_have_these_moments(kind: type[Noise]) -> None:
    noise, n = kind(1.0), 200_000
    z = noise.draw(np.random.default_rng(0), (n,))
    for order in (1, 2, 3, 4):
        error = math.sqrt(float(noise.moment(2 * order) - noise.moment(order) ** 2) / n)
        assert abs(np.mean(z**order) - float(noise.moment(order))) <= 5 * error + 1e-12


def test_samples_follow_the_seed_and_shape() -> None:
    noise = fs.LaplaceNoise(0.2)
    one, two = (noise.draw(np.random.default_rng(3), (2, 4)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (2, 4)


@pytest.mark.parametrize(
    ("std", "expected"),
    [
        (0.1, [0.1, 0.1]),
        (0, [0.0, 0.0]),
        (np.float64(0.2), [0.2, 0.2]),
        (np.array(0.2), [0.2, 0.2]),
        ((0.1, 0.2), [0.1, 0.2]),
        ([0.1, 0.2], [0.1, 0.2]),
        (np.array([0.1, 0.2]), [0.1, 0.2]),
        ({"v": 0.2}, [0.0, 0.2]),
    ],
)
def test_a_std_for_all_weights_or_one_each(std: object, expected: list[float]) -> None:
    np.testing.assert_array_equal(fs.GaussianNoise(std).stds(("u", "v")), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("std", [-0.1, math.nan, math.inf, "0.1", None, True, [0.1, -1], {"u": "x"}, [[0.1]], 1j])
def test_a_std_is_a_finite_number_not_below_0(std: object) -> None:
    with pytest.raises(ValueError, match="`std` must be "):
        fs.GaussianNoise(std)  # type: ignore[arg-type]


def test_stds_must_fit_the_weights() -> None:
    with pytest.raises(ValueError, match="`std` must hold 2 values, one per weight; received 3"):
        fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise((0.1, 0.2, 0.3)))
    with pytest.raises(ValueError, match="`std` names the unknown weight 'w'; the network has u, v"):
        fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise({"w": 0.1}))


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        ((1, 0), "must begin with"),
        ((1, 0.1, 1), "must begin with"),
        ((1, 0, 2), "must begin with"),
        ((1, 0, 1, 0, 0.5), "belong to no distribution"),
        ((1, 0, 1, 2, 4), "belong to no distribution"),
        ((1, 0, 1, math.nan), "must be finite"),
        ("abc", "must be numbers"),
        (3, "must be numbers"),
    ],
)
def test_moments_must_be_those_of_some_distribution(moments: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.MomentNoise(0.1, moments=moments)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", NAMED)
def test_the_named_distributions_pass_as_their_own_moments(kind: type[Noise]) -> None:
    noise = fs.MomentNoise(0.1, moments=tuple(kind(1.0).unit_moment(j) for j in range(17)))
    assert float(noise.moment(4)) == float(kind(1.0).moment(4))
    with pytest.raises(ValueError, match="`moments` must reach order 17 for this formula; received 16"):
        noise.moment(17)


def test_noise_given_by_moments_cannot_be_sampled() -> None:
    with pytest.raises(ValueError, match="cannot be sampled"):
        fs.MomentNoise(0.1).draw(np.random.default_rng(0), (3,))


def test_the_base_is_refused() -> None:
    with pytest.raises(ValueError, match="`Noise` is the base class"):
        Noise(0.1)
    with pytest.raises(ValueError, match="`multiplicative` must be True or False"):
        fs.GaussianNoise(0.1, "yes")  # type: ignore[arg-type]
