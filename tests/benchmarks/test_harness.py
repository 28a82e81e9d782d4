"""The harness tells the truth, and the quick benchmarks run."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from benchmarks.__main__ import CASES, main, table
from benchmarks.harness import Point, Report, Series, best, limited, time_at_error, timed
from benchmarks.targets import Target


def series(*pairs: tuple[float | None, float]) -> Series:
    return Series("s", [Point(1e-6, error, [seconds, 2 * seconds]) for error, seconds in pairs])


def test_time_at_equal_error_is_interpolated_on_logarithmic_axes() -> None:
    assert time_at_error(series((1e-4, 1.0), (1e-8, 100.0)), 1e-6) == pytest.approx(10.0)
    assert time_at_error(series((1e-7, 3.0), (1e-9, 9.0)), 1e-6) == 3.0
    assert time_at_error(series((1e-3, 1.0), (1e-5, 2.0)), 1e-6) is None
    assert time_at_error(series((None, 1.0), (math.nan, 1.0)), 1e-6) is None
    assert time_at_error(series((0.0, 5.0)), 1e-6) == 5.0


def test_the_first_call_is_timed_apart() -> None:
    calls = []
    result, first, seconds = timed(lambda: calls.append(1) or len(calls), 3)
    assert (result, len(calls), len(seconds)) == (1, 4, 3)
    assert first >= 0
    assert best(seconds) == min(seconds)


def test_what_runs_longer_than_its_limit_is_stopped() -> None:
    with limited(0.0):
        time.sleep(0.02)
    with pytest.raises(TimeoutError, match="more than 0.01 s"), limited(0.01):
        time.sleep(1.0)


def test_a_report_keeps_its_raw_data(tmp_path: Path) -> None:
    report = Report("name", "Title", ["a"], [["1"]], ["note"], raw={"x": np.arange(2)})
    content = json.loads(report.write(tmp_path).read_text())
    assert content["raw"] == {"x": [0, 1]}
    assert content["environment"]["versions"]["numpy"] == np.__version__
    assert "| a |" in report.markdown() and "- note" in report.markdown()


def test_an_unknown_case_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["weather"])
    assert "unknown case 'weather'" in capsys.readouterr().err


def test_the_stored_page_is_what_the_stored_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Path(benchmarks.__file__).parent / "results"
    monkeypatch.setattr("benchmarks.__main__.draw", lambda folder: sorted(folder.glob("*.png")))
    assert table(stored) == (stored / "README.md").read_text(encoding="utf-8")


def test_a_target_is_met_on_its_side_of_the_bound() -> None:
    assert Target("ratio", 5.0, 5.0, least=True).row() == ["ratio", ">= 5", "5", "met"]
    assert not Target("ratio", 4.9, 5.0, least=True).met
    assert Target("seconds", 3.0, 3.0).met
    assert Target("seconds", 3.1, 3.0).row() == ["seconds", "<= 3", "3.1", "missed"]


@pytest.mark.slow
@pytest.mark.parametrize("case", list(CASES))
def test_every_case_runs_quickly(case: str, tmp_path: Path) -> None:
    assert main([case, "--quick", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / f"{case}.json").read_text())
    assert content["rows"] and content["raw"]
