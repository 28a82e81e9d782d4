r"""How data and loss act on ``beta = U V^T``: through ``G(beta) = -grad L(beta)`` alone.

Features are reduced to the row space of X, ``X = W diag(s) Phi^T``: the part of U outside of it has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array, log_abs
from flowsim.network.decay import Decay, decay_of
from flowsim.network.linear_algebra import LinearData, noise_variances, singular_parts
from flowsim.network.networks import LinearNetwork
from flowsim.problem import MatrixSensing, Problem, Regression
from flowsim.problem.entries import dense

#: Margin from which on the losses that tend to 0 are exponentials to rounding.
_LARGE_MARGIN = 40.0


@dataclass(frozen=True, eq=False)
class Squares:
    """``G = signal - rows * beta * columns``: least squares in the singular basis of X."""

    signal: Array
    curvature_rows: Array
    curvature_columns: Array

    def value(self, product: Array) -> Array:
        return self.signal - self.curvature_rows[:, None] * product * self.curvature_columns

    def change(self, product: Array, change: Array) -> Array:
        return -self.curvature_rows[:, None] * change * self.curvature_columns


@dataclass(frozen=True, eq=False)
class _OfFeatures:
    """A loss of ``features beta``: X in the basis of its right singular vectors."""

    problem: Problem
    features: Array
    curvature_rows: Array
    curvature_columns: Array
    signal: None = None


class AnyLoss(_OfFeatures):
    """``G = -X^T (w loss'(X beta, y)) / n``."""

    def value(self, product: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):  # a trial step may leave the range of floats: it is rejected
            return -self.features.T @ self.problem.slopes(self.features @ product) / len(self.features)

    def change(self, product: Array, change: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            curvature = self.problem.curvatures(self.features @ product)
            return -self.features.T @ (curvature * (self.features @ change)) / len(self.features)


class LogarithmOfLoss(_OfFeatures):
    """``G = -grad ln L`` for a loss that decreases to 0 with the margin; its size is that of X throughout."""

    def value(self, product: Array) -> Array:
        return self.features.T @ self._parts(product)[1]

    def change(self, product: Array, change: Array) -> Array:
        _, force, curvature_of_loss = self._parts(product)
        moved = self.features @ change
        along = np.sum(force * moved, axis=(-2, -1), keepdims=True)
        return self.features.T @ (force * along - curvature_of_loss * moved)

    def log_loss(self, product: Array) -> Array:
        """ln L at products (..., r, m)."""
        return self._parts(product)[0][..., 0, 0]

    def log_sum_exp(self, product: Array) -> LogarithmOfLoss | None:
        """The same as a log-sum-exp function, which it is where all margins are large."""
        return self if (self.problem.y * (self.features @ product)).min() > _LARGE_MARGIN else None

    def exponents(self, product: Array) -> Array:
        """Exponents of the loss of each entry, (..., n m)."""
        out = log_abs(self.problem.entry_weights) - self.problem.y * (self.features @ product)
        return out.reshape(*product.shape[:-2], -1)

    def force(self, weights: Array) -> Array:
        """G of the entries' parts in the loss."""
        return self.features.T @ (self.problem.y * weights.reshape(*weights.shape[:-1], *self.problem.y.shape))

    def _parts(self, product: Array) -> tuple[Array, Array, Array]:
        """ln L, minus its slopes in the predictions, and the curvatures of L over L."""
        problem, logs = self.problem, self.problem.loss_function.margin_logs
        assert logs is not None
        weights = log_abs(problem.entry_weights)
        value, slope, curvature = (part + weights for part in logs(problem.y * (self.features @ product)))
        top = value.max(axis=(-2, -1), keepdims=True)
        total = top + np.log(np.sum(np.exp(value - top), axis=(-2, -1), keepdims=True))
        with np.errstate(under="ignore"):
            force, curvature_of_loss = problem.y * np.exp(slope - total), np.exp(curvature - total)
        return total - np.log(problem.n), force, curvature_of_loss


@dataclass(frozen=True, eq=False)
class Transposed:
    """The same with the roles of U and V exchanged."""

    inner: Squares | AnyLoss | LogarithmOfLoss | Measured

    @property
    def curvature_rows(self) -> Array:
        return self.inner.curvature_columns

    @property
    def curvature_columns(self) -> Array:
        return self.inner.curvature_rows

    @property
    def signal(self) -> Array | None:
        return None if self.inner.signal is None else np.ascontiguousarray(self.inner.signal.T)

    def log_sum_exp(self, product: Array) -> Transposed | None:
        inner = self.inner
        return self if isinstance(inner, LogarithmOfLoss) and inner.log_sum_exp(product.T) is not None else None

    def exponents(self, product: Array) -> Array:
        assert isinstance(self.inner, LogarithmOfLoss)
        return self.inner.exponents(np.swapaxes(product, -1, -2))

    def force(self, weights: Array) -> Array:
        assert isinstance(self.inner, LogarithmOfLoss)
        return np.swapaxes(self.inner.force(weights), -1, -2)

    def value(self, product: Array) -> Array:
        return np.ascontiguousarray(np.swapaxes(self.inner.value(np.swapaxes(product, -1, -2)), -1, -2))

    def change(self, product: Array, change: Array) -> Array:
        back = self.inner.change(np.swapaxes(product, -1, -2), np.swapaxes(change, -1, -2))
        return np.ascontiguousarray(np.swapaxes(back, -1, -2))


@dataclass(frozen=True, eq=False)
class Measured:
    """``G = -(1/n) sum_k (<A_k, beta> - y_k) A_k``."""

    problem: Problem
    curvature_rows: Array
    curvature_columns: Array
    signal: None = None

    def value(self, product: Array) -> Array:
        return -self.problem.gradient(product)

    def change(self, product: Array, change: Array) -> Array:
        return -self.problem.hessian_product(product, change)


@dataclass(frozen=True, eq=False)
class ReducedData:
    """The data of a flow of U V^T, in the row space of X.

    Attributes
    ----------
    coupling
        G in the reduced basis, (r, m).
    directions : array (D, r) or None
        Phi; None for the identity.
    damping_u, damping_v : array (r,), (m,)
        Rates at which weight noise damps U_1 and V.
    decay : Decay
        Weight decay, which damps all weights.
    excess : callable or None
        ``L - least_loss`` at reduced beta (..., r, m), without cancellation; None: use the problem's loss.
    """

    coupling: Squares | AnyLoss | LogarithmOfLoss | Measured
    directions: Array | None
    damping_u: Array
    damping_v: Array
    decay: Decay
    excess: Callable[[Array], Array] | None
    least_loss: float | None

    @property
    def rank(self) -> int:
        return len(self.damping_u)

    def inside(self, U: Array) -> tuple[Array, Array]:
        """``Phi^T U`` and the rest of U."""
        if self.directions is None:
            return np.array(U), np.zeros_like(U)
        inside = self.directions.T @ U
        # Rounding of the projection must not count as part of the start.
        rounding = 4 * np.finfo(float).eps * np.sqrt(len(U)) * np.linalg.norm(U, axis=0)
        inside[np.abs(inside) <= rounding] = 0.0
        rest = U - self.directions @ inside
        rest[:, np.linalg.norm(rest, axis=0) <= rounding] = 0.0
        return inside, rest

    def lift(self, inside: Array) -> Array:
        """``Phi inside``."""
        return inside if self.directions is None else self.directions @ inside


def reduce_data(net: LinearNetwork, problem: Problem, of_logarithm: bool = False) -> ReducedData:
    """The data in the row space of X, with the damping by noise and weight decay; `of_logarithm`: of ln L.

    Raises ValueError if X = 0: then no weight moves.
    """
    decay = decay_of(net.weight_decay)
    m = problem.n_targets
    if isinstance(problem, MatrixSensing):
        return _measured(net, problem, decay)
    if isinstance(problem, Regression):
        data = LinearData.of(problem)
        if data.rank == 0:
            raise ValueError("`problem` must have X != 0: with X = 0 no weight moves.")
        noise_u, noise_v = data.damping(net)
        coupling = Squares(data.signal, data.curvatures, np.ones(m))
        return ReducedData(coupling, data.directions, noise_u, np.full(m, noise_v), decay, data.excess, data.least_loss)
    left, values, directions = singular_parts(dense(problem))
    if not len(values):
        raise ValueError("`problem` must have X != 0: with X = 0 no weight moves.")
    features, still = np.ascontiguousarray(left * values), np.zeros(len(values))
    curvature = float(np.mean(problem.curvatures(np.zeros(problem.y.shape))))
    kind = LogarithmOfLoss if of_logarithm else AnyLoss
    general = kind(problem, features, values**2 / problem.n * max(curvature, 1e-3), np.ones(m))
    return ReducedData(general, directions, still, np.zeros(m), decay, None, None)


def _measured(net: LinearNetwork, problem: MatrixSensing, decay: Decay) -> ReducedData:
    rows, columns = problem.measurement_curvatures(*noise_variances(net))
    model = problem.curvature_model
    if not model.any():
        raise ValueError("`problem` must have A != 0: with A = 0 no weight moves.")
    return ReducedData(
        Measured(problem, np.maximum(model, 1e-3 * model.max()), np.ones(problem.n_targets)),
        None,
        rows,
        columns,
        decay,
        None,
        None,
    )
