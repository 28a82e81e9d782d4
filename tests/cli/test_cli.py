"""The command line as a person meets it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import flowsim as fs
from flowsim.cli import COMMANDS, main


def call(*arguments: str, expect: int = 0) -> None:
    """Run the command line in this process; `expect` is its exit status."""
    if expect == 0:
        main(list(arguments))
    else:
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        assert caught.value.code == expect


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((30, 4))
    frame = pd.DataFrame(X, columns=["height", "weight", "age", "dose"])
    frame["response"] = 2 * X[:, 0] - X[:, 3] + 0.1 * rng.standard_normal(30)
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


@pytest.mark.usefixtures("drawn")
def test_the_default_run_tells_the_story_of_diabetes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", "--out", str(tmp_path / "out"), "--check")
    printed = capsys.readouterr().out
    for word in (
        "predicted",
        "measured",
        "bmi",
        "activated",
        "deactivated",
        "drift",
        "error against tolerances 1000 times",
    ):
        assert word in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["alpha"] == "1e-100" and summary["coordinates"] == "growth" and summary["clock"] == "accelerated"
    assert {"flowsim", "python", "numpy", "scipy"} <= set(summary["versions"]) and summary["seeds"] == []
    assert summary["imbalance_drift"] <= 1e-10 and summary["error"]["in_units_of_rtol"] <= 10
    # The limit predicts, the flow is measured: they differ by O(1/gamma), gamma = 230.
    assert summary["jumps"][0]["feature"] == "bmi" and len(summary["jumps"]) >= 12
    for jump in summary["jumps"]:
        assert jump["measured"] == pytest.approx(jump["predicted"], rel=0.02)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"figure.png", "trajectory.nc", "summary.json"}
    traj = fs.load(tmp_path / "out" / "trajectory.nc")
    assert traj.info["alpha"] == "1e-100" and traj.loss[-1] == pytest.approx(summary["final_loss"])
    assert imread(tmp_path / "out" / "figure.png").shape[1] > 2000, "200 dots per inch"


def test_a_table_of_ones_own(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine"
    call("run", str(table), "--target", "response", "--alpha", "1e-1000", "--out", str(out), "--no-progress")
    printed = capsys.readouterr()
    assert "height" in printed.out and printed.err == ""
    summary = json.loads((out / "summary.json").read_text())
    assert [jump["feature"] for jump in summary["jumps"]][:2] == ["height", "dose"]
    assert [jump["sign"] for jump in summary["jumps"]][:2] == ["+", "-"]


def test_other_networks_clocks_and_noise(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["run", str(table), "--target", "response", "--out", str(tmp_path / "o"), "--no-progress"]
    call(*base, "--formula", "2*u**2 - v**2", "--alpha", "1e-30", "--horizon", "5")
    call(*base, "--eta", "0.1", "--alpha", "1e-30", "--horizon", "5", "--method", "Radau")
    call(*base, "--depth", "3", "--alpha", "0.05", "--horizon", "3")
    call(*base, "--formula", "a*tanh(a) - (exp(b) - 1)**2", "--alpha", "1e-3", "--horizon", "20", "--clock", "time")
    call(*base, "--alpha", "1e-30", "--horizon", "8", "--clock", "arclength")
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["clock"] == "arclength"
    call(*base, "--alpha", "1", "--clock", "time")  # until it rests
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert summary["final_loss"] <= summary["least_loss"] * (1 + 1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alpha", "0"], "`--alpha` must be > 0"),
        (["--alpha=-1e-3"], "`--alpha` must be > 0"),
        (["--alpha", "1"], "received 1: take `--clock time`."),
        (["--formula", "u*"], "`--formula` 'u*': unexpected end"),
        (["--formula", "__import__('os')"], "`--formula`"),
        (["--formula", "foo(u)"], "unknown function 'foo'"),
        (["--depth", "1"], "`--depth`"),
        (["--depth", "3", "--formula", "u*v"], "either `--formula` or `--depth`"),
        (["--noise", "gaussian"], "`--eta` must be given"),
        (["--eta", "-1"], "`--eta`"),
        (["--method", "Euler"], "`--method` must be one of"),
        (["--horizon", "-2"], "`--horizon` must be > 0"),
        (["--clock", "arclength"], "`--horizon` must be given"),
        (["--clock", "sundial"], "sundial"),
        (["--target", "y"], "needs a data file"),
        (["nothing.csv", "--target", "y"], "there is none at nothing.csv"),
        (["--bogus"], "--bogus"),
    ],
)
def test_bad_options_end_in_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    call("run", *arguments, "--no-progress", "--out", str(out), expect=2)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and message in printed.err
    assert not (tmp_path / "deep").exists()


def test_bad_data_ends_in_one_line_and_status_2(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(table)
    frame.loc[3, "age"] = np.nan
    frame.to_csv(table, index=False)
    for arguments, message in [
        ([str(table)], "`--target` must name"),
        ([str(table), "--target", "age"], "column 'age' must be finite; row 3"),
        ([str(table), "--target", "nobody"], "`--target` must be a column"),
    ]:
        call("run", *arguments, "--out", str(tmp_path / "out"), expect=2)
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("a,b,y\n1,2,yes\n4,5,no\n2,2,yes\n", (), "two labels are for the logistic or exponential `--loss`"),
        ("a,b,y\n1,2,3\n1,5,7\n1,2,9\n", (), "'a' is constant, of size 1. Leave it out with `--drop`, or take columns"),
        ("1.0,-2,3\n4,5,7\n2,2,9\n", (), "received 'y'. The first line of the file must name its columns."),
        ("# by R\na,b,y\n1,2,3\n4,5,7\n", (), "rows with more fields than its first line has names"),
        (
            'a,b,y\n"1,000",2,3\n"4,000",5,7\n',
            (),
            "column 'a' must hold numbers; received '1,000' in row 0: write numbers",
        ),
        ("a,b,y\n1,2,3\n4,5,7\n2,2,9\n", ("--target", "b"), "must be one column for a diagonal network; received 2."),
    ],
)
def test_tables_that_cannot_be_taken_say_what_to_do(
    text: str, arguments: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text(text)
    call("run", str(tmp_path / "t.csv"), "--target", "y", *arguments, "--out", str(tmp_path / "out"), expect=2)
    assert said in capsys.readouterr().err


def test_a_command_that_is_none_is_answered_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    call("rnu", expect=2)
    assert "No such command 'rnu'; did you mean `run`?" in capsys.readouterr().err
    call("xyz", expect=2)
    assert "there are run, derive" in capsys.readouterr().err


@pytest.mark.slow
def test_a_jump_that_the_run_ends_before_asks_for_a_later_horizon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("run", "--width", "4", "--alpha", "1e-50", "--out", str(tmp_path / "out"))
    printed = capsys.readouterr().out
    assert "not yet crossed" in printed and "a later --horizon shows" in printed
    assert "times in accelerated time t / ln(1/alpha)\n" in printed


def test_an_output_folder_that_cannot_be_written_is_said_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    call("run", "--out", str(tmp_path / "file" / "out"), expect=2)
    err = capsys.readouterr().err
    assert "`--out` must be a folder that can be written" in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_flow_that_cannot_be_continued_ends_with_status_1_and_leaves_nothing(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    network = ["--formula", "(u**2 + v**2)*w", "--eta", "0.1"]
    arguments = [*network, "--alpha", "1e-400", "--horizon", "1", "--out", str(out)]
    call("run", str(table), "--target", "response", *arguments, expect=1)
    assert "below the range of floats" in capsys.readouterr().err
    assert not out.exists()


def test_budgets_that_are_no_options_are_not_advised() -> None:
    from flowsim.cli import _in_options
    from flowsim.cli.run import run
    from flowsim.solvers.solution import Status

    said = _in_options(Status.STEP_BUDGET.value, run)
    assert said == "the step budget is spent; loosen `--rtol`, or shorten `--horizon`"


def test_results_of_an_earlier_run_survive_a_failed_one(table: Path, tmp_path: Path) -> None:
    base = ["run", str(table), "--target", "response", "--out", str(tmp_path / "out"), "--no-progress"]
    call(*base)
    before = (tmp_path / "out" / "summary.json").read_bytes()
    call(*base, "--alpha", "-1", expect=2)
    assert (tmp_path / "out" / "summary.json").read_bytes() == before
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_help_reads_well_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    call("--help")
    printed = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert name in printed and text.split()[0] in printed
        call(name, "--help")
        detail = capsys.readouterr().out
        assert "Usage: flowsim" in detail and len(detail) > 200
    call("--version")
    assert fs.__version__ in capsys.readouterr().out


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "flowsim", "--help"], capture_output=True, text=True, check=True)
    assert "Commands" in done.stdout


def test_the_module_ends_with_the_status_of_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that is violated, or points of a sweep that failed, end with status 1."""
    monkeypatch.setattr("flowsim.cli.main", lambda: 1)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("flowsim", run_name="__main__")
    assert caught.value.code == 1


