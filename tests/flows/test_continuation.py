"""Runs that go on from a state are one run, also where floats of the weights have lost the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flowsim as fs

#: The second coordinate is negative first and changes its sign at t = 8 ln(1/alpha).
PROBLEM = fs.Regression([[-0.5, -2.0], [-1.5, -2.0]], [-0.5, 2.0])
START = {"u": [1.4, 1.4], "v": [0.3, 0.3]}
FORMULAS = ["u*v", "u**2 - v**2", "u**2 + u*v - 3*v**2", "u*v + w**2"]


def start(net: fs.DiagonalNetwork) -> dict[str, list[float]]:
    return {**START, "w": [0.5, 0.2]} if "w" in net.weights else START


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("alpha", ["1e-8", "1e-400"])
def test_a_flow_in_two_parts_is_one_flow(formula: str, alpha: str, tmp_path: Path) -> None:
    net, gamma = fs.DiagonalNetwork(formula), np.log(10) * int(alpha[3:])
    half, end = 1.2 * gamma, 6.0 * gamma
    options = {"rtol": 1e-9}
    whole = fs.gradient_flow(net, PROBLEM, end, alpha=alpha, start=start(net), **options)
    first = fs.gradient_flow(net, PROBLEM, half, alpha=alpha, start=start(net), **options)
    times = np.linspace(0, end - half, 40)
    right = whole.at(half + times).beta
    for state in (first, first.at(half), fs.load(first.save(tmp_path / "first.nc"))):
        rest = fs.gradient_flow(net, PROBLEM, end - half, start=state, t_eval=times, **options)
        assert np.abs(rest.beta - right).max() < 1e-5 * np.abs(right).max()
        np.testing.assert_allclose(rest.log_imbalance[-1], whole.log_imbalance[-1], rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("formula", ["u*v", "u**2 + u*v - 3*v**2"])
@pytest.mark.parametrize("alpha", ["1e-8", "1e-400"])
def test_a_descent_in_two_parts_is_one_descent(formula: str, alpha: str) -> None:
    net = fs.DiagonalNetwork(formula)
    steps = 10 * round(5 * np.log(10) * int(alpha[3:]))
    one, two = steps, 5 * steps
    whole = fs.gradient_descent(net, PROBLEM, 0.02, one + two, alpha=alpha, start=START, record_every=10)
    first = fs.gradient_descent(net, PROBLEM, 0.02, one, alpha=alpha, start=START, record_every=one)
    rest = fs.gradient_descent(net, PROBLEM, 0.02, two, start=first, record_every=10)
    right = whole.beta[np.searchsorted(whole.t, first.t[-1]) :]
    assert np.abs(rest.beta - right[: len(rest)]).max() < 1e-7 * np.abs(right).max()


def test_a_flow_goes_on_as_a_descent_and_back() -> None:
    net = fs.DiagonalNetwork("u*v")
    flow = fs.gradient_flow(net, PROBLEM, 300.0, alpha="1e-100", start=START)
    descent = fs.gradient_descent(net, PROBLEM, 0.01, 10, start=flow)
    np.testing.assert_allclose(descent.beta[0], flow.beta[-1], rtol=1e-12)
    np.testing.assert_allclose(descent.log_imbalance[0], flow.log_imbalance[-1], rtol=1e-12)
    np.testing.assert_array_equal(fs.gradient_flow(net, PROBLEM, 1.0, start=descent).beta[0].round(9),
                                  descent.beta[-1].round(9))  # fmt: skip


def test_other_formulas_go_on_where_floats_have_kept_what_they_conserve() -> None:
    net, problem = fs.DiagonalNetwork(depth=3), fs.Regression([[1.0, 0.5], [0.2, 1.0]], [1.0, -0.5])
    start = {"w1": 1.0, "w2": 0.7, "w3": -0.4}
    whole = fs.gradient_flow(net, problem, 20.0, alpha=0.2, start=start, rtol=1e-9)
    first = fs.gradient_flow(net, problem, 8.0, alpha=0.2, start=start, rtol=1e-9)
    rest = fs.gradient_flow(net, problem, 12.0, start=first, rtol=1e-9)
    np.testing.assert_allclose(rest.beta[-1], whole.beta[-1], atol=1e-7)
    lost = fs.gradient_flow(net, problem, 3e8, alpha=1e-6, start=start)
    with pytest.raises(ValueError, match="have lost what the formula conserves"):
        fs.gradient_flow(net, problem, 1.0, start=lost)


def test_a_state_of_a_formula_without_known_invariants_names_what_to_give_instead() -> None:
    net = fs.DiagonalNetwork("tanh(u)*v")
    whole, half = (fs.gradient_flow(net, PROBLEM, t, alpha=0.1, rtol=1e-9) for t in (4.0, 2.0))
    with pytest.raises(ValueError, match=r"state of 'tanh\(u\)\*v', of which .*, give the weights"):
        fs.gradient_flow(net, PROBLEM, 2.0, start=half)
    rest = fs.gradient_flow(net, PROBLEM, 2.0, start={w: half.weights[w][-1] for w in net.weights}, rtol=1e-9)
    np.testing.assert_allclose(rest.beta[-1], whole.beta[-1], atol=1e-7)


def test_bad_states_are_named() -> None:
    net = fs.DiagonalNetwork("u*v")
    state = fs.gradient_flow(net, PROBLEM, 1.0, alpha=0.1)
    with pytest.raises(ValueError, match="`alpha` must be left out"):
        fs.gradient_flow(net, PROBLEM, 1.0, alpha=0.1, start=state)
    with pytest.raises(ValueError, match="must be a state of this network, of w1, w2, w3 in 2 coordinates"):
        fs.gradient_flow(fs.DiagonalNetwork(depth=3), PROBLEM, 1.0, start=state)
    with pytest.raises(ValueError, match="for a DiagonalNetwork only"):
        fs.gradient_flow(fs.LinearNetwork(2), PROBLEM, 1.0, start=state)
    with pytest.raises(ValueError, match="for a DiagonalNetwork only"):
        fs.gradient_descent(fs.LinearNetwork(2), PROBLEM, 0.1, 3, start=state)
