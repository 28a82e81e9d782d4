"""The base class of limit paths: plateaus that end in jumps, joined by orbits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Index, times_of
from flowsim.card import Plotted, card, curves
from flowsim.hints import hinting
from flowsim.limits.convex import Escape
from flowsim.limits.orbit import Orbit
from flowsim.limits.stopping import Stop, at_noise_level
from flowsim.problem import Problem
from flowsim.results.saved import Saved

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Staircase(Plotted, Saved):
    r"""A piecewise constant path in accelerated time: :math:`\beta(t) = \beta_k` for :math:`t_k \le t < t_{k+1}`.

    A subclass provides :attr:`orbits` and the methods that raise NotImplementedError here.

    Attributes
    ----------
    problem : Problem
    jump_times : array (K,)
        Accelerated times ``t / ln(1/alpha)`` (depth L >= 3: ``t * alpha**(L - 2)``) of the jumps; 0 is not one.
    horizon : float
        The time up to which the path is known: inf, unless it was stopped early.
    complete : bool
        Whether the last saddle is the limit as t -> inf.
    message : str
    order : int
        2 for networks of two-layer type, L for products of L weights.
    escape : Escape or None
        Time and direction of the escape, if the loss has no minimum (separable data).
    stats : dict
        jumps, seconds, and further counters of the process.
    """

    _plotted_by = "saddle_to_saddle"

    problem: Problem
    jump_times: Array
    horizon: float = math.inf
    complete: bool = True
    message: str = ""
    order: int = 2
    escape: Escape | None = field(default=None, repr=False)
    stats: dict[str, Any] = field(default_factory=dict, repr=False)

    def _rows(self, saddles: Index) -> Array:
        """Chosen saddles, stacked along the first axis."""
        raise NotImplementedError

    def _mixed(self, shares: Array) -> Array:
        """Linear combinations of the saddles with coefficients ``shares`` (T, K + 1), stacked along the first axis."""
        raise NotImplementedError

    def _travel(self, out: Array, orbit: Orbit, distance: Array) -> None:
        """Overwrite rows of beta by points of an orbit."""
        raise NotImplementedError

    @property
    def orbits(self) -> tuple[Orbit, ...]:
        """The heteroclinic orbit of each jump."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.jump_times)} jumps, {self.message})"

    def _card(self, data: str, facts: dict[str, Any], values: Array, what: str) -> str:
        """The HTML representation for a notebook: facts, and `values` (K + 1, k) of the saddles over time."""
        times = self.jump_times
        ends = ", ".join(f"{time:.6g}" for time in times[[0, -1]]) if len(times) else None
        shown = {"data": data, "jumps": len(times), "first and last jump": ends, **facts}
        shown |= {"loss at the end": float(self.losses[-1]), "status": self.message}
        figure = curves(*self.stairs(values), f"{what} over time")
        return card(type(self).__name__, shown, figure, f"{what}, accelerated time")

    def _table(self, columns: dict[str, Any]) -> pandas.DataFrame:
        """One row per plateau: its start and end, and the given columns."""
        import pandas

        edges = self.edges()
        return pandas.DataFrame({"begins": edges[:-1], "ends": edges[1:], **columns})

    def edges(self, last: float | None = None) -> Array:
        """Beginnings of the plateaus, and the end of the last one (`last`, or the horizon), shape (K+2,)."""
        return np.concatenate([[0.0], self.jump_times, [self.horizon if last is None else last]])

    @property
    def drawn_until(self) -> float:
        """The end of the time axis of figures: a quarter beyond the last jump, within the horizon."""
        last = 1.25 * float(self.jump_times[-1]) if len(self.jump_times) else 1.0
        return min(last, float(np.nextafter(self.horizon, 0)))

    def stairs(self, values: Array) -> tuple[Array, Array]:
        """Abscissae and ordinates of a step function with one row of `values` per plateau, for figures."""
        return np.repeat(self.edges(self.drawn_until), 2)[1:-1], np.repeat(values, 2, axis=0)

    @cached_property
    def saddles(self) -> Array:
        """The plateaus in order, shape (K+1, ...)."""
        return self._rows(np.arange(len(self.jump_times) + 1))

    @cached_property
    def losses(self) -> Array:
        """The training loss on each plateau, shape (K+1,)."""
        return Staircase.risk(self, self.problem)

    @hinting
    def risk(self, problem: Problem) -> Array:
        """The loss of every plateau on other data, shape (K+1,).

        Raises
        ------
        ValueError
            If `problem` has other features.
        """
        if problem.d != self.problem.d:
            raise ValueError(f"`problem` must have d={self.problem.d} features; received {problem.d}.")
        return np.array([float(problem.loss(self._rows(np.array([k]))[0])) for k in range(len(self.jump_times) + 1)])

    @hinting
    def stop(
        self,
        problem: Problem | None = None,
        *,
        noise: float | None = None,
        level: float = 0.95,
        draws: int = 1000,
        seed: int | None = 0,
    ) -> Stop:
        """The plateau for early stopping: of least risk on other data, or with a gradient at the level of noise.

        Parameters
        ----------
        problem : Problem, optional
            Other data; the plateau of least loss on it, the first of several.
        noise : float, optional
            Standard deviation of the targets' noise instead: the first plateau at which the largest normalised gradient
            lies below the quantile `level` of that of noise alone (:mod:`flowsim.limits.stopping`), or the last.
        level, draws, seed
            Quantile, sample size and seed of the null distribution.

        Returns
        -------
        Stop
            ``plateau, begins, ends, beta, value, level``.
        """
        if problem is not None and noise is None:
            risks = self.risk(problem)
            plateau = int(np.argmin(risks))
            value, reference = float(risks[plateau]), float(np.delete(risks, plateau).min(initial=np.inf))
        elif problem is None and noise is not None:
            plateau, value, reference = at_noise_level(self.saddles, self.problem, noise, level, draws, seed)
        else:
            raise ValueError(
                "give either `problem`, to stop at its least risk, or `noise`, to stop at the null gradient."
            )
        begins, ends = (float(time) for time in self.edges()[plateau : plateau + 2])
        return Stop(plateau, begins, ends, self.saddles[plateau], value, reference)

    @property
    def end(self) -> Array:
        """The last saddle of a complete path, in the shape of one beta.

        Raises
        ------
        ValueError
            If the path was stopped before its end.
        """
        if not self.complete:
            raise ValueError(f"the path has not reached its end: {self.message}; its last saddle is `saddles[-1]`.")
        return self._rows(np.array([len(self.jump_times)]))[0]

    def beta(self, t: ArrayLike) -> Array:
        """The path at accelerated times t, continuous from the right: one beta, or (T, ...) for t of shape (T,).

        Raises
        ------
        ValueError
            For t negative, NaN, or beyond the horizon of a path that was stopped early.
        """
        times = self._check_times(t)
        rows = self._rows(np.searchsorted(self.jump_times, np.atleast_1d(times), side="right"))
        return rows[0] if times.ndim == 0 else rows

    def _shares(self, time: float) -> Array:
        """The fraction of [0, time] spent on each plateau; at 0 its limit, the first plateau."""
        if math.isinf(time):
            return np.append(np.zeros(len(self.jump_times)), 1.0)
        last = int(np.searchsorted(self.jump_times, time, side="right"))
        knots = np.concatenate([[0.0], self.jump_times[:last], [time]])
        return np.diff(knots) / time if time > 0 else np.ones(1)

    def time_average(self, t: ArrayLike) -> Array:
        r""":math:`\frac{1}{t} \int_0^t \beta(s) ds`, shapes as in :meth:`beta`; at t = 0 its limit, the first plateau.

        Raises
        ------
        ValueError
            As :meth:`beta`.
        """
        times = self._check_times(t)
        shares = np.zeros((times.size, len(self.jump_times) + 1))
        for row, time in zip(shares, np.atleast_1d(times), strict=True):
            part = self._shares(float(time))
            row[: len(part)] = part
        out = self._mixed(shares)
        return out[0] if times.ndim == 0 else out

    @property
    def travelled(self) -> Array:
        """The distance travelled along orbits from the first plateau to each, (K + 1,)."""
        return np.concatenate([[0.0], np.cumsum([orbit.length for orbit in self.orbits])])

    @property
    def length(self) -> float:
        """Length of all orbits: the distance travelled from the first plateau to the last."""
        return float(self.travelled[-1])

    def arclength(self, t: ArrayLike) -> Array:
        r"""The clock :math:`d\tau = dt + |d\beta|` at accelerated times t, jumps at t included."""
        times = self._check_times(t)
        return times + self.travelled[np.searchsorted(self.jump_times, times, side="right")]

    def curve(self, tau: ArrayLike) -> Array:
        r"""The continuous limit path: saddles joined by orbits, one beta or (T, ...).

        Parameters
        ----------
        tau : float or array (T,)
            Values >= 0 of the clock :math:`d\tau = dt + |d\beta|`, t the accelerated time.

        Raises
        ------
        ValueError
            For tau negative, NaN, or beyond the horizon of a path that was stopped early.
        """
        values = np.asarray(tau, dtype=float)
        if values.ndim > 1:
            raise ValueError(f"`tau` must be a number or a vector; received shape {values.shape}.")
        flat = np.atleast_1d(values)
        if not (flat >= 0).all():
            raise ValueError(f"`tau` must be >= 0; received {flat[~(flat >= 0)][0]}.")
        limit = self.horizon + self.length
        if not self.complete and (flat >= limit).any():
            raise ValueError(f"`tau` must be below {limit:.6g}, where the path was stopped; received {flat.max():.6g}.")
        departs = self.jump_times + self.travelled[:-1]
        passed = np.searchsorted(departs, flat, side="right")
        out = self._rows(passed)
        for jump, orbit in enumerate(self.orbits):
            travelling = np.flatnonzero((passed == jump + 1) & (flat < departs[jump] + orbit.length))
            if travelling.size:
                rows = out[travelling]
                self._travel(rows, orbit, flat[travelling] - departs[jump])
                out[travelling] = rows
        return out[0] if values.ndim == 0 else out

    def curve_loss(self, tau: ArrayLike) -> Array:
        """The training loss along :meth:`curve`."""
        return self.problem.loss(self.curve(tau))

    def _check_times(self, t: ArrayLike) -> Array:
        times = times_of(t)
        bad = ~(times >= 0)
        if bad.any():
            raise ValueError(f"`t` must be >= 0; received {np.atleast_1d(times)[np.atleast_1d(bad)][0]}.")
        if not self.complete and (times >= self.horizon).any():
            raise ValueError(
                f"`t` must be below {self.horizon:.6g}, where the path was stopped ({self.message}); "
                f"received {times.max():.6g}."
            )
        return times
