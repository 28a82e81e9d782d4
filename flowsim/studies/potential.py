r"""The potential that a flow's end minimises among interpolants, at any finite scale of the start."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, log_abs
from flowsim.growth.curve_map import CurveMap
from flowsim.growth.modes import start_memory
from flowsim.growth.product_map import ProductMap
from flowsim.growth.protocol import GrowthMap
from flowsim.growth.resolved_curves import admits_curves
from flowsim.network import DiagonalNetwork, InitialScale, quadratic_form
from flowsim.problem import Regression
from flowsim.studies.references import entries, target_vector

#: Bounds on a Newton step: part of the distance to a pole of the dual, and e-folds of the weights.
_CLOSER, _EFOLDS = 0.9, 2.0
_RTOL = 1e-12
#: Tolerance of the fit for tabulated maps.
_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class _Grown:
    """A growth map as an inverse mirror map for :mod:`flowsim.solvers.entropy`."""

    map: GrowthMap
    #: Poles of z above and below, (d,); infinite where there are none.
    above: Array
    below: Array
    #: Fastest relative growth of weights by z, 0 for poles alone.
    rate: float
    depth: float = 0.0

    def value(self, z: Array) -> Array:
        return self.map.value(self.map.state(z[None]), 0.0)[0]

    def slope(self, z: Array) -> Array:
        return self.map.slope(self.map.state(z[None]), 0.0)[0]

    def potential(self, z: Array) -> float:
        if not ((z < self.above) & (z > -self.below)).all():
            return np.inf
        return float(self.map.potential(self.map.state(z[None]), 0.0).sum())

    def scaled(self, share: float) -> _Grown:
        return self

    def reach(self, z: Array, dz: Array) -> float:
        left = np.where(dz > 0, self.above - z, self.below + z)
        with np.errstate(divide="ignore", invalid="ignore"):
            limit = float(np.min(np.where(dz != 0, _CLOSER * left / np.abs(dz), np.inf)))
            grown = _EFOLDS / float(self.rate * np.abs(dz).max()) if self.rate * np.abs(dz).max() > 0 else 1.0
        return min(1.0, limit, grown)


def min_entropy(
    net: DiagonalNetwork,
    problem: Regression,
    alpha: float | str | Decimal | Fraction,
    start: dict[str, ArrayLike] | None = None,
) -> Array:
    r"""The end of the gradient flow of a diagonal network: the minimiser of its potential among interpolants.

    For ``u*v`` the hyperbolic entropy

    .. math:: Q_\alpha(\beta) = \sum_i \int_0^{\beta_i} \mathrm{arcsinh}\Big(\frac{x}{2\sqrt{A_i B_i}}\Big)
              - \tfrac12 \ln\frac{A_i}{B_i} \, dx, \quad A_i, B_i = \tfrac{\alpha^2}{4} (u_i \pm v_i)^2,

    in general the one whose mirror map inverts the growth of beta with the dual: for quadratic formulas
    ``beta_i(z) = sum_k mu_k c_k^2 exp(4 mu_k z)``, for others the map of :mod:`flowsim.growth`, e.g. for L equal
    weights ``beta_i = (alpha^{2-L} - (L - 2) z)^{-L/(L-2)}``.

    Parameters
    ----------
    net : DiagonalNetwork
        Any formula, without noise and weight decay.
    problem : Regression
    alpha, start
        As in :func:`flowsim.gradient_flow`; any scale for quadratic formulas, else one whose ``alpha^(L - 2)`` floats
        resolve beside 1.

    Returns
    -------
    beta : array (d,)

    Raises
    ------
    ValueError
        For networks with noise or decay, and starts without a growth map.
    ArithmeticError
        If no interpolant has the signs that the start allows, or floats do not resolve the dual.

    References
    ----------
    Woodworth et al., *Kernel and rich regimes in overparametrized models*, arXiv 2002.09277, Theorem 1.
    """
    from flowsim.solvers.entropy import SumOfExponentials, mirror_interpolation

    direction, scale = net.direction(start, problem.d), InitialScale.parse(alpha)
    if (net.noise is not None and np.any(net.noise.stds(net.weights))) or net.weight_decay:
        raise ValueError("`net` must have no noise or decay: its end minimises no potential.")
    X = entries(problem)
    fitted = X @ np.linalg.lstsq(X, target_vector(problem), rcond=None)[0]
    if any(quadratic_form(formula) is None for formula in net.distinct):
        return mirror_interpolation(X, fitted, _grown(net, problem, scale, direction), tolerance=_TOLERANCE)
    memory = start_memory(net, direction, fresh=False)
    assert memory is not None
    log_alpha = scale.log
    coefficients, rates = memory(np.arange(problem.d))
    offset = log_abs(coefficients) + 2.0 * log_alpha
    return mirror_interpolation(X, fitted, SumOfExponentials(offset, rates))


def _grown(net: DiagonalNetwork, problem: Regression, scale: InitialScale, direction: Array) -> _Grown:
    """The growth map of a formula that is not quadratic."""
    factors = net.distinct[0].product_of
    if factors is not None and len(factors) > 2 and len(net.distinct) == 1:
        product = ProductMap(net, scale, direction)
        above, below = product.distance
        return _Grown(product, above, below, 0.0)
    reason = admits_curves(net, scale, direction, _RTOL)
    if reason is not None:
        raise ValueError(f"`start` must have a growth map: {reason}.")
    curves, free = CurveMap(net, scale, direction, problem.coefficient_size), np.full(problem.d, np.inf)
    return _Grown(curves, free, free, curves.rate)
