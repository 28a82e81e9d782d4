"""Generated kernels against SymPy's lambdify, high precision, central differences and sampled noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import sympy

import flowsim as fs
from flowsim.network import Noise
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


#: A mix of every way to take an expectation, compiled; the full grid below runs the same generated text uncompiled.
COMPILED = [
    ("w1*w2*w3*w4*w5", fs.GaussianNoise(0.3)),
    ("2*a*b + (a**2 + b**2 + c**2)*c", fs.UniformNoise(0.3)),
    ("a*tanh(a) - (exp(b) - 1)**2", fs.GaussianNoise(0.3)),
    ("u*sqrt(1 + v**2)", fs.GaussianNoise(0.3, multiplicative=True)),
]


@dataclass(frozen=True)
class Uncompiled:
    """The generated functions as plain Python: the same text, without the seconds of compilation."""

    net: fs.DiagonalNetwork

    def __getattr__(self, name: str):
        found = getattr(kernels(self.net), name)
        return getattr(found, "py_func", found)


def weights(net: fs.DiagonalNetwork, seed: int = 0, scale: float = 0.7) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal((len(net.weights), D))


@pytest.mark.parametrize("formula", FORMULAS)
def test_value_gradient_and_hessian_equal_lambdify(formula: str) -> None:
    net = fs.DiagonalNetwork(formula)
    k = len(net.weights)
    w, kind, K = weights(net), net.kinds(D), Uncompiled(net)
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


NOISES = [
    fs.GaussianNoise(0.3),
    fs.UniformNoise(0.3),
    fs.RademacherNoise(0.3),
    fs.LaplaceNoise(0.1),
    fs.GaussianNoise(0.3, multiplicative=True),
]
noises = pytest.mark.parametrize("noise", NOISES, ids=lambda n: f"{n.name}{'*' if n.multiplicative else ''}")


def noisy(formula: str, noise: Noise):
    net = fs.DiagonalNetwork(formula, noise=noise)
    return net, Uncompiled(net), net.kinds(D), noise.stds(net.weights)


@pytest.mark.sampled(7)
@noises
@pytest.mark.parametrize("formula", FORMULAS)
def test_mean_and_field_are_those_of_sampled_noise(formula: str, noise: Noise) -> None:
    """E phi, Var phi, E grad phi and E grad of the loss, each within 5 standard errors of 40,000 samples."""
    net, K, kind, std = noisy(formula, noise)
    k, n = len(net.weights), 40_000
    w = weights(net)[:, :1]
    z = noise.draw(np.random.default_rng(7), (k, n)) * std[:, None]
    at = w * (1 + z) if noise.multiplicative else w + z
    x = [sympy.Symbol(name, real=True) for name in net.weights]
    expression = net.formulas[0].expression
    phi = sympy.lambdify(x, expression)(*at)
    slope = np.array([np.broadcast_to(sympy.lambdify(x, expression.diff(a))(*at), (n,)) for a in x])
    if noise.multiplicative:
        slope = slope * (1 + z)

    def agree(samples: np.ndarray, value: float) -> None:
        error = samples.std() / np.sqrt(n)
        assert abs(samples.mean() - value) <= 5 * error + 1e-12

    m, v, dm = np.empty(1), np.empty(1), np.empty((k, 1))
    K.mean(w, kind[:1], std, m)
    K.variance(w, kind[:1], std, v)
    K.mean_gradient(w, kind[:1], std, dm)
    agree(phi, m[0])
    agree((phi - m[0]) ** 2, v[0])
    # One feature x with target y: the loss at perturbed weights is (x phi - y)^2 / 2.
    feature, target = 1.3, 0.4
    field = np.empty((k, 1))
    g = np.array([feature * (feature * m[0] - target)])
    K.field(w, kind[:1], std, g, np.array([feature**2]), field)
    for a in range(k):
        agree(slope[a], dm[a, 0])
        agree(-feature * (feature * phi - target) * slope[a], field[a, 0])


@pytest.mark.sampled(9)
@pytest.mark.parametrize("noise", [None, *NOISES], ids=str)
@pytest.mark.parametrize("formula", FORMULAS)
def test_jacobian_is_the_central_difference_of_the_field(formula: str, noise: Noise | None) -> None:
    net = fs.DiagonalNetwork(formula, noise=noise)
    k, K, kind = len(net.weights), Uncompiled(net), net.kinds(D)
    std = np.zeros(k) if noise is None else noise.stds(net.weights)
    rng = np.random.default_rng(3)
    w, g, s2 = weights(net), rng.standard_normal(D), rng.uniform(0.5, 2.0, D)
    jacobian, upper, lower = np.empty((k, k, D)), np.empty((k, D)), np.empty((k, D))
    K.field_jacobian(w, kind, std, g, s2, jacobian)
    step = 1e-5
    for b in range(k):
        shift = np.zeros((k, 1))
        shift[b] = step
        K.field(w + shift, kind, std, g, s2, upper)
        K.field(w - shift, kind, std, g, s2, lower)
        np.testing.assert_allclose(jacobian[:, b], (upper - lower) / (2 * step), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(jacobian, jacobian.swapaxes(0, 1))


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("formula", "noise"), COMPILED)
def test_compiled_kernels_equal_their_own_text(formula: str, noise: Noise) -> None:
    compiled_equals_text(formula, noise)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [None, *NOISES], ids=str)
@pytest.mark.parametrize("formula", FORMULAS)
def test_compiled_kernels_equal_their_own_text_for_all(formula: str, noise: Noise | None) -> None:
    compiled_equals_text(formula, noise)


def compiled_equals_text(formula: str, noise: Noise | None) -> None:
    net = fs.DiagonalNetwork(formula, noise=noise)
    k, K, plain, kind = len(net.weights), kernels(net), Uncompiled(net), net.kinds(D)
    std = np.zeros(k) if noise is None else noise.stds(net.weights)
    rng = np.random.default_rng(3)
    w, g, s2 = weights(net), rng.standard_normal(D), rng.uniform(0.5, 2.0, D)
    calls = {
        "value": ((w, kind), (D,)),
        "gradient": ((w, kind), (k, D)),
        "hessian": ((w, kind), (k, k, D)),
        "mean": ((w, kind, std), (D,)),
        "mean_gradient": ((w, kind, std), (k, D)),
        "variance": ((w, kind, std), (D,)),
        "field": ((w, kind, std, g, s2), (k, D)),
        "field_jacobian": ((w, kind, std, g, s2), (k, k, D)),
        "invariants": ((w, kind), (len(K.invariant_names), D)),
    }
    for name, (arguments, shape) in calls.items():
        one, two = np.full(shape, np.nan), np.full(shape, np.nan)
        getattr(K, name)(*arguments, one)
        getattr(plain, name)(*arguments, two)
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.sampled(4)
@noises
@pytest.mark.parametrize("formula", ["w1*w2*w3*w4", "2*a*b + (a**2 + b**2 + c**2)*c", "u*tanh(v)"])
def test_noise_of_std_0_is_no_noise(formula: str, noise: Noise) -> None:
    net, K, kind, std = noisy(formula, noise)
    k, w = len(net.weights), weights(net)
    rng = np.random.default_rng(3)
    g, s2 = rng.standard_normal(D), rng.uniform(0.5, 2.0, D)
    slope, field, variance = np.empty((k, D)), np.empty((k, D)), np.empty(D)
    K.gradient(w, kind, slope)
    K.field(w, kind, 0 * std, g, s2, field)
    K.variance(w, kind, 0 * std, variance)
    np.testing.assert_allclose(field, -g * slope, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(variance, 0.0, atol=1e-28)


def test_product_field_is_the_hand_formula_with_a_std_per_weight() -> None:
    std = {"w1": 0.1, "w2": 0.0, "w3": 0.4}
    net = fs.DiagonalNetwork(depth=3, noise=fs.GaussianNoise(std))
    K, w = Uncompiled(net), weights(net)
    rng = np.random.default_rng(3)
    g, s2, field = rng.standard_normal(D), rng.uniform(0.5, 2.0, D), np.empty((3, D))
    K.field(w, net.kinds(D), np.array([0.1, 0.0, 0.4]), g, s2, field)
    a, b, c = w
    expected = [
        -g * b * c - s2 * a * (b**2 * (c**2 + 0.16) - b**2 * c**2),
        -g * a * c - s2 * b * ((a**2 + 0.01) * (c**2 + 0.16) - a**2 * c**2),
        -g * a * b - s2 * c * ((a**2 + 0.01) * b**2 - a**2 * b**2),
    ]
    np.testing.assert_allclose(field, expected, rtol=1e-12)


@pytest.mark.parametrize("multiplicative", [False, True])
def test_a_product_and_its_expanded_twin_agree(multiplicative: bool) -> None:
    """The loops over layers and the moments that SymPy expands are two roads to the same field."""
    noise = fs.GaussianNoise((0.1, 0.2, 0.3), multiplicative=multiplicative)
    loops = fs.DiagonalNetwork("a*b*c", noise=noise)
    expanded = fs.DiagonalNetwork("1*a*b*c", noise=noise)
    assert loops.formulas[0].product_of is not None
    assert expanded.formulas[0].product_of is None
    w, kind, std = weights(loops), loops.kinds(D), noise.stds(loops.weights)
    rng = np.random.default_rng(3)
    g, s2 = rng.standard_normal(D), rng.uniform(0.5, 2.0, D)
    for name, shape in [("field", (3, D)), ("field_jacobian", (3, 3, D))]:
        one, two = np.empty(shape), np.empty(shape)
        getattr(Uncompiled(loops), name)(w, kind, std, g, s2, one)
        getattr(Uncompiled(expanded), name)(w, kind, std, g, s2, two)
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-14)


def test_skewed_moments_enter_exactly() -> None:
    """Noise that is -1 with probability 4/5 and 4 with 1/5, scaled: third moment 3/2 at unit std."""
    moments = tuple(0.8 * (-0.5) ** j + 0.2 * 2.0**j for j in range(9))
    net = fs.DiagonalNetwork("u**3 + u*v**2", noise=fs.MomentNoise(0.3, moments=moments))
    K, w = Uncompiled(net), weights(net)
    m, v = np.empty(D), np.empty(D)
    K.mean(w, net.kinds(D), np.array([0.3, 0.3]), m)
    K.variance(w, net.kinds(D), np.array([0.3, 0.3]), v)
    table = [(0.8, -0.5), (0.2, 2.0)]
    mean = second = 0.0
    for p, a in table:
        for q, b in table:
            value = (w[0] + 0.3 * a) ** 3 + (w[0] + 0.3 * a) * (w[1] + 0.3 * b) ** 2
            mean, second = mean + p * q * value, second + p * q * value**2
    np.testing.assert_allclose(m, mean, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(v, second - mean**2, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_a_mixed_network_is_its_formulas_side_by_side() -> None:
    formulas = [*FORMULAS, "u**4"]
    d = len(formulas)
    noise = fs.GaussianNoise(0.2)
    mixed = fs.DiagonalNetwork(formulas, noise=noise)
    k, K, kind = len(mixed.weights), Uncompiled(mixed), mixed.kinds(d)
    rng = np.random.default_rng(5)
    w, g, s2 = 0.5 * rng.standard_normal((k, d)), rng.standard_normal(d), rng.uniform(0.5, 2, d)
    std = noise.stds(mixed.weights)
    field, jacobian, mean = np.full((k, d), np.nan), np.full((k, k, d), np.nan), np.full(d, np.nan)
    K.field(w, kind, std, g, s2, field)
    K.field_jacobian(w, kind, std, g, s2, jacobian)
    K.mean(w, kind, std, mean)
    for i, formula in enumerate(formulas):
        alone = fs.DiagonalNetwork(formula, noise=noise)
        rows = [mixed.weights.index(name) for name in alone.weights]
        own, one, two = np.ascontiguousarray(w[rows, i : i + 1]), np.empty((len(rows), 1)), np.empty(1)
        Uncompiled(alone).field(own, np.zeros(1, int), std[rows], g[i : i + 1], s2[i : i + 1], one)
        Uncompiled(alone).mean(own, np.zeros(1, int), std[rows], two)
        np.testing.assert_allclose(field[rows, i], one[:, 0], rtol=1e-13)
        np.testing.assert_allclose(mean[i], two[0], rtol=1e-13)
        others = [row for row in range(k) if row not in rows]
        assert not field[others, i].any()
        assert not jacobian[others, :, i].any()
        assert not jacobian[:, others, i].any()


def test_depth_64_with_noise_is_loops_not_terms() -> None:
    net = fs.DiagonalNetwork(depth=64, noise=fs.GaussianNoise(0.1))
    K = kernels(net)
    assert len(K.source) < 10_000
    w = np.full((64, 2), 0.9)
    w[:, 1] = np.random.default_rng(0).uniform(0.5, 1.5, 64)
    variance = np.empty(2)
    K.variance(w, net.kinds(2), np.full(64, 0.1), variance)
    np.testing.assert_allclose(variance, np.prod(w**2 + 0.01, axis=0) - np.prod(w**2, axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    ("formula", "noise", "message"),
    [
        ("exp(u*v)", fs.GaussianNoise(0.8), "`noise`: the expectation of exp.u.v. does not converge at std"),
        ("exp(u) - exp(v)", fs.LaplaceNoise(0.8), "`std` of '.' must be below 0.707107"),
        ("log(1 + u)", fs.GaussianNoise(0.5), "`noise`: the expectation of log.u . 1. does not converge"),
        ("tanh(u) - v", fs.MomentNoise(0.1), "polynomials only; the formula contains tanh.u."),
        ("tanh(a*b*c*d)", fs.GaussianNoise(0.1), "quadrature in 4 weights"),
        ("u**3", fs.MomentNoise(0.1, moments=(1, 0, 1, 0, 3)), "`moments` must reach order 5"),
        ("asin(2)*u", None, "a constant in it is not a finite real number"),
        ("1e200*u**2*1e200 + v", None, "outside the range of floats"),
    ],
)
def test_expectations_that_do_not_exist_are_refused(formula: str, noise: Noise | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernels(fs.DiagonalNetwork(formula, noise=noise))
