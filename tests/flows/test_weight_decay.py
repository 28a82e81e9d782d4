"""Weight decay, constant and scheduled, against closed forms, the Lasso and entropy minimisers."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flowsim as fs
from flowsim.flows.transversal import TransversalError
from flowsim.network import InitialScale
from flowsim.studies import min_entropy, weighted_lasso
from tests.flows.oracle import averaged_flow

RNG = np.random.default_rng(0)
X = RNG.standard_normal((20, 6))
DATA = fs.Regression(X, X @ np.array([2.0, -1, 0, 0, 0.5, 0]) + 0.1 * RNG.standard_normal(20))
FEW = fs.Regression(X[:4], DATA.y[:4])


@pytest.mark.parametrize("alpha", [0.1, "1e-1000"])
@pytest.mark.parametrize(("formula", "share"), [("u*v", 1.0), ("u**2 - v**2", 0.5), ("2*u**2 - v**2", None)])
def test_constant_decay_ends_at_the_lasso(formula: str, share: float | None, alpha) -> None:
    """min over u*v = beta of (u^2 + v^2)/2 is |beta|; of u^2 - v^2 it is |beta|/2; 2u^2 - v^2: beta+/4 and beta-/2."""
    penalties = (0.2 / 4, 0.2 / 2) if share is None else 0.2 * share
    net = fs.DiagonalNetwork(formula, weight_decay=0.2)
    traj = fs.gradient_flow(net, DATA, 2e3 if alpha == 0.1 else 4e5, alpha=alpha)
    np.testing.assert_allclose(traj.beta[-1], weighted_lasso(DATA, penalties), atol=1e-9)
    assert traj.imbalance_drift < 1e-12


def test_the_imbalance_decays_at_twice_the_rate_and_by_the_integral_of_a_schedule() -> None:
    for decay in (0.3, fs.DecaySchedule([1.0, 2.0], [0.5, 0.0, 0.2])):
        traj = fs.gradient_flow(
            fs.DiagonalNetwork("u*v", weight_decay=decay), DATA, 4.0, alpha=0.5, start={"u": 1.0, "v": 0.3},
            t_eval=[0.0, 1.5, 4.0],
        )  # fmt: skip
        K = np.array([0.0, 0.45, 1.2]) if decay == 0.3 else np.array([0.0, 0.5, 0.9])
        np.testing.assert_allclose(traj.imbalance[:, 0, 0], 0.25 * (1 - 0.09) * np.exp(-2 * K), rtol=1e-10)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("alpha", [0.1, "1e-1000"])
@pytest.mark.parametrize(
    "decay",
    [
        fs.DecaySchedule([20.0], [0.3, 0.0]),
        fs.DecaySchedule([10.0, 15.0, 30.0], [0.05, 0.0, 0.4, 0.0]),
        fs.DecaySchedule([50.0], [0.02, 0.0]),
    ],
)
def test_decay_that_was_switched_off_leaves_a_smaller_effective_scale(decay: fs.DecaySchedule, alpha) -> None:
    """KKT of the entropy at alpha exp(-K): ln of the growing component is in the row space, to 1e-9."""
    net = fs.DiagonalNetwork("u*v", weight_decay=decay)
    scale = InitialScale.parse(alpha)
    traj = fs.gradient_flow(net, FEW, 500.0 if alpha == 0.1 else 4e5, alpha=alpha, rtol=1e-9)
    assert traj.loss[-1] < 1e-20
    effective = scale.log - decay.integral(1e6)
    beta = traj.beta[-1]
    if alpha == 0.1:
        # beta = exp(2 (z + ln alpha_eff)) / 2 - exp(2 (-z + ln alpha_eff)) / 2
        z = np.sign(beta) * (np.log(np.abs(beta) + np.hypot(beta, np.exp(2 * effective))) - 2 * effective) / 2
        nu = np.linalg.lstsq(FEW.X.T, z, rcond=None)[0]
        assert np.abs(FEW.X.T @ nu - z).max() <= 1e-9 * np.abs(z).max()
    best = min_entropy(fs.DiagonalNetwork("u*v"), FEW, InitialScale("effective", effective))
    np.testing.assert_allclose(beta, best, atol=1e-9)


@pytest.mark.parametrize("formula", ["u*v*w", "tanh(u*v)"])
def test_other_formulas_decay_in_their_weights(formula: str) -> None:
    from flowsim.problem import Regression

    start = {"u": [1.0, 0.8], "v": [0.7, -0.6], "w": [1.2, 0.9]}
    names = [name for name in ("u", "v", "w") if name in formula]
    problem = Regression([[1.0, 0.5], [0.2, -1.0]], [1.0, 0.4])
    right = averaged_flow(formula, None, problem, start, "1", [3.0], weight_decay=0.3)
    net = fs.DiagonalNetwork(formula, weight_decay=0.3)
    traj = fs.gradient_flow(net, problem, 3.0, alpha=1.0, start={name: start[name] for name in names}, t_eval=[3.0])
    np.testing.assert_allclose(traj.beta, right, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_coordinates_and_methods_agree() -> None:
    net = fs.DiagonalNetwork("u*v", weight_decay=0.1)
    schedule = fs.DiagonalNetwork("u*v", weight_decay=fs.DecaySchedule([1e9], [0.1, 0.0]))
    times = np.linspace(1, 60, 10)
    beta = [
        fs.gradient_flow(each, DATA, 60.0, alpha=1e-3, t_eval=times, **options).beta
        for each, options in (
            (net, {}), (net, {"method": "LSODA"}), (net, {"method": "BDF"}), (net, {"coordinates": "weights"}),
            (schedule, {}),
        )
    ]  # fmt: skip
    for other in beta[1:]:
        np.testing.assert_allclose(other, beta[0], atol=3e-6)


def test_the_limit_process_with_decay_is_the_lasso_and_flows_approach_it() -> None:
    net = fs.DiagonalNetwork("u*v", weight_decay=0.2)
    path = fs.saddle_to_saddle(net, DATA)
    np.testing.assert_allclose(path.end, weighted_lasso(DATA, 0.2), atol=1e-12)
    middle = (path.jump_times[:-1] + path.jump_times[1:]) / 2
    flow = fs.gradient_flow(net, DATA, float(path.jump_times[-1]), alpha="1e-3000", clock="accelerated", t_eval=middle)
    np.testing.assert_allclose(flow.beta, path.beta(middle), atol=1e-6)
    deep = fs.saddle_to_saddle(fs.DiagonalNetwork(depth=3, weight_decay=0.2), DATA)
    assert not len(deep.jump_times)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "rates", [(0.3, 0.05), (0.0, 0.4), (0.1, 0.5, 0.02)], ids=["falls", "begins", "rises and falls"]
)
@pytest.mark.slow
def test_a_schedule_in_the_limit_is_a_chain_of_processes_by_their_states(rates: tuple[float, ...]) -> None:
    """On the accelerated clock K is of the size of ln(1/alpha), as the walls are: the flow keeps to the chain."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((8, 5))
    problem = fs.Regression(rows, rows @ np.array([2.0, 0, -1, 0.5, 0]) + 0.1 * rng.standard_normal(8))
    times, gamma, end = [2.0, 4.0][: len(rates) - 1], 1000 * math.log(10), 40.0
    state, paths = None, []
    for begin, rate in zip([0.0, *times], rates, strict=True):
        paths.append(fs.saddle_to_saddle(fs.DiagonalNetwork("u*v", weight_decay=rate), problem, start=state))
        stop = times[len(paths) - 1] if len(paths) <= len(times) else end
        state = paths[-1].state(stop - begin)
    decay = fs.DecaySchedule([gamma * t for t in times], rates)
    traj = fs.gradient_flow(
        fs.DiagonalNetwork("u*v", weight_decay=decay), problem, end, alpha="1e-1000", clock="accelerated"
    )
    np.testing.assert_allclose(traj.beta[-1], paths[-1].end, atol=1e-9)
    for path, begin, stop in zip(paths, [0.0, *times], times, strict=False):
        before = traj.at(np.array([stop - 1e-3]), "accelerated").beta[0]
        np.testing.assert_allclose(before, path.beta(stop - 1e-3 - begin), atol=1e-6)
    uneven = fs.DiagonalNetwork("2*u**2 - v**2", weight_decay=decay)
    assert fs.gradient_flow(uneven, problem, end, alpha="1e-1000", clock="accelerated").success
    g, on = problem.gradient(traj.beta[-1]), np.abs(traj.beta[-1]) > 1e-6
    np.testing.assert_allclose(g[on], -rates[-1] * np.sign(traj.beta[-1][on]), atol=1e-9)
    assert (np.abs(g[~on]) <= rates[-1] + 1e-9).all()
    with pytest.raises(ValueError, match=r"received a schedule: go on with the next decay from `path.state\(t\)`"):
        fs.saddle_to_saddle(fs.DiagonalNetwork("u*v", weight_decay=decay), problem)


