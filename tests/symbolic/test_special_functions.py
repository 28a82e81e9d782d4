"""Formulas with special functions, multiplicative noise without closed form, and other ground types of SymPy."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import sympy

import flowsim as fs


def test_under_multiplicative_noise_the_field_carries_the_factor_of_the_noise() -> None:
    """Against the exact average over the four draws, differentiated by central differences."""
    std = 0.3
    derivation = fs.derive(fs.DiagonalNetwork("cos(u+v)-1", noise=fs.RademacherNoise(std, multiplicative=True)))
    assert derivation.laws[0].kind != "conserved"
    signs = [(a, b) for a in (std, -std) for b in (std, -std)]

    def mean(u: float, v: float) -> float:
        return float(np.mean([np.cos(u * (1 + a) + v * (1 + b)) for a, b in signs]))

    u, v, h = 0.7, 0.2, 1e-5
    x, y, xi_u, xi_v = sympy.symbols("u v xi_u xi_v", real=True)
    slopes = (mean(u + h, v) - mean(u - h, v), mean(u, v + h) - mean(u, v - h))
    for name, slope in zip("uv", slopes, strict=True):
        field = derivation.field[name].subs({"sigma": 0})
        drift = field.subs({symbol: 0 for symbol in field.free_symbols if symbol.name == "sigma"})
        (inside,) = [moment.args[0] for moment in drift.atoms(sympy.Function) if type(moment).__name__ == "E"]
        average = np.mean([float(inside.subs({x: u, y: v, xi_u: a, xi_v: b})) for a, b in signs])
        assert average == pytest.approx(slope / (2 * h), abs=1e-9)
    assert r"\xi_{u}" in derivation.latex()


@pytest.mark.parametrize("formula", ["erf(u)*v", "u*erf(v)", "erf(u*v)"])
def test_the_error_function_is_rendered_and_has_its_threshold(formula: str) -> None:
    derivation = fs.derive(fs.DiagonalNetwork(formula))
    assert "erf" in derivation.latex()
    assert sympy.simplify(derivation.thresholds.plus - sympy.sqrt(sympy.pi) / 2) == 0


def test_the_limit_of_the_error_function_jumps_at_its_threshold() -> None:
    problem = fs.Regression(np.eye(2), [0.8, 0.4])
    path = fs.saddle_to_saddle(fs.DiagonalNetwork("erf(u*v)"), problem)
    np.testing.assert_allclose(path.jump_times, np.sqrt(np.pi) / 2 / np.array([0.4, 0.2]), rtol=1e-12)
    np.testing.assert_allclose(path.end, [0.8, 0.4], rtol=1e-12)


@pytest.mark.skipif(importlib.util.find_spec("flint") is None, reason="python-flint is not installed")
def test_conserved_quantities_are_found_with_the_ground_types_of_flint() -> None:
    code = (
        "import flowsim as fs; print([fs.derive(fs.DiagonalNetwork(f)).invariants for f in ('2*u**2 - v**2', 'u*v')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "SYMPY_GROUND_TYPES": "flint"}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[(u*v**2,), (u**2 - v**2,)]", done.stderr


def test_a_speed_beyond_floats_is_infinite_without_a_word() -> None:
    problem = fs.Regression(np.eye(2), [1.0, 0.5])
    run = fs.gradient_flow(fs.DiagonalNetwork(depth=3), problem, 5.0, alpha="1e-550", clock="accelerated")
    assert not np.isnan(run.speed).any()
