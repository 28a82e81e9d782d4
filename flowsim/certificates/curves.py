"""Pesme & Flammarion, arXiv 2304.00488: convergence in arc length, conserved imbalance and mirror flow."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from flowsim.arrays import Array, gauss_points
from flowsim.certificates.certificate import Evidence, UnresolvedError, assume
from flowsim.certificates.registry import theorem
from flowsim.certificates.resolution import PAPER, hypothesis, jumps_of_both, resolved_jumps
from flowsim.certificates.setting import Setting
from flowsim.errors import IntegrationError
from flowsim.problem import Regression
from flowsim.results import Trajectory

#: Chords that measure the length of one step of the integrator.
_CHORDS = 12
#: Gauss nodes per step of the integrator.
_NODES = 8
#: x ln(1/x) decreases by 0.55 when x = 1/2300 is halved; 0.8 allows for small gamma.
_SHRINKS = 0.8
#: Distances to the curve, relative to the largest coordinate, that count as zero.
_FLOOR = 1e-4
#: Part of the shortest orbit by which a jump may lag behind.
_LAG = 0.05


@theorem(
    "arclength-continuity", PAPER, "in arc length the flow tends to one continuous curve: saddles joined by orbits"
)
def arclength_continuity(setting: Setting) -> Evidence:
    first = setting.path
    resolved_jumps(setting)
    try:
        lengths = np.array([orbit.length for orbit in first.orbits])
    except (ValueError, IntegrationError) as reason:
        raise UnresolvedError(f"the limit curve is not known: {str(reason).rstrip('.')}") from None
    lags = np.abs(setting.once(jumps_of_both)[1] - first.jump_times)
    if not np.isfinite(lags).all():
        raise UnresolvedError(
            f"alpha = {setting.scales[0]} is too large for these data: some jumps run into one another"
        )
    size = float(np.abs(first.saddles).max())
    inner = _in_units_of_length(setting, size, float(lags.max()), float(lengths.min()))
    path, distances, tau = inner.path, [], np.zeros(1)
    for flow in inner.flows:
        tau, beta = _by_chords(flow)
        distances.append(float(np.abs(beta - path.curve(tau)).max()))
    large, small = (distance / size for distance in distances)
    # Lags are O(x), the approach to a saddle O(x ln 1/x); distances below the floor count as zero.
    ratio = small / large if small > _FLOOR else 0.0
    return Evidence(
        hypothesis(setting),
        predicted="distance halves with x (to a logarithm)",
        measured=f"{large:.1e}, then {small:.1e}",
        error=max(ratio / _SHRINKS, small),
        tolerance=1.0,
        unit=f"ratio of the distances to the limit curve at x and x/2, over {_SHRINKS}",
        details={"distances": distances, "length": float(tau[-1]), "lags": lags},
    )


def _in_units_of_length(setting: Setting, size: float, lag: float, shortest: float) -> Setting:
    """X and y scaled alike, which changes the unit of time relative to that of distance in the arc length.

    In the unit chosen waits are no longer than the coefficients are large, and the lag of a jump is a small part of the
    shortest orbit, so that the result does not depend on the units of the data.
    """
    shortest = max(shortest, _FLOOR * size)
    k = math.ceil(math.log2(max(setting.horizon / size, lag / (_LAG * shortest))) / 2)
    if k == 0:
        return setting
    problem = setting.squares
    X = np.ldexp(problem.X, k) if problem.is_dense else problem.X * 2.0**k
    scaled = Regression(X, np.ldexp(problem.y, k), problem.feature_names)
    return replace(setting, problem=scaled, _known={})


def _by_chords(flow: Trajectory) -> tuple[Array, Array]:
    """Arc length measured by chords: accelerated time plus the chords of beta, and beta there."""
    edges = flow.accelerated_time
    share = np.arange(_CHORDS) / _CHORDS
    moments = np.append((edges[:-1, None] + np.diff(edges)[:, None] * share).ravel(), edges[-1])
    beta = flow.at(moments, clock="accelerated").beta
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(beta, axis=0), axis=1))])
    return moments + length, beta


@theorem(
    "conserved-imbalance",
    PAPER,
    "without noise w_1^2 - w_l^2 is conserved (run in the weights themselves)",
    any_loss=True,
)
def conserved_imbalance(setting: Setting) -> Evidence:
    depth = setting.product_depth
    assume(setting.diagonal.noise is None, "weight noise: the imbalance decays instead")
    # An unbalanced start: the default one of depth L >= 3 is balanced, and 0 is conserved trivially.
    d, names = setting.problem.d, setting.diagonal.weights
    start = {name: np.full(d, 1.0 - 0.5 * k / depth) for k, name in enumerate(names)}
    t_end = 5.0 / (setting.stiffness * (setting.size or 1.0) ** (2.0 - 2.0 / depth))
    flow = setting.run(
        t_end, alpha=setting.large_alpha, start=start, coordinates="weights", method="DOP853", rtol=1e-10, atol=1e-14
    )
    w = np.array([flow.weights[name] for name in names])
    gap = w[0] ** 2 - w[1:] ** 2
    moved = float(np.abs(w[:, -1] - w[:, 0]).max() / np.abs(w[:, 0]).max())
    drift = float(np.abs(gap - gap[:, :1]).max() / np.abs(gap[:, 0]).max())
    return Evidence(
        f"no noise; measured while the weights move by {moved:.2g} of themselves",
        predicted=0.0,
        error=drift,
        tolerance=1e-6,
        unit="largest change of w_1^2 - w_l^2, relative to its size",
        details={"t_end": t_end},
    )


@theorem(
    "mirror-flow",
    PAPER,
    "at finite alpha grad phi_alpha(beta(t)) = -int grad L: hyperbolic entropy, or a power",
    any_loss=True,
)
def mirror_flow(setting: Setting) -> Evidence:
    depth, problem = setting.product_depth, setting.problem
    assume(setting.diagonal.noise is None and setting.start is None, "stated from the default start, without noise")
    assume(setting.correlation.any(), "grad L(0) = 0: nothing moves")
    alpha = 0.1 * setting.large_alpha
    flow = setting.run(5.0 / (setting.stiffness * setting.size ** (2.0 - 2.0 / depth)), alpha=alpha)
    points, weights = gauss_points(flow.t, _NODES)
    beta = flow.at(points.ravel()).beta
    steps = np.einsum("sq,sqd->sd", weights, -problem.gradients(beta).reshape(*points.shape, problem.d))
    predicted = np.cumsum(steps, axis=0)
    measured = _mirror(setting.diagonal.direction(None, problem.d) * alpha, flow.beta[1:])
    scale = float(np.abs(predicted).max())
    error = float(np.abs(measured - predicted).max()) / scale
    return Evidence(
        f"product of {depth} weights at alpha = {alpha:.3g}, in {flow.info['coordinates']} coordinates",
        predicted=0.0,
        error=error,
        tolerance=1e-5,
        unit="largest difference of the two over the run, relative to the largest",
        details={"alpha": alpha},
    )


def _mirror(start: Array, beta: Array) -> Array:
    """The dual variable at which a product of weights started at `start` (L, d) has reached beta (T, d)."""
    depth = len(start)
    if depth == 2:
        plus, minus = (start[0] + start[1]) ** 2 / 4, (start[0] - start[1]) ** 2 / 4
        return np.arcsinh(beta / (2 * np.sqrt(plus * minus))) / 2 - np.log(plus / minus) / 4
    assume(np.ptp(start) == 0, "stated for equal weights at the start")
    return (start[0] ** (2 - depth) - beta ** ((2 - depth) / depth)) / (depth - 2)
