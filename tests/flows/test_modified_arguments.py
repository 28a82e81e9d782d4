"""modified_flow checks its arguments as gradient_flow does, takes any loss, and small, large and stiff starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flowsim as fs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t_eval": [5.5, 12.0]}, "`t_eval` must lie in"),
        ({"t_eval": [-3.0, 1.0]}, "`t_eval` must lie in"),
        ({"t_eval": [3.0, 1.0]}, "`t_eval` must not decrease"),
        ({"t_eval": []}, "`t_eval` must be a vector of times"),
        ({"t_eval": [float("nan")]}, "`t_eval` must be finite"),
        ({"clock": "foo"}, "`clock` must be one of"),
        ({"clock": "log_loss"}, "`clock` must be one of"),
        ({"clock": "accelerated", "alpha": 2.0}, "`alpha` must be < 1"),
        ({"atol": -1.0}, "`atol` must be > 0"),
        ({"rtol": float("nan")}, "`rtol` must be > 0"),
        ({"rtol": 2.0}, "`rtol` must be < 1"),
        ({"max_steps": 0}, "`max_steps` must be an integer >= 1"),
        ({"momentum": float("nan")}, "`momentum` must be finite"),
        ({"nesterov": True}, "`nesterov` needs `momentum`"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    problem, net = fs.Regression([[1.0, 0.3], [0.2, 1.0]], [1.0, -1.0]), fs.DiagonalNetwork("u*v")
    with pytest.raises(ValueError, match=message):
        fs.modified_flow(net, problem, 0.05, 5.0, **{"alpha": 0.1, **options})
    with pytest.raises(ValueError, match="`t_end`"):
        fs.modified_flow(net, problem, 0.05, float("inf"), alpha=0.1)


RNG = np.random.default_rng(5)
X = RNG.standard_normal((12, 4))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize(
    ("net", "problem"),
    [
        (fs.DiagonalNetwork("u*v"), fs.Problem(X, np.sign(RNG.standard_normal(12)), loss="logistic")),
        (fs.DiagonalNetwork("sinh(u)*v"), fs.Problem(X, RNG.poisson(1.0, 12), loss="poisson")),
        (fs.LinearNetwork(5), fs.Problem(X, np.sign(RNG.standard_normal((12, 2))), loss="logistic")),
        (fs.LinearNetwork(5), fs.MatrixSensing(RNG.standard_normal((9, 3, 3)), RNG.standard_normal(9))),
    ],
    ids=["growth", "weights", "linear", "sensing"],
)
def test_descent_on_any_loss_is_followed_to_the_second_order(net: Any, problem: fs.Problem, momentum: float) -> None:
    gaps = []
    for halving in range(2):
        step, n_steps = 0.05 / 2**halving, 120 * 2**halving
        descent = fs.gradient_descent(net, problem, step, n_steps, alpha=0.3, momentum=momentum)
        modified = fs.modified_flow(net, problem, step, 6.0, alpha=0.3, momentum=momentum, t_eval=[0.0, 6.0])
        gaps.append(np.abs(descent.beta[-1] - modified.beta[-1]).max())
    assert np.log2(gaps[0] / gaps[1]) == pytest.approx(2.0, abs=0.2)


def _rotated(alpha: str, rtol: float) -> tuple[np.ndarray, np.ndarray]:
    """beta of a linear network that is u*v with u = v in rotated coordinates, and the rotation of that of u*v."""
    rng, sizes, targets = np.random.default_rng(3), np.array([1.0, 0.4, 1.3]), np.array([2.0, 1.2, 0.7])
    A, B, R = (np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(3))
    end = -2.0 * np.log(float(alpha))
    times, features = np.linspace(0.05, 1.0, 40) * end, np.sqrt(3.0) * np.eye(3)
    data = fs.Problem(features, features @ (A * targets) @ B.T)
    start = {"U": (A * sizes) @ R, "V": (B * sizes) @ R}
    linear = fs.modified_flow(
        fs.LinearNetwork(3), data, 0.1, end, alpha=alpha, start=start, t_eval=times, rtol=rtol, atol=rtol
    )
    net, plain = fs.DiagonalNetwork("u*v"), fs.Regression(features, features @ targets)
    uv = fs.modified_flow(net, plain, 0.1, end, alpha=alpha, start={"u": sizes, "v": sizes}, t_eval=times, rtol=1e-10)
    return linear.beta, np.einsum("ij,tj,kj->tik", A, uv.beta, B)


@pytest.mark.parametrize("alpha", ["1e-3", "1e-9"])
def test_directions_that_grow_late_are_as_accurate_in_a_linear_network_as_in_growth_coordinates(alpha: str) -> None:
    found, right = _rotated(alpha, 1e-6)
    np.testing.assert_allclose(found, right, atol=2e-6)


def test_a_direction_lost_to_the_rounding_of_a_larger_one_is_refused() -> None:
    with pytest.raises(fs.IntegrationError, match="whose rounding decides"):
        _rotated("1e-18", 1e-6)
    with pytest.raises(ValueError, match="below the range of floats; use a larger `alpha`"):
        fs.modified_flow(fs.LinearNetwork(2), fs.Regression([[1.0]], [1.0]), 0.1, 1.0, alpha="1e-400")


def test_a_stiff_modified_flow_takes_no_explicit_steps() -> None:
    """Momentum throws a large start far off the data, where rates are millions."""
    net, problem = fs.DiagonalNetwork("u*v + u**3*v"), fs.Regression([[1.0, 0.3]], [1.0])
    traj = fs.modified_flow(net, problem, 0.02, 1.0, alpha=1.0, momentum=0.9)
    assert traj.stats["nfev"] < 5000


@pytest.mark.parametrize("net", [fs.DiagonalNetwork("u*v"), fs.DiagonalNetwork("sinh(u)*v"), fs.LinearNetwork(1)])
def test_a_step_beyond_the_range_of_the_expansion_is_told(net: Any) -> None:
    """At a start near 0 weights grow at rate 1; with h = 2 the terms of the modified flow cancel: it stays."""
    problem = fs.Regression([[1.0]], [1.0])
    told = [fs.modified_flow(net, problem, step, 20.0, alpha=0.01).info.get("beyond_expansion") for step in (0.1, 2.0)]
    assert told[0] is None
    assert "the step times the curvature is 2 at t = 0: " in str(told[1])
