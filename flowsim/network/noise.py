"""Weight noise: every gradient is taken at ``theta + xi``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar

import numpy as np

from flowsim.arrays import Array
from flowsim.plain_numbers import finite

#: Tolerance on the least eigenvalue of a matrix of moments, for the rounding of its entries.
_MOMENT_ROUNDING = 1e-9

Nodes = tuple[Array, Array]
Std = float | Mapping[str, float] | Sequence[float]


@dataclass(frozen=True, eq=False)
class Noise:
    r"""Independent zero-mean noise on the weights, drawn afresh for every gradient.

    Additive: :math:`\theta + \xi`; multiplicative (dropout-like): :math:`\theta (1 + \xi)`, with
    :math:`\mathrm{std}(\xi) = \eta`.

    Parameters
    ----------
    std : float, or mapping weight -> float, or sequence with one float per weight
        eta >= 0.
    multiplicative : bool
        Scale the noise with the weight.
    """

    std: Std = 0.0
    multiplicative: bool = False

    name: ClassVar[str] = ""
    #: Name of the quadrature :meth:`rule` in derivations; a noise without one supports polynomials only.
    rule_name: ClassVar[str] = ""
    #: The number of nodes of :meth:`rule` if it is exact for every formula, as for discrete noise.
    atoms: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if type(self) is Noise:
            raise ValueError("`Noise` is the base class; use GaussianNoise, UniformNoise, ... or MomentNoise.")
        if not isinstance(self.multiplicative, bool | np.bool_):
            raise ValueError(f"`multiplicative` must be True or False; received {self.multiplicative!r}.")
        check = partial(finite, "std", least=0.0)
        if isinstance(self.std, Mapping):
            object.__setattr__(self, "std", {str(key): check(value) for key, value in self.std.items()})
        elif isinstance(self.std, Sequence | np.ndarray) and not isinstance(self.std, str) and np.ndim(self.std):
            object.__setattr__(self, "std", tuple(map(check, self.std)))
        else:
            object.__setattr__(self, "std", check(self.std))

    def _identity(self) -> tuple[Any, ...]:
        """The key by which noises are compared and hashed; mappings in any order."""
        return (type(self), *((name, _frozen(value)) for name, value in sorted(vars(self).items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Noise) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def stds(self, weights: Sequence[str]) -> Array:
        """eta of each weight, shape (k,)."""
        if isinstance(self.std, Mapping):
            unknown = sorted(set(self.std) - set(weights))
            if unknown:
                raise ValueError(
                    f"`std` names the unknown weight {unknown[0]!r}; the network has {', '.join(weights)}."
                )
            return np.array([self.std.get(weight, 0.0) for weight in weights])
        if isinstance(self.std, tuple):
            if len(self.std) != len(weights):
                raise ValueError(f"`std` must hold {len(weights)} values, one per weight; received {len(self.std)}.")
            return np.array(self.std)
        return np.full(len(weights), self.std)

    def moment(self, order: int) -> Fraction:
        """``E zeta^order`` of the noise scaled to unit std, exactly."""
        raise NotImplementedError

    def unit_moment(self, order: int) -> float:
        """``E zeta^order`` of the noise scaled to unit std, as a float."""
        return float(self.moment(order))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Samples of the noise scaled to unit std."""
        raise NotImplementedError

    def mgf(self, rate: Any, std: Any) -> Any:
        """``E exp(rate std zeta)``, zeta of unit std, as an expression of SymPy in both; None if not in closed form."""
        return None

    def rule(self, count: int) -> Nodes:
        """Nodes z and weights p at unit std, each (count,), in pairs +z, -z, so that odd terms cancel exactly."""
        raise NotImplementedError

    def exact_count(self, degree: int) -> int:
        """The least even number of nodes with which :meth:`rule` is exact for the square of a polynomial."""
        return 2 * ((degree + 2) // 2)

    def checked_rule(self, count: int) -> Nodes:
        """:meth:`rule`, validated.

        Raises ValueError if nodes do not come in pairs, or weights are not a distribution of variance 1.
        """
        z, p = (np.asarray(each, dtype=float) for each in self.rule(count))
        paired = z.shape == p.shape == (count,) and (z[::2] == -z[1::2]).all() and (p[::2] == p[1::2]).all()
        if not paired or abs(p.sum() - 1.0) > 1e-12 or (count > 2 and abs(p @ z**2 - 1.0) > 1e-9):
            raise ValueError(
                f"`rule` of {type(self).__name__} must give {count} nodes in pairs +z, -z, weights that sum to 1 and "
                "variance 1."
            )
        return z, p


def pairs(half: Array, mass: Array) -> Nodes:
    """A symmetric rule from its positive nodes."""
    return np.column_stack([half, -half]).ravel(), np.repeat(mass, 2)


def _gauss(family: Any, count: int, scale: float = 1.0) -> Nodes:
    z, p = family(count)
    p = p / p.sum()
    return pairs(scale * z[count // 2 :], (p[count // 2 :] + p[: count // 2][::-1]) / 2)


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    return (value.shape, *value.ravel().tolist()) if isinstance(value, np.ndarray) else value


class GaussianNoise(Noise):
    """Normal with mean 0."""

    name: ClassVar[str] = "gaussian"
    rule_name: ClassVar[str] = "Gauss-Hermite"

    def moment(self, order: int) -> Fraction:
        return Fraction(0 if order % 2 else math.prod(range(order - 1, 0, -2)))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return rng.standard_normal(shape)

    def mgf(self, rate: Any, std: Any) -> Any:
        import sympy

        return sympy.exp(rate**2 * std**2 / 2)

    def rule(self, count: int) -> Nodes:
        return _gauss(np.polynomial.hermite_e.hermegauss, count)


class UniformNoise(Noise):
    """Uniform on ``[-sqrt(3) std, sqrt(3) std]``."""

    name: ClassVar[str] = "uniform"
    rule_name: ClassVar[str] = "Gauss-Legendre"

    def moment(self, order: int) -> Fraction:
        return Fraction(0 if order % 2 else 3 ** (order // 2), order + 1)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return rng.uniform(-math.sqrt(3.0), math.sqrt(3.0), shape)

    def rule(self, count: int) -> Nodes:
        return _gauss(np.polynomial.legendre.leggauss, count, math.sqrt(3.0))


class RademacherNoise(Noise):
    """``+std`` or ``-std``, each with probability 1/2."""

    name: ClassVar[str] = "rademacher"
    rule_name: ClassVar[str] = "exact two-point"
    atoms: ClassVar[int | None] = 2

    def moment(self, order: int) -> Fraction:
        return Fraction(1 - order % 2)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return np.asarray(2.0 * rng.integers(0, 2, shape) - 1.0, dtype=np.float64)

    def mgf(self, rate: Any, std: Any) -> Any:
        import sympy

        return sympy.cosh(rate * std)

    def rule(self, count: int) -> Nodes:
        return pairs(np.array([1.0]), np.array([0.5]))


class LaplaceNoise(Noise):
    """Double exponential with scale ``std / sqrt(2)``."""

    name: ClassVar[str] = "laplace"
    rule_name: ClassVar[str] = "two-sided Gauss-Laguerre"

    def moment(self, order: int) -> Fraction:
        return Fraction(0 if order % 2 else math.factorial(order), 2 ** (order // 2))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return rng.laplace(0.0, math.sqrt(0.5), shape)

    def mgf(self, rate: Any, std: Any) -> Any:
        return 1 / (1 - rate**2 * std**2 / 2)

    def rule(self, count: int) -> Nodes:
        half, mass = np.polynomial.laguerre.laggauss(count // 2)
        return pairs(half / math.sqrt(2.0), mass / 2)

    def exact_count(self, degree: int) -> int:
        return 2 * degree + 2


@dataclass(frozen=True, eq=False)
class MomentNoise(Noise):
    """Any distribution, given by its standardised moments ``E zeta^0, E zeta^1, ...``.

    Parameters
    ----------
    moments : sequence of float
        ``(1, 0, 1, E zeta^3, E zeta^4, ...)``, as far as the formula's degree needs.
    """

    moments: tuple[float, ...] = field(default=(1.0, 0.0, 1.0))

    name: ClassVar[str] = "moments"

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            object.__setattr__(self, "moments", tuple(float(moment) for moment in self.moments))
        except (TypeError, ValueError):
            raise ValueError(f"`moments` must be numbers; received {self.moments!r}.") from None
        if not all(map(math.isfinite, self.moments)):
            raise ValueError(f"`moments` must be finite; received {self.moments}.")
        if len(self.moments) < 3 or self.moments[:3] != (1.0, 0.0, 1.0):
            raise ValueError(f"`moments` must begin with (1, 0, 1): mass, mean, variance; received {self.moments}.")
        half = (len(self.moments) + 1) // 2
        hankel = np.array([[self.moments[i + j] for j in range(half)] for i in range(half)])
        # Hankel matrices of the moments of a distribution are positive semidefinite; scaled to a unit diagonal.
        scale = np.sqrt(np.maximum(np.diag(hankel), np.finfo(float).tiny))
        if np.linalg.eigvalsh(hankel / np.outer(scale, scale)).min() < -_MOMENT_ROUNDING:
            raise ValueError(
                f"`moments` belong to no distribution (E zeta^4 >= 1 + (E zeta^3)^2, ...): {self.moments}."
            )

    def moment(self, order: int) -> Fraction:
        if order >= len(self.moments):
            raise ValueError(f"`moments` must reach order {order} for this formula; received {len(self.moments) - 1}.")
        return Fraction(self.moments[order])

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        raise ValueError("`noise` given by its moments cannot be sampled; use a named distribution.")


#: name -> distribution, for those determined by a standard deviation
NAMED_NOISES: dict[str, type[Noise]] = {
    noise.name: noise for noise in (GaussianNoise, UniformNoise, RademacherNoise, LaplaceNoise)
}
