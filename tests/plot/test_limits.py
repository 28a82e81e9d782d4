"""Figures of limits show what they are given."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
import pytest

import flowsim as fs

matplotlib.use("Agg")

NET = fs.DiagonalNetwork("u*v")
FOUR = fs.Regression([[1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7]], [1.0, 0.0], ["a", "b", "c", "d"])


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_the_limit_path_is_drawn_as_steps_or_as_a_curve() -> None:
    path = fs.saddle_to_saddle(NET, FOUR)
    axes = fs.plot.saddle_to_saddle(path)
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    assert [line.get_label() for line in lines] == ["a", "c", "d"]
    steps = np.array(lines[1].get_ydata())
    np.testing.assert_allclose(np.unique(steps), [0, 1.4, 10 / 7])
    assert axes.get_xlabel().startswith("accelerated time")
    curve = np.array(fs.plot.saddle_to_saddle(path, clock="arclength").get_lines()[0].get_ydata())
    assert np.abs(np.diff(curve)).max() < 0.01
    axes = fs.plot.saddle_to_saddle(path, clock="distance")
    x, curve = (np.array(values) for values in axes.get_lines()[0].get_data())
    assert axes.get_xlabel().startswith("distance") and (x[0], x[-1]) == (0.0, path.length)
    assert np.abs(np.diff(curve)).max() < 0.01 and curve[-1] == pytest.approx(path.end[0])
    with pytest.raises(ValueError, match="`clock` must be"):
        fs.plot.saddle_to_saddle(path, clock="time")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("net", "alphas"),
    [(NET, ["1e-30", "1e-100", "1e-300"]), (fs.DiagonalNetwork(depth=3), [0.1, 0.03, 0.01])],
)
def test_a_study_is_drawn_with_its_fit_and_labelled_axes(net: fs.DiagonalNetwork, alphas: list[str]) -> None:
    study = fs.limit_study(net, FOUR, alphas, rtol=1e-7)
    axes = fs.plot.limit_study(study)
    lines = axes.get_lines()
    assert len(lines) == 5
    np.testing.assert_allclose(lines[0].get_ydata(), study.median_time_error)
    assert axes.get_xlabel()
    assert axes.get_ylabel() == "error relative to the limit"
    figure = fs.plot.limit_overview(study, fs.lasso_link(study.path))
    assert len(figure.axes) == 4
    figure.canvas.draw()


def test_the_lasso_link_marks_where_the_two_part() -> None:
    link = fs.lasso_link(fs.saddle_to_saddle(NET, FOUR))
    texts = [text.get_text() for text in fs.plot.lasso_link(link).texts]
    assert texts[-1] == "a deactivated:\npaths separate" and set(texts[:-1]) == {"a", "c", "d"}
