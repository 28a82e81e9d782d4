"""Many small flows at once: 256 scales of the start, or 256 levels of noise, on all cores."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

import flowsim as fs
from benchmarks.harness import Point, Report, Series, best, time_at_error, timed
from benchmarks.integrators import evaluation_seconds, rhs
from flowsim.solvers import SeparableFlow, integrate_ensemble

Array = NDArray[np.float64]
Solve = Callable[[float], tuple[Array, dict[str, int]]]

MEMBERS, TIMES = 256, 40
TARGET, FACTOR = 1e-6, 5.0
_CAP = 60.0
#: Members whose error is measured.
CHECKED = (0, 64, 128, 192, 255)


class Ensemble:
    """n = 20, d = 50, alpha from 1e-2 to 1e-8, through all jumps of the limit; nu' = y - X beta(X^T nu/n)."""

    def __init__(self, members: int = MEMBERS) -> None:
        rng = np.random.default_rng(0)
        self.problem = fs.Regression(rng.standard_normal((20, 50)), rng.standard_normal(20))
        n = self.problem.n
        self.net = fs.DiagonalNetwork("u*v")
        self.gammas = np.linspace(2, 8, members) * math.log(10)
        largest = math.sqrt(self.problem.feature_variances.max())
        self.B = np.ascontiguousarray(self.problem.X) / (math.sqrt(n) * largest)
        self.b = self.problem.y / (math.sqrt(n) * largest)
        self.scale = largest**2
        path = fs.saddle_to_saddle(self.net, self.problem)
        self.ends = min(20.0, 1.2 * float(path.jump_times[-1])) * self.gammas
        self.times = np.linspace(0, 1, TIMES) * self.ends[:, None]
        self.checked = [index for index in CHECKED if index < members]
        self.reference = self.radau()

    def radau(self) -> Array:
        """SciPy's Radau at 1e-12, members `checked`."""
        from scipy.integrate import solve_ivp

        found = []
        for index in self.checked:
            gamma = float(self.gammas[index])

            def field(t: float, y: Array, gamma: float = gamma) -> Array:
                out = np.empty_like(y)
                rhs(np.ascontiguousarray(y), self.B, self.b, self.scale, gamma, out)
                return out

            end = float(self.ends[index])
            solution = solve_ivp(
                field, (0.0, end), np.zeros(len(self.b)), "Radau", np.minimum(self.times[index], end), rtol=3e-14,
                atol=1e-12,
            )  # fmt: skip
            found.append(self.beta(solution.y.T, self.gammas[index]))
        return np.array(found)

    def beta(self, nu: Array, gamma: Any) -> Array:
        z = nu @ self.B
        return 0.5 * (np.exp(2 * (z - gamma)) - np.exp(2 * (-z - gamma)))

    def error(self, beta: Array) -> float:
        """Over the checked members of (members, times, d)."""
        found = beta[self.checked]
        if not np.isfinite(found).all():
            return math.nan
        return float(np.abs(found - self.reference).max() / np.abs(self.reference).max())

    # Contenders: tolerance -> (beta of all members at their times, counts).

    def flowsim(self) -> Solve:
        """The native integrator on threads; the whole dense output is kept."""
        X, y, n, d = self.problem.X, self.problem.y, self.problem.n, self.problem.d
        sign = np.repeat([[1.0], [-1.0]], d, axis=1)
        decay, ends = np.zeros((2, d)), list(self.ends)
        flows = [
            SeparableFlow(X, y, n, np.full((2, d), -math.log(2.0) - 2 * gamma), sign, 2 * sign, decay)
            for gamma in self.gammas
        ]  # fmt: skip

        def solve(tolerance: float) -> tuple[Array, dict[str, int]]:
            runs = integrate_ensemble(flows, ends, tol=tolerance)
            found = [flow.beta(run(times), times) for flow, run, times in zip(flows, runs, self.times, strict=True)]
            return np.array(found), {key: sum(run.stats[key] for run in runs) for key in ("steps", "nfev")}

        return solve

    def public(self) -> Solve:
        """`fs.gradient_flow` on as many threads as there are cores: trajectories with losses and invariants."""

        def solve(tolerance: float) -> tuple[Array, dict[str, int]]:
            def one(index: int) -> fs.Trajectory:
                alpha = math.exp(-self.gammas[index])
                return fs.gradient_flow(
                    self.net, self.problem, self.ends[index], alpha=alpha, t_eval=self.times[index], rtol=tolerance
                )  # fmt: skip

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                runs = list(pool.map(one, range(len(self.gammas))))
            return np.array([run.beta for run in runs]), {"steps": sum(run.stats["steps"] for run in runs)}

        return solve

    @cached_property
    def batch(self) -> Callable[[str, float, Array, NDArray[np.int64]], None]:
        """CyRK in a parallel Numba loop; the scale is an argument of the right-hand side."""
        from CyRK import nb_diffeq_addr, nbsolve2_ivp

        B, b, scale, gammas, ends, times = self.B, self.b, self.scale, self.gammas, self.ends, self.times
        r = len(b)

        def field(dy, t, y, args):  # type: ignore[no-untyped-def]
            rhs(numba.carray(y, (r,)), B, b, scale, args[0], numba.carray(dy, (r,)))

        address = nb_diffeq_addr(field)

        @numba.njit(parallel=True)
        def batch(method, tolerance, out, steps):  # type: ignore[no-untyped-def]
            for index in numba.prange(len(gammas)):
                result = nbsolve2_ivp(
                    address, (0.0, ends[index]), np.zeros(r), method, times[index].copy(), False,
                    np.full(1, gammas[index]), 3e-14, tolerance,
                )  # fmt: skip
                if result.success:
                    out[index] = result.y.T
                steps[index] = result.steps_taken
                result.free()

        return batch

    def cyrk(self, method: str) -> Solve:
        """Its BDF or LSODA."""
        batch, gammas = self.batch, self.gammas
        shape = (*self.times.shape, len(self.b))

        def solve(tolerance: float) -> tuple[Array, dict[str, int]]:
            out, steps = np.full(shape, np.nan), np.zeros(len(gammas), dtype=np.int64)
            batch(method, tolerance, out, steps)
            return self.beta(out, gammas[:, None, None]), {"steps": int(steps.sum())}

        return solve

    def diffrax(self) -> Solve:
        """Kvaerno5 under vmap; plain Newton, since the default root finder rejects every step here."""
        import diffrax
        import jax
        import jax.numpy as jnp
        import optimistix

        jax.config.update("jax_enable_x64", True)
        B, b, scale = jnp.asarray(self.B), jnp.asarray(self.b), self.scale

        def field(t: Any, y: Any, gamma: Any) -> Any:
            z = y @ B
            grown = jnp.exp(jnp.minimum(2 * (z - gamma), _CAP)) - jnp.exp(jnp.minimum(2 * (-z - gamma), _CAP))
            return scale * (b - B @ (0.5 * grown))

        def one(gamma: Any, times: Any, tolerance: Any) -> Any:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(field), diffrax.Kvaerno5(root_finder=optimistix.Newton(1e-10, 0.1 * tolerance)), 0.0,
                times[-1], 1e-3, jnp.zeros(len(self.b)), args=gamma, saveat=diffrax.SaveAt(ts=times), max_steps=20_000,
                throw=False, stepsize_controller=diffrax.PIDController(rtol=3e-14, atol=tolerance),
            )  # fmt: skip
            return solution.ys, solution.stats["num_steps"]

        batch = jax.jit(jax.vmap(one, in_axes=(0, 0, None)))

        def solve(tolerance: float) -> tuple[Array, dict[str, int]]:
            ys, steps = batch(jnp.asarray(self.gammas), jnp.asarray(self.times), jnp.float64(tolerance))
            return self.beta(np.asarray(ys), self.gammas[:, None, None]), {"steps": int(steps.sum())}

        return solve


