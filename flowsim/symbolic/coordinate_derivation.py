"""Derivation of one coordinate from its formula, as SymPy objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import sympy
from sympy.codegen.cfunctions import expm1

from flowsim.network import Decay, DiagonalNetwork, Formula, Noise
from flowsim.symbolic.expectation import expectation
from flowsim.symbolic.invariants import generators, invariant_basis
from flowsim.symbolic.kernels import kernels
from flowsim.symbolic.moments import E, Var
from flowsim.symbolic.origin import order_at_origin
from flowsim.symbolic.sharpness import SHORT, Sharpness, sharpness_of
from flowsim.symbolic.statements import ExactThresholds, exact_thresholds

#: Relative error of a gradient at tiny weights from which on a remark is made.
LOST = 1e-9


@dataclass(frozen=True)
class Law:
    """The evolution under weight noise of a quantity that the noise-free flow conserves."""

    quantity: sympy.Expr
    #: {"conserved", "decay", "driven", "open"}, conserved; decays at `rate` whatever the data; driven by the data or by
    #: other weights; undecided
    kind: str
    rate: sympy.Expr | None = None  #: ``d quantity/dt = -rate * quantity`` for a decay
    derivative: sympy.Expr | None = None  #: ``d quantity/dt``


@dataclass(frozen=True, eq=False)
class CoordinateDerivation:
    """One formula's derivation."""

    formula: Formula
    noise: Noise | None
    degree: int
    weight_decay: float | Decay = 0.0

    # Symbols

    @cached_property
    def decay(self) -> sympy.Expr:
        """The rate lambda of weight decay; 0 without."""
        return sympy.Symbol(self._fresh("lambda"), nonnegative=True) if self.weight_decay else sympy.S.Zero

    @cached_property
    def weights(self) -> tuple[sympy.Symbol, ...]:
        return tuple(sympy.Symbol(name, real=True) for name in self.formula.weights)

    @cached_property
    def g(self) -> sympy.Symbol:
        """The gradient of the loss at the predictor, ``(X^T (X m - y)/n)_i``."""
        return sympy.Symbol(self._fresh("g"), real=True)

    @cached_property
    def sigma(self) -> sympy.Symbol:
        """``sigma_i^2 = (X^T X/n)_ii``."""
        return sympy.Symbol(self._fresh("sigma"), positive=True)

    @cached_property
    def std(self) -> tuple[sympy.Symbol, ...]:
        """Std of the noise on each weight: one symbol if all are equal."""
        if self.noise is None or isinstance(self.noise.std, float):
            return (sympy.Symbol(self._fresh("eta"), nonnegative=True),) * len(self.weights)
        return tuple(sympy.Symbol(self._fresh(f"eta_{name}"), nonnegative=True) for name in self.formula.weights)

    def _fresh(self, name: str) -> str:
        while name in self.formula.weights:
            name += "_"
        return name

    # Model and expectation

    @property
    def phi(self) -> sympy.Expr:
        return self.formula.expression

    @cached_property
    def _moments(self) -> tuple[sympy.Expr, sympy.Expr, tuple[str, ...]]:
        if self.noise is None:
            return self.phi, sympy.S.Zero, ()
        if self.formula.product_of is not None:
            # Closed forms that SymPy must not expand: 2^L terms.
            squares = [w**2 for w in self.weights]
            if self.noise.multiplicative:
                lifted = [b * (1 + s**2) for b, s in zip(squares, self.std, strict=True)]
            else:
                lifted = [b + s**2 for b, s in zip(squares, self.std, strict=True)]
            note = f"{self.formula}: exact, a product of independent factors"
            return self.phi, sympy.Mul(*lifted) - sympy.Mul(*squares), (note,)
        stds = [sympy.Dummy(nonnegative=True) for _ in self.weights]
        found = expectation(self.phi, self.weights, stds, self.noise)
        name = dict(zip(stds, self.std, strict=True))
        # Multiplicative noise is written out: derivatives by a weight have a factor 1 + xi.
        names = self.weights if self.noise.multiplicative else ()
        noisy = {w: w * (1 + sympy.Symbol(self._fresh(f"xi_{w.name}"), real=True)) for w in names}
        left = [part.phi.subs(noisy, simultaneous=True) for part in found.quadratures]
        mean = found.mean.xreplace(name) + sympy.Add(*map(E, left))
        # The kernels use expm1 for accuracy; the derivation shows exp.
        variance = found.variance.replace(expm1, lambda a: sympy.exp(a) - 1).xreplace(name)
        variance += sympy.Add(*map(Var, left))
        return mean, variance, found.methods

    @property
    def mean(self) -> sympy.Expr:
        """``m = E phi(w + xi)``."""
        return self._moments[0]

    @property
    def variance(self) -> sympy.Expr:
        """``V = Var phi(w + xi)``."""
        return self._moments[1]

    @property
    def methods(self) -> tuple[str, ...]:
        """How each part of the expectation is computed: exactly, or by quadrature of a stated order."""
        return self._moments[2]

    @cached_property
    def loss(self) -> sympy.Expr:
        """The contribution of the coordinate to the expected loss: ``L(m) + sigma^2/2 V``."""
        return sympy.Function("L")(self.mean) + self.sigma**2 / 2 * self.variance

    # Flow

    @cached_property
    def field(self) -> dict[str, sympy.Expr]:
        """``w' = -(g dm/dw + sigma^2/2 dV/dw + lambda w)`` by name of weight."""
        return {
            w.name: -(self.g * self.mean.diff(w) + self.sigma**2 * _halved(self.variance.diff(w)) + self.decay * w)
            for w in self.weights
        }

    @cached_property
    def jacobian(self) -> sympy.ImmutableDenseMatrix:
        """``d w'_a/d w_b`` at fixed g: the coordinate's block; the data add ``-dm_i/dw_a Sigma_ij dm_j/dw_b``."""
        return sympy.ImmutableDenseMatrix([[slope.diff(w) for w in self.weights] for slope in self.field.values()])

    # Conserved quantities

    @cached_property
    def invariants(self) -> tuple[sympy.Expr, ...]:
        """Functionally independent polynomials that the noise-free flow conserves on any data."""
        if self.formula.product_of is not None:
            first, *others = self.weights
            return tuple(first**2 - w**2 for w in others)
        return tuple(generators(self.phi, self.weights, self.degree))

    @cached_property
    def invariant_basis(self) -> tuple[sympy.Expr, ...]:
        """A basis of all conserved polynomials up to `degree`, products of `invariants` included."""
        return tuple(invariant_basis(self.phi, self.weights, self.degree))

    @cached_property
    def laws(self) -> tuple[Law, ...]:
        """The evolution of each invariant under the network's noise and weight decay."""
        return tuple(self._with_decay(self._law(quantity)) for quantity in self.invariants)

    def _with_decay(self, law: Law) -> Law:
        """Weight decay adds a rate ``lambda k`` of decay for a quantity homogeneous of degree k."""
        if not self.weight_decay or (law.kind in ("driven", "open") and law.derivative is None):
            return law
        lost = self.decay * sum(w * law.quantity.diff(w) for w in self.weights)
        ratio = sympy.simplify(lost / law.quantity)
        if law.kind in ("conserved", "decay") and not ratio.free_symbols & set(self.weights):
            rate = (law.rate or sympy.S.Zero) + ratio
            return Law(law.quantity, "decay", rate, -rate * law.quantity)
        return Law(law.quantity, "open" if law.kind == "open" else "driven", derivative=law.derivative - lost)

    def _law(self, quantity: sympy.Expr) -> Law:
        zero = sympy.S.Zero
        if self.noise is None:
            return Law(quantity, "conserved", derivative=zero)
        additive_product = self.formula.product_of is not None and not self.noise.multiplicative
        if additive_product and len(set(self.std)) == 1:
            pair = quantity.free_symbols
            eta2 = self.std[0] ** 2
            rate = 2 * self.sigma**2 * eta2 * sympy.Mul(*(w**2 + eta2 for w in self.weights if w not in pair))
            return Law(quantity, "decay", rate, -rate * quantity)
        slopes = [quantity.diff(w) for w in self.weights]
        through_mean = sum((a * self.mean.diff(w) for a, w in zip(slopes, self.weights, strict=True)), zero)
        through_noise = sum((a * self.variance.diff(w) for a, w in zip(slopes, self.weights, strict=True)), zero)
        derivative = -(self.g * through_mean + self.sigma**2 / 2 * through_noise)
        if derivative.has(E, Var):
            return Law(quantity, "open", derivative=derivative)
        through_mean, through_noise = sympy.simplify(through_mean), sympy.expand(through_noise)
        if through_mean != 0:
            return Law(quantity, "driven", derivative=-(self.g * through_mean + self.sigma**2 / 2 * through_noise))
        if through_noise == 0 or sympy.simplify(through_noise) == 0:
            return Law(quantity, "conserved", derivative=zero)
        if through_noise.is_polynomial(*self.weights):
            quotient, rest = sympy.div(through_noise, quantity, *self.weights)
            if rest == 0:
                rate = sympy.factor(self.sigma**2 / 2 * quotient)
                return Law(quantity, "decay", rate, -rate * quantity)
        return Law(quantity, "driven", derivative=-(self.sigma**2) / 2 * sympy.factor(through_noise))

    # Sharpness and the vanishing limit

    @cached_property
    def sharpness(self) -> Sharpness:
        """Hessian of the loss, its trace, average sharpness."""
        return sharpness_of(self.phi, self.mean, self.variance, self.weights, self.g, self.sigma)

    @cached_property
    def thresholds(self) -> ExactThresholds:
        """Growth thresholds, exact where a closed form is known."""
        return exact_thresholds(self.formula)

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """Remarks on peculiarities of the formula."""
        idle = [w.name for w in self.weights if w not in self.phi.free_symbols]
        remarks = [f"{name} never matters: phi does not depend on it." for name in idle]
        try:
            order = order_at_origin(self.formula)
        except ValueError as error:
            return (*remarks, str(error))
        if order == 0:
            remarks.append(
                f"phi(0) = {self.phi.subs(dict.fromkeys(self.weights, 0))}: a vanishing start is not beta = 0."
            )
        elif order == 1:
            remarks.append("grad phi(0) != 0: the origin is no saddle, and a vanishing start leaves it at once.")
        lost = kernels(DiagonalNetwork(self.formula.text)).tiny_error if order >= 2 else 0.0
        if lost > LOST:
            remarks.append(
                "near 0 terms of grad phi cancel beyond their constants: generated code loses its relative accuracy "
                f"there (measured {lost:.0e} at weights of 1e-20)."
            )
        return tuple(remarks)


def _halved(e: sympy.Expr) -> sympy.Expr:
    """Half of an expression whose terms mostly carry a factor 2."""
    return sympy.together(e / 2) if sympy.count_ops(e) <= SHORT else e / 2
