"""Weight noise (stochastic SAM) shrinks: where the flow ends, over the noise level."""

import matplotlib.pyplot as plt
import numpy as np

import flowsim as fs

plt.style.use(fs.plot.STYLE)
problem = fs.datasets.diabetes()
levels = np.linspace(0.01, 6.0, 40)
ends = [fs.saddle_to_saddle(fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(level)), problem).end for level in levels]
plt.plot(levels, ends, label=problem.feature_names)
plt.xlabel(r"standard deviation $\eta$ of the weight noise")
plt.ylabel(r"coefficients $\beta_i$ at the end")
plt.legend(ncols=2)
