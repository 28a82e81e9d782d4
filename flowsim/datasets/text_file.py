"""Text tables through pandas: their encoding, the separator of their columns, and their first line."""

from __future__ import annotations

import codecs
import csv
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

#: Separators in order of preference; white space of any length comes after them.
_SEPARATORS, _SPACE = (",", ";", "\t", "|"), " "
#: Characters that are read to detect the separator, and what NumPy writes before the names.
_SNIFFED, _COMMENT = 65_536, "# "


def read_text(path: Path, sep: str | None) -> pandas.DataFrame:
    """The table in a text file. Raises ValueError for names that occur twice, and as pandas does."""
    import pandas

    found = sep or separator(path)
    how: Any = {"skipinitialspace": True, "low_memory": False}  # many columns at once
    how["sep"] = r"\s+" if found == _SPACE else found

    def read(**options: Any) -> pandas.DataFrame:
        with _opened(path) as stream:
            _pass_comment(stream, found)
            return pandas.read_csv(stream, **how, **options)

    first = read(header=None, nrows=1, dtype=str).iloc[0].dropna().str.strip()
    if first.duplicated().any():
        raise ValueError(f"it has two columns named {first[first.duplicated()].iloc[0]!r}; rename one")
    frame = read()
    options: dict[str, Any] = {}
    if not frame.index.equals(pandas.RangeIndex(len(frame))):
        if frame.iloc[:, -1].isna().all():  # a separator at the end of each row
            options["index_col"] = False
            frame = read(**options)
        else:
            _check_row_names(frame.index)
            warnings.warn(
                f"{path.name}: rows have one field more than the first line; the first, which names the rows, is "
                "left out.",
                stacklevel=5,
            )
    if found != ",":
        with_comma = read(decimal=",", **options)
        # The first, where they have equally many columns of numbers.
        frame = max(frame, with_comma, key=lambda each: sum(dtype.kind in "fiub" for dtype in each.dtypes))
    frame.columns = [str(column).strip() for column in frame.columns]
    # Separators at the end of every line make columns without names and values.
    return frame.drop(columns=[name for name in frame if name.startswith("Unnamed: ") and frame[name].isna().all()])


def separator(path: Path) -> str:
    """The separator that splits the first line and the next ones into equally many fields, as many as possible."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with _opened(path) as stream:
        lines = [line for line in stream.read(_SNIFFED).splitlines() if line.strip()][:20]
    lines = lines[:-1] or lines
    best, most = ",", 1
    for each in _SEPARATORS:
        parts = {len(row) for row in csv.reader(lines, delimiter=each)}
        if len(parts) == 1 and (count := parts.pop()) > most:
            best, most = each, count
    if most == 1 and lines:
        head, *rows = (len(row) for row in csv.reader((" ".join(line.split()) for line in lines), delimiter=_SPACE))
        # R writes names of rows without a name of their own, NumPy a # before the names.
        if len(set(rows)) == 1 and rows[0] > 1 and head - rows[0] in (-1, 0, lines[0].startswith(_COMMENT)):
            return _SPACE
    return best


def _opened(path: Path) -> IO[str]:
    with path.open("rb") as stream:
        wide = stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return path.open(encoding="utf-16" if wide else "utf-8-sig", newline="")


def _pass_comment(stream: IO[str], sep: str) -> None:
    """Skip the comment sign before the names, unless it is a name itself: a column ``#`` of a table in spaces."""
    head, row = stream.readline(), stream.readline()
    named = sep == _SPACE and len(head.split()) <= len(row.split())
    stream.seek(0)
    if head.startswith(_COMMENT) and not named:
        stream.read(len(_COMMENT))


def _check_row_names(index: pandas.Index) -> None:
    """Require that row names of pandas are as R writes them, texts or 1, 2, ...; else the first line lacks a name."""
    import numpy as np

    values = index.to_numpy()
    counts = values.dtype.kind in "iu" and bool((np.diff(values) == 1).all())
    if index.nlevels > 1 or not (counts or values.dtype.kind == "O"):
        raise ValueError("it has rows with more fields than its first line has names")
