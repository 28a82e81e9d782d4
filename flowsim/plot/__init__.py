"""Figures; every function takes ``ax=`` and returns it.

`trajectory`, `limits`, `linear_limits`, `linear`, `phase`, `compare` and `risk` are the figures; `curves` samples a
run, `labels` names curves at their ends, `style` holds the style sheet and shared axes.
"""

from flowsim.plot.compare import compare, compare_overview, edge_of_stability, orders
from flowsim.plot.limits import lasso_link, limit_overview, limit_study, saddle_to_saddle
from flowsim.plot.linear import imbalance_spectrum, loss_bound, rank_by_rank, singular_values, width_law
from flowsim.plot.linear_limits import levels, linear_limit, linear_overview, loss_staircase
from flowsim.plot.phase import animate, phase, save_animation
from flowsim.plot.risk import train_test
from flowsim.plot.style import STYLE
from flowsim.plot.trajectory import imbalance, loss, overview, sparsity, trajectory

__all__ = [
    "STYLE",
    "animate",
    "compare",
    "compare_overview",
    "edge_of_stability",
    "imbalance",
    "imbalance_spectrum",
    "lasso_link",
    "levels",
    "limit_overview",
    "limit_study",
    "linear_limit",
    "linear_overview",
    "loss",
    "loss_bound",
    "loss_staircase",
    "orders",
    "overview",
    "phase",
    "rank_by_rank",
    "saddle_to_saddle",
    "save_animation",
    "singular_values",
    "sparsity",
    "train_test",
    "trajectory",
    "width_law",
]
