"""Follow-ups: deep networks from perturbed starts, step size and stochasticity."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray
from scipy.integrate import quad

from flowsim.datasets import sparse_regression
from flowsim.descent import gradient_descent
from flowsim.flows import gradient_flow, modified_flow
from flowsim.limits import saddle_to_saddle
from flowsim.network import DiagonalNetwork
from flowsim.papers.experiment import COLORS, Check, Findings, experiment
from flowsim.problem import Regression
from flowsim.studies import compare, measured_jump_times, min_l1

DEEP = "arXiv 2607.12332"
STEPS = "Even, Pesme, Gunasekar & Flammarion, arXiv 2302.08982"


@experiment("deep-starts", DEEP, "Depth 3 from perturbed starts: each start has its own jump times")
def deep_starts() -> Findings:
    net = DiagonalNetwork(depth=3)
    problem = Regression(np.sqrt(2.0) * np.eye(2), np.sqrt(2.0) * np.array([1.0, -0.8]))
    starts = {
        "balanced": np.array([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0]]),
        "perturbed": np.array([[1.3, 1.2], [1.0, 0.9], [0.6, -0.5]]),
        "wrong sign": np.array([[1.4, 1.5], [1.0, 1.1], [-0.3, 0.2]]),
    }
    alphas = (1e-2, 1e-3, 1e-4)
    figure, axes = plt.subplots(1, 3, figsize=(10.0, 3.4), sharey=True)
    checks, data = [], {}
    for ax, (label, values) in zip(axes, starts.items(), strict=True):
        start = dict(zip(net.weights, values, strict=True))
        path = saddle_to_saddle(net, problem, start)
        horizon = 1.3 * float(path.jump_times[-1])
        times = np.linspace(0.0, horizon, 1500)
        gaps = []
        for j, alpha in enumerate(alphas):
            flow = gradient_flow(net, problem, horizon, alpha=alpha, start=start, clock="accelerated", rtol=1e-8)
            beta = flow.at(times, clock="accelerated").beta
            ax.plot(times, beta, color=COLORS[j], lw=1.2)
            data[f"{label}-{alpha}".replace(" ", "-")] = (("point", "feature"), beta)
            gaps.append(np.abs(measured_jump_times(flow, path) - path.jump_times))
        for t in path.jump_times:
            ax.axvline(t, color="0.45", lw=0.8, ls=":")
        ax.set_title(label)
        ax.set_xlabel(r"accelerated time $\tilde t = t\,\alpha$")
        ax.set_xlim(0, horizon)
        # Thresholds by 20-digit quadrature, the waits they imply on two uncoupled features.
        waits = []
        for i, slope in enumerate((1.0, -0.8)):
            w = values[:, i]
            low = int(np.argmin(np.abs(w)))
            others = np.delete(w, low)
            c = np.sign(np.prod(others)) * w[low]
            mu2 = np.maximum(others**2 - w[low] ** 2, 0.0)
            integral = quad(
                lambda x, m=mu2: 1 / np.sqrt((x * x + m[0]) * (x * x + m[1])),
                np.sign(slope) * c,
                np.inf,
                epsabs=1e-13,
                epsrel=1e-12,
            )[0]
            waits.append(integral / abs(slope))
        checks.append(
            Check(
                f"{label}: jump times of the process against quadrature",
                0.0,
                np.abs(np.sort(waits) / path.jump_times - 1).max(),
                1e-8,
            )
        )
        order = float(np.median(np.log10(np.maximum(gaps[1], 1e-12) / np.maximum(gaps[2], 1e-12))))
        checks.append(Check(f"{label}: order of the jump-time error in alpha", 1.0, order, 0.1))
    axes[0].set_ylabel(r"coordinates $\beta_i$")
    for j, alpha in enumerate(alphas):
        axes[0].plot([], [], color=COLORS[j], label=rf"$\alpha$ = {alpha:g}")
    axes[0].legend(loc="upper left")
    return Findings(
        {"": figure}, xarray.Dataset(data), {"depth": 3, "c": [1.0, -0.8], "alphas": alphas, "starts": starts}, checks
    )


@experiment("step-size", STEPS, "Steps and mini-batches change the bias through the imbalance")
def step_size() -> Findings:
    problem = sparse_regression(20, 40, 3, seed=2)
    net, alpha, seeds = DiagonalNetwork("u*v"), 0.1, 4
    top = float(np.linalg.eigvalsh(problem.X.T @ problem.X / problem.n)[-1])
    steps = np.geomspace(0.01, 0.16, 7) / top * 2
    least = float(min_l1(problem).value)
    norms: dict[str, list[float]] = {"gradient descent": [], "one row a step": []}
    drifts, gains = [], []
    for step in steps:
        count = int(60.0 / step)
        full = gradient_descent(net, problem, float(step), count, alpha=alpha, record_every=count)
        drifts.append(full.imbalance_drift)
        norms["gradient descent"].append(float(np.abs(full.beta[-1]).sum()))
        batches = [
            gradient_descent(
                net, problem, float(step), 4 * count, alpha=alpha, batch_size=1, seed=s, record_every=4 * count
            )
            for s in range(seeds)
        ]
        norms["one row a step"].append(float(np.mean([np.abs(run.beta[-1]).sum() for run in batches])))
        gains.append(float(np.mean([(run.log_imbalance[0] - run.log_imbalance[-1]).mean() for run in batches])))
        drifts += [run.imbalance_drift for run in batches]
    flow = gradient_flow(net, problem, 60.0, alpha=alpha, rtol=1e-9)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.6))
    left.axhline(float(np.abs(flow.beta[-1]).sum()), color="0.5", lw=1.2, ls="-", label="gradient flow")
    left.axhline(least, color="#000000", lw=0.9, ls=":", label="least possible")
    for j, (label, values) in enumerate(norms.items()):
        left.plot(steps, values, color=COLORS[j], marker="o", ms=4, label=label)
    left.set_ylabel(r"$\|\beta\|_1$ at the end")
    right.plot(steps, gains, color=COLORS[1], marker="o", ms=4, label="one row a step")
    right.set_ylabel(r"mean of $-\ln$ (imbalance left)")
    right.set_yscale("log")
    right.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xticks(steps[::2], [f"{h:.2g}" for h in steps[::2]])
        ax.minorticks_off()
        ax.set_xlabel("step size $h$")
        ax.legend()
    slope = float(np.polyfit(np.log(steps), np.log(gains), 1)[0])
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"norm": (("method", "step"), np.array(list(norms.values()))), "gain": ("step", gains)},
            coords={"method": list(norms), "step": steps},
        ),
        {"n": 20, "d": 40, "sparsity": 3, "seed": 2, "alpha": alpha, "seeds": seeds, "time": 60.0},
        [
            Check(
                "imbalance obeys (1 - h^2 g^2) along every run (relative departure)", 1e-8, max(drifts), kind="at most"
            ),
            Check(
                "smallest step: gradient descent ends where the flow does",
                np.abs(flow.beta[-1]).sum(),
                norms["gradient descent"][0],
                0.02,
            ),
            Check(
                "largest step: mini-batches end at a smaller l1 norm than the flow by",
                1e-3,
                float(np.abs(flow.beta[-1]).sum()) - norms["one row a step"][-1],
                kind="at least",
            ),
            Check("what mini-batches take off the imbalance grows with h, order at least", 0.8, slope, kind="at least"),
        ],
    )


@experiment("step-to-flow", STEPS, "Descent follows the flow to order 1, the modified flow to order 2")
def step_to_flow() -> Findings:
    from flowsim import plot

    problem = sparse_regression(15, 8, 3, noise=0.1, seed=4)
    net, alpha, t_end = DiagonalNetwork("u*v"), 0.2, 6.0
    steps = [0.04, 0.02, 0.01, 0.005, 0.0025]
    flow = gradient_flow(net, problem, t_end, alpha=alpha, rtol=1e-10)
    runs = [gradient_descent(net, problem, h, round(t_end / h), alpha=alpha) for h in steps]
    comparison = compare(flow, runs)
    modified = compare([modified_flow(net, problem, h, t_end, alpha=alpha, rtol=1e-10) for h in steps], runs)
    figure, ax = plt.subplots(figsize=(5.6, 3.8))
    plot.orders(comparison, modified, ax=ax)
    return Findings(
        {"": figure},
        xarray.Dataset(
            {
                "largest": ("step", [item.largest for item in comparison]),
                "hausdorff": ("step", [item.hausdorff for item in comparison]),
            },
            coords={"step": [item.step for item in comparison]},
        ),
        {"n": 15, "d": 8, "sparsity": 3, "noise": 0.1, "seed": 4, "alpha": alpha, "t_end": t_end, "steps": steps},
        [
            Check("order of the distance to the gradient flow", 1.0, comparison.order, 0.1),
            Check("order of the distance to the modified flow", 2.0, modified.order, 0.05),
        ],
    )
