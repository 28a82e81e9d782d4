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
from benchmarks.integrators import evaluation_seconds
from flowsim.solvers import SeparableFlow, SeparableSolution, integrate_ensemble

Array = NDArray[np.float64]
Solve = Callable[[float], tuple[Array, dict[str, int]]]

MEMBERS, TIMES = 256, 40
TARGET = 1e-6
_CAP = 60.0
#: Members whose error is measured.
CHECKED = (0, 64, 128, 192, 255)


@numba.njit(cache=True)
def rhs(t: float, y: Array, B: Array, b: Array, scale: float, gamma: float, decay: Array, out: Array) -> None:
    """``scale (b - B beta)``, ``beta = exp(-decay t) (exp(2(z - gamma)) - exp(2(-z - gamma)))/2``, ``z = B^T y``."""
    r, d = B.shape
    for a in range(r):
        out[a] = b[a]
    for i in range(d):
        z = 0.0
        for a in range(r):
            z += B[a, i] * y[a]
        sunk = gamma + 0.5 * decay[i] * t
        beta = 0.5 * (math.exp(min(2 * (z - sunk), _CAP)) - math.exp(min(2 * (-z - sunk), _CAP)))
        for a in range(r):
            out[a] -= B[a, i] * beta
    for a in range(r):
        out[a] *= scale


