r"""The frame form of the growth map: two-layer linear networks at any scale of their start.

``Z = (U_1; V)``, U_1 the part of U in the row space of X, obeys ``Z' = S(beta) Z``,

.. math:: S = \begin{pmatrix} -a & G \\ G^\top & -b \end{pmatrix}, \qquad G = -\nabla L(\beta),

a and b from weight noise and weight decay, and :mod:`flowsim.solvers.frames` propagates it in graded form: alpha enters
through logarithms alone. Three exact reductions come first: the width is reduced to the rank of the start, U to the row
space of X, and U and V are exchanged so that the smaller side is eliminated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from flowsim.arrays import Array, gauss_points
from flowsim.growth.couplings import ReducedData, Transposed, reduce_data
from flowsim.network import Logs
from flowsim.network.compression import Compression, compress
from flowsim.network.decay import Decay, DecaySchedule, integrals, rates
from flowsim.network.linear_start import LinearCase, compressed_start, linear_start
from flowsim.solvers.frames import Frame, FrameProblem, FrameStates, factor_frame

#: Bounds on the part of a start that its frame omits: above the frame's own rounding, below the start's rounding.
_OWN_ROUNDING, _LARGEST_ROUNDING = 4e-15, 1e-12
#: Logarithm of the ratio of a value to its rounding.
_SEEN = -math.log(np.finfo(float).eps)
#: Largest span of the logarithms of one factor: beyond it small entries are lost beside large ones.
_WIDEST = 700.0
#: Points of Gauss's rule per step, for the law of the imbalance under unequal damping.
_GAUSS = 8


@dataclass(frozen=True, eq=False)
class Outside:
    """The part of U outside the row space of X: ``exp(-K(t)) sum_g exp(log_g) part_g``."""

    parts: list[tuple[Array, float]]
    decay: Decay

    @cached_property
    def is_there(self) -> bool:
        return any(part.any() for part, _ in self.parts)

    def log_unit(self, t: Array) -> Array:
        """Logarithm of its largest factor, (T,)."""
        return max((log for part, log in self.parts if part.any()), default=-np.inf) - integrals(self.decay, t)

    def value(self, t: Array, shift: Array | float) -> Array:
        """Times ``exp(-shift)``, (T, D, k)."""
        with np.errstate(under="ignore"):
            lost = shift + integrals(self.decay, t)
            total = sum(np.exp(log - lost)[..., None, None] * part for part, log in self.parts)
        return np.asarray(total)

    @cached_property
    def gram(self) -> tuple[Array, float]:
        """``U_2^T U_2`` at time 0 as (matrix, logarithm of its unit)."""
        top = max((log for part, log in self.parts if part.any()), default=0.0)
        with np.errstate(under="ignore"):
            whole = sum(np.exp(log - top) * part for part, log in self.parts)
        return np.asarray(whole).T @ whole, 2 * top


@dataclass(frozen=True, eq=False)
class LinearGrowth:
    """The reduced flow of a network on a problem, and the maps from its states to weights and coefficients.

    Attributes
    ----------
    compression : Compression
        Hidden width h to k.
    hidden : array (k, k0)
        Orthonormal: the row space of the moving part of the start.
    exchanged : bool
        Whether V is the first half of the state.
    lost : float
        Part of the start, relative to the largest, that counts as its rounding although it exceeds this class's own.
    """

    data: ReducedData
    compression: Compression
    hidden: Array
    exchanged: bool
    problem: FrameProblem
    start: Frame
    outside: Outside
    lost: float = 0.0

    @classmethod
    def of(cls, case: LinearCase, data: ReducedData | None = None) -> LinearGrowth:
        """At the start of the case; `data` if they were reduced already.

        Raises ValueError for a start of the wrong shape, one that is not finite, or one that never moves.
        """
        data = reduce_data(case.net, case.problem) if data is None else data
        compression, parts = start_parts(case)
        reduced = [(*data.inside(U), V, log) for U, V, log in parts]
        stacked = np.concatenate([block for inside, _, V, _ in reduced for block in (inside, V)])
        if not stacked.any():
            raise ValueError(
                "`start` must not have V = 0 and U outside the row space of X: that is a saddle a flow never leaves."
            )
        hidden = _row_space(stacked)
        rank, m = data.rank, case.problem.n_targets
        exchanged = rank < m
        coupling: Any = Transposed(data.coupling) if exchanged else data.coupling
        sides = (data.damping_v, data.damping_u) if exchanged else (data.damping_u, data.damping_v)
        moving = [
            ((V @ hidden, U @ hidden) if exchanged else (U @ hidden, V @ hidden)) + (log,)
            for U, _, V, log in reduced
            if U.any() or V.any()
        ]
        still = FrameProblem(coupling, *sides, paired=len(moving) == 1 or _is_balanced(moving[0]))
        flow = _decaying(still, sides, data.decay.rate(0.0))
        frame = factor_frame(moving, flow.paired)
        outside = Outside([(rest, log) for _, rest, _, log in reduced], data.decay)
        return cls(data, compression, hidden, exchanged, flow, frame, outside, _lost(frame, moving[0]))

    def pieces(self, t_end: float) -> list[tuple[FrameProblem, float]]:
        """The flow over spans of constant weight decay, and their ends."""
        data, ends, flow = self.data, [t_end], self.problem
        if isinstance(data.decay, DecaySchedule):
            ends = [t for t in data.decay.times if t < t_end] + ends
        noise = (data.damping_v, data.damping_u) if self.exchanged else (data.damping_u, data.damping_v)
        later = [_decaying(flow, noise, data.decay.rate(since)) for since in ends[:-1]]
        return list(zip([flow, *later], ends, strict=True))

    def halves(self, states: FrameStates) -> tuple[Array, Array]:
        """U_1 (T, r, k0) and V (T, m, k0), times ``exp(-shift)``."""
        return (states.second, states.first) if self.exchanged else (states.first, states.second)

    def plain_halves(self, states: FrameStates) -> tuple[Array, Array]:
        """The same for what follows from products alone."""
        return states.plain[::-1] if self.exchanged else states.plain

    def reduced_beta(self, states: FrameStates) -> Array:
        """``U_1 V^T``, (T, r, m)."""
        product = np.swapaxes(states.product, -1, -2) if self.exchanged else states.product
        with np.errstate(under="ignore"):
            return np.exp(2 * states.shift)[:, None, None] * product

    def beta(self, t: Array, states: FrameStates) -> Array:
        """``U V^T``, (T, D, m)."""
        if not self.outside.is_there:
            return self.data.lift(self.reduced_beta(states))
        V = self.plain_halves(states)[1]
        with np.errstate(under="ignore"):
            outer = self.outside.value(t, 0.0) @ self.hidden @ np.swapaxes(V, -1, -2)
            return self.data.lift(self.reduced_beta(states)) + np.exp(states.shift)[:, None, None] * outer

    def velocity(self, t: Array, states: FrameStates) -> Array:
        """``d beta / dt``, (T, D, m)."""
        U, V = self.plain_halves(states)
        decay = rates(self.data.decay, t)[:, None, None]
        a, b = self.data.damping_u[:, None] + decay, self.data.damping_v[:, None] + decay
        with np.errstate(under="ignore"):
            G = self.data.coupling.value(self.reduced_beta(states))
            dU, dV = G @ V - a * U, np.swapaxes(G, -1, -2) @ U - b * V
            across, dacross = np.swapaxes(V, -1, -2), np.swapaxes(dV, -1, -2)
            outer, unit = self.outside.value(t, 0.0) @ self.hidden, np.exp(states.shift)[:, None, None]
            rate = unit * self.data.lift(dU @ across + U @ dacross)
            return unit * (rate + outer @ dacross - decay * (outer @ across))

    def log_units(self, t: Array, states: FrameStates) -> dict[str, Array]:
        """Logarithms (T,) of units in which weights are floats.

        The part of U that only decays can be larger than the state by more than the range of floats.
        """
        return {"U": np.maximum(states.shift, self.outside.log_unit(t)), "V": states.shift}

    def weights(self, t: Array, states: FrameStates) -> dict[str, Array]:
        """U (T, D, k) and V (T, m, k) in the compressed basis, in units of :meth:`log_units`."""
        (U, V), unit = self.halves(states), self.log_units(t, states)["U"]
        with np.errstate(under="ignore"):
            inside = np.exp(states.shift - unit)[:, None, None] * self.data.lift(U @ self.hidden.T)
        return {"U": inside + self.outside.value(t, unit), "V": V @ self.hidden.T}

    def imbalance(self, t: Array, states: FrameStates) -> tuple[Array, Array]:
        """``U^T U - V^T V`` (T, k, k) and the logarithms of its units (T,)."""
        gram, log = self.outside.gram
        out, units = np.zeros((len(states), *gram.shape)), np.zeros(len(states))
        known = zip(self._inside_imbalance(states), integrals(self.data.decay, t), strict=True)
        for index, ((inside, unit), lost) in enumerate(known):
            both = (self.hidden @ inside @ self.hidden.T, unit), (gram, log - 2 * lost)
            terms = [(term, size) for term, size in both if term.any()]
            units[index] = max((size for _, size in terms), default=0.0)
            with np.errstate(under="ignore"):
                out[index] = sum(np.exp(size - units[index]) * term for term, size in terms)
        return out, units

    def _inside_imbalance(self, states: FrameStates) -> list[tuple[Array, float]]:
        """``U_1^T U_1 - V^T V`` (k0, k0) with its unit: of a paired frame from what it conserves."""
        if self.start.is_paired:
            sign = -1.0 if self.exchanged else 1.0
            return [(sign * inside, unit) for inside, unit in states.conserved]
        U, V = self.halves(states)
        return [(u.T @ u - v.T @ v, 2 * float(shift)) for u, v, shift in zip(U, V, states.shift, strict=True)]

    def departure(self, t: Array, states: FrameStates) -> Array:
        r"""Departure of ``Z^T J Z`` from its law, relative to its value at 0, or its terms where that is 0.

        With equal damping kappa the law is ``exp(-2 int kappa)``; where that is below the rounding of the value at 0,
        the departure is relative to this rounding: later it would only be that of the exponent. With unequal damping
        ``d/dt (U^T U - V^T V) = -2 (U^T a U - V^T b V)``, integrated along the run and examined at the ends of its
        steps, relative to the largest terms so far.
        """
        if self.start.is_paired:
            return self._paired_departure(t, states)
        solution = states.solution
        law = solution.integral(
            lambda states: self._imbalance_rate(solution.t[states.step], states), self._imbalance_inside
        )
        gap = self._gap(solution.y, law)
        return gap[np.minimum(states.step + (states.position > 0), len(gap) - 1)]

    def departure_along(self, ends: Array, read: Callable[[Array], FrameStates], t: Array) -> Array:
        """The same for a run in plain weights: the law by Gauss's rule on the steps between `ends`.

        Parameters
        ----------
        ends : array (S + 1,)
        read : callable
            Times (K,) to states.
        t : array (T,)
            Times of evaluation: each takes the value at the next end of a step.
        """
        if self.start.is_paired:
            return self._paired_departure(t, read(t))
        points, weights = gauss_points(ends, _GAUSS)
        change = self._imbalance_rate(points.ravel(), read(points.ravel()))
        parts = np.einsum("sg,sgij->sij", weights, change.reshape(*points.shape, *change.shape[1:]))
        gap = self._gap(read(ends), np.concatenate([np.zeros_like(parts[:1]), np.cumsum(parts, axis=0)]))
        return gap[np.minimum(np.searchsorted(ends, t), len(gap) - 1)]

    def _gap(self, ends: FrameStates, law: Array) -> Array:
        """Between the change of the imbalance and its law, relative to the largest terms so far."""
        seen = self._imbalance_inside(ends)
        with np.errstate(under="ignore"):
            terms = np.exp(2 * ends.shift) * sum((half**2).sum(axis=(1, 2)) for half in self.halves(ends))
        reference = np.maximum(np.maximum.accumulate(terms), np.finfo(float).tiny)
        return np.asarray(np.linalg.norm(seen - seen[0] - law, axis=(1, 2)) / reference)

    def _imbalance_inside(self, states: FrameStates) -> Array:
        U, V = self.halves(states)
        with np.errstate(under="ignore"):
            square = np.exp(2 * states.shift)[:, None, None]
            return square * (np.swapaxes(U, -1, -2) @ U - np.swapaxes(V, -1, -2) @ V)

    def _imbalance_rate(self, t: Array, states: FrameStates) -> Array:
        U, V = self.halves(states)
        decay = rates(self.data.decay, t)[:, None, None]
        with np.errstate(under="ignore"):
            square = -2 * np.exp(2 * states.shift)[:, None, None]
            a, b = self.data.damping_u[:, None] + decay, self.data.damping_v[:, None] + decay
            return square * (np.swapaxes(U, -1, -2) @ (a * U) - np.swapaxes(V, -1, -2) @ (b * V))

    def _paired_departure(self, t: Array, states: FrameStates) -> Array:
        first, unit = self.start.conserved()
        # What noise damps is the same everywhere in a paired frame.
        lost = float(self.data.damping_u[0]) * t + integrals(self.data.decay, t)
        halves = self.start.value(self.start.scale)
        terms = sum(float(np.sum(half**2)) for half in halves)
        size = float(np.linalg.norm(first))
        top = unit + np.log(size) if size > 0 else -np.inf
        whole = 2 * self.start.scale + np.log(terms)
        # For a balanced start the departure is relative to the terms.
        reference = top if top > whole + np.log(1e3 * np.finfo(float).eps) else whole
        out = np.empty(len(states))
        for index, (now, log) in enumerate(states.conserved):
            seen = min(_SEEN, 2.0 * float(lost[index]))
            with np.errstate(under="ignore", over="ignore"):
                gap = np.exp(log + seen - reference) * now - np.exp(unit - 2.0 * lost[index] + seen - reference) * first
            out[index] = np.linalg.norm(gap)
        return np.where(np.isfinite(out), out, np.inf)


def _decaying(flow: FrameProblem, noise: tuple[Array, Array], rate: float) -> FrameProblem:
    """The same flow, damped by noise and a weight decay, which leaves what is paired paired."""
    rows, columns = (side + rate for side in noise)
    return replace(flow, damping_rows=rows, damping_columns=columns, paired=flow.uniform is not None)


def _is_balanced(part: tuple[Array, Array, float]) -> bool:
    """Whether a part has pairs (a, b) alone, without (a, -b), beside which tiny entries would be rounding."""
    frame = factor_frame([part], True)
    return bool(max(frame.neutral_log, frame.minus_logs.max(initial=-np.inf)) == -np.inf)


def _lost(frame: Frame, part: tuple[Array, Array, float]) -> float:
    """The relative part of the largest factor that is not in the frame; 0 where it is this class's own rounding."""
    gap = sum(float(np.sum((a - b) ** 2)) for a, b in zip(frame.value(part[2]), part[:2], strict=True))
    size = sum(float(np.sum(half**2)) for half in part[:2])
    lost = float(np.sqrt(gap / size)) if size > 0 else 0.0
    return lost if _OWN_ROUNDING < lost < _LARGEST_ROUNDING else 0.0


