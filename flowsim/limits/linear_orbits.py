r"""Heteroclinic orbits of two-layer linear networks, from one saddle to the next.

With r active directions at rest the network leaves along the fastest direction e of their complement, a new hidden
unit: the orbit is the trajectory of the network of width r + 1

.. math:: Z' = S(\beta)\, Z, \qquad Z = (Z_r, \epsilon e), \quad \epsilon \to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from flowsim.arrays import Array
from flowsim.errors import IntegrationError
from flowsim.limits.linear_blocks import Block
from flowsim.limits.orbit import Orbit, SpentError, by_distance, integrated

#: Squared size of the new direction at departure (its part of beta), relative to the least-squares solution.
_DEPARTURE = 1e-10
#: An orbit has arrived when its speed is this part of its largest.
_REST = 1e-9
_TOLERANCE = 1e-10
#: A state that comes to rest moves less in each span of time, one that escapes (like a logarithm or power of time) does
#: not: the ratio, over how many spans in succession where it seems to rest or to fail, and over how many in any case.
_NOT_LESS, _SOME_SPANS, _MANY_SPANS = 0.9, 8, 20
#: Unknowns up to which an implicit method, and a dense Newton step, are cheap.
_SMALL = 400
#: Spans of time, each 1.5 times the last, before an orbit is given up, and evaluations in all.
_SPANS = 60
_BUDGET = 400_000
#: Growth of beta over the second half of an orbit that does not come to rest, above which it may have no bound.
_STILL_GROWS = 1.5
#: States of a drawn orbit between two steps of the integrator.
_REFINE = 4
_NEWTON_STEPS = 12
#: Eigenvalues of the Hessian below this, relative to the largest, belong to rotations of the hidden layer.
_FREE = 1e-10
#: Where one factor alone is damped the last part of an orbit is straight, and slow: distance up to which it is
#: followed.
_NEAR = 1e-3
#: Largest distance of an orbit's end from the saddle of the process, relative to the size of the jump.
_MISS = 1e-5


class EscapeError(ArithmeticError):
    """The loss has no minimum along the flow, of which `Z` is a state."""

    def __init__(self, Z: Array) -> None:
        super().__init__("the loss has no minimum")
        self.Z = Z


def departure(block: Block, Z: Array, towards: Array | None) -> Array:
    """The active directions and a small new one."""
    assert towards is not None
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        size = float(np.linalg.norm(block.signal / block.curvatures[:, None]))
    if not math.isfinite(size):
        raise IntegrationError("the loss has no curvature that bounds the orbit that leads to the next saddle.")
    return np.column_stack([Z, math.sqrt(_DEPARTURE * size) * towards])


def velocity(block: Block, Z: Array) -> Array:
    """``S(beta) Z``."""
    r = block.shape[0]
    U, V, G = Z[:r], Z[r:], block.force(block.product(Z))
    return np.concatenate([G @ V - block.a[:, None] * U, G.T @ U - block.b * V])


def follow_to_rest(block: Block, Z: Array, departs: bool = True) -> Array:
    """The stationary point to which the flow from Z converges, to about 1e-9; `departs`: the last column is small.

    Raises EscapeError if it does not converge, because the loss has no minimum there.
    """
    return _until_rest(block, Z, float(np.linalg.norm(Z[:, -1])) if departs else 0.0)[-1]


def _until_rest(block: Block, Z: Array, small: float, end: Array | None = None, refine: int = 0) -> list[Array]:
    """States along the flow until it rests; `small`: the size of the last direction, which leaves a saddle.

    They are the ends of spans of time, or so many between two steps of the integrator. With `end`: until it is there,
    which takes a power of time where one factor alone is damped to zero.

    Raises IntegrationError if it does not.
    """
    shape, evaluations = Z.shape, 0

    def rate(_: float, state: Array) -> Array:
        nonlocal evaluations
        evaluations += 1
        if evaluations > _BUDGET:
            raise SpentError
        return velocity(block, state.reshape(shape)).ravel()

    first = velocity(block, Z)
    scale = float(np.sqrt(np.linalg.norm(block.signal / block.curvatures[:, None]))) or float(np.linalg.norm(Z))
    if small:
        duration = 5.0 * small / max(float(np.linalg.norm(first[:, -1])), 1e-300)
    else:
        duration = 0.1 * float(np.linalg.norm(Z)) / max(float(np.linalg.norm(first)), 1e-300)
    states, peak = [Z], float(np.linalg.norm(first)) if not small else 0.0
    last, on_end = 0.0, 0
    # A slow approach is stiff at any tolerance.
    method = "Radau" if end is not None else "LSODA" if Z.size <= _SMALL else "DOP853"
    rtol = 100 * _TOLERANCE if end is not None else _TOLERANCE
    for _ in range(_SPANS):
        atol = _TOLERANCE * scale * 1e-3
        found = integrated(rate, duration, states[-1].ravel(), refine, method=method, rtol=rtol, atol=atol)
        if found is None:
            break
        solution, between = found
        speeds = [float(np.linalg.norm(velocity(block, state.reshape(shape)))) for state in solution.y.T]
        peak, before = max(peak, *speeds), states[-1]
        states += [column.reshape(shape) for column in (between if refine else between[:, -1:]).T]
        grown = float(np.linalg.norm(states[-1][:, -1])) > 100 * small
        if block.may_escape:
            moved = float(np.linalg.norm(block.product(states[-1]) - block.product(before)))
            on_end = on_end + 1 if grown and moved >= _NOT_LESS * last else 0
            last = moved
            if block.escapes(block.product(states[-1])) or on_end >= _MANY_SPANS:
                raise EscapeError(states[-1])
        if end is not None:
            gap = block.moved(block.product(states[-1])) - end
            if float(np.linalg.norm(gap)) <= _NEAR * float(np.linalg.norm(end)):
                return states
        elif speeds[-1] <= _REST * peak and grown:
            if on_end >= _SOME_SPANS:
                break
            return states
        duration *= 1.5
    if on_end >= _SOME_SPANS:
        raise EscapeError(states[-1])
    size, early = (float(np.linalg.norm(block.product(Z))) for Z in (states[-1], states[len(states) // 2]))
    raise IntegrationError(
        "the orbit that leads to the next saddle does not come to rest; "
        + (
            f"beta still grows (its norm is {size:.3g}): no matrix of that rank may attain the least loss."
            if size > _STILL_GROWS * early
            else "the data may be nearly degenerate."
        )
    )


def polished(block: Block, Z: Array) -> Array:
    """The stationary point near Z, by Newton steps of least norm (rotations of the hidden layer leave it invariant)."""
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
    """The slowest relaxation rate of the active directions, apart from rotations of the hidden layer; inf without any.

    NaN for more weights than a dense Hessian is computed for.
    """
    if not Z.size:
        return math.inf
    if Z.size > _SMALL:
        return math.nan
    turns = _turns(block, Z)
    left, sizes, _ = np.linalg.svd(turns)
    rest = left[:, int((sizes > _FREE * sizes.max(initial=0.0)).sum()) :]
    values = np.linalg.eigvalsh(rest.T @ _dense_hessian(block, Z) @ rest)
    stable = values[values > -_FREE * np.abs(values).max(initial=0.0)]
    return max(float(stable.min(initial=math.inf)), 0.0)


def _turns(block: Block, Z: Array) -> Array:
    """Tangents, in columns, of the symmetry group of the hidden layer: orthogonal, or all of GL(k) without damping."""
    r, k = block.shape[0], Z.shape[1]
    orthogonal = bool(np.any(block.a) or np.any(block.b))
    turns = []
    for i, j in np.ndindex(k, k):
        K = np.zeros((k, k))
        K[i, j] = 1.0
        if orthogonal:
            K = K - K.T
        turns.append(np.concatenate([Z[:r] @ K, -Z[r:] @ K.T]).ravel())
    return np.column_stack(turns)


def _hessian(block: Block, Z: Array) -> Callable[[Array], Array]:
    """The product of the Hessian with a direction, flattened."""
    r = block.shape[0]
    U, V, here = Z[:r], Z[r:], block.product(Z)
    G = block.force(here)

    def product(flat: Array) -> Array:
        d = flat.reshape(Z.shape)
        dU, dV = d[:r], d[r:]
        dG = block.change(here, dU @ V.T + U @ dV.T)
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


def together(block: Block, start: Array, count: int) -> Array:
    """The `count` fastest directions, leaving the origin together with the amplitudes of the start (r + q, k)."""
    vectors = np.linalg.eigh(block.generator(block.signal))[1]
    fastest = vectors[:, ::-1][:, :count]
    shares, sizes, _ = np.linalg.svd(fastest.T @ start, full_matrices=False)
    scale = float(np.linalg.norm(block.signal / block.curvatures[:, None]))
    return np.asarray(math.sqrt(_DEPARTURE * scale) * (fastest @ shares) * (sizes / sizes.max()))


def block_orbit(block: Block, jump: int, begins: Array, begin: Array, end: Array) -> Orbit:
    """The orbit as a curve of the block's beta, flattened, between its two saddles.

    Raises IntegrationError if it does not end at the saddle `end`.

    Parameters
    ----------
    begins : array (r + q, k)
        Weights just after departure.
    begin, end : array (r, q)
        beta at the two saddles.
    """
    r, q = block.shape
    arrives = block.is_frozen_beside
    states = _until_rest(block, begins, float(np.linalg.norm(begins[:, -1])), end - begin if arrives else None, _REFINE)
    size = float(np.linalg.norm(end - begin))
    base = begin if arrives else np.zeros_like(begin)
    points = np.array([(base + block.moved(block.product(state))).ravel() for state in states])
    missed = float(np.linalg.norm(points[-1] - end.ravel())) / size
    if not missed <= (_NEAR if arrives else _MISS):
        raise IntegrationError(f"the orbit of jump {jump} ends {missed:.1e} of its size away from the next saddle.")
    velocities = []
    for state in states:
        dZ = velocity(block, state)
        velocities.append(block.moved(dZ[:r] @ state[r:].T + state[:r] @ dZ[r:].T).ravel())
    return by_distance(np.array(velocities), jump, np.arange(r * q), begin.ravel(), end.ravel(), points)
