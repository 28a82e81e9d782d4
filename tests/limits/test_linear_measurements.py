"""The limit process on linear measurements of a matrix against regressions, truncated SVDs and flows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flowsim as fs

RNG = np.random.default_rng(0)
LOW_RANK = RNG.standard_normal((6, 2)) @ RNG.standard_normal((2, 5))
SEEN = [(i, j, LOW_RANK[i, j]) for i, j in zip(*np.nonzero(RNG.random((6, 5)) < 0.7), strict=True)]
COMPLETION = fs.MatrixCompletion(SEEN, (6, 5))


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_one_measurement_for_each_target_is_a_regression_whose_time_runs_m_times_slower(decay: float) -> None:
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((12, 3)), rng.standard_normal((12, 2))
    A = np.einsum("ki,jl->kjil", X, np.eye(2)).reshape(24, 3, 2)
    regression = fs.saddle_to_saddle(fs.LinearNetwork(5, weight_decay=decay), fs.Regression(X, Y))
    sensing = fs.saddle_to_saddle(fs.LinearNetwork(5, weight_decay=decay / 2), fs.MatrixSensing(A, Y.ravel()))
    np.testing.assert_allclose(sensing.jump_times, 2 * regression.jump_times, rtol=1e-9)
    np.testing.assert_allclose(sensing.saddles, regression.saddles, atol=1e-9)
    np.testing.assert_allclose(sensing.losses, regression.losses / 2, rtol=1e-8)
    t = 0.5 * float(regression.jump_times.sum())
    np.testing.assert_allclose(sensing.levels(2 * t), regression.levels(t), atol=1e-8)


def test_a_matrix_seen_as_a_whole_is_learned_as_its_truncated_decompositions() -> None:
    rng = np.random.default_rng(2)
    target = rng.standard_normal((4, 3))
    A = np.linalg.qr(rng.standard_normal((12, 12)))[0].reshape(12, 4, 3)
    problem = fs.MatrixSensing(A, np.einsum("kij,ij->k", A, target))
    left, values, right = np.linalg.svd(target, full_matrices=False)
    entries = [(i, j, target[i, j]) for i in range(4) for j in range(3)]
    for each, n in ((fs.MatrixCompletion(entries, (4, 3)), 12), (problem, 12)):
        whole = fs.saddle_to_saddle(fs.LinearNetwork(7), each)
        np.testing.assert_allclose(whole.jump_times, n / values, rtol=1e-12)
        np.testing.assert_allclose(whole.saddles[2], (left[:, :2] * values[:2]) @ right[:2], atol=1e-12)
    twice = fs.MatrixCompletion([*entries, entries[0]], (4, 3))
    path = fs.saddle_to_saddle(fs.LinearNetwork(7), twice)
    np.testing.assert_allclose(path.end, (left * values) @ right, atol=1e-10)
    S = twice.rmatvec(twice.y) / twice.n
    assert path.jump_times[0] == pytest.approx(1 / np.linalg.norm(S, 2), rel=1e-12)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("problem", [COMPLETION, fs.MatrixSensing(COMPLETION.A[:14], COMPLETION.y[:14] + 0.1)])
def test_flows_end_their_plateaus_at_the_saddles(problem: fs.MatrixSensing) -> None:
    net = fs.LinearNetwork(11)
    path = fs.saddle_to_saddle(net, problem)
    assert len(path.jump_times) >= 2
    ends = np.append(path.jump_times[1:], 3 * path.jump_times[-1])
    late = path.jump_times + 0.9 * (ends - path.jump_times)
    traj = fs.gradient_flow(
        net, problem, ends[-1], alpha="1e-2000", clock="accelerated", t_eval=[0.0, *late], rtol=1e-8
    )
    np.testing.assert_allclose(traj.beta[1:], path.beta(late), atol=1e-6)


def test_a_path_is_saved_followed_and_evaluated(tmp_path: Path) -> None:
    path = fs.saddle_to_saddle(fs.LinearNetwork(11), COMPLETION)
    path.save(tmp_path / "path.nc")
    again = fs.load(tmp_path / "path.nc")
    np.testing.assert_array_equal(again.saddles, path.saddles)
    np.testing.assert_array_equal(again.problem.A, COMPLETION.A)
    np.testing.assert_allclose(path.risk(COMPLETION), path.losses, atol=1e-12)
    assert path.curve_loss(0.0) == pytest.approx(COMPLETION.loss(np.zeros((6, 5))))
    assert "MatrixCompletion" in COMPLETION._repr_html_()


def test_parts_that_no_entry_connects_and_uneven_noise_are_refused() -> None:
    apart = fs.MatrixCompletion([(0, 0, 3.0), (0, 1, 1.0), (1, 0, 1.0), (2, 2, 1.0)], (3, 3))
    with pytest.raises(ValueError, match="must not decouple"):
        fs.saddle_to_saddle(fs.LinearNetwork(7), apart)
    with pytest.raises(ValueError, match="must damp all columns of V alike"):
        fs.saddle_to_saddle(fs.LinearNetwork(11, noise=fs.GaussianNoise(0.1)), COMPLETION)
    with pytest.raises(ValueError, match="must act on U and V alike"):
        fs.saddle_to_saddle(fs.LinearNetwork(11, noise=fs.GaussianNoise({"U": 0.1, "V": 0.0})), COMPLETION)
    with pytest.raises(ValueError, match="must have features X"):
        fs.certify(fs.LinearNetwork(11), COMPLETION)
    with pytest.raises(ValueError, match="not 0 at beta = 0"):
        fs.saddle_to_saddle(fs.LinearNetwork(11), COMPLETION.with_target(0 * COMPLETION.y))


def test_a_completion_without_a_best_fit_of_a_rank_has_no_limit_and_says_so() -> None:
    """Rank 1 fits the first row and the only entry of the last column as (1, 0) goes to 0 and (0, 2) to infinity."""
    entries = [(0, 0, 2.0), (0, 0, 1.8), (0, 1, 1.0), (1, 1, -1.5), (1, 0, 0.7), (1, 2, 1.0)]
    with pytest.raises(fs.IntegrationError, match=r"beta still grows .* no matrix of that rank may attain"):
        fs.saddle_to_saddle(fs.LinearNetwork(3), fs.MatrixCompletion(entries, (2, 3)))
