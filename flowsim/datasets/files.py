"""Tables from files: CSV, Parquet, NPZ. Reading never executes code in a file."""

from __future__ import annotations

import contextlib
import csv
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.datasets.plain_text import read_plain
from flowsim.datasets.text_file import read_text, separator
from flowsim.errors import MissingFileError
from flowsim.extras import need
from flowsim.hints import hinting
from flowsim.problem import Loss, Problem, Regression
from flowsim.problem.labelled import GAP, labels, numbers
from flowsim.problem.losses import as_loss
from flowsim.problem.problems import Array

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".parquet", ".npz")
_REMEDIES = ("leave it out with `drop`", "leave such rows out with `dropna`")


@hinting
def read_table(
    path: str | Path,
    target: str | Sequence[str] | None = None,
    *,
    raw: bool = False,
    sep: str | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    dropna: bool = False,
    index: str | int | None = None,
    loss: str | Loss = "squared",
) -> Problem:
    """A problem from a file.

    Parameters
    ----------
    path : str or Path
        ``.csv``, ``.tsv``, ``.txt``, ``.dat`` or ``.parquet`` with one named numeric column per feature and one for
        the target; ``.npz`` with arrays ``X`` (n, d), ``y`` (n,) and optionally ``feature_names`` (d,).
    target : str or sequence of str, optional
        Name of the target column (of the array in an NPZ file; default ``y`` there). Several names, in a list or
        separated by commas, make several targets, y of shape (n, m).
    raw : bool
        Do not standardise. Otherwise X is standardised, ``(X**2).mean(0) == 1``, and y is centred; means and scales
        are kept (:meth:`flowsim.Regression.unscale`).
    sep : str, optional
        The character that separates the columns of a text file; a space stands for any white space. Default: detected
        in its first lines, of ``, ; tab |`` and space. Where it is not a comma, numbers may have a decimal comma.
    columns : sequence of str, optional
        Only these features.
    drop : sequence of str
        Columns that are left out.
    dropna : bool
        Leave out rows in which a used column has no value, or ``?``.
    index : str or int, optional
        A column, by name or position, that numbers the rows and is not a feature.
    loss : str or Loss
        As for :class:`flowsim.Problem`. Logistic and exponential losses take a target of any two values, numbers or
        texts: the first in order is -1. Only the target of squares is centred.

    Raises
    ------
    FileNotFoundError
        If there is no such file; also a ValueError.
    ValueError
        For a file that cannot be read, a target that is missing, text or gaps in a column, and a constant target or
        feature unless `raw`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`path` must end in {', '.join(SUFFIXES)}; received {path.name!r}.")
    if not path.is_file():
        raise MissingFileError(f"`path` must be a file; there is none at {path}.")
    if sep is not None and (not isinstance(sep, str) or len(sep) != 1 or sep.isalnum() or sep in "\"'\r\n"):
        raise ValueError(f"`sep` must be one character, such as ';', a tab or a space; received {sep!r}.")
    wanted = [target] if isinstance(target, str) else list(target or ())
    if path.suffix.lower() == ".npz":
        if sep is not None or index is not None or dropna or columns is not None or len(drop):
            raise ValueError("`sep`, `columns`, `drop`, `dropna` and `index` are for tables, not for .npz files.")
        X, y, names = _read_arrays(path, wanted)
        if as_loss(loss).is_margin:
            y = np.column_stack([labels(each, str(name), f"`path` {path.name}")[0] for name, each in _columns(y)])
            y = y[:, 0] if y.shape[1] == 1 else y
    elif not as_loss(loss).is_margin and (plain := _read_plain(path, sep)) is not None:
        known, values = plain
        targets, names = _choose(known, path.name, wanted, columns, drop, index, numbered=False)
        place = {name: k for k, name in enumerate(known)}
        X, y = (values.take([place[name] for name in each], axis=1) for each in (names, targets))
        y = y[:, 0] if len(targets) == 1 else y
    else:
        frame = _read_frame(path, sep)
        frame = frame.where(frame != GAP) if dropna else frame
        if as_loss(loss).is_margin:
            frame = _with_labels(frame, _names(wanted, frame.columns), path.name, dropna)
        X, y, names = _read_columns(frame, path.name, wanted, columns, drop, dropna, index)
    if not raw and np.ptp(y) == 0:
        raise ValueError(f"`target` must vary; {', '.join(wanted) or 'y'!r} in {path.name} is constant.")
    problem = Problem(X, y, loss, feature_names=names)
    if raw:
        return problem
    try:
        return problem.standardise()
    except ValueError as error:
        text = str(error).replace("`X`", f"`path` {path.name}").removesuffix("Drop it.")
        raise ValueError(f"{text}Leave it out with `drop`, or take columns as they are with `raw`.") from None


def _columns(y: Array) -> list[tuple[int, Array]]:
    return list(enumerate(np.atleast_2d(y.T)))


def _with_labels(frame: pandas.DataFrame, targets: Sequence[str], file: str, dropna: bool) -> pandas.DataFrame:
    """The table with its targets as -1 and +1; a warning states the mapping of other values."""
    targets = [target for target in targets if target in frame.columns]
    if dropna:
        frame = frame.dropna(subset=targets)
    for target in targets:
        y, names = labels(frame[target], target, f"`path` {file}")
        if names not in (("-1", "1"), ("-1.0", "1.0"), ("0", "1"), ("0.0", "1.0")):
            warnings.warn(f"{file}: {target!r} is -1 for {names[0]} and +1 for {names[1]}.", stacklevel=3)
        frame = frame.assign(**{target: y})
    return frame


def _names(target: Sequence[str], known: Collection[str]) -> list[str]:
    """Names separated by commas, unless a name contains the commas itself."""
    names = [name.strip() for text in target for name in ([text] if text in known else text.split(","))]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"`target` must name each column once; received {name!r} twice.")
    return names


def _read_arrays(path: Path, target: Sequence[str]) -> tuple[Array, Array, list[str] | None]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            targets = _names(target or ["y"], archive.files)
            missing = [name for name in ("X", *targets) if name not in archive.files]
            if missing:
                raise ValueError(f"it has no array {missing[0]!r}, only {', '.join(archive.files) or 'none'}")
            names = [str(name) for name in archive["feature_names"]] if "feature_names" in archive.files else None
            y = archive[targets[0]] if len(targets) == 1 else np.column_stack([archive[name] for name in targets])
            problem = Regression(archive["X"], y, names)
    except Exception as error:  # NumPy, zipfile and zlib raise many types on damaged files
        raise ValueError(f"`path` {path.name}: {error}") from None
    return problem.X, problem.y, names


def _read_plain(path: Path, sep: str | None) -> tuple[list[str], Array] | None:
    """Names and values, as :func:`read_plain`; None also where errors are to be told."""
    if path.suffix.lower() != ".parquet":
        with contextlib.suppress(OSError, ValueError, csv.Error):
            return read_plain(path, sep or separator(path))
    return None


def _read_frame(path: Path, sep: str | None) -> pandas.DataFrame:
    import pandas

    if path.suffix.lower() == ".parquet":
        need("pyarrow", f"reading {path.name}")
    try:
        frame = pandas.read_parquet(path) if path.suffix.lower() == ".parquet" else read_text(path, sep)
    except UnicodeDecodeError:
        raise ValueError(f"`path` {path.name} cannot be read: it is not text in UTF-8; save it as such.") from None
    except Exception as error:  # pandas and pyarrow raise many types on damaged files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"`path` {path.name} cannot be read: {reason}") from None
    frame.columns = [str(column) for column in frame.columns]
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise ValueError(f"`path` {path.name} has two columns named {repeated[0]!r}.")
    return frame


def _choose(
    known: Sequence[str],
    file: str,
    target: Sequence[str],
    columns: Sequence[str] | None,
    drop: Sequence[str],
    index: str | int | None,
    *,
    numbered: bool,
) -> tuple[list[str], list[str]]:
    """Names of targets and features, of a table with these columns; `numbered`: the first one only numbers the rows."""
    if not target:
        raise ValueError(f"`target` must name the target column of {file}, one of {_some(known)}.")
    if isinstance(index, int):
        if not -len(known) <= index < len(known):
            raise ValueError(f"`index` must be a column of {file}, below {len(known)}; received {index}.")
        index = str(known[index])
    targets = _names(target, known)
    for what, wanted in (("target", targets), ("columns", columns or ()), ("drop", drop), ("index", [index])):
        for name in wanted:
            if name is not None and name not in known:
                raise ValueError(
                    f"`{what}` must be a column of {file}, one of {_some(known)}; received {name!r}.{_headless(known)}"
                )
    if numbered and index is None and columns is None and known[0] not in drop:
        index = str(known[0])
        warnings.warn(
            f"{file}: the first column has no name and numbers the rows; it is left out (`columns` can ask for it).",
            stacklevel=5,
        )
    left_out = {*targets, index, *drop}
    names = [name for name in (known if columns is None else columns) if name not in left_out]
    if not names:
        raise ValueError(f"`path` {file} has no column besides the target {', '.join(map(repr, targets))}.")
    return targets, names


def _read_columns(
    frame: pandas.DataFrame,
    file: str,
    target: Sequence[str],
    columns: Sequence[str] | None,
    drop: Sequence[str],
    dropna: bool,
    index: str | int | None,
) -> tuple[Array, Array, list[str]]:
    """Features, target and names of a table."""
    numbered = bool(target) and _counts_rows(frame)
    targets, names = _choose(list(frame.columns), file, target, columns, drop, index, numbered=numbered)
    if frame.empty:
        raise ValueError(f"`path` {file} has no rows.")
    used = frame[[*names, *targets]]
    if dropna:
        used = used.dropna()
        if used.empty:
            raise ValueError(f"`dropna` leaves no row of {file}: every one has a gap.")
    if all(isinstance(dtype, np.dtype) and dtype.kind in "fiub" for dtype in used.dtypes):
        values = used.to_numpy(dtype=float)
        if np.isfinite(values).all():
            X, y = np.split(values, [len(names)], axis=1)
            return np.ascontiguousarray(X), y[:, 0].copy() if len(targets) == 1 else y.copy(), names
    # An error that names the column; `dropna` does not help with text.
    text_first = sorted(used.columns, key=lambda name: used[name].dtype.kind in "fiub")
    arrays = {
        name: numbers(used[name], name, f"`path` {file}", _REMEDIES, target=name in targets) for name in text_first
    }
    y = arrays[targets[0]] if len(targets) == 1 else np.column_stack([arrays[name] for name in targets])
    return np.column_stack([arrays[name] for name in names]), y, names


def _headless(names: Sequence[str]) -> str:
    """A hint if the first line does not look like names: one text, or numbers."""
    if len(names) == 1:
        return " It has one column only: `sep` can say what separates several."
    if not all(name.replace(".", "", 1).lstrip("+-").isdigit() for name in names):
        return ""
    return " The first line of the file must name its columns."


def _counts_rows(frame: pandas.DataFrame) -> bool:
    """Whether the first column has no name and numbers the rows, and so is not a feature."""
    first = str(frame.columns[0])
    if first.strip() and not first.startswith("Unnamed: "):
        return False
    values = frame.iloc[:, 0].to_numpy()
    return values.dtype.kind in "iu" and bool((np.diff(values) > 0).all())


def _some(names: Any) -> str:
    shown = [repr(str(name)) for name in list(names)[:12]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
