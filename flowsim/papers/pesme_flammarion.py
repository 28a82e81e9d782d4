"""Pesme & Flammarion, arXiv 2304.00488: saddle-to-saddle dynamics."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray

from flowsim.datasets import diabetes, sparse_regression
from flowsim.flows import gradient_flow
from flowsim.limits import saddle_to_saddle
from flowsim.network import DiagonalNetwork
from flowsim.papers.experiment import Check, Findings, experiment
from flowsim.plot import animate, phase
from flowsim.plot.labels import label_ends
from flowsim.plot.style import PREDICTED, colours
from flowsim.problem import Regression
from flowsim.studies import lasso_link as study_lasso_link
from flowsim.studies import limit_study, measured_jump_times, min_l1, plateau_times

PAPER = "Pesme & Flammarion, arXiv 2304.00488"
UV = DiagonalNetwork("u*v")
ALPHAS = ("1e-2", "1e-8", "1e-60", "1e-1000")
COLORS = ("#56B4E9", "#E69F00", "#D55E00", "#0072B2")


def _problem() -> Regression:
    """Overparametrised data with a sparse truth and label noise."""
    return sparse_regression(20, 50, 4, noise=0.3, seed=3)


@experiment("loss-staircase", PAPER, "The loss becomes a staircase as alpha falls")
def loss_staircase() -> Findings:
    problem = _problem()
    path = saddle_to_saddle(UV, problem)
    horizon = 1.15 * float(path.jump_times[-1])
    times = np.geomspace(path.jump_times[0] / 2, horizon, 3000)
    flows = [gradient_flow(UV, problem, horizon, alpha=a, clock="accelerated", rtol=1e-8) for a in ALPHAS]
    losses = np.array([flow.at(times, clock="accelerated").loss for flow in flows])
    limit = problem.loss(path.beta(times))
    figure, ax = plt.subplots(figsize=(6.4, 3.8))
    for alpha, loss, color in zip(ALPHAS, losses, COLORS, strict=True):
        ax.plot(times, loss, color=color, lw=1.2, label=rf"$\alpha$ = {alpha}")
    ax.plot(times, limit, label="limit", **PREDICTED)
    ax.set_xlabel(r"accelerated time $\tilde t = t / \ln(1/\alpha)$")
    ax.set_ylabel(r"training loss $L(\beta)$")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(times[0], horizon)
    ax.set_ylim(1e-5, 3 * losses.max())
    ax.legend()
    distance = np.abs(losses - limit).mean(axis=1)
    jumps = [measured_jump_times(flow, path) for flow in flows[2:]]
    seen = np.isfinite(jumps[1]) & np.isfinite(jumps[0])
    gammas = [60.0, 1000.0]
    extrapolated = (gammas[1] * jumps[1] - gammas[0] * jumps[0]) / (gammas[1] - gammas[0])
    error = np.abs(extrapolated / path.jump_times - 1)[seen]
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"loss": (("alpha", "time"), losses), "limit": ("time", limit), "jump_times": ("jump", path.jump_times)},
            coords={"alpha": list(ALPHAS), "time": times},
        ),
        {"n": 20, "d": 50, "sparsity": 4, "label_noise": 0.3, "seed": 3, "alphas": ALPHAS, "rtol": 1e-8},
        [
            Check(
                "mean distance of the loss to the staircase falls with alpha (largest ratio of neighbours)",
                0.9,
                (distance[1:] / distance[:-1]).max(),
                kind="at most",
            ),
            Check(
                "jump times extrapolated to alpha = 0 equal the process (median relative error)",
                0.0,
                np.median(error),
                1e-3,
            ),
            Check(
                "l1 norm of the end at alpha = 1e-1000 against the linear programme",
                min_l1(problem).value,
                np.abs(flows[-1].beta[-1]).sum(),
                1e-2,
            ),
        ],
    )


@experiment("coordinates", PAPER, "Coordinates over accelerated time approach the limit process")
def coordinates() -> Findings:
    problem = _problem()
    path = saddle_to_saddle(UV, problem)
    horizon = 1.15 * float(path.jump_times[-1])
    times = np.geomspace(path.jump_times[0] / 2, horizon, 2500)
    middles = plateau_times(path, horizon)
    shown = ("1e-3", "1e-30", "1e-1000")
    figure, axes = plt.subplots(1, 3, figsize=(10.0, 3.4), sharey=True)
    limit = path.beta(times)
    named = np.argsort(-np.abs(limit).max(axis=0))[:7]
    palette = colours(len(named))
    curves, distances = [], []
    for ax, alpha in zip(axes, shown, strict=True):
        flow = gradient_flow(UV, problem, horizon, alpha=alpha, clock="accelerated", rtol=1e-8)
        beta = flow.at(times, clock="accelerated").beta
        curves.append(beta)
        distances.append(np.median(np.abs(flow.at(middles, clock="accelerated").beta - path.saddles).max(axis=1)))
        ax.plot(times, np.delete(beta, named, axis=1), color="0.85", lw=0.6, ls="-")
        for k, i in enumerate(named):
            ax.plot(times, limit[:, i], **PREDICTED)
            ax.plot(times, beta[:, i], color=palette[k], lw=1.3)
        ax.set_title(rf"$\alpha$ = {alpha}")
        ax.set_xlabel(r"accelerated time $\tilde t$")
        ax.set_xscale("log")
        ax.set_xlim(times[0], horizon)
    axes[0].set_ylabel(r"coordinates $\beta_i$ (dotted: limit)")
    names = [problem.feature_names[i] for i in named]
    label_ends(axes[-1], (times[0], horizon), curves[-1][-1, named], names, palette)
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"beta": (("alpha", "time", "feature"), np.array(curves)), "limit": (("time", "feature"), limit)},
            coords={"alpha": list(shown), "time": times},
        ),
        {"n": 20, "d": 50, "sparsity": 4, "label_noise": 0.3, "seed": 3, "alphas": shown, "rtol": 1e-8},
        [
            Check(
                "median distance at mid-plateaus falls with alpha (largest ratio of neighbours)",
                0.5,
                max(distances[1] / distances[0], distances[2] / distances[1]),
                kind="at most",
            ),
            Check("median distance at mid-plateaus, alpha = 1e-1000", 1e-3, distances[2], kind="at most"),
        ],
    )


def _in_space() -> Regression:
    """Three correlated features, of which one is deactivated."""
    X = np.array([[1.0, 0.6, 0.75], [0.0, 0.8, 0.35], [0.0, 0.0, 0.56]])
    return Regression(X * np.sqrt(3.0), np.sqrt(3.0) * X @ np.array([1.2, 0.9, -0.35]))


@experiment("path-3d", PAPER, "The path between saddles in space, for two scales, and as an animation")
def path_in_space() -> Findings:
    problem = _in_space()
    path = saddle_to_saddle(UV, problem)
    horizon = 1.3 * float(path.jump_times[-1])
    flows = {a: gradient_flow(UV, problem, horizon, alpha=a, clock="accelerated", rtol=1e-8) for a in ("1e-2", "1e-40")}
    figure = plt.figure(figsize=(9.6, 4.6))
    for place, flow in enumerate(flows.values(), start=1):
        ax = figure.add_subplot(1, 2, place, projection="3d")
        phase(flow, [0, 1, 2], path=path, ax=ax)
        ax.view_init(24, -58)
        ax.set_box_aspect(None, zoom=0.8)
    movie_axes = plt.figure(figsize=(5.0, 4.6)).add_subplot(projection="3d")
    movie_axes.view_init(24, -58)
    movie_axes.set_box_aspect(None, zoom=0.8)
    movie = animate(flows["1e-40"], [0, 1, 2], path=path, ax=movie_axes, frames=50)
    lengths = np.linspace(0.0, float(path.arclength(horizon)), 4000)
    curve = path.curve(lengths)
    gaps = []
    for flow in flows.values():
        beta = flow.at(np.linspace(0.0, float(flow.arclength[-1]), 1500), clock="arclength").beta
        gaps.append(float(np.sqrt(((beta[:, None] - curve[None]) ** 2).sum(axis=-1)).min(axis=1).max()))
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"curve": (("arclength", "feature"), curve), "saddles": (("saddle", "feature"), path.saddles)},
            coords={"arclength": lengths},
        ),
        {"X": problem.X, "y": problem.y, "alphas": list(flows)},
        [
            Check("largest distance of the flow at alpha = 1e-40 to the limit curve", 0.02, gaps[1], kind="at most"),
            Check(
                "the path at alpha = 1e-2 is farther away, by at least a factor",
                3.0,
                gaps[0] / gaps[1],
                kind="at least",
            ),
            Check("the path ends at the least-squares solution", 0.0, np.abs(path.end - [1.2, 0.9, -0.35]).max(), 1e-9),
        ],
        {"movie": movie},
    )


@experiment("four-features", "arXiv 2607.12332 (thresholds), Section on deactivation", "A coordinate that leaves again")
def four_features() -> Findings:
    problem = Regression([[1.0, 0.5, 0.7, 0.0], [0.5, 1.0, 0.1, 0.7]], [1.0, 0.0])
    path = saddle_to_saddle(UV, problem, exact=True)
    horizon, alphas = 14.0, ["1e-500", "1e-1000"]
    times = np.linspace(0.0, horizon, 2500)
    flows = [gradient_flow(UV, problem, horizon, alpha=a, clock="accelerated", rtol=1e-8) for a in alphas]
    beta = flows[1].at(times, clock="accelerated").beta
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.5))
    for i in range(4):
        left.plot(times, beta[:, i], color=f"C{i}", ls="-", label=rf"$\beta_{i + 1}$")
        right.plot(times, path.dual(times)[:, i], color=f"C{i}", ls="-")
    for t in path.jump_times:
        left.axvline(t, color="0.5", lw=0.7, ls=":")
        right.axvline(t, color="0.5", lw=0.7, ls=":")
    right.axhline(1, color="0.5", lw=0.8, ls="-")
    right.axhline(-1, color="0.5", lw=0.8, ls="-")
    left.set_ylabel(r"coordinates at $\alpha = 10^{-1000}$")
    right.set_ylabel(r"growth $s_i$ of the limit, thresholds $\pm 1$")
    for ax in (left, right):
        ax.set_xlabel(r"accelerated time $\tilde t$")
        ax.set_xlim(0, horizon)
    left.legend(loc="upper left")
    measured = 2 * measured_jump_times(flows[1], path) - measured_jump_times(flows[0], path)
    saddles = np.array([[0, 0, 0, 0], [0.8, 0, 0, 0], [0, 0, 1.4, 0], [0, 0, 10 / 7, -10 / 49]])
    expected = np.array([2.0, 8.0, 552 / 49])
    at_plateaus = flows[1].at(plateau_times(path, horizon), clock="accelerated").beta
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"beta": (("time", "feature"), beta), "dual": (("time", "feature"), path.dual(times))},
            coords={"time": times},
        ),
        {"X": problem.X, "y": problem.y, "alphas": alphas},
        [Check(f"jump {k + 1}, extrapolated from the flows", expected[k], measured[k], 1e-5) for k in range(3)]
        + [
            Check("saddles of the process", 0.0, np.abs(path.saddles - saddles).max(), 1e-14),
            Check("flow at mid-plateaus against the saddles", 0.0, np.abs(at_plateaus - saddles).max(), 1e-6),
        ],
    )


@experiment("limit-rates", PAPER, "Flows approach the limit: jump times like 1/ln(1/alpha)")
def limit_rates() -> Findings:
    from flowsim import plot

    problem = diabetes()
    alphas = ["1e-30", "1e-100", "1e-300", "1e-1000", "1e-3000"]
    study = limit_study(UV, problem, alphas, rtol=1e-9)
    figure, ax = plt.subplots(figsize=(6.0, 4.0))
    plot.limit_study(study, ax=ax)
    return Findings(
        {"": figure},
        xarray.Dataset(
            {
                "time_error": ("alpha", study.median_time_error),
                "plateau_error": ("alpha", study.median_plateau_error),
                "end_error": ("alpha", study.end_errors),
            },
            coords={"alpha": alphas},
        ),
        {"data": "diabetes", "alphas": alphas, "rtol": 1e-9},
        [
            Check("order of the jump-time error in 1/ln(1/alpha)", 1.0, study.rate.order, 0.05),
            Check(
                "median distance at mid-plateaus, alpha = 1e-3000", 1e-5, study.median_plateau_error[-1], kind="at most"
            ),
        ],
    )


@experiment("lasso-link", "Berthier, arXiv 2509.18766", "The time average is the Lasso until a coordinate leaves")
def lasso_link() -> Findings:
    from flowsim import plot

    problem = diabetes()
    path = saddle_to_saddle(UV, problem)
    link = study_lasso_link(path)
    figure, ax = plt.subplots(figsize=(6.4, 4.0))
    plot.lasso_link(link, ax=ax)
    leaving = next(event.time for event in path.events if event.kind == "deactivated")
    before = np.geomspace(0.01, 0.999 * leaving, 40)
    c = np.abs(problem.gradient(np.zeros(problem.d))).max()
    worst = 0.0
    for t in before:
        beta = path.time_average(t)
        g = problem.gradient(beta)
        active = np.abs(beta) > 1e-9
        slack = np.where(active, np.abs(g + np.sign(beta) / t), np.maximum(np.abs(g) - 1 / t, 0))
        worst = max(worst, float(slack.max() / c))
    later = path.time_average(2 * leaving)
    g = problem.gradient(later)
    active = np.abs(later) > 1e-9
    after = float(np.where(active, np.abs(g + np.sign(later) / (2 * leaving)), 0).max() / c)
    return Findings(
        {"": figure},
        xarray.Dataset({"average": (("time", "feature"), path.time_average(before))}, coords={"time": before}),
        {"data": "diabetes", "first_deactivation": leaving},
        [
            Check("KKT conditions of the Lasso at 1/t, violation before the first deactivation", 0.0, worst, 1e-10),
            Check("and beyond it they are violated", 1e-6, after, kind="at least"),
        ],
    )
