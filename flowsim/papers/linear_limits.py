"""Follow-ups for linear networks: incremental rank from a vanishing start, with and without weight noise."""

from __future__ import annotations

import numpy as np
import xarray

from flowsim.limits import saddle_to_saddle
from flowsim.network import GaussianNoise, LinearNetwork
from flowsim.papers.experiment import Check, Findings, experiment
from flowsim.plot.linear_limits import linear_overview
from flowsim.problem import Regression
from flowsim.studies.limit_study import limit_study

PAPER = "after Gidel, Bach & Lacoste-Julien, arXiv 1904.13262; Li, Luo & Lyu, arXiv 2012.09839"
_ETA = 0.3


@experiment("linear-saddle-to-saddle", PAPER, "U V^T learns rank by rank; noise soft-thresholds its singular values")
def linear_saddle_to_saddle() -> Findings:
    rng = np.random.default_rng(0)
    n, D, m, width = 30, 4, 3, 9
    X = rng.standard_normal((n, D))
    problem = Regression(X, X @ rng.standard_normal((D, m)) + 0.3 * rng.standard_normal((n, m)))
    alphas = ["1e-10", "1e-30", "1e-100"]
    study = limit_study(LinearNetwork(width), problem, alphas)
    noisy_net = LinearNetwork(width, noise=GaussianNoise(_ETA))
    noisy = limit_study(noisy_net, problem, alphas)
    path = saddle_to_saddle(LinearNetwork(width), problem)
    values, vectors = np.linalg.eigh(X.T @ X / n)
    root = (vectors / np.sqrt(values)) @ vectors.T
    A, s, Bt = np.linalg.svd(root @ X.T @ problem.y / n, full_matrices=False)
    threshold = _ETA**2 * np.sqrt(m * values.sum())
    shrunk = root @ (A * np.maximum(s - threshold, 0.0)) @ Bt
    end = noisy.trajectories[-1].beta[-1]
    checks = [
        Check("order of jump times in 1/ln(1/alpha)", 1.0, study.rate.order, 0.05),
        Check("the same with noise", 1.0, noisy.rate.order, 0.05),
        Check("first jump", 1 / float(np.linalg.norm(X.T @ problem.y / n, 2)), path.jump_times[0], 1e-12),
        Check("largest distance at mid-plateau, 1e-100", 1e-6, study.plateau_errors[-1].max(), kind="at most"),
        Check("end with noise: soft-thresholded fit", 0.0, np.abs(end - shrunk).max() / np.abs(shrunk).max(), 1e-6),
    ]
    return Findings(
        {
            "": linear_overview(path, *study.trajectories[::2]),
            "noise": linear_overview(saddle_to_saddle(noisy_net, problem), *noisy.trajectories[::2]),
        },
        xarray.Dataset({"jump_times": ("jump", path.jump_times), "losses": ("saddle", path.losses)}),
        {"n": n, "D": D, "m": m, "width": width, "seed": 0, "eta": _ETA, "alphas": alphas},
        checks,
    )
