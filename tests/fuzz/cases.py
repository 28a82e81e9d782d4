"""Random flows, descents and limits, each with what is right by :mod:`tests.fuzz.oracles`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gmpy2
import numpy as np
import pandas
from gmpy2 import mpfr
from scipy.sparse import csr_array

import flowsim as fs
from tests.fuzz import oracles
from tests.fuzz.tables import KINDS, data

QUADRATIC = ("u*v", "u*v", "u**2 - v**2", "2*u**2 - v**2", "u**2 + u*v - 3*v**2", "u*v + w**2")
#: Orders at the origin differ; polynomials have Gaussian moments, the others averages over signs.
POLYNOMIALS = ("u*v + u**2*v**2", "u*v + u**3*v", "u*v**2", "2*u*v - v**2*u**2", "2*a*b + (a**2 + b**2 + c**2)*c")
TRANSCENDENTAL = (
    "tanh(u)*v", "sin(u)*v", "sinh(u)*sinh(v)", "u*v*exp(u)", "atan(u)*v", "sinh(u*v)", "tanh(u*v)", "exp(u*v) - 1",
    "log(1 + u**2)*v",
)  # fmt: skip
LOSSES = ("logistic", "exponential", "log-cosh", "pseudo-huber", "poisson")
METHODS = ("auto", "auto", "auto", "auto", "LSODA", "BDF", "Radau", "DOP853")
FAMILIES = {"quadratic": 0.36, "product": 0.2, "general": 0.22, "linear": 0.1, "descent": 0.08, "limit": 0.04}
#: How X is given: "narrow" in the narrowest type that holds its entries.
FORMS = ("array", "array", "array", "fortran", "sparse", "frame", "list", "narrow")
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


@dataclass
class Draft:
    """What is drawn before a network is: data, scales, clock and method."""

    rng: np.random.Generator
    X: np.ndarray
    y: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)
    form: str = "array"

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def power(self, low: float, high: float) -> float:
        return float(10.0 ** self.rng.uniform(low, high))

    @property
    def curvature(self) -> float:
        """Largest eigenvalue of ``X^T X / n``."""
        return float(np.linalg.norm(self.X, 2)) ** 2 / len(self.X)

    @property
    def solution(self) -> float:
        """Size of the least-squares solution."""
        return float(np.abs(np.linalg.lstsq(self.X, self.y, rcond=1e-6)[0]).max())

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

    def force(self, loss: str) -> float:
        slopes = [float(oracles.SLOPES[loss](mpfr(0), mpfr(float(v)))) for v in self.y]
        return float(np.abs(self.X.T @ np.array(slopes)).max()) / len(self.y)


def draw(seed: int) -> Case:
    """The case of a seed."""
    rng = np.random.default_rng(seed)
    family = str(rng.choice(list(FAMILIES), p=list(FAMILIES.values())))
    kind = str(rng.choice(KINDS))
    tiny_product = family == "product" and rng.random() < 0.5
    form = str(np.random.default_rng([seed, 1]).choice(FORMS))  # of its own, as forms change no other draw
    draft = Draft(rng, *data(rng, kind, tiny_product), {"family": family, "kind": kind, "form": form}, form)
    if family == "product":
        return _product(draft, tiny_product)
    makers = {
        "quadratic": _quadratic, "general": _general, "linear": _linear, "descent": _descent, "limit": _limit
    }  # fmt: skip
    return makers[family](draft)


def _start(draft: Draft, names: tuple[str, ...], positive: bool = False) -> dict[str, np.ndarray]:
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


def _loss(draft: Draft, probability: float) -> str:
    if not draft.chance(probability):
        return "squared"
    name = str(draft.rng.choice(LOSSES))
    if name in ("logistic", "exponential"):
        draft.y = draft.rng.choice([-1.0, 1.0], len(draft.y))
    elif name == "poisson":
        draft.y = draft.rng.integers(0, 5, len(draft.y)).astype(float)
    draft.facts["loss"] = name
    return name


def _problem(X: Any, y: np.ndarray, loss: str) -> fs.Problem:
    return fs.Regression(X, y) if loss == "squared" else fs.Problem(X, y, loss=loss)


def _times(draft: Draft, end: float, count: int) -> np.ndarray:
    return np.append(np.sort(draft.rng.uniform(0, end, count - 1)), end)


def _flow_case(
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
            net, _problem(draft.given(X), y, loss), float(values[-1]), alpha=alpha, start=start, t_eval=values,
            clock=clock, rtol=rtol, method=method, estimate_error=estimated, **options,
        )  # fmt: skip
        return traj, traj.beta

    def truth(traj: Any) -> np.ndarray:
        found = right([mpfr(0), *(mpfr(float(v)) * unit for v in values)])
        return np.array([[float(v) for v in row] for row in found])

    return Case(facts, rtol, run, truth, _absolute(method, rtol, options) + float(mpfr(alpha)) ** order, estimated)


def _absolute(method: str, rtol: float, options: dict[str, float]) -> float:
    # SciPy's methods err by `atol` as well.
    return 0.0 if method == "auto" else float(options.get("atol", 1e-9)) / rtol


def _alpha(draft: Draft, tiny: float, large: float) -> str:
    """A scale: large, of order one, small, or far below floats."""
    way = draft.rng.random()
    if way < large:
        return f"{draft.power(0.3, 1.5):.3g}"
    if way < large + tiny:
        return f"1e-{round(draft.power(0.7, 3.0))}"
    return f"{draft.power(-6, 0):.3g}"


def _quadratic(draft: Draft) -> Case:
    formula = str(draft.rng.choice(QUADRATIC))
    loss = _loss(draft, 0.2)
    if loss == "squared" and draft.chance(0.12):
        draft.y = draft.y * 10.0 ** round(draft.rng.uniform(-9, 30))
    names = tuple(sorted({c for c in formula if c.isalpha()}))
    alpha, start = _alpha(draft, 0.35, 0.2), _start(draft, names)
    std, decay, noise = 0.0, 0.0, None
    g0, b, a = draft.force(loss), draft.solution if loss == "squared" else 1.0, float(mpfr(alpha))
    if loss == "squared" and draft.chance(0.3):
        std = draft.power(-2, -0.5)
        noise = (fs.GaussianNoise if draft.chance(0.7) else fs.RademacherNoise)(std)
    elif draft.chance(0.2):
        decay = draft.power(-3, -0.5) * (g0 or 1.0)
    speed = draft.curvature * 12 * max(b, a * a) + 4 * g0 + decay + 36 * std**2 * draft.curvature
    size = math.log(1 + b / max(a * a, 1e-300)) - min(0.0, 2 * float(gmpy2.log(mpfr(alpha))) + 690)
    end = (
        (1 + size) / g0 * draft.power(-0.7, 0.7)
        if g0
        else draft.power(-1, 2) / draft.curvature
        if draft.X.any()
        else 1.0
    )
    end = min(end, STIFF / speed) if speed else end
    p = j = 0
    if loss == "squared" and draft.chance(0.15):
        p, j = int(draft.rng.integers(-480, 481)), int(draft.rng.integers(-2, 3)) * 12
        alpha = str(float(alpha) * 2.0 ** (j // 2)) if a > 1e-200 else alpha
        if a <= 1e-200:
            j = 0
        std, decay = std * 2.0 ** (j // 2), math.ldexp(decay, 2 * p + j)
        noise = None if noise is None else type(noise)(std)
    net = fs.DiagonalNetwork(formula, noise=noise, weight_decay=decay)
    X, y = np.ldexp(draft.X, p), np.ldexp(draft.y, p + j)
    draft.facts |= {"std": std, "decay": decay, "shift": (p, j)}

    def right(times: list) -> list:
        directions = [[mpfr(alpha) * mpfr(float(v)) for v in start[name]] for name in net.weights]
        return oracles.quadratic_flow(formula, net.weights, oracles.Data(X, y, loss), directions, times, std, decay)

    clocks = {"time": mpfr(1)}
    if mpfr(alpha) < 0.9:
        clocks["accelerated"] = -gmpy2.log(mpfr(alpha))
    times = np.ldexp(_times(draft, end, 6 if a > 1 else 3), -2 * p - j)
    return _flow_case(draft, net, loss, alpha, start, times, clocks, right, (p, j))


def _product(draft: Draft, tiny: bool) -> Case:
    """Of 3 or 4 weights: any scale where columns are orthogonal, and each coordinate comes to rest by itself."""
    depth = int(draft.rng.integers(3, 5))
    loss = _loss(draft, 0.0 if tiny else 0.15)
    if loss == "squared" and draft.chance(0.12):
        draft.y = draft.y * 10.0 ** round(draft.rng.uniform(-9, 30))
    alpha = f"1e-{round(draft.power(0.5, 2.8))}" if tiny else f"{draft.power(-2.5, 0.3):.3g}"
    net = fs.DiagonalNetwork(depth=depth)
    start = _start(draft, net.weights)
    g0, b = draft.force(loss), draft.solution if loss == "squared" else 1.0
    slow = mpfr(alpha) ** (depth - 2) if mpfr(alpha) < 1 else mpfr(1)
    size = max(b, float(mpfr(alpha)) ** depth)
    end = mpfr(draft.power(-1, 1)) / ((g0 or 1.0) * slow)
    if not tiny:
        end = min(end, mpfr(STIFF / (3 * depth * draft.curvature * size ** (2 - 2 / depth) + 4 * g0 + 1e-300)))

    def right(times: list) -> list:
        directions = [[mpfr(alpha) * mpfr(float(v)) for v in start[name]] for name in net.weights]
        if not tiny:
            return oracles.product_flow(oracles.Data(draft.X, draft.y, loss), directions, times)
        columns = [
            oracles.product_flow(oracles.Data(draft.X[:, [i]], draft.y, loss), [[row[i]] for row in directions], times)
            for i in range(draft.X.shape[1])
        ]
        return [[column[k][0] for column in columns] for k in range(len(times))]

    accelerated = 1 / slow
    on_it = float(end / accelerated)
    clocks = {"accelerated": accelerated}
    if accelerated < 1e280:
        clocks["time"] = mpfr(1)
    if mpfr(alpha) >= 1:
        clocks.pop("accelerated")
    return _flow_case(draft, net, loss, alpha, start, _times(draft, on_it, 3), clocks, right, order=depth)


def _general(draft: Draft) -> Case:
    """Any other formula, in its weights."""
    polynomial = draft.chance(0.4)
    formula = str(draft.rng.choice(POLYNOMIALS if polynomial else TRANSCENDENTAL))
    loss = _loss(draft, 0.1)
    alpha = f"{draft.power(-8, -4) if draft.chance(0.3) else draft.power(-4, 0.2):.3g}"
    noise, std, decay, name = None, 0.0, 0.0, ""
    if loss == "squared" and draft.chance(0.4):
        std = draft.power(-2, -0.7)
        name = "gaussian" if polynomial else "rademacher"
        noise = {"gaussian": fs.GaussianNoise, "rademacher": fs.RademacherNoise}[name](std)
    elif draft.chance(0.1):
        decay = draft.power(-3, -1)
    net = fs.DiagonalNetwork(formula, noise=noise, weight_decay=decay)
    start = _start(draft, net.weights)
    g0, b = draft.force(loss), draft.solution if loss == "squared" else 1.0
    a = float(mpfr(alpha))
    end = (1 + math.log(1 + b / a**2)) / (g0 or 1.0) * draft.power(-0.7, 0.6)
    end = min(end, 0.5 * STIFF / (4 * draft.curvature * max(b, a * a, 0.1) + 4 * g0))
    draft.facts |= {"std": std, "noise": name, "decay": decay}

    def right(times: list) -> list:
        directions = [[mpfr(alpha) * mpfr(float(v)) for v in start[w]] for w in net.weights]
        finest = min(-20.0, 2 * math.log10(a) - 14)
        return oracles.weight_flow(
            formula, net.weights, oracles.Data(draft.X, draft.y, loss), directions, times, name, std, decay, finest
        )

    return _flow_case(draft, net, loss, alpha, start, _times(draft, end, 3), {"time": mpfr(1)}, right)


def _linear(draft: Draft) -> Case:
    rng, X = draft.rng, draft.X
    m, h, D = int(rng.integers(1, 3)), int(rng.integers(1, 4)), X.shape[1]
    Y = np.column_stack([draft.y, X @ rng.standard_normal(D)])[:, :m]
    alpha = f"{draft.power(-7, 0.3):.3g}"
    std = draft.power(-2, -0.5) if draft.chance(0.3) else 0.0
    decay = draft.power(-3, -1) if not std and draft.chance(0.2) else 0.0
    net = fs.LinearNetwork(width=h, noise=fs.GaussianNoise(std) if std else None, weight_decay=decay)
    start = {"U": rng.standard_normal((D, h)).round(3), "V": rng.standard_normal((m, h)).round(3)}
    g0 = float(np.linalg.norm(X.T @ Y, 2)) / len(X)
    b, a = float(np.abs(np.linalg.lstsq(X, Y, rcond=1e-6)[0]).max()), float(alpha)
    end = (1 + math.log(1 + b / a**2)) / (g0 or 1.0) * draft.power(-0.7, 0.6)
    end = min(end, 0.5 * STIFF / (4 * draft.curvature * max(b, a * a, 0.1) + 4 * g0))
    t, rtol, estimated = _times(draft, end, 3), draft.power(-10, -4), draft.chance(0.5)
    method = str(rng.choice(("auto", "auto", "auto", "LSODA", "BDF")))
    draft.facts |= {
        "net": str(net), "alpha": alpha, "X": X.tolist(), "y": Y.tolist(), "times": t.tolist(), "rtol": rtol,
        "start": {name: values.tolist() for name, values in start.items()}, "method": method,
    }  # fmt: skip

    def run() -> tuple[Any, np.ndarray]:
        traj = fs.gradient_flow(
            net, fs.Regression(draft.given(X), Y), end, alpha=alpha, start=start, t_eval=t, rtol=rtol,
            estimate_error=estimated, method=method,
        )  # fmt: skip
        return traj, traj.beta.reshape(len(t), -1)

    def right(_: Any) -> np.ndarray:
        U, V = ([[mpfr(alpha) * mpfr(float(v)) for v in row] for row in start[name]] for name in ("U", "V"))
        finest = min(-18.0, 2 * math.log10(a) - 12)
        found = oracles.linear_flow(X, Y, U, V, [mpfr(0), *(mpfr(float(v)) for v in t)], std, decay, finest)
        return np.array([[float(v) for v in row] for row in found])

    return Case(draft.facts, rtol, run, right, _absolute(method, rtol, {}), estimated)


def _descent(draft: Draft) -> Case:
    rng = draft.rng
    formula = str(rng.choice((*QUADRATIC, *POLYNOMIALS, *TRANSCENDENTAL, "u*v*w")))
    net = fs.DiagonalNetwork(formula)
    a = draft.power(-12, 0)
    start = _start(draft, net.weights)
    momentum = float(rng.choice([0.0, 0.0, 0.5]))
    step = 0.2 / (draft.curvature * max(draft.solution, 1.0, a * a) + 2 * draft.force("squared") + 1e-300)
    n_steps = int(rng.integers(20, 400))
    draft.facts |= {
        "net": str(net), "alpha": a, "X": draft.X.tolist(), "y": draft.y.tolist(), "step": step, "n_steps": n_steps,
        "momentum": momentum,
    }  # fmt: skip

    def run() -> tuple[Any, np.ndarray]:
        traj = fs.gradient_descent(
            net, fs.Regression(draft.given(draft.X), draft.y), step, n_steps, alpha=a, start=start, momentum=momentum,
            record_every=n_steps,
        )  # fmt: skip
        return traj, traj.beta[-1:]

    def right(_: Any) -> np.ndarray:
        directions = [[mpfr(a) * mpfr(float(v)) for v in start[w]] for w in net.weights]
        data = oracles.Data(draft.X, draft.y)
        found = oracles.weight_descent(formula, net.weights, data, directions, step, (0, n_steps), momentum)
        return np.array([[float(v) for v in row] for row in found])

    return Case(draft.facts, 1e-9, run, right)


def _limit(draft: Draft) -> Case:
    """Saddles of the limit process against rational arithmetic, at the midpoints between jumps."""
    net = fs.DiagonalNetwork("u*v" if draft.chance(0.7) else "u**2 - v**2")
    draft.X, draft.y = np.round(8 * draft.X) / 8, np.round(8 * draft.y) / 8  # sums of columns are exact or none
    problem = fs.Regression(draft.X, draft.y)
    draft.facts |= {"net": str(net), "X": draft.X.tolist(), "y": draft.y.tolist()}

    def run() -> tuple[Any, np.ndarray]:
        path = fs.saddle_to_saddle(net, fs.Regression(draft.given(draft.X), draft.y))
        return path, np.asarray(path.saddles)

    def right(path: Any) -> np.ndarray:
        exact = fs.saddle_to_saddle(net, problem, exact=True)
        if len(exact.jump_times) != len(path.jump_times) or not np.allclose(
            exact.jump_times, path.jump_times, rtol=1e-9, atol=0
        ):
            return np.full(np.shape(path.saddles), np.nan)
        return np.asarray(exact.saddles)

    return Case(draft.facts, 1e-10, run, right)
