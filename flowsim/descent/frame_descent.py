r"""Gradient descent of U V^T at any scale of the start, in a graded frame.

One step multiplies ``Z = (U; V)`` by ``1 + h S``, S, with noise and weight decay, as in :mod:`flowsim.growth.frame`.
With ``Z = Q e^l C``, Q orthonormal, ``(1 + h S) Q = Q' R`` adds ``ln R_ii`` to the logarithms: waiting directions keep
their relative accuracy beside active ones, in whose rounding they would be lost in plain weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import float64

from flowsim.arrays import Array, Integers, log_abs
from flowsim.descent.growth_loop import CUBE, PLAN, StepPlan, slot_of, tuple_of
from flowsim.descent.linear import LinearStart, SingleRun, expected_decay
from flowsim.descent.linear_loop import OPTIONS, downhill
from flowsim.descent.machine import Read, recorded_steps
from flowsim.descent.settings import Settings
from flowsim.descent.tiles import add_multiple, copy_to
from flowsim.network import LinearNetwork
from flowsim.network.compression import lifted
from flowsim.problem import Problem
from flowsim.solvers.compilation import INTEGERS, TABLE, VECTOR, compiled, part
from flowsim.solvers.frames.frame import factor_frame
from flowsim.solvers.frames.graded import sum_of_rows
from flowsim.solvers.matrices.calls import call_loop

#: Logarithm below which a state is recorded with a separate scale.
_SMALLEST_PLAIN = -100.0


class FrameState(NamedTuple):
    """Directions (N, w), logarithms (w,), rows (w, k); beta, length (1,), stopped (1,)."""

    Q: Array
    logs: Array
    rows: Array
    beta: Array
    length: Array
    stopped: Integers


class FrameRecord(NamedTuple):
    """``Z exp(-shift)``, shift, beta and length at the recorded steps."""

    Z: Array
    shift: Array
    beta: Array
    length: Array


_DECLARED = (
    *(TABLE, TABLE, float64, VECTOR, OPTIONS),
    tuple_of(FrameState, TABLE, VECTOR, TABLE, TABLE, VECTOR, INTEGERS),
    PLAN,
    tuple_of(FrameRecord, CUBE, VECTOR, CUBE, VECTOR),
)


@part()
def _factors(Q, logs, rows, shift, D):
    """U and V, both times ``exp(-shift)``."""
    grown = np.empty(rows.shape)
    for j in range(rows.shape[0]):
        size = math.exp(logs[j] - shift)
        for c in range(rows.shape[1]):
            grown[j, c] = size * rows[j, c]
    Z = np.dot(Q, grown)
    return Z, np.dot(np.ascontiguousarray(Z[:D]), np.ascontiguousarray(Z[D:]).T)


@part()
def _distance(beta, scale, before):
    """beta times scale; its distance from `before`."""
    total = 0.0
    for i in range(beta.shape[0]):
        for j in range(beta.shape[1]):
            beta[i, j] *= scale
            total += (beta[i, j] - before[i, j]) ** 2
    return math.sqrt(total)


@part()
def _multiply(Q, X, G, step, damping):
    """``Q <- (1 + h S) Q``."""
    n, D = X.shape[0], G.shape[0]
    U, V = Q[:D].copy(), Q[D:].copy()
    up, down = np.dot(G, V), np.dot(G.T, U)
    add_multiple(U.ravel(), step, up.ravel(), U.ravel())
    add_multiple(down.ravel(), -damping[1], V.ravel(), down.ravel())
    add_multiple(V.ravel(), step, down.ravel(), V.ravel())
    if damping[0] > 0.0:
        XU = np.dot(X, np.ascontiguousarray(Q[:D]))
        add_multiple(U.ravel(), -step * damping[0] / n, np.dot(X.T, XU).ravel(), U.ravel())
    for j in range(Q.shape[1]):
        for i in range(D):
            Q[i, j] = U[i, j] - step * damping[2] * Q[i, j]
        for i in range(D, Q.shape[0]):
            Q[i, j] = V[i - D, j] - step * damping[2] * Q[i, j]


@part()
def _sort(Q, logs, rows):
    """Move larger directions to the front, by one pass of exchanges of neighbours."""
    for j in range(len(logs) - 1):
        if logs[j + 1] > logs[j]:
            logs[j], logs[j + 1] = logs[j + 1], logs[j]
            for c in range(rows.shape[1]):
                rows[j, c], rows[j + 1, c] = rows[j + 1, c], rows[j, c]
            for i in range(Q.shape[0]):
                Q[i, j], Q[i, j + 1] = Q[i, j + 1], Q[i, j]


@compiled(explicit=True, declared=_DECLARED)
def run_frame(X, Y, step, damping, options, state, plan, record):
    """Take the steps of `plan`; False as soon as beta is not finite."""
    D = state.beta.shape[0]
    Q, logs, rows = state.Q, state.logs, state.rows
    w, k = rows.shape
    new_logs, new_rows, total = np.empty(w), np.empty((w, k)), np.empty(k)
    for number in range(plan.first, plan.last + 1):
        top = -np.inf
        for j in range(w):
            top = max(top, logs[j])
        shift = top if -np.inf < top < _SMALLEST_PLAIN else 0.0
        Z, beta = _factors(Q, logs, rows, shift, D)
        moved = _distance(beta, math.exp(2.0 * shift), state.beta)
        if not math.isfinite(moved):
            state.stopped[0] = number - 1
            return False
        state.length[0] += moved
        copy_to(beta.ravel(), state.beta.ravel())
        slot = slot_of(plan, number)
        if slot >= 0:
            copy_to(Z.ravel(), record.Z[slot].ravel())
            copy_to(beta.ravel(), record.beta[slot].ravel())
            record.shift[slot], record.length[slot] = shift, state.length[0]
        if number == plan.last:
            break
        G, finite = downhill(X, Y, beta, options)
        if not finite:
            state.stopped[0] = number
            return False
        _multiply(Q, X, G, step, damping)
        turned, triangle = np.linalg.qr(Q)
        for j in range(w):
            sign = -1.0 if triangle[j, j] < 0.0 else 1.0
            for i in range(Q.shape[0]):
                Q[i, j] = sign * turned[i, j]
            for c in range(w):
                triangle[j, c] *= sign
            new_logs[j] = -np.inf
            for c in range(k):
                new_rows[j, c] = 0.0
        sum_of_rows(total, new_logs, new_rows, triangle, logs, rows)
        copy_to(new_logs, logs)
        copy_to(new_rows.ravel(), rows.ravel())
        _sort(Q, logs, rows)
    return True


class FrameMachine(SingleRun):
    """One run of full-batch descent, with or without the expected noise."""

    name = "frame"

    def __init__(
        self, net: LinearNetwork, problem: Problem, start: LinearStart, settings: Settings, steps: Array
    ) -> None:
        super().__init__(net, problem, start, settings, steps)
        noise = expected_decay(net, problem) if settings.expected else (0.0, 0.0)
        self.damping = np.array([*noise, self.options.weight_decay])
        frame = factor_frame([(start.A, start.B, start.log)], paired=False)
        slots, k = len(recorded_steps(settings.n_steps, settings.record_every)), frame.rows.shape[1]
        D, m = problem.d, problem.n_targets
        Q = np.ascontiguousarray(np.concatenate([frame.A, frame.B]))
        with np.errstate(under="ignore"):
            U, V = frame.value()
        self.state = FrameState(Q, frame.logs.copy(), frame.rows.copy(), U @ V.T, np.zeros(1), np.full(1, -1))
        self.record = FrameRecord(
            np.empty((slots, D + m, k)), np.empty(slots), np.empty((slots, D, m)), np.full(slots, -1.0)
        )

    def set_decay(self, rates: Array) -> None:
        super().set_decay(rates)
        self.damping[2] = rates[0]

    def advance(self, first: int, last: int, rows: Integers, labels: Array, noise: Array) -> bool:
        plan = StepPlan.of(self.settings, first, last)
        arguments = self.X, self.Y, self.step, self.damping, self.options, self.state, plan, self.record
        w, k = self.state.rows.shape
        operations = math.inf if self.options.loss else (last - first) * (w * w * k + self.Y.size)
        return bool(call_loop(run_frame, operations, *arguments))

    def read(self, lane: int, count: int) -> Read:
        D, shift = self.state.beta.shape[0], self.record.shift[:count]
        U, V = self.record.Z[:count, :D], self.record.Z[:count, D:]
        with np.errstate(all="ignore"):
            gram = np.swapaxes(U, 1, 2) @ U - np.swapaxes(V, 1, 2) @ V
            imbalance = np.exp(2 * shift)[:, None, None] * gram
            log_imbalance = log_abs(gram) + 2 * shift[:, None, None]
            scale = np.exp(shift)[:, None, None]
            weights = lifted({"U": scale * U, "V": scale * V}, self.basis)
            logs = lifted({"U": U, "V": V}, self.basis, {"U": shift, "V": shift})
            # From the value at 0, relative to the terms: of order h^2, as the law of descent is not tracked.
            before = np.exp(2 * (shift[:1] - shift))[:, None, None] * gram[:1]
            sizes = np.maximum((self.record.Z[:count] ** 2).sum(axis=(1, 2)), np.finfo(float).tiny)
            departure = np.linalg.norm(gram - before, axis=(1, 2)) / sizes
        terms = float(np.linalg.norm(weights["U"][0]) ** 2 + np.linalg.norm(weights["V"][0]) ** 2) if count else 1.0
        conserved = imbalance, log_imbalance, np.sign(gram)
        return self.assembled(self.record, weights, logs, conserved, terms, departure, has_law=False)
