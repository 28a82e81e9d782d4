r"""The start of the limit process of a linear network.

From ``pretrained + alpha * start`` the pretrained weights relax in time O(1) to a stationary point; its rank is
the rank of the first plateau, and their imbalance is conserved. The remaining hidden units carry alpha times
the start, at level 0.
"""

from __future__ import annotations

import numpy as np

from flowsim.arrays import Array
from flowsim.growth.frame import start_parts
from flowsim.limits.linear_blocks import Block
from flowsim.limits.linear_orbits import EscapeError, follow_to_rest, polished
from flowsim.limits.linear_process import BlockProcess
from flowsim.network import GivenWeights, InitialScale, LinearNetwork
from flowsim.network.linear_start import LinearCase, compressed_start
from flowsim.problem import Problem

#: Overlaps of the start with a growing direction below this, relative to the start, count as zero.
_NO_OVERLAP = 1e-10
#: Directions of relaxed weights below this, relative to the largest, have relaxed to zero.
_GONE = 1e-6
_VANISHING = InitialScale("0", -1e9)


def vanishing_start(
    net: LinearNetwork, problem: Problem, directions: Array, start: GivenWeights | None
) -> tuple[Array, Array]:
    """``(U_1; V)`` at the start, (R + m, k): with both parts of size 1, as levels are independent of scale; and as
    given.

    Raises ValueError if it never moves.
    """
    compression = compressed_start(net, problem, start)
    inside = directions.T @ compression.A
    Z = np.concatenate([_unit(inside), _unit(compression.B)])
    if not Z.any():
        raise ValueError("`start` must have a part that moves; received U outside the row space of X and V = 0.")
    return Z, np.concatenate([inside, compression.B])


def pretrained_process(
    net: LinearNetwork,
    problem: Problem,
    directions: Array,
    blocks: list[Block],
    whole: Block,
    start: GivenWeights | None,
    pretrained: GivenWeights,
) -> BlockProcess:
    """All of the data as one block, from the point to which the pretrained weights relax.

    Raises ValueError if the data decouple exactly and the pretrained weights do not couple them, if they relax to a
    point of smaller rank that is unstable, or if the start is not in general position.
    """
    _, parts = start_parts(LinearCase(net, problem, _VANISHING, start, pretrained))
    large, small = (
        np.concatenate([_unit(directions.T @ U), _unit(V)]) if k else np.concatenate([directions.T @ U, V])
        for k, (U, V, _) in enumerate(parts)
    )
    left, values, right = np.linalg.svd(large)
    rank = int(np.sum(values > max(large.shape) * np.finfo(float).eps * values.max(initial=0.0)))
    _require_coupled(blocks, left[:, :rank])
    try:
        Z = polished(whole, follow_to_rest(whole, large @ right[:rank].T, departs=False))
    except EscapeError:
        raise ValueError("`pretrained` weights escape to infinity: the loss has no minimum of their rank.") from None
    kept, sizes, rotation = np.linalg.svd(Z, full_matrices=False)
    kept_rank = int(np.sum(sizes > _GONE * sizes.max(initial=0.0))) if sizes.max(initial=0.0) > _GONE else 0
    waiting = small @ right[rank:].T
    waiting = waiting - kept[:, :kept_rank] @ (kept[:, :kept_rank].T @ waiting)
    columns = rank + int(np.linalg.matrix_rank(waiting, tol=_NO_OVERLAP)) if waiting.size else rank
    process = BlockProcess(whole, columns, Z @ rotation[:kept_rank].T, rank - kept_rank)
    growing = process.growing_directions()
    if kept_rank < rank and growing.shape[1]:
        raise ValueError(
            "`pretrained` weights must relax to a stationary point of their own rank; these lose "
            f"{rank - kept_rank} of {rank} directions at an unstable point, from where the limit is not known."
        )
    check_overlap(growing, columns - rank, waiting)
    return process


def check_overlap(growing: Array, columns: int, Z: Array) -> None:
    """Require that the start overlaps with the k fastest growing directions in rank k, for every k.

    Raises ValueError if they do not.
    """
    overlap = growing.T @ Z
    for k in range(1, min(len(overlap), columns) + 1):
        if np.linalg.svd(overlap[:k], compute_uv=False)[-1] <= _NO_OVERLAP:
            raise ValueError(
                f"`start` must be in general position; its overlap with the {k} fastest growing directions "
                f"of the data has rank {k - 1} only, and the limit of such a flow is not known."
            )


def _require_coupled(blocks: list[Block], span: Array) -> None:
    learning = [block for block in blocks if min(block.shape) and block.signal.any()]
    parts = [block.stack(span) for block in learning]
    products = [a @ b.T for i, a in enumerate(parts) for b in parts[:i]]
    if len(learning) > 1 and max(float(np.abs(product).max(initial=0.0)) for product in products) <= _NO_OVERLAP:
        raise ValueError(
            "`pretrained` weights must couple the parts of data that decouple exactly; each part evolves by itself "
            "otherwise: give the limit process each part alone."
        )


def _unit(part: Array) -> Array:
    size = float(np.linalg.norm(part))
    return part / size if size > 0 else part
