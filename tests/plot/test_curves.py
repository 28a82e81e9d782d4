"""The points at which curves are drawn."""

from __future__ import annotations

import numpy as np

from flowsim.plot.curves import simplified


def test_simplified_curves_stay_within_the_tolerance_and_keep_plateaus_flat() -> None:
    x = np.linspace(0.0, 10.0, 3000)
    curves = np.stack([np.tanh(40 * (x - 3)) + np.tanh(40 * (x - 7)), np.exp(-x), np.ones_like(x)], axis=1)
    for tolerance in (1e-2, 1e-3):
        kept = simplified(x, curves, tolerance)
        lines = np.stack([np.interp(x, x[kept], column) for column in curves[kept].T], axis=1)
        assert np.abs(lines - curves).max() <= tolerance and len(kept) < 150
        assert kept[0] == 0 and kept[-1] == len(x) - 1 and np.all(np.diff(kept) > 0)


def test_simplified_curves_of_vertical_jumps_and_of_few_points() -> None:
    x = np.array([0.0, 1.0, 1.0, 2.0])
    np.testing.assert_array_equal(simplified(x, np.array([[0.0], [0.0], [1.0], [1.0]]), 1e-3), [0, 1, 2, 3])
    np.testing.assert_array_equal(simplified(x[:1], np.zeros((1, 2)), 1e-3), [0])
    np.testing.assert_array_equal(simplified(x[:2], np.zeros((2, 0)), 1e-3), [0, 1])
