"""What any growth map must do, whatever its form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

import flowsim as fs
from flowsim.growth.arrivals import growth_thresholds
from flowsim.growth.blow_up_map import BlowUpMap
from flowsim.growth.curve_map import CurveMap
from flowsim.growth.exponential import ExponentialMap
from flowsim.growth.product_map import ProductMap
from flowsim.network import InitialScale

PROBLEM = fs.Regression(np.array([[1.0, 2.0, 0.5], [0.3, -1.0, 2.0]]), np.array([1.0, -2.0]))


@dataclass(frozen=True)
class Form:
    """A map from each scale, the network and the start that alpha multiplies."""

    at: Callable[[str], Any]
    net: fs.DiagonalNetwork
    start: list[list[float]]
    order: int
    formula: Callable[[np.ndarray], np.ndarray]

    def thresholds(self) -> tuple[np.ndarray, ...]:
        start = np.array(self.start)
        return growth_thresholds(self.net, start, start.shape[1])[:2]


def exponential(net: fs.DiagonalNetwork, formula: Callable, start: list[list[float]]) -> Form:
    return Form(
        lambda alpha: ExponentialMap.of(net, PROBLEM, InitialScale.parse(alpha), np.array(start)),
        net,
        start,
        2,
        formula,
    )


def curve(text: str, order: int, formula: Callable, start: list[list[float]]) -> Form:
    net = fs.DiagonalNetwork(text)
    made = cache(lambda alpha: CurveMap(net, InitialScale.parse(alpha), np.array(start)))
    return Form(made, net, start, order, formula)


def product(start: list[list[float]]) -> Form:
    net = fs.DiagonalNetwork(depth=len(start))
    made = lambda alpha: ProductMap(net, InitialScale.parse(alpha), np.array(start))  # noqa: E731
    return Form(made, net, start, len(start), lambda w: w.prod(axis=1))


def uv(w: np.ndarray) -> np.ndarray:
    return w[:, 0] * w[:, 1]


PAIR = [[1.0, 0.5, -0.7], [0.2, -0.5, 0.3]]
#: No component is zero, which higher orders would create.
THREE = [[1.0, 0.5, 0.8], [0.5, 0.6, 0.7], [0.7, 0.8, 0.6]]
#: Each start takes a second.
TWO = np.array(THREE)[:, :2]
EXCITED = [[1.0, 0.5, -0.7], [0.2, -0.6, 0.3]]
FORMS = {
    "u*v": exponential(fs.DiagonalNetwork("u*v"), uv, PAIR),
    "noise": exponential(fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.3)), uv, PAIR),
    "decay": exponential(fs.DiagonalNetwork("u*v", weight_decay=0.1), uv, PAIR),
    "schedule": exponential(fs.DiagonalNetwork("u*v", weight_decay=fs.DecaySchedule([0.5], [0.4, 0.1])), uv, PAIR),
    "three weights": exponential(
        fs.DiagonalNetwork("2*u**2 - v**2 + u*w"),
        lambda w: 2 * w[:, 0] ** 2 - w[:, 1] ** 2 + w[:, 0] * w[:, 2],
        [*PAIR, [0.4, 0.1, -0.2]],
    ),
    "mixed": exponential(
        fs.DiagonalNetwork(["u*v", "u**2 - v**2", "u*v"]),
        lambda w: np.stack([uv(w)[:, 0], w[:, 0, 1] ** 2 - w[:, 1, 1] ** 2, uv(w)[:, 2]], axis=1),
        PAIR,
    ),
    "depth 3": product([[0.5, 1.0, -1.0], [0.9, -1.2, 1.0], [1.3, 0.7, 1.0]]),
    "depth 4": product([[0.5, 1.0, -1.0], [0.9, -1.2, 1.0], [1.3, 0.7, 1.0], [1.1, 0.6, 1.0]]),
    "curve": curve("u*v + u**3", 2, lambda w: uv(w) + w[:, 0] ** 3, EXCITED),
    "bounded curve": curve("sin(u)*v", 2, lambda w: np.sin(w[:, 0]) * w[:, 1], EXCITED),
    "curve of order 3": curve("u*v*w + u**4", 3, lambda w: w.prod(axis=1) + w[:, 0] ** 4, THREE),
    "blow-up": Form(
        cache(lambda alpha: BlowUpMap(fs.DiagonalNetwork("u*v*w + u**4"), InitialScale.parse(alpha), TWO)),
        fs.DiagonalNetwork("u*v*w + u**4"),
        TWO.tolist(),
        3,
        lambda w: w.prod(axis=1) + w[:, 0] ** 4,
    ),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


def duals(form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Duals that reach, but do not pass, where a coordinate is of order one; and times."""
    plus, minus = (np.minimum(side, 1.0) for side in form.thresholds())
    return np.stack([-0.3 * minus, -0.1 * minus, 0.2 * plus, 0.3 * plus]), np.array([0.0, 0.3, 0.7, 1.1])