def test_descent_with_decay_multiplies_the_components_and_follows_the_flow() -> None:
    net, problem = fs.DiagonalNetwork("u*v", weight_decay=0.2), fs.Regression([[1.0]], [2.0])
    start = {"u": 1.0, "v": 0.5}
    h, u, v = 0.05, 1.0, 0.5
    growth = fs.gradient_descent(net, problem, h, 40, alpha=1.0, start=start)
    plain = fs.gradient_descent(net, problem, h, 40, alpha=1.0, start=start, coordinates="weights")
    for _ in range(40):
        g = u * v - 2.0
        u, v = u - h * (g * v + 0.2 * u), v - h * (g * u + 0.2 * v)
    for run in (growth, plain):
        np.testing.assert_allclose([run.weights["u"][-1, 0], run.weights["v"][-1, 0]], [u, v], rtol=1e-12)
    assert growth.imbalance_drift < 1e-12


@pytest.mark.parametrize("coordinates", ["auto", "weights"])
def test_descent_with_a_schedule_takes_the_decay_of_each_step(coordinates: str) -> None:
    schedule = fs.DecaySchedule([0.7, 1.3], [0.3, 0.0, 0.1])
    net, problem = fs.DiagonalNetwork("u*v", weight_decay=schedule), fs.Regression([[1.0]], [2.0])
    h, u, v = 0.05, 1.0, 0.5
    asked = {"alpha": 1.0, "start": {"u": 1.0, "v": 0.5}, "coordinates": coordinates}
    run = fs.gradient_descent(net, problem, h, 40, **asked)
    for k in range(40):
        decay, g = schedule.rate(k * h), u * v - 2.0
        u, v = u - h * (g * v + decay * u), v - h * (g * u + decay * v)
    np.testing.assert_allclose([run.weights["u"][-1, 0], run.weights["v"][-1, 0]], [u, v], rtol=1e-12)
    both = fs.gradient_descents(net, problem, [0.05, 0.02], 40, **asked)
    np.testing.assert_allclose(both.beta[0][-1], run.beta[-1], rtol=1e-12)
    alone = fs.gradient_descent(net, problem, 0.02, 40, **asked)
    np.testing.assert_allclose(both.beta[1][-1], alone.beta[-1], rtol=1e-12)


