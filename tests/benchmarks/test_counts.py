"""What the cases cost, in counts that no clock disturbs.

A flow may take a tenth more than was measured (arithmetic differs between processors); passes over the data and the
counts of a fixed recipe may not grow at all.
"""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse

import flowsim as fs
from benchmarks import formulas, horizons, ill_conditioned, linear
from benchmarks.ensembles import Ensemble
from benchmarks.losses import LogisticFlow, separable_run
from benchmarks.scaling import fitted_slope, measure
from flowsim.solvers import SeparableFlow, integrate_ensemble

MARGIN = 1.1
NOISE_STEPS, NOISE_NFEV = 395, 415
#: Peak of what Python and NumPy allocate, over the size of X; it holds a vector of d 3.3 times.
LIMIT_MEMORY, FLOW_MEMORY = 4.6, 38.0
NET = fs.DiagonalNetwork("u*v")


def gaussian(n: int, d: int, targets: int | None = None) -> fs.Regression:
    rng = np.random.default_rng(0)
    return fs.Regression(rng.standard_normal((n, d)), rng.standard_normal(n if targets is None else (n, targets)))


def within(stats: dict[str, int], **limits: int) -> None:
    for name, limit in limits.items():
        allowed = limit if name in ("passes", "gradients") else MARGIN * limit
        assert 0 < stats[name] <= allowed, f"{name}: {stats[name]}, measured once: {limit}"


@pytest.mark.parametrize(
    ("alpha", "limits"),
    [
        ("1e-8", {"steps": 151, "nfev": 157, "nlu": 20, "passes": 1}),
        ("1e-60", {"steps": 436, "nfev": 507, "nlu": 100, "passes": 1}),
        ("1e-1000", {"steps": 914, "nfev": 1198, "nlu": 361, "passes": 1}),
    ],
)
def test_one_flow_takes_no_more_steps_and_factorisations(alpha: str, limits: dict[str, int]) -> None:
    run = fs.gradient_flow(NET, gaussian(20, 50), 20.0, alpha=alpha, clock="accelerated", t_eval=[0.0, 20.0])
    within(run.stats, **limits)


@pytest.mark.parametrize(
    ("alpha", "limits"),
    [
        ("1e-8", {"steps": 107, "nfev": 113, "nlu": 9, "passes": 1}),
        ("1e-60", {"steps": 225, "nfev": 234, "nlu": 30, "passes": 1}),
    ],
)
def test_a_logistic_flow_takes_no_more_steps_and_factorisations(alpha: str, limits: dict[str, int]) -> None:
    problem = LogisticFlow.draw(np.random.default_rng(0), 20, 50)
    run = fs.gradient_flow(NET, problem, 20.0, alpha=alpha, clock="accelerated", t_eval=[0.0, 20.0])
    within(run.stats, **limits)


@pytest.mark.parametrize(
    ("loss", "digits", "steps"), [("logistic", 100, 213), ("logistic", 1_000_000, 425), ("exponential", 1_000_000, 418)]
)
def test_a_loss_far_below_floats_takes_some_hundred_steps(loss: str, digits: int, steps: int) -> None:
    run = separable_run(loss, digits)
    within(run.stats, steps=steps)
    assert run.log_loss[-1] == pytest.approx(-digits * np.log(10), rel=1e-9)


def test_an_ensemble_takes_the_steps_of_its_members_alone() -> None:
    problem = gaussian(20, 50)
    sign = np.repeat([[1.0], [-1.0]], 50, axis=1)
    gammas = np.linspace(2, 8, 4) * np.log(10)
    flows = [
        SeparableFlow(problem.X, problem.y, 20, np.full((2, 50), -np.log(2) - 2 * g), sign, 2 * sign, np.zeros((2, 50)))
        for g in gammas
    ]
    together = [run.stats["steps"] for run in integrate_ensemble(flows, 20 * gammas)]
    alone = [integrate_ensemble([flow], [20 * g])[0].stats["steps"] for flow, g in zip(flows, gammas, strict=True)]
    assert together == alone
    assert max(together) <= MARGIN * 150


