"""One sweep of coordinate descent, compiled."""

from __future__ import annotations

from typing import Any

import numba

_VEC = numba.float64[::1]
_compile: Any = numba.njit(
    numba.float64(numba.float64[::1, :], _VEC, _VEC, _VEC, _VEC, _VEC, numba.int64[::1]), cache=True
)


@_compile
def sweep(X, residual, beta, squares, plus, minus, coordinates):  # pragma: no cover - compiled
    """Minimise over each listed coordinate in turn; returns the largest change of a partial derivative."""
    n = X.shape[0]
    largest = 0.0
    for i in coordinates:
        force = 0.0
        for row in range(n):
            force += X[row, i] * residual[row]
        pull = force / n + squares[i] * beta[i]
        if pull > plus[i]:
            new = (pull - plus[i]) / squares[i]
        elif pull < -minus[i]:
            new = (pull + minus[i]) / squares[i]
        else:
            new = 0.0
        move = new - beta[i]
        if move != 0.0:
            for row in range(n):
                residual[row] -= move * X[row, i]
            beta[i] = new
            largest = max(largest, abs(move) * squares[i])
    return largest
