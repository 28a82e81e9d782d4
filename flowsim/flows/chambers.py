r"""Weights under noise or decay, in coordinates in which the formula's symmetries are exact.

.. math:: \dot\theta_i = -\big( g_i(m) \nabla m_i + \tfrac12 \sigma_i^2 \nabla V_i + \lambda(t)\, \theta_i \big).

With two driving terms no growth map exists. A tiny start enters through the side of each mirror on which it lies and
its distance: ``c_j = n_j . w >= 0`` of :mod:`flowsim.flows.reflections`, each with a smooth relative rate,

.. math:: \frac{d}{dt} \ln c_j = \lambda_j, \qquad
          \lambda_j = \frac{n_j \cdot \dot w}{c_j} = \int_0^1 n_j^\top J(w - (1 - s)\, c_j b_j)\, b_j \, ds,

with b_j the column of the inverse and J the Jacobian; near a mirror the second form avoids cancellation. So a balanced
start stays balanced, an imbalance that decays to 1e-1000 is an ordinary number, and vanishing weights do
not end a run. For products of weights under equal noise every unknown is such a logarithm, and alpha may be 1e-1000.
Formulas with fewer symmetries keep weights along the rest, whose errors :mod:`flowsim.flows.transversal` bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property

import numpy as np

from flowsim.arrays import Array, Bools, Integers, gauss_points, log_abs
from flowsim.flows.balancing import product_pairs
from flowsim.flows.coordinates import SAFETY, Observed
from flowsim.flows.kernel_coordinates import (
    FLOOR_POWER,
    LARGEST_JACOBIAN,
    LARGEST_START,
    SMALLEST,
    KernelCoordinates,
)
from flowsim.flows.reflections import Chambers, mirrors
from flowsim.flows.transversal import FINEST, TransversalError
from flowsim.network import Decay, DiagonalNetwork, InitialScale
from flowsim.network.decay import jumps
from flowsim.problem import Problem
from flowsim.solvers import InitialValueProblem, Solution

#: Distance to a mirror, relative to the weights, below which the second form of lambda is used.
_NEAR = 1e-4
#: Rows of the Jacobian of logarithms this far down are rounding, and have no effect.
_HIDDEN = 1e-8
_NOTHING = 1e-100
#: Gauss nodes on [0, 1] near a mirror: the error of two is of fourth order in _NEAR. Where the field underflows far
#: from it eight are exact for degrees to 16.
_FEW_NODES, _NODES = 2, 8
#: Relative tolerance of large logarithms, as a part of rtol: 1e-8 at 1e-400 and the default.
_OF_LOGARITHMS = 1e-5
#: Logarithms are clipped this far above the start before exp; a step that leads beyond is rejected by its error.
_CAP = 30.0
#: e-foldings by which a distance below _SMALL times the largest may grow in a step once it is visible.
_SMALL, _E_FOLDINGS = 0.1, 0.2
#: A conserved quantity below this part of its terms cannot be distinguished from 0.
_BALANCED = float(np.finfo(float).eps)
#: e-foldings of decay after which the departure of a conserved quantity is that of its logarithm.
_DECAYED = 100.0
#: At rest: a further change below this part of the local tolerance, and rates unaffected by hidden unknowns.
_REST = 0.1
_UNCHANGED = 1e-9


@cache
def _rule(count: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights of an average over [0, 1]."""
    points, weights = gauss_points(np.array([0.0, 1.0]), count)
    return points[0], weights[0]