@pytest.mark.parametrize(
    ("n", "d", "limits"),
    [
        (50, 2000, {"steps": 177, "nfev": 193, "nlu": 15, "passes": 4}),
        (200, 2000, {"steps": 272, "nfev": 294, "nlu": 26, "passes": 4}),
        (200, 8000, {"steps": 305, "nfev": 332, "nlu": 40, "passes": 5}),
    ],
)
def test_passes_over_the_data_do_not_grow_with_it(n: int, d: int, limits: dict[str, int]) -> None:
    problem = fs.datasets.sparse_regression(n, d, 10, noise=0.5, seed=0)
    within(measure(NET, problem, "1e-60", repeats=1), **limits)


def test_five_jumps_on_seven_thousand_features_take_three_passes_over_them() -> None:
    problem = gaussian(60, 7000)
    end = float(fs.saddle_to_saddle(NET, problem, max_jumps=5).jump_times[-1])
    run = fs.gradient_flow(NET, problem, 1.02 * end, alpha="1e-100", clock="accelerated", t_eval=[0.0, end])
    within(run.stats, steps=161, nfev=178, nlu=18, passes=3)


@pytest.mark.parametrize(
    ("depth", "limits"),
    [(3, {"steps": 656, "nfev": 954, "nlu": 295}), (5, {"steps": 1477, "nfev": 2939, "nlu": 1133})],
)
def test_depth_costs_no_more_steps(depth: int, limits: dict[str, int]) -> None:
    problem = fs.datasets.sparse_regression(20, 50, 10, noise=0.5, seed=0)
    within(measure(fs.DiagonalNetwork(depth=depth), problem, "1e-3", repeats=1), passes=1, **limits)


def test_steps_grow_slower_than_the_square_root_of_the_logarithm_of_the_scale() -> None:
    problem = fs.datasets.sparse_regression(20, 50, 10, noise=0.5, seed=0)
    exponents = (8, 60, 1000, 10_000)
    steps = [measure(NET, problem, f"1e-{k}", repeats=1)["steps"] for k in exponents]
    assert fitted_slope(exponents, steps) < 0.5


def test_the_limit_needs_a_product_with_all_features_every_fifth_jump() -> None:
    problem = fs.datasets.sparse_regression(50, 1000, 5, noise=0.5, seed=0)
    path = fs.saddle_to_saddle(NET, problem, max_jumps=50)
    within(path.stats, gradients=10)


@pytest.mark.parametrize("width", [30, 1000])
def test_a_linear_network_takes_the_same_steps_at_every_width(width: int) -> None:
    rng = np.random.default_rng(0)
    problem = fs.Regression(rng.standard_normal((40, 20)), np.random.default_rng(1).standard_normal((40, 5)))
    within(fs.gradient_flow(fs.LinearNetwork(width), problem, 100.0, alpha=0.1).stats, steps=108, nfev=1417)


@pytest.mark.parametrize(("alpha", "steps"), [("1e-8", 49), ("1e-60", 45), ("1e-1000", 304)])
def test_a_linear_network_takes_no_more_steps_at_any_scale(alpha: str, steps: int) -> None:
    rng = np.random.default_rng(0)
    problem = fs.Regression(rng.standard_normal((100, 20)), rng.standard_normal((100, 5)))
    net = fs.LinearNetwork(30)
    start = fs.linear_start(net, problem)
    within(fs.gradient_flow(net, problem, 3.0, alpha=alpha, start=start, clock="accelerated").stats, steps=steps)


@pytest.mark.parametrize(("condition", "steps", "nfev"), [(1.0, 34, 493), (100.0, 58, 1501)])
def test_a_linear_network_takes_no_more_steps_from_a_small_start(condition: float, steps: int, nfev: int) -> None:
    net, problem = fs.LinearNetwork(30), linear.problem_of(condition)
    end, start = 20.0 * condition, fs.linear_start(net, problem)
    within(fs.gradient_flow(net, problem, end, alpha="1e-3", start=start).stats, steps=steps, nfev=nfev)


