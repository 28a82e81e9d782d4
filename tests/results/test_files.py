"""NetCDF files: what is held comes back bit for bit, other programs read it, HDF5 is read where its library is."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from numpy.typing import NDArray

import flowsim as fs
from flowsim.extras import MissingExtraError
from flowsim.results.classic import NamedArray, read_classic, write_classic
from flowsim.results.netcdf import Labelled, read, write

ARRAYS = {
    "floats": np.array([[np.nan, -0.0, np.inf], [5e-324, -1.7976931348623157e308, 0.1]]),
    "single": np.array([1.5, -2.5], dtype=np.float32),
    "truth": np.array([True, False, True]),
    "integers": np.array([-(2**31), 2**31 - 1]),
    "larger": np.array([2**63 + 1, 2**64 - 1, 7], dtype=np.uint64),
    "large": np.array([2**53, -(2**40)]),
    "bytes": np.arange(3, dtype=np.int8),
    "text": np.array(["", "bmi", "α, β", "x" * 30]),
    "objects": np.array(["a", "bc"], dtype=object),
    "number": np.array(2.5),
    "none": np.empty((3, 0)),
    "no_text": np.array([], dtype="U4"),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(800_000.0).reshape(400, 2, 1000)[:, 1],
    "matrix": np.arange(300_000.0).reshape(3, 100_000),
}
ATTRS = {"text": "ein Maß, ∞", "none": "", "whole": 3, "real": 0.1, "far": 2**40, "list": [1.5, np.nan], "empty": []}


def held(arrays: dict[str, NDArray[Any]]) -> dict[str, NamedArray]:
    return {
        name: NamedArray(tuple(f"{name}_{axis}" for axis in range(values.ndim)), values, {"units": "1"})
        for name, values in arrays.items()
    }


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    write_classic(tmp_path / "a.nc", held(ARRAYS), ATTRS)
    variables, attrs = read_classic(tmp_path / "a.nc")
    assert sorted(variables) == sorted(ARRAYS)
    for name, expected in ARRAYS.items():
        found = variables[name]
        assert found.dims == held(ARRAYS)[name].dims
        np.testing.assert_array_equal(found.values, expected.astype(str) if name == "objects" else expected)
        assert found.values.dtype.kind == ("U" if name == "objects" else expected.dtype.kind)
        assert found.values.dtype.isnative or not expected.size
    assert np.signbit(variables["floats"].values[0, 1])
    assert dict(variables["floats"].attrs) == {"units": "1"}
    for name, value in ATTRS.items():
        np.testing.assert_array_equal(attrs[name], value)


def test_the_file_is_the_netcdf_of_other_libraries(tmp_path: Path) -> None:
    arrays = {name: values for name, values in ARRAYS.items() if values.size and name not in ("objects", "larger")}
    write_classic(tmp_path / "a.nc", held(arrays), {"text": ATTRS["text"]})
    with xarray.open_dataset(tmp_path / "a.nc", engine="scipy") as opened:
        assert opened.attrs["text"] == ATTRS["text"]
        for name, expected in arrays.items():
            np.testing.assert_array_equal(opened[name].values, expected)
            assert opened[name].attrs["units"] == "1"
        assert opened["truth"].dtype == bool


def test_arrays_beyond_the_form_are_refused_with_the_remedy(tmp_path: Path) -> None:
    large = np.broadcast_to(np.array(1.0), (2**14, 2**14))
    with pytest.raises(ValueError, match="`path` must end in .nc4 .* received one of 2 GiB"):
        write(Labelled.of({"a": (("x", "y"), large)}, {}, {}), tmp_path / "a.nc", "none")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([1j]), "`a` must be numbers or text to be written as NetCDF; received complex128"),
        (np.array([None, "b"]), "`a` must be numbers or text .*; received object"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, values: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(Labelled.of({"a": ("x", values)}, {}, {}), tmp_path / "a.nc", "none")
    assert not list(tmp_path.iterdir())


def test_axes_of_two_lengths_are_refused(tmp_path: Path) -> None:
    data = Labelled.of({"a": ("x", [1.0]), "b": ("x", [1.0, 2.0])}, {}, {})
    with pytest.raises(ValueError, match="axis `x` must have one length; received 1 and 2"):
        write(data, tmp_path / "a.nc", "none")


def test_a_dataset_of_xarray_comes_back(tmp_path: Path) -> None:
    dataset = xarray.Dataset(
        {"value": (("point", "seed"), np.arange(4.0).reshape(2, 2)), "ok": ("point", [True, False])},
        {
            "point": [1, 2],
            "kind": ("point", ["a", "bc"]),
            "day": ("seed", np.array(["2026-01-01", "2026-01-02"], "M8[ns]")),
        },
    )
    write(Labelled.of_xarray(dataset), tmp_path / "a.nc", "none")
    # pandas 2.2 does not decode dates of 32 bits
    with xarray.open_dataset(tmp_path / "a.nc", engine="scipy", decode_times=False) as opened:
        day = opened["day"]
        assert day.values.tolist() == [0, 1] and day.attrs["units"] == "days since 2026-01-01 00:00:00"
        xarray.testing.assert_equal(opened.load().drop_vars("day"), dataset.drop_vars("day"))
    assert set(read(tmp_path / "a.nc", "").coordinates) == {"point", "kind", "day"}


def trajectory() -> fs.Trajectory:
    problem = fs.Regression([[1.0, 0.3], [0.2, 2.0]], [1.0, -1.0], feature_names=["α", "second, one"])
    return fs.gradient_flow(
        fs.DiagonalNetwork("u*v"), problem, 3.0, alpha="1e-400", clock="accelerated", events=[fs.events.plateau_ends()]
    )


def same(one: fs.Trajectory, other: fs.Trajectory) -> None:
    for name in (
        "t",
        "accelerated_time",
        "arclength",
        "beta",
        "loss",
        "log_loss",
        "imbalance",
        "log_imbalance",
        "speed",
    ):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in one.weights:
        np.testing.assert_array_equal(one.weights[name], other.weights[name])
        np.testing.assert_array_equal(one.log_abs_weights[name], other.log_abs_weights[name])
    assert one.feature_names == other.feature_names and one.info == other.info and one.stats == other.stats
    assert len(one.events) == len(other.events) and one.events.name == other.events.name


def test_a_trajectory_comes_back_and_is_read_by_xarray(tmp_path: Path) -> None:
    run = trajectory()
    assert (run.log_abs_weights["u"] < -745).any()
    same(fs.load(run.save(tmp_path / "run.nc")), run)
    with xarray.open_dataset(tmp_path / "run.nc", engine="scipy") as opened:
        xarray.testing.assert_identical(opened.load(), run.to_xarray())


def test_a_network_that_conserves_nothing_is_saved_too(tmp_path: Path) -> None:
    run = fs.gradient_flow(fs.DiagonalNetwork("u**2"), fs.Regression([[1.0]], [1.0]), 1.0, alpha=0.1)
    again = fs.load(run.save(tmp_path / "run.nc"))
    assert again.imbalance.shape == run.imbalance.shape == (len(run), 0, 1)


def test_files_of_hdf5_are_written_and_read_where_its_library_is(tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf")
    run = trajectory()
    file = run.save(tmp_path / "run.h5")
    assert file.read_bytes().startswith(b"\x89HDF")
    os.replace(file, tmp_path / "earlier.nc")  # as earlier versions wrote .nc
    same(fs.load(tmp_path / "earlier.nc"), run)


def test_without_the_library_of_hdf5_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5netcdf")
    run = trajectory()
    file = run.save(tmp_path / "run.h5")
    monkeypatch.setitem(sys.modules, "h5netcdf", None)
    importlib.invalidate_caches()
    with pytest.raises(
        MissingExtraError, match=r"run.h5, a file in HDF5 form, needs h5netcdf: pip install 'flowsim\[hdf5\]'"
    ):
        fs.load(file)
    with pytest.raises(MissingExtraError, match=r"a file ending in .nc4 needs h5netcdf"):
        run.save(tmp_path / "other.nc4")
    assert [each.name for each in tmp_path.iterdir()] == ["run.h5"]
    same(fs.load(run.save(tmp_path / "run.nc")), run)
