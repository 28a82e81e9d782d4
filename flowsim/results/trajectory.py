"""The result object of every flow and every descent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, times_of
from flowsim.card import Plotted, card, curves
from flowsim.hints import hinting
from flowsim.results.events import Events
from flowsim.results.files import labelled
from flowsim.results.netcdf import Labelled
from flowsim.results.saved import Saved
from flowsim.results.state import CLOCK_NAMES, Clock, Dense, State, nothing

if TYPE_CHECKING:
    import pandas
    import xarray

    from flowsim.problem import Problem


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory(Plotted, Saved, State):
    """A flow or a descent, sampled at T times.

    Attributes
    ----------
    t, accelerated_time, arclength : array (T,)
        The three clocks. ``accelerated_time = t / ln(1/alpha)`` for two-layer networks and
        ``t * alpha**(L - 2)`` for homogeneous degree L >= 3, where t is infinite on overflow;
        ``d arclength = d accelerated_time + ||d beta||``.
    beta : array (T, d), or (T, D, m) for a LinearNetwork
        The predictor.
    weights : mapping name -> array (T, d)
        Weights as floats: 0.0 where they underflow (see ``log_abs_weights``).
    log_abs_weights : mapping name -> array (T, d)
        ``ln |weight|``, finite at every alpha; -inf where a weight is exactly zero.
    loss : array (T,)
        Training loss ``L(beta)``, without the noise term.
    log_loss : array (T,)
        ``ln L(beta)``, by the logarithms of its terms: finite where the loss itself underflows.
    imbalance : array (T, pairs, d), or (T, k, k) for a LinearNetwork
        The conserved quantities named by ``invariants``: ``w_1^2 - w_l^2`` for products of weights.
    log_imbalance : array, as imbalance
        ``ln |imbalance|``.
    speed : array (T,) or None
        ``||d beta|| / d accelerated_time``: far below 1 on a plateau, of order ln(1/alpha) in a jump of a two-layer
        network. None for a descent.
    levels : array (T, w) or None
        For a LinearNetwork with alpha < 1: ``1 + l_j / ln(1/alpha)`` of the w directions of its frame, descending; 0 at
        the start, 1 for a direction that has grown to order one, -inf for one that is absent from the start.
        ``singular_values`` are those of beta.
    imbalance_drift : float
        Largest deviation of the imbalance from its exact law, relative to its value at 0 (to the size of its
        terms at 0 where that value is 0). NaN for a LinearNetwork under noise run by one of SciPy's methods: only the
        native method integrates the law.
    invariants : tuple of str
        Formulas of the quantities in ``imbalance``.
    success : bool
    message : str
    stats : dict
        steps, rejected, nfev, njev, seconds, and further counters of the method.
    info : dict
        Network, alpha, noise, method, coordinates, clock, tolerances, versions: plain JSON values.
    imbalance_departure : array (T,) or None
        The deviation at each time, the largest over coordinates.
    error_estimate : array (T,) or None
        Estimated global error of beta in the largest-entry norm, if requested.
    events : Events
        The events requested that occurred: a sequence of :class:`flowsim.events.Occurrence`.
    """

    _plotted_by = "trajectory"

    imbalance_drift: float
    success: bool
    message: str
    stats: dict[str, Any]
    invariants: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = field(default_factory=tuple)
    info: dict[str, Any] = field(default_factory=dict)
    imbalance_departure: Array | None = field(default_factory=nothing)
    error_estimate: Array | None = None
    events: Events = field(default_factory=Events)
    #: maps (values of a clock, clock) to states; None for a descent and for a trajectory loaded from a file
    dense: Dense | None = None

    def __len__(self) -> int:
        return len(self.t)

    def at(self, t: ArrayLike, clock: Clock = "time") -> State:
        """The state at any time inside the run, by the integrator's dense output.

        Parameters
        ----------
        t : float or array (K,)
            Values of `clock`.
        clock : {"time", "accelerated", "arclength", "log_loss"}
            "log_loss" (``ln(1/L)``) for runs on that clock.

        Returns
        -------
        State
            With a leading axis K if `t` is an array.

        Raises
        ------
        ValueError
            If `t` lies outside the run or is not finite, or if the trajectory has no dense output.
        """
        if self.dense is None:
            raise ValueError(
                "this trajectory has no dense output: it was loaded from a file or is a descent; "
                "its recorded points are in `t` and `beta`."
            )
        values = times_of(t)
        if clock == "log_loss" and self.info.get("clock") != clock:
            raise ValueError("`clock` can be 'log_loss' for runs on that clock only.")
        # The whole run, also where the reported times cover a part of it.
        own, (low, high) = self.clock_values(clock), self.dense.span(clock)
        low, high = min(low, float(own[0])), max(high, float(own[-1]))
        if not np.isfinite([low, high]).all():
            raise ValueError(
                f"the {clock} of this run leaves the range of floats: rescale X and y, or read it by time."
            )
        # Allow for rounding at the two ends, without extrapolation.
        slack = 1e-12 * max(abs(high), np.finfo(float).tiny)
        bad = ~((values >= low - slack) & (values <= high + slack))
        if bad.any():
            first = np.atleast_1d(values)[np.atleast_1d(bad)][0]
            raise ValueError(f"`t` must lie in the run, [{low:.6g}, {high:.6g}] in {clock}; received {first}.")
        state = self.dense(np.clip(np.atleast_1d(values), low, high), clock)
        return state[0] if values.ndim == 0 else state

    @hinting
    def risk(self, problem: Problem) -> Array:
        """The loss of the predictor on other data along the run, ``problem.loss(beta)``, shape (T,)."""
        if self.beta.shape[1] != problem.d:
            raise ValueError(f"`problem` must have d={self.beta.shape[1]} features; received {problem.d}.")
        return np.asarray(problem.loss(self.beta))

    def to_xarray(self) -> xarray.Dataset:
        """All fields as a labelled dataset with units and long names; `info` and `stats` as JSON attributes."""
        return labelled(self).to_xarray()

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per recorded time: the three clocks, the loss, and ``beta[name]`` for every coordinate."""
        import pandas

        names = coordinate_names(self)
        clocks = {"t": self.t, "accelerated_time": self.accelerated_time, "arclength": self.arclength}
        beta = pandas.DataFrame(self.beta.reshape(len(self), -1), columns=[f"beta[{name}]" for name in names])
        return pandas.concat([pandas.DataFrame({**clocks, "loss": self.loss}), beta], axis=1)

    def _labelled(self) -> Labelled:
        return labelled(self)

    def __repr__(self) -> str:
        network = self.info.get("network")
        verdict = "success" if self.success else f"stopped: {self.message}"
        return (
            f"Trajectory({f'{network}, ' if network else ''}{len(self)} times to t = {float(self.t[-1]):.6g}, "
            f"loss {float(self.loss[-1]):.6g}, {verdict})"
        )

    def _repr_html_(self) -> str:
        clock: Clock = "accelerated" if 0 < self.accelerated_time[-1] < np.inf else "time"
        info, shape = self.info, self.beta.shape[1:]
        facts = {
            "network": info.get("network"),
            "coordinates": " x ".join(str(size) for size in shape),
            "alpha": info.get("alpha"),
            "times": len(self),
            "end": f"t = {float(self.t[-1]):.6g}, accelerated time {float(self.accelerated_time[-1]):.6g}",
            "loss at the end": float(self.loss[-1]),
            "drift of conserved quantities": f"{self.imbalance_drift:.1e}",
            "estimated error": None if self.error_estimate is None else f"{self.error_estimate.max():.1e}",
            "events": len(self.events) or None,
            "method": info.get("method"),
            "status": "success" if self.success else f"stopped: {self.message}",
        }
        figure = curves(self.clock_values(clock), self.beta.reshape(len(self), -1), "coordinates of beta over time")
        return card("Trajectory", facts, figure, f"coordinates of beta, {CLOCK_NAMES[clock]}")


def coordinate_names(trajectory: Trajectory) -> list[str]:
    """Names of the entries of beta in the order of ``beta.ravel()``."""
    shape = trajectory.beta.shape[1:]
    features = list(trajectory.feature_names) or [f"x{i}" for i in range(shape[0])]
    return features if len(shape) == 1 else [f"{name}, {m}" for name in features for m in range(shape[1])]
