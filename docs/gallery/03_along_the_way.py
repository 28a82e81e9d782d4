"""The same run by the distance travelled: waiting takes no room."""

import flowsim as fs

problem, net = fs.datasets.diabetes(), fs.DiagonalNetwork("u*v")
flow = fs.gradient_flow(net, problem, 16.0, alpha="1e-1000", clock="accelerated")
flow.plot(clock="distance")
