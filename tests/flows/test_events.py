"""Events of a flow: against closed forms, at every scale, on every clock, by every method; and how they are kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowsim as fs
from flowsim.network import InitialScale
from flowsim.results.events import Events, crosses, loss_reaches, plateau_begins, plateau_ends

UV = fs.DiagonalNetwork("u*v")
#: one feature of variance 1, whose flow runs from 0 to C
C = 2.0
ONE = fs.Regression([[1.0]], [C])
SMALL = fs.datasets.sparse_regression(8, 5, 2, seed=3)
#: a coordinate that rises at 2 and falls at 8, in accelerated time
RISE_AND_FALL = fs.Regression([[1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7]], [1.0, 0.0])


def time_of(beta: float, alpha: str) -> float:
    """When the flow of `ONE` under u*v is at beta: ``beta = a sinh(2 z)``, ``z' = C - beta``, ``a = alpha^2``."""
    scale = InitialScale.parse(alpha)
    a = scale.value**2
    top = C + math.sqrt(C**2 + a**2)
    w = beta + math.sqrt(a**2 + beta**2)
    start = 2 * scale.log + math.log1p(a / top) - math.log(top - a)
    return (math.log(w + a**2 / top) - math.log(top - w) - start) / (2 * (top - C))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("method", ["native", "LSODA", "Radau"])
@pytest.mark.parametrize("alpha", ["1e-3", "1e-8", "1e-60", "1e-1000", "1e-100000"])
def test_levels_and_losses_are_met_when_the_closed_form_says(alpha: str, method: str) -> None:
    events = [crosses("beta", 0, 0.5), loss_reaches(0.02), crosses("|beta|", None, 1.9)]
    run = fs.gradient_flow(
        UV, ONE, 3, alpha=alpha, clock="accelerated", method=method, events=events, rtol=1e-8, t_eval=[3]
    )
    # The loss is (C - beta)^2 / 2.
    exact = [time_of(0.5, alpha), time_of(1.8, alpha), time_of(1.9, alpha)]
    assert run.events.name == ("beta[0] = 0.5", "loss = 0.02", "|beta| = 1.9")
    # SciPy's methods round the growth of a long plateau.
    tolerance = 1e-7 + (1e-14 if method == "native" else 1e-11) * exact[-1]
    np.testing.assert_allclose(run.events.t, exact, rtol=0, atol=tolerance)
    np.testing.assert_allclose([one.state.beta[0] for one in run.events], [0.5, 1.8, 1.9], atol=1e-6)
    assert [one.rising for one in run.events] == [True, False, True]


@pytest.mark.parametrize("method", ["LSODA", "DOP853"])
def test_weight_coordinates_meet_them_too(method: str) -> None:
    run = fs.gradient_flow(
        UV, ONE, 8, alpha="1e-3", coordinates="weights", method=method, events=crosses("beta", 0, 0.5), rtol=1e-8,
        atol=1e-12,
    )  # fmt: skip
    assert run.events[0].t == pytest.approx(time_of(0.5, "1e-3"), abs=1e-6)


def test_a_weight_far_below_the_range_of_floats_crosses_a_level_of_its_logarithm() -> None:
    # u = sqrt(2) alpha cosh(z), and z = C t while beta is nothing.
    levels = [-2000.0, -1000.0, -300.0]
    run = fs.gradient_flow(
        UV, ONE, 1, alpha="1e-1000", clock="accelerated", events=[crosses("ln|u|", 0, x) for x in levels]
    )
    exact = [(x + 1000 * math.log(10) + 0.5 * math.log(2)) / C for x in levels]
    np.testing.assert_allclose(run.events.t, exact, rtol=1e-12)


