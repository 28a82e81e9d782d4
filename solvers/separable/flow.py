"""The problem of the native integrator: data, and the map from z to beta."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.power_laws import Branches, PowerLaws, power_laws
from flowsim.solvers.separable.curves import Curves

#: Columns of a LinearOperator computed at once.
_BLOCK = 256


@cache
def compiled_reading() -> Any:
    """:mod:`flowsim.solvers.separable.reading`, imported on first use."""
    from flowsim.solvers.separable import reading

    return reading


@dataclass(frozen=True, eq=False)
class SeparableFlow:
    """The flow of this package's first equation, with nu(0) = 0.

    Attributes
    ----------
    A : array (r, d), sparse matrix, or LinearOperator
    b : array (r,)
    n : float
        > 0.
    log_coefficient, sign, slope, decay : array (K, d)
        l, s, a, b of the K exponentials of a coordinate; l = -inf for one that is absent.
    column_norms : array (d,), optional
        Norms of the columns of A; computed by default.
    power : int
        0 for exponentials; L for products, which use `sign` and `slope` (both +1 and -1, K = 2) alone.
    squares : array (L - 1, d)
        m^2 of a product.
    branches : Branches, optional
        In place of `squares`: tables of coordinates that grow like a product only while they are small. Their distances
        are those of balanced weights of the same size, and `slope` is their rate of change with z.
    distance : array (2, d)
        Distances to the blow-ups at the start, above and below, in the unit of z; infinite without one.
    log_unit : float
        Logarithm of the unit of z and t of a product, >= 0: distances may span twice the range of floats.
    loss : compiled function, optional
        Derivatives of a convex loss other than squares, ``void(float64[::1] f, y, w, d1, d2)``: writes ``w loss'(f,
        y)`` and ``w loss''(f, y)``. Then ``nu' = -loss'(A beta + offset, b)``; for exponentials and up to 5000
        coordinates.
    curves : Curves, optional
        Tables in place of exponentials (:mod:`flowsim.solvers.separable.curves`); then K = 1, `slope` is twice the
        fastest relative growth of a weight by z, `log_coefficient` about the smallest logarithm of a coefficient.
    weights, offset : array (r,), optional
        Sample weights w (1) and what is added to predictions (0).
    shared : dict, optional
        Cache of flows on the same small data: a workspace, and a factor of A, to be copied.
    """

    A: Any
    b: Array
    n: float
    log_coefficient: Array
    sign: Array
    slope: Array
    decay: Array
    column_norms: Array | None = None
    power: int = 0
    squares: Array | None = None
    branches: Branches | None = None
    distance: Array | None = None
    log_unit: float = 0.0
    #: coordinates with a loss other than squares, at most
    MOST_WITH_LOSS: ClassVar[int] = 5000

    loss: Any = None
    weights: Array | None = None
    offset: Array | None = None
    curves: Curves | None = None
    shared: dict[Any, Any] | None = None

    def __post_init__(self) -> None:
        one = slice(None) if self.sign.strides[1] or self.slope.strides[1] else slice(1)  # the same for all
        if (self.sign[:, one] * self.slope[:, one]).min(initial=0.0) < 0:
            raise ValueError("`sign` times `slope` must be >= 0: beta must not decrease in z.")

    @cached_property
    def own(self) -> dict[str, Any]:
        """Cache of what does not depend on the run."""
        return {}

    @cached_property
    def powers(self) -> PowerLaws:
        """The arrays of coordinates that blow up at finite z."""
        if self.power and (self.distance is None or (self.squares is None) == (self.branches is None)):
            raise ValueError("`distance`, and either `squares` or `branches`, must be given with `power`.")
        return power_laws(self.power, self.log_unit, self.d, self.squares, self.branches)

    @cached_property
    def d(self) -> int:
        return int(self.A.shape[1])

    @cached_property
    def rows(self) -> int:
        return int(self.A.shape[0])

    @cached_property
    def exponential(self) -> tuple[Array, Array, Array, Array]:
        """l, s, a and b."""
        return self.log_coefficient, self.sign, self.slope, self.decay

    @cached_property
    def terms(self) -> Array | None:
        """The exponentials of a few coordinates as one table, for compiled code; None for many, and for other maps."""
        kernel: Any = compiled_reading()
        has_one = self.curves is None and self.d <= kernel.COLUMNS
        return kernel.laid_out(self.exponential) if has_one else None

    def beta(self, z: Array, t: Array, only: NDArray[np.intp] | None = None, out: Array | None = None) -> Array:
        """Sums of exponentials, (T, d), for z (T, d) and t (T,); infinite on overflow.

        With `only`, z and the result are those of some coordinates. `out` may be z.
        """
        if self.curves is not None:
            assert only is None
            return self.curves(z)[0]
        kernel: Any = compiled_reading()
        z, t = np.ascontiguousarray(z, dtype=float), np.ascontiguousarray(t, dtype=float)
        out = np.empty(z.shape) if out is None else out
        terms: tuple[Array, ...] = self.exponential
        if only is not None:
            terms = tuple(np.ascontiguousarray(each[:, only]) for each in terms)
        kernel.sums(terms, z, t, kernel.terms_of(terms), out)
        return out

    def columns(self, index: NDArray[np.int64]) -> Array:
        """Columns of A as rows, in C order."""
        if isinstance(self.A, np.ndarray):
            return np.ascontiguousarray(self.A[:, index].T)
        if hasattr(self.A, "tocsc"):
            return np.ascontiguousarray(self._by_column[:, index].toarray().T)
        out = np.empty((len(index), self.rows))
        for first in range(0, len(index), _BLOCK):
            part = index[first : first + _BLOCK]
            unit = np.zeros((self.d, len(part)))
            unit[part, np.arange(len(part))] = 1.0
            out[first : first + len(part)] = np.asarray(self.A @ unit).T
        return out

    @cached_property
    def _by_column(self) -> Any:
        return self.A.tocsc()

    @cached_property
    def filled(self) -> tuple[SeparableFlow, NDArray[np.int64] | None]:
        """The flow of the coordinates with a non-empty column of a sparse A, and their indices; None for all.

        The others change by decay alone, and have no effect.
        """
        if not hasattr(self.A, "tocsc"):
            return self, None
        A = self.A.tocsc()
        index = np.flatnonzero(np.diff(A.indptr))
        if len(index) in (0, self.d):
            return self, None
        kept = type(A)((A.data, A.indices, np.append(A.indptr[index], A.indptr[-1])), shape=(self.rows, len(index)))
        names = ("log_coefficient", "sign", "slope", "decay")
        terms: dict[str, Any] = {
            name: _columns_of(term, index) for name, term in zip(names, self.exponential, strict=True)
        }
        norms = None if self.column_norms is None else self.column_norms[index]
        return replace(self, A=kept, column_norms=norms, **terms), index

    @cached_property
    def norms(self) -> Array:
        """Norms of the columns of A."""
        if self.column_norms is not None:
            return self.column_norms
        if isinstance(self.A, np.ndarray):
            return np.sqrt(np.einsum("ij,ij->j", self.A, self.A))
        if hasattr(self.A, "multiply"):
            return np.sqrt(np.asarray(self.A.multiply(self.A).sum(axis=0)).ravel())
        blocks = [np.arange(first, min(first + _BLOCK, self.d)) for first in range(0, self.d, _BLOCK)]
        return np.concatenate([np.linalg.norm(self.columns(block), axis=1) for block in blocks])


def _columns_of(term: Array, index: NDArray[np.int64]) -> Array:
    """Columns of an array (K, d); a broadcast over all coordinates stays one."""
    return np.broadcast_to(term[:, :1], (len(term), len(index))) if term.strides[1] == 0 else term[:, index]
