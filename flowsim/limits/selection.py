r"""The minimiser that the flow selects when active columns are linearly dependent.

The dual ``z = -int g dt`` lies in the row space of X at all times and determines every active coordinate. Of all
minimisers with the same fit the flow therefore reaches the one for which ``z(beta)`` is in the row space of the active
columns:

- two-layer type, ``beta_i = C_i exp(R_i z_i)``: least entropy ``sum |beta_i| (ln|beta_i / C_i| - 1) / |R_i|``, where C
  comes from the direction of the start (equal shares for duplicates that start alike);
- formulas with terms of higher order: the same with their curves (:mod:`flowsim.growth.origin_curves`);
- products of L >= 3 weights, ``z_i = const - |beta_i|^(2/L - 1) / (L - 2)``: largest ``sum |beta_i|^(2/L)``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array, Bools, Integers, log_abs
from flowsim.errors import IntegrationError
from flowsim.growth.origin_curves import OriginCurves
from flowsim.limits.dual_bounds import DualBounds

#: Coefficients below this, relative to the largest, are zeros to the accuracy of the iteration.
NEGLIGIBLE = 1e-11
#: Extent of a curve's table relative to the largest coefficient of one minimiser, at the first attempt and later.
_REACHES = (4.0, 64.0, 1024.0)

_UNKNOWN = "the state of its start does not determine how its coordinates grow with the dual"


def selected(
    columns: Array,
    values: Array,
    coordinates: Integers,
    flags: NDArray[np.uint8],
    bounds: DualBounds,
    t: float,
) -> Array:
    """The minimiser that the flow reaches, of all with the fit of `values`.

    Raises IntegrationError if the growth of the coordinates is not known, or the iteration fails.

    Parameters
    ----------
    columns : array (n, m)
        Columns of the coordinates at a bound that the gradient keeps there.
    values : array (m,)
        One minimiser.
    coordinates, flags : array (m,)
        1 for coordinates at the upper bound, which may be positive, 2 for the lower, 3 for both.
    t : float
        Accelerated time.
    """
    from flowsim.solvers.entropy import Powers, mirror_interpolation

    up, low = (flags & 1) != 0, (flags & 2) != 0
    upper, lower = (
        a[coordinates] + b[coordinates] * t for a, b in zip(bounds.thresholds, bounds.penalties, strict=True)
    )
    dual = np.where(up, upper, -lower)
    target, sign, size = columns @ values, np.where(up, 1.0, -1.0), float(np.abs(values).max())
    growth = bounds.growth
    try:
        if growth.curves is not None and (not growth.curves.fresh or (up & low).any()):
            raise ArithmeticError(_UNKNOWN)
        if growth.order == 2 and growth.curves is not None:
            return _along_curves(columns, target, growth.curves, coordinates, sign, size)
        if growth.curves is None and growth.weights is not None:
            from flowsim.growth.response import ProductResponse

            response = ProductResponse(growth.weights[:, coordinates], sign)
            return mirror_interpolation(columns, target, response, start=-dual)
        if growth.order == 2:
            return _of_modes(columns, target, bounds, coordinates, up, low)
        rate = 1.0 if growth.curves is None else _power_rates(growth.curves, coordinates, sign)
        powers = Powers(sign, growth.order / (growth.order - 2.0), rate=rate)
        return size * mirror_interpolation(columns, target / size, powers, start=-dual)
    except ArithmeticError as error:
        raise IntegrationError(
            f"the saddle at accelerated time {t:.6g} is not unique, as its active columns are linearly dependent, and "
            f"the one that the flow reaches is not known: {error}."
        ) from error


def _of_modes(columns: Array, target: Array, bounds: DualBounds, coordinates: Integers, up: Bools, low: Bools) -> Array:
    """Quadratic formulas: sums of exponentials."""
    from flowsim.solvers.entropy import SumOfExponentials, mirror_interpolation

    memory = bounds.growth.memory
    if memory is None:
        raise ArithmeticError(_UNKNOWN)
    coefficients, rates = memory(coordinates)
    if not (np.isfinite(coefficients).all() and np.isfinite(rates).all()):
        raise ArithmeticError(_UNKNOWN)
    allowed = ((rates > 0) & up) | ((rates < 0) & low)
    offset = np.where(allowed, log_abs(coefficients), -np.inf)
    return mirror_interpolation(columns, target, SumOfExponentials(offset, np.where(allowed, rates, 0.0)))


def _along_curves(
    columns: Array, target: Array, curves: OriginCurves, coordinates: Integers, sign: Array, size: float
) -> Array:
    """Other formulas of order 2: each coordinate on its own curve."""
    from flowsim.solvers.entropy import mirror_interpolation

    for factor in _REACHES:
        response = curves.response(coordinates, sign, factor * size)
        beta = mirror_interpolation(columns, target, response)
        if all(abs(value) < curve.top for value, curve in zip(beta.tolist(), response.curves, strict=True)):
            return beta
    raise ArithmeticError("the selected minimiser has coefficients that the formula does not attain")


def _power_rates(curves: OriginCurves, coordinates: Integers, sign: Array) -> Array:
    """Other formulas of order L >= 3: rates of ``z -> (-rate z)^(-L/(L-2))``."""
    own = [curves.of(int(i), int(side))[0] for i, side in zip(coordinates, sign, strict=True)]
    if not all(curve.is_power_law for curve in own):
        raise ArithmeticError(
            f"terms beyond order {curves.order} delay each coordinate by times that diverge as the scale vanishes, "
            "so that thresholds alone do not determine it"
        )
    return np.array([curve.speed for curve in own]) * (curves.order - 2.0) / curves.order


def check_reach(bounds: DualBounds, coordinates: Integers, values: Array, t: float) -> None:
    """Refuse least-squares coefficients that the formula does not attain along its curve from the origin."""
    curves = bounds.growth.curves
    if curves is None or (beyond := curves.out_of_reach(coordinates, values)) is None:
        return
    i, limit = beyond
    raise IntegrationError(
        f"the saddle at accelerated time {t:.6g} has a coefficient of {values[coordinates == i][0]:.6g} of the "
        f"formula {curves.formula(i).text!r}, whose curve from the origin ends in a critical point at "
        f"{limit:.6g}: the coordinate stays there, and the further process is not known."
    )
