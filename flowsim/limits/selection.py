r"""Which minimiser the flow selects when active columns are linearly dependent.

The dual ``z = -int g dt`` lies in the row space of X whatever has happened, and an active coordinate answers to it in
closed form. Of all minimisers with the same fit the flow therefore reaches the one with ``z(beta)`` in the row space
of the active columns:

- two-layer type, ``beta_i = C_i exp(R_i z_i)``: least entropy ``sum |beta_i| (ln|beta_i / C_i| - 1) / |R_i|``, where C
  comes from the direction of the start (equal shares for duplicates that start alike);
- formulas with terms of higher order: the same with their curves (:mod:`flowsim.growth.origin_curves`);
- products of L >= 3 weights, ``z_i = const - |beta_i|^(2/L - 1) / (L - 2)``: largest ``sum |beta_i|^(2/L)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowsim.growth.modes import Modes
from flowsim.growth.origin_curves import OriginCurves
from flowsim.network import DiagonalNetwork, quadratic_form

__all__ = ["Memory", "select", "select_products", "start_memory"]

Array = NDArray[np.float64]

#: coordinates -> (coefficients, rates), each (k, m): beta = sum_k coefficients exp(rates z)
Memory = Callable[[NDArray[np.int64]], tuple[Array, Array]]


def start_memory(net: DiagonalNetwork, values: Array, fresh: bool) -> Memory | None:
    """How coordinates started at (alpha times) `values` (k, d) answer to the dual; None if not in closed form.

    Of a fresh start only the fastest excited direction of either sign survives the growth from alpha.
    """
    if any(quadratic_form(formula) is None for formula in net.distinct):
        return None
    return _StartMemory(net, values, fresh)


@dataclass(frozen=True, eq=False)
class _StartMemory:
    net: DiagonalNetwork
    values: Array
    fresh: bool

    def __call__(self, coordinates: NDArray[np.int64]) -> tuple[Array, Array]:
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


def select(
    columns: Array,
    b: Array,
    bounds: Array,
    signs: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    order: int,
    memory: tuple[Array, Array] | None,
    curves: OriginCurves | None = None,
    coordinates: NDArray[np.int64] | None = None,
) -> Array:
    """The minimiser that the flow reaches, of all with the fit of b.

    Parameters
    ----------
    columns : array (n, m)
        Of the coordinates at a bound whose gradient holds them there.
    b : array (m,)
        One minimiser.
    bounds : array (m,)
        The dual, at the bounds: in the row space of `columns`.
    signs : two boolean arrays (m,)
        Coordinates that may be positive, and negative.
    order : int
    memory : (coefficients, rates)
    curves, coordinates
        Of a general formula, instead of the memory.

    Raises
    ------
    ArithmeticError
        If the network's answer to the dual is not known, or the iteration fails.
    """
    from flowsim.solvers.entropy import Exponentials, Powers, mirror_interpolation

    target = columns @ b
    if curves is not None and coordinates is not None:
        return _along_curves(columns, b, bounds, signs, curves, coordinates)
    if memory is None or not (np.isfinite(memory[0]).all() and np.isfinite(memory[1]).all()):
        raise ArithmeticError("the state it went on from does not tell how its coordinates answer to the dual")
    if order > 2:
        sign = np.where(signs[0], 1.0, -1.0)
        size = np.abs(b).max()
        response = Powers(sign, order / (order - 2.0))
        return size * mirror_interpolation(columns, target / size, response, start=-bounds)
    coefficients, rates = memory
    allowed = ((rates > 0) & signs[0]) | ((rates < 0) & signs[1])
    with np.errstate(divide="ignore"):
        offset = np.where(allowed, np.log(np.abs(coefficients)), -np.inf)
    return mirror_interpolation(columns, target, Exponentials(offset, np.where(allowed, rates, 0.0)))


def select_products(
    columns: Array, b: Array, bounds: Array, signs: tuple[NDArray[np.bool_], NDArray[np.bool_]], weights: Array
) -> Array:
    """As :func:`select`, for products of L >= 3 weights (L, m) that need not vanish at the start."""
    from flowsim.growth.product_response import ProductResponse
    from flowsim.solvers.entropy import mirror_interpolation

    response = ProductResponse(weights, np.where(signs[0], 1.0, -1.0))
    return mirror_interpolation(columns, columns @ b, response, start=-bounds)


def _along_curves(
    columns: Array,
    b: Array,
    bounds: Array,
    signs: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    curves: OriginCurves,
    coordinates: NDArray[np.int64],
) -> Array:
    """The choice of general formulas, each coordinate on its own curve."""
    from flowsim.solvers.entropy import Powers, mirror_interpolation

    up, low = signs
    if not curves.fresh or (up & low).any():
        raise ArithmeticError("the state it went on from does not tell how its coordinates answer to the dual")
    target, size = columns @ b, float(np.abs(b).max())
    sign = np.where(up, 1.0, -1.0)
    if curves.order > 2:
        own = [curves.of(int(i), int(side))[0] for i, side in zip(coordinates, sign, strict=True)]
        if not all(curve.is_power_law for curve in own):
            raise ArithmeticError(
                f"terms beyond order {curves.order} delay each coordinate by times that diverge as the scale vanishes, "
                "so that thresholds alone do not tell"
            )
        rate = np.array([curve.speed for curve in own]) * (curves.order - 2.0) / curves.order
        response = Powers(sign, curves.order / (curves.order - 2.0), rate=rate)
        return size * mirror_interpolation(columns, target / size, response, start=-bounds)
    for factor in (4.0, 64.0, 1024.0):
        table = curves.response(coordinates, sign, factor * size)
        beta = mirror_interpolation(columns, target, table)
        if all(abs(value) < curve.top for value, curve in zip(beta.tolist(), table.curves, strict=True)):
            return beta
    raise ArithmeticError("the selected minimiser has coefficients that the formula does not attain")
