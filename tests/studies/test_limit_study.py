"""Flows approach the limit at the rates of theory; the time average is the Lasso until a coefficient leaves."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_linnerud, load_wine
from sklearn.linear_model import Lasso, lars_path

import flowsim as fs
from flowsim.datasets.tables import standardise

NET = fs.DiagonalNetwork("u*v")
FOUR = fs.Regression([[1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7]], [1.0, 0.0])


@pytest.mark.parametrize(
    "net",
    [
        NET,
        fs.DiagonalNetwork("u**2 - v**2"),
        fs.DiagonalNetwork("2*u**2 - v**2"),
        fs.DiagonalNetwork("2*u**2 - v**2", noise=fs.GaussianNoise(0.1)),
    ],
    ids=str,
)
def test_two_layer_jump_times_err_as_one_over_gamma(net: fs.DiagonalNetwork) -> None:
    study = fs.limit_study(net, FOUR, ["1e-100", "1e-300", "1e-1000", "1e-3000"])
    assert study.rate.order == pytest.approx(1.0, abs=0.05)
    assert study.rate.points == 4
    assert study.median_plateau_error[-1] < 1e-8
    assert study.end_errors[-1] < 1e-8


@pytest.mark.parametrize(
    ("depth", "alphas"), [(3, [1e-2, 10**-2.5, 1e-3]), pytest.param(4, [0.03, 0.01, 0.003], marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_deep_jump_times_err_at_order_depth_minus_two(depth: int, alphas: list[float]) -> None:
    start = {f"w{layer + 1}": 1 + 0.3 * layer for layer in range(depth)}
    study = fs.limit_study(fs.DiagonalNetwork(depth=depth), FOUR, alphas, start)
    assert study.rate.order == pytest.approx(depth - 2, abs=0.1)
    assert study.rate.variable == "alpha"


@pytest.mark.parametrize("seed", [2, 5, 9])
def test_orders_are_fitted_to_each_jump_as_early_ones_are_found_at_some_scales_only(seed: int) -> None:
    problem = fs.datasets.sparse_regression(20, 30, sparsity=3, seed=seed)
    study = fs.limit_study(NET, problem, ["1e-30", "1e-100", "1e-300"])
    assert study.rate.order == pytest.approx(1.0, abs=0.05)
    large = fs.limit_study(NET, problem, [1e-3, 1e-6, 1e-12, 1e-24])
    assert large.rate.order == pytest.approx(1.0, abs=0.1)  # medians over the jumps found: 0.50 at seed 2


def test_the_study_reports_a_row_for_each_scale() -> None:
    study = fs.limit_study(NET, FOUR, [1e-20, "1e-200"])
    table = study.table()
    assert list(table["alpha"]) == ["1e-20", "1e-200"]
    assert list(table["jumps_seen"]) == ["3/3", "3/3"]
    assert study.plateau_errors.shape == (2, 4)
    assert np.isnan(study.rate.uncertainty)
    assert study.summary()["jump_times"] == study.path.jump_times.tolist()


@pytest.mark.parametrize(
    ("problem", "alphas", "message"),
    [
        (FOUR, 0.1, "`alphas` must be a sequence of scales; received 0.1"),
        (FOUR, [], "`alphas` must hold at least one scale"),
        (FOUR, [0.1, 1.0], "`alphas` must lie below 1; received 1.0"),
        (FOUR, [0.1, "1e-3", 0.001], "`alphas` must differ; received 0.001 twice"),
        (FOUR, [-1.0], "`alphas` must be > 0"),
        (fs.Regression(np.eye(2), np.zeros(2)), [0.1], "at least one jump"),
    ],
)
def test_bad_arguments_of_a_study_are_named(problem: fs.Regression, alphas: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.limit_study(NET, problem, alphas)


def tables() -> dict[str, fs.Regression]:
    """Two further real tables: physiological measurements, and wine's alcohol from its other properties."""
    exercise = load_linnerud()
    wine = load_wine()
    waist = exercise.target[:, 1]
    alcohol = wine.data[:, 0]
    return {
        "linnerud": fs.Regression(standardise(exercise.data, exercise.feature_names), waist - waist.mean()),
        "wine": fs.Regression(standardise(wine.data[:, 1:], wine.feature_names[1:]), alcohol - alcohol.mean()),
    }


