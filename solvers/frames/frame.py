r"""The state in graded form: orthonormal directions, their logarithms, and the rows of the start along each.

With equal damping the propagator Phi of the flow satisfies ``Phi^T J Phi = J``, J = diag(1, -1), up to a factor, and
its Iwasawa decomposition preserves this exactly: directions come in pairs ``f_i^+- = (a_i, +-b_i) / sqrt(2)``, a_i and
b_i orthonormal, beside neutral ones ``(n, 0)``, n orthogonal to all a_i, and

.. math:: Z = \sum_i f_i^+ e^{l_i^+} c_i^+ + (N; 0) e^{l^0} + \sum_i f_i^- e^{l_i^-} c_i^-.

One step is a QR factorisation, ``E f^+ = f^{+\prime} R``: ``l_i^+`` increases by ``ln R_ii``, ``l_i^-`` decreases by
it, and rows are updated by the upper triangle of R; only logarithms of ratios are exponentiated. The pairs are the
matrix form of p = u + v and q = u - v: a direction that shrinks and returns with the other sign keeps its relative
accuracy, however small. ``Z^T J Z = sum_i c_i^+ c_i^- + ...`` is independent of the frame.

With unequal damping nothing is conserved, and the frame is a plain one: ``Z = sum_i f_i e^{l_i} c_i``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.frames.graded import add_rows
from flowsim.solvers.frames.pairs import Pairs, advance

_HALF = math.sqrt(0.5)
#: Parts of a start below this, relative to the rest, are rounding.
_ROUNDING = 1e-13
#: Component of a row orthogonal to the rows before it, relative to the row, that counts as zero.
_DEPENDENT = 1e-12


@dataclass(frozen=True, eq=False)
class Frame:
    """One state in graded form."""

    #: (R, w), (p, w), the two halves of the directions: a_i and b_i of a paired frame (w = p), else an orthonormal
    #: ``(A; B)``
    A: Array
    B: Array
    #: (w,), (w, k), l^+ and c^+, in descending order of l^+
    logs: Array
    rows: Array
    #: (w,), (w, k) or (0,), (0, k), l^- and c^- of a paired frame
    minus_logs: Array
    minus_rows: Array
    #: l^0 and N
    neutral_log: float
    neutral: Array

    @property
    def is_paired(self) -> bool:
        return len(self.minus_logs) > 0

    @cached_property
    def arrays(self) -> Pairs:
        """The arrays for compiled functions."""
        A, B, rows, minus_rows, neutral = (
            np.ascontiguousarray(each) for each in (self.A, self.B, self.rows, self.minus_rows, self.neutral)
        )
        return Pairs(A, B, self.logs, rows, self.minus_logs, minus_rows, float(self.neutral_log), neutral)

    @property
    def factor(self) -> float:
        """The norm of the part a_i of a direction."""
        return _HALF if self.is_paired else 1.0

    @property
    def scale(self) -> float:
        """Logarithm of the largest part of the state, up to a factor of O(1)."""
        return max(-np.inf, self.neutral_log, *self.logs[:1].tolist())

    def value(self, shift: float = 0.0) -> tuple[Array, Array]:
        """The halves of ``Z exp(-shift)``, (R, k) and (p, k)."""
        with np.errstate(under="ignore"):
            plus = np.exp(self.logs - shift)[:, None] * self.rows * self.factor
            if not self.is_paired:
                return self.A @ plus, self.B @ plus
            minus = np.exp(self.minus_logs - shift)[:, None] * self.minus_rows * self.factor
            first = self.A @ (plus + minus)
            if self.neutral_log > -np.inf:
                first += math.exp(self.neutral_log - shift) * self.neutral
            return first, self.B @ (plus - minus)

    def columns(self) -> tuple[Array, Array]:
        """The argument of the propagator for :meth:`advanced`: ``[A 0 N; 0 B 0]``, or ``[A; B]``."""
        if not self.is_paired:
            return self.A, self.B
        (R, w), p = self.A.shape, len(self.B)
        k = self.neutral.shape[1] if self.neutral_log > -np.inf else 0
        first, second = np.zeros((R, 2 * w + k)), np.zeros((p, 2 * w + k))
        first[:, :w], second[:, w : 2 * w] = self.A, self.B
        if k:
            first[:, 2 * w :] = self.neutral
        return first, second

    def advanced(self, first: Array, second: Array, damped: float = 0.0) -> Frame:
        """The frame after a propagator that maps :meth:`columns` to (first; second), times ``exp(-damped)``."""
        if not self.is_paired:
            Q, triangle = np.linalg.qr(np.concatenate([first, second]))
            sign = np.where(np.diag(triangle) < 0, -1.0, 1.0)
            logs, rows = _nothing(*self.rows.shape)
            add_rows(logs, rows, sign[:, None] * triangle, self.logs, self.rows)
            A, B = np.split(Q * sign, [len(self.A)])
            return replace(
                self, A=np.ascontiguousarray(A), B=np.ascontiguousarray(B), logs=logs - damped, rows=rows
            ).sorted()
        return Frame(*advance(self.arrays, np.ascontiguousarray(first), np.ascontiguousarray(second), damped))

    def sorted(self) -> Frame:
        """The same state, with directions in descending order; of each pair the larger is f^+."""
        frame = self
        if frame.is_paired and (swap := frame.minus_logs > frame.logs).any():
            B = np.where(swap, -frame.B, frame.B)
            logs, minus_logs = np.where(swap, [frame.minus_logs, frame.logs], [frame.logs, frame.minus_logs])
            rows = np.where(swap[:, None], frame.minus_rows, frame.rows)
            minus_rows = np.where(swap[:, None], frame.rows, frame.minus_rows)
            frame = replace(frame, B=B, logs=logs, rows=rows, minus_logs=minus_logs, minus_rows=minus_rows)
        if (frame.logs[1:] <= frame.logs[:-1]).all():
            return frame
        order = np.argsort(-frame.logs, kind="stable")
        names = ("logs", "rows", "minus_logs", "minus_rows")[: 4 if frame.is_paired else 2]
        changed: dict[str, Any] = {name: getattr(frame, name)[order] for name in names}
        A, B = (np.ascontiguousarray(half[:, order]) for half in (frame.A, frame.B))
        return replace(frame, A=A, B=B, **changed)

    def separated(self, count: int) -> Frame:
        """The state with all later rows made orthogonal to the first `count`, where they are below their rounding.

        This rotates f_i^+, i <= count, towards the other directions by ratios below the rounding of the
        frame, so that only rows change; those of f_i^- such that ``Z^T J Z`` does not. Rows reduced to rounding are
        set to zero: a start of k columns has at most k independent rows.
        """
        if not 0 < count <= len(self.logs) or self.logs[count - 1] == -np.inf:
            return self
        head, top = self.rows[:count], self.logs[:count]
        behind = self.rows[count:], self.minus_rows[count:], self.neutral.reshape(-1, head.shape[1])
        if np.abs(np.concatenate(behind) @ head.T).max(initial=0.0) <= _DEPENDENT and count < head.shape[1]:
            return self
        logs, rows, along = _without(head, self.logs, self.rows, count)
        if not self.is_paired:
            return replace(self, logs=logs, rows=rows).sorted()
        # exp(l_i) c_i^-, updated by the rotations
        lifted, lifted_rows = self.minus_logs[:count] + top, self.minus_rows[:count].copy()
        add_rows(
            lifted, lifted_rows, np.ascontiguousarray(along.T),
            self.minus_logs[count:] + self.logs[count:], self.minus_rows[count:],
        )  # fmt: skip
        minus_logs, minus_rows, along = _without(head, self.minus_logs, self.minus_rows, count)
        add_rows(
            lifted, lifted_rows, np.ascontiguousarray(along.T), self.minus_logs[count:] + logs[count:], rows[count:]
        )
        neutral, neutral_log = self.neutral, self.neutral_log
        if neutral_log > -np.inf:
            T = np.linalg.lstsq(head.T, neutral.T, rcond=_DEPENDENT)[0].T
            taken = np.ascontiguousarray(T.T @ neutral - 0.5 * (T.T @ T) @ head)
            add_rows(lifted, lifted_rows, np.eye(count), np.full(count, 2 * neutral_log), taken)
            neutral = neutral - T @ head
            if count >= head.shape[1] or np.linalg.norm(neutral) <= _DEPENDENT:
                neutral, neutral_log = np.zeros_like(neutral), -np.inf
        minus_logs[:count], minus_rows[:count] = lifted - top, lifted_rows
        return replace(
            self, logs=logs, rows=rows, minus_logs=minus_logs, minus_rows=minus_rows, neutral_log=neutral_log,
            neutral=neutral,
        ).sorted()  # fmt: skip

    def head(self, count: int) -> Frame:
        """The state of the first `count` directions f^+ alone."""
        logs, rows = self.logs.copy(), self.rows.copy()
        logs[count:], rows[count:] = -np.inf, 0.0
        nothing = np.full(len(self.minus_logs), -np.inf)
        return replace(
            self, logs=logs, rows=rows, minus_logs=nothing, minus_rows=np.zeros_like(self.minus_rows),
            neutral_log=-np.inf,
        )  # fmt: skip

    def conserved(self) -> tuple[Array, float]:
        """``Z^T J Z`` of a paired frame as (matrix, logarithm of its unit)."""
        both = self.logs + self.minus_logs
        top = max(float(np.max(both, initial=-np.inf)), 2 * self.neutral_log)
        if top == -np.inf:
            return np.zeros((self.rows.shape[1],) * 2), 0.0
        with np.errstate(under="ignore"):
            cross = (np.exp(both - top)[:, None] * self.rows).T @ self.minus_rows
            out = cross + cross.T
            if self.neutral_log > -np.inf:
                out += math.exp(2 * self.neutral_log - top) * (self.neutral.T @ self.neutral)
        return out, top


def factor_frame(parts: list[tuple[Array, Array, float]], paired: bool) -> Frame:
    """The frame of ``sum_g exp(log_g) (first_g; second_g)``.

    `parts` are triples ((R, k), (p, k), logarithm), the largest first.
    """
    first, second, _ = parts[0]
    (R, k), p = first.shape, len(second)
    if not paired:
        return _plain_frame(parts)
    A, B = _paired_directions(first, second)
    logs, rows = _nothing(p, k)
    minus_logs, minus_rows = _nothing(p, k)
    neutral, neutral_log = np.zeros((R, k)), -np.inf
    identity = np.eye(p)
    for U, V, log in parts:
        a, b = A.T @ U, B.T @ V
        size = math.hypot(float(np.linalg.norm(U)), float(np.linalg.norm(V)))
        for sign, target in ((1.0, (logs, rows)), (-1.0, (minus_logs, minus_rows))):
            along = _HALF * (a + sign * b)
            along[np.linalg.norm(along, axis=1) <= _ROUNDING * size] = 0.0
            add_rows(*target, identity, np.full(p, log), along)
        rest = U - A @ a
        rest -= A @ (A.T @ rest)
        length = float(np.linalg.norm(rest))
        if p < R and length > _ROUNDING * size:
            top = max(neutral_log, log + math.log(length))
            with np.errstate(under="ignore"):
                neutral = math.exp(neutral_log - top) * neutral + math.exp(log - top) * rest
            neutral_log = top
    return Frame(A, B, logs, rows, minus_logs, minus_rows, neutral_log, neutral).sorted()


def _paired_directions(first: Array, second: Array) -> tuple[Array, Array]:
    """a_i and b_i, with as few of them as possible in the state."""
    p = len(second)
    left, values, right = np.linalg.svd(first @ second.T, full_matrices=False)
    count = int(np.sum(values > _ROUNDING * max(float(values.max(initial=0.0)), 1e-300)))
    A, B = _completed(left[:, :count], first, p), _completed(right[:count].T, second, p)
    return A, B


def _completed(basis: Array, further: Array, width: int) -> Array:
    """Orthonormal columns: `basis`, then directions of `further`, then arbitrary ones."""
    count = basis.shape[1]
    if count == width:
        return np.ascontiguousarray(basis)
    rest = further - basis @ (basis.T @ further)
    left, values, _ = np.linalg.svd(rest, full_matrices=False)
    more = left[:, : min(width - count, int(np.sum(values > _ROUNDING * np.linalg.norm(further))))]
    known = np.concatenate([basis, more], axis=1)
    missing = width - known.shape[1]
    if missing:
        # Unit vectors, those least in the span first, which keeps decoupled coordinates decoupled.
        order = np.argsort(np.sum(known**2, axis=1), kind="stable")
        units = np.eye(len(known))[:, order[: min(len(known), width + missing)]]
        full = np.linalg.qr(np.concatenate([known, units], axis=1))[0]
        known = np.concatenate([known, full[:, known.shape[1] : width]], axis=1)
    return np.ascontiguousarray(known)


def _plain_frame(parts: list[tuple[Array, Array, float]]) -> Frame:
    import scipy.linalg

    k, R = parts[0][0].shape[1], len(parts[0][0])
    basis = np.zeros((R + len(parts[0][1]), 0))
    for first, second, _ in parts:
        Z = np.concatenate([first, second])
        rest = Z - basis @ (basis.T @ Z)
        Q, triangle, _ = scipy.linalg.qr(rest, mode="economic", pivoting=True)
        size = np.abs(np.diag(triangle))
        basis = np.concatenate([basis, Q[:, size > _ROUNDING * np.linalg.norm(Z)]], axis=1)
        basis = np.linalg.qr(basis)[0]
        if basis.shape[1] >= len(Z):
            break
    logs, rows = _nothing(basis.shape[1], k)
    identity = np.eye(basis.shape[1])
    for first, second, log in parts:
        Z = np.concatenate([first, second])
        along = basis.T @ Z
        along[np.linalg.norm(along, axis=1) <= _ROUNDING * np.linalg.norm(Z)] = 0.0
        add_rows(logs, rows, identity, np.full(len(logs), log), along)
    A, B = np.ascontiguousarray(basis[:R]), np.ascontiguousarray(basis[R:])
    empty = np.zeros(0), np.zeros((0, k))
    return Frame(A, B, logs, rows, *empty, -np.inf, np.zeros((R, 0))).sorted()


def orthonormal(matrix: Array) -> tuple[Array, Array]:
    """QR with a positive diagonal."""
    Q, triangle = np.linalg.qr(matrix)
    sign = np.where(np.diag(triangle) < 0, -1.0, 1.0)
    return np.ascontiguousarray(Q * sign), sign[:, None] * triangle


def values_of(frames: list[Frame], shift: Array) -> tuple[Array, Array]:
    """The halves of K states of one run, each times ``exp(-shift)``, (K, R, k) and (K, p, k)."""
    if not frames[0].is_paired:
        first, second = zip(*(frame.value(each) for frame, each in zip(frames, shift, strict=True)), strict=True)
        return np.array(first), np.array(second)
    A, B, logs, rows, minus_logs, minus_rows, neutral_log, neutral = (
        np.array([getattr(frame, field.name) for frame in frames]) for field in fields(Frame)
    )
    with np.errstate(under="ignore"):
        plus = _HALF * np.exp(logs - shift[:, None])[..., None] * rows
        minus = _HALF * np.exp(minus_logs - shift[:, None])[..., None] * minus_rows
        return A @ (plus + minus) + np.exp(neutral_log - shift)[:, None, None] * neutral, B @ (plus - minus)


def _without(head: Array, logs: Array, rows: Array, count: int) -> tuple[Array, Array, Array]:
    """Rows from `count` on without their components along `head`, and the coefficients of these, (rows, count)."""
    logs, rows = logs.copy(), rows.copy()
    later = rows[count:]
    along = np.asarray(np.linalg.lstsq(head.T, later.T, rcond=_DEPENDENT)[0].T, dtype=np.float64)
    rest = later - along @ head
    rest -= np.linalg.lstsq(head.T, rest.T, rcond=_DEPENDENT)[0].T @ head
    size = np.linalg.norm(rest, axis=1)
    kept = (size > _DEPENDENT) & (count < head.shape[1])
    with np.errstate(divide="ignore"):
        logs[count:] = np.where(kept, logs[count:] + np.log(size), -np.inf)
    rows[count:] = np.where(kept[:, None], rest / np.where(kept, size, 1.0)[:, None], 0.0)
    return logs, rows, along


def _nothing(count: int, k: int) -> tuple[Array, Array]:
    return np.full(count, -np.inf), np.zeros((count, k))
