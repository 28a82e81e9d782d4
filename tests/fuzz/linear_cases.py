"""Random flows and descents of two-layer linear networks, with what is right by :mod:`tests.fuzz.matrices`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gmpy2 import mpfr

import flowsim as fs
from tests.fuzz import oracles
from tests.fuzz.drafts import LOSSES, STIFF, Case, Draft, absolute, floats, log10, scaled, shrinkage, targets, times_of
from tests.fuzz.matrices import linear_descent as exact_descent
from tests.fuzz.matrices import linear_flow


def _drawn(draft: Draft) -> tuple[np.ndarray, int]:
    """Targets (n, m) and a width."""
    rng, X = draft.rng, draft.X
    m, h = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    return np.column_stack([draft.y, X @ rng.standard_normal(X.shape[1])])[:, :m], h


def _start(draft: Draft, Y: np.ndarray, h: int) -> dict[str, np.ndarray]:
    shapes = {"U": (draft.X.shape[1], h), "V": (Y.shape[1], h)}
    start = {name: draft.rng.standard_normal(shape).round(3) for name, shape in shapes.items()}
    draft.facts["start"] = {name: values.tolist() for name, values in start.items()}
    return start


def _loss(draft: Draft, Y: np.ndarray) -> tuple[str, np.ndarray]:
    loss = str(draft.extra.choice(LOSSES)) if draft.also(0.25) else "squared"
    draft.weigh(0.15)
    draft.facts["loss"] = loss
    return loss, targets(draft.extra, loss, Y)


def _sizes(draft: Draft, loss: str, Y: np.ndarray) -> tuple[float, float]:
    """The force at 0, and the size of coefficients."""
    columns = [Draft(draft.rng, draft.extra, draft.X, y, weight=draft.weight) for y in Y.T]
    force = float(np.linalg.norm([column.force(loss) for column in columns]))
    return force, max(column.solution for column in columns) if loss == "squared" else 1.0


def linear(draft: Draft) -> Case:
    rng, X = draft.rng, draft.X
    Y, h = _drawn(draft)
    alpha = f"{draft.power(-7, 0.3):.3g}"
    std = draft.power(-2, -0.5) if draft.chance(0.3) else 0.0
    decay = draft.power(-3, -1) if not std and draft.chance(0.2) else 0.0
    loss, Y = _loss(draft, Y)
    std = std if loss == "squared" else 0.0
    start = _start(draft, Y, h)
    (g0, b), a = _sizes(draft, loss, Y), float(alpha)
    end = (1 + math.log(1 + b / a**2)) / (g0 or 1.0) * draft.power(-0.7, 0.6)
    end = min(end, 0.5 * STIFF / (4 * draft.curvature * max(b, a * a, 0.1) + 4 * g0 + 1e-300))
    weight_decay = draft.schedule(0.15, draft.power(-3, -1, draft.extra), end) or decay
    net = fs.LinearNetwork(width=h, noise=fs.GaussianNoise(std) if std else None, weight_decay=weight_decay)
    t, rtol, estimated = times_of(draft, end, 3), draft.power(-10, -4), draft.chance(0.5)
    method = str(rng.choice(("auto", "auto", "auto", "LSODA", "BDF")))
    draft.facts |= {
        "net": str(net), "alpha": alpha, "X": X.tolist(), "y": Y.tolist(), "times": t.tolist(), "rtol": rtol,
        "method": method, "decay": str(weight_decay), "std": std,
    }  # fmt: skip

    def run() -> tuple[Any, np.ndarray]:
        traj = fs.gradient_flow(
            net, draft.problem(X, Y, loss), end, alpha=alpha, start=start, t_eval=t, rtol=rtol,
            estimate_error=estimated, method=method,
        )  # fmt: skip
        return traj, traj.beta.reshape(len(t), -1)

    def right(_: Any) -> np.ndarray:
        return floats(linear_flow(
            [draft.data(X, y, loss) for y in Y.T], scaled(alpha, *start["U"]), scaled(alpha, *start["V"]),
            [mpfr(0), *(mpfr(float(v)) for v in t)], std, shrinkage(weight_decay), min(-18.0, 2 * math.log10(a) - 12),
        ))  # fmt: skip

    return Case(draft.facts, rtol, run, right, absolute(method, rtol, {}), estimated)


def linear_descent(draft: Draft) -> Case:
    """Down to 1e-100, where steps are plain; with momentum down to 1e-4."""
    rng, X = draft.rng, draft.X
    Y, h = _drawn(draft)
    momentum = float(rng.choice([0.0, 0.0, 0.5]))
    alpha = f"1e-{round(draft.power(0.5, 2.0))}" if not momentum and draft.chance(0.4) else f"{draft.power(-4, 0):.3g}"
    loss, Y = _loss(draft, Y)
    start = _start(draft, Y, h)
    g0, b = _sizes(draft, loss, Y)
    step = 0.2 / (draft.curvature * max(b, 1.0) + 2 * g0 + 1e-300)
    grow = -math.log(10) * log10(alpha) / (step * g0) if g0 else 50.0
    n_steps = min(3000, int((grow + 20) * draft.power(-0.5, 0.3)) + 1)
    schedule = draft.schedule(0.2, draft.power(-3, -1, draft.extra) * (g0 or 1.0), n_steps * step)
    decay: Any = draft.power(-3, -1) * (g0 or 1.0) if schedule is None and draft.chance(0.2) else schedule or 0.0
    sizes = step * rng.uniform(0.5, 1.0, n_steps) if draft.chance(0.2) else np.full(n_steps, step)
    given: Any = step if (sizes == step).all() else sizes
    net = fs.LinearNetwork(width=h, weight_decay=decay)
    draft.facts |= {
        "net": str(net), "alpha": alpha, "X": X.tolist(), "y": Y.tolist(), "step": np.array(given).tolist(),
        "n_steps": n_steps, "momentum": momentum, "decay": str(decay),
    }  # fmt: skip

    def run() -> tuple[Any, np.ndarray]:
        traj = fs.gradient_descent(
            net, draft.problem(X, Y, loss), given, n_steps, alpha=alpha, start=start, momentum=momentum,
            record_every=n_steps,
        )  # fmt: skip
        return traj, traj.beta[-1:].reshape(1, -1)

    def right(_: Any) -> np.ndarray:
        with oracles.precision(max(80, int(-2.5 * log10(alpha)) + 40)):
            found = exact_descent(
                [draft.data(X, y, loss) for y in Y.T], scaled(alpha, *start["U"]), scaled(alpha, *start["V"]),
                sizes.tolist(), momentum, shrinkage(decay),
            )  # fmt: skip
        return floats([found])

    return Case(draft.facts, 1e-9, run, right)
