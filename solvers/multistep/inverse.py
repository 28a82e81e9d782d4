"""The inverse for the iteration matrix of few active coordinates, in whole vectors."""

from __future__ import annotations

from flowsim.solvers.compilation import bare
from flowsim.solvers.simd import EIGHT, constant, load, only, spread, store


@bare()
def update_inverse(S, stride, weight, m, padded, first, second):
    """Replace a symmetric S by ``(S^-1 + diag(weight))^-1``, by Gauss-Jordan pivots, two at a time.

    No pivot is subject to cancellation: they are ``1 + weight_i S_ii`` of decreasing S_ii >= 0.
    Nothing is stored entry by entry, since a vector load after a partial store stalls.
    """
    for i in range(0, m - 1, 2):
        top, here = i * stride, i - i % EIGHT
        is_1, is_2 = only(i - here), only(i + 1 - here)
        others = constant(1.0) - is_1 - is_2
        corner = S[top + i + 1]
        shrink_1 = 1.0 / (1.0 + weight[i] * S[top + i])
        scale_1 = weight[i] * shrink_1
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
    if m % 2:
        i = m - 1
        shrink_1 = 1.0 / (1.0 + weight[i] * S[i * stride + i])
        scale_1 = weight[i] * shrink_1
        for b in range(0, padded, EIGHT):
            store(first, b, load(S, i * stride + b))
        for b in range(0, padded, EIGHT):
            x_1 = scale_1 * load(first, b)
            for j in range(m):
                at = j * stride + b
                store(S, at, load(S, at) - spread(first, j) * x_1)
        for j in range(m):
            S[i * stride + j] = S[j * stride + i] = first[j] * shrink_1
