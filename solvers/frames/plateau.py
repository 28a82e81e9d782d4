r"""A plateau: while active directions are at rest, S is constant and a step of any length is exact.

The active directions are in the kernel of S, to the tolerance, and are kept constant (rounding must not let them leave
along the growing ones); on the complement ``exp(t S)`` acts, diagonal in the singular vectors of G or the eigenvectors
of S, and the QR factorisation of :mod:`.graded` updates the frame at once, whatever the exponents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowsim.solvers.array_kinds import Array
from flowsim.solvers.frames.collocation import Damping
from flowsim.solvers.frames.frame import Frame, orthonormal
from flowsim.solvers.frames.graded import add_rows, triangularise
from flowsim.solvers.frames.grown import GrownPath
from flowsim.solvers.frames.pair_exponential import exponential
from flowsim.solvers.frames.pairs import carry
from flowsim.solvers.frames.problem import FrameProblem

_HALF = np.sqrt(0.5)
#: Relative size of a component that is rounding.
_ROUNDING = 1e-14


def rest_of(problem: FrameProblem, G: Array, frame: Frame, count: int) -> float:
    """Distance of the first `count` directions from rest, ``|S f|``."""
    A, B = frame.A[:, :count], frame.B[:, :count]
    if count == 0:
        return 0.0
    first = G @ B - problem.damping_rows[:, None] * A
    second = G.T @ A - problem.damping_columns[:, None] * B
    return frame.factor * float(np.sqrt((first**2).sum() + (second**2).sum()))


@dataclass(frozen=True, eq=False)
class Plateau:
    """``exp(t S)`` on the complement of the first `count` directions of a frame."""

    start: Frame
    count: int
    #: (n, R + p), (n,), an orthonormal basis of the complement, in rows, and its growth rates
    vectors: Array
    rates: Array
    kappa: float  #: damping of a paired frame, not included in the rates

    @classmethod
    def of(cls, problem: FrameProblem, G: Array, frame: Frame, count: int) -> Plateau:
        A, B = frame.A[:, :count], frame.B[:, :count]
        if frame.is_paired:
            return cls(frame, count, *_singular_basis(G - A @ (A.T @ G), frame, count), problem.uniform or 0.0)
        R, p = problem.shape
        S = np.zeros((R + p, R + p))
        S[:R, R:], S[R:, :R] = G, G.T
        S[np.diag_indices(R + p)] = -np.concatenate([problem.damping_rows, problem.damping_columns])
        Q = np.linalg.qr(np.concatenate([A, B]), mode="complete")[0][:, count:]
        rates, vectors = np.linalg.eigh(Q.T @ S @ Q)
        return cls(frame, count, np.ascontiguousarray((Q @ vectors).T), rates, 0.0)

    @classmethod
    def constant(cls, frame: Frame, kappa: float = 0.0) -> Plateau:
        """For a state at rest as a whole."""
        return cls(frame, len(frame.logs), np.zeros((0, len(frame.A) + len(frame.B))), np.zeros(0), kappa)

    @property
    def growth(self) -> float:
        """The largest rate."""
        return float(self.rates.max(initial=-np.inf)) - self.kappa

    def after(self, t: float) -> Frame:
        """The state after a time."""
        frame = self.start
        if t <= 0 or self.count == len(frame.logs):
            lost = max(t, 0.0) * self.kappa
            return replace(frame, minus_logs=frame.minus_logs - 2 * lost, neutral_log=frame.neutral_log - lost)
        order = np.argsort(-self.rates, kind="stable")
        if frame.is_paired:
            return Frame(*exponential(self.vectors, self.rates, order, self.kappa, frame.arrays, self.count, t))
        count, R, wide = self.count, len(frame.A), len(frame.logs) - self.count
        basis, exponents = self.vectors[order].copy(), t * self.rates[order]
        M = np.ascontiguousarray(basis @ np.concatenate([frame.A[:, count:], frame.B[:, count:]]))
        # An overlap of zero must stay zero: rounding would grow as well.
        M[np.abs(M) <= _ROUNDING * np.abs(M).max(axis=0, initial=0.0)] = 0.0
        triangularise(M, exponents, basis, wide)
        logs, rows = frame.logs.copy(), frame.rows.copy()
        logs[count:], rows[count:] = -np.inf, 0.0
        add_rows(logs[count:], rows[count:], M[:wide].copy(), frame.logs[count:], frame.rows[count:])
        logs[count:] += exponents[:wide]
        whole = np.concatenate([np.concatenate([frame.A, frame.B])[:, :count], basis[:wide].T], axis=1)
        A, B = np.split(orthonormal(whole)[0], [R])
        return replace(frame, A=np.ascontiguousarray(A), B=np.ascontiguousarray(B), logs=logs, rows=rows).sorted()

    def turned(self, frame: Frame, directions: Array) -> Frame:
        """The state after its first `count` directions become others (R + p, count), orthogonal to the rest."""
        first, second = directions[: len(frame.A)], directions[len(frame.A) :]
        if not frame.is_paired:
            above, below = (
                np.concatenate([head, side[:, self.count :]], axis=1)
                for head, side in ((first, frame.A), (second, frame.B))
            )
            return frame.advanced(above, below)
        (A, own), (B, other) = (
            orthonormal(np.concatenate([head, side[:, self.count :]], axis=1))
            for head, side in ((first, frame.A), (second, frame.B))
        )
        head = slice(0, self.count)
        # Both halves grow alike up to the error of the step; directions that only rotate do not grow.
        triangle = np.ascontiguousarray((own + other)[head, head] / 2)
        logs, rows = frame.logs.copy(), frame.rows.copy()
        minus_logs, minus_rows = frame.minus_logs.copy(), frame.minus_rows.copy()
        for target, more, factor in (
            ((logs, rows), (frame.logs, frame.rows), triangle),
            ((minus_logs, minus_rows), (frame.minus_logs, frame.minus_rows), np.linalg.inv(triangle).T),
        ):
            new, new_rows = np.full(self.count, -np.inf), np.zeros_like(rows[head])
            add_rows(new, new_rows, np.ascontiguousarray(factor), more[0][head], more[1][head])
            target[0][head], target[1][head] = new, new_rows
        neutral = frame.neutral
        if frame.neutral_log > -np.inf:
            along = np.linalg.solve(np.eye(len(logs)) + A.T @ frame.A, A.T @ neutral)
            neutral = neutral - (A + frame.A) @ along
        return replace(
            frame, A=A, B=B, logs=logs, rows=rows, minus_logs=minus_logs, minus_rows=minus_rows, neutral=neutral
        ).sorted()


@dataclass(frozen=True, eq=False)
class HeadPath:
    """Active directions over a long step, or a part of it.

    Attributes
    ----------
    grown : GrownPath
        Their columns Z.
    turn : array (q, r)
    directions : array (s + 1, R + p, r) or None
        Directions are ``Z @ turn``, or polynomials with these values at the nodes.
    begin, end : float
        The part, as times over the length of the step.
    """

    grown: GrownPath
    turn: Array
    directions: Array | None
    begin: float = 0.0
    end: float = 1.0

    @property
    def h(self) -> float:
        return (self.end - self.begin) * self.grown.h

    def places(self, places: Any) -> Any:
        """Times over the length of the step, of positions in this part of it, from 0 to 1."""
        return self.begin + (self.end - self.begin) * places

    def Z(self, places: Array) -> Array:
        """Columns (P, R + p, q) at positions."""
        return self.grown.at(self.places(places)).reshape(len(places), -1, len(self.turn))

    def at(self, places: Array) -> Array:
        """Directions (P, R + p, r) at positions."""
        if self.directions is None:
            return self.Z(places) @ self.turn
        return np.tensordot(self.grown.weights(self.places(places)), self.directions, axes=1)

    def over(self, frame: Frame, G: Array, h: Array, damping: Damping, kappa: float, places: Array) -> list[Frame]:
        """Paired frames from a given one, over steps in G (n, s, R, p), with active directions at known values."""
        moved, R = self.at(places), len(frame.A)
        first, second = (np.ascontiguousarray(each) for each in (moved[:, :R], moved[:, R:]))
        return [Frame(*each) for each in zip(*carry(frame.arrays, G, h, damping, first, second, kappa), strict=True)]

    def along(self, frame: Frame, begin: float, end: float) -> HeadPath:
        """A part of the path, of the directions of a frame at its start, which have the same span."""
        part = replace(self, begin=self.places(begin), end=self.places(end))
        count = self.turn.shape[1]
        theirs = np.concatenate([frame.A[:, :count], frame.B[:, :count]])
        turn = np.linalg.lstsq(part.at(np.zeros(1))[0], theirs, rcond=None)[0]
        directions = None if self.directions is None else self.directions @ turn
        return replace(part, turn=self.turn @ turn, directions=directions)


@dataclass(frozen=True, eq=False)
class PlateauStep:
    """Waiting directions grow by a constant S, while active ones relax or are at rest.

    Attributes
    ----------
    plateau : Plateau
    path : HeadPath or None
        The active directions along the step, if they are not at rest.
    end : Frame
    """

    t: float
    h: float
    plateau: Plateau
    path: HeadPath | None
    end: Frame

    @property
    def start(self) -> Frame:
        return self.plateau.start

    @property
    def damping(self) -> float:
        return self.plateau.kappa

    def frame(self, position: float) -> Frame:
        frame = self.plateau.after(position * self.h)
        if self.path is None:
            return frame
        return self.plateau.turned(frame, self.path.at(np.array([position]))[0])

    def values(self, position: float, shift: float) -> tuple[Array, Array]:
        return self.frame(position).value(shift)


def _singular_basis(G: Array, frame: Frame, count: int) -> tuple[Array, Array]:
    """``(u, +-v) / sqrt(2)`` of the singular triplets on the complement of the first directions, and neutral (n, 0)."""
    A, B = frame.A[:, :count], frame.B[:, count:]
    left, rates, right = np.linalg.svd(G @ B, full_matrices=False)
    q = len(rates)
    # Vectors of a singular value 0 are arbitrary: chosen orthogonal to the active directions too.
    left = orthonormal(np.concatenate([A, left], axis=1))[0][:, count:]
    V = B @ right.T
    neutral = [frame.A[:, count:]] if len(left) > len(frame.logs) else []
    if frame.neutral_log > -np.inf:
        neutral.append(frame.neutral)
    plus = np.concatenate([left, V]).T * _HALF
    minus = np.concatenate([left, -V]).T * _HALF
    if not neutral:
        return np.concatenate([plus, minus]), np.concatenate([rates, -rates])
    import scipy.linalg

    whole = np.concatenate(neutral, axis=1)
    whole = whole - A @ (A.T @ whole)
    whole -= left @ (left.T @ whole)
    whole -= left @ (left.T @ whole)
    Q, triangle, _ = scipy.linalg.qr(whole, mode="economic", pivoting=True)
    size = min(int(np.sum(np.abs(np.diag(triangle)) > _ROUNDING)), len(left) - count - q)
    N = Q[:, :size] - left @ (left.T @ Q[:, :size])
    outer = np.concatenate([orthonormal(N)[0], np.zeros((len(V), size))]).T
    return np.concatenate([plus, outer, minus]), np.concatenate([rates, np.zeros(size), -rates])
