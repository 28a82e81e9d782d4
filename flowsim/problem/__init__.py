"""What is learned from: data and losses."""

from flowsim.problem.regression import Regression

__all__ = ["Regression"]
