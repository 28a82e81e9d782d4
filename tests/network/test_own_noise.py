"""A distribution of one's own is a subclass: compiled fields, derivations and cached kernels take it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest

import flowsim as fs
from flowsim.network import Noise
from flowsim.symbolic.kernels import kernels


class TwoPoint(Noise):
    """RademacherNoise written by a user."""

    name: ClassVar[str] = "coin"
    rule_name: ClassVar[str] = "two-point"
    atoms: ClassVar[int | None] = 2

    def moment(self, order: int) -> Fraction:
        return Fraction(1 - order % 2)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(2.0 * rng.integers(0, 2, shape) - 1.0)

    def mgf(self, rate: Any, std: Any) -> Any:
        import sympy

        return sympy.cosh(rate * std)

    def rule(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array([1.0, -1.0]), np.array([0.5, 0.5])


class ThreePoint(TwoPoint):
    """The same name, another distribution: kernels of the two must not be confused."""

    atoms: ClassVar[int | None] = 4

    def moment(self, order: int) -> Fraction:
        return Fraction(1) if order == 0 else Fraction(0 if order % 2 else 2**order, 4)

    def mgf(self, rate: Any, std: Any) -> Any:
        return None

    def rule(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array([0.0, -0.0, 2.0, -2.0]), np.array([0.375, 0.375, 0.125, 0.125])


def field(formula: str, noise: Noise) -> np.ndarray:
    net = fs.DiagonalNetwork(formula, noise=noise)
    w = np.array([[0.3, -0.2], [0.5, 0.4]])
    out = np.empty_like(w)
    ones = np.ones(2)
    kernels(net).field(w, net.kinds(2), noise.stds(net.weights), ones, ones, out)
    return out


@pytest.mark.sampled(3)
@pytest.mark.parametrize("formula", ["u**2*v**2", "sinh(u)*v", "tanh(u)*v"])
def test_a_coin_of_ones_own_is_the_one_of_the_package(formula: str) -> None:
    np.testing.assert_allclose(field(formula, TwoPoint(0.4)), field(formula, fs.RademacherNoise(0.4)), rtol=1e-14)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("formula", ["u**2*v**2", "sinh(u)*v", "tanh(u)*v"])
def test_the_field_is_the_mean_over_the_atoms(formula: str) -> None:
    std, w = 0.4, np.array([[0.3, -0.2], [0.5, 0.4]])
    z, p = np.array([0.0, 2.0, -2.0]), np.array([0.75, 0.125, 0.125])
    value: dict[str, Any] = {
        "u**2*v**2": lambda u, v: u**2 * v**2,
        "sinh(u)*v": lambda u, v: np.sinh(u) * v,
        "tanh(u)*v": lambda u, v: np.tanh(u) * v,
    }

    def law(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """m + V/2 with g = sigma^2 = 1."""
        at = [(a * b, value[formula](u + std * x, v + std * y)) for a, x in zip(p, z, strict=True) for b, y in
              zip(p, z, strict=True)]  # fmt: skip
        mean = sum(q * f for q, f in at)
        return mean + 0.5 * (sum(q * f**2 for q, f in at) - mean**2)

    h = 1e-5
    slope = np.array(
        [(law(w[0] + h, w[1]) - law(w[0] - h, w[1])) / (2 * h), (law(w[0], w[1] + h) - law(w[0], w[1] - h)) / (2 * h)]
    )
    np.testing.assert_allclose(field(formula, ThreePoint(std)), -slope, rtol=1e-8)


def test_a_rule_that_is_none_and_one_that_is_missing_are_told() -> None:
    class Lopsided(TwoPoint):
        def rule(self, count: int) -> tuple[np.ndarray, np.ndarray]:
            return np.array([1.0, -2.0]), np.array([0.5, 0.5])

    class Bare(Noise):
        name: ClassVar[str] = "bare"

        def moment(self, order: int) -> Fraction:
            return Fraction(1 - order % 2)

    with pytest.raises(ValueError, match="`rule` of Lopsided must give 2 nodes in pairs"):
        field("tanh(u)*v", Lopsided(0.1))
    with pytest.raises(ValueError, match="Bare without a rule has exact expectations for polynomials only"):
        field("tanh(u)*v", Bare(0.1))
    np.testing.assert_allclose(field("u*v", Bare(0.1)), field("u*v", fs.GaussianNoise(0.1)), rtol=1e-14)