class Ensemble:
    """n = 20, d = 50, through all jumps of the limit: many scales of the start, or many levels of noise at one."""

    def __init__(self, members: int = MEMBERS, noisy: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.problem = fs.Regression(rng.standard_normal((20, 50)), rng.standard_normal(20))
        n = self.problem.n
        self.net = fs.DiagonalNetwork("u*v")
        self.gammas = np.linspace(2, 8, members) * math.log(10)
        self.etas = np.zeros(members)
        if noisy:
            self.gammas, self.etas = np.full(members, 4 * math.log(10)), np.geomspace(1e-4, 1e-2, members)
        self.decays = 2 * self.etas[:, None] ** 2 * self.problem.feature_variances
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

            def field(t: float, y: Array, gamma: float = gamma, decay: Array = self.decays[index]) -> Array:
                out = np.empty_like(y)
                rhs(t, np.ascontiguousarray(y), self.B, self.b, self.scale, gamma, decay, out)
                return out

            end = float(self.ends[index])
            solution = solve_ivp(
                field, (0.0, end), np.zeros(len(self.b)), "Radau", np.minimum(self.times[index], end), rtol=3e-14,
                atol=1e-12,
            )  # fmt: skip
            found.append(self.beta(solution.y.T[None], np.array([index]))[0])
        return np.array(found)

    def beta(self, nu: Array, members: Any = slice(None)) -> Array:
        """From the unknowns (members, times, n) at their times."""
        z = nu @ self.B
        t, decay = self.times[members][:, :, None], self.decays[members][:, None, :]
        sunk = self.gammas[members][:, None, None] + 0.5 * decay * t
        return 0.5 * (np.exp(2 * (z - sunk)) - np.exp(2 * (-z - sunk)))

    def error(self, beta: Array) -> float:
        """Over the checked members of (members, times, d)."""
        found = beta[self.checked]
        if not np.isfinite(found).all():
            return math.nan
        return float(np.abs(found - self.reference).max() / np.abs(self.reference).max())

    # Contenders: tolerance -> (beta of all members at their times, counts).

    def flowsim(self) -> Solve:
        """The native integrator on threads, read at the times that the peers report."""
        X, y, n, d = self.problem.X, self.problem.y, self.problem.n, self.problem.d
        sign = np.repeat([[1.0], [-1.0]], d, axis=1)
        ends = list(self.ends)
        flows = [
            SeparableFlow(
                X, y, n, np.full((2, d), -math.log(2.0) - 2 * gamma), sign, 2 * sign, np.repeat([decay], 2, axis=0)
            )
            for gamma, decay in zip(self.gammas, self.decays, strict=True)
        ]

        def solve(tolerance: float) -> tuple[Array, dict[str, int]]:
            found, stats = zip(*self.together(tolerance), strict=True)
            return np.array(found), {key: sum(each[key] for each in stats) for key in ("steps", "nfev")}

        def read(run: SeparableSolution) -> tuple[Array, dict[str, Any]]:
            times = grid * run.t[-1]
            return run.flow.beta(run(times), times), run.stats

        grid = np.linspace(0, 1, TIMES)
        self.alone = lambda tolerance: integrate_ensemble(flows, ends, tol=tolerance, workers=1, read=read)
        self.together = lambda tolerance: integrate_ensemble(flows, ends, tol=tolerance, read=read)
        return solve

    def public(self) -> Solve:
        """`fs.gradient_flow` on as many threads as there are cores: trajectories with losses and invariants."""

        def solve(tolerance: float) -> tuple[Array, dict[str, int]]:
            def one(index: int) -> fs.Trajectory:
                alpha, eta = math.exp(-self.gammas[index]), float(self.etas[index])
                net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(eta)) if eta else self.net
                return fs.gradient_flow(
                    net, self.problem, self.ends[index], alpha=alpha, t_eval=self.times[index], rtol=tolerance
                )  # fmt: skip

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                runs = list(pool.map(one, range(len(self.gammas))))
            return np.array([run.beta for run in runs]), {"steps": sum(run.stats["steps"] for run in runs)}

        return solve

    @cached_property
    def batch(self) -> Callable[[str, float, Array, NDArray[np.int64]], None]:
        """CyRK in a parallel Numba loop; scale and decay are arguments of the right-hand side."""
        from CyRK import nb_diffeq_addr, nbsolve2_ivp

        B, b, scale, ends, times = self.B, self.b, self.scale, self.ends, self.times
        arguments = np.column_stack([self.gammas, self.decays])
        r, d = B.shape

        def field(dy, t, y, args):  # type: ignore[no-untyped-def]
            own = numba.carray(args, (d + 1,))
            rhs(t, numba.carray(y, (r,)), B, b, scale, own[0], own[1:], numba.carray(dy, (r,)))

        address = nb_diffeq_addr(field)

        @numba.njit(parallel=True)
        def batch(method, tolerance, out, steps):  # type: ignore[no-untyped-def]
            for index in numba.prange(len(ends)):
                result = nbsolve2_ivp(
                    address, (0.0, ends[index]), np.zeros(r), method, times[index].copy(), False,
                    arguments[index].copy(), 3e-14, tolerance,
                )  # fmt: skip
                if result.success:
                    out[index] = result.y.T
                steps[index] = result.steps_taken
                result.free()

        return batch

    def cyrk(self, method: str) -> Solve:
        """Its BDF or LSODA."""
        batch = self.batch
        shape = (*self.times.shape, len(self.b))

        def solve(tolerance: float) -> tuple[Array, dict[str, int]]:
            out, steps = np.full(shape, np.nan), np.zeros(len(self.ends), dtype=np.int64)
            batch(method, tolerance, out, steps)
            return self.beta(out), {"steps": int(steps.sum())}

        return solve

    def diffrax(self) -> Solve:
        """Kvaerno5 under vmap; plain Newton, since the default root finder rejects every step here."""
        import diffrax
        import jax
        import jax.numpy as jnp
        import optimistix

        jax.config.update("jax_enable_x64", True)
        B, b, scale = jnp.asarray(self.B), jnp.asarray(self.b), self.scale

        def field(t: Any, y: Any, own: Any) -> Any:
            z, sunk = y @ B, own[0] + 0.5 * own[1:] * t
            grown = jnp.exp(jnp.minimum(2 * (z - sunk), _CAP)) - jnp.exp(jnp.minimum(2 * (-z - sunk), _CAP))
            return scale * (b - B @ (0.5 * grown))

        def one(own: Any, times: Any, tolerance: Any) -> Any:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(field), diffrax.Kvaerno5(root_finder=optimistix.Newton(1e-10, 0.1 * tolerance)), 0.0,
                times[-1], 1e-3, jnp.zeros(len(self.b)), args=own, saveat=diffrax.SaveAt(ts=times), max_steps=20_000,
                throw=False, stepsize_controller=diffrax.PIDController(rtol=3e-14, atol=tolerance),
            )  # fmt: skip
            return solution.ys, solution.stats["num_steps"]

        batch = jax.jit(jax.vmap(one, in_axes=(0, 0, None)))

        def solve(tolerance: float) -> tuple[Array, dict[str, int]]:
            own = jnp.asarray(np.column_stack([self.gammas, self.decays]))
            ys, steps = batch(own, jnp.asarray(self.times), jnp.float64(tolerance))
            return self.beta(np.asarray(ys)), {"steps": int(steps.sum())}

        return solve


