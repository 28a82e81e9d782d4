"""Noise balances the layers: what is conserved without it decays."""

import matplotlib.pyplot as plt

import flowsim as fs

plt.style.use(fs.plot.STYLE)
problem = fs.datasets.sparse_regression(20, 4, 2, seed=1)
for level in (0.0, 0.2, 0.4):
    noise = fs.GaussianNoise(level) if level else None
    flow = fs.gradient_flow(fs.DiagonalNetwork("u*v", noise=noise), problem, 10.0, alpha=0.5)
    plt.plot(flow.t, flow.log_imbalance[:, 0, 0], label=rf"$\eta$ = {level}")
plt.xlabel("time $t$")
plt.ylabel(r"$\ln|u^2 - v^2|$")
plt.legend()
