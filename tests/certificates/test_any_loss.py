"""Theorems without squares: they hold on other losses, say why where they do not apply, and each can fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize, nnls

import flowsim as fs
from flowsim.certificates import separable_data, setting
from flowsim.certificates.minimum import minimiser
from flowsim.cli import main
from flowsim.network import InitialScale
from flowsim.problem.margins import is_attained, max_margin_l1
from tests.certificates.test_mutations import Falsified, falsify
from tests.limits.test_convex import draw

UV, DEEP, LINEAR = fs.DiagonalNetwork("u*v"), fs.DiagonalNetwork(depth=3), fs.LinearNetwork(6)
LOSSES = ("logistic", "exponential", "log-cosh", "pseudo-huber", "poisson")
LIMIT = {"saddles", "jump-times", "jump-rate", "active-sets", "stationary-end"}
FLOW = {"conserved-imbalance", "mirror-flow", "energy-balance"}


def wide() -> fs.Problem:
    rng = np.random.default_rng(3)
    return fs.Problem(rng.standard_normal((8, 12)), rng.standard_t(2, 8), "log-cosh")


def separable(loss: str = "exponential") -> fs.Problem:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((12, 16))
    return fs.Problem(X, np.sign(X @ np.r_[1.0, -1.0, 0.5, np.zeros(13)]), loss)


def labels() -> fs.Problem:
    rng = np.random.default_rng(0)
    return fs.Problem(rng.standard_normal((12, 4)), np.sign(rng.standard_normal((12, 2))), "logistic")


def statuses(rows: fs.certificates.Certificates) -> dict[str, set[str]]:
    return {kind: {row.name for row in rows if row.status == kind} for kind in {row.status for row in rows}}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_with_a_minimum_has_the_theorems_of_squares(loss: str) -> None:
    found = statuses(fs.certify(UV, draw(2, loss)))
    assert found["holds"] >= LIMIT | FLOW
    assert set(found) == {"holds", "not applicable"}
    assert {"least-squares", "lasso-average", "escape", "smoothed-margin"} <= found["not applicable"]


def test_wide_data_end_at_the_least_l1_norm_under_a_robust_loss() -> None:
    rows = fs.certify(UV, wide())
    assert statuses(rows)["holds"] >= LIMIT | FLOW | {"min-l1", "implicit-bias-at-finite-alpha"}
    assert rows.holds


def test_other_networks_have_their_rows() -> None:
    assert statuses(fs.certify(DEEP, draw(2, "poisson")))["holds"] >= LIMIT | FLOW
    quadratic = fs.DiagonalNetwork("u**2 - v**2")
    assert statuses(fs.certify(quadratic, draw(3, "logistic")))["holds"] >= LIMIT | {"energy-balance"}
    always = {"linear-imbalance", "energy-balance"}
    # One column of the labels can be separated: there the limit path ends.
    assert statuses(fs.certify(LINEAR, labels()))["holds"] == always
    of_the_limit = {"linear-rank-minimisers", "linear-jump-times"}
    assert statuses(fs.certify(LINEAR, draw(3, "poisson")))["holds"] == always | of_the_limit


@pytest.mark.parametrize("loss", [pytest.param("logistic", marks=pytest.mark.slow), "exponential"])
@pytest.mark.slow
def test_separable_data_have_margins_instead_of_an_end(loss: str) -> None:
    rows = fs.certify(UV, separable(loss))
    found = statuses(rows)
    assert found["holds"] >= {"smoothed-margin", "l1-max-margin", "escape", "energy-balance", "mirror-flow"}
    assert {"min-l1", "stationary-end", "implicit-bias-at-finite-alpha"} <= found["not applicable"]
    assert "no minimum" in rows["min-l1"].hypothesis
    assert rows["l1-max-margin"].predicted == pytest.approx(max_margin_l1(separable(loss)).margin)
    path = fs.saddle_to_saddle(UV, separable(loss))
    assert rows["escape"].measured == pytest.approx(path.escape.time, rel=1e-6)


def test_sample_weights_and_a_loss_of_ones_own() -> None:
    own = fs.losses.from_formula("log(1 + exp(-y*f)) + f**2/100")
    base = draw(4, "logistic")
    problem = fs.Problem(base.X, base.y, own, sample_weight=np.linspace(0.5, 2.0, base.n))
    assert statuses(fs.certify(UV, problem))["holds"] >= LIMIT | FLOW


@pytest.mark.parametrize(
    ("name", "net", "problem", "changes"),
    [
        ("saddles", UV, draw(2, "logistic"), {"beta": 1.001}),
        ("saddles", DEEP, draw(2, "poisson"), {"beta": 1.001}),
        ("jump-times", UV, draw(2, "log-cosh"), {"time": 1.001}),
        ("jump-rate", UV, draw(2, "log-cosh"), {"time": 1.01}),
        ("active-sets", UV, draw(2, "poisson"), {"beta": -1.0}),
        ("non-monotone-active-sets", UV, draw(2, "poisson"), {"lift": 0.01}),
        ("min-l1", UV, wide(), {"beta": 1.001}),
        ("implicit-bias-at-finite-alpha", UV, wide(), {"beta": 1.001}),
        ("implicit-bias-at-finite-alpha", UV, wide(), {"scale": np.exp(0.5)}),
        ("conserved-imbalance", UV, draw(2, "logistic"), {"weights": 1e-3}),
        ("mirror-flow", UV, draw(2, "logistic"), {"beta": 1.001}),
        ("mirror-flow", DEEP, draw(2, "poisson"), {"scale": 1.01}),
        ("energy-balance", UV, draw(2, "logistic"), {"beta": 1.001}),
        ("energy-balance", LINEAR, labels(), {"weights": 1e-2}),
        ("linear-imbalance", LINEAR, labels(), {"weights": 1e-3}),
        ("stationary-end", UV, draw(2, "log-cosh"), {"beta": 1.001}),
        ("stationary-end", UV, draw(2, "poisson"), {"lift": 1e-4}),
        ("smoothed-margin", UV, separable(), {"weights": 2.0}),
        pytest.param("smoothed-margin", UV, separable("logistic"), {"weights": 2.0}, marks=pytest.mark.slow),
        ("l1-max-margin", UV, separable(), {"lift": 1e-3}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_falsified_flow_is_seen(
    monkeypatch: pytest.MonkeyPatch, name: str, net: Any, problem: fs.Problem, changes: dict[str, float]
) -> None:
    assert fs.certify(net, problem, theorems=[name])[0].status == "holds"
    falsify(monkeypatch, **changes)
    row = fs.certify(net, problem, theorems=[name])[0]
    assert row.status == "violated", (row.measured, row.error, row.tolerance, row.hypothesis)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("change", [{"lift": 1e-3}, {"late": 1.001}])
def test_a_falsified_escape_is_seen(monkeypatch: pytest.MonkeyPatch, change: dict[str, float]) -> None:
    class Late(Falsified):
        @property
        def accelerated_time(self) -> np.ndarray:
            return change.get("late", 1.0) * self._true.accelerated_time

    original = setting.gradient_flow
    monkeypatch.setattr(
        setting, "gradient_flow", lambda *args, **more: Late(original(*args, **more), lift=change.get("lift", 0.0))
    )
    assert fs.certify(UV, separable(), theorems="escape")[0].status == "violated"


ZERO_COLUMN = fs.Problem([[0.0, 1.0, -0.6, 0.3], [0.0, 0.4, 1.2, -0.5]], [1.0, -1.0], "exponential")
SLOW = [[1.1600140784, -0.4259050057, -0.9850051798, -1.2721738205]]
SLOW += [[-0.9192085975, -0.4857881743, -1.3499039123, 1.0081566169]]


@pytest.mark.parametrize(
    "size", [1e-2, pytest.param(1.0, marks=pytest.mark.slow), pytest.param(1e2, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_the_dual_of_a_vanishing_start_is_a_combination_of_rows(size: float) -> None:
    """Beta of 1e-900 is no float, its dual is of the size of the others'."""
    problem, scale = fs.Problem(size * np.array(SLOW), [1.0, 1.0], "exponential"), InitialScale.parse("1e-1000")
    state = fs.gradient_flow(UV, problem, 1e4, alpha="1e-1000", clock="log_loss").at(1e4, clock="log_loss")
    z = separable_data._dual(scale, state)
    assert np.abs(state.beta).min() == 0 and np.abs(z).min() > 100
    assert nnls(problem.X.T, z)[1] < 1e-9 * np.linalg.norm(z)
    assert fs.certify(UV, problem, alpha="1e-300", theorems="l1-max-margin")[0].status == "not resolved"
    assert fs.certify(UV, problem, theorems="l1-max-margin")[0].status == "holds"


