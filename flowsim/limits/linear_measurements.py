r"""The limit process of two-layer linear networks on linear measurements of a matrix.

.. math:: G(\beta) = \frac1n \sum_k \big( y_k - \langle A_k, \beta \rangle \big) A_k

is affine in beta, but no singular value decomposition of the data gives the best fit of a rank: saddles are the ends of
orbits, refined by Newton's method. Rows and columns of beta that no measurement involves stay at zero. Measurements
with :math:`\frac1n \sum_k \langle A_k, \beta \rangle A_k = \Sigma \beta` are a regression on :math:`\Sigma^{1/2}`.

Where subspaces of rows and columns are invariant under all G that the flow can reach (in matrix completion the
connected components of the observed entries) the blocks of beta between them are products of hidden units that the
data do not determine: they depend on the start, and no limit is stated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array
from flowsim.limits.linear_blocks import Block, ReducedLinearData, invariant_subspaces, symmetric_element
from flowsim.network import LinearNetwork
from flowsim.network.linear_algebra import LinearData, noise_variances
from flowsim.problem import MatrixSensing

#: Relative difference below which rates of columns, and linear maps, are equal.
_EQUAL = 1e-12


@dataclass(frozen=True, eq=False)
class MeasuredData(ReducedLinearData):
    """The rows of beta that measurements involve: `directions` are columns of the identity."""

    problem: MatrixSensing

    @classmethod
    def of(cls, problem: MatrixSensing) -> MeasuredData:
        """The rows that some measurement involves."""
        seen = np.flatnonzero(problem.curvature_model > 0)
        signal = problem.rmatvec(problem.y)[seen] / problem.n
        return cls(problem, np.eye(problem.d)[:, seen], problem.curvature_model[seen], signal)


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredBlock(Block):
    """The entries of beta that measurements involve."""

    measurements: Array  #: (n, r, q), the parts of the A_k in the block

    is_affine = False

    def force(self, beta: Array) -> Array:
        return self.signal + self.change(beta, beta)

    def change(self, beta: Array, moved: Array) -> Array:
        seen = np.einsum("kij,ij->k", self.measurements, moved)
        return np.asarray(-np.einsum("k,kij->ij", seen, self.measurements) / len(seen))


def measured_block(net: LinearNetwork, data: MeasuredData) -> MeasuredBlock:
    """All rows and columns that measurements involve.

    Raises ValueError if it decouples into several parts, or weight noise acts on one factor alone or damps the columns
    at different rates.
    """
    problem, A = data.problem, data.problem.A
    columns = np.flatnonzero(A.any(axis=(0, 1)))
    damping, b = _damping(net, problem)
    block = MeasuredBlock(
        features=np.eye(data.rank),
        targets=np.eye(data.m)[:, columns],
        curvatures=data.curvatures,
        signal=data.signal[:, columns],
        a=data.directions.T @ damping,
        b=b,
        measurements=np.einsum("ir,kij->krj", data.directions, A)[:, :, columns],
    )
    parts = invariant_subspaces(lambda rng: symmetric_element(_reachable(block, rng), 1.0, 1.0))
    if len(parts) > 1:
        raise ValueError(
            f"`problem` must not decouple for the limit process; its measurements do not couple {len(parts)} subspaces "
            "of rows and columns, and the blocks of beta between them depend on the start. Give each alone; a flow "
            "takes any."
        )
    return block


def _reachable(block: MeasuredBlock, rng: np.random.Generator) -> Array:
    """A random element, of order one, of an algebra that contains G along the flow: of G at 0 and its images."""
    found = block.signal / np.linalg.norm(block.signal)
    scale = float(np.max(block.curvatures)) * block.shape[1]
    for _ in range(4):
        x, y, z = rng.standard_normal(3)
        found = x * found - y * block.change(found, found) / scale + z * found @ found.T @ found
        found = found / np.linalg.norm(found)
    return found


def equivalent_regression(problem: MatrixSensing) -> LinearData | None:
    """The data of a regression with the same loss, where ``sum_k <A_k, beta> A_k / n = Sigma beta`` for all beta."""
    D, m = problem.d, problem.n_targets
    probes = np.zeros((D, D, m))
    probes[np.arange(D), np.arange(D), 0] = 1.0
    Sigma = np.array([problem.hessian_product(probe, probe)[:, 0] for probe in probes]).T
    beta = np.random.default_rng(0).standard_normal((D, m))
    image = problem.hessian_product(beta, beta)
    if np.abs(image - Sigma @ beta).max() > _EQUAL * np.abs(image).max():
        return None
    values, vectors = np.linalg.eigh((Sigma + Sigma.T) / 2)
    keep = np.flatnonzero(values > D * np.finfo(float).eps * values[-1])[::-1]
    directions, curvatures = np.ascontiguousarray(vectors[:, keep]), values[keep]
    signal = directions.T @ problem.rmatvec(problem.y) / problem.n
    least = float(problem.loss(directions @ (signal / curvatures[:, None])))
    return LinearData(problem.n, D, m, directions, curvatures, signal, least)


def _damping(net: LinearNetwork, problem: MatrixSensing) -> tuple[Array, float]:
    """Rates at which noise and weight decay damp the rows of U, (D,), and V."""
    variances = noise_variances(net)
    rows, columns = problem.measurement_curvatures(*variances)
    if (variances[0] > 0) != (variances[1] > 0):
        raise ValueError(
            "`noise` must act on U and V alike for the limit process on a MatrixSensing; a flow takes any."
        )
    columns = columns[columns > 0]
    if len(columns) and np.ptp(columns) > _EQUAL * columns.max():
        raise ValueError(
            "`noise` must damp all columns of V alike for the limit process on a MatrixSensing; it damps them at "
            f"rates from {columns.min():g} to {columns.max():g}. A flow takes any."
        )
    return rows + net.constant_decay, float(columns.mean() if len(columns) else 0.0) + net.constant_decay
