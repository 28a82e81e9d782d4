"""The limit of vanishing initialisation of a two-layer linear network."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Index, Integers
from flowsim.hints import hinting
from flowsim.limits.linear_blocks import Block, ReducedLinearData
from flowsim.limits.linear_frozen import beside_frozen, is_one_sided
from flowsim.limits.linear_orbits import block_orbit, departure, relaxation_rate, together
from flowsim.limits.linear_process import RankPlateau
from flowsim.limits.orbit import Orbit
from flowsim.limits.staircase import Staircase
from flowsim.network.linear_algebra import LinearData
from flowsim.problem import Problem, matrix_targets

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LinearSaddlePath(Staircase):
    r"""Rank by rank: :math:`\beta(t) = \beta_k` for :math:`t_k \le t < t_{k+1}` in accelerated time.

    Attributes besides those of :class:`flowsim.limits.staircase.Staircase`:

    Attributes
    ----------
    ranks : array (K+1,)
        Ranks of the saddles. In a jump of several ranks several directions reach their level together.
    width : int
        The largest rank the start allows: min(h, rank of ``(U_1; V)`` at the start).
    blocks : tuple of Block
        Parts of the data that evolve independently (one, unless Sigma and X^T Y decouple exactly).

    ``escape`` is where the loss has no minimum over the next rank: its hits are the rank before, its direction (D, m)
    has nuclear norm 1.
    """

    _plotted_by = "linear_limit"

    data: LinearData | ReducedLinearData = field(repr=False)
    ranks: Integers
    width: int
    blocks: tuple[Block, ...] = field(repr=False)
    #: for each of the K + 1 saddles the plateau of every block, and whether its jump is one direction of one block
    places: tuple[tuple[RankPlateau, ...], ...] = field(repr=False)
    #: all of the data as one block
    whole: Block = field(repr=False)
    #: ``(U_1; V)`` at the start; None of pretrained weights
    start: Array | None = field(default=None, repr=False)

    def _repr_html_(self) -> str:
        data = f"{self.problem.n} x {self.problem.d}, {self.data.m} targets"
        return self._card(data, {"rank at the end": int(self.ranks[-1])}, self.singular_values, "singular values")

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per plateau: its start and end, rank, loss and singular values."""
        values = {f"s{k + 1}": column for k, column in enumerate(self.singular_values.T)}
        return self._table({"rank": self.ranks, "loss": self.losses, **values})

    @property
    def active_sets(self) -> tuple[Integers, ...]:
        """``0, ..., rank - 1`` for each saddle: the active directions, in order of activation."""
        return tuple(np.arange(rank) for rank in self.ranks)

    @cached_property
    def losses(self) -> Array:
        """The training loss on each plateau, shape (K+1,)."""
        return self.data.loss(self._reduced)

    @hinting
    def risk(self, problem: Problem) -> Array:
        """The loss of every plateau on other data, shape (K+1,); a single target may be a vector.

        Raises
        ------
        ValueError
            If `problem` has other features.
        """
        return super().risk(matrix_targets(problem))

    @cached_property
    def singular_values(self) -> Array:
        """Singular values of the saddles, (K+1, min(D, m))."""
        values = np.zeros((len(self.ranks), min(self.problem.d, self.data.m)))
        found = np.linalg.svd(self._reduced, compute_uv=False)
        values[:, : found.shape[1]] = found
        return values

    @cached_property
    def relaxation_rates(self) -> Array:
        """Relaxation rate of a flow on each plateau, (K+1,): the slowest rate in unscaled time, inf at rank 0.

        On a plateau of accelerated length T the flow comes within ``exp(-rate T ln(1/alpha))`` of its saddle, apart
        from waiting directions. NaN where the active directions have too many weights.
        """
        return np.array(
            [
                min(relaxation_rate(block, plateau.Z) for block, plateau in zip(self.blocks, here, strict=True))
                for here in self.places
            ]
        )

    def levels(self, t: ArrayLike) -> Array:
        """Graded logarithms ``1 + ln(size) / ln(1/alpha)`` of the directions of ``(U_1; V)``, descending.

        All are 0 at the start; a direction becomes active when its level reaches 1, and stays there.

        Parameters
        ----------
        t : float or array (T,)
            Accelerated times.

        Returns
        -------
        array (width,) or (T, width)
        """
        times = self._check_times(t)
        out = np.empty((times.size, self.width))
        for row, time in enumerate(np.atleast_1d(times)):
            here = self.places[int(np.searchsorted(self.jump_times, time, side="right"))]
            parts = []
            for plateau in here:
                wait = time - plateau.time
                moved = plateau.rates != 0  # active directions stay exactly at 1
                levels = plateau.levels.copy()
                levels[moved] += wait * plateau.rates[moved]
                parts.append(levels)
            out[row] = np.sort(np.concatenate(parts))[::-1][: self.width]
        return out[0] if times.ndim == 0 else out

    @cached_property
    def orbits(self) -> tuple[Orbit, ...]:
        """The heteroclinic orbit of each jump, in the row space of X: coefficients of ``Phi_1^T beta``, flattened.

        Raises
        ------
        ValueError
            If several directions leave a saddle other than the origin together: their relative sizes, of O(1), depend
            on the start and on all earlier jumps; at the origin on the start alone.
        IntegrationError
            If one cannot be followed to the next saddle.
        """
        return tuple(self._orbit(jump) for jump in range(len(self.jump_times)))

    def curve_loss(self, tau: ArrayLike) -> Array:
        """The training loss along :meth:`curve`."""
        beta1 = np.swapaxes(np.swapaxes(self.curve(tau), -1, -2) @ self.data.directions, -1, -2)
        return self.data.loss(beta1)

    def _orbit(self, jump: int) -> Orbit:
        before, after = self.places[jump], self.places[jump + 1]
        moving = [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if a is not b]
        count = int(self.ranks[jump + 1] - self.ranks[jump])
        if count > 1:
            if self.ranks[jump] or self.start is None:
                raise ValueError(
                    f"at jump {jump}, {count} directions leave together; their relative sizes depend on earlier jumps "
                    "and on factors of O(1) of the start, which the limit does not determine."
                )
            shares = together(self.whole, self.start, count)
            return block_orbit(self.whole, jump, shares, *self._reduced[jump : jump + 2])
        (k,) = moving
        block, plateau = self.blocks[k], before[k]
        assert plateau.towards is not None
        inside = beside_frozen(block, plateau.Z) if is_one_sided(block) else block
        Z = plateau.Z[:, :0] if is_one_sided(block) else plateau.Z
        orbit = block_orbit(inside, jump, departure(block, Z, plateau.towards), plateau.beta, after[k].beta)
        rest = sum(other.lift(p.beta) for i, (other, p) in enumerate(zip(self.blocks, before, strict=True)) if i != k)
        lift = np.einsum("ai,bj->ijab", block.features, block.targets).reshape(len(orbit.points[0]), -1)
        return Orbit(
            jump, np.arange(lift.shape[1]), orbit.distance, orbit.points @ lift + np.ravel(rest), orbit.tangents @ lift
        )

    @cached_property
    def _reduced(self) -> Array:
        """The saddles in the row space of X, (K+1, rank X, m)."""
        out = np.zeros((len(self.ranks), *self.data.signal.shape))
        for row, here in zip(out, self.places, strict=True):
            for block, plateau in zip(self.blocks, here, strict=True):
                row += block.lift(plateau.beta)
        return out

    def _lift(self, beta1: Array) -> Array:
        return np.asarray(self.data.directions @ beta1)

    def _rows(self, saddles: Index) -> Array:
        return self._lift(self._reduced[saddles])

    def _mixed(self, shares: Array) -> Array:
        return self._lift(np.tensordot(shares, self._reduced, axes=1))

    def _travel(self, out: Array, orbit: Orbit, distance: Array) -> None:
        out[:] = self._lift(orbit.at(distance).reshape(-1, *self.data.signal.shape))
