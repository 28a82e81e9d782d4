r"""Flows driven through a monotone separable map, solved natively.

.. math:: \nu' = b - A\,\beta(z, t), \qquad z = A^\top \nu / n, \qquad
          \beta_i = \sum_k s_{ik} \exp(l_{ik} + a_{ik} z_i - b_{ik} t), \quad s_{ik} a_{ik} \ge 0.

The unknowns are logarithms: the tolerance bounds the absolute error of a z / 2, which is the relative error of the
root of every exponential (a weight, in applications) at every scale. Exponents may start at -10^7.

Or, for L >= 3, beta_i is a product of weights that reaches infinity at finite z:

.. math:: \beta_i = \pm x \prod_{j<L} \sqrt{x^2 + m_{ij}^2}, \qquad
          \pm (T_i^\pm - z_i)\Big|_{\pm = +} = \int_x^\infty \frac{d\xi}{\prod_j \sqrt{\xi^2 + m_{ij}^2}},

and likewise below. Then the unknowns are the distances T - z to the two infinities, from 1e300 down to 1, or to 1e-300
in a unit of 1e300, and the tolerance bounds their relative errors.

All are integrated by second-derivative multistep formulas of order 3 to 9 (:mod:`flowsim.solvers.multistep`). With many
coordinates only some are loaded (:mod:`~flowsim.solvers.separable.screened_run`); a bound on all others, safe by the
Cauchy-Schwarz inequality, shows when A has to be passed over again.

Read `flow` (the problem), `integrate` (the functions to call), `base` and `multistep_run` (one integration), `solution`
and `reading` (the result); `curves` are maps given as tables, `distance_run` and `distance_steps` blow-ups,
`screened_run` many coordinates, `row_factor` ill-conditioned features.
"""

from flowsim.solvers.separable.flow import SeparableFlow
from flowsim.solvers.separable.integrate import integrate_ensemble, integrate_separable
from flowsim.solvers.separable.solution import SeparableSolution

__all__ = ["SeparableFlow", "SeparableSolution", "integrate_ensemble", "integrate_separable"]
