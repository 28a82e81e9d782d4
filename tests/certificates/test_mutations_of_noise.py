"""Rows on noise, sharpness and weight decay can fail: what they measure is falsified on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import flowsim as fs
import flowsim.symbolic
from flowsim.certificates import decay, sharpness, shrinkage
from tests.certificates.test_mutations import falsify

SHALLOW = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.3))
DEEP = fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.2))
Mutation = Callable[[pytest.MonkeyPatch], None]


def problem() -> fs.Regression:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 3))
    return fs.Regression(X, X @ np.array([3.0, -2.0, 1.0]))


def _kernels(patch: pytest.MonkeyPatch, name: str, changed: Callable[[Callable], Callable]) -> None:
    """One generated kernel is replaced by what is made of it."""
    original = flowsim.symbolic.kernels

    def wrong(net: fs.DiagonalNetwork) -> Any:
        found = original(net)
        return replace(found, **{name: changed(getattr(found, name))})

    patch.setattr(flowsim.symbolic, "kernels", wrong)


def field_without_variance(patch: pytest.MonkeyPatch) -> None:
    def changed(field: Callable) -> Callable:
        return lambda w, kind, std, g, s2, out: field(w, kind, std, g, 0 * s2, out)

    _kernels(patch, "field", changed)


def variance_too_large(patch: pytest.MonkeyPatch) -> None:
    def changed(variance: Callable) -> Callable:
        def wrong(w: np.ndarray, kind: np.ndarray, std: np.ndarray, out: np.ndarray) -> None:
            variance(w, kind, std, out)
            out *= 1.0001

        return wrong

    _kernels(patch, "variance", changed)


def trace_too_large(patch: pytest.MonkeyPatch) -> None:
    original = sharpness._hessian_trace
    patch.setattr(sharpness, "_hessian_trace", lambda *args: 1.0001 * original(*args))


def draws_too_wide(patch: pytest.MonkeyPatch) -> None:
    original = sharpness.draws

    def wrong(setting: Any, w: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        noisy, inner = original(setting, w, rng)
        return w[:, None] + 1.5 * (noisy - w[:, None]), inner

    patch.setattr(sharpness, "draws", wrong)


def _ends_at(factors: list[float]) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        original, known = shrinkage._end_of_decay, []

        def wrong(*args: Any) -> np.ndarray:
            if not known:
                known.append(original(*args))
            return known[0] * np.array(factors)[:, None]

        patch.setattr(shrinkage, "_end_of_decay", wrong)

    return mutate


def nothing_falls(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shrinkage, "_logarithmic_decay", lambda setting, start, t_end: start)


MUTATIONS: list[tuple[str, fs.DiagonalNetwork, Mutation]] = [
    ("expected-gradient", SHALLOW, field_without_variance),
    ("expected-gradient", DEEP, field_without_variance),
    ("least-sharpness", SHALLOW, variance_too_large),
    ("least-sharpness", DEEP, variance_too_large),
    ("least-hessian-trace", SHALLOW, trace_too_large),
    ("sharpness-identity", SHALLOW, draws_too_wide),
    ("depth-end-point", DEEP, _ends_at([1.001, 1.001, 1.001])),
    ("depth-end-point", DEEP, _ends_at([1.01, 1 / 1.01, 1.0])),
    ("depth-trap", DEEP, nothing_falls),
]


@pytest.mark.parametrize(("name", "net", "mutate"), MUTATIONS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_falsified_statement_on_noise_is_seen(
    monkeypatch: pytest.MonkeyPatch, name: str, net: fs.DiagonalNetwork, mutate: Mutation
) -> None:
    assert fs.certify(net, problem(), theorems=[name])[0].status == "holds"
    mutate(monkeypatch)
    row = fs.certify(net, problem(), theorems=[name])[0]
    assert row.status == "violated", (row.measured, row.error, row.tolerance, row.hypothesis)


def end_too_large(patch: pytest.MonkeyPatch) -> None:
    original = decay.gradient_flow

    class Wrong:
        def __init__(self, true: fs.Trajectory) -> None:
            self.loss, self.beta = true.loss, 1.001 * true.beta

    patch.setattr(decay, "gradient_flow", lambda *args, **options: Wrong(original(*args, **options)))


def test_a_falsified_end_under_decay_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    net = fs.DiagonalNetwork("u*v", weight_decay=0.05)
    wide = fs.Regression([[1.0, 0.5, -0.25]], [1.0])
    names = ["decay-lasso", "decay-effective-scale"]
    assert [row.status for row in fs.certify(net, wide, theorems=names)] == ["holds", "holds"]
    end_too_large(monkeypatch)
    falsify(monkeypatch, beta=1.01)
    assert [row.status for row in fs.certify(net, wide, theorems=names)] == ["violated", "violated"]
