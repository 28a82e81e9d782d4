"""One two-layer flow as flowsim and as each peer integrates it.

Peers integrate the same n unknowns in growth coordinates, y' = pull(B beta(B^T y)), for squares scale (b - B beta),
with the same compiled right-hand side; :meth:`Flow.weights` integrates weights, as the obvious code does.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

import flowsim as fs
from flowsim.network import InitialScale
from flowsim.solvers import SeparableFlow, integrate_separable

Array = NDArray[np.float64]
Solve = Callable[[float], tuple[Array, bool, dict[str, int]]]

CAP = 60.0
#: A method that needs more steps than this is reported as out of reach; flowsim needs at most some thousands.
_MAX_STEPS = 50_000


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
        beta = 0.5 * (math.exp(min(2 * (z - gamma), CAP)) - math.exp(min(2 * (-z - gamma), CAP)))
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
        slope = math.exp(min(2 * (z - gamma), CAP)) + math.exp(min(2 * (-z - gamma), CAP))
        if slope < 1e-14:
            continue
        for a in range(r):
            for c in range(r):
                out[a, c] -= scale * slope * B[a, i] * B[c, i]


def _diffsl_matrix(name: str, values: Array) -> str:
    rows, columns = values.shape
    entries = (f"({i}, {j}): {float(values[i, j])!r}" for i in range(rows) for j in range(columns))
    return f"{name}_ij {{ {', '.join(entries)} }}\n"


def _diffsl_vector(name: str, values: Array) -> str:
    return f"{name}_i {{ {', '.join(repr(float(value)) for value in values)} }}\n"


class Flow:
    """The problem in growth coordinates, its sample times, and a tight reference."""

    #: compiled right-hand side and Jacobian, called like those above
    rhs, jacobian = staticmethod(rhs), staticmethod(jacobian)
    #: the last line of the right-hand side as DiffSL, of q = B beta
    diffsl = "{scale!r} * (b_i - q_i)"

    @staticmethod
    def draw(rng: np.random.Generator, n: int, d: int) -> fs.Problem:
        return fs.Regression(rng.standard_normal((n, d)), rng.standard_normal(n))

    def pull(self, q: Any, b: Any, exp: Callable[[Any], Any]) -> Any:
        """``y'`` at q = B beta, elementwise."""
        return self.scale * (b - q)

    def target(self) -> Array:
        """What `pull` and the compiled functions take as b."""
        return self.problem.y / self.unit

    def gradient(self, beta: Array) -> Array:
        """As the obvious code writes it."""
        X, y = self.problem.X, self.problem.y
        return X.T @ (X @ beta - y) / self.problem.n

    def __init__(self, alpha: str, n: int = 20, d: int = 50, seed: int = 0, horizon: float = 20.0) -> None:
        self.problem = self.draw(np.random.default_rng(seed), n, d)
        self.net, self.alpha = fs.DiagonalNetwork("u*v"), alpha
        self.gamma = InitialScale.parse(alpha).gamma
        largest = math.sqrt(self.problem.feature_variances.max())
        self.B = np.ascontiguousarray(self.problem.X) / (math.sqrt(n) * largest)
        self.scale, self.unit = largest**2, math.sqrt(n) * largest
        self.b = self.target()
        self.path = fs.saddle_to_saddle(self.net, self.problem)
        last = math.inf if self.path.escape is not None else 1.2 * float(self.path.jump_times[-1])
        self.t_end = min(horizon, last) * self.gamma
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
        load = problem.loss_function.kernel
        loss = None if isinstance(problem, fs.Regression) or load is None else load()
        flow = SeparableFlow(problem.X, problem.y, problem.n, start, sign, 2 * sign, np.zeros((2, d)), loss=loss)

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
            (y[a], self.pull(heyoka.sum([B[a, i] * beta[i] for i in range(B.shape[1])]), b[a], heyoka.exp))
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

        B, b, scale, gamma, rhs, jacobian = self.B, self.b, self.scale, self.gamma, self.rhs, self.jacobian

        def fast(t: float, y: Array) -> Array:
            out = np.empty_like(b)
            rhs(np.ascontiguousarray(y), B, b, scale, gamma, out)
            return out

        def plain(t: float, y: Array) -> Array:
            z = y @ B
            grown = np.exp(np.minimum(2 * (z - gamma), CAP)) - np.exp(np.minimum(2 * (-z - gamma), CAP))
            return self.pull(B @ (0.5 * grown), b, np.exp)

        def jac(t: float, y: Array) -> Array:
            if compiled:
                out = np.empty((len(b), len(b)))
                jacobian(np.ascontiguousarray(y), B, scale, gamma, out)
                return out
            z = y @ B
            slope = np.exp(np.minimum(2 * (z - gamma), CAP)) + np.exp(np.minimum(2 * (-z - gamma), CAP))
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

        B, b, scale, gamma, rhs = self.B.copy(), self.b.copy(), self.scale, self.gamma, self.rhs
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

        B, b, scale, gamma, rhs, jacobian = self.B, self.b, self.scale, self.gamma, self.rhs, self.jacobian

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

    def diffsol(self, method: str) -> Solve:
        """Rust's diffsol through pydiffsol: the field as DiffSL, compiled by its own JIT compiler."""
        import pydiffsol

        gamma = float(self.gamma)
        code = (
            _diffsl_matrix("B", self.B) + _diffsl_matrix("C", self.B.T) + _diffsl_vector("b", self.b)
            + f"""
            u_i {{ (0:{len(self.b)}): y = 0.0 }}
            z_i {{ C_ij * u_j }}
            m_i {{ 0.5 * (exp(min(2.0 * (z_i - {gamma!r}), {CAP})) - exp(min(-2.0 * (z_i + {gamma!r}), {CAP}))) }}
            q_i {{ B_ij * m_j }}
            F_i {{ {self.diffsl.format(scale=float(self.scale), unit=float(self.unit))} }}
            """
        )  # fmt: skip
        ode = pydiffsol.Ode(
            code, matrix_type=pydiffsol.nalgebra_dense, ode_solver=getattr(pydiffsol, method)
        )  # fmt: skip
        ode.rtol = 3e-14

        def solve(tolerance: float) -> tuple[Array, bool, dict[str, int]]:
            ode.atol = tolerance
            solution = ode.solve_dense(np.zeros(0), self.times)
            return self.beta(np.asarray(solution.ys).T), True, {}

        return solve

    def diffrax(self, name: str) -> Solve:
        import diffrax
        import jax
        import jax.numpy as jnp
        import optimistix

        jax.config.update("jax_enable_x64", True)
        B, b, gamma = jnp.asarray(self.B), jnp.asarray(self.b), self.gamma
        times = jnp.asarray(self.times)

        def field(t: Any, y: Any, args: Any) -> Any:
            z = y @ B
            grown = jnp.exp(jnp.minimum(2 * (z - gamma), CAP)) - jnp.exp(jnp.minimum(2 * (-z - gamma), CAP))
            return self.pull(B @ (0.5 * grown), b, jnp.exp)

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

        X, gradient = self.problem.X, self.gradient
        alpha = InitialScale.parse(self.alpha).value
        d = X.shape[1]
        if coordinates == "u, v":
            start = np.concatenate([np.full(d, math.sqrt(2) * alpha), np.zeros(d)])

            def field(t: float, w: Array) -> Array:
                g = gradient(w[:d] * w[d:])
                return np.concatenate([-g * w[d:], -g * w[:d]])

            def beta(w: Array) -> Array:
                return w[:, :d] * w[:, d:]
        else:
            start = np.full(2 * d, alpha / math.sqrt(2))

            def field(t: float, w: Array) -> Array:
                g = gradient(w[:d] ** 2 - w[d:] ** 2)
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
