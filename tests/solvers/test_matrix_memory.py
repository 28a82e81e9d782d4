"""Bare arrays, their memory, and products and factorisations on them, against NumPy."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from flowsim.solvers.compilation import bare
from flowsim.solvers.matrices import algebra
from flowsim.solvers.matrices.bare_arrays import call_at, shaped
from flowsim.solvers.matrices.calls import Entry, Separate, entry
from flowsim.solvers.matrices.scratch import (
    empty,
    empty_complex,
    empty_integers,
    full,
    in_use,
    release,
    zeros,
    zeros_complex,
)


class Pair(NamedTuple):
    first: Any
    second: Any


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@bare()
def _read(work, array, pair):
    matrix = pair.second
    row = matrix[1]
    row[0] = 7.0
    return array.shape, array.size, len(array), array[1, 2, 0], Pair(array[1], pair.first), row


def test_entries_parts_and_tuples_are_those_of_the_arrays() -> None:
    array, matrix = rng().standard_normal((2, 3, 4)), rng().standard_normal((2, 5))
    shape, size, length, value, pair, row = Entry(_read)(array, Pair(3, matrix))
    assert (shape, size, length, value) == ((2, 3, 4), 24, 2, array[1, 2, 0])
    assert isinstance(pair, Pair) and pair.second == 3
    np.testing.assert_array_equal(pair.first, array[1])
    np.testing.assert_array_equal(row, matrix[1])
    assert matrix[1, 0] == 7.0  # arguments are changed in place ...
    row[0] = 0.0
    assert matrix[1, 0] == 7.0  # ... and results are copies


@bare()
def _made(work, n):
    ones, nothing = full(work, (n, 2), 1.0), zeros(work, (n,))
    numbers, roots = empty_integers(work, n), zeros_complex(work, (n, 2))
    more, again = empty_complex(work, (1,)), shaped(ones, 2, (n - 1, 2), 0.0)
    before = in_use(work)
    empty(work, (n, n))
    release(work, before)
    for i in range(n):
        numbers[i] = 10 + i
        roots[i, 1] = complex(i, 1.0)
        again[n - 2, 1] = 5.0
    more[0] = 1j
    return ones, nothing, roots, more, numbers[n - 1], in_use(work) == before


@pytest.mark.parametrize("n", [2, 5000])
def test_memory_is_enlarged_until_it_suffices(n: int) -> None:
    ones, nothing, roots, more, last, same = Entry(_made)(n)
    assert ones.shape == (n, 2) and ones.sum() == 2 * n + 4 and ones[-1, -1] == 5.0
    assert not nothing.any() and last == 9 + n and more[0] == 1j and same
    np.testing.assert_array_equal(roots, np.array([np.zeros(n), np.arange(n) + 1j]).T)


def test_strided_arrays_are_refused() -> None:
    with pytest.raises(Exception, match="contiguous"):
        Entry(_read)(np.zeros((4, 3, 2)).T, Pair(1, np.zeros((2, 2))))


def _example() -> tuple[Any, ...]:
    return np.zeros((1, 1)), 1.0, np.zeros(1)


@bare()
def _scaled(work, matrix, factor, total):
    copy = algebra.copied(work, matrix)
    algebra.scale(copy, factor)
    total[0] = algebra.norm(copy)


def test_a_function_compiled_by_itself_is_called_by_its_address_and_passes_errors_on() -> None:
    separate = Separate(_scaled, _example)

    @bare()
    def through(work, address, matrix):
        total = zeros(work, (1,))
        call_at(address, (work, matrix, 2.0, total))
        return total

    called = Entry(through)
    # The second needs more memory than there is at first: the error of the inner function enlarges it.
    for size in (3, 300):
        matrix = rng().standard_normal((size, size))
        np.testing.assert_allclose(called(separate, matrix), 2 * np.linalg.norm(matrix), rtol=1e-13)
    assert separate.is_compiled and separate.address != 0


@entry(_example)
@bare()
def _of_types(work, matrix, factor, total):
    return matrix.shape


def test_declared_types_are_those_of_calls() -> None:
    _of_types(np.zeros((3, 2)), 2.0, np.zeros(4))
    assert _of_types.compiled.signatures == [_of_types.declared]


def _loops(work, first, last, steps):
    found, count = zeros(work, (40,)), 0
    for i in range(last):
        found[count] = i
        count += 1
    for i in range(first, last):
        found[count] = i
        count += 1
    for i in range(last, first, -1):
        found[count] = i
        count += 1
    for i in range(first, last, steps):
        for j in range(i, first, -1):
            if j == 3:
                break
            found[count] = 100 * i + j
            count += 1
    return found


@pytest.mark.parametrize(
    ("first", "last", "step"), [(0, 5, 2), (2, 6, 3), (4, 1, 1), (-3, 0, 1), (3, 3, 2), (5, 1, -2)]
)
def test_loops_over_ranges_are_pythons(first: int, last: int, step: int) -> None:
    expected = np.zeros(40)
    values = [*range(last), *range(first, last), *range(last, first, -1)]
    for i in range(first, last, step):
        for j in range(i, first, -1):
            if j == 3:
                break
            values.append(100 * i + j)
    expected[: len(values)] = values
    np.testing.assert_array_equal(_compiled_loops()(first, last, step), expected)


@cache
def _compiled_loops() -> Entry:
    return Entry(bare()(_loops))


def test_products_and_factorisations() -> None:
    A, B, C = (rng().standard_normal(shape) for shape in ((4, 3), (4, 2), (5, 3)))
    square, right = rng().standard_normal((4, 4)), rng().standard_normal((4, 2))
    np.testing.assert_allclose(Entry(algebra.product)(A.T.copy(), B), A.T @ B, atol=1e-14)
    np.testing.assert_allclose(Entry(algebra.product_tn)(A, B), A.T @ B, atol=1e-14)
    np.testing.assert_allclose(Entry(algebra.product_nt)(A, C), A @ C.T, atol=1e-14)
    np.testing.assert_allclose(Entry(algebra.solve)(square, right), np.linalg.solve(square, right), atol=1e-12)
    Q, triangle = Entry(algebra.orthonormal)(A)
    np.testing.assert_allclose(Q @ triangle, A, atol=1e-14)
    np.testing.assert_allclose(Q.T @ Q, np.eye(3), atol=1e-14)
    assert (np.diag(triangle) > 0).all()
    np.testing.assert_allclose(Entry(algebra.upper_inverse)(triangle) @ triangle, np.eye(3), atol=1e-13)
    values, vectors = Entry(algebra.eigen)(square + square.T)
    np.testing.assert_allclose((square + square.T) @ vectors, vectors * values, atol=1e-12)
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(square + square.T), atol=1e-12)
