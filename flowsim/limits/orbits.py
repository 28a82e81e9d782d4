r"""Heteroclinic orbits: the path of the limit from one saddle to the next.

In unscaled time a jump is a trajectory of the network itself, from the unstable direction of one saddle to the
next. With active coordinates balanced (which growth from a vanishing start makes them)

.. math:: \beta_i' = c_i \, |\beta_i|^{2 - 2/L} \, ( -g_i - \kappa_i \, \mathrm{sign}\,\beta_i ),

``c_i = 2/t_i^+-`` for two-layer type (2 for ``u*v``), ``c_i = L`` for products of L weights. Coordinates of other
formulas have the factor ``|grad phi|^2`` on the curve along which they grew (:mod:`flowsim.growth.origin_curves`). The
arc length of an orbit makes the path continuous: the clock ``d tau = dt + |d beta|`` advances with accelerated time on
plateaus and with distance on orbits.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array, Bools, Integers, log_abs
from flowsim.errors import IntegrationError
from flowsim.growth.origin_curves import CurveResponse
from flowsim.limits.columns import Columns
from flowsim.limits.orbit import Orbit, SpentError, by_distance, integrated
from flowsim.limits.saddle_list import Saddles
from flowsim.limits.units import exponent_of
from flowsim.problem import Regression

#: Distance of an orbit's first point from its saddle, relative to the size of the jump; the first-order
#: expansion used there has an error of its square.
_DEPARTURE = 1e-6
#: Distance from the next saddle at which it is closed by a straight piece.
_ARRIVAL = 1e-9
_TOLERANCE = 1e-10
#: Largest distance of the integrated orbit's end from the next saddle.
_MISS = 1e-5
_DOUBLINGS = 80
#: Evaluations of the field per orbit at most; one that ends in a degenerate saddle converges too slowly.
_BUDGET = 60_000
#: Those LSODA may use: its error estimate does not filter rounding of a stiff force, Radau's does.
_UNFILTERED = 6_000
#: Curves are tabulated to this many times the saddles, for trial steps that overshoot.
_AHEAD = 10.0
#: Points kept per step of the integrator.
_REFINE = 4


def heteroclinic_orbit(path: Saddles, jump: int) -> Orbit:
    """Integrate the orbit of one jump.

    Raises ValueError if the growth of the network's coordinates along the orbit is not known.
    Raises IntegrationError if the orbit does not end at the next saddle.
    """
    if path.curves is not None and not path.curves.fresh:
        raise ValueError("orbits of a general formula are known from a vanishing start only, not from a later state.")
    before = dict(zip(path.supports[jump].tolist(), path.values[jump].tolist(), strict=True))
    after = dict(zip(path.supports[jump + 1].tolist(), path.values[jump + 1].tolist(), strict=True))
    coordinates = np.array(sorted(before.keys() | after.keys() | set(path.hits[jump].tolist())), dtype=np.int64)
    beta0 = np.array([before.get(i, 0.0) for i in coordinates.tolist()])
    beta1 = np.array([after.get(i, 0.0) for i in coordinates.tolist()])
    # Orbits of homogeneous formulas do not depend on the unit of beta.
    unit = exponent_of(np.append(beta0, beta1)) if path.curves is None else 0
    beta0, beta1 = np.ldexp(beta0, -unit), np.ldexp(beta1, -unit)
    field = _Field(path, coordinates, beta0, beta1, unit)
    size = float(np.linalg.norm(beta1 - beta0))
    start = field.departure(beta0, _DEPARTURE * size)
    points = _orbit_points(field, start, beta1, size, jump)
    return by_distance(field.velocity(points), jump, coordinates, beta0, beta1, points).times_power_of_two(unit)


class _Field:
    """The velocity of the coordinates that take part, with fixed signs, for beta in units of ``2^unit``."""

    def __init__(self, path: Saddles, coordinates: Integers, beta0: Array, beta1: Array, unit: int) -> None:
        problem = path.problem
        columns = np.column_stack([*map(Columns(problem).column, coordinates.tolist())])
        offset = problem.predict(np.broadcast_to(path.offset, (problem.d,))) if np.any(path.offset) else 0.0
        # A common factor of all forces is a change of the unit of time, on which orbits do not depend.
        self.problem = problem
        p = exponent_of(columns)
        self.columns = columns = np.ldexp(columns, -p)
        self.exponent = p + unit  #: predictions are 2 to this power times those of the scaled columns
        # The residual in an orthonormal basis of the columns: along directions in which nearly collinear columns cancel
        # the force keeps its relative precision, which moments minus Gram matrix times beta would lose.
        basis, root = np.linalg.qr(columns)
        self.root = root / np.sqrt(problem.n)
        self.aim = basis.T @ np.ldexp(problem.y - offset, -self.exponent) / np.sqrt(problem.n)
        self.order = path.order
        arriving = self.loss_force(beta0)
        self.sign = np.where(beta0 != 0, np.sign(beta0), np.where(beta1 != 0, np.sign(beta1), np.sign(arriving)))
        positive = self.sign > 0
        self.speed = np.where(positive, path.speeds[0][coordinates], path.speeds[1][coordinates])
        cost = np.where(positive, path.penalties[0][coordinates], path.penalties[1][coordinates])
        self.cost = np.ldexp(cost, -p - self.exponent if isinstance(problem, Regression) else -p)
        self.curves: CurveResponse | None = None
        if path.curves is not None:
            pairs = [path.curves.of(int(i), int(s)) for i, s in zip(coordinates, self.sign, strict=True)]
            size = _AHEAD * float(np.abs([beta0, beta1]).max())
            self.curves = CurveResponse(tuple(curve for curve, _ in pairs), farthest=size)
            self.speed = self.curves.speed
            logs = self.speed * np.array([shift for _, shift in pairs])
            self.memory = np.exp(logs)[None] * self.sign, (self.speed * self.sign)[None]
        else:
            if path.memory is None:
                raise ValueError("orbits are not known: the path is of a file that keeps no curves (older versions).")
            coefficients, rates = path.memory(coordinates)
            self.memory = np.ldexp(coefficients, -unit), rates
        # Both bounds at distance 0: pretrained, not balanced, both exponentials count.
        self.free = (path.thresholds[0][coordinates] == 0) & (path.thresholds[1][coordinates] == 0)
        if self.free.any() and (self.order > 2 or not np.isfinite(self.memory[0][:, self.free]).all()):
            raise ValueError("orbits from these pretrained weights have no closed form.")

    def loss_force(self, beta: Array) -> Array:
        """``-g``."""
        if isinstance(self.problem, Regression):
            return (self.aim - beta @ self.root.T) @ self.root
        return -self.problem.slopes(np.ldexp(beta @ self.columns.T, self.exponent)) @ self.columns / self.problem.n

    def gram(self, beta: Array) -> Array:
        """Hessian of the loss in the coordinates."""
        if isinstance(self.problem, Regression):
            return self.root.T @ self.root
        curvature = np.ldexp(self.problem.curvatures(np.ldexp(self.columns @ beta, self.exponent)), self.exponent)
        return (self.columns.T * curvature) @ self.columns / self.problem.n

    def force(self, beta: Array) -> Array:
        """``-g - kappa sign(beta)``, the force on the coordinates."""
        return self.loss_force(beta) - self.cost * self.sign

    def inertia(self, beta: Array) -> Array:
        """``d beta / d z``."""
        plain = self.speed * np.abs(beta) ** (2.0 - 2.0 / self.order)
        if self.curves is not None:
            return self.curves.inertia(np.abs(beta))
        if not self.free.any():
            return plain
        coefficients, rates = (table[:, self.free] for table in self.memory)
        plus, minus = coefficients * (rates > 0), -coefficients * (rates < 0)
        if (np.count_nonzero(plus, axis=0) > 1).any() or (np.count_nonzero(minus, axis=0) > 1).any():
            raise ValueError("orbits from these pretrained weights have no closed form.")
        # beta = A e^(az) - B e^(-bz): solved for z by the monotone root below, then differentiated.
        z = _invert(coefficients, rates, np.atleast_2d(beta)[:, self.free])
        slope = (coefficients * rates * np.exp(rates * z[:, None, :])).sum(axis=1)
        out = np.atleast_2d(plain).copy()
        out[:, self.free] = slope
        return out.reshape(plain.shape)

    def velocity(self, beta: Array) -> Array:
        return self.inertia(beta) * self.force(beta)

    def departure(self, beta0: Array, distance: float) -> Array:
        """A point of the unstable manifold at some distance from the saddle, to first order."""
        new = beta0 == 0
        powers = self.curves is None or all(curve.is_power_law for curve in self.curves.curves)
        if self.order > 2 and new.sum() > 1 and not powers:
            raise ValueError("coordinates that leave together depend on terms of higher order, which are not known.")
        force = np.maximum(self.force(beta0) * self.sign, 0.0)
        rates = self.speed * force
        top = rates[new].max(initial=0.0)
        if top == 0.0:
            raise ValueError("the saddle has no unstable direction; it is degenerate.")
        share = np.zeros(len(beta0))
        if self.order == 2:
            # Tied coordinates reach their bounds together: |beta_i| = C_i exp(rate_i t), the largest at the distance.
            heads, rising = self._head_start(beta0, new), rates[new] > 0
            first = float(((math.log(distance) - heads[rising]) / rates[new][rising]).min())
            share[new] = np.where(rising, np.exp(heads + rates[new] * first), 0.0)
        else:
            # w' = (c/L) f w^(L-1) backwards from infinity at a common time.
            rising, spread = rates[new] > 0, np.where(rates[new] > 0, rates[new] / top, 1.0)
            heads = np.where(rising, -self.order / (self.order - 2.0) * np.log(spread), -np.inf)
            share[new] = distance * np.exp(heads - heads.max())
        point = beta0 + share * self.sign
        old = ~new
        if old.any():
            D, gram = self.inertia(beta0)[old], self.gram(beta0)
            shift = np.zeros(old.sum())
            for j in np.flatnonzero(new & (share > 0)):
                growth = rates[j] if self.order == 2 else 0.0
                matrix = growth * np.eye(old.sum()) + D[:, None] * gram[np.ix_(old, old)]
                shift -= np.linalg.lstsq(matrix, D * gram[old, j] * share[j] * self.sign[j], rcond=None)[0]
            point[old] += shift
        return point

    def _head_start(self, beta0: Array, new: Bools) -> Array:
        """Logarithms of the prefactors of tied coordinates, from the start and from dependence on active columns."""
        if new.sum() < 2:
            return np.zeros(int(new.sum()))
        coefficients, rates = self.memory
        along = np.sign(rates) == self.sign
        logs = log_abs(np.abs(np.where(along, coefficients, 0.0)).sum(axis=0))
        if not np.isfinite(logs).all():
            return np.zeros(int(new.sum()))
        old = ~new
        height = np.log(np.abs(beta0[old]))
        if self.curves is not None:  # the position of each on its curve, in the units of its leading part
            places = np.flatnonzero(old)
            active = CurveResponse(tuple(self.curves.curves[k] for k in places))
            height = active.speed * active.dual(np.abs(beta0[old]))
        z_old = self.sign[old] * (height - logs[old]) / self.speed[old]
        nu = np.linalg.lstsq(self.columns[:, old].T, z_old, rcond=None)[0] if old.any() else np.zeros(len(self.columns))
        return logs[new] + self.speed[new] * self.sign[new] * (self.columns[:, new].T @ nu)


class _Unknowns:
    """Variables of an orbit: ``ln |beta|`` for order 2, ``|beta|^(1/L)`` beyond; beta itself where its sign is free."""

    def __init__(self, field: _Field) -> None:
        self.field, self.logs, self.power = field, field.order == 2, float(field.order)
        self.any_free = bool(field.free.any())
        self.evaluations, self.budget = 0, _UNFILTERED

    def of(self, beta: Array) -> Array:
        if not self.logs:
            return np.abs(beta) ** (1.0 / self.power)
        return np.where(self.field.free, beta, np.log(np.maximum(np.abs(beta), 1e-300)))

    def beta(self, state: Array) -> Array:
        sign = self.field.sign
        if self.logs:
            grown = sign * np.exp(np.minimum(state, 300.0))
            return np.where(self.field.free, state, grown) if self.any_free else grown
        return sign * np.maximum(state, 0.0) ** self.power

    def rate(self, _: float, state: Array) -> Array:
        self.evaluations += 1
        if self.evaluations > self.budget:
            raise SpentError
        field, sign, power = self.field, self.field.sign, self.power
        beta = self.beta(state)
        force = field.force(beta)
        plain = self._growth(beta) * sign * force * (1.0 if self.logs else state / power)
        return np.where(field.free, field.inertia(beta) * force, plain) if self.any_free else plain

    def _growth(self, beta: Array) -> Array:
        """``d ln|beta| / d z``, up to sign."""
        field, b = self.field, np.abs(beta)
        growth = field.speed * b ** (1.0 - 2.0 / self.power)
        return growth if field.curves is None else np.divide(field.inertia(beta), b, out=growth, where=b > 0)

    def jacobian(self, _: float, state: Array) -> Array:
        field, sign, power = self.field, self.field.sign, self.power
        beta = self.beta(state)
        b, growth = np.abs(beta), self._growth(beta)
        inner, outer = (b, growth) if self.logs else (power * b / np.maximum(state, 1e-300), growth * state / power)
        out = -(outer * sign)[:, None] * field.gram(beta) * (inner * sign)
        if not self.logs and field.curves is None:  # that of curves is neglected, which suffices for Newton's method
            out[np.diag_indices(len(b))] += (1.0 - 1.0 / power) * growth * sign * field.force(beta)
        return out


def _orbit_points(field: _Field, start: Array, end: Array, size: float, jump: int) -> Array:
    """Points of the orbit from near one saddle to near the next."""
    unknowns, method = _Unknowns(field), "LSODA"
    logs, power = unknowns.logs, unknowns.power
    state = unknowns.of(start)
    duration = 1.0 / max(float(np.abs(unknowns.rate(0.0, state)).max()), 1e-300)
    kept_points = [start[None]]
    for _ in range(_DOUBLINGS):
        found = integrated(
            unknowns.rate,
            duration,
            state,
            _REFINE,
            method=method,
            jac=None if unknowns.any_free else unknowns.jacobian,
            rtol=_TOLERANCE,
            atol=_TOLERANCE * (1.0 if logs else float(np.abs(end).max()) ** (1 / power)),
        )
        if found is None:
            if method == "Radau":
                break
            # LSODA can keep its explicit formulas at a stiff saddle that is left slowly.
            method, unknowns.evaluations, unknowns.budget = "Radau", 0, _BUDGET
            continue
        solution, states = found
        points = np.array([unknowns.beta(column) for column in states.T])
        kept_points.append(points)
        state, duration = solution.y[:, -1], 1.5 * duration
        if float(np.linalg.norm(points[-1] - end)) <= _ARRIVAL * size:
            return np.concatenate(kept_points)
    missed = float(np.linalg.norm(kept_points[-1][-1] - end)) / size
    if missed <= _MISS:
        return np.concatenate(kept_points)
    raise IntegrationError(
        f"the orbit of jump {jump} stops {missed:.1e} of its size away from the next saddle; tied coordinates may "
        "leave a saddle along several orbits."
    )


def _invert(coefficients: Array, rates: Array, beta: Array) -> Array:
    """z with ``sum_k coefficients exp(rates z) = beta``, by bisection on an increasing function."""
    low, high = np.full(beta.shape, -700.0), np.full(beta.shape, 700.0)
    low, high = low / np.abs(rates).max(), high / np.abs(rates).max()
    for _ in range(200):
        z = (low + high) / 2
        below = (coefficients * np.exp(rates * z[:, None, :])).sum(axis=1) < beta
        low, high = np.where(below, z, low), np.where(below, high, z)
    return (low + high) / 2
