"""Long steps of U V^T beside saddles and inside, against the closed form in hundreds of digits."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import flowsim as fs
from flowsim.solvers.frames.grown import GrownDirections, GrownPath
from flowsim.solvers.frames.problem import FrameProblem

VALUES = (2.0, 0.9, 0.3)


def whitened() -> fs.Regression:
    X = np.sqrt(8.0) * np.linalg.qr(np.random.default_rng(5).standard_normal((8, 3)))[0]
    return fs.Regression(X, X @ np.diag(VALUES))


def exact(
    rested: np.ndarray,
    W: np.ndarray,
    size: str,
    times: np.ndarray,
    values: tuple[float, ...] = VALUES,
    digits: int = 900,
) -> np.ndarray:
    """U V^T of U = V from ``rested + size W``: ``beta' = (A - beta) beta + beta (A - beta)``, a Riccati equation."""
    out = []
    with mpmath.workdps(digits):
        start = mpmath.matrix(rested.tolist()) + mpmath.mpf(size) * mpmath.matrix(W.tolist())
        for t in times.tolist():
            growth = [mpmath.exp(mpmath.mpf(t) * mpmath.mpf(rate)) for rate in values]
            gained = [(g**2 - 1) / mpmath.mpf(rate) for g, rate in zip(growth, values, strict=True)]
            grown = mpmath.diag(growth) * start
            inner = mpmath.eye(W.shape[1]) + start.T * mpmath.diag(gained) * start
            out.append(np.array((grown * mpmath.inverse(inner) * grown.T).tolist(), dtype=float))
    return np.array(out)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("learned", "size", "rtol"), [
    (0, "1e-9", 1e-6), (0, "1e-11", 1e-6),
    (0, "1e-12", 1e-6), (0, "1e-10", 1e-8), (0, "1e-30", 1e-6), (1, "1e-7", 1e-6),
])  # fmt: skip
def test_the_escape_from_beside_a_saddle_is_followed(learned: int, size: str, rtol: float) -> None:
    """What waits has parts along the row of what is learned: the product sees them in first order, and answers."""
    rested = np.zeros((3, 3))
    rested[learned, learned] = np.sqrt(VALUES[learned])
    W = np.array([[0.8, -0.5, 0.3], [0.4, 0.6, -0.9], [-0.7, 0.2, 0.5]])
    times = np.linspace(0.0, (15.0 - np.log(float(size))) / VALUES[2], 60)
    beta = exact(rested, W, size, times)
    assert np.abs(beta[-1] - np.diag(VALUES)).max() < 1e-3
    flow = fs.gradient_flow(
        fs.LinearNetwork(3), whitened(), times[-1], alpha=size, rtol=rtol, start={"U": W, "V": W},
        pretrained={"U": rested, "V": rested},
    )  # fmt: skip
    assert np.abs(flow.at(times).beta - beta).max() <= 6 * rtol


@pytest.mark.parametrize(("rtol", "decay"), [(1e-3, 0.0), (1e-6, 0.0), (1e-6, 0.1)])
def test_long_steps_are_right_inside(rtol: float, decay: float) -> None:
    """Weight decay shifts the singular values of whitened data."""
    values = tuple(value - decay for value in VALUES)
    W = np.random.default_rng(1).standard_normal((3, 4)).round(3)
    flow = fs.gradient_flow(
        fs.LinearNetwork(4, weight_decay=decay), whitened(), 250.0, alpha="1e-30", rtol=rtol, start={"U": W, "V": W}
    )  # fmt: skip
    lengths = np.diff(flow.t)
    first = 30 * np.log(10.0) / values[0]
    longest = int(np.argmax(np.where(flow.t[:-1] > first, lengths, 0.0)))
    assert lengths[longest] * values[1] > 8
    times = flow.t[longest] + np.linspace(0.0, 1.0, 31) * lengths[longest]
    inside = flow.at(times)
    assert np.abs(inside.beta - exact(np.zeros((3, 4)), W, "1e-30", times, values)).max() <= rtol
    if not decay:
        assert (np.diff(inside.loss) <= 1e-6 * rtol).all()
    assert (np.diff(inside.arclength) >= 0).all()
    assert flow.imbalance_drift <= 1e-9


