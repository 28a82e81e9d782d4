r"""Mean and variance of a coordinate under weight noise.

.. math:: m(w) = \mathrm{E}\,\varphi(w + \xi), \qquad V(w) = \mathrm{Var}\,\varphi(w + \xi)

(``w (1 + xi)`` for multiplicative noise). The formula is split into terms that share no weights: these are
independent, so their means and variances add. Each is treated by the first of

1. moments, for polynomials: ``E phi(w + xi) = prod_a [ sum_j s_a^j mu_j / j! d_a^j ] phi``, exact for every noise
   (s_a the std, mu_j the moments at unit std);
2. the moment generating function, for exponential polynomials under additive Gaussian, Rademacher or Laplace noise:
   exact;
3. Gaussian quadrature of stated order in the kernel, exact for Rademacher noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sympy
from sympy.polys.rings import ring

from flowsim.network import LaplaceNoise, MomentNoise, Noise
from flowsim.symbolic import exponential_polynomials as exponential
from flowsim.symbolic.stable import stable

Symbols = Sequence[sympy.Symbol]

#: Number of weights that enter non-polynomially -> nodes in each.
NODES = {1: 64, 2: 32, 3: 16}
#: A polynomial whose variance can have more terms than this is not expanded.
VARIANCE_TERMS = 400


@dataclass(frozen=True)
class Quadrature:
    """A part of the formula whose expectation is a tensor-product quadrature over its weights."""

    phi: sympy.Expr
    indices: tuple[int, ...]
    nodes: tuple[int, ...]
    #: whether the rule is exact in each weight for any std
    exact: tuple[bool, ...]


@dataclass(frozen=True)
class Expectation:
    """Mean and variance: an exact expression each, plus parts computed by quadrature."""

    #: those of the exact parts, in the weights and the stds
    mean: sympy.Expr
    variance: sympy.Expr
    quadratures: tuple[Quadrature, ...] = ()
    methods: tuple[str, ...] = ()  #: descriptions of how each part is computed
    #: for Laplace noise: ``|lambda| std < sqrt(2)`` must hold for the largest real exponent of these weights
    growth: tuple[tuple[int, float], ...] = field(default=())


def expectation(phi: sympy.Expr, x: Symbols, s: Symbols, noise: Noise | None) -> Expectation:
    """m and V of phi in the weights x, the stds s kept as symbols.

    Raises ValueError if the noise is given by its moments and phi is not a polynomial, or the quadrature would be too
    large.
    """
    if noise is None:
        return Expectation(phi, sympy.S.Zero, methods=("no noise",))
    mean, variance = [], []
    quadratures: list[Quadrature] = []
    methods: list[str] = []
    growth: dict[int, float] = {}
    for part in _independent_parts(phi, x):
        inside = [index for index, symbol in enumerate(x) if symbol in part.free_symbols]
        own, stds = [x[index] for index in inside], [s[index] for index in inside]
        if not own:
            mean.append(part)
        elif _is_tractable_polynomial(part, own, noise):
            m, v = polynomial_moments(part, own, stds, noise)
            mean.append(m)
            variance.append(v)
            methods.append(f"{part}: exact, by moments")
        elif (exact := _exponential_moments(part, own, stds, noise)) is not None:
            mean.append(exact[0])
            variance.append(exact[1])
            methods.append(f"{part}: exact, by the moment generating function")
            if isinstance(noise, LaplaceNoise):
                growth |= {inside[k]: rate for k, rate in enumerate(exact[2]) if rate > 0}
        else:
            nodes, exactly = _nodes(part, own, noise)
            quadratures.append(Quadrature(part, tuple(inside), nodes, exactly))
            methods.append(f"{part}: {noise.rule_name} quadrature, {' x '.join(map(str, nodes))} nodes")
    return Expectation(
        sympy.Add(*mean), sympy.Add(*variance), tuple(quadratures), tuple(methods), tuple(growth.items())
    )


def _independent_parts(phi: sympy.Expr, x: Symbols) -> list[sympy.Expr]:
    """Sums of terms that share no weight."""
    groups: list[tuple[set, list]] = []
    for term in sympy.Add.make_args(phi):
        own = term.free_symbols & set(x)
        touching = [group for group in groups if group[0] & own]
        merged = (own.union(*(group[0] for group in touching)), [t for group in touching for t in group[1]] + [term])
        groups = [group for group in groups if group not in touching] + [merged]
    return [sympy.Add(*terms) for _, terms in groups]


# Polynomials


def _is_tractable_polynomial(part: sympy.Expr, x: Symbols, noise: Noise) -> bool:
    """Whether to expand a part; a larger polynomial is integrated by quadrature, which is exact for it too."""
    if not part.is_polynomial(*x):
        return False
    terms = term_bound(part**2) * math.prod(1 + degree_bound(part, symbol) for symbol in x)
    if not noise.rule_name and terms > 10 * VARIANCE_TERMS:
        raise ValueError(f"`formula`: {part} has too many terms for noise given by its moments alone.")
    return terms <= VARIANCE_TERMS or not noise.rule_name


def term_bound(e: sympy.Expr) -> int:
    """How many terms a polynomial can have, without expanding it; a constant such as ``4/pi`` is one."""
    if not e.free_symbols:
        return 1
    if e.is_Add:
        return sum(map(term_bound, e.args))
    if e.is_Mul:
        return math.prod(map(term_bound, e.args))
    if e.is_Pow:
        terms = term_bound(e.base)
        return math.comb(terms + int(e.exp) - 1, int(e.exp))
    return 1


def degree_bound(e: sympy.Expr, x: sympy.Symbol) -> int:
    """The degree of a polynomial in one weight, or more if its leading terms cancel, without expanding it."""
    if x not in e.free_symbols:
        return 0
    if e.is_Add:
        return max(degree_bound(term, x) for term in e.args)
    if e.is_Mul:
        return sum(degree_bound(factor, x) for factor in e.args)
    return int(e.exp) * degree_bound(e.base, x) if e.is_Pow else 1


def polynomial_moments(phi: sympy.Expr, x: Symbols, s: Symbols, noise: Noise) -> tuple[sympy.Expr, sympy.Expr]:
    """m and V of a polynomial, exactly."""
    domain = sympy.Poly(phi, *x, field=True).get_domain()
    polynomials, *generators = ring([*x, *s], domain)
    own = polynomials.from_expr(sympy.expand(phi))
    pairs = list(zip(generators[: len(x)], generators[len(x) :], strict=True))
    mean = _expect(own, pairs, noise)
    # In exact arithmetic, so that the two terms cancel symbolically and not in floats.
    variance = _expect(own**2, pairs, noise) - mean**2
    return mean.as_expr(), variance.as_expr()


def _expect(polynomial: Any, pairs: Sequence[tuple[Any, Any]], noise: Noise) -> Any:
    domain = polynomial.ring.domain
    for weight, std in pairs:
        total, derivative, j = polynomial, polynomial, 0
        while derivative := derivative.diff(weight):
            j += 1
            moment = noise.moment(j) / math.factorial(j)
            if moment:
                scale = (std * weight) ** j if noise.multiplicative else std**j
                coefficient = domain.convert(sympy.QQ(moment.numerator, moment.denominator), sympy.QQ)
                total = total + derivative * scale * coefficient
        polynomial = total
    return polynomial


# Exponential polynomials


def _exponential_moments(
    part: sympy.Expr, x: Symbols, s: Symbols, noise: Noise
) -> tuple[sympy.Expr, sympy.Expr, list[float]] | None:
    if noise.multiplicative or noise.mgf(sympy.Dummy(), sympy.Dummy()) is None or part.is_polynomial(*x):
        return None

    @cache
    def transform(j: int, rate: sympy.Expr, std: sympy.Symbol) -> sympy.Expr:
        free = sympy.Dummy()
        return sympy.expand(sympy.diff(noise.mgf(free, std), free, j).subs(free, rate))

    def tidy(coefficient: sympy.Expr) -> sympy.Expr:
        # Avoid cancellation at small stds: exp(2 s^2) - exp(s^2) becomes expm1(2 s^2) - expm1(s^2).
        return stable([coefficient], s)[0]

    try:
        own = exponential.table(part, x)
        mean = exponential.expect(own, s, transform)
        second = exponential.expect(exponential.multiply(own, own), s, transform)
        variance = exponential.subtract(second, exponential.multiply(mean, mean))
        moments = exponential.as_expression(mean, x, tidy), exponential.as_expression(variance, x, tidy)
    except exponential.NotExponentialError:
        return None
    rates = [
        2 * max((abs(float(sympy.re(lambdas[index]))) for _, lambdas in own), default=0.0) for index in range(len(x))
    ]
    return *moments, rates


# Quadrature


def _nodes(part: sympy.Expr, x: Symbols, noise: Noise) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    if not noise.rule_name:
        known = "given by its moments" if isinstance(noise, MomentNoise) else f"{type(noise).__name__} without a rule"
        raise ValueError(f"`noise` {known} has exact expectations for polynomials only; the formula contains {part}.")
    if noise.atoms:
        return (noise.atoms,) * len(x), (True,) * len(x)
    degrees = [degree_bound(part, symbol) if part.is_polynomial(symbol) else None for symbol in x]
    analytic = sum(degree is None for degree in degrees)
    if analytic > max(NODES):
        raise ValueError(
            f"`formula`: the expectation of {part} needs quadrature in {analytic} weights; "
            f"at most {max(NODES)} can be done."
        )
    # Exact in the weights that enter polynomially: phi^2 has twice the degree; even counts pair +z with -z.
    exact = [None if degree is None else noise.exact_count(degree) for degree in degrees]
    nodes = tuple(NODES[analytic] if count is None else count for count in exact)
    if math.prod(nodes) > 50_000:
        raise ValueError(
            f"`formula`: the expectation of {part} needs {math.prod(nodes)} nodes of quadrature; too many."
        )
    return nodes, tuple(degree is not None for degree in degrees)
