"""The second-derivative formulas, and the compiled loop against its NumPy reference."""

import ast
import math
import re
from dataclasses import replace
from pathlib import Path

import mpmath
import numpy as np
import pytest
from numba import njit
from numpy.polynomial import Polynomial
from numpy.testing import assert_allclose, assert_array_equal

import flowsim as fs
import flowsim.solvers
from flowsim.solvers import SeparableFlow, Status, integrate_separable
from flowsim.solvers.multistep import reference
from flowsim.solvers.multistep.constants import BY_INVERSE, BY_INVERSE_IN_ROWS, MOST
from flowsim.solvers.multistep.inverse import update_inverse
from flowsim.solvers.multistep.iteration_matrix import renew, shrink
from flowsim.solvers.multistep.workspace import (
    Active,
    Index,
    Loss,
    Problem,
    Sizes,
    Values,
    Workspace,
    _table,
    layout,
)
from flowsim.solvers.separable import multistep_run as separable_run
from flowsim.solvers.simd import pointer
from tests.solvers.separable_families import draw, two_layer


def past(spans):
    """Times of the last points, the present one, 0, first."""
    return -np.concatenate([[0.0], np.cumsum(spans)])


def random_case(seed, degree):
    rng = np.random.default_rng(seed)
    return Polynomial(rng.standard_normal(degree + 1)), rng.uniform(0.5, 2.0), rng.uniform(0.3, 3.0, MOST)


@pytest.mark.parametrize("k", range(1, MOST + 1))
def test_a_formula_with_k_past_points_is_exact_for_f_of_degree_k_plus_one_on_any_spacing(k):
    for seed in range(5):
        f, h, spans = random_case(seed, k + 1)
        times = past(spans)
        weights, first, second = reference.formula(k, times, h)
        found = weights @ f(times[:k]) + first * f(h) - second * f.deriv()(h)
        assert abs(found - f.integ()(h)) < 1e-12 * np.abs(f(times)).max() * h


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
    """Enright (1974), Table 1."""
    found, first, found_second = reference.formula(k, -np.arange(float(MOST)), 1.0)
    assert_allclose([first, *found], weights, rtol=1e-11)
    assert found_second == pytest.approx(second, rel=1e-11)


@pytest.mark.parametrize("k", range(1, MOST + 1))
def test_the_formulas_damp_what_decays_on_the_whole_negative_axis(k):
    weights, first, second = reference.formula(k, -np.arange(float(MOST)), 1.0)
    for x in -np.logspace(-3, 6, 400):
        polynomial = np.zeros(k + 1)
        polynomial[0] = 1 - first * x + second * x * x
        polynomial[1 : k + 1] = -weights * x
        polynomial[1] -= 1.0
        assert np.abs(np.roots(polynomial)).max() < 1.0


def exponential_map(log_coefficient, sign, slope, decay):
    r""":math:`\beta_i = \sum_k s_{ki} \exp(l_{ki} + a_{ki} z_i - b_{ki} t)`, arrays (K, d)."""

    def values(z, t):
        terms = sign * np.exp(log_coefficient + slope * z - decay * t)
        beta, beta_z, beta_t = (np.sum(each * terms, axis=0) for each in (1.0, slope, -decay))
        return reference.MapValues(
            beta,
            beta_z,
            beta_t,
            np.sum(slope**2 * terms, axis=0),
            np.sum(-slope * decay * terms, axis=0),
        )

    return values


@pytest.mark.parametrize(("seed", "gamma", "kappa"), [(0, 2.0, 0.0), (7, 8.0, 0.3), (13, 50.0, 0.0), (4, 1000.0, 0.0)])
def test_the_steps_of_the_compiled_loop_are_those_of_the_reference(seed, gamma, kappa):
    """Each step once more in NumPy, from the same past: within the tolerance to which a step's equations are solved."""
    _, X, y = draw(seed)
    X = X / np.linalg.norm(X, axis=0).max() * math.sqrt(len(y))
    flow, tol = two_layer(X, y, gamma, kappa), 1e-6
    run = integrate_separable(flow, 5 * gamma, tol=tol)
    assert run.status is Status.COMPLETED
    (steps,) = run.chunks
    z, f, _ = steps.nodes
    gram, drive, mapping = X.T @ X / len(y), X.T @ y / len(y), exponential_map(*flow.exponential)
    for number, k in enumerate(steps.order.astype(int)):
        if k == 0:  # at rest
            continue
        back = np.arange(number, max(-1, number - k - 1), -1)
        history = reference.History(steps.t[back], z[number], f[back])
        found = reference.step(gram, drive, mapping, history, steps.t[number] + steps.h[number], k)
        assert_allclose(z[number + 1], found.z, rtol=0, atol=tol)


@njit
def updated_inverse(S, stride, weight, m, width, first, second, diagonal):
    scratch = pointer(first, 0), pointer(second, 0)
    update_inverse(pointer(S, 0), stride, pointer(weight, 0), m, width, *scratch, pointer(diagonal, 0))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("stiffness", [1.0, 1e5, 1e12])
