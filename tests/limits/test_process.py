"""The limit process against closed forms, LARS and the Lasso."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from sklearn.linear_model import Lasso, lars_path

import flowsim as fs

NET = fs.DiagonalNetwork("u*v")
FOUR = fs.Regression([[1, 0.5, 0.7, 0], [0.5, 1, 0.1, 0.7]], [1.0, 0.0])


def test_the_four_feature_fixture_is_met_exactly() -> None:
    path = fs.saddle_to_saddle(NET, FOUR)
    np.testing.assert_allclose(path.jump_times, [2, 8, 552 / 49], rtol=1e-14)
    expected = [[0, 0, 0, 0], [0.8, 0, 0, 0], [0, 0, 1.4, 0], [0, 0, 10 / 7, -10 / 49]]
    np.testing.assert_allclose(path.saddles, expected, atol=1e-14)
    assert [active.tolist() for active in path.active_sets] == [[], [0], [2], [2, 3]]
    assert [(e.jump, e.coordinate, e.sign, e.kind) for e in path.events] == [
        (0, 0, 1, "activated"),
        (1, 0, 1, "deactivated"),
        (1, 2, 1, "activated"),
        (2, 3, -1, "activated"),
    ]


def test_a_coordinate_changes_sign_on_the_published_draw() -> None:
    rng = np.random.default_rng(0)
    for _ in range(77):
        X, y = rng.standard_normal((3, 6)), rng.standard_normal(3)
    path = fs.saddle_to_saddle(NET, fs.Regression(X, y))
    np.testing.assert_allclose(path.jump_times, [0.50, 1.28, 1.33, 2.55, 7.73], atol=0.005)
    assert np.sign(path.saddles[:, 0]).tolist() == [0, 0, -1, 0, 0, 1]


def test_an_orthogonal_design_jumps_at_one_over_the_correlation() -> None:
    rng = np.random.default_rng(3)
    X = np.linalg.qr(rng.standard_normal((9, 5)))[0] * 3.0
    y = rng.standard_normal(9)
    path = fs.saddle_to_saddle(NET, fs.Regression(X, y))
    c = X.T @ y / 9
    np.testing.assert_allclose(path.jump_times, np.sort(1 / np.abs(c)), rtol=1e-13)
    np.testing.assert_allclose(path.end, c, rtol=1e-12)


def first_deactivation(path: fs.SaddlePath) -> float:
    return min((e.time for e in path.events if e.kind == "deactivated"), default=np.inf)


def test_diabetes_jumps_are_lars_knots_and_time_averages_are_lassos_up_to_the_first_deactivation() -> None:
    problem = fs.datasets.diabetes()
    path = fs.saddle_to_saddle(NET, problem)
    knots = 1 / lars_path(problem.X, problem.y, method="lasso", alpha_min=0)[0][:-1]
    until = first_deactivation(path)
    early = path.jump_times < until
    assert early.sum() == 8
    np.testing.assert_allclose(path.jump_times[early], knots[:8], rtol=1e-9)
    for t in np.geomspace(path.jump_times[0] * 1.1, until * 0.999, 12):
        lasso = Lasso(alpha=1 / t, fit_intercept=False, tol=1e-15, max_iter=10**6).fit(problem.X, problem.y)
        np.testing.assert_allclose(path.time_average(t), lasso.coef_, atol=1e-8 * np.abs(lasso.coef_).max())
    np.testing.assert_allclose(path.end, np.linalg.lstsq(problem.X, problem.y)[0], rtol=1e-9)


def test_beta_is_continuous_from_the_right_and_the_end_lasts() -> None:
    path = fs.saddle_to_saddle(NET, FOUR)
    t = path.jump_times[1]
    np.testing.assert_array_equal(path.beta(t), path.saddles[2])
    np.testing.assert_array_equal(path.beta(np.nextafter(t, 0)), path.saddles[1])
    np.testing.assert_array_equal(path.beta([0.0, 1e300, np.inf]), path.saddles[[0, 3, 3]])


def test_the_time_average_is_the_integral_of_beta() -> None:
    path = fs.saddle_to_saddle(NET, FOUR)
    np.testing.assert_allclose(path.time_average(10.0), (6 * path.saddles[1] + 2 * path.saddles[2]) / 10, rtol=1e-14)
    np.testing.assert_array_equal(path.time_average([0.0, 1.0]), np.zeros((2, 4)))
    np.testing.assert_array_equal(path.time_average(np.inf), path.end)


@pytest.mark.parametrize("t", [-1.0, np.nan, [0.0, np.nan]])
def test_a_negative_or_undefined_time_is_refused(t: object) -> None:
    path = fs.saddle_to_saddle(NET, FOUR)
    with pytest.raises(ValueError, match="`t` must be >= 0"):
        path.beta(t)
    with pytest.raises(ValueError, match="`t` must be >= 0"):
        path.time_average(t)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_duplicates_share_equally_and_jump_together(sign: float) -> None:
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((6, 4)), rng.standard_normal(6)
    single = fs.saddle_to_saddle(NET, fs.Regression(X, y))
    double = fs.saddle_to_saddle(NET, fs.Regression(np.column_stack([X, sign * X[:, 2]]), y))
    np.testing.assert_allclose(double.jump_times, single.jump_times, rtol=1e-12)
    np.testing.assert_allclose(double.saddles[:, 2], single.saddles[:, 2] / 2, atol=1e-13)
    np.testing.assert_allclose(double.saddles[:, 4], sign * single.saddles[:, 2] / 2, atol=1e-13)
    others = [0, 1, 3]
    np.testing.assert_allclose(double.saddles[:, others], single.saddles[:, others], atol=1e-12)


def test_the_order_of_columns_does_not_matter_even_with_ties_and_dependence() -> None:
    rng = np.random.default_rng(11)
    base = rng.integers(-2, 3, (4, 5)).astype(float)
    X = np.column_stack([base, base[:, :3], -base[:, 1:3], base[:, 0] + base[:, 1]])
    y = rng.integers(-3, 4, 4).astype(float)
    reference = fs.saddle_to_saddle(NET, fs.Regression(X, y))
    for _ in range(20):
        order = rng.permutation(X.shape[1])
        path = fs.saddle_to_saddle(NET, fs.Regression(X[:, order], y))
        np.testing.assert_allclose(path.jump_times, reference.jump_times, rtol=1e-12)
        np.testing.assert_allclose(path.saddles, reference.saddles[:, order], atol=1e-12)


@pytest.mark.parametrize("exponent", [-100, -30, 30, 100])
def test_rescaled_data_give_the_same_path_in_rescaled_time(exponent: int) -> None:
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((10, 6)), rng.standard_normal(10)
    scale = 2.0**exponent
    path = fs.saddle_to_saddle(NET, fs.Regression(X, y))
    scaled = fs.saddle_to_saddle(NET, fs.Regression(scale * X, y))
    np.testing.assert_allclose(scaled.jump_times * scale, path.jump_times, rtol=1e-12)
    np.testing.assert_allclose(scaled.saddles * scale, path.saddles, atol=1e-12)


def test_no_jump_is_made_of_rounding_after_convergence() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n, d, rank = rng.integers(2, 12), rng.integers(2, 30), rng.integers(1, 6)
        X = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d))
        path = fs.saddle_to_saddle(NET, fs.Regression(X, rng.standard_normal(n)))
        assert len(path.active_sets[-1]) <= min(n, rank)
        assert path.jump_times[-1] < 1e8


def test_sparse_data_and_operators_give_the_dense_path() -> None:
    rng = np.random.default_rng(8)
    X = scipy.sparse.csr_array(np.where(rng.random((20, 60)) < 0.3, rng.random((20, 60)), 0.0))
    y = rng.standard_normal(20)
    dense = fs.saddle_to_saddle(NET, fs.Regression(X.toarray(), y))
    for form in (X, X.tocsc(), aslinearoperator(X)):
        path = fs.saddle_to_saddle(NET, fs.Regression(form, y))
        np.testing.assert_allclose(path.jump_times, dense.jump_times, rtol=1e-10)
        np.testing.assert_allclose(path.saddles, dense.saddles, atol=1e-10)
        passes = len(path.jump_times)  # none after interpolation; over sparse data each brings two products
        assert path.stats["gradients"] == (passes if isinstance(form, LinearOperator) else 2 * passes)


def test_a_path_stopped_early_knows_how_far_it_reaches() -> None:
    full = fs.saddle_to_saddle(NET, FOUR)
    short = fs.saddle_to_saddle(NET, FOUR, max_jumps=2)
    assert not short.complete
    assert short.horizon == pytest.approx(full.jump_times[2])
    np.testing.assert_array_equal(short.beta(11.0), full.beta(11.0))
    with pytest.raises(ValueError, match="where the path was stopped"):
        short.beta(12.0)
    with pytest.raises(ValueError, match="has not reached its end"):
        short.end  # noqa: B018
    assert fs.saddle_to_saddle(NET, FOUR, t_end=5.0).horizon == 5.0


def test_the_dual_stays_between_its_walls_and_touches_them_on_the_support() -> None:
    problem = fs.datasets.diabetes()
    path = fs.saddle_to_saddle(NET, problem)
    times = np.concatenate([path.jump_times, path.jump_times * 1.01])
    s, beta = path.dual(times), path.beta(times)
    assert np.abs(s).max() <= 1 + 1e-9
    np.testing.assert_allclose(s[beta != 0], np.sign(beta[beta != 0]), rtol=1e-9)


def test_given_thresholds_and_penalties_replace_the_networks_own() -> None:
    path = fs.saddle_to_saddle(NET, FOUR, thresholds=(2.0, [2.0, 2, 2, 2]))
    np.testing.assert_allclose(path.jump_times, [4, 16, 2 * 552 / 49], rtol=1e-13)
    assert len(fs.saddle_to_saddle(NET, FOUR, penalties=(10.0, 10.0)).jump_times) == 0
    never = fs.saddle_to_saddle(NET, FOUR, thresholds=(np.inf, 1.0))
    assert never.end.max() <= 0


def test_a_zero_target_never_moves() -> None:
    path = fs.saddle_to_saddle(NET, fs.Regression(np.eye(3), np.zeros(3)))
    assert len(path.jump_times) == 0
    np.testing.assert_array_equal(path.end, np.zeros(3))


@pytest.mark.parametrize("exponent", [14, 20, 60, -60])
@pytest.mark.parametrize("kind", ["noise", "decay"])
def test_features_of_any_size_have_the_same_end_under_noise_and_decay(kind: str, exponent: int) -> None:
    """Gradients, and the penalties of noise and decay with them, may be large: the end is the Lasso's at any size."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((6, 4)), rng.standard_normal(6)
    problem = fs.Regression(np.ldexp(X, exponent), np.ldexp(y, exponent))
    decay = np.ldexp(0.05, 2 * exponent) if kind == "decay" else 0.0
    net = fs.DiagonalNetwork("u*v", noise=None if decay else fs.GaussianNoise(0.1), weight_decay=float(decay))
    path = fs.saddle_to_saddle(net, problem)
    penalty = 0.05 if decay else 0.01 * (X**2).mean(axis=0)
    np.testing.assert_allclose(path.end, fs.studies.weighted_lasso(fs.Regression(X, y), penalty), atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"thresholds": (0.0, 1.0)}, "`thresholds` must be > 0; received 0.0"),
        ({"thresholds": (np.nan, 1.0)}, "`thresholds` must be > 0"),
        ({"thresholds": 1.0}, "`thresholds` must be a pair"),
        ({"thresholds": ([1.0, 2.0], 1.0)}, "`thresholds` must hold numbers or arrays"),
        ({"penalties": (-1.0, 1.0)}, "`penalties` must be >= 0"),
        ({"max_jumps": -1}, "`max_jumps` must be an integer >= 0"),
        ({"max_jumps": np.nan}, "`max_jumps` must be an integer >= 0; received nan"),
        ({"max_jumps": np.inf}, "`max_jumps` must be an integer >= 0; received inf"),
        ({"t_end": np.nan}, "`t_end` must be a number > 0"),
        ({"t_end": "3"}, "`t_end` must be a number > 0; received '3'"),
        ({"start": {"u": 0.0, "v": [0.0, 0.0, 0.0, 0.0]}}, "`start` must not be zero everywhere"),
        ({"start": {"u": 1.0}}, "'v' is missing"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fs.saddle_to_saddle(NET, FOUR, **arguments)


def test_other_networks_and_several_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="`net` must be a DiagonalNetwork or LinearNetwork; received str"):
        fs.saddle_to_saddle("u*v", FOUR)
    with pytest.raises(ValueError, match="`problem` must have a single target"):
        fs.saddle_to_saddle(NET, fs.Regression(np.eye(2), np.eye(2)))