def noisy(members: int, repeats: int) -> dict[str, Any]:
    """As many levels of Gaussian noise at alpha = 1e-4 through the public entry, on all cores."""
    rng = np.random.default_rng(0)
    problem = fs.Regression(rng.standard_normal((20, 50)), rng.standard_normal(20))
    etas = np.geomspace(1e-4, 1e-2, members)
    end = 1.2 * float(fs.saddle_to_saddle(fs.DiagonalNetwork("u*v"), problem).jump_times[-1])

    def one(eta: float) -> int:
        net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(eta))
        run = fs.gradient_flow(net, problem, end, alpha="1e-4", clock="accelerated", t_eval=[0.0, end])
        return int(run.stats["steps"])

    def all_of_them() -> int:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return sum(pool.map(one, etas))

    steps, _, seconds = timed(all_of_them, repeats)
    return {"members": members, "steps": steps, "seconds": seconds}


def run(quick: bool) -> Report:
    """Flows per second on all cores at equal error."""
    members = 64 if quick else MEMBERS
    ensemble = Ensemble(members)
    contenders: dict[str, tuple[Callable[[], Solve], tuple[float, ...]]] = {
        "flowsim, integrate_ensemble": (ensemble.flowsim, (1e-4, 1e-5, 1e-6, 1e-7)),
        "flowsim, gradient_flow on threads": (ensemble.public, (1e-5, 1e-6, 1e-7)),
        "CyRK BDF, Numba prange": (lambda: ensemble.cyrk("BDF"), (1e-6, 1e-7, 1e-8)),
        "CyRK LSODA, Numba prange": (lambda: ensemble.cyrk("LSODA"), (1e-6, 1e-7, 1e-8)),
    }
    if not quick:
        contenders["diffrax Kvaerno5, vmap"] = (ensemble.diffrax, (1e-5, 1e-6, 1e-7))
    notes, series, seconds = [], [], {}
    for name, (prepare, tolerances) in contenders.items():
        try:
            solve = prepare()
        except ImportError as error:
            notes.append(f"{name} left out: {error.name} is not installed (the extra `bench` brings it).")
            continue
        solve(tolerances[0])
        points = []
        for tolerance in tolerances:
            (beta, counts), first, _ = timed(lambda t=tolerance, s=solve: s(t), 0)
            repeats = [first, *timed(lambda t=tolerance, s=solve: s(t), 1 if quick or first > 3 else 4)[2]]
            points.append(Point(tolerance, ensemble.error(beta), repeats, counts))
        series.append(Series(name, points))
        seconds[name] = time_at_error(series[-1], TARGET)
    own = seconds["flowsim, integrate_ensemble"]
    rows = []
    for each in series:
        taken = seconds[each.name]
        if taken is None:
            errors = [point.error for point in each.points if point.error is not None and math.isfinite(point.error)]
            reached = f"never: error {min(errors):.0e}" if errors else "failed"
            throughput = f"{reached}, at {members / best(each.points[-1].seconds):.0f} flows per second"
            rows.append([each.name, throughput, "", ""])
            continue
        nearest = min((p for p in each.points if p.error and p.error <= TARGET), key=lambda p: -p.tolerance)
        ratio = f"{taken / own:.2f}" if own else ""
        rows.append([each.name, f"{members / taken:.0f}", ratio, f"{nearest.counts['steps'] / members:.0f}"])
    rivals = {name: taken for name, taken in seconds.items() if taken and not name.startswith("flowsim")}
    if own and rivals:
        fastest = min(rivals, key=lambda name: rivals[name])
        ratio = rivals[fastest] / own
        notes.append(
            f"Asked: {FACTOR:g} times the fastest peer ({fastest}); measured {ratio:.2f}: "
            f"{'met' if ratio >= FACTOR else 'missed'}."
        )
        accurate = [point for point in series[0].points if point.error is not None and point.error <= TARGET]
        nfev = max(accurate, key=lambda point: point.tolerance).counts["nfev"]
        floor = nfev * evaluation_seconds(ensemble.problem.X)
        notes.append(
            f"Floor: one exponential per coordinate and two products with X for each evaluation of flowsim, "
            f"{floor:.3f} s on one core; flowsim takes {own / floor:.1f} times that on {os.cpu_count()} cores."
        )
    noise = noisy(members, 1 if quick else 3)
    rows.append(
        ["flowsim, gradient_flow on threads, levels of Gaussian noise, default tolerance",
         f"{members / best(noise['seconds']):.0f}", "", f"{noise['steps'] / members:.0f}"]
    )  # fmt: skip
    return Report(
        "ensembles",
        f"{members} flows together, n=20, d=50, alpha 1e-2 to 1e-8, error {TARGET:g} in beta",
        ["contender", "flows per second", "time over flowsim's", "steps per flow"],
        rows,
        [*notes, "Error: over five members, 40 times each, against Radau at 1e-12; compilation apart."],
        {"series": series, "noise": noise},
    )
