"""The limit process with any convex loss: independent minimisers on the cone, flows, separable data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

import flowsim as fs
from flowsim.limits.convex import falls_for_ever
from flowsim.problem.margins import max_margin_l1
from flowsim.solvers.active_set import ConeRegression
from flowsim.solvers.cone_newton import ConeMinimiser, RowwiseFunction

NET = fs.DiagonalNetwork("u*v")
LOSSES = ("logistic", "exponential", "log-cosh", "pseudo-huber", "poisson")


def draw(seed: int, loss: str, n: int = 60, d: int = 6, mixing: float = 1.5) -> fs.Problem:
    """Correlated features, so that coordinates also leave."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ (np.eye(d) + mixing * rng.standard_normal((d, d)) / np.sqrt(d))
    X /= np.sqrt((X**2).mean(axis=0))
    signal = X @ np.r_[1.0, -0.8, 0.6, np.zeros(d - 3)]
    if loss in ("logistic", "exponential"):
        y = np.where(rng.random(n) < expit(signal), 1.0, -1.0)
    elif loss == "poisson":
        y = rng.poisson(np.exp(0.4 * signal)).astype(float)
    else:
        y = signal + rng.standard_t(2, n)
    return fs.Problem(X, y, loss)


def on_cone(problem: fs.Problem, near: np.ndarray, dual: np.ndarray) -> np.ndarray:
    """The minimiser over the signs that a dual at its bounds allows, by SciPy and a Newton polish."""
    sides = [(0, None) if s > 1 - 1e-9 else (None, 0) if s < -1 + 1e-9 else (0, 0) for s in dual]
    options = {"ftol": 1e-17, "gtol": 1e-13, "maxiter": 20_000}
    x = minimize(problem.loss, 0.9 * near, jac=problem.gradient, bounds=sides, method="L-BFGS-B", options=options).x
    for _ in range(8):
        free = np.abs(x) > 1e-7
        if free.any():
            hessian = np.array([problem.hessian_product(x, e) for e in np.eye(problem.d)])[np.ix_(free, free)]
            x = x.copy()
            x[free] -= np.linalg.solve(hessian, problem.gradient(x)[free])
    return x


@pytest.mark.sampled(2)
@pytest.mark.parametrize("loss", LOSSES)
def test_saddles_are_minimisers_on_the_cone_of_the_duals(loss: str) -> None:
    left = 0
    for seed in range(5):
        problem = draw(seed, loss)
        path = fs.saddle_to_saddle(NET, problem)
        assert path.complete
        left += sum(event.kind == "deactivated" for event in path.events)
        for k, t in enumerate(path.jump_times):
            dual = path.dual(t)
            assert np.abs(dual).max() <= 1 + 1e-9
            np.testing.assert_allclose(path.saddles[k + 1], on_cone(problem, path.saddles[k + 1], dual), atol=1e-9)
        assert np.abs(problem.gradient(path.end)).max() < 1e-9
        assert (np.diff(path.losses) < 0).all()
    if loss in ("log-cosh", "poisson"):
        assert left > 0


@pytest.mark.parametrize("seeds", [range(24), pytest.param(range(24, 100), marks=pytest.mark.slow)], ids=str)
@pytest.mark.slow
def test_a_hundred_paths_are_approached_at_order_one_and_stand_at_minimisers(seeds: range) -> None:
    for seed in seeds:
        problem = draw(seed, ("logistic", "log-cosh", "poisson")[seed % 3], mixing=0.5)
        path = fs.saddle_to_saddle(NET, problem)
        for k, t in enumerate(path.jump_times):
            best = on_cone(problem, path.saddles[k + 1], path.dual(t))
            np.testing.assert_allclose(path.saddles[k + 1], best, atol=1e-9)
        errors = []
        for alpha in ("1e-4000", "1e-16000"):
            run = fs.gradient_flow(NET, problem, 1.2 * path.jump_times[-1], alpha=alpha, clock="accelerated")
            errors.append(np.abs(fs.studies.measured_jump_times(run, path) - path.jump_times).max())
        assert np.log(errors[0] / errors[1]) / np.log(4.0) == pytest.approx(1.0, abs=0.1), seed


@pytest.mark.parametrize("loss", ["logistic", "log-cosh", "poisson"])
def test_flows_approach_the_process_at_order_one(loss: str) -> None:
    problem = draw(1, loss, mixing=0.5)
    path = fs.saddle_to_saddle(NET, problem)
    horizon = 1.2 * path.jump_times[-1]
    errors = []
    for alpha in ("1e-1000", "1e-4000"):
        run = fs.gradient_flow(NET, problem, horizon, alpha=alpha, clock="accelerated")
        errors.append(np.abs(fs.studies.measured_jump_times(run, path) - path.jump_times).max())
        middle = np.append((path.jump_times[1:] + path.jump_times[:-1]) / 2, horizon)
        wide = np.append(np.diff(path.jump_times) > 0.2, True)
        np.testing.assert_allclose(run.at(middle[wide], "accelerated").beta, path.beta(middle[wide]), atol=1e-5)
    assert np.log(errors[0] / errors[1]) / np.log(4.0) == pytest.approx(1.0, abs=0.1)


