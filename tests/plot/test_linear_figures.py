"""Figures of two-layer linear networks: labelled, drawn on the given axes, saying what they show."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import flowsim as fs
from flowsim.studies import activation_times, certify_rate, rank_plateaus, width_law


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    figure.canvas.draw()
    plt.close(figure)


@pytest.fixture(scope="module")
def problem() -> fs.Regression:
    rng = np.random.default_rng(0)
    return fs.Regression(rng.standard_normal((4, 6)), rng.standard_normal((4, 2)))


def test_the_loss_lies_below_its_bound(problem, ax) -> None:
    assert fs.plot.loss_bound(certify_rate(fs.LinearNetwork(20), problem), ax=ax) is ax
    flow, bound = ax.get_lines()
    assert (flow.get_ydata() <= np.interp(flow.get_xdata(), bound.get_xdata(), bound.get_ydata()) * 1.01).all()
    assert ax.get_yscale() == "log"
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_the_spectrum_of_the_imbalance_has_a_line_per_eigenvalue(problem, ax) -> None:
    traj = fs.gradient_flow(fs.LinearNetwork(3), problem, 5.0, alpha=1.0)
    lines = fs.plot.imbalance_spectrum(traj, ax=ax).get_lines()[:-1]  # the last is zero
    ax.figure.canvas.draw()
    legend = ax.get_legend().get_window_extent()
    heights = [ax.transData.transform((0.0, line.get_ydata()[0]))[1] for line in lines]
    assert max(heights) < legend.y0
    assert len(lines) == 3
    for line in lines:
        assert np.ptp(line.get_ydata()) < 1e-12


def test_the_width_law_is_drawn_with_its_slope(problem, ax) -> None:
    fs.plot.width_law(width_law(problem, 0.4, widths=[50, 500, 5000], n_seeds=2), ax=ax)
    assert "theory -0.30" in ax.get_legend().get_texts()[0].get_text()


def test_singular_values_are_drawn_over_their_plateaus(ax) -> None:
    rng = np.random.default_rng(1)
    X = np.sqrt(8) * np.linalg.qr(rng.standard_normal((8, 3)))[0]
    Y = X @ np.diag([2.0, 1.0, 0.5])[:, :2]
    whitened = fs.Regression(X, Y)
    traj = fs.gradient_flow(fs.LinearNetwork(4), whitened, 1.5, alpha=1e-6, clock="accelerated")
    found = rank_plateaus(traj)
    fs.plot.rank_by_rank(traj, found, predicted=activation_times(whitened), ax=ax)
    assert len(ax.patches) == len(found.ranks) and len(ax.texts) == len(found.ranks) + 2
    assert sum(not line.get_label().startswith("_") for line in ax.get_lines()) == 2 + 1
    np.testing.assert_array_equal(found.ranks, [0, 1, 2])
