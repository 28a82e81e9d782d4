"""The end of the flow: least l1 norm, least squares, entropy; and its time average against the Lasso."""

from __future__ import annotations

import numpy as np

from flowsim.arrays import Array, gauss_points
from flowsim.certificates.certificate import Evidence, NotMetError, assume
from flowsim.certificates.registry import theorem
from flowsim.certificates.resolution import BERTHIER, PAPER, ZERO, end_tolerance, resolved_plateaus
from flowsim.certificates.setting import Setting
from flowsim.limits import SaddlePath
from flowsim.problem import Regression
from flowsim.results import Trajectory


def _weighted_l1(path: SaddlePath, beta: Array) -> float:
    upper, lower = (np.broadcast_to(side, beta.shape) for side in path.thresholds)
    positive, negative = np.maximum(beta, 0.0), np.maximum(-beta, 0.0)
    return float(upper[positive > 0] @ positive[positive > 0] + lower[negative > 0] @ negative[negative > 0])


@theorem("min-l1", PAPER, "d > rank X: the end minimises sum t+ beta+ + t- beta- (u*v: the l1 norm)", any_loss=True)
def interpolation(setting: Setting) -> Evidence:
    from flowsim.studies.references import min_l1

    path, problem = setting.path, setting.problem
    assume(setting.diagonal.noise is None, "weight noise: the end is a weighted Lasso instead")
    assume(
        setting.rank < problem.d,
        f"X has full column rank {problem.d}: the minimiser of the loss is the only candidate",
    )
    # Minimisers of a strictly convex loss share their predictions.
    fitted = problem.predict(setting.least_squares)
    weights = tuple(np.broadcast_to(side, (problem.d,)) for side in path.thresholds)
    try:
        least = min_l1(Regression(setting.X, fitted), weights).value
    except ValueError:
        raise NotMetError("no interpolator has the signs that this start allows") from None
    beta = setting.flows[1].beta[-1]
    gap = float(np.linalg.norm(problem.predict(beta) - fitted) / np.linalg.norm(fitted))
    measured = _weighted_l1(path, np.where(np.abs(beta) > 1e-12 * np.abs(beta).max(), beta, 0.0))
    # A point that violates the constraint by `gap` may be below the minimum by as much.
    error = max(abs(measured / least - 1.0), gap)
    return Evidence(
        f"rank {setting.rank} < d = {problem.d}; the linear programme is solved independently by HiGHS",
        predicted=least,
        measured=measured,
        error=error,
        tolerance=end_tolerance(setting, error),
        unit="relative difference of the weighted l1 norms, or of the fit from X beta = y",
        details={"fit_gap": gap},
    )


@theorem("least-squares", PAPER, "d = rank X: the end is the least-squares solution")
def least_squares(setting: Setting) -> Evidence:
    problem = setting.problem
    path = setting.path
    assume(setting.diagonal.noise is None, "weight noise: the end is a weighted Lasso instead")
    assume(setting.rank == problem.d, f"rank {setting.rank} < d = {problem.d}: least-squares solutions are not unique")
    target = setting.least_squares
    upper, lower = (np.broadcast_to(side, target.shape) for side in path.thresholds)
    locked = ((target > 0) & np.isinf(upper)) | ((target < 0) & np.isinf(lower))
    assume(
        not locked.any(),
        f"this start locks the sign of {problem.feature_names[int(np.argmax(locked))]!r} to the wrong side",
    )
    beta = setting.flows[1].beta[-1]
    error = float(np.abs(beta - target).max() / np.abs(target).max())
    return Evidence(
        f"X has full column rank {problem.d}",
        predicted=float(np.abs(target).max()),
        measured=float(np.abs(beta).max()),
        error=error,
        tolerance=end_tolerance(setting, error),
        unit="largest difference of a coordinate, relative to the largest (shown)",
        details={"predicted": target, "measured": beta},
    )


