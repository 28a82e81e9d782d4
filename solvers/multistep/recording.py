"""The record of steps, and straight lines instead of steps where active coordinates are at rest."""

from __future__ import annotations

from typing import Any, NamedTuple

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep import constants as c
from flowsim.solvers.multistep.coming_to_rest import line_to_end
from flowsim.solvers.multistep.loss import is_at_rest
from flowsim.solvers.multistep.workspace import Formula, History, Index, Sizes, Trial
from flowsim.solvers.simd import call, pointer, view


class Records(NamedTuple):
    """t, h and past points of the steps on record, and z, f and f' at their ends."""

    t: Any
    h: Any
    order: Any
    z: Any
    f: Any
    df: Any


@bare()
def open_records(records, capacity, width):
    first, rows = 3 * capacity + 1, (capacity + 1) * width
    return Records(
        records,
        pointer(records, capacity + 1),
        pointer(records, 2 * capacity + 1),
        pointer(records, first),
        pointer(records, first + rows),
        pointer(records, first + 2 * rows),
    )


@bare()
def _record(ws, row, records):
    """Record z, f and f' in the caller's order of coordinates."""
    history, place, width = view(History, ws), view(Index, ws).place, view(Sizes, ws).width
    for i in range(width):
        at, to = place[i], row * width + i
        records.z[to], records.f[to], records.df[to] = history.z[at], history.f[at], history.df[at]


@bare()
def _advance_clock(clock, h, is_last, t_end):
    if is_last:
        clock[c.TIME], clock[c.TIME_LOW] = t_end, 0.0
    else:
        step = h + clock[c.TIME_LOW]
        moved = clock[c.TIME] + step
        clock[c.TIME], clock[c.TIME_LOW] = moved, step - (moved - clock[c.TIME])


@bare()
def begin_record(ws, clock, counts, record):
    """Record the state at the beginning of a call of the loop."""
    if counts[c.RECORDED] == 0:
        record.t[0] = clock[c.TIME]
        _record(ws, 0, record)


@bare()
def record_step(ws, clock, counts, h, order, is_last, t_end, record):
    """Update clock and record after a step of length h, in the unit of the clock."""
    recorded = counts[c.RECORDED]
    _advance_clock(clock, h, is_last, t_end)
    record.h[recorded], record.order[recorded], record.t[recorded + 1] = h, order, clock[c.TIME]
    _record(ws, recorded + 1, record)
    counts[c.RECORDED] += 1
    counts[c.STEPS] += 1


@bare()
def _straight(ws, clock, counts, h, by, t_end, record):
    """Record a straight line of length h, in the unit of the clock, along f; z moves by `by` times f."""
    recorded, left = counts[c.RECORDED], (t_end - clock[c.TIME]) - clock[c.TIME_LOW]
    # Record the last point again: its f may have been rounding, which the length of the line would amplify.
    record.t[recorded] = clock[c.TIME]
    _record(ws, recorded, record)
    history = view(History, ws)
    for i in range(view(Sizes, ws).padded):
        history.z[i] += by * history.f[i]
    record_step(ws, clock, counts, h, 0, h == left, t_end, record)


@bare()
def cross(ws, clock, counts, h, t_end, close, record):
    """Take a straight line as far as possible, where active coordinates are at rest.

    1 if a line was taken, 0 if not, 2 if not and the matrix was reset. A map that is called may answer -1, having no
    lines: then, as for exponentials, only to the end of the run, if the flow is at rest; if `close` > 0 also where
    active coordinates are within that of rest, and others move without effect.
    """
    formula, sizes, history = view(Formula, ws), view(Sizes, ws), view(History, ws)
    left = (t_end - clock[c.TIME]) - clock[c.TIME_LOW]
    if left <= 0.0 or counts[c.RECORDED] >= counts[c.CAPACITY]:
        return 0
    answer = -1
    if sizes.mapping != 0:
        formula.step[0], formula.part[0] = left, h
        answer = call(sizes.mapping, (c.CROSS, ws.buffer, ws.table, view(Trial, ws).f))
    if answer >= 0:
        if answer == 1:
            clock[c.NEXT_STEP] = formula.part[0]
            _straight(ws, clock, counts, formula.step[0], 0.0, t_end, record)
        return answer
    answer = 0
    if is_at_rest(ws):
        answer = 1
        for i in range(sizes.padded):
            history.f[i] = history.df[i] = 0.0
    elif close > 0.0 and left > c.FAR_OFF * h and sizes.screen == 0 and sizes.graded == 0:
        answer = line_to_end(ws, clock[c.TIME], left, close)
    if answer == 1:
        _straight(ws, clock, counts, left, left, t_end, record)
    return answer
