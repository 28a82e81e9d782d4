"""Gradient descent beside the two bare BLAS products of each step, and many runs beside one."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numba import njit
from threadpoolctl import threadpool_limits

import flowsim as fs
from benchmarks.harness import Report, best
from flowsim.descent.draws import Draws
from flowsim.descent.tiles import LANES, ROWS, aligned, tile
from flowsim.solvers.simd import add_up

#: (n, d, steps timed); the budget of one step is this share of the two products.
SIZES = {(20, 50): 400_000, (200, 2000): 4000}
#: Throughput per trajectory of many runs over that of one.
MANY = 64
NORMALS = "normal numbers of a noisy step"


@njit
def _products(X, beta, residual, gradient, count):
    for _ in range(count):
        np.dot(X, beta, residual)
        np.dot(X.T, residual, gradient)


@njit
def _tiles(packed, panel, depth, count):
    total = 0.0
    for _ in range(count):
        s0, s1, s2, s3 = tile(packed, 0, panel, depth)
        total += add_up(s0 + s1 + (s2 + s3))
    return total


def _peak() -> float:
    """Multiplications with addition that one core does in a microsecond, all data in its first-level cache."""
    depth, count = 200, 20_000
    packed, panel = aligned(np.ones(ROWS * depth)), aligned(np.ones(LANES * depth))
    _tiles(packed, panel, depth, 1)
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        _tiles(packed, panel, depth, count)
        seconds.append(time.perf_counter() - began)
    return ROWS * LANES * depth * count / best(seconds) / 1e6


def run(quick: bool) -> Report:
    """Microseconds per step and run on one core; every ratio between neighbours in time."""
    with threadpool_limits(1):
        return _run(quick)


def _run(quick: bool) -> Report:
    rows, raw, notes = [], {}, []
    peak = _peak()
    for (n, d), steps in SIZES.items():
        case = _measure(n, d, steps // (4 if quick else 1), repeats=3 if quick else 9)
        raw[f"n={n}, d={d}"] = case
        micro = {name: best(values) * 1e6 for name, values in case.items()}
        bare = micro["two BLAS products, compiled loop"]
        for name, value in micro.items():
            beside = ""
            if name.startswith(f"{MANY} "):
                gain = micro["one run"] / value if "step sizes" in name else micro["one noisy run"] / value
                beside = f"{gain:.2f} times one alone"
            rows.append([f"{n} x {d}", name, f"{value:.3f}", f"{value / bare:.2f}", beside])
        least = 2 * n * d / peak
        for what, bound, one in (
            ("products at the multiplier's peak", least, "one run"),
            ("the same and the normal numbers", least + micro[NORMALS], "one noisy run"),
        ):
            most = micro[one] / bound
            rows.append(
                [f"{n} x {d}", what, f"{bound:.3f}", f"{bound / bare:.2f}",
                 f"no batch of runs can exceed {most:.2f} times one alone"]
            )  # fmt: skip
    notes.append(
        "The products are timed twice: inside a compiled loop, which is the bare BLAS, and called from Python with "
        "`out=`, as a NumPy loop would. The limit is set against the first."
    )
    notes.append(
        f"Peak: {2e-3 * peak:.1f} GFLOP/s of one core, measured on register tiles in the first-level cache. Runs that "
        "share X can win only what lies between one run and the two products at that rate, with the noise if there is "
        "any; what a step does to the coordinates comes on top. The faster one run is alone, the less is left to win."
    )
    if not any("JAX" in row[1] for row in rows):
        notes.append("JAX lax.scan left out: jax is not installed (the extra `bench` brings it).")
    return Report(
        "descent",
        "Gradient descent on u*v, microseconds per step and run",
        ["n x d", "what", "us", "of the products", ""],
        rows,
        notes,
        raw,
    )


def _jax_scan(X: np.ndarray, y: np.ndarray, h: float, count: int) -> Callable[[], object] | None:
    """The same steps in one compiled loop; None without JAX."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    A, target, (n, d) = jnp.asarray(X), jnp.asarray(y), X.shape

    def step(weights, _):  # type: ignore[no-untyped-def]
        u, v = weights
        g = A.T @ (A @ (u * v) - target) / n
        return (u - h * g * v, v - h * g * u), None

    compiled = jax.jit(lambda start: jax.lax.scan(step, start, length=count)[0])
    start = (jnp.full(d, np.sqrt(2) * 0.1), jnp.zeros(d))
    return lambda: jax.block_until_ready(compiled(start))


def _measure(n: int, d: int, steps: int, repeats: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    truth = np.zeros(d)
    truth[:3] = 1.0, -1.0, 0.5
    problem = fs.Regression(X, X @ truth)
    net = fs.DiagonalNetwork("u*v")
    noisy = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.01))
    h, many, few = 1e-3, max(steps // 4, 20), max(steps // 16, 20)
    residual, gradient = np.empty(n), np.empty(d)

    def products() -> None:
        _products(X, truth, residual, gradient, steps)

    def products_from_python() -> None:
        for _ in range(few):
            np.dot(X, truth, out=residual)
            np.dot(X.T, residual, out=gradient)

    def numpy_loop() -> None:
        u, v = np.full(d, np.sqrt(2) * 0.1), np.zeros(d)
        for _ in range(few):
            g = X.T @ (X @ (u * v) - problem.y) / n
            u, v = u - h * g * v, v - h * g * u

    assert noisy.noise is not None
    draws, ahead, blocks = Draws(noisy.noise, np.random.SeedSequence(0).spawn(LANES), np.ones(2 * d)), 4000 // d, 20
    scan = _jax_scan(X, problem.y, h, few)
    sizes = h * np.linspace(0.5, 1.5, MANY)
    cases: dict[str, tuple[Callable[[], object], int]] = {
        "two BLAS products, compiled loop": (products, steps),
        "one run": (lambda: fs.gradient_descent(net, problem, h, steps, alpha=0.1, record_every=steps), steps),
        "two BLAS products, from Python": (products_from_python, few),
        "NumPy loop": (numpy_loop, few),
        **({} if scan is None else {"JAX lax.scan, float64": (scan, few)}),
        f"{MANY} step sizes together, per run": (
            lambda: fs.gradient_descents(net, problem, sizes, many, alpha=0.1, record_every=many), many * MANY,
        ),
        "one noisy run": (
            lambda: fs.gradient_descent(noisy, problem, h, many, alpha=0.1, seed=0, record_every=many), many,
        ),
        f"{MANY} seeds together, per run": (
            lambda: fs.gradient_descents(noisy, problem, h, many, alpha=0.1, runs=MANY, seed=0, record_every=many),
            many * MANY,
        ),
        NORMALS: (lambda: [draws.block(ahead) for _ in range(blocks)], ahead * blocks * LANES),
    }  # fmt: skip
    for call, _ in cases.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, (call, count) in cases.items():
            began = time.perf_counter()
            call()
            seconds[name].append((time.perf_counter() - began) / count)
    return seconds
