"""Every experiment writes figure, data and parameters, and its checks hold."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from flowsim import papers
from flowsim.cli import main
from flowsim.papers import Check

QUICK = ["four-features", "lasso-link", "noise-is-lasso"]


def assert_complete(report: papers.Report, folder: Path) -> None:
    name = report.experiment.name
    written = json.loads((folder / f"{name}.json").read_text())
    assert (folder / f"{name}.png").stat().st_size > 10_000
    assert (folder / f"{name}.nc").stat().st_size > 0
    assert written["parameters"] and written["checks"]
    assert [(check.statement, check.measured) for check in report.checks if not check.holds] == []
    assert written["holds"] is True and report.holds


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", QUICK)
def test_a_quick_experiment_holds_and_is_written(name: str, tmp_path: Path) -> None:
    assert_complete(papers.reproduce(name, tmp_path), tmp_path)
    assert not list(tmp_path.glob(".unfinished-*"))


@pytest.mark.slow
def test_all_experiments_hold_in_under_ten_minutes(tmp_path: Path) -> None:
    began = time.monotonic()
    for name in papers.EXPERIMENTS:
        assert_complete(papers.reproduce(name, tmp_path), tmp_path)
    assert (tmp_path / "path-3d-movie.gif").stat().st_size > 10_000
    assert time.monotonic() - began < 600


def test_the_three_papers_and_what_followed_are_there() -> None:
    text = " ".join(entry.paper for entry in papers.EXPERIMENTS.values())
    assert all(number in text for number in ("2503.11891", "2105.06351", "2304.00488", "2302.08982", "2607.12332"))
    assert len(papers.EXPERIMENTS) >= 15


@pytest.mark.parametrize(
    ("check", "holds"),
    [
        (Check("", 2.0, 2.1, 0.1), True),
        (Check("", 2.0, 2.3, 0.1), False),
        (Check("", 0.0, 0.05, 0.1), True),
        (Check("", 1.0, 1.1, kind="at most"), False),
        (Check("", 1.0, 1.1, kind="at least"), True),
        (Check("", 1.0, float("nan"), 10.0), False),
        (Check("", float("nan"), 1.0, kind="at least"), False),
    ],
)
def test_a_check_holds_within_its_tolerance_and_never_on_nan(check: Check, holds: bool) -> None:
    assert check.holds is holds


def test_an_experiment_without_checks_does_not_hold() -> None:
    entry = papers.Experiment("x", "p", "t", lambda: None)  # type: ignore[arg-type, return-value]
    assert not papers.Report(entry, (), (), 0.0).holds


def test_the_command_lists_runs_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["reproduce", "--list"])
    assert "loss-staircase" in capsys.readouterr().out
    main(["reproduce", "four-features", "--out", str(tmp_path / "made")])
    assert "1 of 1 experiments hold" in capsys.readouterr().out
    assert (tmp_path / "made" / "four-features.png").is_file()
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", "nonsense"])
    assert stopped.value.code == 2
    assert "`NAME` must be one of" in capsys.readouterr().err
    with pytest.raises(ValueError, match="`name` must be one of"):
        papers.reproduce("nonsense", tmp_path)
