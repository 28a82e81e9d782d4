"""What random cases are made of: data, scales, starts, losses, weights of rows, weight decay, times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gmpy2
import numpy as np
import pandas
from gmpy2 import mpfr
from scipy.sparse import csr_array

import flowsim as fs
from tests.fuzz import oracles
from tests.fuzz.plain import seconds_in_weights

LOSSES = ("logistic", "exponential", "log-cosh", "pseudo-huber", "poisson")
METHODS = ("auto", "auto", "auto", "auto", "LSODA", "BDF", "Radau", "DOP853")
#: Steps of an explicit method that an oracle may need, by the fastest rate.
STIFF = 1500.0


@dataclass(frozen=True)
class Case:
    """A run and its right values: ``run()`` gives (what was run, betas (T, d)), ``right(what)`` those of the oracle.

    `right` may give the start as well, in front: errors count by the largest coefficient on the way, and besides it by
    `scale`. `facts` is for the reader.
    """

    facts: dict[str, Any]
    rtol: float
    run: Callable[[], tuple[Any, np.ndarray]]
    right: Callable[[Any], np.ndarray]
    scale: float = 0.0
    estimated: bool = False
    #: Processor time of the method in the plain weights, where a user named it.
    plain: Callable[[], float] | None = None
    #: Size of the products of weights of which coefficients are differences at the start.
    terms: float = 0.0


@dataclass
class Draft:
    """What is drawn before a network is: data, scales, clock and method.

    `extra`: a generator for what was added to the cases later, which changes no other draw.
    """

    rng: np.random.Generator
    extra: np.random.Generator
    X: np.ndarray
    y: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)
    form: str = "array"
    weight: np.ndarray | None = None

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def also(self, p: float) -> bool:
        return bool(self.extra.random() < p)

    def power(self, low: float, high: float, rng: np.random.Generator | None = None) -> float:
        return float(10.0 ** (rng or self.rng).uniform(low, high))

    def weigh(self, p: float) -> None:
        """Weights of the rows, one of which may be 0."""
        if self.also(p):
            self.weight = self.extra.uniform(0.2, 3.0, len(self.y))
            if len(self.y) > 1 and self.also(0.3):
                self.weight[self.extra.integers(len(self.y))] = 0.0
            self.facts["sample_weight"] = self.weight.tolist()

    @property
    def rows(self) -> np.ndarray:
        """Those of X, weighted."""
        return self.X if self.weight is None else np.sqrt(self.weight)[:, None] * self.X

    @property
    def curvature(self) -> float:
        """Largest eigenvalue of ``X^T W X / n``."""
        return float(np.linalg.norm(self.rows, 2)) ** 2 / len(self.X)

    @property
    def solution(self) -> float:
        """Size of the least-squares solution."""
        y = self.y if self.weight is None else np.sqrt(self.weight) * self.y
        return float(np.abs(np.linalg.lstsq(self.rows, y, rcond=1e-6)[0]).max())

    def given(self, X: np.ndarray) -> Any:
        """X as a caller may have it, the same numbers."""
        if self.form == "narrow":
            exact = (dtype for dtype in (np.int8, np.float32) if np.array_equal(X.astype(dtype), X))
            with np.errstate(all="ignore"):
                return X.astype(next(exact, float))
        makers = {
            "fortran": np.asfortranarray,
            "sparse": csr_array,
            "frame": pandas.DataFrame,
            "list": np.ndarray.tolist,
        }
        return makers.get(self.form, np.array)(X)

    def problem(self, X: np.ndarray, y: np.ndarray, loss: str = "squared") -> fs.Problem:
        if loss == "squared":
            return fs.Regression(self.given(X), y, sample_weight=self.weight)
        return fs.Problem(self.given(X), y, loss=loss, sample_weight=self.weight)

    def data(self, X: np.ndarray, y: np.ndarray, loss: str = "squared") -> oracles.Data:
        return oracles.Data(X, y, loss, self.weight)

    def force(self, loss: str) -> float:
        slopes = np.array([float(oracles.SLOPES[loss](mpfr(0), mpfr(float(v)))) for v in self.y])
        return float(np.abs(self.X.T @ (slopes if self.weight is None else self.weight * slopes)).max()) / len(self.y)

    def schedule(self, p: float, rate: float, end: float) -> fs.DecaySchedule | None:
        """Weight decay that changes once to three times before `end`, among them on or off."""
        if not self.also(p):
            return None
        breaks = np.sort(self.extra.uniform(0.05, 1.1, int(self.extra.integers(1, 4)))) * end
        rates = rate * self.extra.choice([0.0, 0.3, 1.0, 2.0], len(breaks) + 1)
        self.facts["schedule"] = (breaks.tolist(), rates.tolist())
        return fs.DecaySchedule(breaks.tolist(), rates.tolist())

    def mixed(self, formula: str, pairs: Sequence[tuple[str, str]], p: float) -> str | list[str]:
        """A formula, or two that take turns over the coordinates: few pairs, as each compiles a kernel of its own."""
        if not self.also(p):
            return formula
        return list(2 * pairs[int(self.extra.integers(len(pairs)))])[: self.X.shape[1]]


def shrinkage(decay: float | fs.DecaySchedule) -> oracles.Decay:
    """A weight decay as oracles take it."""
    return (decay.times, decay.rates) if isinstance(decay, fs.DecaySchedule) else decay


def start_of(draft: Draft, names: tuple[str, ...], positive: bool = False) -> dict[str, np.ndarray]:
    """Directions of the weights: any, symmetric, of mixed signs, or with a weight that is 0."""
    d = draft.X.shape[1]
    drawn = {name: draft.rng.uniform(0.3, 1.4, d) for name in names}
    way = draft.rng.random()
    if way < 0.25:
        drawn = dict.fromkeys(names, drawn[names[0]])
    elif way < 0.5 and not positive:
        drawn = {name: values * draft.rng.choice([-1.0, 1.0], d) for name, values in drawn.items()}
    elif way < 0.65 and not positive:
        drawn[names[-1]] = np.zeros(d)
    draft.facts["start"] = {name: values.tolist() for name, values in drawn.items()}
    return drawn


def scaled(alpha: Any, *arrays: Any) -> list[list]:
    """Arrays times alpha, in full precision."""
    return [[mpfr(alpha) * mpfr(float(v)) for v in values] for values in arrays]


def targets(rng: np.random.Generator, loss: str, y: np.ndarray) -> np.ndarray:
    """Targets of a loss, in the shape of y: labels, counts, or y."""
    if loss in ("logistic", "exponential"):
        return rng.choice([-1.0, 1.0], y.shape)
    return rng.integers(0, 5, y.shape).astype(float) if loss == "poisson" else y


def loss_of(draft: Draft, probability: float) -> str:
    if not draft.chance(probability):
        return "squared"
    name = str(draft.rng.choice(LOSSES))
    draft.y = targets(draft.rng, name, draft.y)
    draft.facts["loss"] = name
    return name


def times_of(draft: Draft, end: float, count: int) -> np.ndarray:
    return np.append(np.sort(draft.rng.uniform(0, end, count - 1)), end)


def alpha_of(draft: Draft, tiny: float, large: float) -> str:
    """A scale: large, of order one, small, or far below floats."""
    way = draft.rng.random()
    if way < large:
        return f"{draft.power(0.3, 1.5):.3g}"
    if way < large + tiny:
        return f"1e-{round(draft.power(0.7, 3.0))}"
    return f"{draft.power(-6, 0):.3g}"


def floats(rows: Sequence[Sequence[Any]]) -> np.ndarray:
    return np.array([[float(v) for v in row] for row in rows])


def flow_case(
    draft: Draft, net: fs.DiagonalNetwork, loss: str, alpha: str, start: dict[str, np.ndarray], t: np.ndarray,
    clocks: dict[str, Any], right: Callable[[list], list], shift: tuple[int, int] = (0, 0), order: int = 2,
) -> Case:  # fmt: skip
    """`clocks`: name -> unit of time; `t` on the first of them. `shift`: powers of two of X and of beta.

    `order`: of the products of weights that coefficients are made of, and err by the rounding of.
    """
    rng, facts = draft.rng, draft.facts
    # Long runs of deep products are stiff: no explicit method's.
    rtol, method = draft.power(-10, -4), str(rng.choice(METHODS[:-1] if order > 2 else METHODS))
    clock = str(rng.choice(list(clocks)))
    unit, first = clocks[clock], next(iter(clocks.values()))
    values = np.array([float(mpfr(float(v)) * first / unit) for v in t])
    X, y = np.ldexp(draft.X, shift[0]), np.ldexp(draft.y, shift[0] + shift[1])
    size = max(math.ldexp(draft.solution, shift[1]), 1e-300)
    estimated = bool(rng.random() < 0.5)
    facts |= {
        "net": str(net), "alpha": alpha, "X": X.tolist(), "y": y.tolist(), "times": values.tolist(), "clock": clock,
        "rtol": rtol, "method": method,
    }  # fmt: skip
    options = {} if rng.random() < 0.5 else {"atol": rtol * size * 1e-3}
    facts |= options

    def run() -> tuple[Any, np.ndarray]:
        traj = fs.gradient_flow(
            net, draft.problem(X, y, loss), float(values[-1]), alpha=alpha, start=start, t_eval=values,
            clock=clock, rtol=rtol, method=method, estimate_error=estimated, **options,
        )  # fmt: skip
        return traj, traj.beta

    def truth(traj: Any) -> np.ndarray:
        return floats(right([mpfr(0), *(mpfr(float(v)) * unit for v in values)]))

    def plain() -> float:
        w0 = [float(mpfr(alpha)) * start[name] for name in net.weights]
        problem = fs.Problem(X, y, loss=loss, sample_weight=draft.weight)
        return seconds_in_weights(net, problem, w0, float(mpfr(float(values[-1])) * unit), method, rtol)

    # Products of weights at the start count as far as data can give coefficients of their size.
    terms = float(mpfr(alpha)) ** order
    return Case(
        facts, rtol, run, truth, absolute(method, rtol, options) + min(terms, size), estimated,
        None if method == "auto" else plain, terms,
    )  # fmt: skip


def absolute(method: str, rtol: float, options: dict[str, float]) -> float:
    # SciPy's methods err by `atol` as well.
    return 0.0 if method == "auto" else float(options.get("atol", 1e-9)) / rtol


def log10(alpha: Any) -> float:
    return float(gmpy2.log10(mpfr(alpha)))
