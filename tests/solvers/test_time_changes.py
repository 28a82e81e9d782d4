"""Integration in other variables than time: flows that are far faster at their start, and horizons of any size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import exp1

import flowsim as fs
from flowsim.solvers import InitialValueProblem
from flowsim.solvers.time_changes import integrate_in_log_time, integrate_in_time


@pytest.mark.parametrize("method", ["LSODA", "BDF", "Radau", "DOP853"])
def test_a_power_law_takes_few_steps_over_many_decades(method: str) -> None:
    """``y' = -y^2`` from 1e30, and from t = 1/2 on ``y' = 0``."""
    seen: list[float] = []
    problem = InitialValueProblem(
        rhs=lambda t, y: -(y**2) * (t < 0.5),
        y0=np.array([1e30]),
        jacobian=lambda t, y: -2 * np.diag(y) * (t < 0.5),
        step_limit=lambda t, y, slope: 1e3 * float(np.abs(y / slope).max()) if slope.any() else 1.0,
        check=lambda t, y: seen.append(t),
        breaks=(0.5,),
    )
    found = integrate_in_log_time(problem, 1.0, method=method, rtol=1e-8, atol=1e-300)
    assert found.status.success and found.t[-1] == seen[-1] == 1.0 and found.stats["steps"] < 3000
    times = np.array([1e-29, 1e-10, 0.3, 0.5, 0.7, 1.0])
    np.testing.assert_allclose(found(times)[:, 0], 1 / (np.minimum(times, 0.5) + 1e-30), rtol=1e-5)


@pytest.mark.parametrize("method", ["auto", "DOP853"])
def test_a_loss_of_e_to_the_500_falls_in_few_steps(method: str) -> None:
    """beta = -b with ``b' = -2 b e^b``: ``E_1(b) = E_1(500) + 2 t``."""
    problem, times = fs.Problem([[1.0]], [1.0], loss="exponential"), np.array([0.0, 1e-100, 1e-20, 1e-3, 0.1])
    event = fs.events.crosses("beta", 0, -100.0)
    run = fs.gradient_flow(
        fs.DiagonalNetwork("u*v"), problem, 0.1, alpha=500**0.5, start={"u": 1.0, "v": -1.0}, t_eval=times,
        method=method, rtol=1e-9, events=event, estimate_error=True,
    )  # fmt: skip
    assert run.stats["steps"] < 3000
    np.testing.assert_allclose(exp1(-run.beta[1:, 0]), 2 * times[1:], rtol=1e-6)
    assert exp1(100.0) / 2 == pytest.approx(run.events[0].t, rel=1e-6)


@pytest.mark.parametrize("method", ["LSODA", "BDF", "Radau", "DOP853"])
@pytest.mark.parametrize("exponent", [-1000, -600, 0, 600, 1020])
def test_horizons_of_any_size_end_where_they_are_asked_to(method: str, exponent: int) -> None:
    """``y' = -2^-e y``, at rest from ``t = 2^e 40`` on; LSODA alone would step beyond the end of short ones."""
    unit = np.ldexp(1.0, exponent)
    problem = InitialValueProblem(
        rhs=lambda t, y: -y / unit,
        y0=np.array([1.0]),
        jacobian=lambda t, y: -np.eye(1) / unit,
        rest=lambda t, y: np.zeros(1) if t > 6 * unit else None,
    )
    for folds in (3.0, 8.0):
        found = integrate_in_time(problem, folds * unit, method=method, rtol=1e-8, atol=1e-12)
        assert found.status.success and found.t[-1] == folds * unit
        times = np.array([0.5, 2.0]) * unit
        np.testing.assert_allclose(found(times)[:, 0], np.exp([-0.5, -2.0]), rtol=1e-5)
    assert found.message.startswith("came to rest") and found.stats["steps"] > 5
