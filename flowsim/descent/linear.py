r"""Descent of two-layer linear networks.

.. math:: U \leftarrow U + h\, G V, \quad V \leftarrow V + h\, G^\top U, \qquad G = \tfrac1n X^\top (Y - X U V^\top),

in the row space of the start, which descent never leaves (drawn noise does: then in full width). Exactly,
:math:`\Lambda = U^\top U - V^\top V` becomes :math:`\Lambda + h^2 (V^\top G^\top G V - U^\top G G^\top U)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.arrays import Array
from flowsim.descent.growth_loop import StepPlan
from flowsim.descent.machine import Read, recorded_steps
from flowsim.descent.products import loss_address, loss_slopes
from flowsim.descent.settings import Settings
from flowsim.descent.tiles import copy_to
from flowsim.network import InitialScale, LinearNetwork
from flowsim.network.compression import LiftedWeights
from flowsim.network.linear_algebra import noise_variances
from flowsim.network.linear_start import compressed_start
from flowsim.problem import MatrixSensing, Problem
from flowsim.problem.entries import dense
from flowsim.problem.losses import SQUARED
from flowsim.solvers.compilation import compiled, part


class LinearStart:
    """alpha times the start: in the basis of its row space, or in full width where noise is drawn."""

    def __init__(
        self,
        net: LinearNetwork,
        problem: Problem,
        scale: InitialScale,
        start: Mapping[str, ArrayLike] | None,
        sampled: bool,
    ) -> None:
        compression = compressed_start(net, problem, start)
        A, B, self.basis = compression.A, compression.B, compression.basis
        self.A, self.B, self.log = A, B, scale.log
        if sampled and self.basis is not None:
            Q = self.basis()
            A, B, self.basis = A @ Q.T, B @ Q.T, None
        self.U, self.V = scale.value * A, scale.value * B
        lost = [(np.abs(new) < np.finfo(float).tiny) & (old != 0) for new, old in ((self.U, A), (self.V, B))]
        #: Why the run cannot be done in plain weights.
        self.lost: str | None = None
        if not sampled and any(each.any() for each in lost):
            self.lost = f"`alpha` = {scale} puts weights of {net} below the range of floats"


class LinearOptions(NamedTuple):
    """Rates at which expected noise pulls at Sigma U and, over tr Sigma, at V, and the squared rows (n,) that make the
    trace of a batch; projection; whether Lambda has a law; the address of a loss that is no square, and its weights
    (n, m); whether the rows of the data are measurement matrices (D m,) of beta."""

    decay_u: float
    decay_v: float
    squared_rows: Array
    multiplicative: bool
    radius: float
    has_law: bool
    loss: int
    weight: Array
    is_measured: bool


class LinearState(NamedTuple):
    """Weights, velocities, the law of Lambda, beta; length and stopped (1,)."""

    U: Array
    V: Array
    velocity_u: Array
    velocity_v: Array
    law: Array
    beta: Array
    length: Array
    stopped: NDArray[np.int64]


class LinearRecord(NamedTuple):
    """Recorded states."""

    U: Array
    V: Array
    law: Array
    beta: Array
    length: Array


@part()
def _combine(out, x, factor, y):
    """``out = x + factor * y``, entry by entry."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = x[i, j] + factor * y[i, j]


