"""Many descents of one network on one problem, with several seeds or step sizes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Bools, Integers
from flowsim.card import one_line
from flowsim.descent.case import Case, check_pair, fault_message, first_bad_step, parted_step
from flowsim.descent.machine import Machine, recorded_steps
from flowsim.descent.settings import Settings, check_step
from flowsim.descent.streams import Seed, child_seeds
from flowsim.descent.tiles import LANES
from flowsim.hints import hinting
from flowsim.network import Alpha, DiagonalNetwork, InitialScale, LinearNetwork, resolve_alpha
from flowsim.plain_numbers import count, read_seed
from flowsim.problem import Problem
from flowsim.results import Trajectory

#: Options that all runs share.
_OPTIONS = [each.name for each in fields(Settings) if each.name not in ("n_steps", "batches", "sizes")]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """R descents at the same T steps.

    Attributes
    ----------
    steps : array (T,)
        Numbers of the recorded steps.
    step : array (R,)
        Step sizes.
    t : array (R, T)
    beta, loss, arclength : array (R, T, d), (R, T), (R, T)
        NaN from the record on at which a run has diverged or is lost to rounding.
    weights : mapping name -> array (R, T, d)
        Of a LinearNetwork U (R, T, D, k) and V (R, T, m, k), in the basis of the row space of the start where k < h.
    success : array (R,)
        False for the runs that diverged or, in weights, were lost to rounding.
    stopped : array (R,)
        The step at which they were; -1 for the others.
    seeds : list of SeedSequence
        Run r is ``gradient_descent(..., step[r], seed=seeds[r])``, up to rounding: sums over rows are
        taken in another order.
    seconds : float
    """

    steps: Integers
    step: Array
    beta: Array
    loss: Array
    arclength: Array
    weights: Mapping[str, Array]
    success: Bools
    stopped: Integers
    seeds: list[np.random.SeedSequence]
    seconds: float
    _sources: list[tuple[Case, Machine, int]]

    __repr__ = one_line

    def __len__(self) -> int:
        return len(self.step)

    @property
    def t(self) -> Array:
        return self.step[:, None] * self.steps

    @cached_property
    def mean(self) -> Array:
        """beta averaged over the runs, (T, d)."""
        self._all_succeeded()
        return self.beta.mean(axis=0)

    @cached_property
    def standard_error(self) -> Array:
        """Of `mean`, (T, d)."""
        self._all_succeeded()
        if len(self) < 2:
            raise ValueError("a standard error needs at least 2 runs; this ensemble has 1.")
        return self.beta.std(axis=0, ddof=1) / np.sqrt(len(self))

    def _all_succeeded(self) -> None:
        if not self.success.all():
            raise ValueError(
                f"{int((~self.success).sum())} of {len(self)} runs diverged; an average over the others would mislead. "
                "Select runs by `success`, or take smaller steps."
            )

    def __getitem__(self, run: int) -> Trajectory:
        """One run as a Trajectory; a run that diverged ends at its last finite record, with success False."""
        case, machine, lane = self._sources[run]
        count = int(np.isfinite(self.loss[run]).sum())
        if count == 0:
            raise ValueError(f"run {run} diverged at its start: it has no finite record.")
        step = float(self.step[run])
        fault = fault_message(case, step, first_bad_step(machine, lane, case)[0], parted_step(machine, lane))
        return case.trajectory(
            machine.read(lane, count), machine, self.steps[:count], step, self.seeds[run], fault, self.seconds
        )


@hinting
def gradient_descents(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    step: float | ArrayLike,
    n_steps: int,
    *,
    alpha: Alpha | InitialScale | None = None,
    runs: int | None = None,
    seed: Seed = None,
    workers: int = 1,
    **options: Any,
) -> Ensemble:
    r"""Many descents at once, sharing the products with X.

    .. math:: \theta^{(r)}_{k+1} = \theta^{(r)}_k - h_r \nabla_\theta L(\theta^{(r)}_k + \xi^{(r)}_k).

    Parameters
    ----------
    net, problem, n_steps, alpha
        As for :func:`flowsim.gradient_descent`.
    step : float or array (R,)
        One step size for all runs, or one for each.
    runs : int, optional
        R, if `step` is a number.
    seed : int, SeedSequence or None
        Run r gets the r-th sequence that ``SeedSequence(seed).spawn(R)`` gives.
    workers : int
        Threads. The result does not depend on it.
    **options
        `start`, `batch_size`, `shuffle`, `label_noise`, `record_every`, `momentum`, `nesterov`, `expected`,
        `radius`, `coordinates`, `gradient_noise`, `temperature`: as for :func:`flowsim.gradient_descent`.

    Returns
    -------
    Ensemble
        Diverged runs are marked, not raised.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[1.0, 0.0], [0.0, 1.0]], [2.0, 1.0])
    >>> runs = fs.gradient_descents(fs.DiagonalNetwork("u*v"), problem, [0.1, 1.0, 9.0], 200, alpha=0.1)
    >>> runs.success.tolist()
    [True, True, False]
    """
    check_pair(net, problem)
    start = options.pop("start", None)
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ValueError(f"`{unknown[0]}` is not an option of gradient_descents; known: start, {', '.join(_OPTIONS)}.")
    settings = Settings.check(problem.n, n_steps=n_steps, **options)
    sizes = _sizes(step, runs)
    count_workers = count("workers", workers)
    sequence = read_seed(seed)
    seeds = child_seeds(sequence, len(sizes))
    case = Case(net, problem, resolve_alpha(alpha, start), start, settings)
    began = time.perf_counter()
    width = LANES if len(sizes) > 1 and case.can_share and settings.batch_size is None else 1
    groups = [range(first, min(first + width, len(sizes))) for first in range(0, len(sizes), width)]
    if width > 1:
        case.data = case.data.for_lanes(problem.d)

    def run(group: range) -> Machine:
        # An incomplete group repeats its last run: the result of a run does not depend on the others.
        filled = [*group] + [group[-1]] * (width - len(group))
        return case.run(settings, sizes[filled], [seeds[r] for r in filled])

    if count_workers == 1:
        machines = [run(group) for group in groups]
    else:
        with ThreadPoolExecutor(count_workers) as pool:
            machines = list(pool.map(run, groups))
    return _gather(case, settings, sizes, seeds, groups, machines, began)


def _sizes(step: float | ArrayLike, runs: int | None) -> Array:
    if np.ndim(step) == 0:
        return np.full(1 if runs is None else count("runs", runs), check_step(step))
    sizes = np.array([check_step(value) for value in np.asarray(step, dtype=object).ravel()])
    if len(sizes) == 0 or np.ndim(step) != 1:
        raise ValueError(f"`step` must be a number or a vector of numbers; received shape {np.shape(step)}.")
    if runs is not None and runs != len(sizes):
        raise ValueError(f"`runs` must be left out or be the number of step sizes, {len(sizes)}; received {runs}.")
    return sizes


def _gather(
    case: Case,
    settings: Settings,
    sizes: Array,
    seeds: list[np.random.SeedSequence],
    groups: list[range],
    machines: list[Machine],
    began: float,
) -> Ensemble:
    ks = recorded_steps(settings.n_steps, settings.record_every)
    stopped = np.full(len(sizes), -1)
    betas, lengths, sources = [], [], []
    weights: dict[str, list[Array]] = {name: [] for name in case.net.weights}
    for group, machine in zip(groups, machines, strict=True):
        for lane, r in enumerate(group):
            bad, read = first_bad_step(machine, lane, case)
            parted = parted_step(machine, lane)
            bad = min((step for step in (bad, parted) if step is not None), default=None)
            count = len(ks)
            if bad is not None:
                stopped[r], count = bad, int(np.searchsorted(ks, bad))
            if read is None or len(read.beta) != count:
                read = machine.read(lane, count)
            betas.append(_padded(read.beta, len(ks)))
            lengths.append(_padded(read.length, len(ks)))
            for name, values in getattr(read.weights, "compressed", read.weights).items():
                weights[name].append(_padded(values, len(ks)))
            sources.append((case, machine, lane))
    beta = np.array(betas)
    return Ensemble(
        steps=ks,
        step=sizes,
        beta=beta,
        loss=case.problem.loss(beta),
        arclength=sizes[:, None] * ks * case.rate + np.array(lengths),
        weights={name: np.array(values) for name, values in weights.items()},
        success=stopped < 0,
        stopped=stopped,
        seeds=seeds,
        seconds=time.perf_counter() - began,
        _sources=sources,
    )


def _padded(values: Array, length: int) -> Array:
    """Values padded with NaN to a length."""
    if len(values) == length:
        return values
    return np.concatenate([values, np.full((length - len(values), *values.shape[1:]), np.nan)])
