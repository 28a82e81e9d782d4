"""Logistic loss: the loss tends to 0 and the coefficients to infinity."""

import numpy as np

import flowsim as fs

rng = np.random.default_rng(0)
X = rng.standard_normal((30, 8))
problem = fs.Problem(X, np.sign(X[:, 0] - X[:, 3]), loss="logistic")
flow = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 300.0, alpha=0.01)
flow.plot(clock="time")
