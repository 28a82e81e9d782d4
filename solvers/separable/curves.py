"""Maps given as tables: growth curves as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array


@dataclass(frozen=True, eq=False)
class CurveArrays:
    """C curves in P pieces, those of curve c from ``first[c]`` to ``first[c + 1]``, by ascending z."""

    first: NDArray[np.int64]  #: (C + 1,)
    #: (P,), interval of each piece
    low: Array
    high: Array
    #: (P,), 1 for ``B - B_0 = sum_k energy_ck exp(2 (log_c_pk + rate_ck z))`` over the K components of sign_c != 0
    closed: NDArray[np.int64]
    #: (P, K)
    log_c: Array
    sign_c: Array
    #: (C, K)
    rate: Array
    energy: Array
    #: (P, N), Chebyshev coefficients of ``B - B_0``, B' and B'' in z, on each piece
    beta: Array
    slope: Array
    curvature: Array
    #: (C,), range of z in which the table may be evaluated; infinite where the curve continues as a straight line
    least: Array
    most: Array
    which: NDArray[np.int64]  #: (d,), the curve of each coordinate

    def packed(self) -> tuple[NDArray[np.int64], Array]:
        """Integers and numbers in two buffers, in the order of the attributes, sizes C, P, K and N first."""
        P, K = self.log_c.shape
        head = np.array([len(self.rate), P, K, self.beta.shape[1]], dtype=np.int64)
        integers = np.concatenate([head, self.first, self.closed, self.which]).astype(np.int64)
        parts = (
            self.low, self.high, self.log_c, self.sign_c, self.rate, self.energy, self.beta, self.slope, self.curvature,
            self.least, self.most,
        )  # fmt: skip
        return integers, np.concatenate([np.ravel(part) for part in parts]).astype(float)


class Curves(Protocol):
    """Growth curves that are tabulated on demand during a run."""

    def arrays(self) -> CurveArrays:
        """The tables so far."""

    def cover(self, here: Array, low: Array, high: Array) -> str | None:
        """Extend the tables around a state z (d,) to an interval of each coordinate, as far as curves exist.

        Returns the reason why the state itself is beyond the end of a curve, or None.
        """

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """B and B' at z (..., d)."""
