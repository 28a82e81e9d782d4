"""The process of diagonal networks in rational arithmetic: no tolerances, and no code shared with `diagonal`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sympy.polys.matrices import DomainMatrix

Vector = list[Fraction]
Matrix = list[list[Fraction]]
Threshold = Fraction | None  # None: no bound on that side


@dataclass(frozen=True)
class ExactPath:
    """Jump times, saddles and hits as fractions, for the exact rational values of the data.

    A saddle that is not unique is one minimiser of several; `tied` then holds the admissible (coordinate, sign).
    """

    jump_times: tuple[Fraction, ...]
    saddles: tuple[tuple[Fraction, ...], ...]
    hits: tuple[tuple[int, ...], ...]
    tied: tuple[frozenset[tuple[int, int]], ...]
    next_jump: Fraction | None


def exact_process(
    X: Matrix,
    y: Vector,
    thresholds: Sequence[Sequence[Threshold]],
    penalties: Sequence[Vector],
    max_jumps: int | None = None,
    t_end: Fraction | None = None,
) -> ExactPath:
    """Follow the process from saddle to saddle; thresholds and penalties are those of the upper and lower bounds."""
    n, d = len(X), len(X[0])
    gram = [[sum((row[i] * row[j] for row in X), Fraction(0)) / n for j in range(d)] for i in range(d)]
    moment = [sum((row[i] * value for row, value in zip(X, y, strict=True)), Fraction(0)) / n for i in range(d)]
    t = Fraction(0)
    s = [Fraction(0)] * d
    at = {(i, sign) for side, sign in zip(thresholds, (1, -1), strict=True) for i in range(d) if side[i] == 0}
    beta, loose = _saddle(gram, moment, at, penalties)
    tied = [loose]
    at = _still_at(gram, moment, beta, at, penalties)
    times: list[Fraction] = []
    saddles = [tuple(beta)]
    hits: list[tuple[int, ...]] = []
    while True:
        g = [_dot(gram[i], beta) - moment[i] for i in range(d)]
        waits: dict[tuple[int, int], Fraction] = {}
        for side, cost, sign in zip(thresholds, penalties, (1, -1), strict=True):
            for i, threshold in enumerate(side):
                if threshold is not None and (i, sign) not in at and -sign * g[i] - cost[i] > 0:
                    waits[i, sign] = (threshold + cost[i] * t - sign * s[i]) / (-sign * g[i] - cost[i])
        if not waits:
            return ExactPath(tuple(times), tuple(saddles), tuple(hits), tuple(tied), None)
        wait = min(waits.values())
        if (max_jumps is not None and len(times) >= max_jumps) or (t_end is not None and t + wait >= t_end):
            return ExactPath(tuple(times), tuple(saddles), tuple(hits), tuple(tied), t + wait)
        t += wait
        s = [s[i] - wait * g[i] for i in range(d)]
        arrived = {key for key, value in waits.items() if value == wait}
        beta, loose = _saddle(gram, moment, at | arrived, penalties)
        tied.append(loose)
        at = _still_at(gram, moment, beta, at | arrived, penalties)
        times.append(t)
        saddles.append(tuple(beta))
        hits.append(tuple(sorted(i for i, _ in arrived)))


def _saddle(
    gram: Matrix, moment: Vector, at: set[tuple[int, int]], costs: Sequence[Vector]
) -> tuple[Vector, frozenset[tuple[int, int]]]:
    """A minimiser on the cone of coordinates at a bound, and those that are not unique, if any."""
    beta = [Fraction(0)] * len(moment)
    keys = sorted(at)
    G = [[p * q * gram[i][j] for j, q in keys] for i, p in keys]
    h = [p * moment[i] - costs[p < 0][i] for i, p in keys]
    b = _quadratic(G, h)
    for (i, p), value in zip(keys, b, strict=True):
        beta[i] += p * value
    flat = [k for k in range(len(keys)) if _dot(G[k], b) == h[k]]
    chosen = sorted({keys[k][0] for k in flat})  # a free coordinate has two keys and one column
    if _null_vector([[gram[i][j] for j in chosen] for i in chosen]) is None:
        return beta, frozenset()
    return beta, frozenset(keys[k] for k in flat)


def _still_at(
    gram: Matrix, moment: Vector, beta: Vector, at: set[tuple[int, int]], costs: Sequence[Vector]
) -> set[tuple[int, int]]:
    """The coordinates that the gradient keeps at their bounds."""
    kept = set()
    for i, p in at:
        push = p * (moment[i] - _dot(gram[i], beta)) - costs[p < 0][i]
        if push >= 0 or beta[i] * p > 0:
            kept.add((i, p))
    return kept


def _quadratic(G: Matrix, h: Vector) -> Vector:
    """A minimiser of ``1/2 b.G b - h.b`` over b >= 0, G positive semidefinite, by a primal active set."""
    b = [Fraction(0)] * len(h)
    free: list[int] = []
    while True:
        slope = [h[k] - _dot(G[k], b) for k in range(len(h))]
        entering = next((k for k in range(len(h)) if k not in free and slope[k] > 0), None)
        if entering is None:
            return b
        free.append(entering)
        while free:
            kernel = _null_vector([[G[k][m] for m in free] for k in free])
            if kernel is not None:
                sign = 1 if kernel[-1] > 0 else -1
                direction = [sign * value for value in kernel]
                limit = None
            else:
                target = _solve([[G[k][m] for m in free] for k in free], [h[k] for k in free])
                direction = [value - b[k] for k, value in zip(free, target, strict=True)]
                limit = Fraction(1)
            ratios = [-b[k] / move for k, move in zip(free, direction, strict=True) if move < 0]
            blocked = [ratio for ratio in ratios if limit is None or ratio <= limit]
            step = min(blocked) if blocked else limit
            if step is None:
                raise ArithmeticError("the objective has no minimum")
            for k, move in zip(free, direction, strict=True):
                b[k] += step * move
            free = [k for k in free if b[k] > 0]
            if not blocked:
                break


def _dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((x * z for x, z in zip(a, b, strict=True) if x and z), Fraction(0))


def _exact(A: Matrix) -> DomainMatrix:
    from sympy import QQ
    from sympy.polys.matrices import DomainMatrix

    return DomainMatrix(
        [[QQ(value.numerator, value.denominator) for value in row] for row in A], (len(A), len(A[0])), QQ
    )


def _vector(matrix: DomainMatrix) -> Vector:
    return [Fraction(int(value.numerator), int(value.denominator)) for value in matrix.to_list_flat()]


def _solve(A: Matrix, b: Vector) -> Vector:
    return _vector(_exact(A).lu_solve(_exact([[value] for value in b])))


def _null_vector(A: Matrix) -> Vector | None:
    """A vector of the null space; None if there is none."""
    basis = _exact(A).nullspace() if A else None
    return _vector(basis[0, :]) if basis is not None and basis.shape[0] else None
