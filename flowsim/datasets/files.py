"""Tables from files: CSV, Parquet, NPZ. Reading a file never executes anything in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.datasets.tables import standardise
from flowsim.extras import need
from flowsim.hints import hinting
from flowsim.problem import Regression
from flowsim.problem.problems import Array

if TYPE_CHECKING:
    import pandas

__all__ = ["read_table"]

SUFFIXES = (".csv", ".parquet", ".npz")


@hinting
def read_table(path: str | Path, target: str | None = None, *, raw: bool = False) -> Regression:
    """A regression problem from a file.

    Parameters
    ----------
    path : str or Path
        ``.csv`` or ``.parquet`` with one named numeric column per feature and one for the target; ``.npz`` with arrays
        ``X`` (n, d), ``y`` (n,) and optionally ``feature_names`` (d,).
    target : str, optional
        Name of the target column (of the array in an NPZ file; default ``y`` there).
    raw : bool
        Take the columns as they are. Otherwise X is standardised, ``(X**2).mean(0) == 1``, and y is centred.

    Raises
    ------
    ValueError
        For a file that is missing or cannot be read, a target that is missing or constant, text or gaps in a column,
        and a constant feature unless `raw`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`path` must end in {', '.join(SUFFIXES)}; received {path.name!r}.")
    if not path.is_file():
        raise ValueError(f"`path` must be a file; there is none at {path}.")
    X, y, names = _read_arrays(path, target) if path.suffix.lower() == ".npz" else _read_frame(path, target)
    if np.ptp(y) == 0:
        raise ValueError(f"`target` must vary; {target or 'y'!r} in {path.name} is constant.")
    if raw:
        return Regression(X, y, names)
    problem = Regression(X, y, names)  # checks shapes and finiteness before anything is divided
    return Regression(standardise(problem.X, problem.feature_names), y - y.mean(axis=0), problem.feature_names)


def _read_arrays(path: Path, target: str | None) -> tuple[Array, Array, list[str] | None]:
    target = target or "y"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            missing = [name for name in ("X", target) if name not in archive.files]
            if missing:
                raise ValueError(f"it has no array {missing[0]!r}, only {', '.join(archive.files) or 'none'}")
            names = [str(name) for name in archive["feature_names"]] if "feature_names" in archive.files else None
            problem = Regression(archive["X"], archive[target], names)
    except Exception as error:  # NumPy, zipfile and zlib raise a dozen kinds on damaged files
        raise ValueError(f"`path` {path.name}: {error}") from None
    return problem.X, problem.y, names


def _read_frame(path: Path, target: str | None) -> tuple[Array, Array, list[str]]:
    import pandas

    if target is None:
        raise ValueError(f"`target` must name the target column of {path.name}.")
    if path.suffix.lower() == ".parquet":
        need("pyarrow", f"reading {path.name}")
    try:
        frame = pandas.read_csv(path) if path.suffix.lower() == ".csv" else pandas.read_parquet(path)
    except Exception as error:  # pandas and pyarrow raise a dozen kinds on damaged files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"`path` {path.name} cannot be read: {reason}") from None
    frame.columns = [str(column) for column in frame.columns]
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise ValueError(f"`path` {path.name} has two columns named {repeated[0]!r}.")
    if target not in frame.columns:
        raise ValueError(
            f"`target` must be a column of {path.name}, one of {_some(frame.columns)}; received {target!r}."
        )
    names = [column for column in frame.columns if column != target]
    if not names:
        raise ValueError(f"`path` {path.name} has no column besides the target {target!r}.")
    if frame.empty:
        raise ValueError(f"`path` {path.name} has no rows.")
    columns = {column: _numbers(frame[column], column, path.name) for column in frame.columns}
    return np.column_stack([columns[name] for name in names]), columns[target], names


def _numbers(column: pandas.Series[Any], name: str, file: str) -> Array:
    import pandas

    if not (pandas.api.types.is_numeric_dtype(column) or pandas.api.types.is_bool_dtype(column)):
        raise ValueError(f"`path` {file}: column {name!r} must hold numbers; received {column.iloc[0]!r} in row 0.")
    values = column.to_numpy(dtype=float, na_value=np.nan)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(f"`path` {file}: column {name!r} must be finite; row {bad[0]} holds {values[bad[0]]}.")
    return values


def _some(names: Any) -> str:
    shown = [repr(str(name)) for name in list(names)[:12]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
