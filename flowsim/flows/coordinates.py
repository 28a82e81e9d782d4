"""The protocols of coordinates: what a flow needs to be integrated and read in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict, Unpack, runtime_checkable

import numpy as np

from flowsim.arrays import Array
from flowsim.solvers import InitialValueProblem, SeparableSolution

#: Local against global tolerance: several errors add up before they are contracted. Measured so that the global error
#: stays below rtol.
SAFETY = 0.02


class IntegrationOptions(TypedDict, total=False):
    """Options of a native method."""

    rtol: float
    max_steps: int
    progress: Callable[[float], None] | None  #: called with the time reached every few steps
    done: Callable[[SeparableSolution], bool] | None  #: called with the steps since its last call; True ends the run


@dataclass(frozen=True)
class Observed:
    """Weights and conserved quantities at T times; shapes as in Trajectory."""

    weights: Mapping[str, Array]
    log_abs_weights: Mapping[str, Array]
    imbalance: Array
    log_imbalance: Array

    @classmethod
    def of(cls, names: Sequence[str], weights: Array, logs: Array, conserved: Array, log_conserved: Array) -> Observed:
        """From weights (T, k, d), conserved quantities (T, p, d), and logarithms of both."""
        plain, log = ({name: values[:, a] for a, name in enumerate(names)} for values in (weights, logs))
        return cls(plain, log, conserved, log_conserved)


class CommonCoordinates:
    """What most have in common; of those whose conserved quantities obey no law but the flow, the departure too."""

    needs_finer_steps = False
    log_unit = 0.0

    def departure(self, t: Array, y: Array, seen: Callable[[], Observed]) -> Array:
        return np.zeros(len(t))


class Coordinates(Protocol):
    """Unknowns in which a flow is integrated.

    Attributes
    ----------
    name : str
        As in ``traj.info["coordinates"]``.
    invariants : tuple of str
        Names of the conserved quantities that `observe` reports.
    log_unit : float
        Logarithm of the unit of time of all methods here; 0 unless times leave the range of floats.
    """

    name: str
    invariants: tuple[str, ...]
    log_unit: float

    def velocity(self, t: Array, y: Array) -> Array:
        """``d beta/dt`` at times (K,) and states (K, N), shape (K, d)."""

    def predictor(self, t: Array, y: Array) -> Array:
        """beta at times (K,) and states (K, N), shape (K, d)."""

    def observe(self, t: Array, y: Array) -> Observed:
        """Read states (K, N) at times (K,)."""

    def departure(self, t: Array, y: Array, seen: Callable[[], Observed]) -> Array:
        """Largest relative departure of conserved quantities, which `seen` observes, from their law, (K,)."""


@runtime_checkable
class SteppedCoordinates(Coordinates, Protocol):
    """Coordinates for SciPy's methods.

    `ivp` is the flow in time.
    """

    @property
    def ivp(self) -> InitialValueProblem: ...

    @property
    def needs_finer_steps(self) -> bool:
        """Whether the last run was stopped because its accumulated errors would have decided the outcome."""

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        """Local tolerances of the unknowns that give the global accuracy the user asked for."""


@runtime_checkable
class NativeCoordinates(Coordinates, Protocol):
    """Coordinates for the native method."""

    def integrate(self, t_end: float, **options: Unpack[IntegrationOptions]) -> SeparableSolution:
        """Integrate over [0, t_end]."""
