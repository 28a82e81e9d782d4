"""Generated kernels against SymPy's lambdify, high precision, central differences and sampled noise."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

import flowsim as fs
from flowsim.symbolic import kernels

FORMULAS = [
    "u*v",
    "w1*w2*w3",
    "w1*w2*w3*w4",
    "w1*w2*w3*w4*w5",
    "u**2 - v**2",
    "w**3 - v**3",
    "2*u**2 - v**2",
    "2*a*b + (a**2 + b**2 + c**2)*c",
    "a*tanh(a) - (exp(b) - 1)**2",
    "exp(u) - exp(v)",
    "sin(u)*sin(v)",
    "cos(u)*cosh(v) - 1",
    "u*sqrt(1 + v**2)",
    "log(1 + u**2)*v",
]
D = 7


def weights(net: fs.DiagonalNetwork, seed: int = 0, scale: float = 0.7) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal((len(net.weights), D))


@pytest.mark.parametrize("formula", FORMULAS)
def test_value_gradient_and_hessian_equal_lambdify(formula: str) -> None:
    net = fs.DiagonalNetwork(formula)
    k = len(net.weights)
    w, kind, K = weights(net), net.kinds(D), kernels(net)
    x = [sympy.Symbol(name, real=True) for name in net.weights]
    phi = net.formulas[0].expression
    value, gradient, hessian = np.empty(D), np.empty((k, D)), np.empty((k, k, D))
    K.value(w, kind, value)
    K.gradient(w, kind, gradient)
    K.hessian(w, kind, hessian)
    np.testing.assert_allclose(value, sympy.lambdify(x, phi)(*w), rtol=1e-13, atol=1e-14)
    for a in range(k):
        np.testing.assert_allclose(gradient[a], sympy.lambdify(x, phi.diff(x[a]))(*w), rtol=1e-12, atol=1e-14)
        for b in range(k):
            expected = np.broadcast_to(sympy.lambdify(x, phi.diff(x[a], x[b]))(*w), (D,))
            np.testing.assert_allclose(hessian[a, b], expected, rtol=1e-12, atol=1e-13)
