"""The limit path of a diagonal network: saddles, jumps and orbits."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Index, Integers
from flowsim.limits.files import TabulatedMemory
from flowsim.limits.orbit import Orbit
from flowsim.limits.orbits import heteroclinic_orbit
from flowsim.limits.saddle_list import Saddles
from flowsim.limits.start_state import StartState
from flowsim.problem import Regression
from flowsim.results.fields import fields_of

if TYPE_CHECKING:
    import pandas
    import scipy.sparse


@dataclass(frozen=True)
class SupportChange:
    """One coordinate entering or leaving the support at a jump.

    Attributes
    ----------
    time : float
        Accelerated time of the jump.
    jump : int
        Index into ``jump_times``; several events share a jump.
    coordinate : int
    name : str
        Its feature name.
    sign : {+1, -1}
        Sign of the coefficient: the new one if activated, the old one if deactivated.
    kind : {"activated", "deactivated"}
    """

    time: float
    jump: int
    coordinate: int
    name: str
    sign: int
    kind: Literal["activated", "deactivated"]


@dataclass(frozen=True, eq=False, repr=False)
class SaddlePath(Saddles):
    r"""A piecewise constant path in accelerated time: :math:`\beta(t) = \beta_k` for :math:`t_k \le t < t_{k+1}`.

    Attributes: see :class:`Saddles`.
    """

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle, with the growth of coordinates as numbers instead of functions."""
        state = dict(vars(self))
        if self.memory is not None:
            state["memory"] = TabulatedMemory.of(self)
        return state

    @cached_property
    def used(self) -> list[int]:
        """The coordinates of all supports, ascending."""
        return sorted({int(i) for support in self.supports for i in support})

    def _repr_html_(self) -> str:
        data, facts = f"{self.problem.n} x {self.problem.d}", {"coordinates used": len(self.used)}
        return self._card(data, facts, self.sparse_saddles[:, self.used].toarray(), "coordinates")

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per plateau: its start and end, its loss, and ``beta[name]`` of every coordinate ever active."""
        names, values = self.problem.feature_names, self.sparse_saddles[:, self.used].toarray()
        columns = {f"beta[{names[i]}]": column for i, column in zip(self.used, values.T, strict=True)}
        return self._table({"loss": self.losses, **columns})

    @property
    def active_sets(self) -> tuple[Integers, ...]:
        """The support of each of the K + 1 saddles, ascending."""
        return self.supports

    @cached_property
    def sparse_saddles(self) -> scipy.sparse.csr_array:
        """The saddles as a sparse array (K+1, d)."""
        import scipy.sparse

        pointer = np.concatenate([[0], np.cumsum([len(support) for support in self.supports])])
        return scipy.sparse.csr_array(
            (np.concatenate(self.values), np.concatenate(self.supports), pointer),
            shape=(len(self.supports), self.problem.d),
        )

    @cached_property
    def events(self) -> tuple[SupportChange, ...]:
        """Coordinates that enter or leave the support, in order of time; within a jump by coordinate."""
        events = []
        for jump, time in enumerate(self.jump_times):
            before = dict(zip(self.supports[jump].tolist(), self.values[jump].tolist(), strict=True))
            after = dict(zip(self.supports[jump + 1].tolist(), self.values[jump + 1].tolist(), strict=True))
            for coordinate in sorted(before.keys() | after.keys()):
                old, new = before.get(coordinate, 0.0), after.get(coordinate, 0.0)
                if (old > 0) == (new > 0) and (old < 0) == (new < 0):
                    continue
                name = self.problem.feature_names[coordinate]
                if old != 0:
                    sign = 1 if old > 0 else -1
                    events.append(SupportChange(float(time), jump, coordinate, name, sign, "deactivated"))
                if new != 0:
                    sign = 1 if new > 0 else -1
                    events.append(SupportChange(float(time), jump, coordinate, name, sign, "activated"))
        return tuple(events)

    def dual(self, t: ArrayLike) -> Array:
        r""":math:`s(t) = -\int_0^t \nabla L(\beta)`, shapes as in :meth:`beta`.

        Coordinates grow while s moves from ``-t^-`` to ``t^+``; with noise the bounds move apart with time.

        Raises ValueError as :meth:`beta`; also for infinite t.
        """
        times = self._check_times(t)
        if np.isinf(times).any():
            raise ValueError("`t` must be finite; received inf.")
        if not isinstance(self.problem, Regression):
            # For squares alone the gradient at an average is the average of gradients.
            forces = -np.array([self.problem.gradient(row) for row in self._rows(np.arange(len(self.supports)))])
            shares = [time * self._shares(float(time)) for time in np.atleast_1d(times)]
            sums = np.array([share @ forces[: len(share)] for share in shares])
            return sums[0] if times.ndim == 0 else sums
        average = np.atleast_2d(self.time_average(times)) + self.offset
        rows = np.stack(
            [-time * self.problem.gradient(row) for time, row in zip(np.atleast_1d(times), average, strict=True)]
        )
        return rows[0] if times.ndim == 0 else rows

    @cached_property
    def orbits(self) -> tuple[Orbit, ...]:
        """The heteroclinic orbit of each jump.

        Raises ValueError if they are not known for this network.
        Raises IntegrationError if one cannot be followed to the next saddle.
        """
        return tuple(heteroclinic_orbit(self, jump) for jump in range(len(self.jump_times)))

    def state(self, t: float) -> StartState:
        """The state of the process at accelerated time t, from which it can be continued with other data."""
        s = self.dual(float(t))
        (upper, lower), (up_cost, low_cost) = self.thresholds, self.penalties
        beta = self.beta(float(t))
        up = np.maximum(upper + up_cost * t - s, 0.0)
        low = np.maximum(lower + low_cost * t + s, 0.0)
        # The dual is recomputed from the average: at a bound the distance is rounding.
        up[beta > 0] = 0.0
        low[beta < 0] = 0.0
        if self.order != 2 and self.curves is None:
            return StartState(beta, up, low, weights=self._balanced(beta))
        if self.curves is not None:
            return StartState(beta, up, low)
        rates = np.where(beta > 0, self.speeds[0], np.where(beta < 0, -self.speeds[1], np.nan))
        return StartState(beta, up, low, np.where(beta == 0, np.nan, beta)[None], rates[None])

    def _balanced(self, beta: Array) -> Array:
        """The weights of products that grew from a vanishing start; NaN for others."""
        weights = np.repeat((np.abs(beta) ** (1.0 / self.order))[None], self.order, axis=0)
        weights[0] *= np.where(beta < 0, -1.0, 1.0)
        pretrained = (self.thresholds[0] == 0) | (self.thresholds[1] == 0)
        return np.where(pretrained, np.nan, weights)

    def _rows(self, saddles: Index) -> Array:
        out = np.zeros((len(saddles), self.problem.d))
        for row, saddle in enumerate(saddles):
            out[row, self.supports[saddle]] = self.values[saddle]
        return out

    def _mixed(self, shares: Array) -> Array:
        return np.asarray(shares @ self.sparse_saddles)

    def _travel(self, out: Array, orbit: Orbit, distance: Array) -> None:
        out[:, orbit.coordinates] = orbit.at(distance)


@fields_of.register
def _of_path(path: SaddlePath) -> dict[str, Any]:
    state = path.__getstate__()
    return {each.name: state[each.name] for each in fields(path)} | {"exact": None}