def test_a_target_of_one_column_is_a_vector() -> None:
    path = fs.saddle_to_saddle(NET, fs.Regression(FOUR.X, FOUR.y[:, None]))
    np.testing.assert_allclose(path.jump_times, [2, 8, 552 / 49], rtol=1e-14)


def test_jumps_of_a_robust_loss_that_rounding_decides_point_to_no_rational_arithmetic() -> None:
    # Residuals 1e6 times the bend of a robust loss.
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 5))
    y = X @ [1.0, -2.0, 0.5, 0.0, 0.0] + 0.1 * rng.standard_normal(12)
    robust = fs.saddle_to_saddle(NET, fs.Problem(X, 1e7 * y, "pseudo-huber"))
    np.testing.assert_allclose(
        robust.jump_times, fs.saddle_to_saddle(NET, fs.Problem(X, 1e5 * y, "pseudo-huber")).jump_times, rtol=1e-3
    )
    assert "late jumps are uncertain" in robust.message and "exact" not in robust.message


def test_jumps_that_rounding_decides_are_announced() -> None:
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.standard_normal((60, 30)))[0], np.linalg.qr(rng.standard_normal((30, 30)))[0]
    y = rng.standard_normal(60)
    X = (left * np.logspace(0, -11, 30)) @ right
    bad = fs.saddle_to_saddle(NET, fs.Regression(X, y))
    assert "late jumps are uncertain" in bad.message and bad.message.endswith(", exact=True resolves them")
    good = fs.saddle_to_saddle(NET, fs.Regression((left * np.logspace(0, -2, 30)) @ right, y))
    assert good.message == "reached the minimiser to rounding"
    assert good.stats["dual_rounding"] < 1e-9