def test_orbits_join_the_saddles_of_any_loss() -> None:
    path = fs.saddle_to_saddle(NET, draw(2, "logistic"))
    for jump, orbit in enumerate(path.orbits):
        ends = orbit.at(np.array([0.0, orbit.length]))
        here = orbit.coordinates
        np.testing.assert_allclose(ends[0], path.saddles[jump][here], atol=1e-6)
        np.testing.assert_allclose(ends[1], path.saddles[jump + 1][here], atol=1e-6)
        losses = path.problem.loss(path.curve(path.arclength(path.jump_times[jump]) - orbit.length * np.linspace(1, 0)))
        assert (np.diff(losses) < 1e-12).all()


@pytest.mark.slow
def test_separable_data_escape_along_the_margin_of_the_active_features() -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((20, 30))
    problem = fs.Problem(X, np.sign(X @ np.r_[1.0, -1.0, 0.5, np.zeros(27)]), "logistic")
    path = fs.saddle_to_saddle(NET, problem)
    escape = path.escape
    assert not path.complete
    assert path.horizon == escape.time > path.jump_times[-1]
    assert "escapes to infinity" in path.message
    A = problem.y[:, None] * X
    assert (A @ escape.direction).min() == pytest.approx(escape.margin) == pytest.approx(0.030116, abs=1e-6)
    # No other direction of the cone does better; without the cone one does.
    active = np.flatnonzero(escape.direction)
    alone = max_margin_l1(fs.Problem(X[:, active], problem.y, "logistic"))
    assert escape.margin == pytest.approx(alone.margin)
    assert escape.margin < max_margin_l1(problem).margin
    run = fs.gradient_flow(NET, problem, 1e5, alpha="1e-100000", clock="log_loss")
    np.testing.assert_allclose(run.beta[-1] / np.abs(run.beta[-1]).sum(), escape.direction, atol=1e-5)
    assert run.at(4.0, "log_loss").accelerated_time == pytest.approx(escape.time, abs=1e-2)


def test_rows_without_weight_do_not_keep_separable_data_from_escaping() -> None:
    """Such a row changes nothing but n, which is a factor of the time."""
    X = np.array([[0.0, -1.0], [3.0, 1.0], [-1.0, 2.0], [1.0, -2.0], [2.0, 1.0]])
    labels, weight = np.array([1.0, -1.0, -1.0, 1.0, 1.0]), np.array([1.2, 1.0, 0.5, 2.0, 0.0])
    for loss in ("logistic", "exponential"):
        path = fs.saddle_to_saddle(NET, fs.Problem(X, labels, loss, sample_weight=weight))
        without = fs.saddle_to_saddle(NET, fs.Problem(X[:4], labels[:4], loss, sample_weight=weight[:4]))
        assert path.escape is not None and without.escape is not None
        np.testing.assert_allclose(path.escape.time, without.escape.time * 5 / 4, rtol=1e-12)
        np.testing.assert_allclose(path.escape.direction, [0.0, -1.0], atol=1e-12)
        assert path.escape.margin == pytest.approx(1.0)


def test_one_sample_escapes_at_once_and_no_count_is_no_minimum() -> None:
    path = fs.saddle_to_saddle(NET, fs.Problem([[1.0, 0.5]], [1.0], "exponential"))
    assert path.escape.time == pytest.approx(1.0)
    np.testing.assert_array_equal(path.escape.direction, [1.0, 0.0])
    counts = fs.saddle_to_saddle(NET, fs.Problem([[1.0], [2.0]], [0.0, 0.0], "poisson"))
    np.testing.assert_array_equal(counts.escape.direction, [-1.0])
    assert counts.escape.time == pytest.approx(1 / 1.5)


def test_paths_of_any_loss_are_kept_in_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    problem = fs.Problem([[1.0, 0.3], [-0.2, 1.0]], [1.0, -1.0], "logistic", sample_weight=[1.0, 2.0])
    path = fs.saddle_to_saddle(NET, problem)
    again = fs.load(path.save(tmp_path / "path.nc"))
    assert again.problem.loss_function is problem.loss_function
    np.testing.assert_array_equal(again.problem.sample_weight, [1.0, 2.0])
    np.testing.assert_array_equal(again.escape.direction, path.escape.direction)
    assert again.escape.margin == path.escape.margin


def test_the_cone_of_squares_is_the_one_of_least_squares() -> None:
    rng = np.random.default_rng(4)
    for _ in range(10):
        A, y, c = rng.standard_normal((8, 6)), rng.standard_normal(8), rng.uniform(0, 0.5, 6)
        squares = RowwiseFunction(
            lambda f, y=y: float(np.sum((f - y) ** 2) / 2), lambda f, y=y: f - y, np.ones_like, np.zeros(8)
        )
        one = ConeMinimiser(8, lambda key, A=A: A[:, key], squares)
        other = ConeRegression(y, lambda key, A=A: A[:, key])
        for first in (0, 3):
            for cone in (one, other):
                cone.solve((key, float(c[key])) for key in range(first, first + 3))
            assert sorted(one.members) == sorted(other.members)
            np.testing.assert_allclose(one.residual, other.residual, atol=1e-12)


