"""Growth along tabulated curves, ``beta_i = B_i(z_i)``: a map that the loop calls by address.

Curves are given as pieces: closed forms near the origin, ``B = sum_k e_k exp(2 (l_k + mu_k z))``, so
that no scale underflows, and Chebyshev polynomials beyond. Curves are tabulated as far as a run needs them:
where a prediction is past the end of a table the loop returns to Python for more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from flowsim.solvers import array_kinds
from flowsim.solvers.compilation import bare, compiled_callback
from flowsim.solvers.multistep.buffers import in_buffers, packed
from flowsim.solvers.multistep.constants import CROSS, EVALUATE, LOCATE
from flowsim.solvers.multistep.workspace import (
    Active,
    Exponentials,
    History,
    Index,
    Sizes,
    Trial,
    Values,
    Workspace,
    in_memory,
)
from flowsim.solvers.simd import view

#: Logarithm of an absent term.
_NOTHING = -1e300


@in_buffers(
    constants=("components", "coefficients"),
    indices=("first", "closed", "which"),
)
class Table(NamedTuple):
    """C curves in P pieces, those of curve c from ``first[c]`` to ``first[c + 1]``, by ascending z."""

    components: Any  #: K
    coefficients: Any  #: N
    first: Any  #: (C + 1,)
    #: (P,), 1 for ``B - B_0 = sum_k energy_ck exp(2 (log_c_pk + rate_ck z))`` over the K components of sign_c != 0
    closed: Any
    which: Any  #: (d,), the curve of each coordinate
    #: (P,), interval of each piece
    low: Any
    high: Any
    #: (P, K)
    log_c: Any
    sign_c: Any
    #: (C, K)
    rate: Any
    energy: Any
    #: (P, N), Chebyshev coefficients of ``B - B_0``, B' and B'' in z, on each piece
    beta: Any
    slope: Any
    curvature: Any
    #: (C,), range of z in which the table may be evaluated; infinite where the curve continues as a straight line
    least: Any
    most: Any


def packed_curves(arrays: Mapping[str, Any]) -> tuple[array_kinds.Index, array_kinds.Array]:
    """The two buffers of a :class:`Table`, from its arrays by name."""
    return packed(Table, {"components": arrays["log_c"].shape[1], "coefficients": arrays["beta"].shape[1], **arrays})


@bare()
def _table(sizes):
    """The table at the addresses in the workspace."""
    return view(Table, in_memory(sizes.map_integers, sizes.map_numbers))


@bare()
def piece_of(table, curve, z):
    """The piece that contains z; the nearest one beyond the ends."""
    low, high = table.first[curve], table.first[curve + 1] - 1
    while low < high:
        middle = (low + high) // 2
        if z < table.high[middle]:
            high = middle
        else:
            low = middle + 1
    return low


@bare()
def clenshaw(coefficients, first, count, x):
    """Clenshaw's sum."""
    b1 = b2 = 0.0
    for n in range(first + count - 1, first, -1):
        b1, b2 = coefficients[n] + 2.0 * x * b1 - b2, b1
    return coefficients[first] + x * b1 - b2


@bare()
def _read(table, curve, z):
    """B without its constant, B' and B'', continued by straight lines beyond the ends of a curve; and a log size.

    The size is that of B, or of the change of B over an e-folding where that is larger.
    """
    p = piece_of(table, curve, z)
    at = min(max(z, table.low[p]), table.high[p])
    value = rise = bend = 0.0
    size = _NOTHING
    if table.closed[p] != 0:
        for k in range(table.components):
            if table.sign_c[p * table.components + k] != 0.0:
                rate, energy = table.rate[curve * table.components + k], table.energy[curve * table.components + k]
                if energy != 0.0:
                    exponent = 2.0 * (table.log_c[p * table.components + k] + rate * at)
                    square = energy * math.exp(exponent)
                    size = max(size, exponent + math.log(abs(energy)))
                    value += square
                    rise += 2.0 * rate * square
                    bend += 4.0 * rate * rate * square
    else:
        x = (2.0 * at - table.low[p] - table.high[p]) / (table.high[p] - table.low[p])
        first = p * table.coefficients
        value = clenshaw(table.beta, first, table.coefficients, x)
        rise = max(clenshaw(table.slope, first, table.coefficients, x), 0.0)
        bend = clenshaw(table.curvature, first, table.coefficients, x)
    if at != z:
        value += rise * (z - at)
        bend = 0.0
    return value, rise, bend, size


@bare()
def _locate(ws, guess):
    """Logarithmic sizes at z + guess; returns whether all are within the tables."""
    sizes, table, z, out = view(Sizes, ws), _table(view(Sizes, ws)), view(History, ws).z, view(Trial, ws).exponents
    coordinate, slope, inside = view(Index, ws).coordinate, view(Exponentials, ws).slope, 1
    for i in range(sizes.width):
        curve, moved = table.which[coordinate[i]], z[i] + guess[i]
        value, rise, _, size = _read(table, curve, moved)
        out[i] = size if size > _NOTHING else math.log(max(abs(value), rise / slope[i], 1e-300))
        past = max(table.least[curve] - moved, moved - table.most[curve])
        if past > 0.0:
            # Extrapolate the growth: a step that is too long is shortened before tables are extended.
            inside = 0
            end = abs(value - math.copysign(rise * past, moved))  # at the end of the table
            out[i] += (rise / end if rise < slope[i] * end else slope[i]) * past
    return inside


@bare()
def _evaluate(ws):
    sizes, table, z, guess = view(Sizes, ws), _table(view(Sizes, ws)), view(History, ws).z, view(Trial, ws).guess
    coordinate, active, values = view(Index, ws).coordinate, view(Active, ws), view(Values, ws)
    for s in range(active.padded):
        value = rise = bend = 0.0
        if s < active.n:
            value, rise, bend, _ = _read(table, table.which[coordinate[s]], z[s] + guess[s])
        values.beta[s], values.beta_z[s], values.beta_zz[s] = value, rise, bend
        values.beta_t[s] = values.beta_zt[s] = 0.0
    return 1 if sizes.width > 0 else 0


@cache
def address() -> int:
    """Address of the function ``(task, buffer, table, guess)``; LOCATE returns whether z + guess is in the tables."""

    def curves(task, buffer, table, guess):
        ws = Workspace(buffer, table)
        if task == LOCATE:
            return _locate(ws, guess)
        if task == EVALUATE:
            return _evaluate(ws)
        return -1 if task == CROSS else 0

    found = compiled_callback("int64(int64, CPointer(float64), CPointer(int64), CPointer(float64))")(curves)
    return int(found.address)
