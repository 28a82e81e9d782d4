"""The clock ln(1/L), down to a loss of 1e-1000000: closed forms, margins, and the flow in time."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs
from flowsim.studies import max_margin_l1, separation

NET = fs.DiagonalNetwork("u*v")
LN10 = np.log(10.0)


def separable(seed: int = 0, n: int = 20, d: int = 30, loss: str = "logistic") -> fs.Problem:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return fs.Problem(X, np.sign(X @ np.r_[1.0, -1.0, 0.5, np.zeros(d - 3)]), loss)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("x2", "alpha", "digits", "ratio"),
    [
        # n = 1, x = (1, x2): beta_i = alpha^2 sinh(2 x_i nu), sum x_i beta_i = ln(1/L).
        (0.5, "1", 100, 0.0470392084),
        (0.5, "1", 1_000_000, 4.66044790521e-4),
        (0.9, "1", 100, 0.564288355911),
        (0.9, "1", 1_000_000, 0.219536115676),
        (0.9, "1e-1000", 1_000_000, 2.15613243e-201),
    ],
)
def test_one_sample_has_a_closed_form_at_any_loss(x2: float, alpha: str, digits: int, ratio: float) -> None:
    problem = fs.Problem([[1.0, x2]], [1.0], "exponential")
    run = fs.gradient_flow(NET, problem, digits * LN10, alpha=alpha, clock="log_loss")
    assert run.beta[-1, 1] / run.beta[-1, 0] == pytest.approx(ratio, rel=1e-6)
    assert run.log_loss[-1] == pytest.approx(-digits * LN10, rel=1e-12)
    assert problem.log_loss(run.beta[-1]) == pytest.approx(-digits * LN10, rel=1e-9)
    assert run.imbalance_drift < 1e-9


@pytest.mark.sampled(2)
@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_the_clock_shows_the_same_flow_as_time(loss: str) -> None:
    problem = separable(loss=loss)
    run = fs.gradient_flow(NET, problem, 7.0, alpha=0.1, clock="log_loss", rtol=1e-8, estimate_error=True)
    end = float(run.t[-1])
    other = fs.gradient_flow(NET, problem, end, alpha=0.1, rtol=1e-8)
    assert other.log_loss[-1] == pytest.approx(-7.0, abs=1e-6)
    np.testing.assert_allclose(run.beta[-1], other.beta[-1], atol=1e-7)
    assert run.error_estimate.max() < 1e-6
    assert run.arclength[-1] == pytest.approx(other.arclength[-1], rel=1e-7)
    assert run.speed[-1] == pytest.approx(other.speed[-1], rel=1e-5)
    middle = run.at([end / 3, end / 2])
    np.testing.assert_allclose(middle.beta, other.at([end / 3, end / 2]).beta, atol=1e-7)
    np.testing.assert_allclose(run.at([3.0, 5.0], clock="log_loss").log_loss, [-3.0, -5.0], atol=1e-9)
    length = run.arclength[-1] / 2
    np.testing.assert_allclose(run.at(length, "arclength").beta, other.at(length, "arclength").beta, atol=1e-6)


@pytest.mark.slow
def test_fixed_scale_goes_to_the_l1_margin_and_vanishing_scale_first_freezes_the_active_set() -> None:
    problem = separable(1)
    ends = np.array([10.0, 1e2, 1e4, 1e6]) * LN10
    best = max_margin_l1(problem)
    at_one = fs.gradient_flow(NET, problem, ends[-1], alpha=1.0, clock="log_loss", t_eval=ends)
    gaps = 1 - separation(at_one, problem).margin_l1 / best.margin
    assert (np.diff(gaps) < 0).all()
    assert gaps[-1] < 0.02
    # alpha -> 0 first: the features active when the data is first separated carry the direction from then on.
    tiny = fs.gradient_flow(NET, problem, ends[-1], alpha="1e-100000", clock="log_loss", t_eval=ends[1:])
    active = np.abs(tiny.beta[0]) > 1e-3 * np.abs(tiny.beta[0]).max()
    alone = fs.Problem(problem.X[:, active], problem.y, "logistic")
    restricted = max_margin_l1(alone)
    assert active.sum() < problem.d
    assert (np.abs(tiny.beta[-1, ~active]) < 1e-6 * np.abs(tiny.beta[-1]).max()).all()
    assert restricted.margin < 0.98 * best.margin
    frozen = separation(tiny, problem).margin_l1
    assert (frozen < restricted.margin * (1 + 1e-9)).all()
    assert frozen[-1] == pytest.approx(frozen[0], rel=0.1)


def test_events_files_and_the_budget(tmp_path) -> None:  # type: ignore[no-untyped-def]
    problem = separable(2)
    crossing = fs.events.Event(lambda t, state: state.log_loss + 1000.0, name="deep", terminal=True)
    run = fs.gradient_flow(NET, problem, 1e6, alpha=1.0, clock="log_loss", events=crossing)
    assert run.log_loss[-1] == pytest.approx(-1000.0, abs=1e-6)
    assert run.stats["steps"] < 1000
    assert np.isinf(run.t[-1])
    again = fs.load(run.save(tmp_path / "run.nc"))
    np.testing.assert_array_equal(again.log_loss, run.log_loss)
    with pytest.raises(fs.IntegrationError, match=r"of 1e\+06 in ln\(1/L\): the step budget") as caught:
        fs.gradient_flow(NET, problem, 1e6, alpha=1.0, clock="log_loss", max_steps=30)
    assert caught.value.trajectory.log_loss[-1] < 0


@pytest.mark.parametrize(
    ("problem", "options", "message"),
    [
        (fs.Problem([[1.0], [1.0]], [1.0, -1.0], "logistic"), {}, "`problem` must be separable"),
        (fs.Regression([[1.0]], [1.0]), {}, "logistic and exponential loss"),
        (fs.Problem([[1.0]], [1.0], "logistic"), {"t_end": 0.1}, r"`t_end` must be above ln\(1/L\) at the start"),
        (fs.Problem([[1.0]], [1.0], "logistic"), {"t_eval": [0.2, 1.0]}, r"`t_eval` must not lie below"),
        (fs.Problem([[1.0]], [1.0], "logistic"), {"method": "DOP853"}, "`method` must be 'auto', 'BDF' or 'Radau'"),
    ],
)
def test_what_the_clock_cannot_do_is_named(problem: fs.Problem, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.gradient_flow(NET, problem, **{"t_end": 5.0, "alpha": 0.5, "clock": "log_loss", **options})
    with pytest.raises(ValueError, match="growth coordinates only"):
        fs.gradient_flow(
            fs.DiagonalNetwork(depth=3), fs.Problem([[1.0]], [1.0], "logistic"), 5.0, alpha=0.5, clock="log_loss"
        )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("net", [NET, fs.LinearNetwork(3)])
def test_a_sample_of_weight_zero_does_not_count(net: fs.DiagonalNetwork | fs.LinearNetwork) -> None:
    plain = separable(n=6, d=5)
    X, y = np.vstack([plain.X, -plain.X[:1]]), np.append(plain.y, plain.y[0])  # contradicts the first sample
    problem = fs.Problem(X, y, "logistic", sample_weight=[1.0] * 6 + [0.0])
    end = 1e4
    found = fs.gradient_flow(net, problem, end, alpha=0.1, clock="log_loss")
    right = fs.gradient_flow(net, plain, end - np.log(7 / 6), alpha=0.1, clock="log_loss")
    assert np.abs(found.beta[-1] - right.beta[-1]).max() < 1e-5 * np.abs(right.beta[-1]).max()
    judged, judged_right = separation(found, problem), separation(right, plain)
    assert judged.margin_l2[-1] == pytest.approx(judged_right.margin_l2[-1], rel=1e-5)
    assert judged.distance_l1[-1] == pytest.approx(judged_right.distance_l1[-1], rel=1e-4)
