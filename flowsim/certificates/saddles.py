"""Pesme & Flammarion, arXiv 2304.00488: diagonal networks from vanishing initialisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowsim.certificates.certificate import Evidence, NotMetError, UnmeasuredError
from flowsim.certificates.registry import theorem
from flowsim.certificates.setting import Setting
from flowsim.limits import SaddlePath
from flowsim.results import Trajectory
from flowsim.studies.jumps import measured_jump_times

__all__ = [
    "active_sets",
    "arclength_continuity",
    "conserved_imbalance",
    "entropy_bias",
    "interpolation",
    "jump_rate",
    "jump_times",
    "lasso_average",
    "least_squares",
    "non_monotone",
    "orthogonal_design",
    "saddles",
]

Array = NDArray[np.float64]

PAPER = "Pesme & Flammarion, arXiv 2304.00488"
BERTHIER = "Berthier, arXiv 2509.18766"

#: Limits are read off flows of finite tolerance; two-layer networks reach them exponentially fast.
_TWO_LAYER = 1e-4
#: Depth L >= 3: what the limit leaves is a few times x = alpha^(L-2).
_DEEP_STEPS = 20.0
#: A coordinate below this share of the largest counts as zero.
_ZERO = 1e-3
_SAMPLES = 4001
#: Chords that measure the length of one step of the integrator.
_CHORDS = 12
#: x ln(1/x) falls by 0.55 when x = 1/2300 is halved; 0.8 leaves room for small gamma.
_SHRINKS = 0.8


def _limit_tolerance(setting: Setting) -> float:
    return _TWO_LAYER if setting.path.order == 2 else max(_DEEP_STEPS * setting.step, _TWO_LAYER)


def _end_tolerance(setting: Setting) -> float:
    """An end whose dual stands at a wall, or that is not resolved, is approached like x only."""
    return _limit_tolerance(setting) + (0.0 if setting.resolved[-1] else _DEEP_STEPS * setting.step)


def _hypothesis(setting: Setting) -> str:
    """The common hypothesis: a vanishing start, seen at a scale that resolves the plateaus."""
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


def _resolved_jumps(setting: Setting) -> NDArray[np.intp]:
    settled = setting.resolved
    jumps = np.flatnonzero(settled[:-1] & settled[1:])
    if not len(jumps):
        raise NotMetError(
            f"alpha = {setting.scales[0]} is too large for these data: no two neighbouring plateaus are long enough"
        )
    return jumps


def _resolved_plateaus(setting: Setting) -> NDArray[np.intp]:
    plateaus = np.flatnonzero(setting.resolved)
    if not len(plateaus):
        raise NotMetError(f"alpha = {setting.scales[0]} is too large for these data: no plateau is long enough")
    return plateaus


@theorem("saddles", PAPER, "as alpha -> 0 the flow stands at the saddles of the active-set process")
def saddles(setting: Setting) -> Evidence:
    path, flow = setting.path, setting.flows[1]
    rows = _resolved_plateaus(setting)
    beta = flow.at(setting.middles[rows], clock="accelerated").beta
    size = float(np.abs(path.saddles).max())
    distance = np.abs(beta - path.saddles[rows]).max(axis=1) / size
    return Evidence(
        _hypothesis(setting),
        f"{len(rows)} saddles",
        f"within {distance.max():.1e}",
        float(distance.max()),
        _limit_tolerance(setting),
        "largest distance of beta at mid-plateau, relative to the largest coordinate",
        {"distances": distance, "plateaus": rows, "alpha": str(setting.scales[1])},
    )


def _jumps_of_both(setting: Setting) -> tuple[Array, Array]:
    first, second = (measured_jump_times(flow, setting.path) for flow in setting.flows)
    return first, second


def _measured_jumps(setting: Setting) -> tuple[NDArray[np.intp], Array, Array]:
    """Resolved jumps, their times at the two scales."""
    jumps = _resolved_jumps(setting)
    first, second = (each[jumps] for each in setting.once(_jumps_of_both))
    seen = np.isfinite(first) & np.isfinite(second)
    if not seen.all():
        missing = setting.path.jump_times[jumps[~seen]][0]
        raise UnmeasuredError(f"the flow does not cross half way near the jump at {missing:.6g}")
    return jumps, first, second


@theorem("jump-times", PAPER, "jumps happen at the times of the process (two alphas, extrapolated to 0)")
def jump_times(setting: Setting) -> Evidence:
    jumps, first, second = _measured_jumps(setting)
    predicted = setting.path.jump_times[jumps]
    # The error is proportional to x up to exponentially small terms; x is halved from one flow to the other.
    limit = 2 * second - first
    error = np.abs(limit / predicted - 1)
    worst = int(np.argmax(error))
    return Evidence(
        _hypothesis(setting),
        float(predicted[worst]),
        float(limit[worst]),
        float(error[worst]),
        _limit_tolerance(setting),
        f"largest relative error of {len(jumps)} jump times; the worst is shown",
        {"jumps": jumps, "predicted": predicted, "extrapolated": limit, "measured": second},
    )


@theorem("jump-rate", PAPER, "a jump at finite alpha is off by O(1/ln(1/alpha)); depth L >= 3: O(alpha^(L-2))")
def jump_rate(setting: Setting) -> Evidence:
    jumps, first, second = _measured_jumps(setting)
    predicted = setting.path.jump_times[jumps]
    gaps = np.abs(np.array([first, second]) - predicted)
    visible = gaps[1] > 1e-9 * predicted
    if not visible.any():
        raise NotMetError("the jumps of the flow are already at their limit to rounding")
    order = np.log2(gaps[0][visible] / gaps[1][visible])
    measured = float(np.median(order))
    return Evidence(
        _hypothesis(setting), 1.0, measured, abs(measured - 1.0), 0.1,
        "median order of the jump-time error in x = 1/ln(1/alpha), or alpha^(L-2)",
        {"constant": gaps[1] / (setting.step / 2), "orders": order},
    )  # fmt: skip


@theorem("active-sets", PAPER, "on each plateau the support and the signs of beta are those of the process")
def active_sets(setting: Setting) -> Evidence:
    rows = _resolved_plateaus(setting)
    beta = setting.flows[1].at(setting.middles[rows], clock="accelerated").beta
    saddles = setting.path.saddles[rows]
    size = np.abs(setting.path.saddles).max()
    # A coordinate is told from 0 by half the smallest that the process has on that plateau.
    least = np.array([np.abs(row[row != 0]).min() if row.any() else size for row in saddles])
    signs = np.where(np.abs(beta) > 0.5 * np.minimum(least, size)[:, None], np.sign(beta), 0.0)
    wrong = int((signs != np.sign(saddles)).sum())
    return Evidence(
        _hypothesis(setting), f"{len(rows)} sign patterns", f"{wrong} coordinates differ", float(wrong), 0.5,
        "coordinates whose sign differs, over all plateaus",
        {"sizes": [len(setting.path.active_sets[k]) for k in rows]},
    )  # fmt: skip


@theorem("non-monotone-active-sets", PAPER, "active sets need not grow: a coordinate can return to 0 at a jump")
def non_monotone(setting: Setting) -> Evidence:
    path = setting.path
    settled = setting.resolved
    leaving = [event for event in path.events if event.kind == "deactivated"]
    if not leaving:
        raise NotMetError("on these data active sets only grow")
    seen = [event for event in leaving if settled[event.jump] and settled[event.jump + 1]]
    if not seen:
        raise NotMetError(f"the plateaus around the deactivations are too short for alpha = {setting.scales[0]}")
    flow = setting.flows[1]
    size = 0.0
    for event in seen:
        before, after = flow.at(setting.middles[event.jump : event.jump + 2], clock="accelerated").beta
        i = event.coordinate
        opposite = path.saddles[event.jump + 1][i]
        size = max(size, float(abs(after[i] - opposite) / abs(before[i])))
    first = seen[0]
    return Evidence(
        f"{len(leaving)} deactivations, the first of {first.name} at {first.time:.6g}",
        f"{len(seen)} coordinates leave",
        f"what is left of them: {size:.1e}",
        size,
        _ZERO,
        "largest coordinate after its deactivation, relative to before",
        {"times": [event.time for event in leaving], "features": [event.name for event in leaving]},
    )


def _weighted_l1(path: SaddlePath, beta: Array) -> float:
    upper, lower = (np.broadcast_to(side, beta.shape) for side in path.thresholds)
    positive, negative = np.maximum(beta, 0.0), np.maximum(-beta, 0.0)
    return float(upper[positive > 0] @ positive[positive > 0] + lower[negative > 0] @ negative[negative > 0])


@theorem("min-l1", PAPER, "d > rank X: the end minimises sum t+ beta+ + t- beta- (u*v: the l1 norm)")
def interpolation(setting: Setting) -> Evidence:
    from scipy.optimize import linprog

    path, problem = setting.path, setting.problem
    if setting.diagonal.noise is not None:
        raise NotMetError("weight noise: the end is a weighted Lasso instead")
    if setting.rank == problem.d:
        raise NotMetError(f"X has full column rank {problem.d}: the least-squares solution is the only candidate")
    fitted = problem.predict(setting.least_squares)
    upper, lower = (np.broadcast_to(side, (problem.d,)) for side in path.thresholds)
    cost = np.concatenate([upper, lower])
    bounds = [(0.0, None if np.isfinite(value) else 0.0) for value in cost]
    # Equations in an orthonormal basis of the row space: redundant rows upset the solver.
    left, values, right = np.linalg.svd(setting.X, full_matrices=False)
    keep = values > values[0] * max(setting.X.shape) * np.finfo(float).eps
    rows, target = right[keep], (left.T @ fitted)[keep] / values[keep]
    answer = linprog(np.where(np.isfinite(cost), cost, 1.0), A_eq=np.hstack([rows, -rows]), b_eq=target, bounds=bounds)
    if answer.status == 2:
        raise NotMetError("no interpolator has the signs that this start allows")
    if not answer.success:
        raise UnmeasuredError(f"the linear programme failed: {answer.message}")
    beta = setting.flows[1].beta[-1]
    gap = float(np.linalg.norm(problem.predict(beta) - fitted) / np.linalg.norm(fitted))
    measured = _weighted_l1(path, np.where(np.abs(beta) > 1e-12 * np.abs(beta).max(), beta, 0.0))
    # A point off the constraint by `gap` may undercut the minimum by as much.
    return Evidence(
        f"rank {setting.rank} < d = {problem.d}; the linear programme is solved independently by HiGHS",
        float(answer.fun),
        measured,
        max(abs(measured / float(answer.fun) - 1.0), gap),
        _end_tolerance(setting),
        "relative difference of the weighted l1 norms, or of the fit from X beta = y",
        {"fit_gap": gap},
    )


@theorem("least-squares", PAPER, "d = rank X: the end is the least-squares solution")
def least_squares(setting: Setting) -> Evidence:
    problem = setting.problem
    path = setting.path
    if setting.diagonal.noise is not None:
        raise NotMetError("weight noise: the end is a weighted Lasso instead")
    if setting.rank < problem.d:
        raise NotMetError(f"rank {setting.rank} < d = {problem.d}: least-squares solutions are not unique")
    target = setting.least_squares
    upper, lower = (np.broadcast_to(side, target.shape) for side in path.thresholds)
    locked = ((target > 0) & np.isinf(upper)) | ((target < 0) & np.isinf(lower))
    if locked.any():
        raise NotMetError(
            f"this start locks the sign of {problem.feature_names[int(np.argmax(locked))]!r} to the wrong side"
        )
    beta = setting.flows[1].beta[-1]
    error = float(np.abs(beta - target).max() / np.abs(target).max())
    return Evidence(
        f"X has full column rank {problem.d}", float(np.abs(target).max()), float(np.abs(beta).max()), error,
        _end_tolerance(setting), "largest difference of a coordinate, relative to the largest (shown)",
        {"predicted": target, "measured": beta},
    )  # fmt: skip


@theorem(
    "arclength-continuity", PAPER, "in arc length the flow tends to one continuous curve: saddles joined by orbits"
)
def arclength_continuity(setting: Setting) -> Evidence:
    path = setting.path
    _resolved_jumps(setting)
    lags = np.abs(setting.once(_jumps_of_both)[1] - path.jump_times)
    if not np.isfinite(lags).all():
        raise NotMetError(f"alpha = {setting.scales[0]} is too large for these data: some jumps run into one another")
    distances, largest, tau = [], [], np.zeros(1)
    for flow in setting.flows:
        tau, beta = _by_chords(flow)
        distances.append(float(np.abs(beta - path.curve(tau)).max()))
        moments = np.linspace(0.0, setting.horizon, _SAMPLES)
        largest.append(float(np.abs(np.diff(flow.at(moments, clock="accelerated").beta, axis=0)).max()))
    size = float(np.abs(path.saddles).max())
    first, second = (distance / size for distance in distances)
    # Lags are O(x), the approach to a saddle O(x ln 1/x); below the floor nothing is left to shrink.
    ratio = second / first if second > _TWO_LAYER else 0.0
    return Evidence(
        _hypothesis(setting),
        "distance halves with x (to a logarithm)",
        f"{first:.1e}, then {second:.1e}",
        max(ratio / _SHRINKS, second),
        1.0,
        f"ratio of the distances to the limit curve at x and x/2, over {_SHRINKS}",
        {"distances": distances, "largest_step_in_time": largest, "length": float(tau[-1]), "lags": lags},
    )


def _by_chords(flow: Trajectory) -> tuple[Array, Array]:
    """Arc length measured with a ruler: accelerated time plus the chords of beta, and beta there."""
    edges = flow.accelerated_time
    share = np.arange(_CHORDS) / _CHORDS
    moments = np.append((edges[:-1, None] + np.diff(edges)[:, None] * share).ravel(), edges[-1])
    beta = flow.at(moments, clock="accelerated").beta
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(beta, axis=0), axis=1))])
    return moments + length, beta


@theorem("orthogonal-design", PAPER, "X^T X / n diagonal: coordinate i jumps at 1/|c_i| to its final value")
def orthogonal_design(setting: Setting) -> Evidence:
    problem, net = setting.problem, setting.diagonal
    gram = setting.X.T @ setting.X / problem.n
    off = float(np.abs(gram - np.diag(np.diag(gram))).max() / np.abs(gram).max())
    if off > 1e-10:
        raise NotMetError(f"X^T X / n is not diagonal: its largest entry off the diagonal is {off:.1e} of the largest")
    if setting.product_depth != 2 or net.noise is not None or setting.start is not None:
        raise NotMetError("stated for u*v from the default start, without noise")
    jumps, first, second = _measured_jumps(setting)
    c = setting.correlation
    moving = np.abs(c) > 1e-12 * np.abs(c).max()
    predicted = np.sort(1.0 / np.abs(c[moving]))
    if len(predicted) != len(setting.path.jump_times):
        raise NotMetError("two coordinates are tied: they jump together")
    measured = 2 * second - first
    times = np.abs(measured / predicted[jumps] - 1).max()
    values = np.abs(setting.flows[1].beta[-1][moving] / (c / np.diag(gram))[moving] - 1).max()
    return Evidence(
        "X^T X / n is diagonal", f"{len(jumps)} jumps at 1/|c_i|", f"within {times:.1e}", float(max(times, values)),
        _TWO_LAYER, "largest relative error of a jump time or a final value",
        {"predicted": predicted[jumps], "measured": measured},
    )  # fmt: skip


@theorem("lasso-average", BERTHIER, "u*v: until the first deactivation the time average of beta is the Lasso at 1/t")
def lasso_average(setting: Setting) -> Evidence:
    path, problem = setting.path, setting.problem
    upper, lower = path.thresholds
    if path.order != 2 or np.ptp(np.concatenate([np.atleast_1d(upper), np.atleast_1d(lower)])) > 0:
        raise NotMetError("stated for two-layer networks with one growth threshold")
    if setting.diagonal.noise is not None:
        raise NotMetError("stated without weight noise")
    leaving = [event.time for event in path.events if event.kind == "deactivated"]
    last = leaving[0] if leaving else setting.horizon
    _resolved_plateaus(setting)
    threshold = float(np.atleast_1d(upper)[0])
    # Middles of the plateaus before the first deactivation; the first plateau, at 0, says nothing.
    times = setting.middles[1:][setting.middles[1:] < last]
    if not len(times):
        raise NotMetError("the first deactivation comes before the first full plateau")
    averages = [np.array([_average(flow, time) for time in times]) for flow in setting.flows]
    average = 2 * averages[1] - averages[0]
    worst = 0.0
    for time, beta in zip(times, average, strict=True):
        penalty = threshold / time
        g = problem.gradient(beta)
        active = np.abs(beta) > _ZERO * np.abs(beta).max(initial=0.0)
        slack = np.where(active, np.abs(g + penalty * np.sign(beta)), np.maximum(np.abs(g) - penalty, 0.0))
        worst = max(worst, float(slack.max() / np.abs(setting.correlation).max()))
    return Evidence(
        f"{len(times)} plateaus before " + (f"the first deactivation at {last:.6g}" if leaving else "the end"),
        "KKT conditions of the Lasso at 1/t", f"off by {worst:.1e}", worst, 1e-3,
        "largest violation of the Lasso's optimality conditions, relative to max |X^T y| / n",
        {"times": times, "first_deactivation": leaving[0] if leaving else None},
    )  # fmt: skip


def _average(flow: Trajectory, time: float) -> Array:
    """``1/t int_0^t beta`` in accelerated time, by Gauss-Legendre on the steps the integrator took."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    edges = np.append(flow.accelerated_time[flow.accelerated_time < time], time)
    half = np.diff(edges) / 2
    points = (edges[:-1] + half)[:, None] + half[:, None] * nodes
    beta = flow.at(points.ravel(), clock="accelerated").beta
    total: Array = ((half[:, None] * weights).ravel() @ beta) / time
    return total


