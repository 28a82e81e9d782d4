"""Flows in their weights in multiple precision: Gragg's extrapolation, with the averages that SymPy finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import mpmath
import numpy as np
import sympy

import flowsim as fs
from flowsim.symbolic.expectation import expectation

DIGITS = 50
_COLUMNS = 12


def extrapolate(f: Callable, y: list, t_end, tolerance) -> list:
    """``y' = f(y)`` over [0, t_end] by the modified midpoint rule and Richardson extrapolation."""
    t, h = mpmath.mpf(0), mpmath.mpf(1) / 10
    while t < t_end:
        h = min(h, t_end - t)
        while True:
            table: list[list[list]] = []
            for j in range(_COLUMNS):
                n = 2 * (j + 1)
                step = h / n
                before, now = y, [a + step * b for a, b in zip(y, f(y), strict=True)]
                for _ in range(n - 1):
                    before, now = now, [a + 2 * step * b for a, b in zip(before, f(now), strict=True)]
                row = [[(a + b + step * c) / 2 for a, b, c in zip(before, now, f(now), strict=True)]]
                for m in range(1, j + 1):
                    ratio = (mpmath.mpf(n) / (2 * (j + 1 - m))) ** 2 - 1
                    row.append([a + (a - b) / ratio for a, b in zip(row[-1], table[-1][m - 1], strict=True)])
                table.append(row)
                if j >= 5:
                    error = max(
                        abs(a - b) / (abs(a) + mpmath.mpf(10) ** -300) for a, b in zip(row[-1], row[-2], strict=True)
                    )
                    if error < tolerance:
                        break
            else:
                h /= 2
                continue
            break
        t, y = t + h, row[-1]
        if j <= 8:
            h *= mpmath.mpf("1.6")
    return y


def averaged_flow(
    formula: str,
    noise: fs.Noise | None,
    problem: fs.Regression,
    start: Mapping[str, Sequence[float]],
    alpha: str,
    times: Sequence[float],
    weight_decay: float = 0.0,
    digits: int = DIGITS,
) -> np.ndarray:
    """beta at `times`, shape (T, d)."""
    own = fs.DiagonalNetwork(formula).formulas[0]
    x = [sympy.Symbol(name, real=True) for name in own.weights]
    s = [sympy.Dummy() for _ in x]
    found = expectation(own.expression, x, s, noise)
    assert not found.quadratures
    with mpmath.workdps(digits):
        stds = [0.0] * len(x) if noise is None else noise.stds(own.weights)
        values = {symbol: sympy.Float(repr(float(std)), digits) for symbol, std in zip(s, stds, strict=True)}
        m, V = found.mean.xreplace(values), found.variance.xreplace(values)
        averages = sympy.lambdify(x, [m, *(m.diff(a) for a in x), *(V.diff(a) for a in x)], "mpmath")
        value = sympy.lambdify(x, own.expression, "mpmath")
        X, y = mpmath.matrix(problem.X.tolist()), mpmath.matrix(problem.y.tolist())
        n, d, k = problem.n, problem.d, len(x)
        s2 = [sum(X[r, i] ** 2 for r in range(n)) / n if noise is not None else 0 for i in range(d)]

        def field(w: list) -> list:
            parts = [averages(*w[i::d]) for i in range(d)]
            residual = X * mpmath.matrix([part[0] for part in parts]) - y
            g = X.T * residual / n
            return [
                -(g[i] * parts[i][1 + a] + s2[i] / 2 * parts[i][1 + k + a]) - weight_decay * w[a * d + i]
                for a in range(k)
                for i in range(d)
            ]

        w = [mpmath.mpf(repr(float(start[name][i]))) * mpmath.mpf(alpha) for name in own.weights for i in range(d)]
        out, last = [], mpmath.mpf(0)
        for t in map(mpmath.mpf, times):
            w = extrapolate(field, w, t - last, mpmath.mpf(10) ** -20)
            last = t
            out.append([float(value(*w[i::d])) for i in range(d)])
    return np.array(out)
