"""Whether floats of the dual resolve growth along a curve, from weights that start slow to weights near 1."""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array
from flowsim.growth.formula_origin import Gradient, origin_of
from flowsim.growth.homogeneous import scaled_series
from flowsim.network import DiagonalNetwork, Formula, InitialScale

#: Beyond order 2 z is counted from the start: its rounding error must stay below a tenth of rtol where weights matter.
_RESOLVED = 10 * float(np.finfo(float).eps)
#: For rtol below this as well: distances from blow-ups, taken otherwise, err by up to 6e-10 where alpha is above 2e-4.
_TIGHTEST = 1e-11
#: z is resolved where the spacing of its floats changes weights by less than this.
_FAR_FROM_GROWN = 0.1
#: Weights below this are too close to underflow.
_TINY = 1e-150
#: Curves resolve weights down to this part of the largest of their coordinate.
_APART = 1e-9


def admits_curves(
    net: DiagonalNetwork, scale: InitialScale, direction: Array, rtol: float, reach: float = math.inf
) -> str | None:
    """None if the network's growth along curves is exact at this start while |z| <= reach, else the reason why not."""
    if net.is_noisy:
        return "with noise the weights leave their curve"
    if net.weight_decay:
        return "with weight decay the weights leave their curve"
    for formula, rows, here in net.parts(direction.shape[1]):
        origin = origin_of(formula)
        if origin.order in (1, 2) or not here.size:
            continue
        own = np.abs(direction[np.ix_(rows, here)]).max(axis=0)
        least = scale.log + math.log(float(own[own > 0].min(initial=math.inf)))
        if origin.order == 0:
            if least < math.log(_TINY):
                return f"{formula.text!r} is not analytic at the origin, where weights of {scale} are"
            start = direction[np.ix_(rows, here[own > 0])]
            small, large = (_rates(formula, size * start) for size in (scale.value, 1 / own[own > 0]))
            if ((small < _RESOLVED / rtol * large) & (small * reach > _FAR_FROM_GROWN)).any():
                return (
                    f"weights of {formula.text!r} grow {float((large / small).max()):.0e} times as slowly at the start "
                    "as near 1, and floats of the dual do not resolve both: use a larger `alpha`"
                )
        elif (origin.order - 2) * least < math.log(_RESOLVED / max(rtol, _TIGHTEST)) and not all(
            total_change(formula, scale, direction[rows, i], reach) <= _FAR_FROM_GROWN for i in here
        ):
            return f"weights of {formula.text!r} take alpha^-{origin.order - 2} of time: floats do not resolve it"
    return None


def lost_beside_others(net: DiagonalNetwork, direction: Array) -> str | None:
    """Why curves do not resolve a start: weights far below others of their coordinate decide how long they grow.

    None if there are none: weights that others drive, whose own start has no effect, are none.
    """
    for formula, rows, here in net.parts(direction.shape[1]):
        if origin_of(formula).order in (1, 2):  # in logarithms of their own
            continue
        own = direction[np.ix_(rows, here)]
        own = own / np.maximum(np.abs(own).max(axis=0, initial=0.0), np.finfo(float).tiny)
        small = (own != 0) & (np.abs(own) < _APART)
        if small.any() and (Gradient(formula)(np.where(small, 0.0, own))[small] == 0).any():
            return f"weights of {formula.text!r} start more than {1 / _APART:.0e} apart"
    return None


def _rates(formula: Formula, theta: Array) -> Array:
    """Relative rates (P,) of the largest of weights (k, P)."""
    with np.errstate(all="ignore"):
        return np.asarray(np.abs(Gradient(formula)(theta)).max(axis=0) / np.abs(theta).max(axis=0))


def total_change(formula: Formula, scale: InitialScale, start: Array, reach: float) -> float:
    """Relative change of the weights of a formula of order L >= 3 while |z| <= reach, to first order."""
    taylor = scaled_series(formula)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.abs(taylor.gradient(start[:, None], -math.inf)[:, 0])) - np.log(np.abs(start))
    fastest = float(np.max(logs, initial=-math.inf, where=~np.isnan(logs)))
    if fastest == -math.inf or reach == 0:
        return 0.0
    return math.exp(min(fastest + math.log(reach) + (taylor.order - 2) * scale.log, 700.0))
