"""The loss becomes a staircase as alpha falls."""

import flowsim as fs

problem, net = fs.datasets.diabetes(), fs.DiagonalNetwork("u*v")
path = fs.saddle_to_saddle(net, problem)
flow = fs.gradient_flow(net, problem, 16.0, alpha="1e-100", clock="accelerated")
fs.plot.loss(flow, path=path, least=problem.least_squares_loss)
