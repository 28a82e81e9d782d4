"""Kernels keep relative accuracy at weights far below rounding of 1: compared with mpmath at 400 digits."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import sympy

import flowsim as fs
from flowsim.symbolic import kernels

ZERO_ORDER_CANCELS = [
    "a*tanh(a) - (exp(b) - 1)**2",
    "cos(u)*cosh(v) - 1",
    "1/(1 + u**2) - exp(-v**2)",
    "sqrt(1 + u*v) - 1",
    "log(2 + u) - log(2 + v)",
    "(1 + u)**5 - (1 - v)**3",
    "sin(u + pi/4) - sin(pi/4) - v",
    "exp(u)*cos(v) - 1",
    "atan(1 + u) - pi/4",
    "tan(u + 1) - tan(1)",
    "tanh(1 + u) - tanh(1)",
    "sinh(u + 2) - sinh(2) + cosh(v + 1) - cosh(1)",
    "(2 + u)**0.75 - 2**2/(2 + v) + 2 - (2 + v)**0.75",
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("size", [1e-3, 1e-9, 1e-120])
@pytest.mark.parametrize("formula", ZERO_ORDER_CANCELS)
def test_value_and_derivatives_keep_their_digits_where_constants_cancel(formula: str, size: float) -> None:
    net = fs.DiagonalNetwork(formula)
    k = len(net.weights)
    w = np.array([[0.7], [-0.31]])[:k] * size
    kind, K = net.kinds(1), kernels(net)
    value, gradient, hessian = np.empty(1), np.empty((k, 1)), np.empty((k, k, 1))
    K.value.py_func(w, kind, value)
    K.gradient.py_func(w, kind, gradient)
    K.hessian.py_func(w, kind, hessian)
    x = [sympy.Symbol(name, real=True) for name in net.weights]
    phi = net.formulas[0].expression
    with mpmath.workdps(400):
        point = [mpmath.mpf(float(each)) for each in w[:, 0]]

        def exactly(e: sympy.Expr) -> float:
            return float(sympy.lambdify(x, e, "mpmath")(*point))

        assert value[0] == pytest.approx(exactly(phi), rel=4e-13, abs=0)
        for a in range(k):
            assert gradient[a, 0] == pytest.approx(exactly(phi.diff(x[a])), rel=4e-13, abs=0)
            for b in range(k):
                expected = exactly(phi.diff(x[a], x[b]))
                assert hessian[a, b, 0] == pytest.approx(expected, rel=4e-13, abs=1e-250)


NOISES = [
    fs.GaussianNoise(0.3),
    fs.UniformNoise(0.3),
    fs.RademacherNoise(0.3),
    fs.LaplaceNoise(0.2),
    fs.GaussianNoise(0.3, multiplicative=True),
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: f"{noise.name}{'*' if noise.multiplicative else ''}")
@pytest.mark.parametrize("formula", ["a*tanh(a)", "1 - cos(u)", "u*v", "tanh(u*v)", "w**4 - w**2", "u*v*w"])
def test_noisy_fields_vanish_linearly_at_a_symmetric_origin(formula: str, noise: fs.GaussianNoise) -> None:
    net = fs.DiagonalNetwork(formula, noise=noise)
    k = len(net.weights)
    kind, K, std = net.kinds(1), kernels(net), noise.stds(net.weights)
    direction = np.array([[0.7], [-0.31], [1.3]])[:k]
    g, s2 = np.array([-0.8]), np.array([1.7])
    field, jacobian = np.empty((k, 1)), np.empty((k, k, 1))
    K.field.py_func(1e-120 * direction, kind, std, g, s2, field)
    K.field_jacobian.py_func(np.zeros((k, 1)), kind, std, g, s2, jacobian)
    np.testing.assert_allclose(field / 1e-120, jacobian[:, :, 0] @ direction, rtol=1e-12, atol=1e-110)


def test_cancellation_beyond_the_constants_is_measured_and_remarked() -> None:
    lossy = fs.DiagonalNetwork("exp(u) - 1 - u - u**2/2 + v**3")
    assert kernels(lossy).tiny_error > 1e-3
    assert "loses its relative accuracy" in fs.derive(lossy).remarks[0]
    for formula in ("u*v", *ZERO_ORDER_CANCELS[:5], "2*u**2 - v**2", "cosh(u) - cos(v)"):
        assert kernels(fs.DiagonalNetwork(formula)).tiny_error < 1e-14
        assert not any("accuracy" in remark for remark in fs.derive(fs.DiagonalNetwork(formula)).remarks)
