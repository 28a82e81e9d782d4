"""Convergence of a flow to the limit process as alpha decreases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.arrays import Array
from flowsim.card import Plotted, card, curves, one_line
from flowsim.errors import IntegrationError
from flowsim.flows import gradient_flow
from flowsim.hints import hinting
from flowsim.limits import LinearSaddlePath, SaddlePath, saddle_to_saddle
from flowsim.network import Alpha, DiagonalNetwork, GivenWeights, InitialScale, LinearNetwork
from flowsim.problem import Problem
from flowsim.results import Trajectory
from flowsim.results.saved import Saved
from flowsim.studies.jumps import measured_jump_times, plateau_times

if TYPE_CHECKING:
    import pandas

#: Duration of the run relative to the last jump.
_OVERTIME = 0.5
#: Relative distance of ln(alpha) below which two scales are the same.
_SAME = 1e-12


@dataclass(frozen=True)
class Rate:
    r"""A power law ``error = constant * small^order`` fitted to each jump by least squares in logarithms.

    Attributes
    ----------
    order : float
        Median over the jumps.
    uncertainty : float
        Median standard error of a jump's order; NaN with fewer than three points.
    constant : float
        Median over the jumps, at this order.
    expected : float
        The order of theory: 1 in ``1/ln(1/alpha)`` for two-layer networks, L - 2 in alpha for depth L.
    variable : str
        The small quantity.
    points : int
        Number of scales in the fit.
    """

    order: float
    uncertainty: float
    constant: float
    expected: float
    variable: str
    points: int

    def __str__(self) -> str:
        spread = "" if math.isnan(self.uncertainty) else f" ± {self.uncertainty:.2f}"  # undefined for two points
        return f"{self.order:.2f}{spread} in {self.variable} (theory {self.expected:g})"


@dataclass(frozen=True, eq=False)
class LimitStudy(Plotted, Saved):
    r"""Errors of flows against their limit, one row per scale.

    Attributes
    ----------
    path : SaddlePath or LinearSaddlePath
    alphas : tuple of str
    gamma : array (A,)
        ``ln(1/alpha)``.
    plateau_errors : array (A, K+1)
        ``max_i |beta_i - limit|`` in the middle of each plateau, relative to the largest coefficient of the path.
    time_errors : array (A, K)
        Relative error of each jump time (half way between saddles); NaN where the flow does not cross.
    end_errors : array (A,)
        The same as `plateau_errors`, at the end of the run.
    rate : Rate
        Fit of the errors of jump times.
    trajectories : tuple of Trajectory
    """

    _plotted_by = "limit_study"

    path: SaddlePath | LinearSaddlePath
    alphas: tuple[str, ...]
    gamma: Array
    plateau_errors: Array
    time_errors: Array
    end_errors: Array
    rate: Rate
    trajectories: tuple[Trajectory, ...]

    __repr__ = one_line

    def _repr_html_(self) -> str:
        facts = {
            "jumps": len(self.path.jump_times),
            "alpha": f"{self.alphas[0]} to {self.alphas[-1]}",
            "order of jump times": str(self.rate),
            "smallest error of jump times (median)": float(np.min(self.median_time_error)),
        }
        errors = np.column_stack([self.median_time_error, self.median_plateau_error])
        figure = curves(self.gamma, errors, "errors over ln(1/alpha)", log=True)
        return card("Flow against its limit", facts, figure, "errors of jump times and plateaus over ln(1/alpha), log")

    def to_dataframe(self) -> pandas.DataFrame:
        """The same as :meth:`table`."""
        return self.table()

    @property
    def median_plateau_error(self) -> Array:
        return np.median(self.plateau_errors, axis=1)

    @property
    def median_time_error(self) -> Array:
        finite = [row[np.isfinite(row)] for row in self.time_errors]
        return np.array([np.median(row) if row.size else math.nan for row in finite])

    def table(self) -> pandas.DataFrame:
        """One row for each alpha: median and largest plateau error, jump-time errors, end-point error."""
        import pandas

        counts = np.isfinite(self.time_errors).sum(axis=1)
        return pandas.DataFrame(
            {
                "alpha": self.alphas,
                "gamma": self.gamma,
                "plateau_median": self.median_plateau_error,
                "plateau_max": self.plateau_errors.max(axis=1),
                "jump_time_median": self.median_time_error,
                "jumps_seen": [f"{count}/{self.time_errors.shape[1]}" for count in counts],
                "end": self.end_errors,
            }
        )

    def summary(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "jump_times": self.path.jump_times.tolist(),
            "rate": vars(self.rate),
            "table": self.table().to_dict(orient="records"),
        }


@hinting
def limit_study(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    alphas: Sequence[Alpha],
    start: GivenWeights | None = None,
    *,
    rtol: float = 1e-9,
    progress: bool = False,
    **options: Any,
) -> LimitStudy:
    r"""Run the flow at each alpha and measure its distance from the limit process.

    .. math:: \text{jump times: } O(1/\gamma), \;\; \gamma = \ln(1/\alpha) \text{ (two-layer)}, \qquad
              O(\alpha^{L-2}) \text{ (depth L)}.

    Parameters
    ----------
    net, problem, start
        As in :func:`flowsim.gradient_flow`.
    alphas : sequence of float, str, Decimal or Fraction
        Scales, at least one, each below 1.
    rtol : float
        Tolerance of the flows.
    progress : bool
    **options
        Further arguments of :func:`flowsim.gradient_flow`.

    Raises
    ------
    ValueError
        For an empty list, an alpha of 1 or more or given twice, or a problem without jumps.
    IntegrationError
        If a flow cannot be continued; the message names its alpha.
    """
    from tqdm import tqdm

    if isinstance(alphas, str) or not isinstance(alphas, Iterable):
        raise ValueError(f"`alphas` must be a sequence of scales; received {alphas!r}.")
    try:
        scales = [InitialScale.parse(alpha) for alpha in alphas]
    except ValueError as error:
        raise ValueError(str(error).replace("`alpha`", "`alphas`", 1)) from None
    if not scales:
        raise ValueError("`alphas` must hold at least one scale; received none.")
    for number, scale in enumerate(scales):
        if not scale.log < 0:
            raise ValueError(f"`alphas` must lie below 1; received {scale}.")
        if any(math.isclose(scale.log, other.log, rel_tol=_SAME) for other in scales[:number]):
            raise ValueError(f"`alphas` must differ; received {scale} twice.")
    path = saddle_to_saddle(net, problem, start)
    if not len(path.jump_times):
        raise ValueError("`problem` must have at least one jump; its limit process never leaves the start.")
    horizon = (1 + _OVERTIME) * float(path.jump_times[-1])
    if path.escape is not None:
        horizon = path.horizon
    middles = plateau_times(path, horizon)
    limits = path.beta(middles)
    size = float(np.abs(path.saddles).max())
    plateau_errors, time_errors, end_errors, trajectories = [], [], [], []
    for scale in tqdm(scales, desc="alpha", disable=not progress):
        try:
            flow = gradient_flow(
                net, problem, horizon, alpha=scale, start=start, clock="accelerated", rtol=rtol, **options
            )
        except IntegrationError as error:
            raise IntegrationError(f"alpha={scale}: {error}", error.trajectory) from error
        states = flow.at(middles, clock="accelerated").beta
        plateau_errors.append(np.abs(states - limits).reshape(len(middles), -1).max(axis=1) / size)
        time_errors.append(np.abs(measured_jump_times(flow, path) / path.jump_times - 1))
        end_errors.append(float(np.abs(flow.beta[-1] - limits[-1]).max() / size))
        trajectories.append(flow)
    gamma = np.array([scale.gamma for scale in scales])
    errors = np.array(time_errors)
    return LimitStudy(
        path=path,
        alphas=tuple(str(scale) for scale in scales),
        gamma=gamma,
        plateau_errors=np.array(plateau_errors),
        time_errors=errors,
        end_errors=np.array(end_errors),
        rate=_rate(gamma, errors, path.order),
        trajectories=tuple(trajectories),
    )


def _rate(gamma: Array, errors: Array, order: int) -> Rate:
    """Each jump is fitted at the scales at which it is found: a median over jumps that differ by scale has no order."""
    log_small = -np.log(gamma) if order == 2 else -gamma
    variable, expected = ("1/ln(1/alpha)", 1.0) if order == 2 else ("alpha", order - 2.0)
    fits, seen = [], np.isfinite(errors) & (errors > 0)
    for found, row in zip(seen.T, errors.T, strict=True):
        x, y = log_small[found], np.log(row[found])
        if len(np.unique(x)) < 2:
            continue
        away = x - x.mean()
        slope = away @ y / (away @ away)
        residual = y - y.mean() - slope * away
        variance = residual @ residual / (len(x) - 2) / (away @ away) if len(x) > 2 else math.nan
        fits.append((slope, math.sqrt(variance), x.mean(), y.mean()))
    points = int(seen.any(axis=1).sum())
    if not fits:
        return Rate(math.nan, math.nan, math.nan, expected, variable, points)
    slopes, spreads, x, y = np.array(fits).T
    slope, spreads = float(np.median(slopes)), spreads[np.isfinite(spreads)]
    uncertainty = float(np.median(spreads)) if len(spreads) else math.nan
    return Rate(slope, uncertainty, float(np.exp(np.median(y - slope * x))), expected, variable, points)
