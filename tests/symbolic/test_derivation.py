"""The derivation against independent algebra, and against flows for its decay laws."""

from __future__ import annotations

import time

import numpy as np
import pytest
import sympy

import flowsim as fs
from flowsim.growth.arrivals import growth_thresholds
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
    "u*sqrt(1 + v**2)",
]
#: Those whose expectation under Gaussian noise is exact.
EXACT = [formula for formula in FORMULAS if "tanh" not in formula and "sqrt" not in formula]


def numeric(e: sympy.Expr, derivation, w: np.ndarray, eta: float, g: float, sigma: float) -> float:
    return float(e.subs({**dict(zip(derivation.weights, w, strict=True)), derivation.g: g, derivation.sigma: sigma,
                         **dict.fromkeys(derivation.std, eta)}))  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize("formula", EXACT)
def test_field_and_jacobian_formulas_are_what_the_kernels_compute(formula: str) -> None:
    noise = fs.GaussianNoise(0.3)
    net = fs.DiagonalNetwork(formula, noise=noise)
    k, K, derivation = len(net.weights), kernels(net), fs.derive(net)
    coordinate = derivation.coordinates[0]
    w = np.random.default_rng(2).uniform(-0.8, 0.8, k)
    g, sigma = -0.7, 1.2
    field, jacobian, mean, variance = np.empty((k, 1)), np.empty((k, k, 1)), np.empty(1), np.empty(1)
    arguments = (w[:, None].copy(), net.kinds(1), noise.stds(net.weights))
    data = (np.array([g]), np.array([sigma**2]))
    K.field.py_func(*arguments, *data, field)
    K.field_jacobian.py_func(*arguments, *data, jacobian)
    K.mean.py_func(*arguments, mean)
    K.variance.py_func(*arguments, variance)
    values = (coordinate, w, 0.3, g, sigma)
    assert numeric(derivation.mean, *values) == pytest.approx(mean[0], rel=1e-12)
    assert numeric(derivation.variance, *values) == pytest.approx(variance[0], rel=1e-12)
    for a, name in enumerate(net.weights):
        assert numeric(derivation.field[name], *values) == pytest.approx(field[a, 0], rel=1e-11)
        for b in range(k):
            expected = pytest.approx(jacobian[a, b, 0], rel=1e-10, abs=1e-13)
            assert numeric(derivation.jacobian[a, b], *values) == expected


def test_depth_2_field_is_the_papers() -> None:
    d = fs.derive(fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1))).coordinates[0]
    (u, v), eta, g, sigma = d.weights, d.std[0], d.g, d.sigma
    kappa = eta**2 * sigma**2
    assert sympy.expand(d.field["u"] + g * v + kappa * u) == 0
    assert sympy.expand(d.field["v"] + g * u + kappa * v) == 0
    assert sympy.expand(d.variance - (eta**2 * (u**2 + v**2) + eta**4)) == 0
    assert sympy.expand(d.laws[0].rate - 2 * kappa) == 0


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_the_balancing_rate_of_depth_l_is_exact(depth: int) -> None:
    """d/dt (w_1^2 - w_l^2) computed from the field equals the stated law, symbolically."""
    d = fs.derive(fs.DiagonalNetwork(depth=depth, noise=fs.GaussianNoise(0.1))).coordinates[0]
    for law in d.laws:
        assert law.kind == "decay"
        along = sum(law.quantity.diff(w) * d.field[w.name] for w in d.weights)
        assert sympy.expand(along + law.rate * law.quantity) == 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("formula", "noise", "kinds"),
    [
        ("u*v", None, ["conserved"]),
        ("u**2 - v**2", fs.GaussianNoise(0.1), ["decay"]),
        ("2*u**2 - v**2", fs.GaussianNoise(0.1), ["decay"]),
        ("u*v", fs.GaussianNoise(0.1, multiplicative=True), ["conserved"]),
        ("u*v*w", fs.LaplaceNoise((0.1, 0.2, 0.3), multiplicative=True), ["conserved", "conserved"]),
        ("u*v", fs.GaussianNoise((0.1, 0.2)), ["driven"]),
        ("u + v", fs.GaussianNoise(0.1), ["conserved"]),
        ("tanh(u*v)", fs.GaussianNoise(0.1), ["open"]),
        ("u**2*v", fs.GaussianNoise(0.1), ["driven"]),
    ],
)
def test_what_becomes_of_invariants_under_noise(formula: str, noise, kinds: list[str]) -> None:
    d = fs.derive(fs.DiagonalNetwork(formula, noise=noise)).coordinates[0]
    assert [law.kind for law in d.laws] == kinds
    for law in d.laws:
        if law.kind != "open":
            along = sum(law.quantity.diff(w) * d.field[w.name] for w in d.weights)
            assert sympy.simplify(along - law.derivative) == 0