@theorem("conserved-imbalance", PAPER, "without noise w_1^2 - w_l^2 is conserved (run in the weights themselves)")
def conserved_imbalance(setting: Setting) -> Evidence:
    depth = setting.product_depth
    if setting.diagonal.noise is not None:
        raise NotMetError("weight noise: the imbalance decays instead")
    # An uneven start: the default one of depth L >= 3 is balanced, and 0 is conserved trivially.
    d, names = setting.problem.d, setting.diagonal.weights
    start = {name: np.full(d, 1.0 - 0.5 * k / depth) for k, name in enumerate(names)}
    rate = float(np.linalg.norm(setting.X, 2) ** 2 / setting.problem.n)
    scale = float(np.abs(setting.least_squares).max()) or 1.0
    t_end = 5.0 / (rate * scale ** (2.0 - 2.0 / depth))
    flow = setting.run(
        t_end, alpha=setting.large_alpha, start=start, coordinates="weights", method="DOP853", rtol=1e-10, atol=1e-14
    )
    w = np.array([flow.weights[name] for name in names])
    gap = w[0] ** 2 - w[1:] ** 2
    moved = float(np.abs(w[:, -1] - w[:, 0]).max() / np.abs(w[:, 0]).max())
    drift = float(np.abs(gap - gap[:, :1]).max() / np.abs(gap[:, 0]).max())
    return Evidence(
        f"no noise; measured while the weights move by {moved:.2g} of themselves", 0.0, drift, drift, 1e-6,
        "largest change of w_1^2 - w_l^2, relative to its size", {"t_end": t_end},
    )  # fmt: skip