class ChamberCoordinates(KernelCoordinates):
    """The flow in the logarithms of the distances from mirrors, and in weights along all other directions.

    Arguments are those of growth coordinates, with any formula.
    """

    def __init__(self, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array) -> None:
        super().__init__(net, problem, direction)
        self.chambers = Chambers.of([self._mirrors(index) for index in range(len(net.distinct))], self.kind, direction)
        self.is_wall = self.chambers.is_wall
        c = self.chambers.of_weights(direction)
        #: 0 on a mirror, which the flow does not leave
        self.present = ~self.is_wall | (c > 0)
        logs = np.where(self.is_wall & (c > 0), log_abs(c) + scale.log, 0.0)
        self.start = np.where(self.is_wall, logs, c * scale.value)
        self._cap = max(float(logs.max()), 0.0) + _CAP
        plain = ~self.is_wall & (c != 0)
        #: some weight that is not kept as a logarithm underflows
        self.too_small = bool((np.abs(self.start[plain]) < SMALLEST).any()) or self._rates_underflow()
        self.guard = TransversalError(self._free_directions())

    def _rates_underflow(self) -> bool:
        """Whether the rate of some logarithm underflows at the start and no decay outweighs it."""
        w = self.chambers.weights(self._distances(self.start))
        rates = np.abs(self._blocks(w, np.ones(self.d), self.s2)).max(axis=(1, 2)) + self.decay.rate(0.0)
        moves = (self.is_wall & self.present).any(axis=0) & (self.problem.feature_variances > 0)
        return bool((rates[moves] < SMALLEST).any())

    def _mirrors(self, index: int) -> Array:
        formula = self.net.distinct[index]
        rows = tuple(self.net.rows(formula).tolist())

        def averages(w: Array) -> Array:
            out, kind = np.empty((2, w.shape[1])), np.full(w.shape[1], index, dtype=np.int64)
            self.kernels.mean(w, kind, self.std, out[0])
            self.kernels.variance(w, kind, self.std, out[1])
            return out

        return mirrors(averages, rows, self.k)

    def _free_directions(self) -> Array:
        """Projections (d, k, k) onto the orthogonal complement of all walls, among the weights a formula uses."""
        out = np.zeros((self.d, self.k, self.k))
        used = [[name in formula.weights for name in self.net.weights] for formula in self.net.distinct]
        for i in range(self.d):
            rows = self.chambers.forms[i][~self.is_wall[:, i]] * np.array(used[self.kind[i]])
            out[i] = rows.T @ rows
        return out

    # The state

    @property
    def _size(self) -> int:
        return self.k * self.d

    def _split(self, y: Array) -> Array:
        return y[: self._size].reshape(self.k, self.d)

    def _distances(self, state: Array) -> Array:
        """c (k, d) of unknowns (k, d)."""
        return np.where(self.is_wall, self.present * np.exp(np.minimum(state, self._cap)), state)

    def _weights(self, y: Array) -> Array:
        return self.chambers.weights(self._distances(self._split(y)))

    def _blocks(self, w: Array, g: Array, s2: Array) -> Array:
        """Jacobian (d, k, k) of the field, without the decay, at a fixed gradient of the loss."""
        return np.moveaxis(self._field_jacobian(w, g, s2), -1, 0)

    # The equation

    def _near(self, c: Array, w: Array) -> Bools:
        """Walls so near that the quotient of the field loses digits to cancellation."""
        size = np.einsum("ija,ai->ji", np.abs(self.chambers.forms), np.abs(w))
        return np.asarray(self.is_wall & (c <= _NEAR * size))

    def _rates(self, t: float, y: Array) -> tuple[Array, Array, Array, Array]:
        """``dy/dt`` (k, d), c, w and g."""
        c = self._distances(self._split(y))
        w = self.chambers.weights(c)
        g = self._gradient_of_loss(w)
        moved = self.chambers.of_weights(self._field_at(w, g))
        near, underflows = self._near(c, w), self.is_wall & (np.abs(moved) < SMALLEST)
        rates = np.divide(moved, c, out=np.zeros_like(c), where=self.is_wall & (c > 0))
        for walls, nodes in ((near & ~underflows, _FEW_NODES), (underflows, _NODES)):
            if walls.any():
                rates[walls] = self._averaged(walls, c, g, nodes)
        decay = self.decay.rate(t)
        return np.where(self.is_wall, self.present * (rates - decay), moved - decay * c), c, w, g

    def _averaged(self, walls: Bools, c: Array, g: Array, nodes: int) -> Array:
        """lambda_j (E,) of the walls chosen in (k, d), by the mean of the Jacobian between mirror and state."""
        points, parts = _rule(nodes)
        j, i = np.nonzero(walls)
        forms, back, count = self.chambers.forms[i, j], self.chambers.back[i], len(i)
        between = np.repeat(c[:, i, None], nodes, axis=2)
        between[j, np.arange(count)] *= points
        w = np.ascontiguousarray(np.einsum("eaj,jen->aen", back, between)).reshape(self.k, -1)
        blocks = np.empty((self.k, self.k, count * nodes))
        kind, slope, s2 = (np.repeat(each[i], nodes) for each in (self.kind, g, self.s2))
        self.kernels.field_jacobian(w, kind, self.std, slope, s2, blocks)
        mean = blocks.reshape(self.k, self.k, count, nodes) @ parts
        return np.asarray(np.einsum("ea,abe,eb->e", forms, mean, back[np.arange(count), :, j]))

    def _rhs(self, t: float, y: Array) -> Array:
        rates, _, w, _ = self._rates(t, y)
        return np.append(rates, self._decay_rates(t, w)) if self.decaying else rates.ravel()

    def _decay_rates(self, t: float, w: Array) -> Array:
        return self.noise_decay.rates(w).ravel() + 2 * self.decay.rate(t)

    def _jacobian(self, t: float, y: Array) -> Array:
        rates, c, w, g = self._rates(t, y)
        N, B = self.chambers.forms, self.chambers.back
        slope = self._mean_gradient(w)
        # d w / d y: a logarithm moves its distance in proportion.
        by_unknown = B * np.where(self.is_wall, c, 1.0).T[:, None, :]
        scale = np.divide(1.0, c, out=np.zeros_like(c), where=self.is_wall & (c > 0))
        hidden = c <= np.maximum(_HIDDEN * np.abs(w).max(axis=0), _NOTHING)
        scale = np.where(self.is_wall, np.where(hidden, 0.0, scale), 1.0)
        left = np.einsum("ija,ai->ji", N, slope) * scale
        right = np.einsum("ai,iaj->ji", slope, by_unknown)
        index = np.arange(self.d)
        full = -np.einsum("ji,il,ml->jiml", left, self._hessian(w), right)
        own = np.einsum("ija,iab,ibm->ijm", N, self._blocks(w, g, self.s2), by_unknown) * scale.T[:, :, None]
        row = np.arange(self.k)
        decay = self.decay.rate(t)
        own[:, row, row] -= np.where(self.is_wall, np.where(scale > 0, rates + decay, 0.0), decay).T
        full[:, index, :, index] += own
        out = np.zeros((len(y), len(y)))
        out[: self._size, : self._size] = full.reshape(self._size, self._size)
        return out

    @cached_property
    def ivp(self) -> InitialValueProblem:
        y0 = self._with_exponents(self.start, 0.0)
        return InitialValueProblem(
            rhs=self._rhs,
            y0=y0,
            jacobian=self._jacobian if len(y0) <= LARGEST_JACOBIAN else None,
            step_limit=self._step_limit,
            check=self._check,
            rest=self._rest,
            breaks=jumps(self.decay),
        )

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        """Absolute for logarithms, relative for weights."""
        start = np.ascontiguousarray(self.chambers.weights(self._distances(self.start)))
        size = np.abs(start).max(axis=0, keepdims=True)
        floor = np.maximum(np.minimum(size, LARGEST_START) ** FLOOR_POWER, SMALLEST)
        floor = np.minimum(floor, self._finest(start).min(axis=0))
        limits = self._with_exponents(np.where(self.is_wall, rtol, np.minimum(atol, rtol * floor)), rtol)
        self._rtol = rtol
        self.guard.restart(SAFETY * rtol, rtol)
        self._limits = np.maximum(SAFETY * limits, np.finfo(float).tiny)
        # Logarithms that decrease without bound need no absolute accuracy.
        return (_OF_LOGARITHMS if self.is_wall.all() else SAFETY) * rtol, self._limits

    def _step_limit(self, t: float, y: Array, derivative: Array) -> float:
        """The longest step in which no hidden distance becomes visible and grows by more than _GROWTH."""
        state, rates = self._split(y), self._split(derivative)
        largest = max(float(self._distances(state).max()), np.finfo(float).tiny)
        rising = self.is_wall & self.present & (state < np.log(_SMALL * largest)) & (rates > 0)
        if not rising.any():
            return np.inf
        left = np.maximum(np.log(_HIDDEN * largest) - state[rising], _E_FOLDINGS)
        return float((left / rates[rising]).min())

    # Checks after every step

    def _check(self, t: float, y: Array) -> str | None:
        w = self._weights(y)
        decayed = self.decay.integral(t)
        wrong = self.guard.look(t, w, self.kernels, self.kind, self.std, self.s2, self.problem, decayed)
        return None if wrong is None else f"{wrong}; {self.remedy()}"

    def remedy(self) -> str:
        tighten = "tighten `rtol`, or " if self.guard.rtol > FINEST else ""
        return f"{tighten}use a larger `alpha`: growth coordinates do not exist for this network"

    def _rest(self, t: float, y: Array) -> Array | None:
        """The constant rates of the decaying unknowns, once all others are at rest; else None."""
        if isinstance(self.net.weight_decay, Decay):
            return None
        rates, c, w, _ = self._rates(t, y)
        rates = rates.ravel()
        logs = self.is_wall.ravel()
        sinking = logs & self.present.ravel() & (rates < 0) & (c.ravel() < _HIDDEN * max(float(c.max()), 1.0))
        moving = ~sinking & self.present.ravel()
        if moving.any():
            J = self._jacobian(t, y)[: self._size, : self._size][np.ix_(moving, moving)]
            speeds = np.linalg.eigvals(J).real
            if not speeds.max() < -_BALANCED * np.abs(speeds).max():
                return None
            left = np.abs(np.linalg.solve(J, rates[moving]))
            limits = self._limits[: self._size] + ~logs * SAFETY * self._rtol * np.abs(y[: self._size])
            if (left > _REST * limits[moving]).any():
                return None
        without = y.copy()
        without[: self._size][sinking] = -np.inf
        alone = self._rates(t, without)[0].ravel()
        if (np.abs(alone - rates)[sinking] > _UNCHANGED * np.abs(rates[sinking])).any():
            return None
        slope = np.where(sinking, rates, 0.0)
        return np.append(slope, self._decay_rates(t, w)) if self.decaying else slope

    # Reading states

    def _many(self, y: Array) -> tuple[Array, Array]:
        """Signs and logarithms of the distances at states (K, N), each (k, K, d)."""
        state = np.moveaxis(y[:, : self._size].reshape(len(y), self.k, self.d), 0, 1)
        wall, present = self.is_wall[:, None], self.present[:, None]
        logs = np.where(wall, np.where(present, state, -np.inf), log_abs(state))
        return np.where(wall, 1.0, np.sign(state)), logs

    def _stacked(self, y: Array) -> tuple[Array, Integers]:
        w = self.chambers.read(*self._many(y))[0]
        return np.ascontiguousarray(w.reshape(self.k, -1)), np.tile(self.kind, len(y))

    def _log_conserved(self, y: Array) -> tuple[Array, Array]:
        """Signs and logarithms (K, pairs, d) of the differences of squares."""
        signs, logs = [], []
        for name in self.invariants:
            uses = [product_pairs(formula.product_of).get(name) for formula in self.net.distinct]
            pair = next((each for each in uses if each is not None), None)
            if pair is None:  # a conserved quantity of a formula without noise that is not a product
                return np.zeros((len(y), 0, self.d)), np.zeros((len(y), 0, self.d))
            a, b = (np.eye(self.k)[self.net.weights.index(weight)] for weight in pair)
            values, sizes = zip(*(self.chambers.form(n, *self._many(y)) for n in (a - b, a + b)), strict=True)
            here = np.array([each is not None for each in uses])[self.kind]
            signs.append(np.where(here, np.sign(values[0]) * np.sign(values[1]), 0.0))
            logs.append(np.where(here, sizes[0] + sizes[1], -np.inf))
        return np.stack(signs, axis=1), np.stack(logs, axis=1)

    def observe(self, t: Array, y: Array) -> Observed:
        w, logs = self.chambers.read(*self._many(y))
        if self.pairs:
            sign, log = self._log_conserved(y)
        else:
            sign = log = np.zeros((len(y), 0, self.d))
        return Observed.of(self.net.weights, np.moveaxis(w, 0, 1), np.moveaxis(logs, 0, 1), sign * np.exp(log), log)

    def departure(self, t: Array, y: Array, seen: Callable[[], Observed]) -> Array:
        if not self.pairs:
            return np.zeros(len(t))
        found = seen().log_imbalance
        initial = law = np.broadcast_to(self._log_conserved(self.ivp.y0[None])[1], found.shape)
        if self.decaying:
            law = law - y[:, self._size :].reshape(found.shape)
        finite = np.isfinite(law)
        law, initial = np.where(finite, law, 0.0), np.where(finite, initial, 0.0)
        change = np.where(finite, found, 0.0) - law
        # After many e-foldings of decay the logarithm is accurate, not the value.
        change /= np.maximum(np.abs(law - initial) / _DECAYED, 1.0)
        return np.abs(np.expm1(np.minimum(change, 1.0))).reshape(len(t), -1).max(axis=1)

    def remarks(self, solution: Solution) -> dict[str, list[int]]:
        """The coordinates whose weights end balanced to rounding."""
        if not self.pairs:
            return {}
        y = solution.y[-1]
        size = np.abs(self._weights(y)).max(axis=0)
        log = self._log_conserved(y[None])[1][0]
        balanced = (log <= np.log(_BALANCED) + 2 * log_abs(size)).all(axis=0)
        return {"balanced": np.flatnonzero(balanced).tolist()}
