"""Discrete time: gradient descent, stochastic descent, stochastic SAM."""
