"""What coordinates that are integrated in the weights share: the generated field, read at many states at once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.flows.balancing import ProductDecay, is_lawful
from flowsim.flows.coordinates import Coordinates
from flowsim.flows.transversal import TransversalError
from flowsim.network import DiagonalNetwork, decay_of
from flowsim.problem import Problem, Regression
from flowsim.problem.entries import dense
from flowsim.symbolic import kernels

#: Weights, their products and rates below this have lost digits to underflow.
SMALLEST = 1e-290
#: Unknowns that are no logarithms are followed down to this power of the start (from 1e-3 at most).
FLOOR_POWER, LARGEST_START = 8, 1e-3
#: Predictions below this part of the targets are small.
_SMALL_PREDICTION = 1e-4
#: Beyond this many unknowns a dense Jacobian is not formed.
LARGEST_JACOBIAN = 4000


class KernelCoordinates(Coordinates):
    """The kernels of a network of k weights in d coordinates, and its lawful conserved quantities."""

    name = "weights"
    guard: TransversalError

    def __init__(self, net: DiagonalNetwork, problem: Problem, direction: Array) -> None:
        self.net, self.problem = net, problem
        self.k, self.d = direction.shape
        self.kernels = kernels(net)
        self.kind = net.kinds(self.d)
        self.std = net.stds
        self.decay = decay_of(net.weight_decay)
        self.s2 = problem.feature_variances if net.noise is not None else np.zeros(self.d)
        self.pairs = [p for p, name in enumerate(self.kernels.invariant_names) if is_lawful(net, self.std, name)]
        self.invariants = tuple(self.kernels.invariant_names[p] for p in self.pairs)
        #: the decay exponent of each conserved quantity is integrated along with the weights
        self.decaying = bool(self.pairs) and (
            bool(net.weight_decay) or (net.noise is not None and not net.noise.multiplicative)
        )

    def _stacked(self, y: Array) -> tuple[Array, Integers]:
        """The weights of states (K, N) as one row of K * d coordinates, for one call of the kernels."""
        raise NotImplementedError

    def _with_exponents(self, values: Array, exponent: float) -> Array:
        """One value per unknown: those of the weights, and one for each decay exponent."""
        flat = values.ravel()
        return np.append(flat, np.full(len(self.pairs) * self.d, exponent)) if self.decaying else flat

    @cached_property
    def noise_decay(self) -> ProductDecay:
        """Of the conserved quantities under additive noise."""
        additive = self.net.noise is not None and not self.net.noise.multiplicative
        eta2 = float(self.std.max()) ** 2 if additive else 0.0
        return ProductDecay(self.net, self.kind, self.invariants, eta2, self.s2)

    def _mean(self, w: Array, kind: Integers) -> Array:
        mean = np.empty(w.shape[1])
        self.kernels.mean(w, kind, self.std, mean)
        return mean

    def _field_at(self, w: Array, g: Array) -> Array:
        """Velocities (k, d) of weights, without decay, at the gradient g of the loss."""
        out = np.empty(w.shape)
        self.kernels.field(w, self.kind, self.std, g, self.s2, out)
        return out

    def _field_jacobian(self, w: Array, g: Array, s2: Array) -> Array:
        """Their derivatives by the weights of the same coordinate, (k, k, d), at fixed g and feature variances s2."""
        out = np.empty((self.k, self.k, self.d))
        self.kernels.field_jacobian(w, self.kind, self.std, g, s2, out)
        return out

    def _mean_gradient(self, w: Array) -> Array:
        """``grad m``, (k, d)."""
        out = np.empty(w.shape)
        self.kernels.mean_gradient(w, self.kind, self.std, out)
        return out

    def _slopes(self, w: Array) -> tuple[Array, Array]:
        """beta (d,) and the slopes (k, d) of the formula, at weights (k, d)."""
        beta, slope = np.empty(self.d), np.empty((self.k, self.d))
        self.kernels.value(w, self.kind, beta)
        self.kernels.gradient(w, self.kind, slope)
        return beta, slope

    def _finest(self, w: Array) -> Array:
        """Errors of weights (k, d) that change beta by its size there, or that of the fit if it is larger."""
        beta, slope = self._slopes(w)
        size = max(float(np.abs(beta).max()), self.problem.coefficient_size)
        return np.divide(size, np.abs(slope), out=np.full(slope.shape, np.inf), where=np.abs(slope) > size)

    def _gradient_of_loss(self, w: Array) -> Array:
        """``X^T (X m - y) / n``; near the start without the residual, in whose rounding a small m would be lost.

        Where a feature is orthogonal to y such rounding is all of its rate, and too rough for any step.
        """
        mean, problem = self._mean(w, self.kind), self.problem
        if not isinstance(problem, Regression):
            return problem.gradient(mean)
        predicted = problem.predict(mean)
        if np.abs(predicted).max() < _SMALL_PREDICTION * self._largest_target:
            return np.asarray(problem.rmatvec(predicted) / problem.n + self._first_gradient)
        return np.asarray(problem.rmatvec(predicted - problem.y) / problem.n)

    @cached_property
    def _largest_target(self) -> float:
        return float(np.abs(self.problem.y).max())

    @cached_property
    def _first_gradient(self) -> Array:
        return self.problem.gradient(np.zeros(self.d))

    @cached_property
    def _rows(self) -> Array:
        return dense(self.problem)

    @cached_property
    def _sigma(self) -> Array:
        return self._rows.T @ self._rows / self.problem.n

    def _hessian(self, w: Array) -> Array:
        """Hessian of the loss in beta, (d, d)."""
        if isinstance(self.problem, Regression):
            return self._sigma
        curvature = self.problem.curvatures(self.problem.predict(self._mean(w, self.kind)))
        return np.asarray((self._rows * curvature[:, None]).T @ self._rows) / self.problem.n

    @property
    def needs_finer_steps(self) -> bool:
        return self.guard.tripped

    def velocity(self, t: Array, y: Array) -> Array:
        w, kind = self._stacked(y)
        count, slope, field = len(y), np.empty(w.shape), np.empty(w.shape)
        g = np.ascontiguousarray(self.problem.gradients(self._mean(w, kind).reshape(count, self.d))).ravel()
        self.kernels.field(w, kind, self.std, g, np.tile(self.s2, count), field)
        self.kernels.gradient(w, kind, slope)
        decay = np.repeat([self.decay.rate(float(time)) for time in t], self.d)
        return (slope * (field - decay * w)).sum(axis=0).reshape(count, self.d)

    def predictor(self, t: Array, y: Array) -> Array:
        w, kind = self._stacked(y)
        beta = np.empty(w.shape[1])
        self.kernels.value(w, kind, beta)
        return beta.reshape(len(y), self.d)
