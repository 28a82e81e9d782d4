"""The mean of sampled stochastic-SAM runs, with its band, on the expected-gradient flow."""

import flowsim as fs

problem = fs.datasets.sparse_regression(20, 5, 2, seed=1)
net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.3))
flow = fs.gradient_flow(net, problem, 8.0, alpha=0.3)
fs.plot.compare(fs.compare(flow, fs.gradient_descents(net, problem, 0.02, 400, runs=40, alpha=0.3, seed=0)))
