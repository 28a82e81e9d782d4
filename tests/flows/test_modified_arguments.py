"""modified_flow checks its arguments as gradient_flow does, and takes any loss."""

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
        ({"momentum": float("nan")}, "`momentum` must be a number"),
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
