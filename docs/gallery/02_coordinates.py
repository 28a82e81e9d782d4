"""Coordinates against the jumps that the limit predicts."""

import flowsim as fs

problem, net = fs.datasets.diabetes(), fs.DiagonalNetwork("u*v")
path = fs.saddle_to_saddle(net, problem)
flow = fs.gradient_flow(net, problem, 16.0, alpha="1e-1000", clock="accelerated")
flow.plot(path=path)