@pytest.mark.slow
def test_what_a_large_alpha_does_not_resolve_is_not_violated() -> None:
    for alpha, verdict in (("1e-2", "not resolved"), ("1e-3", "holds")):
        assert fs.certify(UV, ZERO_COLUMN, alpha=alpha, theorems="escape")[0].status == verdict
    rng = np.random.default_rng(2)
    two = fs.Regression(rng.standard_normal((8, 4)), rng.standard_normal((8, 2)))
    for alpha, verdict in (("1e-3", "not resolved"), ("1e-20", "holds")):
        assert fs.certify(LINEAR, two, alpha=alpha, theorems="linear-jump-times")[0].status == verdict
    robust = fs.Problem(two.X, two.y, "pseudo-huber")
    row = fs.certify(LINEAR, robust, alpha="1e-300", theorems="linear-imbalance")[0]  # squares of weights underflow
    assert row.status == "not resolved" and "lost in the rounding" in row.hypothesis


def test_a_formula_that_saturates_relaxes_at_its_own_rate() -> None:
    """Far out tanh(u)*v is v: d beta/dz is 1, not 2 beta, and the plateau of 2000 takes an alpha that waits for it."""
    problem = fs.Problem([[1e-4], [2e-4], [-1e-4]], [1.0, 3.0, 1.0], "poisson")
    net = fs.DiagonalNetwork("tanh(u)*v")
    assert fs.saddle_to_saddle(net, problem).end.max() > 1000
    assert {"saddles", "active-sets", "stationary-end"} <= statuses(fs.certify(net, problem))["holds"]
    coarse = fs.certify(net, problem, alpha="1e-8", theorems=["saddles", "stationary-end"])
    assert coarse[0].status == "not resolved" and coarse[1].status != "violated"


