"""Min, Tarmoun, Vidal, Mallada, arXiv 2105.06351: every claim on random instances, with the flow as the judge."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs
from flowsim.network.linear_algebra import LinearData
from flowsim.studies.linear_ranks import activation_times, rank_plateaus
from flowsim.studies.linear_rates import certify_invariant_set, certify_rate, rate_bound
from flowsim.studies.width_law import width_law
from tests.flows.linear_closed_form import whitened_balanced


def instance(index: int) -> tuple[fs.LinearNetwork, fs.Regression, dict, float]:
    rng = np.random.default_rng([5, index])
    n, D, m, h = (int(rng.integers(1, top)) for top in (10, 10, 5, 30))
    problem = fs.Regression(rng.standard_normal((n, D)), rng.standard_normal((n, m)))
    net = fs.LinearNetwork(h)
    kind = ("gaussian", "unbalanced", "invariant")[index % 3]
    start = fs.linear_start(net, problem, kind, ratio=float(10 ** rng.uniform(-2, 2)), seed=index)
    if index % 4 == 0:  # near the solution: the margin is what guarantees the rate
        data = LinearData.of(problem)
        left, values, right = np.linalg.svd(data.target, full_matrices=False)
        size = min(len(values), h)
        start = {name: 0.05 * array for name, array in start.items()}
        start["U"][:, :size] += data.directions @ left[:, :size] * np.sqrt(values[:size])
        start["V"][:, :size] += right[:size].T * np.sqrt(values[:size])
        return net, problem, start, 1.0
    return net, problem, start, float(10 ** rng.uniform(-1, 1))


def check_rates(count: int) -> np.ndarray:
    tightness = []
    for index in range(count):
        net, problem, start, alpha = instance(index)
        found = certify_rate(net, problem, alpha=alpha, start=start)
        assert found.holds, (index, found)
        tightness.append(found.tightness)
    return np.array(tightness)


def test_the_rate_bound_is_never_violated_and_is_often_loose() -> None:
    tightness = check_rates(40)
    guaranteed = tightness[tightness > 0]
    assert len(guaranteed) > 20
    assert guaranteed.max() <= 1 + 1e-6
    assert 0.2 < np.median(guaranteed) < 0.8


@pytest.mark.slow
def test_the_rate_bound_is_never_violated_on_a_thousand_instances() -> None:
    tightness = check_rates(1000)
    guaranteed = tightness[tightness > 0]
    print(f"\nguaranteed on {len(guaranteed)} of 1000; tightness: {np.quantile(guaranteed, [0, 0.25, 0.5, 0.75, 1])}")
    assert guaranteed.max() <= 1 + 1e-6


def test_a_rate_larger_than_the_theorem_allows_is_refuted_by_the_same_comparison() -> None:
    """The comparison has teeth: three times the observed rate must fail on the very runs on which the bound holds."""
    for index in range(4):
        net, problem, start, alpha = instance(index)
        found = certify_rate(net, problem, alpha=alpha, start=start)
        data = LinearData.of(problem)
        traj = found.trajectory
        excess = data.excess(data.directions.T @ traj.beta)
        seen = (excess > 1e-20 * excess[0]) & (traj.t > 0)
        false_bound = excess[0] * np.exp(-3 * found.measured * traj.t[seen])
        assert (excess[seen] > false_bound).any()


def test_the_rate_is_attained_by_a_scalar_network_that_is_all_imbalance() -> None:
    """m = r = h = 1 near the solution with V = 0 there: L falls at the rate 2 lambda U^2, which is the imbalance's."""
    problem = fs.Regression([[1.0]], [0.0])
    net = fs.LinearNetwork(1)
    found = certify_rate(net, problem, start={"U": [[2.0]], "V": [[1e-3]]}, alpha=1.0, t_end=2.0)
    assert found.predicted == pytest.approx(2 * 4.0, rel=1e-5)
    assert found.tightness == pytest.approx(1.0, abs=1e-5)


