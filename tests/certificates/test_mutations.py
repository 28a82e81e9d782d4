"""Every row can fail: flows, limits and end points falsified on purpose are seen; units of X and y decide nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import flowsim as fs
from flowsim.certificates import curves, setting

UV, DEEP = fs.DiagonalNetwork("u*v"), fs.DiagonalNetwork(depth=3)
NOISY = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.3))
FORMULA, DEEPER = fs.DiagonalNetwork("u*v + u**3*v"), fs.DiagonalNetwork(depth=4)


def wide() -> fs.Regression:
    rng = np.random.default_rng(3)
    X, truth = rng.standard_normal((6, 9)), np.zeros(9)
    truth[[1, 4, 7]] = 1.0, -2.0, 0.5
    return fs.Regression(X, X @ truth)


def positive() -> fs.Regression:
    """From ones products of three weights reach no negative coefficient."""
    X = wide().X
    truth = np.zeros(9)
    truth[[1, 4]] = 1.0, 0.5
    return fs.Regression(X, X @ truth)


def tall() -> fs.Regression:
    rng = np.random.default_rng(0)
    return fs.Regression(rng.standard_normal((12, 4)), rng.standard_normal(12))


def orthogonal() -> fs.Regression:
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 3)))[0] * np.sqrt(12)
    return fs.Regression(Q, Q @ np.array([3.0, -2.0, 1.0]))


def two_targets() -> fs.Regression:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((20, 3))
    return fs.Regression(X, X @ rng.standard_normal((3, 2)) + 0.2 * rng.standard_normal((20, 2)))


FOUR = fs.Regression([[1.0, 0.5, 0.7, 0.0], [0.5, 1.0, 0.1, 0.7]], [1.0, 0.0])


class Falsified:
    """A trajectory whose coefficients, weights or times are not the flow's."""

    def __init__(
        self, true: Any, beta: float = 1.0, weights: float = 0.0, time: float = 1.0, lift: float = 0.0
    ) -> None:
        self._true, self._beta, self._weights, self._time, self._lift = true, beta, weights, time, lift

    def __getattr__(self, name: str) -> Any:
        return getattr(self._true, name)

    def _changed(self, values: np.ndarray) -> np.ndarray:
        return self._beta * values + self._lift * np.abs(values).max()

    @property
    def beta(self) -> np.ndarray:
        return self._changed(self._true.beta)

    @property
    def weights(self) -> dict[str, np.ndarray]:
        return self._grown(self._true.weights)

    def _grown(self, weights: Any) -> dict[str, np.ndarray]:
        """The first weight drifts away from the others."""
        first = next(iter(weights))
        share = np.linspace(0, self._weights, len(weights[first])).reshape(-1, *[1] * (weights[first].ndim - 1))
        return {name: w * (1 + share) if name == first else w for name, w in weights.items()}

    @property
    def dense(self) -> Any:
        """The continuous extension, read for some coordinates."""
        return SimpleNamespace(some=lambda t, clock, only: self.at(t, clock=clock).beta[:, only])

    def at(self, t: Any, **clock: Any) -> Any:
        state = self._true.at(np.asarray(t) * self._time, **clock)
        return replace(state, beta=self._changed(state.beta), weights=self._grown(state.weights))


def falsify(monkeypatch: pytest.MonkeyPatch, scale: float = 1.0, **changes: float) -> None:
    original = setting.gradient_flow

    def wrong(net: Any, problem: Any, t_end: float, alpha: Any, **options: Any) -> Falsified:
        if scale != 1.0:
            alpha = float(alpha) * scale if isinstance(alpha, float) else replace(alpha, log=alpha.log + np.log(scale))
        margin = 1.1 if changes.get("time", 1.0) > 1 else 1.0
        return Falsified(original(net, problem, t_end * margin, alpha=alpha, **options), **changes)

    monkeypatch.setattr(setting, "gradient_flow", wrong)


