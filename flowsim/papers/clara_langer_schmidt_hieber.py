"""Clara, Langer & Schmidt-Hieber, arXiv 2503.11891: weight noise in the expected gradient."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray
from scipy.optimize import brentq

from flowsim.certificates import certify
from flowsim.datasets import diabetes
from flowsim.descent import gradient_descents
from flowsim.flows import gradient_flow
from flowsim.network import DiagonalNetwork, GaussianNoise
from flowsim.papers.experiment import COLORS, Check, Findings, experiment
from flowsim.problem import Regression
from flowsim.studies import weighted_lasso as exact_lasso

PAPER = "Clara, Langer & Schmidt-Hieber, arXiv 2503.11891"


def _largest_root(c: float, eta: float, depth: int) -> float:
    """The stationary beta > 0 of ``beta - c + V'(beta) = 0`` reached from above; 0 if there is none."""

    def value(beta: Any) -> Any:
        return (beta ** (2 / depth) + eta**2) ** (depth - 1) * beta ** (2 / depth - 1) - abs(c)

    grid = np.linspace(1e-9, abs(c) + 1e-9, 20_001)
    falling = np.flatnonzero(value(grid) < 0)
    return float(brentq(value, *grid[falling[-1] : falling[-1] + 2])) if len(falling) else 0.0


@experiment("shrinkage-curve", PAPER, "Shrinkage-thresholding of a coefficient by noise, over eta and depth")
def shrinkage_curve() -> Findings:
    c = np.linspace(0.05, 2.0, 21)
    n = len(c)
    problem = Regression(np.sqrt(n) * np.eye(n), np.sqrt(n) * c)  # orthogonal design: one flow holds all c
    etas, depths = (0.3, 0.5, 0.7), (2, 3, 4)
    ends, predicted = np.zeros((3, 3, n)), np.zeros((3, 3, n))
    for k, depth in enumerate(depths):
        for j, eta in enumerate(etas):
            net = DiagonalNetwork(depth=depth, noise=GaussianNoise(eta))
            if depth == 2:
                flow = gradient_flow(net, problem, 30_000.0, alpha=1e-2, rtol=1e-9)
                ends[k, j] = flow.beta[-1]
                predicted[k, j] = np.maximum(c - eta**2, 0.0)
            else:
                # From above: weights start balanced at the noiseless solution, where the largest root attracts.
                start = dict.fromkeys(net.weights, c ** (1 / depth))
                flow = gradient_flow(
                    net,
                    problem,
                    20.0 / eta ** (2 * (depth - 1)),
                    alpha=1.0,
                    start=start,
                    coordinates="weights",
                    rtol=1e-7,
                    atol=1e-10,
                )
                ends[k, j] = flow.beta[-1]
                predicted[k, j] = [_largest_root(value, eta, depth) for value in c]
    figure, axes = plt.subplots(1, 3, figsize=(10.0, 3.5), sharey=True)
    for k, (ax, depth) in enumerate(zip(axes, depths, strict=True)):
        ax.plot(c, c, color="0.7", lw=0.9, ls="-")
        fine = np.linspace(c[0], c[-1], 300)
        for j, eta in enumerate(etas):
            line = [max(x - eta**2, 0.0) if depth == 2 else _largest_root(x, eta, depth) for x in fine]
            ax.plot(fine, line, color=COLORS[j], label=rf"$\eta$ = {eta}")
            ax.plot(c, ends[k, j], color=COLORS[j], ls="", marker="o", ms=3)
        ax.set_title(f"depth {depth}")
        ax.set_xlabel(r"coefficient without noise, $X^\top y / n$")
    axes[0].set_ylabel(r"end of the flow $\beta_i$ (lines: theory)")
    axes[0].legend(loc="upper left")
    error = np.abs(ends - predicted).max(axis=2)
    # At the fold the largest root is double and the flow converges slowly: the last point before it is left out.
    checks = [
        Check(f"depth 2, eta = {eta}: soft threshold at eta^2", 0.0, error[0, j], 1e-6) for j, eta in enumerate(etas)
    ]
    checks += [
        Check(
            f"depth {depth}, eta = {eta}: stationary point of L + V",
            0.0,
            np.sort(np.abs(ends - predicted)[k, j])[-2],
            1e-3,
        )
        for k, depth in enumerate(depths)
        if depth > 2
        for j, eta in enumerate(etas)
    ]
    floor = [
        ((ends[1, j] > 1e-3) & (c - ends[1, j] < 2 * np.sqrt(2) * eta**3 * (1 - 1e-3))).sum()
        for j, eta in enumerate(etas)
    ]
    checks.append(Check("depth 3: survivors with |g| below 2 sqrt(2) eta^3", 0.0, sum(floor), 0.5))
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"end": (("depth", "eta", "c"), ends), "predicted": (("depth", "eta", "c"), predicted)},
            coords={"depth": list(depths), "eta": list(etas), "c": c},
        ),
        {"design": "orthogonal", "etas": etas, "depths": depths, "start": "1e-2 (depth 2), balanced at c (deeper)"},
        checks,
    )


