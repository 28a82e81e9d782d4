r"""Distance of a descent from a flow: in time, in shape, in conserved quantities, at the end.

.. math:: \max_k \lVert \beta(h k) - \beta_k \rVert = O(h^p), \qquad
          p = 1 \text{ for the gradient flow}, \quad p = 2 \text{ for the modified flow}.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np

from flowsim.arrays import Array, Bools
from flowsim.card import Plotted, card, curves, one_line
from flowsim.descent import Ensemble
from flowsim.results import Trajectory
from flowsim.results.saved import Saved
from flowsim.results.trajectory import coordinate_names

#: Points on each path when their shapes are compared.
_SHAPE_POINTS = 400
#: Relative rounding of times at the end of the flow that is allowed for.
_SLACK = 1e-9
#: Relative difference of losses at one start that is rounding.
_SAME_LOSS = 1e-6


@dataclass(frozen=True, eq=False)
class Comparison(Plotted, Saved):
    """One descent against one flow.

    Attributes
    ----------
    step : float
    t : array (K,)
        The flow's clock at the recorded steps of the descent that lie inside the flow: ``h k / (1 - momentum)``, or
        ``h k`` against the modified flow, which includes the momentum.
    distance : array (K,)
        ``||beta_flow(t) - beta_descent(t)||``.
    largest, at_end : float
        The maximum and the last value of `distance`.
    length : array (P,)
        Fractions of the path length, 0 to 1.
    along : array (P,)
        Distance of the points of the two paths at equal fractions of their length.
    hausdorff : float
        Largest distance from a point of one path to the other path.
    length_ratio : float
        Length of the descent's path over that of the flow's, in beta; oscillation makes it larger. 1 if neither moves.
    gain : array (K, pairs, d) or None
        ``ln|J_flow| - ln|J_descent|`` of the conserved quantities: their decay by discrete steps,
        ``-sum ln(1 - h^2 g^2)`` for ``u*v`` without noise. None for a LinearNetwork.
    imbalance_gap : array (K,)
        Largest ``|J_flow - J_descent|``.
    names : tuple of str
        Of the entries of ``beta.ravel()``.
    """

    _plotted_by = "compare"

    step: float
    t: Array
    distance: Array
    length: Array
    along: Array
    hausdorff: float
    length_ratio: float
    gain: Array | None
    imbalance_gap: Array
    flow_beta: Array
    descent_beta: Array
    names: tuple[str, ...]

    __repr__ = one_line

    def _repr_html_(self) -> str:
        figure = curves(self.t, self.distance, "distance of descent and flow over time")
        return card("Descent against flow", self.summary(), figure, "distance over time")

    @property
    def largest(self) -> float:
        return float(self.distance.max())

    @property
    def at_end(self) -> float:
        return float(self.distance[-1])

    def summary(self) -> dict[str, float]:
        """The numbers as one row of a table."""
        row = {
            "step": self.step,
            "largest distance": self.largest,
            "distance at end": self.at_end,
            "largest along path": float(self.along.max()),
            "hausdorff": self.hausdorff,
            "length ratio": self.length_ratio,
            "largest imbalance gap": float(self.imbalance_gap.max()),
        }
        if self.gain is not None:
            finite = self.gain[-1][np.isfinite(self.gain[-1])]
            row["largest gain"] = float(finite.max()) if finite.size else 0.0
        return row


class Comparisons(tuple[Comparison, ...]):
    """Several descents against their flows, from the largest step to the smallest."""

    def __repr__(self) -> str:
        steps = ", ".join(f"{item.step:.3g}" for item in self)
        return f"Comparisons(steps {steps}; order {self.order:.3g})"

    @property
    def steps(self) -> Array:
        return np.array([item.step for item in self])

    @property
    def largest(self) -> Array:
        return np.array([item.largest for item in self])

    @cached_property
    def order(self) -> float:
        """The slope p of ``ln(largest distance)`` against ``ln h``, by least squares; NaN without two of each > 0."""
        if np.ptp(self.steps) == 0 or not (self.largest > 0).all():
            return float("nan")
        return float(np.polyfit(np.log(self.steps), np.log(self.largest), 1)[0])

    @cached_property
    def local_orders(self) -> Array:
        """The slope between neighbouring steps: constant where the asymptotic range is reached."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.diff(np.log(self.largest)) / np.diff(np.log(self.steps))


@dataclass(frozen=True, eq=False)
class EnsembleComparison(Plotted, Saved):
    """The mean of many descents against one flow.

    Attributes
    ----------
    t : array (T,)
    flow_beta, mean, standard_error : array (T, d)
    names : tuple of str
        Of the entries of beta.
    """

    _plotted_by = "compare"

    t: Array
    flow_beta: Array
    mean: Array
    standard_error: Array
    runs: int
    names: tuple[str, ...]

    __repr__ = one_line

    @property
    def distance(self) -> Array:
        """``||flow - mean||``, (T,)."""
        return np.linalg.norm(self.flow_beta - self.mean, axis=1)

    @property
    def noise(self) -> Array:
        """Norm of the standard error, (T,): the expected distance from chance alone."""
        return np.linalg.norm(self.standard_error, axis=1)

    @cached_property
    def deviations(self) -> Array:
        """``(mean - flow) / standard error``, (T, d); 0 where all runs and the flow agree."""
        gap = self.mean - self.flow_beta
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(gap == 0.0, 0.0, gap / self.standard_error)

    def band(self, width: float = 2.0) -> tuple[Array, Array]:
        """Confidence band of the mean, `width` standard errors to either side, (T, d) each."""
        return self.mean - width * self.standard_error, self.mean + width * self.standard_error


