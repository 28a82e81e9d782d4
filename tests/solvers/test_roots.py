"""Many roots at once: exact to rounding, in few evaluations, and on the side that is asked for."""

from __future__ import annotations

import numpy as np

from flowsim.solvers.roots import first_positions


def test_roots_of_every_shape_are_found_to_rounding_in_few_evaluations() -> None:
    """Powers up to 30, a step, and a function that is infinite on half of its bracket."""
    powers, roots = np.array([1.0, 2.0, 5.0, 30.0, 1.0, 1.0]), np.array([0.3, 1e-9, 0.5, 0.9, 0.7, 0.6])
    count = 0

    def function(x: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        out = x**powers - roots**powers
        out[4] = 1.0 if x[4] >= roots[4] else -1e-300
        out[5] = np.inf if x[5] > 0.8 else out[5]
        return out

    found = first_positions(function, function(np.zeros(6)), function(np.ones(6)))
    np.testing.assert_allclose(found, roots, rtol=0, atol=2.0**-51)
    assert (function(found) >= 0).all()
    assert count < 80


def test_equal_signs_give_the_start_and_falling_functions_their_first_negative_position() -> None:
    slopes = np.array([1.0, -1.0, -1.0])
    starts = np.array([0.0, -0.5, 0.25])
    x = first_positions(lambda position: starts + slopes * position, starts, starts + slopes)
    assert x[:2].tolist() == [0.0, 0.0]
    assert x[2] > 0.25 and x[2] - 0.25 < 2.0**-51


def test_values_that_are_known_to_rounding_are_located_in_as_few_evaluations() -> None:
    roots, count = np.linspace(0.05, 0.95, 40), 0

    def function(x: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return (1000.0 + np.exp(x)) - (1000.0 + np.exp(roots))

    ends = function(np.zeros(40)), function(np.ones(40))
    np.testing.assert_allclose(first_positions(function, *ends, rounding=1e-12), roots, rtol=0, atol=1e-12)
    assert count < 12
