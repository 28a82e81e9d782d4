"""Files of limit paths: the problem, the jumps and the saddles; in the format of trajectories."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array
from flowsim.growth.origin_curves import OriginCurves
from flowsim.limits.convex import Escape
from flowsim.limits.saddle_list import Saddles
from flowsim.network import DiagonalNetwork
from flowsim.problem import MatrixCompletion, MatrixSensing, Problem, Regression
from flowsim.problem.losses import LOSSES
from flowsim.results.netcdf import Labelled
from flowsim.results.saved import on_own_axes

PATH = "flowsim-path-1"
_PAIRS = ("thresholds", "penalties", "speeds")


@dataclass(frozen=True, eq=False)
class TabulatedMemory:
    """The growth with the dual of the coordinates that take part in jumps, as numbers."""

    coordinates: NDArray[np.int64]  #: (m,), ascending
    #: (k, m)
    coefficients: Array
    rates: Array

    @classmethod
    def of(cls, path: Saddles) -> TabulatedMemory:
        """The memory of the coordinates that a path visits."""
        assert path.memory is not None
        taking_part = [*path.supports, *path.hits, np.zeros(0, dtype=np.int64)]
        coordinates = np.unique(np.concatenate(taking_part)).astype(np.int64)
        return cls(coordinates, *path.memory(coordinates))

    def __call__(self, coordinates: NDArray[np.int64]) -> tuple[Array, Array]:
        place = np.searchsorted(self.coordinates, coordinates)
        return self.coefficients[:, place], self.rates[:, place]


def problem_variables(problem: Problem) -> dict[str, Any]:
    """The variables of a file that hold a problem, without the names of features and loss.

    Raises ValueError if X is a LinearOperator, or the loss one of the user's own: a file cannot hold it.
    """
    if (
        not isinstance(problem, Regression | MatrixSensing)
        and LOSSES.get(problem.loss_function.name) is not problem.loss_function
    ):
        raise ValueError("`path` cannot be saved: its loss is one of your own, which a file cannot hold.")
    variables: dict[str, Any] = {"y": (("row", "target") if problem.y.ndim == 2 else ("row",), problem.y)}
    if isinstance(problem, MatrixCompletion):
        shape = np.array([problem.d, problem.n_targets])
        return {
            **variables,
            "entry": (("row", "place"), np.column_stack([problem.rows, problem.columns])),
            "shape": ("place", shape),
        }
    if isinstance(problem, MatrixSensing):
        return {**variables, "A": (("row", "feature", "column"), problem.A)}
    if problem.is_dense:
        variables["X"] = (("row", "feature"), problem.X)
    elif hasattr(problem.X, "tocsr"):
        X = problem.X.tocsr()
        variables |= {"X_values": ("entry", X.data), "X_column": ("entry", X.indices), "X_start": ("row_", X.indptr)}
    else:
        raise ValueError("`path` cannot be saved: its X is a LinearOperator, which a file cannot hold.")
    if problem.sample_weight is not None:
        variables["sample_weight"] = ("row", problem.sample_weight)
    return variables


def labelled_path(path: Saddles) -> Labelled:
    """Everything but the fractions (``exact``); curves of general formulas by formula and start.

    Raises ValueError if X is a LinearOperator: a file cannot hold it.
    """
    variables: dict[str, Any] = {}
    for name, parts in (("support", path.supports), ("value", path.values), ("hit", path.hits)):
        flat = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        variables |= {name: (f"{name}_entry", flat), f"{name}_count": (f"{name}_part", [len(each) for each in parts])}
    for name in _PAIRS:
        for side, values in zip(("plus", "minus"), getattr(path, name), strict=True):
            variables[f"{name}_{side}"] = (f"{name}_feature", np.atleast_1d(values))
    variables["offset"] = ("offset_feature", np.atleast_1d(path.offset))
    if path.memory is not None:
        known = TabulatedMemory.of(path)
        variables |= {
            "memory_coordinate": ("memory_coordinate", known.coordinates),
            "memory_coefficients": (("memory_part", "memory_coordinate"), known.coefficients),
            "memory_rates": (("memory_part", "memory_coordinate"), known.rates),
        }
    if path.curves is not None:
        variables |= _of_curves(path.curves)
    if path.start_beta is not None:
        variables["start_beta"] = ("feature", path.start_beta)
    curves = "" if path.curves is None else json.dumps(_told(path.curves))
    return with_common(path, PATH, variables, curves=curves, order=path.order)


def read_fields(file: str | os.PathLike[str], data: Labelled) -> dict[str, Any]:
    """The fields of a path as :func:`labelled_path` gives them, from what a file holds."""
    with reading_path(file, data, PATH) as fields:
        offset = data["offset"].values
        memory = None
        if "memory_rates" in data:
            memory = TabulatedMemory(
                *(data[f"memory_{name}"].values for name in ("coordinate", "coefficients", "rates"))
            )
        return {
            **fields,
            **{name: tuple(data[f"{name}_{side}"].values for side in ("plus", "minus")) for name in _PAIRS},
            "supports": _parts(data, "support"),
            "values": _parts(data, "value"),
            "hits": _parts(data, "hit"),
            "order": int(data.attrs["order"]),
            "offset": offset if len(offset) > 1 else float(offset[0]),
            "start_beta": data["start_beta"].values if "start_beta" in data else None,
            "memory": memory,
            "curves": _curves(data),
        }


def with_common(path: Any, kind: str, variables: dict[str, Any], **attributes: Any) -> Labelled:
    """The fields common to all limit paths, with the variables and attributes of one kind."""
    problem, escape = path.problem, path.escape
    variables = problem_variables(problem) | variables
    if escape is not None:
        variables |= {f"escape_{name}": on_own_axes(name, getattr(escape, name)) for name in ("direction", "hits")}
    return Labelled.of(
        variables,
        {"feature": ("feature", list(problem.feature_names)), "jump_times": ("jump", path.jump_times)},
        {
            "format": kind, "horizon": float(path.horizon), "complete": int(path.complete), "message": path.message,
            "loss": problem.loss_function.name, "escape": [] if escape is None else [escape.time, escape.margin],
            "stats": json.dumps(path.stats, default=float), **attributes,
        },
    )  # fmt: skip


@contextmanager
def reading_path(file: str | os.PathLike[str], data: Labelled, kind: str) -> Iterator[dict[str, Any]]:
    """The fields common to all limit paths, of a file of one kind.

    Raises FileNotFoundError, ValueError if the file is missing, damaged, or of another kind; also for any failure in
    the block.
    """
    try:
        if data.attrs.get("format") != kind:
            raise ValueError(f"format {data.attrs.get('format')!r}")
        escape = None
        if "escape_direction" in data:
            time, margin = data.attrs["escape"]
            escape = Escape(float(time), data["escape_hits"].values, data["escape_direction"].values, float(margin))
        yield {
            "problem": _read_problem(data),
            "jump_times": data["jump_times"].values,
            "horizon": float(data.attrs["horizon"]),
            "complete": bool(data.attrs["complete"]),
            "message": str(data.attrs["message"]),
            "escape": escape,
            "stats": json.loads(data.attrs["stats"]),
        }
    except Exception as error:  # any missing or invalid field
        raise ValueError(f"`path` must be a path file; {file} cannot be read as one ({error}).") from error


def _told(curves: OriginCurves) -> dict[str, Any]:
    """Attributes of a file: formulas and options of the curves of general formulas."""
    formulas = [formula.text for formula in curves.net.distinct]
    return {"formulas": formulas, "weights": list(curves.net.weights), "order": curves.order, "fresh": curves.fresh}


def _of_curves(curves: OriginCurves) -> dict[str, Any]:
    """Variables of a file: their start, one column where all coordinates start alike, and the formula of each."""
    alike = curves.values.shape[1] > 0 and bool((curves.values == curves.values[:, :1]).all())
    values = curves.values[:, :1] if alike else curves.values
    kinds = np.zeros(1, dtype=np.int64) if curves.kinds is None else np.asarray(curves.kinds)
    return {
        "curve_start": (("curve_weight", "curve_feature"), np.ascontiguousarray(values)),
        "curve_kind": ("curve_kind_feature", kinds),
    }


def _curves(data: Labelled) -> OriginCurves | None:
    """The curves, derived again: the file holds formulas, no code."""
    if not data.attrs.get("curves"):
        return None
    told, kinds, d = json.loads(data.attrs["curves"]), data["curve_kind"].values, data.sizes["feature"]
    formulas = told["formulas"]
    net = DiagonalNetwork(formulas[0] if len(kinds) == 1 < d else [formulas[kind] for kind in kinds])
    rows = [told["weights"].index(name) for name in net.weights]
    start = np.broadcast_to(data["curve_start"].values[rows], (len(rows), d))
    return OriginCurves(net, start, int(told["order"]), bool(told["fresh"]))


def _read_problem(data: Labelled) -> Problem:
    import scipy.sparse

    if "A" in data:
        return MatrixSensing(data["A"].values, data["y"].values)
    if "entry" in data:
        return MatrixCompletion(np.column_stack([data["entry"].values, data["y"].values]), tuple(data["shape"].values))
    names = [str(name) for name in data["feature"].values]
    if "X" in data:
        X: Any = data["X"].values
    else:
        parts = (data["X_values"].values, data["X_column"].values, data["X_start"].values)
        X = scipy.sparse.csr_array(parts, shape=(len(parts[2]) - 1, len(names)))
    weight = data["sample_weight"].values if "sample_weight" in data else None
    loss = str(data.attrs.get("loss", "squared"))
    return Problem(X, data["y"].values, loss=loss, sample_weight=weight, feature_names=names)


def _parts(data: Labelled, name: str) -> tuple[Any, ...]:
    counts = data[f"{name}_count"].values
    return tuple(np.split(data[name].values, np.cumsum(counts)[:-1])) if len(counts) else ()