@pytest.mark.parametrize("name", ["linnerud", "wine"])
def test_on_two_further_tables_knots_and_averages_are_the_lassos_up_to_the_first_deactivation(name: str) -> None:
    problem = tables()[name]
    path = fs.saddle_to_saddle(NET, problem)
    link = fs.lasso_link(path)
    early = path.jump_times[path.jump_times < link.departs_at]
    assert len(early) >= 2
    knots = 1 / lars_path(problem.X, problem.y, method="lasso", alpha_min=0)[0][:-1]
    np.testing.assert_allclose(early, knots[: len(early)], rtol=1e-9)
    until = min(link.departs_at, 3 * path.jump_times[-1])
    for t in np.geomspace(early[0] * 1.1, until * 0.999, 8):
        lasso = Lasso(alpha=1 / t, fit_intercept=False, tol=1e-15, max_iter=10**6).fit(problem.X, problem.y).coef_
        np.testing.assert_allclose(path.time_average(t), lasso, atol=1e-8 * np.abs(lasso).max())


@pytest.mark.parametrize("formula", ["u*v", "2*u**2 - v**2"])
@pytest.mark.parametrize("eta", [0.0, 0.2])
def test_the_link_holds_before_and_breaks_after_the_first_deactivation(formula: str, eta: float) -> None:
    noise = fs.GaussianNoise(eta) if eta else None
    path = fs.saddle_to_saddle(fs.DiagonalNetwork(formula, noise=noise), fs.datasets.diabetes())
    link = fs.lasso_link(path)
    assert np.isfinite(link.departs_at)
    before = link.t <= link.departs_at
    assert link.distance[before].max() < 1e-9
    assert link.distance[~before].max() > 1e-3
    gone = [e.name for e in path.events if e.kind == "deactivated" and e.time == link.departs_at]
    assert all(name in link.reason for name in gone)


def test_without_deactivation_the_link_never_breaks() -> None:
    rng = np.random.default_rng(0)
    X = np.linalg.qr(rng.standard_normal((8, 4)))[0]
    link = fs.lasso_link(fs.saddle_to_saddle(NET, fs.Regression(X, rng.standard_normal(8))))
    assert link.departs_at == np.inf
    assert link.distance.max() < 1e-12
    assert "the average solves the Lasso with 1/t for all t" in link.reason


def test_the_link_says_which_lasso_it_is() -> None:
    """From ones a product of three cannot turn negative: scikit-learn's Lasso over b >= 0, threshold 1 over t."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 4))
    problem = fs.Regression(X, X @ [1.0, -2.0, 0.0, 0.3])
    link = fs.lasso_link(fs.saddle_to_saddle(fs.DiagonalNetwork(depth=3), problem))
    assert link.reason.endswith("the average solves the Lasso over b >= 0 with thresholds/t for all t")
    lasso = Lasso(alpha=1.0 / link.t[-1], fit_intercept=False, positive=True, tol=1e-14, max_iter=100_000)
    np.testing.assert_allclose(link.average[-1], lasso.fit(X, problem.y).coef_, atol=1e-6)
    noisy = fs.lasso_link(fs.saddle_to_saddle(fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.2)), problem))
    assert "with 1/t and the penalties of noise or decay" in noisy.reason


def test_scales_that_are_none_are_named() -> None:
    with pytest.raises(ValueError, match="`alphas` must be a positive number; received 'abc'"):
        fs.limit_study(NET, fs.Regression([[1.0]], [1.0]), ["1e-20", "abc"])


def test_of_many_lassos_the_average_may_be_one() -> None:
    """Duplicated columns: any split of the coefficient solves the Lasso."""
    link = fs.lasso_link(
        fs.saddle_to_saddle(fs.DiagonalNetwork("2*u**2-v**2"), fs.Regression([[1.0, 1.0], [2.0, 2.0]], [1.0, 1.0]))
    )
    assert link.distance.max() < 1e-9
    assert link.departs_at == np.inf


def test_a_deactivation_after_which_nothing_moves_parts_nothing() -> None:
    """Interpolation at the jump: the duals stay at their bounds for ever."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X, truth = rng.standard_normal((4, 6)), np.zeros(6)
        truth[:2] = rng.standard_normal(2)
        path = fs.saddle_to_saddle(NET, fs.Regression(X, X @ truth))
        last = [event for event in path.events if event.kind == "deactivated"]
        if last and all(event.jump == len(path.jump_times) - 1 for event in last):
            break
    link = fs.lasso_link(path, np.array([1.01, 2.0, 10.0]) * path.jump_times[-1])
    assert link.departs_at == np.inf
    assert link.distance.max() < 1e-9


