"""The inverse for the iteration matrix of few active coordinates, in whole vectors."""

from __future__ import annotations

import numpy as np

from flowsim.solvers.compilation import bare
from flowsim.solvers.simd import EIGHT, constant, load, only, spread, store

#: Part of its diagonal below which a pivot may be lost to cancellation, and the rounding at which it is.
_SMALL, _ROUNDINGS = 1e-8, 16.0 * float(np.finfo(np.float64).eps)


@bare()
def _restore(S, stride, weight, i, m, diagonal):
    """Compute row i without cancellation where its column depends on earlier ones up to rounding.

    Then ``S_il = sum_j S_ij w_j S_jl`` over the pivots j before, to a part 1 / (w S) of itself.
    """
    total = 0.0
    for j in range(i):
        total += weight[j] * S[i * stride + j] * S[i * stride + j]
    if abs(S[i * stride + i] - total) > _ROUNDINGS * diagonal[i]:
        return
    for other in range(i, m):
        total = 0.0
        for j in range(i):
            total += weight[j] * S[i * stride + j] * S[other * stride + j]
        S[i * stride + other] = S[other * stride + i] = total


@bare()
def _one_pivot(S, stride, weight, i, m, padded, first):
    shrink = 1.0 / (1.0 + weight[i] * S[i * stride + i])
    scale = weight[i] * shrink
    for b in range(0, padded, EIGHT):
        store(first, b, load(S, i * stride + b))
    for b in range(0, padded, EIGHT):
        x = scale * load(first, b)
        for j in range(m):
            at = j * stride + b
            store(S, at, load(S, at) - spread(first, j) * x)
    for j in range(m):
        S[i * stride + j] = S[j * stride + i] = first[j] * shrink


@bare()
def update_inverse(S, stride, weight, m, padded, first, second, diagonal):
    """Replace a symmetric S by ``(S^-1 + diag(weight))^-1``, by Gauss-Jordan pivots, two at a time.

    Pivots are ``1 + weight_i S_ii`` of decreasing S_ii >= 0. These are lost to cancellation only where a column depends
    on earlier ones of large weight, and restored there. `diagonal` is that of S.
    Nothing else is stored entry by entry, since a vector load after a partial store stalls.
    """
    i = 0
    while i < m:
        top, here = i * stride, i - i % EIGHT
        if S[top + i] < _SMALL * diagonal[i]:
            _restore(S, stride, weight, i, m, diagonal)
        shrink_1 = 1.0 / (1.0 + weight[i] * S[top + i])
        scale_1, corner = weight[i] * shrink_1, S[top + i + 1] if i + 1 < m else 0.0
        if i + 1 == m or S[top + stride + i + 1] - corner * scale_1 * corner < _SMALL * diagonal[i + 1]:
            _one_pivot(S, stride, weight, i, m, padded, first)
            i += 1
            continue
        is_1, is_2 = only(i - here), only(i + 1 - here)
        others = constant(1.0) - is_1 - is_2
        mixed, crossed = corner * scale_1, corner * shrink_1
        shrink_2 = 1.0 / (1.0 + weight[i + 1] * (S[top + stride + i + 1] - mixed * corner))
        scale_2 = weight[i + 1] * shrink_2
        back = crossed * scale_2
        for b in range(0, padded, EIGHT):
            row = load(S, top + b)
            next_row = load(S, top + stride + b) - mixed * row
            if b == here:
                next_row = next_row * (constant(1.0) - is_1) + crossed * is_1
            store(first, b, row)
            store(second, b, next_row)
        for b in range(0, padded, EIGHT):
            x_1, x_2 = load(first, b), load(second, b)
            row, next_row = shrink_1 * x_1 - back * x_2, shrink_2 * x_2
            x_1, x_2 = scale_1 * x_1, scale_2 * x_2
            if b == here:
                row = row * (constant(1.0) - is_2) + (crossed * shrink_2) * is_2
                # The columns of the two pivots, by subtraction from zero.
                x_1 = x_1 * others - shrink_1 * is_1
                x_2 = x_2 * others + back * is_1 - shrink_2 * is_2
                for j in range(m):
                    at = j * stride + b
                    store(S, at, load(S, at) * others - spread(first, j) * x_1 - spread(second, j) * x_2)
            else:
                for j in range(m):
                    at = j * stride + b
                    store(S, at, load(S, at) - spread(first, j) * x_1 - spread(second, j) * x_2)
            store(S, top + b, row)
            store(S, top + stride + b, next_row)
        i += 2
