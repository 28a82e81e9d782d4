"""The Trajectory of a machine's records."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowsim.arrays import Array
from flowsim.descent.machine import Read
from flowsim.problem import Problem
from flowsim.results import Trajectory
from flowsim.results.events import Events
from flowsim.version import __version__


def finite_records(read: Read, problem: Problem) -> int:
    """The number of records before the first that is not finite."""
    with np.errstate(all="ignore"):
        good = np.isfinite(problem.loss(read.beta))
    # Weights computed on demand are tested in the basis in which they are stored.
    for values in getattr(read.weights, "compressed", read.weights).values():
        good &= np.isfinite(values).reshape(len(good), -1).all(axis=1)
    return len(good) if good.all() else int(np.argmin(good))


def imbalance_departure(read: Read) -> Array:
    r"""``|J_k / J_0 - law_k| / max(1, |law_k|)`` at each record, the largest over coordinates; shape (T,).

    Where J_0 = 0 it is ``|J_k|`` over the size of its terms at 0.
    """
    if read.departure is not None:
        return read.departure
    lawful = np.isfinite(read.log_imbalance[0])
    worst = np.zeros(len(read.beta))
    if lawful.any():
        ratio = read.log_imbalance[:, lawful] - read.log_imbalance[0, lawful]
        sign = read.imbalance_sign[:, lawful] * read.imbalance_sign[0, lawful]
        law = np.zeros_like(ratio) if read.log_law is None else read.log_law[:, lawful]
        law_sign = np.ones_like(ratio) if read.law_sign is None else read.law_sign[:, lawful]
        common = np.maximum(np.maximum(ratio, law), 0.0)
        worst = np.abs(sign * np.exp(ratio - common) - law_sign * np.exp(law - common)).max(axis=1)
    terms = np.broadcast_to(read.terms, lawful.shape)
    rest = ~lawful & (terms > 0)
    if rest.any():
        worst = np.maximum(worst, (np.abs(read.imbalance[:, rest]) / terms[rest]).max(axis=1))
    return worst


def assemble(
    read: Read,
    problem: Problem,
    *,
    t: Array,
    rate: float,
    invariants: tuple[str, ...],
    success: bool,
    message: str,
    stats: dict[str, Any],
    info: dict[str, Any],
) -> Trajectory:
    """The Trajectory of one run; `rate` is d accelerated_time / dt."""
    departure = imbalance_departure(read)
    t = np.asarray(t, dtype=float)
    return Trajectory.of(
        lambda name: problem.log_loss(read.beta) if name == "log_loss" else None,
        t=t,
        accelerated_time=t * rate,
        arclength=t * rate + read.length,
        beta=read.beta,
        weights=read.weights,
        log_abs_weights=read.log_abs_weights,
        loss=problem.loss(read.beta),
        imbalance=read.imbalance,
        log_imbalance=read.log_imbalance,
        imbalance_drift=float(departure.max()),
        imbalance_departure=departure,
        success=success,
        message=message,
        stats=stats,
        invariants=invariants,
        feature_names=problem.feature_names,
        info={**info, "versions": {"flowsim": __version__, "numpy": np.__version__}},
        events=Events(),
    )
