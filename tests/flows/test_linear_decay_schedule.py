"""Weight decay of linear networks that changes in time, against integration in the weights and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import flowsim as fs

RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((4, 6)), RNG.standard_normal((4, 3))
DATA = fs.Regression(X, Y)
SCHEDULE = fs.DecaySchedule([0.7, 1.3, 4.0], [0.3, 0.0, 0.9, 0.05])
TIMES = np.array([0.5, 0.7, 1.0, 1.3, 3.0, 4.0, 8.0])
START = {"U": RNG.standard_normal((6, 5)), "V": RNG.standard_normal((3, 5))}


def in_weights(eta: float, alpha: float) -> np.ndarray:
    """beta at TIMES by a Runge-Kutta method on U and V, restarted at every change."""
    U, V = (alpha * START[name] for name in ("U", "V"))
    Sigma = X.T @ X / 4

    def field(lam: float, z: np.ndarray) -> np.ndarray:
        U, V = z[:30].reshape(6, 5), z[30:].reshape(3, 5)
        G = X.T @ Y / 4 - Sigma @ U @ V.T
        dU = G @ V - eta**2 * 3 * Sigma @ U - lam * U
        return np.concatenate([dU.ravel(), (G.T @ U - (eta**2 * np.trace(Sigma) + lam) * V).ravel()])

    z, out = np.concatenate([U.ravel(), V.ravel()]), []
    for begin, end in itertools.pairwise([0.0, *TIMES]):
        lam = SCHEDULE.rate(begin)
        z = solve_ivp(lambda _, z, lam=lam: field(lam, z), (begin, end), z, method="DOP853", rtol=1e-12, atol=1e-13).y[
            :, -1
        ]
        out.append(z[:30].reshape(6, 5) @ z[30:].reshape(3, 5).T)
    return np.array(out)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", ["native", "BDF"])
@pytest.mark.parametrize("eta", [0.0, 0.2])
def test_a_schedule_is_that_of_integration_in_the_weights(eta: float, method: str) -> None:
    net = fs.LinearNetwork(5, weight_decay=SCHEDULE, noise=fs.GaussianNoise(eta) if eta else None)
    traj = fs.gradient_flow(net, DATA, 8.0, alpha=0.3, start=START, t_eval=TIMES, rtol=1e-9, method=method)
    error = np.abs(traj.beta - in_weights(eta, 0.3)).max()
    assert error < (1e-8 if method == "native" else 1e-6)
    assert traj.imbalance_drift < (1e-11 if method == "native" else 1e-5)


def test_the_imbalance_follows_the_integral_of_a_schedule_and_the_time_of_a_change_is_a_step() -> None:
    net = fs.LinearNetwork(5, weight_decay=SCHEDULE)
    traj = fs.gradient_flow(net, DATA, 8.0, alpha=0.3, start=START, t_eval=TIMES)
    first = 0.09 * (START["U"].T @ START["U"] - START["V"].T @ START["V"])
    for t, seen in zip(TIMES, traj.imbalance, strict=True):
        np.testing.assert_allclose(seen, np.exp(-2 * SCHEDULE.integral(t)) * first, rtol=0, atol=1e-12)
    assert set(SCHEDULE.times) <= set(fs.gradient_flow(net, DATA, 8.0, alpha=0.3, start=START).t.tolist())


def test_at_a_scale_of_a_thousand_digits_a_scalar_flow_is_its_closed_form() -> None:
    """``beta' = 2 (s - lambda - beta) beta``, logistic growth between the changes, by logarithms."""
    s, schedule = 2.0, fs.DecaySchedule([400.0, 900.0], [0.5, 2.5, 0.25])
    times = np.array([400.0, 900.0, 2300.0, 2343.0, 2400.0])
    log_beta, expected = -2000.0 * np.log(10.0), []
    for begin, end in itertools.pairwise([0.0, *times]):
        c, h = s - schedule.rate(begin), end - begin
        # 1/beta = e^{-2 c h} / beta_0 + (1 - e^{-2 c h}) / c
        log_beta = -np.logaddexp(-2 * c * h - log_beta, np.log(-np.expm1(-2 * c * h) / c))
        expected.append(log_beta)
    traj = fs.gradient_flow(
        fs.LinearNetwork(1, weight_decay=schedule), fs.Regression([[1.0]], [[s]]), times[-1], alpha="1e-1000",
        start={"U": [[1.0]], "V": [[1.0]]}, t_eval=times,
    )  # fmt: skip
    logs = traj.log_abs_weights
    np.testing.assert_allclose((logs["U"] + logs["V"])[:, 0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(traj.beta[-1], s - 0.25, atol=1e-6)


def test_a_run_to_rest_waits_for_the_last_change() -> None:
    net = fs.LinearNetwork(5, weight_decay=fs.DecaySchedule([1e4], [0.05, 0.1]))
    traj = fs.gradient_flow(net, DATA, alpha=0.3, start=START)
    constant = fs.gradient_flow(fs.LinearNetwork(5, weight_decay=0.1), DATA, 1e4, alpha=0.3, start=START)
    assert traj.t[-1] > 1e4
    np.testing.assert_allclose(traj.beta[-1], constant.beta[-1], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.5, "1e-200"])
def test_descent_takes_a_schedule(alpha: float | str) -> None:
    """The same steps in NumPy: at 1e-200 they are linear, and the weights a matrix product."""
    schedule = fs.DecaySchedule([1.0, 2.0], [0.5, 0.0, 0.25])
    run = fs.gradient_descent(
        fs.LinearNetwork(5, weight_decay=schedule), DATA, step=0.125, n_steps=24, alpha=alpha, start=START
    )
    U, V = (float(alpha) * START[name] for name in ("U", "V"))
    for k in range(24):
        lam = schedule.rate(0.125 * k)
        G = X.T @ (Y - X @ U @ V.T) / 4
        U, V = U + 0.125 * (G @ V - lam * U), V + 0.125 * (G.T @ U - lam * V)
    np.testing.assert_allclose(run.weights["U"][-1], U, rtol=1e-9)
    np.testing.assert_allclose(run.weights["V"][-1], V, rtol=1e-9)


@pytest.mark.parametrize("t_end", [1e16, 1e100])
def test_a_start_of_ordinary_size_rests_and_the_drift_of_a_decayed_imbalance_is_not_the_rounding_of_its_exponent(
    t_end: float,
) -> None:
    traj = fs.gradient_flow(fs.LinearNetwork(5, weight_decay=0.1), DATA, t_end, alpha=0.3, start=START)
    assert traj.imbalance_drift < 1e-11
    assert traj.stats["steps"] < 200


def test_what_takes_no_schedule_says_so() -> None:
    net = fs.LinearNetwork(5, weight_decay=SCHEDULE)
    with pytest.raises(ValueError, match="`weight_decay` must be constant for the limit of a LinearNetwork"):
        fs.saddle_to_saddle(net, DATA)

    class Smooth:
        def rate(self, t: float) -> float:
            return 0.1

        def integral(self, t: float) -> float:
            return 0.1 * t

    with pytest.raises(ValueError, match="must be a number or a DecaySchedule for a LinearNetwork"):
        fs.LinearNetwork(5, weight_decay=Smooth())
    assert "a function of time" in str(fs.derive(net))