def test_wide_data_with_outliers_interpolate() -> None:
    rng = np.random.default_rng(7)
    for loss in ("log-cosh", "pseudo-huber"):
        problem = fs.Problem(rng.standard_normal((12, 40)), rng.standard_cauchy(12), loss)
        path = fs.saddle_to_saddle(NET, problem)
        assert problem.loss(path.end) < 1e-18
        squares = fs.saddle_to_saddle(NET, fs.Regression(problem.X, problem.y)).end
        # Both end at the least l1 norm among interpolants.
        np.testing.assert_allclose(path.end, squares, atol=1e-7)


def test_squares_are_needed_where_they_are() -> None:
    problem = draw(0, "logistic")
    with pytest.raises(ValueError, match="squared loss for rational arithmetic"):
        fs.saddle_to_saddle(NET, problem, exact=True)
    with pytest.raises(ValueError, match="squared loss for the limit of weight noise"):
        fs.saddle_to_saddle(fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1)), problem)
    with pytest.raises(ValueError, match="squared loss"):
        fs.lasso_link(fs.saddle_to_saddle(NET, problem))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", ["log-cosh", "pseudo-huber"])
def test_limits_on_nearly_dependent_features_are_found_while_coefficients_nearly_cancel(loss: str, seed: int) -> None:
    """Singular values from 1 to 1e-9: every saddle is a minimum on its columns, in their orthonormal basis."""
    rng = np.random.default_rng(seed)
    U, _, V = np.linalg.svd(rng.standard_normal((8, 8)))
    X, y = U * np.logspace(0, -9, 8) @ V, rng.standard_normal(8)
    problem = fs.Problem(X, y, loss=loss)
    path = fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), problem)
    assert path.complete and len(path.jump_times) >= 8
    for beta in path.saddles:
        Q = np.linalg.qr(X[:, beta != 0])[0]
        # X beta is a difference of terms up to |X| |beta|, and so are slopes.
        blur = 1e-14 * np.abs(X).max() * np.abs(beta).sum() + 1e-13
        assert np.abs(Q.T @ problem.slopes(problem.predict(beta))).max(initial=0.0) <= 8 * blur
    assert np.abs(X @ path.end - y).max() <= 1e-14 * np.abs(X).max() * np.abs(path.end).sum() + 1e-10


@pytest.mark.parametrize("formula", ["f", "-f", pytest.param("sqrt(1 + f**2) - 2*f", marks=pytest.mark.slow)])
def test_a_limit_of_a_loss_that_is_unbounded_below_says_so(formula: str) -> None:
    problem = fs.Problem([[1.0, 2.0], [0.5, -1.0]], [1.0, 0.0], loss=fs.losses.from_formula(formula))
    assert falls_for_ever(problem)
    for net in (fs.DiagonalNetwork("u*v"), fs.LinearNetwork(width=2)):
        with pytest.raises(fs.IntegrationError, match="loss of `problem` is unbounded below"):
            fs.saddle_to_saddle(net, problem)
    assert len(fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), problem, max_jumps=0).jump_times) == 0


def test_a_term_may_fall_for_ever_where_the_others_hold_it() -> None:
    """``y f + exp(-f)`` falls without end for y < 0 alone: along d, rows of y = 2 rise by what those of y = -1 fall."""
    loss = fs.losses.from_formula("y*f + exp(-f)")
    assert not falls_for_ever(fs.Problem([[1.0], [1.0]], [2.0, -1.0], loss=loss))
    assert falls_for_ever(fs.Problem([[1.0], [2.0]], [1.0, -1.0], loss=loss))
    assert not falls_for_ever(fs.Problem([[1.0], [2.0]], [1.0, -1.0], loss="log-cosh"))


@pytest.mark.parametrize("loss", ["logistic", "pseudo-huber"])
@pytest.mark.parametrize("exponent", [-560, 560])
def test_powers_of_two_in_the_features_change_a_path_of_any_loss_by_nothing(loss: str, exponent: int) -> None:
    separable = draw(2, loss, n=12)
    for problem in (draw(1, loss), separable):
        path = fs.saddle_to_saddle(NET, problem)
        scaled = fs.saddle_to_saddle(NET, fs.Problem(np.ldexp(problem.X, exponent), problem.y, loss))
        np.testing.assert_array_equal(np.ldexp(scaled.jump_times, exponent), path.jump_times)
        np.testing.assert_array_equal(np.ldexp(scaled.saddles, exponent), path.saddles)
        np.testing.assert_allclose(scaled.losses, path.losses, rtol=1e-12)
        if path.escape is not None:
            assert scaled.escape is not None
            assert np.ldexp(scaled.escape.margin, -exponent) == path.escape.margin
    orbit, own = (each.orbits[0] for each in (path, scaled))
    along = np.linspace(0, orbit.length, 7)
    np.testing.assert_allclose(
        np.ldexp(own.at(np.ldexp(along, -exponent)), exponent), orbit.at(along), rtol=1e-6, atol=1e-8 * orbit.length
    )
