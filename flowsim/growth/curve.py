r"""The curve along which the weights of one coordinate move, whatever the data.

.. math:: \frac{d\theta}{dz} = \nabla\phi(\theta), \qquad \theta(0) = \alpha\,\theta^*, \qquad
          B(z) = \phi(\theta(z)), \quad B' = |\nabla\phi|^2 \ge 0 .

Near the origin the components along eigenvectors of ``H = Hess phi(0)`` grow as ``c_k e^{mu_k z}``: there the curve is
known in closed form, and alpha enters through ``ln c_k`` alone. It is tabulated from where the neglected terms are
below rounding. A component that is zero at the start may be created by higher orders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowsim.arrays import Array, log_abs
from flowsim.growth.chebyshev import COEFFICIENTS, INTEGRAL, NODES, is_resolved, picard
from flowsim.growth.formula_origin import Gradient, created_components, kernels_of, origin_of, value_at
from flowsim.network import Formula

#: Change of the exponent of the fastest component over one piece.
_FOLDS = 4.0
#: Pieces grow by this factor where they are easily resolved, and curves end where weights are as large as this.
_LONGER, _LARGEST = 1.6, 1e12
#: Coefficients beyond this, or beyond what a caller names, are not tabulated.
_FARTHEST = 1e30
_SHORTEST = 1e-12
#: A curve has reached a critical point where its remaining change is below this part of the weights ...
_RESTS = 1e-18
#: ... unless a direction of positive curvature, above this part of the largest, leads on.
_UNSTABLE = 1e-6
#: Rounding of B'; how far directions of rate zero may have moved; when the series is left, and used again.
_ROUNDING, _DRIFTS, _BEYOND, _RETURNS = 1e-15, 1e-15, 4.0, 0.25
#: Pieces that a predictor may use beyond the state it starts from.
_LOOK_AHEAD = 100


@dataclass(frozen=True, eq=False)
class Piece:
    """The curve on an interval of z."""

    low: float
    high: float
    #: (k, N + 1), (N + 1,), (N + 1,), Chebyshev coefficients of the weights, of B and of B'; or None where the closed
    #: form holds
    weights: Array | None
    beta: Array | None
    slope: Array | None
    #: (k,), ``c_k = sign_k exp(log_k + mu_k z)`` of the closed form
    log_c: Array
    sign_c: Array


class Side:
    """The curve to one side of its start, extended on demand.

    Attributes
    ----------
    sign : float
        +1 where z, and beta, increase.
    pieces : list of Piece, outwards
    end : float
        Where they end now.
    ended : str
        Why they end there: "" (they can be extended), "far" (weights are out of range), "rest" (a critical point of
        the formula), "saddle" (one that the curve would leave again), "undefined" (the formula is no longer smooth).
    beta, slope : float
        B and B' at the end.
    allowed : int
        Largest number of pieces.
    """

    def __init__(self, curve: Curve, sign: float) -> None:
        self.curve, self.sign = curve, sign
        self.pieces: list[Piece] = []
        self.ended, self.end, self.slope = "", curve.begin, 0.0
        self.allowed = _LOOK_AHEAD
        origin = curve.origin
        # The state at the end: logarithms of the components, components, or weights.
        self._logs: tuple[Array, Array] | None = None
        self._c: Array | None = None
        self._theta = math.exp(curve.log_alpha) * curve.direction
        if origin.order == 2:
            logs, signs = self._with_created()
            if logs[signs != 0].max(initial=-math.inf) <= math.log(origin.linear):
                self._logs = logs - origin.rate * curve.begin, signs
            elif np.abs(self._theta).max() <= 0.5 * origin.small:
                self._c = math.exp(curve.log_alpha) * curve.c
        self.beta = value_at(curve.formula, self._theta)
        self._h = self._first_step()

    def stand(self) -> None:
        """Make this the curve of constant weights."""
        logs = self.curve.log_alpha + log_abs(self.curve.direction)
        self.end, self.ended = self.sign * math.inf, "rest"
        low, high = min(0.0, self.end), max(0.0, self.end)
        self.pieces = [Piece(low, high, None, None, None, logs, np.sign(self.curve.direction))]

    def _with_created(self) -> tuple[Array, Array]:
        """Logarithms and signs of the components at z = 0, with growing ones that higher orders create."""
        degree, value = created_components(self.curve.origin, self.curve.c, self.sign)
        logs = degree * self.curve.log_alpha + log_abs(value)
        return np.asarray(logs, dtype=np.float64), np.asarray(np.sign(value), dtype=np.float64)

    def _first_step(self) -> float:
        if self._logs is not None or self._c is not None:
            return _FOLDS / float(np.abs(self.curve.origin.rate).max())
        gradient = self.curve.gradient(self._theta[:, None])[:, 0]
        speed, size = float(np.linalg.norm(gradient)), float(np.linalg.norm(self._theta))
        # A non-integer power has no scale other than that of the weights.
        least = 1e-3 if self.curve.origin.order or size == 0 else 0.0
        return max(size, least) / speed if speed > 0 else 1.0

    def growth(self, level: float) -> tuple[float, float] | None:
        """z at which the linear flow takes ``|B - phi(0)|`` to a level, and the rate of its weights; None if never."""
        origin = self.curve.origin
        if origin.order != 2:
            return None
        log_c, sign_c = self._with_created()
        growing = (self.sign * origin.rate > 0) & (sign_c != 0)
        if not growing.any():
            return None
        rate = np.abs(origin.rate[growing])
        waits = (0.5 * np.log(2 * level / (rate * origin.metric[growing])) - log_c[growing]) / rate
        first = int(waits.argmin())
        return self.sign * float(waits[first]), float(rate[first])

    def extend(self) -> None:
        """One more piece."""
        with np.errstate(all="ignore"):
            if self._logs is not None:
                self._closed_piece(*self._logs)
                return
            found = self._small_piece() if self._c is not None else self._piece()
        if found is None:
            self.ended = "undefined"
            return
        theta, beta, h = found
        begin = 0.0 if self.curve.restarts else self.end
        if begin + self.sign * h == begin:
            self.ended = "rest"  # its next change lies beyond the range of z
            return
        slope = (self.curve.gradient(theta) ** 2).sum(axis=0)
        if beta is None:
            beta = self.beta + self.sign * 0.5 * h * (INTEGRAL @ slope)
        if not np.isfinite(beta).all():
            self.ended = "far"
            return
        fell = slope[-1] <= slope[0]
        self.beta, self.slope = float(beta[-1]), float(slope[-1])
        self.end = begin + self.sign * h
        low, high = min(begin, self.end), max(begin, self.end)
        if self.sign < 0:
            theta, slope, beta = theta[:, ::-1], slope[::-1], beta[::-1]
        nothing = np.zeros(len(theta))
        self.pieces.append(
            Piece(low, high, theta @ COEFFICIENTS.T, COEFFICIENTS @ beta, COEFFICIENTS @ slope, nothing, nothing)
        )
        if np.abs(theta).max() > _LARGEST or abs(self.beta) > self.curve.farthest:
            self.ended = "far"
        elif self._c is None and fell and self.slope * max(h, 1.0) <= _RESTS * abs(self.beta - self.curve.constant):
            self.ended = "saddle" if self.slope > 0 and self._is_saddle() else "rest"

    def _is_saddle(self) -> bool:
        """Whether some direction that the curve has leads on from the critical point."""
        curve = self.curve
        hessian = curve.projection @ curve.hessian(self._theta) @ curve.projection
        return bool(np.linalg.eigvalsh(self.sign * hessian)[-1] > _UNSTABLE * np.abs(hessian).max())

    def _closed_piece(self, log_c: Array, sign_c: Array) -> None:
        """Add a piece in closed form, as far as the neglected terms are below rounding."""
        origin = self.curve.origin
        size = log_c + origin.rate * self.end
        growing = (self.sign * origin.rate > 0) & (sign_c != 0)
        length = math.inf
        if growing.any() and math.isfinite(origin.linear):
            waits = (math.log(origin.linear) - size[growing]) / np.abs(origin.rate[growing])
            length = float(waits.min())
        still = (origin.rate == 0) & (sign_c != 0)
        if still.any() and math.isfinite(origin.linear):
            # Directions of rate zero move at higher order.
            length = min(length, _DRIFTS * math.exp(min(700.0, -float(size[still].max()))))
        if growing.any():
            rate = np.abs(origin.rate[growing])
            away = (0.5 * np.log(2 * self.curve.farthest / (rate * origin.metric[growing])) - size[growing]) / rate
            if away.min() < length:
                length, self.ended = max(float(away.min()), 0.0), "far"
        begin, self.end = self.end, self.end + self.sign * length
        if self.ended:
            self.beta = self.curve.constant + self.sign * self.curve.farthest
        low, high = min(begin, self.end), max(begin, self.end)
        self.pieces.append(Piece(low, high, None, None, None, log_c, sign_c))
        if math.isfinite(length):
            self._logs, self._c = None, sign_c * np.exp(log_c + origin.rate * self.end)

    def _small_piece(self) -> tuple[Array, Array | None, float] | None:
        """A piece by the series, while it is exact: components with exponentials as integrating factors."""
        assert self._c is not None
        origin, first, h = self.curve.origin, self._c, self._h
        rate = self.sign * origin.rate[:, None]
        while True:
            grown = np.exp(rate * (0.5 * h * (NODES + 1.0)))

            def drive(y: Array, grown: Array = grown) -> Array:
                c = grown * y
                return self.sign * np.array([part(c) for part in origin.drive]) / grown

            y = picard(drive, first, 0.5 * h)
            if y is not None:
                c = grown * y
                theta = origin.basis @ c
                if is_resolved(theta) and np.abs(c[:, -1]).max() <= _BEYOND * origin.small:
                    break
            h /= 2
            if h < self._h / 1024:
                # The series ends here: continue with the formula itself.
                self._theta, self._c = origin.basis @ first, None
                self._h = self._first_step()
                return self._piece()
        last = c[:, -1]
        self._c = last
        size = float(np.abs(last).max())
        if size > origin.small:
            self._theta, self._c, self._h = theta[:, -1], None, h
        elif size <= origin.linear and not ((self.sign * origin.rate > 0) & (last != 0)).any():
            self._logs = log_abs(last) - origin.rate * (self.end + self.sign * h), np.sign(last)
        return theta, self.curve.constant + origin.value(c), h

    def _piece(self) -> tuple[Array, Array | None, float] | None:
        """A piece by the formula's own gradient."""
        curve, h = self.curve, self._h
        least = _SHORTEST * max(abs(self.end), h)
        # Rounding of a gradient whose terms, of the size of Hess phi theta, cancel.
        rounding = _ROUNDING * float((np.abs(curve.hessian(self._theta)) @ np.abs(self._theta)).max())
        while True:
            theta = picard(lambda y: self.sign * curve.gradient(y), self._theta, 0.5 * h)
            if theta is not None and is_resolved(theta):
                slope = (curve.gradient(theta) ** 2).sum(axis=0)
                noise = rounding * math.sqrt(float(slope.max()))
                if is_resolved(slope[None], max(_ROUNDING * abs(self.beta - curve.constant) / h, noise)):
                    break
            h /= 2
            if h < least:
                return None
        self._theta = theta[:, -1]
        self._h = h if h < self._h else _LONGER * h
        origin = curve.origin
        if origin.order == 2 and np.abs(self._theta).max() < _RETURNS * origin.small:
            self._c = origin.components(self._theta)
            self._h = _FOLDS / float(np.abs(origin.rate).max())
        return theta, None, h


