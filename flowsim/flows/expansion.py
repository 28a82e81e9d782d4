"""The step size in which the modified flow is an expansion, and where a run leaves its range."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array
from flowsim.flows.coordinates import Coordinates
from flowsim.solvers import Solution


@dataclass(frozen=True)
class StepRule:
    """Step size and momentum of the modified flow."""

    step: float
    momentum: float = 0.0
    nesterov: bool = False

    @property
    def speed(self) -> float:
        """``1 / (1 - mu)``, the speed relative to the gradient flow on the clock h k."""
        return 1.0 / (1.0 - self.momentum)

    @property
    def curvature(self) -> float:
        """c."""
        mu = self.momentum
        top = 1.0 - mu + 2.0 * mu**2 if self.nesterov else 1.0 + mu
        return self.step * top / (1.0 - mu) ** 2

    @property
    def offset(self) -> float:
        """``mu h / (1 - mu)^2``: the start is shifted by minus this times F."""
        return self.momentum * self.step / (1.0 - self.momentum) ** 2


class Expanded(Coordinates):
    """Coordinates of a modified flow."""

    rule: StepRule

    @abstractmethod
    def expansion(self, y: Array) -> tuple[Array, Array]:
        """F and F'F at a state, each up to one common factor."""

    def _rhs(self, t: float, y: Array) -> Array:
        field, curved = self.expansion(y)
        return (self.rule.speed * (field - self.rule.curvature / 2 * curved)).ravel()

    def remarks(self, solution: Solution) -> dict[str, str]:
        """Where ``c |F'F| / |F|``, the step times the curvature of the loss along F, exceeds 1."""
        sizes = np.array([[np.linalg.norm(part) for part in self.expansion(y)] for y in solution.y])
        field, curved = sizes.T
        parameter = np.divide(self.rule.curvature * curved, field, out=np.zeros(len(field)), where=field > 0)
        k = int(np.argmax(parameter))
        if not parameter[k] > 1.0:
            return {}
        return {
            "beyond_expansion": f"the step times the curvature is {parameter[k]:.2g} at t = {solution.t[k]:.4g}: the "
            "modified flow is an expansion in it, which descent follows where it is well below 1"
        }
