"""The flow of U V^T against closed forms, other integrators, and its own exact laws."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs
from flowsim.network.linear_algebra import LinearData
from tests.flows.linear_closed_form import expected_loss, negative_gradient, whitened_balanced


def problem_of(n: int, D: int, m: int, rank: int | None = None, seed: int = 0) -> fs.Regression:
    """X with singular values spread over a factor of ten: the slowest mode is a hundred times the fastest."""
    rng = np.random.default_rng(seed)
    rank = min(n, D) if rank is None else rank
    left, right = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in (n, D))
    X = np.sqrt(n) * (left * np.geomspace(1.0, 0.1, rank)) @ right.T
    return fs.Regression(X, rng.standard_normal((n, m)))


def slowest_time(problem: fs.Regression) -> float:
    return 1.0 / float(LinearData.of(problem).curvatures[-1])


def shapes() -> list[tuple[int, int, int, int, int]]:
    """50 shapes (n, D, m, h, rank): h < r, h = 1, h >> r + m, and rank-deficient X among them."""
    rng = np.random.default_rng(11)
    out = []
    for case in range(50):
        n, D, m = (int(rng.integers(2, top)) for top in (12, 12, 6))
        rank = min(n, D) if case % 3 else max(1, min(n, D) // 2)
        h = (1, max(1, rank - 1), rank + m, 5 * (D + m), int(rng.integers(1, 20)))[case % 5]
        out.append((n, D, m, h, rank))
    return out


@pytest.mark.sampled(7)
@pytest.mark.parametrize(("n", "D", "m", "h", "rank"), shapes())
def test_the_imbalance_is_conserved_to_rounding_over_ten_decades_of_loss(n, D, m, h, rank) -> None:
    problem = problem_of(n, D, m, rank, seed=n + 13 * D + 101 * h)
    # Wide enough for the least-squares solution: run until ten decades of loss are gone.
    representable = h >= min(rank, m)
    for horizon in (40, 400, 4000):
        traj = fs.gradient_flow(fs.LinearNetwork(h), problem, horizon * slowest_time(problem), alpha=1.0)
        excess = traj.loss - traj.info["least_loss"]
        if not representable or excess[-1] <= 1e-10 * excess[0] + 1e-15:
            break
    else:
        pytest.fail(f"the loss fell from {excess[0]:g} to {excess[-1]:g} only")
    k = min(h, D + m)
    assert traj.imbalance.shape == (len(traj), k, k)
    assert traj.imbalance_drift <= 1e-9


def test_the_whole_flow_is_the_one_scipy_computes_in_all_coordinates() -> None:
    from scipy.integrate import solve_ivp

    problem = problem_of(6, 8, 3)
    start = fs.linear_start(fs.LinearNetwork(5), problem, seed=3)
    times = np.linspace(0, 5, 6)

    def rhs(_, y):
        U, V = y[:40].reshape(8, 5), y[40:].reshape(3, 5)
        return np.concatenate([part.ravel() for part in negative_gradient(U, V, problem.X, problem.y)])

    y0 = 0.7 * np.concatenate([start["U"].ravel(), start["V"].ravel()])
    reference = solve_ivp(rhs, (0, 5), y0, method="DOP853", rtol=1e-12, atol=1e-13, t_eval=times).y.T
    traj = fs.gradient_flow(
        fs.LinearNetwork(5), problem, 5.0, alpha=0.7, start=start, t_eval=times, rtol=1e-10
    )  # fmt: skip
    np.testing.assert_allclose(traj.weights["U"].reshape(6, -1), reference[:, :40], atol=1e-9)
    np.testing.assert_allclose(traj.weights["V"].reshape(6, -1), reference[:, 40:], atol=1e-9)
    np.testing.assert_allclose(traj.loss, problem.loss(traj.beta), rtol=1e-9)
    np.testing.assert_allclose(traj.beta, traj.weights["U"] @ traj.weights["V"].transpose(0, 2, 1), atol=1e-13)
    np.testing.assert_array_equal(traj.t, times)


@pytest.mark.parametrize("method", ["LSODA", "BDF", "Radau", "DOP853"])
def test_every_method_agrees_with_the_native_one(method: str) -> None:
    problem = problem_of(6, 5, 2)
    net = fs.LinearNetwork(9)
    times = np.linspace(0, 6, 5)
    native = fs.gradient_flow(net, problem, 6.0, alpha=0.5, t_eval=times, rtol=1e-10)
    other = fs.gradient_flow(net, problem, 6.0, alpha=0.5, t_eval=times, method=method, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(other.beta, native.beta, atol=2e-6)
    np.testing.assert_allclose(other.arclength, native.arclength, rtol=1e-5)
    assert other.info["method"] == method


@pytest.mark.parametrize(("n", "D", "m"), [(6, 3, 2), (6, 2, 4)])
def test_the_jacobian_given_to_scipy_is_the_derivative_of_the_field(n: int, D: int, m: int) -> None:
    from flowsim.flows.frames import FrameCoordinates
    from flowsim.network import InitialScale
    from flowsim.network.linear_start import LinearCase

    net = fs.LinearNetwork(3, noise=fs.GaussianNoise({"U": 0.2, "V": 0.3}))
    ivp = FrameCoordinates(LinearCase(net, problem_of(n, D, m), InitialScale.parse(1.0), None), native=False).ivp
    y, step = ivp.y0, 1e-6
    shifts = step * np.eye(len(y))
    numeric = np.array([(ivp.rhs(0.0, y + e) - ivp.rhs(0.0, y - e)) / (2 * step) for e in shifts]).T
    np.testing.assert_allclose(ivp.jacobian(0.0, y), numeric, atol=1e-8)


@pytest.mark.parametrize("wide", [12, 200])
def test_the_compressed_flow_is_the_uncompressed_flow(wide: int) -> None:
    from scipy.integrate import solve_ivp

    problem = problem_of(5, 6, 3)
    start = fs.linear_start(fs.LinearNetwork(wide), problem, seed=5)
    size = 6 * wide

    def rhs(_, y):
        U, V = y[:size].reshape(6, wide), y[size:].reshape(3, wide)
        return np.concatenate([part.ravel() for part in negative_gradient(U, V, problem.X, problem.y)])

    y0 = np.concatenate([start["U"].ravel(), start["V"].ravel()])
    full = solve_ivp(rhs, (0, 8.0), y0, method="DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    traj = fs.gradient_flow(fs.LinearNetwork(wide), problem, 8.0, alpha=1.0, start=start)
    assert traj.weights["U"].shape == (len(traj), 6, wide)
    np.testing.assert_allclose(traj.weights["U"][-1].ravel(), full[:size], atol=1e-8)
    np.testing.assert_allclose(traj.weights["V"][-1].ravel(), full[size:], atol=1e-8)
    np.testing.assert_allclose(traj.weights["U"][0], start["U"], atol=1e-12)
    basis = traj.weights.basis
    whole = full[:size].reshape(6, wide).T @ full[:size].reshape(6, wide)
    whole -= full[size:].reshape(3, wide).T @ full[size:].reshape(3, wide)
    np.testing.assert_allclose(basis.T @ whole @ basis, traj.imbalance[-1], atol=1e-8)


def test_dependent_rows_of_a_wide_start_are_compressed_too() -> None:
    problem = problem_of(4, 3, 2)
    rng = np.random.default_rng(0)
    U = rng.standard_normal((3, 40))
    for V in (np.zeros((2, 40)), np.stack([U[0], U[0] + 1e-9 * U[1]])):
        traj = fs.gradient_flow(fs.LinearNetwork(40), problem, 3.0, alpha=0.3, start={"U": U, "V": V})
        np.testing.assert_allclose(traj.weights["U"][0], 0.3 * U, atol=1e-13)
        np.testing.assert_allclose(traj.weights["V"][0], 0.3 * V, atol=1e-13)
        assert traj.imbalance_drift < 1e-12


def test_lifting_refuses_a_start_that_was_changed() -> None:
    problem = problem_of(4, 3, 2)
    start = fs.linear_start(fs.LinearNetwork(60), problem)
    traj = fs.gradient_flow(fs.LinearNetwork(60), problem, 1.0, alpha=1.0, start=start)
    start["U"] *= 2
    with pytest.raises(ValueError, match="changed after the run"):
        traj.weights["U"]


def test_a_million_hidden_units_leave_no_trace_in_time_or_memory() -> None:
    import time
    import tracemalloc

    problem = problem_of(15, 20, 5)
    net = fs.LinearNetwork(10**6)
    fs.gradient_flow(net, problem, 20.0, alpha=1.0)
    tracemalloc.start()
    traj = fs.gradient_flow(net, problem, 20.0, alpha=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 10**6 * 8 / 10  # a tenth of one copy of U
    assert traj.beta.shape[1:] == (20, 5)
    seconds = []
    for width in (30, 10**6):
        best = np.inf
        for _ in range(3):
            began = time.perf_counter()
            fs.gradient_flow(fs.LinearNetwork(width), problem, 20.0, alpha=1.0)
            best = min(best, time.perf_counter() - began)
        seconds.append(best)
    assert seconds[1] <= 3 * seconds[0]


@pytest.mark.parametrize("kind", ["orthogonal design", "orthogonal rows"])
def test_balanced_flow_on_whitened_data_is_the_closed_form(kind: str) -> None:
    rng = np.random.default_rng(8)
    n, D, m = (12, 5, 3) if kind == "orthogonal design" else (4, 7, 3)
    X = np.linalg.qr(rng.standard_normal((max(n, D), min(n, D))))[0]
    X = 2.5 * (X if n >= D else X.T)
    problem = fs.Regression(X, rng.standard_normal((n, m)))
    net = fs.LinearNetwork(6)
    start = fs.linear_start(net, problem, "balanced", seed=1)
    times = np.linspace(0, 60, 13)
    for alpha in (1.0, 1e-3):
        traj = fs.gradient_flow(net, problem, 60.0, alpha=alpha, start=start, t_eval=times, rtol=1e-9)
        exact = whitened_balanced(problem, start["U"], start["V"], times, alpha=alpha)
        np.testing.assert_allclose(traj.beta, exact, atol=1e-8)
    assert np.linalg.norm(exact[-1] - exact[0]) > 0.1


def test_the_scale_of_the_start_reaches_far_below_floats_on_the_first_plateau() -> None:
    """While nothing has grown, the flow from alpha is exp(t F) on the start: known in closed form at every alpha."""
    problem = problem_of(6, 4, 2)
    net = fs.LinearNetwork(3)
    near = fs.gradient_flow(net, problem, 1.0, alpha="1e-140")
    far = fs.gradient_flow(net, problem, 1.0, alpha="1e-1000")
    gap = far.log_abs_weights["U"] - near.log_abs_weights["U"]
    np.testing.assert_allclose(gap, -860 * np.log(10), rtol=1e-12)
    assert (far.weights["U"] == 0).all()
    np.testing.assert_allclose(far.log_imbalance[-1], far.log_imbalance[0], rtol=1e-10)


def test_an_imbalance_lost_to_the_tolerance_is_an_error() -> None:
    problem = problem_of(6, 4, 2)
    with pytest.raises(fs.IntegrationError, match="method='native'"):
        fs.gradient_flow(
            fs.LinearNetwork(3), problem, 5.0, alpha=1e-3, clock="accelerated", method="LSODA", rtol=1e-3, atol=1e-3
        )


def test_clocks_agree_and_dense_output_is_as_good_as_the_steps() -> None:
    problem = problem_of(6, 4, 2)
    net = fs.LinearNetwork(8)
    by_time = fs.gradient_flow(net, problem, 60.0, alpha=1e-2, rtol=1e-9)
    gamma = np.log(100.0)
    by_accelerated = fs.gradient_flow(net, problem, 60.0 / gamma, alpha=1e-2, rtol=1e-9, clock="accelerated")
    np.testing.assert_allclose(by_accelerated.beta[-1], by_time.beta[-1], atol=1e-9)
    np.testing.assert_allclose(by_time.accelerated_time, by_time.t / gamma, rtol=1e-13)
    end = 0.7 * by_time.arclength[-1]
    points = np.linspace(0, end, 9)
    by_length = fs.gradient_flow(net, problem, end, alpha=1e-2, rtol=1e-9, clock="arclength", t_eval=points)
    np.testing.assert_allclose(by_length.beta, by_time.at(points, "arclength").beta, atol=1e-7)
    path = np.linalg.norm(np.diff(by_time.at(np.linspace(0, 60, 4001)).beta, axis=0), axis=(1, 2)).sum()
    assert by_time.arclength[-1] == pytest.approx(60 / gamma + path, rel=1e-4)
    between = np.linspace(0, 60, 57)
    loose = fs.gradient_flow(net, problem, 60.0, alpha=1e-2)
    np.testing.assert_allclose(loose.at(between).beta, by_time.at(between).beta, atol=3e-6)
    np.testing.assert_allclose(loose.at(between).imbalance, np.tile(loose.imbalance[0], (57, 1, 1)), atol=1e-14)


def test_at_alpha_one_and_above_accelerated_time_is_time() -> None:
    problem = problem_of(6, 4, 2)
    traj = fs.gradient_flow(fs.LinearNetwork(3), problem, 1.0, alpha=1.0)
    np.testing.assert_array_equal(traj.accelerated_time, traj.t)
    with pytest.raises(ValueError, match="`alpha` must be < 1 on the accelerated clock"):
        fs.gradient_flow(fs.LinearNetwork(3), problem, 1.0, alpha=1.0, clock="accelerated")


def test_noise_follows_the_exact_expected_gradient_and_its_imbalance_law() -> None:
    from scipy.integrate import solve_ivp

    problem = problem_of(6, 8, 3)
    net = fs.LinearNetwork(5, noise=fs.GaussianNoise({"U": 0.2, "V": 0.3}))
    start = fs.linear_start(net, problem, seed=3)
    times = np.linspace(0, 5, 6)

    def rhs(_, y):
        U, V = y[:40].reshape(8, 5), y[40:].reshape(3, 5)
        return np.concatenate([p.ravel() for p in negative_gradient(U, V, problem.X, problem.y, 0.04, 0.09)])

    y0 = np.concatenate([start["U"].ravel(), start["V"].ravel()])
    reference = solve_ivp(rhs, (0, 5), y0, method="DOP853", rtol=1e-12, atol=1e-13, t_eval=times).y.T
    for method in ("native", "LSODA"):
        traj = fs.gradient_flow(
            net, problem, 5.0, alpha=1.0, start=start, t_eval=times, rtol=1e-9, atol=1e-11, method=method
        )
        np.testing.assert_allclose(traj.weights["U"].reshape(6, -1), reference[:, :40], atol=1e-6)
        assert traj.imbalance_drift < 1e-12 or method == "LSODA"
    assert np.linalg.norm(traj.imbalance[-1]) < 0.9 * np.linalg.norm(traj.imbalance[0])


def test_equal_noise_rates_make_the_imbalance_decay_exponentially() -> None:
    """Sigma = c 1 and eta_V^2 m c = eta_U^2 c D: both layers are pulled alike, so M(t) = exp(-2 kappa t) M(0)."""
    rng = np.random.default_rng(2)
    X = np.sqrt(10.0) * np.linalg.qr(rng.standard_normal((10, 4)))[0]
    problem = fs.Regression(X, rng.standard_normal((10, 2)))
    net = fs.LinearNetwork(7, noise=fs.GaussianNoise({"U": 0.1, "V": 0.1 * np.sqrt(2.0)}))
    traj = fs.gradient_flow(net, problem, 30.0, alpha=1.0)
    kappa = 0.01 * 4
    law = np.exp(-2 * kappa * traj.t)[:, None, None] * traj.imbalance[0]
    np.testing.assert_allclose(traj.imbalance, law, atol=1e-7)


@pytest.mark.parametrize("noise", [fs.GaussianNoise, fs.UniformNoise, fs.RademacherNoise, fs.LaplaceNoise])
def test_the_expected_loss_is_the_monte_carlo_mean(noise) -> None:
    rng = np.random.default_rng(0)
    problem = problem_of(5, 4, 3)
    U, V = rng.standard_normal((4, 6)), rng.standard_normal((3, 6))
    eta_u, eta_v = 0.5, 0.4
    law = noise(1.0)
    draws = 40_000
    xi = eta_u * law.draw(rng, (draws, 4, 6))
    zeta = eta_v * law.draw(rng, (draws, 3, 6))
    losses = problem.loss((U + xi) @ (V + zeta).transpose(0, 2, 1))
    exact = expected_loss(U, V, problem.X, problem.y, eta_u**2, eta_v**2)
    assert abs(losses.mean() - exact) < 4 * losses.std() / np.sqrt(draws)
    assert abs(exact - float(problem.loss(U @ V.T))) > 40 * losses.std() / np.sqrt(draws)


def test_the_field_is_minus_the_gradient_of_the_expected_loss() -> None:
    rng = np.random.default_rng(1)
    problem = problem_of(5, 4, 3)
    U, V = rng.standard_normal((4, 6)), rng.standard_normal((3, 6))
    dU, dV = negative_gradient(U, V, problem.X, problem.y, 0.3, 0.2)
    step = 1e-6
    for array, field in ((U, dU), (V, dV)):
        for index in ((0, 0), (2, 3), (1, 5)):
            saved = array[index]
            values = []
            for sign in (1, -1):
                array[index] = saved + sign * step
                values.append(expected_loss(U, V, problem.X, problem.y, 0.3, 0.2))
            array[index] = saved
            assert -(values[0] - values[1]) / (2 * step) == pytest.approx(field[index], rel=1e-6, abs=1e-7)


def test_one_target_may_be_a_vector() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((5, 3)), rng.standard_normal(5)
    flat = fs.gradient_flow(fs.LinearNetwork(4), fs.Regression(X, y), 3.0, alpha=0.5)
    column = fs.gradient_flow(fs.LinearNetwork(4), fs.Regression(X, y[:, None]), 3.0, alpha=0.5)
    assert flat.beta.shape == (len(flat), 3, 1)
    np.testing.assert_array_equal(flat.beta, column.beta)


def test_a_trajectory_is_saved_and_read_back(tmp_path) -> None:
    problem = problem_of(5, 4, 3)
    traj = fs.gradient_flow(fs.LinearNetwork(6), problem, 3.0, alpha=0.5)
    again = fs.load(traj.save(tmp_path / "run.nc"))
    np.testing.assert_array_equal(again.beta, traj.beta)
    np.testing.assert_array_equal(again.weights["V"], traj.weights["V"])


def test_a_wide_trajectory_is_saved_in_the_compressed_basis(tmp_path) -> None:
    problem = problem_of(5, 4, 3)
    traj = fs.gradient_flow(fs.LinearNetwork(10**6), problem, 3.0, alpha=0.5)
    path = traj.save(tmp_path / "run.nc")
    assert path.stat().st_size < 2e6
    again = fs.load(path)
    np.testing.assert_array_equal(again.weights["U"], traj.weights.compressed["U"])
    np.testing.assert_allclose(again.weights["U"] @ again.weights["V"].transpose(0, 2, 1), traj.beta, atol=1e-13)


def test_a_rank_one_start_stays_of_rank_one() -> None:
    """The unstable directions are exactly absent, and rounding must not bring them in, however long the run."""
    problem = problem_of(12, 4, 3)
    start = {"U": np.ones((4, 5)), "V": np.ones((3, 5))}
    traj = fs.gradient_flow(fs.LinearNetwork(5), problem, 300 * slowest_time(problem), alpha=0.1, start=start)
    values = np.linalg.svd(traj.beta[-1], compute_uv=False)
    assert values[0] > 0.1
    assert values[1] < 1e-14


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"U": np.ones((4, 3))}, "'V' is missing"),
        ({"U": np.ones((4, 3)), "V": np.ones((2, 3)), "W": 1}, "unknown weight 'W'"),
        ({"U": np.ones((3, 3)), "V": np.ones((2, 3))}, r"must have shape \(4, 3\); received \(3, 3\)"),
        ({"U": np.full((4, 3), np.nan), "V": np.ones((2, 3))}, r"`start\['U'\]` must be finite"),
        ({"U": np.ones((4, 3)), "V": np.full((2, 3), np.inf)}, r"`start\['V'\]` must be finite"),
        ({"U": np.zeros((4, 3)), "V": np.zeros((2, 3))}, "saddle"),
        ({"U": "text", "V": np.ones((2, 3))}, "real numbers"),
        (np.ones(3), "`start` must map weights to arrays"),
    ],
)
def test_a_bad_start_is_named(start, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.gradient_flow(fs.LinearNetwork(3), problem_of(6, 4, 2), 1.0, alpha=1.0, start=start)


def test_multiplicative_noise_is_refused() -> None:
    net = fs.LinearNetwork(3, noise=fs.GaussianNoise(0.1, multiplicative=True))
    with pytest.raises(ValueError, match="additive"):
        fs.gradient_flow(net, problem_of(6, 4, 2), 1.0, alpha=1.0)


def test_starts_are_what_they_say() -> None:
    problem = problem_of(4, 7, 3)
    data = LinearData.of(problem)
    net = fs.LinearNetwork(40)
    balanced = fs.linear_start(net, problem, "balanced")
    np.testing.assert_allclose(balanced["U"].T @ balanced["U"], balanced["V"].T @ balanced["V"], atol=1e-14)
    for width in (40, 5):
        on_set = fs.linear_start(fs.LinearNetwork(width), problem, "invariant")
        inside, outside = data.reduce(on_set["U"])
        np.testing.assert_allclose(outside @ on_set["V"].T, 0.0, atol=1e-14)
        np.testing.assert_allclose(inside @ outside.T, 0.0, atol=1e-14)
    gaussian = fs.linear_start(net, problem, exponent=0.3)
    assert gaussian["U"].std() == pytest.approx(40**-0.3, rel=0.2)
    with pytest.raises(ValueError, match="`kind` must be one of"):
        fs.linear_start(net, problem, "other")
    with pytest.raises(ValueError, match="`ratio` must be > 0"):
        fs.linear_start(net, problem, "unbalanced", ratio=0.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_a_wide_start_that_is_not_finite_is_named(value: float) -> None:
    V = np.ones((2, 100))
    V[1, 50] = value
    with pytest.raises(ValueError, match=r"`start\['V'\]` must be finite"):
        fs.gradient_flow(
            fs.LinearNetwork(100), problem_of(6, 4, 2), 1.0, alpha=1.0, start={"U": np.ones((4, 100)), "V": V}
        )


@pytest.mark.parametrize("method", ["native", "DOP853", "BDF"])
def test_the_law_of_the_imbalance_under_unequal_damping_is_checked_by_every_method(method: str) -> None:
    """d(U^T U - V^T V)/dt = -2 (U^T a U - V^T b V): in plain weights its drift grows with the tolerance."""
    net, problem = fs.LinearNetwork(6, noise=fs.GaussianNoise(0.3)), problem_of(20, 4, 3)
    options = {"alpha": 0.5, "method": method, "t_eval": [0.0, 3.3, 10.0]}
    drift = fs.gradient_flow(net, problem, 10.0, **options).imbalance_drift
    loose = fs.gradient_flow(net, problem, 10.0, rtol=1e-3, atol=1e-6, **options).imbalance_drift
    assert drift < (1e-13 if method == "native" else 1e-6)
    assert loose < 1e-13 if method == "native" else drift < loose < 1e-2


@pytest.mark.slow
def test_arc_length_at_rest_does_not_grow_by_what_stiffness_makes_of_errors():
    rng = np.random.default_rng(0)
    problem = fs.Regression(rng.standard_normal((6, 3)), rng.standard_normal((6, 2)))
    net = fs.LinearNetwork(3, noise=fs.GaussianNoise({"U": 0.0, "V": 0.3}))
    run = fs.gradient_flow(net, problem, 15.0, alpha="1e-200", clock="accelerated")
    beta = run.at(np.linspace(0.0, run.t[-1], 20001)).beta
    chords = np.linalg.norm(np.diff(beta, axis=0), axis=(1, 2)).sum()
    assert run.arclength[-1] - 15.0 == pytest.approx(chords, rel=0.01)
