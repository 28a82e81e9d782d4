"""Descent against flow: orders, shapes, what is conserved, averages."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

import flowsim as fs
from flowsim.flows.modified import StepRule


@pytest.fixture(scope="module")
def problem() -> fs.Regression:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((6, 9))
    beta = np.zeros(9)
    beta[:3] = 1.0, -2.0, 0.5
    return fs.Regression(X, X @ beta)


T = 3.2
STEPS = (0.02, 0.01, 0.005)
NETWORKS = {
    "u*v": (fs.DiagonalNetwork("u*v"), 0.1),
    "u*v, small alpha": (fs.DiagonalNetwork("u*v"), 1e-6),
    "2*u**2 - v**2": (fs.DiagonalNetwork("2*u**2 - v**2"), 0.1),
    "depth 3": (fs.DiagonalNetwork(depth=3), 0.3),
    "noise": (fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.2)), 0.3),
    "noise, depth 3": (fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(0.2)), 0.5),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", NETWORKS)
def test_descent_is_of_order_1_to_the_flow_and_of_order_2_to_the_modified_flow(problem, case) -> None:
    net, alpha = NETWORKS[case]
    # From a small start the descent comes late to every jump by O(h ln(1/alpha)): orders show at smaller steps.
    end, steps = (12.0, np.array(STEPS) / 20) if alpha == 1e-6 else (T, STEPS)
    descents = [
        fs.gradient_descent(net, problem, h, round(end / h), alpha=alpha, expected=True, record_every=4) for h in steps
    ]
    flow = fs.gradient_flow(net, problem, end, alpha=alpha, rtol=1e-10, atol=1e-12)
    modified = [fs.modified_flow(net, problem, h, end, alpha=alpha, rtol=1e-10) for h in steps]
    plain, better = fs.compare(flow, descents), fs.compare(modified, descents)
    assert plain.order == pytest.approx(1.0, abs=0.1)
    assert better.order == pytest.approx(2.0, abs=0.1)
    assert (better.largest < plain.largest).all()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("formula", ["u*v", "w1*w2*w3"])
def test_momentum_has_a_modified_flow_of_order_2_behind_its_first_steps(problem, formula, nesterov) -> None:
    net, alpha, mu, end = fs.DiagonalNetwork(formula), 0.4, 0.6, 1.6
    errors = []
    for h in STEPS:
        descent = fs.gradient_descent(net, problem, h, round(end / h), alpha=alpha, momentum=mu, nesterov=nesterov)
        modified = fs.modified_flow(net, problem, h, end, alpha=alpha, momentum=mu, nesterov=nesterov, rtol=1e-10)
        against = fs.compare(modified, descent)
        errors.append(against.distance[against.t > 0.6].max())
    assert np.polyfit(np.log(STEPS), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.15)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("formula", ["u*v", "u**2 - v**2", "u*sinh(v)"])
def test_the_modified_field_is_the_gradient_of_the_modified_loss(formula) -> None:
    """SymPy differentiates L + h/4 ||grad L||^2 of two coordinates; the code never forms that expression."""
    problem = fs.Regression([[1.0, 0.5], [-0.3, 1.2], [0.2, 0.1]], [1.0, -0.5, 0.3])
    net = fs.DiagonalNetwork(formula)
    h = 0.3
    names = sympy.symbols("u0 v0 u1 v1", real=True)
    phi = net.formulas[0].expression
    u, v = (sympy.Symbol(name, real=True) for name in "uv")
    beta = [phi.subs({u: names[2 * i], v: names[2 * i + 1]}, simultaneous=True) for i in range(2)]
    residual = [sum(problem.X[j, i] * beta[i] for i in range(2)) - problem.y[j] for j in range(3)]
    loss = sum(r**2 for r in residual) / 6
    modified = loss + sympy.Float(h) / 4 * sum(sympy.diff(loss, name) ** 2 for name in names)
    at = {names[0]: 0.7, names[1]: -0.4, names[2]: 0.3, names[3]: 0.9}
    expected = np.array([-float(sympy.diff(modified, name).subs(at)) for name in names])

    delta = 1e-6
    start = {"u": np.array([0.7, 0.3]), "v": np.array([-0.4, 0.9])}
    short = fs.modified_flow(net, problem, h, delta, alpha=1.0, start=start, t_eval=[delta], rtol=1e-12, atol=1e-14)
    moved = np.array([short.weights[name][-1, i] - start[name][i] for i in range(2) for name in "uv"])
    np.testing.assert_allclose(moved / delta, expected, rtol=2e-5, atol=1e-6)


LINEAR = fs.Regression(
    np.random.default_rng(2).standard_normal((9, 4)), np.random.default_rng(3).standard_normal((9, 3))
)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("eta", [0.0, 0.3])
@pytest.mark.parametrize("width", [3, 20])
def test_descent_of_a_linear_network_converges_at_order_2_to_its_modified_flow(width, eta) -> None:
    net = fs.LinearNetwork(width, noise=fs.GaussianNoise({"U": eta, "V": 0.5 * eta}))
    start, end = fs.linear_start(net, LINEAR, seed=1), 2.0
    descents = [
        fs.gradient_descent(net, LINEAR, h, round(end / h), alpha=0.6, start=start, expected=True)
        for h in np.array(STEPS) / 2
    ]
    flow = fs.gradient_flow(net, LINEAR, end, alpha=0.6, start=start, rtol=1e-9)
    modified = [
        fs.modified_flow(net, LINEAR, descent.info["step"], end, alpha=0.6, start=start, rtol=1e-10)
        for descent in descents
    ]
    plain, better = fs.compare(flow, descents), fs.compare(modified, descents)
    assert plain.order == pytest.approx(1.0, abs=0.1)
    assert better.order == pytest.approx(2.0, abs=0.1)
    np.testing.assert_allclose(better.local_orders, 2.0, atol=0.2)
    assert (better.largest < plain.largest).all()
    assert modified[0].weights["U"].shape[1:] == (4, width)


@pytest.mark.parametrize("eta", [0.0, 0.4])
def test_the_modified_field_of_a_linear_network_is_the_gradient_of_the_modified_loss(eta) -> None:
    """By differences of L + h/4 ||grad L||^2, itself from differences of the expected loss at U and V."""
    net = fs.LinearNetwork(2, noise=fs.GaussianNoise(eta))
    rng = np.random.default_rng(5)
    X, Y, h = rng.standard_normal((5, 2)), rng.standard_normal((5, 2)), 0.3
    start = {"U": rng.standard_normal((2, 2)), "V": rng.standard_normal((2, 2))}

    def loss(theta):
        U, V = theta[:4].reshape(2, 2), theta[4:].reshape(2, 2)
        # E ||X (U + xi)(V + zeta)^T - Y||^2, multiplied out.
        square = ((X @ U @ V.T - Y) ** 2).sum() + eta**2 * 2 * ((X @ U) ** 2).sum()
        square += eta**2 * (X**2).sum() * (V**2).sum() + eta**4 * 4 * (X**2).sum()
        return square / 10

    def slope(function, theta, delta):
        eye = delta * np.eye(8)
        return np.array([(function(theta + e) - function(theta - e)) / (2 * delta) for e in eye])

    theta = np.concatenate([start["U"].ravel(), start["V"].ravel()])
    # The loss is a quartic polynomial: differences of its slopes lose little.
    expected = -slope(lambda x: loss(x) + h / 4 * (slope(loss, x, 1e-4) ** 2).sum(), theta, 1e-4)
    delta = 1e-6
    short = fs.modified_flow(
        net, fs.Regression(X, Y), h, delta, alpha=1.0, start=start, t_eval=[delta], rtol=1e-12, atol=1e-14
    )
    moved = np.concatenate([(short.weights[name][-1] - start[name]).ravel() for name in ("U", "V")]) / delta
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_on_a_linear_network_has_its_modified_flow_too(nesterov) -> None:
    net, mu, end = fs.LinearNetwork(5), 0.6, 1.6
    errors = []
    for h in STEPS:
        descent = fs.gradient_descent(net, LINEAR, h, round(end / h), alpha=0.6, momentum=mu, nesterov=nesterov)
        modified = fs.modified_flow(net, LINEAR, h, end, alpha=0.6, momentum=mu, nesterov=nesterov, rtol=1e-10)
        against = fs.compare(modified, descent)
        errors.append(against.distance[against.t > 0.6].max())
    assert np.polyfit(np.log(STEPS), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.15)


def test_the_modified_flow_of_heavy_ball_and_nesterov_has_the_known_coefficients() -> None:
    assert StepRule(0.1).curvature == 0.1
    assert StepRule(0.1, 0.5).curvature == pytest.approx(0.1 * 1.5 / 0.25)
    assert StepRule(0.1, 0.5, True).curvature == pytest.approx(0.1 * (1 - 0.5 + 0.5) / 0.25)


def test_the_gain_is_what_descent_takes_from_the_imbalance_and_the_flow_does_not(problem) -> None:
    net = fs.DiagonalNetwork("u*v")
    descent = fs.gradient_descent(net, problem, 0.05, 64, alpha=0.1)
    flow = fs.gradient_flow(net, problem, 3.2, alpha=0.1, rtol=1e-9)
    gain = fs.compare(flow, descent).gain
    g = np.array([problem.gradient(beta) for beta in descent.beta[:-1]])
    np.testing.assert_allclose(gain[-1, 0], -np.log(1 - (0.05 * g) ** 2).sum(axis=0), atol=1e-8)


@pytest.mark.parametrize("net", [fs.DiagonalNetwork("u*v"), fs.LinearNetwork(2)], ids=repr)
def test_paths_that_do_not_move_have_lengths_of_ratio_one(net: fs.DiagonalNetwork | fs.LinearNetwork) -> None:
    problem = fs.Regression(np.eye(2), np.zeros(2))
    start = (
        {"u": np.ones(2), "v": np.zeros(2)}
        if isinstance(net, fs.DiagonalNetwork)
        else {"U": np.eye(2), "V": np.zeros((1, 2))}
    )
    flow = fs.gradient_flow(net, problem, 1.0, start=start)
    compared = fs.compare(flow, fs.gradient_descent(net, problem, 0.1, 10, start=start))
    assert (compared.length_ratio, compared.hausdorff, compared.largest) == (1.0, 0.0, 0.0)


def test_the_path_of_descent_with_small_steps_is_that_of_the_flow_even_when_its_clock_is_not(problem) -> None:
    """Heavy ball compared on the wrong clock: far in time, near in shape."""
    net = fs.DiagonalNetwork("u*v")
    flow = fs.gradient_flow(net, problem, 40.0, alpha=0.3, rtol=1e-9)
    descent = fs.gradient_descent(net, problem, 0.002, 20_000, alpha=0.3)
    near = fs.compare(flow, descent)
    slow = fs.compare(flow, fs.gradient_descent(net, problem, 0.002, 10_000, alpha=0.3))
    assert near.hausdorff <= near.along.max() + 1e-12
    assert near.hausdorff < 0.02
    assert near.at_end < 1e-2
    assert near.length_ratio == pytest.approx(1.0, abs=1e-2)
    assert slow.t[-1] == pytest.approx(20.0)
    np.testing.assert_allclose(near.distance[: len(slow.t)], slow.distance, atol=1e-12)


def test_paths_that_leave_0_from_below_the_range_of_floats_are_compared_in_shape(problem) -> None:
    """The first steps are so short that they vanish beside the length that follows."""
    net = fs.DiagonalNetwork("u*v")
    jump = fs.saddle_to_saddle(net, problem).jump_times[0]
    flow = fs.gradient_flow(net, problem, 1.5 * jump, alpha="1e-1000", clock="accelerated")
    n_steps = int(flow.t[-1] / 0.02)
    near = fs.compare(flow, fs.gradient_descent(net, problem, 0.02, n_steps, alpha="1e-1000", record_every=5))
    assert np.isfinite(near.along).all()
    assert near.along.max() < 0.2
    assert near.largest > 0.5  # in time they are far apart: descent jumps late
    assert np.isfinite(list(near.summary().values())).all()


def test_without_movement_there_is_no_order(problem) -> None:
    net = fs.DiagonalNetwork("u*v")
    flow = fs.gradient_flow(net, problem, 0.1, alpha="1e-1000")
    still = fs.compare(flow, [fs.gradient_descent(net, problem, h, 4, alpha="1e-1000") for h in (0.02, 0.01)])
    assert np.isnan(still.order)


def test_a_flow_from_a_file_can_be_compared_where_it_was_recorded(problem, tmp_path) -> None:
    net = fs.DiagonalNetwork("u*v")
    descent = fs.gradient_descent(net, problem, 0.05, 40, alpha=0.1)
    flow = fs.gradient_flow(net, problem, 2.0, alpha=0.1, t_eval=descent.t)
    stored = fs.load(flow.save(tmp_path / "flow.nc"))
    np.testing.assert_allclose(fs.compare(stored, descent).distance, fs.compare(flow, descent).distance, atol=1e-12)
    other = fs.gradient_descent(net, problem, 0.03, 40, alpha=0.1)
    with pytest.raises(ValueError, match="no dense output"):
        fs.compare(stored, other)


MONTE_CARLO = {
    "u*v": (fs.DiagonalNetwork, {"formula": "u*v"}, 0.3),
    "u**2 - v**2": (fs.DiagonalNetwork, {"formula": "u**2 - v**2"}, 0.3),
    "depth 3": (fs.DiagonalNetwork, {"depth": 3}, 0.6),
    "u*sinh(v)": (fs.DiagonalNetwork, {"formula": "u*sinh(v)"}, 0.5),
    "mixed": (fs.DiagonalNetwork, {"formula": ["u*v", "u**3"] * 4 + ["u*v"]}, 0.6),
}
NOISES = {
    "gaussian": fs.GaussianNoise(0.15),
    "rademacher": fs.RademacherNoise(0.15),
    "multiplicative uniform": fs.UniformNoise(0.2, multiplicative=True),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("network", "noise"),
    [
        pytest.param(network, noise, marks=() if (place - kind) % len(NOISES) == 0 else pytest.mark.slow)
        for place, network in enumerate(MONTE_CARLO)
        for kind, noise in enumerate(NOISES)
    ],
)
def test_the_mean_of_stochastic_sam_follows_the_expected_gradient_within_5_standard_errors(
    problem, network, noise
) -> None:
    """Every step is unbiased, so with small steps the mean path and the expected-gradient flow differ by chance alone.

    The bias, O(h), is kept below chance by h = 0.004 against 60 seeds.
    """
    kind, arguments, alpha = MONTE_CARLO[network]
    net = kind(**arguments, noise=NOISES[noise])
    h, n_steps = 0.004, 250
    runs = fs.gradient_descents(net, problem, h, n_steps, alpha=alpha, runs=60, seed=1, record_every=50)
    flow = fs.gradient_flow(net, problem, h * n_steps, alpha=alpha, rtol=1e-8)
    against = fs.compare(flow, runs)
    assert against.t[0] == 0.0
    assert np.abs(against.deviations[1:]).max() < 5.0
    low, high = against.band(5.0)
    assert ((low <= against.flow_beta + 1e-12) & (against.flow_beta <= high + 1e-12)).all()


def test_many_small_steps_of_stochastic_sam_tend_to_the_expected_flow_at_rate_sqrt_h(problem) -> None:
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.2))
    flow = fs.gradient_flow(net, problem, 2.0, alpha=0.4, rtol=1e-8)
    steps = np.array([0.08, 0.02, 0.005])
    spread = []
    for h in steps:
        runs = fs.gradient_descents(net, problem, h, round(2.0 / h), alpha=0.4, runs=48, seed=3)
        spread.append(np.sqrt(((runs.beta[:, -1] - flow.beta[-1]) ** 2).sum(axis=1).mean()))
    assert np.polyfit(np.log(steps), np.log(spread), 1)[0] == pytest.approx(0.5, abs=0.12)


def test_what_does_not_belong_together_is_refused(problem) -> None:
    net = fs.DiagonalNetwork("u*v")
    flow = fs.gradient_flow(net, problem, 1.0, alpha=0.1)
    descent = fs.gradient_descent(net, problem, 0.1, 10, alpha=0.1)
    with pytest.raises(ValueError, match=r"The order is compare\(flow, descent\)"):
        fs.compare(descent, flow)
    with pytest.raises(ValueError, match="`descent` must come from gradient_descent"):
        fs.compare(flow, flow)
    other = fs.gradient_descent(net, problem.with_target(2 * problem.y), 0.1, 10, alpha=0.1)
    with pytest.raises(ValueError, match="must be of the same problem; their losses at the start are"):
        fs.compare(flow, other)
    assert np.isnan(fs.compare(flow, [descent, descent]).order)
    with pytest.raises(ValueError, match=r"the same alpha; received 0\.1 and 0\.2"):
        fs.compare(flow, fs.gradient_descent(net, problem, 0.1, 10, alpha=0.2))
    with pytest.raises(ValueError, match="reach beyond the first recorded step"):
        fs.compare(flow, fs.gradient_descent(net, problem, 2.0, 1, alpha=0.1))
    with pytest.raises(ValueError, match="one for each of the 1 descents"):
        fs.compare([flow, flow], [descent])
    small = fs.Regression(problem.X[:, :4], problem.y)
    with pytest.raises(ValueError, match="same features"):
        fs.compare(flow, fs.gradient_descent(net, small, 0.1, 10, alpha=0.1))
