"""Flows of small problems in arbitrary precision, by code that shares nothing with the package.

The weights move by ``w' = -g(E phi) d E phi/dw - sigma^2/2 d Var phi/dw``, everything written out by SymPy from the
formula and the moments of the noise, and integrated by Dormand and Prince's formulas of order 8 with 40 digits and
short steps: what a flow conserves keeps 15 digits relative to the weights, so that starts of 1e-4 and coordinates that
change sign are followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import mpmath
import numpy as np
import sympy
from scipy.integrate._ivp import dop853_coefficients as tableau

DIGITS = 40
#: Largest step times the fastest rate along the run.
RESOLVED = 0.1
STAGES = 12


@cache
def _field(formula: str, std: float) -> tuple[tuple[str, ...], Any]:
    """Names of the weights, and a function (weights) -> [E phi, dE/dw..., dVar/dw..., phi] in mpmath."""
    phi = sympy.sympify(formula)
    weights = sorted(phi.free_symbols, key=lambda symbol: symbol.name)
    mean, variance = phi, sympy.S.Zero
    if std:
        noisy = [sympy.Symbol(f"xi_{w.name}") for w in weights]
        shift = dict(zip(weights, [w + xi for w, xi in zip(weights, noisy, strict=True)], strict=True))
        once = sympy.expand(phi.subs(shift, simultaneous=True))
        mean, variance = (_gaussian(each, noisy, std) for each in (once, sympy.expand(once**2)))
        variance = sympy.expand(variance - mean**2)
    parts = [mean, *(mean.diff(w) for w in weights), *(variance.diff(w) for w in weights), phi]
    return tuple(w.name for w in weights), sympy.lambdify(weights, parts, "mpmath", cse=True)


def _gaussian(expression: sympy.Expr, noisy: Sequence[sympy.Symbol], std: float) -> sympy.Expr:
    out = sympy.S.Zero
    for powers, coefficient in sympy.Poly(expression, *noisy).terms():
        moment = sympy.S.One
        for n in powers:
            moment *= 0 if n % 2 else sympy.factorial2(n - 1) * sympy.Rational(std) ** n
        out += coefficient * moment
    return out


def flow(
    formula: str, X: np.ndarray, y: np.ndarray, start: dict[str, np.ndarray], t_end: float, std: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """``phi(w)`` at t_end / 2 and at t_end, (2, d), and the largest coefficient on the way."""
    names, parts = _field(formula, std)
    n, d = X.shape
    with mpmath.workdps(DIGITS):
        rows = [[mpmath.mpf(float(v)) for v in row] for row in X]
        target = [mpmath.mpf(float(v)) for v in y]
        squares = [sum(rows[k][i] ** 2 for k in range(n)) / n for i in range(d)]
        w = [[mpmath.mpf(float(start[name][i])) for name in names] for i in range(d)]

        def velocity(w: list) -> tuple[list, list]:
            seen = [parts(*own) for own in w]
            beta = [each[0] for each in seen]
            rest = [sum(row[i] * beta[i] for i in range(d)) - aim for row, aim in zip(rows, target, strict=True)]
            out = []
            for i in range(d):
                g = sum(rows[k][i] * rest[k] for k in range(n)) / n
                k = len(names)
                out.append([-g * seen[i][1 + a] - squares[i] / 2 * seen[i][1 + k + a] for a in range(k)])
            return beta, out

        # Runge-Kutta in few lines: stages of float coefficients err by 1e-16 of a step's change.
        A, b = tableau.A[:STAGES, :STAGES], tableau.B
        reported, largest = [], mpmath.mpf(0)
        t, half = mpmath.mpf(0), mpmath.mpf(t_end) / 2
        for goal in (half, 2 * half):
            while t < goal:
                beta, first = velocity(w)
                largest = max(largest, *(abs(value) for value in beta))
                size = max(1e-3, *(abs(float(value)) for own in w for value in own))
                speed = max(abs(float(value)) for own in first for value in own) / size
                stiff = float(sum(squares)) * d * size**2 * 4
                h = min(goal - t, mpmath.mpf(RESOLVED / max(stiff, speed, 1e-3)))
                stages = [first]
                for s in range(1, STAGES):
                    stages.append(velocity(_moved(w, h, A[s, :s], stages))[1])
                w = _moved(w, h, b, stages)
                t += h
            reported.append([float(parts(*own)[-1]) for own in w])
    return np.array(reported), np.array(float(largest))


def _moved(w: list, h: Any, weights: np.ndarray, stages: list) -> list:
    used = [(float(weight), stage) for weight, stage in zip(weights, stages, strict=True) if weight]
    return [
        [value + h * sum(c * stage[i][a] for c, stage in used) for a, value in enumerate(own)]
        for i, own in enumerate(w)
    ]