def _row_space(rows: Array) -> Array:
    """An orthonormal basis (k, k0) of the row space, to rounding."""
    import scipy.linalg

    length = np.linalg.norm(rows, axis=1)
    rows, length = rows[length > 0], length[length > 0]
    if rows.shape[1] <= len(rows) and np.linalg.matrix_rank(rows / length[:, None]) == rows.shape[1]:
        return np.eye(rows.shape[1])
    basis, triangle, _ = scipy.linalg.qr((rows / length[:, None]).T, mode="economic", pivoting=True)
    kept = np.abs(np.diag(triangle)) > np.finfo(float).eps * max(rows.shape)
    return np.ascontiguousarray(basis[:, : int(np.sum(kept))])


def start_parts(case: LinearCase) -> tuple[Compression, list[tuple[Array, Array, float]]]:
    """The start in one compressed basis, the largest part first."""
    net, problem, scale, start, pretrained = case
    if pretrained is None and isinstance(start, Mapping) and any(isinstance(part, Logs) for part in start.values()):
        return _parts_of_logs(case, start)
    if pretrained is None:
        compression = compressed_start(net, problem, start)
        return compression, [(compression.A, compression.B, scale.log)]
    if start is None:
        start = linear_start(net, problem)
    wholes = []
    for name, given in (("start", start), ("pretrained", pretrained)):
        try:
            compressed_start(net, problem, given)
        except ValueError as error:
            raise ValueError(str(error).replace("`start", f"`{name}")) from None
        wholes.append({key: np.asarray(given[key], dtype=float) for key in ("U", "V")})
    D, m = problem.d, problem.n_targets
    joint = compress(*(np.concatenate([whole[key] for whole in wholes]) for key in ("U", "V")))
    small, large = ((joint.A[i * D : (i + 1) * D], joint.B[i * m : (i + 1) * m]) for i in range(2))
    parts = [(*large, 0.0), (*small, scale.log)]
    return joint, parts if scale.log <= 0 else parts[::-1]


