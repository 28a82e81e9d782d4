"""The second-derivative formulas against polynomials, published coefficients, and what their errors must be."""

import math

import mpmath
import numpy as np
import pytest
from numpy.polynomial import Polynomial
from numpy.testing import assert_allclose, assert_array_equal

from flowsim.solvers import SeparableFlow, Status, integrate_separable, multistep, separable_run
from flowsim.solvers.multistep import HISTORY, MOST
from tests.solvers.separable_families import two_layer

WIDTH = 8


def coefficients(k, h, spans):
    ahead, behind, ratio, lean = (np.zeros(HISTORY + 2) for _ in range(4))
    weight = np.zeros((HISTORY + 2, multistep._FOLDS))
    multistep._coefficients(k, h, spans, ahead, behind, ratio, lean, weight.ravel())
    return ahead, behind, ratio, lean, weight


def past(spans):
    """Times of the last points, the present one, 0, first."""
    return -np.concatenate([[0.0], np.cumsum(spans)])


def differences(f, times, count):
    """Modified divided differences of f at 0: divided differences times the distances to 0 of the points before."""
    table, out = f(times), [f(times)[0]]
    for j in range(1, count):
        table = (table[:-1] - table[1:]) / (times[: len(table) - 1] - times[j : j + len(table) - 1])
        out.append(table[0] * np.prod(-times[1 : j + 1] + times[0]))
    return np.array(out)


def step(f, k, h, spans):
    """One step of the formula with k past points over [0, h] for z' = f(t), and its own error estimates."""
    ahead, behind, ratio, lean, weight = coefficients(k, h, spans)
    rows = differences(f, past(spans), HISTORY)
    history, bend = np.repeat(rows, WIDTH), np.full(WIDTH, f.deriv()(0.0))
    known, guess, f_ahead, bend_ahead = (np.zeros(WIDTH) for _ in range(4))
    multistep._predict(
        k, h, history, bend, ahead, behind, ratio, lean, weight.ravel(), WIDTH, known, guess, f_ahead, bend_ahead
    )  # fmt: skip
    second = h * h * weight[k, 2]
    first = h * weight[k, 1] + second * lean[k]
    value, turn = f(h), f.deriv()(h)
    z = known[0] + first * (value - f_ahead[0]) - second * (turn - bend_ahead[0])
    errors = multistep._errors(
        k, h, history, np.full(WIDTH, value), np.full(WIDTH, turn), f_ahead, bend_ahead, ahead, ratio, lean,
        weight.ravel(), np.ones(WIDTH), WIDTH, k > 1, True, np.zeros(WIDTH),
    )  # fmt: skip
    return z, guess[0], errors


def random_case(seed, degree):
    rng = np.random.default_rng(seed)
    return Polynomial(rng.standard_normal(degree + 1)), rng.uniform(0.5, 2.0), rng.uniform(0.3, 3.0, HISTORY + 2)


@pytest.mark.parametrize("k", range(1, MOST + 1))
def test_a_formula_with_k_past_points_is_exact_for_f_of_degree_k_plus_one_on_any_spacing(k):
    for seed in range(5):
        f, h, spans = random_case(seed, k + 1)
        z, guess, errors = step(f, k, h, spans)
        exact = f.integ()(h)
        # Of rounding: the size of f far in the past.
        scale = np.abs(f(past(spans))).max() * h
        assert abs(z - exact) < 1e-13 * scale
        # The guess has one point fewer at the end and two more in the past: the same degree.
        assert abs(guess - exact) < 1e-10 * scale
        assert errors[0] < 1e-12 * scale


@pytest.mark.parametrize("k", range(1, MOST + 1))
def test_the_estimate_is_the_error_where_the_formula_is_one_degree_short(k):
    for seed in range(5):
        f, h, spans = random_case(seed, k + 2)
        z, _, (now, _, above) = step(f, k, h, spans)
        error = abs(z - f.integ()(h))
        assert now == pytest.approx(error, rel=1e-8)
        assert above < 1e-8 * error
        if k > 1:
            g, _, _ = random_case(seed, k + 1)
            assert step(g, k, h, spans)[2][1] == pytest.approx(
                abs(step(g, k - 1, h, spans)[0] - g.integ()(h)), rel=1e-8
            )


@pytest.mark.parametrize(
    ("k", "weights", "second"),
    [
        (1, [2 / 3, 1 / 3], 1 / 6),
        (2, [29 / 48, 5 / 12, -1 / 48], 1 / 8),
        (3, [307 / 540, 19 / 40, -1 / 20, 7 / 1080], 19 / 180),
        (4, [3133 / 5760, 47 / 90, -41 / 480, 1 / 45, -17 / 5760], 3 / 32),
    ],
)
def test_on_equal_steps_they_are_the_formulas_of_enright(k, weights, second):
    """Order conditions fix the coefficients: Enright (1974), Table 1, as integrals of the interpolating polynomial."""
    *_, lean, weight = coefficients(k, 1.0, np.ones(HISTORY + 2))
    assert weight[k, 2] == pytest.approx(second, rel=1e-13)
    assert weight[k, 1] + weight[k, 2] * lean[k] == pytest.approx(weights[0], rel=1e-13)
    # Sums of moments: exact for 1, t, ..., t^(k+1) with f' at the end.
    for degree in range(k + 2):
        f = Polynomial.basis(degree)
        total = sum(w * f(1.0 - j) for j, w in enumerate(weights)) - second * f.deriv()(1.0)
        assert total == pytest.approx(1 / (degree + 1), abs=1e-13)


