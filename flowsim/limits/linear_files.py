"""Files of limit paths of linear networks: the problem, its reduction, the blocks and their plateaus."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from flowsim.limits.files import reading_path, with_common
from flowsim.limits.linear_blocks import Block, ReducedLinearData
from flowsim.limits.linear_losses import LossBlock, LossData
from flowsim.limits.linear_measurements import MeasuredBlock, MeasuredData
from flowsim.limits.linear_process import RankPlateau
from flowsim.network.linear_algebra import LinearData
from flowsim.problem import MatrixSensing, Problem
from flowsim.results.netcdf import Labelled
from flowsim.results.saved import on_own_axes

LINEAR_PATH = "flowsim-linear-path-1"
_PLAIN = ("directions", "curvatures", "signal")
_OF_BLOCK = ("features", "targets", "curvatures", "signal", "a")
_OF_DATA = {Block: (), LossBlock: ("rows", "y", "weight"), MeasuredBlock: ("measurements",)}
_OF_PLATEAU = ("beta", "Z", "levels", "rates")


def labelled_linear_path(path: Any) -> Labelled:
    """All of a LinearSaddlePath.

    Raises ValueError if X is a LinearOperator, or the loss one of the user's own.
    """
    variables: dict[str, Any] = {}

    def put(name: str, values: Any) -> None:
        variables[name] = on_own_axes(name, values)

    for name in _PLAIN:
        put(f"data_{name}", getattr(path.data, name))
    blocks = [path.whole, *path.blocks]
    for k, block in enumerate(blocks):
        for name in _OF_BLOCK + _OF_DATA[type(block)]:
            put(f"block{k}_{name}", getattr(block, name))
    number: dict[int, int] = {}
    for here in path.places:
        for plateau in here:
            if id(plateau) not in number:
                k = number.setdefault(id(plateau), len(number))
                for name in _OF_PLATEAU:
                    put(f"plateau{k}_{name}", getattr(plateau, name))
                put(f"plateau{k}_facts", [plateau.time, float(plateau.exhausted)])
                if plateau.towards is not None:
                    put(f"plateau{k}_towards", plateau.towards)
    put("places", [[number[id(plateau)] for plateau in here] for here in path.places])
    put("ranks", path.ranks)
    if path.start is not None:
        put("start", path.start)
    return with_common(
        path, LINEAR_PATH, variables, width=path.width, pulls=[block.b for block in blocks],
        least_loss=float(getattr(path.data, "least_loss", np.nan)),
    )  # fmt: skip


def read_linear_fields(file: str | os.PathLike[str], data: Labelled) -> dict[str, Any]:
    """The fields of a path as :func:`labelled_linear_path` gives them, from what a file holds."""
    with reading_path(file, data, LINEAR_PATH) as fields:
        problem, places = fields["problem"], data["places"].values
        blocks = [_block(data, problem, k) for k in range(places.shape[1] + 1)]
        plateaus = [_plateau(data, k) for k in range(int(places.max()) + 1)]
        return {
            **fields,
            "data": _reduced(data, problem),
            "ranks": data["ranks"].values,
            "width": int(data.attrs["width"]),
            "blocks": tuple(blocks[1:]),
            "places": tuple(tuple(plateaus[k] for k in here) for here in places),
            "whole": blocks[0],
            "start": data["start"].values if "start" in data else None,
        }


def _block(data: Labelled, problem: Problem, k: int) -> Block:
    fields: dict[str, Any] = {name: data[f"block{k}_{name}"].values for name in _OF_BLOCK}
    b = float(np.atleast_1d(data.attrs["pulls"])[k])
    kind = next((kind for kind, own in _OF_DATA.items() if own and f"block{k}_{own[0]}" in data), Block)
    fields |= {name: data[f"block{k}_{name}"].values for name in _OF_DATA[kind]}
    if kind is LossBlock:
        fields["loss"] = problem.loss_function
    return kind(**fields, b=b)


def _plateau(data: Labelled, k: int) -> RankPlateau:
    fields = {name: data[f"plateau{k}_{name}"].values for name in _OF_PLATEAU}
    time, exhausted = data[f"plateau{k}_facts"].values
    towards = data[f"plateau{k}_towards"].values if f"plateau{k}_towards" in data else None
    return RankPlateau(float(time), **fields, towards=towards, exhausted=bool(exhausted))


def _reduced(data: Labelled, problem: Problem) -> LinearData | ReducedLinearData:
    fields = {name: data[f"data_{name}"].values for name in _PLAIN}
    if isinstance(problem, MatrixSensing) and "block0_measurements" in data:
        return MeasuredData(problem, **fields)
    if "block0_rows" in data:
        return LossData(problem, features=np.asarray(problem.X @ fields["directions"]), **fields)
    return LinearData(problem.n, problem.d, problem.n_targets, least_loss=float(data.attrs["least_loss"]), **fields)
