"""Discrete time: gradient descent, mini-batches, momentum, label noise, stochastic SAM."""

from flowsim.descent.run import gradient_descent

__all__ = ["gradient_descent"]
