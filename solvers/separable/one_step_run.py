"""An integration by the one-step method: which coordinates are loaded, and a bound on all others."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.separable.base import LOAD_ALL, Array, Run
from flowsim.solvers.separable.solution import LoadedSteps

__all__ = ["OneStep"]

#: At least so many coordinates are loaded beyond the active ones: the next to come.
_LOAD_AHEAD = 128
#: Records made room for at once.
_RECORDS = 2048
_ENTRIES = 1 << 17
#: Columns looked at together where all are.
_COLUMNS = 1 << 16
#: z is known to a few roundings of the exponents' size.
_ROUNDINGS = 4.0


@cache
def _one_step() -> Any:
    from flowsim.solvers import separable_kernel

    return separable_kernel


class OneStep(Run):
    """By :mod:`flowsim.solvers.separable_kernel`, with the coordinates that are loaded."""

    def begin(self) -> None:
        flow = self.flow
        logs = flow.log_coefficient
        size = float(np.max(np.abs(logs), where=np.isfinite(logs), initial=0.0))
        self.tol = max(self.tol, _ROUNDINGS * np.finfo(float).eps * size)
        self.nu = np.zeros(flow.rows)
        # A product has no bound yet for coordinates outside.
        self.all_loaded = flow.d <= LOAD_ALL or flow.power > 0
        self.place = np.empty((len(flow.sign), flow.d)) if flow.distance is None else flow.distance.copy()
        empty = np.zeros((len(flow.sign), 0))
        self.outside: tuple[Array, ...] = (empty, empty, empty, np.zeros(0), flow.b, np.zeros(0), np.zeros(0))
        self.rate_bound = float(flow.norms.max()) / flow.n
        if self.all_loaded:
            self._load(np.arange(flow.d), np.zeros(flow.d), np.zeros(flow.d))
            self.passes += 1
        else:
            self.z, self.z_low, self.loaded = np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
            self.refresh()

    def advance(self, budget: int) -> int:
        w = len(self.loaded)
        records = _RECORDS
        entries = max(_ENTRIES, 2 * w)
        t, h = np.empty(records + 1), np.empty(records)
        z = np.empty((records + 1, w))
        nu = np.empty((0 if self.all_loaded else records + 1, self.flow.rows))
        pointer = np.zeros(records + 1, dtype=np.int64)
        which, coefficients = np.empty(entries, dtype=np.int32), np.empty((entries, 5))
        rate = np.empty((records, w))
        powers = self.flow.powers
        place = np.empty((records + 1 if powers.power else 0, len(self.flow.sign), w))
        place[:1] = self.place[:, :w]
        t[0], z[0], nu[:1] = self.clock[0], self.z, self.nu
        status = _one_step().advance(
            self.gram, self.columns, float(self.flow.n), self.drive, powers, *self.exponential,
            self.reach, self.tol, self.t_end, budget, *self.outside,
            self.clock, self.z, self.z_low, self.place, self.nu, self.counts,
            t, h, z, rate, place, nu, pointer, which, coefficients,
        )  # fmt: skip
        steps, used = int(self.counts[4]), int(self.counts[5])
        if steps:
            self.chunks.append(
                LoadedSteps(
                    loaded=None if self.all_loaded else self.loaded,
                    gram=self.gram,
                    columns=self.columns,
                    powers=powers,
                    t=t[: steps + 1].copy(),
                    h=h[:steps].copy(),
                    z=z[: steps + 1].copy(),
                    rate=rate[:steps].copy(),
                    place=place[: steps + 1].copy(),
                    nu=nu[: steps + 1].copy(),
                    pointer=pointer[: steps + 1].copy(),
                    which=which[:used].copy(),
                    coefficients=coefficients[:used].copy(),
                    exponential=self.exponential,
                )
            )
        return int(status)

    def _load(self, index: NDArray[np.int64], z: Array, z_low: Array) -> None:
        flow = self.flow
        self.loaded = index
        self.columns = flow.columns(index)
        # Without Gram matrix the loop works in the rows of A.
        with_gram = len(index) <= max(LOAD_ALL, 2 * flow.rows)
        self.gram = self.columns @ self.columns.T / flow.n if with_gram else np.zeros((0, 0))
        self.drive = self.columns @ flow.b / flow.n
        self.exponential = tuple(np.ascontiguousarray(part[:, index]) for part in flow.exponential)
        if self.all_loaded and with_gram:
            self.reach = np.abs(self.gram).max(axis=1)
        else:
            self.reach = flow.norms[index] * self.rate_bound
        self.z, self.z_low = z, z_low
        if self.flow.power == 0:
            self.place = np.empty((len(self.flow.sign), len(index)))

    def refresh(self) -> None:
        """Pass over A: where every coordinate stands and moves to; load those that count or come next."""
        flow, t = self.flow, float(self.clock[0])
        left = max(self.t_end - t, np.finfo(float).tiny)
        from flowsim.solvers.separable_kernel import log_level

        blocks = [slice(first, first + _COLUMNS) for first in range(0, flow.d, _COLUMNS)]
        logc, slope, decay = flow.log_coefficient, flow.slope, flow.decay
        if len(self.loaded):
            own_log, own_sign, own_slope, own_decay = self.exponential
            exponent = own_log + own_slope * self.z - own_decay * t
            rate = flow.b - np.sum(own_sign * np.exp(exponent), axis=0) @ self.columns
        else:
            beta = np.empty(flow.d)
            for part in blocks:
                beta[part] = np.sum(flow.sign[:, part] * np.exp(logc[:, part]), axis=0)
            rate = flow.b - np.asarray(flow.A @ beta)
            del beta
            self.passes += 1
        both = np.asarray(flow.A.T @ np.stack([self.nu, rate], axis=1))
        both /= flow.n
        self.passes += 1
        both[self.loaded, 0] = self.z
        # One block of columns after the other: what is of the size of d is made once.
        wait, count = np.empty(flow.d), 0
        level = log_level(flow.norms * self.rate_bound, self.tol)
        for part in blocks:
            exponent = logc[:, part] + slope[:, part] * both[part, 0] - decay[:, part] * t
            growth = slope[:, part] * both[part, 1] - decay[:, part]
            goal = level[part] - math.log(left)
            with np.errstate(divide="ignore", invalid="ignore"):
                until = np.where(growth > 0, (goal - exponent) / growth, np.inf)
            # At a negligible level but not growing: after all that count, before all that cannot come.
            until = np.where(np.isnan(until), np.inf, np.maximum(until, 0.0)).min(axis=0)
            counts = (exponent > goal).any(axis=0)
            until[counts] = -1.0
            wait[part] = until
            count += int(counts.sum())
        wanted = count + max(_LOAD_AHEAD, count)
        if wanted < flow.d:
            index = np.sort(np.argpartition(wait, wanted)[:wanted])
        else:
            index = np.arange(flow.d)
        del wait
        z_low = np.zeros(len(index))
        _, here, there = np.intersect1d(index, self.loaded, assume_unique=True, return_indices=True)
        z_low[here] = self.z_low[there]
        self._load(index, both[index, 0], z_low)
        outside = np.ones(flow.d, dtype=bool)
        outside[index] = False
        shape = (len(logc), flow.d - len(index))
        exponents, growths, reaches, done = np.empty(shape), np.empty(shape), np.empty(shape), 0
        for part in blocks:
            which = np.flatnonzero(outside[part]) + part.start
            into = slice(done, done + len(which))
            slopes = slope[:, which]
            exponents[:, into] = logc[:, which] + slopes * both[which, 0] - decay[:, which] * t
            growths[:, into] = slopes * both[which, 1] - decay[:, which]
            reaches[:, into] = np.abs(slopes) * flow.norms[which] / flow.n
            done += len(which)
        self.outside = (exponents, growths, reaches, level[outside], flow.b, self.nu.copy(), rate)
        self.clock[4] = 0.0
