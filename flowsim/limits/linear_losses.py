r"""The limit process of two-layer linear networks under any convex loss.

.. math:: G(\beta) = -X^\top \big( w \circ \ell'(X\beta, Y) \big) / n

is not affine in beta: saddles have no formula and are the ends of orbits, refined by Newton's method. Rows and
targets that share no entry decouple: row i acts on target j only if :math:`\ell'(0, Y_{ij}) \ne 0`, and only features
that rows have in common couple them.

Where the loss has no minimum over the matrices of a rank (separable data) beta escapes. The flow of ln L gives the
direction, a stationary point of

.. math:: \min \tfrac12 \lVert Z \rVert^2 \quad \text{subject to} \quad \pm (X U V^\top)_{ij} \ge 1,

refined by Newton's method on the active rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flowsim.arrays import Array, log_abs
from flowsim.limits.linear_blocks import Block, ReducedLinearData
from flowsim.network import LinearNetwork
from flowsim.network.linear_algebra import singular_parts
from flowsim.problem import Problem
from flowsim.problem.entries import dense
from flowsim.problem.losses import Loss

#: Couplings below this, relative to the data, count as zero.
_COUPLED = 1e-12
#: Relative rate at which the flow of ln L is left for Newton's method, and the longest time until then.
_DEEP, _NEWTON_STEPS = 3e3, 30
#: Softmax weight of active rows, relative to the largest, at least.
_ACTIVE = 1e-6
#: Residual at which Newton's method has converged.
_ACCURATE = 1e-9


@dataclass(frozen=True, eq=False)
class LossData(ReducedLinearData):
    """The data in the row space of X; `features` (n, rank) are ``X directions``."""

    features: Array

    @classmethod
    def of(cls, problem: Problem) -> LossData:
        """The data of a problem whose targets are a matrix."""
        left, values, directions = singular_parts(dense(problem))
        features = left * values
        zero = np.zeros(problem.y.shape)
        curvature = max(float(problem.curvatures(zero).mean()), np.finfo(float).tiny)
        signal = -features.T @ problem.slopes(zero) / problem.n
        return cls(problem, directions, curvature * values**2 / problem.n, signal, features)


@dataclass(frozen=True, eq=False, kw_only=True)
class LossBlock(Block):
    """One independent part under any loss."""

    rows: Array  #: (n, r), X in the block's features
    y: Array  #: (n, q)
    weight: Array  #: (n, q), weights of the entries over n
    loss: Loss

    is_affine = False

    def force(self, beta: Array) -> Array:
        return np.asarray(-self.rows.T @ (self.weight * self.loss.slope(self.rows @ beta, self.y)))

    def change(self, beta: Array, moved: Array) -> Array:
        curvature = self.weight * self.loss.curvature(self.rows @ beta, self.y)
        return np.asarray(-self.rows.T @ (curvature * (self.rows @ moved)))

    @cached_property
    def flat(self) -> Array:
        """+1 (-1) where the loss of an entry falls to an infimum as f goes to +inf (-inf), 0 where it has a minimum."""
        return np.where(self.weight > 0, self.loss.flat(self.y), 0.0)

    @cached_property
    def may_escape(self) -> bool:  # type: ignore[override]
        return bool(self.flat.any())

    def escapes(self, beta: Array) -> bool:
        """Whether the loss of every entry decreases along beta: then there is no stationary point along it."""
        counted = self.weight > 0
        return self.may_escape and bool((self.flat * (self.rows @ beta) > 0)[counted].all())

    def escape(self, Z: Array) -> tuple[Array, float]:
        """Direction of beta, of nuclear norm 1, and margin of the escape from Z; 0 where a row does not recede."""
        beta = self.product(Z)
        if self.escapes(beta):
            beta = self.product(self._stationary(self._deep(Z)))
        size = float(np.linalg.svd(beta, compute_uv=False).sum())
        return beta / size, max(self._margin(beta) / size, 0.0)

    def _margin(self, beta: Array) -> float:
        """The least of all entries."""
        return float((self.flat * (self.rows @ beta))[self.weight > 0].min())

    def _deep(self, Z: Array) -> Array:
        """The limit of the flow of ln L for the loss ``exp(-margin)``, to which losses of this kind are asymptotic."""
        from scipy.integrate import solve_ivp

        shape, r = Z.shape, self.shape[0]

        def rate(_: float, state: Array) -> Array:
            W = state.reshape(shape)
            G = self.downhill(self.product(W))
            return np.concatenate([G @ W[r:], G.T @ W[:r]]).ravel()

        def deep(_: float, state: Array) -> float:
            return self._margin(self.product(state.reshape(shape))) - _DEEP

        deep.terminal = True  # type: ignore[attr-defined]
        end = 40.0 * math.log(_DEEP) / max(float(np.linalg.norm(self.downhill(self.product(Z)), 2)), 1e-300)
        found = solve_ivp(rate, (0.0, end), Z.ravel(), method="LSODA", events=deep, rtol=1e-9, atol=1e-9)
        return np.asarray(found.y[:, -1]).reshape(shape)

    def downhill(self, beta: Array) -> Array:
        """``-grad ln L = X^T (flat q)``, q the softmax of minus the margins."""
        return np.asarray(self.rows.T @ (self.flat * self._softmax(beta)))

    def _softmax(self, beta: Array) -> Array:
        exponent = log_abs(self.weight) - self.flat * (self.rows @ beta)
        q = np.exp(exponent - exponent.max())
        return np.asarray(q / q.sum())

    def _stationary(self, Z: Array) -> Array:
        """The stationary point near Z, of margin 1; Z itself, scaled, where Newton's method does not converge."""
        r, q = self.shape
        beta = self.product(Z)
        margin, shares = self._margin(beta), self._softmax(beta)
        i, j = np.nonzero(shares > _ACTIVE * shares.max())
        signs = self.flat[i, j]
        W = Z / math.sqrt(margin)
        # Z = S(mu) Z with mu >= 0 on the active rows; |Z|^2 = 2 sum mu.
        mu = shares[i, j] / shares[i, j].sum() * float(np.sum(W**2)) / 2
        k = W.shape[1]
        for _ in range(_NEWTON_STEPS):
            U, V = W[:r], W[r:]
            x = self.rows[i] * signs[:, None]
            G = np.zeros((r, q))
            np.add.at(G.T, j, mu[:, None] * x)
            residual = np.concatenate(
                [(U - G @ V).ravel(), (V - G.T @ U).ravel(), np.sum((x @ U) * V[j], axis=1) - 1.0]
            )
            if float(np.abs(residual).max()) < 1e-13:
                break
            columns = []
            for unit in np.eye(W.size).reshape(-1, r + q, k):
                dU, dV = unit[:r], unit[r:]
                moved = np.sum((x @ dU) * V[j], axis=1) + np.sum((x @ U) * dV[j], axis=1)
                columns.append(np.concatenate([(dU - G @ dV).ravel(), (dV - G.T @ dU).ravel(), moved]))
            for place in range(len(i)):
                dU, dV = np.zeros((r, k)), np.zeros((q, k))
                dU -= np.outer(x[place], V[j[place]])
                dV[j[place]] -= x[place] @ U
                columns.append(np.concatenate([dU.ravel(), dV.ravel(), np.zeros(len(i))]))
            step = np.linalg.lstsq(np.array(columns).T, -residual, rcond=1e-12)[0]
            W, mu = W + step[: W.size].reshape(W.shape), mu + step[W.size :]
        good = float(np.abs(residual).max()) < _ACCURATE and mu.min() > -_ACCURATE
        return W if good and self._margin(self.product(W)) > 1 - _ACCURATE else Z


