"""The certificates hold where theory says so, fail when a law is broken, and say which hypothesis is not met."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import flowsim as fs
from flowsim.certificates import THEOREMS, Certificates, Setting
from flowsim.certificates.certificate import Certificate, Evidence, UnresolvedError
from flowsim.certificates.registry import Theorem
from flowsim.cli import main

UV = fs.DiagonalNetwork("u*v")
PAPERS = {"2503.11891": "noise", "2105.06351": "linear", "2304.00488": "saddles"}


def orthogonal(values: list[float], n: int = 20) -> fs.Regression:
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((n, len(values))))[0] * np.sqrt(n)
    return fs.Regression(Q, Q @ np.array(values))


@pytest.fixture(scope="module")
def orthogonal_problem() -> fs.Regression:
    return orthogonal([3.0, -2.0, 1.0, 0.5, -0.2])


@pytest.fixture(scope="module")
def wide() -> fs.Regression:
    rng = np.random.default_rng(4)
    return fs.Regression(rng.standard_normal((4, 7)), rng.standard_normal(4))


def assert_holds(rows: Certificates, expected: set[str]) -> None:
    assert {row.name for row in rows if row.applies} == expected
    assert [(row.name, row.measured, row.error) for row in rows if row.applies and row.holds is not True] == []
    assert all(row.margin is not None and 0 <= row.margin <= 1 for row in rows if row.applies)


def test_paper_three_holds_on_the_diabetes_data(diabetes: fs.Regression) -> None:
    rows = fs.certify(UV, diabetes, theorems=["2304.00488", "2509.18766"])
    assert_holds(
        rows,
        {"saddles", "jump-times", "jump-rate", "active-sets", "non-monotone-active-sets", "least-squares",
         "arclength-continuity", "lasso-average", "conserved-imbalance", "mirror-flow", "stationary-end"},
    )  # fmt: skip
    assert "full column rank" in rows["min-l1"].hypothesis


def test_overparametrised_data_end_at_the_least_l1_norm(wide: fs.Regression) -> None:
    rows = fs.certify(UV, wide, theorems=["min-l1", "least-squares", "implicit-bias-at-finite-alpha", "saddles"])
    assert_holds(rows, {"min-l1", "implicit-bias-at-finite-alpha", "saddles"})
    assert rows["min-l1"].predicted == pytest.approx(fs.studies.min_l1(wide).value, rel=1e-8)


def test_the_four_feature_fixture_loses_a_coordinate() -> None:
    problem = fs.Regression([[1.0, 0.5, 0.7, 0.0], [0.5, 1.0, 0.1, 0.7]], [1.0, 0.0])
    rows = fs.certify(UV, problem, theorems=["jump-times", "non-monotone-active-sets", "arclength-continuity"])
    assert_holds(rows, {"jump-times", "non-monotone-active-sets", "arclength-continuity"})
    np.testing.assert_allclose(rows["jump-times"].details["extrapolated"], [2, 8, 552 / 49], rtol=1e-6)


def test_paper_one_holds_on_an_orthogonal_design(orthogonal_problem: fs.Regression) -> None:
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.6))
    rows = fs.certify(net, orthogonal_problem, theorems="2503.11891")
    assert_holds(
        rows,
        {"expected-gradient", "balancing", "balancing-rate", "least-hessian-trace", "least-sharpness",
         "sharpness-identity", "shrinkage-thresholding", "weighted-lasso"},
    )  # fmt: skip
    c, penalty = orthogonal_problem.rmatvec(orthogonal_problem.y) / 20, 0.36
    soft = np.sign(c) * np.maximum(np.abs(c) - penalty, 0)
    np.testing.assert_allclose(rows["shrinkage-thresholding"].details["measured"], soft, atol=1e-6)
    assert np.count_nonzero(soft) == 4


@pytest.mark.slow
def test_depth_three_has_a_trap_at_the_origin_and_a_shrunken_end(orthogonal_problem: fs.Regression) -> None:
    net = fs.DiagonalNetwork(depth=3, noise=fs.UniformNoise(0.4))
    rows = fs.certify(net, orthogonal_problem, theorems="2503.11891")
    assert_holds(
        rows,
        {"expected-gradient", "balancing", "balancing-rate", "least-hessian-trace", "least-sharpness",
         "depth-end-point", "depth-trap"},
    )  # fmt: skip
    assert rows["depth-end-point"].details["least_gradient_over_floor"] >= 1 - 1e-6
    assert "two layers" in rows["weighted-lasso"].hypothesis


def test_depth_three_without_noise_jumps_at_its_own_thresholds() -> None:
    rows = fs.certify(
        fs.DiagonalNetwork(depth=3), orthogonal([3.0, 2.0, 1.0]), theorems=["saddles", "jump-times", "jump-rate"]
    )
    assert_holds(rows, {"saddles", "jump-times", "jump-rate"})


def test_the_other_two_layer_formula_has_its_saddles_too(wide: fs.Regression) -> None:
    rows = fs.certify(fs.DiagonalNetwork("2*u**2 - v**2"), wide, theorems=["saddles", "jump-times", "min-l1"])
    assert_holds(rows, {"saddles", "jump-times", "min-l1"})


def test_paper_two_holds_on_a_wide_linear_network() -> None:
    rng = np.random.default_rng(0)
    problem = fs.Regression(rng.standard_normal((6, 9)), rng.standard_normal((6, 2)))
    rows = fs.certify(fs.LinearNetwork(50), problem)
    assert_holds(
        rows,
        {"linear-imbalance", "linear-rate", "linear-invariant-set", "linear-min-norm", "linear-width-law",
         "linear-saddles", "linear-rank-minimisers", "linear-jump-times", "linear-vanishing-min-norm",
         "linear-width-bound", "energy-balance"},
    )  # fmt: skip
    own = {"linear-narrow-end", "linear-soft-thresholding", "linear-nuclear-norm"}
    assert all("not diagonal" in row.hypothesis for row in rows if not row.applies and row.name not in own)
    tall = fs.Regression(rng.standard_normal((9, 3)), rng.standard_normal((9, 2)))
    assert fs.certify(fs.LinearNetwork(50), tall, theorems="linear-width-law")[0].status == "not applicable"


@pytest.mark.slow  # what each row needs to hold is in test_mutations too
def test_noise_soft_thresholds_and_narrow_networks_end_at_the_best_fit_of_their_rank() -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((20, 3))
    problem = fs.Regression(X, X @ rng.standard_normal((3, 2)) + 0.2 * rng.standard_normal((20, 2)))
    names = ["linear-saddles", "linear-jump-times", "linear-narrow-end", "linear-soft-thresholding"]
    noisy = fs.certify(fs.LinearNetwork(6, noise=fs.GaussianNoise(0.2)), problem, alpha="1e-200", theorems=names)
    assert_holds(noisy, {"linear-saddles", "linear-jump-times", "linear-soft-thresholding"})
    narrow = fs.certify(fs.LinearNetwork(1), problem, alpha="1e-200", theorems=names)
    assert_holds(narrow, {"linear-saddles", "linear-jump-times", "linear-narrow-end"})
    names = ["linear-nuclear-norm", "linear-jump-times", "linear-imbalance"]
    decaying = fs.certify(fs.LinearNetwork(6, weight_decay=0.05), problem, alpha="1e-200", theorems=names)
    assert_holds(decaying, {"linear-nuclear-norm", "linear-jump-times"})


def test_every_row_says_why_it_does_not_apply(diabetes: fs.Regression) -> None:
    rows = fs.certify(UV, diabetes, theorems=["2503.11891", "2105.06351", "orthogonal-design"])
    silent = [row for row in rows if not row.applies]
    assert len(silent) >= 13
    assert all(row.hypothesis and row.holds is None and row.margin is None for row in silent)


def test_an_alpha_too_large_for_the_data_is_said_not_failed(diabetes: fs.Regression) -> None:
    row = fs.certify(UV, diabetes, alpha=0.5, theorems="saddles")[0]
    assert row.status == "not resolved" and row.holds is None
    assert "too large" in row.hypothesis


def test_a_wrong_law_is_reported_as_violated(monkeypatch: pytest.MonkeyPatch, wide: fs.Regression) -> None:
    """A process with all thresholds doubled predicts other jump times than the flow has."""
    from flowsim.certificates import setting

    original = setting.saddle_to_saddle
    monkeypatch.setattr(
        setting, "saddle_to_saddle", lambda net, problem, start: original(net, problem, thresholds=(1.01, 1.01))
    )
    rows = fs.certify(UV, wide, theorems="jump-times")
    assert rows[0].status == "violated"
    assert rows[0].margin is not None and rows[0].margin < 0
    assert not rows.holds


def test_nan_never_holds_and_a_failed_measurement_is_neither() -> None:
    def unmeasured(_: Setting) -> Evidence:
        raise UnresolvedError("the flow stopped")

    nan = Certificate("x", "p", "s", True, "", error=float("nan"), tolerance=1.0)
    assert nan.holds is False
    problem = fs.Regression([[1.0]], [1.0])
    row = Theorem("x", "p", "s", unmeasured).certify(Setting(UV, problem, None, None, 1e-8, 0))
    assert (row.status, row.holds) == ("not resolved", None)
    assert not Certificates((row,)).holds
    detailed = replace(row, details={"times": np.zeros(2)})
    assert detailed == detailed and detailed != replace(detailed) and len({detailed, row}) == 2


def test_rows_come_as_table_json_and_dataframe(wide: fs.Regression, tmp_path: object) -> None:
    rows = fs.certify(UV, wide, theorems=["balancing", "jump-times"])
    frame = rows.to_dataframe()
    assert list(frame.index) == ["balancing", "jump-times"]
    assert bool(frame.loc["jump-times", "holds"])
    plain = json.loads(rows.to_json())
    assert plain["holds"] is True
    assert {row["name"] for row in plain["certificates"]} == {"jump-times", "balancing"}
    # What does not apply comes last, and folded.
    assert rows.table().index("jump-times") < rows.table().index("balancing  ") < rows.table().index("not met")
    assert "jump-times" in str(rows) and "balancing  " not in str(rows)
    assert str(rows).endswith("\n1 of 2 theorems do not apply: table() says why")
    assert "do not apply" not in str(rows[1:])
    html = rows._repr_html_()
    assert html.index("jump-times") < html.index("<summary>1 of 2 theorems do not apply</summary>")


def test_arguments_are_checked(wide: fs.Regression) -> None:
    with pytest.raises(ValueError, match="`theorems` must name theorems or papers"):
        fs.certify(UV, wide, theorems="nonsense")
    with pytest.raises(ValueError, match="received 'linear_saddle'; did you mean 'linear-saddles'"):
        fs.certify(UV, wide, theorems=["saddles", "linear_saddle"])
    with pytest.raises(ValueError, match="`net` must be"):
        fs.certify("u*v", wide)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="y != 0"):
        fs.certify(UV, fs.Regression(wide.X, np.zeros(4)))
    with pytest.raises(ValueError, match="`rtol`"):
        fs.certify(UV, wide, rtol=0)


@pytest.mark.parametrize(
    ("net", "y", "names"),
    [
        (UV, [2.0, 3.0], ("saddles", "active-sets")),
        # One target: a jump along X^T y, and then convergence at the least curvature, 0.1^2/2.
        (fs.LinearNetwork(2), [1.0, 0.1], ("linear-saddles", "linear-rank-minimisers")),
    ],
)
def test_the_plateau_at_the_origin_alone_is_no_evidence(net: object, y: object, names: tuple[str, ...]) -> None:
    X = np.diag([2.0, 1.0] if net is UV else [1.0, 0.1])
    rows = fs.certify(net, fs.Regression(X, y), alpha=1e-20, theorems=names)  # type: ignore[arg-type]
    assert {row.status for row in rows} == {"not resolved"}
    assert all("no plateau after the first" in row.hypothesis for row in rows)


def test_each_theorem_states_itself_in_one_line() -> None:
    assert len(THEOREMS) >= 25
    for entry in THEOREMS.values():
        assert "\n" not in entry.statement and len(entry.statement) < 100
        assert "arXiv" in entry.paper
    assert all(any(paper in entry.paper for entry in THEOREMS.values()) for paper in PAPERS)


def test_the_command_prints_the_table_and_writes_json(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "rows.json"
    main(["certify", "--theorem", "jump-times", "--theorem", "least-squares", "--out", str(out), "--no-progress"])
    assert "2 of 2 theorems hold" in capsys.readouterr().out
    assert json.loads(out.read_text())["holds"] is True
    main(["certify", "--theorem", "least-squares", "--out", str(tmp_path), "--no-progress"])  # a run's folder
    assert json.loads((tmp_path / "certificates.json").read_text())["holds"] is True


def test_the_least_trace_is_found_at_any_scale_of_the_targets():
    X, b = np.random.default_rng(0).standard_normal((4, 6)), np.array([0.0, 1.0, 0.0, -2.0, 0.0, 0.0])
    for scale in (1e-9, 1.0, 1e6):
        row = fs.certify(fs.DiagonalNetwork("u*v"), fs.Regression(X, scale * X @ b), theorems=["least-hessian-trace"])[
            0
        ]
        assert row.status == "holds"


def test_a_flow_on_a_plateau_has_not_reached_its_end() -> None:
    """One row: the feature whose unit of growth costs least is slow, and takes over at 367 only."""
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1))
    problem = fs.Regression([[-2.325, -0.219, -1.246]], [1.0])
    assert fs.saddle_to_saddle(net, problem).jump_times[-1] > 300
    assert fs.certify(net, problem, alpha="1e-100", theorems="weighted-lasso")[0].status == "holds"


@pytest.mark.parametrize("net", [UV, fs.LinearNetwork(3)])
def test_targets_that_no_feature_correlates_with_violate_nothing(net: object) -> None:
    problem = fs.Regression([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [1.0, 0.0, -1.0])
    assert not fs.saddle_to_saddle(net, problem).jump_times.size  # type: ignore[arg-type]
    rows = fs.certify(net, problem, alpha="1e-100")  # type: ignore[arg-type]
    assert "violated" not in {row.status for row in rows}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("seed", [0, 1, 4])
def test_an_active_coefficient_a_thousandth_of_the_largest_violates_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((40, 5))
    y = 3 * X[:, 1] - X[:, 3] + 0.1 * rng.standard_normal(40)
    problem = fs.Regression(X, y)
    least = np.abs(np.linalg.lstsq(X, y, rcond=None)[0])
    assert least.min() < 1e-3 * least.max()
    rows = fs.certify(UV, problem)
    assert {row.status for row in rows} == {"holds", "not applicable"}
    assert next(row for row in rows if row.name == "stationary-end").status == "holds"


def test_jumps_that_curve_with_alpha_are_resolved_at_depth_three() -> None:
    """The error left after extrapolation is that of the second order: 126 x^2 on these data."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((6, 10))
    problem = fs.Regression(X, 3 * X[:, 1] - X[:, 3] + 0.1 * rng.standard_normal(6))
    (row,) = fs.certify(fs.DiagonalNetwork(depth=3), problem, theorems=["jump-times"])
    assert row.status == "holds" and row.error < 0.05 * row.tolerance
