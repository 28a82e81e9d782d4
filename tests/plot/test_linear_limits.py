"""Figures of the limit of linear networks show what the path holds."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import flowsim as fs

rng = np.random.default_rng(0)
X = rng.standard_normal((20, 3))
PROBLEM = fs.Regression(X, X @ rng.standard_normal((3, 2)))
NET = fs.LinearNetwork(6)
PATH = fs.saddle_to_saddle(NET, PROBLEM)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_singular_values_step_at_the_jumps() -> None:
    ax = plt.subplots()[1]
    assert fs.plot.linear_limit(PATH, ax=ax) is ax
    steps = [line for line in ax.lines if str(line.get_label()).startswith("$s_")]
    assert len(steps) == 2
    np.testing.assert_allclose(np.unique(steps[0].get_xdata())[1:3], PATH.jump_times)
    assert steps[0].get_ydata()[-1] == pytest.approx(np.linalg.norm(PATH.end, 2))
    assert fs.plot.saddle_to_saddle(PATH, clock="arclength").get_xlabel().startswith("arc length")
    assert PATH.plot().get_ylabel().startswith("singular values")
    with pytest.raises(ValueError, match="`clock` must be"):
        fs.plot.linear_limit(PATH, clock="time")


def test_levels_rise_from_0_to_1() -> None:
    ax = fs.plot.levels(PATH)
    first = next(line for line in ax.lines if line.get_label() == "direction 1")
    assert first.get_ydata()[0] == 0.0
    assert first.get_ydata()[-1] == 1.0


def test_the_overview_holds_a_flow_against_its_limit() -> None:
    flow = fs.gradient_flow(NET, PROBLEM, 1.25 * PATH.jump_times[-1], alpha=1e-3, clock="accelerated")
    figure = fs.plot.linear_overview(PATH, flow)
    assert [ax.get_title() for ax in figure.axes] == [
        "Rank by rank", "Directions that wait", "Saddles joined by orbits", "Loss",
    ]  # fmt: skip
    assert any("flow" in str(line.get_label()) for line in figure.axes[3].lines)


def test_orbits_that_depend_on_the_start_leave_their_panel_empty() -> None:
    tied = fs.saddle_to_saddle(NET, fs.Regression(np.eye(3), np.diag([2.0, 1.0, 1.0])))
    figure = fs.plot.linear_overview(tied)
    assert "depend on the start" in figure.axes[2].texts[0].get_text()