@theorem("implicit-bias-at-finite-alpha", PAPER, "u*v: the end has asinh(beta / alpha^2) in the row space of X")
def entropy_bias(setting: Setting) -> Evidence:
    problem = setting.problem
    if setting.product_depth != 2 or setting.diagonal.noise is not None or setting.start is not None:
        raise NotMetError("stated for u*v from the default start, without noise")
    if setting.rank == problem.d:
        raise NotMetError(f"X has full column rank {problem.d}: there is one solution, whatever the bias")
    if setting.rank < problem.n and float(problem.least_squares_loss) > 1e-12 * float(
        problem.loss(np.zeros(problem.d))
    ):
        raise NotMetError("no interpolator exists: y is not in the range of X")
    alpha = setting.large_alpha
    values = np.linalg.svd(setting.X, compute_uv=False)
    slow = float(values[: setting.rank].min() ** 2 / problem.n)
    flow = setting.run(40.0 / (slow * alpha**2), alpha=alpha, coordinates="weights", rtol=1e-10, atol=1e-13)
    beta = flow.beta[-1]
    fit = float(np.linalg.norm(problem.predict(beta) - problem.y) / np.linalg.norm(problem.y))
    z = np.arcsinh(beta / alpha**2)
    rows = np.linalg.svd(setting.X, full_matrices=False)[2][: setting.rank]
    outside = float(np.linalg.norm(z - rows.T @ (rows @ z)) / np.linalg.norm(z))
    return Evidence(
        f"rank {setting.rank} < d = {problem.d}; integrated in the weights at alpha = {alpha:.3g}", 0.0, outside,
        max(outside, fit), 1e-5, "share of asinh(beta / alpha^2) outside the row space, or misfit of X beta = y",
        {"misfit": fit, "alpha": alpha},
    )  # fmt: skip
