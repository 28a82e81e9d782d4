"""Discrete time: gradient descent, mini-batches, momentum, label noise, stochastic SAM."""

from flowsim.descent.ensemble import Ensemble, gradient_descents
from flowsim.descent.run import gradient_descent

__all__ = ["Ensemble", "gradient_descent", "gradient_descents"]
