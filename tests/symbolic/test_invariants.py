"""Conserved quantities: known ones are found, found ones are conserved, none is missed."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

import flowsim as fs
from flowsim.symbolic import kernels
from flowsim.symbolic.invariants import generators, invariant_basis


def of(formula: str, degree: int = 4) -> list[str]:
    parsed = fs.DiagonalNetwork(formula).formulas[0]
    return [str(e) for e in generators(parsed.expression, symbols(parsed), degree)]


def symbols(formula) -> list[sympy.Symbol]:
    return [sympy.Symbol(name, real=True) for name in formula.weights]


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("u*v", ["u**2 - v**2"]),
        ("w1*w2*w3", ["w1**2 - w2**2", "w1**2 - w3**2"]),
        ("a*b*c*d", ["a**2 - b**2", "a**2 - c**2", "a**2 - d**2"]),
        ("u**2 - v**2", ["u*v"]),
        ("2*u**2 - v**2", ["u*v**2"]),
        ("3*u**2 - v**2", ["u*v**3"]),
        ("u**2*v", ["u**2 - 2*v**2"]),
        ("u + v", ["u - v"]),
        ("tanh(u*v)", ["u**2 - v**2"]),
        ("exp(u*v) - 1", ["u**2 - v**2"]),
        ("exp(u + 2*v)", ["2*u - v"]),
        ("u*v*exp(u*v)", ["u**2 - v**2"]),
        ("sin(u) - v", []),
        ("2*a*b + (a**2 + b**2 + c**2)*c", []),
        ("w**3", []),
        ("u*v + w - w", ["u**2 - v**2"]),
    ],
)
def test_known_invariants_are_found(formula: str, expected: list[str]) -> None:
    assert sorted(of(formula)) == sorted(expected)


@pytest.mark.parametrize("formula", ["w1*w2*w3", "2*u**2 - v**2", "u*v*exp(u*v)", "a**2*b + c"])
def test_the_basis_has_zero_derivative_along_the_flow(formula: str) -> None:
    parsed = fs.DiagonalNetwork(formula).formulas[0]
    x, phi = symbols(parsed), parsed.expression
    basis = invariant_basis(phi, x, 4)
    assert basis
    for quantity in basis:
        assert sympy.simplify(sum(quantity.diff(w) * phi.diff(w) for w in x)) == 0


def test_the_basis_is_complete_in_each_degree() -> None:
    """Depth 3: the invariants are all polynomials in two quadratic generators, 2 + 3 of them up to degree 4."""
    parsed = fs.DiagonalNetwork(depth=3).formulas[0]
    assert [len(invariant_basis(parsed.expression, symbols(parsed), d)) for d in (1, 2, 3, 4)] == [0, 2, 2, 5]
    # |w|^2 on the sphere: rotations, the linear field is radial, so ratios are conserved but no polynomial is.
    parsed = fs.DiagonalNetwork("u**2 + v**2").formulas[0]
    assert invariant_basis(parsed.expression, symbols(parsed), 4) == []


def test_the_search_in_sampled_points_agrees_with_exact_algebra() -> None:
    exact = of("2*u**2 - v**2")
    sampled = of("sinh(2*u**2 - v**2)")
    assert exact == sampled


@pytest.mark.parametrize("formula", ["w1*w2*w3", "2*u**2 - v**2", "tanh(u*v)"])
def test_the_kernel_evaluates_the_named_polynomials(formula: str) -> None:
    net = fs.DiagonalNetwork(formula)
    K, w = kernels(net), np.random.default_rng(0).standard_normal((len(net.weights), 5))
    out = np.empty((len(K.invariant_names), 5))
    K.invariants(w, net.kinds(5), out)
    scope = dict(zip(net.weights, w, strict=True))
    for name, row in zip(K.invariant_names, out, strict=True):
        expression = sympy.sympify(name)
        expected = sympy.lambdify(list(expression.free_symbols), expression)(
            *(scope[symbol.name] for symbol in expression.free_symbols)
        )
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-14)


def test_the_imbalance_kernel_keeps_its_digits_when_weights_nearly_agree() -> None:
    net = fs.DiagonalNetwork("u*v")
    out = np.empty((1, 1))
    kernels(net).invariants(np.array([[1.0 + 2**-52], [1.0]]), net.kinds(1), out)
    assert out[0, 0] == 2.0**-52 * (2.0 + 2**-52)


def test_a_mixed_network_lists_the_union_and_leaves_foreign_entries_at_zero() -> None:
    net = fs.DiagonalNetwork(["u*v", "u**2 - v**2", "u*v"])
    K = kernels(net)
    assert K.invariant_names == ("u**2 - v**2", "u*v")
    out = np.full((2, 3), np.nan)
    K.invariants(np.array([[2.0, 2.0, 3.0], [1.0, 1.0, 1.0]]), net.kinds(3), out)
    assert out.tolist() == [[3.0, 0.0, 8.0], [0.0, 2.0, 0.0]]
