r"""Quadratic networks in the components that a step multiplies, ``phi(w) = sum_a m_a c_a^2``, ``c_a = q_a^T w``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowsim.network import DiagonalNetwork, InitialScale, quadratic_form
from flowsim.network.modes import components, conserved_exponents, diagonalise, invariant_names

__all__ = ["Modes", "signed_exp", "why_not_growth"]

Array = NDArray[np.float64]


def why_not_growth(net: DiagonalNetwork, *, expected: bool) -> str | None:
    """None if a step multiplies the components of the network, else the reason why it does not."""
    for formula in net.distinct:
        form = quadratic_form(formula)
        if form is None:
            return f"{formula.text!r} is not a quadratic form"
        stds = np.zeros(1) if net.noise is None else net.noise.stds(net.weights)
        if not stds.any():
            continue
        assert net.noise is not None
        if not expected:
            return "weight noise is added to the weights"
        if net.noise.multiplicative:
            return "multiplicative noise scales each weight by itself"
        own = stds[[net.weights.index(name) for name in formula.weights]]
        if np.ptp(own) > 0:
            return "the weights of a coordinate carry different noise"
        if np.diag(form).any() and net.noise.unit_moment(3) != 0:
            return "skewed noise drives the weights directly"
    return None


@dataclass(frozen=True, eq=False)
class Modes:
    r"""Components of every coordinate; arrays (k, d) unless said otherwise.

    Attributes
    ----------
    rate : array
        lambda_a: a step multiplies c_a by ``1 - h lambda_a g - h kappa_a``.
    kappa : array
        Decay under the expected gradient of weight noise, ``eta^2 sigma_i^2 lambda_a^2``, and weight decay.
    coefficient : array
        ``phi = sum_a coefficient_a c_a^2``.
    shift : array (d,)
        ``E phi(w + xi) - phi(w)``.
    basis : array (k, k, d)
        ``w_b = sum_a basis[b, a] c_a``.
    powers : array (pairs, k, d)
        The flow conserves ``prod_a c_a^powers_a``.
    mantissa, exponent : array
        The start, ``c = mantissa * 2**exponent``.
    is_paired : bool
        Every coordinate has two components with opposite rates, as in ``u*v``.
    per_variance : array
        What of kappa the noise adds, over sigma_i^2.
    """

    rate: Array
    kappa: Array
    coefficient: Array
    shift: Array
    basis: Array
    powers: Array
    mantissa: Array
    exponent: NDArray[np.int64]
    invariants: tuple[str, ...]
    is_paired: bool
    per_variance: Array

    @classmethod
    def of(cls, net: DiagonalNetwork, variances: Array, scale: InitialScale, direction: Array) -> Modes:
        """Diagonalise every formula at the start ``alpha * direction`` (k, d)."""
        count, d = direction.shape
        kinds = net.kinds(d)
        stds = np.zeros(count) if net.noise is None else net.noise.stds(net.weights)
        rate, kappa, coefficient, start = (np.zeros((count, d)) for _ in range(4))
        shift, basis, powers = np.zeros(d), np.zeros((count, count, d)), np.zeros((count - 1, count, d))
        names: list[tuple[str, ...]] = []
        for kind, formula in enumerate(net.distinct):
            here = kinds == kind
            values, vectors = diagonalise(formula, net.weights)
            square = (vectors**2).sum(axis=0)
            eta = max(stds[net.weights.index(name)] for name in formula.weights)
            start[:, here] = components(vectors, direction[:, here])
            rate[:, here] = 2 * values[:, None]
            kappa[:, here] = 4 * eta**2 * values[:, None] ** 2 * variances[here]
            coefficient[:, here] = (values / square)[:, None]
            shift[here] = eta**2 * values.sum()
            basis[:, :, here] = (vectors / square)[:, :, None]
            exponents = conserved_exponents(values)
            powers[:, :, here] = exponents[:, :, None]
            names.append(invariant_names(formula, net.weights, vectors, exponents))
        per_variance = np.divide(kappa, variances, out=np.zeros_like(kappa), where=variances > 0)
        kappa += float(net.weight_decay)  # type: ignore[arg-type]
        mantissa, exponent = _scaled(start, scale)
        paired = count == 2 and bool(np.all(rate[0] == -rate[1])) and bool(np.all(powers == 1.0))
        return cls(
            rate, kappa, coefficient, shift, basis, powers, mantissa, exponent,
            tuple(" | ".join(dict.fromkeys(options)) for options in zip(*names, strict=True)), paired, per_variance,
        )  # fmt: skip

    def start(self) -> tuple[Array, Array]:
        """Signs and logarithms (k, d) of the components at the start."""
        with np.errstate(divide="ignore"):
            return np.sign(self.mantissa), np.log(np.abs(self.mantissa)) + self.exponent * math.log(2.0)

    def beta(self, sign: Array, logs: Array) -> Array:
        """phi (T, d) from components (T, k, d)."""
        out: Array = (self.coefficient * np.where(sign != 0, np.exp(2 * logs), 0.0)).sum(axis=1)
        return out

    def weights(self, sign: Array, logs: Array) -> tuple[Array, Array]:
        """ln|w| and w, (T, k, d), from components (T, k, d): sums of exponentials scaled by their largest term."""
        terms = self.basis[None] * sign[:, None]
        sizes = np.where(terms != 0, logs[:, None], -np.inf)
        largest = sizes.max(axis=2)
        finite = np.where(np.isfinite(largest), largest, 0.0)
        scaled = (terms * np.exp(np.minimum(sizes - finite[:, :, None], 0.0))).sum(axis=2)
        with np.errstate(divide="ignore"):
            log_weights = finite + np.log(np.abs(scaled))
        return log_weights, signed_exp(np.sign(scaled), log_weights)

    def conserved(self, sign: Array, logs: Array) -> tuple[Array, Array]:
        """ln|J| and the sign of J, (T, pairs, d), of the products of powers of components (T, k, d)."""
        powers = self.powers[None]
        used = powers != 0
        parts = np.where(used & (sign != 0)[:, None], powers * np.where(sign != 0, logs, 0.0)[:, None], 0.0)
        vanishing = (used & (powers > 0) & (sign == 0)[:, None]).any(axis=2)
        log_conserved = np.where(vanishing, -np.inf, parts.sum(axis=2))
        signs = np.where(used & (powers % 2 != 0), sign[:, None], 1.0).prod(axis=2)
        return log_conserved, np.where(vanishing, 0.0, signs)


def signed_exp(sign: Array, logs: Array) -> Array:
    """``sign * exp(logs)``: 0 or infinity outside the range of floats."""
    with np.errstate(over="ignore"):
        out: Array = sign * np.exp(logs)
    return out


def _scaled(start: Array, scale: InitialScale) -> tuple[Array, NDArray[np.int64]]:
    """``alpha * start`` as mantissas and powers of two."""
    power = math.floor(scale.log / math.log(2.0))
    mantissa, exponent = np.frexp(start * math.exp(scale.log - power * math.log(2.0)))
    return mantissa, np.where(mantissa == 0.0, 0, exponent.astype(np.int64) + power)