@pytest.mark.parametrize("m", [1, 2, 7, 8, 9, 22, 31])
def test_the_kept_matrix_is_exact_at_any_stiffness(m, stiffness):
    """(S^-1 + W)^-1 in 50 digits; relative to its diagonal, since what is stiff has entries of 1 / stiffness."""
    rng = np.random.default_rng(m)
    X, stride = rng.standard_normal((m + 3, m)), 40
    gram, weights = X.T @ X / m, rng.uniform(0, 1, m) ** 3 * stiffness
    S, weight = np.zeros((m, stride)), np.zeros(stride)
    S[:, :m], weight[:m] = gram, weights
    flat = S.ravel()
    updated_inverse(flat, stride, weight, m, -(-m // 8) * 8, np.zeros(stride), np.zeros(stride), gram.diagonal().copy())
    with mpmath.workdps(50):
        exact = (mpmath.matrix(gram.tolist()) ** -1 + mpmath.diag([float(each) for each in weights])) ** -1
        exact = np.array(exact.tolist(), dtype=float)
    size = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    assert (np.abs(flat.reshape(m, stride)[:, :m] - exact) / size).max() < 1e-12


@pytest.mark.parametrize("stiffness", [1.0, 1e5, 1e10, 1e18])
@pytest.mark.parametrize("copies", [[0, 0], [0, 1, 0], [0, 1, 2, 1, 0], [0, 0, 0, 1, 2, 3, 4, 5, 6, 3, 6, 6]])
def test_the_kept_matrix_is_exact_for_columns_that_occur_twice(copies, stiffness):
    rng = np.random.default_rng(len(copies))
    X, m, stride = rng.standard_normal((9, 7))[:, copies], len(copies), 16
    gram, weights = X.T @ X / 9, rng.uniform(0.1, 1, m) * stiffness
    S, weight = np.zeros((m, stride)), np.zeros(stride)
    S[:, :m], weight[:m] = gram, weights
    flat = S.ravel()
    updated_inverse(flat, stride, weight, m, 16, np.zeros(stride), np.zeros(stride), gram.diagonal().copy())
    with mpmath.workdps(60):
        rows = mpmath.matrix((X / 3).tolist())
        inverse = mpmath.diag([1 / mpmath.mpf(float(each)) for each in weights])
        exact = inverse - inverse * (rows.T * rows + inverse) ** -1 * inverse
        exact = np.array(exact.tolist(), dtype=float)
    size = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    assert (np.abs(flat.reshape(m, stride)[:, :m] - exact) / size).max() < 1e-7


@njit
def solved(workspace, table, theta, v, times):
    ws = Workspace(pointer(workspace, 0), pointer(table, 0))
    renew(ws, theta)
    shrink(ws, pointer(v, 0), times)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize(("rows", "stiffness", "way"), [
    (5, 1e2, BY_INVERSE_IN_ROWS), (5, 1e8, BY_INVERSE), (9, 1e3, BY_INVERSE_IN_ROWS), (20, 1e2, BY_INVERSE),
])  # fmt: skip
def test_the_kept_matrix_solves_alike_in_the_coordinates_and_in_the_rows(loss, rows, stiffness, way):
    rng = np.random.default_rng(rows)
    X, w, tol = rng.standard_normal((rows, 22)), 22, 1e-6
    problem = fs.Problem(X, np.sign(rng.standard_normal(rows)), loss)
    flow = two_layer(X, problem.y, 0.5, 0.0)
    if loss != "squared":
        flow = replace(flow, loss=problem.loss_function.kernel())
    run = separable_run.Multistep(flow, 1.0, tol, 5, None, None)
    run.begin()
    run.advance(5)
    workspace, table = run.work
    padded, values = int(table[run.work.entry(Sizes, "padded")]), run.work.floats
    A = values(Problem, "design", rows * padded).reshape(rows, padded)[:, :w]
    curvature = values(Loss, "curvature", rows) if loss != "squared" else np.ones(rows)
    gram, slopes = A.T @ (curvature[:, None] * A), values(Values, "beta_z", w)
    assert table[Active.PLACE] == w
    theta = stiffness / (slopes @ gram.diagonal())
    v = np.zeros(padded)
    v[:w] = exact = rng.standard_normal(w)
    for times in (1, 2):
        exact = np.linalg.solve(np.eye(w) + theta * gram * slopes, exact)
        found = v.copy()
        solved(workspace, table, theta, found, times)
        assert table[run.work.entry(Active, "solver")] == way
        assert_allclose(found[:w], exact, rtol=0, atol=1e-14 * stiffness)


@pytest.mark.parametrize("loss", [0, 1])
@pytest.mark.parametrize(("w", "K", "r"), [(1, 1, 1), (50, 2, 20), (70, 2, 3), (200, 3, 300)])
def test_the_table_of_the_workspace_has_every_field_once_and_none_overlap(w, K, r, loss):
    for kind, fields in _table(w, K, r, 8, 8).items():
        assert len(fields) == len(kind._fields)
    table, floats = layout(w, K, r, loss)
    sizes = Sizes(*table[: len(Sizes._fields)])
    assert (sizes.width, sizes.rows, sizes.terms) == (w, r, K)
    parts = _table(w, K, r, sizes.inverse, sizes.factor, has_columns=bool(sizes.has_columns)).values()
    lengths = [size for part in parts for size in part.values()]
    starts = table[Index.PLACE - len(lengths) : Index.PLACE]
    order = np.argsort(starts, kind="stable")
    ends = starts[order] + np.array(lengths)[order]
    assert (ends[:-1] <= starts[order][1:]).all()
    assert ends[-1] <= floats
    assert (starts % 8 == 0).all()


def borrowed(function: ast.FunctionDef) -> set[str]:
    """Names of what a function was given, of parts and views of it, and of pointers, whose own arrays are checked."""
    names = {argument.arg for argument in function.args.args}
    for each in sorted((node for node in ast.walk(function) if isinstance(node, ast.Assign)), key=lambda a: a.lineno):
        target, value = each.targets[0], each.value
        whole = not (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple))
        for name, part in [(target, value)] if whole else zip(target.elts, value.elts, strict=True):
            if re.search(r"view\(|^pointer\(", ast.unparse(part)) or base_of(part) in names:
                names |= {node.id for node in ast.walk(name) if isinstance(node, ast.Name)}
    return names


def base_of(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def test_pointers_are_taken_only_of_arrays_that_a_function_was_given():
    """One of an array that the function made itself would outlive it."""
    root = Path(flowsim.solvers.__file__).resolve().parents[1]
    checked = 0
    for path in [*root.glob("solvers/**/*.py"), *root.glob("flowsim/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        for function in ast.walk(ast.parse(text)) if "pointer(" in text else ():
            if isinstance(function, ast.FunctionDef):
                names = borrowed(function)
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "pointer":
                        assert base_of(node.args[0]) in names, f"{path}:{node.lineno}"
                        checked += 1
    assert checked > 5
    own = "def f(given):\n    mine = empty(3)\n    part = given.part\n    x, y = pointer(part, 1), pointer(mine, 1)"
    assert borrowed(ast.parse(own).body[0]) == {"given", "part", "x", "y"}  # not mine


def test_the_private_option_without_reference_counts_is_understood():
    """Numba's `_nrt`: if it is dropped, functions must still compile, and this says that they have become slower."""
    from numba.core.options import DefaultOptions

    from flowsim.solvers.compilation import bare

    assert hasattr(DefaultOptions, "_nrt")
    assert bare.keywords["_nrt"] is False
    assert "pipeline_class" in bare.keywords


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
    monkeypatch.setattr(separable_run.FromNodes, "records", 7)
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


@pytest.mark.parametrize("tol", [1e-6, 1e-12])
def test_a_flow_at_rest_does_not_drift_and_takes_no_more_steps_whatever_the_horizon(tol):
    """More features than rows, so that nothing would bring back what leaves the row space."""
    X, y = np.array([[2.0, -1.0, 0.0, 1.0], [0.0, 3.0, 2.0, 0.0]]), np.array([0.0, 6.0])
    flow = two_layer(X, y, 9.0)
    runs = [integrate_separable(flow, horizon, tol=tol) for horizon in (1e3, 1e6, 1e9, 1e12)]
    ends = [flow.beta(run.z[-1:], run.t[-1:])[0] for run in runs]
    assert all(run.status is Status.COMPLETED for run in runs)
    assert max(run.stats["steps"] for run in runs) < 1.2 * runs[0].stats["steps"] + 20
    for run, end, horizon in zip(runs, ends, (1e3, 1e6, 1e9, 1e12), strict=True):
        assert_allclose(end, ends[0], rtol=0, atol=max(1e-12, 1e-3 * tol))
        # In the row space: X^T nu for some nu.
        nu = np.linalg.lstsq(X.T, run.z[-1], rcond=None)[0]
        assert_allclose(X.T @ nu, run.z[-1], rtol=0, atol=1e-12 + 1e-3 * tol)
        assert_allclose(run(np.array([horizon / 2]))[0], run.z[-1], rtol=0, atol=max(1e-12, 1e-3 * tol))


def test_nearly_dependent_features_do_not_exhaust_the_steps():
    """Smooth features, condition 6e6, to a horizon of 2e9: the end is the limit process, a least-squares fit."""
    rng = np.random.default_rng(1)
    n, d, width = 20, 8, 0.4
    grid, centre, height = np.linspace(0, 1, d), rng.random((n, 8)), rng.random((n, 8))
    X = (height[:, :, None] * np.exp(-((grid - centre[:, :, None]) ** 2) / (2 * width**2))).sum(1)
    X = (X - X.mean(0)) / X.std(0)
    y = height[:, 0] - height[:, 0].mean()
    gamma = 100 * math.log(10.0)
    flow = two_layer(X, y, gamma)
    run = integrate_separable(flow, 1e7 * gamma, tol=1e-6, max_steps=30_000)
    assert run.status is Status.COMPLETED
    beta = flow.beta(run.z[-1:], run.t[-1:])[0]
    active = np.abs(beta) > 1e-6
    fit = np.linalg.lstsq(X[:, active], y, rcond=None)[0]
    assert_allclose(beta[active], fit, rtol=1e-5, atol=1e-8)
