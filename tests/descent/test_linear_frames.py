"""Descent of U V^T at scales where plain weights lose what waits."""

from __future__ import annotations

import gmpy2
import numpy as np

import flowsim as fs


def exact_descent(X, Y, U, V, step, n_steps, exponent, digits):
    """Gradient descent in the weights, in arithmetic of many digits."""
    with gmpy2.context(gmpy2.get_context(), precision=int(3.33 * digits)):
        lift = np.vectorize(lambda x: gmpy2.mpfr(repr(float(x))), otypes=[object])
        X, Y, n = lift(X), lift(Y), len(X)
        sigma, signal, h = X.T @ X / n, X.T @ Y / n, gmpy2.mpfr(repr(step))
        u, v = lift(U) * gmpy2.mpfr(10) ** -exponent, lift(V) * gmpy2.mpfr(10) ** -exponent
        out = [u @ v.T]
        for _ in range(n_steps):
            G = signal - sigma @ (u @ v.T)
            u, v = u + h * (G @ v), v + h * (G.T @ u)
            out.append(u @ v.T)
        return np.array([each.astype(float) for each in out])


def test_descent_is_that_of_exact_arithmetic_through_two_jumps() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 3)).round(3), rng.standard_normal((6, 2)).round(3)
    U, V = rng.standard_normal((3, 3)).round(3), rng.standard_normal((2, 3)).round(3)
    first, second = np.linalg.svd(X.T @ Y / 6, compute_uv=False)
    for exponent in (20, 60):
        n_steps = int(2.2 * exponent * np.log(10.0) / (0.3 * min(first, 2 * second)))
        exact = exact_descent(X, Y, U, V, 0.3, n_steps, exponent, 3 * exponent + 30)
        traj = fs.gradient_descent(
            fs.LinearNetwork(3), fs.Regression(X, Y), 0.3, n_steps, alpha=f"1e-{exponent}", start={"U": U, "V": V}
        )
        assert traj.info["coordinates"] == "frame"
        np.testing.assert_allclose(traj.beta, exact, atol=1e-9)


def test_descent_with_small_steps_follows_the_flow_far_below_floats() -> None:
    rng = np.random.default_rng(1)
    problem = fs.Regression(rng.standard_normal((8, 3)), rng.standard_normal((8, 2)))
    net, step = fs.LinearNetwork(4), 0.1
    # The flow jumps at t = 1970, descent a part h sigma / 2 of that later; the next jump is at 2746.
    flow = fs.gradient_flow(net, problem, 2400.0, alpha="1e-320", t_eval=[2400.0])
    traj = fs.gradient_descent(net, problem, step, 24_000, alpha="1e-320", record_every=6_000)
    np.testing.assert_allclose(traj.beta[-1], flow.beta[-1], atol=1e-6)
    assert np.isfinite(traj.log_abs_weights["U"]).all()
