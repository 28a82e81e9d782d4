r"""Convex losses of one prediction: ``L(beta) = (1/n) sum_i loss(f_i, y_i)`` with ``f = X beta``.

============== ============================== ================= =========================================
name           loss(f, y)                     targets           infimum over f
============== ============================== ================= =========================================
squared        (f - y)^2 / 2                  real              0, attained at f = y
logistic       ln(1 + exp(-y f))              -1, +1            0, not attained
exponential    exp(-y f)                      -1, +1            0, not attained
log-cosh       ln cosh(f - y)                 real              0, attained at f = y
pseudo-huber   sqrt(1 + (f - y)^2) - 1        real              0, attained at f = y
poisson        exp(f) - y f                   counts >= 0       y - y ln y, attained at ln y unless y = 0
============== ============================== ================= =========================================

Functions keep their relative accuracy at large and small arguments: a logistic loss of ``1e-400000``
is given by its logarithm, ``log_value``. The compiled derivatives are in :mod:`flowsim.problem.loss_kernels`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array

#: (f, y) -> array of their broadcast shape
Elementwise = Callable[[Array, Array], Array]
#: (f, y, w, d1, d2): writes ``w loss'`` and ``w loss''``
Kernel = Callable[[Array, Array, Array, Array, Array], None]

#: Predictions up to this have squares that do not overflow when summed over any data that fits into memory ...
_SAFE_SQUARE = 1e140
#: ... and so do the exponentials of predictions up to this.
_SAFE_EXPONENT = 600.0
#: Below this a series of one term is exact to rounding.
_TINY = 1e-9
#: Where ln(1 + x) = x to rounding, x = exp(-_FAR).
_FAR = 37.0


def no_fault(y: Array) -> str | None:
    """No fault: every real target is valid."""
    return None


@dataclass(frozen=True, eq=False)
class Loss:
    r"""A loss of one prediction f at a target y, convex and twice differentiable in f.

    A custom loss is an instance of this class, or is derived by ``fs.losses.from_formula`` from one
    expression.

    Attributes
    ----------
    name : str
    formula : str
        The loss in ``f`` and ``y``, in the syntax of :func:`flowsim.losses.from_formula`.
    value, slope, curvature : callable (f, y) -> array
        The loss and its first and second derivative in f, elementwise; infinite, not NaN, where they leave the range
        of floats. The curvature is never negative.
    recession : callable y -> (lower, upper)
        Limits of the slope as f -> -inf and f -> +inf, per target: along a direction in which no term of the loss grows
        the minimum need not be attained.
    infimum : callable y -> array
        ``inf_f loss(f, y)`` per target.
    log_value : callable (f, y) -> array, optional
        ``ln loss``, also where the loss underflows or overflows. Default: the logarithm of `value`.
    conjugate : callable (s, y) -> array, optional
        ``sup_f s f - loss(f, y)``, infinite outside its domain.
    fault : callable y -> str or None
        The reason why an array of targets is invalid, or None.
    kernel : callable () -> Kernel, optional
        Returns the compiled derivatives ``void(float64[::1] f, float64[::1] y, float64[::1] w, float64[::1] d1,
        float64[::1] d2)``: d1 and d2 contain the sample weight w and no factor 1/n.
    margin_logs : callable m -> (array, array, array), optional
        For a decreasing function of the margin ``m = y f`` alone, y = -1 or +1, that tends to 0 like ``exp(-m)``:
        logarithms of the loss, of minus its slope and of its curvature in m.
    safe_prediction : float
        Predictions up to this size have a loss that does not overflow.
    """

    name: str
    formula: str
    value: Elementwise
    slope: Elementwise
    curvature: Elementwise
    recession: Callable[[Array], tuple[Array, Array]]
    infimum: Callable[[Array], Array]
    log_value: Elementwise | None = None
    conjugate: Elementwise | None = None
    fault: Callable[[Array], str | None] = no_fault
    kernel: Callable[[], Kernel] | None = None
    margin_logs: Callable[[Array], tuple[Array, Array, Array]] | None = None
    safe_prediction: float = _SAFE_SQUARE

    @property
    def is_margin(self) -> bool:
        """Whether the loss is a decreasing function of the margin that tends to 0."""
        return self.margin_logs is not None

    def flat(self, y: Array) -> Array:
        """+1 (-1) where the loss falls to an infimum as f goes to +inf (-inf), 0 where it does not; per target."""
        lower, upper = self.recession(y)
        return np.where(upper == 0, 1.0, np.where(lower == 0, -1.0, 0.0))

    def log(self, f: ArrayLike, y: ArrayLike) -> Array:
        """``ln loss(f, y)``, -inf where the loss is 0, NaN where it is negative."""
        f, y = np.asarray(f, dtype=float), np.asarray(y, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.log(self.value(f, y)) if self.log_value is None else self.log_value(f, y)

    def __reduce__(self) -> Any:
        # The named losses are singletons, also in another process.
        if LOSSES.get(self.name) is self:
            return as_loss, (self.name,)
        return type(self), tuple(getattr(self, each.name) for each in fields(self))

    def __repr__(self) -> str:
        return f"Loss({self.name!r})"


def as_loss(loss: str | Loss) -> Loss:
    """A loss by its name, or itself.

    Raises ValueError for an unknown name.
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(
            f"`loss` must be one of {', '.join(LOSSES)}, or an fs.losses.Loss; received {loss!r}. "
            "fs.losses.from_formula makes one from an expression in f and y."
        )
    return LOSSES[loss]


