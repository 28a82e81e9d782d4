"""Discrete time: gradient descent, mini-batches, momentum, label noise, stochastic SAM.

Read `gradient_descent` (the public function), `machine` (what drives every descent) and `case` (network, data, start).
Three machines take the steps: `growth_machine` with `multipliers` and `growth_loop` for quadratic networks at any
scale, `weights` with `weights_loop` for any formula, `linear` with `linear_loop` for U V^T, or `frame_descent` in a
graded frame. `products` and `tiles` are the products with X, `draws` and `streams` the random numbers, `settings` and
`schedules` the options, `result` and `ensemble` the return values, `sharpness` the top Hessian eigenvalue.
"""

from flowsim.descent.ensemble import Ensemble, gradient_descents
from flowsim.descent.gradient_descent import gradient_descent
from flowsim.descent.multipliers import Multipliers, why_not_growth
from flowsim.descent.sharpness import largest_stable_step, sharpness

__all__ = [
    "Ensemble",
    "Multipliers",
    "gradient_descent",
    "gradient_descents",
    "largest_stable_step",
    "sharpness",
    "why_not_growth",
]
