"""Random flows, descents and limits against arbitrary precision: none wrong, refused, slow or with a small estimate."""

from __future__ import annotations

import gmpy2
import numpy as np
import pytest

from tests.fuzz import oracles
from tests.fuzz.campaign import DIGITS, campaign
from tests.fuzz.matrices import linear_descent, linear_flow

QUICK = range(8)
#: Estimates were too small here, or flows were refused.
MENDED = (701928, 702791, 703137, 704570, 704655, 730477, 731764, 740437, 740467, 740503)
#: One test each: `pytest -m slow -k "random and 4000"` runs those from seed 4000 on.
CHUNK, FIRST, LAST = 250, 1000, 21000


def test_a_few_random_flows_agree_with_arbitrary_precision() -> None:
    assert campaign(QUICK) == []


@pytest.mark.slow
def test_flows_that_were_misjudged_are_right_and_estimated() -> None:
    assert campaign(MENDED) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(FIRST, LAST, CHUNK))
def test_many_random_flows_agree_with_arbitrary_precision(first: int) -> None:
    assert campaign(range(first, first + CHUNK)) == []


def logistic(t: np.ndarray) -> np.ndarray:
    """One coordinate of u = v: beta' = -2 beta (beta - 1) from 0.01."""
    return 0.01 * np.exp(2 * t) / (1 - 0.01 + 0.01 * np.exp(2 * t))


@pytest.mark.parametrize("oracle", ["quadratic", "weights", "linear"])
def test_oracles_know_the_closed_form_of_one_coordinate(oracle: str) -> None:
    X, y, times = np.ones((1, 1)), np.ones(1), [3.0, 6.0]
    with oracles.precision(DIGITS):
        start = [[gmpy2.mpfr("0.1")], [gmpy2.mpfr("0.1")]]
        t = [gmpy2.mpfr(value) for value in times]
        if oracle == "linear":
            found = linear_flow([oracles.Data(X, y)], *([row] for row in start), t, 0.0, 0.0, -22)
        elif oracle == "weights":
            found = oracles.weight_flow("u*v", ("u", "v"), oracles.Data(X, y), start, t)
        else:
            found = oracles.quadratic_flow("u*v", ("u", "v"), oracles.Data(X, y), start, t, 0.0, 0.0)
    np.testing.assert_allclose([float(row[0]) for row in found], logistic(np.array(times)), rtol=1e-14)


def test_the_oracle_of_products_agrees_with_the_one_of_weights() -> None:
    X, y = np.array([[1.0, 0.5], [0.25, -1.0]]), np.array([1.0, -0.5])
    with oracles.precision(DIGITS):
        start = [[gmpy2.mpfr(value) for value in row] for row in ([0.5, 0.25], [-0.5, 0.75], [1.0, 0.125])]
        t = [gmpy2.mpfr(2), gmpy2.mpfr(7)]
        one = oracles.product_flow(oracles.Data(X, y), start, t)
        other = oracles.weight_flow("u*v*w", ("u", "v", "w"), oracles.Data(X, y), start, t)
    np.testing.assert_allclose(np.array(one, dtype=float), np.array(other, dtype=float), rtol=1e-15)


@pytest.mark.parametrize("oracle", ["quadratic", "weights", "linear"])
def test_oracles_know_what_decay_that_is_switched_off_has_taken(oracle: str) -> None:
    """With u = v, y = 0 and X = 0: beta = beta_0 exp(-2 K)."""
    decay, times = ([1.0, 2.0], [0.5, 0.0, 0.25]), [gmpy2.mpfr(value) for value in (0.5, 1.5, 4.0)]
    data, start = oracles.Data(np.zeros((1, 1)), np.zeros(1)), [[gmpy2.mpfr("0.5")], [gmpy2.mpfr("0.5")]]
    with oracles.precision(DIGITS):
        if oracle == "linear":
            found = linear_flow([data], *([row] for row in start), times, 0.0, decay, -22)
        elif oracle == "weights":
            found = oracles.weight_flow(["u*v"], ("u", "v"), data, start, times, decay=decay)
        else:
            found = oracles.quadratic_flow(["u*v"], ("u", "v"), data, start, times, 0.0, decay)
    lost = np.array([0.25, 0.5, 1.0])
    np.testing.assert_allclose([float(row[0]) for row in found], 0.25 * np.exp(-2 * lost), rtol=1e-14)


def test_oracles_of_mixed_formulas_and_weighted_rows_agree() -> None:
    X, y, weight = np.array([[1.0, 0.5], [0.25, -1.0]]), np.array([1.0, -0.5]), [0.5, 2.0]
    formulas, names = ["u*v", "2*u**2 - w**2"], ("u", "v", "w")
    with oracles.precision(DIGITS):
        start = [[gmpy2.mpfr(value) for value in row] for row in ([0.5, 0.25], [-0.5, 0.75], [1.0, 0.125])]
        data, t = oracles.Data(X, y, "logistic", weight), [gmpy2.mpfr(2), gmpy2.mpfr(7)]
        one = oracles.quadratic_flow(formulas, names, data, start, t, 0.0, 0.1)
        other = oracles.weight_flow(formulas, names, data, start, t, decay=0.1)
    np.testing.assert_allclose(np.array(one, dtype=float), np.array(other, dtype=float), rtol=1e-15)


def test_oracles_of_descent_agree_where_both_are_one_product() -> None:
    """One feature, one target, width one."""
    data, decay, sizes = oracles.Data(np.ones((1, 1)), np.ones(1)), ([0.25], [0.5, 0.1]), [0.1, 0.2, 0.1, 0.3]
    with oracles.precision(DIGITS):
        start = [[gmpy2.mpfr("0.5")], [gmpy2.mpfr("0.25")]]
        one = oracles.weight_descent("u*v", ("u", "v"), data, start, sizes, 0.5, decay)
        other = linear_descent([data], *([row] for row in start), sizes, 0.5, decay)
    u, v, moved = 0.5, 0.25, (0.0, 0.0)
    for h, rate in zip(sizes, (0.5, 0.5, 0.1, 0.1), strict=True):
        g = u * v - 1
        moved = 0.5 * moved[0] - h * (g * v + rate * u), 0.5 * moved[1] - h * (g * u + rate * v)
        u, v = u + moved[0], v + moved[1]
    np.testing.assert_allclose([float(one[0]), float(other[0])], u * v, rtol=1e-14)
