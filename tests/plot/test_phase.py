"""Phase plots and animations."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import flowsim as fs

UV = fs.DiagonalNetwork("u*v")


@pytest.fixture(scope="module")
def problem() -> fs.Regression:
    return fs.Regression(np.diag([1.0, 1.5, 2.0]), [1.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def path(problem: fs.Regression) -> fs.SaddlePath:
    return fs.saddle_to_saddle(UV, problem)


@pytest.fixture(scope="module")
def traj(problem: fs.Regression, path: fs.SaddlePath) -> fs.Trajectory:
    return fs.gradient_flow(UV, problem, 1.5 * path.jump_times[-1], alpha="1e-30", clock="accelerated")


@pytest.fixture(autouse=True)
def close() -> object:
    yield
    plt.close("all")


def test_phase_draws_on_the_axes_given_and_returns_them(traj: fs.Trajectory, path: fs.SaddlePath) -> None:
    _, ax = plt.subplots()
    assert fs.plot.phase(traj, [0, 1], path=path, ax=ax) is ax
    line = ax.get_lines()[-1]
    np.testing.assert_allclose(line.get_xydata()[-1], traj.beta[-1, :2], rtol=1e-6)
    assert "x0" in ax.get_xlabel()
    named = fs.plot.phase(traj, ["x0", "x1"], path=path)
    np.testing.assert_array_equal(named.get_lines()[-1].get_xydata(), line.get_xydata())
    with pytest.raises(ValueError, match="below d=3 or names; received"):
        fs.plot.phase(traj, ["x0", "none"])


def test_three_features_are_drawn_in_space_by_default(traj: fs.Trajectory, path: fs.SaddlePath) -> None:
    assert fs.plot.phase(traj, path=path).name == "3d"
    assert fs.plot.phase(path=path, coordinates=[0, 2]).name != "3d"


def test_the_saddles_are_marked_where_the_limit_has_them(path: fs.SaddlePath) -> None:
    ax = fs.plot.phase(path=path, coordinates=[0, 1])
    np.testing.assert_allclose(ax.get_lines()[1].get_xydata(), path.saddles[:, :2])


def test_long_plateaus_leave_the_jumps_their_points() -> None:
    # The last jump comes at 5,000 times the first: points even in arc length would step over all the others.
    problem = fs.Regression(np.diag([1.0, 0.9, 0.8, 0.03]), [3.0, 2.0, 2.0, 0.01])
    path = fs.saddle_to_saddle(UV, problem)
    flow = fs.gradient_flow(UV, problem, 1.1 * path.jump_times[-1], alpha="1e-100", clock="accelerated")
    orbits, dots, drawn = (line.get_xydata() for line in fs.plot.phase(flow, [0, 1], path=path).get_lines())
    for curve in (orbits, drawn):
        for saddle in dots:
            assert np.linalg.norm(curve - saddle, axis=1).min() < 0.02
        assert np.linalg.norm(np.diff(curve, axis=0), axis=1).max() < 0.05


def test_numbers_of_close_saddles_do_not_overlap() -> None:
    path = fs.saddle_to_saddle(UV, fs.Regression(np.diag([1.0, 0.8, 0.6]), [3.0, 3.0, 0.05]))
    ax = fs.plot.phase(path=path, coordinates=[0, 2])
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) >= 2
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])


def test_what_cannot_be_drawn_is_said(traj: fs.Trajectory) -> None:
    with pytest.raises(ValueError, match="`coordinates` must be 2 or 3 different indices below d=3"):
        fs.plot.phase(traj, [0, 3])
    with pytest.raises(ValueError, match="received neither"):
        fs.plot.phase()
    with pytest.raises(ValueError, match="`ax` must be 3-d"):
        fs.plot.phase(traj, [0, 1, 2], ax=plt.subplots()[1])
    with pytest.raises(ValueError, match="`frames`"):
        fs.plot.animate(traj, frames=1)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("coordinates", [[0, 1], [0, 1, 2]])
def test_an_animation_is_a_gif_with_all_its_frames(
    traj: fs.Trajectory, path: fs.SaddlePath, tmp_path: Path, coordinates: list[int]
) -> None:
    from PIL import Image

    animation = fs.plot.animate(traj, coordinates, path=path, frames=5)
    file = fs.plot.save_animation(animation, tmp_path / "flow.gif", dpi=50)
    with Image.open(file) as image:
        assert image.n_frames == 5


def test_mp4_needs_ffmpeg_and_says_so(traj: fs.Trajectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    animation = fs.plot.animate(traj, [0, 1], frames=2)
    if shutil.which("ffmpeg"):
        assert fs.plot.save_animation(animation, tmp_path / "flow.mp4", dpi=50).stat().st_size > 0
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match="ffmpeg"):
        fs.plot.save_animation(animation, tmp_path / "other.mp4")
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        fs.plot.save_animation(animation, tmp_path / "flow.avi")
    fs.plot.save_animation(animation, tmp_path / "flow.gif", dpi=40)
