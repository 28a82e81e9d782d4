r"""Starts with several scales: logarithms per weight and coordinate, and pretrained weights.

A start is a sum of terms, ``theta(0) = W_0 + alpha W_1``: pretrained weights, and the direction that alpha multiplies.
Each component ``c_k = q_k . theta`` of the sum is computed exactly where terms cancel, and kept as a sign and a
logarithm. With ``u v = beta_0`` and ``u^2 - v^2 = 2 mu``, for instance,

.. math:: (u + v)^2 = 2 \sqrt{\beta_0^2 + \mu^2} + 2 \beta_0, \qquad u - v = \frac{2\mu}{u + v},

is an ordinary number at mu = 1e-1000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsim.arrays import Array, log_abs
from flowsim.network.networks import DiagonalNetwork, GivenWeights
from flowsim.network.quadratic import ZERO
from flowsim.network.scale import InitialScale
from flowsim.plain_numbers import reals

#: Ratio of weights beyond which they do not fit the range of floats together.
_SPREAD = 690.0
#: Relative difference below which pretrained weights tie, and differ by alpha times the start alone.
_TIE = 1e-8


@dataclass(frozen=True, eq=False)
class Logs:
    """Weights as signs and logarithms of their moduli, of any size: ``sign * exp(log_abs)``.

    Attributes
    ----------
    sign : number or array (d,)
        -1, 0 or 1.
    log_abs : number or array (d,)
        Finite where the sign is not 0.

    Examples
    --------
    >>> import flowsim as fs
    >>> start = {"u": fs.Logs(1, [0.0, -1e6]), "v": fs.Logs(0, 0.0)}
    >>> traj = fs.gradient_flow(fs.DiagonalNetwork("u*v"), fs.Regression([[1.0, 2.0]], [1.0]), 5.0, start=start)
    >>> traj.log_abs_weights["u"][0]
    array([       0., -1000000.])
    """

    sign: ArrayLike
    log_abs: ArrayLike

    def arrays(self, name: str, d: int) -> tuple[Array, Array]:
        """Both as arrays (d,); ValueError for other shapes, signs or NaN."""
        sign, log = reals(f"{name}.sign", self.sign), reals(f"{name}.log_abs", self.log_abs)
        for part, values in (("sign", sign), ("log_abs", log)):
            if values.shape not in ((), (d,)):
                raise ValueError(f"`{name}.{part}` must be a number or have shape ({d},); received {values.shape}.")
        sign, log = np.broadcast_to(sign, (d,)), np.broadcast_to(log, (d,))
        if not np.isin(sign, (-1.0, 0.0, 1.0)).all():
            raise ValueError(f"`{name}.sign` must hold -1, 0 and 1; received {sign[~np.isin(sign, (-1, 0, 1))][0]:g}.")
        bad = (sign != 0) & ~np.isfinite(log)
        if bad.any():
            raise ValueError(f"`{name}.log_abs` must be finite; received {log[bad][0]}.")
        return sign, np.where(sign == 0, -np.inf, log)


@dataclass(frozen=True, eq=False)
class Start:
    """A start as a sum of terms: signs and logarithms (k, d) of the weights of each."""

    parts: tuple[tuple[Array, Array], ...]

    @property
    def shape(self) -> tuple[int, int]:
        k, d = self.parts[0][0].shape
        return k, d

    @property
    def plain(self) -> Array:
        """The weights (k, d), 0 or infinite where they are no floats."""
        with np.errstate(over="ignore", under="ignore"):
            return np.sum([sign * np.exp(log) for sign, log in self.parts], axis=0)

    def among(self, keep: NDArray[Any]) -> Start:
        """Of some coordinates."""
        return Start(tuple((sign[:, keep], log[:, keep]) for sign, log in self.parts))

    def components(self, vectors: Array) -> tuple[Array, Array]:
        """Signs and logarithms (k, d) of ``vectors^T theta``; sums that cancel exactly are exactly zero."""
        is_whole = (vectors == np.round(vectors)).all()
        sign, log = _sum_logs([_project(vectors, *part, 0.0 if is_whole else ZERO) for part in self.parts])
        return sign, log

    def collapsed(self) -> tuple[InitialScale, Array]:
        """One scale and a direction (k, d) in floats.

        Raises ValueError if no scale brings all weights into the range of floats, or alpha times the start is lost
        beside pretrained weights that tie.
        """
        sign, log = _sum_logs(list(self.parts))
        top = float(log.max())
        if ((sign != 0) & (log < top - _SPREAD)).any():
            raise ValueError(
                "`start` spreads weights over more than the range of floats: only quadratic formulas can start so."
            )
        if len(self.parts) > 1:
            kept, added = self.parts[0][1], self.parts[1][1]
            fixed = np.sort(kept, axis=0)
            with np.errstate(invalid="ignore"):
                near = np.isfinite(fixed[:-1]) & (fixed[1:] - fixed[:-1] < _TIE)
            lost = np.isfinite(added) & np.isfinite(kept) & (added < kept + math.log(_TIE))
            if (near.any(axis=0) & lost.any(axis=0)).any():
                raise ValueError(
                    "`pretrained` weights of equal modulus differ only in what `alpha` adds to them, which floats lose "
                    "for formulas that are not quadratic; use a larger `alpha`."
                )
        with np.errstate(under="ignore"):
            return InitialScale(f"exp({top:.17g})", top), sign * np.exp(log - top)


def read_start(
    net: DiagonalNetwork,
    start: Mapping[str, Any] | None,
    pretrained: GivenWeights | None,
    scale: InitialScale,
    d: int,
) -> Start | None:
    """The start of a flow if one scale and a direction in floats do not describe it, else None."""
    given = start.items() if isinstance(start, Mapping) else ()
    logs = {name: value for name, value in given if isinstance(value, Logs)}
    if pretrained is None and not logs:
        return None
    parts = []
    if pretrained is not None:
        values = net.direction(pretrained, d, name="pretrained")
        parts.append((np.sign(values), log_abs(values)))
    values = np.array(net.direction({**dict(given), **dict.fromkeys(logs, 0.0)} if logs else start, d))
    sign, log = np.sign(values), log_abs(values)
    for name, value in logs.items():
        row = net.weights.index(name)
        sign[row], log[row] = value.arrays(f"start[{name!r}]", d)
    parts.append((sign, log + scale.log))
    if not any(sign.any() for sign, _ in parts):
        raise ValueError("`start` must not be zero everywhere: the origin is a saddle that a flow never leaves.")
    return Start(tuple(parts))


def resolve_alpha(alpha: Any, start: object) -> InitialScale:
    """The scale of a run: 1 where a start is given without one, else 1e-3.

    Raises ValueError if alpha is given with a state, which has its own scale.
    """
    if alpha is not None and hasattr(start, "log_abs_weights"):
        raise ValueError("`alpha` must be left out where `start` is a state, which it would not multiply.")
    if alpha is None:
        alpha = 1e-3 if start is None else 1.0
    return InitialScale.parse(alpha)


def _project(vectors: Array, sign: Array, log: Array, zero: float) -> tuple[Array, Array]:
    """``vectors^T w`` of weights (k, d)."""
    peak = log.max(axis=0)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(under="ignore", divide="ignore"):
        scaled = sign * np.exp(log - peak)
        out, size = vectors.T @ scaled, np.abs(vectors.T) @ np.abs(scaled)
        # Where the terms of a row are far below the largest of all their sum may underflow: scale each row by its own.
        out[np.abs(out) <= zero * size] = 0.0
        logs = np.log(np.abs(out)) + peak
    alone = out == 0
    if alone.any():
        sign_of, log_of = _by_rows(vectors, sign, log, zero)
        out, logs = np.where(alone, sign_of, out), np.where(alone, log_of, logs)
    return np.sign(out), logs


def _by_rows(vectors: Array, sign: Array, log: Array, zero: float) -> tuple[Array, Array]:
    """The same, with every component scaled by its own largest term."""
    terms = log_abs(vectors.T)[:, :, None] + log[None]
    peak = terms.max(axis=1)
    finite = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(under="ignore", divide="ignore"):
        scaled = np.sign(vectors.T)[:, :, None] * sign[None] * np.exp(terms - finite[:, None])
        total = scaled.sum(axis=1)
        total[np.abs(total) <= zero * np.abs(scaled).sum(axis=1)] = 0.0
        return np.sign(total), np.where(total == 0, -np.inf, np.log(np.abs(total)) + finite)


def _sum_logs(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Signs and logarithms of a sum of numbers given by signs and logarithms."""
    sign, log = parts[0]
    for other_sign, other_log in parts[1:]:
        peak = np.maximum(log, other_log)
        finite = np.where(np.isfinite(peak), peak, 0.0)
        with np.errstate(under="ignore", divide="ignore"):
            total = sign * np.exp(log - finite) + other_sign * np.exp(other_log - finite)
            sign, log = np.sign(total), np.log(np.abs(total)) + finite
    return sign, log
