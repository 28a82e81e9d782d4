"""Early stopping: the loss on held-out rows along the run."""

import matplotlib.pyplot as plt

import flowsim as fs

plt.style.use(fs.plot.STYLE)
data = fs.datasets.sparse_regression(120, 80, 4, noise=1.0, seed=0)
train, test = fs.Regression(data.X[:60], data.y[:60]), fs.Regression(data.X[60:], data.y[60:])
for alpha in ("1e-1", "1e-4", "1e-100"):
    flow = fs.gradient_flow(fs.DiagonalNetwork("u*v"), train, alpha=alpha)
    plt.plot(flow.accelerated_time, test.loss(flow.beta), label=rf"$\alpha$ = {alpha}")
plt.xlabel(r"accelerated time $\tilde t$")
plt.ylabel("loss on held-out rows")
plt.xscale("log")
plt.legend()
