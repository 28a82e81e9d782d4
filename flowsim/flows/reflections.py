r"""Linear coordinates in which a formula's mirror symmetries hold exactly.

If the averaged loss does not change under the reflection at the hyperplane ``n . w = 0``, the flow never crosses it,

.. math:: \frac{d}{dt} (n \cdot w) = \lambda(w)\, (n \cdot w),

and ``ln |n . w|`` is a smooth unknown, so that neither rounding nor a tolerance crosses the mirror. The reflections of
a formula generate a finite group; the hyperplanes that bound the region of the start (its chamber) are independent, and
every other ``n . w`` is a combination of theirs with coefficients of one sign (Humphreys, *Reflection Groups and
Coxeter Groups*, section 1.3). For a product of L weights under equal noise they are ``w_1 - w_2``, ..., ``w_(L-1) -
w_L``, ``w_(L-1) + w_L`` of the weights sorted by modulus, up to signs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from flowsim.arrays import Array, Bools, Integers

#: Number of points in general position at which a symmetry is tested, and relative tolerance.
_POINTS = 7
_AGREES = 1e-10
#: Residual of non-negative least squares below which a normal is a combination of others.
_IN_CONE = 1e-9


def mirrors(averages: Callable[[Array], Array], rows: tuple[int, ...], k: int) -> Array:
    """Normals (r, k) of the reflections that leave `averages` unchanged.

    Parameters
    ----------
    averages : callable (k, P) -> (m, P)
        Mean and variance of the formula at P points.
    rows : tuple of int
        The weights the formula uses.

    Notes
    -----
    Candidates are ``w_a``, ``w_a - w_b`` and ``w_a + w_b``.
    """
    w = np.random.default_rng(20250607).uniform(0.1, 0.9, (k, _POINTS))
    with np.errstate(all="ignore"):
        values = averages(w)
    scale = np.abs(values).max(axis=1, keepdims=True)
    found = []
    for normal in _candidates(rows, k):
        mirrored = w - 2 * np.outer(normal, normal @ w) / (normal @ normal)
        with np.errstate(all="ignore"):
            reflected = averages(np.ascontiguousarray(mirrored))
        if (np.abs(reflected - values) <= _AGREES * scale).all():
            found.append(normal)
    return np.array(found).reshape(-1, k)


def _candidates(rows: tuple[int, ...], k: int) -> list[Array]:
    unit = np.eye(k)
    single = [unit[a] for a in rows]
    return single + [unit[a] + sign * unit[b] for a, b in combinations(rows, 2) for sign in (-1.0, 1.0)]


@dataclass(frozen=True, eq=False)
class Chambers:
    """Linear coordinates ``c = N w`` of every coordinate of the predictor; ``w = B c``."""

    #: (d, k, k), N and its inverse B. The first rows of N are the walls of the start's chamber, ``c >= 0``
    forms: Array
    back: Array
    is_wall: Bools  #: (k, d), where c can be kept as its logarithm

    @classmethod
    def of(cls, normals: list[Array], kind: Integers, direction: Array) -> Chambers:
        """For the reflections `normals` (r, k) of every kind of formula and a start `direction` (k, d)."""
        k, d = direction.shape
        forms, is_wall = np.empty((d, k, k)), np.zeros((k, d), dtype=bool)
        known: dict[tuple[int, bytes], tuple[Array, int]] = {}
        for i in range(d):
            own = normals[kind[i]]
            side = np.sign(own @ direction[:, i])
            key = int(kind[i]), side.tobytes()
            if key not in known:
                walls = _walls(own, side)
                known[key] = _completed(walls, k), len(walls)
            forms[i], count = known[key]
            is_wall[:count, i] = True
        return cls(forms, _cleaned(np.asarray(np.linalg.inv(forms), dtype=float)), is_wall)

    def of_weights(self, w: Array) -> Array:
        """c (k, d) of weights (k, d)."""
        return np.einsum("ija,ai->ji", self.forms, w)

    def weights(self, c: Array) -> Array:
        """Weights (k, d) of c (k, d)."""
        w: Array = np.einsum("iaj,ji->ai", self.back, c)
        return np.ascontiguousarray(w)

    def read(self, sign: Array, logs: Array) -> tuple[Array, Array]:
        """Weights and ln|weights| (k, K, d) of K states, of signs and logarithms of c (k, K, d)."""
        return _combined(self.back, sign, logs)

    def form(self, normal: Array, sign: Array, logs: Array) -> tuple[Array, Array]:
        """``normal . w`` and the logarithm of its modulus (K, d)."""
        value, log = _combined(np.einsum("a,iaj->ij", normal, self.back)[:, None, :], sign, logs)
        return value[0], log[0]


def _cleaned(back: Array) -> Array:
    """The inverse with small fractions made exact, so that a distance has no effect on weights it is no part of."""
    fractions = np.round(12 * back) / 12
    return np.where(np.abs(back - fractions) <= _IN_CONE, fractions, back)


def _walls(normals: Array, side: Array) -> Array:
    """The normals that bound the chamber of a point, turned towards it."""
    # A point on several hyperplanes belongs to several chambers: a generic direction chooses one.
    generic = 0.6 ** np.arange(normals.shape[1]) if normals.size else np.zeros(normals.shape[1])
    turned = np.where(side != 0, side, np.sign(normals @ generic))[:, None] * normals
    from scipy.optimize import nnls

    keep = []
    for index, normal in enumerate(turned):
        others = np.delete(turned, index, axis=0)
        if len(others) == 0 or nnls(others.T, normal)[1] > _IN_CONE:
            keep.append(index)
    return turned[keep]


def _completed(walls: Array, k: int) -> Array:
    """The walls and an orthonormal basis of their orthogonal complement."""
    if len(walls) == 0:
        return np.eye(k)
    _, _, vectors = np.linalg.svd(walls)
    return np.concatenate([walls, vectors[len(walls) :]])


def _combined(back: Array, sign: Array, logs: Array) -> tuple[Array, Array]:
    """``sum_j back_iaj sign_j exp(logs_j)`` and the logarithm of its modulus, (a, K, d), from (k, K, d)."""
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.transpose(back, (1, 2, 0))[:, :, None, :]
        sizes = np.log(np.abs(factor)) + logs
        peak = sizes.max(axis=1)
        finite = np.where(np.isfinite(peak), peak, 0.0)
        scaled = (np.sign(factor) * sign * np.exp(sizes - finite[:, None])).sum(axis=1)
        return scaled * np.exp(finite), np.log(np.abs(scaled)) + finite
