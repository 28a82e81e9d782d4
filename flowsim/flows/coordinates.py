"""Coordinates: what a flow needs to be integrated and read in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np

from flowsim.arrays import Array, Index, signed_exp
from flowsim.growth.modes import Modes
from flowsim.solvers import InitialValueProblem, SeparableSolution, Solution

#: Local against global tolerance: several errors add up before they are contracted. Measured so that the global error
#: stays below rtol.
SAFETY = 0.02


class IntegrationOptions(TypedDict, total=False):
    """Options of a native method."""

    rtol: float
    max_steps: int
    progress: Callable[[float], None] | None  #: called with the time reached every few steps
    done: Callable[[Any], bool] | None  #: called with the steps since its last call; True ends the run


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

    @classmethod
    def of_components(cls, names: Sequence[str], modes: Modes, sign: Array, logs: Array) -> Observed:
        """From the components of quadratic formulas: their signs (..., k, d) and logarithms (T, k, d)."""
        signs, conserved = modes.products(logs, np.broadcast_to(sign, logs.shape))
        return cls.of(names, *modes.weights(logs, sign), signed_exp(signs, conserved), conserved)


class Coordinates:
    """Unknowns in which a flow is integrated: the base class of all choices.

    A class gives `name`, `invariants`, the methods that raise NotImplementedError here, and `integrate` (the native
    method), `ivp` with `tolerances` (SciPy's methods), or both. The rest has defaults.

    Attributes
    ----------
    name : str
        As in ``traj.info["coordinates"]``.
    invariants : tuple of str
        Names of the conserved quantities that `observe` reports.
    log_unit : float
        Logarithm of the unit of time of all methods here; 0 unless times leave the range of floats.
    native : bool
        Whether the native method is to integrate.
    has_fast_reading : bool
        Whether `predictor_into`, `predictor_of` and `predictor_at_times` are given.
    beta_exponent : int
        The solution measures lengths of beta in units of 2 to this power.
    at_floor, verdict : str or None
        Advice for steps that fell to the spacing of floats; why a loss that was to tend to 0 does not.
    """

    name: str
    invariants: tuple[str, ...]
    log_unit = 0.0
    native = False
    has_fast_reading = False
    beta_exponent = 0
    at_floor: str | None = None
    verdict: str | None = None

    def integrate(self, t_end: float, **options: Unpack[IntegrationOptions]) -> Any:
        """Integrate natively over [0, t_end], to a solution with the reading of :class:`SeparableSolution`."""
        raise NotImplementedError

    @property
    def ivp(self) -> InitialValueProblem:
        """The flow in time, for SciPy's methods."""
        raise NotImplementedError

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        """Local tolerances of the unknowns of `ivp` that give the global accuracy the user asked for."""
        raise NotImplementedError

    def least_tolerance(self, y: Array) -> float:
        """The tolerance below which SciPy's methods take no other steps."""
        return 0.0

    def starts_fast(self, horizon: float) -> bool:
        """Whether logarithmic time is the better variable of SciPy's methods, up to a horizon."""
        return False

    @property
    def needs_finer_steps(self) -> bool:
        """Whether the last run was stopped because its accumulated errors would have decided the outcome."""
        return False

    @property
    def visible_part(self) -> float:
        """The part of the tolerance to which unknowns must be known."""
        return 1.0

    def velocity(self, t: Array, y: Array) -> Array:
        """``d beta/dt`` at times (K,) and states (K, N), shape (K, d)."""
        raise NotImplementedError

    def predictor(self, t: Array, y: Array) -> Array:
        """beta at times (K,) and states (K, N), shape (K, d)."""
        raise NotImplementedError

    def predictor_into(self, t: Array, y: Array) -> Array:
        """beta in place of native states."""
        raise NotImplementedError

    def predictor_of(self, t: Array, z: Array, only: Index) -> Array | None:
        """beta of some coordinates from their native states; None where it is not a sum of exponentials."""
        raise NotImplementedError

    def predictor_at_times(self, solution: SeparableSolution, t: Array) -> tuple[Array, Index, Array] | None:
        """beta, step and position of times, without the states; None where that is not faster."""
        raise NotImplementedError

    def rounding(self, t: Array, y: Array) -> Array:
        """A bound on the error of beta from rounding of native states, at each time (K,)."""
        return np.zeros(len(t))

    def loss(self, t: Array, y: Array) -> Array | None:
        """The loss, where it is known more accurately than from beta; else None."""
        return None

    def levels(self, t: Array, y: Array) -> Array | None:
        """Levels of the directions of a linear network."""
        return None

    def observe(self, t: Array, y: Array) -> Any:
        """Weights and conserved quantities, as in :class:`Observed`, of states (K, N) at times (K,)."""
        raise NotImplementedError

    def departure(self, t: Array, y: Array, seen: Callable[[], Any]) -> Array:
        """Largest relative departure of conserved quantities, which `seen` observes, from their law, (K,).

        0 for those that obey no law but the flow, or their law by construction.
        """
        return np.zeros(len(t))

    def departure_along(self, solution: Solution, t: Array) -> Array | None:
        """The same where it needs the whole run by one of SciPy's methods; else None."""
        return None

    @property
    def facts(self) -> dict[str, str]:
        """Entries of a trajectory's `info` about the coordinates."""
        return {}

    def remarks(self, solution: Any) -> Mapping[str, Any]:
        """Entries of a trajectory's `info` about the last state of a solution."""
        return {}
