"""The front door: clocks, dense output, files, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

import flowsim as fs

UV = fs.DiagonalNetwork("u*v")
SMALL = fs.datasets.sparse_regression(8, 5, 2, seed=3)


@pytest.mark.parametrize("alpha", [0.05, "1e-60", "1e-1000"])
def test_the_three_clocks_tell_one_trajectory(alpha: object) -> None:
    run = fs.gradient_flow(UV, SMALL, 4, alpha=alpha, clock="accelerated", rtol=1e-8)
    gamma = -np.log(0.05) if alpha == 0.05 else float(str(alpha).split("-")[1]) * np.log(10)
    np.testing.assert_allclose(run.t, run.accelerated_time * gamma, rtol=1e-12)
    length = run.arclength[-1]
    by_length = fs.gradient_flow(UV, SMALL, length, alpha=alpha, clock="arclength", rtol=1e-8)
    assert by_length.arclength[-1] == length
    points = np.linspace(0, length, 40)
    here, there = run.at(points, "arclength"), by_length.at(points, "arclength")
    np.testing.assert_allclose(here.beta, there.beta, atol=1e-4)
    np.testing.assert_array_equal(here.arclength, points)
    evaluated = fs.gradient_flow(UV, SMALL, length, alpha=alpha, clock="arclength", t_eval=points, rtol=1e-8)
    np.testing.assert_array_equal(evaluated.arclength, points)
    np.testing.assert_allclose(evaluated.beta, here.beta, atol=1e-4)


def test_arc_length_is_time_plus_distance_travelled() -> None:
    run = fs.gradient_flow(UV, SMALL, 4, alpha=1e-6, clock="accelerated", rtol=1e-8)
    fine = run.at(np.linspace(0, 4, 200_001), "accelerated")
    travelled = np.linalg.norm(np.diff(fine.beta, axis=0), axis=1).sum()
    assert run.arclength[-1] == pytest.approx(4 + travelled, rel=1e-5)
    assert (np.diff(run.arclength) > 0).all()


def test_deep_networks_accelerate_by_a_power_of_alpha() -> None:
    run = fs.gradient_flow(fs.DiagonalNetwork(depth=3), SMALL, 1.0, alpha=0.05)
    np.testing.assert_allclose(run.accelerated_time, run.t * 0.05, rtol=1e-12)


def test_t_eval_is_returned_exactly_and_agrees_with_dense_output() -> None:
    times = np.array([0.0, 0.1, 0.1, 1.7, 3.0])
    run = fs.gradient_flow(UV, SMALL, 3.0, alpha=1e-4, t_eval=times)
    np.testing.assert_array_equal(run.t, times)
    whole = fs.gradient_flow(UV, SMALL, 3.0, alpha=1e-4)
    assert whole.t[0] == 0 and whole.t[-1] == 3.0 and len(whole) == whole.stats["steps"] + 1
    np.testing.assert_array_equal(whole.at(times).beta, run.beta)
    one = whole.at(1.7)
    assert one.beta.shape == (5,) and one.loss.shape == () and one.imbalance.shape == (1, 5)
    np.testing.assert_allclose(whole.at(whole.t).beta[-1], whole.beta[-1], rtol=1e-15)


def test_shapes_of_the_contract() -> None:
    run = fs.gradient_flow(fs.DiagonalNetwork(depth=3), SMALL, 1.0, alpha=0.3)
    steps = len(run.t)
    assert run.beta.shape == (steps, 5) and run.loss.shape == (steps,) and run.imbalance.shape == (steps, 2, 5)
    assert {name: w.shape for name, w in run.weights.items()} == dict.fromkeys(("w1", "w2", "w3"), (steps, 5))
    assert run.success and run.message and {"steps", "rejected", "nfev", "njev", "seconds"} <= set(run.stats)


def test_sparse_and_operator_data_give_the_same_flow() -> None:
    dense = fs.gradient_flow(UV, SMALL, 3.0, alpha=1e-10, t_eval=[1.0, 3.0])
    for X in (scipy.sparse.csr_array(SMALL.X), aslinearoperator(SMALL.X)):
        for coordinates in ("growth", "weights"):
            alpha = 1e-10 if coordinates == "growth" else 0.1
            expected = dense if alpha == 1e-10 else fs.gradient_flow(UV, SMALL, 3.0, alpha=0.1, t_eval=[1.0, 3.0])
            run = fs.gradient_flow(
                UV, fs.Regression(X, SMALL.y), 3.0, alpha=alpha, t_eval=[1.0, 3.0], coordinates=coordinates
            )
            np.testing.assert_allclose(run.beta, expected.beta, atol=2e-6)


def test_alpha_may_be_a_float_text_decimal_or_fraction() -> None:
    runs = [
        fs.gradient_flow(UV, SMALL, 2.0, alpha=a, t_eval=[2.0])
        for a in (1e-3, "1e-3", Decimal("1e-3"), Fraction(1, 1000))
    ]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.beta, runs[0].beta)


def test_a_saved_trajectory_loads_bit_for_bit(tmp_path: Path) -> None:
    run = fs.gradient_flow(UV, SMALL, 2.0, alpha="1e-400", clock="accelerated")
    loaded = fs.load(run.save(tmp_path / "run.nc"))
    for name in ("t", "accelerated_time", "arclength", "beta", "loss", "imbalance", "log_imbalance"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(run, name))
    for name in ("u", "v"):
        np.testing.assert_array_equal(loaded.log_abs_weights[name], run.log_abs_weights[name])
    assert loaded.info["alpha"] == "1e-400" and loaded.success and loaded.stats["steps"] == run.stats["steps"]
    assert loaded.feature_names == run.feature_names and loaded.imbalance_drift == run.imbalance_drift
    with pytest.raises(ValueError, match="no dense output"):
        loaded.at(1.0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.nc"]
    with pytest.raises(ValueError, match="there is none at"):
        fs.load(tmp_path / "absent.nc")
    (tmp_path / "broken.nc").write_bytes(b"\x89HDF\r\n\x1a\nnothing")
    with pytest.raises(ValueError, match="cannot be read"):
        fs.load(tmp_path / "broken.nc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0}, "`alpha` must be > 0"),
        ({"alpha": -0.1}, "`alpha` must be > 0 and finite; received -0.1"),
        ({"alpha": "x"}, "`alpha` must be a positive number; received 'x'"),
        ({"alpha": float("nan")}, "`alpha`"),
        ({"alpha": "inf"}, "`alpha`"),
        ({"t_end": 0}, "`t_end` must be > 0"),
        ({"t_end": float("inf")}, "`t_end`"),
        ({"t_end": "soon"}, "`t_end` must be a number"),
        ({"t_eval": [0.0, 9.0]}, r"`t_eval` must lie in \[0, 1\]"),
        ({"t_eval": [0.5, 0.2]}, "`t_eval` must not decrease"),
        ({"t_eval": [0.5, np.nan]}, "`t_eval` must be finite"),
        ({"t_eval": []}, "`t_eval` must be a vector"),
        ({"t_eval": ["now"]}, r"`t_eval` must be a vector of times; received \['now'\]"),
        ({"t_eval": [1j]}, "`t_eval` must be a vector of times"),
        ({"rtol": 10**400}, "`rtol` must be a number > 0"),
        ({"clock": "sundial"}, "`clock` must be one of time, accelerated, arclength, log_loss; received 'sundial'"),
        ({"alpha": 2.0, "clock": "accelerated"}, "`alpha` must be < 1 on the accelerated clock"),
        ({"method": "Euler"}, "`method` must be one of .*; received 'Euler'"),
        ({"coordinates": "polar"}, "`coordinates` must be one of"),
        ({"rtol": 0}, "`rtol` must be > 0"),
        ({"atol": -1}, "`atol` must be > 0"),
        ({"max_steps": 0}, "`max_steps`"),
        ({"start": {"u": 1.0}}, "'v' is missing"),
        ({"start": {"u": 1.0, "v": 1.0, "w": 1.0}}, "unknown weight 'w'; the network has u, v"),
        ({"start": {"u": [1.0, 2.0], "v": 1.0}}, r"`start\['u'\]` must be a number or have shape \(5,\)"),
        ({"start": {"u": np.nan, "v": 1.0}}, r"`start\['u'\]` must be finite"),
        ({"start": {"u": 0.0, "v": 0.0}}, "the origin is a saddle"),
        ({"start": 3}, "`start` must map weights"),
        ({"net": "u*v"}, "`net` must be a DiagonalNetwork or LinearNetwork; received str"),
        ({"net": fs.DiagonalNetwork(["u*v", "u*v"])}, "lists 2 coordinates; the problem has d=5"),
        ({"problem": SMALL.X}, "`problem` must be a Problem"),
        ({"problem": fs.Regression(SMALL.X, np.ones((8, 2)))}, "single target"),
    ],
)
def test_what_the_caller_can_mend_is_named(change: dict, message: str) -> None:
    arguments = {"net": UV, "problem": SMALL, "t_end": 1.0} | change
    with pytest.raises(ValueError, match=message):
        fs.gradient_flow(**arguments)


def test_unknown_keywords_raise() -> None:
    with pytest.raises(TypeError, match="tolerance"):
        fs.gradient_flow(UV, SMALL, 1.0, tolerance=1e-3)


@pytest.mark.parametrize(
    ("t", "clock", "message"),
    [(5.0, "time", r"`t` must lie in the run, \[0, 1\]"), (np.nan, "time", "`t` must lie"), (0.5, "moon", "`clock`")],
)
def test_dense_output_is_not_extrapolated(t: float, clock: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.gradient_flow(UV, SMALL, 1.0).at(t, clock)


def test_a_clock_beyond_floats_is_named() -> None:
    run = fs.gradient_flow(UV, SMALL, 1.0)
    endless = replace(run, arclength=np.append(run.arclength[:-1], np.inf))
    with pytest.raises(ValueError, match="the arclength of this run leaves the range of floats"):
        endless.at(0.5, "arclength")


def test_a_spent_budget_raises_with_the_trajectory_so_far() -> None:
    with pytest.raises(fs.IntegrationError, match="step budget is spent; allow more with `max_steps`") as caught:
        fs.gradient_flow(UV, SMALL, 5, alpha="1e-60", clock="accelerated", max_steps=10, t_eval=[1.0, 5.0])
    partial = caught.value.trajectory
    assert partial is not None and not partial.success and len(partial.t) == 11


def test_the_progress_bar_reaches_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    for clock in ("time", "accelerated", "arclength"):
        fs.gradient_flow(UV, SMALL, 1.0, alpha=1e-4, clock=clock, progress=True)
        assert "100%" in capsys.readouterr().err


def test_a_start_above_one_keeps_time_as_its_accelerated_time() -> None:
    run = fs.gradient_flow(UV, SMALL, 1.0, alpha=3.0)
    np.testing.assert_array_equal(run.accelerated_time, run.t)


def test_losses_and_weights_are_made_when_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    loss = fs.Regression.loss
    monkeypatch.setattr(fs.Regression, "loss", lambda self, beta: passes.append(len(beta)) or loss(self, beta))
    run = fs.gradient_flow(UV, SMALL, 3.0, alpha=1e-10, t_eval=[1.0, 3.0])
    assert passes == []
    np.testing.assert_array_equal(run.loss, loss(SMALL, run.beta))
    assert passes == [2]


def test_a_loss_beyond_the_range_of_floats_is_never_a_success() -> None:
    # beta stays a float, its loss overflows at the start.
    problem = fs.Regression([[1e-10], [0.0]], [1.0, 1e155])
    with np.errstate(over="ignore"), pytest.raises(fs.IntegrationError, match="left the range of floats"):
        fs.gradient_flow(UV, problem, 1.0, alpha=1e-3)


@pytest.mark.parametrize(
    ("net", "options"),
    [
        (fs.DiagonalNetwork("u*v"), {"alpha": "1e-1000", "clock": "accelerated"}),
        (fs.DiagonalNetwork("u*v"), {"clock": "arclength"}),
        (fs.DiagonalNetwork(depth=3), {"alpha": 0.1}),
        (fs.LinearNetwork(8), {"alpha": 0.1}),
    ],
    ids=["tiny", "arclength", "depth 3", "two layers"],
)
def test_without_an_end_the_flow_runs_until_it_rests(net: Any, options: dict[str, Any]) -> None:
    problem = fs.Regression([[1.0, 0.2], [0.0, 1.0], [0.5, 0.1]], [2.0, 0.5, 1.0])
    run = fs.gradient_flow(net, problem, **options)
    exact = np.linalg.lstsq(problem.X, problem.y, rcond=None)[0]
    np.testing.assert_allclose(run.beta[-1].ravel(), exact, rtol=1e-4)


def test_with_noise_it_rests_at_the_lasso() -> None:
    problem = fs.datasets.sparse_regression(20, 10, 3, seed=1)
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.3))
    run = fs.gradient_flow(net, problem, alpha=1e-30)
    lasso = fs.studies.weighted_lasso(problem, 0.09 * problem.feature_variances)
    np.testing.assert_allclose(run.beta[-1], lasso, atol=1e-5)


def test_a_flow_without_an_end_of_its_own_needs_one_given() -> None:
    problem = fs.Problem([[1.0], [2.0]], [1.0, 1.0], loss="logistic")
    with pytest.raises(ValueError, match="`t_end` must be given: the loss 'logistic' has no minimum"):
        fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem)
    with pytest.raises(ValueError, match="`t_eval` needs `t_end`"):
        fs.gradient_flow(fs.DiagonalNetwork("u*v"), fs.Regression([[1.0]], [1.0]), t_eval=[0.0])


@pytest.mark.parametrize("clock", ["time", "accelerated", "arclength"])
@pytest.mark.parametrize("net", [fs.DiagonalNetwork("u*v"), fs.DiagonalNetwork(depth=3), fs.LinearNetwork(3)], ids=str)
def test_any_time_of_a_run_can_be_read_whatever_times_are_reported(net: fs.DiagonalNetwork, clock: str) -> None:
    problem = fs.Regression([[1.0, 0.5], [0.2, 1.0]], [1.0, -0.5])
    part = fs.gradient_flow(net, problem, 6.0, alpha=0.1, t_eval=[3.0, 4.0], clock=clock)
    whole = fs.gradient_flow(net, problem, 6.0, alpha=0.1, clock=clock)
    for t in (0.0, 2.0, 5.0, 6.0):
        np.testing.assert_allclose(part.at(t, clock).beta, whole.at(t, clock).beta, rtol=0, atol=1e-12)
    for outside in (-0.1, 6.01):
        with pytest.raises(ValueError, match=r"must lie in the run, \[0, 6\]"):
            part.at(outside, clock)


def test_nothing_is_read_behind_the_event_that_ended_a_run() -> None:
    net, problem = fs.DiagonalNetwork("u*v"), fs.Regression([[1.0]], [1.0])
    stop = fs.events.crosses("beta", 0, 0.5, terminal=True)
    run = fs.gradient_flow(net, problem, 50.0, alpha=0.1, t_eval=[1.0, 2.0], events=[stop])
    assert run.at(run.t[-1]).beta[0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="must lie in the run"):
        run.at(1.01 * run.t[-1])


def test_the_clock_of_the_loss_is_read_beyond_the_reported_values() -> None:
    problem = fs.Problem([[1.0, 0.3], [0.2, 1.0]], [1.0, -1.0], loss="logistic")
    run = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 20.0, alpha=0.1, clock="log_loss", t_eval=[9.0, 10.0])
    assert run.at(15.0, "log_loss").log_loss == pytest.approx(-15.0, rel=1e-9)


def test_times_are_examined_again_when_they_have_changed() -> None:
    times = np.array([0.0, 1.0, 2.0])
    fs.gradient_flow(UV, SMALL, 3.0, alpha=1e-4, t_eval=times)
    times[1] = 2.5
    with pytest.raises(ValueError, match="must not decrease"):
        fs.gradient_flow(UV, SMALL, 3.0, alpha=1e-4, t_eval=times)
