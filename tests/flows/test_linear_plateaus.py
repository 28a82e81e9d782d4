"""Plateaus of U V^T against exponentials in hundreds of digits, whatever the times and rates."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from flowsim.solvers.frames import Frame, FrameProblem, factor_frame
from flowsim.solvers.frames.plateau import Plateau

SCALE = -400.0


def whole(frame: Frame) -> mpmath.matrix:
    """Z of a paired frame, times exp(-SCALE)."""
    R, p = len(frame.A), len(frame.B)
    Z = mpmath.zeros(R + p, frame.rows.shape[1])
    for logs, rows, sign in ((frame.logs, frame.rows, 1.0), (frame.minus_logs, frame.minus_rows, -1.0)):
        for i in np.flatnonzero(logs > -np.inf):
            direction = np.concatenate([frame.A[:, i], sign * frame.B[:, i]]) / np.sqrt(2.0)
            Z += mpmath.exp(logs[i] - SCALE) * mpmath.matrix(direction.tolist()) * mpmath.matrix(rows[i].tolist()).T
    if frame.neutral_log > -np.inf:
        outside = np.concatenate([frame.neutral, np.zeros((p, frame.neutral.shape[1]))])
        Z += mpmath.exp(frame.neutral_log - SCALE) * mpmath.matrix(outside.tolist())
    return Z


def volumes(Z: mpmath.matrix, count: int) -> list[float]:
    """Logarithms of the volumes that the first columns span."""
    gram = Z.T * Z
    return [float(mpmath.log(mpmath.det(gram[:j, :j])) / 2) for j in range(1, count + 1)]


@pytest.mark.parametrize("seed", [0, 2, 5, 7, 9, 12, 14])
def test_a_plateau_is_the_exponential_and_conserves_the_imbalance_at_any_length(seed: int) -> None:
    """Square data too: subspaces orthogonal to themselves in J come in two families there, and a flow stays in one."""
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 4))
    R, k = p + (seed % 4 == 3), int(rng.integers(1, p + 1))
    U, V, G = (rng.standard_normal(shape) for shape in ((R, k), (p, k), (R, p)))
    if seed % 5 == 4:
        V = 0 * V
    frame = factor_frame([(U, V, SCALE)], True)
    nothing = np.zeros(R), np.zeros(p)
    coupling: object = None
    plateau = Plateau.of(FrameProblem(coupling, *nothing), G, frame, 0)  # type: ignore[arg-type]
    first, unit = frame.conserved()
    with mpmath.workdps(500):
        S = mpmath.zeros(R + p)
        S[:R, R:], S[R:, :R] = mpmath.matrix(G.tolist()), mpmath.matrix(G.T.tolist())
        rates, vectors = mpmath.eigsy(S)
        along = vectors.T * mpmath.matrix(np.concatenate([U, V]).tolist())
        for length in (1.0, 12.0, 60.0, 380.0):
            t = length / np.linalg.norm(G, 2)
            end = plateau.after(t)
            now, log = end.conserved()
            np.testing.assert_allclose(np.exp(log - unit) * now, first, atol=1e-10 * np.linalg.norm(first))
            grown = vectors * mpmath.diag([mpmath.exp(mpmath.mpf(t) * rate) for rate in rates]) * along
            np.testing.assert_allclose(volumes(whole(end), k), volumes(grown, k), rtol=1e-13, atol=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_imbalance_is_conserved_where_what_has_grown_moves_over_a_plateau(seed: int) -> None:
    """Its halves differ by the error of a step, and what waits makes way for both."""
    rng = np.random.default_rng([41, seed])
    R, p, count = 5, 3, 1
    frame = factor_frame([(rng.standard_normal((R, 6)), rng.standard_normal((p, 6)), 0.0)], True)
    coupling: object = None
    problem = FrameProblem(coupling, np.zeros(R), np.zeros(p))  # type: ignore[arg-type]
    plateau = Plateau.of(problem, rng.standard_normal((R, p)), frame, count)
    first, second = (side[:, :count] + 1e-2 * rng.standard_normal((len(side), count)) for side in (frame.A, frame.B))
    before, after = frame.conserved(), plateau.turned(frame, np.concatenate([first, second])).conserved()
    gap = np.exp(after[1] - before[1]) * after[0] - before[0]
    assert np.abs(gap).max() <= 1e-13 * np.linalg.norm(before[0])
