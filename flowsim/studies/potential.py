r"""The potential that a flow's end minimises among interpolants, at any finite scale of the start."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, log_abs
from flowsim.growth.curve_map import CurveMap
from flowsim.growth.modes import start_memory
from flowsim.growth.product_map import ProductMap
from flowsim.growth.resolved_curves import admits_curves
from flowsim.growth.response import GrowthResponse
from flowsim.network import Alpha, DiagonalNetwork, InitialScale, quadratic_form
from flowsim.problem import Regression
from flowsim.studies.references import entries, target_vector

_RTOL = 1e-12
#: Tolerance of the fit for tabulated maps.
_TOLERANCE = 1e-10


def min_entropy(
    net: DiagonalNetwork,
    problem: Regression,
    alpha: Alpha,
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
    if net.is_noisy or net.weight_decay:
        raise ValueError("`net` must have no noise or decay: its end minimises no potential.")
    X = entries(problem)
    fitted = X @ np.linalg.lstsq(X, target_vector(problem), rcond=None)[0]
    if any(quadratic_form(formula) is None for formula in net.distinct):
        return mirror_interpolation(X, fitted, _response(net, problem, scale, direction), tolerance=_TOLERANCE)
    memory = start_memory(net, direction, fresh=False)
    assert memory is not None
    coefficients, rates = memory(np.arange(problem.d))
    return mirror_interpolation(X, fitted, SumOfExponentials(log_abs(coefficients) + 2.0 * scale.log, rates))


def _response(net: DiagonalNetwork, problem: Regression, scale: InitialScale, direction: Array) -> GrowthResponse:
    """The growth map of a formula that is not quadratic."""
    factors = net.distinct[0].product_of
    if factors is not None and len(factors) > 2 and len(net.distinct) == 1:
        product = ProductMap(net, scale, direction)
        return GrowthResponse(product, *product.distance)
    reason = admits_curves(net, scale, direction, _RTOL)
    if reason is not None:
        raise ValueError(f"`start` must have a growth map: {reason}.")
    curves, free = CurveMap(net, scale, direction, problem.coefficient_size), np.full(problem.d, np.inf)
    return GrowthResponse(curves, free, free, curves.rate)
