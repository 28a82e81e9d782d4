"""Commands with --width, on tables with several targets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest

import flowsim as fs
from flowsim.cli import main


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 3)) * [1.0, 0.8, 1.3]
    Y = X @ rng.standard_normal((3, 2)) + 0.2 * rng.standard_normal((20, 2))
    frame = pandas.DataFrame(np.column_stack([X, Y]), columns=["a", "b", "c", "first", "second"])
    file = tmp_path / "table.csv"
    frame.to_csv(file, index=False)
    return file


@pytest.mark.usefixtures("drawn")
def test_run_shows_the_rank_of_every_jump(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["run", str(table), "--target", "first,second", "--width", "6", "--alpha", "1e-4", "--no-progress",
                  "--out", str(out)])  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert [jump["rank"] for jump in summary["jumps"]] == [1, 2]
    problem = fs.datasets.read_table(table, ["first", "second"])
    assert summary["jumps"][0]["predicted"] == pytest.approx(1 / np.linalg.norm(problem.X.T @ problem.y / 20, 2))
    assert summary["jumps"][0]["measured"] == pytest.approx(summary["jumps"][0]["predicted"], rel=0.3)
    assert (out / "figure.png").stat().st_size > 10_000


def test_limit_writes_its_table_and_figure(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["limit", str(table), "--target", "first", "--target", "second", "--width", "6", "--alphas",
                  "1e-3,1e-4", "--rtol", "1e-7", "--no-progress", "--out", str(out)])  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["jump_times"]) == 2
    assert "lasso" not in summary
    assert (out / "figure.png").exists()


def test_compare_descends_on_a_linear_network(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["compare", str(table), "--target", "first,second", "--width", "6", "--t-end", "5", "--out", str(out)])
    assert json.loads((out / "summary.json").read_text())["order"] == pytest.approx(1.0, abs=0.1)


def test_derive_shows_the_generator(capsys: pytest.CaptureFixture[str]) -> None:
    main(["derive", "--width", "50", "--eta", "0.1"])
    assert "[[-a, G], [G^T, -b]]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["derive", "u*v", "--width", "5"], "`--width` excludes FORMULA and --depth"),
        (["run", "TABLE", "--target", "first", "--width", "5", "--depth", "3"], "`--width` excludes --formula"),
        (["run", "TABLE", "--target", "first", "--width", "0"], "must be an integer >= 1"),
    ],
)
def test_what_does_not_fit_is_one_line(
    table: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        main([str(table) if word == "TABLE" else word for word in arguments])
    assert message in capsys.readouterr().err


def test_targets_are_named_once_and_must_exist(table: Path) -> None:
    with pytest.raises(ValueError, match="received 'third'"):
        fs.datasets.read_table(table, ["first", "third"])
    with pytest.raises(ValueError, match="'first' twice"):
        fs.datasets.read_table(table, "first,first")
    problem = fs.datasets.read_table(table, "first, second")
    assert problem.y.shape == (20, 2)
    assert problem.feature_names == ("a", "b", "c")
    np.testing.assert_allclose(problem.y.mean(axis=0), 0.0, atol=1e-14)