def test_long_steps_are_right_inside_on_dependent_features() -> None:
    """What has grown relaxes along a weak feature while the third direction waits, against a tight tolerance."""
    X = np.array(
        [
            [0.26, 1.03, 0.85],
            [-0.39, 0.23, -0.77],
            [-2.36, 0.54, -1.06],
            [1.44, -0.65, 0.41],
            [2.67, 0.01, 0.08],
            [0.3, 0.44, 0.71],
            [-0.03, 1.13, -1.32],
            [-1.35, 0.07, 2.54],
            [-0.29, -0.21, -1.14],
            [0.6, 0.21, -0.13],
            [-0.59, 0.76, -2.25],
        ]
    )
    Y = np.array(
        [
            [0.06, 1.47, 0.95, -0.46, 3.34],
            [0.55, -0.79, 0.94, -1.4, 0.26],
            [0.76, 0.58, 6.58, -7.33, -2.1],
            [-0.54, -0.93, -4.58, 4.98, 0.59],
            [0.18, -2.17, -6, 7.08, 4.42],
            [-0.1, 1.18, -0.08, 0.92, 1.7],
            [1.16, -1.54, 2.2, -1.52, 3.19],
            [-1.97, 5.42, 3.2, -2.57, -2.79],
            [1.03, -1.36, 0.5, -0.89, -0.8],
            [0.4, -0.96, -0.93, 1.43, 1.39],
            [1.57, -2.42, 3.19, -3.29, 1.6],
        ]
    )
    U = np.array(
        [
            [1.33, -1.59, -0.47, -0.05, 0.07],
            [-1.37, 0.37, 0.69, -1.34, -0.55],
            [-1.7, -1, 0.58, -1.42, -1.5],
            [0.77, 1.24, -0.73, 0.34, 1.23],
        ]
    )
    V = np.array(
        [
            [-0.9, 0.32, -1.65, 1.13, -0.24],
            [-0.06, -0.58, -1.07, -1.45, 0.16],
            [0.02, -0.02, 0.81, 0.97, -0.13],
            [0.13, -1.27, 1.43, 0.13, 0.18],
            [0.34, 1.41, 0.39, -0.99, 0.2],
        ]
    )
    problem, net = fs.Regression(np.column_stack([X, X[:, 0]]), Y), fs.LinearNetwork(5)
    times = np.linspace(0.0, 800.0, 1200)
    runs = [
        fs.gradient_flow(net, problem, times[-1], alpha="1e-200", rtol=rtol, start={"U": U, "V": V}).at(times).beta
        for rtol in (1e-3, 1e-8)
    ]
    assert np.abs(runs[0] - runs[1]).max() <= 8e-3


@pytest.mark.parametrize("gap", [1e-3, 1e-6])
def test_near_ties_are_told_apart_from_starts_of_a_thousand_digits(gap: float) -> None:
    """Errors of a plateau are those of all its steps together; the estimate says what is left of them."""
    W = np.array([[0.8, -0.5, 0.3], [0.4, 0.6, -0.9], [-0.7, 0.2, 0.5]])
    values = (2.0, 2.0 * (1 - gap), 0.5)
    X = whitened().X
    gamma = 1000 * np.log(10.0)
    jumps = [gamma / value + np.linspace(-6.0, 12.0, 4) for value in values[::2]]
    times = np.concatenate([jumps[0], [0.6 * jumps[1][0]], jumps[1]])
    beta = exact(np.zeros((3, 3)), W, "1e-1000", times, values, 12_000)
    flow = fs.gradient_flow(
        fs.LinearNetwork(3), fs.Regression(X, X @ np.diag(values)), times[-1], alpha="1e-1000", t_eval=times,
        start={"U": W, "V": W}, estimate_error=True,
    )  # fmt: skip
    error = np.abs(flow.beta - beta).max(axis=(1, 2))
    assert error.max() <= 1e-6
    assert (error <= flow.error_estimate + 1e-9).all()


@pytest.mark.parametrize("horizon", [1e5, 1e16, 1e100])
@pytest.mark.parametrize(("width", "decay", "alpha"), [(1, 0.0, 1e-3), (3, 0.0, 1e-8), (3, 0.1, 1e-3), (3, 0.1, 1e-30)])
def test_rest_costs_no_steps_whatever_the_horizon(width: int, decay: float, alpha: float, horizon: float) -> None:
    """The end minimises loss + decay |beta|_2, the nuclear norm of one column."""
    X, y = np.array([[1.0, 0.5], [0.3, 1.0]]), np.array([1.0, 2.0])
    flow = fs.gradient_flow(fs.LinearNetwork(width, weight_decay=decay), fs.Regression(X, y), horizon, alpha=alpha)
    beta = flow.beta[-1].ravel()
    gradient = X.T @ (X @ beta - y) / 2 + decay * beta / np.linalg.norm(beta)
    assert np.abs(gradient).max() < 2e-6
    assert flow.stats["steps"] < 250