@pytest.mark.parametrize("exponent", [-900, 900])
def test_targets_near_the_ends_of_the_float_range_are_scaled(exponent: int) -> None:
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((10, 6)), rng.standard_normal(10)
    path = fs.saddle_to_saddle(NET, fs.Regression(X, y))
    scaled = fs.saddle_to_saddle(NET, fs.Regression(X, 2.0**exponent * y))
    np.testing.assert_allclose(np.ldexp(scaled.jump_times, exponent), path.jump_times, rtol=1e-12)
    np.testing.assert_allclose(np.ldexp(scaled.end, -exponent), path.end, rtol=1e-9)


@pytest.mark.parametrize("net", [NET, fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.25))], ids=str)
@pytest.mark.parametrize("exponents", [(-500, -500), (190, 190), (400, 380), (-700, 0)])
def test_powers_of_two_in_the_data_change_the_path_by_nothing(
    net: fs.DiagonalNetwork, exponents: tuple[int, int]
) -> None:
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((8, 6)), rng.standard_normal(8)
    p, q = exponents
    if net.noise is not None and p != q:
        pytest.skip("noise has a scale of its own: beta must keep its size")
    for form in (np.asarray, scipy.sparse.csr_array):
        path = fs.saddle_to_saddle(net, fs.Regression(form(X), y))
        scaled = fs.saddle_to_saddle(net, fs.Regression(form(np.ldexp(X, p)), np.ldexp(y, q)))
        np.testing.assert_array_equal(np.ldexp(scaled.jump_times, p + q), path.jump_times)
        np.testing.assert_array_equal(np.ldexp(scaled.end, p - q), path.end)


