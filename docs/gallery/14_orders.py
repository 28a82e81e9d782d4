"""Descent follows the flow to order 1, the modified flow to order 2."""

import flowsim as fs

problem, net = fs.datasets.sparse_regression(20, 12, 3, seed=0), fs.DiagonalNetwork("u*v")
runs = [fs.gradient_descent(net, problem, 0.04 / 2**k, 200 * 2**k, alpha=0.1) for k in range(3)]
modified = [fs.modified_flow(net, problem, 0.04 / 2**k, 8.0, alpha=0.1, t_eval=run.t) for k, run in enumerate(runs)]
fs.plot.orders(fs.compare(fs.gradient_flow(net, problem, 8.0, alpha=0.1, rtol=1e-9), runs), fs.compare(modified, runs))
