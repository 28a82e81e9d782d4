"""Stiff flows in arbitrary precision: Radau IIA collocation, whose steps are as long as the solution is smooth.

Stages are found to all digits by Newton's method: residuals in MPFR, corrections by matrices in floats.

References
----------
Hairer & Wanner, *Solving Ordinary Differential Equations II*, Sections IV.5 and IV.8.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import gmpy2
import mpmath
import numpy as np
from gmpy2 import mpfr

from tests.fuzz import oracles
from tests.fuzz.oracles import Field, Number

#: Stages, digits of their coefficients, and Newton's iterations.
STAGES, _DIGITS, _ITERATIONS = 18, 80, 14
#: Step of the differences of Jacobians; the last correction, of which floats leave its square and 1e-13; how steps
#: change.
_DIFFERENCE, _SOLVED, _SHORTEST, _LONGEST = mpfr("1e-24"), mpfr("1e-12"), 0.2, 2.5


class Tableau(NamedTuple):
    """A (s, s), and weights of the two highest coefficients of the polynomial through the start and the stages."""

    A: list[list]
    highest: list[list]
    floats: np.ndarray


@cache
def radau() -> Tableau:
    s = STAGES
    with mpmath.workdps(_DIGITS):
        legendre = np.polynomial.legendre.legroots([0.0] * (s - 1) + [-1.0, 1.0])
        roots = [
            mpmath.findroot(lambda x: mpmath.legendre(s, x) - mpmath.legendre(s - 1, x), mpmath.mpf(float(x)))
            for x in legendre[:-1]
        ]
        c = [*((x + 1) / 2 for x in roots), mpmath.mpf(1)]
        powers = mpmath.matrix([[node**k for k in range(s)] for node in c])
        integrals = mpmath.matrix([[node ** (k + 1) / (k + 1) for k in range(s)] for node in c])
        A = integrals * powers**-1

        def top(points: list) -> list:
            # The highest Chebyshev coefficient on [0, 1].
            size = mpmath.mpf(2) ** (3 - 2 * len(points))
            return [size / mpmath.fprod(p - other for other in points if other is not p) for p in points]

        highest = [top([mpmath.mpf(0), *c]), [mpmath.mpf(0), *top(c)]]
        exact, tops = ([[mpmath.nstr(v, _DIGITS) for v in row] for row in rows] for rows in (A.tolist(), highest))
    with oracles.precision(_DIGITS):
        return Tableau(*([[mpfr(v) for v in row] for row in rows] for rows in (exact, tops)), np.array(exact, float))


class Collocation:
    """``y' = f(y)``; the polynomial of a step is resolved to `tolerance` in every unknown."""

    def __init__(self, f: Field, y: list, tolerance: float = 1e-20) -> None:
        self.f, self.y, self.t, self.tolerance = f, y, mpfr(0), mpfr(tolerance)
        self.h = 1 / max((abs(v) for v in f(y)), default=mpfr(1))
        self.taken = 0

    def to(self, end: Number) -> list:
        while self.t < end:
            h = min(self.h, end - self.t)
            stages = self._stages(h)
            if stages is None:
                self.h = h / 4
                continue
            error = max(
                abs(sum(a * y[i] for a, y in zip(weights, [self.y, *stages], strict=True)))
                for weights in radau().highest for i in range(len(self.y))
            )  # fmt: skip
            factor = float((self.tolerance / (error + self.tolerance * mpfr("1e-30"))) ** (mpfr(1) / STAGES))
            self.h = h * min(max(0.9 * factor, _SHORTEST), _LONGEST)
            if error <= self.tolerance:
                self.y, self.t = stages[-1], end if h == end - self.t else self.t + h
                self.taken += 1
        return self.y

    def _stages(self, h: Number) -> list[list] | None:
        """y at the nodes; None where Newton's method does not find it."""
        A, stages = radau().A, [list(self.y) for _ in range(STAGES)]
        for _ in range(_ITERATIONS):
            slopes = [self.f(y) for y in stages]
            rest = [
                [y0 - v + h * sum(a * slope[i] for a, slope in zip(row, slopes, strict=True)) for i, (y0, v) in both]
                for row, y in zip(A, stages, strict=True) for both in [list(enumerate(zip(self.y, y, strict=True)))]
            ]  # fmt: skip
            if not all(gmpy2.is_finite(v) for row in rest for v in row):
                return None
            change = self._correction(rest, [self._jacobian(*both, h) for both in zip(stages, slopes, strict=True)])
            if change is None:
                return None
            stages = [[v + w for v, w in zip(y, own, strict=True)] for y, own in zip(stages, change, strict=True)]
            if max(abs(w) for own in change for w in own) <= _SOLVED:
                return stages
        return None

    def _correction(self, rest: list[list], jacobians: list[list[list]]) -> list[list] | None:
        """Newton's, from equations over the stiffness of their coordinate, which may be no float."""
        d = len(self.y)
        stiff = [1 + max(abs(v) for jacobian in jacobians for v in jacobian[i]) for i in range(d)]
        scaled = [[v / s for v, s in zip(row, stiff, strict=True)] for row in rest]
        size = max(abs(v) for row in scaled for v in row) or mpfr(1)
        blocks = np.array([[[float(v / stiff[i]) for v in jacobian[i]] for i in range(d)] for jacobian in jacobians])
        own = np.diag(np.tile([float(1 / s) for s in stiff], STAGES))
        matrix = own - np.einsum("ab,bij->aibj", radau().floats, blocks).reshape(STAGES * d, -1)
        try:
            found = np.linalg.solve(matrix, np.array([float(v / size) for row in scaled for v in row]))
        except np.linalg.LinAlgError:
            return None
        return [[size * mpfr(float(v)) for v in row] for row in found.reshape(STAGES, d)]

    def _jacobian(self, y: list, slope: list, h: Number) -> list[list]:
        """h df/dy."""
        columns = [self.f([*y[:j], y[j] + _DIFFERENCE, *y[j + 1 :]]) for j in range(len(y))]
        return [[h * (moved[i] - slope[i]) / _DIFFERENCE for moved in columns] for i in range(len(y))]
