from __future__ import annotations

import numpy as np
import pytest

from flowsim.solvers import SCIPY_METHODS, ArcLength, InitialValueProblem, Status, integrate

RATES = np.array([-1.0, -50.0])
DECAY = InitialValueProblem(rhs=lambda t, y: RATES * y, y0=np.ones(2), jacobian=lambda t, y: np.diag(RATES))


@pytest.mark.parametrize("method", SCIPY_METHODS)
def test_a_stiff_linear_system_ends_at_its_closed_form(method: str) -> None:
    solution = integrate(DECAY, 2.0, method=method, rtol=1e-8, atol=1e-10)
    assert solution.status is Status.COMPLETED
    assert solution.t[0] == 0 and solution.t[-1] == 2.0
    np.testing.assert_allclose(solution.y[-1], np.exp(2 * RATES), atol=1e-7)
    between = np.linspace(0, 2, 101)
    np.testing.assert_allclose(solution(between), np.exp(np.outer(between, RATES)), atol=1e-5)
    np.testing.assert_array_equal(solution(np.array([0.0]))[0], [1.0, 1.0])
    assert solution.stats["nfev"] > 0 and solution.stats["steps"] == len(solution.t) - 1


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", SCIPY_METHODS)
def test_a_blow_up_is_never_a_success(method: str) -> None:
    explosive = InitialValueProblem(rhs=lambda t, y: y**2, y0=np.ones(1), jacobian=lambda t, y: 2 * np.diag(y))
    solution = integrate(explosive, 2.0, method=method, rtol=1e-8, atol=1e-8)
    assert not solution.status.success
    assert np.isfinite(solution.y).all() and solution.t[-1] < 1.001


@pytest.mark.parametrize("method", ["BDF", "Radau"])
def test_an_iteration_matrix_beyond_floats_ends_the_run(method: str) -> None:
    lost = InitialValueProblem(DECAY.rhs, DECAY.y0, jacobian=lambda t, y: np.full((2, 2), np.nan))
    solution = integrate(lost, 2.0, method=method)
    assert solution.status is Status.NON_FINITE
    np.testing.assert_array_equal(solution.y, [DECAY.y0])


def test_an_error_of_the_right_hand_side_is_raised() -> None:
    def faulty(t: float, y: np.ndarray) -> np.ndarray:
        if t > 0.5:
            raise ValueError("no rate here")
        return RATES * y

    with pytest.raises(ValueError, match="no rate here"):
        integrate(InitialValueProblem(faulty, DECAY.y0, DECAY.jacobian), 2.0, method="Radau")


def test_the_step_budget_ends_a_run_with_what_to_try() -> None:
    solution = integrate(DECAY, 2.0, method="BDF", max_steps=3)
    assert solution.status is Status.STEP_BUDGET and len(solution.t) == 4
    assert "max_steps" in solution.message


def test_a_check_stops_the_run_with_its_message() -> None:
    watched = InitialValueProblem(DECAY.rhs, DECAY.y0, DECAY.jacobian, check=lambda t, y: "enough" if t > 1 else None)
    solution = integrate(watched, 2.0, method="LSODA")
    assert solution.status is Status.STOPPED and solution.message == "enough" and 1 < solution.t[-1] < 2


def test_a_step_limit_is_kept() -> None:
    limited = InitialValueProblem(DECAY.rhs, DECAY.y0, DECAY.jacobian, step_limit=lambda t, y, dy: 0.01)
    assert np.diff(integrate(limited, 1.0, method="Radau").t).max() <= 0.01 * (1 + 1e-12)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="`method` must be one of LSODA, BDF, Radau, DOP853; received 'Euler'"):
        integrate(DECAY, 1.0, method="Euler")


def test_arc_length_along_a_circle_and_its_inverse() -> None:
    ends = np.linspace(0, 2 * np.pi, 20)
    t = ends[:-1, None] + ends[1] * ArcLength.nodes()
    arc = ArcLength.of_samples(ends, np.diff(ends), 1.0 + np.sqrt(np.sin(t) ** 2 + np.cos(t) ** 2))
    step, position = arc.places(np.linspace(0, 4 * np.pi, 77))
    np.testing.assert_allclose((step + position) * ends[1], np.linspace(0, 2 * np.pi, 77), atol=1e-9)
    np.testing.assert_allclose(arc.at_steps(step, position), np.linspace(0, 4 * np.pi, 77), rtol=1e-9)


def test_a_rate_that_is_rounding_alone_spends_no_budget() -> None:
    """Newton's corrections do not fall where the rate is the sign of rounding: BDF would halve its step for ever."""
    A = np.array([[0.187, -0.022, 0.095], [-0.022, 0.014, -0.014], [0.095, -0.014, 0.136]])

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        return np.array([-15e-18, 9e-18, 7e-18]) * np.sign(y[0]) if y.any() else np.array([4e-18, -1e-18, 10e-18])

    noise = InitialValueProblem(rhs=rate, y0=np.zeros(3), jacobian=lambda t, y: -A)
    solution = integrate(noise, 0.27, method="BDF", rtol=0.0, atol=1e-8)
    assert solution.status is Status.STEP_FLOOR and solution.stats["steps"] < 2000


@pytest.mark.parametrize("method", SCIPY_METHODS)
def test_a_short_pulse_in_a_long_rest_is_not_stepped_over(method: str) -> None:
    """``y' = p(t) - y`` with p = 100 for a hundredth of a unit, from rest."""
    begin, end = 5000.0, 5000.01

    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        return (100.0 if begin <= t < end else 0.0) - y

    problem = InitialValueProblem(rhs, np.zeros(1), lambda t, y: -np.eye(1), breaks=(begin, end))
    solution = integrate(problem, end + 1.0, method=method, rtol=1e-7, atol=1e-9)
    top = -100.0 * np.expm1(begin - end)
    found = [solution(t).item() for t in (np.array([begin]), np.array([end]), np.array([end + 1.0]))]
    np.testing.assert_allclose(found, [0.0, top, top * np.exp(-1.0)], rtol=1e-5, atol=1e-12)