def _compiled(name: str) -> Callable[[], Kernel]:
    def load() -> Kernel:
        from flowsim.problem import loss_kernels

        return getattr(loss_kernels, name)

    return load


def _zero(y: Array) -> Array:
    return np.zeros_like(y)


def _labels(y: Array) -> str | None:
    found = np.unique(y)
    if np.isin(found, (-1.0, 1.0)).all():
        return None
    hint = " (0/1 labels are 2*y - 1)" if np.isin(found, (0.0, 1.0)).all() else ""
    return f"labels -1 and +1{hint}; received {_shown(found[~np.isin(found, (-1.0, 1.0))])}"


def _counts(y: Array) -> str | None:
    return f"counts >= 0; received {_shown(np.unique(y[y < 0]))}" if (y < 0).any() else None


def _shown(values: Array) -> str:
    return ", ".join(f"{value:g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")


def _lipschitz(y: Array) -> tuple[Array, Array]:
    return -np.ones_like(y), np.ones_like(y)


def _sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))`` with full relative accuracy on both sides."""
    tail = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, tail) / (1.0 + tail)


def _entropy(u: Array) -> Array:
    """``u ln u``, 0 at 0, infinite below."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(u > 0, u * np.log(np.where(u > 0, u, 1.0)), np.where(u == 0, 0.0, np.inf))


SQUARED = Loss(
    name="squared",
    formula="(f - y)**2/2",
    value=lambda f, y: (f - y) ** 2 / 2,
    slope=lambda f, y: f - y,
    curvature=lambda f, y: np.ones_like(f - y),
    log_value=lambda f, y: 2 * np.log(np.abs(f - y)) - np.log(2.0),
    recession=lambda y: (np.full_like(y, -np.inf), np.full_like(y, np.inf)),
    infimum=_zero,
    conjugate=lambda s, y: s**2 / 2 + s * y,
    kernel=_compiled("squared"),
)


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def _log_softplus(x: Array) -> Array:
    """``ln ln(1 + exp(x))``: x itself far below 0."""
    near = np.maximum(x, -_FAR)
    return np.where(x < -_FAR, x, np.log(_softplus(near)))


def _logistic_logs(m: Array) -> tuple[Array, Array, Array]:
    slope = -_softplus(m)
    return _log_softplus(-m), slope, slope - _softplus(-m)


def _logistic_curvature(f: Array, y: Array) -> Array:
    tail = np.exp(-np.abs(y * f))
    return tail / (1.0 + tail) ** 2


LOGISTIC = Loss(
    name="logistic",
    formula="log(1 + exp(-y*f))",
    value=lambda f, y: _softplus(-y * f),
    slope=lambda f, y: -y * _sigmoid(-y * f),
    curvature=_logistic_curvature,
    log_value=lambda f, y: _log_softplus(-y * f),
    recession=lambda y: (np.minimum(-y, 0.0), np.maximum(-y, 0.0)),
    infimum=_zero,
    conjugate=lambda s, y: _entropy(-s * y) + _entropy(1.0 + s * y),
    fault=_labels,
    kernel=_compiled("logistic"),
    margin_logs=_logistic_logs,
)


