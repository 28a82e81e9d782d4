"""Random flows, descents and limits, each with what is right by :mod:`tests.fuzz.oracles`."""

from __future__ import annotations

import math
from typing import Any

import gmpy2
import numpy as np
from gmpy2 import mpfr

import flowsim as fs
from tests.fuzz import oracles
from tests.fuzz.drafts import (
    LOSSES,
    STIFF,
    Case,
    Draft,
    alpha_of,
    floats,
    flow_case,
    log10,
    loss_of,
    scaled,
    shrinkage,
    start_of,
    targets,
    times_of,
)
from tests.fuzz.linear_cases import linear, linear_descent
from tests.fuzz.tables import KINDS, data

QUADRATIC = ("u*v", "u*v", "u**2 - v**2", "2*u**2 - v**2", "u**2 + u*v - 3*v**2", "u*v + w**2")
#: Orders at the origin differ; polynomials have Gaussian moments, the others averages over signs.
POLYNOMIALS = ("u*v + u**2*v**2", "u*v + u**3*v", "u*v**2", "2*u*v - v**2*u**2", "2*a*b + (a**2 + b**2 + c**2)*c")
TRANSCENDENTAL = (
    "tanh(u)*v", "sin(u)*v", "sinh(u)*sinh(v)", "u*v*exp(u)", "atan(u)*v", "sinh(u*v)", "tanh(u*v)", "exp(u*v) - 1",
    "log(1 + u**2)*v",
)  # fmt: skip
#: Under noise and decay, which the family of products does not have.
PRODUCTS = ("u*v*w", "w1*w2*w3*w4")
#: Formulas that take turns over the coordinates, in growth coordinates, and in others by the kind of moments.
PAIRS = (("u*v", "2*u**2 - v**2"), ("u**2 + u*v - 3*v**2", "u*v + w**2"))
POLYNOMIAL_PAIRS = (("u*v + u**3*v", "u*v"), ("u*v*w", "u**2 - v**2"), ("2*u*v - v**2*u**2", "u*v*w"))
TRANSCENDENTAL_PAIRS = (("tanh(u)*v", "u*v"), ("sinh(u*v)", "sin(u)*v"), ("u*v*w", "tanh(u*v)"))
FAMILIES = {"quadratic": 0.36, "product": 0.2, "general": 0.22, "linear": 0.1, "descent": 0.08, "limit": 0.04}
#: How X is given: "narrow" in the narrowest type that holds its entries.
FORMS = ("array", "array", "array", "fortran", "sparse", "frame", "list", "narrow")


def draw(seed: int) -> Case:
    """The case of a seed."""
    rng, extra = np.random.default_rng(seed), np.random.default_rng([seed, 2])
    family = str(rng.choice(list(FAMILIES), p=list(FAMILIES.values())))
    kind = str(rng.choice(KINDS))
    tiny_product = family == "product" and rng.random() < 0.5
    form = str(np.random.default_rng([seed, 1]).choice(FORMS))  # of its own, as forms change no other draw
    if extra.random() < 0.06:
        family = "linear descent"
    draft = Draft(rng, extra, *data(rng, kind, tiny_product), {"family": family, "kind": kind, "form": form}, form)
    if family == "product":
        return _product(draft, tiny_product)
    makers = {
        "quadratic": _quadratic, "general": _general, "linear": linear, "linear descent": linear_descent,
        "descent": _descent, "limit": _limit,
    }  # fmt: skip
    return makers[family](draft)