@pytest.mark.parametrize("exact", [False, True])
def test_jumps_later_than_the_largest_float_are_announced(exact: bool) -> None:
    """Jump times are 1 / y and 2 / y."""
    problem = fs.Regression(np.eye(2) * np.sqrt(2), np.array([1e-308, 2.5e-309]) * np.sqrt(2))
    path = fs.saddle_to_saddle(NET, problem, exact=exact)
    np.testing.assert_allclose(path.jump_times, [1e308], rtol=1e-12)
    assert not path.complete and "comes later than 1.8e+308" in path.message
    np.testing.assert_allclose(path.saddles[-1], [1e-308, 0.0], rtol=1e-12)


def test_columns_of_incomparable_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="squares, relative to those of its largest entry"):
        fs.saddle_to_saddle(NET, fs.Regression(np.diag([1e-200, 1e-5]), [1.0, 2.0]))


@pytest.mark.parametrize(("n", "jumps"), [(8, 36), (9, 45), (10, 55)])
def test_nearly_dependent_features_are_followed_to_the_end(n: int, jumps: int) -> None:
    """Hilbert matrices, condition up to 2e13; the numbers of jumps are those of the rational mode."""
    H, y = 1 / (np.arange(1, n + 1) + np.arange(n)[:, None]), np.arange(n, dtype=float)
    path = fs.saddle_to_saddle(NET, fs.Regression(H, y))
    assert len(path.jump_times) == jumps
    assert np.linalg.norm(H @ path.end - y) <= 1e-7


