"""Gradient descent (dots) against the flow (lines)."""

import flowsim as fs

problem, net = fs.datasets.sparse_regression(20, 12, 3, seed=0), fs.DiagonalNetwork("u*v")
flow = fs.gradient_flow(net, problem, 10.0, alpha=0.1)
fs.plot.compare(fs.compare(flow, fs.gradient_descent(net, problem, 0.05, 200, alpha=0.1)))
