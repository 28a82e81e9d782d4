"""Experiment files: what they compute, and one clear line for each way of getting them wrong."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import xarray
from numpy.testing import assert_array_equal

import flowsim as fs
from flowsim.cli import main
from flowsim.cli.experiment import ExperimentFile, read_experiment
from flowsim.cli.registry import FUNCTIONS

PROBLEM = """
[problem]
dataset = "sparse_regression"
n = 4
d = 6
sparsity = 2
"""
FLOW = f"""
function = "gradient_flow"
{PROBLEM}
[parameters]
t_end = 2.0
clock = "accelerated"
[grid]
alpha = [1e-2, "1e-100"]
problem.seed = [0, 1]
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "study.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def read(path: Path) -> xarray.Dataset:
    with xarray.open_dataset(path.with_suffix(".nc"), engine="scipy") as opened:
        return opened.load()


def test_an_experiment_gives_the_flows_that_the_library_gives(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(FLOW)
    assert main(["sweep", str(path)]) in (None, 0)
    result = read(path)
    assert dict(result.sizes) == {"alpha": 2, "problem.seed": 2, "feature": 6, "pair": 1}
    problem = fs.datasets.sparse_regression(4, 6, 2, seed=1)
    flow = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 2.0, alpha="1e-100", clock="accelerated")
    assert_array_equal(result["beta"].sel({"alpha": "1e-100", "problem.seed": 1}), flow.beta[-1])
    assert "4 points: 4 done, 0 failed" in capsys.readouterr().out
    table = pandas.read_csv(path.with_suffix(".csv"))
    assert len(table) == 4
    assert {"alpha", "problem.seed", "loss", "steps", "error"} <= set(table)


def test_version_seeds_machine_and_the_experiment_itself_are_in_the_result(write: Any) -> None:
    path = write(FLOW)
    main(["sweep", str(path)])
    result = read(path)
    assert result.attrs["flowsim"] == fs.__version__
    assert result.attrs["experiment"] == FLOW
    (environment,) = json.loads(result.attrs["environments"])
    assert environment["versions"]["flowsim"] == fs.__version__
    assert set(environment["machine"]) == {"host", "system", "processor", "cores"}
    assert_array_equal(result["problem.seed"], [0, 1])


def test_every_point_has_its_own_seed_and_it_is_written_down(write: Any) -> None:
    path = write(
        f'function = "gradient_descent"\nseed = 5\n{PROBLEM}\n[parameters]\nstep = 0.01\nn_steps = 20\nbatch_size = 2\n'
        "[grid]\nalpha = [0.1, 0.2]"
    )
    main(["sweep", str(path)])
    result = read(path)
    problem = fs.datasets.sparse_regression(4, 6, 2)
    seed = int(result["seed"].values[1])
    own = fs.gradient_descent(fs.DiagonalNetwork("u*v"), problem, 0.01, 20, alpha=0.2, batch_size=2, seed=seed)
    assert_array_equal(result["beta"].sel(alpha=0.2), own.beta[-1])
    assert int(result["seed"].values[0]) != seed


