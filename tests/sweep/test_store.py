"""What is in the store is right or is not used; nobody else's file is touched."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from numpy.testing import assert_array_equal

import flowsim as fs
from flowsim.sweep import Store
from flowsim.sweep.codec import Record, Variable, decode, encode, record
from flowsim.sweep.store import Outcome, checksum

GRID = {"x": range(40)}


def wave(x: int) -> dict[str, Any]:
    return {"sum": float(x), "curve": np.sin(np.arange(30.0) * x)}


@pytest.fixture
def full(tmp_path: Path) -> tuple[Path, xarray.Dataset]:
    path = tmp_path / "store.sweep"
    return path, fs.sweep(wave, GRID, store=path)


def outcome(key: str, payload: bytes, seconds: float = 0.5) -> Outcome:
    return Outcome(key, "done", seconds, payload, checksum(key, "done", seconds, payload))


def count_calls(path: Path, grid: Any = GRID) -> tuple[int, xarray.Dataset]:
    with Store(path) as store:
        before = max((row["finished"] for row in store.rows()), default="")
        known = {row["key"] for row in store.rows() if row["finished"] <= before}
    result = fs.sweep(wave, grid, store=path)
    with Store(path) as store:
        return sum(row["key"] not in known for row in store.rows()), result


def test_a_finished_point_is_there_for_the_next_process_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store"

    def look(x: int) -> int:
        connection = sqlite3.connect(path)
        found = connection.execute("SELECT count(*) FROM point").fetchone()[0]
        connection.close()
        return int(found)

    assert_array_equal(fs.sweep(look, {"x": [0, 1, 2]}, store=path)["value"], [0, 1, 2])


def test_a_full_store_computes_nothing(full: tuple[Path, xarray.Dataset]) -> None:
    path, expected = full
    calls, result = count_calls(path)
    assert calls == 0
    xarray.testing.assert_identical(result, expected)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "damage",
    [
        "payload = zeroblob(length(payload))",
        "payload = substr(payload, 1, length(payload) - 1)",
        "payload = ''",
        "payload = NULL || 'text'",
        "checksum = zeroblob(32)",
        "seconds = seconds + 1",
        "status = 'failed'",
        "status = 'nonsense'",
        "seconds = 'text'",
    ],
)
def test_a_damaged_point_is_computed_again(
    full: tuple[Path, xarray.Dataset], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, expected = full
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"UPDATE OR IGNORE point SET {damage.replace('NULL || ', '')} WHERE id IN (3, 17)")
    connection.close()
    result = fs.sweep(wave, GRID, store=path)
    xarray.testing.assert_identical(result, expected)
    assert "was damaged" in caplog.text
    caplog.clear()
    xarray.testing.assert_identical(fs.sweep(wave, GRID, store=path), expected)
    assert "was damaged" not in caplog.text  # it was mended


def test_points_that_changed_places_are_found_out(full: tuple[Path, xarray.Dataset]) -> None:
    path, expected = full
    connection = sqlite3.connect(path)
    with connection:
        keys = dict(connection.execute("SELECT id, key FROM point WHERE id IN (1, 2)"))
        connection.execute("UPDATE point SET key = 'spare' WHERE id = 1")
        connection.execute("UPDATE point SET key = ? WHERE id = 2", (keys[1],))
        connection.execute("UPDATE point SET key = ? WHERE id = 1", (keys[2],))
    connection.close()
    xarray.testing.assert_identical(fs.sweep(wave, GRID, store=path), expected)


def test_every_torn_page_costs_only_what_it_held(full: tuple[Path, xarray.Dataset], tmp_path: Path) -> None:
    path, expected = full
    content = path.read_bytes()
    page = struct.unpack(">H", content[16:18])[0]
    kept = []
    for number in range(1, len(content) // page):
        torn = tmp_path / f"torn-{number}"
        torn.write_bytes(content[: number * page] + os.urandom(page) + content[(number + 1) * page :])
        calls, result = count_calls(torn)
        xarray.testing.assert_identical(result, expected)
        kept.append(len(GRID["x"]) - calls)
    assert np.median(kept) >= 25
    assert list(tmp_path.glob("torn-*.damaged-*"))  # what was damaged is set aside, not thrown away


def test_a_file_cut_short_is_no_obstacle(full: tuple[Path, xarray.Dataset], tmp_path: Path) -> None:
    path, expected = full
    content = path.read_bytes()
    for part in (0, len(content) // 3, len(content) - 100):
        cut = tmp_path / f"cut-{part}"
        cut.write_bytes(content[:part])
        xarray.testing.assert_identical(fs.sweep(wave, GRID, store=cut), expected)


def test_other_peoples_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "thesis.txt"
    text.write_text("years of work")
    database = tmp_path / "other.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE point (x)")
    connection.close()
    folder = tmp_path / "folder"
    folder.mkdir()
    newer = tmp_path / "newer"
    Store(newer).close()
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    cases = {
        text: "is not a sweep's store; it has been left as it was",
        database: "is a database of another kind",
        folder: "must be a file; .* is a directory",
        newer: "has format 9; this version reads format 1",
        text / "below": "cannot be made",
    }
    contents = {path: path.read_bytes() for path in cases if path.is_file()}
    for path, message in cases.items():
        with pytest.raises(ValueError, match=f"`store` .*{message}"):
            fs.sweep(wave, GRID, store=path)
    assert contents == {path: path.read_bytes() for path in contents}


def test_a_store_with_triggers_of_its_own_is_not_obeyed(full: tuple[Path, xarray.Dataset]) -> None:
    path, expected = full
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER lie AFTER INSERT ON run BEGIN DELETE FROM point; END")
    connection.close()
    xarray.testing.assert_identical(fs.sweep(wave, GRID, store=path), expected)
    with Store(path) as store:
        assert len(store) == len(GRID["x"])


def test_the_first_result_stands_and_a_failure_gives_way(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        failed = Outcome("a", "failed", 0.0, b"{}", checksum("a", "failed", 0.0, b"{}"))
        for new in (failed, outcome("a", b"one"), outcome("a", b"two"), failed):
            store.put([new], {})
        assert [found.payload for found in store.read(["a", "b"])] == [b"one"]


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        broken = outcome("b", b"two")
        object.__setattr__(broken, "payload", object())
        with pytest.raises(sqlite3.Error):
            store.put([outcome("a", b"one"), broken], {})
        assert len(store) == 0
        store.put([outcome("a", b"one")], {})
        assert len(store) == 1


def test_a_full_disk_is_reported_and_harms_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.put([outcome("a", b"one")], {})
        store._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(OSError, match=r"cannot be written \(database or disk is full\)"):
            store.put([outcome("b", bytes(10**6))], {})
        assert len(list(store.read(["a", "b"]))) == 1


@pytest.mark.parametrize(
    "result",
    [
        1.5, 3, True, 1j, "text", float("nan"), np.float32(2), np.arange(5), np.zeros((2, 0, 3)), np.eye(3)[:, ::2],
        np.array(["a", "bcd"]), np.array("2020-01-01", dtype="M8[s]"), {"a": 1, "b": {"c": [1.0, 2.0]}},
        xarray.Dataset({"a": ("x", [1.0, 2.0])}, {"x": ["p", "q"]}, {"note": "n", "array": np.arange(2)}),
        xarray.DataArray([1.0], dims="time", name="named"), np.arange(3, dtype=">i4"), b"bytes",
    ],
    ids=repr,
)  # fmt: skip
def test_results_come_back_from_bytes_as_they_were(result: Any) -> None:
    original = record(result)
    back = decode(encode(original))
    assert back.attrs == original.attrs
    assert list(back.variables) == list(original.variables)
    for name, variable in original.variables.items():
        assert back.variables[name].dims == variable.dims
        assert back.variables[name].is_coordinate == variable.is_coordinate
        assert back.variables[name].values.dtype == variable.values.dtype
        assert_array_equal(back.variables[name].values, variable.values)


def test_a_stored_point_is_never_unpickled() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (os._exit, (3,))

    header = json.dumps({"attrs": {}, "variables": [["a", ["x"], False]]}).encode()
    out = io.BytesIO()
    np.save(out, np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="a stored point cannot be read"):
        decode(len(header).to_bytes(4, "little") + header + out.getvalue())


def test_a_stored_array_cannot_claim_more_than_it_brings() -> None:
    payload = encode(Record({"a": Variable(("x",), np.zeros(3))}))
    huge = payload.replace(b"'shape': (3,)", b"'shape': (9**9**9,)").replace(b"(3,), }     ", b"(99999999999,), }")
    for damaged in (huge, payload.replace(b"(3,), }           ", b"(99999999999,), }")):
        assert damaged != payload
        with pytest.raises(ValueError, match="a stored point cannot be read"):
            decode(damaged)
