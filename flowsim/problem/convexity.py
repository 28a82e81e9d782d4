"""Test of a loss at given targets: finite and convex, by samples of its second derivative."""

from __future__ import annotations

import numpy as np

from flowsim.arrays import Array
from flowsim.problem.losses import LOSSES, Loss

#: A loss is sampled at these distances from the target, on both sides, ...
_DISTANCES = np.concatenate([[0.0], np.geomspace(1e-8, 30.0, 160)])
#: ... at this many predictions between 0 and the target, ...
_BETWEEN = 401
#: ... for this many targets at most, evenly spaced in their order.
_TARGETS = 64
#: Rounding of a second derivative, relative to its largest value.
_ROUNDING = 1e-10


def check_on_targets(loss: Loss, y: Array) -> None:
    """Raise ValueError where a target is outside a loss's domain, or the loss is not convex and finite around it."""
    fault = loss.fault(y)
    if fault is not None:
        raise ValueError(f"`y` must hold {fault} for the {loss.name} loss.")
    if LOSSES.get(loss.name) is loss:
        return
    known = np.unique(y)
    fault = first_fault(loss, known[np.unique(np.linspace(0, len(known) - 1, _TARGETS).astype(int))])
    if fault is not None:
        raise ValueError(f"`loss` {loss.name!r} {fault}.")


def first_fault(loss: Loss, targets: Array) -> str | None:
    """The first defect of a loss at these targets, as a text, or None."""
    steps = np.concatenate([-_DISTANCES[::-1], _DISTANCES])
    for y in targets:
        # Around 0, where flows start, around the target, and in between.
        f = np.unique(np.concatenate([steps, y + steps, np.linspace(0.0, y, _BETWEEN)]))
        at = np.full_like(f, y)
        with np.errstate(all="ignore"):
            value, slope, curvature = (part(f, at) + 0.0 * f for part in (loss.value, loss.slope, loss.curvature))
        bad = ~(np.isfinite(value) & np.isfinite(slope) & np.isfinite(curvature))
        if bad.any():
            return f"is not finite at f = {f[bad][0]:.6g}, y = {y:.6g}"
        concave = curvature < -_ROUNDING * np.abs(curvature).max()
        if concave.any():
            first = int(np.argmax(concave))
            return f"is not convex: its second derivative is {curvature[first]:.3g} at f = {f[first]:.6g}, y = {y:.6g}"
    return None