@pytest.mark.parametrize(
    ("name", "net", "problem", "changes"),
    [
        ("saddles", UV, FOUR, {"beta": 1.001}),
        ("saddles", DEEP, wide(), {"beta": 1.001}),
        ("active-sets", UV, FOUR, {"beta": -1.0}),
        ("jump-times", UV, FOUR, {"time": 1.001}),
        ("jump-times", DEEP, wide(), {"time": 1.001}),
        ("jump-rate", UV, FOUR, {"time": 1.01}),
        ("non-monotone-active-sets", UV, FOUR, {"lift": 0.01}),
        ("arclength-continuity", UV, FOUR, {"beta": 1.01}),
        ("arclength-continuity", DEEP, wide(), {"beta": 1.01}),
        ("orthogonal-design", UV, orthogonal(), {"beta": 1.001}),
        ("min-l1", UV, wide(), {"beta": 1.001}),
        ("min-l1", DEEP, positive(), {"beta": 1.001}),
        ("least-squares", UV, tall(), {"beta": 1.001}),
        ("lasso-average", UV, FOUR, {"beta": 1.01}),
        ("implicit-bias-at-finite-alpha", UV, wide(), {"beta": 1.001}),
        ("implicit-bias-at-finite-alpha", UV, wide(), {"scale": np.exp(0.5)}),
        ("mirror-flow", UV, tall(), {"scale": np.exp(0.5)}),
        ("mirror-flow", UV, tall(), {"beta": 1.001}),
        ("mirror-flow", DEEP, wide(), {"beta": 1.001}),
        ("mirror-flow", DEEP, wide(), {"scale": 1.01}),
        ("saddles", FORMULA, FOUR, {"beta": 1.001}),
        ("jump-times", FORMULA, FOUR, {"time": 1.001}),
        ("energy-balance", FORMULA, FOUR, {"beta": 1.001}),
        ("conserved-imbalance", DEEPER, tall(), {"weights": 1e-3}),
        ("conserved-imbalance", UV, tall(), {"weights": 1e-3}),
        ("jump-times", NOISY, tall(), {"time": 1.001}),
        ("balancing", NOISY, tall(), {"weights": 1e-2}),
        ("balancing-rate", NOISY, tall(), {"weights": 1e-2}),
        ("weighted-lasso", NOISY, tall(), {"beta": 1.001}),
        ("shrinkage-thresholding", NOISY, orthogonal(), {"beta": 1.001}),
        ("linear-saddles", fs.LinearNetwork(6), two_targets(), {"beta": 1.001}),
        ("linear-jump-times", fs.LinearNetwork(6), two_targets(), {"time": 1.001}),
        ("linear-narrow-end", fs.LinearNetwork(1), two_targets(), {"beta": 1.001}),
        ("linear-vanishing-min-norm", fs.LinearNetwork(6), two_targets(), {"beta": 1.001}),
        ("linear-soft-thresholding", fs.LinearNetwork(6, noise=fs.GaussianNoise(0.2)), two_targets(), {"beta": 1.001}),
        ("linear-nuclear-norm", fs.LinearNetwork(6, weight_decay=0.05), two_targets(), {"beta": 1.001}),
        ("linear-imbalance", fs.LinearNetwork(20), wide(), {"weights": 1e-3}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_falsified_flow_is_seen(
    monkeypatch: pytest.MonkeyPatch, name: str, net: Any, problem: fs.Regression, changes: dict[str, float]
) -> None:
    assert fs.certify(net, problem, theorems=[name])[0].status == "holds"
    falsify(monkeypatch, **changes)
    row = fs.certify(net, problem, theorems=[name])[0]
    assert row.status == "violated", (row.measured, row.error, row.tolerance, row.hypothesis)


def test_every_theorem_is_falsified_by_some_test() -> None:
    from tests.certificates import test_any_loss, test_linear_mutations, test_mutations_of_noise

    covered = {"escape", "decay-lasso", "decay-effective-scale"}  # by tests of their own in these modules
    modules = (test_any_loss, test_linear_mutations, test_mutations_of_noise)
    for test in [test_a_falsified_flow_is_seen, *(each for module in modules for each in vars(module).values())]:
        for mark in getattr(test, "pytestmark", ()):
            if mark.name == "parametrize" and mark.args[0][0] == "name":
                covered |= {str(getattr(row, "values", row)[0]) for row in mark.args[1]}
    assert set(fs.certificates.THEOREMS) <= covered


@pytest.mark.parametrize("name", ["saddles", "arclength-continuity"])
def test_a_falsified_limit_is_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    original = setting.saddle_to_saddle

    def wrong(*args: Any) -> fs.limits.SaddlePath:
        path = original(*args)
        return replace(path, values=tuple(1.01 * values for values in path.values))

    monkeypatch.setattr(setting, "saddle_to_saddle", wrong)
    assert fs.certify(UV, FOUR, theorems=[name])[0].status != "holds"


@pytest.mark.parametrize("net", [UV, DEEP], ids=str)
def test_units_of_the_data_change_no_answer(net: fs.DiagonalNetwork) -> None:
    problem = tall()
    names = ["saddles", "jump-times", "active-sets", "arclength-continuity", "least-squares", "mirror-flow"]
    base = fs.certify(net, problem, theorems=names)
    for p, q in ((0, 30), (-20, -20)):
        rows = fs.certify(net, fs.Regression(np.ldexp(problem.X, p), np.ldexp(problem.y, q)), theorems=names)
        assert [row.status for row in rows] == [row.status for row in base]
        assert all(row.holds in (True, None) for row in rows)
    assert sum(row.holds is True for row in base) >= 5


@pytest.mark.sampled(6)
@pytest.mark.parametrize("seed", range(6))
def test_the_continuous_curve_is_no_matter_of_units_or_small_jumps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(40, 5))
    y = 3 * X[:, 1] - X[:, 3] + 0.1 * rng.normal(size=40)
    row = fs.certify(UV, fs.Regression(X, y * 10.0 ** (seed - 3)), theorems="arclength-continuity")[0]
    assert row.status == "holds"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", ["X = 0", "X^T y = 0", "one empty column", "tiny y", "huge y"])
@pytest.mark.parametrize("net", [UV, DEEP, NOISY, fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.2))], ids=str)
def test_degenerate_data_have_an_answer(net: fs.DiagonalNetwork, kind: str) -> None:
    X, y = np.array(tall().X), np.array(tall().y)
    if kind == "X = 0":
        X[:] = 0
    elif kind == "X^T y = 0":
        y = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        X, y = np.vstack([X, np.zeros((1, 4))]), np.append(0 * y, 1.0)
    elif kind == "one empty column":
        X[:, 2] = 0
    else:
        y = y * (1e-200 if kind == "tiny y" else 1e30)
    names = [name for name in fs.certificates.THEOREMS if not name.startswith("least-") or name == "least-squares"]
    noisy_and_huge = net.noise is not None and kind == "huge y"
    if noisy_and_huge:  # noise has a unit of its own, next to which such targets take for ever
        names = ["expected-gradient", "mirror-flow"]
    for row in fs.certify(net, fs.Regression(X, y), theorems=names):
        assert row.status in ("holds", "not applicable", "not resolved"), (row.name, row.error, row.hypothesis)


