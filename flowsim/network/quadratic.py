"""Recognising quadratic forms: the formulas whose flows are exact in growth coordinates."""

from __future__ import annotations

import random
from fractions import Fraction
from functools import lru_cache

import numpy as np

from flowsim.arrays import Array
from flowsim.network.formula import Formula, exact_value

#: A sum below this many rounding errors of its terms is an exact zero.
ZERO = 16 * float(np.finfo(float).eps)
#: Size of the integers at which a formula is compared with its form: that another polynomial agrees there by chance has
#: probability degree / 2**bits at most (Schwartz, Zippel), and degrees are bounded by 512.
_BITS = 128


@lru_cache(maxsize=1024)
def quadratic_form(formula: Formula) -> Array | None:
    """The symmetric M (k, k) with ``phi(w) = w^T M w`` over ``formula.weights``, or None if phi is not quadratic.

    The array is shared between calls and read-only.
    """
    k, draws = len(formula.weights), random.Random(0)
    large = np.array([[draws.getrandbits(_BITS) for _ in range(k)]], dtype=object)
    a, b = np.triu_indices(k)
    units = np.eye(k, dtype=np.int8)
    points = np.concatenate([large, units.astype(object), (units[a] + units[b]).astype(object)])
    values = exact_value(formula.tree, dict(zip(formula.weights, points.T, strict=True)))
    if values is None:
        return None
    expected, own, sums = np.split(np.broadcast_to(values, len(points)), [1, k + 1])
    form = np.empty((k, k), dtype=object)
    form[a, b] = form[b, a] = (sums - own[a] - own[b]) * Fraction(1, 2)
    if large @ form @ large.T != expected:
        return None
    found = form.astype(float)
    found.setflags(write=False)
    return found
