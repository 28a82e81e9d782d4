"""The interpolant of a mirror flow against its optimality conditions, mpmath and SciPy."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize

from flowsim.solvers.entropy import Powers, SumOfExponentials, mirror_interpolation


def exponentials(rng: np.random.Generator, d: int, shift: float = 0.0) -> SumOfExponentials:
    """Both signs, coefficients and rates of their own for every coordinate."""
    rate = rng.uniform(0.5, 3.0, (2, d)) * np.array([[1.0], [-1.0]])
    return SumOfExponentials(rng.uniform(-1, 1, (2, d)) + shift, rate)


def central(function: object, z: np.ndarray, h: float = 1e-6) -> np.ndarray:
    out = np.empty_like(z)
    for i in range(len(z)):
        step = np.zeros_like(z)
        step[i] = h
        out[i] = (np.sum(function(z + step)) - np.sum(function(z - step))) / (2 * h)  # type: ignore[operator]
    return out


@pytest.mark.parametrize("kind", ["exponentials", "powers"])
def test_value_slope_and_potential_are_derivatives_of_each_other(kind: str) -> None:
    rng = np.random.default_rng(0)
    response = exponentials(rng, 6) if kind == "exponentials" else Powers(np.array([1.0, -1, 1, -1, 1, 1]), 3.0)
    z = rng.uniform(-1, 1, 6) if kind == "exponentials" else -response.sign * rng.uniform(0.5, 2, 6)
    np.testing.assert_allclose(central(response.potential, z), response.value(z), rtol=1e-7)
    np.testing.assert_allclose(central(response.value, z), response.slope(z), rtol=1e-7)
    assert (response.slope(z) > 0).all()


def test_an_offset_of_minus_infinity_leaves_its_term_out() -> None:
    both = SumOfExponentials(np.array([[0.3], [-np.inf]]), np.array([[2.0], [-2.0]]))
    one = SumOfExponentials(np.array([[0.3]]), np.array([[2.0]]))
    z = np.array([0.7])
    assert (both.value(z), both.slope(z), both.potential(z)) == (one.value(z), one.slope(z), one.potential(z))
    assert both.depth == 0.3


@pytest.mark.parametrize("seed", range(8))
def test_the_interpolant_fits_and_its_mirror_image_lies_in_the_row_space(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 6)), int(rng.integers(6, 15))
    A, f = rng.standard_normal((n, d)), rng.standard_normal(n)
    response = exponentials(rng, d)
    beta = mirror_interpolation(A, f, response)
    np.testing.assert_allclose(A @ beta, f, atol=1e-10)
    z = np.array([_invert(response, i, beta[i]) for i in range(d)])
    null = np.linalg.svd(A)[2][n:]
    np.testing.assert_allclose(null @ z, 0, atol=1e-8)


def _invert(response: SumOfExponentials, i: int, beta: float) -> float:
    """z with response(z) = beta, to 30 digits."""
    terms = list(zip(response.offset[:, i].tolist(), response.rate[:, i].tolist(), strict=True))
    with mpmath.workdps(30):
        residual = lambda z: mpmath.fsum(mpmath.sign(r) * mpmath.exp(o + r * z) for o, r in terms) - beta  # noqa: E731
        return float(mpmath.findroot(residual, (-40, 40), solver="bisect", tol=1e-20, maxsteps=100))


def test_one_equation_in_two_unknowns_is_solved_to_twelve_digits() -> None:
    """``x1 + 2 x2 = 5`` with ``x_i = c_i exp(r_i z_i)``, z = (1, 2) nu: one monotone equation, by mpmath."""
    with mpmath.workdps(30):
        nu = mpmath.findroot(
            lambda v: mpmath.mpf("0.5") * mpmath.exp(2 * v) + 2 * 3 * mpmath.exp(mpmath.mpf("0.7") * 2 * v) - 5, 0
        )
        expected = [float(0.5 * mpmath.exp(2 * nu)), float(3 * mpmath.exp(mpmath.mpf("0.7") * 2 * nu))]
    response = SumOfExponentials(np.log([[0.5, 3.0]]), np.array([[2.0, 0.7]]))
    beta = mirror_interpolation(np.array([[1.0, 2.0]]), np.array([5.0]), response)
    np.testing.assert_allclose(beta, expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_positive_interpolant_has_the_least_entropy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((3, 7))
    f = A @ rng.uniform(0.2, 2.0, 7)
    offset, rate = rng.uniform(-1, 1, (1, 7)), np.full((1, 7), 2.0)
    beta = mirror_interpolation(A, f, SumOfExponentials(offset, rate))
    entropy = lambda b: float(np.sum(b * (np.log(b) - offset[0] - 1.0)))  # noqa: E731
    found = minimize(
        entropy, np.linalg.lstsq(A, f)[0].clip(0.1), jac=lambda b: np.log(b) - offset[0], method="SLSQP",
        bounds=[(1e-9, None)] * 7, constraints={"type": "eq", "fun": lambda b: A @ b - f, "jac": lambda b: A},
        options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    assert (beta > 0).all()
    np.testing.assert_allclose(beta, found.x, atol=1e-5)
    assert entropy(beta) <= found.fun + 1e-10


@pytest.mark.parametrize("order", [3, 4, 6])
def test_powers_give_the_interpolant_of_the_largest_sum_of_roots(order: int) -> None:
    """Deep products: ``z_i = -sign |beta_i|^(2/L - 1)`` in the row space makes ``sum |beta_i|^(2/L)`` stationary."""
    rng = np.random.default_rng(order)
    A = rng.uniform(0.1, 1.0, (2, 5))
    f = A @ rng.uniform(0.5, 2.0, 5)
    p = order / (order - 2.0)
    sign = np.ones(5)
    beta = mirror_interpolation(A, f, Powers(sign, p), start=-(A.T @ np.ones(2)))
    np.testing.assert_allclose(A @ beta, f, rtol=1e-11)
    assert (beta > 0).all()
    np.testing.assert_allclose(np.linalg.svd(A)[2][2:] @ beta ** (-1 / p), 0, atol=1e-9)
    total = np.sum(beta ** (2 / order))
    for direction in np.linalg.svd(A)[2][2:]:
        for step in (1e-3, -1e-3):
            assert np.sum((beta + step * direction) ** (2 / order)) < total


def test_equal_columns_share_in_proportion_to_their_coefficients() -> None:
    A = np.array([[1.0, 1.0, 1.0]])
    response = SumOfExponentials(np.log([[1.0, 2.0, 5.0]]), np.full((1, 3), 2.0))
    np.testing.assert_allclose(mirror_interpolation(A, np.array([4.0]), response), [0.5, 1.0, 2.5], rtol=1e-12)


@pytest.mark.parametrize("gamma", [1e2, 1e4, 1e6])
def test_offsets_far_beyond_the_range_of_floats_are_reached_by_continuation(gamma: float) -> None:
    """At vanishing scale the interpolant is the vertex of least l1 norm: here (0, 0, 1.5) of three."""
    A, f = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]), np.array([1.5, 1.5])
    response = SumOfExponentials(np.full((2, 3), -2 * gamma), np.array([[2.0] * 3, [-2.0] * 3]))
    beta = mirror_interpolation(A, f, response)
    np.testing.assert_allclose(beta, [0, 0, 1.5], atol=1e-9)


def test_a_target_of_zero_rank_returns_the_start() -> None:
    response = SumOfExponentials(np.zeros((1, 2)), np.ones((1, 2)))
    np.testing.assert_array_equal(mirror_interpolation(np.zeros((2, 2)), np.zeros(2), response), [1.0, 1.0])


def test_a_target_that_no_allowed_sign_reaches_is_an_error() -> None:
    response = SumOfExponentials(np.zeros((1, 2)), np.ones((1, 2)))  # positive only
    with pytest.raises(ArithmeticError, match="from the target"):
        mirror_interpolation(np.array([[1.0, 2.0]]), np.array([-1.0]), response)
