r"""The limit process of one independent block of a two-layer linear network.

On plateau r the network is at ``beta_r`` with r active directions Z, ``S Z = 0``. Every other direction is
exponentially small: its size is ``exp((s - 1) gamma)`` with a level s that rises at an eigenvalue of S on the
complement of the active ones, the highest level at the largest. The direction whose level reaches 1 is activated next.

With ``A* = Sigma^(-1/2) C = sum_i s_i a_i b_i^T`` and the penalty ``a = kappa Sigma`` the saddles are
:math:`\beta_r = \Sigma^{-1/2} \sum_{i \le r} (s_i - \sqrt{\kappa b})_+ a_i b_i^\top`. Where singular values tie,
with weight decay on data that are not whitened, or under another loss, no formula gives the saddle: it is the end of
the orbit to it, refined by Newton's method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from flowsim.arrays import Array
from flowsim.limits.linear_blocks import Block
from flowsim.limits.linear_orbits import EscapeError, departure, follow_to_rest, polished

#: Singular values and rates up to this, relative to the data and times their dimension, are rounding.
_ROUNDING = 8 * np.finfo(float).eps
#: The same for gradients that are not affine in beta, at saddles found by iteration.
_ITERATED = 1e-11
#: Relative difference below which times and levels are equal.
TIE = 1e-10
#: Difference of singular values of A*, relative to the largest, below which they are equal: the saddle is then not
#: given by the formula.
_EQUAL = 1e-9


@dataclass(frozen=True, eq=False)
class RankPlateau:
    """A saddle, and the levels of the waiting directions.

    Attributes
    ----------
    time : float
        Its beginning.
    beta : array (r, q)
    Z : array (r + q, k)
        Factors of beta: the active directions; balanced unless some were pretrained.
    levels, rates : array (K,)
        At `time`, active ones first (level 1, rate 0), then descending.
    towards : array (r + q,) or None
        The direction that is activated next.
    exhausted : bool
        Further directions would grow, but the start has no more.
    """

    time: float
    beta: Array
    Z: Array
    levels: Array
    rates: Array
    towards: Array | None = None
    exhausted: bool = False

    @property
    def rank(self) -> int:
        return self.Z.shape[1]


@dataclass(eq=False)
class BlockProcess:
    """One block from its start to its end."""

    block: Block
    columns: int  #: K, the number of independent directions of the start in the block
    #: (r + q, k), optional, active directions at the start, at rest: the point to which pretrained weights relax
    begin: Array | None = None
    #: number of directions of pretrained weights that have relaxed to zero: they begin at level 1, and decrease
    dropped: int = 0
    plateaus: list[RankPlateau] = field(default_factory=list)
    escape: tuple[float, Array, float] | None = None  #: set where the next saddle is not attained

    def __post_init__(self) -> None:
        block = self.block
        root = np.sqrt(block.curvatures)
        self._root = root
        A, s, Bt = np.linalg.svd(block.signal / root[:, None], full_matrices=False)
        self._left, self._values, self._right = A, s, Bt.T
        # a = kappa Sigma + rest: the formula needs rest = 0.
        kappa = block.a / block.curvatures
        even = bool(np.ptp(kappa) <= _EQUAL * kappa.max(initial=0.0)) if len(kappa) else True
        self.closed_form = even and block.is_affine and self.begin is None
        self._kappa = float(kappa.mean()) if len(kappa) else 0.0
        self._threshold = math.sqrt(self._kappa * block.b)
        # Equal damping of U and V: S + decay is antisymmetric under the change of V's sign, and levels come in pairs.
        equal = bool(np.abs(block.a - block.b).max(initial=0.0) <= _EQUAL * block.b)
        self._paired = equal and self.begin is None
        self._size = math.hypot(*block.signal.ravel().tolist())  # squares may overflow
        exact = block.is_affine and self.begin is None
        self._zero = (_ROUNDING * max(sum(block.shape), 1) if exact else _ITERATED) * self._size
        negligible = _ROUNDING * max(sum(block.shape), 1) * s.max(initial=0.0)
        self._largest_rank = int(np.sum(s - self._threshold > negligible))

    def run(self, t_end: float = math.inf, max_jumps: float = math.inf) -> list[RankPlateau]:
        """All plateaus that begin before `t_end`, at most `max_jumps` after the first."""
        if not self.plateaus:
            block = self.block
            Z = np.zeros((sum(block.shape), 0)) if self.begin is None else self.begin
            levels = np.zeros(self.columns)
            levels[: Z.shape[1] + self.dropped] = 1.0
            self.plateaus.append(self._plateau(0.0, block.product(Z), Z, levels))
        while self.escape is None and len(self.plateaus) <= max_jumps and self.next_jump(self.plateaus[-1]) < t_end:
            self.extend(len(self.plateaus))
        return self.plateaus

    def extend(self, number: int) -> None:
        """Compute plateau `number`, if necessary, from the one before it."""
        if number < len(self.plateaus) or self.escape is not None:
            return
        plateau = self.plateaus[-1]
        time, r = self.next_jump(plateau), plateau.rank
        levels = plateau.levels + (time - plateau.time) * plateau.rates
        levels[r] = 1.0
        try:
            saddle = self._next_saddle(plateau)
        except EscapeError as end:
            self.escape = (time, *self.block.escape(end.Z))
            return
        self.plateaus.append(self._plateau(time, *saddle, levels))

    @property
    def strengths(self) -> Array:
        """The singular values of A*, thresholded as in the saddles, descending."""
        return np.maximum(self._values - self._threshold, 0.0)

    def growing_directions(self) -> Array:
        """The growing eigenvectors of S at the start, as orthonormal columns, the fastest first."""
        Z = np.zeros((sum(self.block.shape), 0)) if self.begin is None else self.begin
        rest = np.linalg.qr(Z, mode="complete")[0][:, Z.shape[1] :]
        force = self.block.signal if self.begin is None else self.block.force(self.block.product(Z))
        values, vectors = np.linalg.eigh(rest.T @ self.block.generator(force) @ rest)
        return np.asarray((rest @ vectors)[:, values > self._zero][:, ::-1])

    @staticmethod
    def next_jump(plateau: RankPlateau) -> float:
        """inf at the end."""
        if plateau.towards is None:
            return math.inf
        r = plateau.rank
        wait = max(1.0 - float(plateau.levels[r]), 0.0) / float(plateau.rates[r])
        return plateau.time + (wait if wait > TIE * plateau.time else 0.0)

    def _plateau(self, time: float, beta: Array, Z: Array, levels: Array) -> RankPlateau:
        K, rank = self.columns, Z.shape[1]
        levels = np.concatenate([np.ones(rank), np.sort(levels[rank:])[::-1]])[:K]
        if rank >= sum(self.block.shape) or min(self.block.shape) == 0:
            rates = np.concatenate(
                [np.zeros(rank), -np.sort(np.append(self.block.a, [self.block.b] * self.block.shape[1]))]
            )
            return RankPlateau(time, beta, Z, levels, rates[:K])
        force = self._force(beta, rank)
        rates, towards = self._pairs(force, Z) if self._paired else self._spectrum(force, Z)
        growing = bool(rates[0] > 0 and rank < self._largest_rank if self.closed_form else rates[0] > self._zero)
        rates = np.concatenate([np.zeros(rank), rates])[:K]
        free = rank < K
        return RankPlateau(time, beta, Z, levels, rates, towards if growing and free else None, growing and not free)

    def _force(self, beta: Array, rank: int) -> Array:
        """G, from the remaining singular values, without cancellation."""
        if not self.closed_form:
            return self.block.force(beta)
        left = np.array(self._values)
        left[:rank] = np.minimum(self._threshold, left[:rank])
        return np.asarray(self._root[:, None] * ((self._left * left) @ self._right.T))

    def _pairs(self, force: Array, Z: Array) -> tuple[Array, Array]:
        """Rates ``sigma_i - b``, ``-b``, ``-sigma_i - b`` and last ``-2 b``, for the mirror images of active ones."""
        (r, q), k = self.block.shape, Z.shape[1]
        inside = [np.linalg.qr(part)[0] for part in (Z[:r], Z[r:])]
        for basis, side in zip(inside, (0, 1), strict=True):
            force = force - (basis @ (basis.T @ force) if side == 0 else (force @ basis) @ basis.T)
        U, sigma, Vt = np.linalg.svd(force, full_matrices=False)
        sigma = sigma[: min(r, q) - k]
        b = self.block.b
        rates = np.concatenate([sigma - b, np.full(abs(r - q), -b), -sigma[::-1] - b, np.full(k, -2 * b)])
        return rates, np.concatenate([U[:, 0], Vt[0]]) / math.sqrt(2.0)

    def _spectrum(self, force: Array, Z: Array) -> tuple[Array, Array]:
        """Eigenvalues of S on the complement of Z, and the eigenvector of the largest."""
        rest = np.linalg.qr(Z, mode="complete")[0][:, Z.shape[1] :]
        values, vectors = np.linalg.eigh(rest.T @ self.block.generator(force) @ rest)
        return values[::-1], rest @ vectors[:, -1]

    def _next_saddle(self, plateau: RankPlateau) -> tuple[Array, Array]:
        rank = plateau.rank + 1
        s = self._values
        if not self.closed_form:
            Z = polished(self.block, follow_to_rest(self.block, departure(self.block, plateau.Z, plateau.towards)))
            return self.block.product(Z), Z
        if rank < len(s) and s[rank - 1] - s[rank] <= _EQUAL * s[0]:
            self._choose_among_equals(plateau, rank)
        return self._saddle(rank)

    def _saddle(self, rank: int) -> tuple[Array, Array]:
        """beta and its factors with ``kappa |Sigma^(1/2) u|^2 = b |v|^2`` (equal norms without damping)."""
        s = np.maximum(self._values[:rank] - self._threshold, 0.0)
        left, right = self._left[:, :rank] / self._root[:, None], self._right[:, :rank]
        beta = (left * s) @ right.T
        if self._kappa == self.block.b == 0.0:
            P, size, Qt = np.linalg.svd(beta, full_matrices=False)
            half = np.sqrt(size[:rank])
            return beta, np.concatenate([P[:, :rank] * half, Qt[:rank].T * half])
        # u v = s and kappa u^2 = b v^2. Noise on one factor alone shrinks that one while the other grows, slowly and
        # without bound: of the pair only the direction of the other is kept.
        total = self._kappa + self.block.b
        share = math.sqrt(self._kappa * self.block.b) / total
        scale = np.sqrt(s / share if share > 0 else np.ones_like(s))
        u, v = math.sqrt(self.block.b / total) * scale, math.sqrt(self._kappa / total) * scale
        return beta, np.concatenate([left * u, right * v])

    def _choose_among_equals(self, plateau: RankPlateau, rank: int) -> None:
        """Rotate singular vectors of equal value so that the end of the orbit has the first `rank` of them."""
        s = self._values
        group = np.flatnonzero(np.abs(s - s[rank - 1]) <= _EQUAL * s[0])
        Z = follow_to_rest(self.block, departure(self.block, plateau.Z, plateau.towards))
        fitted = self._root[:, None] * self.block.product(Z)
        inside = self._left[:, group].T @ fitted @ self._right[:, group]
        rotation = np.linalg.svd(inside)[0]
        self._left[:, group] = self._left[:, group] @ rotation
        self._right[:, group] = self._right[:, group] @ rotation
