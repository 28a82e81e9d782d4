r"""SGD as a stochastic flow, in growth coordinates.

With steps of size h and stochastic gradients ``g + zeta`` the weights of ``u*v`` follow

.. math:: du = v\, dN, \qquad dv = u\, dN, \qquad dN_i = -g_i\, dt + \sqrt h\, dM_i,

M a martingale with the covariance of zeta. Both components are geometric Brownian motions in the clock N,

.. math:: \ln|u + v| = \ln|u_0 + v_0| + N - K, \qquad \ln|u - v| = \ln|u_0 - v_0| - N - K,
          \qquad K = \tfrac12 \langle N \rangle,

so ``ln|pq| + 2 K`` is constant along every path and alpha enters through its logarithm alone; a component of any
quadratic form obeys ``ln c_k^2 = 4 mu_k N - 4 mu_k^2 <N>``. N stays in the row space of X: ``N = X^T nu / n`` with

.. math:: d\nu = -r\, dt + \sqrt h \Big( \sqrt{\tfrac{n}{b} - 1}\, \sqrt{\tfrac{n}{n - 1}}\, \mathrm{diag}(r)
          (I - \tfrac1n 1 1^\top)\, dW + \delta \sqrt{\tfrac nb}\, dW' \Big),

r the slopes of the loss, b the size of batches drawn without replacement, delta the label noise. The Euler-Maruyama
method is of strong order 1 for label noise, which is additive here, and 1/2 with mini-batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowsim.arrays import Array
from flowsim.card import one_line
from flowsim.errors import IntegrationError
from flowsim.flows.checks import positive
from flowsim.growth.exponential import ExponentialMap, admits_growth
from flowsim.hints import hinting
from flowsim.network import Alpha, DiagonalNetwork, GivenWeights, resolve_alpha
from flowsim.plain_numbers import count, finite, read_seed
from flowsim.problem import Problem, require_squares, single_target
from flowsim.problem.entries import dense
from flowsim.results.saved import Saved


@dataclass(frozen=True, eq=False, repr=False)
class StochasticFlow(Saved):
    """Paths of a stochastic flow at T times.

    Attributes
    ----------
    t : array (T,)
    beta : array (R, T, d)
        Coefficients of R paths.
    drive, quadratic_variation : array (R, T, d)
        N and its quadratic variation, twice K.
    log_abs_components : array (R, T, d, k)
        ``ln |c_k|``; for ``u*v`` the components are u + v and u - v. 0 where one is exactly zero.
    log_conserved : array (R, T, d, k - 1)
        Logarithms of the quantities conserved without noise (``|u^2 - v^2|``), corrected for their decay by the noise:
        constant along every path.
    info : dict
    """

    t: Array
    beta: Array
    drive: Array = field(repr=False)
    quadratic_variation: Array = field(repr=False)
    log_abs_components: Array = field(repr=False)
    log_conserved: Array = field(repr=False)
    info: dict[str, Any] = field(default_factory=dict)

    __repr__ = one_line

    @property
    def mean(self) -> Array:
        """The mean of beta over the paths, (T, d)."""
        return np.asarray(self.beta.mean(axis=0))

    @property
    def standard_error(self) -> Array:
        """Standard error of that mean, (T, d); NaN for a single path."""
        count = len(self.beta)
        return self.beta.std(axis=0, ddof=1) / math.sqrt(count) if count > 1 else np.full(self.mean.shape, np.nan)

    def risk(self, problem: Problem) -> Array:
        """The loss of every path on other data, (R, T)."""
        return np.array([problem.loss(path) for path in self.beta])


@hinting
def stochastic_flow(
    net: DiagonalNetwork,
    problem: Problem,
    t_end: float,
    *,
    step: float,
    alpha: Alpha | None = None,
    start: GivenWeights | None = None,
    batch_size: int | None = None,
    label_noise: float = 0.0,
    n_paths: int = 1,
    n_steps: int | None = None,
    record_every: int = 1,
    seed: int | np.random.SeedSequence | None = None,
) -> StochasticFlow:
    r"""The stochastic differential equation of SGD, exact in its conserved quantities at every alpha.

    Parameters
    ----------
    net : DiagonalNetwork
        Quadratic formulas without weight noise; weight decay is kept.
    problem : Problem
        With a single target.
    t_end : float
        > 0; SGD with steps h takes ``t_end / h`` of them.
    step : float
        h > 0, the step size of SGD: it sets the size of the noise, not that of the integration.
    alpha, start
        As in :func:`flowsim.gradient_flow`.
    batch_size : int, optional
        Rows in a batch, drawn without replacement; all rows by default.
    label_noise : float
        Standard deviation of the noise added to y at every step; for squares.
    n_paths : int
        R.
    n_steps : int, optional
        Steps of the integration, ``t_end / step`` by default.
    record_every : int
        Keep every so many states; the first and the last are always kept.
    seed : int, SeedSequence or None

    Returns
    -------
    StochasticFlow

    Raises
    ------
    ValueError
        For invalid arguments.
    IntegrationError
        If a path leaves the range of floats: the steps are too long.

    References
    ----------
    Pesme, Pillaud-Vivien, Flammarion, *Implicit bias of SGD for diagonal linear networks*, arXiv 2106.09524.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[1.0]], [2.0])
    >>> net = fs.DiagonalNetwork("u*v")
    >>> sde = fs.stochastic_flow(net, problem, 20.0, step=0.01, alpha=0.1, label_noise=0.5, seed=0)
    >>> sde.beta.shape, bool(abs(sde.beta[0, -1, 0] - 2) < 0.5)
    ((1, 2001, 1), True)
    """
    if not isinstance(net, DiagonalNetwork):
        raise ValueError(f"`net` must be a DiagonalNetwork; received {type(net).__name__}.")
    if not isinstance(problem, Problem):
        raise ValueError(f"`problem` must be a Problem; received {type(problem).__name__}.")
    problem = single_target(problem)
    if net.noise is not None or (reason := admits_growth(net)) is not None:
        raise ValueError(
            f"`net` must have quadratic formulas and no weight noise; received {net}"
            + (f": {reason}." if net.noise is None else ".")
        )
    t_end, h = positive("t_end", t_end), positive("step", step)
    label_noise = finite("label_noise", label_noise, least=0.0)
    if label_noise:
        require_squares(problem, "label noise")
    size = problem.n if batch_size is None else count("batch_size", batch_size)
    if size > problem.n:
        raise ValueError(f"`batch_size` must be at most n = {problem.n}; received {size}.")
    paths, every = count("n_paths", n_paths), count("record_every", record_every)
    steps = max(1, round(t_end / h)) if n_steps is None else count("n_steps", n_steps)
    scale = resolve_alpha(alpha, start)
    driven = _Driven(
        ExponentialMap.of(net, problem, scale, net.direction(start, problem.d)), problem, h, size, float(label_noise)
    )
    dt, rng = t_end / steps, np.random.default_rng(read_seed(seed))
    kept = [*range(0, steps, every), steps]
    nu, variation = np.zeros((paths, problem.n)), np.zeros((paths, problem.d))
    states: list[tuple[Array, Array]] = []
    for k in range(steps + 1):
        if k == kept[len(states)]:
            states.append((driven.drive(nu), variation.copy()))
        if k < steps:
            nu, variation = driven.advance(k * dt, dt, nu, variation, *driven.draw(rng, paths, dt))
    t = np.array(kept) * dt
    return driven.read(
        t,
        np.stack([z for z, _ in states], axis=1),
        np.stack([q for _, q in states], axis=1),
        {
            "network": repr(net),
            "alpha": scale.text,
            "step": h,
            "batch_size": batch_size,
            "n_steps": steps,
            "label_noise": float(label_noise),
        },
    )


class _Driven:
    """The stochastic differential equation of nu and <N>, for many paths at once."""

    def __init__(self, growth: ExponentialMap, problem: Problem, step: float, batch: int, label_noise: float) -> None:
        self.map, self.problem = growth, problem
        n = problem.n
        ratio = n / batch
        self.batch_size = math.sqrt(step * (ratio - 1) * n / (n - 1)) if n > 1 else 0.0
        self.label_size = label_noise * math.sqrt(step * ratio)
        self.label_scale = np.ones(n) if problem.row_scale is None else problem.row_scale
        self.X = dense(problem)
        self.squares = self.X**2
        # Ito correction: ln c_k^2 decays by rate^2 / 4 times the quadratic variation.
        self.loss = self.map.modes.rate**2 / 4

    def draw(self, rng: np.random.Generator, paths: int, dt: float) -> tuple[Array, Array]:
        """Increments of the two Brownian motions, (R, n) each; zeros without the respective noise."""
        shape = (paths, self.problem.n)
        nothing = np.zeros((1, 1))
        return (
            math.sqrt(dt) * rng.standard_normal(shape) if self.batch_size else nothing,
            math.sqrt(dt) * rng.standard_normal(shape) if self.label_size else nothing,
        )

    def drive(self, nu: Array) -> Array:
        """``N = X^T nu / n``, (R, d)."""
        return np.asarray(nu @ self.X) / self.problem.n

    def exponents(self, t: Array | float, z: Array, variation: Array) -> Array:
        """``ln c_k^2``, (..., d, k)."""
        return self.map.exponents(z, t) - self.loss * variation[..., None]

    def advance(
        self, t: float, dt: float, nu: Array, variation: Array, batches: Array, labels: Array
    ) -> tuple[Array, Array]:
        """One Euler-Maruyama step."""
        n = self.problem.n
        with np.errstate(over="ignore", invalid="ignore"):
            beta = self.map.mean(self.exponents(t, self.drive(nu), variation))
            r = self.problem.slopes(self.problem.predict(beta))
            moved = nu - dt * r + self.label_size * self.label_scale * labels
            rate = self.label_size**2 * (self.label_scale**2 @ self.squares)[None]
            if self.batch_size:
                moved += self.batch_size * r * (batches - batches.mean(axis=1, keepdims=True))
                spread = (r**2) @ self.squares - (r @ self.X) ** 2 / n
                rate = rate + self.batch_size**2 * spread
        if not np.isfinite(moved).all():
            raise IntegrationError(f"a path left the range of floats at t = {t:.6g}; take more steps with `n_steps`.")
        return moved, variation + dt * rate / n**2

    def read(self, t: Array, z: Array, variation: Array, info: dict[str, Any]) -> StochasticFlow:
        modes = self.map.modes
        exponents = self.exponents(t, z, variation)
        logs = exponents / 2 * modes.present
        powers = (modes.conserved * self.loss[:, None, :]).sum(axis=-1) / 2
        products = (modes.conserved * logs[..., None, :]).sum(axis=-1)
        return StochasticFlow(
            t=t,
            beta=self.map.mean(exponents),
            drive=z,
            quadratic_variation=variation,
            log_abs_components=logs,
            log_conserved=products + powers * variation[..., None],
            info=info,
        )
