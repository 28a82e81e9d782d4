"""A two-layer linear network learns one singular value after the other."""

import numpy as np

import flowsim as fs

X = np.sqrt(8) * np.linalg.qr(np.random.default_rng(1).standard_normal((8, 4)))[0]
problem = fs.Regression(X, X @ np.diag([2.0, 1.0, 0.5, 0.3])[:, :3])
flow = fs.gradient_flow(fs.LinearNetwork(6), problem, 5.0, alpha=1e-6, clock="accelerated")
fs.plot.singular_values(flow)
