"""A sweep gives the same labelled result however, wherever and in however many goes it is computed."""

from __future__ import annotations

import functools
import inspect
import io
import logging
import os
import threading
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from numpy.testing import assert_array_equal

import flowsim as fs
from flowsim.sweep import Store, ledger, to_dataframe
from tests.sweep.points import dies_at_two, fails_at_two, product, spectrum


def test_a_grid_gives_one_dimension_per_axis_and_every_combination() -> None:
    result = fs.sweep(product, {"x": [1.0, 2.0, 3.0], "y": np.array([10.0, 20.0])})
    assert dict(result.sizes) == {"x": 3, "y": 2}
    assert_array_equal(result["value"], np.outer([1, 2, 3], [10, 20]))
    assert result["value"].sel(x=3.0, y=20.0) == 60.0


def test_a_list_of_points_gives_one_dimension_and_labels_each_parameter() -> None:
    result = fs.sweep(product, [{"x": 1.0, "y": 5.0}, {"x": 2.0, "y": 7.0}])
    assert dict(result.sizes) == {"point": 2}
    assert_array_equal(result["x"], [1.0, 2.0])
    assert_array_equal(result["value"], [5.0, 14.0])


def test_a_value_that_is_no_list_is_the_same_in_all_points() -> None:
    result = fs.sweep(product, {"x": [1.0, 2.0], "y": 5.0})
    assert dict(result.sizes) == {"x": 2}
    assert result["y"] == 5.0
    assert_array_equal(result["value"], [5.0, 10.0])


@pytest.mark.parametrize("make", [lambda: 2, lambda: ThreadPoolExecutor(2), lambda: ProcessPoolExecutor(2)])
def test_every_kind_of_worker_gives_the_identical_dataset(make: Any) -> None:
    grid = {"n": [2, 3, 5], "seed": range(3)}
    alone = fs.sweep(spectrum, grid)
    workers = make()
    together = fs.sweep(spectrum, grid, workers=workers)
    if isinstance(workers, Executor):
        assert workers.submit(abs, -1).result() == 1  # it is left running: it is not ours
        workers.shutdown()
    xarray.testing.assert_identical(alone, together)


def test_functions_that_cannot_be_imported_reach_the_workers() -> None:
    offset = 4
    result = fs.sweep(lambda x: x + offset, {"x": [1, 2]}, workers=2)
    assert_array_equal(result["value"], [5, 6])


def test_results_of_different_lengths_are_filled_with_nan() -> None:
    result = fs.sweep(lambda n: {"roots": np.arange(n, dtype=float), "name": "x" * n}, {"n": [1, 3]})
    assert_array_equal(result["roots"], [[0, np.nan, np.nan], [0, 1, 2]])
    assert_array_equal(result["name"], ["x", "xxx"])


def test_whole_numbers_stay_whole_unless_a_point_is_missing() -> None:
    assert fs.sweep(lambda x: x, {"x": [1, 2]})["value"].dtype == np.int64

    def big(x: int) -> int:
        if x == 0:
            raise ValueError
        return 2**60 + x

    values = fs.sweep(big, {"x": [0, 1]})["value"].values
    assert values[1] == 2**60 + 1  # a float would have lost the 1
    assert values[0] is None


def test_datasets_keep_their_dimensions_labels_and_attributes() -> None:
    def point(scale: float) -> xarray.Dataset:
        return xarray.Dataset(
            {"beta": (("step", "feature"), scale * np.ones((int(scale), 2)))},
            {"feature": ["a", "b"], "t": ("step", np.arange(int(scale)) * 1.0)},
            {"unit": "s", "steps": int(scale)},
        )

    result = fs.sweep(point, {"scale": [1.0, 2.0]})
    assert result["beta"].dims == ("scale", "step", "feature")
    assert_array_equal(result["feature"], ["a", "b"])
    assert "feature" in result.indexes
    assert_array_equal(result["t"], [[0, np.nan], [0, 1]])
    assert result.attrs["unit"] == "s"
    assert_array_equal(result["steps"], [1, 2])