def test_all_clocks_tell_the_same_event() -> None:
    gamma = 60 * math.log(10)
    half = crosses("beta", 0, 1.0)
    runs = [fs.gradient_flow(UV, ONE, end, alpha="1e-60", clock=clock, events=half, rtol=1e-8)
            for clock, end in (("time", 3 * gamma), ("accelerated", 3), ("arclength", 4))]  # fmt: skip
    for run in runs:
        (one,) = run.events
        assert one.t == pytest.approx(time_of(1.0, "1e-60"), abs=1e-7)
        assert run.events.accelerated_time == pytest.approx([one.t / gamma], rel=1e-12)
        # One coordinate that only grows has travelled what it is.
        assert run.events.arclength == pytest.approx([one.t / gamma + 1.0], abs=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("clock", ["time", "accelerated", "arclength"])
@pytest.mark.parametrize("method", ["native", "LSODA"])
def test_a_terminal_event_ends_the_run(clock: str, method: str) -> None:
    end = {"time": 6 * 60 * math.log(10), "accelerated": 6, "arclength": 8}[clock]
    options: dict[str, Any] = {"alpha": "1e-60", "clock": clock, "method": method, "rtol": 1e-8}
    events = [crosses("beta", 0, 1.0, terminal=True), crosses("beta", 0, 0.3), crosses("beta", 0, 1.7)]
    run = fs.gradient_flow(UV, ONE, end, events=events, **options)
    assert run.success and run.message == "ended by the event 'beta[0] = 1'"
    assert run.events.name == ("beta[0] = 0.3", "beta[0] = 1")
    assert run.t[-1] == run.events[-1].t == pytest.approx(time_of(1.0, "1e-60"), abs=1e-6)
    assert run.beta[-1, 0] == pytest.approx(1.0, abs=1e-9) and (np.diff(run.t) > 0).all()
    assert (run.beta[:-1] < 1).all() and run.at(run.t[-1]).beta == pytest.approx([1.0], abs=1e-9)
    with pytest.raises(ValueError, match="`t` must lie in the run"):
        run.at(run.t[-1] + 1)
    some = fs.gradient_flow(UV, ONE, end, events=events, t_eval=[0, end / 100, end], estimate_error=True, **options)
    assert some.error_estimate is not None and some.error_estimate.shape == (3,) and some.error_estimate.max() < 1e-6
    last = {"time": some.events.t, "accelerated": some.events.accelerated_time, "arclength": some.events.arclength}
    np.testing.assert_array_equal(some.clock_values(clock), [0, end / 100, last[clock][-1]])
    assert some.beta[-1, 0] == pytest.approx(1.0, abs=1e-9)


def test_what_comes_after_a_terminal_event_can_not_fail_the_run() -> None:
    options: dict[str, Any] = {"alpha": 1e-6, "coordinates": "weights", "method": "LSODA", "max_steps": 150}
    with pytest.raises(fs.IntegrationError, match="step budget"):
        fs.gradient_flow(UV, SMALL, 500, **options)
    run = fs.gradient_flow(
        UV, SMALL, 500, events=loss_reaches(0.9 * float(SMALL.loss(np.zeros(5))), terminal=True), **options
    )
    assert run.success and run.loss[-1] == pytest.approx(0.9 * run.loss[0], rel=1e-6)


def test_a_run_without_an_occurrence_of_its_terminal_event_reaches_the_end() -> None:
    run = fs.gradient_flow(UV, SMALL, 5, alpha=1e-3, events=crosses("beta", 0, 100.0, terminal=True))
    assert run.t[-1] == 5 and len(run.events) == 0 and run.events.t.shape == (0,)


def test_events_do_not_change_the_run() -> None:
    plain = fs.gradient_flow(UV, SMALL, 60, alpha="1e-10", estimate_error=True)
    watched = fs.gradient_flow(UV, SMALL, 60, alpha="1e-10", estimate_error=True, events=crosses("beta", None, 0.01))
    np.testing.assert_array_equal(plain.beta, watched.beta)
    np.testing.assert_array_equal(plain.error_estimate, watched.error_estimate)


def test_direction_chooses_between_rising_and_falling() -> None:
    def jumps(direction: int) -> Events:
        event = crosses("beta", 0, 0.4, direction=direction)
        return fs.gradient_flow(UV, RISE_AND_FALL, 10, alpha="1e-500", clock="accelerated", events=event).events

    np.testing.assert_allclose(jumps(1).accelerated_time, [2.0], rtol=2e-3)
    np.testing.assert_allclose(jumps(-1).accelerated_time, [8.0], rtol=2e-3)
    assert [one.rising for one in jumps(0)] == [True, False]


def test_many_events_of_one_long_step_are_all_found_in_their_order() -> None:
    # On the first plateau ln|u| is a straight line, taken in few steps.
    levels = np.linspace(-2200, -200, 40)
    run = fs.gradient_flow(
        UV, ONE, 0.49, alpha="1e-1000", clock="accelerated",
        events=lambda t, state: state.log_abs_weights["u"] - levels,
    )  # fmt: skip
    assert run.stats["steps"] < 20
    np.testing.assert_array_equal(run.events.component, np.arange(40))
    np.testing.assert_allclose(run.events.t, (levels + 1000 * math.log(10) + 0.5 * math.log(2)) / C, rtol=1e-12)


@pytest.mark.parametrize("problem", [RISE_AND_FALL, SMALL])
def test_plateaus_end_at_the_jump_times_of_the_limit_as_alpha_vanishes(problem: fs.Regression) -> None:
    path = fs.saddle_to_saddle(UV, problem)
    end = float(path.jump_times[-1]) * 1.3
    errors = []
    for digits in (100, 1000, 10_000):
        run = fs.gradient_flow(
            UV, problem, end, alpha=f"1e-{digits}", clock="accelerated", events=[plateau_begins(1.0), plateau_ends(1.0)]
        )
        ends, begins = (run.events[name].accelerated_time for name in ("plateau ends", "plateau begins"))
        assert len(ends) == len(begins) == len(path.jump_times)
        assert (ends < begins).all() and (begins[:-1] < ends[1:]).all()
        errors.append(np.abs(np.array([ends, begins]) - path.jump_times).max())
    # The error is O(ln(gamma)/gamma).
    assert errors[0] < 1.0 and errors[1] < 0.3 * errors[0] and errors[2] < 0.3 * errors[1]


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e2, 1e3, 1e5])
@pytest.mark.parametrize("rtol", [1e-6, 1e-9])
def test_a_plateau_is_told_whatever_the_size_of_coefficients(size: float, rtol: float) -> None:
    """Two jumps of sizes 1 and `size`, one if they are at once; in any units of y."""
    problem = fs.Regression(np.eye(2), [1.0, size])
    end = 4.0 * max(1.0, 1.0 / size)
    for unit in (2.0**-30, 1.0, 2.0**30):
        run = fs.gradient_flow(
            UV, fs.Regression(problem.X, unit * problem.y), end / unit, alpha="1e-300", clock="accelerated", rtol=rtol,
            events=[plateau_begins(), plateau_ends()],
        )  # fmt: skip
        assert [len(run.events[f"plateau {name}"]) for name in ("ends", "begins")] == [1 + (size != 1)] * 2


