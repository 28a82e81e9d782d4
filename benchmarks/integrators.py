"""One two-layer flow: work and precision of flowsim and of the stiff integrators a skilled user would take.

All peers but the last group integrate the same n unknowns in growth coordinates, y' = scale (b - B beta(B^T y)), with
the same compiled right-hand side; the last group integrates weights, as the obvious code does.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

import flowsim as fs
from benchmarks.harness import Point, Report, Series, best, time_at_error, timed
from flowsim.network import InitialScale
from flowsim.solvers import SeparableFlow, integrate_separable

Array = NDArray[np.float64]
Solve = Callable[[float], tuple[Array, bool, dict[str, int]]]

TARGET = 1e-6
#: All contenders run at these; the quick ones also at the others.
ALPHAS = ("1e-8", "1e-60", "1e-1000")
OTHERS = ("1e-2", "1e-16", "1e-10000")
ASKED = 5.0
_CAP = 60.0
#: A method that needs more steps than this is reported as out of reach; flowsim needs at most some thousands.
_MAX_STEPS = 50_000
#: A contender that takes so many seconds twice running is spared the tighter tolerances.
_PATIENCE = 3.0


@numba.njit(cache=True)
def rhs(y: Array, B: Array, b: Array, scale: float, gamma: float, out: Array) -> None:
    """``scale (b - B beta)``, ``beta = (exp(2(z - gamma)) - exp(2(-z - gamma)))/2``, ``z = B^T y``."""
    r, d = B.shape
    for a in range(r):
        out[a] = b[a]
    for i in range(d):
        z = 0.0
        for a in range(r):
            z += B[a, i] * y[a]
        beta = 0.5 * (math.exp(min(2 * (z - gamma), _CAP)) - math.exp(min(2 * (-z - gamma), _CAP)))
        for a in range(r):
            out[a] -= B[a, i] * beta
    for a in range(r):
        out[a] *= scale


@numba.njit(cache=True)
def jacobian(y: Array, B: Array, scale: float, gamma: float, out: Array) -> None:
    """``-scale B D B^T`` with the coordinates that count."""
    r, d = B.shape
    out[:] = 0.0
    for i in range(d):
        z = 0.0
        for a in range(r):
            z += B[a, i] * y[a]
        slope = math.exp(min(2 * (z - gamma), _CAP)) + math.exp(min(2 * (-z - gamma), _CAP))
        if slope < 1e-14:
            continue
        for a in range(r):
            for c in range(r):
                out[a, c] -= scale * slope * B[a, i] * B[c, i]


@numba.njit(cache=True)
def _evaluate(X: Array, z: Array, beta: Array, nu: Array, count: int) -> None:
    for _ in range(count):
        for i in range(len(z)):
            beta[i] = math.exp(z[i])
        np.dot(X, beta, nu)
        np.dot(X.T, nu, z)
        z *= 1e-3


def evaluation_seconds(X: Array, count: int = 10_000) -> float:
    """The floor of one evaluation: one exponential per coordinate and the two products with X, compiled, one core."""
    X = np.ascontiguousarray(X)
    z, beta, nu = np.linspace(-1, 1, X.shape[1]), np.empty(X.shape[1]), np.empty(X.shape[0])
    _evaluate(X, z, beta, nu, 1)
    return best(timed(lambda: _evaluate(X, z, beta, nu, count), 5)[2]) / count


class Flow:
    """The problem in growth coordinates, its sample times, and a tight reference."""

    def __init__(self, alpha: str, n: int = 20, d: int = 50, seed: int = 0, horizon: float = 20.0) -> None:
        rng = np.random.default_rng(seed)
        self.problem = fs.Regression(rng.standard_normal((n, d)), rng.standard_normal(n))
        self.net, self.alpha = fs.DiagonalNetwork("u*v"), alpha
        self.gamma = InitialScale.parse(alpha).gamma
        largest = math.sqrt(self.problem.feature_variances.max())
        self.B = np.ascontiguousarray(self.problem.X) / (math.sqrt(n) * largest)
        self.b = self.problem.y / (math.sqrt(n) * largest)
        self.scale = largest**2
        self.path = fs.saddle_to_saddle(self.net, self.problem)
        self.t_end = min(horizon, 1.2 * float(self.path.jump_times[-1])) * self.gamma
        rough = fs.gradient_flow(self.net, self.problem, self.t_end, alpha=alpha)
        # Half of the points spread over arc length, where things happen, half over time.
        lengths = np.linspace(0, rough.arclength[-1], 100)
        times = np.unique(np.concatenate([rough.at(lengths, "arclength").t, np.linspace(0, self.t_end, 100)]))
        # Some integrators return one value for times that differ by rounding.
        self.times = times[np.append(True, np.diff(times) > 1e-9 * self.t_end)]
        self.reference = self.scipy("Radau", 1e-12)(1e-12)[0]

    def beta(self, y: Array) -> Array:
        z = y @ self.B
        with np.errstate(over="ignore"):
            return 0.5 * (np.exp(2 * (z - self.gamma)) - np.exp(2 * (-z - self.gamma)))

    def error(self, beta: Array) -> float | None:
        if beta.shape != self.reference.shape or not np.isfinite(beta).all():
            return None
        return float(np.abs(beta - self.reference).max() / np.abs(self.reference).max())

    # Contenders: each method returns a function tolerance -> (beta at the sample times, claimed success, counts).

    def flowsim(self) -> Solve:
        def solve(tolerance: float) -> tuple[Array, bool, dict[str, int]]:
            run = fs.gradient_flow(
                self.net, self.problem, self.t_end, alpha=self.alpha, t_eval=self.times, rtol=tolerance
            )  # fmt: skip
            counts = {key: value for key, value in run.stats.items() if isinstance(value, int)}
            return run.beta, run.success, counts

        return solve

    def kernel(self) -> Solve:
        """The native integrator without network, trajectory, losses and invariants: what the peers do."""
        problem, d = self.problem, self.problem.d
        sign = np.repeat([[1.0], [-1.0]], d, axis=1)
        start = np.full((2, d), -math.log(2.0) - 2 * self.gamma)
        flow = SeparableFlow(problem.X, problem.y, problem.n, start, sign, 2 * sign, np.zeros((2, d)))

        def solve(tolerance: float) -> tuple[Array, bool, dict[str, int]]:
            run = integrate_separable(flow, self.t_end, tol=tolerance)
            counts = {key: value for key, value in run.stats.items() if isinstance(value, int)}
            return flow.beta(run(self.times), self.times), bool(run.t[-1] == self.t_end), counts

        return solve

    def heyoka(self, longest: float = math.inf) -> Solve:
        """Taylor's method, explicit, compiled for this problem; bounded steps see exponentials below its tolerance."""
        import heyoka

        B, b, gamma, size = self.B, self.b, self.gamma, len(self.b)
        names = [f"y{a}" for a in range(size)]
        y = heyoka.make_vars(*names)
        z = [heyoka.sum([B[a, i] * y[a] for a in range(size)]) for i in range(B.shape[1])]
        beta = [0.5 * (heyoka.exp(2.0 * (each - gamma)) - heyoka.exp(-2.0 * (each + gamma))) for each in z]
        field = [
            (y[a], self.scale * (b[a] - heyoka.sum([B[a, i] * beta[i] for i in range(B.shape[1])])))
            for a in range(size)
        ]  # fmt: skip
        integrators: dict[float, Any] = {}

        def solve(tolerance: float) -> tuple[Array, bool, dict[str, int]]:
            if tolerance not in integrators:
                integrators[tolerance] = heyoka.taylor_adaptive(
                    field, np.zeros(size), tol=tolerance, high_accuracy=False, compact_mode=True
                )  # fmt: skip
            integrator = integrators[tolerance]
            integrator.time, integrator.state[:] = 0.0, 0.0
            outcome, _, _, steps, _, grid = integrator.propagate_grid(
                self.times, max_steps=_MAX_STEPS, max_delta_t=longest
            )
            return self.beta(np.asarray(grid)), outcome == heyoka.taylor_outcome.time_limit, {"steps": int(steps)}

        return solve

    def scipy(self, method: str, floor: float = 0.0, compiled: bool = True) -> Solve:
        from scipy.integrate import solve_ivp

        B, b, scale, gamma = self.B, self.b, self.scale, self.gamma

        def fast(t: float, y: Array) -> Array:
            out = np.empty_like(b)
            rhs(np.ascontiguousarray(y), B, b, scale, gamma, out)
            return out

        def plain(t: float, y: Array) -> Array:
            z = y @ B
            grown = np.exp(np.minimum(2 * (z - gamma), _CAP)) - np.exp(np.minimum(2 * (-z - gamma), _CAP))
            return scale * (b - B @ (0.5 * grown))

        def jac(t: float, y: Array) -> Array:
            if compiled:
                out = np.empty((len(b), len(b)))
                jacobian(np.ascontiguousarray(y), B, scale, gamma, out)
                return out
            z = y @ B
            slope = np.exp(np.minimum(2 * (z - gamma), _CAP)) + np.exp(np.minimum(2 * (-z - gamma), _CAP))
            return -scale * (B * slope) @ B.T

        def solve(tolerance: float) -> tuple[Array, bool, dict[str, int]]:
            options: dict[str, Any] = {"jac": jac} if method in ("LSODA", "BDF", "Radau") else {}
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                result = solve_ivp(
                    fast if compiled else plain, (0.0, self.t_end), np.zeros(len(b)), method,
                    t_eval=self.times, rtol=3e-14, atol=max(tolerance, floor), **options,
                )  # fmt: skip
            return self.beta(result.y.T), bool(result.success), {"nfev": int(result.nfev), "njev": int(result.njev)}

        return solve

    def cyrk(self, method: str) -> Solve:
        from CyRK import nb_diffeq_addr, nbsolve2_ivp

        B, b, scale, gamma = self.B.copy(), self.b.copy(), self.scale, self.gamma
        r = len(b)

        def field(dy, t, y, args):  # type: ignore[no-untyped-def]
            values = numba.carray(y, (r,))
            out = numba.carray(dy, (r,))
            rhs(values, B, b, scale, gamma, out)

        address = nb_diffeq_addr(field)

        def solve(tolerance: float) -> tuple[Array, bool, dict[str, int]]:
            result = nbsolve2_ivp(
                address, (0.0, self.t_end), np.zeros(r), method, self.times, rtol=3e-14, atol=tolerance,
                max_num_steps=_MAX_STEPS,
            )  # fmt: skip
            return self.beta(np.asarray(result.y).T), bool(result.success), {"steps": int(result.steps_taken)}

        return solve

    def cvode(self) -> Solve:
        from sksundae.cvode import CVODE

        B, b, scale, gamma = self.B, self.b, self.scale, self.gamma

        def field(t: float, y: Array, out: Array) -> None:
            rhs(y, B, b, scale, gamma, out)

        def jac(t: float, y: Array, _: Array, out: Array) -> None:
            jacobian(y, B, scale, gamma, out)

        def solve(tolerance: float) -> tuple[Array, bool, dict[str, int]]:
            solver = CVODE(
                field, rtol=3e-14, atol=tolerance, method="BDF", jacfn=jac, max_num_steps=_MAX_STEPS
            )  # fmt: skip
            result = solver.solve(self.times, np.zeros(len(b)))
            return self.beta(np.asarray(result.y)), bool(result.success), {"nfev": int(result.nfev)}

        return solve

    def diffrax(self, name: str) -> Solve:
        import diffrax
        import jax
        import jax.numpy as jnp
        import optimistix

        jax.config.update("jax_enable_x64", True)
        B, b, scale, gamma = jnp.asarray(self.B), jnp.asarray(self.b), self.scale, self.gamma
        times = jnp.asarray(self.times)

        def field(t: Any, y: Any, args: Any) -> Any:
            z = y @ B
            grown = jnp.exp(jnp.minimum(2 * (z - gamma), _CAP)) - jnp.exp(jnp.minimum(2 * (-z - gamma), _CAP))
            return scale * (b - B @ (0.5 * grown))

        @jax.jit
        def run(tolerance: Any) -> Any:
            # The default root finder stalls here and rejects every step; plain Newton does not.
            solver = (
                diffrax.Kvaerno5(root_finder=optimistix.Newton(rtol=1e-10, atol=0.1 * tolerance))
                if name == "Kvaerno5"
                else diffrax.Tsit5()
            )
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(field), solver, 0.0, self.t_end, 1e-3, jnp.zeros(len(self.b)),
                saveat=diffrax.SaveAt(ts=times), max_steps=_MAX_STEPS, throw=False,
                stepsize_controller=diffrax.PIDController(rtol=3e-14, atol=tolerance),
            )  # fmt: skip
            return solution.ys, solution.stats["num_steps"], solution.result == diffrax.RESULTS.successful

        def solve(tolerance: float) -> tuple[Array, bool, dict[str, int]]:
            ys, steps, success = run(jnp.float64(tolerance))
            return self.beta(np.asarray(ys)), bool(success), {"steps": int(steps)}

        return solve

    def weights(self, method: str, coordinates: str) -> Solve:
        """The obvious code: (u, v), or (w+, w-) with beta = w+^2 - w-^2, and atol = 0."""
        from scipy.integrate import solve_ivp

        X, y, n = self.problem.X, self.problem.y, self.problem.n
        alpha = InitialScale.parse(self.alpha).value
        d = X.shape[1]
        if coordinates == "u, v":
            start = np.concatenate([np.full(d, math.sqrt(2) * alpha), np.zeros(d)])

            def field(t: float, w: Array) -> Array:
                g = X.T @ (X @ (w[:d] * w[d:]) - y) / n
                return np.concatenate([-g * w[d:], -g * w[:d]])

            def beta(w: Array) -> Array:
                return w[:, :d] * w[:, d:]
        else:
            start = np.full(2 * d, alpha / math.sqrt(2))

            def field(t: float, w: Array) -> Array:
                g = X.T @ (X @ (w[:d] ** 2 - w[d:] ** 2) - y) / n
                return np.concatenate([-g * w[:d], g * w[d:]])

            def beta(w: Array) -> Array:
                return w[:, :d] ** 2 - w[:, d:] ** 2

        def solve(tolerance: float) -> tuple[Array, bool, dict[str, int]]:
            atol = 0.0 if coordinates != "u, v" else 1e-3 * tolerance
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                result = solve_ivp(
                    field, (0.0, self.t_end), start, method, t_eval=self.times, rtol=max(tolerance, 3e-14), atol=atol
                )  # fmt: skip
            return beta(result.y.T), bool(result.success), {"nfev": int(result.nfev)}

        return solve