def test_a_process_that_fails_hands_over_the_path_so_far() -> None:
    """Smooth spectra, condition 1e16: in the end rounding decides which columns depend on which."""
    rng = np.random.default_rng(1)
    grid, centre, height = np.linspace(0, 1, 40), rng.random((60, 8)), rng.random((60, 8))
    X = (height[:, :, None] * np.exp(-((grid - centre[:, :, None]) ** 2) / (2 * 0.08**2))).sum(1)
    X = (X - X.mean(0)) / X.std(0)
    problem = fs.Regression(X, height[:, 0] - height[:, 0].mean())
    with pytest.raises(fs.IntegrationError, match="is not unique") as caught:
        fs.saddle_to_saddle(NET, problem)
    path = caught.value.path
    assert path is not None and not path.complete and len(path.jump_times) > 100
    assert len(path.supports) == len(path.jump_times) + 1
    assert np.diff(path.losses).max() <= 1e-12 * path.losses[0]
    good = fs.saddle_to_saddle(NET, problem, max_jumps=30)
    np.testing.assert_array_equal(path.jump_times[:30], good.jump_times)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("net", [NET, fs.DiagonalNetwork(depth=3), fs.DiagonalNetwork("a*tanh(a) - b**2")], ids=str)
def test_a_path_survives_pickling_with_all_it_can_tell(net: fs.DiagonalNetwork) -> None:
    path = fs.saddle_to_saddle(net, FOUR)
    again = pickle.loads(pickle.dumps(path))
    tau = np.linspace(0, float(path.arclength(path.jump_times[-1])), 7)
    np.testing.assert_allclose(again.curve(tau), path.curve(tau), rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(again.saddles, path.saddles)
    np.testing.assert_array_equal(again.state(1.0).upper, path.state(1.0).upper)
