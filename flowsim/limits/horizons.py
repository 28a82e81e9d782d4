"""Known in advance of a run: its limit, the last jump, and the infimum of the loss."""

from __future__ import annotations

from flowsim.limits.linear_path import LinearSaddlePath
from flowsim.limits.path import SaddlePath
from flowsim.limits.process import saddle_to_saddle
from flowsim.network import DiagonalNetwork, LinearNetwork
from flowsim.problem import Problem, Regression

#: Default end of a run relative to the last jump of its limit, so that the last plateau is visible.
BEYOND_LAST_JUMP = 1.5


def limit_or_why(
    net: DiagonalNetwork | LinearNetwork, problem: Problem
) -> tuple[SaddlePath | LinearSaddlePath | None, str | None]:
    """The limit process and None, or None and the reason why there is none."""
    try:
        return saddle_to_saddle(net, problem), None
    except (ValueError, NotImplementedError) as error:
        return None, f"no limit process for this network ({str(error).rstrip('.')})"


def last_jump(path: SaddlePath | LinearSaddlePath | None) -> float | None:
    """Accelerated time of the last jump, or of the escape to infinity; None without jumps."""
    if path is None:
        return None
    if path.escape is not None:
        return float(path.escape.time)
    return float(path.jump_times[-1]) if len(path.jump_times) else None


def least_loss(problem: Problem, path: SaddlePath | LinearSaddlePath | None) -> float | None:
    """The infimum of the loss, where the limit or a closed form gives it."""
    if isinstance(problem, Regression):
        return problem.least_squares_loss
    if path is None or not (path.complete or (path.escape is not None and path.escape.margin > 0)):
        return None
    if path.escape is not None:
        return float((problem.entry_weights * problem.loss_function.infimum(problem.y)).sum() / problem.n)
    return float(path.losses[-1])