@pytest.mark.parametrize("formula", ["u*v", "u*v*w"])
def test_the_modified_flow_with_decay_is_nearer_to_descent_by_one_order(formula: str) -> None:
    net = fs.DiagonalNetwork(formula, weight_decay=0.2)
    problem = fs.Regression([[1.0, 0.3], [0.2, -1.0]], [1.0, 0.4])
    start = {"u": [1.0, 0.8], "v": [0.5, -0.6], "w": [0.9, 1.1]}
    start = {name: start[name] for name in net.weights}
    errors = []
    for h in (0.04, 0.02):
        descent = fs.gradient_descent(net, problem, h, round(2.0 / h), alpha=1.0, start=start)
        modified = fs.modified_flow(net, problem, h, 2.0, alpha=1.0, start=start, rtol=1e-10, atol=1e-12)
        plain = fs.gradient_flow(net, problem, 2.0, alpha=1.0, start=start, rtol=1e-10, atol=1e-12)
        errors.append([np.abs(run.beta[-1] - descent.beta[-1]).max() for run in (plain, modified)])
    orders = np.log2(np.array(errors[0]) / errors[1])
    np.testing.assert_allclose(orders, [1.0, 2.0], atol=0.2)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "schedule",
    [
        fs.DecaySchedule([2000.0], [0.05, 0.2]),
        fs.DecaySchedule([500.0, 3000.0, 9000.0], [0.5, 0.0, 0.3, 0.1]),
        fs.DecaySchedule([1000.0], [1.0, 0.02]),
    ],
)
def test_a_schedule_that_stays_on_ends_at_the_lasso_of_its_last_rate(schedule: fs.DecaySchedule) -> None:
    """Optimality of the Lasso to 1e-9 from alpha = 1e-1000."""
    net = fs.DiagonalNetwork("u*v", weight_decay=schedule)
    beta = fs.gradient_flow(net, DATA, 3e5, alpha="1e-1000").beta[-1]
    last, g = schedule.rates[-1], DATA.gradient(beta)
    active = np.abs(beta) > 1e-6
    assert active.any()
    assert np.abs(g + last * np.sign(beta))[active].max() <= 1e-9
    assert (np.abs(g[~active]) <= last * (1 + 1e-9)).all()