def test_a_trajectory_is_a_result() -> None:
    def run(d: int) -> Any:
        t = np.linspace(0.0, 1.0, 3)
        beta = np.outer(t, np.ones(2)) * d
        zero = np.zeros((3, 1, 2))
        weights = {"u": beta, "v": beta}
        return fs.Trajectory(
            t=t, accelerated_time=t, arclength=t, beta=beta, weights=weights, log_abs_weights=weights,
            loss=t, imbalance=zero, log_imbalance=zero, imbalance_drift=0.0, success=True, message="done", stats={},
        )  # fmt: skip

    result = fs.sweep(run, {"d": [1, 2]})
    assert result["beta"].dims == ("d", "step", "feature")
    assert_array_equal(result["beta"].sel(d=2)[-1], [2.0, 2.0])
    assert result.attrs["message"] == "done"


def test_a_result_named_like_a_parameter_keeps_out_of_its_way() -> None:
    result = fs.sweep(lambda x: {"x": -x}, {"x": [1, 2]})
    assert_array_equal(result["x"], [1, 2])
    assert_array_equal(result["x_result"], [-1, -2])


def test_objects_and_huge_exponents_can_be_parameters() -> None:
    problems = [fs.Regression([[1.0]], [2.0]), fs.Regression([[1.0]], [3.0])]
    result = fs.sweep(lambda problem, alpha: problem.y[0], {"problem": problems, "alpha": [0.1, "1e-1000"]})
    assert_array_equal(result["value"], [[2, 2], [3, 3]])
    assert_array_equal(result["alpha"], ["0.1", "1e-1000"])
    assert len(set(result["problem"].values)) == 2


