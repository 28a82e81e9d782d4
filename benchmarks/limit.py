"""The limit process against LARS, knot by knot, and on a million sparse features."""

from __future__ import annotations

import time
import tracemalloc
import warnings
from typing import Any

import numpy as np
import scipy.sparse

import flowsim as fs
from benchmarks.harness import Report, best, timed

NET = fs.DiagonalNetwork("u*v")


def run(quick: bool) -> Report:
    """Seconds per jump beside seconds per knot of ``sklearn.linear_model.lars_path``, taken in turns."""
    repeats = 2 if quick else 5
    raw: dict[str, Any] = {}
    rows = []
    for jumps in (100,) if quick else (100, 500):
        name = f"dense 500 x 10000, 20-sparse plus noise, first {jumps} jumps"
        raw[name] = dense(jumps, repeats)
        ours, lars, product = (best(raw[name][key]) for key in ("per_jump", "per_knot", "per_product"))
        rows.append([name, _ms(ours), _ms(product), f"LARS {_ms(lars)}", f"{ours / lars:.2f}", "<= 1.0"])
    knots, missing = lasso_at_knots(20 if quick else 50, 1 if quick else 2)
    for solver, seconds in knots.items():
        name = f"{solver}: lasso at the knots of the first {seconds['knots']} jumps, tolerance 1e-8"
        raw[name] = seconds
        each = best(seconds["per_knot"])
        rows.append([name, _ms(each), "", "flowsim, same jumps", f"{best(seconds['flowsim']) / each:.2f}", ""])
    name = "sparse 200 x 1000000, density 0.001, 100 jumps"
    raw[name] = sparse(repeats)
    case = raw[name]
    ours, own = best(case["per_jump"]), best(case["product_on_nonempty"])
    ratio = best(case["rest_over_products"])
    full = best(case["product_on_all"])
    rows.append([name, _ms(ours), _ms(2 * own), f"two full X^T r {_ms(2 * full)}", f"{ratio:.2f}", "<= 1.0"])
    return Report(
        "limit",
        "Limit process: milliseconds per jump",
        ["case", "per jump", "of it products with X^T", "beside", "ratio", "target"],
        rows,
        notes=[
            *missing,
            "celer and skglm are told the knots, which the limit process and LARS find.",
            "Dense: time per jump over LARS's time per knot.",
            "Sparse: the whole call, set-up included, less two SciPy products with the non-empty columns a jump, over "
            f"those two products: {min(case['rest_over_products']):.2f} to {max(case['rest_over_products']):.2f} over "
            f"{len(case['rest_over_products'])} repeats.",
            f"Sparse: {case['products_per_jump']:.2f} products with X^T per jump, two in one pass; peak memory of the "
            f"run {case['peak_bytes'] / case['nnz_bytes']:.1f} times that of X, "
            f"{case['peak_bytes'] / case['vector_bytes']:.1f} vectors of beta.",
        ],
        raw=raw,
    )


def dense(jumps: int, repeats: int) -> dict[str, list[float]]:
    from sklearn.linear_model import lars_path

    problem = fs.datasets.sparse_regression(500, 10_000, 20, noise=0.5, seed=0)
    fs.saddle_to_saddle(NET, problem, max_jumps=2)
    out: dict[str, list[float]] = {"per_jump": [], "per_knot": [], "per_product": []}
    for _ in range(repeats):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            began = time.perf_counter()
            knots = lars_path(problem.X, problem.y, method="lasso", max_iter=jumps)[0]
            out["per_knot"].append((time.perf_counter() - began) / (len(knots) - 1))
        began = time.perf_counter()
        path = fs.saddle_to_saddle(NET, problem, max_jumps=jumps)
        out["per_jump"].append((time.perf_counter() - began) / len(path.jump_times))
        out["per_product"].append(path.stats["product_seconds"] / len(path.jump_times))
        assert path.jump_times[0] * knots[0] == 1.0 or abs(path.jump_times[0] * knots[0] - 1) < 1e-9
    return out


def lasso_at_knots(jumps: int, repeats: int) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Coordinate-descent solvers of the lasso, warm-started from knot to knot; and those that are not installed."""
    problem = fs.datasets.sparse_regression(500, 10_000, 20, noise=0.5, seed=0)
    path, X, y = fs.saddle_to_saddle(NET, problem, max_jumps=jumps), np.asfortranarray(problem.X), problem.y
    strengths = 1 / np.asarray(path.jump_times)

    def celer() -> None:
        from celer import celer_path

        celer_path(X, y, pb="lasso", alphas=strengths, tol=1e-8)

    def skglm() -> None:
        from skglm.datafits import Quadratic
        from skglm.penalties import L1
        from skglm.solvers import AndersonCD
        from skglm.utils.jit_compilation import compiled_clone

        solver = AndersonCD(tol=1e-8, fit_intercept=False)
        solver.path(X, y, compiled_clone(Quadratic()), compiled_clone(L1(1.0)), alphas=strengths)

    found: dict[str, dict[str, Any]] = {}
    missing = []
    own = timed(lambda: fs.saddle_to_saddle(NET, problem, max_jumps=jumps), repeats)[2]
    for solve in (celer, skglm):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                seconds = timed(solve, repeats)[2]
        except ImportError as error:
            missing.append(f"{solve.__name__} left out: {error.name} is not installed (the extra `bench` brings it).")
            continue
        found[solve.__name__] = {
            "knots": len(strengths), "per_knot": [each / len(strengths) for each in seconds],
            "flowsim": [each / len(strengths) for each in own],
        }  # fmt: skip
    return found, missing


def sparse(repeats: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((200, 1_000_000), density=1e-3, rng=rng, format="csr")
    X.data = rng.standard_normal(X.nnz)
    problem = fs.Regression(X, rng.standard_normal(200))
    fs.saddle_to_saddle(NET, problem, max_jumps=2)
    nonempty = fs.Regression(X[:, np.unique(X.indices)], problem.y)
    keys = ("per_jump", "per_pass", "product_on_nonempty", "product_on_all", "rest_over_products")
    out: dict[str, Any] = {key: [] for key in keys}
    for _ in range(repeats):
        began = time.perf_counter()
        path = fs.saddle_to_saddle(NET, problem, max_jumps=100)
        per_jump = (time.perf_counter() - began) / len(path.jump_times)
        products = path.stats["gradients"] / len(path.jump_times)
        own = _product_seconds(nonempty)
        out["per_jump"].append(per_jump)
        out["per_pass"].append(path.stats["product_seconds"] / len(path.jump_times))
        out["product_on_nonempty"].append(own)
        out["product_on_all"].append(_product_seconds(problem))
        out["rest_over_products"].append((per_jump - products * own) / (products * own))
    out["products_per_jump"] = products
    tracemalloc.start()
    fs.saddle_to_saddle(NET, problem, max_jumps=100)
    out["peak_bytes"] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    out["nnz_bytes"] = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    out["vector_bytes"] = 8 * problem.d
    return out


def _product_seconds(problem: fs.Regression, repeats: int = 20) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        problem.rmatvec(problem.y)
    return (time.perf_counter() - began) / repeats


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


if __name__ == "__main__":
    print(run(quick=True).markdown())