def test_what_decay_looks_like() -> None:
    net = fs.DiagonalNetwork("u*v", weight_decay=0.1)
    assert repr(net) == "DiagonalNetwork('u*v', weight_decay=0.1)"
    assert net != fs.DiagonalNetwork("u*v")
    derivation = fs.derive(net)
    assert "λ" in str(derivation)
    assert str(derivation.field["u"]) == "-g*v - lambda*u"
    (law,) = derivation.laws
    assert law.kind == "decay" and str(law.rate) == "2*lambda"


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, "a", True, None])
def test_decay_that_is_none_is_refused(value) -> None:
    with pytest.raises(ValueError, match="`weight_decay` must be"):
        fs.DiagonalNetwork("u*v", weight_decay=value)
    with pytest.raises(ValueError, match="`times` must be"):
        fs.DecaySchedule([2.0, 1.0], [0.1, 0.2, 0.3])


@pytest.mark.slow
def test_certificates_of_decay_hold_and_can_fail(monkeypatch) -> None:
    rows = fs.certify(fs.DiagonalNetwork("u*v", weight_decay=0.1), FEW)
    assert rows["decay-lasso"].holds and rows["decay-effective-scale"].holds
    assert all(row.holds is not False for row in rows)
    assert rows["saddles"].status == "not applicable"
    import flowsim.certificates.decay as module

    monkeypatch.setattr(module, "weighted_lasso", lambda problem, costs: 1.01 * weighted_lasso(problem, costs))
    monkeypatch.setattr(module, "min_entropy", lambda *a: 1.001 * min_entropy(*a))
    rows = fs.certify(
        fs.DiagonalNetwork("u*v", weight_decay=0.1), FEW, theorems=["decay-lasso", "decay-effective-scale"]
    )
    assert rows["decay-lasso"].status == rows["decay-effective-scale"].status == "violated"


@pytest.mark.parametrize("method", ["auto", "Radau", "LSODA", "DOP853"])
def test_decay_raises_a_loss_that_was_exponentially_small(method: str) -> None:
    """At a margin of 100 the gradient, exp(-100), is felt nowhere: beta = 100 exp(-2 lambda t)."""
    net = fs.DiagonalNetwork("u*v", weight_decay=0.5)
    start = {"u": 10.0, "v": 10.0}
    traj = fs.gradient_flow(net, fs.Problem([[1.0]], [1.0], "exponential"), 1.0, start=start, method=method)
    np.testing.assert_allclose(traj.beta[-1], 100.0 / np.e, rtol=1e-5)
    np.testing.assert_allclose(traj.log_loss[-1], -100.0 / np.e, rtol=1e-5)


def test_the_bound_on_errors_across_the_curve_of_the_weights_decays_with_them():
    # w' = J w - lambda w, J = diag(0, 0.012): an error of w_2, across the slope, falls by exp((0.012 - 0.098) t).
    guard = TransversalError(np.eye(2)[None])
    guard.restart(1e-8, 1e-6)
    weights, jacobian, slope = np.array([[1.0], [0.0]]), np.diag([0.0, 0.012])[:, :, None], np.array([[1.0], [0.0]])
    guard.step(1.0, weights, jacobian, slope)
    guard.step(100.0, 1e-9 * weights, jacobian, slope, 9.8)
    np.testing.assert_allclose(guard.error, 1e-8 * np.exp(100 * (0.012 - 0.098)) + 1e-17, rtol=1e-12)


@pytest.mark.parametrize("method", ["LSODA", "BDF", "DOP853", "Radau"])
def test_a_short_pulse_of_decay_at_rest_is_not_stepped_over(method: str) -> None:
    """With u = v and a decay of r, ``beta' = 2 beta (1 - r - beta)`` is logistic."""
    net = fs.DiagonalNetwork("u*v", weight_decay=fs.DecaySchedule([300.0, 300.1], [0.0, 30.0, 0.0]))
    times, one = [300.0, 300.1, 302.0], fs.Regression([[1.0]], [1.0])
    traj = fs.gradient_flow(
        net, one, 302.0, alpha=0.1, start={"u": 1.0, "v": 1.0}, method=method, coordinates="weights", t_eval=times
    )

    def logistic(first: float, most: float, t: float) -> float:
        return most / (1.0 - (1.0 - most / first) * math.exp(-2.0 * most * t))

    low = logistic(1.0, 1.0 - 30.0, 0.1)
    np.testing.assert_allclose(traj.beta[:, 0], [1.0, low, logistic(low, 1.0, 1.9)], rtol=1e-5)
