r"""Modes of quadratic formulas: the components in which flow and descent are multiplicative.

For ``phi(w) = w^T M w`` with eigenvectors q_k and eigenvalues mu_k the components ``c_k = q_k^T w`` decouple
given the gradient, ``c_k' = -2 mu_k g c_k``, and

.. math:: \phi = \sum_k \frac{\mu_k}{|q_k|^2} c_k^2, \qquad w = \sum_k \frac{q_k}{|q_k|^2} c_k .

For ``u*v`` they are u + v and u - v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np

from flowsim.arrays import Array, Integers, log_abs
from flowsim.growth.formula_origin import eigenvectors
from flowsim.network import DiagonalNetwork, Formula, Start, quadratic_form
from flowsim.network.quadratic import ZERO

#: coordinates -> (coefficients, rates), each (k, m): beta = sum_k coefficients exp(rates z)
Memory = Callable[[Integers], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Modes:
    """Coefficients, rates and starts of all components, at alpha = 1 and for features of variance 1.

    Arrays have one row per coordinate, or a single row for all where all are equal.
    """

    d: int
    invariants: tuple[str, ...]
    #: (d, k), ``mu_k / |q_k|^2``, ``ln c_k(0)^2`` (0 where c_k is exactly zero), ``4 mu_k`` and ``8 eta^2 mu_k^2``
    coefficient: Array
    log_start: Array
    rate: Array
    damping: Array
    #: (d, k), ``c_k(0)``, exactly 0 where it cancels to rounding; its sign where the start is in logarithms
    start: Array
    basis: Array  #: (d, k, k), ``w_a = sum_k basis[i, a, k] c_k``
    shift: Array  #: (d,), ``E phi(w + xi) - phi(w) = eta^2 tr M``
    #: (d, k - 1, k), exponents e with ``sum_k e_k rate_k = 0``: the conserved quantities are ``prod_k c_k^e_k``
    conserved: Array

    @classmethod
    def of(cls, net: DiagonalNetwork, direction: Array | Start, coordinates: Integers | None = None) -> Modes:
        """Diagonalise every formula of the network at the start `direction`, for all coordinates or for some."""
        stds = tuple(net.stds.tolist())
        all_kinds = net.kinds(direction.shape[1]) if len(net.distinct) > 1 else None
        if coordinates is not None:
            direction = _among(direction, coordinates)
            all_kinds = None if all_kinds is None else all_kinds[coordinates]
        d = direction.shape[1]
        if all_kinds is None:
            if (not isinstance(direction, Start) and d > 0) and (
                direction.strides[1] == 0 or (direction == direction[:, :1]).all()
            ):
                return _alike(net.distinct[0], net.weights, stds, tuple(direction[:, 0].tolist()), d)
            return _of_formula(net.distinct[0], net.weights, stds, direction)
        kinds = all_kinds
        members = [np.flatnonzero(kinds == kind) for kind in range(len(net.distinct))]
        parts = [
            _of_formula(formula, net.weights, stds, _among(direction, here))
            for formula, here in zip(net.distinct, members, strict=True)
        ]
        back = np.argsort(np.concatenate(members))
        arrays = [np.concatenate(each)[back] for each in zip(*(part.arrays() for part in parts), strict=True)]
        # Formulas that conserve different things share a label 'a | b'.
        names = zip(*(part.invariants for part in parts), strict=True)
        return cls(d, tuple(" | ".join(dict.fromkeys(options)) for options in names), *arrays)

    def arrays(self) -> tuple[Array, ...]:
        """All that has rows."""
        return tuple(getattr(self, each.name) for each in fields(self)[2:])

    @cached_property
    def is_damped(self) -> bool:
        """Whether noise damps the components."""
        return bool(self.damping.any())

    @cached_property
    def sign(self) -> Array:
        """Signs of c_k, constant along a flow, (d, k); 0 where c_k is exactly zero."""
        return np.sign(self.start)

    @cached_property
    def present(self) -> Array:
        """1 where c_k is not exactly zero."""
        return np.abs(self.sign)

    @cached_property
    def log_coefficient(self) -> Array:
        """``ln |coefficient c_k(0)^2|``, -inf where it is zero."""
        return self.log_start + log_abs(self.coefficient)

    def weights(self, logs: Array, sign: Array | None = None) -> tuple[Array, Array]:
        """w and ln|w| from ``ln|c|`` and, where they change, the signs of c; all (T, k, d).

        Sums of exponentials are scaled by their largest term, the same for all weights that have all components.
        """
        sign = self.sign.T if sign is None else sign
        weights, log_weights = np.empty(logs.shape), np.empty(logs.shape)
        shared: tuple[Array, Array] | None = None
        for a in range(logs.shape[1]):
            factors = self.basis[:, a].T * sign
            if not factors.all():
                largest, terms = _scaled(np.where(factors != 0, logs, -np.inf))
            else:
                largest, terms = shared = _scaled(logs) if shared is None else shared
            scaled = (factors * terms).sum(axis=1)
            with np.errstate(divide="ignore", over="ignore"):
                log_weights[:, a] = largest + np.log(np.abs(scaled))
                weights[:, a] = np.sign(scaled) * np.exp(log_weights[:, a])
        return weights, log_weights

    def products(self, logs: Array, sign: Array) -> tuple[Array, Array]:
        """``prod_k c_k^e_k`` of components (T, k, d): signs and logarithms of the moduli, (T, k - 1, d)."""
        powers = np.moveaxis(self.conserved, 0, -1)
        used = powers != 0
        parts = np.where(used & (sign != 0)[:, None], powers * np.where(sign != 0, logs, 0.0)[:, None], 0.0)
        vanishing = (used & (powers > 0) & (sign == 0)[:, None]).any(axis=2)
        signs = np.where(used & (powers % 2 != 0), sign[:, None], 1.0).prod(axis=2)
        return np.where(vanishing, 0.0, signs), np.where(vanishing, -np.inf, parts.sum(axis=2))


def _scaled(logs: Array) -> tuple[Array, Array]:
    """The largest of logarithms (T, k, d), 0 where all are -inf, and the exponentials of what they are below it."""
    largest = logs.max(axis=1)
    largest[np.isneginf(largest)] = 0.0
    return largest, np.exp(logs - largest[:, None])


def start_memory(net: DiagonalNetwork, values: Array, fresh: bool) -> Memory | None:
    """Growth of coordinates started at (alpha times) `values` (k, d) as sums of exponentials; None for other formulas.

    From a vanishing start only the fastest excited direction of either sign is left once coordinates have grown.
    """
    if any(quadratic_form(formula) is None for formula in net.distinct):
        return None
    return _StartMemory(net, values, fresh)


@dataclass(frozen=True, eq=False)
class _StartMemory:
    net: DiagonalNetwork
    values: Array
    fresh: bool

    def __call__(self, coordinates: Integers) -> tuple[Array, Array]:
        modes = Modes.of(self.net, self.values, coordinates)
        shape = (len(coordinates), modes.start.shape[1])
        rate = np.broadcast_to(modes.rate, shape)
        weight = np.broadcast_to(modes.coefficient * modes.start**2, shape).copy()
        if self.fresh:
            for sign in (1.0, -1.0):
                excited = np.where(sign * weight > 0, sign * rate, 0.0)
                top = excited.max(axis=1, keepdims=True, initial=0.0)
                weight[(excited > 0) & (excited < top * (1 - 1e-10))] = 0.0
        return weight.T, (rate * (weight != 0)).T


def _among(direction: Array | Start, keep: Integers) -> Array | Start:
    return direction.among(keep) if isinstance(direction, Start) else direction[:, keep]


def _of_formula(formula: Formula, weights: tuple[str, ...], stds: tuple[float, ...], direction: Array | Start) -> Modes:
    values, vectors = diagonalise(formula, weights)
    square = (vectors**2).sum(axis=0)
    if isinstance(direction, Start):
        start, log = (each.T for each in direction.components(vectors))
        log_start = 2 * np.where(start == 0, 0.0, log)
    else:
        start = components(vectors, direction).T
        log_start = 2 * np.log(np.where(start == 0, 1.0, np.abs(start)))
    eta = max(stds[weights.index(name)] for name in formula.weights)
    exponents = conserved_exponents(values)

    def each(row: Array) -> Array:
        return np.broadcast_to(row, (len(start), *row.shape))

    return Modes(
        d=direction.shape[1],
        invariants=invariant_names(formula, weights, vectors, exponents),
        coefficient=np.where(start == 0, 0.0, values / square),
        log_start=log_start,
        rate=each(4 * values),
        damping=each(8 * eta**2 * values**2),
        start=start,
        basis=each(vectors / square),
        shift=np.full(len(start), eta**2 * values.sum()),
        conserved=each(exponents),
    )


@lru_cache(maxsize=256)
def _alike(
    formula: Formula, weights: tuple[str, ...], stds: tuple[float, ...], column: tuple[float, ...], d: int
) -> Modes:
    """Modes of d equal columns; shared between calls, read-only."""
    modes = replace(_of_formula(formula, weights, stds, np.array(column)[:, None]), d=d)
    for array in modes.arrays():
        array.setflags(write=False)
    return modes


@lru_cache(maxsize=1024)
def diagonalise(formula: Formula, weights: tuple[str, ...]) -> tuple[Array, Array]:
    """Eigenvalues (k,) and orthogonal, not normalised, eigenvectors (k, k) over the network's weights.

    Shared between calls, read-only.
    """
    form = quadratic_form(formula)
    assert form is not None
    own = [weights.index(name) for name in formula.weights]
    values, vectors = eigenvectors(form)
    all_values, all_vectors = np.zeros(len(weights)), np.zeros((len(weights), len(weights)))
    all_values[: len(own)] = values
    all_vectors[own, : len(own)] = vectors
    for column, other in enumerate((a for a in range(len(weights)) if a not in own), start=len(own)):
        all_vectors[other, column] = 1.0
    for each in (all_values, all_vectors):
        each.setflags(write=False)
    return all_values, all_vectors


def components(vectors: Array, w: Array) -> Array:
    """``c_k = q_k^T w`` for weights (k, d): exactly zero where the sum cancels to rounding."""
    c: Array = vectors.T @ w
    if (vectors != np.round(vectors)).any():  # sums and differences of weights cancel exactly by themselves
        c[np.abs(c) <= ZERO * (np.abs(vectors).T @ np.abs(w))] = 0.0
    return c


def conserved_exponents(values: Array) -> Array:
    """Rows e with ``e . values = 0``, pairing the first component with each other one."""
    rows = np.zeros((len(values) - 1, len(values)))
    for row, k in enumerate(range(1, len(values))):
        if values[k] == 0:
            rows[row, k] = 1.0
        elif values[0] == 0:
            rows[row, 0] = 1.0
        else:
            ratio = Fraction(float(values[k] / values[0])).limit_denominator(64)
            exact = abs(float(ratio) - values[k] / values[0]) <= ZERO * abs(values[k] / values[0])
            rows[row, 0], rows[row, k] = (
                (-ratio.numerator, ratio.denominator) if exact else (-values[k] / values[0], 1.0)
            )
    return rows


def invariant_names(formula: Formula, weights: tuple[str, ...], vectors: Array, exponents: Array) -> tuple[str, ...]:
    def component(k: int) -> str:
        terms = [(vectors[a, k], name) for a, name in enumerate(weights) if vectors[a, k] != 0]
        if len(terms) == 1:
            return terms[0][1]
        text = " ".join(f"{'-' if value < 0 else '+'} {_times(abs(value), name)}" for value, name in terms)
        return f"({text.removeprefix('+ ')})"

    def power(k: int, exponent: float) -> str:
        return component(k) if exponent == 1 else f"{component(k)}**{exponent:g}"

    factors = formula.product_of
    names = []
    for row in exponents:
        if factors is not None and len(factors) == 2 and (row[:2] == 1).all() and not row[2:].any():
            names.append(f"{factors[0]}**2 - {factors[1]}**2")
        else:
            names.append("*".join(power(k, e) for k, e in enumerate(row) if e != 0))
    return tuple(names)


def _times(value: float, name: str) -> str:
    return name if value == 1 else f"{value:.4g}*{name}"
