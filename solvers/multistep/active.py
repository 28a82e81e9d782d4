"""Active coordinates, those whose exponentials matter over the next step, are stored first."""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import bare, padded
from flowsim.solvers.multistep.constants import BY_COORDINATES, BY_INVERSE, BY_INVERSE_IN_ROWS, BY_ROWS, MARGIN, SMALL
from flowsim.solvers.multistep.workspace import (
    Active,
    Exponentials,
    Index,
    Loss,
    Matrix,
    Newton,
    Problem,
    Scales,
    Sizes,
    Terms,
    Trial,
)
from flowsim.solvers.simd import EIGHT, greater, load, store, view

#: Position of the tuple `Active` in the table.
ACTIVE = Active.PLACE  # type: ignore[attr-defined]


@bare()
def solver_for(n_active, rows):
    """The kind of linear solver for `n_active` active coordinates."""
    if n_active <= SMALL:
        return BY_INVERSE_IN_ROWS if n_active > 2 * rows else BY_INVERSE
    return BY_ROWS if n_active > 2 * rows else BY_COORDINATES


@bare()
def log_reach(ws, h):
    """Logarithm of the factor between beta and its effect on z over a step of h, without the column of G."""
    log_curvature = view(Loss, ws).log_curvature
    return max(math.log(h) + log_curvature[0], log_curvature[1])


@bare()
def exchange(ws, i, j):
    """Exchange two coordinates in all permuted arrays: the first ones of the workspace, and the Gram matrix."""
    buffer, sizes, index = ws.buffer, view(Sizes, ws), view(Index, ws)
    stride = sizes.padded
    for a in range(0, sizes.permuted * stride, stride):
        buffer[a + i], buffer[a + j] = buffer[a + j], buffer[a + i]
    if sizes.has_gram != 0:
        for a in range(stride):
            buffer[i * stride + a], buffer[j * stride + a] = buffer[j * stride + a], buffer[i * stride + a]
    if sizes.has_columns != 0:
        columns, padded_rows = view(Problem, ws).columns, padded(sizes.rows)
        for q in range(padded_rows):
            columns[i * padded_rows + q], columns[j * padded_rows + q] = (
                columns[j * padded_rows + q],
                columns[i * padded_rows + q],
            )
    index.coordinate[i], index.coordinate[j] = index.coordinate[j], index.coordinate[i]
    index.place[index.coordinate[i]], index.place[index.coordinate[j]] = i, j


@bare()
def reorder(ws, log_h):
    """Move the active coordinates to the front; returns their number."""
    sizes, exponents, level = view(Sizes, ws), view(Trial, ws).exponents, view(Scales, ws).level
    above, stride = view(Newton, ws).work, sizes.padded
    for b in range(0, stride, EIGHT):
        largest = load(exponents, b)
        for a in range(b + stride, sizes.terms * stride, stride):
            largest = greater(load(exponents, a), largest)
        store(above, b, largest - load(level, b))
    least, n_active = -log_h - MARGIN, 0
    for i in range(sizes.width):
        n_active += above[i] > least
    j = n_active
    for i in range(n_active):
        if above[i] > least:
            continue
        while not above[j] > least:
            j += 1
        exchange(ws, i, j)
        above[i], above[j] = above[j], above[i]
    return n_active


@bare()
def list_terms(ws, n_active, log_h):
    """List the significant exponentials of active coordinates, the first of each in layer 0."""
    sizes, exponentials, terms, index = view(Sizes, ws), view(Exponentials, ws), view(Terms, ws), view(Index, ws)
    exponents, level = view(Trial, ws).exponents, view(Scales, ws).level
    stride, layers = sizes.padded, 1
    for i in range(sizes.width):
        found, least = 0, level[i] - log_h - MARGIN
        index.term[i] = i
        for a in range(i, sizes.terms * stride, stride):
            matters = i < n_active and exponents[a] > least
            terms.unlisted[a] = np.inf if matters else level[i]
            if matters:
                at = found * stride + i
                index.term[at] = a
                terms.sign[at] = exponentials.sign[a]
                terms.slope[at], terms.decay[at] = exponentials.slope[a], exponentials.decay[a]
                found += 1
        if i < n_active:
            for at in range(found * stride + i, sizes.terms * stride, stride):
                index.term[at] = index.term[i]
                terms.sign[at] = terms.slope[at] = terms.decay[at] = 0.0
            layers = max(layers, found)
    for layer in range(sizes.terms):
        for at in range(layer * stride + n_active, layer * stride + padded(n_active)):
            index.term[at] = 0
            terms.sign[at] = terms.slope[at] = terms.decay[at] = 0.0
    return layers


@bare()
def activate(ws, h):
    """Reorder and list the active coordinates over a step of h; the iteration matrix is reset."""
    log_h, rows = log_reach(ws, h), view(Sizes, ws).rows
    n_active = reorder(ws, log_h)
    layers = list_terms(ws, n_active, log_h)
    ws.table[ACTIVE], ws.table[ACTIVE + 1] = n_active, padded(n_active)
    ws.table[ACTIVE + 2], ws.table[ACTIVE + 3] = layers, solver_for(n_active, rows)
    newton, gain, count = view(Newton, ws), view(Scales, ws).gain, padded(n_active)
    for s in range(count):
        newton.gain[s] = gain[s] if s < n_active else 0.0
    reset_matrix(ws)


@bare()
def reset_matrix(ws):
    """Reset the iteration matrix, W = 0; returns False for `has_matrix`."""
    active, matrix, diagonal = view(Active, ws), view(Matrix, ws), view(Problem, ws).diagonal
    curvature = math.exp(view(Loss, ws).log_curvature[0])
    for s in range(active.padded):
        matrix.weight[s] = 0.0
        matrix.reach[s] = curvature * diagonal[s] if s < active.n else 0.0
    return False