def check(actual: np.ndarray, before: np.ndarray, after: np.ndarray, h: float) -> None:
    numeric = (after - before) / (2 * h)
    np.testing.assert_allclose(actual, numeric, rtol=2e-7, atol=1e-8 * max(1.0, np.abs(numeric).max()))


def test_slope_drift_and_value_are_derivatives(form: Form) -> None:
    growth = form.at("0.5")
    (z, t), h = duals(form), 1e-5
    below, here, above = (growth.state(z + shift) for shift in (-h, 0.0, h))
    if hasattr(growth, "potential"):
        check(growth.value(here, t), growth.potential(below), growth.potential(above), h)
    check(growth.slope(here, t), growth.value(below, t), growth.value(above, t), h)
    drift = growth.drift(here, t + h) if growth.is_damped else np.zeros_like(z)
    check(drift, growth.value(here, t), growth.value(here, t + 2 * h), h)
    assert (growth.slope(here, t) >= 0).all()
    assert growth.is_damped == bool(drift.any())


def test_the_weights_give_the_value_and_conserve_what_the_start_does(form: Form) -> None:
    growth = form.at("0.5")
    z, t = duals(form)
    y = growth.state(z)
    weights, logs = growth.weights(y, t)
    np.testing.assert_allclose(form.formula(weights), growth.value(y, t), rtol=1e-11, atol=1e-13)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(np.log(np.abs(weights)), logs, atol=1e-11)
    conserved, log_conserved = growth.conserved(y, t)
    assert conserved.shape == (len(z), len(growth.invariants), z.shape[1])
    np.testing.assert_allclose(log_conserved, growth.law(t), atol=1e-11)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(np.log(np.abs(conserved)), log_conserved, atol=1e-11)


def test_the_weights_move_along_the_gradient_of_the_formula(form: Form) -> None:
    """Without decay ``dw/dz = grad phi``, so that the square of the weights' speed is the slope of B."""
    growth = form.at("0.5")
    if growth.is_damped:
        pytest.skip("the weights decay as well")
    (z, t), h = duals(form), 1e-5
    speed = (growth.weights(growth.state(z + h), t)[0] - growth.weights(growth.state(z - h), t)[0]) / (2 * h)
    np.testing.assert_allclose((speed**2).sum(axis=1), growth.slope(growth.state(z), t), rtol=1e-7, atol=1e-9)


def test_thresholds_are_where_a_tiny_start_becomes_visible(form: Form) -> None:
    """At 0.99 of the threshold beta is still far below one, at 1.01 it is not (at order L >= 3 the pole is passed)."""
    alpha = "1e-4000" if form.order == 2 else ("1e-3" if form.at("0.5").name == "curve" else "1e-60")
    growth = form.at(alpha)
    gamma = InitialScale.parse(alpha).gamma
    unit = gamma if form.order == 2 else math.exp(gamma * (form.order - 2) - growth.log_unit)
    for side, threshold in zip((1.0, -1.0), form.thresholds(), strict=True):
        reached = np.isfinite(threshold)
        z = side * np.where(reached, threshold, 1.0) * unit
        before = side * growth.value(growth.state(0.99 * z[None]), 0.0)[0]
        assert (np.abs(before[reached]) < 0.1).all() and (before[reached] > 0).any()
        if form.order == 2:
            after = side * growth.value(growth.state(1.01 * z[None]), 0.0)[0]
            assert (after[reached] > 0.5).all()