@pytest.mark.parametrize("formula", ["u*v", "u*v*w", "2*u**2 - v**2"])
def test_decay_laws_hold_along_an_integrated_flow(formula: str) -> None:
    """log I(t) = log I(0) - integral of the stated rate along the path of an independent integrator."""
    from scipy.integrate import solve_ivp

    noise = fs.GaussianNoise(0.4)
    net = fs.DiagonalNetwork(formula, noise=noise)
    d, K = fs.derive(net).coordinates[0], kernels(net)
    k, std = len(net.weights), noise.stds(net.weights)
    feature, target, start = 1.3, 0.5, np.array([1.1, 0.6, -0.8])[:k]
    law = d.laws[0]
    rate = sympy.lambdify(d.weights, law.rate.subs({d.sigma: feature, **dict.fromkeys(d.std, 0.4)}))
    quantity = sympy.lambdify(d.weights, law.quantity)
    m, field = np.empty(1), np.empty((k, 1))

    def flow(_: float, state: np.ndarray) -> np.ndarray:
        w = np.ascontiguousarray(state[:k, None])
        K.mean.py_func(w, net.kinds(1), std, m)
        g = np.array([feature * (feature * m[0] - target)])
        K.field.py_func(w, net.kinds(1), std, g, np.array([feature**2]), field)
        return np.append(field[:, 0], rate(*state[:k]))

    end = solve_ivp(flow, (0, 2.0), np.append(start, 0.0), method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    assert end[-1] > 0.1
    assert quantity(*end[:k]) == pytest.approx(quantity(*start) * np.exp(-end[-1]), rel=1e-9)


@pytest.mark.parametrize(
    ("formula", "order", "plus", "minus"),
    [
        ("u*v", 2, 1, 1),
        ("u**2 - v**2", 2, sympy.Rational(1, 2), sympy.Rational(1, 2)),
        ("2*u**2 - v**2", 2, sympy.Rational(1, 4), sympy.Rational(1, 2)),
        ("2*a*b + (a**2 + b**2 + c**2)*c", 2, sympy.Rational(1, 2), sympy.Rational(1, 2)),
        ("a*tanh(a) - (exp(b) - 1)**2", 2, sympy.Rational(1, 2), sympy.Rational(1, 2)),
        ("u*v + u**2", 2, sympy.sqrt(2) - 1, 1 + sympy.sqrt(2)),
        ("u**2", 2, sympy.Rational(1, 2), sympy.oo),
        ("w1*w2*w3", 3, 1, sympy.oo),
        ("w1*w2*w3*w4", 4, sympy.Rational(1, 2), sympy.oo),
        ("w**3 - v**3", 3, sympy.Rational(1, 3), sympy.Rational(1, 3)),
        ("w**4", 4, sympy.Rational(1, 8), sympy.oo),
        ("w**3 - sin(v)**3", 3, sympy.Rational(1, 3), sympy.Rational(1, 3)),
        ("cosh(u) - cos(v)", 2, 1, sympy.oo),
    ],
)
def test_thresholds_are_exact_numbers(formula: str, order: int, plus: sympy.Expr, minus: sympy.Expr) -> None:
    net = fs.DiagonalNetwork(formula)
    found = fs.derive(net).thresholds
    assert found.order == order
    assert sympy.simplify(found.plus - plus) == 0
    assert found.minus == minus if minus == sympy.oo else sympy.simplify(found.minus - minus) == 0


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("exp(u) - v", "phi(0) != 0"),
        ("u + v**2", "grad phi(0) != 0"),
        ("1/u + v", "pole or a branch cut"),
        ("log(u)*v", "pole or a branch cut"),
        ("u**1.5", "pole or a branch cut"),
        ("sqrt(u)*v", "pole or a branch cut"),
    ],
)
def test_formulas_without_a_saddle_at_0_say_so(formula: str, says: str) -> None:
    net = fs.DiagonalNetwork(formula)
    derivation = fs.derive(net)
    assert derivation.thresholds.plus is None
    assert says in derivation.thresholds.statement
    assert says.split(" !=")[0] in " ".join(derivation.remarks)
    assert "no saddle at the origin" in str(derivation)
    with pytest.raises(ValueError, match="`formula`"):
        growth_thresholds(net, net.direction(None, 1), 1)


