"""How many coefficients are in use."""

import flowsim as fs

problem = fs.datasets.sparse_regression(40, 100, 6, noise=0.3, seed=1)
net = fs.DiagonalNetwork("u*v")
path = fs.saddle_to_saddle(net, problem)
flow = fs.gradient_flow(net, problem, 30.0, alpha="1e-200", clock="accelerated")
fs.plot.sparsity(flow, path=path)
