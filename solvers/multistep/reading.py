"""The continuous extension: z, and the speed of beta."""

from __future__ import annotations

import math

from flowsim.solvers.compilation import FAST, INTEGERS, TABLE, TERMS, VECTOR, compiled
from flowsim.solvers.multistep.constants import SQUARED


@compiled(fastmath=FAST, declared=(VECTOR, TABLE, TABLE, TABLE, INTEGERS, VECTOR, TABLE))
def between(h, z, f, df, step, theta, out):
    """z at positions `theta` of steps: the polynomial of degree 5 with z, f and f' of both ends."""
    for row in range(len(step)):
        a, x = step[row], theta[row]
        length = h[a]
        if x == 1.0:
            for i in range(z.shape[1]):
                out[row, i] = z[a + 1, i]
            continue
        y, cube = 1.0 - x, x * x * x
        along = cube * (10.0 - x * (15.0 - 6.0 * x))
        from_left, from_right = (
            length * (x - cube * (6.0 - x * (8.0 - 3.0 * x))),
            -length * cube * (4.0 - x * (7.0 - 3.0 * x)),
        )
        half = 0.5 * min(length, SQUARED) * min(length, SQUARED)
        bent_left, bent_right = half * x * x * y * y * y, half * cube * y * y
        for i in range(z.shape[1]):
            straight = z[a, i] + along * (z[a + 1, i] - z[a, i]) + from_left * f[a, i] + from_right * f[a + 1, i]
            out[row, i] = straight + bent_left * df[a, i] + bent_right * df[a + 1, i]


@compiled(fastmath=FAST)
def rates_between(h, z, f, df, step, theta, out):
    """The derivative in time of :func:`between`."""
    for row in range(len(step)):
        a, x = step[row], theta[row]
        length, half = h[a], 0.5 * min(h[a], SQUARED) * min(h[a], SQUARED)
        for i in range(z.shape[1]):
            line, curve = length * f[a, i], half * df[a, i]
            p = (z[a + 1, i] - z[a, i]) - line - curve
            q = length * (f[a + 1, i] - f[a, i]) - 2.0 * curve
            s = half * (df[a + 1, i] - df[a, i])
            c_3, c_4, c_5 = 10.0 * p - 4.0 * q + s, 7.0 * q - 15.0 * p - 2.0 * s, 6.0 * p - 3.0 * q + s
            out[row, i] = (line + x * (2.0 * curve + x * (3.0 * c_3 + x * (4.0 * c_4 + x * 5.0 * c_5)))) / length


@compiled(fastmath=FAST, declared=(TERMS, VECTOR, VECTOR, TABLE, TABLE, TABLE, VECTOR, TABLE))
def speeds(exponentials, t, h, z, f, df, nodes, out):
    """``|d beta/dt|`` at the positions `nodes` of every step."""
    log_coefficient, sign, slope, decay = exponentials
    K, w = log_coefficient.shape
    for a in range(len(h)):
        length = h[a]
        square = min(length, SQUARED) * min(length, SQUARED)
        for j in range(len(nodes)):
            x = nodes[j]
            now, total = t[a] + x * length, 0.0
            for i in range(w):
                line, curve = length * f[a, i], 0.5 * square * df[a, i]
                p = (z[a + 1, i] - z[a, i]) - line - curve
                q = length * (f[a + 1, i] - f[a, i]) - square * df[a, i]
                s = 0.5 * square * (df[a + 1, i] - df[a, i])
                c_3, c_4, c_5 = 10.0 * p - 4.0 * q + s, 7.0 * q - 15.0 * p - 2.0 * s, 6.0 * p - 3.0 * q + s
                there = z[a, i] + x * (line + x * (curve + x * (c_3 + x * (c_4 + x * c_5))))
                moving = line + x * (2.0 * curve + x * (3.0 * c_3 + x * (4.0 * c_4 + x * 5.0 * c_5)))
                speed = 0.0
                for c in range(K):
                    power = log_coefficient[c, i] + slope[c, i] * there - decay[c, i] * now
                    if power > -745.0:
                        speed += sign[c, i] * math.exp(power) * (slope[c, i] * moving / length - decay[c, i])
                total += speed * speed
            out[a, j] = math.sqrt(total)