def test_a_side_without_growth_resolves_nothing_and_warns_of_nothing() -> None:
    """Its distance is infinite and its speed 0."""
    assert statuses(fs.certify(fs.DiagonalNetwork("u*v + u**2*v**2"), draw(2, "log-cosh")))["holds"] >= LIMIT


@pytest.mark.parametrize(
    ("name", "problem"),
    [("saddles", draw(2, "logistic")), pytest.param("escape", separable(), marks=pytest.mark.slow)],
    ids=["saddles", "escape"],
)
def test_a_falsified_limit_is_seen(monkeypatch: pytest.MonkeyPatch, name: str, problem: fs.Problem) -> None:
    original = setting.saddle_to_saddle

    def wrong(*args: Any) -> fs.limits.SaddlePath:
        path = original(*args)
        values = tuple(1.001 * each for each in path.values)
        escape = None if path.escape is None else replace(path.escape, time=1.001 * path.escape.time)
        return replace(path, values=values, escape=escape)

    monkeypatch.setattr(setting, "saddle_to_saddle", wrong)
    assert fs.certify(UV, problem, theorems=name)[0].status == "violated"


@pytest.mark.parametrize("loss", LOSSES)
def test_the_minimum_they_are_measured_against_is_that_of_scipy(loss: str) -> None:
    problem = draw(1, loss)
    found = minimiser(problem, problem.X)
    other = minimize(problem.loss, np.zeros(6), jac=problem.gradient, method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(found, other, atol=1e-6)
    for size in (1e-3, 1e3, 1e6):
        scaled = fs.Problem(size * problem.X, problem.y, loss)
        np.testing.assert_allclose(minimiser(scaled, scaled.X) * size, found, rtol=1e-8, atol=1e-10)
    assert np.abs(problem.gradient(found)).max() < 1e-12


@pytest.mark.parametrize(
    ("X", "y", "loss", "attained"),
    [
        ([[1.0], [1.0]], [1.0, -1.0], "logistic", True),
        ([[1.0], [-1.0]], [1.0, -1.0], "logistic", False),
        ([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [1.0, -1.0, 1.0], "exponential", False),  # one row falls for ever
        ([[1.0], [2.0]], [0.0, 0.0], "poisson", False),
        ([[1.0], [2.0]], [0.0, 1.0], "poisson", True),
        ([[1.0, 1.0], [0.0, 0.0]], [3.0, 1.0], "log-cosh", True),
    ],
)
def test_whether_a_minimum_is_attained_is_a_linear_programme(X: Any, y: Any, loss: str, attained: bool) -> None:
    problem = fs.Problem(X, y, loss)
    assert is_attained(problem) is attained
    assert (minimiser(problem, problem.X) is not None) is attained


def test_a_nearly_separable_minimum_is_found_hundreds_away() -> None:
    problem = draw(5, "logistic")
    found = minimiser(problem, problem.X)
    assert found is not None and np.abs(found).max() > 200
    np.testing.assert_allclose(found, fs.saddle_to_saddle(UV, problem).end, rtol=1e-8)


def test_nothing_moves_where_the_gradient_at_0_vanishes() -> None:
    still = fs.Problem([[1.0], [1.0]], [1.0, -1.0], "logistic")
    assert all(row.status in ("not applicable", "holds") for row in fs.certify(UV, still))
    assert "nothing moves" in fs.certify(UV, still, theorems="energy-balance")[0].hypothesis


def test_the_command_certifies_a_table_of_labels(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    problem = draw(2, "logistic")
    rows = [
        ",".join([*map(repr, row.tolist()), "yes" if y > 0 else "no"])
        for row, y in zip(problem.X, problem.y, strict=True)
    ]
    table = tmp_path / "table.csv"
    table.write_text("a,b,c,d,e,f,answer\n" + "\n".join(rows) + "\n")
    asked = ["--theorem", "energy-balance", "--theorem", "weighted-lasso", "--all-rows", "--no-progress"]
    main(["certify", str(table), "--target", "answer", "--loss", "logistic", *asked])
    told = capsys.readouterr().out
    assert "1 of 1 theorems hold" in told
    assert "this one is logistic" in " ".join(told.split())
