"""modified_flow checks its arguments as gradient_flow does."""

from __future__ import annotations

from typing import Any

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
