"""An integration by the multistep method: the arguments of the compiled loop, and its records."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.solvers import loop
from flowsim.solvers.array_kinds import Array
from flowsim.solvers.multistep import constants as c
from flowsim.solvers.multistep.buffers import Memory
from flowsim.solvers.separable.base import LOAD_ALL, NativeRun
from flowsim.solvers.separable.distance_steps import address_of
from flowsim.solvers.separable.flow import SeparableFlow
from flowsim.solvers.separable.row_factor import continued, graded_rows, hand_over
from flowsim.solvers.separable.solution import NodeSteps

#: Entries of A up to which the Gram matrix is computed in the compiled code; BLAS has a larger overhead.
_FEW_ENTRIES = 4096
#: e-foldings of a coefficient around a prediction that tables of a map must cover.
_MARGIN = 2.0
#: Factor by which a step is shortened at the end of a table.
_SHORTER = 0.25
#: Margins by which a guess may be off before the step is shortened by more.
_FAR = 1e4
#: Largest number of products for a factorisation of A.
_FACTORISED = 1 << 30
#: Entries of Q^T b below this, relative to its norm, are rounding and set to 0: otherwise they would never be at rest.
_ROUNDINGS = 4.0 * float(np.finfo(float).eps)
#: Number of steps from which on a run is long.
_LONG = 500
#: Records allocated at once.
_RECORDS = 2048
#: Records of the first allocation: most runs need no more, and new memory costs more than steps.
_FEW_RECORDS = 512
#: Approximate number of floats in all records of an allocation, and the least number of records.
_RECORDED, _FEWEST_RECORDS = 1 << 25, 64
#: Size in bytes from which on records are trimmed to the steps taken.
_LARGE = 1 << 21
#: Floats in a cache line.
_LINE = 8
_NOTHING = np.zeros(0)


@cache
def _table(w: int, K: int, r: int, loss: int, has_gram: bool) -> tuple[NDArray[np.int64], int]:
    """The table of a workspace, and its length; compiled code is imported on first use, here and below."""
    from flowsim.solvers.multistep.factors import address as address_of_factors
    from flowsim.solvers.multistep.newton import address as address_of_newton
    from flowsim.solvers.multistep.workspace import layout

    return layout(w, K, r, loss, address_of_factors() if w > c.SMALL else 0, has_gram, address_of_newton())


@cache
def _address_of_loss(loss: Any) -> int:
    from flowsim.solvers.compilation import VECTOR, address_of

    return address_of(loss, *[VECTOR] * 5)


def _lined(size: int) -> Array:
    """Zeros aligned to a cache line."""
    workspace = np.zeros(size + _LINE)
    first = -(address_of(workspace) // 8) % _LINE
    return workspace[first : first + size]


@dataclass(eq=False)
class Layout:
    """A problem as it is written to workspaces, in rows of whole vectors aligned to cache lines.

    Attributes
    ----------
    A, b, n : array (r, w), (r,), float
    exponential : tuple of arrays (K, w)
    loss : int
        Address of the derivatives of a loss other than squares; 0 for squares.
    weights, offset : array (r,), optional
        Sample weights, and offsets of predictions, of a loss.
    reach : array (w,), optional
        Bound on the rate of change of any z by beta of a coordinate; by default from the Gram matrix.
    gram : array (w, w), optional
        ``A^T A``; computed by default, unless `reach` is given. Without the rows of coordinates that are never active.
    shared : dict, optional
        Cache of small workspaces with the same data, to be copied.
    """

    A: Array
    b: Array
    n: float
    exponential: tuple[Array, ...]
    loss: int = 0
    weights: Array | None = None
    offset: Array | None = None
    reach: Array | None = None
    gram: Array | None = None
    shared: dict[Any, Any] | None = None

    def __post_init__(self) -> None:
        (r, w), K = self.A.shape, len(self.exponential[0])
        self.few = self.A.size <= _FEW_ENTRIES and self.gram is None
        self.with_gram = self.reach is None or self.gram is not None
        self.kind = K, self.loss != 0, self.with_gram
        self.table, self.floats = _table(w, K, r, self.loss, self.with_gram)
        by_rows = (self.b, *(_NOTHING if each is None else each for each in (self.weights, self.offset)))
        reach = _NOTHING if self.reach is None else self.reach
        self.data = self.A, by_rows, float(self.n), np.stack(self.exponential), reach
        #: the last tolerance, and after two runs with it a workspace with its table, terms and scales included
        self.ready: tuple[float, Memory | None] = 0.0, None

    def workspace(self, tol: float) -> Memory:
        """A new workspace, in the state before a run."""
        from flowsim.solvers.multistep.problem import write_problem as write

        shared = self.shared if self.few else None
        last, ready = self.ready
        whole = ready if last == tol else None
        known, table = whole or (None if shared is None else shared.get(self.kind), self.table)
        table = table.copy()
        if known is not None:
            workspace = np.empty(self.floats + _LINE)
            first = write(*self.data, tol, workspace, table, known, whole is not None)
            if first >= 0:
                workspace = workspace[first : first + self.floats]
                if whole is None:
                    self.ready = tol, Memory(workspace.copy(), table.copy()) if last == tol else None
                return Memory(workspace, table)
        self.ready = tol, None
        workspace, w = _lined(self.floats), self.A.shape[1]
        if self.with_gram and not self.few:
            to = workspace[: w * -(-w // _LINE) * _LINE].reshape(w, -1)
            rows = self.A.T @ self.A if self.gram is None else self.gram
            np.divide(rows, self.n, out=to[: len(rows), :w])
        write(*self.data, tol, workspace, table, _NOTHING, self.few and self.with_gram)
        if shared is not None:
            shared[self.kind] = workspace.copy()
        return Memory(workspace, table)


def bound_on_reach(flow: SeparableFlow) -> Array | None:
    """For more coordinates than a Gram matrix is stored for, by the Cauchy-Schwarz inequality."""
    if flow.d <= max(LOAD_ALL, 2 * flow.rows):
        return None
    # For other losses the largest curvature is included during the run.
    return flow.norms * (float(flow.norms.max()) / flow.n)


def _reduced(A: Array, b: Array) -> tuple[Array, Array]:
    """The triangular factor of A, and b in its rows."""
    both, d = np.column_stack([A, b]), A.shape[1]
    factor: Array = np.asarray(np.linalg.qr(both, mode="r")) if np.isfinite(both).all() else both
    A, b = np.ascontiguousarray(factor[:d, :d]), factor[:d, d].copy()
    b[np.abs(b) <= _ROUNDINGS * np.abs(b).max()] = 0.0
    return A, b


class FromNodes(NativeRun):
    """A run of :mod:`flowsim.solvers.multistep` on the workspace ``work``."""

    work: Memory
    width: int
    records = _FEW_RECORDS

    def advance(self, budget: int) -> int:
        from flowsim.solvers.multistep.march import march

        width, records = self.width, self.records
        record = np.empty(3 * records + 1 + 3 * (records + 1) * width)
        self.counts[c.CAPACITY] = records
        self.before_steps(records)
        status = march(self.tol, self.t_end, budget, *self.work, self.clock, self.counts, record)
        steps = int(self.counts[c.RECORDED])
        if steps == records:
            self.records = min(2 * records, _RECORDS, max(_FEWEST_RECORDS, _RECORDED // (3 * width)))
        if steps:
            nodes = record[3 * records + 1 :].reshape(3, records + 1, width)[:, : steps + 1]
            if record.nbytes > _LARGE and 2 * steps < records:
                record, nodes = record[: 3 * records + 1].copy(), nodes.copy()
            t, h = record[: steps + 1], record[records + 1 : records + 1 + steps]
            order = record[2 * records + 1 : 2 * records + 1 + steps]
            self.chunks.append(self.steps(t, h, order, nodes))
        return int(status)

    def before_steps(self, records: int) -> None:
        """Prepare for at most `records` steps."""

    def steps(self, t: Array, h: Array, order: Array, nodes: Array) -> Any:
        """The steps of a call, for the solution; nodes (3, S + 1, width) are z, f and f' at their ends."""
        return NodeSteps(t, h, order, nodes, self.flow.exponential, self.flow.curves)

    def rows(self) -> tuple[Array, Array]:
        """A and b; for squares reduced to at most d rows, which does not change the flow."""
        flow, b = self.flow, self.flow.b
        A = np.ascontiguousarray(flow.A if isinstance(flow.A, np.ndarray) else flow.columns(np.arange(flow.d)).T)
        if flow.loss is None and len(A) > flow.d and A.size * flow.d <= _FACTORISED:
            A, b = self.kept("rows", _reduced, A, b)
        return A, b

    def kept(self, name: str, compute: Callable[[Array, Array], Any], A: Array, b: Array) -> Any:
        """What is computed from A and b: once for the same few data, bit by bit."""
        shared = self.flow.shared
        if shared is None or A.size > _FEW_ENTRIES:
            return compute(A, b)
        data, known = (A.shape, A.tobytes(), b.tobytes()), shared.get(name)
        if known is None or known[0] != data:
            shared[name] = known = data, compute(A, b)
        return known[1]

    def lay_out(self, A: Array, b: Array, exponential: tuple[Array, ...]) -> None:
        """The workspace."""
        flow = self.flow
        layout = flow.own.get("layout")
        if layout is None or layout.A is not A or layout.exponential is not exponential:
            loss = 0 if flow.loss is None else _address_of_loss(flow.loss)
            layout = Layout(
                A,
                b,
                flow.n,
                exponential,
                loss=loss,
                weights=flow.weights,
                offset=flow.offset,
                reach=bound_on_reach(flow),
                shared=flow.shared,
            )
            if A is flow.A:
                flow.own["layout"] = layout
        self.work = layout.workspace(self.tol)


