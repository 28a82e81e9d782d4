"""The global error of a run, estimated by its distance to a companion run at a tighter tolerance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flowsim.arrays import Array

#: The companion's tolerance relative to the run's: its own error is a small part of the difference.
TIGHTER = 50.0
#: The companion's step budget relative to the run's.
COMPANION_STEPS = 4
_MARGIN = 1.5
#: Common error of run and companion, as a part of the tolerance: for SciPy's methods, and where the companion took no
#: more steps; as a part of the least tolerance that SciPy's methods have.
_COMMON, _ALIKE, _LEAST = 0.02, 0.9, 0.25
#: That of the native method: within half of the companion's local tolerance, a third of its tolerance, both project
#: stiff modes onto the same states, and leave out the same effects of waiting coordinates.
_LEFT_OUT = 1 / 2 / 3 / TIGHTER
#: Below this tolerance errors are rounding: the companion is looser, since no tighter run is more accurate.
_TIGHTEST = 5e-11
#: Points per step at which the runs are compared, and points over which the difference is maximised: two steps either
#: way.
_INSIDE = np.array([0.0, 0.12, 0.3, 0.5, 0.7, 0.88])
_NEARBY = 4 * len(_INSIDE) + 1
_ROUNDINGS = 8 * np.finfo(float).eps


def companions(rtol: float, least: float = 0.0) -> tuple[float, ...]:
    """Factors of the tolerance of the companion, looser than the least that has an effect, in order of preference."""
    if least > rtol:
        return (TIGHTER * least / rtol,)
    return (TIGHTER**-1, TIGHTER, TIGHTER**2) if rtol >= _TIGHTEST else (TIGHTER, TIGHTER**2)


def in_common(method: str, steps: int, of_companion: int, rtol: float, least: float = 0.0) -> float:
    """Common error of a run and its companion from their numbers of steps, tolerance and least tolerance."""
    share = _ALIKE if of_companion <= steps else _COMMON if method != "native" else _LEFT_OUT
    return share * rtol + (_LEAST * least if least <= rtol else 0.0)


def error_estimate(
    steps: Array, t: Array, beta: Array, run: Callable[[Array], Array], companion: Callable[[Array], Array]
) -> Array:
    """Estimated error of beta at times `t`, in the largest-entry norm.

    An error that changes sign is small there by chance: the estimate is its maximum over nearby steps, with a margin.
    `steps` (S,): ends of the run's steps; `t`, `beta` (T,), (T, ...): the reported points; `run`, `companion`: beta at
    times (K,), shape (K, ...).
    """
    from scipy.ndimage import maximum_filter1d

    # The continuous extension has no error control of its own: runs are compared inside steps and at reported times.
    inside = steps[:-1, None] + np.diff(steps)[:, None] * _INSIDE
    times = np.append(inside.ravel(), steps[-1])
    one, other = (side(times).reshape(len(times), -1) for side in (run, companion))
    nearby = maximum_filter1d(np.abs(one - other).max(axis=1), _NEARBY)
    own = np.abs(beta - companion(t)).reshape(len(t), -1).max(axis=1)
    after = np.clip(np.searchsorted(times, t), 1, len(times) - 1)
    size = np.abs(beta).reshape(len(t), -1).max(axis=1)
    # Tiny coefficients are exponentials of large numbers, whose rounding is their relative error.
    folds = 1.0 + np.abs(np.log(size, out=np.zeros(len(t)), where=size > 0))
    estimate: Array = _MARGIN * np.maximum(np.maximum(nearby[after - 1], nearby[after]), own)
    return estimate + _ROUNDINGS * folds * size


def unmoved(velocity: Array, t: Array, moved: Array, beta: Array, rtol: float) -> Array:
    """The error of a run that has not moved: motion below its tolerance, which its companion does not resolve either.

    `velocity` (d,): ``d beta/dt`` at the start; `t`, `moved`, `beta` (T,), (T, d), (T, d): times in the same unit, the
    distance of beta from its start, and beta.
    """
    size = np.abs(beta).max(axis=1)
    due = np.minimum(t * np.abs(velocity).max(), rtol * size)
    return np.where(np.abs(moved).max(axis=1) <= _ROUNDINGS * size, due, 0.0)
