"""Events on continuous extensions: found once each, several in a step."""

import math

import numpy as np
import pytest

from flowsim.solvers import Event, InitialValueProblem, find_events, integrate, integrate_separable
from tests.solvers.separable_families import two_layer

TOL = 1e-7
GAMMA = 60 * math.log(10)
# An orthogonal design: coordinates on their own, jumps at gamma / |y|.
Y = np.array([2.0, 1.0, -0.5])
FLOW = two_layer(np.sqrt(3) * np.eye(3), np.sqrt(3) * Y, GAMMA)


def test_every_coordinate_crosses_half_its_final_value_at_its_own_time():
    solution = integrate_separable(FLOW, 4 * GAMMA, tol=TOL)
    found = find_events(solution, [Event(lambda t, z: np.abs(FLOW.beta(z, t)) - np.abs(Y) / 2)])
    assert [one.component for one in found] == [0, 1, 2]
    assert all(one.rising for one in found)
    for one in found:
        target = abs(Y[one.component])
        # beta' = 2 beta (y - beta) from exp(-2 gamma)/2 while it is positive: a logistic curve.
        exact = (2 * GAMMA + math.log(2 * target)) / (2 * target)
        assert one.t == pytest.approx(exact, abs=10 * TOL / target)
        beta = FLOW.beta(solution.at_steps(np.array([one.step]), np.array([one.position])), np.array([one.t]))
        assert abs(beta[0, one.component]) == pytest.approx(target / 2, rel=1e-9)


def test_direction_chooses_rising_or_falling_changes():
    X = np.array([[1.0, 0.5, 0.7, 0.0], [0.5, 1.0, 0.1, 0.7]])
    flow = two_layer(X, np.array([1.0, 0.0]), GAMMA)

    def first(t, z):
        return flow.beta(z, t)[:, 0] - 0.4

    solution = integrate_separable(flow, 20 * GAMMA, tol=TOL)
    ups, downs, both = (find_events(solution, [Event(first, direction=k)]) for k in (1, -1, 0))
    # The first coordinate rises to 0.8 at 2 gamma and falls back at 8 gamma.
    assert (len(ups), len(downs), len(both)) == (1, 1, 2)
    assert ups[0].t == pytest.approx(2 * GAMMA, rel=0.02)
    assert downs[0].t == pytest.approx(8 * GAMMA, rel=0.02)
    with pytest.raises(ValueError, match="`direction` must be -1, 0 or 1; received 2"):
        Event(first, direction=2)


def test_several_events_in_one_long_step_are_all_found():
    # On the first plateau z is a straight line, taken in one step.
    levels = np.array([0.2, 0.3, 0.31, 0.77]) * GAMMA / 2
    event = Event(lambda t, z: z[:, :1] - levels)
    found = find_events(integrate_separable(FLOW, 0.4 * GAMMA, tol=TOL), [event])
    assert len({one.step for one in found}) == 1
    np.testing.assert_allclose([one.t for one in found], levels / 2, rtol=1e-12)


def test_plateaus_begin_and_end_where_the_speed_says():
    jump = 1 / GAMMA

    def speed(t, z):
        beta = FLOW.beta(z, t)
        return np.linalg.norm(2 * np.abs(beta) * (Y - beta), axis=1) - jump

    found = find_events(integrate_separable(FLOW, 4 * GAMMA, tol=TOL), [Event(speed)])
    assert [one.rising for one in found] == [True, False] * 3


def test_events_of_a_scipy_solution_are_found_the_same_way():
    problem = InitialValueProblem(rhs=lambda t, y: np.array([y[1], -y[0]]), y0=np.array([0.0, 1.0]))
    solution = integrate(problem, 20.0, method="DOP853", rtol=1e-10, atol=1e-12)
    # The start itself, where the sine is zero, is no change of sign, whichever way it leaves.
    for sign in (1.0, -1.0):
        zeros = find_events(solution, [Event(lambda t, y, sign=sign: sign * y[:, 0])])
        np.testing.assert_allclose([one.t for one in zeros], np.pi * np.arange(1, 7), atol=1e-8)


def test_a_function_that_is_zero_throughout_a_step_has_no_roots_to_part() -> None:
    from flowsim.solvers.events import _between_roots

    assert len(_between_roots(np.zeros(9))) == 0
    assert len(_between_roots(np.array([2.0, 0.0, 0.0]))) == 0
