"""The time average of the limit is the Lasso path until a coordinate leaves."""

import flowsim as fs

path = fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), fs.datasets.diabetes())
fs.plot.lasso_link(fs.lasso_link(path))