def measure(ensemble: Ensemble, quick: bool) -> tuple[list[Series], list[str]]:
    """Every contender that is installed over its tolerances."""
    contenders: dict[str, tuple[Callable[[], Solve], tuple[float, ...]]] = {
        "flowsim, integrate_ensemble": (ensemble.flowsim, (1e-4, 1e-5, 1e-6, 1e-7)),
        "flowsim, gradient_flow on threads": (ensemble.public, (1e-5, 1e-6, 1e-7)),
        "CyRK BDF, Numba prange": (lambda: ensemble.cyrk("BDF"), (1e-6, 1e-7, 1e-8)),
        "CyRK LSODA, Numba prange": (lambda: ensemble.cyrk("LSODA"), (1e-6, 1e-7, 1e-8)),
    }
    if not quick:
        contenders["diffrax Kvaerno5, vmap"] = (ensemble.diffrax, (1e-6, 1e-7, 1e-8, 1e-9))
    notes, series = [], []
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
    return series, notes


def run(quick: bool) -> Report:
    """Flows per second on all cores at equal error."""
    members = 64 if quick else MEMBERS
    rows, notes, raw = [], [], {}
    for label, noisy in (("alpha 1e-2 to 1e-8", False), ("alpha 1e-4, Gaussian noise 1e-4 to 1e-2", True)):
        ensemble = Ensemble(members, noisy)
        series, missing = measure(ensemble, quick)
        raw[label] = series
        seconds = {each.name: time_at_error(each, TARGET) for each in series}
        own = seconds["flowsim, integrate_ensemble"]
        for each in series:
            taken = seconds[each.name]
            if taken is None:
                errors = [
                    point.error for point in each.points if point.error is not None and math.isfinite(point.error)
                ]
                reached = f"never: error {min(errors):.0e}" if errors else "failed"
                throughput = f"{reached}, at {members / best(each.points[-1].seconds):.0f} flows per second"
                rows.append([label, each.name, throughput, "", ""])
                continue
            nearest = min((p for p in each.points if p.error and p.error <= TARGET), key=lambda p: -p.tolerance)
            ratio = f"{taken / own:.2f}" if own else ""
            rows.append([label, each.name, f"{members / taken:.0f}", ratio, f"{nearest.counts['steps'] / members:.0f}"])
        rivals = {name: taken for name, taken in seconds.items() if taken and not name.startswith("flowsim")}
        if own and rivals:
            fastest = min(rivals, key=lambda name: rivals[name])
            ratio = rivals[fastest] / own
            accurate = [point for point in series[0].points if point.error is not None and point.error <= TARGET]
            point = max(accurate, key=lambda point: point.tolerance)
            floor = point.counts["nfev"] * evaluation_seconds(ensemble.problem.X)
            alone = best(timed(lambda e=ensemble, t=point.tolerance: e.alone(t), 2)[2])
            together = best(timed(lambda e=ensemble, t=point.tolerance: e.together(t), 2)[2])
            notes.append(
                f"{label}: {ratio:.2f} times the fastest peer ({fastest}). "
                f"{os.cpu_count()} cores give {alone / together:.2f} times one. "
                f"Floor: one exponential per coordinate and two products with X for each evaluation of flowsim, "
                f"{floor:.3f} s on one core; flowsim takes {own / floor:.1f} times that on {os.cpu_count()} cores."
            )
        notes += [note for note in missing if note not in notes]
    return Report(
        "ensembles",
        f"{members} flows together, n=20, d=50, error {TARGET:g} in beta",
        ["ensemble", "contender", "flows per second", "time over flowsim's", "steps per flow"],
        rows,
        [*notes, "Error: over five members, 40 times each, against Radau at 1e-12; compilation apart."],
        raw,
    )
