"""The continuous extension: z, and the speed of beta."""

from __future__ import annotations

import math

from flowsim.solvers.compilation import FAST, INTEGERS, TABLE, TERMS, VECTOR, bare, compiled
from flowsim.solvers.multistep.constants import SQUARED


@bare()
def weights_at(length, x):
    """Weights of the difference of z, and of f and f' of both ends, in the polynomial of degree 5 at x, 0 to 1."""
    y, cube, half = 1.0 - x, x * x * x, 0.5 * min(length, SQUARED) * min(length, SQUARED)
    along = cube * (10.0 - x * (15.0 - 6.0 * x))
    from_left, from_right = (
        length * (x - cube * (6.0 - x * (8.0 - 3.0 * x))),
        -length * cube * (4.0 - x * (7.0 - 3.0 * x)),
    )
    return along, from_left, from_right, half * x * x * y * y * y, half * cube * y * y


@bare(fastmath=FAST)
def change_at(change, line, line_end, curve, curve_end, x):
    """The change since the start and its derivative by x in that polynomial, with given h f and h^2 f' of both ends."""
    p, q, s = change - line - 0.5 * curve, line_end - line - curve, 0.5 * (curve_end - curve)
    c_3, c_4, c_5 = 10.0 * p - 4.0 * q + s, 7.0 * q - 15.0 * p - 2.0 * s, 6.0 * p - 3.0 * q + s
    moved = x * (line + x * (0.5 * curve + x * (c_3 + x * (c_4 + x * c_5))))
    return moved, line + x * (curve + x * (3.0 * c_3 + x * (4.0 * c_4 + x * 5.0 * c_5)))


@compiled(fastmath=FAST, declared=(VECTOR, TABLE, TABLE, TABLE, INTEGERS, VECTOR, TABLE))
def between(h, z, f, df, step, theta, out):
    """z at positions `theta` of steps: the polynomial of degree 5 with z, f and f' of both ends."""
    for row in range(len(step)):
        a, x = step[row], theta[row]
        if x == 1.0:
            for i in range(z.shape[1]):
                out[row, i] = z[a + 1, i]
            continue
        along, from_left, from_right, bent_left, bent_right = weights_at(h[a], x)
        for i in range(z.shape[1]):
            straight = z[a, i] + along * (z[a + 1, i] - z[a, i]) + from_left * f[a, i] + from_right * f[a + 1, i]
            out[row, i] = straight + bent_left * df[a, i] + bent_right * df[a + 1, i]


@bare(fastmath=FAST)
def _change(length, z, f, df, a, i, x):
    """:func:`change_at` of a coordinate in a step."""
    square = min(length, SQUARED) * min(length, SQUARED)
    line, line_end, curve, curve_end = length * f[a, i], length * f[a + 1, i], square * df[a, i], square * df[a + 1, i]
    return change_at(z[a + 1, i] - z[a, i], line, line_end, curve, curve_end, x)


@compiled(fastmath=FAST)
def rates_between(h, z, f, df, step, theta, out):
    """The derivative in time of :func:`between`."""
    for row in range(len(step)):
        a, x = step[row], theta[row]
        for i in range(z.shape[1]):
            out[row, i] = _change(h[a], z, f, df, a, i, x)[1] / h[a]


@compiled(fastmath=FAST, declared=(TERMS, VECTOR, VECTOR, TABLE, TABLE, TABLE, VECTOR, TABLE))
def speeds(exponentials, t, h, z, f, df, nodes, out):
    """``|d beta/dt|`` at the positions `nodes` of every step."""
    log_coefficient, sign, slope, decay = exponentials
    K, w = log_coefficient.shape
    for a in range(len(h)):
        for j in range(len(nodes)):
            x = nodes[j]
            now, total = t[a] + x * h[a], 0.0
            for i in range(w):
                moved, moving = _change(h[a], z, f, df, a, i, x)
                speed = 0.0
                for c in range(K):
                    power = log_coefficient[c, i] + slope[c, i] * (z[a, i] + moved) - decay[c, i] * now
                    if power > -745.0:
                        speed += sign[c, i] * math.exp(power) * (slope[c, i] * moving / h[a] - decay[c, i])
                total += speed * speed
            out[a, j] = math.sqrt(total)
