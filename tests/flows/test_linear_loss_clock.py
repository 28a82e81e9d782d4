"""The clock ln(1/L) of linear networks: closed forms, arithmetic of many digits, the flow in time, margins."""

from __future__ import annotations

import gmpy2
import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import hadamard

import flowsim as fs
from flowsim.studies import max_margin_l2, nuclear_separation, separation
from tests.flows.precise import integrate

LN10 = np.log(10.0)


def separable(seed: int, n: int, D: int, m: int, loss: str = "logistic") -> fs.Problem:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D))
    return fs.Problem(X, np.sign(X @ rng.standard_normal((D, m))), loss)


@pytest.mark.parametrize(("alpha", "digits"), [("1", 100), ("1", 1_000_000), ("1e-1000", 1_000_000)])
def test_one_sample_has_a_closed_form_at_any_loss(alpha: str, digits: int) -> None:
    """With a = x.u: da/ds = |x|^2 v, dv/ds = a, so ln(1/L) = a v, du = x int v ds."""
    x, u0, v0 = np.array([1.0, 0.5]), np.array([0.3, -0.2]), 0.4
    problem = fs.Problem([x], [[1.0]], "exponential")
    start = {"U": u0[:, None], "V": [[v0]]}
    end = digits * LN10
    run = fs.gradient_flow(fs.LinearNetwork(1), problem, end, alpha=alpha, start=start, clock="log_loss")
    # a + c v = (a0 + c v0) e^(c s), a - c v = (a0 - c v0) e^(-c s), c = |x|; their product is a^2 - c^2 v^2.
    c, a0 = np.linalg.norm(x), x @ u0
    with gmpy2.context(precision=3600):
        square = gmpy2.mpfr(alpha) ** 2
        conserved = square * gmpy2.mpfr(a0**2 - (c * v0) ** 2)
        # (a v)^2 = end^2 and a^2 = conserved + c^2 v^2.
        v = gmpy2.sqrt((gmpy2.sqrt(conserved**2 + 4 * c**2 * gmpy2.mpfr(end) ** 2) - conserved) / (2 * c**2))
        a, scale = end / v, gmpy2.sqrt(square)
        u = [scale * start + component * (a - scale * a0) / c**2 for component, start in zip(x, u0, strict=True)]
        expected = np.array([float(each * v) for each in u])
    np.testing.assert_allclose(run.beta[-1, :, 0], expected, rtol=1e-9)
    assert run.log_loss[-1] == pytest.approx(-end, rel=1e-12)
    assert problem.log_loss(run.beta[-1]) == pytest.approx(-end, rel=1e-9)
    assert run.imbalance_drift < 1e-9
    assert np.isinf(run.t[-1]) == (digits > 304)


