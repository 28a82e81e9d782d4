"""The saddle-to-saddle process of two-layer linear networks: its blocks, one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.limits.linear_blocks import Block, independent_blocks, whole_block
from flowsim.limits.linear_path import LinearSaddlePath
from flowsim.limits.linear_process import TIE, BlockProcess, Plateau
from flowsim.network import LinearNetwork
from flowsim.network.linear_algebra import LinearData
from flowsim.network.linear_start import compressed_start
from flowsim.problem import Problem, Regression, require_squares

__all__ = ["linear_saddle_to_saddle"]

Array = NDArray[np.float64]

#: Overlaps of the start with a growing direction below this, relative to the start, are none.
_NO_OVERLAP = 1e-10
#: Strengths closer than this, relatively, are equal.
_EQUAL = 1e-9


def linear_saddle_to_saddle(
    net: LinearNetwork,
    problem: Problem,
    start: Mapping[str, ArrayLike] | None = None,
    *,
    max_jumps: int | None = None,
    t_end: float | None = None,
) -> LinearSaddlePath:
    r"""The limit process of gradient flow on ``U V^T`` from vanishing initialisation; see :func:`saddle_to_saddle`."""
    began = time.perf_counter()
    squares = require_squares(problem, "the limit process of a LinearNetwork")
    if squares.y.ndim == 1:  # beta is a matrix of one column, and so are the targets
        squares = Regression(squares.X, squares.y[:, None], squares.feature_names)
    data = LinearData.of(squares)
    compression = compressed_start(net, squares, start)
    # alpha vanishes, the ratio of U to V does not: their scales are of no account.
    Z = np.concatenate([_unit(data.directions.T @ compression.A), _unit(compression.B)])
    width = int(np.linalg.matrix_rank(Z))
    if width == 0:
        raise ValueError("`start` must have a part that moves; received U outside the row space of X and V = 0.")
    horizon, most = math.inf if t_end is None else float(t_end), math.inf if max_jumps is None else float(max_jumps)
    blocks, processes = independent_blocks(net, data), []
    for block in blocks:
        inside = block.stack(Z)
        process = BlockProcess(block, int(np.linalg.matrix_rank(inside)))
        _check_overlap(process, inside)
        process.run(horizon, most)
        processes.append(process)
    times, places, stop, because = _merge(processes, width, horizon, most)
    complete, message = _verdict(processes, places[-1], because, stop)
    if _order_is_delicate(processes, whole_block(net, data), width, times):
        message += "; the data decouple exactly, and the least coupling would change the jump times"
    return LinearSaddlePath(
        problem=squares,
        data=data,
        jump_times=np.array(times),
        ranks=np.array([sum(plateau.rank for plateau in here) for here in places], dtype=np.int64),
        width=width,
        blocks=tuple(blocks),
        places=tuple(places),
        horizon=math.inf if complete else min(stop, horizon),
        complete=complete,
        message=message,
        stats={"jumps": len(times), "blocks": len(blocks), "seconds": time.perf_counter() - began},
    )


def _order_is_delicate(processes: list[BlockProcess], whole: Block, width: int, times: list[float]) -> bool:
    """Whether the same data, their parts coupled ever so little, would be learned at other times."""
    if len(processes) == 1 or not all(process.closed_form for process in processes):
        return False
    coupled = BlockProcess(whole, width)
    coupled.run(math.inf, len(times))
    others = [plateau.time for plateau in coupled.plateaus[1:]]
    return not np.allclose(np.unique(others)[: len(times)], times[: len(others)], rtol=_EQUAL, atol=0.0)


def _unit(part: Array) -> Array:
    size = float(np.linalg.norm(part))
    return part / size if size > 0 else part


def _check_overlap(process: BlockProcess, Z: Array) -> None:
    """The k fastest directions must meet k independent ones of the start, for every k of those that grow.

    Raises
    ------
    ValueError
        If they do not.
    """
    overlap = process.growing_directions().T @ Z
    for k in range(1, min(len(overlap), process.columns) + 1):
        if np.linalg.svd(overlap[:k], compute_uv=False)[-1] <= _NO_OVERLAP:
            raise ValueError(
                f"`start` must be in general position; its overlap with the {k} fastest growing directions "
                f"of the data has rank {k - 1} only, and what the flow learns then is not known."
            )


def _merge(
    processes: list[BlockProcess], width: int, t_end: float, max_jumps: float
) -> tuple[list[float], list[tuple[Plateau, ...]], float, str]:
    """Jump times, the plateaus of all blocks after each, when the next jump would be, and why there is none."""
    here = [0] * len(processes)
    times: list[float] = []
    places = [tuple(process.plateaus[0] for process in processes)]
    while True:
        stop = min(process.next_jump(process.plateaus[j]) for process, j in zip(processes, here, strict=True))
        if math.isinf(stop):
            return times, places, stop, "end"
        if stop >= t_end:
            return times, places, stop, f"stopped at t_end={t_end:g}"
        if len(times) >= max_jumps:
            return times, places, stop, f"stopped after max_jumps={max_jumps:.0f}"
        # Directions that reach their level together make one jump; a block may have several of them.
        for k, process in enumerate(processes):
            while process.next_jump(process.plateaus[here[k]]) <= stop * (1 + TIE):
                process.extend(here[k] + 1)
                here[k] += 1
        now = tuple(process.plateaus[j] for process, j in zip(processes, here, strict=True))
        if sum(plateau.rank for plateau in now) > width:
            return times, places, stop, "width"
        times.append(stop)
        places.append(now)


def _verdict(processes: list[BlockProcess], last: tuple[Plateau, ...], because: str, stop: float) -> tuple[bool, str]:
    rank = sum(plateau.rank for plateau in last)
    if because not in ("end", "width"):
        return False, because
    if because == "end" and not any(plateau.exhausted for plateau in last):
        return True, "reached the minimiser"
    best = f"reached the best fit of rank {rank}, the largest that the start allows"
    if len(processes) == 1:
        return True, best
    learned = np.concatenate([p.strengths[: plateau.rank] for p, plateau in zip(processes, last, strict=True)])
    waiting = np.concatenate([p.strengths[plateau.rank :] for p, plateau in zip(processes, last, strict=True)])
    if all(process.closed_form for process in processes) and learned.min() >= (1 - _EQUAL) * waiting.max():
        return True, best
    return False, (
        f"at t={stop:.6g} a direction of a part of the data that decouples exactly is due, but the start allows rank "
        f"{rank} only; what a flow without a free hidden unit does then is not known"
    )
