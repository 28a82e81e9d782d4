"""Integrators for stiff initial-value problems, and the convex minimisers that limits need.

`separable` states the flows that are integrated natively and calls `multistep`, the compiled integrator (read
`multistep/reference.py` first, one step in NumPy); `frames` propagates ``Z' = S(t) Z`` in graded frames. For everything
else `problem`, `scipy_methods` and `solution` put SciPy's methods behind one loop (`time_changes`: in other variables
than time); `events` and `arclength` read any solution. `active_set`, `cone_newton` and `entropy` minimise convex
functions; `compilation`, `precompile` and `simd` are how Numba is used.

What this package does not contain: learning and networks. It imports nothing from the rest of flowsim, and a test
that reads its imports keeps it so.
"""

from flowsim.solvers.arclength import ArcLength
from flowsim.solvers.events import Event, Occurrence, find_events
from flowsim.solvers.problem import InitialValueProblem
from flowsim.solvers.scipy_methods import SCIPY_METHODS, integrate
from flowsim.solvers.separable import SeparableFlow, SeparableSolution, integrate_ensemble, integrate_separable
from flowsim.solvers.solution import Solution, Status

__all__ = [
    "SCIPY_METHODS",
    "ArcLength",
    "Event",
    "InitialValueProblem",
    "Occurrence",
    "SeparableFlow",
    "SeparableSolution",
    "Solution",
    "Status",
    "find_events",
    "integrate",
    "integrate_ensemble",
    "integrate_separable",
]
