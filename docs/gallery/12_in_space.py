"""Three coordinates in space."""

import numpy as np

import flowsim as fs

rng = np.random.default_rng(5)
problem = fs.Regression(rng.standard_normal((10, 3)), [2.0, -1.0, 1.5, 0.5, -2.0, 1.0, 0.3, -0.8, 1.2, 0.1])
net = fs.DiagonalNetwork("u*v")
path = fs.saddle_to_saddle(net, problem)
flow = fs.gradient_flow(net, problem, 2 * path.jump_times[-1], alpha=1e-6, clock="accelerated")
fs.plot.phase(flow, path=path)
