"""``flowsim limit`` on data of its own and on bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest

from flowsim.cli import main


@pytest.mark.usefixtures("drawn")
def test_it_writes_errors_figure_and_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "table.csv"
    pandas.DataFrame({"a": [1.0, 0.5], "b": [0.5, 1.0], "c": [0.7, 0.1], "d": [0.0, 0.7], "y": [1.0, 0.0]}).to_csv(
        data, index=False
    )
    out = tmp_path / "out"
    options = ["--target", "y", "--raw", "--alphas", "1e-100,1e-300,1e-1000", "--out", str(out), "--no-progress"]
    main(["limit", str(data), *options])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rate"]["order"] == pytest.approx(1.0, abs=0.1)
    assert summary["jump_times"] == pytest.approx([2, 8, 552 / 49])
    assert summary["lasso"]["departs_at"] == pytest.approx(8)
    errors = pandas.read_csv(out / "errors.csv", dtype={"alpha": str})
    assert list(errors["alpha"]) == ["1e-100", "1e-300", "1e-1000"]
    assert (out / "figure.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "order 1.0" in printed
    assert "a: deactivated" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alphas", "2"], "`--alphas` must lie below 1"),
        (["--alphas", ","], "`--alphas` must hold at least one scale"),
    ],
)
def test_bad_input_ends_with_status_2_and_nothing_written(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["limit", "--out", str(tmp_path / "out"), "--no-progress", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--alphas", "1e-30"], "no rate: it takes the same jumps seen at two scales"),
        (["--alphas", "1e-30,1e-60"], "converge at order 1.0"),
        (["--formula", "a*tanh(a) - b**2"], "1e-10"),
    ],
)
def test_few_scales_and_formulas_without_growth_coordinates_are_served(
    options: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "table.csv"
    pandas.DataFrame({"a": [1.0, 0.5, -1.0], "b": [0.5, 1.0, 0.3], "y": [1.0, 0.0, -1.0]}).to_csv(data, index=False)
    main(["limit", str(data), "--target", "y", "--raw", "--out", str(tmp_path / "out"), "--no-progress", *options])
    printed = capsys.readouterr().out
    assert expected in printed
    assert "nan" not in printed
