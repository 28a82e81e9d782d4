r"""The equations of a step where G is the negative gradient of ``ln sum_k exp(e_k)`` and exponents differ by far more
than 1.

.. math:: G = \sum_k q_k E_k, \qquad q_k = e^{-s_k}, \qquad s_k = \langle E_k, Z_1 Z_2^\top \rangle - a_k + c,
          \qquad \sum_k q_k = 1.

Linearised in G they say nothing: almost everywhere one q_k is 1. The unknowns here are points (q_k, s_k) of the curve
``q = exp(-s)``, which nearly is the complementarity condition ``q, s >= 0, q s = 0``. Newton's method takes the tangent
of each at its point, or at the corner of the curve where s is to fall below it, and continues in q on this side of the
corner, in s beyond: a semismooth Newton method, which takes as many iterations as the set of positive q_k changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.array_kinds import Array

_ITERATIONS = 40
#: s from which on a weight has no effect on G, nor has its change; number of others up to which they are solved for.
_ABSENT, _MOST = 60.0, 100
#: A change of G that is this part of the one before is rounding: of exponents, relative to them, or this at most.
_STALLED, _ROUNDING, _LARGEST_ROUNDING = 0.5, 1e-14, 1e-4


class LogSumExp(Protocol):
    """``G = -grad ln sum_k exp(e_k)`` with ``e_k`` affine in the product.

    A coupling that is of this form at some products, to rounding, returns it there from a method `log_sum_exp`.
    """

    def exponents(self, product: Array) -> Array:
        """``e_k`` at products (..., R, p), (..., K)."""
        ...

    def force(self, weights: Array) -> Array:
        """``sum_k q_k E_k``, (..., R, p), of weights (..., K)."""
        ...


def solve_saturated(
    form: LogSumExp, start: Array, products: Callable[[Array], tuple[Array, Callable[[Array], Array]]],
    enough: Callable[[Array, float], bool], stages: int,
) -> Array | None:  # fmt: skip
    """G at the nodes, (s, R, p); None without convergence.

    Parameters
    ----------
    start : array (R, p)
        The product at the start of the step, whose weights are the first guess.
    products : callable
        Takes G to the products at the nodes, and to the derivative of these along a change of G.
    enough : callable (G, change) -> bool
        Whether the iteration may stop after a change of G by as much at most.
    """
    s = np.repeat(_logarithms(form, start)[None], stages, axis=0)
    G, change = np.ascontiguousarray(form.force(np.exp(-s))), np.inf
    for _ in range(_ITERATIONS):
        product, derivative = products(G)
        # s at these products, up to the constants c, on which the sum of the weights decides.
        found = -form.exponents(product)
        if np.isnan(found).any():
            return None
        found += np.min(s, axis=1, keepdims=True) - np.min(found, axis=1, keepdims=True)
        used = np.minimum(s, found) < _ABSENT
        response = _response(form, derivative, used, G.shape)
        try:
            s = _newton(s, found, used, response)
        except np.linalg.LinAlgError:
            return None
        before, G = G, np.ascontiguousarray(form.force(np.exp(-s)))
        last, change = change, float(np.abs(G - before).max())
        rounding = min(_ROUNDING * float(np.abs(found).max()), _LARGEST_ROUNDING)
        if enough(G, change) or _STALLED * last <= change <= rounding:
            return G
    return None


def has_few_weights(form: LogSumExp, product: Array) -> bool:
    """Whether few enough weights matter at a product."""
    return int((_logarithms(form, product) < _ABSENT).sum()) <= _MOST


def _logarithms(form: LogSumExp, product: Array) -> Array:
    """The s_k at a product."""
    exponents = form.exponents(product)
    top = exponents.max()
    return np.log(np.exp(exponents - top).sum()) + top - exponents


def _response(
    form: LogSumExp, derivative: Callable[[Array], Array], used: NDArray[np.bool_], shape: tuple[int, ...]
) -> Array:
    """``d s / d q`` among the used weights of all nodes, but for the constants."""
    nodes, k = np.nonzero(used)
    units = np.zeros((len(k), used.shape[1]))
    units[np.arange(len(k)), k] = 1.0
    terms, out = form.force(units), np.empty((len(k), len(k)))
    for column, (node, term) in enumerate(zip(nodes, terms, strict=True)):
        change = np.zeros(shape)
        change[node] = term
        out[:, column] = np.einsum("kab,kab->k", terms, derivative(change)[nodes])
    return out


def _newton(s: Array, found: Array, used: NDArray[np.bool_], response: Array) -> Array:
    """Points of the curve after a step of Newton's method; those of unused weights, as found."""
    nodes = np.nonzero(used)[0]
    here, there, count = s[used], found[used], len(nodes)
    corner = np.log1p(np.maximum(np.diag(response), 0.0))
    base = np.where(there < here, np.minimum(here, np.maximum(there, corner)), here)
    q, slope = np.exp(-here), np.exp(-base)
    # Of q' = slope (1 + base - s'), s' = there + response (q' - q) + c, and the sum of q' at each node.
    member = (nodes[:, None] == np.arange(len(s))).astype(float)
    matrix = np.zeros((count + len(s), count + len(s)))
    matrix[:count, :count] = np.eye(count) + slope[:, None] * response
    matrix[:count, count:] = slope[:, None] * member
    matrix[count:, :count] = member.T
    right = np.concatenate([slope * (1.0 + base - there) - q, 1.0 - member.T @ q])
    solved = np.linalg.solve(matrix, right)
    change, constants = solved[:count], solved[count:]
    new, predicted = q + change, there + response @ change + member @ constants
    out = found + constants[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        out[used] = np.where(new > np.exp(-corner), -np.log(new), np.maximum(predicted, corner))
    return np.maximum(out, 0.0)
