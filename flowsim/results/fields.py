"""The fields by which objects are written to a file, and problems made of theirs again."""

from __future__ import annotations

import dataclasses
from functools import singledispatch
from typing import Any

import numpy as np

from flowsim.problem import Loss, MatrixCompletion, MatrixSensing, Problem, Regression
from flowsim.problem.losses import LOSSES


@singledispatch
def fields_of(value: Any) -> dict[str, Any] | None:
    """The arguments that make an object again; None for one that is written as text."""
    if not dataclasses.is_dataclass(value):
        return None
    return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}


@fields_of.register
def _of_loss(loss: Loss) -> dict[str, Any]:
    return {"name": loss.name}


@fields_of.register
def _of_problem(problem: Problem) -> dict[str, Any]:
    if not isinstance(problem, Regression) and LOSSES.get(problem.loss_function.name) is not problem.loss_function:
        raise ValueError("`path` cannot be saved: its loss is one of your own, which a file cannot hold.")
    if problem.is_dense:
        entries: dict[str, Any] = {"X": problem.X}
    elif hasattr(problem.X, "tocsr"):
        X: Any = problem.X.tocsr()
        entries = {"values": X.data, "columns": X.indices, "rows": X.indptr}
    else:
        raise ValueError("`path` cannot be saved: its X is a LinearOperator, which a file cannot hold.")
    return entries | {
        "y": problem.y,
        "loss": problem.loss_function.name,
        "sample_weight": problem.sample_weight,
        "row_scale": problem.row_scale,
        "feature_names": np.array(problem.feature_names),
    }


@fields_of.register
def _of_sensing(problem: MatrixSensing) -> dict[str, Any]:
    return {"A": problem.A, "y": problem.y}


@fields_of.register
def _of_completion(problem: MatrixCompletion) -> dict[str, Any]:
    entries = np.column_stack([problem.rows, problem.columns, problem.y])
    return {"entries": entries, "shape": (problem.d, problem.n_targets)}


def make_problem(
    y: Any,
    loss: str,
    sample_weight: Any,
    feature_names: Any,
    X: Any = None,
    values: Any = None,
    columns: Any = None,
    rows: Any = None,
    row_scale: Any = None,
) -> Problem:
    """The problem of these fields, with a sparse X if its parts are given."""
    names = feature_names.tolist()
    if X is None:
        import scipy.sparse

        X = scipy.sparse.csr_array((values, columns, rows), shape=(len(rows) - 1, len(names)))
    made = Problem(X, y, loss=loss, sample_weight=sample_weight, feature_names=names)
    made.row_scale = row_scale
    return made