@experiment("imbalance-decay", PAPER, "Noise balances the layers at a rate independent of the data")
def imbalance_decay() -> Findings:
    rng = np.random.default_rng(1)
    etas = (0.2, 0.4, 0.8)
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.5))
    checks, data = [], {}
    for ax, depth in zip(axes, (2, 3), strict=True):
        names = [f"w{k + 1}" for k in range(depth)]
        for j, eta in enumerate(etas):
            t_end = 3.0 / eta**2
            times = np.linspace(0.0, t_end, 200)
            for draw in range(3):
                X = rng.standard_normal((12, 4))
                X /= np.sqrt((X**2).mean(axis=0))
                problem = Regression(X, X @ rng.standard_normal(4))
                net = DiagonalNetwork(depth=depth, noise=GaussianNoise(eta))
                start = {name: np.full(4, 1.2 - 0.5 * k) for k, name in enumerate(names)}
                flow = gradient_flow(
                    net, problem, t_end, alpha=0.8, start=start, coordinates="weights", rtol=1e-10, atol=1e-13
                )
                w = np.array([flow.at(times).weights[name] for name in names])
                share = (w[0] ** 2 - w[1] ** 2) / (w[0] ** 2 - w[1] ** 2)[0]
                ax.plot(
                    eta**2 * times,
                    share[:, 0],
                    color=COLORS[j],
                    lw=1.1,
                    label=rf"$\eta$ = {eta}" if draw == 0 else None,
                )
                data[f"depth{depth}_eta{eta}_draw{draw}"] = ("point", share[:, 0])
                if depth == 2:
                    law = np.exp(-2 * eta**2 * times)
                    error = float(np.abs(share - law[:, None]).max())
                    text = "the same law"
                else:
                    rate = 2 * eta**2 * (w[2] ** 2 + eta**2)
                    steps = np.diff(times)[:, None] * (rate[1:] + rate[:-1]) / 2
                    exponent = np.concatenate([np.zeros((1, 4)), np.cumsum(steps, axis=0)])
                    error = float(np.abs(share - np.exp(-exponent)).max())
                    text = "exp(-2 eta^2 int (w3^2 + eta^2))"
                tolerance = 1e-6 if depth == 2 else 5e-3  # trapezoids of 200 points
                checks.append(Check(f"depth {depth}, eta = {eta}, data {draw}: {text}", 0.0, error, tolerance))
        ax.set_yscale("log")
        ax.set_title(f"depth {depth}, three data sets each")
        ax.set_xlabel(r"$\eta^2 t$")
    axes[0].plot([0, 3], np.exp([0, -6]), color="0.75", lw=5, ls="-", zorder=0, label=r"$e^{-2 \eta^2 t}$")
    axes[0].set_ylabel(r"$(w_1^2 - w_2^2)(t) \,/\, (w_1^2 - w_2^2)(0)$")
    for ax in axes:
        ax.legend()
    return Findings(
        {"": figure},
        xarray.Dataset(data),
        {"n": 12, "d": 4, "etas": etas, "depths": [2, 3], "draws": 3, "seed": 1, "alpha": 0.8},
        checks,
    )


@experiment("noise-is-lasso", PAPER, "With noise the flow ends on the Lasso path, at any eta (diabetes)")
def noise_is_lasso() -> Findings:
    problem = diabetes()
    penalties = np.geomspace(0.1, 40.0, 15)
    ends, lassos = [], []
    for penalty in penalties:
        net = DiagonalNetwork("u*v", noise=GaussianNoise(float(np.sqrt(penalty))))
        flow = gradient_flow(net, problem, 1e6, alpha="1e-10", rtol=1e-9)
        ends.append(flow.beta[-1])
        lassos.append(exact_lasso(problem, penalty * problem.feature_variances))
    fine = np.geomspace(0.1, 40.0, 150)
    curve = np.array([exact_lasso(problem, value * problem.feature_variances) for value in fine])
    figure, ax = plt.subplots(figsize=(6.8, 4.0))
    for i, name in enumerate(problem.feature_names):
        (line,) = ax.plot(fine, curve[:, i], lw=1.2, label=name)
        ax.plot(penalties, np.array(ends)[:, i], color=line.get_color(), marker="o", ms=3.5, ls="")
    ax.set_xscale("log")
    ax.set_xlabel(r"$\eta^2$, the penalty on $|\beta_i|$")
    ax.set_ylabel("end of the flow (dots), Lasso (lines)")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    error = float(np.abs(np.array(ends) - lassos).max() / np.abs(lassos).max())
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"end": (("penalty", "feature"), np.array(ends)), "lasso": (("penalty", "feature"), np.array(lassos))},
            coords={"penalty": penalties, "feature": list(problem.feature_names)},
        ),
        {"data": "diabetes", "alpha": "1e-10", "penalties": penalties},
        [Check("largest difference of end and Lasso, relative to the largest coefficient", 0.0, error, 1e-6)],
    )


