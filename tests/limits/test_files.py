"""Limit paths come back from files whole: jumps, saddles, orbits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowsim as fs

PROBLEM = fs.datasets.sparse_regression(20, 4, sparsity=2, seed=1)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("formula", "start"),
    [
        ("u*v", None),
        ("tanh(u*v)*3", {"u": 1.0, "v": 0.0}),
        (["tanh(u*v)*3", "u**2 - v**2", "u*v + (u*v)**3", "u*v"], {"u": 1.0, "v": 0.0}),
        ("u*v + u**3*v**3", {"u": 1.0, "v": np.array([0.0, 0.1, 0.2, -0.3])}),
    ],
    ids=str,
)
def test_a_saved_path_keeps_its_orbits(formula: Any, start: Any, tmp_path: Path) -> None:
    path = fs.saddle_to_saddle(fs.DiagonalNetwork(formula), PROBLEM, start=start)
    again = fs.load(path.save(tmp_path / "path.nc"))
    assert len(path.jump_times) >= 2
    for own, read in zip(path.orbits, again.orbits, strict=True):
        np.testing.assert_array_equal(read.points, own.points)
    tau = np.linspace(0, path.arclength(2 * path.jump_times[-1]), 50)
    np.testing.assert_array_equal(again.curve(tau), path.curve(tau))
    np.testing.assert_array_equal(again.curve_loss(tau), path.curve_loss(tau))