def test_a_failing_point_is_recorded_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    for workers in (1, 2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            result = fs.sweep(fails_at_two, {"x": [1, 2, 3]}, workers=workers)
        assert_array_equal(result["value"], [0.5, np.nan, 1.5])
        assert_array_equal(result["error"], ["", "ArithmeticError: two is not welcome", ""])
        assert "1 of 3 points failed; the first, x=2: ArithmeticError" in caplog.text


@pytest.mark.parametrize("result", [None, object(), {"a": [1, [2]]}, {}, {1: 2.0}, np.ma.masked_array([1.0], [True])])
def test_a_result_that_cannot_be_stored_is_a_failure_of_its_point(result: Any) -> None:
    error = str(fs.sweep(lambda x: result, {"x": [1]})["error"].values[0])
    assert error.startswith("ValueError: the function's result")


def test_failed_points_stay_failed_until_they_are_asked_for_again(tmp_path: Path) -> None:
    switch = tmp_path / "repaired"
    calls = tmp_path / "calls"

    def fragile(x: int, switch: Path = switch, calls: Path = calls) -> int:
        with calls.open("a") as file:
            file.write(f"{x}\n")
        if x == 2 and not switch.exists():
            raise OSError("no switch")
        return x

    store = tmp_path / "store.sweep"
    fs.sweep(fragile, {"x": [1, 2, 3]}, store=store)
    switch.touch()
    again = fs.sweep(fragile, {"x": [1, 2, 3]}, store=store)
    assert again["error"].values[1] == "OSError: no switch"
    repaired = fs.sweep(fragile, {"x": [1, 2, 3]}, store=store, retry_failed=True)
    assert_array_equal(repaired["value"], [1, 2, 3])
    assert calls.read_text().split() == ["1", "2", "3", "2"]


@pytest.mark.slow
def test_a_point_that_kills_its_worker_is_found_and_the_others_finish() -> None:
    result = fs.sweep(dies_at_two, {"x": range(12)}, workers=2)
    assert_array_equal(result["value"], [0, 1, np.nan, *range(3, 12)])
    assert result["error"].values[2] == "its worker process died 3 times"


def test_each_seed_rests_on_the_root_and_the_point_alone() -> None:
    grid = {"n": [1, 2, 3]}
    first = fs.sweep(lambda n, seed: seed, grid, seed=7)
    wider = fs.sweep(lambda n, seed: seed, {"n": [5, 3, 2, 1]}, seed=7)
    other = fs.sweep(lambda n, seed: seed, grid, seed=8)
    assert_array_equal(first["value"], first["seed"])
    assert_array_equal(first["seed"], wider["seed"].sel(n=[1, 2, 3]))
    assert len({*first["seed"].values, *other["seed"].values}) == 6


def test_the_table_has_one_row_for_each_point() -> None:
    result = fs.sweep(spectrum, {"n": [2, 3], "seed": [0, 1]})
    table = to_dataframe(result)
    assert list(table) == ["n", "seed", "trace", "kind", "error"]
    assert len(table) == 4
    assert len(result.to_dataframe()) == 4 * 3  # the long table: one row for each eigenvalue
    assert list(to_dataframe(fs.sweep(product, [{"x": 1.0, "y": 2.0}]))) == ["x", "y", "value", "error"]
    assert len(to_dataframe(fs.sweep(product, {"x": 1.0, "y": 2.0}))) == 1


def test_the_result_can_be_written_and_read(tmp_path: Path) -> None:
    result = fs.sweep(spectrum, {"n": [2, 3], "seed": [0, 1]})
    result.to_netcdf(tmp_path / "result.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "result.nc", engine="scipy") as back:
        xarray.testing.assert_equal(back.load(), result)


def test_versions_machine_and_code_are_in_every_result() -> None:
    import json

    attrs = fs.sweep(spectrum, {"n": [2], "seed": [0]}).attrs
    (environment,) = json.loads(attrs["environments"])
    assert environment["versions"]["numpy"] == np.__version__
    assert environment["machine"]["cores"] == os.cpu_count()
    assert attrs["function"].endswith(":spectrum")
    assert len(attrs["code"]) == 64


def test_the_ledger_tells_when_and_how_long(tmp_path: Path) -> None:
    fs.sweep(fails_at_two, {"x": [1, 2]}, store=tmp_path / "s")
    table = ledger(tmp_path / "s")
    assert list(table["parameters"]) == ["x=1", "x=2"]
    assert list(table["status"]) == ["done", "failed"]
    assert table["error"][1].startswith("ArithmeticError")
    assert (table["seconds"] >= 0).all()
    with pytest.raises(ValueError, match="`store` must be a file; there is none at"):
        ledger(tmp_path / "missing")


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({}, "`grid` must name at least one parameter; received an empty mapping"),
        ([], "`grid` must hold at least one point; received an empty list"),
        ({"x": [], "y": 1.0}, r"`grid\['x'\]` must hold at least one value; received an empty list"),
        ({"x": np.ones((2, 2)), "y": 1.0}, r"`grid\['x'\]` must be a vector of values; received shape \(2, 2\)"),
        ({"x": {1, 2}, "y": 1.0}, r"`grid\['x'\]` must have an order, as a list has; received set"),
        ({1: [1]}, "`grid` must name parameters by text; received 1"),
        ("x", "`grid` must map parameters to lists of values; received str"),
        ({"error": [1]}, "`grid` cannot name a parameter 'error'"),
        ([1], r"`grid\[0\]` must map parameters to values; received int"),
        ({"x": [1], "z": [1]}, "`grid` names the parameter 'z', which the function does not take; it takes x, y"),
        ({"x": [1]}, "`grid` does not fit the function: missing a required argument: 'y'"),
        ({"x": [1], "y": io.StringIO()}, r"`grid\['y'\]` must have an order"),
        ({"x": [threading.Lock()], "y": 1}, r"`grid\['x'\]` cannot be identified: a lock has no content"),
    ],
)
def test_a_wrong_grid_is_named_before_anything_runs(grid: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.sweep(product, grid)


def test_wrong_workers_and_seeds_are_named() -> None:
    grid = {"x": [1.0], "y": [1.0]}
    for workers in (0, True, 1.5, "two"):
        with pytest.raises(ValueError, match="`workers` must be"):
            fs.sweep(product, grid, workers=workers)
    for seed in (-1, 0.5, True):
        with pytest.raises(ValueError, match="`seed` must be an integer >= 0"):
            fs.sweep(product, grid, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'x', which the function does not take; it takes none by name"):
        fs.sweep(abs, {"x": [1, 2]})
    with pytest.raises(ValueError, match="`seed` needs a parameter 'seed', which the function does not take"):
        fs.sweep(product, grid, seed=1)
    with pytest.raises(ValueError, match="either `seed` or a parameter named 'seed'"):
        fs.sweep(spectrum, {"n": [1], "seed": [1]}, seed=1)
    with pytest.raises(ValueError, match="`function` must be callable; received int"):
        fs.sweep(3, grid)  # type: ignore[arg-type]


def test_an_executor_that_breaks_is_reported_and_what_finished_is_kept(tmp_path: Path) -> None:
    with (
        ProcessPoolExecutor(1) as pool,
        pytest.raises(RuntimeError, match=r"executor is broken .* finished points are kept"),
    ):
        fs.sweep(dies_at_two, {"x": [0, 1, 2, 3]}, workers=pool, store=tmp_path / "s")
    result = fs.sweep(dies_at_two, {"x": [0, 1, 3]}, store=tmp_path / "s")
    assert_array_equal(result["value"], [0, 1, 3])


def test_a_parameter_may_be_called_point() -> None:
    listed = fs.sweep(lambda point, x: point * x, [{"point": 2, "x": 3}, {"point": 5, "x": 7}])
    assert_array_equal(listed["value"], [6, 35])
    assert_array_equal(fs.sweep(lambda point: point, {"point": [3, 4]})["value"], [3, 4])


def test_points_of_a_list_may_leave_parameters_to_their_defaults() -> None:
    result = fs.sweep(lambda x, y=10: x + y, [{"x": 1}, {"x": 2, "y": 3}])
    assert_array_equal(result["value"], [11, 5])
    assert_array_equal(result["y"], [np.nan, 3.0])


def test_a_function_cannot_change_the_parameters_of_other_points() -> None:
    def spoil(data: np.ndarray, x: int) -> float:
        data += 1
        return float(data.sum())

    for workers in (1, 2):
        result = fs.sweep(spoil, {"data": [np.zeros(2)], "x": [0, 1, 2]}, workers=workers)
        assert_array_equal(result["value"], [[2.0, 2.0, 2.0]])


def test_an_interrupt_in_this_process_keeps_what_has_finished(tmp_path: Path) -> None:
    def stops(x: int) -> int:
        if x == 3:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        fs.sweep(stops, {"x": range(6)}, store=tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert len(store) == 3


def test_the_progress_bar_shows_rate_and_time_left(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fs.sweep(fails_at_two, {"x": range(4)}, store=tmp_path / "s", progress=True)
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert "point/s" in shown
    assert "1 failed" in shown
    fs.sweep(fails_at_two, {"x": range(4)}, progress=False)
    assert "4/4" not in capsys.readouterr().err


def test_one_thread_computes_each_point(monkeypatch: pytest.MonkeyPatch) -> None:
    from threadpoolctl import threadpool_limits

    for library in ("OMP", "OPENBLAS", "MKL"):
        monkeypatch.delenv(f"{library}_NUM_THREADS", raising=False)

    def threads(x: int) -> int:
        from threadpoolctl import threadpool_info

        return max(info["num_threads"] for info in threadpool_info())

    with threadpool_limits(2):
        assert threads(0) == 2
        for workers in (1, 2):
            assert_array_equal(fs.sweep(threads, {"x": [0, 1]}, workers=workers)["value"], [1, 1])


def test_the_room_and_the_function_go_by_one_name() -> None:
    from flowsim.sweep import sweep

    assert fs.sweep(product, {"x": 2.0, "y": 3.0})["value"] == 6.0
    assert next(iter(inspect.signature(fs.sweep).parameters)) == next(iter(inspect.signature(sweep).parameters))
    assert sweep(functools.partial(product, y=3.0), {"x": 2.0})["value"] == 6.0
