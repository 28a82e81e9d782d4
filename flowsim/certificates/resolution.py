"""Theorems on vanishing initialisation: the plateaus and jumps that flows at two scales resolve, and tolerances."""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.certificates.certificate import UnresolvedError
from flowsim.certificates.setting import Setting
from flowsim.network import InitialScale
from flowsim.studies.jumps import measured_jump_times

PAPER = "Pesme & Flammarion, arXiv 2304.00488"
BERTHIER = "Berthier, arXiv 2509.18766"

#: Tolerance for two-layer networks, which converge to the limit exponentially fast: that of the flows.
RESOLVED = 2e-5
#: Depth L >= 3: the distance to the limit is a few times x = alpha^(L-2).
_DEEP_STEPS = 20.0
#: Error after extrapolation: this times x^2, or times the size x^(L/(L-2)) of waiting coordinates.
_BEYOND_FIRST = 100.0
#: Factor of the size of waiting coordinates.
_AT_REST = 4.0
#: A coordinate below this, relative to the largest, counts as zero.
ZERO = 1e-3


def limit_tolerance(setting: Setting) -> float:
    """The tolerance of values extrapolated to x = 0, or of faster convergence than x."""
    order = setting.path.order
    if order == 2:
        return RESOLVED
    return RESOLVED + _BEYOND_FIRST * (setting.step / setting.unit) ** min(order / (order - 2), 2.0)


def saddle_tolerance(setting: Setting, plateaus: Index) -> float:
    """The tolerance at mid-plateau: the size of waiting coordinates, and their effect on the others."""
    return RESOLVED + _AT_REST * float(setting.at_rest[plateaus].max(initial=0.0))


def end_tolerance(setting: Setting, error: float) -> float:
    """The tolerance at the end; an end whose dual is at a bound, or that is not resolved, is approached like x only.

    Raises UnresolvedError if it is `error` away, and active coordinates relax too slowly to have come closer.
    """
    tolerance = RESOLVED + _DEEP_STEPS * setting.step / setting.unit
    if setting.resolved[-1]:
        tolerance = saddle_tolerance(setting, np.array([len(setting.resolved) - 1]))
    # The run at half the x lasts more than twice as long after the jump as half a plateau.
    if error > tolerance and 4 * setting.relaxation[-1] / setting.step < -math.log(RESOLVED):
        raise UnresolvedError("active coordinates relax too slowly to have reached the end of this run's plateau")
    return tolerance


def hypothesis(setting: Setting) -> str:
    """The text of the common hypothesis: a vanishing start, at a scale that resolves the plateaus."""
    path, first = setting.path, setting.scales[0]
    kind = "two-layer type" if path.order == 2 else f"product of {path.order} weights"
    count, total = int(setting.resolved.sum()), len(setting.resolved)
    noise = ", with weight noise" if setting.diagonal.noise is not None else ""
    seen = (
        f"{'all' if count == total else count} of {total} plateaus resolved" if count < total else "plateaus resolved"
    )
    ties = sum(len(hit) > 1 for hit in path.hits)
    position = "" if not ties else f"; not in general position: coordinates tie at {ties} jumps"
    return f"{kind}{noise}; {seen} at alpha = {first}{position}"


def resolved_jumps(setting: Setting) -> Index:
    resolved = setting.resolved
    jumps = np.flatnonzero(resolved[:-1] & resolved[1:])
    if not len(jumps):
        raise UnresolvedError(
            f"alpha = {setting.scales[0]} is too large for these data: no two neighbouring plateaus are long enough"
        )
    return jumps


def resolved_plateaus(setting: Setting) -> Index:
    return beyond_the_start(np.flatnonzero(setting.resolved), setting.scales[0])


def beyond_the_start(plateaus: Index, alpha: InitialScale) -> Index:
    """Resolved plateaus; the first alone, at which every flow of a small scale begins, is no evidence."""
    if not plateaus.any():
        raise UnresolvedError(f"alpha = {alpha} is too large for these data: no plateau after the first is long enough")
    return plateaus


def jumps_of_both(setting: Setting) -> tuple[Array, Array]:
    first, second = (measured_jump_times(flow, setting.path) for flow in setting.flows)
    return first, second


def measured_jumps(setting: Setting) -> tuple[Index, Array, Array]:
    """Resolved jumps, their times at the two scales."""
    jumps = resolved_jumps(setting)
    first, second = (each[jumps] for each in setting.once(jumps_of_both))
    seen = np.isfinite(first) & np.isfinite(second)
    if not seen.all():
        missing = setting.path.jump_times[jumps[~seen]][0]
        raise UnresolvedError(f"the flow does not cross half way near the jump at {missing:.6g}")
    return jumps, first, second