def test_a_link_needs_a_path_from_the_origin_with_jumps() -> None:
    state = fs.saddle_to_saddle(NET, FOUR).state(3.0)
    with pytest.raises(ValueError, match="must begin at 0"):
        fs.lasso_link(fs.saddle_to_saddle(NET, FOUR, state))
    with pytest.raises(ValueError, match="`t` must be a vector of times > 0"):
        fs.lasso_link(fs.saddle_to_saddle(NET, FOUR), [0.0])


@pytest.mark.slow
@pytest.mark.parametrize("formula", ["u*v", "u**2 - v**2", "2*u**2 - v**2"])
@pytest.mark.parametrize("eta", [0.0, 0.1])
def test_on_random_problems_the_flow_approaches_the_limit(formula: str, eta: float) -> None:
    net = fs.DiagonalNetwork(formula, noise=fs.GaussianNoise(eta) if eta else None)
    medians = {alpha: [] for alpha in ("1e-1000", "1e-10000")}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        problem = fs.Regression(rng.standard_normal((4, 6)), rng.standard_normal(4))
        study = fs.limit_study(net, problem, list(medians))
        for errors, plateau in zip(medians.values(), study.plateau_errors, strict=True):
            errors.append(np.median(plateau))
    assert np.median(medians["1e-1000"]) < 1e-4
    assert np.median(medians["1e-10000"]) < 1e-8


def test_jump_times_of_a_linear_network_converge_at_order_1() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 3))
    problem = fs.Regression(X, X @ rng.standard_normal((3, 2)) + 0.1 * rng.standard_normal((20, 2)))
    study = fs.limit_study(fs.LinearNetwork(6), problem, ["1e-30", "1e-100", "1e-1000"], rtol=1e-8)
    assert study.rate.order == pytest.approx(1.0, abs=0.05)
    assert list(study.table()["jumps_seen"]) == ["2/2"] * 3
    assert study.path.order == 2
    assert study.plateau_errors[-1].max() < 1e-6
    # The flow's own levels are those of the path, but for terms of order 1/ln(1/alpha).
    flow, path = study.trajectories[-1], study.path
    times = np.linspace(0.1, 1.0, 7) * path.jump_times[-1]
    levels = flow.at(times, clock="accelerated").levels
    np.testing.assert_allclose(levels[:, :2], path.levels(times)[:, :2], atol=10 / study.gamma[-1])


def test_with_many_features_few_states_are_read_and_few_lines_drawn() -> None:
    """Jump times, figures and the Lasso link cost a small multiple of the flow, not one pass for every bisection."""
    import matplotlib

    matplotlib.use("Agg")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 1500))
    problem = fs.Regression(X, X[:, :5] @ rng.standard_normal(5) + 0.1 * rng.standard_normal(20))
    path = fs.saddle_to_saddle(NET, problem)
    flow = fs.gradient_flow(NET, problem, 1.5 * path.jump_times[-1], alpha="1e-100", clock="accelerated")
    seen: list[int] = []
    ever = np.unique(np.concatenate(path.active_sets))

    class Counted:
        accelerated_time = flow.accelerated_time

        @property
        def dense(self) -> Counted:
            return self

        def some(self, t: np.ndarray, clock: str, only: np.ndarray) -> np.ndarray:
            seen.append(len(t))
            assert set(only) <= set(ever)
            assert flow.dense is not None
            return flow.dense.some(t, clock, only)  # type: ignore[arg-type]

    times = fs.studies.measured_jump_times(Counted(), path)  # type: ignore[arg-type]
    crossed = np.isfinite(times)
    assert crossed.sum() > 5
    assert np.median(np.abs(times[crossed] / path.jump_times[crossed] - 1)) < 0.01
    assert sum(seen) <= 60 * crossed.sum() + 230 * (~crossed).sum()
    assert len(seen) <= 2 * len(times) + 60
    (axes,) = fs.plot.trajectory(flow, path=path).figure.axes
    assert len(axes.lines) < 500
    link = fs.lasso_link(path)
    assert link.distance[link.t < link.departs_at].max(initial=0.0) < 1e-9
