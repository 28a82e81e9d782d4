"""Some coordinates of a run are read without the others, and are the same."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs


@pytest.mark.parametrize(
    ("net", "alpha", "d", "scale"),
    [
        (fs.DiagonalNetwork("u*v"), "1e-100", 60, 1.0),
        (fs.DiagonalNetwork("2*u**2 - v**2", noise=fs.GaussianNoise(0.1)), "1e-8", 20, 1.0),
        (fs.DiagonalNetwork("u*v"), "1e-100", 900, 1.0),  # screened
        (fs.DiagonalNetwork("u*v"), "1e-30", 20, 2.0**200),  # in powers of two near one
        (fs.DiagonalNetwork("sin(u)*v"), "1e-8", 10, 1.0),
        (fs.DiagonalNetwork(depth=3), "1e-2", 10, 1.0),
    ],
)
def test_some_coordinates_are_those_of_all(net: fs.DiagonalNetwork, alpha: str, d: int, scale: float) -> None:
    rng = np.random.default_rng(1)
    problem = fs.Regression(scale * rng.standard_normal((12, d)), scale * rng.standard_normal(12))
    end = 1.2 * float(fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), problem).jump_times[2])
    traj = fs.gradient_flow(net, problem, end, alpha=alpha, clock="accelerated")
    assert traj.dense is not None
    times, only = np.linspace(0, end, 40), np.array([7, 0, 3])
    whole = traj.at(times, clock="accelerated").beta
    some = traj.dense.some(times, "accelerated", only)
    np.testing.assert_allclose(some, whole[:, only], rtol=1e-10, atol=1e-12 * np.abs(whole).max())


def test_entries_of_a_matrix_are_counted_row_by_row() -> None:
    rng = np.random.default_rng(2)
    problem = fs.Regression(rng.standard_normal((10, 3)), rng.standard_normal((10, 2)))
    traj = fs.gradient_flow(fs.LinearNetwork(width=4), problem, 3.0, alpha=1e-3)
    assert traj.dense is not None
    some = traj.dense.some(np.array([1.0, 2.0]), "time", np.array([0, 5]))
    np.testing.assert_array_equal(some, traj.at([1.0, 2.0]).beta.reshape(2, -1)[:, [0, 5]])