@pytest.mark.parametrize("k", range(1, MOST + 1))
def test_the_formulas_damp_what_decays_on_the_whole_negative_axis(k):
    *_, lean, weight = coefficients(k, 1.0, np.ones(HISTORY + 2))
    second = weight[k, 2]
    first = weight[k, 1] + second * lean[k]
    # z_n+1 = z_n + sum_j c_j f_n-j + first f - second f' for f = x z.
    nodes = np.arange(k)
    moments = np.array([1 / (j + 1) - first + second * j for j in range(k)])
    c = np.linalg.solve(np.vander(-nodes, k, increasing=True).T, moments)
    for x in -np.logspace(-3, 6, 400):
        polynomial = np.zeros(k + 1)
        polynomial[0] = 1 - first * x + second * x * x
        polynomial[1 : k + 1] = -c * x
        polynomial[1] -= 1.0
        assert np.abs(np.roots(polynomial)).max() < 1.0


@pytest.mark.parametrize("stiffness", [1.0, 1e5, 1e12])
@pytest.mark.parametrize("m", [1, 2, 7, 8, 9, 22, 31])
def test_the_kept_matrix_is_exact_at_any_stiffness(m, stiffness):
    """(S^-1 + W)^-1 in 50 digits; relative to its diagonal, since what is stiff has entries of 1 / stiffness."""
    rng = np.random.default_rng(m)
    X, stride = rng.standard_normal((m + 3, m)), 40
    gram, weights = X.T @ X / m, rng.uniform(0, 1, m) ** 3 * stiffness
    S, weight, width = np.zeros((m, stride)), np.zeros(stride), -(-m // WIDTH) * WIDTH
    S[:, :m], weight[:m] = gram, weights
    flat = S.ravel()
    multistep._resolve(flat, stride, weight, m, width, np.zeros(stride), np.zeros(stride))
    with mpmath.workdps(50):
        exact = (mpmath.matrix(gram.tolist()) ** -1 + mpmath.diag([float(each) for each in weights])) ** -1
        exact = np.array(exact.tolist(), dtype=float)
    size = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    assert (np.abs(flat.reshape(m, stride)[:, :m] - exact) / size).max() < 1e-12


def test_a_library_and_the_loop_lay_out_the_same_problem(monkeypatch):
    rng = np.random.default_rng(7)
    flow = two_layer(rng.standard_normal((12, 21)), rng.standard_normal(12), 30.0)
    own = integrate_separable(flow, 300.0, tol=1e-6)
    monkeypatch.setattr(separable_run, "_FEW_ENTRIES", 0)
    assert_allclose(integrate_separable(flow, 300.0, tol=1e-6)(own.t), own.z, rtol=1e-9, atol=1e-9)


def test_the_order_of_coordinates_makes_no_difference():
    """Inside, those that count stand first; outside every one is where it was."""
    rng = np.random.default_rng(8)
    X, y, order = rng.standard_normal((9, 40)), rng.standard_normal(9), rng.permutation(40)
    run, mixed = (integrate_separable(two_layer(A, y, 50.0), 400.0, tol=1e-8) for A in (X, X[:, order]))
    t = np.linspace(0, 400, 50)
    assert_allclose(mixed(t), run(t)[:, order], atol=1e-6)


def test_it_starts_a_hidden_growth_without_seeing_it_late():
    # y - beta with beta from exp(-2 gamma): a logistic curve through 1/2 at gamma.
    gamma = 500.0
    flow = two_layer(np.array([[1.0]]), np.array([1.0]), gamma)
    run = integrate_separable(flow, 2 * gamma, tol=1e-8)
    t = np.linspace(gamma - 20, gamma + 20, 401)
    logistic = 1 / (1 + 2 * np.exp(-2 * (t - gamma)))
    assert_allclose(flow.beta(run(t), t)[:, 0], logistic, atol=2e-7)


def test_where_a_call_of_the_loop_ends_makes_no_difference(monkeypatch):
    rng = np.random.default_rng(3)
    flow = two_layer(rng.standard_normal((10, 30)), rng.standard_normal(10), 200.0)
    whole = integrate_separable(flow, 2000.0, tol=1e-6)
    monkeypatch.setattr(separable_run, "_FEW_RECORDS", 7)
    parts = integrate_separable(flow, 2000.0, tol=1e-6)
    assert len(parts.chunks) > len(whole.chunks)
    assert_array_equal(parts.z, whole.z)


@pytest.mark.parametrize("shape", [(3, 70), (20, 200), (90, 80), (200, 300)])
def test_every_way_to_solve_gives_the_same_flow(shape):
    """Few and many active coordinates, more and fewer than rows: matrix, rows and factor, against tight tolerance."""
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal(shape), rng.standard_normal(shape[0])
    flow = two_layer(X, y, 2.0)
    t = np.linspace(0, 40.0, 30)
    loose, tight = (integrate_separable(flow, 40.0, tol=tol) for tol in (1e-6, 1e-10))
    assert loose.status is tight.status is Status.COMPLETED
    reference = flow.beta(tight(t), t)
    assert np.abs(flow.beta(loose(t), t) - reference).max() < 1e-5 * max(1.0, np.abs(reference).max())


def test_numbers_that_are_none_end_the_run_and_say_so():
    one = np.ones((1, 1))
    flow = SeparableFlow(one, np.array([math.nan]), 1, -10 * one, one, 2 * one, 0 * one)
    run = integrate_separable(flow, 10.0, tol=1e-6)
    assert not run.status.success
