r"""A bound on the exponents of coordinates that are not loaded, safe by the Cauchy-Schwarz inequality.

Their exponents are known at the last pass over A, with their growth along a straight line of
:math:`\nu`: they deviate by at most their reach times the distance of nu from that line. The rows of A are
coordinates without exponentials, whose z is nu.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from flowsim.solvers.compilation import FAST, bare, compiled_callback
from flowsim.solvers.multistep.buffers import in_buffers
from flowsim.solvers.multistep.workspace import Formula, History, Index, Sizes, Workspace, in_memory
from flowsim.solvers.simd import view

#: Exponents in a block that is bounded together first.
BLOCK = 64


@in_buffers(constants=("count", "first", "rows"))
class Unloaded(NamedTuple):
    """Exponents of coordinates that are not loaded."""

    count: Any  #: of exponents
    first: Any  #: coordinate of the first row
    rows: Any
    since: Any  #: (1,), time since the pass
    #: (rows,), nu then, and its rate
    nu: Any
    rate: Any
    #: (count,), exponents over their level, their growth, and their reach
    exponent: Any
    growth: Any
    reach: Any
    largest: Any  #: (blocks, 3), the largest of each over blocks


@bare(fastmath=FAST)
def _worst(outside, first, last, since, distance):
    worst = -np.inf
    for i in range(first, last):
        worst = max(worst, outside.exponent[i] + outside.growth[i] * since + outside.reach[i] * distance)
    return worst


@bare()
def _may_matter(ws, guess):
    """Whether a coordinate that is not loaded may be active at the end of the trial step; updates the elapsed time."""
    sizes, z, place = view(Sizes, ws), view(History, ws).z, view(Index, ws).place
    outside = view(Unloaded, in_memory(sizes.screen_integers, sizes.screen_numbers))
    h = view(Formula, ws).step[0]
    since, distance = outside.since[0] + h, 0.0
    for q in range(outside.rows):
        at = place[outside.first + q]
        distance += (z[at] + guess[at] - outside.nu[q] - since * outside.rate[q]) ** 2
    distance = math.sqrt(distance)
    for block in range((outside.count + BLOCK - 1) // BLOCK):
        of = outside.largest
        if of[3 * block] + of[3 * block + 1] * since + of[3 * block + 2] * distance + math.log(h) > 0.0:
            last = min((block + 1) * BLOCK, outside.count)
            if _worst(outside, block * BLOCK, last, since, distance) + math.log(h) > 0.0:
                return 1
    outside.since[0] = since
    return 0


@cache
def address() -> int:
    """Address of the function ``(task, buffer, table, guess)``; 1 where a coordinate that is not loaded may matter."""

    def screen(task, buffer, table, guess):
        return _may_matter(Workspace(buffer, table), guess)

    found = compiled_callback("int64(int64, CPointer(float64), CPointer(int64), CPointer(float64))")(screen)
    return int(found.address)
