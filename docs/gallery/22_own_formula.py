"""A formula of one's own, asymmetric in its two signs."""

import flowsim as fs

problem = fs.datasets.sparse_regression(20, 6, 3, seed=4)
net = fs.DiagonalNetwork("2*u**2 - v**2")
path = fs.saddle_to_saddle(net, problem)
flow = fs.gradient_flow(net, problem, 1.5 * path.jump_times[-1], alpha="1e-300", clock="accelerated")
flow.plot(path=path)
