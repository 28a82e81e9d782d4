"""Figures as a paper takes them: on the axes given, inside them, in one palette, of few coordinates or of many."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

import flowsim as fs
from flowsim.plot import panels
from flowsim.plot.curves import drawn
from flowsim.plot.labels import spread

NET = fs.DiagonalNetwork("u*v")
PROBLEM = fs.datasets.diabetes()
LINEAR = fs.LinearNetwork(4)
TWO_TARGETS = fs.Regression(PROBLEM.X[:, :4], np.column_stack([PROBLEM.y, PROBLEM.y[::-1]]) / 50.0)


# Runs are made by the first test that needs one: made on import, every worker would compile all of it to collect.
@cache
def limit_path() -> Any:
    return fs.saddle_to_saddle(NET, PROBLEM)


@cache
def shown_flow() -> Any:
    return fs.gradient_flow(NET, PROBLEM, 12.0, alpha="1e-100", clock="accelerated")


@cache
def linear_path() -> Any:
    return fs.saddle_to_saddle(LINEAR, TWO_TARGETS)


@cache
def linear_flow() -> Any:
    t_end = 1.5 * linear_path().jump_times[-1]
    return fs.gradient_flow(LINEAR, TWO_TARGETS, t_end, alpha="1e-50", clock="accelerated")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def comparisons() -> Any:
    small = fs.datasets.sparse_regression(20, 12, 3, seed=0)
    descents = [fs.gradient_descent(NET, small, 0.02 / 2**k, 100 * 2**k, alpha=0.1) for k in range(2)]
    return fs.compare(fs.gradient_flow(NET, small, 4.0, alpha=0.1), descents)


DRAWERS: dict[str, Callable[[Axes], Axes]] = {
    "loss": lambda ax: fs.plot.loss(shown_flow(), path=limit_path(), ax=ax),
    "excess": lambda ax: fs.plot.loss(shown_flow(), path=limit_path(), least=PROBLEM.least_squares_loss, ax=ax),
    "trajectory": lambda ax: fs.plot.trajectory(shown_flow(), path=limit_path(), ax=ax),
    "distance": lambda ax: fs.plot.trajectory(shown_flow(), clock="distance", ax=ax),
    "sparsity": lambda ax: fs.plot.sparsity(shown_flow(), path=limit_path(), ax=ax),
    "imbalance": lambda ax: fs.plot.imbalance(shown_flow(), ax=ax),
    "path": lambda ax: fs.plot.saddle_to_saddle(limit_path(), ax=ax),
    "curve": lambda ax: fs.plot.saddle_to_saddle(limit_path(), clock="arclength", ax=ax),
    "lasso": lambda ax: fs.plot.lasso_link(fs.lasso_link(limit_path()), ax=ax),
    "study": lambda ax: fs.plot.limit_study(fs.limit_study(NET, PROBLEM, ["1e-30", "1e-100"]), ax=ax),
    "phase": lambda ax: fs.plot.phase(shown_flow(), path=limit_path(), ax=ax),
    "compare": lambda ax: fs.plot.compare(comparisons()[0], ax=ax),
    "orders": lambda ax: fs.plot.orders(comparisons(), ax=ax),
    "linear limit": lambda ax: fs.plot.linear_limit(linear_path(), linear_flow(), ax=ax),
    "levels": lambda ax: fs.plot.levels(linear_path(), linear_flow(), ax=ax),
    "stairs": lambda ax: fs.plot.loss_staircase(linear_path(), linear_flow(), ax=ax),
    "singular values": lambda ax: fs.plot.singular_values(linear_flow(), ax=ax),
    "edge": lambda ax: fs.plot.edge_of_stability(
        fs.studies.edge_of_stability(NET, PROBLEM, [1e-3], 60, n_sharpness=3), ax=ax
    ),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", DRAWERS)
def test_a_figure_stays_inside_its_axes_in_a_grid(name: str) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(9, 6))
    assert DRAWERS[name](axes[0, 0]) is axes[0, 0]
    figure.draw_without_rendering()
    own = axes[0, 0].get_window_extent()
    for text in [*axes[0, 0].texts, *(axes[0, 0].get_legend().get_texts() if axes[0, 0].get_legend() else ())]:
        box = text.get_window_extent()
        assert own.x0 - 1 <= box.x0 and box.x1 <= own.x1 + 6 and own.y0 - 6 <= box.y0 and box.y1 <= own.y1 + 8
    assert all(not ax.lines and not ax.texts for ax in axes.ravel()[1:])
    assert plt.gcf() is figure


def long_run() -> Any:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 100))
    wide = fs.Regression(X, X[:, :20] @ np.linspace(3.0, 0.1, 20) + 0.05 * rng.standard_normal(60))
    path = fs.saddle_to_saddle(NET, wide)
    return path, fs.gradient_flow(NET, wide, 1.5 * path.jump_times[-1], alpha="1e-100", clock="accelerated")


@pytest.mark.slow
def test_a_run_that_waits_at_its_end_is_drawn_on_a_logarithmic_axis_with_or_without_its_limit() -> None:
    path, flow = long_run()
    for draw in (fs.plot.trajectory, fs.plot.loss, fs.plot.sparsity):
        plt.close("all")
        ax = draw(flow)
        assert ax.get_xscale() == "log" and ax.get_xlim()[0] < path.jump_times[0] < 10 * ax.get_xlim()[0]
    assert fs.plot.loss(fs.gradient_flow(NET, PROBLEM, 0.2, alpha=0.1)).get_xscale() == "linear"
    # A remark at the left edge stands to the right of its line.
    ax = fs.plot.lasso_link(fs.lasso_link(path))
    ax.figure.canvas.draw()
    own = ax.get_window_extent()
    (remark,) = [text.get_window_extent() for text in ax.texts if "deactivated" in text.get_text()]
    assert own.x0 <= remark.x0 and remark.x1 <= own.x1


def test_without_axes_a_figure_of_its_own_is_made() -> None:
    before = plt.rcParams.copy()
    ax = fs.plot.trajectory(shown_flow())
    assert isinstance(ax, Axes) and plt.rcParams == before


def test_the_excess_loss_is_drawn_down_to_that_of_the_flow_not_of_the_limit() -> None:
    flow = fs.gradient_flow(NET, PROBLEM, 50.0, alpha="1e-2")  # the last jump of the limit, to 0, is still to come
    least = float(PROBLEM.loss(limit_path().end))
    bottom, top = fs.plot.loss(flow, path=limit_path(), least=least).get_ylim()
    assert (flow.loss[-1] - least) / 20 < bottom < flow.loss[-1] - least < flow.loss[0] - least < top


@pytest.mark.slow
def test_overviews_of_ten_and_of_two_hundred_columns_have_four_full_panels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 200))
    wide = fs.Regression(X, 5 * X[:, 3] - 3 * X[:, 20] + rng.standard_normal(150))
    path = fs.saddle_to_saddle(NET, wide, max_jumps=30)
    flow = fs.gradient_flow(NET, wide, 20.0, alpha="1e-1000", clock="accelerated")
    for run, limit in ((shown_flow(), limit_path()), (flow, path)):
        figure = fs.plot.overview(run, limit)
        assert len(figure.axes) == 4 and all(ax.lines for ax in figure.axes)
        names = [text.get_text() for text in figure.axes[1].texts]
        assert 2 <= len(names) <= 10
        heights = sorted(text.get_position()[1] for text in figure.axes[1].texts)
        assert (np.diff(heights) > 0.02).all()  # none over another
    for ending in ("png", "pdf", "svg"):
        figure.savefig(tmp_path / f"figure.{ending}")
    assert figure._supxlabel.get_text().startswith("$u^2 - v^2$ conserved to")


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e5])
def test_no_text_of_an_overview_is_cut_off_or_touches_another(scale: float) -> None:
    problem = fs.Regression(PROBLEM.X, scale * PROBLEM.y)
    flow = fs.gradient_flow(NET, problem, 3.0 / scale, alpha=0.01 * scale, clock="time")
    figure = fs.plot.overview(flow)
    figure.canvas.draw()
    texts = [figure._supxlabel]
    for ax in figure.axes:
        numbers = [tick.label1 for axis in (ax.xaxis, ax.yaxis) for tick in axis._update_ticks()]  # those drawn
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label, ax.yaxis.get_offset_text(), *numbers]
    boxes = [text.get_window_extent() for text in texts if text.get_visible() and text.get_text()]
    boxes = [box for box in boxes if box.width and all(np.isfinite(box.extents))]
    width, height = figure.bbox.size
    assert len(boxes) > 30
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_labels_leave_room_for_numbers_between_powers_of_ten() -> None:
    figure, axes = panels.four_panels(8.0, 6.0)
    ax = axes[1, 1]
    ax.plot([0.0, 1.0], [1.5, 8.0])
    ax.set_yscale("log")
    ax.set_ylabel("loss")
    panels.fit(figure, axes)
    figure.canvas.draw()
    numbers = [tick.label1 for tick in ax.yaxis._update_ticks() if tick.label1.get_text()]
    assert any("times" in number.get_text() for number in numbers)
    label = ax.yaxis.label.get_window_extent()
    assert not any(label.overlaps(number.get_window_extent()) for number in numbers)


def test_a_limit_that_escapes_is_drawn_until_it_does_and_the_loss_over_its_infimum() -> None:
    problem = fs.Problem([[1.0, 0.2], [-2.0, 0.1]], [1.0, -1.0], loss="logistic")
    path = fs.saddle_to_saddle(NET, problem)
    assert path.escape is not None
    flow = fs.gradient_flow(NET, problem, 2 * path.escape.time, alpha="1e-100", clock="accelerated")
    loss, _, used, _ = fs.plot.overview(flow, path).axes
    assert loss.get_yscale() == "log"
    for ax in (loss, used):
        limit = next(line for line in ax.lines if line.get_label() == "limit")
        assert limit.get_xdata()[-1] == path.escape.time
    assert any(np.allclose(line.get_xdata(), path.escape.time) for line in loss.lines if line.get_label() == "_jump")


def test_a_short_logarithmic_axis_has_numbers_that_do_not_touch() -> None:
    deep = fs.DiagonalNetwork(depth=3)
    path = fs.saddle_to_saddle(deep, PROBLEM)
    flow = fs.gradient_flow(deep, PROBLEM, 1.5 * path.jump_times[-1], alpha=0.01, clock="accelerated")
    figure = fs.plot.overview(flow, path)
    figure.canvas.draw()
    for ax in figure.axes:
        ticks = [text.get_window_extent() for text in ax.get_xticklabels(which="both") if text.get_text()]
        ticks = sorted((box for box in ticks if box.width), key=lambda box: box.x0)
        assert len(ticks) >= 3 and all(a.x1 < b.x0 for a, b in itertools.pairwise(ticks))


def test_clocks_are_those_of_the_run_and_others_are_refused() -> None:
    problem = fs.Problem([[1.0, 0.9]], [1.0], loss="exponential")
    run = fs.gradient_flow(NET, problem, 1000.0, alpha=1.0, clock="log_loss")
    ax = run.plot(clock="log_loss")
    assert ax.get_xlabel() == r"$\ln(1/L)$" and ax.lines[0].get_xdata()[-1] == pytest.approx(1000.0)
    for draw in (fs.plot.trajectory, fs.plot.loss, fs.plot.sparsity, fs.plot.imbalance):
        with pytest.raises(ValueError, match="`clock` must be one of time, accelerated, arclength, log_loss, distance"):
            draw(shown_flow(), clock="seconds")  # type: ignore[operator]
    with pytest.raises(ValueError, match="`clock` must be one of time"):
        shown_flow().clock_values("seconds")  # type: ignore[arg-type]


def test_names_are_moved_apart_and_keep_their_order() -> None:
    wanted = np.array([0.5, 0.51, 0.1, 0.505, 0.99, 1.0])
    places = spread(wanted, 0.05)
    assert (np.diff(np.sort(places)) >= 0.05 - 1e-12).all() and places.min() >= 0 and places.max() <= 1
    assert (np.argsort(places) == np.argsort(wanted)).all()
    np.testing.assert_allclose(spread(np.array([0.2, 0.8]), 0.1), [0.2, 0.8])


def test_a_plateau_is_drawn_flat_and_a_jump_upright() -> None:
    shown = drawn(shown_flow(), "accelerated")
    bmi = shown.beta[:, shown.index == 2][:, 0]
    inside = (shown.x > 0.17) & (shown.x < 0.23)
    assert inside.sum() >= 2 and np.ptp(bmi[inside]) < 1e-3 * np.abs(bmi).max()
    lengths = drawn(shown_flow(), "distance")
    assert np.abs(np.diff(lengths.beta, axis=0)).max() < 0.05 * np.abs(lengths.beta).max()


def test_the_palette_is_told_apart_by_every_kind_of_vision() -> None:
    """Distances in CIE Lab after the simulation of missing cones (Vienot, Brettel & Mollon 1999)."""
    from matplotlib import style
    from matplotlib.colors import to_rgb

    with style.context(fs.plot.STYLE):
        colours = [to_rgb(colour) for colour in plt.rcParams["axes.prop_cycle"].by_key()["color"]]
    coded = np.array(colours)
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    without_long = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
    without_middle = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    for matrix in (np.eye(3), without_long, without_middle):
        lab = _lab(np.clip(linear @ matrix.T, 0, 1))
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)[np.triu_indices(len(lab), 1)]
        assert apart.min() > 15.0


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def test_what_a_figure_does_not_show_is_refused_by_name() -> None:
    problem = fs.Regression([[1.0]], [1.0])
    traj = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 1.0, alpha=0.1)
    with pytest.raises(ValueError, match="`traj` must be a run of a LinearNetwork"):
        fs.plot.singular_values(traj)
    with pytest.raises(ValueError, match="`path` must be what flowsim.saddle_to_saddle returns; received Trajectory"):
        fs.plot.saddle_to_saddle(traj)
    with pytest.raises(ValueError, match="`clock` can be 'log_loss' for runs on that clock only"):
        fs.plot.imbalance(traj, clock="log_loss")
