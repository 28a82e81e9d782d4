r"""Matrix flows ``Z' = S(t) Z`` whose generator is known once a product of the state's two halves is known.

.. math:: S = \begin{pmatrix} -a & G \\ G^\top & -b \end{pmatrix}, \qquad G = G(Z_1 Z_2^\top), \qquad Z = (Z_1; Z_2).

The state is kept as an orthonormal frame times logarithms times a right factor (:mod:`.frame`), so growth over any
number of orders of magnitude costs no precision. Where the product moves, Gauss collocation in the values of G
(:mod:`.collocation`); where it is at rest, the exact exponential (:mod:`.plateau`). Read `problem`, `frame` (the graded
frame), `steps` (the integration), `collocation` and `iteration` (one step), `solution`; `explicit` takes mild starts,
`resting` long steps, `saturated` losses near 0, `relaxation` is the preconditioner and error filter. It contains no
networks and no learning.
"""

from flowsim.solvers.frames.frame import Frame, factor_frame
from flowsim.solvers.frames.problem import Coupling, FrameProblem
from flowsim.solvers.frames.solution import FrameSolution, FrameStates
from flowsim.solvers.frames.steps import integrate_frame

__all__ = ["Coupling", "Frame", "FrameProblem", "FrameSolution", "FrameStates", "factor_frame", "integrate_frame"]
