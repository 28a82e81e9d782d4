"""The interpolant that a mirror flow selects: the one whose mirror image lies in the row space.

The inverse mirror map acts on each coordinate by a sum of exponentials, or by a power.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from flowsim.solvers.array_kinds import Array

#: Largest change of an exponent in a Newton step: beyond it the quadratic model of exp is useless.
_TRUST = 2.0
_NEWTON_STEPS = 200
_HALVINGS = 40
#: Ratio of successive logarithmic scales in the continuation to a vanishing one.
_CONTINUATION = 1.6


def trusted(stretch: float) -> float:
    """The part of a Newton step to take that changes exponents by `stretch`."""
    return min(1.0, _TRUST / stretch) if stretch > 0 else 1.0


class Response(ABC):
    """An inverse mirror map: separable, increasing in each coordinate of the dual variable z (d,)."""

    @property
    def depth(self) -> float:
        """The logarithmic distance of the scale of the map from order one."""
        return 0.0

    @abstractmethod
    def value(self, z: Array) -> Array:
        """beta, (d,)."""

    @abstractmethod
    def slope(self, z: Array) -> Array:
        """``d beta / dz``, (d,)."""

    @abstractmethod
    def potential(self, z: Array) -> float:
        """A primitive of the value, summed over coordinates; convex, and infinite outside the domain."""

    def scaled(self, share: float) -> Response:
        """The map at a scale whose logarithm is multiplied by `share`."""
        return self

    @abstractmethod
    def reach(self, z: Array, dz: Array) -> float:
        """The part of a Newton step to take, at most 1."""


@dataclass(frozen=True, eq=False)
class SumOfExponentials(Response):
    r"""``beta_i(z) = sum_k sign(rate_ki) exp(offset_ki + rate_ki z_i)``, increasing in z; arrays (k, d).

    A term of offset ``-inf`` is absent.
    """

    offset: Array
    rate: Array

    def value(self, z: Array) -> Array:
        return (np.sign(self.rate) * self._terms(z)).sum(axis=0)

    def slope(self, z: Array) -> Array:
        return (np.abs(self.rate) * self._terms(z)).sum(axis=0)

    def potential(self, z: Array) -> float:
        rate = np.where(self.rate == 0, 1.0, np.abs(self.rate))
        return float((self._terms(z) / rate).sum())

    def scaled(self, share: float) -> SumOfExponentials:
        """The sum with all offsets multiplied by `share`."""
        with np.errstate(invalid="ignore"):
            return SumOfExponentials(self.offset * share, self.rate)

    def reach(self, z: Array, dz: Array) -> float:
        return trusted(float(np.abs(self.rate * dz).max()))

    @property
    def depth(self) -> float:
        """The largest absolute offset: the logarithmic distance of the terms from order one."""
        finite = self.offset[np.isfinite(self.offset) & (self.rate != 0)]
        return float(np.abs(finite).max(initial=0.0))

    def _terms(self, z: Array) -> Array:
        exponent = np.where(self.rate == 0, -np.inf, self.offset + self.rate * z)
        return np.exp(np.minimum(exponent, 700.0))


@dataclass(frozen=True, eq=False)
class Powers(Response):
    r"""``beta_i(z) = sign_i (-sign_i rate_i z_i)^(-p)`` on ``sign_i z_i < 0``, increasing in z; p > 1, rates > 0."""

    sign: Array
    p: float
    rate: Array | float = 1.0

    def value(self, z: Array) -> Array:
        return self.sign * (-self.sign * self.rate * z) ** -self.p

    def slope(self, z: Array) -> Array:
        return self.p * self.rate * (-self.sign * self.rate * z) ** (-self.p - 1.0)

    def potential(self, z: Array) -> float:
        inside = -self.sign * self.rate * z
        if not (inside > 0).all():
            return np.inf
        return float((inside ** (1.0 - self.p) / self.rate).sum() / (self.p - 1.0))

    def reach(self, z: Array, dz: Array) -> float:
        closing = -self.sign * dz
        limits = np.where(closing < 0, (-self.sign * z) / np.where(closing < 0, -closing, 1.0), np.inf)
        return float(min(1.0, 0.9 * limits.min()))


def mirror_interpolation(
    A: Array, target: Array, response: Response, start: Array | None = None, tolerance: float = 1e-12
) -> Array:
    r"""The ``beta = response(A^T nu)`` with ``A beta = target``.

    It minimises the Bregman divergence whose mirror map inverts the response among all solutions of
    ``A beta = target``, and is found by Newton's method on the convex dual

    .. math:: \min_\nu \; \Psi(A^\top \nu) - \langle \nu, target \rangle, \qquad \nabla\Psi = response,

    continued from offsets of order one to the given ones, so that scales like 1e-1000 are reached.

    Raises ArithmeticError if Newton's method does not reach the tolerance: in general there is no such beta.

    Parameters
    ----------
    A : array (n, d)
    target : array (n,)
        In the range of A, with a solution of the signs that the response allows.
    response : SumOfExponentials, Powers, or another Response
    start : array (d,), optional
        Where ``A^T nu`` begins, in the row space of A; 0 by default.
    tolerance : float
        On ``|A beta - target|`` relative to the target, in an orthonormal basis of the range.
    """
    left, sizes, rows = np.linalg.svd(A, full_matrices=False)
    rank = int((sizes > max(A.shape) * np.finfo(float).eps * sizes.max(initial=0.0)).sum())
    B = rows[:rank]
    f = (left[:, :rank].T @ target) / sizes[:rank]
    nu = np.zeros(rank) if start is None else B @ start
    if rank == 0:
        return response.value(np.zeros(A.shape[1]))
    size = float(np.abs(f).max())
    share = min(1.0, 3.0 / response.depth) if response.depth > 0 else 1.0
    while share < 1.0:
        nu, _ = _newton(B, f, response.scaled(share), nu, 1e-6 * size)
        following = min(1.0, share * _CONTINUATION)
        nu *= following / share
        share = following
    nu, error = _newton(B, f, response, nu, tolerance * size)
    if not error <= max(tolerance, 1e-9) * size + np.finfo(float).tiny:
        raise ArithmeticError(f"the dual Newton iteration stalls {error:.1e} from the target")
    return response.value(B.T @ nu)


def _newton(B: Array, f: Array, response: Response, nu: Array, tolerance: float) -> tuple[Array, float]:
    def objective(point: Array) -> float:
        return response.potential(B.T @ point) - float(point @ f)

    best, best_error = nu, np.inf
    value = objective(nu)
    for _ in range(_NEWTON_STEPS):
        z = B.T @ nu
        gradient = B @ response.value(z) - f
        error = float(np.abs(gradient).max())
        if error < best_error:
            best, best_error = nu, error
        if error <= tolerance:
            break
        slope = response.slope(z)
        hessian = (B * slope) @ B.T
        # While all of beta is negligible the Hessian vanishes: a floor turns Newton's step into a short gradient step.
        floor = 1e-14 * max(float(np.trace(hessian)), float(np.abs(f).max()))
        step = -np.linalg.solve(hessian + floor * np.eye(len(nu)), gradient)
        scale = response.reach(z, B.T @ step)
        descent = float(gradient @ step)
        for _ in range(_HALVINGS):
            trial = nu + scale * step
            new = objective(trial)
            # Near the solution the objective is constant to rounding: only the gradient measures progress.
            if new <= value + 1e-4 * scale * descent or _error(B, f, response, trial) <= 0.5 * error:
                break
            scale *= 0.5
        if np.array_equal(trial, nu):
            break
        nu, value = trial, new
    return best, best_error


def _error(B: Array, f: Array, response: Response, nu: Array) -> float:
    z = B.T @ nu
    if not np.isfinite(response.potential(z)):
        return np.inf
    return float(np.abs(B @ response.value(z) - f).max())
