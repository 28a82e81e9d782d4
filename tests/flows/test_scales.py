"""Powers of two in X, y, alpha and time change a flow by nothing, or are refused with a true sentence."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

import flowsim as fs

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((5, 4)), RNG.standard_normal(5)


def scaled_run(net: fs.DiagonalNetwork, L: int, p: int, q: int, t_end: float, **options: object) -> fs.Trajectory:
    """X times 2^p and y times 2^q; alpha and time in the units that this asks for."""
    alpha = Decimal("0.01") * Decimal(2) ** (Decimal(q - p) / L)
    end = float(Decimal(t_end) * Decimal(2) ** (-(p + q) - Decimal(q - p) * (L - 2) / L))
    problem = fs.Regression(np.ldexp(X, p), np.ldexp(Y, q))
    return fs.gradient_flow(net, problem, end, alpha=str(alpha), t_eval=[0.0, end / 3, end], **options)


@pytest.mark.parametrize("exponents", [(190, 190), (-500, -500), (480, 480), (0, -200), (-200, 0), (100, -300)])
@pytest.mark.parametrize(
    ("net", "L", "t_end"), [(fs.DiagonalNetwork("u*v"), 2, 5.0), (fs.DiagonalNetwork(depth=3), 3, 400.0)]
)
def test_flows_of_scaled_data_are_the_same_flow(
    net: fs.DiagonalNetwork, L: int, t_end: float, exponents: tuple[int, int]
) -> None:
    p, q = exponents
    base = scaled_run(net, L, 0, 0, t_end)
    scaled = scaled_run(net, L, p, q, t_end)
    beta = np.ldexp(scaled.beta, p - q)
    np.testing.assert_allclose(beta, base.beta, rtol=0, atol=1e-6 * np.abs(base.beta).max())
    shift = (q - p) / L * np.log(2.0)
    for name, logs in scaled.log_abs_weights.items():
        np.testing.assert_allclose(logs - shift, base.log_abs_weights[name], atol=1e-5)
    assert scaled.imbalance_drift < 1e-6


@pytest.mark.parametrize("seed", [9, 11])
def test_no_decision_of_a_stiff_flow_depends_on_units(seed: int) -> None:
    """Bit by bit, also where data are not scaled to near one before."""
    rng = np.random.default_rng(seed)
    features, target = rng.standard_normal((4, 5)), rng.standard_normal(4)
    ends = [
        fs.gradient_flow(
            fs.DiagonalNetwork("u*v"), fs.Regression(np.ldexp(features, p), np.ldexp(target, p)),
            np.ldexp(100.0, -2 * p), alpha=1e-3, rtol=1e-7,
        ).beta[-1]
        for p in (0, -3, 7, 60, -250, 500)
    ]  # fmt: skip
    for end in ends[1:]:
        np.testing.assert_array_equal(end, ends[0])


@pytest.mark.parametrize(("formula", "L"), [("u*v*w", 3), ("w1*w2*w3*w4", 4), ("u**3 - v**3", 3), ("2*u**2*v", 3)])
def test_no_decision_of_a_flow_of_higher_degree_depends_on_units(formula: str, L: int) -> None:
    """To rounding of ln(alpha), for small powers of two as for large ones."""
    net = fs.DiagonalNetwork(formula)

    def run(p: int, k: int) -> np.ndarray:
        problem, unit = fs.Regression(np.ldexp(X, p), np.ldexp(Y, p + L * k)), -2 * p - (2 * L - 2) * k
        times = np.ldexp([0.0, 7.0, 40.0], unit)
        run = fs.gradient_flow(net, problem, times[-1], alpha=0.25 * 2.0**k, t_eval=times, rtol=1e-7)
        return np.ldexp(run.beta, -L * k)

    base = run(0, 0)
    for p, k in ((1, 0), (-2, 1), (0, 2), (0, -3), (5, 60), (0, -70)):
        np.testing.assert_allclose(run(p, k), base, rtol=0, atol=1e-11 * np.abs(base).max(), err_msg=f"{p}, {k}")


@pytest.mark.parametrize("t_end", [1e160, 1e299])
@pytest.mark.parametrize(
    "net",
    [
        fs.DiagonalNetwork("u*v"),
        fs.DiagonalNetwork("u*v", weight_decay=0.01),
        fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1)),
        fs.DiagonalNetwork("tanh(u)*v"),
    ],
    ids=repr,
)
def test_a_flow_at_rest_is_read_at_times_whose_squares_are_no_floats(net: fs.DiagonalNetwork, t_end: float) -> None:
    problem = fs.Regression(X, Y)
    rest = fs.gradient_flow(net, problem, 1e12, alpha=1e-3).beta[-1]
    run = fs.gradient_flow(net, problem, t_end, alpha=1e-3, t_eval=[0.0, t_end / 3, t_end])
    np.testing.assert_allclose(run.beta[1:], [rest, rest], rtol=1e-5, atol=1e-9)
    assert np.isfinite(run.arclength).all()


@pytest.mark.parametrize("loss", ["squared", "log-cosh"])
@pytest.mark.parametrize("t_end", [1e20, 1e60])
def test_a_coefficient_whose_limit_is_zero_falls_like_a_power_of_time(loss: str, t_end: float) -> None:
    """``w' = g w^2`` with w the balanced weights: ``beta = (g t)^-3``, after a first step of any length."""
    features, target = np.array([[1.0, 0.3], [0.2, 1.0]]), np.array([1.0, -0.2])
    problem = fs.Problem(features, target, loss)
    end = fs.gradient_flow(fs.DiagonalNetwork("u*v*w"), problem, t_end, alpha=0.1).beta[-1]
    slope = problem.gradient(np.array([end[0], 0.0]))
    np.testing.assert_allclose(slope[0], 0.0, atol=1e-6)
    np.testing.assert_allclose(end[1], (slope[1] * t_end) ** -3.0, rtol=1e-5)


