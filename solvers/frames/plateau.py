r"""A plateau: where what has grown rests, S is constant and a step of any length is exact.

The directions that have grown are kernel vectors of S, to the tolerance, and stay where they are (rounding must not
make them leave along the growing ones); on the rest ``exp(t S)`` acts, by the singular vectors of G or the eigenvectors
of S. The frame turns into these vectors, a few growth times at once; from then on only logarithms move.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers.frames.frame import Frame
from flowsim.solvers.frames.problem import FrameProblem

__all__ = ["Plateau", "rest_of"]

Array = NDArray[np.float64]

#: Growth, as a logarithm, over which the frame is carried before it is made orthonormal again.
_STRIDE = 10.0
#: A frame that turns by less has become that of the growing directions.
_STATIONARY = 1e-13


def rest_of(problem: FrameProblem, G: Array, frame: Frame, count: int) -> float:
    """How far the first `count` directions are from rest, ``|S f|``."""
    A, B = frame.A[:, :count], frame.B[:, :count]
    if count == 0:
        return 0.0
    if frame.is_paired:
        kappa = problem.uniform or 0.0
        first, second = G @ B - kappa * A, G.T @ A - kappa * B
    else:
        first = G @ B - problem.damping_rows[:, None] * A
        second = G.T @ A - problem.damping_columns[:, None] * B
    return frame.factor * float(np.sqrt((first**2).sum() + (second**2).sum()))


@dataclass(frozen=True, eq=False)
class Plateau:
    """``exp(t S)`` on the complement of the first `count` directions.

    Attributes
    ----------
    growth : float
        The largest rate.
    """

    problem: FrameProblem
    count: int
    left: Array
    right: Array
    rates: Array
    paired: bool

    @classmethod
    def of(cls, problem: FrameProblem, G: Array, frame: Frame, count: int) -> Plateau:
        A, B = frame.A[:, :count], frame.B[:, :count]
        if frame.is_paired:
            G = G - A @ (A.T @ G)
            G = G - (G @ B) @ B.T
            left, rates, right = np.linalg.svd(G, full_matrices=False)
            return cls(problem, count, left, right.T, rates, True)
        R, p = problem.shape
        S = np.zeros((R + p, R + p))
        S[:R, R:], S[R:, :R] = G, G.T
        S[np.diag_indices(R + p)] = -np.concatenate([problem.damping_rows, problem.damping_columns])
        Q = np.concatenate([A, B])
        S -= Q @ (Q.T @ S)
        S -= (S @ Q) @ Q.T
        rates, vectors = np.linalg.eigh((S + S.T) / 2)
        return cls(problem, count, vectors, vectors, rates, False)

    @property
    def growth(self) -> float:
        kappa = (self.problem.uniform or 0.0) if self.paired else 0.0
        return float(self.rates.max()) - kappa

    @property
    def spread(self) -> float:
        """The largest difference of two rates, which is what a frame must be carried over in strides."""
        return float(max(np.abs(self.rates).max(), 1e-300)) * (1.0 if self.paired else 2.0)

    def apply(self, t: float, first: Array, second: Array) -> tuple[Array, Array]:
        """``exp(t S)`` without the damping of a paired frame."""
        if self.paired:
            u, v = self.left.T @ first, self.right.T @ second
            even, odd = 2 * np.sinh(t * self.rates / 2) ** 2, np.sinh(t * self.rates)
            return (
                first + self.left @ (even[:, None] * u + odd[:, None] * v),
                second + self.right @ (even[:, None] * v + odd[:, None] * u),
            )
        Z = np.concatenate([first, second])
        Z = Z + self.left @ (np.expm1(t * self.rates)[:, None] * (self.left.T @ Z))
        return Z[: len(first)], Z[len(first) :]

    def advance(self, frame: Frame, t: float) -> Frame:
        """The state after a time over which the frame need not be made orthonormal."""
        columns = frame.columns()
        first, second = self.apply(t, *columns)
        # Exactly: what is left of a resting direction along a growing one would grow.
        width, count = len(frame.logs), self.count
        for begin in (0, width) if frame.is_paired else (0,):
            first[:, begin : begin + count] = columns[0][:, begin : begin + count]
            second[:, begin : begin + count] = columns[1][:, begin : begin + count]
        moved = frame.advanced(first, second)
        kappa = (self.problem.uniform or 0.0) if self.paired else 0.0
        if kappa:
            # What rests neither grows nor decays; its counterpart does both ways.
            logs, minus = moved.logs - kappa * t, moved.minus_logs - kappa * t
            logs[: self.count] += kappa * t
            minus[: self.count] -= kappa * t
            moved = replace(moved, logs=logs, minus_logs=minus, neutral_log=moved.neutral_log - kappa * t)
        return moved

    def strides(self, frame: Frame, h: float, ceiling: float) -> list[tuple[float, Frame]]:
        """States at some times up to h, or until a waiting direction reaches the logarithm `ceiling`."""
        out = [(0.0, frame)]
        t, count = 0.0, self.count
        while t < h:
            waiting = float(frame.logs[count:].max(initial=-np.inf))
            if waiting >= ceiling:
                break
            stride = min(_STRIDE / self.spread, h - t)
            if self.growth > 0 and waiting > -np.inf:
                stride = min(stride, max((ceiling - waiting) / self.growth, 1e-3 * _STRIDE / self.spread))
            moved = self.advance(frame, stride)
            turned = np.abs(moved.A - frame.A).max() + np.abs(moved.B - frame.B).max()
            with np.errstate(invalid="ignore"):
                gained = moved.logs - frame.logs
            if turned <= _STATIONARY and stride < h - t:
                # Only logarithms move from here on.
                left = h - t
                with np.errstate(divide="ignore", invalid="ignore"):
                    until = np.where(gained[count:] > 0, (ceiling - frame.logs[count:]) / gained[count:], np.inf)
                    if frame.is_paired:
                        # ... until f^- has the larger part of a pair, and the two change places.
                        closer = 2 * gained[count:]
                        apart = frame.logs[count:] - frame.minus_logs[count:]
                        until = np.minimum(until, np.where(closer < 0, apart / -closer, np.inf))
                times = max(1.0, min(left / stride, float(np.nanmin(until, initial=np.inf))))
                moved = self._extrapolated(frame, moved, times)
                stride *= times
            t = h if stride >= h - t else t + stride
            frame = moved
            out.append((t, frame))
        return out

    @staticmethod
    def _extrapolated(frame: Frame, moved: Frame, times: float) -> Frame:
        with np.errstate(invalid="ignore"):
            logs = np.where(np.isfinite(moved.logs), frame.logs + times * (moved.logs - frame.logs), moved.logs)
            minus = moved.minus_logs
            if moved.is_paired:
                minus = np.where(np.isfinite(minus), frame.minus_logs + times * (minus - frame.minus_logs), minus)
        neutral = moved.neutral_log
        if neutral > -np.inf:
            neutral = frame.neutral_log + times * (neutral - frame.neutral_log)
        return replace(moved, logs=logs, minus_logs=minus, neutral_log=neutral).sorted()
