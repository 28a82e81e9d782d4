"""How the work of a flow grows: per jump with n, d, sparsity, depth and the scale of the start; as a whole with the
condition of X, the horizon, and the width, targets and features of `U V^T`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse

import flowsim as fs
from benchmarks import linear
from benchmarks.harness import Report, best, timed
from benchmarks.ill_conditioned import spectra
from benchmarks.integrators import evaluation_seconds

PRODUCT = "u*v"


def run(quick: bool) -> Report:
    """Each family varies one size; the slope is that of a straight line through the logarithms."""
    repeats = 2 if quick else 5
    families = _families(quick)
    rows, raw, notes = [], {}, []
    for family, (asked, cases) in families.items():
        seconds, sizes = [], []
        for size, (net, problem, alpha) in cases.items():
            case = measure(net, problem, alpha, repeats)
            raw[f"{family} = {size:g}"] = case
            per_jump = best(case["seconds"]) / case["jumps"]
            sizes.append(size)
            seconds.append(per_jump)
            rows.append([
                f"{family} = {size:g}", str(case["jumps"]), f"{1e3 * per_jump:.3f}",
                f"{case['steps'] / case['jumps']:.1f}", f"{case['passes'] / case['jumps']:.2f}",
                f"{per_jump / case['product_seconds']:.0f}", "-",
            ])  # fmt: skip
        slope = fitted_slope(sizes, seconds)
        raw[f"slope, {family}"] = slope
        notes.append(f"{family}: time per jump grows like the power {slope:.2f} ({asked}).")
    for family, flows in _whole_flows(quick).items():
        seconds = []
        for size, (problem, flow) in flows.items():
            done, _, each = timed(flow, repeats)
            seconds.append(best(each))
            floor = done.stats["nfev"] * _evaluation(problem, "U V^T" in family)
            raw[f"{family} = {size:.2g}"] = {"seconds": each, "steps": done.stats["steps"], "floor": floor}
            cells = [f"{1e3 * seconds[-1]:.3f}", str(done.stats["steps"]), "-", "-", f"{seconds[-1] / floor:.1f}"]
            rows.append([f"{family} = {size:.2g}", "-", *cells])
        slope = fitted_slope(list(flows), seconds)
        raw[f"slope, {family}"] = slope
        notes.append(f"{family}: time of the whole flow grows like the power {slope:.2f}.")
    return Report(
        "scaling",
        "Scaling of one flow: per jump, or of the whole flow where no jumps are given",
        [
            "case",
            "jumps",
            "ms",
            "steps",
            "passes over X",
            "ms over that of the bare products X beta and X^T r",
            "over the floor",
        ],
        rows,
        [
            *notes,
            "A pass is one product with the whole X; where all features are loaded at once (up to 640) there is one. "
            "A step costs a factorisation of a matrix as large as the support, and stages on the loaded features.",
            "Floor of a whole flow: one exponential per coordinate and two products with X for each evaluation; of "
            "U V^T its products in the basis of D + m columns.",
        ],
        raw,
    )


def _evaluation(problem: fs.Regression, layered: bool) -> float:
    """Seconds of one bare evaluation of a whole flow."""
    if layered:
        return linear.evaluation_seconds(problem.d, problem.n_targets, 2000)
    return evaluation_seconds(problem.X)


def fitted_slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Exponent of the power law through the points, by least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure(
    net: fs.DiagonalNetwork, problem: fs.Regression, alpha: str, repeats: int, jumps: int = 10
) -> dict[str, Any]:
    """One flow through the first `jumps` jumps of the limit."""
    path = fs.saddle_to_saddle(net, problem, max_jumps=jumps)
    count = len(path.jump_times)
    end = 1.05 * float(path.jump_times[-1])
    times = [0.0, 0.5 * end, end]
    run, _, seconds = timed(
        lambda: fs.gradient_flow(net, problem, end, alpha=alpha, clock="accelerated", t_eval=times), repeats
    )  # fmt: skip
    beta = run.beta[-1]
    _, _, products = timed(lambda: problem.gradient(beta), 5)
    return {
        "jumps": count, "seconds": seconds, "product_seconds": best(products),
        **{key: value for key, value in run.stats.items() if isinstance(value, int)},
    }  # fmt: skip


Case = tuple[fs.DiagonalNetwork, fs.Regression, str]


def _families(quick: bool) -> dict[str, tuple[str, dict[float, Case]]]:
    """Family -> (asked slope, size -> case)."""
    net = fs.DiagonalNetwork(PRODUCT)
    rows = (50, 200) if quick else (50, 100, 200, 400)
    features = (2000, 8000) if quick else (2000, 8000, 32_000)
    wide = (20_000, 100_000) if quick else (20_000, 100_000, 500_000)
    depths = (3, 5) if quick else (3, 4, 5, 6)
    exponents = (8, 1000) if quick else (8, 60, 1000, 10_000)
    return {
        "n at d = 2000": ("asked: at most 1", {n: (net, _dense(n, 2000), "1e-60") for n in rows}),
        "d at n = 200": ("asked: at most 1", {d: (net, _dense(200, d), "1e-60") for d in features}),
        "d, sparse at n = 200, density 0.001": ("asked: at most 1", {d: (net, _sparse(d), "1e-60") for d in wide}),
        "depth at n = 20, d = 50": (
            "nothing asked", {depth: (fs.DiagonalNetwork(depth=depth), _dense(20, 50), "1e-3") for depth in depths},
        ),
        "-log10(alpha) at n = 20, d = 50": (
            "asked: no more than a logarithm", {k: (net, _dense(20, 50), f"1e-{k}") for k in exponents},
        ),
    }  # fmt: skip


def _whole_flows(quick: bool) -> dict[str, dict[float, tuple[fs.Regression, Callable[[], fs.Trajectory]]]]:
    """Family -> size -> a problem and its flow."""
    cut = slice(0, None, 2) if quick else slice(None)
    net = fs.DiagonalNetwork(PRODUCT)
    spectral = {
        float(np.linalg.cond(X)): fs.Regression(X, y) for X, y in (spectra(w, 20, 8) for w in (0.1, 0.2, 0.3, 0.4))
    }
    few = _dense(20, 50)

    def linear(D: int, m: int, width: int, alpha: str) -> tuple[fs.Regression, Callable[[], fs.Trajectory]]:
        rng = np.random.default_rng(0)
        X, noise = rng.standard_normal((3 * D, D)), 0.1 * rng.standard_normal((3 * D, m))
        problem = fs.Regression(X, X @ rng.standard_normal((D, m)) + noise)
        start = {"U": rng.standard_normal((D, width)), "V": rng.standard_normal((m, width))}
        return problem, lambda: fs.gradient_flow(
            fs.LinearNetwork(width), problem, 3.0, alpha=alpha, clock="accelerated", start=start, t_eval=[0.0, 1.5, 3.0]
        )

    return {
        "condition of X at 20 x 8 spectra, alpha 1e-100": {
            condition: (problem, lambda p=problem: fs.gradient_flow(net, p, 1e6, alpha="1e-100", clock="accelerated"))
            for condition, problem in list(spectral.items())[cut]
        },
        "horizon at n = 20, d = 50, alpha 1e-8": {
            T: (few, lambda T=T: fs.gradient_flow(net, few, T, alpha="1e-8", t_eval=[0.0, 0.5 * T, T]))
            for T in (1e3, 1e6, 1e9, 1e12)[cut]
        },
        "width of U V^T at D = 20, m = 5, alpha 1e-100": {
            h: linear(20, 5, h, "1e-100") for h in (30, 300, 3000, 30_000, 300_000)[cut]
        },
        "targets of U V^T at D = 40, width 40, alpha 1e-8": {
            m: linear(40, m, 40, "1e-8") for m in (1, 2, 4, 8, 16)[cut]
        },
        "features of U V^T at m = 4, width 80, alpha 1e-8": {
            D: linear(D, 4, 80, "1e-8") for D in (10, 20, 40, 80)[cut]
        },
    }  # fmt: skip


def _dense(n: int, d: int) -> fs.Regression:
    return fs.datasets.sparse_regression(n, d, 10, noise=0.5, seed=0)


def _sparse(d: int) -> fs.Regression:
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((200, d), density=1e-3, rng=rng, format="csr")
    X.data = rng.standard_normal(X.nnz)
    return fs.Regression(X, rng.standard_normal(200))
