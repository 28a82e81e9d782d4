"""Continuous extension of distances to blow-ups, and the speed of beta."""

from __future__ import annotations

import math

from flowsim.solvers.compilation import bare, compiled
from flowsim.solvers.multistep.distances import UNIT, sides_at, size_to_distance, values_of
from flowsim.solvers.multistep.reading import bends

#: Size of a power law below which its motion is below any tolerance.
_TINY = 1e-18


@bare()
def _at(start, end, x, line, line_end, curve, curve_end):
    """The polynomial of degree 5 at x, 0 to 1, with values, h f and h^2 f' of both ends.

    In powers of x and 1 - x, which avoids cancellation next to either end, so that no distance becomes negative.
    """
    y, xx, yy = 1.0 - x, x * x, (1.0 - x) * (1.0 - x)
    left, right = start * (1.0 + 3.0 * x + 6.0 * xx), end * (1.0 + 3.0 * y + 6.0 * yy)
    left, right = left + line * x * (1.0 + 3.0 * x), right - line_end * y * (1.0 + 3.0 * y)
    return yy * y * (left + 0.5 * curve * xx) + xx * x * (right + 0.5 * curve_end * yy)


@bare()
def _ends(sides, side, i, length, f, df, a):
    """h f and h^2 f' of a distance at both ends of a step."""
    # h f' first: the unit may span the whole range of floats
    pace = sides.moves[side * sides.d + i] * (-length if side == 0 else length)
    unit = sides.head[UNIT]
    curve, curve_end = pace * (length * (unit * df[a, i])), pace * (length * (unit * df[a + 1, i]))
    return pace * f[a, i], pace * f[a + 1, i], curve, curve_end


@compiled()
def between(tables, h, place, f, df, step, theta, out):
    """Distances at positions `theta` of steps, (K, 2 d); `tables` are the addresses of the two buffers."""
    sides = sides_at(tables[0], tables[1])
    for row in range(len(step)):
        a, x = step[row], theta[row]
        for side in range(2):
            for i in range(sides.d):
                start, end = place[a, side, i], place[a + 1, side, i]
                if x == 1.0 or not end < math.inf:
                    out[row, side * sides.d + i] = end
                    continue
                line, line_end, curve, curve_end = _ends(sides, side, i, h[a], f, df, a)
                out[row, side * sides.d + i] = _at(start, end, x, line, line_end, curve, curve_end)


@compiled()
def speeds(tables, h, place, f, df, nodes, out):
    """``|d beta/dt|`` at the positions `nodes` of every step, t in the unit of distances."""
    sides = sides_at(tables[0], tables[1])
    unit = sides.head[UNIT]
    far = size_to_distance(sides.power, math.log(_TINY)) / unit
    for a in range(len(h)):
        for j in range(len(nodes)):
            x, square = nodes[j], 0.0
            for i in range(sides.d):
                side = 0 if place[a + 1, 0, i] <= place[a + 1, 1, i] else 1
                start, end = place[a, side, i], place[a + 1, side, i]
                if not min(start, end) < far:
                    continue
                line, line_end, curve, curve_end = _ends(sides, side, i, h[a], f, df, a)
                distance = _at(start, end, x, line, line_end, curve, curve_end) * unit
                if distance < math.inf:
                    fall = values_of(sides, side, i, distance)[1]
                    if fall > 0.0:
                        # The change of beta in the step, since the square of the speed may overflow.
                        c_3, c_4, c_5 = bends(end - start, line, line_end, curve, curve_end)
                        rate = line + x * (curve + x * (3.0 * c_3 + x * (4.0 * c_4 + x * 5.0 * c_5)))
                        square += (fall * unit * rate) ** 2
            out[a, j] = math.sqrt(square) / h[a]