@theorem("lasso-average", BERTHIER, "u*v: until the first deactivation the time average of beta is the Lasso at 1/t")
def lasso_average(setting: Setting) -> Evidence:
    path, problem = setting.path, setting.problem
    upper, lower = path.thresholds
    assume(
        path.order == 2 and np.ptp(np.concatenate([np.atleast_1d(upper), np.atleast_1d(lower)])) == 0,
        "stated for two-layer networks with one growth threshold",
    )
    assume(setting.diagonal.noise is None, "stated without weight noise")
    leaving = [event.time for event in path.events if event.kind == "deactivated"]
    last = leaving[0] if leaving else setting.horizon
    resolved_plateaus(setting)
    threshold = float(np.atleast_1d(upper)[0])
    # Middles of the plateaus before the first deactivation, without the first plateau, at 0.
    times = setting.middles[1:][setting.middles[1:] < last]
    assume(len(times), "the first deactivation comes before the first full plateau")
    averages = [np.array([_average(flow, time) for time in times]) for flow in setting.flows]
    average = 2 * averages[1] - averages[0]
    worst = 0.0
    for time, beta in zip(times, average, strict=True):
        penalty = threshold / time
        g = problem.gradient(beta)
        active = np.abs(beta) > ZERO * np.abs(beta).max(initial=0.0)
        slack = np.where(active, np.abs(g + penalty * np.sign(beta)), np.maximum(np.abs(g) - penalty, 0.0))
        worst = max(worst, float(slack.max() / np.abs(setting.correlation).max()))
    return Evidence(
        f"{len(times)} plateaus before " + (f"the first deactivation at {last:.6g}" if leaving else "the end"),
        predicted="KKT conditions of the Lasso at 1/t",
        error=worst,
        tolerance=1e-3,
        unit="largest violation of the Lasso's optimality conditions, relative to max |X^T y| / n",
        details={"times": times, "first_deactivation": leaving[0] if leaving else None},
    )


def _average(flow: Trajectory, time: float) -> Array:
    """``1/t int_0^t beta`` in accelerated time, by Gauss-Legendre on the steps the integrator took."""
    points, weights = gauss_points(np.append(flow.accelerated_time[flow.accelerated_time < time], time), 4)
    beta = flow.at(points.ravel(), clock="accelerated").beta
    return (weights.ravel() @ beta) / time


@theorem(
    "implicit-bias-at-finite-alpha",
    PAPER,
    "u*v: the end has asinh(beta / alpha^2) in the row space of X",
    any_loss=True,
)
def entropy_bias(setting: Setting) -> Evidence:
    problem = setting.problem
    assume(
        setting.product_depth == 2 and setting.diagonal.noise is None and setting.start is None,
        "stated for u*v from the default start, without noise",
    )
    assume(setting.rank < problem.d, f"X has full column rank {problem.d}: there is one solution, whatever the bias")
    assume(setting.correlation.any(), "grad L(0) = 0: nothing moves")
    alpha, fitted = setting.large_alpha, problem.predict(setting.least_squares)
    values = np.linalg.svd(np.sqrt(problem.curvatures(fitted))[:, None] * setting.X, compute_uv=False)
    slow = float(values[: setting.rank].min() ** 2 / problem.n)
    flow = setting.run(40.0 / (slow * alpha**2), alpha=alpha, coordinates="weights", rtol=1e-10, atol=1e-13)
    beta = flow.beta[-1]
    fit = float(np.linalg.norm(problem.predict(beta) - fitted) / np.linalg.norm(fitted))
    z = np.arcsinh(beta / alpha**2)
    rows = np.linalg.svd(setting.X, full_matrices=False)[2][: setting.rank]
    outside = float(np.linalg.norm(z - rows.T @ (rows @ z)) / np.linalg.norm(z))
    return Evidence(
        f"rank {setting.rank} < d = {problem.d}; integrated in the weights at alpha = {alpha:.3g}",
        predicted=0.0,
        measured=outside,
        error=max(outside, fit),
        tolerance=1e-5,
        unit="share of asinh(beta / alpha^2) outside the row space, or distance of X beta from that of the minimiser",
        details={"misfit": fit, "alpha": alpha},
    )
