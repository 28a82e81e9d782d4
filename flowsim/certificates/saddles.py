"""Pesme & Flammarion, arXiv 2304.00488: saddles, jumps and active sets from vanishing initialisation."""

from __future__ import annotations

import numpy as np

from flowsim.certificates.certificate import Evidence, UnresolvedError, assume
from flowsim.certificates.registry import theorem
from flowsim.certificates.resolution import (
    PAPER,
    RESOLVED,
    ZERO,
    hypothesis,
    limit_tolerance,
    measured_jumps,
    resolved_plateaus,
    saddle_tolerance,
)
from flowsim.certificates.setting import Setting

#: Coordinates above this, relative to the largest, are resolved to a relative ZERO.
_VISIBLE = 1e-3


@theorem("saddles", PAPER, "as alpha -> 0 the flow stands at the saddles of the active-set process", any_loss=True)
def saddles(setting: Setting) -> Evidence:
    path, flow = setting.path, setting.flows[1]
    rows = resolved_plateaus(setting)
    beta = flow.at(setting.middles[rows], clock="accelerated").beta
    size = float(np.abs(path.saddles).max())
    distance = np.abs(beta - path.saddles[rows]).max(axis=1) / size
    return Evidence(
        hypothesis(setting),
        predicted=f"{len(rows)} saddles",
        measured=f"within {distance.max():.1e}",
        error=float(distance.max()),
        tolerance=saddle_tolerance(setting, rows),
        unit="largest distance of beta at mid-plateau, relative to the largest coordinate",
        details={"distances": distance, "plateaus": rows, "alpha": str(setting.scales[1])},
    )


@theorem("jump-times", PAPER, "jumps happen at the times of the process (two alphas, extrapolated to 0)", any_loss=True)
def jump_times(setting: Setting) -> Evidence:
    jumps, first, second = measured_jumps(setting)
    predicted = setting.path.jump_times[jumps]
    # The error is proportional to x up to exponentially small terms; x is halved between the two flows.
    limit = 2 * second - first
    error = np.abs(limit / predicted - 1)
    worst = int(np.argmax(error))
    return Evidence(
        hypothesis(setting),
        predicted=float(predicted[worst]),
        measured=float(limit[worst]),
        error=float(error[worst]),
        tolerance=limit_tolerance(setting),
        unit=f"largest relative error of {len(jumps)} jump times; the worst is shown",
        details={"jumps": jumps, "predicted": predicted, "extrapolated": limit, "measured": second},
    )


@theorem(
    "jump-rate", PAPER, "a jump at finite alpha is off by O(1/ln(1/alpha)); depth L >= 3: O(alpha^(L-2))", any_loss=True
)
def jump_rate(setting: Setting) -> Evidence:
    jumps, first, second = measured_jumps(setting)
    predicted = setting.path.jump_times[jumps]
    gaps = np.abs(np.array([first, second]) - predicted)
    visible = gaps[1] > 1e-9 * predicted
    assume(visible.any(), "the jumps of the flow are already at their limit to rounding")
    order = np.log2(gaps[0][visible] / gaps[1][visible])
    measured = float(np.median(order))
    return Evidence(
        hypothesis(setting),
        predicted=1.0,
        measured=measured,
        error=abs(measured - 1.0),
        tolerance=0.1,
        unit="median order of the jump-time error in x = 1/ln(1/alpha), or alpha^(L-2)",
        details={"constant": gaps[1] / (setting.step / 2), "orders": order},
    )


@theorem(
    "active-sets", PAPER, "on each plateau the support and the signs of beta are those of the process", any_loss=True
)
def active_sets(setting: Setting) -> Evidence:
    rows = resolved_plateaus(setting)
    beta = setting.flows[1].at(setting.middles[rows], clock="accelerated").beta
    saddles = setting.path.saddles[rows]
    size = np.abs(setting.path.saddles).max()
    # A coordinate counts as 0 below half the smallest of the process on that plateau.
    least = np.array([np.abs(row[row != 0]).min() if row.any() else size for row in saddles])
    signs = np.where(np.abs(beta) > 0.5 * np.minimum(least, size)[:, None], np.sign(beta), 0.0)
    wrong = int((signs != np.sign(saddles)).sum())
    return Evidence(
        hypothesis(setting),
        predicted=f"{len(rows)} sign patterns",
        measured=f"{wrong} coordinates differ",
        error=float(wrong),
        tolerance=0.5,
        unit="coordinates whose sign differs, over all plateaus",
        details={"sizes": [len(setting.path.active_sets[k]) for k in rows]},
    )


@theorem(
    "non-monotone-active-sets",
    PAPER,
    "active sets need not grow: a coordinate can return to 0 at a jump",
    any_loss=True,
)
def non_monotone(setting: Setting) -> Evidence:
    path = setting.path
    resolved = setting.resolved
    leaving = [event for event in path.events if event.kind == "deactivated"]
    assume(leaving, "on these data active sets only grow")
    seen = [event for event in leaving if resolved[event.jump] and resolved[event.jump + 1]]
    if not seen:
        raise UnresolvedError(f"the plateaus around the deactivations are too short for alpha = {setting.scales[0]}")
    flow = setting.flows[1]
    size, least = 0.0, _VISIBLE * float(np.abs(path.saddles).max())
    seen = [event for event in seen if abs(path.saddles[event.jump][event.coordinate]) > least]
    if not seen:
        raise UnresolvedError("the coordinates that leave are too small to be distinguished from 0 at this tolerance")
    for event in seen:
        before, after = flow.at(setting.middles[event.jump : event.jump + 2], clock="accelerated").beta
        i = event.coordinate
        opposite = path.saddles[event.jump + 1][i]
        size = max(size, float(abs(after[i] - opposite) / abs(before[i])))
    first = seen[0]
    return Evidence(
        f"{len(leaving)} deactivations, the first of {first.name} at {first.time:.6g}",
        predicted=f"{len(seen)} coordinates leave",
        measured=f"what is left of them: {size:.1e}",
        error=size,
        tolerance=ZERO,
        unit="largest coordinate after its deactivation, relative to before",
        details={"times": [event.time for event in leaving], "features": [event.name for event in leaving]},
    )


@theorem("orthogonal-design", PAPER, "X^T X / n diagonal: coordinate i jumps at 1/|c_i| to its final value")
def orthogonal_design(setting: Setting) -> Evidence:
    net, variances = setting.diagonal, setting.orthogonal_variances
    assume(
        setting.product_depth == 2 and net.noise is None and setting.start is None,
        "stated for u*v from the default start, without noise",
    )
    jumps, first, second = measured_jumps(setting)
    c = setting.correlation
    moving = np.abs(c) > 1e-12 * np.abs(c).max()
    predicted = np.sort(1.0 / np.abs(c[moving]))
    assume(len(predicted) == len(setting.path.jump_times), "two coordinates are tied: they jump together")
    measured = 2 * second - first
    times = np.abs(measured / predicted[jumps] - 1).max()
    values = np.abs(setting.flows[1].beta[-1][moving] / (c[moving] / variances[moving]) - 1).max()
    return Evidence(
        "X^T X / n is diagonal",
        predicted=f"{len(jumps)} jumps at 1/|c_i|",
        measured=f"within {times:.1e}",
        error=float(max(times, values)),
        tolerance=RESOLVED,
        unit="largest relative error of a jump time or a final value",
        details={"predicted": predicted[jumps], "measured": measured},
    )
