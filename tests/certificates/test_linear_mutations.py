"""Rows on linear networks can fail: what flow, limit and formula say is falsified, one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import flowsim as fs
from flowsim.certificates import linear_limits, linear_networks, setting

NET = fs.LinearNetwork(6)


def tall() -> fs.Regression:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((20, 3))
    return fs.Regression(X, X @ rng.standard_normal((3, 2)) + 0.2 * rng.standard_normal((20, 2)))


def wide() -> fs.Regression:
    """Well conditioned: runs to the end are short, and the bound of wide networks is no astronomical number."""
    rng = np.random.default_rng(3)
    X = np.linalg.qr(rng.standard_normal((5, 3)))[0].T * np.array([1.8, 1.7, 1.6])[:, None]
    return fs.Regression(X, 0.5 * X @ rng.standard_normal((5, 2)))


def logistic() -> fs.Problem:
    rng = np.random.default_rng(4)
    X = rng.standard_normal((20, 3))
    F = X @ rng.standard_normal((3, 2))
    return fs.Problem(X, np.where(rng.random((20, 2)) < 1 / (1 + np.exp(-F)), 1.0, -1.0), "logistic")


def status(net: fs.LinearNetwork, problem: fs.Problem, name: str) -> str:
    return fs.certify(net, problem, theorems=[name])[0].status


class Changed:
    """A trajectory of which one thing is not the flow's: times, beta outside the row space of X, U, or beta itself."""

    def __init__(self, true: Any, what: str, amount: float, outside: np.ndarray) -> None:
        self._true, self._what, self._amount, self._outside = true, what, amount, outside

    def __getattr__(self, name: str) -> Any:
        return getattr(self._true, name)

    @property
    def t(self) -> np.ndarray:
        return self._true.t * (self._amount if self._what == "time" else 1.0)

    @property
    def beta(self) -> np.ndarray:
        shift = self._amount * self._outside[:, None] if self._what == "outside" else 0.0
        return self._true.beta + shift

    @property
    def weights(self) -> dict[str, np.ndarray]:
        shift = self._amount * self._outside[:, None] if self._what == "U" else 0.0
        return {"U": self._true.weights["U"] + shift, "V": self._true.weights["V"]}

    def at(self, t: Any, **clock: Any) -> Any:
        state = self._true.at(t, **clock)
        factor = self._amount if self._what == "size" else 1.0
        return replace(state, beta=factor * state.beta)


@pytest.mark.parametrize(
    ("name", "net", "problem", "what", "amount"),
    [
        ("linear-rate", fs.LinearNetwork(40), wide(), "time", 3.0),
        ("linear-invariant-set", fs.LinearNetwork(12), wide(), "U", 1e-3),
        ("linear-min-norm", fs.LinearNetwork(12), wide(), "outside", 1e-3),
        ("linear-width-law", fs.LinearNetwork(12), wide(), "outside", 1.0),
        ("linear-width-bound", fs.LinearNetwork(12), wide(), "outside", 30.0),
        ("linear-rank-minimisers", NET, tall(), "size", 1.001),
        ("linear-rank-minimisers", NET, logistic(), "size", 1.001),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_falsified_flow_is_seen(
    monkeypatch: pytest.MonkeyPatch, name: str, net: fs.LinearNetwork, problem: fs.Problem, what: str, amount: float
) -> None:
    monkeypatch.setattr(linear_networks, "WIDTHS", (1000, 10_000, 100_000))
    monkeypatch.setattr(linear_limits, "WIDTHS", (1000, 10_000, 100_000))
    monkeypatch.setattr(linear_networks, "_WIDTH_SEEDS", 2)
    assert status(net, problem, name) == "holds"
    outside = np.linalg.svd(problem.X, full_matrices=True)[2][-1]
    original = setting.gradient_flow
    monkeypatch.setattr(
        setting, "gradient_flow", lambda *args, **options: Changed(original(*args, **options), what, amount, outside)
    )
    assert status(net, problem, name) == "violated"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("problem", [tall(), logistic()], ids=["squares", "logistic"])
def test_falsified_jump_times_are_seen(monkeypatch: pytest.MonkeyPatch, problem: fs.Problem) -> None:
    assert status(NET, problem, "linear-jump-times") == "holds"
    original = linear_limits.saddle_to_saddle

    def wrong(*args: Any) -> fs.limits.LinearSaddlePath:
        path = original(*args)
        return replace(path, jump_times=1.001 * path.jump_times)

    monkeypatch.setattr(linear_limits, "saddle_to_saddle", wrong)
    assert status(NET, problem, "linear-jump-times") == "violated"


@pytest.mark.parametrize(
    ("name", "net"),
    [
        ("linear-saddles", NET),
        ("linear-narrow-end", fs.LinearNetwork(1)),
        ("linear-soft-thresholding", fs.LinearNetwork(6, noise=fs.GaussianNoise(0.2))),
    ],
)
def test_a_falsified_formula_is_seen(monkeypatch: pytest.MonkeyPatch, name: str, net: fs.LinearNetwork) -> None:
    original = linear_limits._formula
    monkeypatch.setattr(linear_limits, "_formula", lambda setting, rank: 1.0001 * original(setting, rank))
    assert status(net, tall(), name) == "violated"


def test_a_falsified_threshold_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    original = linear_limits._threshold
    monkeypatch.setattr(linear_limits, "_threshold", lambda setting: 1.001 * original(setting))
    net = fs.LinearNetwork(6, noise=fs.GaussianNoise(0.2))
    assert status(net, tall(), "linear-soft-thresholding") == "violated"


def test_saddles_that_no_scale_resolves_are_left_out():
    # Along (1, -1) the features differ by 1e-6: a saddle of size 1e6 settles at the rate of that square.
    X = np.array([[0.7, 0.7 + 1e-6], [-0.4, -0.4 + 2e-6]])
    problem, net = (
        fs.Regression(X, np.array([[0.9, -0.8], [-0.3, 1.1]])),
        fs.LinearNetwork(3, noise=fs.GaussianNoise(0.2)),
    )
    assert fs.saddle_to_saddle(net, problem).relaxation_rates[1:].max() < 1e-10
    assert status(net, problem, "linear-saddles") == "not resolved"  # but the origin, which is no evidence
    assert status(net, problem, "linear-soft-thresholding") == "not resolved"
