"""The derivation of U V^T against numbers."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

import flowsim as fs
from tests.flows.linear_closed_form import negative_gradient

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
U, V = rng.standard_normal((3, 4)), rng.standard_normal((2, 4))


def evaluate(derivation, expression, std=(0.0, 0.0)):
    sizes = {derivation.n: 6, derivation.D: 3, derivation.m: 2, derivation.h: 4}
    names = dict(zip(map(str, derivation.std), std, strict=True))
    numbers = {symbol: names[symbol.name] for symbol in expression.free_symbols if symbol.name in names}
    matrices = {
        symbol.subs(sizes): sympy.Matrix(value)
        for symbol, value in zip((derivation.U, derivation.V, derivation.X, derivation.Y), (U, V, X, Y), strict=True)
    }
    found = expression.subs(sizes).subs(numbers).subs(matrices)
    return np.array(found.doit(), dtype=float)


@pytest.mark.parametrize("std", [None, 0.3, {"U": 0.2, "V": 0.5}])
def test_the_field_is_the_negative_gradient_of_the_expected_loss(std) -> None:
    net = fs.LinearNetwork(4, noise=None if std is None else fs.GaussianNoise(std))
    derivation = fs.derive(net)
    values = (0.0, 0.0) if std is None else net.noise.stds(net.weights)
    expected = negative_gradient(U, V, X, Y, values[0] ** 2, values[1] ** 2)
    for name, slope in zip("UV", expected, strict=True):
        np.testing.assert_allclose(evaluate(derivation, derivation.field[name], values), slope, rtol=1e-12)
    dU, dV = expected
    rate = dU.T @ U + U.T @ dU - dV.T @ V - V.T @ dV
    np.testing.assert_allclose(evaluate(derivation, derivation.imbalance_rate, values), rate, atol=1e-12)


def test_the_threshold_is_that_of_the_limit() -> None:
    net = fs.LinearNetwork(9, noise=fs.GaussianNoise(0.3))
    derivation = fs.derive(net)
    expected = 0.3**2 * np.sqrt(2 * np.trace(X.T @ X) / 6)
    assert float(evaluate(derivation, derivation.threshold**2, (0.3, 0.3))) == pytest.approx(expected**2)


def test_it_reads_as_text_and_as_latex() -> None:
    derivation = fs.derive(fs.LinearNetwork(8, noise=fs.GaussianNoise(0.1)))
    text = str(derivation)
    for title in ("Model", "Gradient flow", "Conserved quantities", "Growth at vanishing", "Saddles and end"):
        assert title in text
        assert title in derivation.latex()
    assert r"\begin{pmatrix} -a & G \\ G^\top & -b \end{pmatrix}" in derivation.latex()
    assert "τ = η² sqrt(m tr(Σ))" in text
    assert derivation._repr_latex_().startswith("$$")
    assert repr(derivation).startswith("derive(LinearNetwork(width=8")
    plain = str(fs.derive(fs.LinearNetwork(8)))
    assert "conserved, whatever the data" in plain
    assert "1/σ_1(X^T Y / n)" in plain
