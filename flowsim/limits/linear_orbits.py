r"""From one saddle of a two-layer linear network to the next.

With r active directions at rest the network leaves along the fastest direction e of its complement, a hidden unit of
its own: the orbit is the trajectory of the network of width r + 1

.. math:: Z' = S(\beta)\, Z, \qquad Z = (Z_r, \epsilon e), \quad \epsilon \to 0.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flowsim.errors import IntegrationError
from flowsim.limits.linear_blocks import Block
from flowsim.limits.orbits import Orbit, by_distance

__all__ = ["block_orbit", "departure", "follow_to_rest", "relaxation_rate", "settle"]

Array = NDArray[np.float64]

#: Size of the new direction at departure, squared (what beta sees of it), relative to the least-squares solution.
_DEPARTURE = 1e-10
#: An orbit has arrived when its speed is this share of its largest.
_REST = 1e-9
_TOLERANCE = 1e-10
#: Unknowns up to which an implicit method, and a dense Newton step, are cheap.
_SMALL = 400
#: Spans of time, each 1.5 times the last, before an orbit is given up, and evaluations in all.
_SPANS = 60
_BUDGET = 400_000
_REFINE = 4
_NEWTON_STEPS = 12
#: Eigenvalues of the Hessian below this, relative to the largest, belong to turns of the hidden layer.
_FREE = 1e-10
#: How far an orbit may end from the saddle that the process states, relative to the size of the jump.
_MISS = 1e-5


class _SpentError(Exception):
    """The budget is spent."""


def departure(block: Block, Z: Array, towards: Array | None) -> Array:
    """The active directions and a small new one."""
    assert towards is not None
    size = float(np.linalg.norm(block.signal / block.curvatures[:, None]))
    return np.column_stack([Z, math.sqrt(_DEPARTURE * size) * towards])


def velocity(block: Block, Z: Array) -> Array:
    """``S(beta) Z``."""
    r = block.shape[0]
    U, V = Z[:r], Z[r:]
    G = block.force(U @ V.T)
    return np.concatenate([G @ V - block.a[:, None] * U, G.T @ U - block.b * V])


def follow_to_rest(block: Block, Z: Array) -> Array:
    """Where the flow from Z comes to rest, to about 1e-9."""
    return _follow(block, Z)[-1]


def _follow(block: Block, Z: Array) -> list[Array]:
    """States along the flow until it rests.

    Raises
    ------
    IntegrationError
        If it does not.
    """
    from scipy.integrate import solve_ivp

    shape, evaluations = Z.shape, 0

    def rate(_: float, state: Array) -> Array:
        nonlocal evaluations
        evaluations += 1
        if evaluations > _BUDGET:
            raise _SpentError
        return velocity(block, state.reshape(shape)).ravel()

    first = velocity(block, Z)[:, -1]
    small, scale = (
        float(np.linalg.norm(Z[:, -1])),
        float(np.sqrt(np.linalg.norm(block.signal / block.curvatures[:, None]))),
    )
    duration = 5.0 * small / max(float(np.linalg.norm(first)), 1e-300)
    states, peak = [Z], 0.0
    for _ in range(_SPANS):
        try:
            with warnings.catch_warnings():  # a failure is seen by its flag
                warnings.simplefilter("ignore", UserWarning)
                solution = solve_ivp(
                    rate, (0.0, duration), states[-1].ravel(), method="LSODA" if Z.size <= _SMALL else "DOP853",
                    rtol=_TOLERANCE, atol=_TOLERANCE * scale * 1e-3, dense_output=True,
                )  # fmt: skip
        except _SpentError:
            break
        if not (solution.success and np.isfinite(solution.y).all()):
            break
        pieces = [np.linspace(s, e, _REFINE + 1)[1:] for s, e in zip(solution.t[:-1], solution.t[1:], strict=True)]
        found = [column.reshape(shape) for column in solution.sol(np.concatenate(pieces)).T]
        speeds = [float(np.linalg.norm(velocity(block, state))) for state in found]
        states += found
        peak = max(peak, *speeds)
        if speeds[-1] <= _REST * peak and float(np.linalg.norm(states[-1][:, -1])) > 100 * small:
            return states
        duration *= 1.5
    raise IntegrationError(
        "the orbit that leads to the next saddle does not come to rest; the data may be nearly degenerate."
    )


def settle(block: Block, Z: Array) -> Array:
    """The stationary point next to Z, by Newton steps of least norm (orthogonal turns of the hidden layer are free)."""
    gradient = velocity(block, Z)
    for _ in range(_NEWTON_STEPS):
        size = float(np.linalg.norm(gradient))
        step = _newton_step(block, Z, gradient)
        trial = Z + step
        new = velocity(block, trial)
        if not float(np.linalg.norm(new)) < size:
            break
        Z, gradient = trial, new
    return Z


def relaxation_rate(block: Block, Z: Array) -> float:
    """The slowest rate at which the active directions settle; turns of the hidden layer do not count. inf without any.

    NaN for so many weights that their Hessian is not looked at.
    """
    if not Z.size:
        return math.inf
    if Z.size > _SMALL:
        return math.nan
    values = np.linalg.eigvalsh(_dense_hessian(block, Z))
    return float(values[values > _FREE * np.abs(values).max()].min(initial=math.inf))


def _hessian(block: Block, Z: Array) -> Callable[[Array], Array]:
    """Its product with a direction, flattened."""
    r = block.shape[0]
    U, V = Z[:r], Z[r:]
    G = block.force(U @ V.T)

    def product(flat: Array) -> Array:
        d = flat.reshape(Z.shape)
        dU, dV = d[:r], d[r:]
        dG = -block.curvatures[:, None] * (dU @ V.T + U @ dV.T)
        top = G @ dV + dG @ V - block.a[:, None] * dU
        bottom = G.T @ dU + dG.T @ U - block.b * dV
        return -np.concatenate([top, bottom]).ravel()

    return product


def _dense_hessian(block: Block, Z: Array) -> Array:
    product = _hessian(block, Z)
    matrix = np.column_stack([product(unit) for unit in np.eye(Z.size)])
    return (matrix + matrix.T) / 2


def _newton_step(block: Block, Z: Array, gradient: Array) -> Array:
    from scipy.sparse.linalg import LinearOperator, minres

    if Z.size <= _SMALL:
        values, vectors = np.linalg.eigh(_dense_hessian(block, Z))
        inverse = np.where(np.abs(values) > _FREE * np.abs(values).max(), 1.0, 0.0) / np.where(values == 0, 1.0, values)
        return np.asarray(vectors @ (inverse * (vectors.T @ gradient.ravel()))).reshape(Z.shape)
    operator = LinearOperator((Z.size, Z.size), matvec=_hessian(block, Z), dtype=float)
    return np.asarray(minres(operator, gradient.ravel(), rtol=1e-14, maxiter=2000)[0]).reshape(Z.shape)


def block_orbit(block: Block, jump: int, Z: Array, towards: Array, end: Array) -> Orbit:
    """The orbit as a curve of the block's beta, flattened, between its two saddles.

    Raises
    ------
    IntegrationError
        If it does not end at the saddle `end`.
    """
    r, q = block.shape
    begin = Z[:r] @ Z[r:].T
    states = _follow(block, departure(block, Z, towards))
    size = float(np.linalg.norm(end - begin))
    missed = float(np.linalg.norm(states[-1][:r] @ states[-1][r:].T - end)) / size
    if not missed <= _MISS:
        raise IntegrationError(f"the orbit of jump {jump} ends {missed:.1e} of its size away from the next saddle.")
    points = np.array([(state[:r] @ state[r:].T).ravel() for state in states])
    velocities = []
    for state in states:
        dZ = velocity(block, state)
        velocities.append((dZ[:r] @ state[r:].T + state[:r] @ dZ[r:].T).ravel())
    return by_distance(np.array(velocities), jump, np.arange(r * q), begin.ravel(), end.ravel(), points)
