"""An integration by the multistep method: what is handed to the compiled loop, and what it records."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from flowsim.solvers.separable.base import Array, Run
from flowsim.solvers.separable.solution import NodeSteps

__all__ = ["Multistep"]

#: So many entries of A are multiplied where they are laid out; a library needs longer to begin, not to end.
_FEW_ENTRIES = 4096
#: e-foldings of a coefficient around a prediction that the tables of a map are to hold.
_MARGIN = 2.0
#: The next step where a table of a map goes no farther.
_SHORTER = 0.25
#: A is taken to a triangle where that takes fewer products.
_FACTORISED = 1 << 30
#: Records made room for at once.
_RECORDS = 2048
#: The first of a run: most need no more, and memory that is not touched again costs more than steps.
_FEW_RECORDS = 512
#: Floats in a cache line.
_LINE = 8


# Compiled code is loaded where it is first called: importing flowsim, and its command line, do without.


@cache
def _multistep() -> Any:
    from flowsim.solvers.multistep import march

    return march


def _address_of_loss(loss: Any) -> int:
    from flowsim.solvers.compilation import address_of

    return address_of(loss, 5)


def _lined(size: int) -> Array:
    """Zeros that begin with a cache line."""
    room = np.zeros(size + _LINE)
    first = -(room.__array_interface__["data"][0] // 8) % _LINE
    return room[first : first + size]


class Multistep(Run):
    """By :mod:`flowsim.solvers.multistep`, with all coordinates."""

    def begin(self) -> None:
        """Lay the problem out in a workspace, in rows of whole vectors that begin with a cache line."""
        from flowsim.solvers.multistep.constants import SMALL
        from flowsim.solvers.multistep.factors import address as address_of_factors
        from flowsim.solvers.multistep.problem import write_problem
        from flowsim.solvers.multistep.workspace import Loss, layout

        flow = self.flow
        address = 0 if flow.loss is None else _address_of_loss(flow.loss)
        factored = address_of_factors() if flow.d > SMALL else 0
        A, b = self._rows()
        table, floats = layout(flow.d, len(flow.sign), len(b), address, factored)
        table, room = table.copy(), _lined(floats)
        few = A.size <= _FEW_ENTRIES
        write_problem(A, b, float(flow.n), flow.exponential, room, table, few)
        if not few:
            gram = room[: flow.d * -(-flow.d // _LINE) * _LINE].reshape(flow.d, -1)
            gram[:, : flow.d] = A.T @ A
            gram /= flow.n
        if flow.loss is not None:
            places = table[Loss.PLACE : Loss.PLACE + len(Loss._fields)]  # type: ignore[attr-defined]
            ones, zeros = np.ones(flow.rows), np.zeros(flow.rows)
            for place, value in (
                (places[1], flow.b),
                (places[2], ones if flow.weights is None else flow.weights),
                (places[5], zeros if flow.offset is None else flow.offset),
            ):
                room[place : place + flow.rows] = value
        self.work = (room, table)
        self.stalled = 0
        if flow.curves is not None:
            from flowsim.solvers.multistep.curves import address as curves_address

            table[9] = curves_address()
            self._hand_over_tables()
        self.records = _FEW_RECORDS
        self.passes = 1

    def _hand_over_tables(self) -> None:
        """The tables so far, kept for as long as the loop has their addresses."""
        assert self.flow.curves is not None
        self.tables = self.flow.curves.arrays().packed()
        self.work[1][10:12] = [array.__array_interface__["data"][0] for array in self.tables]

    def refresh(self) -> None:
        """Continue tables to where the loop's prediction is; a shorter step where they go no farther."""
        from flowsim.solvers.multistep.workspace import History, Index, Trial

        room, table = self.work
        w, curves = self.flow.d, self.flow.curves
        assert curves is not None
        at_z, at_guess = table[History.PLACE], table[Trial.PLACE + 1]  # type: ignore[attr-defined]
        order = table[table[Index.PLACE] :][:w]  # type: ignore[attr-defined]
        here, wanted = np.empty(w), np.empty(w)
        here[order] = room[at_z : at_z + w]
        wanted[order] = room[at_z : at_z + w] + room[at_guess : at_guess + w]
        margin, before = _MARGIN / self.flow.slope[0], len(self.tables[1])
        self.failure = curves.cover(here, np.minimum(here, wanted) - margin, np.maximum(here, wanted) + margin)
        self._hand_over_tables()
        if len(self.tables[1]) == before:
            self.clock[2] *= _SHORTER
            self.stalled += 1

    def _rows(self) -> tuple[Array, Array]:
        """A and b; in as many rows as there are coordinates where there are more, which changes no flow of squares."""
        flow = self.flow
        A = np.ascontiguousarray(flow.A if isinstance(flow.A, np.ndarray) else flow.columns(np.arange(flow.d)).T)
        if flow.loss is None and len(A) > flow.d and A.size * flow.d <= _FACTORISED:
            both = np.column_stack([A, flow.b])
            factor: Array = np.asarray(np.linalg.qr(both, mode="r")) if np.isfinite(both).all() else both
            A, b = factor[: flow.d, : flow.d], factor[: flow.d, flow.d]
            return np.ascontiguousarray(A), np.ascontiguousarray(b)
        return A, flow.b

    def advance(self, budget: int) -> int:
        d, records = self.flow.d, self.records
        self.records = min(2 * records, _RECORDS)
        record = np.empty(3 * records + 1 + 3 * (records + 1) * d)
        self.counts[5] = records
        status = _multistep().march(self.tol, self.t_end, budget, *self.work, self.clock, self.counts, record)
        steps = int(self.counts[4])
        if steps:
            z, f, df = record[3 * records + 1 :].reshape(3, records + 1, d)[:, : steps + 1]
            t, h = record[: steps + 1], record[records + 1 : records + 1 + steps]
            order = record[2 * records + 1 : 2 * records + 1 + steps]
            self.chunks.append(NodeSteps(t, h, order, z, f, df, self.flow.exponential, self.flow.curves))
        return int(status)
