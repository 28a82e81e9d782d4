"""What is learned from: data and losses."""

from flowsim.problem.losses import Loss
from flowsim.problem.matrices import MatrixCompletion, MatrixSensing
from flowsim.problem.problems import Problem, Regression, require_squares

__all__ = ["Loss", "MatrixCompletion", "MatrixSensing", "Problem", "Regression", "require_squares"]
