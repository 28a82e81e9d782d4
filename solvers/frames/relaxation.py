r"""The linear response of G to a forcing: ``x + mu K x``, ``K x = rows * (x P_2 + P_1 x) * columns``.

``P_1 = Z_1 Z_1^T`` and ``P_2 = Z_2 Z_2^T`` are those of the state at the start of a step, P_1 approximated by
``W W^T + nu (1 - .)`` with p columns W. The inverse is a preconditioner and a filter of the error estimate.
With constant columns the operator separates in the eigenvectors of P_2 (Woodbury's formula in each), with constant
rows in those of P_1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.compilation import bare
from flowsim.solvers.matrices.algebra import invert
from flowsim.solvers.matrices.calls import Entry
from flowsim.solvers.matrices.interpreted import stands_for
from flowsim.solvers.matrices.scratch import empty, empty_complex, zeros, zeros_complex

Complex = NDArray[np.complex128]


class Relaxation(NamedTuple):
    """The operator at one state, in the eigenvectors that :func:`factor` needs."""

    kind: int  #: 0, 1: the columns, the rows are constant
    #: (R,), (p,), curvatures
    rows: Array
    columns: Array
    W: Array  #: (R, q), eigenvectors of P_1, ``P_1 = W diag(small) W^T + nu`` on their complement
    small: Array  #: (q,)
    nu: float
    #: (p, p), (p,), eigenvectors and eigenvalues of P_2, if the columns are constant
    vectors: Array
    values: Array
    outer: Array  #: (p, p), P_2

    @classmethod
    def of(cls, rows: Array, columns: Array, basis: Array, inner: Array, outer: Array, nu: float) -> Relaxation:
        """``P_1 = basis @ inner @ basis.T + nu`` on the complement of the basis, ``P_2 = outer``."""
        rows, columns = (np.ascontiguousarray(each, dtype=float) for each in (rows, columns))
        small, left = np.linalg.eigh(inner)
        values, vectors = np.linalg.eigh(outer)
        return cls(
            int(np.ptp(columns) != 0.0), rows, columns, np.ascontiguousarray(basis @ left), np.maximum(small, 0.0),
            float(nu), np.ascontiguousarray(vectors), np.maximum(values, 0.0), outer,
        )  # fmt: skip


@bare()
def fastest(at):
    """The largest eigenvalue of K, from above."""
    rows = columns = values = 0.0
    small = at.nu
    for i in range(len(at.rows)):
        rows = max(rows, at.rows[i])
    for i in range(len(at.columns)):
        columns = max(columns, at.columns[i])
    for i in range(len(at.values)):
        values = max(values, at.values[i])
    for i in range(len(at.small)):
        small = max(small, at.small[i])
    return rows * columns * (values + small)


class Factors(NamedTuple):
    """The factorisation for :func:`answer` at times mu (K,)."""

    kind: int  #: 0, 1: the columns, the rows are constant
    vectors: Array  #: (p, p), eigenvectors of P_2
    W: Array  #: (R, q), eigenvectors of P_1
    diagonal: Complex  #: (K, p, R), ``1 / (1 + mu rates (value_j(P_2) + nu))``, if the columns are constant
    inverse: Complex  #: (K, p or q + 1, ., .)
    rates: Array  #: (R,)
    mus: Complex  #: (K,)


@bare()
def factored(work, at, mus):
    """Factorise ``1 + mu K`` of a :class:`Relaxation` for every mu."""
    q, p = at.W.shape[1], len(at.columns)
    if at.kind == 0:
        rates, small = empty(work, (len(at.rows),)), empty(work, (q,))
        for i in range(len(rates)):
            rates[i] = at.columns[0] * at.rows[i]
        for a in range(q):
            small[a] = at.small[a] - at.nu
        diagonal = empty_complex(work, (len(mus), p, len(rates)))
        for k in range(len(mus)):
            for j in range(p):
                for i in range(len(rates)):
                    diagonal[k, j, i] = 1.0 / (1.0 + mus[k] * (rates[i] * (at.values[j] + at.nu)))
        inverse = _woodbury(work, mus, rates, diagonal, at.W, small)
        return Factors(0, at.vectors, at.W, diagonal, inverse, rates, mus)
    weight = empty(work, (p,))
    for a in range(p):
        weight[a] = at.rows[0] * at.columns[a]
    inverse = empty_complex(work, (len(mus), q + 1, p, p))
    for k in range(len(mus)):
        for j in range(q + 1):
            shift = at.small[j] if j < q else at.nu
            square = inverse[k, j]
            for a in range(p):
                for b in range(p):
                    square[a, b] = mus[k] * (at.outer[a, b] * weight[b])
                square[a, a] += 1.0 + mus[k] * (shift * weight[a])
            invert(work, square)
    nothing = empty_complex(work, (0, 0, 0))
    return Factors(1, at.vectors, at.W, nothing, inverse, weight, mus)


def examples() -> tuple[Relaxation, Complex, Factors]:
    """Arguments of the usual types."""
    vector, matrix, times = np.zeros(1), np.zeros((1, 1)), np.zeros(1, complex)
    relaxation, nothing = Relaxation.of(vector, vector, matrix, matrix, matrix, 0.0), np.zeros((0, 0, 0), complex)
    return relaxation, times, Factors(0, matrix, relaxation.W, nothing, nothing[None], vector, times)


def _defects_examples() -> tuple[Any, ...]:
    matrix = np.zeros((1, 1))
    return examples()[2], matrix, matrix[None], matrix, matrix


#: Entry points for Python.
factor = Entry(factored, lambda: examples()[:2])


@bare()
def _woodbury(work, mus, rates, diagonal, W, small):
    """``(1 / small + W^T (mu rates / diagonal) W)^{-1}``, written without dividing by `small`."""
    K, p, R = diagonal.shape
    q = W.shape[1]
    out, inner = empty_complex(work, (K, p, q, q)), empty_complex(work, (q, q))
    for k in range(K):
        for j in range(p):
            for a in range(q):
                for b in range(q):
                    inner[a, b] = 0.0
            for i in range(R):
                share = mus[k] * rates[i] * diagonal[k, j, i]
                for a in range(q):
                    here = W[i, a] * share
                    for b in range(a + 1):
                        inner[a, b] += W[i, b] * here
            for a in range(q):
                for b in range(a):
                    inner[b, a] = inner[a, b] * small[b]
                    inner[a, b] *= small[a]
                inner[a, a] = 1.0 + small[a] * inner[a, a]
            invert(work, inner)
            for a in range(q):
                for b in range(q):
                    out[k, j, a, b] = inner[a, b] * small[b]
    return out


@stands_for(_woodbury)
def _(work: None, mus: Complex, rates: Array, diagonal: Complex, W: Array, small: Array) -> Complex:
    share = mus[:, None, None] * rates * diagonal
    inner = small[:, None] * ((W.T * share[..., None, :]) @ W)
    return np.asarray(np.linalg.inv(np.eye(len(small)) + inner) * small)


@bare()
def answer(work, factors, residual):
    """``(1 + mu_k K)^{-1} residual_k`` for complex residuals (K, R, p); a single mu applies to all."""
    if factors.kind == 0:
        return _answer_columns(work, factors, residual)
    return _answer_rows(work, factors, residual)


@bare()
def _answer_columns(work, factors, residual):
    K, R, p = residual.shape
    q = factors.W.shape[1]
    W, rates = factors.W, factors.rates
    out, column = zeros_complex(work, (K, R, p)), empty_complex(work, (R,))
    along, part_of = empty_complex(work, (q,)), empty_complex(work, (q,))
    for k in range(K):
        f = min(k, len(factors.mus) - 1)
        for j in range(p):
            for a in range(q):
                along[a] = 0.0
            for i in range(R):
                total = 0.0j
                for c in range(p):
                    total += residual[k, i, c] * factors.vectors[c, j]
                column[i] = total * factors.diagonal[f, j, i]
                for a in range(q):
                    along[a] += W[i, a] * column[i]
            for a in range(q):
                part_of[a] = 0.0
                for b in range(q):
                    part_of[a] += factors.inverse[f, j, a, b] * along[b]
            for i in range(R):
                total = 0.0j
                for a in range(q):
                    total += W[i, a] * part_of[a]
                value = column[i] - factors.mus[f] * rates[i] * factors.diagonal[f, j, i] * total
                for c in range(p):
                    out[k, i, c] += value * factors.vectors[c, j]
    return out


@stands_for(_answer_columns)
def _(work: None, factors: Factors, residual: Complex) -> Complex:
    columns = factors.diagonal * (factors.vectors.T @ np.swapaxes(residual, 1, 2))
    parts = factors.inverse @ (columns @ factors.W)[..., None]
    response = factors.mus[:, None, None] * factors.rates * factors.diagonal * (parts[..., 0] @ factors.W.T)
    return np.ascontiguousarray(np.swapaxes(factors.vectors @ (columns - response), 1, 2))


@bare()
def _answer_rows(work, factors, residual):
    K, R, p = residual.shape
    q = factors.W.shape[1]
    W = factors.W
    out, rest = zeros_complex(work, (K, R, p)), empty_complex(work, (R, p))
    along, answered = empty_complex(work, (p,)), empty_complex(work, (p,))
    for k in range(K):
        f = min(k, len(factors.mus) - 1)
        for i in range(R):
            for c in range(p):
                rest[i, c] = residual[k, i, c]
        for a in range(q):
            for c in range(p):
                along[c] = answered[c] = 0.0
            for i in range(R):
                for c in range(p):
                    along[c] += W[i, a] * residual[k, i, c]
            for b in range(p):
                for c in range(p):
                    answered[c] += along[b] * factors.inverse[f, a, b, c]
            for i in range(R):
                for c in range(p):
                    rest[i, c] -= W[i, a] * along[c]
                    out[k, i, c] += W[i, a] * answered[c]
        for i in range(R):
            for b in range(p):
                for c in range(p):
                    out[k, i, c] += rest[i, b] * factors.inverse[f, q, b, c]
    return out


@bare()
def defects(work, factors, at_ends, G, G0, G1):
    """Defects of the polynomial through G at the ends of a step.

    Norms: of the responses to it at both ends and to G1, and the larger of it at the ends by itself.
    """
    s, R, p = G.shape
    residual = empty_complex(work, (3, R, p))
    for i in range(R):
        for c in range(p):
            first, last = -G0[i, c], -G1[i, c]
            for j in range(s):
                first += at_ends[0, j] * G[j, i, c]
                last += at_ends[1, j] * G[j, i, c]
            residual[0, i, c], residual[1, i, c], residual[2, i, c] = first, last, G1[i, c]
    answered = answer(work, factors, residual)
    out = zeros(work, (4,))
    for k in range(3):
        missed = 0.0
        for i in range(R):
            for c in range(p):
                out[k] += answered[k, i, c].real ** 2 + answered[k, i, c].imag ** 2
                missed += residual[k, i, c].real ** 2
        out[k] = math.sqrt(out[k])
        if k < 2:
            out[3] = max(out[3], math.sqrt(missed))
    return out


#: Entry point for Python.
sizes = Entry(defects, _defects_examples)