@pytest.mark.parametrize("seed", [0, 3])
def test_long_steps_share_jacobians_and_steps_into_jumps_are_foreseen(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plateau takes few long steps and two Jacobians, and few steps into a jump are rejected."""
    rng = np.random.default_rng(seed)
    problem, net = fs.Regression(rng.standard_normal((30, 8)), rng.standard_normal((30, 4))), fs.LinearNetwork(12)
    start = fs.linear_start(net, problem)
    asked, taken = [], []
    jacobian, longest = FrameProblem.jacobian, GrownDirections.longest

    def counted(self: FrameProblem, Z: np.ndarray) -> np.ndarray:
        asked.append(len(Z))
        return jacobian(self, Z)

    def recorded(self: GrownDirections, h: float, linear: float) -> float:
        out = longest(self, h, linear)
        # What the Jacobian in use misses over the step is less than what an ordinary step resolves.
        missed = jacobian(self.problem, self.Z) - jacobian(self.problem, self.origin.Z)
        taken.append(out * np.linalg.norm(missed, 2) / linear)
        return out

    monkeypatch.setattr(FrameProblem, "jacobian", counted)
    monkeypatch.setattr(GrownDirections, "longest", recorded)
    flow = fs.gradient_flow(net, problem, 3.0, alpha="1e-1000", start=start, clock="accelerated")
    jumps = len(fs.saddle_to_saddle(net, problem).jump_times)
    assert len(asked) <= 2 * jumps
    assert len(taken) <= 4 * jumps
    assert max(taken) <= 1.0
    assert flow.stats["rejected"] <= 0.12 * flow.stats["steps"]


@pytest.mark.parametrize("tol", [1e-6, 1e-9])
def test_paths_of_long_steps_solve_the_flow_of_what_has_grown(tol: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast and slow modes, from the start to the end of steps over most of a plateau, by SciPy's Radau method."""
    rng = np.random.default_rng(0)
    problem, net = fs.Regression(rng.standard_normal((30, 8)), rng.standard_normal((30, 4))), fs.LinearNetwork(12)
    taken, step = [], GrownDirections.step

    def recorded(self: GrownDirections, h: float, tol: float) -> tuple[GrownPath | None, int]:
        path, count = step(self, h, tol)
        if path is not None and path.error <= tol:
            taken.append((self.problem, self.Z.shape, path))
        return path, count

    monkeypatch.setattr(GrownDirections, "step", recorded)
    fs.gradient_flow(net, problem, 3.0, alpha="1e-1000", rtol=tol, clock="accelerated")
    places = np.concatenate([np.geomspace(1e-3, 0.1, 8), np.linspace(0.2, 1.0, 9)])
    for grown, shape, path in taken[:6]:
        R = len(grown.damping_rows)

        def field(_: float, z: np.ndarray, grown=grown, shape=shape, R=R) -> np.ndarray:
            U, V = np.split(z.reshape(shape), [R])
            G = grown.coupling.value(U @ V.T)
            return np.concatenate([G @ V, G.T @ U]).ravel()

        solved = solve_ivp(
            field, (0.0, path.h), path.start, method="Radau", rtol=1e-10, atol=1e-12, t_eval=places * path.h,
            jac=lambda _, z, grown=grown, shape=shape: grown.jacobian(z.reshape(shape)),
        )  # fmt: skip
        assert np.abs(solved.y.T - path.at(places)).max() <= 2 * tol * np.linalg.norm(path.start)
    assert max(path.h * -path.rates[0] for _, _, path in taken if len(path.rates)) > 100


def test_what_waits_is_carried_as_finely_as_what_has_grown_relaxes() -> None:
    """A second direction, of noise, hardly grows while the first relaxes many times."""
    rng = np.random.default_rng(21)
    X = rng.standard_normal((14, 7))
    Y = np.outer(X @ rng.standard_normal(7), rng.standard_normal(2)) + 1e-3 * rng.standard_normal((14, 2))
    problem, net = fs.Regression(X, Y), fs.LinearNetwork(10)
    start = fs.linear_start(net, problem)
    fine = fs.gradient_flow(net, problem, 5.0, alpha="1e-40", start=start, clock="accelerated", rtol=1e-12)
    times = np.linspace(0.0, 0.5, 60) * fine.t[-1]
    flow = fs.gradient_flow(net, problem, fine.t[-1], alpha="1e-40", start=start, rtol=1e-9)
    assert np.abs(flow.at(times).beta - fine.at(times).beta).max() <= 3e-9


def test_plateaus_under_noise_where_the_imbalance_drifts_take_long_steps() -> None:
    rng = np.random.default_rng(10)
    rng.integers(0, 9, 4)
    X, Y = rng.standard_normal((6, 5)), rng.standard_normal((6, 3))
    net, times = fs.LinearNetwork(2, noise=fs.GaussianNoise(0.005)), np.linspace(0.03, 3.0, 50)
    flow = fs.gradient_flow(net, fs.Problem(X, Y), 3.0, alpha="1e-1000", clock="accelerated")
    close = fs.gradient_flow(net, fs.Problem(X, Y), 3.0, alpha="1e-1000", clock="accelerated", rtol=1e-8)
    assert flow.stats["steps"] < 200  # several times as many if steps are those of growth
    beta, right = (each.at(times, "accelerated").beta for each in (flow, close))
    assert np.linalg.matrix_rank(right[-1]) == 2
    np.testing.assert_allclose(beta, right, atol=2e-6 * np.abs(right).max())
