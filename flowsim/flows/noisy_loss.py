r"""The expected-gradient flow of quadratic networks under Gaussian weight noise, with losses other than squares.

All weights are perturbed at once, so the prediction ``f_i = sum_j x_ij phi(w_j + xi_j)`` is not Gaussian and the
expected loss does not reduce to mean and variance. But an exponential of f is a product over coordinates, closed for
Gaussian quadratic forms: with modes c_k of phi (:mod:`flowsim.growth.modes`), ``mu_k`` its eigenvalues,

.. math:: E\, e^{s f_i} = \prod_{j,k} (1 - 2 s x_{ij} \mu_k \eta^2)^{-1/2}
          \exp \frac{s x_{ij} \mu_k |q_k|^{-2} c_{jk}^2}{1 - 2 s x_{ij} \mu_k \eta^2} =: \chi_i(s),

and slopes of losses are sums of exponentials (:mod:`flowsim.problem.exponential_sums`). So every mode has a relative
rate,

.. math:: \frac{d}{dt} \ln c_{jk}^2 = -4 \mu_k \Gamma_{jk}, \qquad
          \Gamma_{jk} = \frac1n \sum_i w_i x_{ij} \Big( b_i
          + \mathrm{Re} \sum_q \frac{a_{iq}\, \chi_i(s_{iq})}{1 - 2 s_{iq} x_{ij} \mu_k \eta^2} \Big),

and alpha enters through its logarithm alone. Without noise Gamma is the gradient. The exponential and the Poisson loss
are closed forms; their expectation is infinite from ``|x_ij| eta^2 = 1`` on (``u*v``). The logistic loss and log-cosh
are quadratures, exact to rounding.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array
from flowsim.errors import IntegrationError
from flowsim.flows.coordinates import SAFETY, Coordinates, Observed
from flowsim.growth.exponential import admits_growth
from flowsim.growth.modes import Modes
from flowsim.network import DiagonalNetwork, GaussianNoise, InitialScale, Start, decay_of
from flowsim.network.decay import jumps, rates
from flowsim.problem import Problem
from flowsim.problem.cancellation import CANCELS, is_lost, visible_part
from flowsim.problem.entries import dense
from flowsim.problem.exponential_sums import ExponentialSum, exponential_sum
from flowsim.solvers import InitialValueProblem

#: Coefficients that change a prediction by this part of 1 are visible; e-folds by which a step may carry one past that.
_VISIBLE, _OVERSHOOT = 1e-8, 3.0
#: exp is continued linearly above the first; exponents of expectations are clipped at the second.
_CAP, _CAP_OF_EXPECTATIONS = 20.0, 600.0
#: Columns of the Jacobian below this part of the largest are dropped.
_HIDDEN = 1e-18
#: Standard deviations covered by quadratures, and the largest number of entries of their arrays.
_DEVIATIONS, _MOST = 9.0, 1e7


def noisy_loss_coordinates(
    net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array | Start, asked: str, method: str
) -> NoisyLossCoordinates:
    """The coordinates, if the expected flow is exact in them and no others were requested.

    Raises ValueError with the reason otherwise.
    """
    name = problem.loss_function.name
    reason = _why_not(net, problem)
    if reason is not None:
        raise ValueError(
            f"`problem` must have the squared loss for this weight noise: {reason}. gradient_descent draws any noise "
            "with any loss."
        )
    if method == "native":
        raise ValueError(f"`method` cannot be 'native' for weight noise with the {name} loss.")
    if asked not in ("auto", "growth"):
        raise ValueError(f"`coordinates` cannot be {asked!r} for weight noise with the {name} loss.")
    chosen = NoisyLossCoordinates(net, problem, scale, direction)
    if is_lost(chosen.visible_part, 0.0):
        raise IntegrationError(f"at `alpha` = {scale} {CANCELS}; use a smaller `alpha`.")
    return chosen


def _why_not(net: DiagonalNetwork, problem: Problem) -> str | None:
    loss = problem.loss_function
    if exponential_sum(loss, np.ones(1)) is None:
        return f"the expectation of the {loss.name} loss has no closed form and no quadrature that converges fast"
    if not isinstance(net.noise, GaussianNoise):
        return f"the {loss.name} loss needs Gaussian noise"
    return admits_growth(net)


class NoisyLossCoordinates(Coordinates):
    """The flow in the changes of ``ln c^2`` since the start, (d k) unknowns, for SciPy's methods.

    Arguments are those of growth coordinates; made by :func:`noisy_loss_coordinates`.
    Raises ValueError if the expected loss is infinite, or the data too large for the quadrature.
    """

    name = "growth"

    def __init__(self, net: DiagonalNetwork, problem: Problem, scale: InitialScale, direction: Array | Start) -> None:
        self.net, self.problem = net, problem
        self.modes = Modes.of(net, direction)
        self.shape = (problem.d, self.modes.rate.shape[1])
        self.invariants = self.modes.invariants
        self.offset = np.broadcast_to(self.modes.log_start + 2 * scale.log * self.modes.present, self.shape)
        self.coefficient = np.broadcast_to(self.modes.coefficient, self.shape)
        self.rate = np.broadcast_to(self.modes.rate, self.shape)
        self.variance = float(net.stds.max()) ** 2
        self.decay = decay_of(net.weight_decay)
        self.X = dense(problem)
        found = exponential_sum(problem.loss_function, problem.y)
        assert found is not None
        self._take(found)
        self._refine(self._spread(self._squares(np.zeros(self.offset.size))))

    @property
    def facts(self) -> dict[str, str]:
        """How the expectation is computed, for ``traj.info``."""
        return {"expectation": "closed form" if self.sum.is_exact else "quadrature"}

    def _size(self, terms: ExponentialSum) -> float:
        return terms.rate.size * float(np.prod(self.shape))

    def _take(self, terms: ExponentialSum) -> None:
        """The constant arrays of a sum: rows (i, q), columns (j, k)."""
        if self._size(terms) > _MOST:
            raise ValueError(
                f"`problem` is too large for expected losses under weight noise: {terms.rate.shape[1]} nodes for "
                f"{self.problem.n} x {self.problem.d} data; gradient_descent draws the noise instead."
            )
        self.sum = terms
        scaled = terms.rate[:, :, None] * self.X[:, None, :]
        below = 1.0 - self.variance / 2 * scaled[..., None] * self.rate
        if terms.is_exact and below.min() <= 0:
            i, _, j, _ = np.unravel_index(int(np.argmin(below)), below.shape)
            raise ValueError(
                f"`noise` makes the expected {self.problem.loss_function.name} loss infinite: |x| eta^2 = "
                f"{abs(self.X[i, j]) * self.variance:.3g} for {self.problem.feature_names[j]!r} in row {i}, where "
                f"{abs(self.X[i, j]) * self.variance / (1 - below.min()):.3g} is the least that is too much."
            )
        rows = terms.rate.size
        self.log_factor = -0.5 * np.log(below).reshape(rows, -1).sum(axis=1)
        gain = self.X[:, None, :, None] / below
        self.gain = gain.reshape(rows, -1)
        self.exponent = (terms.rate[:, :, None, None] * self.coefficient * gain).reshape(rows, -1)
        weight = self.problem.entry_weights / self.problem.n
        self.amplitude = (weight[:, None] * terms.amplitude).ravel()
        self.base = (self.X.T @ (weight * terms.constant))[:, None]

    @cached_property
    def ivp(self) -> InitialValueProblem:
        return InitialValueProblem(
            rhs=self._rhs,
            y0=np.zeros(self.offset.size),
            jacobian=self._jacobian,
            step_limit=self._step_limit,
            check=self._check,
            breaks=jumps(self.decay),
        )

    def _exponents(self, y: Array) -> Array:
        """``ln c^2``, (..., d, k)."""
        return self.offset + y.reshape(*y.shape[:-1], *self.shape)

    def _squares(self, y: Array) -> Array:
        exponents = self._exponents(y)
        return np.exp(np.minimum(exponents, _CAP)) * (1.0 + np.maximum(exponents - _CAP, 0.0))

    def _expectations(self, squares: Array) -> NDArray[np.inexact]:
        """``w a chi / n`` for every row and node, (n q,)."""
        logs = self.log_factor + self.exponent @ squares.ravel()
        if self.sum.is_exact:
            logs = np.minimum(logs, _CAP_OF_EXPECTATIONS)
        return self.amplitude * np.exp(logs)

    def forces(self, y: Array) -> Array:
        """Gamma, (d, k)."""
        squares = self._squares(y)
        return self.base + (self._expectations(squares) @ self.gain).real.reshape(self.shape)

    def _rhs(self, t: float, y: Array) -> Array:
        lost = 2 * self.modes.present * rates(self.decay, np.asarray(t)) if self.net.weight_decay else 0.0
        return np.asarray(-self.rate * self.forces(y) - lost).ravel()

    def _jacobian(self, t: float, y: Array) -> Array:
        squares = self._squares(y).ravel()
        visible = self.coefficient.ravel() * squares
        active = np.abs(visible) > _HIDDEN * max(1.0, float(np.abs(visible).max()))
        terms = self._expectations(squares)[:, None] * self.exponent[:, active] * squares[active]
        out = np.zeros((y.size, y.size))
        out[:, active] = -self.rate.ravel()[:, None] * (self.gain.T @ terms).real
        return out

    def _spread(self, squares: Array) -> float:
        """The largest prediction plus its standard deviations."""
        mean = self.X @ (self.modes.shift + (self.coefficient * squares).sum(axis=1))
        mu = self.rate / 4
        each = (mu * self.variance) ** 2 * 2 + 4 * mu * self.variance * self.coefficient * squares
        deviation = np.sqrt(np.maximum((self.X**2) @ each.sum(axis=1), 0.0))
        return float((np.abs(mean) + _DEVIATIONS * deviation).max())

    def _refine(self, spread: float) -> None:
        """Add nodes before predictions leave the range in which the quadrature is exact to rounding."""
        wanted = 4 * spread
        if spread > self.sum.reach / 2 and self._size(self.sum) * wanted / self.sum.reach <= _MOST:
            finer = exponential_sum(self.problem.loss_function, self.problem.y, wanted)
            assert finer is not None
            self._take(finer)

    def _check(self, t: float, y: Array) -> str | None:
        if ((self._exponents(y) > _CAP) & (self.coefficient != 0)).any():
            return f"a weight grew beyond exp({_CAP / 2:g}); tighten `rtol`"
        spread = self._spread(self._squares(y))
        if spread > self.sum.reach:
            return "predictions have grown beyond what the quadrature of the expected loss resolves"
        self._refine(spread)
        return None

    def _step_limit(self, t: float, y: Array, derivative: Array) -> float:
        """The longest step that ends soon after a hidden mode becomes visible."""
        exponents, growth = self._exponents(y), derivative.reshape(self.shape)
        visible = float(np.log(_VISIBLE / (np.abs(self.X).max() or 1.0)))
        hidden = (growth > 0) & (exponents < visible) & (self.coefficient != 0)
        return float(((visible + _OVERSHOOT - exponents[hidden]) / growth[hidden]).min()) if hidden.any() else np.inf

    def tolerances(self, rtol: float, atol: float) -> tuple[float, Array]:
        return 0.0, np.full(self.offset.size, SAFETY * self.visible_part * rtol)

    @cached_property
    def visible_part(self) -> float:
        """The part of the tolerance to which exponents must be known."""
        terms = self.coefficient * self._squares(np.zeros(self.offset.size))
        return visible_part(self.problem, terms.sum(axis=-1), float(np.abs(terms).sum(axis=-1).max()))

    def velocity(self, t: Array, y: Array) -> Array:
        moving = np.array([self._rhs(float(time), state) for time, state in zip(t, y, strict=True)])
        change = self._squares(y) * moving.reshape(len(y), *self.shape)
        return (self.coefficient * change).sum(axis=-1)

    def predictor(self, t: Array, y: Array) -> Array:
        return (self.coefficient * self._squares(y)).sum(axis=-1)

    def observe(self, t: Array, y: Array) -> Observed:
        logs = np.moveaxis(self._exponents(y) / 2, -1, -2)
        sign = np.broadcast_to(self.modes.sign, self.shape).T
        return Observed.of_components(self.net.weights, self.modes, sign, logs)
