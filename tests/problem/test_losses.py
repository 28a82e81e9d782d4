"""Losses against 60-digit arithmetic, SymPy and each other."""

from __future__ import annotations

import pickle

import mpmath
import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

import flowsim as fs

TARGETS = {
    "squared": (-1.3, 0.0, 2.5),
    "logistic": (-1.0, 1.0),
    "exponential": (-1.0, 1.0),
    "log-cosh": (-1.3, 0.0, 2.5),
    "pseudo-huber": (-1.3, 0.0, 2.5),
    "poisson": (0.0, 1.0, 7.0),
}
PREDICTIONS = (-650.0, -80.0, -40.0, -3.0, -0.5, -1e-12, 0.0, 1e-3, 0.7, 5.0, 36.0, 80.0, 600.0)
mp = mpmath.mp.clone()
mp.dps = 700
EXACT = {
    "squared": lambda f, y: (f - y) ** 2 / 2,
    "logistic": lambda f, y: mp.log1p(mp.exp(-y * f)),
    "exponential": lambda f, y: mp.exp(-y * f),
    "log-cosh": lambda f, y: mp.log(mp.cosh(f - y)),
    "pseudo-huber": lambda f, y: mp.sqrt(1 + (f - y) ** 2) - 1,
    "poisson": lambda f, y: mp.exp(f) - y * f,
}
SLOPES = {
    "squared": (lambda f, y: f - y, lambda f, y: mp.mpf(1)),
    "logistic": (lambda f, y: -y / (1 + mp.exp(y * f)), lambda f, y: mp.exp(y * f) / (1 + mp.exp(y * f)) ** 2),
    "exponential": (lambda f, y: -y * mp.exp(-y * f), lambda f, y: mp.exp(-y * f)),
    "log-cosh": (lambda f, y: mp.tanh(f - y), lambda f, y: mp.sech(f - y) ** 2),
    "pseudo-huber": (
        lambda f, y: (f - y) / mp.sqrt(1 + (f - y) ** 2),
        lambda f, y: (1 + (f - y) ** 2) ** mp.mpf("-1.5"),
    ),
    "poisson": (lambda f, y: mp.exp(f) - y, lambda f, y: mp.exp(f)),
}


def test_derivatives_of_the_logistic_loss_are_right_where_its_tail_is_no_normal_number() -> None:
    f, ones = np.array([-900.0, -720.0, 0.5, 720.0, 900.0, np.nan]), np.ones(6)
    d1, d2 = np.empty(6), np.empty(6)
    fs.losses.LOSSES["logistic"].kernel()(f, ones, ones, d1, d2)
    tail = np.exp(-np.abs(f))
    np.testing.assert_allclose(d1, -np.where(f >= 0, tail, 1.0) / (1.0 + tail), rtol=1e-15)
    np.testing.assert_allclose(d2, tail / (1.0 + tail) ** 2, rtol=1e-15)