def test_every_event_in_one_long_step_is_found() -> None:
    problem = fs.Regression(np.eye(2), [1.0, 0.01])  # jumps at 2 and 200
    gamma = 1000 * math.log(10)
    for places in ([50.0, 50.5, 51.0], [20.0, 20.001, 90.0, 90.001], list(np.linspace(30.0, 150.0, 40))):

        def function(t: np.ndarray, state: fs.Trajectory, places: list[float] = places) -> np.ndarray:
            if len(places) > 10:
                return np.sin(np.pi * (t / gamma - 30.0) / np.diff(places)[0])
            return np.prod([t / gamma - place for place in places], axis=0)

        run = fs.gradient_flow(UV, problem, 160.0, alpha="1e-1000", clock="accelerated", events=function)
        found = run.events.accelerated_time
        found = found[(found > 10.0) & (found < places[-1] + 1e-3)]
        if len(places) > 10:
            found = found[found > 29.9]
        np.testing.assert_allclose(found, places, rtol=1e-12)


def test_a_function_that_touches_zero_or_jumps_has_no_more_events_than_it_has() -> None:
    problem = fs.Regression(np.eye(2), [1.0, 0.01])
    gamma = 1000 * math.log(10)
    run = fs.gradient_flow(
        UV, problem, 160.0, alpha="1e-1000", clock="accelerated",
        events=[lambda t, _: (t / gamma - 50.0) ** 2 + 1e-9, lambda t, _: np.where(t / gamma < 77.0, -1.0, 1.0)],
    )  # fmt: skip
    np.testing.assert_allclose(run.events.accelerated_time, [77.0], rtol=1e-12)


