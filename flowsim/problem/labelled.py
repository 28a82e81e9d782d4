"""Data frames as arrays: columns keep their names, and errors name the entries that are not numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array
from flowsim.text_table import shortened

_REMEDIES = ("drop it", "drop such rows")
#: What marks a gap in tables of the UCI repository.
GAP = "?"
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")


def is_frame(X: Any) -> bool:
    """Whether X is a table with named columns, of pandas or a similar library."""
    return hasattr(X, "columns") and hasattr(X, "to_numpy") and getattr(X, "ndim", 2) == 2


def unlabelled(X: Any, y: Any, names: Sequence[str] | None) -> tuple[Any, Any, Sequence[str] | None]:
    """Features, targets and names, where X may be a data frame and y the name of one of its columns, or several.

    Raises ValueError for a target that is not a column, a column with gaps or entries that are not numbers, and rows
    that do not match.
    """
    if not is_frame(X):
        if isinstance(y, str):
            raise ValueError(f"`y` can be the name of a column only where `X` is a data frame; received {y!r}.")
        return X, y, names
    columns = list(X.columns)
    if len(set(map(str, columns))) < len(columns):
        raise ValueError("`X` must have a different name for every column; received two of the same.")
    wanted = [y] if isinstance(y, str | int) else list(y) if isinstance(y, list | tuple) else []
    if wanted and (wanted[0] is y or all(isinstance(each, str) for each in wanted)):
        for each in wanted:
            if each not in columns:
                known = ", ".join(repr(column) for column in columns[:12])
                raise ValueError(f"`y` must be a column of `X`, one of {known}; received {each!r}.")
        if len(set(wanted)) < len(wanted):
            raise ValueError(f"`y` must name each column once; received {wanted}.")
        targets = np.column_stack([numbers(X[each], str(each), "`y`", target=True) for each in wanted])
        y = targets[:, 0] if isinstance(y, str | int) else targets
        columns = [column for column in columns if column not in wanted]
    else:
        y = _aligned(X, y)
    if not columns:
        raise ValueError("`X` has no column besides the target.")
    values = np.column_stack([numbers(X[column], str(column), "`X`") for column in columns])
    return values, y, [str(column) for column in columns] if names is None else names


def labels(column: Any, name: str, what: str) -> tuple[Array, tuple[str, str]]:
    """A column of two values as -1 and +1, the smaller one (of texts the first in order) first; and the two as text.

    Raises ValueError for gaps, and for a column of one value or more than two.
    """
    values = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    gaps = np.array([value is None or value != value for value in values.ravel()])
    if gaps.any():
        raise ValueError(f"{what}: column {name!r} must be finite; row {int(np.argmax(gaps))} holds no value.")
    if values.dtype.kind == "O":
        values = values.astype(str)
    found = np.unique(values)
    if len(found) != 2:
        shown = ", ".join(str(value) for value in found[:4]) + (", ..." if len(found) > 4 else "")
        raise ValueError(f"{what}: column {name!r} must hold two labels; received {len(found)}: {shown}.")
    return np.where(values == found[1], 1.0, -1.0), (str(found[0]), str(found[1]))


def numbers(column: Any, name: str, what: str, remedies: tuple[str, str] = _REMEDIES, *, target: bool = False) -> Array:
    """A column as floats.

    Raises ValueError naming the column, the first entry that is not a number, and the advice.

    Parameters
    ----------
    what : str
        The argument or file that the column belongs to, for messages.
    remedies : pair of str
        Advice for a column that is not numeric, and for rows without a value.
    target : bool
        Whether the column is a target: two labels suggest a loss for labels.
    """
    values = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    if values.dtype.kind in "bui":
        return values.astype(float)
    if values.dtype.kind != "f":
        values = _parsed(values, name, what, remedies, target)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        held = "no value" if np.isnan(values[bad[0]]) else str(values[bad[0]])
        remedy = remedies[0] if len(bad) == len(values) else f"{remedies[1]}, or fill them"
        if held != "no value":
            remedy = "correct it"
        raise ValueError(
            f"{what}: column {name!r} must be finite; row {bad[0]} holds {held} "
            f"({len(bad)} of {len(values)} rows do): {remedy}."
        )
    return values.astype(float)


def _parsed(values: NDArray[Any], name: str, what: str, remedies: tuple[str, str], target: bool) -> Array:
    out = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if value is None or value is getattr(np, "nat", None) or type(value).__name__ in ("NAType", "NaTType"):
            continue
        try:
            # Python's float takes 1_000 for a number, no table does.
            if isinstance(value, complex | np.datetime64 | np.timedelta64) or (isinstance(value, str) and "_" in value):
                raise ValueError
            out[row] = float(value)
        except (TypeError, ValueError):
            kinds, remedy = len({str(each) for each in values}), remedies[0]
            if _THOUSANDS.fullmatch(str(value)):
                remedy = "write numbers without commas between thousands"
            elif value == GAP:
                remedy = f"{remedies[1]} if it marks a gap" + ("" if target else f", or {remedy}")
            elif target:
                remedy = "two labels are for the logistic or exponential `loss`"
            elif kinds <= max(2, len(values) // 2) and not isinstance(value, np.datetime64 | np.timedelta64):
                remedy = f"encode it as columns of 0 and 1 (pandas.get_dummies), or {remedy}"
            shown = shortened(repr(str(value)), 40)
            raise ValueError(
                f"{what}: column {name!r} must hold numbers; received {shown} in row {row}: {remedy}."
            ) from None
    return out


def _aligned(X: Any, y: Any) -> Any:
    """A labelled target in the order of the rows of X."""
    if not (hasattr(y, "index") and hasattr(y, "to_numpy") and hasattr(X, "index")):
        return y.to_numpy() if hasattr(y, "to_numpy") else y
    if not y.index.equals(X.index):
        if len(y) != len(X) or set(y.index) != set(X.index) or not (X.index.is_unique and y.index.is_unique):
            raise ValueError("`y` must have the rows of `X`; their indices differ. Align them, or pass y.to_numpy().")
        y = y.reindex(X.index)
    if getattr(y, "ndim", 1) == 2:
        return np.column_stack([numbers(y[column], str(column), "`y`", target=True) for column in y.columns])
    return numbers(y, str(y.name), "`y`", target=True)