def test_import_and_help_do_not_load_the_heavy_libraries() -> None:
    code = (
        "import sys, flowsim; flowsim.DiagonalNetwork('u*v')\n"
        "from flowsim.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'sympy', 'numba', 'matplotlib', 'scipy', 'pandas', 'xarray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")


def test_alone_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    call()
    assert "Commands" in capsys.readouterr().out


def test_tables_are_read_as_the_options_say(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.read_csv(table)
    frame["name"] = "text"
    frame.loc[3, "age"] = np.nan
    frame.to_csv(table, sep=";", decimal=",")
    base = ["run", str(table), "--target", "response", "--out", str(tmp_path / "o"), "--no-progress"]
    call(*base, "--drop", "name", "--dropna")
    printed = capsys.readouterr()
    assert "numbers the rows; it is left out (`--columns` can ask for it)" in printed.err and "height" in printed.out
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert (summary["n"], summary["d"]) == (29, 4)
    call(*base, "--columns", "height,dose", "--index", "0", "--sep", ";")
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["d"] == 2
    assert capsys.readouterr().err == ""
    for more, message in [
        (["--drop", "nobody"], "`--drop` must be a column"),
        (["--index", "0"], "column 'name' must hold numbers; received 'text' in row 0"),
        (
            ["--drop", "name", "--index", "0"],
            "row 3 holds no value (1 of 30 rows do): leave such rows out with `--dropna`",
        ),
    ]:
        call(*base, *more, expect=2)
        err = capsys.readouterr().err
        assert message in err, err


def test_a_name_with_a_comma_stands_in_quotation_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X = np.random.default_rng(3).standard_normal((20, 3))
    frame = pd.DataFrame(X, columns=["height, cm", "age", "dose"]).assign(y=X[:, 0] - X[:, 2])
    frame.to_csv(tmp_path / "t.csv", index=False)
    base = ["run", str(tmp_path / "t.csv"), "--target", "y", "--out", str(tmp_path / "o"), "--no-progress"]
    call(*base, "--columns", '"height, cm", dose')
    printed = capsys.readouterr().out
    assert "height, cm" in printed and "dose" in printed
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["d"] == 2
    call(*base, "--drop", "age", "--drop", '"height, cm"')
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["d"] == 1


def test_jumps_without_a_time_of_their_own_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", "--alpha", "0.3", "--out", str(tmp_path / "o"), "--no-progress")
    assert "merged with the jump" in capsys.readouterr().out
    call("run", "--horizon", "0.1", "--out", str(tmp_path / "o"), "--no-progress")
    jumps = json.loads((tmp_path / "o" / "summary.json").read_text())["jumps"]
    assert "beyond the horizon" in capsys.readouterr().out
    for jump in jumps:
        assert (jump["measured"] is None) == ("why" in jump)
        assert (jump["predicted"] >= 0.1) == (jump.get("why") == "beyond the horizon")


def test_jumps_that_come_early_have_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The flow for y at alpha is that for c y at sqrt(c) alpha, its time divided by c."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 4))
    frame = pd.DataFrame(X, columns=list("abcd")).assign(y=2 * X[:, 0] - X[:, 2] + 0.1 * rng.standard_normal(40))
    measured = []
    for scale, alpha in ((1.0, "1e-200"), (1e-200, "1e-300")):
        frame.assign(y=scale * frame["y"]).to_csv(tmp_path / "t.csv", index=False)
        call("run", str(tmp_path / "t.csv"), "--target", "y", "--alpha", alpha, "--out", str(tmp_path / "o"),
             "--no-progress")  # fmt: skip
        jumps = json.loads((tmp_path / "o" / "summary.json").read_text())["jumps"]
        measured.append([jump["measured"] * scale for jump in jumps])
    assert len(measured[0]) == 4
    np.testing.assert_allclose(np.array(measured[1]) * 300 / 200, measured[0], rtol=1e-4)


def test_a_jump_crossed_before_the_end_has_a_time_though_it_was_predicted_later(tmp_path: Path) -> None:
    call("run", "--horizon", "0.2365", "--out", str(tmp_path / "o"), "--no-progress")
    jumps = json.loads((tmp_path / "o" / "summary.json").read_text())["jumps"]
    (crossed,) = [jump for jump in jumps if jump["feature"] == "s6"]
    assert crossed["measured"] < 0.2365 < crossed["predicted"]


def test_many_jumps_are_cut_to_those_that_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 50))
    np.savez(tmp_path / "t.npz", X=X, y=5 * X[:, 7] - 3 * X[:, 20] + rng.standard_normal(60))
    call("run", str(tmp_path / "t.npz"), "--out", str(tmp_path / "o"), "--no-progress")
    printed = capsys.readouterr().out
    jumps = json.loads((tmp_path / "o" / "summary.json").read_text())["jumps"]
    assert len(jumps) > 40 and printed.count("activated") <= 21
    assert "x7 " in printed and "x20 " in printed and f"{len(jumps) - 20} more make up" in " ".join(printed.split())


