"""The potential that a flow's end minimises, of formulas of any degree: the end of a long flow, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs

WIDE = fs.Regression([[1.0, 0.5, -0.25], [0.25, -1.0, 0.5]], [1.0, 0.75])
#: From ones a product of three weights reaches no negative coefficient.
POSITIVE = fs.Regression([[1.0, 0.5, 0.25], [0.25, 1.0, 0.5]], [1.0, 0.75])
STARTS = {
    "w1*w2*w3": {"w1": 1.0, "w2": 0.7, "w3": -0.4},
    "w1*w2*w3*w4": {"w1": 1.0, "w2": 0.7, "w3": -0.4, "w4": 0.9},
    "sinh(u*v)": {"u": 1.0, "v": 0.2},
    "tanh(u)*v": {"u": 1.0, "v": 0.2},
    "u**2.5 - v**2.5": {"u": 1.0, "v": 0.8},
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("formula", STARTS)
@pytest.mark.parametrize("alpha", [1.0, 0.2])
def test_flows_of_any_formula_end_at_the_minimiser_of_their_potential(formula: str, alpha: float) -> None:
    net, start = fs.DiagonalNetwork(formula), STARTS[formula]
    best = fs.studies.min_entropy(net, WIDE, alpha, start)
    flow = fs.gradient_flow(net, WIDE, 1e5, alpha=alpha, start=start, rtol=1e-10, t_eval=[1e5])
    assert flow.loss[-1] < 1e-15
    np.testing.assert_allclose(best, flow.beta[-1], atol=1e-6 * np.abs(best).max())


def test_equal_weights_have_the_potential_of_a_power() -> None:
    """L = 3 from w = alpha: beta = (1/alpha - z)^-3, so 1/alpha - beta^(-1/3) lies in the row space of X."""
    best = fs.studies.min_entropy(fs.DiagonalNetwork(depth=3), POSITIVE, 0.1)
    z = 10.0 - best ** (-1 / 3)
    np.testing.assert_allclose(POSITIVE.predict(best), POSITIVE.y, rtol=1e-9)
    outside = z - POSITIVE.X.T @ np.linalg.lstsq(POSITIVE.X.T, z)[0]
    assert np.abs(outside).max() < 1e-8 * np.abs(z).max()


def test_what_has_no_potential_is_refused() -> None:
    with pytest.raises(ValueError, match="no noise or decay"):
        fs.studies.min_entropy(fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.1)), WIDE, 0.1)
    with pytest.raises(ValueError, match="no noise or decay"):
        fs.studies.min_entropy(fs.DiagonalNetwork("u*v", weight_decay=0.1), WIDE, 0.1)