def _parts_of_logs(case: LinearCase, start: Mapping[str, Any]) -> tuple[Compression, list[tuple[Array, Array, float]]]:
    """U and V, each in units of its largest entry.

    A factor far below the other matters to the other's rounding only: it is of that size at once, since U' = G V.
    """
    net, problem, scale = case[:3]
    shapes = {"U": (problem.d, net.width), "V": (problem.n_targets, net.width)}
    units, plain = {}, dict(start)
    for name, part in start.items():
        if isinstance(part, Logs) and name in shapes:
            plain[name], units[name] = _in_own_unit(name, part, shapes[name])
    joint = compressed_start(net, problem, plain)
    parts = [
        (joint.A, np.zeros_like(joint.B), units.get("U", 0.0) + scale.log),
        (np.zeros_like(joint.A), joint.B, units.get("V", 0.0) + scale.log),
    ]
    return joint, sorted((each for each in parts if each[0].any() or each[1].any()), key=lambda part: -part[2])


def _in_own_unit(name: str, part: Logs, shape: tuple[int, int]) -> tuple[Array, float]:
    """Entries over the largest, and its logarithm.

    Raises ValueError if they do not fit the shape, or span more than the range of floats.
    """
    given = [np.asarray(each, dtype=float) for each in (part.sign, part.log_abs)]
    if any(each.shape not in ((), shape) for each in given):
        raise ValueError(
            f"`start[{name!r}]` must have shape {shape} or be one number; received {given[0].shape} and "
            f"{given[1].shape}."
        )
    full = Logs(*(np.broadcast_to(each, shape).ravel() for each in given))
    sign, logs = full.arrays(f"start[{name!r}]", shape[0] * shape[1])
    there = logs[sign != 0]
    if not there.size:
        return np.zeros(shape), 0.0
    unit = float(there.max())
    if there.min() < unit - _WIDEST:
        raise ValueError(
            f"`start[{name!r}]` must not hold entries below exp(-{_WIDEST:g}) of its largest; received logarithms from "
            f"{there.min():g} to {unit:g}."
        )
    return (sign * np.exp(np.where(sign != 0, logs - unit, 0.0))).reshape(shape), unit
