"""Large steps: the edge of stability, and vanishing initialisation at a fixed step."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs
from flowsim.studies import descent_limit, edge_of_stability

NET = fs.DiagonalNetwork("u*v")


def small_problem() -> fs.Regression:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4, 8))
    return fs.Regression(X, X @ np.array([1.0, -2.0, 0.5, 0, 0, 0, 0, 0]))


def test_the_edge_of_stability_of_a_sparse_problem_lies_where_the_loss_without_1_over_n_puts_it() -> None:
    """n=50, d=100, 2-sparse. Steps 1.75e-2 and 5e-3 belong to the loss 1/2 ||X beta - y||^2: here 50 times larger.

    The larger one cannot stay at the sparse minimum (sharpness 2.8 > 2/h = 2.29): it ends within 1 % of the edge, at a
    flatter interpolator with many more coordinates. The smaller one finds the 2-sparse truth, far from its edge.
    """
    problem = fs.datasets.sparse_regression(50, 100, 2, seed=1)
    study = edge_of_stability(
        NET, problem, [50 * 1.75e-2, 50 * 5e-3], 5000, alpha=0.01, record_every=11, n_sharpness=20
    )
    large, small = study.runs
    assert (large.verdict, small.verdict) == ("at the edge", "stable")
    assert 0.98 < large.ratio[-1] <= 1.001
    assert small.ratio.max() < 0.5
    assert large.rising > 0.005
    assert small.rising == 0.0
    rows = study.rows()
    assert rows[1]["coordinates used"] == 2
    assert rows[0]["coordinates used"] > 10
    assert rows[0]["l1 norm at end"] > 1.5 * rows[1]["l1 norm at end"]
    assert max(row["loss at end"] for row in rows) < 1e-5


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_with_the_loss_over_2n_the_same_steps_are_far_below_the_edge(seed) -> None:
    problem = fs.datasets.sparse_regression(50, 100, 2, seed=seed)
    study = edge_of_stability(NET, problem, [1.75e-2, 5e-3], 60_000, alpha=0.01, n_sharpness=20)
    for run, row in zip(study.runs, study.rows(), strict=True):
        assert run.verdict == "stable"
        assert run.ratio.max() < 0.03
        assert run.rising == 0.0
        assert row["coordinates used"] == 2


def test_a_step_far_beyond_the_edge_is_reported_as_divergence() -> None:
    problem = fs.datasets.sparse_regression(20, 10, 2, seed=1)  # no flat interpolator: n > d
    study = edge_of_stability(NET, problem, [0.1, 20.0], 300, alpha=0.1)
    assert [run.verdict for run in study.runs] == ["stable", "diverged"]
    assert np.isfinite(study.runs[1].sharpness).all()


@pytest.mark.parametrize("h", [0.05, 0.15])
def test_descent_from_1e_minus_300_visits_the_saddles_of_its_own_limit_at_its_own_times(h) -> None:
    problem = small_problem()
    limit, gamma = descent_limit(problem, h), 300 * np.log(10)
    times = np.append((limit.jump_times[:-1] + limit.jump_times[1:]) / 2, 1.1 * limit.jump_times[-1])
    descent = fs.gradient_descent(NET, problem, h, int(times[-1] * gamma / h) + 10, alpha="1e-300", record_every=20)
    seen = descent.beta[np.searchsorted(descent.accelerated_time, times)]
    np.testing.assert_allclose(seen, limit.beta(times), atol=1e-9)

    # Between the jump times of the limits of descent and flow the descent still waits: the flow would have jumped.
    flow = fs.saddle_to_saddle(NET, problem)
    assert (limit.jump_times > flow.jump_times).all()
    for k in range(len(limit.jump_times)):
        between = 0.5 * (flow.jump_times[k] + limit.jump_times[k])
        # The coordinate about to jump is still exp(-2 hidden) small, growing from exp(-2 gamma) over its whole wait.
        hidden = (limit.jump_times[k] - between) / limit.jump_times[k] * gamma
        if hidden > 4.0:
            there = descent.beta[np.searchsorted(descent.accelerated_time, between)]
            before, after = (np.abs(there - limit.saddles[j]).max() for j in (k, k + 1))
            assert before < 0.1 * after


def test_the_limit_of_descent_tends_to_the_limit_of_the_flow_with_the_step() -> None:
    problem = small_problem()
    flow = fs.saddle_to_saddle(NET, problem)
    steps = np.array([0.04, 0.02, 0.01])
    delay = [np.abs(descent_limit(problem, h).jump_times - flow.jump_times).max() for h in steps]
    assert np.polyfit(np.log(steps), np.log(delay), 1)[0] == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(descent_limit(problem, 0.01).saddles, flow.saddles, atol=1e-9)


def test_on_an_orthogonal_design_every_wait_has_a_closed_form() -> None:
    problem = fs.Regression(2.0 * np.eye(4), [3.0, -1.5, 1.0, -0.5])
    h = 0.3
    c = np.abs(problem.gradient(np.zeros(4)))
    limit = descent_limit(problem, h)
    np.testing.assert_allclose(limit.jump_times, np.sort(h / np.log1p(h * c)), rtol=1e-12)
    np.testing.assert_allclose(limit.end, problem.y / 2.0, rtol=1e-12)
