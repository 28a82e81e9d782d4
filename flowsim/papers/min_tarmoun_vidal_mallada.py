"""Min, Tarmoun, Vidal & Mallada, arXiv 2105.06351: two-layer linear networks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray

from flowsim.arrays import Array
from flowsim.certificates import certify
from flowsim.flows import gradient_flow
from flowsim.network import LinearNetwork, linear_start
from flowsim.papers.experiment import COLORS, Check, Findings, experiment
from flowsim.problem import Regression

PAPER = "Min, Tarmoun, Vidal & Mallada, arXiv 2105.06351"


def _problem(n: int, d: int, m: int, seed: int) -> Regression:
    rng = np.random.default_rng(seed)
    return Regression(rng.standard_normal((n, d)), rng.standard_normal((n, m)))


def _excess(problem: Regression, beta: Array) -> Array:
    """``L - min L`` without cancellation."""
    solution = np.linalg.lstsq(problem.X, problem.y, rcond=None)[0]
    return np.sum((problem.X @ (beta - solution)) ** 2, axis=(-2, -1)) / (2 * problem.n)


@experiment("rate-against-bound", PAPER, "The loss against the exponential bound from imbalance and margin")
def rate_against_bound() -> Findings:
    problem = _problem(12, 5, 2, 3)
    width, cases = 40, {}
    net = LinearNetwork(width)
    for kind, alpha in (("gaussian", 1.0), ("unbalanced", 0.6), ("unbalanced", 1.2)):
        cases[f"{kind}, scale {alpha}"] = (linear_start(net, problem, kind, ratio=12.0, seed=1), alpha)  # type: ignore[arg-type]
    figure, ax = plt.subplots(figsize=(6.4, 4.0))
    checks, data = [], {}
    for j, (label, (start, alpha)) in enumerate(cases.items()):
        row = certify(net, problem, alpha=alpha, start=start, theorems="linear-rate")[0]
        rate = float(row.predicted)  # type: ignore[arg-type]
        t_end = 12.0 / rate
        flow = gradient_flow(net, problem, t_end, alpha=alpha, start=start, rtol=1e-10)
        times = np.linspace(0.0, t_end, 400)
        gap = _excess(problem, flow.at(times).beta)
        ax.plot(times, gap / gap[0], color=COLORS[j], ls="-", label=label)
        ax.plot(times, np.exp(-rate * times), color=COLORS[j], ls=":", lw=1.0)
        data[f"case{j}"] = ("point", gap / gap[0])
        seen = gap > 1e-20 * gap[0]
        checks.append(
            Check(
                f"{label}: largest loss over bound",
                1.0 + 1e-6,
                (gap / gap[0] / np.exp(-rate * times))[seen].max(),
                kind="at most",
            )
        )
        checks.append(Check(f"{label}: bound is not void", 0.0, rate, kind="at least"))
    ax.set_yscale("log")
    ax.set_ylim(1e-9, 2)
    ax.set_xlim(0, None)
    ax.set_xlabel("time $t$")
    ax.set_ylabel(r"$(L(t) - L^*) \,/\, (L(0) - L^*)$; dotted: bound")
    ax.legend()
    return Findings(
        {"": figure},
        xarray.Dataset(data),
        {"n": 12, "D": 5, "m": 2, "width": width, "seed": 3, "cases": list(cases)},
        checks,
    )


@experiment("width-law", PAPER, "Wide networks end near the minimum-norm solution: distance against width")
def width_law() -> Findings:
    problem = _problem(8, 12, 3, 0)
    target = np.linalg.pinv(problem.X) @ problem.y
    widths, exponents, seeds = np.array([100, 400, 1600, 6400, 25_600]), (0.3, 0.4, 0.5), 6
    distances = np.zeros((len(exponents), len(widths), seeds))
    for a, exponent in enumerate(exponents):
        for w, width in enumerate(widths):
            net = LinearNetwork(int(width))
            for seed in range(seeds):
                start = linear_start(net, problem, exponent=exponent, seed=seed)
                flow = gradient_flow(net, problem, 400.0, alpha=1.0, start=start, rtol=1e-8)
                distances[a, w, seed] = np.linalg.norm(flow.beta[-1] - target)
    size = np.sqrt((distances**2).mean(axis=2))
    figure, ax = plt.subplots(figsize=(6.0, 4.0))
    checks = []
    for a, exponent in enumerate(exponents):
        slope, offset = np.polyfit(np.log(widths), np.log(size[a]), 1)
        ax.plot(widths, distances[a], color=COLORS[a], marker=".", ms=3, ls="", alpha=0.5)
        ax.plot(widths, size[a], color=COLORS[a], marker="o", ms=5, ls="")
        label = rf"$a$ = {exponent}: slope {slope:.3f}, theory {0.5 - 2 * exponent:.1f}"
        ax.plot(widths, np.exp(offset) * widths**slope, color=COLORS[a], label=label)
        checks.append(Check(f"slope at a = {exponent}", 0.5 - 2 * exponent, slope, 0.05 / abs(0.5 - 2 * exponent)))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("width $h$")
    ax.set_ylabel(r"$\|U V^\top(\infty) - \hat\Theta\|_F$")
    ax.legend()
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"distance": (("exponent", "width", "seed"), distances)},
            coords={"exponent": list(exponents), "width": widths},
        ),
        {"n": 8, "D": 12, "m": 3, "seed": 0, "t_end": 400.0, "exponents": exponents, "widths": widths, "seeds": seeds},
        checks,
    )


@experiment("invariant-set", PAPER, "From the invariant set to the minimum-norm solution")
def invariant_set() -> Findings:
    problem = _problem(6, 10, 2, 7)
    target = np.linalg.pinv(problem.X) @ problem.y
    net = LinearNetwork(60)
    times = np.concatenate([[0.0], np.geomspace(1e-2, 300.0, 300)])
    figure, ax = plt.subplots(figsize=(6.0, 3.8))
    curves = []
    for j, kind in enumerate(("invariant", "gaussian", "unbalanced")):
        start = linear_start(net, problem, kind, seed=2)  # type: ignore[arg-type]
        flow = gradient_flow(net, problem, 300.0, alpha=1.0, start=start, t_eval=times, rtol=1e-10)
        curves.append(np.linalg.norm(flow.beta - target, axis=(1, 2)) / np.linalg.norm(target))
        ax.plot(times, np.maximum(curves[-1], 1e-16), color=COLORS[j], label=kind)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(1e-2, 300.0)
    ax.set_xlabel("time $t$")
    ax.set_ylabel("distance to the minimum-norm solution, relative")
    ax.legend(title="start")
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"distance": (("start", "time"), np.array(curves))},
            coords={"start": ["invariant", "gaussian", "unbalanced"], "time": times},
        ),
        {"n": 6, "D": 10, "m": 2, "width": 60, "seed": 7},
        [
            Check("end of the run from the invariant set", 0.0, curves[0][-1], 1e-8),
            Check("other starts end elsewhere", 1e-3, min(curves[1][-1], curves[2][-1]), kind="at least"),
        ],
    )
