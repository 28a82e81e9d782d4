"""Gauss collocation and the integrator for Z' = A(q) Z."""

from __future__ import annotations

import numpy as np
import pytest

from flowsim.flows.linear_system import TwoLayerSystem
from flowsim.solvers import Status
from flowsim.solvers.gauss import gauss_tableau, lagrange_weights
from flowsim.solvers.quasilinear import Graded, Steps, factor, longest_linear_step, propagate


def system_of(r: int, m: int, seed: int = 0, spread: float = 0.3) -> TwoLayerSystem:
    rng = np.random.default_rng(seed)
    return TwoLayerSystem(rng.standard_normal((r, m)), np.geomspace(1.0, spread, r), np.zeros(r), 0.0)


@pytest.mark.parametrize("stages", [1, 2, 3, 6, 8])
def test_the_tableau_fulfils_the_conditions_of_gauss(stages: int) -> None:
    t = gauss_tableau(stages)
    for power in range(2 * stages):
        assert t.b @ t.c**power == pytest.approx(1 / (power + 1), rel=1e-12)
    for power in range(stages):
        np.testing.assert_allclose(t.a @ t.c**power, t.c ** (power + 1) / (power + 1), atol=1e-13)
    symplectic = t.b[:, None] * t.a + (t.b[:, None] * t.a).T - np.outer(t.b, t.b)
    np.testing.assert_allclose(symplectic, 0.0, atol=1e-14)
    np.testing.assert_allclose((t.vectors * t.eigenvalues @ t.inverse).real, t.a, atol=1e-12)


def test_lagrange_weights_reproduce_polynomials() -> None:
    nodes = gauss_tableau(5).c
    points = np.array([-0.3, 0.0, nodes[2], 1.0, 1.7])
    np.testing.assert_allclose(lagrange_weights(nodes, points) @ nodes**4, points**4, atol=1e-12)


def test_the_propagator_is_the_exponential_within_its_stated_reach() -> None:
    import scipy.linalg

    A = np.random.default_rng(0).standard_normal((4, 4))
    A = A + A.T
    top = np.linalg.eigvalsh(A)[-1]
    for tolerance in (1e-4, 1e-8, 1e-12):
        h = longest_linear_step(tolerance, 6) / top
        end = propagate(np.tile(A, (6, 1, 1)), h, np.eye(4))[1]
        exact = scipy.linalg.expm(h * A)
        error = np.linalg.norm(end - exact, 2) / np.linalg.norm(exact, 2)
        assert error < 10 * tolerance
        if tolerance > 1e-10:
            assert error > 0.05 * tolerance


@pytest.mark.parametrize("stages", [2, 3])
def test_the_order_is_twice_the_number_of_stages(stages: int) -> None:
    system = system_of(3, 2)
    start = factor(np.random.default_rng(1).standard_normal((5, 4)))
    gram = start.right() @ start.right().T
    fine = Steps(system, start, tolerance=1e-13)
    exact = list(fine.until(0.8))[-1][0].end.value()

    def fixed(count: int) -> float:
        Z = start.value()
        integrator = Steps(system, start, tolerance=1e-13, stages=stages)
        for _ in range(count):
            state = factor(Z)
            gram = state.right() @ state.right().T
            guess = np.broadcast_to(system.observe(state.frame, gram), (stages, 3, 2)).copy()
            solved = integrator._solve(system.relaxation(state.frame, gram), state.frame, gram, guess, 0.8 / count)
            Z = solved[2] @ state.right()
        return float(np.linalg.norm(Z - exact))

    assert gram.shape == (4, 4)
    order = np.log2(fixed(8) / fixed(16))
    assert order == pytest.approx(2 * stages, abs=0.2)


def test_conservation_does_not_depend_on_the_values_of_q() -> None:
    """Any symmetric off-diagonal generators, right or wrong, give a propagator in O(r, m)."""
    rng = np.random.default_rng(0)
    system = system_of(3, 2)
    nonsense = system.generator(5 * rng.standard_normal((6, 3, 2)))
    R = propagate(nonsense, 0.7, np.eye(5))[1]
    J = np.diag(system.signature)
    assert np.abs(R - np.eye(5)).max() > 0.5
    np.testing.assert_allclose(R.T @ J @ R, J, atol=1e-11 * np.abs(R).max() ** 2)


@pytest.mark.parametrize(("r", "m"), [(30, 8), (8, 30), (20, 20)])
def test_eliminating_the_larger_half_changes_nothing(r: int, m: int) -> None:
    rng = np.random.default_rng(0)
    generators = system_of(r, m).generator(0.2 * rng.standard_normal((6, r, m)))
    frame = rng.standard_normal((r + m, 5))
    whole, cut = propagate(generators, 0.9, frame), propagate(generators, 0.9, frame, split=r)
    np.testing.assert_allclose(cut[0], whole[0], atol=1e-11 * np.abs(whole[0]).max())
    np.testing.assert_allclose(cut[1], whole[1], atol=1e-11 * np.abs(whole[1]).max())