@pytest.mark.slow
def test_two_targets_agree_with_arithmetic_of_many_digits() -> None:
    """In the weights, over ln(1/L) itself: dZ = S Z / |S Z|^2."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((3, 2))
    Y = np.sign(X @ np.array([[1.0, -0.4], [0.7, 1.2]]))
    U, V, alpha = rng.standard_normal((2, 2)), rng.standard_normal((2, 2)), 0.1
    times = [0.5, 5.0, 60.0]
    run = fs.gradient_flow(
        fs.LinearNetwork(2), fs.Problem(X, Y, "exponential"), 60.0, alpha=alpha, start={"U": U, "V": V},
        clock="log_loss", rtol=1e-9, t_eval=times,
    )  # fmt: skip

    def matrix(values: np.ndarray) -> np.ndarray:
        return np.array([[mp.mpf(float(x)) for x in row] for row in values], dtype=object)

    with mp.workdps(30):
        Xm, Ym = matrix(X), matrix(Y)

        def parts(y: list) -> tuple[np.ndarray, np.ndarray]:
            Z = np.array(y, dtype=object).reshape(4, 2)
            return Z, np.array([[mp.exp(-z) for z in row] for row in Ym * (Xm @ Z[:2] @ Z[2:].T)], dtype=object)

        def field(y: list) -> list:
            Z, losses = parts(y)
            G = Xm.T @ (Ym * losses / losses.sum())
            moved = list(np.concatenate([G @ Z[2:], G.T @ Z[:2]]).ravel())
            square = sum(each**2 for each in moved)
            return [each / square for each in moved]

        y = list(mp.mpf(alpha) * matrix(np.concatenate([U, V])).ravel())
        now = -mp.log(parts(y)[1].sum() / 3)
        for time, beta in zip(times, run.beta, strict=True):
            y, now = integrate(field, y, mp.mpf(time) - now, mp.mpf(10) ** -13), mp.mpf(time)
            Z, losses = parts(y)
            assert abs(-mp.log(losses.sum() / 3) - now) < 1e-11
            np.testing.assert_allclose(beta, (Z[:2] @ Z[2:].T).astype(float), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("m", "alpha"), [(1, 0.1), pytest.param(2, 1e-6, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_clock_shows_the_same_flow_as_time(m: int, alpha: float | str) -> None:
    problem, net = separable(0, 8, 4, m), fs.LinearNetwork(6)
    run = fs.gradient_flow(net, problem, 5.0, alpha=alpha, clock="log_loss", rtol=1e-8, estimate_error=True)
    end = float(run.t[-1])
    other = fs.gradient_flow(net, problem, end, alpha=alpha, rtol=1e-8)
    assert other.log_loss[-1] == pytest.approx(-5.0, abs=1e-6)
    np.testing.assert_allclose(run.beta[-1], other.beta[-1], atol=1e-6)
    assert run.error_estimate is not None
    assert run.error_estimate.max() < 1e-6
    assert run.arclength[-1] == pytest.approx(other.arclength[-1], rel=1e-7)
    assert run.speed[-1] == pytest.approx(other.speed[-1], rel=1e-5)
    middle = [end / 3, end / 2]
    np.testing.assert_allclose(run.at(middle).beta, other.at(middle).beta, atol=1e-6)
    np.testing.assert_allclose(run.at([1.0, 4.0], clock="log_loss").log_loss, [-1.0, -4.0], atol=1e-9)
    assert run.imbalance_drift < 1e-9


def test_one_target_goes_to_the_l2_margin_and_stays_of_rank_one() -> None:
    problem = separable(1, 8, 4, 1)
    ends = np.array([10.0, 1e2, 1e4]) * LN10
    for alpha in (1.0, "1e-300"):
        run = fs.gradient_flow(
            fs.LinearNetwork(5), problem, ends[-1], alpha=alpha, clock="log_loss", t_eval=ends, pretrained=None
        )
        seen = separation(run, problem)
        gaps = 1 - seen.margin_l2 / max_margin_l2(problem).margin
        assert (np.diff(gaps) < 0).all()
        assert gaps[-1] < 1e-3
        both = nuclear_separation(run, problem)
        np.testing.assert_allclose(both.margin, seen.margin_l2, rtol=1e-12)
        assert (both.bound >= max_margin_l2(problem).margin * (1 - 1e-12)).all()


def test_several_targets_go_to_the_nuclear_margin() -> None:
    problem = separable(2, 8, 4, 2)
    run = fs.gradient_flow(
        fs.LinearNetwork(6), problem, 1e5, alpha=1.0, clock="log_loss", t_eval=[10.0, 1e3, 1e5]
    )  # fmt: skip
    seen = nuclear_separation(run, problem)
    assert (np.diff(seen.margin) > 0).all()
    # Between the run's own margin and its own bound lies the largest there is.
    assert 1 <= seen.bound[-1] / seen.margin[-1] < 1 + 2e-3


@pytest.mark.slow
def test_losses_that_no_float_holds_are_reached_in_some_hundred_steps() -> None:
    """The softmax weights of the loss then are those of a complementarity problem, a hundred million times as stiff."""
    problem = separable(2, 8, 4, 2)
    run = fs.gradient_flow(
        fs.LinearNetwork(6), problem, 1e8, alpha=1.0, clock="log_loss", t_eval=[1e3, 2.3e6, 1e8], max_steps=400
    )
    np.testing.assert_allclose([problem.log_loss(beta) for beta in run.beta], [-1e3, -2.3e6, -1e8], rtol=1e-12)
    seen = nuclear_separation(run, problem)
    assert (np.diff(seen.margin) > 0).all()
    assert 1 <= seen.bound[-1] / seen.margin[-1] < 1 + 1e-3
    assert run.imbalance_drift < 1e-9


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("D", "m"), [(4, 2), (2, 3)])
def test_small_losses_agree_with_an_implicit_method_in_the_weights(D: int, m: int) -> None:
    problem, net, end = separable(5, 9, D, m, "exponential"), fs.LinearNetwork(4), 300.0
    start = fs.linear_start(net, problem)
    X, Y = problem.X, problem.y

    def field(_: float, flat: np.ndarray) -> np.ndarray:
        Z = flat.reshape(D + m, -1)
        exponents = -Y * (X @ Z[:D] @ Z[D:].T)
        weights = np.exp(exponents - exponents.max())
        G = X.T @ (Y * weights / weights.sum())
        moved = np.concatenate([G @ Z[D:], G.T @ Z[:D]])
        return (moved / (moved**2).sum()).ravel()

    Z = 0.5 * np.concatenate([start["U"], start["V"]])
    first = -problem.log_loss(Z[:D] @ Z[D:].T)
    exact = solve_ivp(field, (first, end), Z.ravel(), method="Radau", rtol=1e-9, atol=1e-9).y[:, -1].reshape(Z.shape)
    run = fs.gradient_flow(net, problem, end, alpha=0.5, start=start, clock="log_loss")
    np.testing.assert_allclose(run.beta[-1], exact[:D] @ exact[D:].T, atol=1e-6 * end)


@pytest.mark.slow
def test_events_and_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    problem = separable(3, 6, 3, 2)
    crossing = fs.events.Event(lambda t, state: state.log_loss + 200.0, name="deep", terminal=True)
    run = fs.gradient_flow(fs.LinearNetwork(5), problem, 300.0, alpha=1.0, clock="log_loss", events=crossing)
    assert run.log_loss[-1] == pytest.approx(-200.0, abs=1e-6)
    again = fs.load(run.save(tmp_path / "run.nc"))
    np.testing.assert_array_equal(again.log_loss, run.log_loss)
    timed = fs.events.Event(lambda t, state: t - 20.0, name="at 20", terminal=True)
    run = fs.gradient_flow(fs.LinearNetwork(5), problem, 30.0, alpha=1.0, clock="log_loss", events=timed)
    assert run.t[-1] == pytest.approx(20.0, rel=1e-9)


@pytest.mark.parametrize(
    ("problem", "options", "message"),
    [
        (fs.Problem([[1.0], [1.0]], [[1.0, 1.0], [-1.0, 1.0]], "logistic"), {}, "`problem` must be separable"),
        (fs.Regression([[1.0]], [[1.0]]), {}, "logistic and exponential loss"),
        (fs.Problem([[1.0]], [1.0], "logistic"), {"t_end": 0.1}, r"`t_end` must be above ln\(1/L\) at the start"),
        (fs.Problem([[1.0]], [1.0], "logistic"), {"t_end": 1e16}, r"`t_end` must be at most 1e\+15"),
        (fs.Problem([[1.0]], [1.0], "logistic"), {"method": "BDF"}, "`method` must be 'auto' or 'native'"),
    ],
)
def test_what_the_clock_cannot_do_is_named(problem: fs.Problem, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.gradient_flow(fs.LinearNetwork(2), problem, **{"t_end": 5.0, "alpha": 0.5, "clock": "log_loss", **options})
    with pytest.raises(ValueError, match="weight decay"):
        fs.gradient_flow(
            fs.LinearNetwork(2, weight_decay=0.1), fs.Problem([[1.0]], [1.0], "logistic"), 5.0, clock="log_loss"
        )


@pytest.mark.parametrize(("labels", "width"), [(2.0 * np.eye(3) - 1.0, 1), (hadamard(16).astype(float), 3)])
def test_a_width_below_the_sign_rank_is_refused_at_once(labels: np.ndarray, width: int) -> None:
    problem = fs.Problem(np.eye(len(labels)), labels, "logistic")
    with pytest.raises(ValueError, match=f"`width` must be at least {width + 1} .* received {width}"):
        fs.gradient_flow(fs.LinearNetwork(width), problem, 1.0, alpha=0.1, clock="log_loss")


def test_width_one_is_enough_for_labels_of_rank_one() -> None:
    X, column, row = np.eye(3), np.array([[1.0], [-1.0], [1.0]]), np.array([[1.0, -1.0]])
    start = {"U": column, "V": row.T}
    run = fs.gradient_flow(
        fs.LinearNetwork(1), fs.Problem(X, column @ row, "exponential"), 50.0, alpha=0.5, start=start, clock="log_loss"
    )
    # By symmetry every margin is alike, and L = 2 exp(-margin): a mean over samples of the sum over targets.
    np.testing.assert_allclose(run.beta[-1], (50.0 + np.log(2.0)) * column @ row, rtol=1e-8)


@pytest.mark.slow
def test_a_network_too_narrow_for_its_labels_ends_soon_and_says_so() -> None:
    rng = np.random.default_rng(0)
    labels, X = np.sign(rng.standard_normal((8, 8))), np.eye(8) + 0.1 * rng.standard_normal((8, 8))
    problem = fs.Problem(X, labels, "logistic")
    with pytest.raises(fs.IntegrationError, match="too narrow to separate the data") as caught:
        fs.gradient_flow(fs.LinearNetwork(2), problem, 50.0, alpha=0.1, clock="log_loss")
    run = caught.value.trajectory
    assert len(run) < 300
    assert (np.diff(run.log_loss) <= 0).all()
    assert (problem.y * (X @ run.beta[-1]) < 0).any()


def test_a_network_that_is_wide_enough_is_not_called_too_narrow() -> None:
    rng = np.random.default_rng(1)
    labels = np.sign(rng.standard_normal((7, 3)) @ rng.standard_normal((3, 7)))
    problem = fs.Problem(np.eye(7), labels, "exponential")
    for alpha in (0.5, "1e-30"):
        run = fs.gradient_flow(fs.LinearNetwork(3), problem, 20.0, alpha=alpha, clock="log_loss", rtol=1e-4)
        assert run.log_loss[-1] == pytest.approx(-20.0)