@part()
def _disturb(out, drawn, multiplicative):
    """``out + drawn``, or ``out * (1 + drawn)``; drawn is flat."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            xi = drawn[i * out.shape[1] + j]
            out[i, j] = out[i, j] * (1.0 + xi) if multiplicative else out[i, j] + xi


@part()
def _norm_of_difference(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total += (x[i, j] - y[i, j]) ** 2
    return math.sqrt(total)


@part()
def _norm(x):
    total = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total += x[i, j] ** 2
    return math.sqrt(total)


@part()
def _project(state, radius):
    """Shrink the weights to a ball; the velocities move with them."""
    size = math.hypot(_norm(state.U), _norm(state.V))
    if size > radius:
        excess = radius / size - 1.0
        _combine(state.velocity_u, state.velocity_u, excess, state.U)
        _combine(state.velocity_v, state.velocity_v, excess, state.V)
        _combine(state.U, state.U, excess, state.U)
        _combine(state.V, state.V, excess, state.V)


@part()
def _subtract_targets(R, Y, labels, rows):
    """R minus the targets of its rows; returns the sum of squares."""
    total = 0.0
    for i in range(R.shape[0]):
        row = rows[i] if rows.size else i
        for j in range(R.shape[1]):
            R[i, j] -= Y[row, j]
            if labels.size:
                R[i, j] -= labels[row * R.shape[1] + j]
            total += R[i, j] ** 2
    return total


@part()
def _loss_of_rows(R, Y, labels, rows, options):
    """R from predictions to derivatives of the loss; returns what is finite as long as they are."""
    y, weight = np.empty(R.shape), np.empty(R.shape)
    for i in range(R.shape[0]):
        row = rows[i] if rows.size else i
        for j in range(R.shape[1]):
            y[i, j], weight[i, j] = Y[row, j], options.weight[row, j]
            if labels.size:
                y[i, j] += labels[row * R.shape[1] + j]
    f = R.copy()
    return loss_slopes(options.loss, f.ravel(), y.ravel(), weight.ravel(), R.ravel())


@part()
def _predict(X, W, Z, XW, product, is_measured, R):
    """R from the data: ``X W Z^T``, or ``<A_k, W Z^T>``."""
    if is_measured:
        np.dot(W, Z.T, product)
        np.dot(X, product.reshape(product.size, 1), R)
    else:
        np.dot(X, W, XW)
        np.dot(XW, Z.T, R)


@part()
def _pull_back(X, R, is_measured, G):
    """``G = X^T R``, or ``sum_k R_k A_k``."""
    if is_measured:
        np.dot(X.T, R, G.reshape(G.size, 1))
    else:
        np.dot(X.T, R, G)


@part()
def downhill(X, Y, beta, options):
    """``-dL/dbeta`` (D, m) of all rows, and whether the loss is finite."""
    R, G, none = np.empty(Y.shape), np.empty(beta.shape), np.empty(0, np.int64)
    if options.is_measured:
        np.dot(X, beta.reshape(beta.size, 1), R)
    else:
        np.dot(X, beta, R)
    if options.loss != 0:
        size = _loss_of_rows(R, Y, np.empty(0), none, options)
    else:
        size = _subtract_targets(R, Y, np.empty(0), none)
    _pull_back(X, R, options.is_measured, G)
    for i in range(G.shape[0]):
        for j in range(G.shape[1]):
            G[i, j] /= -X.shape[0]
    return G, math.isfinite(size)


@compiled()
def run_linear(X, Y, labels, rows, noise, step, options, state, plan, record):
    """Take the steps of `plan`; False as soon as the loss is not finite."""
    U, V, law, beta = state.U, state.V, state.law, state.beta
    D, width = U.shape
    m = V.shape[0]
    count = rows.shape[1] if rows.shape[0] else X.shape[0]
    W, Z = np.empty((D, width)), np.empty((m, width))
    moved_u, moved_v, pulled = np.empty((D, width)), np.empty((m, width)), np.empty((D, width))
    XW, R = np.empty((count, width)), np.empty((count, Y.shape[1]))
    chosen = np.empty((count, X.shape[1])) if rows.shape[0] else X
    G, product = np.empty((D, m)), np.empty((D, m))
    gram_u, gram_v = np.empty((width, width)), np.empty((width, width))
    batch, shaken = np.empty(0, np.int64), np.empty(0)
    for k in range(plan.first, plan.last + 1):
        if k % plan.every == 0 or k == plan.n_steps:
            slot = k // plan.every if k % plan.every == 0 else k // plan.every + 1
            if record.length[slot] < 0.0:
                copy_to(U.ravel(), record.U[slot].ravel())
                copy_to(V.ravel(), record.V[slot].ravel())
                copy_to(law.ravel(), record.law[slot].ravel())
                copy_to(beta.ravel(), record.beta[slot].ravel())
                record.length[slot] = state.length[0]
        if k == plan.last:
            break
        ahead = plan.momentum if plan.nesterov else 0.0
        _combine(W, U, ahead, state.velocity_u)
        _combine(Z, V, ahead, state.velocity_v)
        if noise.shape[0]:
            _disturb(W, noise[k - plan.first, : D * width], options.multiplicative)
            _disturb(Z, noise[k - plan.first, D * width :], options.multiplicative)
        if rows.shape[0]:
            batch = rows[k - plan.first]
            for i in range(count):
                copy_to(X[batch[i]], chosen[i])
        if labels.shape[0]:
            shaken = labels[k - plan.first]
        _predict(chosen, W, Z, XW, product, options.is_measured, R)
        if options.loss != 0:
            finite = math.isfinite(_loss_of_rows(R, Y, shaken, batch, options))
        else:
            finite = math.isfinite(_subtract_targets(R, Y, shaken, batch))
        if not finite:
            state.stopped[0] = k
            return False
        _pull_back(chosen, R, options.is_measured, G)
        np.dot(G, Z, moved_u)
        np.dot(G.T, W, moved_v)
        if options.multiplicative and noise.shape[0]:
            # The chain rule: what is descended is L(U (1 + xi), V (1 + zeta)).
            _disturb(moved_u, noise[k - plan.first, : D * width], True)
            _disturb(moved_v, noise[k - plan.first, D * width :], True)
        if options.decay_u > 0.0:
            np.dot(chosen.T, XW, pulled)
            _combine(moved_u, moved_u, options.decay_u, pulled)
        if options.decay_v > 0.0:
            trace = 0.0  # of X^T X over the rows of this step
            for i in range(count):
                trace += options.squared_rows[batch[i] if rows.shape[0] else i]
            _combine(moved_v, moved_v, trace * options.decay_v, Z)
        scale = -step / count
        if options.has_law:
            np.dot(moved_u.T, moved_u, gram_u)
            np.dot(moved_v.T, moved_v, gram_v)
            _combine(law, law, scale * scale, gram_u)
            _combine(law, law, -scale * scale, gram_v)
        for old, velocity, moved in ((U, state.velocity_u, moved_u), (V, state.velocity_v, moved_v)):
            for i in range(old.shape[0]):
                for j in range(width):
                    velocity[i, j] = plan.momentum * velocity[i, j] + scale * moved[i, j]
                    old[i, j] += velocity[i, j]
        if options.radius < math.inf:
            _project(state, options.radius)
        np.dot(U, V.T, product)
        state.length[0] += _norm_of_difference(product, beta)
        copy_to(product.ravel(), beta.ravel())
    return True


class SingleRun:
    """One run of descent on U V^T: its data and step.

    Parameters
    ----------
    net, problem, start, settings
    steps : array (1,)
    """

    invariants: tuple[str, ...] = ("U^T U - V^T V",)

    def __init__(
        self, net: LinearNetwork, problem: Problem, start: LinearStart, settings: Settings, steps: Array
    ) -> None:
        self.settings, self.basis = settings, start.basis
        is_measured = isinstance(problem, MatrixSensing)
        self.X = problem.A.reshape(problem.n, -1) if isinstance(problem, MatrixSensing) else dense(problem)
        self.X, self.Y = np.ascontiguousarray(self.X), np.ascontiguousarray(problem.y.reshape(problem.n, -1))
        self.step = float(steps[0])
        self.state: Any
        noisy = net.noise is not None and bool(net.noise.stds(net.weights).any())
        eta_u2, eta_v2 = noise_variances(net) if noisy and settings.expected else (0.0, 0.0)
        self.options = LinearOptions(
            eta_v2 * problem.n_targets, eta_u2, np.sum(self.X**2, axis=1),
            net.noise is not None and net.noise.multiplicative,
            np.inf if settings.radius is None else settings.radius,
            not noisy and settings.momentum == 0.0 and settings.radius is None,
            0 if problem.loss_function is SQUARED else loss_address(problem),
            np.ascontiguousarray(problem.entry_weights.reshape(problem.n, -1)), is_measured,
        )  # fmt: skip

    @property
    def stopped(self) -> NDArray[np.int64]:
        stopped: NDArray[np.int64] = self.state.stopped
        return stopped

    def set_step(self, size: float) -> None:
        """The size of the steps to come."""
        self.step = size

    def lifted(
        self, weights: Mapping[str, Array], logs: Mapping[str, Array]
    ) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        """Weights and their logarithms in all columns of a wide network."""
        if self.basis is None:
            return weights, logs
        return LiftedWeights(weights, self.basis), LiftedWeights(weights, self.basis, log_abs)


class LinearMachine(SingleRun):
    """One run; U and V as floats.

    Parameters
    ----------
    net, problem, start
    settings : Settings
    steps : array (1,)
    """

    name = "linear"

    def __init__(
        self, net: LinearNetwork, problem: Problem, start: LinearStart, settings: Settings, steps: Array
    ) -> None:
        if start.lost is not None:
            raise ValueError(f"{start.lost}; full batches without momentum and `radius` are descended at any scale.")
        super().__init__(net, problem, start, settings, steps)
        U, V = start.U.copy(), start.V.copy()
        size = math.hypot(np.linalg.norm(U), np.linalg.norm(V))
        if settings.radius is not None and size > settings.radius:
            raise ValueError(f"`radius` must hold the start, of norm {size:.6g}; received {settings.radius}.")
        with np.errstate(over="ignore", invalid="ignore"):
            law, beta = U.T @ U - V.T @ V, U @ V.T
        self.state = LinearState(
            U, V, np.zeros_like(U), np.zeros_like(V), law, beta, np.zeros(1), np.full(1, -1)
        )  # fmt: skip
        slots = len(recorded_steps(settings.n_steps, settings.record_every))
        self.record = LinearRecord(
            np.empty((slots, *U.shape)), np.empty((slots, *V.shape)), np.empty((slots, *law.shape)),
            np.empty((slots, *beta.shape)), np.full(slots, -1.0),
        )  # fmt: skip

    def advance(self, first: int, last: int, rows: NDArray[np.int64], labels: Array, noise: Array) -> bool:
        s = self.settings
        plan = StepPlan(first, last, s.n_steps, s.record_every, s.momentum, s.nesterov)
        return bool(
            run_linear(self.X, self.Y, labels, rows, noise, self.step, self.options, self.state, plan, self.record)
        )

    def read(self, lane: int, count: int) -> Read:
        U, V = self.record.U[:count].copy(), self.record.V[:count].copy()
        with np.errstate(all="ignore"):
            imbalance = np.swapaxes(U, 1, 2) @ U - np.swapaxes(V, 1, 2) @ V
            law = self.record.law[:count] if self.options.has_law else imbalance[:1]
            terms = float(np.linalg.norm(U[0].T @ U[0]) + np.linalg.norm(V[0].T @ V[0])) if count else 1.0
            size = float(np.linalg.norm(imbalance[0])) if count else 1.0
            balanced = size <= 1e3 * np.finfo(float).eps * terms
            departure = np.linalg.norm(imbalance - law, axis=(1, 2)) / (terms if balanced else size)
            weights, logs = self.lifted({"U": U, "V": V}, {"U": np.log(np.abs(U)), "V": np.log(np.abs(V))})
            log_imbalance = np.log(np.abs(imbalance))
        return Read(
            beta=self.record.beta[:count].copy(),
            weights=weights,
            log_abs_weights=logs,
            imbalance=imbalance,
            log_imbalance=log_imbalance,
            imbalance_sign=np.sign(imbalance),
            terms=np.full(1, terms),
            length=self.record.length[:count].copy(),
            departure=departure,
            has_law=self.options.has_law,
        )


def expected_decay(net: LinearNetwork, problem: Problem) -> tuple[float, float]:
    """The pull of the expected weight noise on Sigma U and on V: ``eta_V^2 m`` and ``eta_U^2 tr Sigma``."""
    if net.noise is None or not net.noise.stds(net.weights).any():
        return 0.0, 0.0
    eta_u2, eta_v2 = noise_variances(net)
    return eta_v2 * problem.n_targets, eta_u2 * float(problem.feature_variances.sum())


def log_abs(values: Array) -> Array:
    with np.errstate(divide="ignore"):
        out: Array = np.log(np.abs(values))
    return out