@overload
def compare(flow: Trajectory, descent: Trajectory) -> Comparison: ...
@overload
def compare(flow: Trajectory, descent: Ensemble) -> EnsembleComparison: ...
@overload
def compare(flow: Trajectory | Sequence[Trajectory], descent: Sequence[Trajectory]) -> Comparisons: ...
def compare(
    flow: Trajectory | Sequence[Trajectory], descent: Trajectory | Ensemble | Sequence[Trajectory]
) -> Comparison | EnsembleComparison | Comparisons:
    """Compare a descent with a flow of the same network, problem and start.

    Parameters
    ----------
    flow : Trajectory, or sequence of Trajectory
        From :func:`flowsim.gradient_flow` or :func:`flowsim.modified_flow`; one for all descents or one for each.
    descent : Trajectory, sequence of Trajectory, or Ensemble
        From :func:`flowsim.gradient_descent`; several step sizes give the empirical order; an ensemble of seeds gives
        the mean with its confidence band.

    Returns
    -------
    Comparison, Comparisons or EnsembleComparison

    Raises
    ------
    ValueError
        If the two do not match (features, alpha), or the flow is not known at the descent's times: it
        ends before the first step, or it came from a file and was not recorded at them.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[1.0]], [1.0])
    >>> net = fs.DiagonalNetwork("u*v")
    >>> flow = fs.gradient_flow(net, problem, 5.0, alpha=0.1)
    >>> descents = [fs.gradient_descent(net, problem, 0.1 / 2**i, 50 * 2**i, alpha=0.1) for i in range(4)]
    >>> round(fs.compare(flow, descents).order, 1)
    1.0
    """
    if isinstance(descent, Ensemble):
        if not isinstance(flow, Trajectory):
            raise ValueError(f"`flow` must be one Trajectory for an ensemble; received {type(flow).__name__}.")
        return _compare_ensemble(flow, descent)
    if isinstance(descent, Trajectory):
        if not isinstance(flow, Trajectory):
            raise ValueError(f"`flow` must be one Trajectory for one descent; received {type(flow).__name__}.")
        return _compare_one(flow, descent)
    if not isinstance(descent, Iterable):
        raise ValueError(f"`descent` must come from gradient_descent; received {type(descent).__name__}.")
    descents = list(descent)
    flows = [flow] * len(descents) if isinstance(flow, Trajectory) else list(flow)
    if not descents or len(flows) != len(descents):
        raise ValueError(f"`flow` must be one Trajectory or one for each of the {len(descents)} descents.")
    items = [_compare_one(a, b) for a, b in zip(flows, descents, strict=True)]
    return Comparisons(sorted(items, key=lambda item: -item.step))


def _compare_one(flow: Trajectory, descent: Trajectory) -> Comparison:
    _check_pair(flow, descent)
    t, inside = _matched(flow, descent)
    beta, imbalance, log_imbalance = _flow_at(flow, t)
    own = descent.beta[inside]
    matrix = own.ndim == 3
    length, along, hausdorff, ratio = _shapes(_flatten(beta), _flatten(own))
    gap = imbalance - descent.imbalance[inside] if imbalance.shape == descent.imbalance[inside].shape else None
    gain = None
    if gap is not None and not matrix:
        with np.errstate(invalid="ignore"):
            gain = log_imbalance - descent.log_imbalance[inside]
        # Both are exactly zero: no decay.
        gain = np.where(np.isneginf(log_imbalance) & np.isneginf(descent.log_imbalance[inside]), 0.0, gain)
    return Comparison(
        step=float(descent.info["step"]),
        t=t,
        distance=np.linalg.norm(_flatten(beta) - _flatten(own), axis=1),
        length=length,
        along=along,
        hausdorff=hausdorff,
        length_ratio=ratio,
        gain=gain,
        imbalance_gap=np.zeros(len(t)) if gap is None or gap.size == 0 else np.abs(_flatten(gap)).max(axis=1),
        flow_beta=beta,
        descent_beta=own,
        names=tuple(coordinate_names(flow)),
    )


def _compare_ensemble(flow: Trajectory, runs: Ensemble) -> EnsembleComparison:
    if np.ptp(runs.step) > 0:
        raise ValueError("`descent` must have one step size to be averaged; compare its runs one by one instead.")
    _check_pair(flow, runs[0])
    t, inside = _matched(flow, runs[0])
    return EnsembleComparison(
        t=t,
        flow_beta=_flow_at(flow, t)[0],
        mean=runs.mean[inside],
        standard_error=runs.standard_error[inside],
        runs=len(runs),
        names=tuple(coordinate_names(flow)),
    )


