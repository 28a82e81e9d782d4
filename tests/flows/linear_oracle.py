"""U V^T by Taylor series in the weights themselves, in arithmetic of hundreds of digits: no idea of the integrator."""

from __future__ import annotations

import gmpy2
import numpy as np

#: Order of the series, and the relative size of its last terms, in digits.
ORDER, DIGITS = 30, 25


def taylor_flow(
    X: np.ndarray,
    Y: np.ndarray,
    U: np.ndarray,
    V: np.ndarray,
    times: list[float],
    *,
    exponent: int = 0,
    eta: float = 0.0,
    decay: float = 0.0,
    pretrained: tuple[np.ndarray, np.ndarray] | None = None,
    digits: int = 100,
) -> np.ndarray:
    """U V^T (T, D, m) from ``pretrained + 10**-exponent (U, V)``; noise of std eta on all weights, weight decay."""
    with gmpy2.context(gmpy2.get_context(), precision=int(3.33 * digits)):
        n, (D, m) = len(X), (X.shape[1], Y.shape[1])
        Xm, Ym = _exact(X), _exact(Y)
        sigma, signal = Xm.T @ Xm / n, Xm.T @ Ym / n
        square = gmpy2.mpfr(repr(eta)) ** 2
        lam = gmpy2.mpfr(repr(decay))
        pull_u = square * m * sigma + lam * _exact(np.eye(D))
        pull_v = square * sum(sigma[i, i] for i in range(D)) + lam
        scale = gmpy2.mpfr(10) ** (-exponent)
        u, v = _exact(U) * scale, _exact(V) * scale
        if pretrained is not None:
            u, v = u + _exact(pretrained[0]), v + _exact(pretrained[1])
        t, out = gmpy2.mpfr(0), []
        for end in times:
            end = gmpy2.mpfr(repr(float(end)))
            while t < end:
                us, vs = _series(u, v, sigma, signal, pull_u, pull_v)
                size = [max(_largest(us[k]), _largest(vs[k])) for k in (0, ORDER - 1, ORDER)]
                radius = [(size[0] / size[i]) ** (gmpy2.mpfr(1) / k) for i, k in ((1, ORDER - 1), (2, ORDER))]
                step = min(min(radius) * gmpy2.mpfr(10) ** gmpy2.mpfr(-DIGITS / ORDER), end - t)
                u, v = _sum(us, step), _sum(vs, step)
                t = end if end - t - step < gmpy2.mpfr(10) ** -30 else t + step
            out.append((u @ v.T).astype(float))
    return np.array(out)


def _exact(values: np.ndarray) -> np.ndarray:
    return np.array([[gmpy2.mpfr(repr(float(x))) for x in row] for row in values], dtype=object)


def _series(u, v, sigma, signal, pull_u, pull_v):
    us, vs, gs = [u], [v], []
    for k in range(ORDER):
        product = sum((us[i] @ vs[k - i].T for i in range(k + 1)), start=0 * signal)
        gs.append((signal if k == 0 else 0) - sigma @ product)
        du = sum(gs[i] @ vs[k - i] for i in range(k + 1)) - pull_u @ us[k]
        dv = sum(gs[i].T @ us[k - i] for i in range(k + 1)) - pull_v * vs[k]
        us.append(du / gmpy2.mpfr(k + 1))
        vs.append(dv / gmpy2.mpfr(k + 1))
    return us, vs


def _largest(values):
    return max((abs(x) for x in values.ravel()), default=gmpy2.mpfr(0))


def _sum(terms, step):
    total = terms[-1]
    for term in terms[-2::-1]:
        total = total * step + term
    return total
