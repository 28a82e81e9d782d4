"""General formulas: the curve along which a coordinate grows, where it ends, and what follows for the limit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial import cKDTree

import flowsim as fs
from flowsim.growth.origin_curves import CurveResponse, OriginCurve, OriginCurves
from flowsim.symbolic import order_at_origin

FOUR = fs.Regression([[1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7]], [1.0, 0.0])


def curve(text: str, sign: int = 1, **start: float) -> tuple[OriginCurve, float]:
    net = fs.DiagonalNetwork(text)
    direction = net.direction(start or None, 1)
    return OriginCurves(net, direction, order_at_origin(net.distinct[0]), fresh=True).of(0, sign)


def tangent(line: OriginCurve, z: float) -> tuple[float, float, float]:
    """Coefficient, its derivative and its integral."""
    response, at = CurveResponse((line,)), np.array([z])
    return response.value(at)[0], response.slope(at)[0], response.potential(at)


def test_a_quadratic_formula_grows_exponentially() -> None:
    line, head = curve("u*v", u=3.0, v=1.0)
    assert line.reaches(10.0)
    assert line.speed == pytest.approx(2.0, rel=1e-14)
    # u + v = 4: beta = (4 e^z)^2 / 4
    for z in (-40.0, -3.0, 0.5):
        b = 4 * np.exp(2 * z)
        np.testing.assert_allclose(tangent(line, z + head), [b, 2 * b, b / 2], rtol=1e-12)


def test_a_balanced_quartic_follows_its_closed_form() -> None:
    """With x = u*v and u = v: ``x' = 2 x (1 + 2 x)``, so ``x / (1 + 2 x) = e^(2z)``; b = x + x^2."""
    line, head = curve("u*v + u**2*v**2", u=1.0, v=1.0)
    assert line.reaches(50.0)
    b = np.array([1e-12, 1e-3, 0.3, 2.0, 40.0])
    x = 2 * b / (1 + np.sqrt(1 + 4 * b))
    np.testing.assert_allclose(CurveResponse((line,) * 5).inertia(b), 2 * x * (1 + 2 * x) ** 2, rtol=1e-12)
    for z in (-9.0, -2.0, -0.5):
        x = np.exp(2 * z) / (1 - 2 * np.exp(2 * z))
        assert tangent(line, z + head)[0] == pytest.approx(x + x**2, rel=1e-12)
        dual = CurveResponse((line,)).dual(np.array([x + x**2]))[0]
        assert dual - head == pytest.approx(z, rel=1e-12)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("text", "sign", "limit"),
    [
        ("u*v - u**2*v**2", 1, 0.25),
        ("sin(u*v)", 1, 1.0),
        ("a**2 - b**2 + b**4", -1, 0.25),
        ("u*v*w - (u*v*w)**2", 1, 0.25),
    ],
)
def test_a_curve_ends_at_the_critical_point_it_runs_into(text: str, sign: int, limit: float) -> None:
    line, _ = curve(text, sign)
    assert line.reaches(0.9 * limit)
    assert not line.reaches(2 * limit)
    assert line.limit == pytest.approx(limit, rel=1e-8)
    assert not line.reaches(1.01 * limit)


@pytest.mark.parametrize("exact", [False, True])
def test_a_saddle_beyond_the_reach_of_the_formula_is_refused_and_one_within_is_not(exact: bool) -> None:
    net = fs.DiagonalNetwork("u*v - u**2*v**2")
    X = [[1.0, 0.5]]
    with pytest.raises(fs.IntegrationError, match=r"critical point at 0\.25"):
        fs.saddle_to_saddle(net, fs.Regression(X, [2.0]), exact=exact)
    flow = fs.gradient_flow(net, fs.Regression(X, [2.0]), 60.0, alpha=1e-6)
    assert flow.beta[-1, 0] == pytest.approx(0.25, abs=1e-6)  # there it stays: least squares would be wrong
    path = fs.saddle_to_saddle(net, fs.Regression(X, [0.2]), exact=exact)
    np.testing.assert_allclose(path.end, [0.2, 0.0], atol=1e-12)