def _quadratic(draft: Draft) -> Case:
    formula = draft.mixed(str(draft.rng.choice(QUADRATIC)), PAIRS, 0.2)
    loss = loss_of(draft, 0.2)
    draft.weigh(0.15)
    if draft.also(0.1):  # coefficients far below the products of weights, or above
        draft.X = np.ldexp(draft.X, int(draft.extra.integers(-20, 121)))
    if loss == "squared" and draft.chance(0.12):
        draft.y = draft.y * 10.0 ** round(draft.rng.uniform(-9, 30))
    names = tuple(sorted({c for text in formula for c in text if c.isalpha()}))
    alpha, start = alpha_of(draft, 0.35, 0.2), start_of(draft, names)
    std, decay, noise = 0.0, 0.0, None
    g0, b, a = draft.force(loss), draft.solution if loss == "squared" else 1.0, float(mpfr(alpha))
    if loss == "squared" and draft.chance(0.3):
        std = draft.power(-2, -0.5)
        noise = (fs.GaussianNoise if draft.chance(0.7) else fs.RademacherNoise)(std)
    elif draft.chance(0.2):
        decay = draft.power(-3, -0.5) * (g0 or 1.0)
    rate = draft.power(-3, -0.5, draft.extra) * (g0 or 1.0)
    speed = draft.curvature * 12 * max(b, a * a) + 4 * g0 + decay + 36 * std**2 * draft.curvature
    size = math.log(1 + b / max(a * a, 1e-300)) - min(0.0, 2 * float(gmpy2.log(mpfr(alpha))) + 690)
    end = (
        (1 + size) / g0 * draft.power(-0.7, 0.7)
        if g0
        else draft.power(-1, 2) / draft.curvature
        if draft.rows.any()
        else 1.0
    )
    end = min(end, STIFF / speed) if speed else end
    p = j = 0
    if loss == "squared" and draft.chance(0.15):
        p, j = int(draft.rng.integers(-480, 481)), int(draft.rng.integers(-2, 3)) * 12
        alpha = str(float(alpha) * 2.0 ** (j // 2)) if a > 1e-200 else alpha
        if a <= 1e-200:
            j = 0
        std = std * 2.0 ** (j // 2)
        noise = None if noise is None else type(noise)(std)
    unit = math.ldexp(1.0, 2 * p + j) if abs(2 * p + j) < 1000 else 1.0
    schedule = draft.schedule(0.12, rate * unit, end / unit)
    weight_decay = math.ldexp(decay, 2 * p + j) if schedule is None else schedule
    net = fs.DiagonalNetwork(formula, noise=noise, weight_decay=weight_decay)
    X, y = np.ldexp(draft.X, p), np.ldexp(draft.y, p + j)
    draft.facts |= {"std": std, "decay": str(weight_decay), "shift": (p, j)}

    def right(times: list) -> list:
        return oracles.quadratic_flow(
            formula, net.weights, draft.data(X, y, loss), scaled(alpha, *(start[w] for w in net.weights)), times, std,
            shrinkage(weight_decay),
        )  # fmt: skip

    clocks = {"time": mpfr(1)}
    if mpfr(alpha) < 0.9:
        clocks["accelerated"] = -gmpy2.log(mpfr(alpha))
    times = np.ldexp(times_of(draft, end, 6 if a > 1 else 3), -2 * p - j)
    return flow_case(draft, net, loss, alpha, start, times, clocks, right, (p, j))


def _product(draft: Draft, tiny: bool) -> Case:
    """Of 3 or 4 weights: any scale where columns are orthogonal, and each coordinate comes to rest by itself."""
    depth = int(draft.rng.integers(3, 5))
    loss = loss_of(draft, 0.0 if tiny else 0.15)
    draft.weigh(0.0 if tiny else 0.15)
    if loss == "squared" and draft.chance(0.12):
        draft.y = draft.y * 10.0 ** round(draft.rng.uniform(-9, 30))
    alpha = f"1e-{round(draft.power(0.5, 2.8))}" if tiny else f"{draft.power(-2.5, 0.3):.3g}"
    net = fs.DiagonalNetwork(depth=depth)
    start = start_of(draft, net.weights)
    g0, b = draft.force(loss), draft.solution if loss == "squared" else 1.0
    slow = mpfr(alpha) ** (depth - 2) if mpfr(alpha) < 1 else mpfr(1)
    size = max(b, float(mpfr(alpha)) ** depth)
    end = mpfr(draft.power(-1, 1)) / ((g0 or 1.0) * slow)
    if not tiny:
        end = min(end, mpfr(STIFF / (3 * depth * draft.curvature * size ** (2 - 2 / depth) + 4 * g0 + 1e-300)))

    def right(times: list) -> list:
        directions = scaled(alpha, *(start[name] for name in net.weights))
        if not tiny:
            return oracles.product_flow(draft.data(draft.X, draft.y, loss), directions, times)
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
    return flow_case(draft, net, loss, alpha, start, times_of(draft, on_it, 3), clocks, right, order=depth)


def _general(draft: Draft) -> Case:
    """Any other formula, in its weights; one for every coordinate, or a product under noise or decay, too."""
    polynomial = draft.chance(0.4)
    pool = POLYNOMIALS if polynomial else TRANSCENDENTAL
    pairs = POLYNOMIAL_PAIRS if polynomial else TRANSCENDENTAL_PAIRS
    formula = draft.mixed(str(draft.rng.choice(pool)), pairs, 0.2)
    if isinstance(formula, str) and draft.also(0.1):
        formula = str(draft.extra.choice(PRODUCTS))
    loss = loss_of(draft, 0.1)
    draft.weigh(0.15)
    alpha = f"{draft.power(-8, -4) if draft.chance(0.3) else draft.power(-4, 0.2):.3g}"
    noise, std, decay, name = None, 0.0, 0.0, ""
    if loss == "squared" and draft.chance(0.4):
        std = draft.power(-2, -0.7)
        name = "gaussian" if polynomial else "rademacher"
        noise = {"gaussian": fs.GaussianNoise, "rademacher": fs.RademacherNoise}[name](std)
    elif draft.chance(0.1):
        decay = draft.power(-3, -1)
    net = fs.DiagonalNetwork(formula, noise=noise)
    start = start_of(draft, net.weights)
    g0, b = draft.force(loss), draft.solution if loss == "squared" else 1.0
    a = float(mpfr(alpha))
    end = (1 + math.log(1 + b / a**2)) / (g0 or 1.0) * draft.power(-0.7, 0.6)
    end = min(end, 0.5 * STIFF / (4 * draft.curvature * max(b, a * a, 0.1) + 4 * g0 + 1e-300))
    weight_decay = draft.schedule(0.12, draft.power(-3, -1, draft.extra), end) or decay
    net = fs.DiagonalNetwork(formula, noise=noise, weight_decay=weight_decay)
    draft.facts |= {"std": std, "noise": name, "decay": str(weight_decay)}

    def right(times: list) -> list:
        return oracles.weight_flow(
            formula, net.weights, draft.data(draft.X, draft.y, loss), scaled(alpha, *(start[w] for w in net.weights)),
            times, name, std, shrinkage(weight_decay), min(-20.0, 2 * math.log10(a) - 14),
        )  # fmt: skip

    return flow_case(draft, net, loss, alpha, start, times_of(draft, end, 3), {"time": mpfr(1)}, right)


def _descent(draft: Draft) -> Case:
    rng, extra = draft.rng, draft.extra
    pool = (*QUADRATIC, *POLYNOMIALS, *TRANSCENDENTAL, "u*v*w")
    formula = draft.mixed(str(rng.choice(pool)), (*PAIRS, *POLYNOMIAL_PAIRS, *TRANSCENDENTAL_PAIRS), 0.2)
    alpha: Any = draft.power(-12, 0)
    start = start_of(draft, fs.DiagonalNetwork(formula).weights)
    momentum = float(rng.choice([0.0, 0.0, 0.5]))
    loss = str(extra.choice(LOSSES)) if draft.also(0.2) else "squared"
    draft.y = targets(extra, loss, draft.y)
    draft.weigh(0.15)
    force = draft.force(loss)
    step = 0.2 / (draft.curvature * max(draft.solution, 1.0, alpha * alpha) + 2 * force + 1e-300)
    n_steps = int(rng.integers(20, 400))
    if formula in QUADRATIC and force and draft.also(0.3):
        alpha = f"1e-{round(draft.power(1.0, 2.5, extra))}"
        n_steps = min(4000, int(-1.5 * math.log(10) * log10(alpha) / (step * force)) + 20)
    # Between steps, as ends of decay on a step are decided by the rounding of times.
    schedule = draft.schedule(0.15, draft.power(-3, -1, extra) * (force or 1.0), n_steps * step)
    decay: Any = (
        draft.power(-3, -1, extra) * (force or 1.0) if schedule is None and draft.also(0.1) else schedule or 0.0
    )
    sizes = step * extra.uniform(0.5, 1.0, n_steps) if draft.also(0.15) else np.full(n_steps, step)
    given: Any = step if (sizes == step).all() else sizes
    net = fs.DiagonalNetwork(formula, weight_decay=decay)
    draft.facts |= {
        "net": str(net), "alpha": alpha, "X": draft.X.tolist(), "y": draft.y.tolist(), "step": np.array(given).tolist(),
        "n_steps": n_steps, "momentum": momentum, "loss": loss,
    }  # fmt: skip

    def run() -> tuple[Any, np.ndarray]:
        traj = fs.gradient_descent(
            net, draft.problem(draft.X, draft.y, loss), given, n_steps, alpha=alpha, start=start, momentum=momentum,
            record_every=n_steps,
        )  # fmt: skip
        return traj, traj.beta[-1:]

    def right(_: Any) -> np.ndarray:
        with oracles.precision(max(80, int(-2.5 * log10(alpha)) + 40)):
            begin, end = (
                oracles.weight_descent(
                    formula, net.weights, draft.data(draft.X, draft.y, loss),
                    scaled(alpha, *(start[w] for w in net.weights)), taken, momentum, shrinkage(decay),
                )
                for taken in ([], sizes.tolist())
            )  # fmt: skip
        return floats([begin, end])

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
