"""Functions of bare arrays as plain Python: the same results as compiled, and when they are used."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import flowsim as fs
from flowsim.solvers.compilation import bare
from flowsim.solvers.frames import collocation_march, graded, nonlinear, relaxation
from flowsim.solvers.frames.collocation import propagation
from flowsim.solvers.frames.graded import triangularise
from flowsim.solvers.matrices import calls, interpreted
from flowsim.solvers.matrices.algebra import (
    add,
    add_product,
    copied,
    copy,
    eigen,
    invert,
    norm,
    orthonormal,
    product,
    product_nt,
    product_tn,
    scale,
    solve,
)
from flowsim.solvers.matrices.bare_arrays import call_at, shaped
from flowsim.solvers.matrices.calls import Entry, entry, separate
from flowsim.solvers.matrices.scratch import empty_complex, empty_integers, in_use, release, zeros

X = np.array([[1.0, 0.4, -0.3], [0.2, 1.5, 0.1], [-0.5, 0.3, 0.8], [0.7, -0.2, 0.4]])
Y = X @ np.array([[2.0, 0.3], [-0.4, 1.1], [0.1, 0.6]])


SETTINGS = {"loss": "squared", "t_end": 2.5, "rtol": 1e-6}


def flow(**options: Any) -> np.ndarray:
    """The path of a linear network at 1e-60."""
    loss, t_end, rtol = (options.pop(name, value) for name, value in SETTINGS.items())
    problem = fs.Problem(X, np.sign(Y) if loss == "logistic" else Y, loss=loss)
    net = fs.LinearNetwork(4, **options)
    return fs.gradient_flow(net, problem, t_end, alpha="1e-60", clock="accelerated", rtol=rtol).beta


OPTIONS: list[dict[str, Any]] = [
    {},
    {"noise": fs.GaussianNoise(0.03), "t_end": 1.2, "rtol": 1e-3},
    {"weight_decay": 0.05},
    {"loss": "logistic", "t_end": 6.0, "rtol": 1e-3},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_flow_is_the_same_interpreted_and_compiled(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = flow(**options)
    called = []
    own = interpreted.call
    monkeypatch.setattr(calls.Entry, "is_interpreted", lambda self, *_: self._examples is not None)
    monkeypatch.setattr(interpreted, "call", lambda function, *args: called.append(function) or own(function, *args))
    np.testing.assert_allclose(flow(**options), compiled, atol=1e-9)
    assert len(called) > 5


def test_functions_are_compiled_in_advance_for_the_types_of_their_calls() -> None:
    for options in OPTIONS:
        flow(**options)
    room = collocation_march.__name__.rpartition(".")[0]
    ahead: list[str] = []
    for start, arguments in ((collocation_march, ()), (nonlinear, (True,)), (nonlinear, (False,))):
        own = start.compile_ahead
        try:
            start.compile_ahead = lambda *groups, room: ahead.extend(name for group in groups for name in group)
            start.compile_in_advance.__wrapped__(*arguments)
        finally:
            start.compile_ahead = own
    assert len(set(ahead)) > 12
    for name in ahead:
        module, _, function = name.partition(":")
        found = getattr(import_module(f"{room}.{module}"), function)
        found = getattr(found, "entry", found)
        assert set(found.compiled.overloads) <= {tuple(found.declared)}, name


@separate(lambda: (np.zeros(1), 1.0))
@bare()
def _scaled(work, vector, factor):
    for i in range(len(vector)):
        vector[i] *= factor


@entry(lambda: (0, np.zeros((1, 1)), 0.0, 1))
@bare()
def _mixed(work, address, matrix, number, count):
    order, roots, before = empty_integers(work, count), empty_complex(work, (count,)), in_use(work)
    zeros(work, (count,))
    release(work, before)
    for i in range(count):
        order[i], roots[i] = count - i, complex(0.0, i)
    call_at(address, (work, matrix[0], number))
    return shaped(matrix, 1, (2, 1), 0.0), order, roots, zeros(work, (1,)), math.exp(number), number > 1.0, count


def test_results_and_changed_arguments_are_those_of_compiled_code() -> None:
    one, other = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3)
    compiled, plain = _mixed(_scaled, one, 800.0, 3), interpreted.call(_mixed.function, None, _scaled, other, 800.0, 3)
    for a, b in zip(compiled, plain, strict=True):
        np.testing.assert_array_equal(a, b)
        assert type(a) is type(b)
    np.testing.assert_array_equal(one, other)
    assert plain[4] == np.inf and other[0, 1] == 800.0
    plain[0][:] = -1.0
    assert other[0, 1] == 800.0  # results are copies


@entry(lambda: (np.zeros(1),))
@bare()
def _divided(work, vector):
    vector[0] = 5.0
    zero = 0.0
    return 1.0 / zero


def test_what_python_refuses_is_compiled_with_the_arguments_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    vector, seen = np.ones(1), []
    monkeypatch.setattr(calls.ALLOWANCE, "seconds", 1.0)
    with pytest.raises(ZeroDivisionError):
        interpreted.call(_divided.function, None, vector)
    assert vector[0] == 1.0
    own = _divided.compiled
    monkeypatch.setattr(_divided, "is_interpreted", lambda *_: True)
    monkeypatch.setattr(_divided, "compiled", lambda *args: seen.append(args[1].copy()) or own(*args))
    assert _divided(vector) == np.inf and seen[0] == 1.0 and vector[0] == 5.0


def test_small_calls_are_interpreted_until_code_is_there_or_the_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    @bare()
    def counted(work, propagator, vector):
        return vector.size

    fresh, small = Entry(counted, lambda: (0, np.zeros(1))), np.zeros(3)
    monkeypatch.setattr(calls.ALLOWANCE, "seconds", 0.0)
    assert not fresh.is_interpreted(0, small)
    monkeypatch.setattr(calls.ALLOWANCE, "seconds", 1.0)
    assert fresh.is_interpreted(0, small) and not fresh.is_interpreted(0, np.zeros(60_000))
    assert not Entry(bare()(counted.py_func)).is_interpreted(0, small)
    assert fresh(0, small) == 3 and not fresh.compiled.overloads
    assert calls.ALLOWANCE.seconds < 1.0
    # Stored by another process, it is loaded, if what it calls by address is there as well.
    monkeypatch.setattr(type(fresh.compiled._cache), "is_filled", property(lambda cache: True))
    assert not fresh.is_interpreted(0, small)
    monkeypatch.setattr(type(propagation), "is_compiled", property(lambda found: False))
    assert fresh.is_interpreted(propagation, small)


def test_sums_of_rows_of_any_size_are_those_of_compiled_code() -> None:
    coefficient = np.array([[1.0, 0.0, -2.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0], [1e-200, 2.0, 0.0]])
    logs, rows = np.array([-1e3, 2.0, -np.inf, -np.inf]), np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0], [0.0, 0.0]])
    more = np.array([-800.0, -np.inf, 1e3]), np.array([[0.0, 1.0], [0.0, 0.0], [0.8, -0.6]])
    one, other = (logs.copy(), rows.copy()), (logs.copy(), rows.copy())
    graded.add_rows(*one, coefficient, *more)
    interpreted.call(graded.rows_added, None, *other, coefficient, *more)
    for compiled, plain in zip(one, other, strict=True):
        assert np.isfinite(compiled[[0, 1, 3]]).all()
        np.testing.assert_allclose(plain, compiled, rtol=1e-13)


def test_relaxation_is_that_of_compiled_code() -> None:
    rng = np.random.default_rng(0)
    basis, inner, outer = np.linalg.qr(rng.standard_normal((5, 2)))[0], np.diag([2.0, 0.3]), np.diag([1.0, 0.2, 0.0])
    for columns in (np.ones(3), rng.uniform(0.5, 2.0, 3)):
        rows = rng.uniform(0.5, 2.0, 5) if np.ptp(columns) == 0 else np.ones(5)
        at = relaxation.Relaxation.of(rows, columns, basis, inner, outer, 0.1)
        mus = np.array([0.3 + 0.1j, 2.0 - 1.0j])
        compiled, plain = relaxation.factor(at, mus), interpreted.call(relaxation.factored, None, at, mus)
        for one, other in zip(compiled, plain, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-14)
        ends, G = rng.standard_normal((2, 4)), rng.standard_normal((4, 5, 3))
        single = relaxation.factor(at, mus[:1])
        found = relaxation.sizes(single, ends, G, G[0], G[1])
        again = interpreted.call(relaxation.defects, None, single, ends, G, G[0], G[1])
        np.testing.assert_allclose(again, found, rtol=1e-12)


def test_rows_of_any_size_are_triangularised_by_plain_python_too() -> None:
    M, logs, basis = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([-3000.0, 40.0]), np.eye(2)
    one, other = [M.copy(), logs.copy(), basis.copy()], [M.copy(), logs.copy(), basis.copy()]
    triangularise(*one, 2)
    interpreted.call(triangularise.function, None, *other, 2)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


@bare()
def _of_matrices(work, A, B, square, complex_square):
    total = copied(work, A)
    add(total, 2.0, A)
    scale(total, 0.5)
    add_product(A, square, total)
    flat = zeros(work, (A.size,))
    copy(A, flat)
    symmetric = product_nt(work, square, square)
    values, vectors = eigen(work, symmetric)
    again = zeros(work, square.shape)
    for i in range(len(values)):
        for j in range(len(values)):
            for k in range(len(values)):
                again[i, j] += vectors[i, k] * values[k] * vectors[j, k]
    invert(work, complex_square)
    Q, triangle = orthonormal(work, A)
    one, other = product(work, A, square), product_tn(work, A, B)
    return total, flat, norm(A), symmetric, again, Q, triangle, one, other, solve(work, square, B)


def test_products_and_factorisations_are_those_of_compiled_code() -> None:
    rng = np.random.default_rng(0)
    A, B, square = rng.standard_normal((3, 3)), rng.standard_normal((3, 2)), rng.standard_normal((3, 3))
    roots = [square + 1j * np.eye(3) for _ in range(2)]
    compiled = Entry(_of_matrices)(A, B, square, roots[0])
    plain = interpreted.call(_of_matrices, None, A, B, square, roots[1])
    for a, b in zip((*compiled, roots[0]), (*plain, roots[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