def test_the_speed_is_the_slope_of_the_distance_travelled() -> None:
    for options in ({}, {"method": "LSODA"}, {"coordinates": "weights"}):
        run = fs.gradient_flow(UV, SMALL, 12, alpha=1e-3, rtol=1e-9, **options)
        t = np.linspace(0.1, 11.9, 50)
        step = 1e-4
        fine = [run.at(t + shift * step).beta for shift in (-1, 1)]
        slope = np.linalg.norm(fine[1] - fine[0], axis=1) / (2 * step) * math.log(1000)
        np.testing.assert_allclose(run.at(t).speed, slope, rtol=1e-3, atol=1e-4)
        assert run.speed is not None and run.speed.shape == run.t.shape and (run.speed >= 0).all()


def test_functions_of_a_caller_may_carry_the_attributes_of_scipy() -> None:
    def overtakes(t: np.ndarray, state: fs.Trajectory) -> np.ndarray:
        return state.beta[:, 0] - 0.4 + 0 * t

    overtakes.direction, overtakes.terminal = -1, True  # type: ignore[attr-defined]
    run = fs.gradient_flow(UV, RISE_AND_FALL, 10, alpha="1e-100", clock="accelerated", events=[overtakes])
    assert run.events.name == ("overtakes",) and run.t[-1] == run.events[0].t
    assert run.accelerated_time[-1] == pytest.approx(8.0, rel=0.01)


def test_deep_networks_jump_in_their_own_accelerated_time() -> None:
    # c' = c^2 (C - c^3): the time to reach order one is 1/(C alpha) up to O(1), and a jump is shorter than floats tell.
    run = fs.gradient_flow(
        fs.DiagonalNetwork(depth=3), ONE, 2, alpha="1e-40", clock="accelerated",
        events=[crosses("beta", 0, 0.5), crosses("w1", 0, 1.0)],
    )  # fmt: skip
    assert run.info["coordinates"] == "log"
    np.testing.assert_allclose(run.events.accelerated_time, 1 / C, rtol=1e-5)
    np.testing.assert_allclose([one.state.beta[0] for one in run.events], [0.5, 1.0], rtol=1e-6)
    ended = fs.gradient_flow(
        fs.DiagonalNetwork(depth=3),
        ONE,
        2,
        alpha="1e-40",
        clock="accelerated",
        events=crosses("beta", 0, 0.5, terminal=True),
    )
    assert ended.beta[-1, 0] == pytest.approx(0.5, rel=1e-6)


def test_coordinates_that_are_not_loaded_are_seen() -> None:
    problem = fs.datasets.sparse_regression(30, 1500, 4, seed=1)
    run = fs.gradient_flow(UV, problem, 4, alpha="1e-100", clock="accelerated", events=crosses("|beta|", None, 0.05))
    assert len(run.events) >= 4
    for one in run.events:
        assert abs(run.at(one.t).beta[one.component]) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("method", ["native", "DOP853"])
