"""Ill-conditioned features: rows of a triangular factor of A, each with its own scale, as additional coordinates."""

from __future__ import annotations

import numpy as np

from flowsim.solvers.array_kinds import Array, Index
from flowsim.solvers.multistep.buffers import Memory
from flowsim.solvers.separable.distance_steps import address_of

#: A is ill-conditioned where the rows of its factor decrease by more; the Gram matrix has their squares.
_ILL_CONDITIONED = 1e4


def graded_rows(A: Array, b: Array) -> tuple[Array, Array] | None:
    """R with falling rows and Q^T b for ``A = Q R``; None where A is well-conditioned.

    By a pivoted QR decomposition of the normalised columns, in which no entry of a row is larger than the one
    on the diagonal. Rows that are rounding are left out: dependent columns, and columns of
    different sizes, do not make a matrix ill-conditioned.
    """
    if A.size == 0 or not (np.isfinite(A).all() and np.isfinite(b).all()):
        return None
    norms = np.linalg.norm(A, axis=0)
    norms[norms == 0.0] = 1.0
    import scipy.linalg  # on use: `import flowsim` does not import SciPy

    Q, R, order = scipy.linalg.qr(A / norms, mode="economic", pivoting=True)
    size = np.abs(np.diag(R))
    rank = int((size > max(A.shape) * np.finfo(float).eps * size[0]).sum())
    if rank == 0 or size[0] <= _ILL_CONDITIONED * size[rank - 1]:
        return None
    factor = np.empty((rank, A.shape[1]))
    factor[:, order] = R[:rank]
    return factor * norms, np.asarray(Q[:, :rank].T @ b)


def with_rows(exponential: tuple[Array, ...], rows: int) -> tuple[Array, ...]:
    """The terms of coordinates, and of `rows` further ones without exponentials."""
    K = len(exponential[0])
    nothing = (np.full((K, rows), -np.inf), np.ones((K, rows)), np.zeros((K, rows)), np.zeros((K, rows)))
    return tuple(np.ascontiguousarray(np.hstack(pair)) for pair in zip(exponential, nothing, strict=True))


def continued(A: Array, n: float, exponential: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...], Array]:
    """A, exponentials and reaches of the coordinates, and of the rows of A as coordinates without exponentials."""
    r = len(A)
    reach = np.append(np.abs(A.T @ A).max(axis=0) / n, np.ones(r))
    return np.hstack([A, np.sqrt(n) * np.eye(r)]), with_rows(exponential, r), reach


def hand_over(work: Memory, rows: int) -> tuple[Index, Array]:
    """Pass the address of Newton's method in graded rows to the loop; returns its buffers, which must be kept alive."""
    from flowsim.solvers.multistep.graded_rows import address, buffers
    from flowsim.solvers.multistep.workspace import Sizes

    kept = buffers(rows, int(work.table[work.entry(Sizes, "padded")]))
    work.write(Sizes, graded=address(), graded_integers=address_of(kept[0]), graded_numbers=address_of(kept[1]))
    return kept