@experiment("sharpness", PAPER, "Average sharpness over factorisations, and where the noisy flow goes")
def sharpness() -> Findings:
    eta, beta = 0.3, 1.0
    net = DiagonalNetwork("u*v", noise=GaussianNoise(eta))
    problem = Regression([[1.0]], [beta + eta**2])  # noise shrinks by eta^2: the flow ends at beta
    logs = np.linspace(-1.6, 1.6, 201)
    u, v = np.exp(logs), np.exp(-logs)
    values = 0.5 * ((u**2 + eta**2) * (v**2 + eta**2) - beta**2)
    figure, ax = plt.subplots(figsize=(6.0, 3.8))
    ax.plot(logs, values, color="0.5", ls="-", label=r"$E\,L(\theta + \xi) - L(\theta)$ at $u v = 1$")
    finals, paths = [], []
    for j, ratio in enumerate((-1.4, -0.7, 0.9, 1.5)):
        start = {"u": np.array([np.exp(ratio)]), "v": np.array([np.exp(-ratio)])}
        flow = gradient_flow(net, problem, 60.0, alpha=1.0, start=start, coordinates="weights", rtol=1e-10, atol=1e-13)
        times = np.concatenate([[0.0], np.geomspace(1e-4, 60.0, 399)])  # it starts a thousand times faster than it ends
        w = flow.at(times).weights
        log_ratio = 0.5 * np.log(np.abs(w["u"] / w["v"]))[:, 0]
        value = 0.5 * ((w["u"] ** 2 + eta**2) * (w["v"] ** 2 + eta**2) - (w["u"] * w["v"]) ** 2)[:, 0]
        ax.plot(log_ratio, value, color=COLORS[j], marker="o", markevery=[0], ms=5)
        finals.append(abs(log_ratio[-1]))
        paths.append(log_ratio)
    ax.plot(0, 0.5 * ((1 + eta**2) ** 2 - 1), color="#000000", marker="*", ms=10, ls="", label="least: |u| = |v|")
    ax.set_xlabel(r"imbalance $\frac{1}{2} \ln |u / v|$")
    ax.set_ylabel("average sharpness (flows: coloured)")
    ax.legend(loc="upper center")
    rows = certify(net, diabetes(), theorems=["least-sharpness", "least-hessian-trace", "sharpness-identity"])
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"sharpness": ("log_ratio", values), "paths": (("run", "point"), np.array(paths))},
            coords={"log_ratio": logs},
        ),
        {"eta": eta, "starts": [-1.4, -0.7, 0.9, 1.5], "t_end": 60.0},
        [Check("flows end balanced (largest |ln|u/v||/2)", 0.0, max(finals), 1e-3)]
        + [
            Check(f"diabetes, {row.name}: error over tolerance", 1.0, row.error / row.tolerance, kind="at most")
            for row in rows
            if row.error is not None and row.tolerance
        ],
    )


@experiment("stochastic-sam", PAPER, "Stochastic SAM follows the expected-gradient flow in the mean")
def stochastic_sam() -> Findings:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((30, 4))
    problem = Regression(X, X @ np.array([1.5, -1.0, 0.4, 0.0]) + 0.1 * rng.standard_normal(30))
    net, step, count, t_end = DiagonalNetwork("u*v", noise=GaussianNoise(0.4)), 5e-3, 200, 12.0
    steps = round(t_end / step)
    runs = gradient_descents(net, problem, step, steps, alpha=0.3, runs=count, seed=5, record_every=20)
    betas, t = runs.beta, runs.t[0]
    flow = gradient_flow(net, problem, t_end, alpha=0.3, rtol=1e-9)
    expected = flow.at(t).beta
    mean = betas.mean(axis=0)
    error = betas.std(axis=0, ddof=1) / np.sqrt(count)
    figure, ax = plt.subplots(figsize=(6.4, 3.8))
    for i in range(4):
        ax.fill_between(t, mean[:, i] - 3 * error[:, i], mean[:, i] + 3 * error[:, i], color=COLORS[i], alpha=0.3, lw=0)
        ax.plot(t, betas[0, :, i], color=COLORS[i], lw=0.4, ls="-")
        ax.plot(t, expected[:, i], color=COLORS[i], ls=":", label=rf"$\beta_{i + 1}$")
    ax.set_xlabel("time $t = h k$")
    ax.set_ylabel("one run (thin), mean ± 3 s.e. (band), flow (dotted)", fontsize=8)
    ax.legend()
    # Fluctuations of the weights bias the mean of a product by O(h), in addition to the standard error.
    gap = float(np.abs(mean - expected).max())
    return Findings(
        {"": figure},
        xarray.Dataset(
            {
                "mean": (("time", "feature"), mean),
                "standard_error": (("time", "feature"), error),
                "flow": (("time", "feature"), expected),
            },
            coords={"time": t},
        ),
        {"n": 30, "d": 4, "eta": 0.4, "step": step, "runs": count, "alpha": 0.3, "seed": 5},
        [
            Check(
                "largest difference of mean and flow: 5 standard errors and 5 h",
                5 * error.max() + 5 * step,
                gap,
                kind="at most",
            )
        ],
    )