def test_the_rate_is_in_units_of_this_loss() -> None:
    """With n copies of every observation neither the loss nor the rate changes."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    net = fs.LinearNetwork(8)
    once, twice = fs.Regression(X, Y), fs.Regression(np.tile(X, (2, 1)), np.tile(Y, (2, 1)))
    start = fs.linear_start(net, once)
    assert rate_bound(net, twice, start=start).rate == pytest.approx(rate_bound(net, once, start=start).rate, rel=1e-10)


def test_the_theorem_is_on_the_noiseless_flow() -> None:
    problem = fs.Regression([[1.0]], [1.0])
    with pytest.raises(ValueError, match="free of weight noise"):
        rate_bound(fs.LinearNetwork(2, noise=fs.GaussianNoise(0.1)), problem)


@pytest.mark.parametrize(("n", "D", "m", "h"), [(5, 10, 2, 4), (5, 10, 2, 40), (3, 6, 3, 3), (2, 9, 1, 20)])
def test_the_invariant_set_is_kept_and_ends_at_the_minimum_norm_solution(n, D, m, h) -> None:
    rng = np.random.default_rng(n + h)
    problem = fs.Regression(rng.standard_normal((n, D)), rng.standard_normal((n, m)))
    found = certify_invariant_set(fs.LinearNetwork(h), problem)
    assert found.holds, found
    exact = np.linalg.pinv(problem.X) @ problem.y
    np.testing.assert_allclose(found.trajectory.beta[-1], exact, atol=1e-7)


def test_off_the_invariant_set_the_flow_ends_elsewhere() -> None:
    rng = np.random.default_rng(0)
    problem = fs.Regression(rng.standard_normal((4, 8)), rng.standard_normal((4, 2)))
    net = fs.LinearNetwork(6)
    start = fs.linear_start(net, problem)
    with pytest.raises(ValueError, match="must lie on the invariant set"):
        certify_invariant_set(net, problem, start=start)
    traj = fs.gradient_flow(net, problem, 200.0, alpha=1.0, start=start)
    assert traj.loss[-1] < 1e-10
    assert np.linalg.norm(traj.beta[-1] - LinearData.of(problem).min_norm) > 0.1


@pytest.mark.sampled(2)
@pytest.mark.parametrize("exponent", [0.3, 0.4, 0.5])
def test_the_width_law_from_a_hundred_to_a_million(exponent: float) -> None:
    rng = np.random.default_rng(0)
    problem = fs.Regression(rng.standard_normal((5, 10)), rng.standard_normal((5, 2)))
    law = width_law(problem, exponent, n_seeds=4)
    assert law.measured == pytest.approx(0.5 - 2 * exponent, abs=0.05)
    assert law.uncertainty < 0.03
    assert (law.distances <= law.bounds).all()
    assert law.holds
    # At a = 1/2 the guaranteed rate stays of order one, and the bound is right but loose.
    assert np.median(law.bounds[-1] / law.distances[-1]) < (10 if exponent < 0.5 else 1e4)


def test_the_width_law_says_what_it_cannot_measure() -> None:
    rng = np.random.default_rng(0)
    tall = fs.Regression(rng.standard_normal((9, 3)), rng.standard_normal(9))
    with pytest.raises(ValueError, match="rank X < D"):
        width_law(tall)
    wide = fs.Regression(rng.standard_normal((3, 9)), rng.standard_normal(3))
    with pytest.raises(ValueError, match=r"\(1/4, 1/2\]"):
        width_law(wide, 0.2)
    with pytest.raises(ValueError, match="at least two widths above"):
        width_law(wide, 0.4, widths=[5, 100])


def whitened(values: list[float]) -> fs.Regression:
    """X^T X / n = 1 and singular values of X^T Y / n as given, on random directions."""
    rng = np.random.default_rng(0)
    size = len(values)
    X = np.sqrt(20) * np.linalg.qr(rng.standard_normal((20, size + 2)))[0]
    left = np.linalg.qr(rng.standard_normal((size + 2, size)))[0]
    right = np.linalg.qr(rng.standard_normal((size, size)))[0]
    return fs.Regression(X, X @ (left * np.array(values)) @ right.T)


@pytest.mark.slow
def test_small_starts_learn_rank_by_rank_with_jumps_at_the_predicted_times() -> None:
    problem = whitened([3.0, 1.6, 1.0, 0.6])
    net = fs.LinearNetwork(10)
    predicted = activation_times(problem)
    np.testing.assert_allclose(predicted, 1 / np.array([3.0, 1.6, 1.0, 0.6]), rtol=1e-10)
    errors = []
    for alpha in ("1e-6", "1e-150"):
        traj = fs.gradient_flow(net, problem, 2.2, alpha=alpha, clock="accelerated")
        found = rank_plateaus(traj)
        np.testing.assert_array_equal(found.ranks, np.arange(5))
        errors.append(np.abs(found.jumps - predicted).max())
    gamma = np.log(10) * np.array([6, 150])
    assert (np.array(errors) * gamma < 2.0).all()  # O(1/gamma)
    assert errors[1] < 0.1 * errors[0]


@pytest.mark.parametrize("alpha", ["1e-5", "1e-30", "1e-80"])
def test_the_flow_from_a_tiny_balanced_start_is_the_closed_form_through_every_jump(alpha: str) -> None:
    problem = whitened([2.0, 1.2, 0.7])
    net = fs.LinearNetwork(6)
    start = fs.linear_start(net, problem, "balanced", seed=4)
    gamma = -np.log(float(alpha))
    times = gamma * np.linspace(0, 1.8, 37)
    traj = fs.gradient_flow(net, problem, times[-1], alpha=alpha, start=start, t_eval=times, rtol=1e-9)
    exact = whitened_balanced(problem, start["U"], start["V"], times, alpha=float(alpha))
    np.testing.assert_allclose(traj.beta, exact, atol=1e-7)
    assert np.linalg.matrix_rank(exact[-1], tol=0.1) == 3


@pytest.mark.slow
def test_a_tiny_start_on_data_that_are_not_whitened_agrees_with_sixty_digit_arithmetic() -> None:
    """Runge-Kutta 4 in mpmath: independent of every idea of the integrator, and blind to rounding."""
    import mpmath as mp

    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
    problem = fs.Regression(X, Y)
    U, V = rng.standard_normal((2, 2)), rng.standard_normal((2, 2))
    with mp.workdps(60):
        sigma, signal = mp.matrix(X.T @ X / 4), mp.matrix(X.T @ Y / 4)
        u, v = mp.mpf("1e-20") * mp.matrix(U), mp.mpf("1e-20") * mp.matrix(V)

        def field(u, v):
            G = signal - sigma * (u * v.T)
            return G * v, G.T * u

        t_end, step = mp.mpf(90), mp.mpf(1) / 32
        for _ in range(int(t_end / step)):
            k1 = field(u, v)
            k2 = field(u + step / 2 * k1[0], v + step / 2 * k1[1])
            k3 = field(u + step / 2 * k2[0], v + step / 2 * k2[1])
            k4 = field(u + step * k3[0], v + step * k3[1])
            u += step / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])
            v += step / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])
        reference = np.array((u * v.T).tolist(), dtype=float)
    traj = fs.gradient_flow(fs.LinearNetwork(2), problem, 90.0, alpha="1e-20", start={"U": U, "V": V}, rtol=1e-9)
    assert np.linalg.norm(reference) > 0.05
    np.testing.assert_allclose(traj.beta[-1], reference, atol=1e-4)


def test_the_rate_refuses_what_the_theorem_does_not_cover() -> None:
    rng = np.random.default_rng(0)
    X, Y, net = rng.standard_normal((6, 4)), rng.standard_normal((6, 2)), fs.LinearNetwork(9)
    problem = fs.Regression(X, Y)
    for decay in (0.1, fs.DecaySchedule([10.0], [0.1, 0.0])):
        for judge in (rate_bound, certify_rate):
            with pytest.raises(ValueError, match="`net` must be free of weight noise and weight decay"):
                judge(fs.LinearNetwork(9, weight_decay=decay), problem)
    with pytest.raises(ValueError, match="`net` must be a LinearNetwork"):
        rate_bound(fs.DiagonalNetwork("u*v"), problem)
    with pytest.raises(ValueError, match="`problem` must have a feature that is not zero"):
        rate_bound(net, fs.Regression(0 * X, Y))
    with pytest.raises(ValueError, match="`problem` must be a Regression"):
        rate_bound(net, fs.MatrixCompletion([(0, 0, 1.0), (1, 1, 2.0)], (2, 2)))
    for wrong in ({"n_seeds": 1.5}, {"widths": (100.5, 200)}):
        with pytest.raises(ValueError, match="must be an integer >= 1"):
            width_law(fs.Regression(X[:3], Y[:3]), **wrong)


def test_a_start_at_the_minimum_is_not_taken_for_a_violation() -> None:
    rng = np.random.default_rng(11)
    problem = fs.Regression(rng.standard_normal((6, 4)), rng.standard_normal((6, 2)))
    left, values, right = np.linalg.svd(LinearData.of(problem).min_norm, full_matrices=False)
    start = {
        "U": np.pad(left * np.sqrt(values), ((0, 0), (0, 7))),
        "V": np.pad(right.T * np.sqrt(values), ((0, 0), (0, 7))),
    }
    assert certify_rate(fs.LinearNetwork(9), problem, start=start).holds
