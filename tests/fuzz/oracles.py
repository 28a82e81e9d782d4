"""Flows and descents of small problems in arbitrary precision, by code that shares nothing with the package.

Numbers are MPFR's. Every flow is integrated by Gragg's modified midpoint rule and Richardson extrapolation (Hairer,
Norsett & Wanner, *Solving Ordinary Differential Equations I*, Section II.9), in the unknowns in which it can be
followed from any scale of initialisation:

- quadratic formulas ``w^T A w``: ``G_i = int g_i dt``, of which every eigencomponent of A is an exponential;
- products of weights: the conserved ``w_l^2 - w_1^2`` exactly, and the hyperbolic angle of the two smallest weights;
- everything else in its weights, with digits for what it conserves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

import gmpy2
import mpmath
import numpy as np
import sympy
from gmpy2 import mpfr

#: Steps and seconds after which an oracle is given up: the case is left out.
BUDGET, SECONDS = 4000, 6.0
#: Moves of a step, in units of `sizes`, that are felt, and the share of a speed that is nothing.
_FELT, _VANISHED = 1e-2, 1e-3
FUNCTIONS = {
    name: getattr(gmpy2, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "log", "atan", "sqrt")
}

Number = Any
#: A rate, or (breaks, rates).
Decay = float | tuple[Sequence[float], Sequence[float]]
Field = Callable[[list], list]


class TooLongError(Exception):
    """The oracle would take more than its budget."""


def precision(digits: int) -> Any:
    return gmpy2.context(gmpy2.get_context(), precision=int(3.33 * digits) + 8)


class Extrapolation:
    """``y' = f(y)`` step by step; errors of a step are below ``10^tolerance`` times ``sizes(y)``.

    Where flows contract, one whose speed moves it by less than that in all the time that is left is at its end.
    """

    def __init__(
        self, f: Field, y: list, tolerance: float, sizes: Callable[[list], list], contracts: bool = False
    ) -> None:
        self.f, self.y, self.t, self.sizes, self.contracts = f, y, mpfr(0), sizes, contracts
        self.tolerance = mpfr(10) ** tolerance
        self.columns = min(20, max(8, int(-0.45 * tolerance) + 3))
        rates = [abs(b) / s for b, s in zip(f(y), sizes(y), strict=True) if s > 0]
        self.h = 1 / max([rate for rate in rates if rate > 0], default=mpfr(1))
        self.taken, self.deadline = 0, time.process_time() + SECONDS

    def to(self, end: Number) -> list:
        while self.t < end:
            h, left = min(self.h, end - self.t), end - self.t
            if self.contracts and all(
                abs(speed) * left <= self.tolerance * size
                for speed, size in zip(self.f(self.y), self.sizes(self.y), strict=True)
            ):
                return self.y
            found = self._step(h)
            self.taken += 1
            if self.taken > BUDGET or time.process_time() > self.deadline:
                raise TooLongError
            if found is None:
                self.h = h / 2
                continue
            self.y, column = found
            self.t = end if h == end - self.t else self.t + h
            if column < self.columns - 3:
                self.h = max(self.h, h * mpfr("1.6"))
        return self.y

    def _step(self, h: Number) -> tuple[list, int] | None:
        table: list[list[list]] = []
        first, sizes = self.f(self.y), self.sizes(self.y)
        for j in range(self.columns):
            n = 2 * (j + 1)
            step = h / n
            before, now = self.y, [a + step * b for a, b in zip(self.y, first, strict=True)]
            for _ in range(n - 1):
                before, now = now, [a + 2 * step * b for a, b in zip(before, self.f(now), strict=True)]
            row = [[(a + b + step * c) / 2 for a, b, c in zip(before, now, self.f(now), strict=True)]]
            for m in range(1, j + 1):
                ratio = mpfr(n * n) / (4 * (j + 1 - m) ** 2) - 1
                row.append([a + (a - b) / ratio for a, b in zip(row[-1], table[-1][m - 1], strict=True)])
            table.append(row)
            if j >= 4:
                gaps = [abs(a - b) for a, b in zip(row[-1], row[-2], strict=True)]
                if not all(gmpy2.is_finite(a) for a in row[-1]):
                    return None
                if all(gap <= self.tolerance * size for gap, size in zip(gaps, sizes, strict=True)):
                    return None if self._leaps(h, first, row[-1], sizes) else (row[-1], j)
        return None

    def _leaps(self, h: Number, first: list, y: list, sizes: list) -> bool:
        """Whether a speed that moves y vanishes in the step: rows that leap over an exponential agree on nothing."""
        return any(
            h * abs(before) > _FELT * size and abs(after) < _VANISHED * abs(before)
            for before, after, size in zip(first, self.f(y), sizes, strict=True)
        )


SLOPES: dict[str, Callable[[Number, Number], Number]] = {
    "squared": lambda f, y: f - y,
    "logistic": lambda f, y: -y / (1 + gmpy2.exp(y * f)),
    "exponential": lambda f, y: -y * gmpy2.exp(-y * f),
    "log-cosh": lambda f, y: gmpy2.tanh(f - y),
    "pseudo-huber": lambda f, y: (f - y) / gmpy2.sqrt(1 + (f - y) ** 2),
    "poisson": lambda f, y: gmpy2.exp(f) - y,
}


class Data:
    """X, y, a loss and weights of the rows in full precision."""

    def __init__(
        self, X: np.ndarray, y: np.ndarray, loss: str = "squared", weight: Sequence[float] | None = None
    ) -> None:
        self.n, self.d = X.shape
        self.rows = [[mpfr(float(v)) for v in row] for row in X]
        self.y = [mpfr(float(v)) for v in y]
        self.slope = SLOPES[loss]
        self.weight = [mpfr(float(v)) for v in (np.ones(self.n) if weight is None else weight)]
        self.squares = [self.moment(i, i) for i in range(self.d)]

    def moment(self, i: int, j: int) -> Number:
        """An entry of ``X^T W X / n``."""
        return sum(w * row[i] * row[j] for w, row in zip(self.weight, self.rows, strict=True)) / self.n

    def gradient(self, beta: Sequence[Number]) -> list:
        """``X^T (w loss'(X beta, y)) / n``."""
        rest = [
            w * self.slope(sum(a * b for a, b in zip(row, beta, strict=True)), y) / self.n
            for w, row, y in zip(self.weight, self.rows, self.y, strict=True)
        ]
        return [sum(row[i] * r for row, r in zip(self.rows, rest, strict=True)) for i in range(self.d)]


class Shrinkage:
    """A weight decay: a number, or the breaks and rates of one that is constant between them; `now` is its rate."""

    def __init__(self, decay: Decay) -> None:
        breaks, rates = ((), (decay,)) if isinstance(decay, int | float) else decay
        self.later = [(mpfr(float(t)), mpfr(float(rate))) for t, rate in zip(breaks, rates[1:], strict=True)]
        self.now = mpfr(float(rates[0]))

    def reach(self, t: Number) -> None:
        while self.later and self.later[0][0] <= t:
            self.now = self.later.pop(0)[1]

    def along(self, flow: Extrapolation, times: Sequence[Number]) -> Iterator[list]:
        """States at `times` of a flow that reads `now`."""
        for t in times:
            while self.later and self.later[0][0] < t:
                at = self.later[0][0]
                flow.to(at)
                self.reach(at)
            yield flow.to(t)


@cache
def _eigen(formula: str, names: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """Eigenvalues and orthonormal eigenvectors of the symmetric matrix of a quadratic formula, as text."""
    symbols = [sympy.Symbol(name) for name in names]
    hessian = sympy.hessian(sympy.sympify(formula), symbols) / 2
    k = len(names)
    with mpmath.workdps(60):
        values, vectors = mpmath.eigsy(mpmath.matrix([[mpmath.mpf(str(v)) for v in hessian.row(i)] for i in range(k)]))
        return [str(v) for v in values], [[str(vectors[a, b]) for a in range(k)] for b in range(k)]


def components(formula: str, names: Sequence[str], start: list[list]) -> tuple[list, list[list]]:
    """Eigenvalues of a quadratic formula, and squares (k, d) of the weights' components at the start."""
    texts, vectors = _eigen(formula, tuple(names))
    squares = [
        [sum(mpfr(v) * w for v, w in zip(vector, own, strict=True)) ** 2 for own in zip(*start, strict=True)]
        for vector in vectors
    ]
    return [mpfr(text) for text in texts], squares


def quadratic_flow(
    formula: str | Sequence[str], names: Sequence[str], data: Data, start: list[list], times: Sequence[Number],
    std: float, decay: Decay,
) -> list[list]:  # fmt: skip
    """beta at `times`. With ``c = q_a^T w``: ``(ln c_a)' = -2 lambda_a g - 4 std^2 s_i^2 lambda_a^2 - decay``."""
    d, noise, shrinkage = data.d, mpfr(std), Shrinkage(decay)
    modes = []
    for i in range(d):
        rates, squares = components(_own(formula, i), names, [[row[i]] for row in start])
        modes.append(
            [(rate, 4 * noise**2 * data.squares[i] * rate**2, c[0]) for rate, c in zip(rates, squares, strict=True)]
        )
    shifts = [noise**2 * sum(rate for rate, _, _ in own) for own in modes]

    def beta(state: list) -> list:
        t, lost = state[d:]
        return [
            sum(
                rate * square * gmpy2.exp(-2 * (2 * rate * state[i] + kappa * t + lost))
                for rate, kappa, square in own if rate and square
            )
            for i, own in enumerate(modes)
        ]  # fmt: skip

    def field(state: list) -> list:
        means = [b + shift for b, shift in zip(beta(state), shifts, strict=True)]
        return [*data.gradient(means), mpfr(1), shrinkage.now]

    unit = 1 / (4 * max(abs(rate) for own in modes for rate, _, _ in own))
    flow = Extrapolation(field, [mpfr(0)] * (d + 2), -22, lambda y: [unit] * d + [1 + abs(y[d]), 1 + abs(y[d + 1])])
    return [beta(state) for state in shrinkage.along(flow, times)]


def _own(formula: str | Sequence[str], i: int) -> str:
    return formula if isinstance(formula, str) else formula[i]


class Products:
    """Products of weights ``start`` (L, d), each by the hyperbolic angle q of its two smallest.

    With x and w these two, ``x = sqrt(D) sinh(q), |w| = sqrt(D) cosh(q)``, D conserved (``x = +-e^q`` where D = 0):
    ``q' = -g sign(w) prod(the others)``.
    """

    def __init__(self, start: list[list]) -> None:
        order = [sorted((abs(w[i]), w[i]) for w in start) for i in range(len(start[0]))]
        x0 = [own[0][1] for own in order]
        self.gaps = [[own[j][0] ** 2 - own[0][0] ** 2 for j in range(1, len(own))] for own in order]
        self.signs = [[1 if own[j][1] >= 0 else -1 for j in range(1, len(own))] for own in order]
        self.tied = [gap[0] == 0 for gap in self.gaps]
        self.side = [1 if x >= 0 else -1 for x in x0]
        self.start = [
            gmpy2.log(abs(x)) if tie else gmpy2.asinh(x / gmpy2.sqrt(gap[0]))
            for x, gap, tie in zip(x0, self.gaps, self.tied, strict=True)
        ]

    def _weights(self, q: list) -> list[list]:
        """Of every coordinate, the smallest first."""
        out = []
        for i, angle in enumerate(q):
            tied = self.tied[i]
            x = self.side[i] * gmpy2.exp(angle) if tied else gmpy2.sqrt(self.gaps[i][0]) * gmpy2.sinh(angle)
            others = zip(self.signs[i], self.gaps[i], strict=True)
            out.append([x, *(sign * gmpy2.sqrt(x * x + gap) for sign, gap in others)])
        return out

    def beta(self, q: list) -> list:
        return [_product(own) for own in self._weights(q)]

    def speed(self, q: list) -> list:
        """``-q' / g``."""
        return [
            signs[0] * (side if tied else 1) * _product(own[2:])
            for own, signs, side, tied in zip(self._weights(q), self.signs, self.side, self.tied, strict=True)
        ]


def _product(factors: Sequence[Number]) -> Number:
    out = mpfr(1)
    for factor in factors:
        out *= factor
    return out


def product_flow(data: Data, start: list[list], times: Sequence[Number]) -> list[list]:
    """beta of a product of weights at `times`."""
    growth = Products(start)

    def field(q: list) -> list:
        return [-g * s for g, s in zip(data.gradient(growth.beta(q)), growth.speed(q), strict=True)]

    flow = Extrapolation(field, growth.start, -22, lambda y: [mpfr(1)] * data.d, contracts=True)
    return [growth.beta(flow.to(t)) for t in times]


@cache
def parts(formula: str, names: tuple[str, ...], noise: str, library: str = "") -> Callable[..., list]:
    """(weights, std) -> [E phi, dE/dw..., dVar/dw..., phi], averages over the noise written out; MPFR's, or NumPy's."""
    phi, std = sympy.sympify(formula), sympy.Symbol("std_")
    weights = [sympy.Symbol(name) for name in names]
    mean, variance = phi, sympy.S.Zero
    if noise == "rademacher":
        corners = [
            phi.subs({w: w + sign * std for w, sign in zip(weights, signs, strict=True)}, simultaneous=True)
            for signs in product((-1, 1), repeat=len(weights))
        ]
        mean = sum(corners) / len(corners)
        variance = sum(corner**2 for corner in corners) / len(corners) - mean**2
    elif noise == "gaussian":
        drawn = [sympy.Symbol(f"xi_{name}") for name in names]
        once = sympy.expand(phi.subs({w: w + xi for w, xi in zip(weights, drawn, strict=True)}, simultaneous=True))
        mean, square = _gaussian(once, drawn, std), _gaussian(sympy.expand(once**2), drawn, std)
        variance = sympy.expand(square - sympy.expand(mean**2))
    found = [mean, *(mean.diff(w) for w in weights), *(variance.diff(w) for w in weights), phi]
    return sympy.lambdify([*weights, std], found, [library or FUNCTIONS], cse=True)


def _gaussian(expression: sympy.Expr, drawn: Sequence[sympy.Symbol], std: sympy.Symbol) -> sympy.Expr:
    out = sympy.S.Zero
    for powers, coefficient in sympy.Poly(expression, *drawn).terms():
        if not any(n % 2 for n in powers):
            out += coefficient * sympy.prod(sympy.factorial2(n - 1) for n in powers if n) * std ** sum(powers)
    return out


def weight_flow(
    formula: str | Sequence[str], names: Sequence[str], data: Data, start: list[list], times: Sequence[Number],
    noise: str = "", std: float = 0.0, decay: Decay = 0.0, finest: float = -22.0,
) -> list[list]:  # fmt: skip
    """beta at `times`, in the weights; errors of a step are ``10^finest`` of a coordinate's largest weight."""
    d, k, sigma, shrinkage = data.d, len(names), mpfr(std), Shrinkage(decay)
    own = [parts(_own(formula, i), tuple(names), noise) for i in range(d)]

    def field(state: list) -> list:
        seen = [own[i](*state[i::d], sigma) for i in range(d)]
        g = data.gradient([mpfr(each[0]) for each in seen])
        return [
            -(g[i] * seen[i][1 + a] + data.squares[i] / 2 * seen[i][1 + k + a] + shrinkage.now * state[a * d + i])
            for a in range(k) for i in range(d)
        ]  # fmt: skip

    def sizes(state: list) -> list:
        return [max(abs(w) for w in state[i::d]) for i in range(d)] * k

    flow = Extrapolation(field, [w for row in start for w in row], finest, sizes)
    return [[mpfr(own[i](*state[i::d], sigma)[-1]) for i in range(d)] for state in shrinkage.along(flow, times)]


def weight_descent(
    formula: str | Sequence[str], names: Sequence[str], data: Data, start: list[list], h: Sequence[float],
    momentum: float = 0.0, decay: Decay = 0.0,
) -> list:  # fmt: skip
    """beta after steps of descent of sizes `h`, heavy ball with momentum."""
    d, k, mu, shrinkage, t = data.d, len(names), mpfr(momentum), Shrinkage(decay), mpfr(0)
    own = [parts(_own(formula, i), tuple(names), "") for i in range(d)]
    w, v = [list(row) for row in start], [[mpfr(0)] * d for _ in start]
    for size in map(mpfr, h):
        shrinkage.reach(t)
        seen = [own[i](*(row[i] for row in w), mpfr(0)) for i in range(d)]
        g = data.gradient([mpfr(each[0]) for each in seen])
        for a in range(k):
            for i in range(d):
                v[a][i] = mu * v[a][i] - size * (g[i] * seen[i][1 + a] + shrinkage.now * w[a][i])
                w[a][i] += v[a][i]
        t += size
    return [mpfr(own[i](*(row[i] for row in w), mpfr(0))[-1]) for i in range(d)]
