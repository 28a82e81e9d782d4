"""The limit process in rational arithmetic, as a path."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import numpy as np

from flowsim.limits.dual_bounds import DualBounds
from flowsim.limits.path import SaddlePath
from flowsim.limits.rational import exact_process
from flowsim.limits.selection import NEGLIGIBLE, check_reach, selected
from flowsim.limits.start_state import StartState
from flowsim.limits.units import LATEST, stopped_by_time
from flowsim.problem import Regression
from flowsim.problem.entries import dense


def exactly(
    problem: Regression, bounds: DualBounds, state: StartState | None, max_jumps: int | None, t_end: float
) -> SaddlePath:
    if not (problem.is_dense or hasattr(problem.X, "toarray")):
        raise ValueError("`exact` needs the entries of X; received a LinearOperator.")
    began = time.perf_counter()
    X, y = dense(problem), problem.y
    if np.any(bounds.offset):
        y = y - problem.predict(np.broadcast_to(bounds.offset, (problem.d,)))
    sides = [[None if math.isinf(v) else Fraction(v) for v in side.tolist()] for side in bounds.thresholds]
    result = exact_process(
        [[Fraction(v) for v in row] for row in X.tolist()],
        [Fraction(v) for v in y.tolist()],
        sides,
        [[Fraction(v) for v in side.tolist()] for side in bounds.penalties],
        max_jumps=max_jumps,
        t_end=Fraction(min(t_end, LATEST)),
    )
    saddles = np.array([[float(v) for v in row] for row in result.saddles])
    times = [0.0, *map(float, result.jump_times)]
    for saddle, tied, t in zip(saddles, result.tied, times, strict=True):
        if tied:  # the fit is rational; the flow's choice among the minimisers with this fit is not
            coordinates = np.array(sorted({i for i, _ in tied}))
            flags = np.array([((i, 1) in tied) + 2 * ((i, -1) in tied) for i in coordinates.tolist()], dtype=np.uint8)
            values = selected(X[:, coordinates], saddle[coordinates], coordinates, flags, bounds, t)
            saddle[coordinates] = np.where(np.abs(values) > NEGLIGIBLE * np.abs(values).max(), values, 0.0)
    horizon, complete, message = math.inf, True, "reached the minimiser"
    if result.next_jump is not None:
        is_late = result.next_jump >= min(t_end, LATEST)
        horizon, complete = min(t_end, LATEST) if is_late else float(result.next_jump), False
        message = stopped_by_time(t_end) if is_late else f"stopped after max_jumps={max_jumps}"
    supports = tuple(np.flatnonzero(row) for row in saddles)
    for saddle, support, t in zip(saddles, supports, times, strict=True):
        check_reach(bounds, support, saddle[support], t)
    return SaddlePath(
        problem=problem,
        jump_times=np.array([float(v) for v in result.jump_times]),
        supports=supports,
        values=tuple(row[support] for row, support in zip(saddles, supports, strict=True)),
        hits=tuple(np.array(hit, dtype=np.int64) for hit in result.hits),
        horizon=horizon,
        complete=complete,
        message=message,
        start_beta=None if state is None else state.beta,
        exact=result,
        stats={"jumps": len(result.jump_times), "seconds": time.perf_counter() - began},
        **bounds.of_path(),
    )
