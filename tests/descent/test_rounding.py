"""Descent in weights whose start is lost to rounding: the right answer or an error, and no error without need."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs

#: The second coordinate goes negative first and changes its sign at t = 64.
PROBLEM = fs.Regression([[-0.5, -2.0], [-1.5, -2.0]], [-0.5, 2.0])
START = {"u": [1.4, 1.4], "v": [0.3, 0.3]}
END = [-2.5, 0.875]


def descend(formula: str, alpha: float, **options: object) -> fs.Trajectory:
    return fs.gradient_descent(
        fs.DiagonalNetwork(formula), PROBLEM, 0.02, 20_000, alpha=alpha, start=START, record_every=100, **options
    )


@pytest.mark.parametrize("options", [{"radius": 1e3}, {"momentum": 0.5}, {"radius": 1e3, "momentum": 0.5}], ids=str)
def test_a_ball_that_never_binds_changes_nothing(options: dict) -> None:
    np.testing.assert_allclose(descend("u*v", 1e-8, **options).beta[-1], END, rtol=1e-9)


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("u*v", {"coordinates": "weights"}),
        ("u*v", {"coordinates": "weights", "momentum": 0.5}),
        ("u*v", {"coordinates": "weights", "momentum": 0.5, "nesterov": True}),
        ("u*v", {"radius": 2.0}),
        ("u*v", {"radius": 2.0, "momentum": 0.5}),
        ("sinh(u*v)", {}),
    ],
    ids=str,
)
def test_a_sign_that_rounding_has_forgotten_is_an_error(formula: str, options: dict) -> None:
    with pytest.raises(fs.IntegrationError, match="lost to rounding by step") as caught:
        descend(formula, 1e-8, **options)
    kept = caught.value.trajectory
    assert kept is not None and not kept.success and 20 < kept.t[-1] < 70
    assert kept.beta[-1, 1] == pytest.approx(0.0, abs=1e-4)  # at the pinch, before it goes where it should not


@pytest.mark.parametrize(
    ("formula", "alpha"), [("sinh(u*v)", 1e-3), ("tanh(u)*v", 1e-8), ("u*v + u**3*v", 1e-8), ("atan(u)*v", 1e-8)]
)
def test_what_is_not_lost_is_no_error(formula: str, alpha: float) -> None:
    np.testing.assert_allclose(descend(formula, alpha).beta[-1], END, rtol=1e-6)


def test_coordinates_that_only_grow_forget_nothing_that_counts() -> None:
    """Three weights from 1e-6, far below the rounding of what they become, on a diagonal design."""
    net, problem = fs.DiagonalNetwork(depth=3), fs.Regression(np.eye(2) * 2**0.5, [2.0**0.5, 2.0**0.5 * 2])
    start = {"w1": 1.0, "w2": 1.5, "w3": 0.7}
    run = fs.gradient_descent(net, problem, 0.05, 60_000, alpha=1e-3, start=start, record_every=60_000)
    np.testing.assert_allclose(run.beta[-1], [1.0, 2.0], rtol=1e-12)


def test_symmetric_starts_stay_symmetric_beside_their_companion() -> None:
    """u = v exactly: beta never changes its sign, and that is no loss."""
    problem, start = fs.Regression([[1.0]], [-1.0]), {"u": 1.0, "v": 1.0}
    run = fs.gradient_descent(
        fs.DiagonalNetwork("sinh(u*v)"), problem, 0.1, 2000, alpha=1e-5, start=start, record_every=2000
    )
    assert 0.0 <= run.beta[-1, 0] < 1e-12


def test_runs_lost_to_rounding_are_marked_in_an_ensemble() -> None:
    runs = fs.gradient_descents(
        fs.DiagonalNetwork("sinh(u*v)"), PROBLEM, [0.02, 0.01], 20_000, alpha=1e-8, start=START, record_every=100
    )
    assert not runs.success.any() and (runs.stopped > 1000).all()
    assert "lost to rounding" in runs[0].message and np.isnan(runs.beta[0, -1]).all()
