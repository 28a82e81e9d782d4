r"""One step of the method in NumPy: the code to read first, and the oracle of the compiled loop in tests.

The flow is :math:`z' = f(z, t) = c - G\beta(z, t)`. f is interpolated at the last k points of time and, with its
derivative, at the new one; the integral of that polynomial P over the step is the step,

.. math:: z_{n+1} = z_n + \int_{t_n}^{t_{n+1}} P\,dt
          = z_n + \sum_{j<k} w_j f_{n-j} + A f_{n+1} - B f'_{n+1}.

It is solved for z_{n+1} by Newton's method. The local error is what one more past point would change. The compiled loop
does the same with the active coordinates alone, with coefficients from modified divided differences, a matrix kept over
many steps, and one evaluation of the map per step; its f is updated by the corrections instead of being evaluated
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowsim.solvers.array_kinds import Array

#: Relative size of a correction at which Newton's iteration ends, and the largest number of corrections.
_CONVERGED, _ITERATIONS = 1e-14, 50


@dataclass(frozen=True)
class MapValues:
    """beta and its derivatives, (d,) each: by z, by t, twice by z, by z and t."""

    beta: Array
    beta_z: Array
    beta_t: Array
    beta_zz: Array
    beta_zt: Array


Map = Callable[[Array, float], MapValues]


@dataclass(frozen=True)
class History:
    """Past points, the last one first: times (m,), z at the last one (d,), f at all of them (m, d)."""

    t: Array
    z: Array
    f: Array


@dataclass(frozen=True)
class Step:
    """The new z, f and f', and the local error of z, (d,) each."""

    z: Array
    f: Array
    df: Array
    error: Array


def formula(k: int, past: Array, t: float) -> tuple[Array, float, float]:
    """Weights of f at the last k points, and A and B, for a step from ``past[0]`` to t: exact for degree k + 1.

    Enright (1974), with any spacing: of the polynomials x^q, x in units of the step from its end, the values at the
    past points, the value at the end, and minus the derivative there make the integral over the step.
    """
    h = t - past[0]
    nodes, powers = (past[:k] - t) / h, np.arange(k + 2)
    conditions = np.zeros((k + 2, k + 2))
    conditions[:, :k] = nodes ** powers[:, None]
    conditions[0, k], conditions[1, k + 1] = 1.0, -1.0 / h
    integrals = -((-1.0) ** (powers + 1)) / (powers + 1)
    weights = h * np.linalg.solve(conditions, integrals)
    return weights[:k], float(weights[k]), float(weights[k + 1])


def step(gram: Array, drive: Array, beta_map: Map, history: History, t: float, k: int) -> Step:
    """One step to time t with k past values of f; with an error estimate if there is one more.

    Parameters
    ----------
    gram, drive : array (d, d), (d,)
        G and c.
    history : History
        At least k points.
    """
    weights, first, second = formula(k, history.t, t)
    known = history.z + weights @ history.f[:k]
    z = history.z + (t - history.t[0]) * history.f[0]
    identity = np.eye(len(z))
    for _ in range(_ITERATIONS):
        f, df, residual, jacobian = _equation(gram, drive, beta_map(z, t), known - z, first, second, identity)
        change = np.linalg.solve(jacobian, residual)
        z = z + change
        if np.abs(change).max() <= _CONVERGED * max(1.0, np.abs(z).max()):
            break
    f, df, _, _ = _equation(gram, drive, beta_map(z, t), known - z, first, second, identity)
    error = np.full(len(z), np.nan)
    if len(history.t) > k:
        # The formula with one more past point, at the same f and f'.
        more, more_first, more_second = formula(k + 1, history.t, t)
        error = np.abs((history.z + more @ history.f[: k + 1] + more_first * f - more_second * df) - z)
    return Step(z, f, df, error)


def _equation(
    gram: Array, drive: Array, at: MapValues, rest: Array, first: float, second: float, identity: Array
) -> tuple[Array, Array, Array, Array]:
    r"""f, f', the residual of ``z = known + A f - B f'`` and its Jacobian.

    :math:`f' = -G (D f + \beta_t)`, whose derivative in z is :math:`-G (Q - D G D)`, :math:`Q = \beta_{zz} f +
    \beta_{zt}`.
    """
    f = drive - gram @ at.beta
    df = -gram @ (at.beta_z * f + at.beta_t)
    residual = rest + first * f - second * df
    slope = gram * at.beta_z
    bent = np.diag(at.beta_zz * f + at.beta_zt) - at.beta_z[:, None] * slope
    return f, df, residual, identity + first * slope - second * (gram @ bent)
