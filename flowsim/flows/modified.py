r"""The modified flow, which descent with a finite step follows to one order more than the gradient flow.

With F the field of the flow, steps of size h follow, on the clock t = h k,

.. math:: \dot\theta = \frac{1}{1-\mu} \Big( F - \frac{c}{2} F' F \Big) + O(h^2), \qquad
          c = h \text{ (plain)}, \quad h \frac{1 + \mu}{(1-\mu)^2} \text{ (heavy ball)}, \quad
          h \frac{1 - \mu + 2\mu^2}{(1-\mu)^2} \text{ (Nesterov)}.

For ``F = -grad L``, L the expected loss under noise, this is the gradient flow of :math:`L + \frac{c}{4} \lVert
\nabla_\theta L \rVert^2`. Momentum starts from rest, which over the first steps shifts the start of the modified flow
to :math:`\theta_0 - \mu h F(\theta_0) / (1-\mu)^2`; during those, while mu^k is not yet small, the two differ by O(h).
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, log_abs
from flowsim.descent import Multipliers, why_not_growth
from flowsim.descent.linear import LinearStart, expected_decay
from flowsim.flows.checks import check_accelerated, check_times, check_tolerances, positive
from flowsim.flows.coordinates import SAFETY, Coordinates, Observed
from flowsim.flows.driver import run_flow
from flowsim.flows.expansion import Expanded, StepRule
from flowsim.flows.flow_options import FlowOptions
from flowsim.flows.kernel_coordinates import LARGEST_JACOBIAN
from flowsim.flows.weights import WeightCoordinates
from flowsim.hints import hinting
from flowsim.network import Alpha, Decay, DiagonalNetwork, GivenWeights, InitialScale, LinearNetwork, decay_of
from flowsim.network.compression import lifted
from flowsim.plain_numbers import count
from flowsim.problem import Problem, matrix_targets, require_squares, single_target
from flowsim.problem.cancellation import CANCELS, COARSE, is_lost, visible_part
from flowsim.results import Clock, Trajectory
from flowsim.results.state import TIME_CLOCKS
from flowsim.solvers import InitialValueProblem
from flowsim.solvers.scipy_methods import SMALLEST_RTOL
from flowsim.symbolic.clock import acceleration

#: e-folds by which a component may grow in an explicit step: a longer one could miss its activation.
_LARGEST_GROWTH = 0.5
#: Relative error of the weights of a linear network from rounding, as measured.
_ROUNDING = 2e-17


@hinting
def modified_flow(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    step: float,
    t_end: float,
    *,
    alpha: Alpha | InitialScale,
    start: GivenWeights | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    clock: Clock = "time",
    t_eval: ArrayLike | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    max_steps: int = 1_000_000,
) -> Trajectory:
    r"""Integrate the flow that gradient descent with step h follows to O(h^2).

    .. math:: \dot\theta = -\nabla_\theta \Big( L + \frac{h}{4} \lVert \nabla_\theta L \rVert^2 \Big).

    Parameters
    ----------
    net : DiagonalNetwork or LinearNetwork
        With noise, L is the expected loss: this is the flow of ``gradient_descent(..., expected=True)``.
    problem : Problem
        Any convex loss; weight noise needs squares.
    step : float
        h > 0. The flow of h = 0 is :func:`flowsim.gradient_flow`.
    t_end : float
        On `clock`; one step of the descent is h on the clock of time.
    alpha, start
        As for the descent.
    momentum, nesterov
        As for the descent.
    t_eval : array, optional
        Times to report.
    rtol, atol : float
        Tolerances of beta.

    Returns
    -------
    Trajectory
        Its imbalance obeys no conservation law; ``imbalance_drift`` is 0 by definition. Where ``c |F'F| > |F|`` on the
        way the expansion in the step does not hold, and ``info["beyond_expansion"]`` says so.

    References
    ----------
    Barrett, Dherin, arXiv 2009.11162 (implicit gradient regularisation). Kovachki, Stuart, arXiv 1906.04285 (momentum).

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[1.0]], [1.0])
    >>> net = fs.DiagonalNetwork("u*v")
    >>> descent = fs.gradient_descent(net, problem, 0.05, 100, alpha=0.1)
    >>> modified = fs.modified_flow(net, problem, 0.05, 5.0, alpha=0.1)
    >>> plain = fs.gradient_flow(net, problem, 5.0, alpha=0.1)
    >>> abs(fs.compare(plain, descent).largest / fs.compare(modified, descent).largest) > 10
    True
    """
    from flowsim.descent.case import check_pair
    from flowsim.descent.settings import check_momentum, check_step

    check_pair(net, problem)
    if net.noise is not None:
        problem = require_squares(problem, "the modified flow under weight noise")
    if isinstance(getattr(net, "weight_decay", 0.0), Decay):
        raise ValueError("`weight_decay` must be constant for the modified flow; received a schedule.")
    if isinstance(net, LinearNetwork) and net.weight_decay:
        raise ValueError("`weight_decay` of a LinearNetwork must be 0 for the modified flow, which leaves it out.")
    momentum = check_momentum(momentum)
    if nesterov and momentum == 0.0:
        raise ValueError("`nesterov` needs `momentum` > 0; received momentum=0.")
    if clock not in TIME_CLOCKS:
        raise ValueError(f"`clock` must be one of {', '.join(TIME_CLOCKS)} here; received {clock!r}.")
    t_end, budget = positive("t_end", t_end), count("max_steps", max_steps)
    rtol, atol = check_tolerances(rtol, atol)
    points = None if t_eval is None else check_times(t_eval, t_end)
    problem = matrix_targets(problem) if isinstance(net, LinearNetwork) else single_target(problem)
    rule = StepRule(check_step(step), momentum, bool(nesterov))
    scale = InitialScale.parse(alpha)
    check_accelerated(clock, scale)
    coordinates: ModifiedGrowth | ModifiedWeights | ModifiedLinear
    if isinstance(net, LinearNetwork):
        coordinates = ModifiedLinear(net, problem, LinearStart(net, problem, scale, start, False), rule)
    elif why_not_growth(net, expected=True) is None:
        coordinates = ModifiedGrowth(net, problem, scale, net.direction(start, problem.d), rule)
    else:
        coordinates = ModifiedWeights(net, problem, scale, net.direction(start, problem.d), rule)
    return run_flow(
        coordinates,
        problem,
        FlowOptions(t_end, clock, points, _method_for(coordinates), rtol, atol, budget),
        acceleration=acceleration(net, scale),
        info={
            "network": repr(net),
            "alpha": scale.text,
            "log_alpha": scale.log,
            "default_start": start is None,
            "modified_for": {"step": rule.step, "momentum": rule.momentum, "nesterov": rule.nesterov},
        },
    )


def _method_for(coordinates: Coordinates) -> str:
    """LSODA, as steps near the stability of the descent make the flow stiff; explicit ones where growth limits them."""
    return "DOP853" if coordinates.ivp.step_limit or coordinates.ivp.y0.size > LARGEST_JACOBIAN else "LSODA"


class ModifiedGrowth(Expanded):
    """The modified flow in logarithms of the components: exact in alpha, like the descent.

    With ``c' = -r c`` along the unmodified flow, ``r = lambda g + kappa``, ``(ln|c|)' = -r - (h/2) (r^2 - r')``.
    """

    name = "modified growth"

    def __init__(
        self, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array, rule: StepRule
    ) -> None:
        self.net, self.problem, self.rule = net, problem, rule
        variances = problem.feature_variances if net.noise is not None else np.zeros(problem.d)
        self.multipliers = Multipliers.of(net, variances, scale, direction)
        self.modes = self.multipliers.modes
        self.invariants = self.modes.invariants
        self.sign, logs = self.multipliers.start()
        logs = np.where(self.sign == 0, 0.0, logs)
        if rule.offset:
            factor = 1.0 + rule.offset * self._rates(logs)[0]
            self.sign = self.sign * np.sign(factor)
            logs = logs + np.log(np.abs(np.where(factor == 0, 1.0, factor)))
        self._start = logs

    @cached_property
    def visible_part(self) -> float:
        """The part of the tolerance to which logarithms must be known."""
        terms = self._squares(self._start)
        return visible_part(self.problem, terms.sum(axis=0), float(np.abs(terms).sum(axis=0).max()))

    @cached_property
    def ivp(self) -> InitialValueProblem:
        return InitialValueProblem(rhs=self._rhs, y0=self._start.ravel(), step_limit=self._step_limit)

    def _squares(self, logs: Array) -> Array:
        """Terms of beta, (..., k, d)."""
        return self.multipliers.coefficient * np.where(self.sign != 0, np.exp(2 * logs), 0.0)

    def _rates(self, logs: Array) -> tuple[Array, Array]:
        """r and r' for logarithms (..., k, d)."""
        terms = self._squares(logs)
        m, problem = self.multipliers, self.problem
        f = problem.predict(terms.sum(axis=-2) + m.shift)
        g = problem.rmatvec(problem.slopes(f).T).T / problem.n
        r = m.rate * g[..., None, :] + m.kappa
        moved = (-2.0 * terms * r).sum(axis=-2)
        change = problem.rmatvec((problem.curvatures(f) * problem.predict(moved)).T).T / problem.n
        return r, m.rate * change[..., None, :]

    def _velocity_of_logs(self, logs: Array) -> Array:
        r, change = self._rates(logs)
        out: Array = self.rule.speed * (-r - self.rule.curvature / 2 * (r**2 - change))
        return np.where(self.sign == 0, 0.0, out)

    def _rhs(self, t: float, y: Array) -> Array:
        return self._velocity_of_logs(y.reshape(self.sign.shape)).ravel()

    def expansion(self, y: Array) -> tuple[Array, Array]:
        logs = y.reshape(self.sign.shape)
        r, change = self._rates(logs)
        c = np.where(self.sign == 0, 0.0, np.exp(logs - logs.max()))
        return c * r, c * (r**2 - change)

    def _step_limit(self, t: float, y: Array, derivative: Array) -> float:
        return float(_LARGEST_GROWTH / max(np.abs(derivative).max(), np.finfo(float).tiny))

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        # A change of a logarithm is a relative error of the component: absolute on y.
        if self.visible_part < 1.0 and is_lost(self.visible_part, rtol, 1.0 + 2 * abs(float(self._start.max()))):
            raise ValueError(f"`alpha` must be smaller: {CANCELS}.")
        return 0.0, np.full(self.sign.size, SAFETY * self.visible_part * rtol)

    def velocity(self, t: Array, y: Array) -> Array:
        logs = y.reshape(len(y), *self.sign.shape)
        return (2.0 * self._squares(logs) * self._velocity_of_logs(logs)).sum(axis=-2)

    def _components(self, y: Array) -> tuple[Array, Array]:
        sign = np.broadcast_to(self.sign, (len(y), *self.sign.shape))
        return sign, np.where(sign == 0, -np.inf, y.reshape(sign.shape))

    def predictor(self, t: Array, y: Array) -> Array:
        return self.multipliers.beta(*self._components(y))

    def observe(self, t: Array, y: Array) -> Observed:
        return Observed.of_components(self.net.weights, self.modes, *self._components(y))


class ModifiedWeights(Expanded, WeightCoordinates):
    """The modified flow in the weights, from the generated field and its Jacobian."""

    name = "modified weights"

    def __init__(
        self, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array, rule: StepRule
    ) -> None:
        super().__init__(net, problem, scale, direction, growth_applies=False)
        if self.too_small:
            raise ValueError(f"`alpha` = {scale} puts weights of {net} below the range of floats.")
        self.rule, self.decaying, self.shrinking = rule, False, decay_of(net.weight_decay).rate(0.0)
        if rule.offset:
            self.start = self.start - rule.offset * self._field(self.start)[0]

    @cached_property
    def ivp(self) -> InitialValueProblem:
        return InitialValueProblem(rhs=self._rhs, y0=self.start.ravel())

    def _field(self, w: Array) -> tuple[Array, Array]:
        """F and F'F, (k, d)."""
        mean = self._mean(w, self.kind)
        g = self.problem.gradient(mean)
        blocks, slope = self._field_jacobian(w, g, self.s2), self._mean_gradient(w)
        field = self._field_at(w, g) - self.shrinking * w
        change = self.problem.hessian_product(mean, (slope * field).sum(axis=0))
        return field, np.einsum("abi,bi->ai", blocks, field) - self.shrinking * field - slope * change

    def expansion(self, y: Array) -> tuple[Array, Array]:
        return self._field(self._weights(y))

    def velocity(self, t: Array, y: Array) -> Array:
        out = np.empty((len(y), self.d))
        slope = np.empty((self.k, self.d))
        for row, state in enumerate(y):
            w = self._weights(state)
            self.kernels.gradient(w, self.kind, slope)
            out[row] = (slope * self._rhs(0.0, state).reshape(self.k, self.d)).sum(axis=0)
        return out

    departure = Coordinates.departure


class ModifiedLinear(Expanded):
    r"""The modified flow of U V^T, in the row space of the start, which it preserves.

    With G the gradient in ``beta = U V^T`` and (P, Q) = F, the change of F along itself is

    .. math:: F' F = -\big( \dot G V + G Q + a \Sigma P, \; \dot G^\top U + G^\top P + b Q \big), \qquad
              \dot G = \nabla^2 L(\beta)\,[P V^\top + U Q^\top],

    a and b the rates of the damping by weight noise, of Sigma U and V.
    """

    name = "modified linear"
    invariants: tuple[str, ...] = ("U^T U - V^T V",)

    def __init__(self, net: LinearNetwork, problem: Problem, start: LinearStart, rule: StepRule) -> None:
        self.problem, self.rule, self.basis = problem, rule, start.basis
        self.decay_u, self.decay_v = expected_decay(net, problem)
        self.rows, self.width = start.U.shape
        if start.lost is not None:
            raise ValueError(f"{start.lost}; use a larger `alpha`.")
        state = np.concatenate([start.U, start.V])
        self._start = state - rule.offset * self._field(state)[0] if rule.offset else state

    @cached_property
    def ivp(self) -> InitialValueProblem:
        return InitialValueProblem(rhs=self._rhs, y0=self._start.ravel(), check=self._check)

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        # Weights of the size of the start decide when a direction grows, also beside others that have grown.
        size = float(np.linalg.norm(self._start, 2))
        force = self.problem.gradient(np.zeros((self.rows, len(self._start) - self.rows)))
        curvature = np.vdot(force, self.problem.hessian_product(0.0 * force, force))
        fitting = max(size, math.sqrt(np.linalg.norm(force) ** 3 / curvature) if curvature > 0 else 0.0)
        self._rtol, self._least = max(rtol, COARSE), np.full(min(self._start.shape), np.inf)
        local = max(SAFETY * rtol * (size / fitting if size else 1.0), SMALLEST_RTOL)
        return local, np.full(self._start.size, SAFETY * min(atol, rtol * size or atol))

    def _check(self, t: float, y: Array) -> str | None:
        """Why a direction that has grown is wrong: it had been as small as errors of a larger one."""
        sizes = np.linalg.svd(y.reshape(-1, self.width), compute_uv=False)
        relative = sizes / max(sizes[0], np.finfo(float).tiny)
        self._least = np.minimum(self._least, relative)
        wrong = (relative**2 > self._rtol) & (self._least * self._rtol < _ROUNDING)
        if not wrong.any():
            return None
        return (
            f"weights that grow had been {self._least[wrong].min():.1e} of the largest, whose rounding decides when "
            "they do; use a larger `alpha` or a larger `rtol`"
        )

    def _split(self, y: Array) -> tuple[Array, Array]:
        """U (..., D, k) and V (..., m, k) of flat states (..., N)."""
        state = y.reshape(*y.shape[:-1], -1, self.width)
        return state[..., : self.rows, :], state[..., self.rows :, :]

    def _damping(self, values: Array) -> Array | float:
        """``a Sigma values``."""
        if not self.decay_u:
            return 0.0
        return self.decay_u * self.problem.rmatvec(np.asarray(self.problem.X @ values)) / self.problem.n

    def _field(self, state: Array) -> tuple[Array, Array]:
        """F and F'F, (D + m, k)."""
        U, V = state[: self.rows], state[self.rows :]
        b, G = self.decay_v, self.problem.gradient(U @ V.T)
        P, Q = -(G @ V + self._damping(U)), -(G.T @ U + b * V)
        change = self.problem.hessian_product(U @ V.T, P @ V.T + U @ Q.T)
        curved = -(change @ V + G @ Q + self._damping(P)), -(change.T @ U + G.T @ P + b * Q)
        return np.concatenate([P, Q]), np.concatenate(curved)

    def expansion(self, y: Array) -> tuple[Array, Array]:
        return self._field(y.reshape(-1, self.width))

    def velocity(self, t: Array, y: Array) -> Array:
        U, V = self._split(y)
        P, Q = self._split(np.array([self._rhs(0.0, state) for state in y]))
        moved = P @ np.swapaxes(V, 1, 2) + U @ np.swapaxes(Q, 1, 2)
        return moved.reshape(len(y), -1)

    def predictor(self, t: Array, y: Array) -> Array:
        U, V = self._split(y)
        return U @ np.swapaxes(V, 1, 2)

    def observe(self, t: Array, y: Array) -> Observed:
        U, V = self._split(y)
        imbalance = np.swapaxes(U, 1, 2) @ U - np.swapaxes(V, 1, 2) @ V
        weights = {"U": U, "V": V}
        logs = lifted(weights, self.basis, {})
        return Observed(lifted(weights, self.basis), logs, imbalance, log_abs(imbalance))
