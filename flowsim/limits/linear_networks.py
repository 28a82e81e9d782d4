"""The saddle-to-saddle process of two-layer linear networks: the jumps of its blocks, merged in time."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np

from flowsim.limits.convex import Escape
from flowsim.limits.linear_blocks import Block, ReducedLinearData, independent_blocks, whole_block
from flowsim.limits.linear_losses import LossData, loss_blocks
from flowsim.limits.linear_measurements import MeasuredData, equivalent_regression, measured_block
from flowsim.limits.linear_path import LinearSaddlePath
from flowsim.limits.linear_process import TIE, BlockProcess, RankPlateau
from flowsim.limits.linear_starts import check_overlap, pretrained_process, vanishing_start
from flowsim.network import GivenWeights, LinearNetwork
from flowsim.network.linear_algebra import LinearData, require_range
from flowsim.problem import MatrixSensing, Problem, Regression, matrix_targets, require_squares

#: Relative difference below which singular values are equal.
_EQUAL = 1e-9
#: The same for jump times that nearly tie.
_NEAR = 1e-3


def linear_saddle_to_saddle(
    net: LinearNetwork,
    problem: Problem,
    start: GivenWeights | None = None,
    *,
    pretrained: GivenWeights | None = None,
    max_jumps: int | None = None,
    t_end: float | None = None,
) -> LinearSaddlePath:
    r"""The limit process of gradient flow on ``U V^T`` from vanishing initialisation; see :func:`saddle_to_saddle`."""
    began = time.perf_counter()
    problem = matrix_targets(problem)  # beta is a matrix, of one column for one target
    require_range(problem, only_data=isinstance(problem, Regression))
    data, blocks, whole = _reduced(net, problem)
    horizon, most = math.inf if t_end is None else float(t_end), math.inf if max_jumps is None else float(max_jumps)
    if pretrained is not None:
        processes = [pretrained_process(net, problem, data.directions, blocks, whole, start, pretrained)]
        blocks, width, given = [whole], processes[0].columns, None
    else:
        (Z, given), processes = vanishing_start(net, problem, data.directions, start), []
        width = int(np.linalg.matrix_rank(Z))
        for block in blocks:
            inside = block.stack(Z)
            process = BlockProcess(block, int(np.linalg.matrix_rank(inside)))
            check_overlap(process.growing_directions(), process.columns, inside)
            processes.append(process)
    for process in processes:
        process.run(horizon, most)
    times, places, stop, because = _merge(processes, width, horizon, most)
    escape = _escape(processes, data, stop) if because == "escape" else None
    complete, message = (False, _told(escape)) if escape else _verdict(processes, places[-1], because, stop)
    if _order_is_delicate(processes, whole, width, times):
        message += "; the data decouple exactly, and any coupling, however small, would change the jump times"
    message += _near_tie(times, places)
    return LinearSaddlePath(
        problem=problem,
        data=data,
        jump_times=np.array(times),
        ranks=np.array([sum(plateau.rank for plateau in here) for here in places], dtype=np.int64),
        width=width,
        blocks=tuple(blocks),
        places=tuple(places),
        horizon=math.inf if complete else min(stop, horizon),
        complete=complete,
        message=message,
        escape=escape,
        whole=whole,
        start=given,
        stats={"jumps": len(times), "blocks": len(blocks), "seconds": time.perf_counter() - began},
    )


def _near_tie(times: list[float], places: list[tuple[RankPlateau, ...]]) -> str:
    """What two jumps that nearly coincide mean for flows; empty if there are none.

    On the plateau between them the direction that waits has the size ``exp(-gap rate ln(1/alpha))``.
    """
    pairs = [(b - a, k) for k, (a, b) in enumerate(itertools.pairwise(times)) if TIE * b < b - a <= _NEAR * b]
    if not pairs:
        return ""
    gap, k = min(pairs)
    rate = max(float(plateau.rates.max(initial=0.0)) for plateau in places[k + 1])
    return (
        f"; the jumps at {times[k]:.9g} and {times[k + 1]:.9g} nearly tie: a flow rests at the saddle between them "
        f"only where ln(1/alpha) is well above {1.0 / (gap * rate):.2g}, else both directions leave together"
    )


def _reduced(net: LinearNetwork, problem: Problem) -> tuple[LinearData | ReducedLinearData, list[Block], Block]:
    """The data in the row space of X, their independent blocks, and all of them as one."""
    squares = LinearData.of(problem) if isinstance(problem, Regression) else None
    if isinstance(problem, MatrixSensing):
        measured = MeasuredData.of(problem)
        _require_signal(measured)
        squares = equivalent_regression(problem)
        if squares is None:
            block = measured_block(net, measured)
            return measured, [block], block
    if squares is not None:
        return squares, independent_blocks(net, squares), whole_block(net, squares)
    if net.noise is not None:
        require_squares(problem, "weight noise, whose expectation needs more than mean and variance otherwise")
    data = LossData.of(problem)
    _require_signal(data)
    return data, list(loss_blocks(net, data)), loss_blocks(net, data, apart=False)[0]


def _require_signal(data: ReducedLinearData) -> None:
    if not data.signal.any():
        raise ValueError("`problem` must have a gradient that is not 0 at beta = 0: there no weight moves.")


def _escape(processes: list[BlockProcess], data: LinearData | ReducedLinearData, time: float) -> Escape:
    """The escape of a block, in all coordinates."""
    process = next(each for each in processes if each.escape is not None)
    assert process.escape is not None
    _, direction, margin = process.escape
    lifted = data.directions @ process.block.lift(direction)
    return Escape(time, np.array([process.plateaus[-1].rank]), lifted, margin if len(processes) == 1 else 0.0)


def _told(escape: Escape) -> str:
    if escape.margin == 0:
        return f"part of beta escapes to infinity at t={escape.time:.6g}, along `escape.direction`; the rest is unknown"
    return f"beta escapes to infinity at t={escape.time:.6g}, along `escape.direction` with margin {escape.margin:.6g}"


def _order_is_delicate(processes: list[BlockProcess], whole: Block, width: int, times: list[float]) -> bool:
    """Whether arbitrarily small couplings between the parts of the data would change the jump times."""
    if len(processes) == 1 or not all(process.closed_form for process in processes):
        return False
    coupled = BlockProcess(whole, width)
    coupled.run(math.inf, len(times))
    others = [plateau.time for plateau in coupled.plateaus[1:]]
    return not np.allclose(np.unique(others)[: len(times)], times[: len(others)], rtol=_EQUAL, atol=0.0)


def _merge(
    processes: list[BlockProcess], width: int, t_end: float, max_jumps: float
) -> tuple[list[float], list[tuple[RankPlateau, ...]], float, str]:
    """Jump times, the plateaus of all blocks after each, the time of the next jump, and why it is not taken."""
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
                if here[k] + 1 == len(process.plateaus):
                    return times, places, stop, "escape"
                here[k] += 1
        now = tuple(process.plateaus[j] for process, j in zip(processes, here, strict=True))
        if sum(plateau.rank for plateau in now) > width:
            return times, places, stop, "width"
        times.append(stop)
        places.append(now)


def _verdict(
    processes: list[BlockProcess], last: tuple[RankPlateau, ...], because: str, stop: float
) -> tuple[bool, str]:
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
        f"{rank} only; the limit of a flow without a free hidden unit is not known"
    )
