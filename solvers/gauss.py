r"""Gauss and Radau collocation on [0, 1]: nodes, weights, matrix, and interpolation.

.. math:: \sum_j a_{ij} \varphi(c_j) = \int_0^{c_i} \varphi, \qquad \sum_j b_j \varphi(c_j) = \int_0^1 \varphi

for polynomials of degree < s. Gauss: order 2s, A-stable, symmetric, and ``b_i a_ij + b_j a_ji = b_i b_j``: every
quadratic invariant of the equation is conserved by the method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array


@dataclass(frozen=True, eq=False)
class GaussTableau:
    """s, nodes c, weights b, matrix a; ``a = vectors diag(eigenvalues) inverse``."""

    stages: int
    c: Array
    b: Array
    a: Array
    eigenvalues: NDArray[np.complex128]
    vectors: NDArray[np.complex128]
    inverse: NDArray[np.complex128]
    #: values at 0 and at 1 of the polynomial through the nodes
    at_ends: Array


@cache
def gauss_tableau(stages: int) -> GaussTableau:
    """The method of order ``2 * stages``."""
    x, w = np.polynomial.legendre.leggauss(stages)
    return _collocation((x + 1) / 2, w / 2)


@cache
def radau_tableau(stages: int) -> GaussTableau:
    """Radau IIA, of order ``2 * stages - 1``, stiffly accurate: the last node is the end of the step."""
    last, before = (np.polynomial.legendre.Legendre.basis(degree) for degree in (stages, stages - 1))
    c = (np.append(np.sort(((last - before) // np.polynomial.Legendre([-1.0, 1.0])).roots().real), 1.0) + 1) / 2
    x, w = np.polynomial.legendre.leggauss(stages)
    return _collocation(c, w / 2 @ lagrange_weights(c, (x + 1) / 2))


@cache
def relaxing_tableau(stages: int, decay: float) -> GaussTableau:
    r"""Radau IIA in ``x = (1 - e^{-decay t}) / (1 - e^{-decay})``, t the time over the length of the step.

    Solutions that decay like ``e^{-decay t}`` and its powers are polynomials: a step of any length resolves them.
    """
    radau = radau_tableau(stages)
    if decay == 0.0:
        return radau
    whole = -math.expm1(-decay)
    return _with_matrix(radau.c, radau.b, radau.a * (whole / (decay * (1.0 - whole * radau.c))), radau.at_ends)


def _collocation(c: Array, b: Array) -> GaussTableau:
    stages = len(c)
    # int_0^c of the Lagrange polynomials, by a Gauss rule on [0, c]: exact, and free of Vandermonde matrices.
    x, w = np.polynomial.legendre.leggauss(stages)
    a = np.array([node * (w / 2 @ lagrange_weights(c, node * (x + 1) / 2)) for node in c])
    return _with_matrix(c, b, a, lagrange_weights(c, np.array([0.0, 1.0])))


def _with_matrix(c: Array, b: Array, a: Array, at_ends: Array) -> GaussTableau:
    values, vectors = (each.astype(complex) for each in np.linalg.eig(a))
    return GaussTableau(len(c), c, b, a, values, vectors, np.linalg.inv(vectors), at_ends)


def lagrange_weights(nodes: Array, points: Array) -> Array:
    """The matrix (P, s) that takes values at the nodes to values at the points (barycentric form)."""
    difference = nodes[:, None] - nodes
    np.fill_diagonal(difference, 1.0)
    barycentric = 1.0 / difference.prod(axis=1)
    gap = points[:, None] - nodes
    hit = gap == 0
    weights = barycentric / np.where(hit, 1.0, gap)
    weights[hit.any(axis=1)] = 0.0
    weights[hit] = 1.0
    return weights / weights.sum(axis=1, keepdims=True)
