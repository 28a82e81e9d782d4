"""The compiled loop of descent on U V^T in plain weights."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import boolean, float64, int64, types

from flowsim.arrays import Array, Integers
from flowsim.descent.growth_loop import CUBE, PLAN, slot_of, tuple_of
from flowsim.descent.products import loss_slopes, move_on
from flowsim.descent.tiles import copy_to
from flowsim.solvers.compilation import INTEGERS, TABLE, VECTOR, compiled, part
from flowsim.solvers.matrices.interpreted import stands_for


class LinearOptions(NamedTuple):
    """Damping rates by expected noise, of Sigma U and, over tr Sigma, of V, and the squared rows (n,) that give the
    trace of a batch; projection; whether Lambda has a law; the address of a loss other than squares, and its weights
    (n, m); whether the rows of the data are measurement matrices (D m,) of beta; weight decay."""

    decay_u: float
    decay_v: float
    squared_rows: Array
    multiplicative: bool
    radius: float
    has_law: bool
    loss: int
    weight: Array
    is_measured: bool
    weight_decay: float


#: Their types.
OPTIONS = tuple_of(LinearOptions, float64, float64, VECTOR, boolean, float64, boolean, int64, TABLE, boolean, float64)


class LinearState(NamedTuple):
    """Weights, velocities, the law of Lambda, beta; length and stopped (1,)."""

    U: Array
    V: Array
    velocity_u: Array
    velocity_v: Array
    law: Array
    beta: Array
    length: Array
    stopped: Integers


class LinearRecord(NamedTuple):
    """Recorded states."""

    U: Array
    V: Array
    law: Array
    beta: Array
    length: Array


@part()
def _combine(out, x, factor, y):
    """``out = x + factor * y``, entry by entry."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = x[i, j] + factor * y[i, j]


@stands_for(_combine)
def _(out: Array, x: Array, factor: float, y: Array) -> None:
    out[...] = x + factor * y


@part()
def _move(x, velocity, momentum, factor, slope):
    """``velocity = momentum * velocity + factor * slope``, and a step of x along it."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            velocity[i, j] = momentum * velocity[i, j] + factor * slope[i, j]
            x[i, j] += velocity[i, j]


@stands_for(_move)
def _(x: Array, velocity: Array, momentum: float, factor: float, slope: Array) -> None:
    velocity[...] = momentum * velocity + factor * slope
    x += velocity


@part()
def _disturb(out, drawn, multiplicative):
    """``out + drawn``, or ``out * (1 + drawn)``; drawn is flat."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            xi = drawn[i * out.shape[1] + j]
            out[i, j] = out[i, j] * (1.0 + xi) if multiplicative else out[i, j] + xi


@part()
def _project(state, radius):
    """Project the weights onto a ball; the velocities include the projection."""
    size = math.hypot(np.linalg.norm(state.U), np.linalg.norm(state.V))
    if size > radius:
        excess = radius / size - 1.0
        _combine(state.velocity_u, state.velocity_u, excess, state.U)
        _combine(state.velocity_v, state.velocity_v, excess, state.V)
        _combine(state.U, state.U, excess, state.U)
        _combine(state.V, state.V, excess, state.V)


@part()
def _subtract_targets(R, Y, labels, rows):
    """Subtract targets from R; returns the sum of squares."""
    total = 0.0
    for i in range(R.shape[0]):
        row = rows[i] if rows.size else i
        for j in range(R.shape[1]):
            R[i, j] -= Y[row, j]
            if labels.size:
                R[i, j] -= labels[row * R.shape[1] + j]
            total += R[i, j] ** 2
    return total


@stands_for(_subtract_targets)
def _(R: Array, Y: Array, labels: Array, rows: Integers) -> float:
    chosen = rows if rows.size else slice(None)
    R -= Y[chosen]
    if labels.size:
        R -= labels.reshape(Y.shape)[chosen]
    return float(np.sum(R**2))


@part()
def _loss_of_rows(R, Y, labels, rows, options):
    """Replace predictions in R by derivatives of the loss; returns a sum that is finite if all are."""
    y, weight = np.empty(R.shape), np.empty(R.shape)
    for i in range(R.shape[0]):
        row = rows[i] if rows.size else i
        for j in range(R.shape[1]):
            y[i, j], weight[i, j] = Y[row, j], options.weight[row, j]
            if labels.size:
                y[i, j] += labels[row * R.shape[1] + j]
    f = R.copy()
    return loss_slopes(options.loss, f.ravel(), y.ravel(), weight.ravel(), R.ravel())


@part()
def _predict(X, W, Z, XW, product, is_measured, R):
    """Predictions R: ``X W Z^T``, or ``<A_k, W Z^T>``."""
    if is_measured:
        np.dot(W, Z.T, product)
        np.dot(X, product.reshape(product.size, 1), R)
    else:
        np.dot(X, W, XW)
        np.dot(XW, Z.T, R)


@part()
def _pull_back(X, R, is_measured, G):
    """``G = X^T R``, or ``sum_k R_k A_k``."""
    if is_measured:
        np.dot(X.T, R, G.reshape(G.size, 1))
    else:
        np.dot(X.T, R, G)


