"""Integers beyond the range of floats: an error names the argument, or the number is taken where it has a meaning."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import flowsim as fs

HUGE = 10**400
PROBLEM = fs.Regression([[2.0, 0.0], [0.0, 1.0]], [2.0, 3.0])
UV, LINEAR = fs.DiagonalNetwork("u*v"), fs.LinearNetwork(2)
CALLS: list[tuple[str, Callable[[int], object]]] = [
    ("t_end", lambda value: fs.gradient_flow(UV, PROBLEM, value, alpha=0.1)),
    ("t_end", lambda value: fs.saddle_to_saddle(UV, PROBLEM, t_end=value)),
    ("t_end", lambda value: fs.saddle_to_saddle(LINEAR, PROBLEM, t_end=value)),
    ("t", lambda value: fs.saddle_to_saddle(UV, PROBLEM).beta(value)),
    ("t", lambda value: fs.saddle_to_saddle(UV, PROBLEM).time_average([0.1, value])),
    ("t", lambda value: fs.saddle_to_saddle(LINEAR, PROBLEM).levels(value)),
    ("t", lambda value: fs.gradient_flow(UV, PROBLEM, 1.0, alpha=0.1).at(value)),
    ("weight_decay", lambda value: fs.DiagonalNetwork("u*v", weight_decay=value)),
    ("weight_decay", lambda value: fs.LinearNetwork(2, weight_decay=value)),
    ("sample_weight", lambda value: fs.Regression(np.eye(2), [1.0, 2.0], sample_weight=[1, value])),
    ("X", lambda value: fs.Regression([[1, value]], [1.0])),
    ("y", lambda value: fs.Regression([[1.0, 2.0]], [value])),
]


@pytest.mark.parametrize("value", [HUGE, -HUGE])
@pytest.mark.parametrize(("name", "call"), CALLS)
def test_an_integer_beyond_floats_is_refused_by_name(name: str, call: Callable[[int], object], value: int) -> None:
    with pytest.raises(ValueError, match=f"^`{name}` must"):
        call(value)


@pytest.mark.parametrize("net", [UV, LINEAR])
def test_any_number_of_jumps_may_be_allowed(net: fs.DiagonalNetwork | fs.LinearNetwork) -> None:
    path = fs.saddle_to_saddle(net, PROBLEM, max_jumps=HUGE)
    assert path.complete
    np.testing.assert_array_equal(path.jump_times, fs.saddle_to_saddle(net, PROBLEM).jump_times)
