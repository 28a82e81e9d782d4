"""Some coordinates of a run are read without the others, and are the same."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

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


def test_empty_columns_of_a_sparse_matrix_only_decay() -> None:
    rng = np.random.default_rng(3)
    d, filled = 3000, np.sort(rng.permutation(3000)[:800])
    X = np.zeros((12, d))
    X[:, filled] = rng.standard_normal((12, 800))
    y, alpha, decay, start = rng.standard_normal(12), 1e-4, 0.03, {"u": 1.0, "v": 0.5}
    net, times = fs.DiagonalNetwork("u*v", weight_decay=decay), np.linspace(0.0, 20.0, 5)
    options = {"alpha": alpha, "start": start, "t_eval": times}
    part = fs.gradient_flow(net, fs.Regression(X[:, filled], y), 20.0, **options).beta
    beta = fs.gradient_flow(net, fs.Regression(scipy.sparse.csr_array(X), y), 20.0, **options).beta
    np.testing.assert_allclose(beta[:, filled], part, rtol=1e-6, atol=1e-8 * np.abs(part).max())
    empty = np.setdiff1d(np.arange(d), filled)
    law = 0.5 * alpha**2 * np.exp(-2 * decay * times)
    np.testing.assert_allclose(beta[:, empty], np.repeat(law[:, None], len(empty), axis=1), rtol=1e-12)
