"""Integrators for stiff initial-value problems.

What this package does not contain: learning, losses, networks. It imports nothing from the rest of
flowsim, and a test that reads its imports keeps it so.
"""

from flowsim.solvers.arclength import ArcLength, by_arclength
from flowsim.solvers.events import Event, Occurrence, find_events
from flowsim.solvers.problem import InitialValueProblem
from flowsim.solvers.scipy_methods import SCIPY_METHODS, integrate
from flowsim.solvers.separable import (
    SeparableFlow,
    SeparableSolution,
    integrate_ensemble,
    integrate_separable,
)
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
    "by_arclength",
    "find_events",
    "integrate",
    "integrate_ensemble",
    "integrate_separable",
]
