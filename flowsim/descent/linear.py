r"""Descent of two-layer linear networks.

.. math:: U \leftarrow (1 - h \lambda) U + h\, G V, \quad V \leftarrow (1 - h \lambda) V + h\, G^\top U,

:math:`G = \tfrac1n X^\top (Y - X U V^\top)`, in the row space of the start, which descent never leaves (with drawn
noise: in full width). Without weight decay :math:`\lambda`, exactly, :math:`\Lambda = U^\top U - V^\top V` becomes
:math:`\Lambda + h^2 (V^\top G^\top G V - U^\top G G^\top U)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowsim.arrays import Array, Integers, log_abs
from flowsim.descent.growth_loop import StepPlan
from flowsim.descent.linear_loop import LinearOptions, LinearRecord, LinearState, run_linear
from flowsim.descent.machine import Read, recorded_steps
from flowsim.descent.products import loss_address
from flowsim.descent.settings import Settings
from flowsim.network import GivenWeights, InitialScale, LinearNetwork
from flowsim.network.compression import lifted
from flowsim.network.decay import decay_of
from flowsim.network.linear_algebra import noise_variances
from flowsim.network.linear_start import compressed_start
from flowsim.problem import MatrixSensing, Problem
from flowsim.problem.entries import dense
from flowsim.problem.losses import SQUARED
from flowsim.solvers.matrices.calls import call_loop

#: Operations in Python of one step, and of matrix products that take as long as one of these.
_OPERATIONS, _AT_ONCE = 200, 1000


class LinearStart:
    """alpha times the start: in the basis of its row space, or in full width where noise is drawn."""

    def __init__(
        self,
        net: LinearNetwork,
        problem: Problem,
        scale: InitialScale,
        start: GivenWeights | None,
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
        #: reason why the run is impossible in plain weights, or None
        self.lost: str | None = None
        if not sampled and any(each.any() for each in lost):
            self.lost = f"`alpha` = {scale} puts weights of {net} below the range of floats"


class SingleRun:
    """One run of descent on U V^T: its data, and the size of its steps in an array (1,)."""

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
        eta_u2, eta_v2 = noise_variances(net) if net.is_noisy and settings.expected else (0.0, 0.0)
        self.options = LinearOptions(
            eta_v2 * problem.n_targets,
            eta_u2,
            np.sum(self.X**2, axis=1),
            net.noise is not None and net.noise.multiplicative,
            np.inf if settings.radius is None else settings.radius,
            not net.is_noisy and settings.momentum == 0.0 and settings.radius is None and not net.weight_decay,
            0 if problem.loss_function is SQUARED else loss_address(problem),
            np.ascontiguousarray(problem.entry_weights.reshape(problem.n, -1)),
            is_measured,
            decay_of(net.weight_decay).rate(0.0),
        )

    @property
    def stopped(self) -> Integers:
        return self.state.stopped

    def set_step(self, size: float) -> None:
        """Set the size of the next steps."""
        self.step = size

    def set_decay(self, rates: Array) -> None:
        """Set the weight decay (1,) of the next steps."""
        self.options = self.options._replace(weight_decay=float(rates[0]))

    @staticmethod
    def assembled(
        record: Any,
        weights: Mapping[str, Array],
        logs: Mapping[str, Array],
        conserved: tuple[Array, Array, Array],
        terms: float,
        departure: Array,
        has_law: bool,
    ) -> Read:
        """The records; `conserved` are the imbalance, the logarithms of its entries, and their signs."""
        count = len(departure)
        beta, length = record.beta[:count].copy(), record.length[:count].copy()
        return Read(beta, weights, logs, *conserved, np.full(1, terms), length, departure=departure, has_law=has_law)


class LinearMachine(SingleRun):
    """One run; U and V as floats."""

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
        self.state = LinearState(U, V, np.zeros_like(U), np.zeros_like(V), law, beta, np.zeros(1), np.full(1, -1))
        slots = len(recorded_steps(settings.n_steps, settings.record_every))
        self.record = LinearRecord(
            np.empty((slots, *U.shape)),
            np.empty((slots, *V.shape)),
            np.empty((slots, *law.shape)),
            np.empty((slots, *beta.shape)),
            np.full(slots, -1.0),
        )

    def advance(self, first: int, last: int, rows: Integers, labels: Array, noise: Array) -> bool:
        plan = StepPlan.of(self.settings, first, last)
        data = self.X, self.Y, labels, rows, noise
        # Python counts the rows, and calls some hundred operations on matrices.
        operations = (last - first) * (len(self.X) + _OPERATIONS + self.state.U.size * len(self.X) / _AT_ONCE)
        arguments = *data, self.step, self.options, self.state, plan, self.record
        return bool(call_loop(run_linear, math.inf if self.options.loss else operations, *arguments))

    def read(self, lane: int, count: int) -> Read:
        U, V = self.record.U[:count].copy(), self.record.V[:count].copy()
        with np.errstate(all="ignore"):
            imbalance = np.swapaxes(U, 1, 2) @ U - np.swapaxes(V, 1, 2) @ V
            law = self.record.law[:count] if self.options.has_law else imbalance[:1]
            terms = float(np.linalg.norm(U[0].T @ U[0]) + np.linalg.norm(V[0].T @ V[0])) if count else 1.0
            size = float(np.linalg.norm(imbalance[0])) if count else 1.0
            balanced = size <= 1e3 * np.finfo(float).eps * terms
            departure = np.linalg.norm(imbalance - law, axis=(1, 2)) / (terms if balanced else size)
            log_imbalance = log_abs(imbalance)
        conserved = imbalance, log_imbalance, np.sign(imbalance)
        weights = {"U": U, "V": V}
        logs = lifted(weights, self.basis, {})
        return self.assembled(
            self.record, lifted(weights, self.basis), logs, conserved, terms, departure, self.options.has_law
        )


def expected_decay(net: LinearNetwork, problem: Problem) -> tuple[float, float]:
    """Damping rates by expected weight noise, of Sigma U and V: ``eta_V^2 m`` and ``eta_U^2 tr Sigma``."""
    if not net.is_noisy:
        return 0.0, 0.0
    eta_u2, eta_v2 = noise_variances(net)
    return eta_v2 * problem.n_targets, eta_u2 * float(problem.feature_variances.sum())
