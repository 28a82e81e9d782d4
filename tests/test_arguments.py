"""Arguments that cannot be right are named, with what was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flowsim as fs
from flowsim.cli import main
from flowsim.hints import hinting
from flowsim.limits import SaddlePath
from flowsim.results import Trajectory

X, Y = np.eye(3), np.array([1.0, 2.0, -1.0])
P, N, L = fs.Regression(X, Y), fs.DiagonalNetwork("u*v"), fs.LinearNetwork(width=2)
FRAME = pd.DataFrame({"a": [1.0, 2.0], "y": [0.0, 1.0]})


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any]:
    return fs.gradient_flow(N, P, 1.0, alpha=0.1), fs.saddle_to_saddle(N, P)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t, s: fs.Regression(X, None), "`y` must be an array of real numbers; received None"),
        (lambda t, s: fs.Regression(FRAME, ["y", "y"]), "`y` must name each column once"),
        (lambda t, s: fs.Regression(FRAME, 3), "`y` must be a column of `X`, one of 'a', 'y'; received 3"),
        (lambda t, s: fs.Regression(X, Y, feature_names="abc"), "must be a list of names; received the text 'abc'"),
        (lambda t, s: fs.Regression(X, Y, feature_names=["a", "b", "a"]), "`feature_names` must differ; received 'a'"),
        (lambda t, s: fs.Regression(FRAME.assign(d=pd.Timestamp(0)), "y"), "column 'd' must hold numbers.*: drop it"),
        (lambda t, s: fs.gradient_flow(N, P, 1.0, start={"u": "a", "v": 1}), r"`start\['u'\]` must be an array"),
        (
            lambda t, s: fs.gradient_flow(N, P, 1.0, start={"u": fs.Logs("a", 0), "v": 1}),
            r"`start\['u'\].sign` must be",
        ),
        (lambda t, s: P.predict("a"), "`beta` must be an array of real numbers"),
        (lambda t, s: P.unscale("a"), "`beta` must be an array of real numbers"),
        (lambda t, s: t.risk(3), "`problem` must be of class Problem; received int"),
        (lambda t, s: s.risk(3), "`problem` must be of class Problem; received int"),
        (lambda t, s: s.stop(0.1), "`problem` must be of class Problem; received float"),
        (lambda t, s: s.stop(noise=0.1, seed=-1), "`seed` must be an integer >= 0.*received -1"),
        (lambda t, s: fs.plot.trajectory(s), "`traj` must be of class Trajectory; received SaddlePath"),
        (lambda t, s: fs.plot.trajectory(t, ax=3), "`ax` must be of class Axes or None; received int"),
        (lambda t, s: fs.plot.overview(t, t), "`path` must be of class SaddlePath or LinearSaddlePath or None"),
        (lambda t, s: fs.compare(t, 3), "`descent` must come from gradient_descent; received int"),
        (lambda t, s: fs.sharpness(N, P, X), "`weights` must map u, v to arrays; received ndarray"),
        (lambda t, s: fs.sharpness(N, P, {"u": X}), "`weights` must map u, v to arrays; received u"),
        (lambda t, s: fs.certify(N, P, seed=-1), "`seed` must be an integer >= 0; received -1"),
        (lambda t, s: fs.certify(N, P, theorems=[]), r"`theorems` must name theorems or papers; received \[\]"),
        (lambda t, s: fs.certify(N, P, theorems=3), "`theorems` must name theorems or papers; received 3"),
        (lambda t, s: fs.linear_start(N, P), "`net` must be of class LinearNetwork; received DiagonalNetwork"),
        (lambda t, s: fs.linear_start(L, P, seed="a"), "`seed` must be an integer >= 0.*received 'a'"),
        (lambda t, s: fs.datasets.sparse_regression(3.5, 3, 1), "`n` must be an integer >= 1; received 3.5"),
        (lambda t, s: fs.datasets.sparse_regression(3, 3, 1.5), "`sparsity` must be an integer >= 0; received 1.5"),
        (lambda t, s: fs.datasets.sparse_regression(3, 3, 1, seed=-1), "`seed` must be an integer >= 0.*received -1"),
    ],
)
def test_a_wrong_argument_is_named(call: Callable[[Any, Any], Any], message: str, made: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        call(*made)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--step", "0"], "`--step` must be > 0; received 0.0"),
        (["compare", "--momentum", "-1"], "`--momentum` must lie in [0, 1); received -1.0"),
        (["compare", "--momentum", "1"], "`--momentum` must lie in [0, 1); received 1.0"),
        (["certify", "--seed", "-1"], "`--seed` must be an integer >= 0; received -1"),
    ],
)
def test_a_wrong_option_is_named(
    arguments: list[str], message: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--no-progress"])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_an_error_inside_is_not_blamed_on_an_argument_of_the_right_class(made: tuple[Any, Any]) -> None:
    @hinting
    def broken(traj: Trajectory, path: SaddlePath | None = None) -> Any:
        return traj.no_such_method(path.no_such_method() if path is None else path)  # type: ignore[attr-defined]

    for path in made[1], None:
        with pytest.raises(AttributeError, match="no_such_method"):
            broken(made[0], path)


def test_python_knows_enough_to_suggest_misspelt_attributes(made: tuple[Any, Any]) -> None:
    for owner, name in (made[0], "betta"), (fs, "derrive"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'") as caught:
            getattr(owner, name)
        assert caught.value.obj is owner and caught.value.name == name
