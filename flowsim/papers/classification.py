"""Separable classification: from the kernel to the rich regime as the loss decreases, at any initialisation scale."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray

from flowsim.flows import gradient_flow
from flowsim.limits import saddle_to_saddle
from flowsim.network import DiagonalNetwork
from flowsim.papers.experiment import COLORS, Check, Findings, experiment
from flowsim.problem import Problem
from flowsim.problem.margins import max_margin_l1, max_margin_l2
from flowsim.studies.separation import separation

MOROSHKO = "Moroshko, Gunasekar, Woodworth, Lee, Srebro & Soudry, arXiv 2007.06738"
_LN10 = float(np.log(10.0))


def _ratio(x2: float, alpha: float, digits: float) -> float:
    """beta_2/beta_1 on one sample (1, x2): ``beta_i = alpha^2 sinh(2 x_i nu)``, ``sum x_i beta_i = ln(1/L)``."""
    from scipy.optimize import brentq

    def excess(nu: float) -> float:
        return float(alpha**2 * (np.sinh(2 * nu) + x2 * np.sinh(2 * x2 * nu)) - digits * _LN10)

    nu = brentq(excess, 0.0, 300.0, xtol=1e-14)
    return float(np.sinh(2 * x2 * nu) / np.sinh(2 * nu))


def _separable() -> Problem:
    X = np.random.default_rng(0).standard_normal((20, 30))
    return Problem(X, np.sign(X @ np.r_[1.0, -1.0, 0.5, np.zeros(27)]), "exponential")


@experiment("kernel-to-rich", MOROSHKO, "Separable data: from the l2 to the l1 margin, down to a loss of 1e-1000000")
def kernel_to_rich() -> Findings:
    problem, net = _separable(), DiagonalNetwork("u*v")
    best1, best2 = max_margin_l1(problem), max_margin_l2(problem)
    alphas = ("1e3", "10", "1", "1e-3")
    digits = np.geomspace(2.0, 1e6, 90)
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), sharex=True)
    shares = np.empty((2, len(alphas), len(digits)))
    for row, alpha in enumerate(alphas):
        run = gradient_flow(net, problem, digits[-1] * _LN10, alpha=alpha, clock="log_loss", t_eval=digits * _LN10)
        found = separation(run, problem)
        shares[:, row] = found.margin_l1 / best1.margin, found.margin_l2 / best2.margin
        for ax, share in zip(axes, shares[:, row], strict=True):
            ax.plot(digits, share, color=COLORS[row], label=rf"$\alpha$ = {alpha}")
    for ax, norm in zip(axes, (1, 2), strict=True):
        ax.axhline(1.0, color="0.5", lw=0.8)
        ax.set_xscale("log")
        ax.set_xlabel(r"digits of the loss, $\log_{10}(1/L)$")
        ax.set_ylabel(rf"share of the largest $\ell_{norm}$ margin")
    axes[0].legend()
    sample = Problem([[1.0, 0.9]], [1.0], "exponential")
    end = gradient_flow(net, sample, 1e6 * _LN10, alpha=1.0, clock="log_loss").beta[-1]
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"share": (("norm", "alpha", "digits"), shares)},
            coords={"norm": ["l1", "l2"], "alpha": list(alphas), "digits": digits},
        ),
        {"n": 20, "d": 30, "seed": 0, "alphas": alphas, "digits": [2.0, 1e6]},
        [
            Check(
                "one sample (1, 0.9): beta_2/beta_1 at a loss of 1e-1000000",
                _ratio(0.9, 1.0, 1e6),
                end[1] / end[0],
                1e-6,
            ),
            Check(
                "large scale, loss 1e-100: share of the l2 margin, at least",
                0.99,
                np.interp(100.0, digits, shares[1, 0]),
                kind="at least",
            ),
            Check(
                "scale 1, loss 1e-1000000: share of the l1 margin, at least", 0.97, shares[0, 2, -1], kind="at least"
            ),
            Check(
                "scale 1: the share of the l1 margin is larger at the end than at 1e-100 by, at least",
                0.01,
                shares[0, 2, -1] - np.interp(100.0, digits, shares[0, 2]),
                kind="at least",
            ),
        ],
    )


@experiment(
    "frozen-active-set",
    MOROSHKO,
    "Separable data: two limits that do not commute, loss to 0 at fixed scale and scale to 0 first",
)
def frozen_active_set() -> Findings:
    problem, net = _separable(), DiagonalNetwork("u*v")
    best, path = max_margin_l1(problem), saddle_to_saddle(net, problem)
    assert path.escape is not None
    frozen = path.escape.margin / best.margin
    alphas = ("1", "1e-10", "1e-1000", "1e-100000")
    digits = np.geomspace(2.0, 1e6, 60)
    figure, ax = plt.subplots(figsize=(6.0, 3.8))
    shares, left = np.empty((len(alphas), len(digits))), np.empty(len(alphas))
    still = path.escape.direction == 0
    for row, alpha in enumerate(alphas):
        run = gradient_flow(net, problem, digits[-1] * _LN10, alpha=alpha, clock="log_loss", t_eval=digits * _LN10)
        shares[row] = separation(run, problem).margin_l1 / best.margin
        left[row] = np.abs(run.beta[-1, still]).max() / np.abs(run.beta[-1]).max()
        ax.plot(digits, shares[row], color=COLORS[row], label=rf"$\alpha$ = {alpha}")
    ax.axhline(1.0, color="0.5", lw=0.8)
    ax.axhline(frozen, color="0.5", lw=0.8, ls=":")
    ax.annotate("margin of the frozen active set", (digits[-1], frozen), (0, 4), textcoords="offset points", ha="right")
    ax.set_xscale("log")
    ax.set_xlabel(r"digits of the loss, $\log_{10}(1/L)$")
    ax.set_ylabel(r"share of the largest $\ell_1$ margin")
    ax.legend(loc="center right", bbox_to_anchor=(1.0, 0.66))
    return Findings(
        {"": figure},
        xarray.Dataset(
            {"share": (("alpha", "digits"), shares), "left": ("alpha", left)},
            coords={"alpha": list(alphas), "digits": digits},
            attrs={"frozen": frozen, "escape_time": path.escape.time},
        ),
        {"n": 20, "d": 30, "seed": 0, "alphas": alphas, "digits": [2.0, 1e6]},
        [
            Check(
                "fixed scale 1, loss 1e-1000000: share of the l1 margin, at least", 0.97, shares[0, -1], kind="at least"
            ),
            Check(
                "scale 1e-100000: share of the l1 margin at 1e-1000000 is that of the frozen active set",
                frozen,
                shares[-1, -1],
                1e-4,
            ),
            Check(
                "scale 1e-100000: the largest coordinate at rest over the largest, at most",
                1e-6,
                left[-1],
                kind="at most",
            ),
        ],
    )
