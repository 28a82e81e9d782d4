r"""Second-derivative multistep formulas of variable step and order, compiled for flows through a separable map.

With :math:`f = z' = c - G\beta(z, t)` the second derivative costs one more product and no exponential,

.. math:: f' = -G\,(D f + \beta_t), \qquad D = \mathrm{diag}(\partial\beta/\partial z),

which pays for Enright's formulas, of order k + 2 with k past values of f, stiffly stable up to order 9, with error
constants a tenth (order 3) to a fortieth (order 6) of those of the backward differentiation formulas. Only z_n enters
beside f, so that any sequence of steps is stable.

Read :mod:`~flowsim.solvers.multistep.reference` first, one step in NumPy; then
:mod:`~flowsim.solvers.multistep.march`, the compiled loop, which calls
:mod:`~flowsim.solvers.multistep.formulas` (coefficients, prediction, local errors),
:mod:`~flowsim.solvers.multistep.exponentials` (the map), :mod:`~flowsim.solvers.multistep.active` (active coordinates
first), and by its address :mod:`~flowsim.solvers.multistep.newton`, which is compiled beside it:
:mod:`~flowsim.solvers.multistep.step` (Newton's method),
:mod:`~flowsim.solvers.multistep.iteration_matrix` (its linear solves) and
:mod:`~flowsim.solvers.multistep.quasi_steady` (stiff modes).

:mod:`~flowsim.solvers.multistep.workspace` is the layout of the arrays, :mod:`~flowsim.solvers.multistep.buffers` that
of all other tuples, with what Python reads and writes. Blow-ups at finite z: `distances`, `distance_map`,
`straight_lines`; many coordinates: `screening`; ill-conditioned features: `graded_rows`.

References
----------
W. H. Enright, Second derivative multistep methods for stiff ordinary differential equations, SIAM J. Numer. Anal. 11
(1974) 321-331; F. T. Krogh, Changing stepsize in the integration of differential equations using modified divided
differences, Lecture Notes in Mathematics 362 (1974) 22-71; L. F. Shampine, Error estimators for stiff differential
equations, J. Comput. Appl. Math. 11 (1984) 197-207.
"""
