"""scikit-learn: cross-validated number of jumps on the diabetes table."""

import matplotlib.pyplot as plt
from sklearn.datasets import load_diabetes
from sklearn.model_selection import validation_curve

import flowsim as fs

plt.style.use(fs.plot.STYLE)
X, y = load_diabetes(return_X_y=True, scaled=False)
jumps = list(range(12))
_, scores = validation_curve(fs.SaddleRegressor(), X, y, param_name="n_jumps", param_range=jumps, cv=5)
plt.errorbar(jumps, scores.mean(axis=1), scores.std(axis=1), marker="o", ms=4)
plt.xlabel("jumps made")
plt.ylabel(r"$R^2$, five-fold")