class Curve:
    """The curve of one formula from ``alpha * direction``, both ways.

    Parameters
    ----------
    direction : array (k,)
        In the order of the formula's weights.
    farthest : float
        Coefficients beyond this are not tabulated.
    begin : float
        z at the start.
    restarts : bool
        Every piece counts z from its own start: for use of B' as a function of B, at any distance.
    """

    def __init__(
        self,
        formula: Formula,
        direction: Array,
        log_alpha: float,
        farthest: float = _FARTHEST,
        begin: float = 0.0,
        restarts: bool = False,
    ) -> None:
        self.farthest, self.begin, self.restarts = farthest, begin, restarts
        self.formula, self.direction, self.log_alpha = formula, direction, log_alpha
        self.origin = origin_of(formula)
        self.c = self.origin.components(direction) if self.origin.order == 2 else np.zeros(len(direction))
        self.log_c = log_alpha + log_abs(self.c)
        self._gradient = Gradient(formula)
        self.projection = self._kept()
        self._is_projected = not (self.projection == np.eye(len(direction))).all()
        #: phi(0); of a standing curve B itself
        self.constant = value_at(formula, np.zeros(len(direction))) if self.origin.order else 0.0
        self.below, self.above = Side(self, -1.0), Side(self, 1.0)

    @property
    def extent(self) -> float:
        """Size of the coefficient at the start, also of terms that cancel: ``max(|B|, |theta| |phi'(theta)|)``."""
        theta = math.exp(self.log_alpha) * self.direction
        with np.errstate(all="ignore"):
            terms = np.linalg.norm(theta) * np.linalg.norm(self._gradient(theta[:, None]))
        return max(abs(self.above.beta), float(np.nan_to_num(terms, posinf=0.0)))

    def stand(self) -> None:
        """Make this the curve of constant weights, whose B is that of the start."""
        self.constant = float(self.above.beta)
        self.above.stand()
        self.below.stand()

    def _kept(self) -> Array:
        """Projection onto the components that the curve can ever have: a symmetric start stays symmetric."""
        k, origin = len(self.direction), self.origin
        if origin.order != 2:
            return np.eye(k)
        is_nonzero = self.c != 0
        for _ in range(k):
            for a in np.flatnonzero(~is_nonzero):
                is_nonzero[a] = bool((~(origin.drive[a].exponents > 0)[:, ~is_nonzero].any(axis=1)).any())
        if is_nonzero.all():
            return np.eye(k)
        basis = origin.basis[:, is_nonzero]
        return basis @ (basis / origin.metric[is_nonzero]).T

    def gradient(self, theta: Array) -> Array:
        """At columns (k, P), in the space the curve stays in."""
        gradient = self._gradient(theta)
        return self.projection @ gradient if self._is_projected else gradient

    def hessian(self, theta: Array) -> Array:
        k = len(theta)
        out = np.empty((k, k, 1))
        kernels_of(self.formula).hessian(np.ascontiguousarray(theta[:, None]), np.zeros(1, np.int64), out)
        return out[:, :, 0]

    def cover(self, low: float, high: float) -> None:
        """Extend the table to [low, high], as far as the curve exists and both sides may be extended."""
        for side, wanted in ((self.above, high), (self.below, -low)):
            while not side.ended and len(side.pieces) < side.allowed:
                if side.pieces and side.sign * side.end >= wanted:
                    break
                side.extend()

    def record_range(self, low: float, high: float) -> None:
        """Record that a flow has come to [low, high]: predictors may use a limited number of pieces beyond."""
        for side, reached in ((self.above, high), (self.below, -low)):
            ends = [piece.high if side.sign > 0 else -piece.low for piece in side.pieces]
            behind = sum(1 for end in ends if end < reached)
            side.allowed = max(side.allowed, behind + _LOOK_AHEAD)