def test_travelled_distance_is_in_the_units_of_beta() -> None:
    net = fs.DiagonalNetwork("u*v")
    base, scaled = scaled_run(net, 2, 0, 0, 5.0), scaled_run(net, 2, -40, 40, 5.0)
    np.testing.assert_allclose(
        np.ldexp(scaled.arclength, -80), base.arclength - base.accelerated_time, rtol=1e-5, atol=1e-15
    )


def test_every_formula_keeps_its_flow_when_x_and_y_are_scaled_alike() -> None:
    net = fs.DiagonalNetwork("u*v + u**3*v")
    runs = [
        fs.gradient_flow(net, fs.Regression(np.ldexp(X, p), np.ldexp(Y, p)), np.ldexp(5.0, -2 * p), alpha=0.1)
        for p in (0, 300, -300)
    ]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.beta[-1], runs[0].beta[-1])


@pytest.mark.sampled(29)
@pytest.mark.parametrize("alpha", ["1e-200", "1e-300", "1e-1000"])
@pytest.mark.parametrize("exponents", [(10, 0), (-20, 0), (0, 12), (0, -60), (0, -240), (20, 12)])
@pytest.mark.parametrize("formula", ["u*v*w", "w1*w2*w3*w4", "u**2*v"])
def test_where_time_has_no_float_data_of_any_size_have_the_same_flow(
    formula: str, exponents: tuple[int, int], alpha: str
) -> None:
    """After all jumps the flow of a product is at the minimiser on beta >= 0, times the scale, at any alpha."""
    p, q = exponents
    net, base = fs.DiagonalNetwork(formula), fs.Regression(X, Y)
    end, size = fs.saddle_to_saddle(net, base), 2.0 ** (p + q)
    problem = fs.Regression(np.ldexp(X, p), np.ldexp(Y, p + q))
    until = 4 * float(end.jump_times[-1]) / (size * 2.0**p)
    run = fs.gradient_flow(net, problem, until, alpha=alpha, clock="accelerated")
    np.testing.assert_allclose(np.ldexp(run.beta[-1], -q), end.end, atol=1e-6)


