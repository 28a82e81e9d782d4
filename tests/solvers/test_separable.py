"""The native integrator against closed forms, SciPy, itself at tighter tolerance, and its own budgets."""

import math

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import aslinearoperator

from flowsim.solvers import SeparableFlow, Status, integrate_ensemble, integrate_separable
from flowsim.solvers.separable import integrate as module
from tests.solvers.separable_families import EXPONENTS, KINDS, draw, two_layer

TOL = 1e-6


def gaussian(n=20, d=50, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def everywhere(solution):
    """The ends of the steps and points between."""
    t = solution.t
    return np.unique(np.concatenate([t, t[:-1] + 0.3 * np.diff(t), t[:-1] + 0.7 * np.diff(t)]))


def riccati(y, gamma, t):
    """z of ``z' = y - a sinh(2 z)``, a = exp(-2 gamma), z(0) = 0, y > 0, with 60 digits.

    ``w = exp(2 z)`` solves ``w' = a + 2 y w - a w^2``.
    """
    import mpmath

    with mpmath.workdps(60):
        y, t, a = mpmath.mpf(y), mpmath.mpf(t), mpmath.exp(-2 * mpmath.mpf(gamma))
        root = mpmath.sqrt(y**2 + a**2)
        # w = root/a tanh(root t + c) + y/a in a form without cancellation
        plus, minus = (y + root) / a, -a / (y + root)
        ratio = (1 - plus) / (1 - minus) * mpmath.exp(-2 * root * t)
        return float(mpmath.log((plus - minus * ratio) / (1 - ratio)) / 2)


@pytest.mark.parametrize("gamma", [2.0, 20.0, 300.0, 2.3e6])
def test_a_single_coordinate_follows_its_closed_form(gamma):
    y = np.array([0.7, 1.3, 0.2])
    # An orthogonal design of norm sqrt(n): every coordinate on its own.
    flow = two_layer(np.sqrt(3) * np.eye(3), np.sqrt(3) * y, gamma)
    solution = integrate_separable(flow, 10 * gamma, tol=TOL)
    t = everywhere(solution)
    z = solution(t)
    for i in range(3):
        exact = np.array([riccati(y[i], gamma, when) for when in t])
        # At gamma = 2.3e6 the spacing of times alone moves z by 1e-9.
        assert np.abs(z[:, i] - exact).max() < 7 * TOL


@pytest.mark.sampled(2)
@pytest.mark.parametrize("gamma", [1.0, 8 * math.log(10)])
@pytest.mark.parametrize("kappa", [0.0, 0.02])
def test_it_agrees_with_radau_at_tight_tolerance(gamma, kappa):
    X, y = gaussian(6, 9)
    flow = two_layer(X, y, gamma, kappa)
    t = np.linspace(0, 20 * gamma, 50)

    def rhs(now, nu):
        return y - X @ flow.beta((X.T @ nu / 6)[None], np.array([now]))[0]

    reference = solve_ivp(rhs, (0, t[-1]), np.zeros(6), "Radau", t, rtol=1e-10, atol=1e-11, max_step=0.2)
    z = reference.y.T @ X / 6
    solution = integrate_separable(flow, t[-1], tol=TOL)
    assert np.abs(solution(t) - z).max() < 5 * TOL


def error_in_tolerances(flow, t_end):
    solution = integrate_separable(flow, t_end, tol=TOL)
    tight = integrate_separable(flow, t_end, tol=TOL / 1000)
    assert solution.status is Status.COMPLETED
    assert tight.status is Status.COMPLETED
    t = everywhere(solution)
    beta, reference = flow.beta(solution(t), t), flow.beta(tight(t), t)
    assert np.isfinite(beta).all()
    return np.abs(beta - reference).max() / max(1.0, np.abs(reference).max()) / TOL


def horizon(X, y, gamma):
    return 20 * gamma / np.abs(X.T @ y / len(y)).max()


def run_family(seeds):
    for seed in seeds:
        kind, X, y = draw(seed)
        for exponent in EXPONENTS:
            gamma = exponent * math.log(10)
            error = error_in_tolerances(two_layer(X, y, gamma), horizon(X, y, gamma))
            assert error <= 20, (seed, kind, X.shape, exponent, error)


def test_thirty_random_problems_at_five_scales_stay_within_twenty_tolerances():
    run_family(range(30))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_thousand_random_problems_at_five_scales_stay_within_twenty_tolerances():
    run_family(range(1000))


def test_the_families_cover_every_kind_and_both_shapes():
    drawn = [draw(seed) for seed in range(60)]
    assert {kind for kind, _, _ in drawn} == set(KINDS)
    assert {X.shape[0] > X.shape[1] for _, X, _ in drawn} == {True, False}


def test_errors_fall_with_the_tolerance_as_formulas_up_to_order_nine_should():
    gamma = 60 * math.log(10)
    tolerances = np.array([1e-5, 1e-6, 1e-7, 1e-8])
    errors, steps = np.empty((4, 4)), np.empty((4, 4))
    for seed in range(4):
        X, y = gaussian(seed=seed)
        flow = two_layer(X, y, gamma)
        reference = integrate_separable(flow, 20 * gamma, tol=1e-11)
        for column, tol in enumerate(tolerances):
            solution = integrate_separable(flow, 20 * gamma, tol=tol)
            t = everywhere(solution)
            errors[seed, column] = np.abs(flow.beta(solution(t), t) - flow.beta(reference(t), t)).max()
            steps[seed, column] = solution.stats["steps"]
    # Errors follow the tolerance; steps grow with its eighth to ninth root.
    logs = np.log(tolerances)
    assert np.polyfit(logs, np.log(errors).mean(axis=0), 1)[0] == pytest.approx(1.0, abs=0.2)
    assert -np.polyfit(logs, np.log(steps).mean(axis=0), 1)[0] == pytest.approx(0.12, abs=0.03)


@pytest.mark.parametrize(("exponent", "steps"), [(8, 160), (60, 450), (1000, 940), (10000, 1150)])
def test_work_stays_inside_its_budget(exponent, steps):
    X, y = gaussian()
    gamma = exponent * math.log(10)
    stats = integrate_separable(two_layer(X, y, gamma), 20 * gamma, tol=TOL).stats
    assert stats["steps"] <= steps
    assert stats["rejected"] <= 0.2 * stats["steps"]
    assert stats["nlu"] == stats["njev"] <= stats["steps"] + stats["rejected"]
    assert stats["nlu"] <= 0.5 * stats["steps"]
    assert stats["nfev"] <= 1.6 * (stats["steps"] + stats["rejected"])


def test_steps_per_jump_grow_at_most_logarithmically_with_gamma():
    # Orthogonal design: five jumps, well apart at every scale.
    y = np.array([2.0, 1.0, 0.5, 0.25, 0.125])
    exponents = np.array([8, 100, 1000, 10000, 1000000])
    steps = []
    for exponent in exponents:
        gamma = exponent * math.log(10)
        flow = two_layer(np.sqrt(5) * np.eye(5), np.sqrt(5) * y, gamma)
        steps.append(integrate_separable(flow, 20 * gamma, tol=TOL).stats["steps"] / 5)
    # A lone jump: ln(1/tol) e-folds up, as many down. Jumps that overlap share steps.
    assert steps[0] <= 38
    # A plateau: its step doubles on the way in, so that one e-fold of gamma costs 1/ln 2 steps, and some to leave.
    assert np.polyfit(np.log(exponents), steps, 1)[0] < 3.0


def test_a_plateau_is_one_step():
    gamma = 1000 * math.log(10)
    flow = two_layer(np.array([[1.0]]), np.array([1.0]), gamma)
    solution = integrate_separable(flow, 0.9 * gamma, tol=TOL)
    assert solution.stats["steps"] <= 3
    assert_allclose(solution(np.array([0.5 * gamma]))[0, 0], 0.5 * gamma, rtol=1e-15)


def test_no_step_leaps_over_an_activation_right_after_a_jump():
    # The start of the second growth hides below 1e-300 while the first coordinate rises.
    X = np.array([[1.0, 0.5, 0.7, 0.0], [0.5, 1.0, 0.1, 0.7]])
    y = np.array([1.0, 0.0])
    gamma = 1000 * math.log(10)
    flow = two_layer(X, y, gamma)
    solution = integrate_separable(flow, 60 * gamma, tol=TOL)
    plateaus = np.array([1.0, 5.0, 9.5, 58.0]) * gamma
    expected = [[0, 0, 0, 0], [0.8, 0, 0, 0], [0, 0, 1.4, 0], [0, 0, 10 / 7, -10 / 49]]
    assert_allclose(flow.beta(solution(plateaus), plateaus), expected, atol=1e-9)


def test_duplicated_columns_stay_equal_bit_by_bit():
    X, y = gaussian(8, 4)
    gamma = 50 * math.log(10)
    flow = two_layer(np.repeat(X, 2, axis=1), y, gamma)
    z = integrate_separable(flow, 40 * gamma, tol=TOL).z
    assert np.abs(z[:, ::2] - z[:, 1::2]).max() <= 1e-12 * gamma


def test_coordinates_that_never_move_cost_nothing():
    X, y = gaussian(10, 3)
    gamma = 100.0
    base = integrate_separable(two_layer(X, y, gamma), 10 * gamma, tol=TOL)
    padded = integrate_separable(two_layer(np.hstack([X, np.zeros((10, 5))]), y, gamma), 10 * gamma, tol=TOL)
    assert padded.stats["steps"] == base.stats["steps"]
    assert not padded.z[:, 3:].any()


def test_a_start_without_any_component_never_moves_and_a_single_exponential_is_enough():
    X, y = gaussian(5, 3)
    absent = np.full((1, 3), -np.inf)
    one = np.ones((1, 3))
    still = integrate_separable(SeparableFlow(X, y, 5, absent, one, 2 * one, 0 * one), 10.0, tol=TOL)
    assert still.status is Status.COMPLETED
    assert_allclose(still.z[-1], 10.0 * X.T @ y / 5, rtol=1e-14)
    single = SeparableFlow(X, y, 5, -20 * one, one, 2 * one, 0 * one)
    assert error_in_tolerances(single, 500.0) <= 20


@pytest.mark.parametrize("layers", [3, 5])
def test_several_exponentials_of_different_slope_in_one_coordinate(layers):
    rng = np.random.default_rng(layers)
    X, y = rng.standard_normal((8, 6)), rng.standard_normal(8)
    slope = rng.choice([-4.0, -1.0, 1.0, 2.0, 3.0], (layers, 6))
    flow = SeparableFlow(
        X, y, 8, rng.uniform(-60, -20, (layers, 6)), np.sign(slope), slope, rng.uniform(0, 0.1, (layers, 6))
    )
    assert error_in_tolerances(flow, 500.0) <= 20


def test_a_step_budget_ends_the_run_with_the_steps_so_far():
    X, y = gaussian()
    solution = integrate_separable(two_layer(X, y, 100.0), 2000.0, tol=TOL, max_steps=50)
    assert solution.status is Status.STEP_BUDGET
    assert solution.stats["steps"] == 50 == len(solution.t) - 1
    assert np.isfinite(solution.z).all()


def test_progress_and_completion_do_not_change_the_solution():
    X, y = gaussian()
    flow = two_layer(X, y, 100.0)
    plain = integrate_separable(flow, 1000.0, tol=TOL)
    times = []
    watched = integrate_separable(flow, 1000.0, tol=TOL, progress=times.append)
    np.testing.assert_array_equal(watched.z, plain.z)
    assert times == sorted(times)
    assert times[-1] == 1000.0
    stopped = integrate_separable(flow, 1000.0, tol=TOL, done=lambda steps: steps.t[-1] > 300)
    assert stopped.status is Status.COMPLETED
    assert 300 < stopped.t[-1] < 1000
    np.testing.assert_array_equal(stopped.z, plain.z[: len(stopped.t)])


def test_screened_sparse_and_operator_systems_give_what_the_dense_one_gives(monkeypatch):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 900))
    X[rng.random(X.shape) < 0.5] = 0.0
    y = X[:, :6] @ rng.standard_normal(6)
    gamma = 100 * math.log(10)
    t = np.linspace(0, 8 * gamma, 300)
    screened = integrate_separable(two_layer(X, y, gamma), t[-1], tol=1e-10)
    assert screened.chunks[0].loaded is not None, "all coordinates were loaded: nothing was screened"
    for other in (scipy.sparse.csr_array(X), aslinearoperator(X)):
        flow = two_layer(X, y, gamma)
        again = integrate_separable(
            SeparableFlow(other, y, 40, flow.log_coefficient, flow.sign, flow.slope, flow.decay), t[-1], tol=1e-10
        )
        # Rounding decides how far the equations of a step are solved beyond their goal, and whether one is rejected.
        assert_allclose(again(t), screened(t), atol=1e-10)
        assert again.stats["passes"] == screened.stats["passes"]
    monkeypatch.setattr(module, "LOAD_ALL", 1000)
    whole = integrate_separable(two_layer(X, y, gamma), t[-1], tol=TOL)
    assert all(chunk.loaded is None for chunk in whole.chunks)
    flow = whole.flow
    assert np.abs(flow.beta(screened(t), t) - flow.beta(whole(t), t)).max() < 10 * TOL


