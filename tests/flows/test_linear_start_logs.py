"""Starts of linear networks in logarithms, every factor at a scale of its own."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import flowsim as fs

RNG = np.random.default_rng(0)
X, U, V = (RNG.standard_normal(shape) for shape in ((12, 3), (3, 4), (2, 4)))
PROBLEM, NET = fs.Regression(X, X @ RNG.standard_normal((3, 2))), fs.LinearNetwork(4)


def logs(weights: np.ndarray, shift: float) -> fs.Logs:
    return fs.Logs(np.sign(weights), np.log(np.abs(weights)) + shift)


def test_logarithms_are_the_same_start_as_floats_where_floats_can_hold_it() -> None:
    given = {"U": logs(U, -300.0), "V": logs(V, -20.0)}
    traj = fs.gradient_flow(NET, PROBLEM, 300.0, start=given, rtol=1e-9, t_eval=np.linspace(0, 300, 61))
    floats = {"U": U * np.exp(-300.0), "V": V * np.exp(-20.0)}
    plain = fs.gradient_flow(NET, PROBLEM, 300.0, start=floats, rtol=1e-9, t_eval=traj.t)
    np.testing.assert_allclose(traj.beta, plain.beta, atol=1e-7)
    assert traj.imbalance_drift < 1e-9


def test_far_below_floats_the_larger_factor_sets_the_time_of_the_jumps() -> None:
    """U = exp(-3000) beside V = exp(-2000): what V has of the fastest direction grows, and takes U along."""
    traj = fs.gradient_flow(NET, PROBLEM, 8000.0, start={"U": logs(U, -3000.0), "V": logs(V, -2000.0)})
    np.testing.assert_allclose(traj.log_abs_weights["V"][0], np.log(np.abs(V)) - 2000.0, atol=1e-9)
    np.testing.assert_allclose(traj.beta[-1], np.linalg.lstsq(X, PROBLEM.y, rcond=None)[0], atol=1e-6)
    path = fs.saddle_to_saddle(NET, PROBLEM)
    half = PROBLEM.loss(np.zeros((3, 2))) / 2 + path.losses[1] / 2
    crossed = float(np.interp(-half, -traj.loss, traj.t))
    assert crossed == pytest.approx(2000.0 * path.jump_times[0], rel=0.01)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("noise", [None, fs.GaussianNoise(0.1)])
def test_both_parts_of_a_start_count_however_narrow_the_network(width: int, noise: fs.Noise | None) -> None:
    """The first part has all of the width: what the second adds lies outside its span, and is not to be lost."""
    net, u, v = fs.LinearNetwork(width, noise=noise), U[:, :width], V[:, :width]
    flow = functools.partial(fs.gradient_flow, net, PROBLEM, 5.0, t_eval=np.linspace(0.0, 5.0, 11), rtol=1e-9)
    whole = flow(alpha=1.0, start={"U": u, "V": v})
    separate = flow(start={"U": logs(u, 0.0), "V": logs(v, 0.0)})
    np.testing.assert_allclose(separate.beta, whole.beta, atol=1e-7)
    before = {"U": np.roll(u, 1, axis=0) / 2, "V": np.roll(v, 1, axis=0) / 2}
    rest = {"U": 2 * (u - before["U"]), "V": 2 * (v - before["V"])}
    added = flow(alpha=0.5, start=rest, pretrained=before)
    np.testing.assert_allclose(added.beta, whole.beta, atol=1e-7)
    np.testing.assert_allclose(added.weights["U"][0] @ added.weights["V"][0].T, u @ v.T, atol=1e-12)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"U": logs(U, 0.0), "V": fs.Logs(1, [0.0, 1.0])}, r"`start\['V'\]` must have shape \(2, 4\)"),
        ({"U": fs.Logs(1, np.where(U > 0, 0.0, -1000.0)), "V": V}, "must not hold entries below"),
        ({"U": fs.Logs(0, 0.0), "V": fs.Logs(0, 0.0)}, "must not be zero everywhere"),
        ({"U": logs(U, 0.0)}, "'V' is missing"),
        ({"U": logs(U, 0.0), "V": V, "W": logs(V, 0.0)}, "unknown weight 'W'"),
    ],
)
def test_what_does_not_fit_is_named(start: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.gradient_flow(NET, PROBLEM, 4.0, start=start)
