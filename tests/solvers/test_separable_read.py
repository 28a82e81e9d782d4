"""Reading a run: sums of exponentials against NumPy at every scale, places of times against a sorted search."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from flowsim.solvers import integrate_separable
from flowsim.solvers.separable import reading as separable_read
from flowsim.solvers.separable.solution import places
from tests.solvers.separable_families import two_layer


def sums(logs, signs, slopes, decays, z, t):
    out = np.full(z.shape, np.nan)
    exponentials = logs, signs, slopes, decays
    separable_read.sums(exponentials, z, t, separable_read.terms_of(exponentials), out)
    return out


@pytest.mark.parametrize("d", [1, 7, 8, 50, 511, 513, 1100])
@pytest.mark.parametrize("K", [1, 2, 3])
def test_sums_are_those_of_numpy(d, K):
    rng = np.random.default_rng(d + K)
    logs, slopes, decays = rng.uniform(-60, 5, (K, d)), rng.uniform(-3, 3, (K, d)), rng.uniform(0, 1, (K, d))
    signs = rng.choice([-1.0, 1.0], (K, d))
    z, t = rng.uniform(-5, 5, (6, d)), rng.uniform(0, 3, 6)
    terms = np.exp(logs[:, None] + slopes[:, None] * z - decays[:, None] * t[:, None])
    expected = (signs[:, None] * terms).sum(axis=0)
    assert_allclose(sums(logs, signs, slopes, decays, z, t), expected, atol=4e-16 * terms.max(), rtol=1e-13)


def test_rows_that_stand_for_all_coordinates_are_read_as_they_are():
    z, t = np.linspace(-3, 3, 20).reshape(2, 10), np.zeros(2)
    columns = ((-1.0, -2.0), (1.0, -1.0), (2.0, -2.0), (0.0, 0.0))
    rows = [np.broadcast_to(np.array([[a], [b]]), (2, 10)) for a, b in columns]
    assert_allclose(sums(*rows, z, t), np.exp(2 * z - 1) - np.exp(-2 * z - 2), rtol=1e-14)


@pytest.mark.parametrize(
    "exponent",
    [-math.inf, -1e300, -1e7, -746.5, -745.5, -744.0, -720.0, -708.5, -699.0, 0.0, 699.0, 709.0, 710.0, 1e9, math.inf],
)
def test_no_exponent_is_too_large_or_too_small(exponent):
    """Beside ordinary ones, in every place of a vector: zero, subnormal or infinite where the exponential is."""
    one = np.ones((1, 11))
    for place in range(11):
        logs = np.linspace(-2, 2, 11)[None].copy()
        logs[0, place] = exponent
        with np.errstate(over="ignore", under="ignore"):
            expected = np.exp(logs)
        found = sums(logs, one, one, 0 * one, np.zeros((1, 11)), np.zeros(1))
        assert_allclose(found, expected, rtol=4e-16, atol=5e-324)


@pytest.mark.parametrize("exponent", [0.5, 8, 155, 1000])
@pytest.mark.parametrize("d", [1, 8, 50])
@pytest.mark.parametrize("kappa", [0.0, 1e-3])
def test_sums_between_steps_are_those_of_the_states_there(d, exponent, kappa):
    """From ordinary exponents to those that pass through the end of the range of floats."""
    rng = np.random.default_rng(d)
    X, y = rng.standard_normal((20, d)), rng.standard_normal(20)
    gamma = exponent * math.log(10)
    run = integrate_separable(two_layer(X, y, gamma, kappa), 3.0 * gamma)
    times = np.sort(np.append(rng.uniform(0, run.t[-1], 300), run.t[::7]))
    found, step, position = run.sums_at(times)
    assert_array_equal((step, position), run.locate(times))
    expected = run.flow.beta(run.at_steps(step, position), times)
    # z is rounded, and doubled in an exponent; the two exponentials begin alike.
    rounding = 4e-16 * (10 + 10 * gamma)
    assert_allclose(found, expected, rtol=rounding, atol=rounding * math.exp(-2 * gamma) + 1e-320)


def test_what_is_no_number_stays_none():
    one, z = np.ones((1, 20)), np.zeros((2, 20))
    z[1, 13] = np.nan
    found = sums(0 * one, one, one, 0 * one, z, np.zeros(2))
    assert_array_equal(np.isnan(found), np.isnan(z))


def test_times_are_found_in_the_later_of_two_steps():
    t = np.array([0.0, 1.0, 1.0, 1.0, 2.5, 4.0])
    h = np.array([1.0, 1e-20, 1e-20, 1.5, 1.5])
    times = np.array([-1.0, 0.0, 0.25, 1.0, 1.75, 2.5, 3.999, 4.0, 5.0])
    expected = np.array([0.0, 0.0, 0.25, 0.0, 0.5, 0.0, 1.499 / 1.5, 1.0, 1.0])
    for order in (np.arange(9), np.arange(9)[::-1], np.array([7, 1, 5, 0, 8, 2, 6, 3, 4])):
        step, position = places(t, h, times[order])
        assert_array_equal(step, np.clip(np.searchsorted(t, times[order], side="right") - 1, 0, 4))
        assert_allclose(position, expected[order], rtol=1e-14)
