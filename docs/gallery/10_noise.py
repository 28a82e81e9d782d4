"""Weight noise (stochastic SAM) shrinks: where the flow ends, over the noise level."""

import matplotlib.pyplot as plt
import numpy as np

import flowsim as fs

problem = fs.datasets.diabetes()
levels = np.linspace(0.01, 6.0, 40)
ends = [fs.saddle_to_saddle(fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(level)), problem).end for level in levels]
plt.plot(levels, ends)
plt.xlabel(r"standard deviation $\eta$ of the weight noise")
plt.ylabel("coefficients at the end")