def ends(
    net: fs.DiagonalNetwork, problem: fs.Regression, start: dict[str, object], alpha: str
) -> tuple[object, object]:
    path = fs.saddle_to_saddle(net, problem, start)
    t_end = 2.2 * path.jump_times[-1]
    flow = fs.gradient_flow(net, problem, t_end, alpha=alpha, start=start, clock="accelerated", rtol=1e-9)
    return path.end, flow.beta[-1]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_of_dependent_columns_the_flow_selects_the_minimiser_predicted_by_the_curves(sign: float) -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal((5, 3))
    problem = fs.Regression(np.column_stack([base, sign * base[:, 1]]), 2 * rng.standard_normal(5))
    start = {"a": np.array([1.0, 2.0, 1.0, 0.5]), "b": np.array([1.0, 1.0, 1.0, 3.0])}
    net = fs.DiagonalNetwork("a*tanh(a) - sin(b)*b" if sign < 0 else "a*tanh(a) - b**2")
    end, reached = ends(net, problem, start, "1e-20")
    assert abs(end[1]) > 1e-3 < abs(end[3])
    np.testing.assert_allclose(end, reached, atol=1e-9)


def test_twins_of_different_formulas_share_as_their_curves_tell() -> None:
    net = fs.DiagonalNetwork(["u**2 - v**2", "u**2 + u**4 - v**2 - v**4", "u**2 - v**2"])
    problem = fs.Regression([[1.0, 1.0, 0.2], [0.5, 0.5, -1.0]], [2.0, 0.3])
    end, reached = ends(net, problem, {"u": 1.0, "v": 0.5}, "1e-20")
    assert end[1] > 2 * end[0] > 0
    np.testing.assert_allclose(end, reached, atol=1e-9)


def test_twins_of_a_power_law_share_equally_and_terms_of_higher_order_are_refused() -> None:
    problem = fs.Regression([[1.0, 1.0, 0.2], [0.5, 0.5, -1.0]], [2.0, 0.3])
    path = fs.saddle_to_saddle(fs.DiagonalNetwork("u**3 - v**3"), problem)
    assert path.end[0] == pytest.approx(path.end[1], rel=1e-12)
    with pytest.raises(fs.IntegrationError, match="delay each coordinate by times that diverge"):
        fs.saddle_to_saddle(fs.DiagonalNetwork("u**3 - v**3 + u**4"), problem)


def test_a_continued_general_formula_says_what_it_does_not_know() -> None:
    net = fs.DiagonalNetwork("a*tanh(a) - b**2")
    problem = fs.Regression([[1.0, 1.0, 0.2], [0.5, 0.5, -1.0]], [2.0, 0.3])
    path = fs.saddle_to_saddle(net, problem)
    with pytest.raises(fs.IntegrationError, match="does not determine how its coordinates grow"):
        fs.saddle_to_saddle(net, problem, path.state(2.0 * path.jump_times[-1]))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("text", "alphas", "order"),
    [("u**2 + u**4 - v**2 - v**4", ["1e-10", "1e-20", "1e-40"], 2), ("u**3 - v**3", ["1e-2", "1e-3"], 3)],
)
def test_flows_travel_on_the_orbits_of_a_general_formula(text: str, alphas: list[str], order: int) -> None:
    net = fs.DiagonalNetwork(text)
    path = fs.saddle_to_saddle(net, FOUR)
    assert path.order == order
    whole = np.concatenate([orbit.at(np.linspace(0, orbit.length, 20_001)) @ np.eye(4)[orbit.coordinates]
                            for orbit in path.orbits])  # fmt: skip
    tree = cKDTree(whole)
    distances = []
    for alpha in alphas:
        flow = fs.gradient_flow(net, FOUR, 1.3 * path.jump_times[-1], alpha=alpha, clock="accelerated", rtol=1e-9)
        distances.append(tree.query(flow.beta)[0].max())
    assert all(later < 0.2 * earlier for earlier, later in itertools.pairwise(distances)), distances
    assert distances[-1] < 1e-4