def test_linear_networks_have_events(method: str) -> None:
    # One balanced unit, u = v: beta = u^2 and beta' = 2 beta (C - beta), a logistic curve.
    start = {"U": [[1.0]], "V": [[1.0]]}
    alpha = 1e-2
    exact = (math.log(1.0 / (C - 1.0)) - math.log(alpha**2 / (C - alpha**2))) / (2 * C)
    net, options = fs.LinearNetwork(1), {"alpha": alpha, "start": start, "method": method, "rtol": 1e-9, "atol": 1e-13}
    for clock, end in (("time", 20.0), ("accelerated", 4.0), ("arclength", 4.0)):
        for terminal in (False, True):
            events = [crosses("beta", (0, 0), 1.0, terminal=terminal), crosses("|U|", None, 1.2), plateau_ends(0.5)]
            run = fs.gradient_flow(net, ONE, end, clock=clock, events=events, **options)
            assert run.events["beta[0, 0] = 1"].t == pytest.approx([exact], abs=1e-7)
            assert len(run.events) == (2 if terminal else 3)
            state = run.events["beta[0, 0] = 1"].states
            assert state.accelerated_time == pytest.approx([exact / -math.log(alpha)], abs=1e-7)
            assert state.arclength == pytest.approx(state.accelerated_time + 1.0 - alpha**2, abs=1e-5)
            if terminal:
                assert run.t[-1] == run.events[-1].t and run.success
    some = fs.gradient_flow(net, ONE, 20.0, events=events, t_eval=[0.0, 1.0, 9.0], **options)
    np.testing.assert_array_equal(some.t, [0.0, 1.0, some.events[-1].t])
    assert some.beta[-1, 0, 0] == pytest.approx(1.0, abs=1e-9)


def test_events_survive_files(tmp_path: Path, diabetes: fs.Regression) -> None:
    events = [crosses("|beta|", None, 1.0), loss_reaches(2000.0)]
    for net, alpha in ((UV, "1e-100"), (fs.LinearNetwork(40), 1e-3)):
        run = fs.gradient_flow(net, diabetes, 3, alpha=alpha, clock="accelerated", events=events)
        loaded = fs.load(run.save(tmp_path / "run.nc")).events
        assert len(run.events) > 3 and loaded.name == run.events.name and repr(loaded) == repr(run.events)
        for name in ("component", "rising", "t", "accelerated_time", "arclength"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(run.events, name))
        for name in ("beta", "loss", "imbalance", "log_imbalance", "speed"):
            np.testing.assert_array_equal(getattr(loaded.states, name), getattr(run.events.states, name))
        assert set(loaded[0].state.weights) == set(net.weights)
        data = run.to_xarray()
        assert data.sizes["event"] == len(run.events) and data["event_beta"].dims[:2] == ("event", "feature")
    plain = fs.gradient_flow(UV, diabetes, 1, alpha=0.1)
    assert len(fs.load(plain.save(tmp_path / "plain.nc")).events) == 0


def test_occurrences_are_a_sequence_and_can_be_chosen_by_name_or_mask() -> None:
    events = [crosses("beta", None, 0.1), loss_reaches(1e-2)]
    found = fs.gradient_flow(UV, SMALL, 6, alpha="1e-20", clock="accelerated", events=events).events
    assert [one.t for one in found] == list(found.t) and (np.diff(found.t) >= 0).all()
    assert found[-1].t == found.t[-1] and len(found[1:]) == len(found) - 1
    assert set(found["beta = 0.1"].name) == {"beta = 0.1"} and len(found["no such event"]) == 0
    assert len(found[found.rising]) == found.rising.sum()
    with pytest.raises(IndexError):
        found[len(found)]