def test_a_column_of_1e200_has_an_answer_at_depth_three() -> None:
    problem = wide()
    problem = fs.Regression(np.hstack([problem.X, problem.X[:, :1] * 1e200]), problem.y)
    assert all(row.status != "violated" for row in fs.certify(DEEP, problem))


@pytest.mark.slow
def test_the_curve_under_noise_is_continuous() -> None:
    rng = np.random.default_rng(69)
    problem = fs.Regression(rng.standard_normal((2, 6)), [-2.5, 1.8])
    noisy = fs.DiagonalNetwork("u*v", noise=fs.RademacherNoise(0.1))
    assert fs.certify(noisy, problem, theorems="arclength-continuity")[0].status == "holds"


def test_the_mirror_of_a_product_inverts_its_growth() -> None:
    z = np.linspace(-1, 0.2, 7)[:, None]
    start = np.array([[0.3], [0.1]])
    grown = 0.04 * np.exp(2 * z) - 0.01 * np.exp(-2 * z)  # ((u + v) e^z)^2 / 4 - ((u - v) e^-z)^2 / 4
    np.testing.assert_allclose(curves._mirror(start, grown), z, atol=1e-14)
    start = np.full((3, 1), 0.5)
    np.testing.assert_allclose(curves._mirror(start, (1 / (2.0 - z)) ** 3), z, atol=1e-14)
