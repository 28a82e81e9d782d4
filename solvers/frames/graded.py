r"""Sums and the QR factorisation of ``diag(e^x) M`` for exponents x of any size.

Rows have their own logarithms, on which Givens rotations of two rows act: the new pivot row is a sum of two
terms of which the larger is of order one, the other row becomes a 2 x 2 minor times ``e^(x_j + x_l) / r``, both right
to relative rounding, whatever the exponents.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import bare
from flowsim.solvers.matrices.algebra import scale
from flowsim.solvers.matrices.calls import Entry
from flowsim.solvers.matrices.interpreted import stands_for
from flowsim.solvers.matrices.scratch import empty


@bare()
def triangularised(work, M, logs, basis, count):
    """Rotate rows until the first `count` columns are upper triangular with a positive diagonal; in place.

    `M` (n, c): rows of the matrix ``e^logs M``; `logs` (n,); `basis` (n, N): the basis vector of each row, rotated as
    well; `count`: <= n.
    """
    n = len(M)
    for j in range(count):
        best, where = -np.inf, j
        for i in range(j, n):
            if M[i, j] != 0.0 and logs[i] + np.log(abs(M[i, j])) > best:
                best, where = logs[i] + np.log(abs(M[i, j])), i
        if where != j:
            _mix(M, j, where, (0.0, 1.0), (1.0, 0.0))
            _mix(basis, j, where, (0.0, 1.0), (1.0, 0.0))
            logs[j], logs[where] = logs[where], logs[j]
        for i in range(j + 1, n):
            b = M[i, j]
            if b == 0.0:
                continue
            a = M[j, j]
            ratio = logs[i] + np.log(abs(b)) - logs[j] - np.log(abs(a))
            # The pivot is the larger of the two.
            size = np.sqrt(1.0 + np.exp(2.0 * ratio))
            cosine = (1.0 if a > 0.0 else -1.0) / size
            sine = (1.0 if b > 0.0 else -1.0) * np.exp(ratio) / size
            log_r = logs[j] + np.log(abs(a)) + np.log(size)
            shift = np.exp(logs[i] - logs[j]) if logs[i] - logs[j] < 700.0 else np.inf
            _mix(M, j, i, (cosine, sine * shift if sine != 0.0 else 0.0), (-b, a))
            M[i, j] = 0.0
            _mix(basis, j, i, (cosine, sine), (-sine, cosine))
            logs[i] += logs[j] - log_r
            _scale(M, logs, i)
            _scale(M, logs, j)
        if M[j, j] < 0.0:
            scale(M[j], -1.0)
            scale(basis[j], -1.0)


#: Entry point for Python.
triangularise = Entry(triangularised, lambda: (np.zeros((1, 1)), np.zeros(1), np.zeros((1, 1)), 0))


@bare()
def _mix(M, j, i, first, second):
    """Combinations of rows j and i in their place; infinity times zero is zero."""
    for k in range(M.shape[1]):
        upper, lower = M[j, k], M[i, k]
        M[j, k] = first[0] * upper + (first[1] * lower if lower != 0.0 else 0.0)
        M[i, k] = second[0] * upper + second[1] * lower


@stands_for(_mix)
def _(M: Array, j: int, i: int, first: tuple[float, float], second: tuple[float, float]) -> None:
    added = np.where(M[i] != 0.0, first[1] * M[i], 0.0)
    M[j], M[i] = first[0] * M[j] + added, second[0] * M[j] + second[1] * M[i]


@bare()
def _scale(M, logs, i):
    largest = 0.0
    for k in range(M.shape[1]):
        largest = max(largest, abs(M[i, k]))
    if largest > 0.0:
        for k in range(M.shape[1]):
            M[i, k] /= largest
        logs[i] += np.log(largest)


@stands_for(_scale)
def _(M: Array, logs: Array, i: int) -> None:
    largest = np.abs(M[i]).max(initial=0.0)
    if largest > 0.0:
        M[i] /= largest
        logs[i] += np.log(largest)


@bare()
def rows_added(work, logs, rows, coefficient, more_logs, more_rows):
    """``exp(logs) rows += coefficient @ (exp(more_logs) more_rows)``, rows of unit length afterwards; in place."""
    sum_of_rows(empty(work, (rows.shape[1],)), logs, rows, coefficient, more_logs, more_rows)


@bare()
def sum_of_rows(total, logs, rows, coefficient, more_logs, more_rows):
    """The same of any arrays; `total` (k,) is overwritten."""
    count, k = rows.shape
    for i in range(count):
        top = logs[i]
        for j in range(more_logs.shape[0]):
            if coefficient[i, j] != 0.0 and more_logs[j] > -np.inf:
                top = max(top, more_logs[j] + np.log(abs(coefficient[i, j])))
        if top == -np.inf:
            continue
        own = np.exp(logs[i] - top)
        for c in range(k):
            total[c] = own * rows[i, c]
        for j in range(more_logs.shape[0]):
            if coefficient[i, j] != 0.0 and more_logs[j] > -np.inf:
                weight = np.exp(more_logs[j] + np.log(abs(coefficient[i, j])) - top)
                if coefficient[i, j] < 0.0:
                    weight = -weight
                for c in range(k):
                    total[c] += weight * more_rows[j, c]
        square = 0.0
        for c in range(k):
            square += total[c] * total[c]
        size = np.sqrt(square)
        logs[i] = top + np.log(size) if size > 0.0 else -np.inf
        for c in range(k):
            rows[i, c] = total[c] / size if size > 0.0 else 0.0


@stands_for(sum_of_rows)
def _(total: Array, logs: Array, rows: Array, coefficient: Array, more_logs: Array, more_rows: Array) -> None:
    terms = np.where(coefficient != 0.0, more_logs + np.log(np.abs(coefficient)), -np.inf)
    top = np.maximum(logs, terms.max(axis=1, initial=-np.inf))
    there = top > -np.inf
    base = np.where(there, top, 0.0)[:, None]
    new = np.exp(logs[:, None] - base) * rows + (np.sign(coefficient) * np.exp(terms - base)) @ more_rows
    size = np.linalg.norm(new, axis=1)
    logs[there] = (base[:, 0] + np.log(size))[there]
    rows[there] = (new / np.where(size > 0.0, size, 1.0)[:, None])[there]


def _examples() -> tuple[Any, ...]:
    vector, matrix = np.zeros(1), np.zeros((1, 1))
    return vector, matrix, matrix, vector, matrix


#: Entry point for Python.
add_rows = Entry(rows_added, _examples)
