"""The continuous extension."""

from __future__ import annotations

from flowsim.solvers.compilation import FAST, INTEGERS, TABLE, VECTOR, bare, compiled
from flowsim.solvers.multistep.constants import SQUARED


@bare()
def weights_at(length, x):
    """Weights of the difference of z, and of f and f' of both ends, in the polynomial of degree 5 at x, 0 to 1."""
    y, cube, half = 1.0 - x, x * x * x, 0.5 * (length * length if length < SQUARED else SQUARED * SQUARED)
    along = cube * (10.0 - x * (15.0 - 6.0 * x))
    from_left, from_right = (
        length * (x - cube * (6.0 - x * (8.0 - 3.0 * x))),
        -length * cube * (4.0 - x * (7.0 - 3.0 * x)),
    )
    return along, from_left, from_right, half * x * x * y * y * y, half * cube * y * y


@bare(fastmath=FAST)
def bends(change, line, line_end, curve, curve_end):
    """Coefficients of x^3, x^4 and x^5; of x and x^2 they are h f and h^2 f' / 2 of the left end."""
    p, q, s = change - line - 0.5 * curve, line_end - line - curve, 0.5 * (curve_end - curve)
    return 10.0 * p - 4.0 * q + s, 7.0 * q - 15.0 * p - 2.0 * s, 6.0 * p - 3.0 * q + s


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