@pytest.mark.parametrize("command", ["run", "limit"])
def test_coefficients_a_start_cannot_reach_are_said(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scale = ["--alpha", "0.05"] if command == "run" else ["--alphas", "0.1,0.05"]
    call(command, "--depth", "3", *scale, "--out", str(tmp_path / "o"), "--no-progress")
    printed = " ".join(capsys.readouterr().out.split())
    assert "no coefficient can become negative" in printed
    assert "--formula 'w1*w2*w3 - v1*v2*v3' reaches both signs" in printed


@pytest.mark.parametrize("labels", [(0, 1), (-1, 1), ("benign", "malignant")], ids=str)
def test_a_target_of_two_values_is_learned_by_the_logistic_loss(
    labels: tuple[object, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((60, 3))
    frame = pd.DataFrame(X, columns=["height", "weight", "age"])
    is_one = X[:, 0] - 0.5 * X[:, 2] + rng.logistic(size=60) > 0
    frame["outcome"] = [labels[int(each)] for each in is_one]
    frame.to_csv(tmp_path / "table.csv", index=False)
    call("run", str(tmp_path / "table.csv"), "--target", "outcome", "--loss", "logistic", "--no-progress",
         "--out", str(tmp_path / "out"))  # fmt: skip
    captured = capsys.readouterr()
    assert ("'outcome' is -1 for benign and +1 for malignant" in captured.err) == (labels[0] == "benign")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["loss"] == "logistic"
    assert summary["jumps"][0]["feature"] == "height" and summary["jumps"][0]["sign"] == "+"
    assert summary["final_loss"] == pytest.approx(summary["least_loss"], rel=1e-6)
    by_hand = fs.Problem(X, np.where(is_one, 1.0, -1.0), "logistic", feature_names=["height", "weight", "age"])
    assert summary["least_loss"] == pytest.approx(
        fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), by_hand.standardise()).losses[-1], rel=1e-9
    )


def test_separable_data_say_where_they_escape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X = np.array([[1.0, 0.2], [2.0, -0.3], [-1.0, 0.1], [-2.0, 0.4]])
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(y=[1, 1, 0, 0])
    frame.to_csv(tmp_path / "table.csv", index=False)
    call("run", str(tmp_path / "table.csv"), "--target", "y", "--loss", "exponential", "--no-progress",
         "--out", str(tmp_path / "out"))  # fmt: skip
    assert "beta escapes to infinity" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["least_loss"] == 0.0


def test_a_target_of_three_values_has_no_labels(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", str(table), "--target", "response", "--loss", "logistic", expect=2)
    assert "must hold two labels; received 30" in capsys.readouterr().err
    call("run", "--loss", "logistic", expect=2)
    assert "--loss" in capsys.readouterr().err


def test_targets_of_any_size_get_a_right_answer_or_a_true_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 3))
    y = X @ [2.0, -1.0, 0.5] + 0.1 * rng.standard_normal(20)
    for name, size in (("one", 1.0), ("tiny", 1e-200), ("huge", 1e200)):
        frame = pd.DataFrame(X, columns=["a", "b", "c"])
        frame["y"] = y * size
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    options = ["--target", "y", "--no-progress", "--out", str(tmp_path / "out")]
    main(["run", str(tmp_path / "one.csv"), "--alpha", "1e-2000", *options])
    one = json.loads((tmp_path / "out" / "summary.json").read_text())
    # beta is quadratic in the weights: y times c and alpha times sqrt(c) is the same flow times c.
    main(["run", str(tmp_path / "tiny.csv"), "--alpha", "1e-2100", *options])
    tiny = json.loads((tmp_path / "out" / "summary.json").read_text())
    scale = 1e200 * 2000 / 2100  # of accelerated times: 1/c, and ln(1/alpha)
    for ours, theirs in zip(tiny["jumps"], one["jumps"], strict=True):
        assert ours["measured"] == pytest.approx(theirs["measured"] * scale, rel=1e-6)
    assert tiny["final_log_loss"] == pytest.approx(one["final_log_loss"] - 400 * np.log(10), abs=1e-6)
    assert "10^-4" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["run", str(tmp_path / "huge.csv"), *options])
    told = capsys.readouterr().err
    assert "the loss left the range of floats" in told and "divide y by a power of ten" in told
    assert "RuntimeWarning" not in told
