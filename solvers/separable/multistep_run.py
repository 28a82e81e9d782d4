"""An integration by the multistep method: what is handed to the compiled loop, and what it records."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers import loop
from flowsim.solvers.array_kinds import Array
from flowsim.solvers.separable.base import LOAD_ALL, NativeRun
from flowsim.solvers.separable.distance_steps import address_of
from flowsim.solvers.separable.flow import SeparableFlow
from flowsim.solvers.separable.row_factor import continued, graded_rows, hand_over
from flowsim.solvers.separable.solution import NodeSteps

#: So many entries of A are multiplied where they are laid out; a library needs longer to begin, not to end.
_FEW_ENTRIES = 4096
#: e-foldings of a coefficient around a prediction that the tables of a map are to hold.
_MARGIN = 2.0
#: The next step where a table of a map goes no farther.
_SHORTER = 0.25
#: A is taken to a triangle where that takes fewer products.
_FACTORISED = 1 << 30
#: What the triangle makes of b errs by so much of its norm, which would never be at rest where nothing else is left.
_ROUNDINGS = 4.0 * float(np.finfo(float).eps)
#: A run of more steps is long.
_LONG = 500
#: Records made room for at once.
_RECORDS = 2048
#: The first of a run: most need no more, and memory that is not touched again costs more than steps.
_FEW_RECORDS = 512
#: Floats in all records at once, about, and the fewest records.
_RECORDED, _FEWEST_RECORDS = 1 << 25, 64
#: Records of so many bytes are cut to the steps they hold: pages of memory may be as large as those of some steps.
_LARGE = 1 << 21
#: Floats in a cache line.
_LINE = 8
_NOTHING = np.zeros(0)

Workspace = tuple[Array, NDArray[np.int64]]


# Compiled code is loaded where it is first called: importing flowsim, and its command line, do without.


@cache
def _multistep() -> Any:
    from flowsim.solvers.multistep import march

    return march


@cache
def _layout(w: int, K: int, r: int, loss: int, has_gram: bool) -> tuple[NDArray[np.int64], int, Any]:
    """The table of a workspace, its length, and what writes a problem to it."""
    from flowsim.solvers.multistep.constants import SMALL
    from flowsim.solvers.multistep.factors import address as address_of_factors
    from flowsim.solvers.multistep.problem import write_problem
    from flowsim.solvers.multistep.workspace import layout

    return *layout(w, K, r, loss, address_of_factors() if w > SMALL else 0, has_gram), write_problem


@cache
def _address_of_loss(loss: Any) -> int:
    from flowsim.solvers.compilation import VECTOR, address_of

    return address_of(loss, *[VECTOR] * 5)


def _lined(size: int) -> Array:
    """Zeros that begin with a cache line."""
    room = np.zeros(size + _LINE)
    first = -(address_of(room) // 8) % _LINE
    return room[first : first + size]


def lay_out(
    A: Array,
    b: Array,
    n: float,
    exponential: tuple[Array, ...],
    tol: float,
    *,
    loss: int = 0,
    weights: Array | None = None,
    offset: Array | None = None,
    reach: Array | None = None,
    gram: Array | None = None,
    shared: dict[Any, Any] | None = None,
) -> Workspace:
    """A problem in a workspace, in rows of whole vectors that begin with a cache line.

    Parameters
    ----------
    A, b, n : array (r, w), (r,), float
    exponential : tuple of arrays (K, w)
    loss : int
        Address of the derivatives of a loss that is no square.
    weights, offset : array (r,), optional
        What a loss takes.
    reach : array (w,), optional
        Bound on what beta of a coordinate moves any z by; without it the Gram matrix gives it.
    gram : array (w, w), optional
        ``A^T A``; it is made, unless there is such a bound. Without the rows of coordinates that are never active.
    shared : dict, optional
        Small workspaces that others with the same data have written, to be copied.
    """
    (r, w), few = A.shape, A.size <= _FEW_ENTRIES and gram is None
    with_gram = reach is None or gram is not None
    table, floats, write_problem = _layout(w, len(exponential[0]), r, loss, with_gram)
    kind, table = (len(exponential[0]), loss != 0, with_gram), table.copy()
    by_rows = (b, _NOTHING if weights is None else weights, _NOTHING if offset is None else offset)
    reaches = _NOTHING if reach is None else reach
    known = shared.get(kind) if few and shared is not None else None
    if known is not None:
        room = np.empty(floats + _LINE)
        first = write_problem(A, by_rows, float(n), exponential, reaches, tol, room, table, known, False)
        if first >= 0:
            return room[first : first + floats], table
    room = _lined(floats)
    if with_gram and not few:
        to = room[: w * -(-w // _LINE) * _LINE].reshape(w, -1)
        rows = A.T @ A if gram is None else gram
        np.divide(rows, n, out=to[: len(rows), :w])
    write_problem(A, by_rows, float(n), exponential, reaches, tol, room, table, _NOTHING, few and with_gram)
    if few and shared is not None:
        shared[kind] = room.copy()
    return room, table


def bound_on_reach(flow: SeparableFlow) -> Array | None:
    """For more coordinates than a Gram matrix is kept of, by the inequality of Cauchy and Schwarz."""
    if flow.d <= max(LOAD_ALL, 2 * flow.rows):
        return None
    # Where a loss bends, its largest curvature comes in as it is found.
    return flow.norms * (float(flow.norms.max()) / flow.n)


class FromNodes(NativeRun):
    """A run of :mod:`flowsim.solvers.multistep` on the workspace ``work``, of so many coordinates."""

    work: Workspace
    width: int
    records = 0

    def advance(self, budget: int) -> int:
        width, records = self.width, self.records or _FEW_RECORDS
        record = np.empty(3 * records + 1 + 3 * (records + 1) * width)
        self.counts[5] = records
        self.before_steps(records)
        status = _multistep().march(self.tol, self.t_end, budget, *self.work, self.clock, self.counts, record)
        steps = int(self.counts[4])
        if steps == records:
            self.records = min(2 * records, _RECORDS, max(_FEWEST_RECORDS, _RECORDED // (3 * width)))
        if steps:
            head, nodes = record[: 3 * records + 1], record[3 * records + 1 :].reshape(3, records + 1, width)
            nodes = nodes[:, : steps + 1]
            if record.nbytes > _LARGE and 2 * steps < records:
                head, nodes = head.copy(), nodes.copy()
            t, h = head[: steps + 1], head[records + 1 : records + 1 + steps]
            order = head[2 * records + 1 : 2 * records + 1 + steps]
            self.chunks.append(self.steps(t, h, order, *nodes))
        return int(status)

    def before_steps(self, records: int) -> None:
        """Make ready for so many steps."""

    def steps(self, t: Array, h: Array, order: Array, z: Array, f: Array, df: Array) -> Any:
        """The steps of a call as the solution keeps them."""
        return NodeSteps(t, h, order, z, f, df, self.flow.exponential, self.flow.curves)

    def rows(self) -> tuple[Array, Array]:
        """A and b; in as many rows as there are coordinates where there are more, which changes no flow of squares."""
        flow = self.flow
        A = np.ascontiguousarray(flow.A if isinstance(flow.A, np.ndarray) else flow.columns(np.arange(flow.d)).T)
        if flow.loss is None and len(A) > flow.d and A.size * flow.d <= _FACTORISED:
            both = np.column_stack([A, flow.b])
            factor: Array = np.asarray(np.linalg.qr(both, mode="r")) if np.isfinite(both).all() else both
            A, b = np.ascontiguousarray(factor[: flow.d, : flow.d]), factor[: flow.d, flow.d].copy()
            b[np.abs(b) <= _ROUNDINGS * np.abs(b).max()] = 0.0
            return A, b
        return A, flow.b

    def lay_out(self, A: Array, b: Array, exponential: tuple[Array, ...]) -> None:
        """The workspace."""
        flow = self.flow
        loss = 0 if flow.loss is None else _address_of_loss(flow.loss)
        self.work = lay_out(
            A, b, flow.n, exponential, self.tol, loss=loss, weights=flow.weights, offset=flow.offset,
            reach=bound_on_reach(flow), shared=flow.shared,
        )  # fmt: skip


class Multistep(FromNodes):
    """All coordinates, through exponentials or a tabulated map.

    Whether A is ill-conditioned is asked of a run that takes long, or is watched: it then begins again, in the rows of
    a factor of A.
    """

    factor: tuple[Array, Array] | None = None
    was_asked = False

    def begin(self) -> None:
        flow = self.flow
        self.width, self.passes = flow.d, 1
        if self.done is not None and not self.was_asked:
            self._ask()
        if self.factor is not None:
            A, b = self.factor
            both, terms, reach = continued(A, flow.n, flow.exponential)
            self.work = lay_out(both, b, flow.n, terms, self.tol, reach=reach)
            self.width += len(A)
            self.numbers = hand_over(self.work[1], len(A))
            return
        self.lay_out(*self.rows(), flow.exponential)
        if flow.curves is not None:
            from flowsim.solvers.multistep.curves import address

            self.work[1][9] = address()
            self._hand_over_tables()

    def advance(self, budget: int) -> int:
        status = super().advance(budget)
        if self.counts[0] >= _LONG and not self.was_asked:
            self._ask()
            if self.factor is not None:
                self.clock[:], self.counts[0], self.records = (0.0, 0.0, self.t_end, 1.0), 0, 0
                self.chunks.clear()
                self.begin()
                return loop.FULL
        return status

    def _ask(self) -> None:
        """Whether A is ill-conditioned."""
        self.was_asked = True
        if self.flow.loss is None and self.flow.curves is None:
            A, b = self.rows()
            shared = self.flow.shared if A.size <= _FEW_ENTRIES else None
            data = None if shared is None else (A.shape, A.tobytes(), b.tobytes())
            known, factor = (None, None) if shared is None else shared.get("factor", (None, None))
            if known is None or known != data:
                factor = graded_rows(A, b) if A.size * min(A.shape) <= _FACTORISED else None
                if shared is not None:
                    shared["factor"] = data, factor
            self.factor = factor
            if self.factor is not None:
                self.facts = {"graded_rows": len(self.factor[0])}

    def steps(self, t: Array, h: Array, order: Array, z: Array, f: Array, df: Array) -> Any:
        if self.factor is not None:
            z, f, df = (np.ascontiguousarray(part[:, : self.flow.d]) for part in (z, f, df))
        return super().steps(t, h, order, z, f, df)

    def _hand_over_tables(self) -> None:
        """The tables so far, kept for as long as the loop has their addresses."""
        assert self.flow.curves is not None
        self.tables = self.flow.curves.arrays().packed()
        self.work[1][10:12] = [address_of(array) for array in self.tables]

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
