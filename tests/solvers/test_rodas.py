"""The tableau: convergence orders on a smooth non-autonomous system, L-stability, stiff accuracy."""

import numpy as np
import pytest

from flowsim.solvers import rodas


def step(f, jacobian, by_time, t, y, h):
    """One plain step; returns the new state, the error estimate and the continuous extension."""
    matrix = np.eye(len(y)) / (h * rodas.GAMMA) - jacobian(t, y)
    u = np.zeros((rodas.STAGES, len(y)))
    for i in range(rodas.STAGES):
        stage = f(t + rodas.ALPHA[i] * h, y + rodas.A[i] @ u) + rodas.C[i] @ u / h
        u[i] = np.linalg.solve(matrix, stage + h * rodas.GAMMA_SUM[i] * by_time(t, y))
    total = rodas.A[-1] @ u + u[-1]
    k = rodas.H @ u
    return y + total, u[-1], lambda s: y + s * (total + (1 - s) * (k[0] + s * (k[1] + s * k[2])))


# y1' = -y1^2 (1 + cos t) has the solution 1 / (1 + t + sin t); y2 only feeds on it.
def f(t, y):
    return np.array([-(y[0] ** 2) * (1 + np.cos(t)), np.sin(t) * y[1] * y[0]])


def jacobian(t, y):
    return np.array([[-2 * y[0] * (1 + np.cos(t)), 0.0], [np.sin(t) * y[1], np.sin(t) * y[0]]])


def by_time(t, y):
    return np.array([y[0] ** 2 * np.sin(t), np.cos(t) * y[1] * y[0]])


def exact(t):
    return 1 / (1 + t + np.sin(t))


def run(steps, end=2.0):
    t, y, h = 0.0, np.ones(2), end / steps
    estimates, between = [], []
    for _ in range(steps):
        new, error, dense = step(f, jacobian, by_time, t, y, h)
        estimates.append(abs(error[0]))
        between.append(max(abs(dense(s)[0] - exact(t + s * h)) for s in (0.3, 0.5, 0.8)))
        t, y = t + h, new
    return abs(y[0] - exact(end)), max(estimates), max(between)


def test_global_error_has_order_five_and_dense_output_order_four():
    steps = np.array([64, 128, 256])
    ends, estimates, between = np.array([run(k) for k in steps]).T

    def order(errors):
        return -np.polyfit(np.log(steps), np.log(errors), 1)[0]

    assert order(ends) == pytest.approx(5, abs=0.2)
    # Errors within one step are one order higher than the embedded method's and the extension's order 4.
    assert order(estimates) == pytest.approx(5, abs=0.2)
    assert order(between) == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("stiffness", [1e6, 1e12])
def test_the_method_damps_stiff_components_completely(stiffness):
    def decay(t, y):
        return -stiffness * y

    new, error, _ = step(decay, lambda t, y: np.array([[-stiffness]]), lambda t, y: np.zeros(1), 0.0, np.ones(1), 1.0)
    assert abs(new[0]) < 100 / stiffness
    assert abs(error[0]) < 100 / stiffness


def test_stage_times_are_the_row_sums_of_the_tableau():
    # In the original variables A Gamma^-1 has these rows; the matrix Gamma^-1 is I/gamma - C.
    inverse = np.eye(rodas.STAGES) / rodas.GAMMA - rodas.C
    stages = rodas.A @ np.linalg.inv(inverse)
    np.testing.assert_allclose(stages.sum(axis=1), rodas.ALPHA, atol=1e-12)
    np.testing.assert_allclose(np.linalg.inv(inverse).sum(axis=1), rodas.GAMMA_SUM, atol=1e-12)
