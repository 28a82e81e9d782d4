"""The page as a file: complete, self-contained, and true to the trajectories."""

from __future__ import annotations

import base64
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowsim as fs
from flowsim.cli import main
from flowsim.report import payload as payload_module
from flowsim.report import read_runs, write_report
from flowsim.report.payload import payload, thin
from tests.report.conftest import ALPHAS, CERTIFICATES, HOSTILE


class Page(HTMLParser):
    """Elements with their attributes, and the text of each script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style", "title"):
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data

    def ids(self) -> set[str]:
        return {str(attributes["id"]) for _, attributes in self.elements if "id" in attributes}


def written(folder: Path, out: Path) -> tuple[Page, dict[str, Any]]:
    page = Page(write_report(folder, out).read_text(encoding="utf-8"))
    place = next(i for i, (_, attributes) in enumerate(page.elements) if attributes.get("type") == "application/json")
    before = sum(tag in ("script", "style", "title") for tag, _ in page.elements[:place])
    return page, json.loads(page.texts[before])


def decoded(column: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(column["bdata"]), dtype=f"<{column['dtype']}")


def test_the_page_asks_nothing_of_the_network(runs: Path, tmp_path: Path) -> None:
    page, _ = written(runs, tmp_path / "page.html")
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        assert "src" not in attributes and "href" not in attributes
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "http" not in policy


def test_a_hostile_feature_name_stays_text(runs: Path, tmp_path: Path) -> None:
    page, data = written(runs, tmp_path / "page.html")
    assert sum(tag == "script" for tag, _ in page.elements) == 3  # the numbers, Plotly, ours
    assert HOSTILE in [coordinate["name"] for coordinate in data["runs"][0]["coordinates"]]
    titled = Page(write_report(runs, tmp_path / "t.html", title=HOSTILE).read_text(encoding="utf-8"))
    assert sum(tag == "script" for tag, _ in titled.elements) == 3


def test_the_slider_runs_towards_the_limit(runs: Path, tmp_path: Path) -> None:
    _, data = written(runs, tmp_path / "page.html")
    assert data["parameter"] == "alpha"
    assert [run["label"] for run in data["runs"]] == ["α = 1e-3", "α = 1e-30", "α = 1e-1000"]
    assert [run["certificates"] for run in data["runs"]] == [None, None, CERTIFICATES]


def test_curves_are_those_of_the_trajectory(runs: Path, tmp_path: Path) -> None:
    _, data = written(runs, tmp_path / "page.html")
    traj = fs.load(runs / "at 1e-30" / "trajectory.nc")
    shown = data["runs"][1]
    assert shown["points"] == {"drawn": len(traj), "recorded": len(traj)}
    np.testing.assert_array_equal(decoded(shown["clocks"]["time"]), traj.t)
    np.testing.assert_array_equal(decoded(shown["clocks"]["accelerated"]), traj.accelerated_time)
    np.testing.assert_array_equal(decoded(shown["clocks"]["arclength"]), traj.arclength)
    np.testing.assert_array_equal(decoded(shown["loss"]), traj.loss)
    for coordinate in shown["coordinates"]:
        drawn = traj.beta[:, coordinate["index"]].astype(np.float32)
        np.testing.assert_array_equal(decoded(coordinate["values"]), drawn)
    summary = json.loads((runs / "at 1e-30" / "summary.json").read_text())
    assert shown["jumps"] == summary["jumps"]


def test_jump_errors_are_compared_over_alpha(runs: Path, tmp_path: Path) -> None:
    _, data = written(runs, tmp_path / "page.html")
    comparison = data["comparison"]
    assert comparison["kind"] == "alpha" and comparison["curves"]
    for curve in comparison["curves"]:
        # The flow jumps O(1/gamma) away from the limit: ten times smaller gamma^-1, ten times smaller distance.
        distance = dict(zip(curve["x"], curve["y"], strict=True))
        last, before = sorted(distance)[:2]
        assert distance[last] < distance[before]


def test_a_single_run_has_no_slider_to_move(runs: Path, tmp_path: Path) -> None:
    page, data = written(runs / "at 1e-3", tmp_path / "page.html")
    assert len(data["runs"]) == 1 and data["parameter"] is None and data["comparison"] is None
    assert {"slider", "clock", "loss", "coordinates", "drift", "jumps", "facts", "certificates"} <= page.ids()


@pytest.mark.slow
def test_noise_levels_are_a_slider_too(tmp_path: Path) -> None:
    for eta in ("0", "0.5", "1"):
        main(["run", "--alpha", "1e-30", "--eta", eta, "--horizon", "0.3", "--out", str(tmp_path / f"n{eta}"),
              "--no-progress"])  # fmt: skip
    _, data = written(tmp_path, tmp_path / "page.html")
    assert data["parameter"] == "eta"
    assert [run["label"] for run in data["runs"]] == ["η = 0", "η = 0.5", "η = 1"]
    ends = {curve["name"]: curve["y"] for curve in data["comparison"]["curves"]}
    for place, eta in enumerate(("0", "0.5", "1")):
        traj = fs.load(tmp_path / f"n{eta}" / "trajectory.nc")
        assert ends["bmi"][place] == traj.beta[-1, traj.feature_names.index("bmi")]


def test_wide_problems_and_long_runs_are_thinned_and_the_page_says_so(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_runs(runs / "at 1e-1000")[0]
    monkeypatch.setattr(payload_module, "MAX_POINTS", 60)
    monkeypatch.setattr(payload_module, "MAX_COORDINATES", 2)
    kept = thin(run.trajectory)
    assert len(kept) <= 60 and kept[0] == 0 and kept[-1] == len(run.trajectory) - 1
    shown = payload([run], "t")["runs"][0]
    peak = np.abs(run.trajectory.beta).max(axis=0)
    assert [coordinate["index"] for coordinate in shown["coordinates"]] == sorted(np.argsort(-peak)[:2].tolist())
    assert shown["left_out"] == {"count": 2, "largest": np.sort(peak)[1]}


def test_the_command_writes_into_the_run_folder_by_default(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "one"
    shutil.copytree(runs / "at 1e-3", folder)
    main(["report", str(folder)])
    assert (folder / "report.html").stat().st_size < 10e6
    assert "report.html" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [
        "figure.png", "report.html", "summary.json", "trajectory.nc",
    ]  # fmt: skip


def _damage(folder: Path, name: str, content: str | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", None, "summary.json is missing"),
        ("trajectory.nc", None, "trajectory.nc is missing"),
        ("summary.json", "{", "cannot be read as JSON"),
        ("summary.json", "[]", "must hold an object; received list"),
        ("trajectory.nc", "no", "cannot be read as one"),
        ("certificates.json", '{"rows": 3}', "must hold a list of certificates"),
    ],
)
def test_a_damaged_run_ends_in_one_line_and_status_2(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, message: str
) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(runs / f"at {ALPHAS[0]}", folder / "a")
    _damage(folder / "a", name, content)
    with pytest.raises(SystemExit) as caught:
        main(["report", str(folder)])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_a_path_in_place_of_a_trajectory_is_told(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs / f"at {ALPHAS[0]}", folder)
    fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), fs.Regression([[1.0]], [1.0])).save(folder / "trajectory.nc")
    with pytest.raises(ValueError, match=r"trajectory\.nc must hold a Trajectory; received SaddlePath"):
        read_runs(folder)


def test_a_folder_without_runs_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold summary\.json and trajectory\.nc"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="must be a folder; there is none"):
        write_report(tmp_path / "nowhere")


def test_a_page_that_cannot_be_written_is_the_callers_to_mend(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`--out` must be a file that can be written"):
        write_report(runs, tmp_path / "no" / "such" / "page.html")