def test_a_terminal_event_that_remembers_is_no_success() -> None:
    seen: list[bool] = []

    def once(t: np.ndarray, state: fs.Trajectory) -> np.ndarray:
        if seen:
            return np.full(len(t), -1.0)
        if (t > 5).any():
            seen.append(True)
        return t - 5

    with pytest.raises(fs.IntegrationError, match="seen once and not again"):
        fs.gradient_flow(UV, SMALL, 40, alpha=1e-6, method="LSODA", events=fs.events.Event(once, terminal=True))


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (3, "`events` must hold events such as fs.events.crosses.*received int"),
        (["loss"], "`events` must hold events such as .*received str"),
        (lambda t, state: 1.0, r"`events`: '<lambda>' must return shape \(\d+,\) or \(\d+, C\).*received \(\)"),
        (lambda t, state: np.where(t > 1, np.nan, -1.0), "`events`: '<lambda>' must not be NaN; it is at t = "),
        (crosses("w", 0, 0.1), r"`quantity` must be one of beta, u, v, or \|...\| or ln\|...\|; received 'w\[0\] = "),
        (crosses("ln|beta|", 0, 0.1), "`quantity` must be one of beta, u, v"),
        (crosses("beta", 5, 0.1), r"`index` must lie in an array of shape \(5,\); received 5 for beta"),
        (crosses("u", (0, 0), 0.1), r"`index` must lie in an array of shape \(5,\); received \(0, 0\) for u"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_for_is_refused(events: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.gradient_flow(UV, SMALL, 5.0, alpha=1e-3, events=events)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: crosses("beta", 0, math.nan), "`level` must be finite; received nan"),
        (lambda: crosses("beta", 0, "x"), "`level` must be a number; received 'x'"),
        (lambda: crosses(0, 0, 1.0), "`quantity` must be text such as 'beta'"),
        (lambda: crosses("beta", 0.5, 1.0), "`index` must be an integer, a tuple of them or None; received 0.5"),
        (lambda: crosses("beta", 0, 1.0, direction=2), "`direction` must be -1, 0 or 1; received 2"),
        (lambda: crosses("beta", 0, 1.0, terminal=2), "`terminal` must be True or False, not a count; received 2"),
        (lambda: loss_reaches(0.0), "`value` must be > 0: .*received 0"),
        (lambda: plateau_ends(-1.0), "`speed` must be > 0; received -1"),
        (lambda: fs.events.Event(1.0), "`function` must be callable; received float"),
    ],
)  # fmt: skip
def test_makers_check_what_they_are_given(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("alpha", ["1e-2", "1e-50", "1e-1000"])
@pytest.mark.parametrize("clock", ["accelerated", "arclength"])
def test_as_many_events_are_found_as_signs_change_along_the_run(alpha: str, clock: Any) -> None:
    rng = np.random.default_rng(7)
    counted = 0
    for _ in range(5):
        n, d = rng.integers(2, 15, 2)
        problem = fs.Regression(rng.standard_normal((n, d)), rng.standard_normal(n))
        end = 1.2 * float(fs.saddle_to_saddle(UV, problem).jump_times[-1])
        events = [crosses("beta", None, 0.1), plateau_ends(1.0), plateau_begins(1.0)]
        run = fs.gradient_flow(UV, problem, end, alpha=alpha, clock=clock, events=events)
        # Many points of every step, all inside the run.
        ends = run.arclength
        places = (ends[:-1, None] + np.diff(ends)[:, None] * np.linspace(0, 1, 25)).ravel()
        states = run.at(np.clip(places, 0, ends[-1]), "arclength")
        assert states.speed is not None
        for values, names in (
            (states.beta - 0.1, {"beta = 0.1"}),
            (states.speed[:, None] - 1, {"plateau ends", "plateau begins"}),
        ):
            above = values >= 0
            changes = int((above[1:] != above[:-1]).sum())
            assert changes == sum(name in names for name in run.events.name)
            counted += changes
        for one in run.events["beta = 0.1"]:
            assert one.state.beta[one.component] == pytest.approx(0.1, abs=1e-12)
    assert counted >= 15
