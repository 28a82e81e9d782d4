"""Losses of a prediction: the built-in ones, and custom ones from an expression."""

from flowsim.problem.losses import EXPONENTIAL, LOG_COSH, LOGISTIC, LOSSES, POISSON, PSEUDO_HUBER, SQUARED, Loss
from flowsim.symbolic.loss_formula import from_formula, latex

__all__ = [
    "EXPONENTIAL",
    "LOGISTIC",
    "LOG_COSH",
    "LOSSES",
    "POISSON",
    "PSEUDO_HUBER",
    "SQUARED",
    "Loss",
    "from_formula",
    "latex",
]
