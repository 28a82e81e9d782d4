"""The store: one SQLite file that holds every finished point.

SQLite is preferred to Zarr and to one file per point because it alone provides what a sweep needs:
commits are atomic and durable when they return, readers never see partial ones, and several processes may write.
Zarr has no transactions and no locks, and a file per point costs an inode and two fsyncs for each float. To this
the store adds a SHA-256 for every point, computed where the point was computed, and recovery of damaged files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sqlite3
import struct
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from flowsim.sweep.host import process_is_alive

Status = Literal["done", "failed"]

#: "fSwp" in the SQLite header distinguishes a store from any other database.
_APPLICATION = 0x66537770
_VERSION = 1
_SCHEMA = {
    "run": "CREATE TABLE run (id INTEGER PRIMARY KEY, started TEXT NOT NULL, finished TEXT, host TEXT NOT NULL, "
    "pid INTEGER NOT NULL, function TEXT NOT NULL, code TEXT NOT NULL, environment TEXT NOT NULL, "
    "checksum BLOB NOT NULL)",
    "point": "CREATE TABLE point (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, run INTEGER NOT NULL, "
    "parameters TEXT NOT NULL, status TEXT NOT NULL, seconds REAL NOT NULL, finished TEXT NOT NULL, "
    "payload BLOB NOT NULL, checksum BLOB NOT NULL)",
}
_COLUMNS = "key, run, parameters, status, seconds, finished, payload, checksum"
#: The environment of a run whose record is damaged.
_UNKNOWN = '{"damaged": true}'
#: Errors that SQLite raises on damaged files, also for names that are not text and for huge lengths.
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError, MemoryError)
#: Seconds that a writer waits for the commit of another process.
_PATIENCE = 60.0
#: Points whose keys are in a JSON list.
_AMONG = "key IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True)
class Outcome:
    """A finished point: its result as bytes, or its error, with a checksum from where it was computed."""

    key: str
    status: Status
    seconds: float
    payload: bytes
    checksum: bytes

    @property
    def is_intact(self) -> bool:
        return self.checksum == checksum(self.key, self.status, self.seconds, self.payload)


def checksum(key: str, status: str, seconds: float, payload: bytes) -> bytes:
    """SHA-256 over all of an outcome."""
    head = json.dumps([key, status]).encode() + struct.pack("<d", seconds)
    return hashlib.sha256(head + payload).digest()


class Store:
    """Finished points by key; in memory if `path` is None.

    `damaged` counts the damaged points that were dropped since the store was opened.
    Raises ValueError if the file is not a store, or too damaged to be recognised.

    Parameters
    ----------
    path : path-like or None
        Created if missing, on a local disk: SQLite's write-ahead log needs shared memory. May be open in
        several processes of one machine at a time.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.damaged = 0
        self._run = 0
        if self.path is not None:
            _check_path(self.path)
        try:
            self._connection = self._open()
        except sqlite3.OperationalError as error:
            raise ValueError(f"`store` {self.path} cannot be opened ({error}).") from error
        except _DAMAGE:
            self._connection = self._salvage()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._run:
            with contextlib.suppress(sqlite3.Error), _transaction(self._connection):
                self._connection.execute("UPDATE run SET finished = ? WHERE id = ?", (_now(), self._run))
        self._connection.close()

    def begin_run(self, function: str, code: str, environment: dict[str, Any], host: str) -> None:
        """Record the run that writes from now on."""
        text = json.dumps(environment, sort_keys=True)
        row = (_now(), host, os.getpid(), function, code, text, hashlib.sha256(text.encode()).digest())
        with _transaction(self._connection):
            cursor = self._connection.execute(
                "INSERT INTO run (started, host, pid, function, code, environment, checksum) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        self._run = int(cursor.lastrowid or 0)

    def other_writers(self) -> bool:
        """Whether another run that may still be active has opened this store."""
        rows = self._connection.execute(
            "SELECT other.host, other.pid, own.host FROM run AS other, run AS own "
            "WHERE own.id = ? AND other.id != own.id AND other.finished IS NULL",
            (self._run,),
        ).fetchall()
        return any(host != here or (pid != os.getpid() and process_is_alive(pid)) for host, pid, here in rows)

    def put(self, outcomes: Collection[Outcome], parameters: dict[str, str]) -> None:
        """Commit finished points, all or none, durably. Existing results are kept."""
        now = _now()
        rows = [
            (o.key, self._run, parameters.get(o.key, ""), o.status, o.seconds, now, o.payload, o.checksum)
            for o in outcomes
        ]
        with _disk_errors(self.path), _transaction(self._connection):
            self._connection.executemany(
                f"INSERT INTO point ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "run = excluded.run, status = excluded.status, seconds = excluded.seconds, "
                "finished = excluded.finished, payload = excluded.payload, checksum = excluded.checksum "
                "WHERE point.status = 'failed'",
                rows,
            )

    def __contains__(self, key: str) -> bool:
        return self._connection.execute("SELECT 1 FROM point WHERE key = ?", (key,)).fetchone() is not None

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM point").fetchone()[0])

    def read(self, keys: Collection[str]) -> Iterator[Outcome]:
        """The stored outcomes of some points; damaged ones are dropped."""
        query = f"SELECT key, status, seconds, payload, checksum FROM point WHERE {_AMONG}"
        damaged = []
        for row in self._connection.execute(query, (json.dumps(list(keys)),)):
            outcome = _outcome(*row)
            if outcome is None:
                damaged.append(row[0])
            else:
                yield outcome
        if damaged:
            self.forget(damaged)
            self.damaged += len(damaged)

    def forget(self, keys: Collection[str]) -> None:
        """Delete points."""
        with _transaction(self._connection):
            self._connection.executemany("DELETE FROM point WHERE key = ?", [(key,) for key in keys])

    def other_code(self, function: str, code: str) -> int:
        """The number of stored points computed by another version of the function."""
        query = "SELECT count(*) FROM point JOIN run ON run.id = point.run WHERE run.function = ? AND run.code != ?"
        return int(self._connection.execute(query, (function, code)).fetchone()[0])

    def environments(self, keys: Collection[str]) -> list[dict[str, Any]]:
        """The distinct environments that computed these points, in order of first use."""
        query = f"SELECT DISTINCT run FROM point WHERE {_AMONG} ORDER BY run"
        texts: dict[str, None] = {}
        for (run,) in self._connection.execute(query, (json.dumps(list(keys)),)).fetchall():
            row = self._connection.execute("SELECT environment, checksum FROM run WHERE id = ?", (run,)).fetchone()
            intact = row is not None and isinstance(row[0], str) and hashlib.sha256(row[0].encode()).digest() == row[1]
            texts[row[0] if intact else _UNKNOWN] = None
        return [json.loads(text) for text in texts]

    def rows(self) -> list[dict[str, Any]]:
        """Every point with its run, time and duration, without results."""
        cursor = self._connection.execute(
            "SELECT point.key, parameters, status, seconds, point.finished, function, code, host, pid, "
            "CASE status WHEN 'failed' THEN payload END AS error FROM point LEFT JOIN run ON run.id = point.run "
            "ORDER BY point.id"
        )
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path or ":memory:", timeout=_PATIENCE, isolation_level=None)
        try:
            connection.text_factory = _text
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            self._adopt(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _adopt(self, connection: sqlite3.Connection) -> None:
        """Create the tables of a new store; check those of an existing one."""

        def tables() -> dict[str, str]:
            query = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
            return dict(connection.execute(query).fetchall())

        def is_ours() -> bool:
            return int(connection.execute("PRAGMA application_id").fetchone()[0]) == _APPLICATION

        if not is_ours() and tables():
            raise ValueError(f"`store` {self.path} is a database of another kind, not a sweep's store.")
        _patiently(connection, "PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if not tables():
            with _transaction(connection):
                if not tables():
                    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
                    for statement in _SCHEMA.values():
                        connection.execute(statement)
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if is_ours() and version != _VERSION:
            raise ValueError(f"`store` {self.path} has format {version}; this version reads format {_VERSION}.")
        if not is_ours() or tables() != _SCHEMA:
            raise sqlite3.DatabaseError("unknown tables")
        verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != ("ok",):
            raise sqlite3.DatabaseError(str(verdict))

    def _salvage(self) -> sqlite3.Connection:
        """Rename the damaged file and copy the points with valid checksums to a new one."""
        assert self.path is not None
        runs, points = _readable_rows(self.path)
        if not runs and not points and not _has_our_header(self.path):
            raise ValueError(f"`store` {self.path} is not a sweep's store, or is damaged beyond recognition.")
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        connection = self._open()
        with _transaction(connection):
            connection.executemany("INSERT OR IGNORE INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", runs)
            connection.executemany(f"INSERT OR IGNORE INTO point ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", points)
        self.damaged += 1
        return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    _patiently(connection, "BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk has already ended it
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextlib.contextmanager
def _disk_errors(path: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(f"the store {path} cannot be written ({error}); what it holds is safe.") from error


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Execute with retries: some locks (change to WAL, checkpoints) are refused at once instead of waited for."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute(statement).fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.001, 0.02))


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"`store` must be a file; {path} is a directory.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"`store` {path} cannot be made ({error.strerror}).") from None
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                raise ValueError(f"`store` {path} is not a sweep's store; it has been left as it was.")


def _has_our_header(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(72)[68:72] == _APPLICATION.to_bytes(4, "big")


def _outcome(key: Any, status: Any, seconds: Any, payload: Any, digest: Any) -> Outcome | None:
    """A row as an outcome; None if it is damaged, whatever the types of its entries."""
    kinds = (isinstance(key, str), isinstance(seconds, float), isinstance(payload, bytes), isinstance(digest, bytes))
    if status not in ("done", "failed") or not all(kinds):
        return None
    outcome = Outcome(key, status, seconds, payload, digest)
    return outcome if outcome.is_intact else None


def _readable_rows(path: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The runs and intact points that can be read from a damaged file, from either end."""
    runs: dict[int, tuple[Any, ...]] = {}
    points: dict[str, tuple[Any, ...]] = {}
    connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    connection.text_factory = _text
    try:
        for order in ("ASC", "DESC"):
            with contextlib.suppress(*_DAMAGE):
                for row in connection.execute(f"SELECT * FROM run ORDER BY id {order}"):
                    if len(row) == 9 and all(entry is not None for index, entry in enumerate(row) if index != 2):
                        runs[row[0]] = row
            with contextlib.suppress(*_DAMAGE):
                for row in connection.execute(f"SELECT {_COLUMNS} FROM point NOT INDEXED ORDER BY id {order}"):
                    if _outcome(row[0], row[3], row[4], row[6], row[7]) is not None:
                        points[row[0]] = row
    finally:
        connection.close()
    return list(runs.values()), list(points.values())


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")  # damaged text is detected by the checksum


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
