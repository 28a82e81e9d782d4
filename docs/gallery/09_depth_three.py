"""Depth 3, both signs: a difference of two products."""

import flowsim as fs

problem = fs.datasets.sparse_regression(20, 6, 2, seed=2)
net = fs.DiagonalNetwork("a*b*c - x*y*z")
flow = fs.gradient_flow(net, problem, 4.0, alpha=0.02, clock="accelerated")
flow.plot()
