"""Descent at a step size, its half and its quarter, against the gradient flow and the modified flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flowsim.card import one_line
from flowsim.descent import gradient_descent, gradient_descents
from flowsim.descent.settings import check_momentum, check_step
from flowsim.flows import gradient_flow, modified_flow
from flowsim.flows.checks import positive
from flowsim.network import DiagonalNetwork, LinearNetwork
from flowsim.problem import Problem
from flowsim.studies.compare import Comparisons, EnsembleComparison, compare

#: Steps of the longest run, a few minutes on common data; and the number of its states that are kept.
_MOST_STEPS = 20_000_000
_MOST_RECORDS = 2000


@dataclass(frozen=True, eq=False)
class HalvedSteps:
    """The orders in which descent converges to a flow, from three step sizes.

    Attributes
    ----------
    to_flow, to_modified : Comparisons
        Distances to the gradient flow, and to the modified flow of each step size.
    sampled : EnsembleComparison or None
        Runs with sampled noise at the largest step, against the flow of the expected gradient.
    """

    to_flow: Comparisons
    to_modified: Comparisons
    sampled: EnsembleComparison | None = None

    __repr__ = one_line

    def summary(self) -> dict[str, Any]:
        """Orders and largest distances."""
        facts: dict[str, Any] = {
            "order": self.to_flow.order,
            "order to modified flow": self.to_modified.order,
            "runs": [
                {**item.summary(), "largest distance to modified flow": close.largest}
                for item, close in zip(self.to_flow, self.to_modified, strict=True)
            ],
        }
        if self.sampled is not None:
            facts["sampled"] = {
                "largest deviation in standard errors": float(np.abs(self.sampled.deviations).max()),
                "largest distance of the mean": float(self.sampled.distance.max()),
            }
        return facts


def compare_halved_steps(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    step: float,
    t_end: float,
    *,
    alpha: str | float,
    momentum: float = 0.0,
    runs: int = 0,
    seed: int = 0,
    workers: int = 1,
    progress: bool = False,
) -> HalvedSteps:
    """Descend with `step`, `step / 2` and `step / 4` to time `t_end` and compare with the flows.

    Parameters
    ----------
    net, problem
    step : float
        Largest step size.
    t_end : float
        Length of the runs in time ``h k``.
    alpha, momentum
        As for :func:`flowsim.gradient_descent`.
    runs, seed, workers
        Number of runs with sampled noise, their seed and threads.
    progress : bool
        Show how many descents and flows are done.

    Raises
    ------
    ValueError
        If the runs would take too many steps.
    """
    from tqdm import tqdm

    step, momentum, t_end = check_step(step), check_momentum(momentum), positive("t_end", t_end)
    counts = [max(1, round(t_end / (step / 2**halving))) for halving in range(3)]
    if not counts[-1] <= _MOST_STEPS:
        raise ValueError(
            f"`step` must be larger: the runs would take {counts[-1]:.1e} steps; give a larger `step` or `alpha`, or a "
            "smaller `t_end`."
        )
    options: dict[str, Any] = {"alpha": alpha, "momentum": momentum}
    descents = [
        gradient_descent(net, problem, step / 2**halving, count, expected=True, record_every=_spacing(count), **options)
        for halving, count in enumerate(tqdm(counts, desc="descents", disable=not progress))
    ]
    horizon = max(float(descent.t[-1]) for descent in descents)
    flow = gradient_flow(net, problem, horizon / (1 - momentum), alpha=alpha, rtol=1e-9)
    modified = [
        modified_flow(net, problem, descent.info["step"], float(descent.t[-1]), t_eval=descent.t, **options)
        for descent in tqdm(descents, desc="modified flows", disable=not progress)
    ]
    sampled = None
    if runs:
        ensemble = gradient_descents(
            net,
            problem,
            step,
            counts[0],
            runs=runs,
            seed=seed,
            workers=workers,
            record_every=_spacing(counts[0]),
            **options,
        )
        sampled = compare(flow, ensemble)
    return HalvedSteps(compare(flow, descents), compare(modified, descents), sampled)


def _spacing(count: int) -> int:
    """Steps between kept states, for a run of `count` steps."""
    return max(1, count // _MOST_RECORDS)