def test_graded_form_keeps_directions_of_every_size() -> None:
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.standard_normal((6, 3)))[0]
    state = Graded(frame, np.array([2.0, -500.0, -1500.0]), np.triu(rng.standard_normal((3, 3)), 1) + np.eye(3))
    mover = np.eye(6) + 0.3 * rng.standard_normal((6, 6))
    assert state.moved(mover @ frame).mix is state.mix  # well conditioned: left alone
    mover[:, 0] *= 100.0
    moved = state.moved(mover @ frame)
    np.testing.assert_allclose(moved.frame.T @ moved.frame, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(moved.value(), mover @ state.value(), rtol=1e-12, atol=1e-14)
    # volumes: every leading block of columns spans the moved space, on its own scale
    for k in (1, 2, 3):
        _, log_volume = np.linalg.slogdet((mover @ frame[:, :k]).T @ (mover @ frame[:, :k]))
        assert moved.logs[:k].sum() == pytest.approx(state.logs[:k].sum() + 0.5 * log_volume, rel=1e-13)


def test_dependent_columns_and_rows_are_left_out() -> None:
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((6, 2)) @ rng.standard_normal((2, 5))
    state = factor(Z)
    assert state.frame.shape == (6, 2)
    np.testing.assert_allclose(state.value(), Z, atol=1e-13)
    assert factor(Z, -2000.0).logs.max() < -1990


def test_tolerance_bounds_the_error_and_dense_output_keeps_the_invariant() -> None:
    system = system_of(4, 3, spread=0.05)
    Z0 = np.random.default_rng(1).standard_normal((7, 6))
    J = system.signature[:, None]

    def end(tolerance: float):
        integrator = Steps(system, factor(Z0), tolerance=tolerance)
        return list(integrator.until(15.0)), integrator

    reference = end(1e-13)[0][-1][0].end.value()
    work = []
    for tolerance in (1e-4, 1e-6, 1e-8, 1e-10):
        steps, integrator = end(tolerance)
        assert np.linalg.norm(steps[-1][0].end.value() - reference) <= 3 * tolerance * np.linalg.norm(reference)
        work.append(integrator.stats["nlu"])
        for step, _ in steps[:: max(1, len(steps) // 4)]:
            Z = step.frames(np.array([0.0, 0.37, 1.0])) @ step.start.right()
            np.testing.assert_allclose(Z[0], step.start.value(), atol=1e-13)
            np.testing.assert_allclose(Z[2], step.end.value(), atol=1e-11)
            np.testing.assert_allclose(Z[1].T @ (J * Z[1]), Z0.T @ (J * Z0), atol=1e-11)
    assert work[0] <= 120
    assert work == sorted(work)


def test_stiffness_costs_little() -> None:
    """Sigma of condition 1e4, ten decades past convergence of the slowest mode: a budget of work."""
    system = TwoLayerSystem(
        np.geomspace(1, 1e-4, 8)[:, None] * np.ones((8, 3)), np.geomspace(1, 1e-4, 8), np.zeros(8), 0.0
    )
    start = factor(np.random.default_rng(1).standard_normal((11, 12)))
    integrator = Steps(system, start, tolerance=1e-6)
    step, _ = list(integrator.until(2e5))[-1]
    assert integrator.status is Status.COMPLETED
    assert integrator.stats["nlu"] <= 2500
    gap = system.observe(step.end.value(), np.eye(12)) / system.curvatures[:, None]
    assert np.abs(gap).max() < 1e-6


def test_the_budget_of_steps_is_kept() -> None:
    integrator = Steps(system_of(3, 2), factor(np.ones((5, 1))), tolerance=1e-8, max_steps=3)
    assert len(list(integrator.until(100.0))) == 3
    assert integrator.status is Status.STEP_BUDGET


def test_newton_with_gmres_finds_what_the_fixed_point_finds() -> None:
    system = system_of(3, 2)
    state = factor(np.random.default_rng(1).standard_normal((5, 4)))
    gram = state.right() @ state.right().T
    integrator = Steps(system, state, tolerance=1e-10)
    guess = np.broadcast_to(system.observe(state.frame, gram), (6, 3, 2)).copy()
    relaxation = system.relaxation(state.frame, gram)
    one = integrator._anderson(relaxation, state.frame, gram, guess, 0.3)
    two = integrator._newton(relaxation, state.frame, gram, guess, 0.3)
    three = integrator._anderson(relaxation.strong(), state.frame, gram, guess, 0.3)
    np.testing.assert_allclose(one[0], two[0], atol=1e-10)
    np.testing.assert_allclose(one[0], three[0], atol=1e-10)


def test_the_strong_relaxation_is_the_derivative_of_the_frozen_step() -> None:
    """x + response: q of exp-like frozen stage (1 - mu A)^{-1}, differentiated numerically."""
    rng = np.random.default_rng(2)
    system = TwoLayerSystem(rng.standard_normal((3, 2)), np.array([2.0, 1.0, 0.5]), np.array([0.1, 0.2, 0.1]), 0.3)
    Z = rng.standard_normal((5, 4))
    gram = np.eye(4)
    mu = 0.4
    q = system.observe(Z, gram)
    strong = system.relaxation(Z, gram).strong()
    x = rng.standard_normal((3, 2))
    residual = x.copy()
    A = system.generator(q)
    constant = system.generator(np.zeros_like(q))
    change = mu * np.linalg.solve(np.eye(5) - mu * A, (system.generator(x) - constant) @ Z)
    residual -= system.observe_change(Z, change, gram)
    np.testing.assert_allclose(strong.solve(np.array([mu]), residual[None])[0], x, atol=1e-10)