@part()
def downhill(X, Y, beta, options):
    """``-dL/dbeta`` (D, m) of all rows, and whether the loss is finite."""
    R, G, none = np.empty(Y.shape), np.empty(beta.shape), np.empty(0, np.int64)
    if options.is_measured:
        np.dot(X, beta.reshape(beta.size, 1), R)
    else:
        np.dot(X, beta, R)
    if options.loss != 0:
        size = _loss_of_rows(R, Y, np.empty(0), none, options)
    else:
        size = _subtract_targets(R, Y, np.empty(0), none)
    _pull_back(X, R, options.is_measured, G)
    for i in range(G.shape[0]):
        for j in range(G.shape[1]):
            G[i, j] /= -X.shape[0]
    return G, math.isfinite(size)


_DECLARED = (
    *(TABLE, TABLE, TABLE, types.Array(int64, 2, "C"), TABLE, float64, OPTIONS),
    tuple_of(LinearState, *[TABLE] * 6, VECTOR, INTEGERS),
    PLAN,
    tuple_of(LinearRecord, *[CUBE] * 4, VECTOR),
)


@compiled(explicit=True, declared=_DECLARED)
def run_linear(X, Y, labels, rows, noise, step, options, state, plan, record):
    """Take the steps of `plan`; False as soon as the loss is not finite."""
    U, V, law, beta = state.U, state.V, state.law, state.beta
    D, width = U.shape
    m = V.shape[0]
    count = rows.shape[1] if rows.shape[0] else X.shape[0]
    W, Z = np.empty((D, width)), np.empty((m, width))
    moved_u, moved_v, pulled = np.empty((D, width)), np.empty((m, width)), np.empty((D, width))
    XW, R = np.empty((count, width)), np.empty((count, Y.shape[1]))
    chosen = np.empty((count, X.shape[1])) if rows.shape[0] else X
    G, product = np.empty((D, m)), np.empty((D, m))
    gram_u, gram_v = np.empty((width, width)), np.empty((width, width))
    batch, shaken, square = np.empty(0, np.int64), np.empty(0), np.empty(1)
    for k in range(plan.first, plan.last + 1):
        slot = slot_of(plan, k)
        if slot >= 0 and record.length[slot] < 0.0:
            copy_to(U.ravel(), record.U[slot].ravel())
            copy_to(V.ravel(), record.V[slot].ravel())
            copy_to(law.ravel(), record.law[slot].ravel())
            copy_to(beta.ravel(), record.beta[slot].ravel())
            record.length[slot] = state.length[0]
        if k == plan.last:
            break
        ahead = plan.momentum if plan.nesterov else 0.0
        _combine(W, U, ahead, state.velocity_u)
        _combine(Z, V, ahead, state.velocity_v)
        if noise.shape[0]:
            _disturb(W, noise[k - plan.first, : D * width], options.multiplicative)
            _disturb(Z, noise[k - plan.first, D * width :], options.multiplicative)
        if rows.shape[0]:
            batch = rows[k - plan.first]
            for i in range(count):
                copy_to(X[batch[i]], chosen[i])
        if labels.shape[0]:
            shaken = labels[k - plan.first]
        _predict(chosen, W, Z, XW, product, options.is_measured, R)
        if options.loss != 0:
            finite = math.isfinite(_loss_of_rows(R, Y, shaken, batch, options))
        else:
            finite = math.isfinite(_subtract_targets(R, Y, shaken, batch))
        if not finite:
            state.stopped[0] = k
            return False
        _pull_back(chosen, R, options.is_measured, G)
        np.dot(G, Z, moved_u)
        np.dot(G.T, W, moved_v)
        if options.multiplicative and noise.shape[0]:
            # The chain rule for L(U (1 + xi), V (1 + zeta)).
            _disturb(moved_u, noise[k - plan.first, : D * width], True)
            _disturb(moved_v, noise[k - plan.first, D * width :], True)
        if options.decay_u > 0.0:
            np.dot(chosen.T, XW, pulled)
            _combine(moved_u, moved_u, options.decay_u, pulled)
        if options.decay_v > 0.0:
            trace = 0.0  # of X^T X over the rows of this step
            for i in range(count):
                trace += options.squared_rows[batch[i] if rows.shape[0] else i]
            _combine(moved_v, moved_v, trace * options.decay_v, Z)
        if options.weight_decay > 0.0:
            # At the weights, or at the extrapolated point, without noise.
            for moved, old, velocity in ((moved_u, U, state.velocity_u), (moved_v, V, state.velocity_v)):
                _combine(moved, moved, count * options.weight_decay, old)
                _combine(moved, moved, count * options.weight_decay * ahead, velocity)
        scale = -step / count
        if options.has_law:
            np.dot(moved_u.T, moved_u, gram_u)
            np.dot(moved_v.T, moved_v, gram_v)
            _combine(law, law, scale * scale, gram_u)
            _combine(law, law, -scale * scale, gram_v)
        for old, velocity, moved in ((U, state.velocity_u, moved_u), (V, state.velocity_v, moved_v)):
            _move(old, velocity, plan.momentum, scale, moved)
        if options.radius < math.inf:
            _project(state, options.radius)
        np.dot(U, V.T, product)
        move_on(product.ravel(), beta.ravel(), state.length, square)
    return True