class Multistep(FromNodes):
    """All coordinates, through exponentials or a tabulated map.

    A long run, or one with a callback, tests whether A is ill-conditioned, and then restarts in the rows of
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
            self.work = Layout(both, b, flow.n, terms, reach=reach).workspace(self.tol)
            self.width += len(A)
            self.graded = hand_over(self.work, len(A))
            return
        self.lay_out(*self.rows(), flow.exponential)
        if flow.curves is not None:
            self._hand_over_tables()

    def advance(self, budget: int) -> int:
        status = super().advance(budget)
        if self.counts[c.STEPS] >= _LONG and not self.was_asked:
            self._ask()
            if self.factor is not None:
                self.clock[:], self.counts[c.STEPS], self.records = (0.0, 0.0, self.t_end, 1.0), 0, _FEW_RECORDS
                self.chunks.clear()
                self.begin()
                return loop.FULL
        return status

    def _ask(self) -> None:
        """Whether A is ill-conditioned."""
        self.was_asked = True
        if self.flow.loss is None and self.flow.curves is None:
            A, b = self.rows()
            self.factor = self.kept("factor", graded_rows, A, b) if A.size * min(A.shape) <= _FACTORISED else None
            if self.factor is not None:
                self.facts = {"graded_rows": len(self.factor[0])}

    def steps(self, t: Array, h: Array, order: Array, nodes: Array) -> Any:
        if self.factor is not None:
            nodes = np.ascontiguousarray(nodes[:, :, : self.flow.d])
        return super().steps(t, h, order, nodes)

    def _hand_over_tables(self) -> None:
        """Pass the tables to the loop, and keep them while it has their addresses."""
        from flowsim.solvers.multistep.curves import address, packed_curves
        from flowsim.solvers.multistep.workspace import Sizes

        assert self.flow.curves is not None
        self.tables = packed_curves(self.flow.curves.arrays())
        integers, numbers = map(address_of, self.tables)
        self.work.write(Sizes, mapping=address(), map_integers=integers, map_numbers=numbers)

    def refresh(self) -> None:
        """Extend the tables to the loop's prediction; shorten the step where they end."""
        from flowsim.solvers.multistep.workspace import History, Index, Trial

        w, curves = self.flow.d, self.flow.curves
        assert curves is not None
        order, z = self.work.indices(Index, "coordinate", w), self.work.floats(History, "z", w)
        here, wanted = np.empty(w), np.empty(w)
        here[order], wanted[order] = z, z + self.work.floats(Trial, "guess", w)
        margin, before = _MARGIN / self.flow.slope[0], len(self.tables[1])
        self.failure = curves.cover(here, np.minimum(here, wanted) - margin, np.maximum(here, wanted) + margin)
        self._hand_over_tables()
        if len(self.tables[1]) == before:
            # A guess is of first or second order in the step, and a first step may be as long as the run.
            far = np.abs(wanted - here) / (_FAR * margin)
            self.clock[c.NEXT_STEP] *= min(_SHORTER, 1.0 / math.sqrt(np.nan_to_num(far, nan=_FAR).max()))
            self.stalled += 1
