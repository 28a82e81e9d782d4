"""Arbitrary-precision integration of flows: Gragg-Bulirsch-Stoer extrapolation in mpmath.

References
----------
Hairer, Norsett & Wanner, *Solving Ordinary Differential Equations I*, Section II.9.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np

#: Columns of the extrapolation table; each adds two orders.
_COLUMNS = 14


def _tableau(f, y, h, tolerance):
    """One step by the modified midpoint rule and polynomial extrapolation; None if it is too long."""
    table = []
    for column in range(_COLUMNS):
        n = 2 * (column + 1)
        step = h / n
        before, middle = y, [a + step * b for a, b in zip(y, f(y), strict=True)]
        for _ in range(n - 1):
            before, middle = middle, [a + 2 * step * b for a, b in zip(before, f(middle), strict=True)]
        row = [[(a + b + step * c) / 2 for a, b, c in zip(before, middle, f(middle), strict=True)]]
        for back in range(1, column + 1):
            ratio = (mp.mpf(column + 1) / (column + 1 - back)) ** 2 - 1
            row.append([a + (a - b) / ratio for a, b in zip(row[-1], table[-1][back - 1], strict=True)])
        table.append(row)
        if column > 4:
            error = max(abs(a - b) / (abs(a) + mp.mpf(10) ** -900) for a, b in zip(row[-1], row[-2], strict=True))
            if error < tolerance:
                return row[-1], column
    return None


def integrate(f, y, length, tolerance):
    t, h = mp.mpf(0), mp.mpf("0.1")
    while t < length:
        h = min(h, length - t)
        found = _tableau(f, y, h, tolerance)
        if found is None:
            h /= 2
            continue
        y, column = found
        t += h
        h *= mp.mpf("1.6") if column < 2 * _COLUMNS // 3 else 1
    return y


def precise_growth_flow(slope, X, y, alpha, times, digits=120, tolerance=18):
    """beta (T, d) of ``u*v`` from ``u = sqrt(2) alpha, v = 0`` under any loss, ``slope(f, y)`` its derivative.

    In growth coordinates: ``z' = -X^T slope(X beta, y) / n``, ``beta = alpha^2 sinh(2 z)``; errors of z are relative,
    10^-tolerance a step, in arithmetic of so many digits.
    """
    with mp.workdps(digits):
        n, d = len(y), len(X[0])
        X, y = [[mp.mpf(float(x)) for x in row] for row in X], [mp.mpf(float(value)) for value in y]
        small = mp.mpf(alpha) ** 2

        def beta(z):
            grown = [mp.exp(2 * v) for v in z]
            return [small * (e - 1 / e) / 2 for e in grown]

        def rate(z):
            here = beta(z)
            pull = [slope(sum(X[q][i] * here[i] for i in range(d)), y[q]) for q in range(n)]
            return [-sum(X[q][i] * pull[q] for q in range(n)) / n for i in range(d)]

        z, t, out = [mp.mpf(0)] * d, mp.mpf(0), []
        for end in times:
            z = integrate(rate, z, mp.mpf(float(end)) - t, mp.mpf(10) ** -tolerance)
            t = mp.mpf(float(end))
            out.append([float(value) for value in beta(z)])
        return np.array(out)
