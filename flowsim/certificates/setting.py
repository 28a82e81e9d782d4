"""The user's network and data, with runs and quantities shared by several theorems."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np

from flowsim.arrays import Array, Bools
from flowsim.certificates.certificate import NotMetError, UnresolvedError, assume
from flowsim.certificates.minimum import minimiser
from flowsim.errors import IntegrationError
from flowsim.flows import gradient_flow
from flowsim.limits import SaddlePath, saddle_to_saddle
from flowsim.network import DiagonalNetwork, GivenWeights, InitialScale, LinearNetwork
from flowsim.problem import Problem, Regression, require_squares
from flowsim.problem.entries import dense
from flowsim.results import Trajectory
from flowsim.studies.jumps import plateau_times

T = TypeVar("T")

#: Relative distance exp(-this) to the saddle in the middle of the shortest plateau, if the range of clocks allows.
_RESOLUTION = 30.0
_LN10 = math.log(10.0)
_SMALLEST_GAMMA, _LARGEST_GAMMA = 1e3 * _LN10, 4e6 * _LN10
_DEGENERATE = 1e-9
#: Depth L >= 3: the least alpha^(L-2) used, relative to the size of weights. The first is 10^-(L+1), at which the
#: contribution of waiting coordinates to errors of first order, its power 2/(L-2), is small too.
_SMALLEST_STEP = 1e-12
#: Largest size of waiting coordinates, relative to the largest, on a resolved plateau.
_AT_REST = 1e-2
#: Duration of a run relative to the last jump.
_BEYOND_LAST_JUMP = 1.5
#: Starts of the runs in weight coordinates, relative to the weights of the least-squares solution.
_LARGE_START = 0.5


@dataclass(frozen=True, eq=False)
class Setting:
    """The argument of a theorem's function.

    Attributes
    ----------
    net, problem
        As declared by the user; targets of shape (n, 1) are flattened for a DiagonalNetwork.
    alpha : InitialScale or None
        Scale at which limits are measured; None: small enough for the data's shortest plateau.
    start : mapping or None
        The direction that alpha multiplies.
    rtol : float
        Tolerance of the flows.
    seed : int
        Seed of all random numbers.
    """

    net: DiagonalNetwork | LinearNetwork
    problem: Problem
    alpha: InitialScale | None
    start: GivenWeights | None
    rtol: float
    seed: int
    _known: dict[Callable[[Setting], Any], Any] = field(default_factory=dict, repr=False)

    @property
    def diagonal(self) -> DiagonalNetwork:
        if not isinstance(self.net, DiagonalNetwork):
            raise NotMetError("the network is not diagonal: a theorem on beta_i = phi(theta_i)")
        return self.net

    @property
    def linear(self) -> LinearNetwork:
        if not isinstance(self.net, LinearNetwork):
            raise NotMetError("the network is diagonal: a theorem on two-layer linear networks U V^T")
        return self.net

    @cached_property
    def product_depth(self) -> int:
        """L of w1*...*wL on every coordinate."""
        net = self.diagonal
        products = {formula.product_of for formula in net.distinct}
        assume(
            not (net.is_mixed and len(net.distinct) > 1) and None not in products,
            "the network is not a plain product of weights on every coordinate",
        )
        (factors,) = products
        assert factors is not None
        assume(len(factors) >= 2, "the network has a single weight per coordinate")
        return len(factors)

    @cached_property
    def eta(self) -> float:
        """The common standard deviation of additive noise on all weights."""
        noise = self.net.noise
        if noise is None:
            raise NotMetError("the network has no weight noise")
        stds = self.net.stds
        assume(not noise.multiplicative, "the noise is multiplicative; the theorem is on additive noise")
        assume(np.ptp(stds) == 0 < stds[0], "the theorem asks for one standard deviation > 0 on all weights")
        return float(stds[0])

    @cached_property
    def rank(self) -> int:
        return int(np.linalg.matrix_rank(self.X))

    @cached_property
    def X(self) -> Array:
        return dense(self.problem)

    @property
    def orthogonal_variances(self) -> Array:
        """The diagonal of ``X^T X / n``, of an orthogonal design."""
        gram = self.X.T @ self.X / self.problem.n
        off = float(np.abs(gram - np.diag(np.diag(gram))).max() / np.abs(gram).max())
        assume(
            off <= 1e-10, f"X^T X / n is not diagonal: its largest entry off the diagonal is {off:.1e} of the largest"
        )
        return np.diag(gram)

    @property
    def squares(self) -> Regression:
        """The problem of a theorem on squares, as the registry has checked."""
        return require_squares(self.problem, "this theorem")

    @cached_property
    def correlation(self) -> Array:
        """``c = -grad L(0)``, for squares ``X^T y / n``."""
        return -self.problem.gradient(np.zeros(self.problem.beta_shape))

    @cached_property
    def least_squares(self) -> Array:
        """The least-squares solution of least norm; for another loss its minimiser, computed without the flow."""
        if isinstance(self.problem, Regression):
            return np.asarray(np.linalg.lstsq(self.X, self.problem.y, rcond=None)[0])
        found = [minimiser(each, self.X) for each in self._targets]
        assume(all(beta is not None for beta in found), "the loss has no minimum on these data")
        return np.stack(found, axis=-1).reshape(self.correlation.shape)  # type: ignore[arg-type]

    @property
    def _targets(self) -> list[Problem]:
        """The problem of each target by itself."""
        columns = self.problem.y.reshape(self.problem.n, -1).T
        return [self.problem.with_target(np.ascontiguousarray(column)) for column in columns]

    @cached_property
    def size(self) -> float:
        """The largest coefficient of the minimiser or, if there is none, of one Newton step from 0."""
        try:
            return float(np.abs(self.least_squares).max(initial=0.0))
        except (NotMetError, UnresolvedError):
            return max(self._first_step(each) for each in self._targets)

    def _first_step(self, problem: Problem) -> float:
        root = np.sqrt(problem.curvatures(np.zeros(problem.n)))
        _, values, rows = np.linalg.svd(root[:, None] * self.X, full_matrices=False)
        kept = values > _DEGENERATE * values.max()
        force = -problem.n * problem.gradient(np.zeros(problem.d))
        return float(np.abs(((rows[kept] @ force) / values[kept] ** 2) @ rows[kept]).max(initial=0.0))

    @cached_property
    def stiffness(self) -> float:
        """The largest eigenvalue of the Hessian of L in beta, at 0 and at the minimiser."""
        if isinstance(self.problem, Regression):
            return float(np.linalg.norm(self.X, 2) ** 2 / self.problem.n)
        points = [np.zeros(self.problem.beta_shape)]
        if self.problem.y.ndim == 1:
            with contextlib.suppress(NotMetError, UnresolvedError):
                points.append(self.least_squares)
        curvatures = [self.problem.curvatures(self.problem.predict(beta)) for beta in points]
        rows = np.sqrt(np.concatenate([each.reshape(self.problem.n, -1).T for each in curvatures]))
        return max(float(np.linalg.norm(row[:, None] * self.X, 2) ** 2) for row in rows) / self.problem.n

    @cached_property
    def limit(self) -> SaddlePath:
        """The limit process, with or without jumps."""
        try:
            return saddle_to_saddle(self.diagonal, self.problem, self.start)
        except (ValueError, NotImplementedError, IntegrationError) as error:
            raise NotMetError(f"this network has no limit process: {str(error).rstrip('.')}") from None

    @cached_property
    def path(self) -> SaddlePath:
        """The limit process, if it jumps."""
        path = self.limit
        assume(
            len(path.jump_times) or path.escape is None,
            "the first features to grow separate the data: beta escapes, and there is no saddle",
        )
        assume(len(path.jump_times), "the limit has no jump: nothing is correlated enough with y to grow")
        return path

    @property
    def horizon(self) -> float:
        """End of the runs in accelerated time: beyond the last jump, or the escape to infinity."""
        if self.path.escape is not None:
            return self.path.escape.time
        return _BEYOND_LAST_JUMP * float(self.path.jump_times[-1])

    @cached_property
    def middles(self) -> Array:
        return plateau_times(self.path, self.horizon)

    @cached_property
    def scales(self) -> tuple[InitialScale, InitialScale]:
        """Two scales; the second has half the distance x to the limit (x = 1/gamma, or alpha^(L-2))."""
        order = self.path.order
        if self.alpha is not None:
            assume(
                self.alpha.gamma > 0,
                f"alpha = {self.alpha} is not below 1: limits of vanishing initialisation are out of reach",
            )
            first = self.alpha.gamma
        elif order > 2:
            rates = self._rates[self._rates > _DEGENERATE]
            share = float(rates.min(initial=math.inf)) / (_RESOLUTION * self.unit)
            step = 1e-4 if order == 3 else 10.0 ** -(order + 1)
            x = min(step, max(share, _SMALLEST_STEP)) * self.unit
            first = max(-math.log(x) / (order - 2), 1.0)
        else:
            # A rate of 0 is an end whose dual is at a bound: no scale resolves it exponentially.
            needed = _RESOLUTION / float(self._rates[self._rates > _DEGENERATE].min(initial=math.inf))
            first = min(max(needed, _SMALLEST_GAMMA), _LARGEST_GAMMA)
        second = 2 * first if order == 2 else first + math.log(2.0) / (order - 2)
        given = self.alpha if self.alpha is not None else _scale(first)
        return given, _scale(second)

    @property
    def step(self) -> float:
        """x of the larger scale."""
        gamma = self.scales[0].gamma
        return 1 / gamma if self.path.order == 2 else math.exp(-(self.path.order - 2) * gamma)

    @cached_property
    def unit(self) -> float:
        """alpha^(L-2) at which the start has the size of the solution's weights; 1 for two layers."""
        order = self.path.order
        return float(np.abs(self.path.saddles).max()) ** ((order - 2) / order)

    @cached_property
    def resolved(self) -> Bools:
        """Plateaus in whose middle the flow at the first scale has relaxed, (K+1,)."""
        share = self._rates / self.step
        return np.asarray((share >= 0.999 * _RESOLUTION) & (self.at_rest <= _AT_REST))

    @cached_property
    def at_rest(self) -> Array:
        r"""Depth L >= 3: size of waiting coordinates in the middle of each plateau, relative to the largest, (K+1,).

        At a distance D from its threshold a balanced product is ``((L - 2) D / x)^(-L/(L-2))``; 0 for exponentials.
        """
        path, out = self.path, np.zeros(len(self.path.saddles))
        if path.order == 2:
            return out
        for k, middle in enumerate(self.middles):
            state = path.state(float(middle))
            rest = np.setdiff1d(np.arange(self.problem.d), path.active_sets[k])
            distance = float(np.minimum(state.upper, state.lower)[rest].min(initial=math.inf))
            with np.errstate(divide="ignore"):
                ratio = np.float64(self.step) / ((path.order - 2) * distance)
            out[k] = ratio ** (path.order / (path.order - 2.0)) / np.abs(path.saddles).max()
        return out

    @cached_property
    def _rates(self) -> Array:
        """The e-folds, times x, by which the flow has approached its saddle in the middle of each plateau.

        Waiting coordinates have size exp(-speed * distance to their threshold / x); active ones have relaxed for
        half a plateau at the least eigenvalue of ``D^(1/2) Sigma D^(1/2)``, D = d beta/dz.
        """
        path, rates = self.path, self.relaxation.copy()
        for k, support in enumerate(path.active_sets):
            if path.order == 2:
                state = path.state(float(self.middles[k]))
                speeds = [np.broadcast_to(side, (self.problem.d,)) for side in path.speeds]
                rest = np.setdiff1d(np.arange(self.problem.d), support)
                for distance, speed in zip((state.upper, state.lower), speeds, strict=True):
                    grows = rest[speed[rest] > 0]  # a side without growth has infinite distance and speed 0
                    rates[k] = min(rates[k], float((distance[grows] * speed[grows]).min(initial=math.inf)))
        return rates

    @cached_property
    def relaxation(self) -> Array:
        """The contribution of active coordinates to these rates, inf without any, (K+1,)."""
        path, rates = self.path, np.full(len(self.path.saddles), math.inf)
        for k, (begin, end) in enumerate(itertools.pairwise(path.edges(self.horizon))):
            support = path.active_sets[k]
            if not len(support):
                continue
            beta = path.saddles[k][support]
            if path.curves is not None:
                response = path.curves.response(support, np.where(beta < 0, -1, 1), float(np.abs(beta).max()))
                growth = response.inertia(np.abs(beta))
            else:
                speed = np.where(beta > 0, *(np.broadcast_to(side, (self.problem.d,))[support] for side in path.speeds))
                growth = speed * np.abs(beta) ** (1.0 if path.order == 2 else 2.0 - 2.0 / path.order)
            columns = self.X[:, support] * np.sqrt(growth)
            if not isinstance(self.problem, Regression):
                columns *= np.sqrt(self.problem.curvatures(self.problem.predict(path.saddles[k])))[:, None]
            values = np.linalg.svd(columns, compute_uv=False) ** 2 / self.problem.n
            positive = values[values > 1e-12 * values.max()]
            rates[k] = float(positive.min()) * (end - begin) / 2
        return rates

    @cached_property
    def flows(self) -> tuple[Trajectory, Trajectory]:
        """The flow at the two scales, to 1.5 times the last jump."""
        return self._flow(self.scales[0]), self._flow(self.scales[1])

    def _flow(self, scale: InitialScale) -> Trajectory:
        return self.run(self.horizon, alpha=scale, clock="accelerated")

    def run(self, t_end: float, **options: Any) -> Trajectory:
        """A flow of the user's network; if it cannot be integrated, the theorem is not resolved."""
        options = {"start": self.start, "rtol": self.rtol, "atol": self.atol, **options}
        try:
            return gradient_flow(self.net, self.problem, t_end, **options)
        except IntegrationError as error:
            raise UnresolvedError(str(error)) from None

    @cached_property
    def atol(self) -> float:
        """The absolute tolerance: relative to the size of weights, where that is below 1."""
        return 0.1 * self.rtol * min(1.0, math.sqrt(self.size) or 1.0)

    @cached_property
    def large_alpha(self) -> float:
        """A start of the size of the solution's weights, at which weight coordinates are accurate."""
        return _LARGE_START * (self.size or 1.0) ** (1.0 / self.product_depth)

    def once(self, function: Callable[[Setting], T]) -> T:
        """The value of a function of the setting, cached."""
        if function not in self._known:
            self._known[function] = function(self)
        return cast(T, self._known[function])

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


def _scale(gamma: float) -> InitialScale:
    """A scale with exactly that gamma, its text to four digits."""
    exponent = math.floor(-gamma / _LN10 + 1e-9)
    return InitialScale(f"{10 ** (-gamma / _LN10 - exponent):.4g}e{exponent}", -gamma)