def test_powers_that_are_no_integers_are_written_out() -> None:
    assert "`formula` 'u^2.5' has a pole" in " ".join(str(fs.derive(fs.DiagonalNetwork("u**2.5"))).split())


def test_weights_that_never_matter_are_named() -> None:
    derivation = fs.derive(fs.DiagonalNetwork("u*v + w - w"))
    assert derivation.remarks == ("w never matters: phi does not depend on it.",)
    assert derivation.field["w"] == 0
    assert [str(e) for e in derivation.invariants] == ["u**2 - v**2"]


def test_weights_may_be_called_like_the_derivations_own_symbols() -> None:
    net = fs.DiagonalNetwork("g*sigma*eta", noise=fs.GaussianNoise(0.1))
    derivation = fs.derive(net)
    d = derivation.coordinates[0]
    assert {d.g.name, d.sigma.name, d.std[0].name} & set(net.weights) == set()
    own = "lambda*x0*e0*out*std"
    assert fs.derive(fs.DiagonalNetwork(own)).field["out"].has(sympy.Symbol("lambda", real=True))
    out = np.empty(1)
    kernels(fs.DiagonalNetwork(own + " + 0")).value(np.full((5, 1), 2.0), np.zeros(1, dtype=np.int64), out)
    assert out[0] == 32.0


def test_a_mixed_network_has_one_entry_for_each_formula() -> None:
    derivation = fs.derive(fs.DiagonalNetwork(["u*v", "u*v", "w**3"]))
    assert len(derivation.field) == 2
    assert [t.order for t in derivation.thresholds] == [2, 3]
    assert "w³" in str(derivation)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("noise", [None, fs.GaussianNoise(0.1), fs.UniformNoise(0.1, multiplicative=True)])
@pytest.mark.parametrize("formula", [*FORMULAS, "1/u + v", "exp(u) - v", "w**2", "u*v + w - w"])
def test_every_derivation_renders(formula: str, noise) -> None:
    derivation = fs.derive(fs.DiagonalNetwork(formula, noise=noise))
    text, tex = str(derivation), derivation.latex()
    titles = [
        "Model",
        "Expectation",
        "Gradient flow",
        "Conserved quantities",
        "Sharpness",
        "Growth thresholds",
        "Limit",
    ]
    assert [text.index(title) for title in titles] == sorted(text.index(title) for title in titles)
    assert max(map(len, text.splitlines())) <= 110
    assert all(title in tex for title in titles)
    assert tex.count("{") == tex.count("}")
    assert tex.count(r"\left") == tex.count(r"\right")
    assert tex.count("$") % 2 == 0
    assert derivation._repr_latex_() == f"$$\n{tex}\n$$"
    assert "nan" not in text


@pytest.mark.parametrize(
    ("net", "seconds"),
    [
        (fs.DiagonalNetwork("u*v"), 1.0),
        (fs.DiagonalNetwork(depth=6, noise=fs.GaussianNoise(0.1)), 5.0),
        pytest.param(fs.DiagonalNetwork(FORMULAS, noise=fs.GaussianNoise(0.1)), 20.0, marks=pytest.mark.slow),
    ],
    ids=["u*v", "depth 6", "many"],
)
def test_derivations_are_quick(net: fs.DiagonalNetwork, seconds: float) -> None:
    """Everything there is to derive and to render, in processor seconds."""
    started = time.process_time()
    str(fs.derive(net)), fs.derive(net).latex()
    assert time.process_time() - started < seconds


