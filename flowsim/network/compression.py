r"""Compression of the width: U V^T in the row space of its start.

With Q (h, k) an orthonormal basis of the row space of :math:`(U_0; V_0)`, the flow (and gradient descent) stays of the
form :math:`(U, V) = (A Q^\top, B Q^\top)`, A and B of width at most D + m.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from flowsim.arrays import Array, log_abs
from flowsim.solvers.threads import one_blas_thread

#: Condition number of the start's rows up to which their Gram matrix (one pass over the width) gives the factor to
#: 1e-12; beyond it Householder reflections do, at forty times the cost for width 10^6.
_LARGEST_CONDITION = 1e2
#: Hidden units processed together.
_BLOCK = 2_048


@dataclass(frozen=True, eq=False)
class Compression:
    """U_0 = A Q^T, V_0 = B Q^T."""

    #: (D, k), (m, k), k = min(h, D + m)
    A: Array
    B: Array
    #: callable () -> array (h, k) or None, computes Q on demand; None without compression (Q = 1)
    basis: Callable[[], Array] | None

    def __reduce__(self) -> tuple[Any, ...]:
        return Compression, (self.A, self.B, None if self.basis is None else partial(np.asarray, self.basis()))

    @property
    def width(self) -> int:
        return self.A.shape[1]


def compress(U: Array, V: Array) -> Compression:
    """The start in the basis of its row space; unchanged where h <= D + m."""
    D, h = U.shape
    m = len(V)
    k = D + m
    if h <= k:
        return Compression(np.array(U, dtype=float), np.array(V, dtype=float), None)
    gram = _gram(U, V)
    if not np.isfinite(gram).all():
        bad = ~np.isfinite(np.diag(gram))
        return Compression(np.where(bad[:D, None], np.nan, np.zeros((D, k))), np.full((m, k), np.nan), None)
    size = np.sqrt(np.diag(gram))
    rows = np.flatnonzero(size > 0)
    triangle = np.zeros((k, k))
    basis: Callable[[], Array]
    scaled = gram[np.ix_(rows, rows)] / np.outer(size[rows], size[rows])
    eigenvalues = np.linalg.eigvalsh(scaled) if len(rows) else np.ones(1)
    if eigenvalues[0] * _LARGEST_CONDITION**2 > eigenvalues[-1]:
        lower = size[rows, None] * np.linalg.cholesky(scaled)
        triangle[rows, : len(rows)] = lower

        def basis() -> Array:
            _unchanged(U, V, size)
            Q = np.zeros((h, k))
            if len(rows):
                stacked = np.concatenate([U[rows[rows < D]], V[rows[rows >= D] - D]])
                Q[:, : len(rows)] = np.linalg.solve(lower, stacked).T
            return Q
    else:
        Q, upper = np.linalg.qr(np.concatenate([U, V]).T)
        triangle[:] = upper.T

        def basis() -> Array:
            return Q

    return Compression(triangle[:D].copy(), triangle[D:].copy(), basis)


def _gram(U: Array, V: Array) -> Array:
    """``(U; V) (U; V)^T`` in one pass over the memory, block by block through the cache."""
    (D, h), k = U.shape, len(U) + len(V)
    gram, block = np.zeros((k, k)), np.empty((k, min(h, _BLOCK)))
    # One thread: the pass is bound by memory bandwidth.
    with one_blas_thread(h > _BLOCK), np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, h, _BLOCK):
            here = block[:, : h - first]
            here[:D], here[D:] = U[:, first : first + _BLOCK], V[:, first : first + _BLOCK]
            gram += here @ here.T  # half of the products, by symmetry
    return gram


def _unchanged(U: Array, V: Array, size: Array) -> None:
    """Refuse to lift if the start, which is kept by reference (it can be gigabytes), has changed."""
    now = np.concatenate([np.sqrt(np.einsum("ij,ij->i", M, M)) for M in (U, V)])
    if not np.allclose(now, size, rtol=1e-10, atol=0.0):
        raise ValueError(
            "`start` was changed after the run began; the weights cannot be lifted to full width any more."
        )


def lifted(
    compressed: Mapping[str, Array],
    basis: Callable[[], Array] | None,
    log_units: Mapping[str, Array | float] | None = None,
) -> Mapping[str, Array]:
    """Weights of all hidden units from those in a compressed basis, if any.

    With `log_units`, (...) for each name or 0, the logarithms of their moduli: `compressed` are in these units.
    """
    return compressed if basis is None and log_units is None else LiftedWeights(compressed, basis, log_units)


class LiftedWeights(Mapping[str, Array]):
    """U (..., D, h) and V (..., m, h), or their logarithms, computed on access; made by :func:`lifted`.

    Attributes
    ----------
    compressed : mapping
        U (..., D, k) and V (..., m, k).
    """

    def __init__(
        self,
        compressed: Mapping[str, Array],
        basis: Callable[[], Array] | None,
        log_units: Mapping[str, Array | float] | None = None,
    ) -> None:
        self.compressed, self._basis, self._log_units = compressed, basis, log_units

    @property
    def basis(self) -> Array:
        """Q (h, k): orthonormal columns (zero columns where the start's rows are dependent)."""
        return np.eye(self.compressed["U"].shape[-1]) if self._basis is None else self._basis()

    def __reduce__(self) -> tuple[Any, ...]:
        basis = None if self._basis is None else partial(np.asarray, self._basis())
        return LiftedWeights, (dict(self.compressed), basis, self._log_units)

    def __getitem__(self, name: str) -> Array:
        whole = self.compressed[name] if self._basis is None else self.compressed[name] @ self._basis().T
        if self._log_units is None:
            return whole
        return log_abs(whole) + np.asarray(self._log_units.get(name, 0.0))[..., None, None]

    def __iter__(self) -> Iterator[str]:
        return iter(self.compressed)

    def __len__(self) -> int:
        return len(self.compressed)

    @property
    def stored(self) -> Mapping[str, Array]:
        """The same in the compressed basis, for files: the full arrays may not fit into memory."""
        return lifted(self.compressed, None, self._log_units)

    def select(self, index: Any) -> LiftedWeights:
        """A selection of times, without lifting."""
        inner, units = self.compressed, self._log_units
        chosen = inner.select(index) if hasattr(inner, "select") else {key: inner[key][index] for key in inner}
        return LiftedWeights(
            chosen, self._basis, units and {name: np.asarray(unit)[index] for name, unit in units.items()}
        )
