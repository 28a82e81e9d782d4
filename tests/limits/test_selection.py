"""Which minimiser the flow reaches where active columns depend on each other: products of weights, against flows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

import flowsim as fs
from flowsim.growth.arrivals import growth_thresholds
from flowsim.growth.response import ProductResponse

DEEP = fs.DiagonalNetwork(depth=3)


def threshold(weights: list[float], side: int = 0) -> float:
    net = fs.DiagonalNetwork(depth=len(weights))
    return float(growth_thresholds(net, np.array(weights)[:, None], 1)[side][0])


def compare(
    problem: fs.Regression, columns: list[list[float]], alpha: str, net: fs.DiagonalNetwork = DEEP
) -> tuple[np.ndarray, np.ndarray]:
    """The end of the process and of a flow, from one list of weights per coordinate."""
    start = dict(zip(net.weights, np.array(columns).T, strict=True))
    path = fs.saddle_to_saddle(net, problem, start)
    t_end = 3 * float(path.jump_times[-1])
    flow = fs.gradient_flow(net, problem, t_end, alpha=alpha, start=start, clock="accelerated", rtol=1e-9)
    return path.end, flow.beta[-1]


def twins(sign: float = 1.0) -> fs.Regression:
    rng = np.random.default_rng(1)
    base = rng.standard_normal((6, 3))
    return fs.Regression(np.column_stack([base, sign * base[:, 1]]), 2 * rng.standard_normal(6))


OTHERS = [[1.0, 0.7, 0.5], [1.0, 0.8, 0.4], [1.0, 0.9, 0.3]]


def test_twins_whose_weights_are_permuted_share_equally() -> None:
    end, reached = compare(twins(), [*OTHERS, [0.4, 1.0, 0.8]], "1e-4")
    assert end[1] == pytest.approx(end[3], rel=1e-12)
    assert abs(end[1]) > 0.05
    np.testing.assert_allclose(end, reached, atol=1e-10)


def test_opposite_twins_share_with_opposite_signs() -> None:
    end, reached = compare(twins(-1.0), [*OTHERS, [-0.4, 1.0, 0.8]], "1e-4")
    assert end[1] == pytest.approx(-end[3], rel=1e-12)
    np.testing.assert_allclose(end, reached, atol=1e-10)


def test_twins_of_equal_threshold_share_equally_however_their_weights_differ() -> None:
    smallest = brentq(lambda c: threshold([0.9, 0.7, c]) - threshold(OTHERS[1]), 0.1, 0.69, xtol=1e-15)
    end, reached = compare(twins(), [*OTHERS, [0.9, 0.7, smallest]], "1e-3")
    assert end[1] == pytest.approx(end[3], rel=1e-9)
    np.testing.assert_allclose(end, reached, atol=1e-7)


def test_the_twin_of_lower_threshold_takes_all() -> None:
    smallest = brentq(lambda c: threshold([0.9, 0.7, c], 1) - threshold(OTHERS[1], 1), 0.1, 0.69, xtol=1e-15)
    own, other = threshold([0.9, 0.7, smallest]), threshold(OTHERS[1])
    assert own > 1.1 * other
    end, reached = compare(twins(), [*OTHERS, [0.9, 0.7, smallest]], "1e-4")
    assert end[3] == 0.0
    np.testing.assert_allclose(end, reached, atol=1e-9)


@pytest.mark.slow
def test_twins_of_four_weights_share_equally() -> None:
    columns = [[*weights, 1.1] for weights in OTHERS]
    end, reached = compare(twins(), [*columns, columns[1][::-1]], "1e-2", fs.DiagonalNetwork(depth=4))
    assert end[1] == pytest.approx(end[3], rel=1e-12)
    np.testing.assert_allclose(end, reached, atol=1e-9)


def test_a_column_that_is_the_sum_of_two_takes_the_share_of_the_largest_sum_of_roots() -> None:
    """With ``x3 = x1 + x2`` and ``t3 = t1 + t2`` all three arrive together, and no symmetry decides."""
    first, second, third = [1.0, 0.8, 0.4], [1.2, 0.8, 0.5], [1.0, 0.9, 0.3]
    t = np.array([threshold(first), threshold(second)])
    third = (np.array(third) * threshold(third) / t.sum()).tolist()
    problem = fs.Regression([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], 2 * t)
    end, reached = compare(problem, [first, second, third], "1e-3")
    np.testing.assert_allclose(problem.predict(end), 2 * t, rtol=1e-12)
    # Stationary along the null direction (1, 1, -1): sum beta^(2/3).
    slopes = end ** (-1 / 3)
    assert slopes[0] + slopes[1] == pytest.approx(slopes[2], rel=1e-9)
    np.testing.assert_allclose(end, reached, atol=1e-8)


def test_power_laws_of_different_strength_share_by_their_speeds() -> None:
    """``u' = 3 u^2`` and ``u' = 6 u^2`` that blow up together: ``u^3`` and ``2 u^3`` stand as 1/27 to 2/216."""
    net = fs.DiagonalNetwork(["u**3 - v**3", "2*u**3 - v**3"])
    problem = fs.Regression([[1.0, 1.0]], [2.0])
    start = {"u": np.array([1.0, 0.5]), "v": np.array([0.3, 0.2])}
    path = fs.saddle_to_saddle(net, problem, start)
    np.testing.assert_allclose(path.end, [1.6, 0.4], rtol=1e-9)
    t_end = 3 * float(path.jump_times[-1])
    flow = fs.gradient_flow(net, problem, t_end, alpha="1e-4", start=start, clock="accelerated", rtol=1e-9)
    np.testing.assert_allclose(flow.beta[-1], path.end, atol=1e-6)


@pytest.mark.parametrize(
    "weights", [[1.0, -0.5, 0.3], [2.0, 1.0, 1.0, -0.2], [1.0, 1.0, 1e-3], [0.8, -0.8, 0.8], [0.9] * 5]
)
def test_the_response_of_pretrained_weights_is_their_gradient_flow(weights: list[float]) -> None:
    start = np.array(weights)
    response = ProductResponse(start[:, None], np.ones(1))
    others = lambda w: np.array([np.prod(np.delete(w, k)) for k in range(len(w))])  # noqa: E731
    at = lambda z: (response.value(np.array([z]))[0], response.potential(np.array([z])))  # noqa: E731
    above, below = response.above[0], response.below[0]
    for z in (0.0, 0.9 * min(above, 5.0), 0.3 * min(above, 5.0), -0.3 * min(below, 5.0), -0.9 * min(below, 5.0)):
        w = start
        if z != 0:
            w = solve_ivp(lambda _, w: others(w), (0.0, z), start, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
        assert at(z)[0] == pytest.approx(w.prod(), rel=1e-8, abs=1e-11)
        assert response.slope(np.array([z]))[0] == pytest.approx((others(w) ** 2).sum(), rel=1e-7)
        # beta dz = c dc for the weight c of smallest modulus
        moved = (w**2 - start**2)[np.abs(start).argmin()]
        assert at(z)[1] - at(0.0)[1] == pytest.approx(moved / 2, rel=1e-7, abs=1e-11)
    beyond = 1.01 * above if np.isfinite(above) else -1.01 * below
    assert np.isinf(response.potential(np.array([beyond])))


@pytest.mark.parametrize(("sign", "order"), [(1.0, 3), (-1.0, 3), (1.0, 5)])
def test_what_grew_from_a_vanishing_start_is_a_power_of_the_distance_to_its_pole(sign: float, order: int) -> None:
    response, z = ProductResponse(np.zeros((order, 2)), np.array([sign, -sign])), sign * np.array([-0.4, 0.7])
    power = order / (order - 2)
    np.testing.assert_allclose(
        response.value(z), sign * np.array([1, -1]) * ((order - 2) * np.abs(z)) ** -power, rtol=1e-12
    )
    assert response.reach(z, -z) == pytest.approx(0.9)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("depth", [3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_pretrained_products_on_dependent_columns_end_where_their_own_flow_ends(depth: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = fs.Regression(rng.standard_normal((2, 5)), rng.standard_normal(2))
    net = fs.DiagonalNetwork(depth=depth)
    weights = dict(zip(net.weights, rng.uniform(0.4, 1.2, (depth, 5)) * rng.choice([-1, 1], (depth, 5)), strict=True))
    path = fs.saddle_to_saddle(net, problem, pretrained=weights)
    assert len(path.jump_times) == 0
    flow = fs.gradient_flow(net, problem, 1e4, alpha=1.0, start=weights, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(problem.predict(path.end), problem.y, atol=1e-10)
    np.testing.assert_allclose(path.end, flow.beta[-1], atol=1e-6)


def test_balanced_products_go_on_with_other_data_where_their_own_flow_goes() -> None:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((6, 4))
    path = fs.saddle_to_saddle(DEEP, fs.Regression(X, X @ [1.0, 2.0, 0.5, 1.5]))
    beta = path.end
    assert (beta > 0.1).all()
    other = fs.Regression(X[:2], X[:2] @ [1.3, 1.8, 0.8, 1.0])  # four active columns, two rows
    rest = fs.saddle_to_saddle(DEEP, other, path.state(2 * path.jump_times[-1]))
    balanced = dict.fromkeys(DEEP.weights, beta ** (1 / 3))
    flow = fs.gradient_flow(DEEP, other, 1e3, alpha=1.0, start=balanced, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(rest.end, flow.beta[-1], atol=1e-7)