def test_a_distance_of_a_loss_other_than_squares_has_room_for_steep_data() -> None:
    runs = [
        fs.gradient_flow(
            fs.DiagonalNetwork(depth=3), fs.Problem(np.ldexp(X, p), Y, "log-cosh"), np.ldexp(40.0, -p),
            alpha="1e-1000", clock="accelerated",
        )
        for p in (0, 20, -7)
    ]  # fmt: skip
    assert runs[0].beta[-1].max() > 0.1
    for run, p in zip(runs[1:], (20, -7), strict=True):
        np.testing.assert_allclose(np.ldexp(run.beta[-1], p), runs[0].beta[-1], atol=1e-6)


@pytest.mark.parametrize(("depth", "size"), [(4, 1e18), (3, 1e28)])
def test_deep_products_with_huge_targets_agree_with_their_weights(depth: int, size: float) -> None:
    """Whether log coordinates are exact does not depend on the unit of y."""
    rng = np.random.default_rng(1)
    features, y = rng.standard_normal((3, 3)), rng.standard_normal(3) * size
    net = fs.DiagonalNetwork(depth=depth)
    directions = dict(zip(net.weights, rng.standard_normal((depth, 3)), strict=True))
    end, alpha = 6 / 0.3 ** (depth - 2) * size ** (-(2 * depth - 2) / depth), 0.3 * size ** (1 / depth)
    problem, times = fs.Regression(features, y), np.linspace(0, end, 7)
    run = fs.gradient_flow(net, problem, end, alpha=alpha, start=directions, t_eval=times, estimate_error=True)
    right = fs.gradient_flow(
        net, problem, end, alpha=alpha, start=directions, t_eval=times, coordinates="weights", rtol=1e-10
    )
    error = np.abs(run.beta - right.beta).max()
    assert error < 1e-6 * np.abs(right.beta).max()
    assert run.error_estimate is not None and error < 2 * run.error_estimate.max()


def test_units_of_time_beyond_floats_are_said() -> None:
    with pytest.raises(ValueError, match="in units of 1/"):
        fs.gradient_flow(fs.DiagonalNetwork("u*v"), fs.Regression(np.ldexp(X, -600), np.ldexp(Y, -600)), 1.0, alpha=0.1)


@pytest.mark.parametrize("p", [-400, 400])
def test_units_change_no_flow_with_weight_decay_or_without_targets(p: int) -> None:
    """Of (2^p X, 2^p y, 4^p decay) at time 4^-p t, exactly the same."""
    X, y = np.array([[1.0, 0.5], [-0.25, 1.0]]), np.array([1.0, -0.5])
    for target, decay in ((y, 0.05), (0 * y, 0.05), (0 * y, 0.0)):
        runs = [
            fs.gradient_flow(
                fs.DiagonalNetwork("u*v", weight_decay=decay * 4.0**q),
                fs.Regression(X * 2.0**q, target * 2.0**q),
                np.ldexp(9.0, -2 * q), alpha=0.5, start={"u": 1.0, "v": 0.5}, t_eval=np.ldexp([1.0, 9.0], -2 * q),
            ).beta
            for q in (0, p)
        ]  # fmt: skip
        np.testing.assert_allclose(runs[1], runs[0], rtol=1e-6, atol=1e-9)


#: Powers of two of X and of beta.
UNITS = [(-282, 112), (250, -250), (0, 500), (-500, 120)]


