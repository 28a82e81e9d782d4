"""The rate of accelerated time, the clock on which a vanishing start grows in finite time."""

from __future__ import annotations

import math
import sys
from functools import lru_cache

from flowsim.network import DiagonalNetwork, Formula, InitialScale, LinearNetwork, quadratic_form
from flowsim.symbolic.origin import order_at_origin


def acceleration(net: DiagonalNetwork | LinearNetwork, scale: InitialScale) -> float:
    """``d accelerated_time / dt``: 1/gamma for two-layer networks, alpha^(L-2) for homogeneous degree L >= 3.

    It is 1 for alpha >= 1, and for formulas for which the origin is not a critical point or that are not analytic
    there.

    Raises ValueError if alpha^(L-2) underflows.
    """
    order = _order_of(net)
    factor = _acceleration(order, scale)
    if factor < sys.float_info.min:
        raise ValueError(
            f"`alpha` = {scale} puts the time scale alpha^-{order - 2} of this network beyond the range of floats."
        )
    return factor


def log_acceleration(net: DiagonalNetwork | LinearNetwork, scale: InitialScale) -> float:
    """The logarithm of :func:`acceleration`, which never overflows."""
    order = _order_of(net)
    return (order - 2) * scale.log if order > 2 and scale.gamma > 0 else math.log(_acceleration(order, scale))


def _acceleration(order: int, scale: InitialScale) -> float:
    if scale.gamma <= 0 or order < 2:
        return 1.0
    return 1.0 / scale.gamma if order == 2 else math.exp((order - 2) * scale.log)


def _order_of(net: DiagonalNetwork | LinearNetwork) -> int:
    return 2 if isinstance(net, LinearNetwork) else min(_order(formula) for formula in net.distinct)


@lru_cache(maxsize=1024)
def _order(formula: Formula) -> int:
    # A quadratic form needs no series, hence no SymPy.
    if formula.product_of is None and quadratic_form(formula) is not None:
        return 2
    try:
        return order_at_origin(formula)
    except ValueError:  # no Taylor series
        return 1
