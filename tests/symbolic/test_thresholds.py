"""Growth thresholds against elliptic integrals, blow-up times and closed forms."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.special import elliprf

import flowsim as fs
from flowsim.growth.arrivals import growth_thresholds
from flowsim.symbolic.origin import leading_part
from flowsim.symbolic.thresholds import blow_up_time, product_thresholds


@pytest.mark.parametrize(
    ("formula", "plus", "minus"),
    [
        ("u*v", 1, 1),
        ("u**2 - v**2", 1 / 2, 1 / 2),
        ("2*u**2 - v**2", 1 / 4, 1 / 2),
        ("2*a*b + (a**2 + b**2 + c**2)*c", 1 / 2, 1 / 2),
        ("a*tanh(a) - (exp(b) - 1)**2", 1 / 2, 1 / 2),
        ("u**2", 1 / 2, np.inf),
    ],
)
def test_two_layer_type_thresholds_are_inverse_eigenvalues_of_the_hessian_at_0(formula, plus, minus) -> None:
    net = fs.DiagonalNetwork(formula)
    direction = np.array([[1.0], [0.3], [-0.4]])[: len(net.weights)]
    t_plus, t_minus, _ = growth_thresholds(net, direction, 1)
    assert t_plus[0] == pytest.approx(plus, rel=1e-14)
    assert t_minus[0] == pytest.approx(minus, rel=1e-14)


def test_depth_3_thresholds_equal_carlson_integrals() -> None:
    start = np.random.default_rng(1).standard_normal((3, 40))
    own = elliprf(*(start**2))
    smallest = np.abs(start).min(axis=0)
    shifted = np.sort(start**2, axis=0) - smallest**2
    across = 2 * elliprf(0.0, shifted[1], shifted[2]) - own
    negative = np.prod(start, axis=0) < 0
    t_plus, t_minus = product_thresholds(start)
    np.testing.assert_allclose(t_plus, np.where(negative, across, own), rtol=1e-12)
    np.testing.assert_allclose(t_minus, np.where(negative, own, across), rtol=1e-12)


def test_thresholds_of_nearly_tied_weights_keep_all_digits_of_their_difference() -> None:
    """A difference of 1e-10 is exact in floats; to scale the weights first would round it to six digits."""
    start = np.random.default_rng(0).standard_normal((3, 4))
    start[0] = start[1] * (1 + 1e-10)
    t_plus, t_minus = product_thresholds(start)
    with mpmath.workdps(40):
        for column, plus, minus in zip(start.T, t_plus, t_minus, strict=True):
            squares = sorted(mpmath.mpf(abs(float(weight))) ** 2 for weight in column)
            own = mpmath.elliprf(*squares)
            across = 2 * mpmath.elliprf(*(square - squares[0] for square in squares)) - own
            exact = (across, own) if np.prod(column) < 0 else (own, across)
            assert plus == pytest.approx(float(exact[0]), rel=1e-13)
            assert minus == pytest.approx(float(exact[1]), rel=1e-13)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("depth", [3, 4, 6])
def test_product_thresholds_equal_blow_up_times_of_the_flow(depth: int) -> None:
    part = leading_part(fs.DiagonalNetwork(depth=depth).formulas[0])
    start = np.random.default_rng(depth).standard_normal((depth, 3))
    t_plus, t_minus = product_thresholds(start)
    for i, column in enumerate(start.T):
        assert blow_up_time(part, column, 1.0) == pytest.approx(t_plus[i], rel=1e-8)
        assert blow_up_time(part, column, -1.0) == pytest.approx(t_minus[i], rel=1e-8)


def test_coefficients_that_are_powers_of_pi_are_constants() -> None:
    """erf(u) erf(v) = (4/pi) u v + ...: the thresholds are those of 4 u v / pi."""
    net = fs.DiagonalNetwork("erf(u)*erf(v)")
    assert "pi" in fs.derive(net).latex()
    path = fs.saddle_to_saddle(net, fs.Regression([[1.0]], [0.25]), {"u": 1.0, "v": 0.5})
    np.testing.assert_allclose(path.jump_times, [np.pi], rtol=1e-12)