@pytest.mark.parametrize(("formula", "steps"), [("tanh(u)*v", 299), ("sin(u*v)", 158), ("u*v + u**2*v**2", 152)])
def test_a_general_formula_takes_some_hundred_steps_at_1e_30(formula: str, steps: int) -> None:
    net, problem = fs.DiagonalNetwork(formula), formulas.problem()
    end = 3.0 * float(fs.saddle_to_saddle(net, problem).jump_times[-1])
    run = fs.gradient_flow(net, problem, end, alpha="1e-30", clock="accelerated", t_eval=[0.0, end])
    within(run.stats, steps=steps)


@pytest.mark.parametrize(
    ("case", "steps"),
    [("spectra, 20 x 8", 518), ("polynomials of degree 15, 40 x 15", 1250), ("Hilbert matrix, 9 x 9", 280)],
)
def test_ill_conditioned_features_cost_fewer_steps_than_evaluations_of_lsoda(case: str, steps: int) -> None:
    (X, y), horizon = ill_conditioned.CASES[case][0](), ill_conditioned.CASES[case][1]
    times, alpha = np.geomspace(1.0, horizon, 200), ill_conditioned.ALPHA
    run = fs.gradient_flow(NET, fs.Regression(X, y), horizon, alpha=alpha, clock="accelerated", t_eval=times, rtol=1e-4)
    within(run.stats, steps=steps)


@pytest.mark.parametrize("name", [name for name in horizons.cases() if "depth 3, noise" not in name])
def test_a_flow_at_rest_costs_no_more_steps_to_a_later_horizon(name: str) -> None:
    flow = horizons.cases()[name]
    assert flow(1e12).stats["steps"] <= 1.3 * flow(1e3).stats["steps"]


@pytest.mark.slow
def test_noise_at_depth_3_takes_some_hundred_steps() -> None:
    # 528 to 656 of SciPy's LSODA, as rounding decides.
    within(horizons.cases()["depth 3, noise 0.3, alpha 1"](1e3).stats, steps=656)


def test_descent_evaluates_the_gradient_once_a_step() -> None:
    run = fs.gradient_descent(NET, gaussian(20, 50), 1e-3, 100, alpha=0.1)
    assert run.stats["nfev"] == run.stats["steps"] == 100


def test_levels_of_noise_cost_no_more_steps() -> None:
    ensemble = Ensemble(members=4, noisy=True)
    _, counts = ensemble.flowsim()(1e-6)
    within(counts, steps=NOISE_STEPS, nfev=NOISE_NFEV)


def test_memory_stays_a_small_multiple_of_the_data() -> None:
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((200, 100_000), density=1e-3, rng=rng, format="csr")
    X.data = rng.standard_normal(X.nnz)
    data = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    problem = fs.Regression(X, rng.standard_normal(200))
    path = fs.saddle_to_saddle(NET, problem, max_jumps=3)  # compiled, and what is kept with the problem
    end = 1.05 * float(path.jump_times[-1])
    again = fs.Regression(X, problem.y)
    fs.gradient_flow(NET, again, end, alpha="1e-60", clock="accelerated", t_eval=[0.0, end])  # compiled

    def peak(work: Callable[[], object]) -> float:
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1] / data
        finally:
            tracemalloc.stop()

    limit = peak(lambda: fs.saddle_to_saddle(NET, problem, max_jumps=3))
    flow = peak(
        lambda: fs.gradient_flow(NET, problem, end, alpha="1e-60", clock="accelerated", t_eval=[0.0, end])
    )  # fmt: skip
    assert limit <= MARGIN * LIMIT_MEMORY
    assert flow <= MARGIN * FLOW_MEMORY


def test_the_import_loads_none_of_the_heavy_libraries() -> None:
    heavy = ("sympy", "numba", "matplotlib", "scipy", "xarray", "pandas")
    code = f"import sys, flowsim; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
