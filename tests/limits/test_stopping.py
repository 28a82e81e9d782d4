"""Risk on other data and early stopping."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

import flowsim as fs

matplotlib.use("Agg")

RNG = np.random.default_rng(3)
TRUE = np.array([2.0, -1.5, 0, 0, 0, 0, 0, 0, 0, 0])
X, XT = RNG.standard_normal((30, 10)), RNG.standard_normal((400, 10))
TRAIN = fs.Regression(X, X @ TRUE + 0.7 * RNG.standard_normal(30))
TEST = fs.Regression(XT, XT @ TRUE)
NET = fs.DiagonalNetwork("u*v")


def test_risk_is_the_loss_on_the_other_data() -> None:
    traj = fs.gradient_flow(NET, TRAIN, 20.0, alpha=1e-3)
    expected = [np.sum((XT @ (beta - TRUE)) ** 2) / 800 for beta in traj.beta]
    np.testing.assert_allclose(traj.risk(TEST), expected, rtol=1e-12)
    path = fs.saddle_to_saddle(NET, TRAIN)
    expected = [np.sum((XT @ (beta - TRUE)) ** 2) / 800 for beta in path.saddles]
    np.testing.assert_allclose(path.risk(TEST), expected, rtol=1e-12)
    linear = fs.saddle_to_saddle(fs.LinearNetwork(3), fs.Regression(X, TRAIN.y[:, None] * [1.0, 0.5]))
    risk = linear.risk(fs.Regression(XT, TEST.y[:, None] * [1.0, 0.5]))
    assert risk.shape == (len(linear.jump_times) + 1,) and risk[-1] < risk[0]
    with pytest.raises(ValueError, match="features"):
        traj.risk(fs.Regression([[1.0]], [1.0]))


def test_the_path_stops_at_the_least_risk() -> None:
    path = fs.saddle_to_saddle(NET, TRAIN)
    stop, risk = path.stop(TEST), path.risk(TEST)
    assert stop.plateau == np.argmin(risk) and stop.value == risk.min()
    assert path.beta((stop.begins + min(stop.ends, stop.begins + 1)) / 2) == pytest.approx(stop.beta)
    assert set(np.flatnonzero(stop.beta)) >= {0, 1}


def test_the_null_gradient_stops_where_noise_alone_is_left() -> None:
    """One feature: max |x . eps| / (n sigma) is |N(0, s^2 / n)|, with quantile 1.96 s / sqrt(n) at .95."""
    from flowsim.limits.stopping import null_level

    one = fs.Regression(X[:, :1], TRAIN.y)
    assert null_level(one, 0.7, 0.95, 20_000, 0) == pytest.approx(1.959964 * 0.7 / np.sqrt(30), rel=0.03)
    path = fs.saddle_to_saddle(NET, TRAIN)
    stop = path.stop(noise=0.7)
    assert set(np.flatnonzero(stop.beta)) == {0, 1}
    before = path.saddles[stop.plateau - 1]
    assert stop.value <= stop.level < np.abs(TRAIN.gradient(before) / np.sqrt(TRAIN.feature_variances)).max()
    assert path.stop(noise=1e-9).plateau == len(path.jump_times)
    for bad in ({}, {"noise": -1.0}, {"noise": 1.0, "level": 2.0}):
        with pytest.raises(ValueError, match="`noise`|`level`"):
            path.stop(**bad)


def test_training_loss_and_test_risk_are_drawn_together() -> None:
    import matplotlib.pyplot as plt

    path = fs.saddle_to_saddle(NET, TRAIN)
    traj = fs.gradient_flow(NET, TRAIN, 2.0, alpha=1e-3, clock="accelerated")
    for run in (path, traj):
        axes = fs.plot.train_test(run, TEST)
        labels = [line.get_label() for line in axes.get_lines()]
        assert labels == ["training loss", "test risk", "_least"]
        plt.close("all")
    long = fs.gradient_flow(NET, TRAIN, 1000.0, alpha=1e-3, clock="accelerated")
    axes = fs.plot.train_test(long, TEST)
    assert axes.get_xscale() == "log" and 0 < axes.get_xlim()[0] < path.jump_times[0]
    assert axes.get_xlim()[1] == 1000.0
    plt.close("all")


def test_other_features_are_refused_by_the_name_of_the_argument() -> None:
    path, other = (
        fs.saddle_to_saddle(NET, fs.Regression(np.eye(3), [1.0, 2.0, 3.0])),
        fs.Regression(np.eye(2), [1.0, 2.0]),
    )
    for use in (path.risk, path.stop):
        with pytest.raises(ValueError, match="`problem` must have d=3 features; received 2"):
            use(other)
