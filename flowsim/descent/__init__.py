"""Discrete time: gradient descent, mini-batches, momentum, label noise, stochastic SAM."""

from flowsim.descent.ensemble import Ensemble, gradient_descents
from flowsim.descent.gradient_descent import gradient_descent
from flowsim.descent.multipliers import Multipliers, signed_exp, why_not_growth
from flowsim.descent.sharpness import largest_stable_step, sharpness

__all__ = [
    "Ensemble",
    "Multipliers",
    "gradient_descent",
    "gradient_descents",
    "largest_stable_step",
    "sharpness",
    "signed_exp",
    "why_not_growth",
]
