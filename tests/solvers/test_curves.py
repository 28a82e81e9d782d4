"""A map given as tables: a curve that is known in closed form, through the public protocol."""

import math

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from numpy.testing import assert_allclose

from flowsim.solvers import SeparableFlow, Status, integrate_separable
from tests.solvers.separable_families import two_layer

N, WIDTH = 25, 1.0


class Tabulated:
    """``beta = sinh(2 z) alpha^2`` of ``u*v``: a closed form up to `closed`, Chebyshev pieces beyond, on demand."""

    def __init__(self, gamma, d, closed, farthest=math.inf):
        self.gamma, self.d, self.edge, self.farthest = gamma, d, closed, farthest
        self.pieces, self.asked = 1, 0

    def b(self, z):
        return (np.exp(2 * (z - self.gamma)) - np.exp(2 * (-z - self.gamma))) / 2

    def beta_z(self, z):
        return np.exp(2 * (z - self.gamma)) + np.exp(2 * (-z - self.gamma))

    def __call__(self, z):
        return self.b(z), self.beta_z(z)

    def cover(self, here, low, high):
        self.asked += 1
        wanted = max(-low.min(), high.max())
        while self.edge + self.pieces * WIDTH < min(wanted, self.farthest):
            self.pieces += 1
        return None

    def arrays(self):
        ends = self.edge + WIDTH * np.arange(self.pieces + 1)
        low = np.concatenate([-ends[:0:-1], [-self.edge], ends[:-1]])
        high = np.concatenate([-ends[-2::-1], [self.edge], ends[1:]])
        count = len(low)
        middle, half = (low + high) / 2, (high - low) / 2
        beta, slope, curvature = np.zeros((3, count, N))
        closed = np.zeros(count, dtype=np.int64)
        closed[self.pieces] = 1
        nodes = np.cos(np.pi * (np.arange(N) + 0.5) / N)
        for p in np.flatnonzero(closed == 0):
            z = middle[p] + half[p] * nodes
            beta[p] = chebyshev.chebfit(nodes, self.b(z), N - 1)
            slope[p] = chebyshev.chebfit(nodes, self.beta_z(z), N - 1)
            curvature[p] = chebyshev.chebfit(nodes, 4 * self.b(z), N - 1)
        reach = float(ends[-1])
        logs = np.broadcast_to(-self.gamma, (count, 2))
        return {
            "first": np.array([0, count]),
            "low": low,
            "high": high,
            "closed": closed,
            "log_c": logs,
            "sign_c": np.ones((count, 2)),
            "rate": np.array([[1.0, -1.0]]),
            "energy": np.array([[0.5, -0.5]]),
            "beta": beta,
            "slope": slope,
            "curvature": curvature,
            "least": np.array([-reach]),
            "most": np.array([reach]),
            "which": np.zeros(self.d, dtype=np.int64),
        }


def tabulated(X, y, gamma, **more):
    d = X.shape[1]
    curves, one = Tabulated(gamma, d, **more), np.ones((1, d))
    return SeparableFlow(X, y, len(y), -2 * gamma * one, one, 2 * one, 0 * one, curves=curves)


@pytest.mark.parametrize(("gamma", "closed"), [(3.0, 1.0), (50.0, 40.0), (2302.0, 2290.0)])
def test_a_tabulated_map_gives_the_flow_of_its_formula(gamma, closed):
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((12, 30)), rng.standard_normal(12)
    exact, flow = two_layer(X, y, gamma), tabulated(X, y, gamma, closed=closed)
    t_end = 8 * gamma
    fine, run = integrate_separable(exact, t_end, tol=1e-9), integrate_separable(flow, t_end, tol=1e-6)
    assert run.status is Status.COMPLETED
    assert flow.curves.asked > 0
    t = np.linspace(0, t_end, 60)
    assert_allclose(run(t), fine(t), rtol=0, atol=1e-5)
    assert_allclose(flow.beta(run(t), t), exact.beta(fine(t), t), rtol=0, atol=2e-5)
    length = run.arclength(1.0).values[-1] - t_end
    assert length == pytest.approx(fine.arclength(1.0).values[-1] - t_end, rel=1e-3)


def test_a_state_past_the_end_of_its_curve_ends_the_run_and_says_so():
    X, y = np.array([[1.0]]), np.array([2.0])
    flow = tabulated(X, y, 5.0, closed=3.0, farthest=4.0)
    run = integrate_separable(flow, 100.0, tol=1e-6)
    assert run.status is Status.STOPPED
    assert run.message == "a coordinate has come to the end of its map"
    assert np.abs(run.z).max() <= 4.0 + 1e-9