def contenders(flow: Flow, quick: bool, every: bool) -> dict[str, tuple[Callable[[], Solve], tuple[float, ...]]]:
    """Name -> (how to prepare it, tolerances)."""
    ladder = (1e-5, 1e-6, 1e-7, 1e-8) if quick else (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
    table: dict[str, tuple[Callable[[], Solve], tuple[float, ...]]] = {
        "flowsim": (flow.flowsim, (1e-3, *ladder)),
        "flowsim, integrator alone": (flow.kernel, (1e-3, *ladder)),
        # Looser tolerances make it crawl, or overflow, far from the target.
        "CyRK BDF": (lambda: flow.cyrk("BDF"), tuple(each for each in ladder if each < 5e-6)),
        "CyRK LSODA": (lambda: flow.cyrk("LSODA"), ladder),
        "SUNDIALS CVODE": (flow.cvode, ladder),
        "SciPy LSODA, Numba": (lambda: flow.scipy("LSODA"), ladder),
        "heyoka": (flow.heyoka, (1e-6, 1e-8, 1e-10)),
        "(u, v) SciPy LSODA": (lambda: flow.weights("LSODA", "u, v"), (1e-6, 1e-9)),
    }
    if not quick:
        table |= {
            "CyRK Radau": (lambda: flow.cyrk("RADAU"), ladder),
            "diffrax Tsit5": (lambda: flow.diffrax("Tsit5"), ladder[1:4]),
            "(w+, w-) SciPy LSODA, atol 0": (lambda: flow.weights("LSODA", "w+, w-"), (1e-6, 1e-8, 1e-10)),
        }
    if not quick and every:
        table |= {
            "SciPy LSODA, NumPy": (lambda: flow.scipy("LSODA", compiled=False), ladder),
            "SciPy BDF, Numba": (lambda: flow.scipy("BDF"), ladder),
            "SciPy Radau, Numba": (lambda: flow.scipy("Radau"), ladder[:5]),
            "SciPy DOP853, Numba": (lambda: flow.scipy("DOP853"), ladder[2:]),
            **{
                f"SciPy {method}, NumPy": (lambda name=method: flow.scipy(name, compiled=False), ladder[1:])
                for method in ("BDF", "Radau", "DOP853")
            },
            "diffrax Kvaerno5": (lambda: flow.diffrax("Kvaerno5"), ladder[1:]),
            "heyoka, steps of at most 2": (lambda: flow.heyoka(2.0), (1e-6, 1e-8, 1e-10)),
            "(u, v) SciPy DOP853": (lambda: flow.weights("DOP853", "u, v"), (1e-6, 1e-9)),
            "(w+, w-) SciPy Radau, atol 0": (lambda: flow.weights("Radau", "w+, w-"), (1e-6,)),
        }
    return table


def work_precision(flow: Flow, quick: bool, every: bool) -> tuple[list[Series], list[str]]:
    """Run every contender that is installed over its tolerances."""
    series, missing = [], []
    for name, (prepare, tolerances) in contenders(flow, quick, every).items():
        try:
            solve = prepare()
        except ImportError as error:
            missing.append(f"{name} left out: {error.name} is not installed (the extra `bench` brings it).")
            continue
        points, first_call = [], None
        for tolerance in tolerances:
            try:
                (beta, success, counts), first, _ = timed(lambda t=tolerance, s=solve: s(t), 0)
                repeats = 3 if quick or first > 0.5 else 11
                seconds = timed(lambda t=tolerance, s=solve: s(t), repeats)[2] if first < 3 else [first]
            except Exception as failure:
                points.append(Point(tolerance, None, [math.nan], claimed_success=False, note=str(failure)[:200]))
                continue
            first_call = first if first_call is None else first_call
            points.append(Point(tolerance, flow.error(beta), seconds, counts, success))
            if len(points) > 1 and min(points[-2].seconds[0], first) > _PATIENCE:
                break
        series.append(Series(name, points, first_call))
    return series, missing


def run(quick: bool) -> Report:
    """flowsim against its peers at equal error, for each alpha."""
    alphas = (
        (ALPHAS[0], OTHERS[1], *ALPHAS[1:])
        if quick
        else (*OTHERS[:1], *ALPHAS[:1], *OTHERS[1:2], *ALPHAS[1:], *OTHERS[2:])
    )
    columns = ["contender", *(f"alpha = {alpha}" for alpha in alphas)]
    cells: dict[str, list[str]] = {}
    raw, notes = {}, []
    for column, alpha in enumerate(alphas):
        flow = Flow(alpha)
        series, missing = work_precision(flow, quick, alpha in ALPHAS)
        notes = missing
        raw[alpha] = {"jumps": len(flow.path.jump_times), "series": [asdict(each) for each in series]}
        own = time_at_error(series[0], TARGET)
        rivals = {each.name: time_at_error(each, TARGET) for each in series if not each.name.startswith("flowsim")}
        for each in series:
            cells.setdefault(each.name, ["-"] * len(alphas))[column] = _cell(each, own)
        reached = {name: seconds for name, seconds in rivals.items() if seconds is not None}
        if own is not None and reached:
            fastest = min(reached, key=lambda name: reached[name])
            accurate = [point for point in series[0].points if point.error is not None and point.error <= TARGET]
            nfev = max(accurate, key=lambda point: point.tolerance).counts["nfev"]
            floor = nfev * evaluation_seconds(flow.problem.X)
            notes_line = (
                f"alpha = {alpha}: flowsim {1e3 * own:.2f} ms; fastest peer {fastest} {1e3 * reached[fastest]:.2f} ms, "
                f"{reached[fastest] / own:.1f} times as long; "
                f"asked {ASKED:g}: {'met' if reached[fastest] >= ASKED * own else 'missed'}. The floor of flowsim's "
                f"evaluations (one exponential per coordinate, two products with X) is {1e3 * floor:.2f} ms, "
                f"flowsim {own / floor:.1f} times that."
            )
            raw[alpha]["ratio"] = reached[fastest] / own
            raw[alpha]["summary"] = notes_line
    return Report(
        name="integrators",
        title=f"One flow, n=20, d=50, u*v: milliseconds to an error of {TARGET:g} in beta (ratio to flowsim)",
        columns=columns,
        rows=[[name, *row] for name, row in cells.items()],
        notes=[*(raw[alpha]["summary"] for alpha in alphas if "summary" in raw[alpha]), *notes,
               "Error: largest over 200 sample times and all coordinates, relative to the largest coefficient, "
               "against Radau at 1e-12; times interpolated between tolerances; compilation apart.",
               "Peers without `(u, v)` or `(w+, w-)` integrate growth coordinates, with one compiled right-hand side."],
        raw=raw,
    )  # fmt: skip


def _cell(series: Series, own: float | None) -> str:
    seconds = time_at_error(series, TARGET)
    if seconds is not None:
        ratio = f" ({seconds / own:.1f}x)" if own else ""
        return f"{1e3 * seconds:.2f}{ratio}"
    known = [point for point in series.points if point.error is not None]
    if not known:
        return "failed"
    most_accurate = min(known, key=lambda point: point.error)  # type: ignore[arg-type, return-value]
    word = "claims success" if most_accurate.claimed_success else "says it failed"
    return f"never: error {most_accurate.error:.0e} in {1e3 * best(most_accurate.seconds):.0f} ms, {word}"
