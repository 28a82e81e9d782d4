"""Two-layer linear networks in arbitrary precision, in their weights: flows by extrapolation, and descents."""

from __future__ import annotations

from collections.abc import Sequence

from gmpy2 import mpfr

from tests.fuzz.oracles import Data, Decay, Extrapolation, Number, Shrinkage


class Field:
    """Downhill on ``U V^T``, the weights (U, V) in one list, row by row; `targets`: the data of each."""

    def __init__(self, targets: Sequence[Data], width: int, std: float, shrinkage: Shrinkage) -> None:
        self.targets, self.h, self.shrinkage = targets, width, shrinkage
        self.D, self.m = targets[0].d, len(targets)
        self.gram = [[targets[0].moment(i, j) for j in range(self.D)] for i in range(self.D)]
        self.pull = mpfr(std) ** 2 * self.m
        self.trace = mpfr(std) ** 2 * sum(targets[0].squares)

    def beta(self, state: list) -> list[list]:
        U, V, h = state[: self.D * self.h], state[self.D * self.h :], self.h
        return [[sum(U[i * h + a] * V[j * h + a] for a in range(h)) for j in range(self.m)] for i in range(self.D)]

    def __call__(self, state: list) -> list:
        D, m, h, shrink = self.D, self.m, self.h, self.shrinkage.now
        U, V, B = state[: D * h], state[D * h :], self.beta(state)
        G = [data.gradient([row[j] for row in B]) for j, data in enumerate(self.targets)]
        first = [
            -sum(G[j][i] * V[j * h + a] for j in range(m)) - shrink * U[i * h + a]
            - (self.pull * sum(self.gram[i][k] * U[k * h + a] for k in range(D)) if self.pull else 0)
            for i in range(D) for a in range(h)
        ]  # fmt: skip
        second = [
            -sum(G[j][i] * U[i * h + a] for i in range(D)) - (self.trace + shrink) * V[j * h + a]
            for j in range(m) for a in range(h)
        ]  # fmt: skip
        return first + second


def linear_flow(
    targets: Sequence[Data], U: list[list], V: list[list], times: Sequence[Number], std: float, decay: Decay,
    finest: float,
) -> list[list]:  # fmt: skip
    """beta, flattened, at `times`."""
    shrinkage = Shrinkage(decay)
    field = Field(targets, len(U[0]), std, shrinkage)
    flat = [w for row in (*U, *V) for w in row]
    flow = Extrapolation(field, flat, finest, lambda y: [max(abs(w) for w in y)] * len(y))
    return [[b for row in field.beta(state) for b in row] for state in shrinkage.along(flow, times)]


def linear_descent(
    targets: Sequence[Data], U: list[list], V: list[list], h: Sequence[float], momentum: float, decay: Decay
) -> list:
    """beta, flattened, after steps of sizes `h`, heavy ball with momentum."""
    shrinkage, t = Shrinkage(decay), mpfr(0)
    field = Field(targets, len(U[0]), 0.0, shrinkage)
    w = [w for row in (*U, *V) for w in row]
    v = [mpfr(0)] * len(w)
    for size in map(mpfr, h):
        shrinkage.reach(t)
        v = [mpfr(momentum) * old + size * rate for old, rate in zip(v, field(w), strict=True)]
        w = [a + b for a, b in zip(w, v, strict=True)]
        t += size
    return [b for row in field.beta(w) for b in row]