@pytest.mark.parametrize("name", TARGETS)
def test_value_and_derivatives_keep_their_digits_everywhere(name: str) -> None:
    loss = fs.losses.LOSSES[name]
    f, y = (grid.ravel() for grid in np.meshgrid(PREDICTIONS, TARGETS[name]))
    ws = np.linspace(0.5, 2.0, len(f))
    d1, d2 = np.empty_like(f), np.empty_like(f)
    loss.kernel()(f, y, ws, d1, d2)
    for i in range(len(f)):
        exact = EXACT[name](mp.mpf(f[i]), mp.mpf(y[i]))
        slope, curvature = (part(mp.mpf(f[i]), mp.mpf(y[i])) for part in SLOPES[name])
        assert float(loss.value(f[i], y[i])) == pytest.approx(float(exact), rel=2e-14, abs=1e-300)
        # A residual is known to the rounding of its terms.
        near = 1e-15 * max(abs(f[i]), abs(y[i]), 1.0 if name == "poisson" else 0.0)
        assert float(loss.slope(f[i], y[i])) == pytest.approx(float(slope), rel=1e-13, abs=near * float(curvature))
        assert float(loss.curvature(f[i], y[i])) == pytest.approx(float(curvature), rel=1e-12)
        assert d1[i] == pytest.approx(ws[i] * float(slope), rel=1e-13, abs=2 * near * float(curvature))
        assert d2[i] == pytest.approx(ws[i] * float(curvature), rel=1e-12)
        if exact > 0:
            assert float(loss.log(f[i], y[i])) == pytest.approx(float(mp.log(exact)), rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("name", TARGETS)
def test_conjugate_infimum_and_recession_are_those_of_the_loss(name: str) -> None:
    loss = fs.losses.LOSSES[name]
    grid = np.linspace(-40.0, 40.0, 400_001)
    for target in TARGETS[name]:
        y = np.array([target])
        values = loss.value(grid, y)
        assert float(loss.infimum(y)[0]) == pytest.approx(values.min(), abs=1e-6)
        for s in loss.slope(np.array([-2.0, 0.3, 1.5]), y):
            assert float(loss.conjugate(s, y)[0]) == pytest.approx(np.max(s * grid - values), abs=1e-6)
        lower, upper = loss.recession(y)
        ends = loss.slope(np.array([-1e3, 1e3]), y)  # finite ones are reached like 1/f^2
        for limit, end in zip((lower[0], upper[0]), ends, strict=True):
            assert abs(end) >= 990 if np.isinf(limit) else end == pytest.approx(limit, abs=1e-5), (name, target)


def test_a_small_loss_is_known_by_its_logarithm() -> None:
    for name in ("logistic", "exponential"):
        problem = fs.Problem([[1.0], [-2.0]], [1.0, -1.0], name)
        # Two terms, exp(-m) and exp(-2 m).
        assert float(problem.log_loss([2.3e6])) == pytest.approx(-2.3e6 - np.log(2.0), rel=1e-15)
        assert float(problem.loss([2.3e6])) == 0.0
        assert float(problem.log_loss([3.0])) == pytest.approx(np.log(float(problem.loss([3.0]))), rel=1e-13)
    squares = fs.Regression([[1.0]], [0.0])
    assert float(squares.log_loss([1e-200])) == pytest.approx(2 * np.log(1e-200) - np.log(2.0), rel=1e-15)
    assert np.isneginf(squares.log_loss([0.0]))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("m", [None, 2])
def test_gradient_and_hessian_are_derivatives_of_the_loss(name: str, m: int | None) -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((9, 4))
    shape = (9,) if m is None else (9, m)
    y, weight = rng.choice(TARGETS[name], size=shape), rng.uniform(0.2, 2.0, 9)
    beta = 0.5 * rng.standard_normal((4,) if m is None else (4, m))
    v = rng.standard_normal(beta.shape)
    values = {}
    for form in (X, scipy.sparse.csr_matrix(X), aslinearoperator(X)):
        problem = fs.Problem(form, y, loss=name, sample_weight=weight)
        step = 1e-5
        slope = (problem.loss(beta + step * v) - problem.loss(beta - step * v)) / (2 * step)
        assert np.vdot(problem.gradient(beta), v) == pytest.approx(float(slope), rel=1e-7)
        bend = (problem.gradient(beta + step * v) - problem.gradient(beta - step * v)) / (2 * step)
        np.testing.assert_allclose(problem.hessian_product(beta, v), bend, rtol=1e-6, atol=1e-9)
        assert problem.loss(np.stack([beta, 2 * beta]))[1] == pytest.approx(float(problem.loss(2 * beta)), rel=1e-13)
        values[type(form).__name__] = float(problem.loss(beta))
        by_hand = fs.losses.LOSSES[name].value(X @ beta, y)
        by_hand = (by_hand if m is None else by_hand.sum(axis=1)) @ weight / 9
        assert values[type(form).__name__] == pytest.approx(float(by_hand), rel=1e-12)


def test_squares_are_a_regression_also_when_weighted() -> None:
    assert type(fs.Problem([[1.0]], [2.0])) is fs.Regression
    assert type(fs.Problem([[1.0]], [2.0], "squared")) is fs.Regression
    for named in (
        fs.Problem([[1.0]], [2.0], "squared", feature_names=["a"]),
        fs.Regression([[1.0]], [2.0], ["a"]),
        fs.Regression([[1.0]], [2.0], feature_names=["a"]),
    ):
        assert named.feature_names == ("a",)
    weighted = fs.Problem([[1.0], [3.0]], [2.0, 1.0], loss="squared", sample_weight=[4.0, 1.0])
    assert isinstance(weighted, fs.Regression)
    assert float(weighted.loss([1.5])) == pytest.approx((4 * 0.25 + 3.5**2) / 4)
    assert float(weighted.feature_variances[0]) == pytest.approx((4 + 9) / 2)
    assert not isinstance(fs.Problem([[1.0]], [1.0], "logistic"), fs.Regression)


@pytest.mark.parametrize("loss", [*TARGETS, "from_formula"])
def test_problems_and_losses_survive_pickling(loss: str) -> None:
    chosen = fs.losses.from_formula("log(1 + exp(-y*f))") if loss == "from_formula" else loss
    problem = fs.Problem([[1.0], [2.0]], [1.0, 1.0], chosen, sample_weight=[1.0, 2.0])
    again = pickle.loads(pickle.dumps(problem))
    assert type(again) is type(problem)
    assert again.loss_function is problem.loss_function
    np.testing.assert_array_equal(again.gradient([0.3]), problem.gradient([0.3]))


@pytest.mark.parametrize("name", TARGETS)
def test_a_loss_from_its_formula_is_the_named_one(name: str) -> None:
    named = fs.losses.LOSSES[name]
    derived = fs.losses.from_formula(named.formula)
    assert derived.is_margin == named.is_margin
    f, y = (grid.ravel() for grid in np.meshgrid([-500.0, -40.0, -2.0, 0.0, 0.4, 3.0, 40.0, 500.0], TARGETS[name]))
    for part in ("value", "slope", "curvature"):
        expected = getattr(named, part)(f, y)
        np.testing.assert_allclose(getattr(derived, part)(f, y), expected, rtol=1e-10, atol=1e-15)
    d1, d2, e1, e2 = (np.empty_like(f) for _ in range(4))
    derived.kernel()(f, y, np.ones_like(f), d1, d2)
    named.kernel()(f, y, np.ones_like(f), e1, e2)
    np.testing.assert_allclose(d1, e1, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(d2, e2, rtol=1e-10, atol=1e-15)
    targets = np.array(TARGETS[name])
    np.testing.assert_allclose(derived.infimum(targets), named.infimum(targets), atol=1e-9)
    np.testing.assert_allclose(derived.recession(targets), named.recession(targets), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fs.Problem([[1.0]], [0.0], "logistic"), r"`y` must hold labels -1 and \+1 .*0/1 labels are 2\*y - 1"),
        (lambda: fs.Problem([[1.0]], [3.0], "exponential"), "`y` must hold labels .* received 3"),
        (lambda: fs.Problem([[1.0]], [-2.0], "poisson"), "`y` must hold counts >= 0; received -2"),
        (lambda: fs.Problem([[1.0]], [1.0], "hinge"), "`loss` must be one of squared, logistic"),
        (lambda: fs.Problem([[1.0]], [1.0], "logistic", sample_weight=[-1.0]), "`sample_weight` must be >= 0"),
        (lambda: fs.Problem([[1.0]], [1.0], "logistic", sample_weight=[1.0, 2.0]), r"`sample_weight` must have shape"),
        (lambda: fs.losses.from_formula("sin(f)*y"), "is not convex"),
        (lambda: fs.losses.from_formula("log(f)"), "is not finite at f = "),
        (lambda: fs.losses.from_formula("f*w"), "must be an expression in f and y; received the name 'w'"),
        (lambda: fs.losses.from_formula("y**2"), "must contain the prediction f"),
        (lambda: fs.losses.from_formula("__import__('os')"), "`formula`"),
        (lambda: fs.Problem([[1.0]], [-1.0], fs.losses.from_formula("y*f**2")), "is not convex: .* y = -1"),
        (
            lambda: fs.Problem([[1.0]], [200.0], fs.losses.from_formula("(f - y)**2/2 - 400*exp(-(f - 100)**2/200)")),
            "is not convex: .* y = 200",
        ),
        (lambda: fs.Problem([[1.0]], [1.0], fs.losses.from_formula("1 - exp(-(f - y)**2)")), "is not convex"),
        (lambda: fs.Problem([[1.0]], [float("nan")], "logistic"), "`y` must be finite"),
        (lambda: fs.Problem([[1.0], [1.0]], [0.0, 1.0], "exponential"), "0/1 labels"),
        (lambda: fs.Regression([[1.0]], [1.0], loss="logistic"), "use fs.Problem"),
    ],
)
def test_bad_targets_and_losses_are_named(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()