@pytest.mark.sampled(7)
@pytest.mark.parametrize("method", ["auto", "LSODA", "BDF", "Radau", "DOP853"])
@pytest.mark.parametrize("extra", ["", "noise", "decay", "schedule", "pretrained"])
def test_every_method_sees_quadratic_networks_in_units_of_their_data(method: str, extra: str) -> None:
    """Of ``(2^p X, 2^(p + 2 k) y, 2^k theta, 2^k eta, 2^-s lambda)`` at ``2^s t``, ``s = -2 p - 2 k``."""

    def run(p: int, k: int) -> np.ndarray:
        unit = -2 * p - 2 * k
        times, rate, weight = np.ldexp([1.0, 3.0], unit), 2.0**-unit, 2.0**k
        decay: dict[str, object] = {
            "decay": 0.05 * rate,
            "schedule": fs.DecaySchedule([np.ldexp(1.0, unit)], [0.1 * rate, 0.02 * rate]),
        }
        net = fs.DiagonalNetwork(
            "2*u**2 - v**2", noise=fs.GaussianNoise(0.1 * weight) if extra == "noise" else None,
            weight_decay=decay.get(extra, 0.0),  # type: ignore[arg-type]
        )  # fmt: skip
        given = {"u": weight * np.array([1.1, 0.7, 0.2, 0.4]), "v": weight * np.array([0.3, -0.4, 0.5, 0.0])}
        start = {"pretrained": given, "alpha": 1e-3 * weight} if extra == "pretrained" else {"start": given, "alpha": 1}
        return fs.gradient_flow(
            net, fs.Regression(np.ldexp(X, p), np.ldexp(Y, p + 2 * k)), times[-1], t_eval=times, method=method, **start
        ).beta  # fmt: skip

    base = run(0, 0)
    for p, exponent in UNITS:
        beta = np.ldexp(run(p, exponent // 2), -exponent)
        np.testing.assert_allclose(beta, base, rtol=0, atol=1e-5 * np.abs(base).max(), err_msg=f"{p}, {exponent}")


@pytest.mark.parametrize("method", ["auto", "LSODA", "BDF", "Radau", "DOP853"])
def test_weights_far_above_the_data_fall_as_with_no_target(method: str) -> None:
    start = {"u": np.array([1.1, 0.7, 0.2, 0.4]), "v": np.array([0.3, -0.4, 0.5, 0.0])}

    def run(k: int, y: np.ndarray) -> np.ndarray:
        end = np.ldexp(6.0, -2 * k)
        net, problem = fs.DiagonalNetwork("u*v"), fs.Regression(X, y)
        return np.ldexp(fs.gradient_flow(net, problem, end, alpha=2.0**k, start=start, method=method).beta[-1], -2 * k)

    np.testing.assert_allclose(run(60, Y), run(0, 0 * Y), rtol=0, atol=1e-5)


def test_long_runs_of_decaying_deep_products_are_read_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = fs.datasets.sparse_regression(10, 20, sparsity=2, seed=0)
    large = fs.Regression(problem.X, 100.0 * problem.y)
    net, times = fs.DiagonalNetwork(depth=3, weight_decay=1e-13), np.linspace(0.0, 3.0, 50)
    run = lambda: fs.gradient_flow(net, large, 3.0, alpha="1e-9", t_eval=times, clock="accelerated")  # noqa: E731
    whole = run()
    assert len(whole.dense.solution.chunks) > 1  # type: ignore[union-attr]
    monkeypatch.setattr("flowsim.flows.dense._ENTRIES", 200)
    np.testing.assert_array_equal(run().beta, whole.beta)


@pytest.mark.parametrize("exponent", [-830, -400, 400, 830])
@pytest.mark.parametrize("loss", ["logistic", "log-cosh", "poisson"])
def test_sample_weights_of_any_size_are_a_unit_of_time(loss: str, exponent: int) -> None:
    y = np.sign(Y) if loss == "logistic" else np.abs(np.round(2 * Y)) if loss == "poisson" else Y
    weight = np.linspace(0.5, 1.5, len(Y))
    for net in (
        fs.DiagonalNetwork("u*v", weight_decay=0.0),
        fs.DiagonalNetwork("tanh(u)*v"),
        fs.DiagonalNetwork(depth=3),
    ):
        plain, scaled = (
            fs.gradient_flow(
                net, fs.Problem(X, y, loss, sample_weight=np.ldexp(weight, p)), np.ldexp(5.0, -p), alpha=0.05
            )
            for p in (0, exponent)
        )
        assert scaled.t[-1] == np.ldexp(5.0, -exponent)
        np.testing.assert_allclose(scaled.beta[-1], plain.beta[-1], rtol=0, atol=1e-6 * np.abs(plain.beta[-1]).max())


def test_sample_weights_beyond_linear_networks_are_named() -> None:
    problem = fs.Problem(X, np.sign(Y), "logistic", sample_weight=np.full(len(Y), 1e250))
    with pytest.raises(fs.IntegrationError, match=r"`sample_weight` of 2\^831 .* divide it by 2\^831"):
        fs.gradient_flow(fs.LinearNetwork(3), problem, 1e-250)
