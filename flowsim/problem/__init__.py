"""Problems: data and convex losses, ``L(beta) = (1/n) sum_i w_i loss(f_i, y_i)`` with ``f = X beta``.

Read `problems` (Problem, Regression) and `losses`; `loss_kernels` are the compiled derivatives, `exponential_sums` the
losses with closed expectations under noise, `convexity` and `checks` validate input, `labelled` reads data frames,
`scaling` and `in_units` standardise tables, `requirements` are forms that networks need, `margins` are directions of
largest margin, `matrices` is matrix sensing.
"""

from flowsim.problem.losses import Loss
from flowsim.problem.matrices import MatrixCompletion, MatrixSensing
from flowsim.problem.problems import Problem, Regression
from flowsim.problem.requirements import matrix_targets, require_squares, single_target

__all__ = [
    "Loss",
    "MatrixCompletion",
    "MatrixSensing",
    "Problem",
    "Regression",
    "matrix_targets",
    "require_squares",
    "single_target",
]