def _check_pair(flow: Trajectory, descent: Trajectory) -> None:
    if not isinstance(flow, Trajectory) or "step" in flow.info:
        raise ValueError("`flow` must be a flow; received a descent. The order is compare(flow, descent).")
    if not isinstance(descent, Trajectory) or "step" not in descent.info:
        raise ValueError("`descent` must come from gradient_descent; received a flow.")
    if flow.beta.shape[1:] != descent.beta.shape[1:]:
        raise ValueError(
            f"`flow` and `descent` must have the same features; received beta of shape {flow.beta.shape[1:]} and "
            f"{descent.beta.shape[1:]}."
        )
    logs = flow.info.get("log_alpha"), descent.info.get("log_alpha")
    if None not in logs and logs[0] != logs[1]:
        raise ValueError(
            f"`flow` and `descent` must start at the same alpha; received {flow.info.get('alpha')} and "
            f"{descent.info.get('alpha')}."
        )
    same_start = flow.t[0] == 0 and np.allclose(flow.beta[0], descent.beta[0])
    if same_start and not np.isclose(flow.loss[0], descent.loss[0], rtol=_SAME_LOSS, atol=0.0):
        raise ValueError(
            f"`flow` and `descent` must be of the same problem; their losses at the start are {flow.loss[0]:.6g} and "
            f"{descent.loss[0]:.6g}."
        )


def _matched(flow: Trajectory, descent: Trajectory) -> tuple[Array, Bools]:
    """Times of the flow's clock at the recorded steps, and which steps lie inside the flow."""
    momentum = 0.0 if "modified_for" in flow.info else float(descent.info.get("momentum", 0.0))
    t = descent.t / (1.0 - momentum)
    inside = t <= flow.t[-1] * (1 + _SLACK)
    if inside.sum() < 2:
        raise ValueError(
            f"`flow` must reach beyond the first recorded step, at t = {t[1] if len(t) > 1 else t[0]:.6g}; it ends at "
            f"{flow.t[-1]:.6g}."
        )
    return np.minimum(t[inside], flow.t[-1]), inside


def _flow_at(flow: Trajectory, t: Array) -> tuple[Array, Array, Array]:
    if flow.dense is not None:
        state = flow.at(t)
        return state.beta, state.imbalance, state.log_imbalance
    index = np.clip(np.searchsorted(flow.t, t * (1 - _SLACK)), 0, len(flow.t) - 1)
    if not np.allclose(flow.t[index], t, rtol=_SLACK, atol=0.0):
        raise ValueError(
            "`flow` has no dense output (it was loaded from a file) and was not recorded at the descent's times; "
            "run it again, or save it with t_eval=descent.t."
        )
    return flow.beta[index], flow.imbalance[index], flow.log_imbalance[index]


def _flatten(values: Array) -> Array:
    return values.reshape(len(values), -1)


def _shapes(one: Array, other: Array) -> tuple[Array, Array, float, float]:
    """Fractions of length, distances there, Hausdorff distance, and ratio of lengths, of two polygons."""
    fractions = np.linspace(0.0, 1.0, _SHAPE_POINTS)
    (first, length), (second, other_length) = _resample(one, fractions), _resample(other, fractions)
    along = np.linalg.norm(first - second, axis=1)
    hausdorff = max(_one_sided(first, second), _one_sided(second, first))
    return fractions, along, hausdorff, other_length / length if length > 0 else math.inf if other_length else 1.0


def _resample(path: Array, fractions: Array) -> tuple[Array, float]:
    """Points at the given fractions of the length of a polygon, and that length."""
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    covered = np.concatenate([[0.0], np.cumsum(steps)])
    if covered[-1] == 0.0:
        return np.broadcast_to(path[0], (len(fractions), path.shape[1])), 0.0
    # Drop steps that are below the rounding of the length so far.
    moving = np.concatenate([[True], np.diff(covered) > 0])
    knots, points = covered[moving], path[moving]
    segment = np.clip(np.searchsorted(knots, fractions * covered[-1], side="right") - 1, 0, len(knots) - 2)
    share = (fractions * covered[-1] - knots[segment]) / (knots[segment + 1] - knots[segment])
    return points[segment] + share[:, None] * (points[segment + 1] - points[segment]), float(covered[-1])


def _one_sided(points: Array, path: Array) -> float:
    """Largest distance from a point to a polygon."""
    start, edge = path[:-1], np.diff(path, axis=0)
    square = np.maximum((edge**2).sum(axis=1), np.finfo(float).tiny)
    worst = 0.0
    for point in points:
        share = np.clip(((point - start) * edge).sum(axis=1) / square, 0.0, 1.0)
        worst = max(worst, float(((point - start - share[:, None] * edge) ** 2).sum(axis=1).min()))
    return float(np.sqrt(worst))