@pytest.mark.parametrize("bad", ["u*v", None])
def test_only_networks_are_derived(bad) -> None:
    with pytest.raises(ValueError, match="`net` must be a DiagonalNetwork or LinearNetwork; received"):
        fs.derive(bad)


def test_the_degree_is_checked() -> None:
    with pytest.raises(ValueError, match="`degree` must be an integer >= 1; received 0"):
        fs.derive(fs.DiagonalNetwork("u*v"), degree=0)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("formula", "noise"),
    [
        ("(a + b + c + d + e + f)**64", None),
        ("((a + b)**8 + c)**8", fs.GaussianNoise(0.1)),
        ("u**32*v**32", fs.GaussianNoise(0.1)),
        pytest.param("*".join(f"sin(w{i})" for i in range(10)), None, marks=pytest.mark.slow),
        ("tanh(tanh(tanh(u*v)*u)*v)", fs.GaussianNoise(0.05)),
        pytest.param("sin(u + v)**8*cos(w)**8", fs.GaussianNoise(0.1), marks=pytest.mark.slow),
    ],
)
def test_formulas_too_large_to_expand_are_still_derived(formula: str, noise) -> None:
    started = time.process_time()
    assert str(fs.derive(fs.DiagonalNetwork(formula, noise=noise)))
    assert time.process_time() - started < 15


def test_large_polynomials_are_integrated_exactly_instead_of_expanded() -> None:
    """A polynomial whose variance is not expanded goes to a rule that is exact for it: compare both on one."""
    from flowsim.symbolic.expectation import polynomial_moments

    net = fs.DiagonalNetwork("(a + b + c)**8", noise=fs.GaussianNoise(0.4))
    d, K = fs.derive(net).coordinates[0], kernels(net)
    assert "Gauss-Hermite" in d.methods[0]
    w = np.array([[0.5], [-0.2], [0.4]])
    mean, variance = np.empty(1), np.empty(1)
    K.mean.py_func(w, net.kinds(1), np.full(3, 0.4), mean)
    K.variance.py_func(w, net.kinds(1), np.full(3, 0.4), variance)
    # The sum of the three is one Gaussian weight of std 0.4 sqrt(3).
    x, s = sympy.symbols("x s")
    exact = polynomial_moments(x**8, [x], [s], fs.GaussianNoise(1.0))
    m, v = (float(e.subs({x: 0.7, s: 0.4 * 3**0.5})) for e in exact)
    assert mean[0] == pytest.approx(m, rel=1e-12)
    assert variance[0] == pytest.approx(v, rel=1e-11)


def test_the_basis_of_invariants_and_the_least_trace_are_at_hand() -> None:
    derivation = fs.derive(fs.DiagonalNetwork(depth=3), degree=2)
    assert {str(e) for e in derivation.invariant_basis} == {"w1**2 - w2**2", "w1**2 - w3**2"}
    np.testing.assert_allclose(derivation.minimal_trace([8.0, -1.0]), [[2, 1], [2, 1], [2, -1]])


def test_the_docstring_example_runs() -> None:
    import doctest

    from flowsim.symbolic import derivation

    assert doctest.testmod(derivation).failed == 0
    assert doctest.testmod(derivation).attempted >= 3


@pytest.mark.parametrize("stds", [(0.3, 0.3), (0.2, 0.5)])
def test_the_stated_end_point_under_noise_is_stationary_and_the_origin_balances_there(stds) -> None:
    """u*v: penalty eta_u eta_v sigma^2 is where growth out of 0 stops, |g| = penalty."""
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(stds))
    K, jacobian = kernels(net), np.empty((2, 2, 1))
    penalty = stds[0] * stds[1] * 1.7
    for factor, grows in [(0.99, False), (1.01, True)]:
        g = np.array([factor * penalty])
        K.field_jacobian.py_func(np.zeros((2, 1)), net.kinds(1), np.array(stds), g, np.array([1.7]), jacobian)
        assert (np.linalg.eigvalsh(jacobian[:, :, 0]).max() > 0) == grows
    if len(set(stds)) > 1:
        assert "penalties η_u·η_v σ_i²" in str(fs.derive(net))