def loss_blocks(net: LinearNetwork, data: LossData, apart: bool = True) -> list[LossBlock]:
    """The decoupled parts of rows, features and targets; or, unless `apart`, all of them as one."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    problem, n, m = data.problem, data.problem.n, data.m
    slopes = problem.slopes(np.zeros(problem.y.shape))
    gram = data.features @ data.features.T
    coupled = np.zeros((n + m, n + m))
    coupled[:n, :n] = np.abs(gram) > _COUPLED * np.abs(gram).max(initial=0.0)
    coupled[:n, n:] = np.abs(slopes) > _COUPLED * np.abs(slopes).max(initial=0.0)
    count, label = connected_components(csr_array(coupled), directed=False)
    if not apart:
        count, label = 1, np.zeros(n + m)
    parts = [(np.flatnonzero(label[:n] == k), np.flatnonzero(label[n:] == k)) for k in range(count)]
    parts = [(rows, targets) for rows, targets in parts if len(rows) and np.abs(data.features[rows]).max() > 0]
    blocks = []
    for rows, targets in parts:
        _, values, right = np.linalg.svd(data.features[rows], full_matrices=False)
        rank = int(np.sum(values > values.max() * max(n, data.rank) * np.finfo(float).eps))
        basis = np.eye(data.rank) if len(parts) == 1 else np.ascontiguousarray(right[:rank].T)
        inside = data.features[rows] @ basis
        size = data.curvatures if len(parts) == 1 else np.einsum("ij,i,ij->j", basis, data.curvatures, basis)
        decay = np.full(basis.shape[1], net.constant_decay)
        weight = problem.entry_weights[np.ix_(rows, targets)] / n
        y = problem.y[np.ix_(rows, targets)]
        blocks.append(
            LossBlock(
                features=basis,
                targets=np.eye(m)[:, targets],
                curvatures=size,
                signal=-inside.T @ (weight * problem.loss_function.slope(np.zeros(y.shape), y)),
                a=decay,
                b=float(net.constant_decay),
                rows=inside,
                y=y,
                weight=weight,
                loss=problem.loss_function,
            )
        )
    return blocks
