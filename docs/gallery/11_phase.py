"""Two coordinates against each other, and the saddles they visit."""

import numpy as np

import flowsim as fs

rng = np.random.default_rng(3)
problem = fs.Regression(rng.standard_normal((8, 2)) @ [[1.0, 0.7], [0.0, 0.7]], rng.standard_normal(8) * 2)
net = fs.DiagonalNetwork("u*v")
path = fs.saddle_to_saddle(net, problem)
flow = fs.gradient_flow(net, problem, 2 * path.jump_times[-1], alpha=1e-4, clock="accelerated")
fs.plot.phase(flow, path=path)
