"""Divergence is an error with the run so far; bad arguments are named."""

from __future__ import annotations

import numpy as np
import pytest

import flowsim as fs

NET = fs.DiagonalNetwork("u*v")


@pytest.mark.parametrize("coordinates", ["growth", "weights"])
def test_divergence_raises_with_the_trajectory_up_to_the_last_finite_state(problem, coordinates) -> None:
    with pytest.raises(
        fs.IntegrationError, match=r"diverged: its loss left the range of floats at step \d+ of 400"
    ) as caught:
        fs.gradient_descent(NET, problem, 2.0, 400, alpha=0.5, record_every=50, coordinates=coordinates)
    traj = caught.value.trajectory
    assert traj is not None
    assert not traj.success
    assert "diverged" in traj.message
    assert np.isfinite(traj.loss).all()
    assert np.isfinite(traj.beta).all()
    again = fs.gradient_descent(NET, problem, 2.0, round(traj.t[-1] / 2.0), alpha=0.5, coordinates=coordinates)
    np.testing.assert_array_equal(again.beta[-1], traj.beta[-1])
    assert traj.loss[-1] > 1e20


def test_a_schedule_that_diverges_at_its_first_step_says_so_and_returns_the_start() -> None:
    steep = fs.Problem([[1.0, 2.0]], [-1.0], loss="exponential")
    with pytest.raises(fs.IntegrationError, match="diverged: .* at step 1 of 30") as caught:
        fs.gradient_descent(fs.DiagonalNetwork("u*v + w"), steep, lambda k: 0.1 / (1 + k), 30, alpha=1.0)
    assert caught.value.trajectory is not None
    np.testing.assert_array_equal(caught.value.trajectory.t, [0.0])


def test_a_start_whose_loss_is_no_float_is_refused(problem) -> None:
    with pytest.raises(fs.IntegrationError, match="the loss at the start is beyond .* smaller `start`"):
        fs.gradient_descent(NET, problem, 0.1, 10, alpha="1e200", start={"u": 1.0, "v": 0.5})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0.0}, r"`step` must be > 0; received 0.0"),
        ({"step": "a"}, r"`step` must be a number; received 'a'"),
        ({"step": float("nan")}, r"`step` must be finite; received nan"),
        ({"n_steps": 0}, r"`n_steps` must be an integer >= 1; received 0"),
        ({"n_steps": 2.5}, r"`n_steps` must be an integer >= 1; received 2.5"),
        ({"alpha": -0.1}, r"`alpha` must be > 0"),
        ({"batch_size": 0}, r"`batch_size` must be an integer >= 1; received 0"),
        ({"batch_size": 7}, r"`batch_size` must be at most n = 6; received 7"),
        ({"label_noise": -1.0}, r"`label_noise` must be >= 0; received -1.0"),
        ({"label_noise": fs.GaussianNoise(0.1, multiplicative=True)}, r"`label_noise` must be additive"),
        ({"seed": -1}, r"`seed` must be an integer >= 0"),
        ({"seed": 1.5}, r"`seed` must be an integer >= 0"),
        ({"record_every": 0}, r"`record_every` must be an integer >= 1; received 0"),
        ({"momentum": 1.0}, r"`momentum` must lie in \[0, 1\); received 1.0"),
        ({"nesterov": True}, r"`nesterov` needs `momentum` > 0"),
        ({"shuffle": True}, "`shuffle` needs `batch_size`; received None"),
        ({"radius": 0.0}, r"`radius` must be > 0; received 0.0"),
        ({"radius": 1e-3}, r"`radius` must hold the start"),
        ({"coordinates": "polar"}, r"`coordinates` must be one of auto, growth, weights; received 'polar'"),
        ({"coordinates": "growth", "radius": 9.0}, r"`coordinates` cannot be 'growth' for .*`radius` bounds"),
        ({"start": {"u": 0.0, "v": 0.0}}, r"`start` must not be zero everywhere"),
        ({"net": "u*v"}, r"`net` must be a DiagonalNetwork or LinearNetwork; received str"),
        ({"problem": 3}, r"`problem` must be a Problem; received int"),
        ({"net": fs.DiagonalNetwork("u*tanh(v)"), "alpha": "1e-400"}, r"below the range of floats"),
        ({"net": fs.DiagonalNetwork(depth=3), "alpha": "1e-400"}, r"`alpha` = 1e-400 puts the time scale"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(problem, options, message) -> None:
    arguments = {"net": NET, "problem": problem, "step": 0.01, "n_steps": 10, "alpha": 0.1} | options
    with pytest.raises(ValueError, match=message):
        fs.gradient_descent(**arguments)


def test_several_targets_need_a_linear_network() -> None:
    with pytest.raises(ValueError, match="single target"):
        fs.gradient_descent(NET, fs.Regression(np.eye(2), np.eye(2)), 0.1, 10, alpha=0.1)


@pytest.mark.parametrize("every", [1, 3, 10, 99])
def test_the_first_and_the_last_state_are_always_kept(problem, every) -> None:
    everything = fs.gradient_descent(NET, problem, 0.02, 25, alpha=0.1)
    traj = fs.gradient_descent(NET, problem, 0.02, 25, alpha=0.1, record_every=every)
    steps = sorted({*range(0, 26, every), 25})
    np.testing.assert_array_equal(traj.t, 0.02 * np.array(steps))
    np.testing.assert_array_equal(traj.beta, everything.beta[steps])
    np.testing.assert_allclose(traj.arclength, everything.arclength[steps], rtol=1e-14)


def test_a_descent_survives_its_file(problem, tmp_path) -> None:
    traj = fs.gradient_descent(NET, problem, 0.02, 20, alpha="1e-1000", batch_size=2)
    again = fs.load(traj.save(tmp_path / "descent.nc"))
    np.testing.assert_array_equal(again.beta, traj.beta)
    assert again.info["seed"] == traj.info["seed"]
    with pytest.raises(ValueError, match="no dense output"):
        traj.at(0.01)