def test_screening_passes_over_the_matrix_a_few_times_per_jump():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((60, 3000))
    y = X[:, :8] @ (0.5 + rng.random(8))
    gamma = 100 * math.log(10)
    solution = integrate_separable(two_layer(X, y, gamma), 6 * gamma, tol=TOL)
    beta = solution.flow.beta(solution.z, solution.t)
    jumps = int((np.diff((np.abs(beta) > 1e-3).astype(int), axis=0) != 0).sum())
    assert jumps >= 5
    assert solution.stats["passes"] <= 5 * jumps


def test_arc_length_is_the_length_of_the_path_of_beta():
    X, y = gaussian()
    gamma = 60 * math.log(10)
    solution = integrate_separable(two_layer(X, y, gamma), 20 * gamma, tol=TOL)
    measured = solution.arclength(1 / gamma).values[-1]
    # A polygon through many points of every step.
    steps = np.repeat(np.arange(len(solution.h)), 50)
    theta = np.tile(np.arange(50) / 50, len(solution.h))
    t = solution.t[steps] + theta * solution.h[steps]
    beta = solution.flow.beta(solution.at_steps(steps, theta), t)
    polygon = np.linalg.norm(np.diff(beta, axis=0), axis=1).sum() + 20
    assert measured == pytest.approx(polygon, rel=1e-4)


def test_an_ensemble_is_its_members_one_by_one():
    X, y = gaussian(10, 15)
    gammas = [20.0, 200.0, 2000.0, 20.0]
    flows = [two_layer(X, y, gamma) for gamma in gammas]
    ends = [10 * gamma for gamma in gammas]
    together = integrate_ensemble(flows, ends, tol=TOL, workers=2)
    for flow, end, member in zip(flows, ends, together, strict=True):
        np.testing.assert_array_equal(member.z, integrate_separable(flow, end, tol=TOL).z)
    ends_reached = integrate_ensemble(flows, ends, tol=TOL, workers=3, read=lambda run: run.t[-1])
    assert ends_reached == ends
    with pytest.raises(ValueError, match="`t_end` must hold one time for each of the 4 flows; received 2"):
        integrate_ensemble(flows, ends[:2])


def test_a_decreasing_map_is_refused():
    one = np.ones((1, 1))
    with pytest.raises(ValueError, match="beta must not decrease in z"):
        SeparableFlow(one, np.ones(1), 1, one, one, -one, one)
