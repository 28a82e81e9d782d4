"""An initial-value problem: a right-hand side and its known derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flowsim.solvers.array_kinds import Array


@dataclass(frozen=True)
class InitialValueProblem:
    """``y' = f(t, y)``, ``y(0) = y0``.

    Attributes
    ----------
    rhs : callable (t, y) -> (N,)
    y0 : array (N,)
    jacobian : callable (t, y) -> (N, N), optional
        ``df/dy``.
    step_limit : callable (t, y, y') -> float, optional
        The longest step from here that cannot miss an activation, which a local error estimate would not detect.
    check : callable (t, y) -> str or None, optional
        Called after every accepted step; a text ends the integration with that message.
    rest : callable (t, y) -> (N,) or None, optional
        Called every few steps: the constant ``y'`` with which the solution continues from here to within its
        tolerance, if that is known. The integration then takes one last step to its end.
    breaks : tuple of float
        Increasing times > 0 at which the right-hand side jumps: no step goes across. Its value at one is that after it.
    """

    rhs: Callable[[float, Array], Array]
    y0: Array
    jacobian: Callable[[float, Array], Array] | None = None
    step_limit: Callable[[float, Array, Array], float] | None = None
    check: Callable[[float, Array], str | None] | None = None
    rest: Callable[[float, Array], Array | None] | None = None
    breaks: tuple[float, ...] = ()
