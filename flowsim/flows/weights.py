r"""Weight coordinates: any formula, within the range and precision of floats.

.. math:: \dot\theta_i = -\big( g_i(m) \nabla m_i + \tfrac12 \sigma_i^2 \nabla V_i \big).

The weights themselves are the unknowns, so a conserved quantity is a difference of large numbers, lost to
cancellation below a scale set by rounding, and weights underflow below 1e-308. Both are checked after every step;
a flow that lost its conserved quantity, or a weight, ends in an error instead of a plausible curve.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from flowsim.arrays import Array, Bools, Integers, log_abs
from flowsim.flows.coordinates import SAFETY, Observed
from flowsim.flows.kernel_coordinates import (
    FLOOR_POWER,
    LARGEST_JACOBIAN,
    LARGEST_START,
    SMALLEST,
    KernelCoordinates,
)
from flowsim.flows.reflections import mirrors
from flowsim.flows.transversal import TransversalError
from flowsim.network import DiagonalNetwork, InitialScale
from flowsim.problem import Problem
from flowsim.problem.cancellation import visible_part
from flowsim.solvers import InitialValueProblem

#: A conserved quantity is lost to cancellation when rounding of its terms exceeds this part of it.
_CANCELLED = 0.05
_EPS = float(np.finfo(float).eps)
#: Relative perturbation that measures how large the terms of a conserved quantity are.
_PROBE = 1e-3
#: A gradient with larger relative errors at tiny weights is tested at the start of the flow; there a relative change
#: of _PROBE in the weights must not change it by more than _ROUGH (degrees to 20 change it by less).
#: Below _CANCELLING even terms that cancel by one order leave errors beyond the tolerance, and smooth ones.
_RESOLVED = 1e-9
_CANCELLING = 1e-8
_ROUGH = 0.02
#: A weight that starts at 0 is resolved down to this part of the largest of its coordinate.
_DRIVEN = 1e-3
#: Relative change beyond which a conserved quantity is lost, and with it the dependence on the start.
_LOST = 0.1


class WeightCoordinates(KernelCoordinates):
    """The flow in its weights.

    `net`, `problem`, `scale`, `direction`: as for growth coordinates; any formula; `growth_applies`: whether error
    messages can point to growth coordinates.
    """

    #: alternative coordinates, where they exist
    advice = "use a larger `alpha`: growth coordinates, which have no such limit, do not exist for this network"
    #: distances from mirrors instead, where the choice is free
    symmetric: Callable[[], KernelCoordinates] | None = None

    def __init__(
        self, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array, *, growth_applies: bool
    ) -> None:
        super().__init__(net, problem, direction)
        self.growth_applies = growth_applies
        self.start = np.ascontiguousarray(scale.value * direction)
        largest = np.abs(self.start).max(axis=0, keepdims=True)
        # One that falls below and later grows again would grow from rounding, which is an error.
        sunk = np.maximum(np.minimum(largest, LARGEST_START) ** FLOOR_POWER, SMALLEST)
        sunk = np.maximum(np.minimum(sunk, _DRIVEN * np.abs(self.start)), SMALLEST)
        # A weight that starts at 0 grows with the others of its coordinate: it is resolved relative to them.
        self._floor = np.where(self.start != 0, sunk, np.where(largest > 0, _DRIVEN * largest, 1.0))
        self._seen = np.abs(self.start) > self._floor
        self._sunk = np.zeros_like(self._seen)
        self.initial = self._conserved(self.start, self.kind)
        #: largest weight of each coordinate where rounding had broken the balance of its start
        self._unbalanced_at = np.full(self.d, np.inf)
        vanished = (self._conserved(direction, self.kind) != 0) & (np.abs(self.initial) < SMALLEST)
        # Where there are too few conserved quantities to check, transversal errors are bounded instead.
        known = (self._conserved(np.ones((self.k, self.d)) + np.arange(self.k)[:, None], self.kind) != 0).sum(axis=0)
        needed = np.array([len(formula.weights) for formula in net.distinct])[self.kind] - 1
        # A weight in which the formula is even never changes sign, and is as accurate as the step control makes it.
        even = np.array([self._even_weights(index) for index in range(len(net.distinct))])[self.kind]
        free = np.eye(self.k) * (known < needed)[:, None, None]
        self.guard = TransversalError(free * ~even[:, None, :] * ~even[:, :, None])
        #: some weight, or some conserved quantity, is below the range of floats from the start
        self.too_small = bool((np.abs(self.start[direction != 0]) < SMALLEST).any() or vanished.any())
        #: terms of the formula's gradient cancel at weights this small, and what is left is rounding
        self.unresolved = self.kernels.tiny_error > _RESOLVED and not (
            (largest[largest > 0] > _CANCELLING).all() and self._gradient_is_smooth()
        )

    def _even_weights(self, index: int) -> Bools:
        """The weights in which a formula is even."""
        rows = tuple(self.net.rows(self.net.distinct[index]).tolist())

        def value(w: Array) -> Array:
            out = np.empty((1, w.shape[1]))
            self.kernels.value(w, np.full(w.shape[1], index, dtype=np.int64), out[0])
            return out

        normals = mirrors(value, rows, self.k)
        single = normals[(normals != 0).sum(axis=1) == 1]
        return np.asarray((single != 0).any(axis=0)) if len(single) else np.zeros(self.k, dtype=bool)

    def _gradient_is_smooth(self) -> bool:
        """Whether the gradient at the start changes by as little as the start does."""
        slopes = []
        for factor in (1.0, 1.0 + _PROBE, 1.0 - _PROBE):
            slope = np.empty_like(self.start)
            self.kernels.gradient(factor * self.start, self.kind, slope)
            slopes.append(np.linalg.norm(slope, axis=0))
        middle, above, below = slopes
        jump = np.maximum(np.abs(above - middle), np.abs(below - middle))
        return bool((jump <= _ROUGH * middle).all() and (middle[self.start.any(axis=0)] > 0).all())

    @cached_property
    def ivp(self) -> InitialValueProblem:
        y0 = self._with_exponents(self.start, 0.0)
        jacobian = self._jacobian if len(y0) <= LARGEST_JACOBIAN else None
        return InitialValueProblem(rhs=self._rhs, y0=y0, jacobian=jacobian, check=self._check)

    def _weights(self, y: Array) -> Array:
        return np.ascontiguousarray(y[: self.k * self.d].reshape(self.k, self.d))

    def _rhs(self, t: float, y: Array) -> Array:
        w = self._weights(y)
        out = self._field_at(w, self._gradient_of_loss(w))
        return np.append(out, self.noise_decay.rates(w)) if self.decaying else out.ravel()

    def _jacobian(self, t: float, y: Array) -> Array:
        w = self._weights(y)
        k, d = self.k, self.d
        blocks, slope = self._field_jacobian(w, self._gradient_of_loss(w), self.s2), self._mean_gradient(w)
        out = np.zeros((len(y), len(y)))
        full = -np.einsum("ai,ij,bj->aibj", slope, self._hessian(w), slope)
        index = np.arange(d)
        full[:, index, :, index] += np.moveaxis(blocks, -1, 0)
        out[: k * d, : k * d] = full.reshape(k * d, k * d)
        return out

    def _conserved(self, w: Array, kind: Integers) -> Array:
        out = np.zeros((len(self.kernels.invariant_names), w.shape[1]))
        self.kernels.invariants(np.ascontiguousarray(w), kind, out)
        return out[self.pairs]

    def _check(self, t: float, y: Array) -> str | None:
        w = self._weights(y)
        size_of_weights = np.abs(w)
        risen = self._sunk & (size_of_weights > 2 * self._floor)
        if risen.any():
            a, i = (int(index) for index in np.argwhere(risen)[0])
            return (
                f"the weight {self.net.weights[a]!r} of coordinate {i} sank below {self._floor[a, i]:.1e}, where the "
                f"step control lost sight of it, and grows again; {self.remedy()}"
            )
        self._sunk |= self._seen & (size_of_weights < self._floor)
        if (wrong := self.guard.look(t, w, self.kernels, self.kind, self.std, self.s2, self.problem)) is not None:
            return f"{wrong}; {self.remedy()}"
        law = np.abs(self.initial)
        if self.decaying:
            law = law * np.exp(-y[self.k * self.d :].reshape(law.shape))
        value = self._conserved(w, self.kind)
        size = np.zeros_like(law)
        for a in range(self.k):
            moved = w.copy()
            moved[a] *= 1 + _PROBE
            size += np.abs(self._conserved(moved, self.kind) - value) / _PROBE
        cancelled = (self.initial != 0) & (_EPS * size > _CANCELLED * law)
        if cancelled.any():
            pair, i = (int(index) for index in np.argwhere(cancelled)[0])
            return (
                f"the conserved quantity {self.invariants[pair]} of coordinate {i} is lost to cancellation: it should "
                f"be {law[pair, i]:.1e}, the rounding of its terms is {_EPS * size[pair, i]:.1e}; {self.remedy()}"
            )
        if (wrong := self._balance_lost(w, value, size)) is not None:
            return wrong
        lost = (self.initial != 0) & (np.abs(np.abs(value) - law) > _LOST * law)
        if lost.any():
            pair, i = (int(index) for index in np.argwhere(lost)[0])
            return (
                f"the conserved quantity {self.invariants[pair]} of coordinate {i} is lost to the tolerance: it should "
                f"be {law[pair, i]:.1e} and is {abs(value[pair, i]):.1e}; tighten `rtol`, or {self.remedy()}"
            )
        return None

    def _balance_lost(self, w: Array, value: Array, size: Array) -> str | None:
        """Why weights that started balanced are wrong: rounding broke the balance near zero, and they grow again."""
        largest = np.abs(w).max(axis=0)
        broken = ((self.initial == 0) & (np.abs(value) > _LOST * size)).any(axis=0)
        self._unbalanced_at = np.where(broken, np.minimum(self._unbalanced_at, largest), self._unbalanced_at)
        beta = np.empty(self.d)
        self.kernels.value(w, self.kind, beta)
        grown = (largest > 2 * self._unbalanced_at) & (np.abs(beta) > self.guard.rtol * np.abs(beta).max())
        if not grown.any():
            return None
        i = int(np.argmax(grown))
        return (
            f"the weights of coordinate {i} started balanced, rounding broke the balance where they had fallen to "
            f"{self._unbalanced_at[i]:.1e}, and they grow again from there; {self.remedy()}"
        )

    def remedy(self) -> str:
        if self.growth_applies:
            return "use growth coordinates (coordinates='growth', the default here): they are exact at every scale"
        return self.advice

    @cached_property
    def visible_part(self) -> float:
        """The part of the tolerance to which weights must be known."""
        beta, slope = self._slopes(self.start)
        return visible_part(self.problem, beta, float(np.abs(self.start * slope).sum(axis=0).max()))

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        limits = np.minimum(np.minimum(atol, rtol * self._floor), rtol * self._finest(self.start))
        limits = self._with_exponents(np.broadcast_to(limits, (self.k, self.d)), rtol)
        self.guard.restart(SAFETY * rtol, rtol)
        self._sunk[:] = False
        self._unbalanced_at[:] = np.inf
        return SAFETY * self.visible_part * rtol, np.maximum(SAFETY * limits, np.finfo(float).tiny)

    def _stacked(self, y: Array) -> tuple[Array, Integers]:
        w = y[:, : self.k * self.d].reshape(len(y), self.k, self.d)
        return np.ascontiguousarray(np.moveaxis(w, 0, 1).reshape(self.k, -1)), np.tile(self.kind, len(y))

    def observe(self, t: Array, y: Array) -> Observed:
        w, kind = self._stacked(y)
        conserved = np.moveaxis(self._conserved(w, kind).reshape(-1, len(y), self.d), 0, 1)
        weights = np.moveaxis(w.reshape(self.k, len(y), self.d), 0, 1)
        return Observed.of(self.net.weights, weights, log_abs(weights), conserved, log_abs(conserved))

    def departure(self, t: Array, y: Array, seen: Callable[[], Observed]) -> Array:
        if not self.pairs:
            return np.zeros(len(t))
        found = seen().imbalance
        law = np.broadcast_to(self.initial, found.shape)
        if self.decaying:
            law = law * np.exp(-y[:, self.k * self.d :].reshape(found.shape))
        # Where the value at 0 is 0 (a balanced start) the size of its terms there stands in for it.
        terms = sum(
            np.abs(self._conserved(self._only(a), self.kind) - self._conserved(0 * self.start, self.kind))
            for a in range(self.k)
        )
        reference = np.where(law != 0, np.abs(law), terms)
        departure = np.abs(found - law)
        relative = np.divide(departure, reference, out=np.where(departure > 0, np.inf, 0.0), where=reference > 0)
        return relative.reshape(len(t), -1).max(axis=1)

    def _only(self, a: int) -> Array:
        """The start with all weights but one set to 0, which gives the size of that weight's terms."""
        alone = np.zeros_like(self.start)
        alone[a] = self.start[a]
        return alone