def _exp(x: Array) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(x)


EXPONENTIAL = Loss(
    name="exponential",
    formula="exp(-y*f)",
    value=lambda f, y: _exp(-y * f),
    slope=lambda f, y: -y * _exp(-y * f),
    curvature=lambda f, y: y**2 * _exp(-y * f),
    log_value=lambda f, y: -y * f,
    recession=lambda y: (np.where(y > 0, -np.inf, 0.0), np.where(y > 0, 0.0, np.inf)),
    infimum=_zero,
    conjugate=lambda s, y: _entropy(-s * y) + s * y,
    fault=_labels,
    kernel=_compiled("exponential"),
    margin_logs=lambda m: (-m, -m, -m),
    safe_prediction=_SAFE_EXPONENT,
)


def _log_cosh(f: Array, y: Array) -> Array:
    r = np.abs(f - y)
    # cosh r - 1 = 2 sinh(r/2)^2 is accurate for a small loss.
    small = np.log1p(2.0 * np.sinh(np.minimum(r, 1.0) / 2) ** 2)
    return np.where(r < 1.0, small, r + np.log1p(np.exp(-2.0 * r)) - np.log(2.0))


def _log_of_small_square(r: Array, value: Array) -> Array:
    """``ln value`` for a value that is r^2/2 near 0."""
    return np.where(np.abs(r) < _TINY, 2 * np.log(np.abs(r)) - np.log(2.0), np.log(value))


def _log_cosh_curvature(f: Array, y: Array) -> Array:
    tail = np.exp(-2.0 * np.abs(f - y))
    return 4.0 * tail / (1.0 + tail) ** 2


LOG_COSH = Loss(
    name="log-cosh",
    formula="log(cosh(f - y))",
    value=_log_cosh,
    slope=lambda f, y: np.tanh(f - y),
    curvature=_log_cosh_curvature,
    log_value=lambda f, y: _log_of_small_square(f - y, _log_cosh(f, y)),
    recession=_lipschitz,
    infimum=_zero,
    conjugate=lambda s, y: s * y + (_entropy(1.0 + s) + _entropy(1.0 - s)) / 2,
    kernel=_compiled("log_cosh"),
)


def _pseudo_huber(f: Array, y: Array) -> Array:
    r = np.abs(f - y)
    # r^2 / (1 + sqrt(1 + r^2)) without squaring a large r.
    return r * (r / (1.0 + np.hypot(1.0, r)))


def _pseudo_huber_conjugate(s: Array, y: Array) -> Array:
    inside = np.abs(s) <= 1
    return np.where(inside, s * y + 1.0 - np.sqrt(np.where(inside, (1.0 - s) * (1.0 + s), 0.0)), np.inf)


PSEUDO_HUBER = Loss(
    name="pseudo-huber",
    formula="sqrt(1 + (f - y)**2) - 1",
    value=_pseudo_huber,
    slope=lambda f, y: (f - y) / np.hypot(1.0, f - y),
    curvature=lambda f, y: (1.0 / np.hypot(1.0, f - y)) ** 3,
    log_value=lambda f, y: _log_of_small_square(f - y, _pseudo_huber(f, y)),
    recession=_lipschitz,
    infimum=_zero,
    conjugate=_pseudo_huber_conjugate,
    kernel=_compiled("pseudo_huber"),
)


POISSON = Loss(
    name="poisson",
    formula="exp(f) - y*f",
    value=lambda f, y: _exp(f) - y * f,
    slope=lambda f, y: _exp(f) - y,
    curvature=lambda f, y: _exp(f + 0.0 * y),
    recession=lambda y: (-y, np.full_like(y, np.inf)),
    infimum=lambda y: y - _entropy(y),
    conjugate=lambda s, y: _entropy(s + y) - (s + y),
    fault=_counts,
    kernel=_compiled("poisson"),
    safe_prediction=_SAFE_EXPONENT,
)

#: The built-in losses by name.
LOSSES: dict[str, Loss] = {
    each.name: each for each in (SQUARED, LOGISTIC, EXPONENTIAL, LOG_COSH, PSEUDO_HUBER, POISSON)
}
