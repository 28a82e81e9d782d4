r"""The protocol of growth maps.

Data and loss act on coordinate i through its dual ``z_i = -int g_i dt`` alone:

.. math:: \beta_i = B_i(z_i, t), \qquad \frac{\partial B_i}{\partial z_i} \ge 0, \qquad
          \frac{d\beta_i}{dt} = -g_i\, \partial_z B_i + \partial_t B_i .

Without noise and weight decay B does not depend on t and ``dB/dz = |grad phi|^2`` along the curve of the weights.
"""

from __future__ import annotations

from typing import Any, Protocol

from flowsim.arrays import Array


class GrowthMap(Protocol):
    """A growth map from one start, for d coordinates of k weights with p conserved quantities each.

    States y (T, N) stand for the dual at T times: z itself (N = d), or for products its distances to both of its
    poles (N = 2 d). Times t are (T,) or one number. z and t are in units of ``exp(log_unit)``.

    Attributes
    ----------
    name : str
        As in ``traj.info["coordinates"]``.
    invariants : tuple of str, length p
        The conserved quantities, as formulas.
    log_unit : float
        Logarithm of the unit of z and of time; 0 unless they leave the range of floats.
    shift : array (d,) or (1,)
        ``E phi(w + xi) - phi(w)`` under weight noise xi: the loss is taken at ``beta + shift``.
    base : array (d,) or (1,)
        The constant part of ``beta + shift``, which :meth:`separable` leaves out.
    is_damped : bool
        Whether B depends on t: then `drift` (y, t) is ``dB/dt`` at fixed z, (T, d).
    """

    name: str
    log_unit: float

    @property
    def invariants(self) -> tuple[str, ...]: ...

    @property
    def shift(self) -> Array: ...

    @property
    def base(self) -> Array: ...

    @property
    def is_damped(self) -> bool: ...

    def state(self, z: Array) -> Array:
        """The state (T, N) at the dual z (T, d)."""

    def value(self, y: Array, t: Array | float) -> Array:
        """``beta = B(z, t)``, (T, d)."""

    def slope(self, y: Array, t: Array | float) -> Array:
        """``dB/dz``, (T, d), >= 0."""

    def weights(self, y: Array, t: Array | float) -> tuple[Array, Array]:
        """Weights (T, k, d) and the logarithms of their moduli."""

    @property
    def is_constant(self) -> bool:
        """Whether the conserved quantities are those of the start by construction, at all times."""

    def conserved(self, y: Array, t: Array | float) -> tuple[Array, Array]:
        """The conserved quantities (T, p, d) and the logarithms of their moduli, computed from the state."""

    def law(self, t: Array) -> Array:
        """Logarithms of the moduli of the conserved quantities, (T, p, d), from the start alone."""

    def separable(self) -> dict[str, Any]:
        """Keyword arguments by which :class:`flowsim.solvers.SeparableFlow` is given the map."""


class PotentialMap(GrowthMap, Protocol):
    """A growth map that serves as an inverse mirror map (:mod:`flowsim.growth.response`)."""

    def potential(self, y: Array) -> Array:
        """A primitive of B in z, (T, d), convex in z."""


class SteppedMap(GrowthMap, Protocol):
    """A growth map that SciPy's methods can integrate too: states are z, and bound the steps.

    `rate` is the fastest relative growth of weights by z.
    """

    @property
    def rate(self) -> float: ...

    def until_visible(self, z: Array, t: float, speed: Array, level: float, past: float) -> float:
        """The least time until a coordinate below `level` has passed it by `past` e-folds, for z (d,) at dz/dt (d,)."""

    def range_error(self, z: Array, t: float) -> str | None:
        """The reason why the map does not hold at z (d,); None where it does."""