def test_a_second_run_computes_nothing_and_a_dry_run_says_so(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(FLOW)
    main(["sweep", str(path), "--dry-run"])
    out = capsys.readouterr().out
    assert "4 points: 0 finished, 0 failed, 4 to compute" in out
    assert "about " in out
    assert "a point, by 3 points computed just now" in out
    assert not path.with_suffix(".sweep").exists()
    main(["sweep", str(path)])
    first = path.with_suffix(".nc").read_bytes()
    capsys.readouterr()
    main(["sweep", str(path), "--dry-run", "--workers", "2"])
    assert capsys.readouterr().out == "4 points: 4 finished, 0 failed, 0 to compute\n"
    rows = fs.sweep.ledger(path.with_suffix(".sweep"))  # type: ignore[attr-defined]
    main(["sweep", str(path)])
    pandas.testing.assert_frame_equal(rows, fs.sweep.ledger(path.with_suffix(".sweep")))  # type: ignore[attr-defined]
    assert len(path.with_suffix(".nc").read_bytes()) == len(first)


def test_failing_points_are_counted_and_the_exit_status_tells(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(FLOW.replace('"1e-100"]', '"-1", "-2"]'))
    assert main(["sweep", str(path)]) == 1
    out = capsys.readouterr().out
    assert "6 points: 2 done, 4 failed" in out
    assert "2 x ValueError: `alpha` must be > 0 and finite; received -1." in out
    assert "--retry-failed" in out
    assert main(["sweep", str(path), "--retry-failed"]) == 1


def test_the_limit_process_and_a_list_of_points_can_be_swept(write: Any) -> None:
    path = write(
        f'function = "saddle_to_saddle"\n{PROBLEM}\n[[points]]\nproblem.n = 4\n'
        "[[points]]\nproblem.n = 5\nnetwork.depth = 2"
    )
    main(["sweep", str(path)])
    result = read(path)
    expected = fs.saddle_to_saddle(fs.DiagonalNetwork(depth=2), fs.datasets.sparse_regression(5, 6, 2))
    assert_array_equal(result["end"][1], expected.end)
    assert_array_equal(result["jump_times"][1].dropna("jump"), expected.jump_times)


def test_a_data_file_counts_by_its_content(write: Any, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    table = pandas.DataFrame(np.random.default_rng(0).standard_normal((6, 3)), columns=["a", "b", "y"])
    table.to_csv(data, index=False)
    path = write(
        'function = "saddle_to_saddle"\n[problem]\nfile = "data.csv"\ntarget = "y"\n[grid]\nnetwork.formula = ["u*v"]'
    )
    main(["sweep", str(path)])
    first = read(path)["end"].values
    (table * [1, 1, 2]).to_csv(data, index=False)
    main(["sweep", str(path)])
    np.testing.assert_allclose(read(path)["end"].values, 2 * first)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('function = "gradient_flow"', 'function = "os.system"', "`function`: Input should be .* received 'os.system'"),
        ('function = "gradient_flow"', "", "`function`: Field required"),
        (
            'function = "gradient_flow"',
            'function = "gradient_flow"\ncolour = 1',
            "`colour`: Extra inputs .* received 1",
        ),
        ("n = 4", 'n = "4"', "`problem.n`: Input should be a valid integer; received '4'"),
        ("n = 4", "n = 0", "`problem.n`: Input should be greater than or equal to 1; received 0"),
        ("n = 4", "n = 4\nfile = 'x.csv'", "`problem`: give either `dataset` or `file`"),
        ("n = 4", "n = 4\nrows = 3", "`problem.rows`: Extra inputs"),
        ("n = 4", "", "`problem`: sparse_regression needs `n`"),
        ("n = 4", "n = 4\ntarget = 'y'", "`problem`: `target` does not apply to sparse_regression"),
        ("problem.seed = [0, 1]", "problem.seed = []", "`grid.problem.seed` must hold at least one value"),
        ("problem.seed = [0, 1]", "problem.seed = 1", "`grid.problem.seed` must be a list of values; received 1"),
        ("problem.seed = [0, 1]", "problem.seed = [0, -1]", "`problem.seed`: Input should be greater .* received -1"),
        ("problem.seed = [0, 1]", "problem.sed = [0]", "`grid.problem.sed` is unknown; problem takes dataset, n, d"),
        ("problem.seed = [0, 1]", "beta = [0]", "`grid.beta` is unknown; gradient_flow takes t_end, alpha"),
        ("problem.seed = [0, 1]", "net = [0]", "`grid.net` is unknown"),
        ("problem.seed = [0, 1]", "network.formula = ['u*v', 'u**']", "`network`: `formula` 'u\\*\\*': unexpected end"),
        ("problem.seed = [0, 1]", "network.depth = [1]", "`network.depth`: Input should be greater than or equal to 2"),
        (
            'function = "gradient_flow"',
            'function = "gradient_descent"',
            "`parameters.t_end` is unknown; gradient_descent takes step, n_steps",
        ),
        ("t_end = 2.0", "t_end = 2.0\nspeed = 3", "`parameters.speed` is unknown"),
        ("[grid]", "[[points]]", "`problem.seed`: Input should be a valid integer; received \\[0, 1\\]"),
        ("[grid]", "points = []\n[grid]", "`parameters.points` is unknown"),
        ("[parameters]", "[network]\nnoise = 'gaussian'\n[parameters]", "`network`: `noise` needs `eta`"),
        ("[parameters]", "[network]\nwidth = 2\ndepth = 2\n[parameters]", "`network`: give only one of `depth` and"),
        ("n = 4", "n = 4 4", "is not TOML: .* line"),
        ('function = "gradient_flow"', 'function = "gradient_flow"\nseed = 3', "`seed` does not apply; gradient_flow"),
        ('function = "gradient_flow"', 'function = "gradient_flow"\nworkers = 0', "`workers`: Input should be greater"),
        (
            'function = "gradient_flow"',
            'function = "gradient_flow"\npoints = []',
            "either \\[grid\\] or|`points`: List should have at least 1 item",
        ),
    ],
)
def test_a_wrong_experiment_is_one_clear_line_with_the_key(
    write: Any, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in FLOW
    with pytest.raises(ValueError, match=message) as raised:
        read_experiment(write(FLOW.replace(old, new)))
    assert "\n" not in str(raised.value)
    assert "study.toml" in str(raised.value)


def test_wrong_options_end_with_status_two_and_one_line(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(FLOW)
    for arguments, message in (
        (["--workers", "0"], "`--workers` must be >= 1; received 0"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], "either `--workers` or `--scheduler`"),
        (["--out", "result.txt"], "`--out` must end in .nc"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["sweep", str(path), *arguments])
        assert ended.value.code == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", str(path.with_name("missing.toml"))])
    assert "there is none at" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["sweep"])


def test_the_schema_can_be_printed_and_names_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sweep", "--schema"])
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == set(ExperimentFile.model_fields)
    assert set(schema["properties"]["function"]["enum"]) == set(FUNCTIONS)


def test_dotted_keys_and_quoted_keys_are_the_same(write: Any) -> None:
    plain = read_experiment(write(FLOW)).axes()
    quoted = read_experiment(write(FLOW.replace("problem.seed =", '"problem.seed" ='))).axes()
    assert plain == quoted == {"alpha": [0.01, "1e-100"], "problem.seed": [0, 1]}
    assert tomllib.loads(FLOW)["grid"]["problem"] == {"seed": [0, 1]}


def test_the_schema_types_and_explains_every_key_and_knows_what_is_wrong() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="nbformat brings it with the extra `dev`")
    from flowsim.cli.registry import parameters_of
    from flowsim.cli.schema import experiment_schema

    schema = experiment_schema()
    checker = jsonschema.Draft202012Validator(schema)
    checker.check_schema(schema)
    for name in FUNCTIONS:
        then = next(each["then"] for each in schema["allOf"] if each["if"]["properties"]["function"]["const"] == name)
        own = then["properties"]["parameters"]["properties"]
        assert set(own) == set(parameters_of(name))
        assert all(entry.get("type") and entry["description"] for entry in own.values()), name
    for section in (schema["properties"], schema["properties"]["problem"]["properties"]):
        assert all(entry.get("description") for entry in section.values())

    def wrong(**content: object) -> list[str]:
        return [error.message for error in checker.iter_errors({"function": "gradient_flow", **content})]

    assert wrong(grid={"alpha": [0.1, "1e-100"], "network": {"depth": [2, 3]}}, parameters={"t_end": 1.0}) == []
    assert wrong(points=[{"t_end": 1.0, "problem": {"seed": 3}}]) == []
    assert "'alfa' was unexpected" in wrong(grid={"alfa": [0.1]})[0]
    assert "is not of type 'array'" in wrong(grid={"alpha": 0.1})[0]
    assert "is not of type 'number'" in wrong(parameters={"t_end": "long"})[0]
    assert wrong(network={"formula": 3}) and wrong(problem={"dataset": "iris"})


def test_a_file_is_read_with_every_option_of_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["id;a;b;c;kind", *(f"{k};{x[0]};{x[1]};{x[2]};{'yes' if x[0] > 0 else 'no'}" for k, x in
                              enumerate(rng.standard_normal((20, 3))))]  # fmt: skip
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "e.toml").write_text(
        'function = "gradient_flow"\n[problem]\nfile = "table.csv"\ntarget = "kind"\nsep = ";"\nindex = "id"\n'
        'drop = ["c"]\nloss = "logistic"\n[parameters]\nt_end = 1.0\n[grid]\nalpha = [0.1]\n'
    )
    from flowsim.cli.registry import make_problem

    with pytest.warns(UserWarning, match="'kind' is -1 for no and"):
        problem = make_problem(read_experiment(tmp_path / "e.toml").problem)
    assert problem.feature_names == ("a", "b") and problem.loss_function.name == "logistic"
