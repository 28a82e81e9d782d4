"""The edge of stability: sharpness over 2/h for two step sizes."""

import flowsim as fs

problem, net = fs.datasets.sparse_regression(50, 100, 2, seed=1), fs.DiagonalNetwork("u*v")
fs.plot.edge_of_stability(fs.studies.edge_of_stability(net, problem, [0.875, 0.25], 3000, alpha=0.01, record_every=1))
