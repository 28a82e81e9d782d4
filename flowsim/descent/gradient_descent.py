"""Gradient descent, deterministic and stochastic: the discrete counterpart of the flow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from flowsim.descent.case import Case, cancellation, check_pair, fault_message, first_bad_step, parted_step
from flowsim.descent.machine import Machine, recorded_steps
from flowsim.descent.result import finite_records
from flowsim.descent.schedules import read_steps
from flowsim.descent.settings import Settings, check_step
from flowsim.descent.streams import Seed
from flowsim.errors import IntegrationError
from flowsim.hints import hinting
from flowsim.network import Alpha, DiagonalNetwork, InitialScale, LinearNetwork, Logs, Noise, resolve_alpha
from flowsim.plain_numbers import count, read_seed
from flowsim.problem import Problem
from flowsim.results import State, Trajectory

#: Entries of weights over all steps that may be stored to test whether a ball is left.
_LOOKED_AT = 20_000_000


@hinting
def gradient_descent(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    step: float | ArrayLike | Callable[[int], float],
    n_steps: int,
    *,
    alpha: Alpha | InitialScale | None = None,
    start: Mapping[str, ArrayLike | Logs] | State | None = None,
    batch_size: int | None = None,
    batches: ArrayLike | None = None,
    shuffle: bool = False,
    label_noise: float | Noise = 0.0,
    gradient_noise: float | Noise = 0.0,
    temperature: float = 0.0,
    seed: Seed = None,
    record_every: int = 1,
    momentum: float = 0.0,
    nesterov: bool = False,
    expected: bool = False,
    radius: float | None = None,
    coordinates: str = "auto",
) -> Trajectory:
    r"""Descend the loss of a network by steps of fixed or given sizes.

    .. math:: \theta_{k+1} = \theta_k - h \nabla_\theta L(\theta_k), \qquad t_k = h k.

    With ``net.noise`` every gradient is that of :math:`\theta \mapsto L(\theta + \xi_k)` at :math:`\theta_k`, with
    fresh noise (stochastic SAM); of :math:`\theta \mapsto L(\theta (1 + \xi_k))` for multiplicative noise.

    Parameters
    ----------
    net : DiagonalNetwork or LinearNetwork
    problem : Problem
    step : float, array (n_steps,) or callable (k) -> float
        h > 0, or h_k of iteration k = 0, 1, ...; then ``t_k = h_0 + ... + h_{k-1}``.
    n_steps : int
        >= 1.
    alpha : float, or a string, Decimal or Fraction beyond the range of floats
        Scale of the start, > 0. Default: 1e-3, or 1 where `start` is given.
    start : mapping weight -> array (d,), or State, optional
        The direction that alpha multiplies, as in :func:`flowsim.gradient_flow`; U (D, h) and V (m, h) for a
        LinearNetwork. The state of an earlier run of this network, ``traj`` or ``traj.at(t)``, is continued with all
        conserved quantities, also far below the range of floats; momentum starts at rest.
    batch_size : int, optional
        Rows in a mini-batch, drawn independently at every step, without replacement; all rows by default.
    batches : array of int (n_steps, b) or sequence of n_steps sequences of int, optional
        The rows of every mini-batch, in order, for instance those of another run; a row may repeat. Batches may be of
        unequal length (the last one of a pass): then a list of n_steps sequences.
    shuffle : bool
        Cut the batches from passes over all rows instead, each pass in a new random order; a batch may reach into the
        next pass where `batch_size` does not divide n.
    label_noise : float or Noise
        Independent noise added to y at every step; a number is the std of a Gaussian.
    gradient_noise : float or Noise
        Noise added to the gradient, independent for every step, weight and coordinate:
        ``theta_{k+1} = theta_k - h_k (grad L(theta_k) + xi_k)``; a number is the std of a Gaussian.
    temperature : float
        T >= 0 of (stochastic gradient) Langevin dynamics,
        ``theta_{k+1} = theta_k - h_k grad L(theta_k) - sqrt(2 T h_k) xi_k`` with standard normal xi_k.
    seed : int, SeedSequence or None
        Recorded in ``info["seed"]``. Batches, label noise, weight noise and noise on the gradient come from four
        independent streams.
    record_every : int
        Keep every so many states; the first and the last are always kept.
    momentum : float
        mu in [0, 1), heavy ball: ``theta_{k+1} = theta_k - h grad L(theta_k) + mu (theta_k - theta_{k-1})``.
    nesterov : bool
        Take the gradient at ``theta_k + mu (theta_k - theta_{k-1})`` instead.
    expected : bool
        With noise: step along the expectation of the gradient over the weight noise, without drawing it.
    radius : float, optional
        After every step the weights are projected onto the ball of this radius around 0 (all weights together);
        momentum carries on the step that was taken, projection included.
    coordinates : {"auto", "growth", "weights"}
        Growth coordinates are exact at every alpha and are chosen for quadratic networks (``u*v``) unless noise is
        added to the weights or the gradient or `radius` is given.

    Returns
    -------
    Trajectory
        With ``t = step * k``, and no dense output. The arc length adds up all steps, recorded or not.
        ``imbalance_drift`` is the departure from the exact law of descent, e.g.
        ``u^2 - v^2 -> (1 - h^2 g^2) (u^2 - v^2)``, if ``info["imbalance_law"]`` is "descent"; with momentum, noise on
        the weights or a formula without such a law it is the departure from the value at 0 ("constant").

    Raises
    ------
    ValueError
        For arguments outside their range.
    IntegrationError
        If the descent diverges: its loss leaves the range of floats; carries the trajectory up to the last finite
        state. Also if, in weights, coefficients are lost to rounding: a companion set of weights, rounded
        differently and moved by the same forces, deviates from the first.

    Notes
    -----
    In growth coordinates every component is a float times a power of two, so that ``alpha="1e-1000"`` loses no
    accuracy. In weights a start below the range of floats is an error, except under additive noise, which dominates
    such weights after one step.

    References
    ----------
    Even, Pesme, Gunasekar, Flammarion, arXiv 2302.08982. Clara, Langer, Schmidt-Hieber, arXiv 2503.11891. Welling, Teh,
    "Bayesian learning via stochastic gradient Langevin dynamics", ICML 2011.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[1.0, 0.0], [0.0, 1.0]], [2.0, 1.0])
    >>> net = fs.DiagonalNetwork("u*v")
    >>> descent = fs.gradient_descent(net, problem, 0.1, 60_000, alpha="1e-1000", record_every=60_000)
    >>> descent.beta[-1].round(12).tolist()
    [2.0, 1.0]
    """
    check_pair(net, problem)
    sizes = read_steps(step, count("n_steps", n_steps))
    settings = Settings.check(
        problem.n,
        n_steps=n_steps,
        batch_size=batch_size,
        batches=batches,
        sizes=sizes,
        shuffle=shuffle,
        label_noise=label_noise,
        momentum=momentum,
        nesterov=nesterov,
        expected=expected,
        radius=radius,
        record_every=record_every,
        coordinates=coordinates,
        gradient_noise=gradient_noise,
        temperature=temperature,
    )
    case = Case(net, problem, resolve_alpha(alpha, start), start, settings)
    h, sequence = check_step(step if sizes is None else sizes[0]), read_seed(seed)
    began = time.perf_counter()

    def result(machine: Machine, settings: Settings, fault: str | None) -> Trajectory:
        ks = recorded_steps(settings.n_steps, settings.record_every)
        read = machine.read(0, len(ks))
        count = finite_records(read, case.problem)
        return case.trajectory(
            machine.read(0, count), machine, ks[:count], h, sequence, fault, time.perf_counter() - began
        )

    free = replace(settings, radius=None)
    if settings.radius is not None and settings.n_steps * problem.d * len(net.weights) <= _LOOKED_AT:
        # A ball that no step leaves has no effect, and growth coordinates are exact.
        unbound = Case(net, problem, case.scale, start, free)
        if unbound.reason is None and _stays_inside(unbound, free, h, sequence, settings.radius):
            case = unbound
    machine = case.run(settings, np.array([h]), [sequence])
    bad, parted = first_bad_step(machine, 0, case)[0], parted_step(machine, 0)
    fault = fault_message(case, h, bad, parted)
    if fault is None:
        trajectory = result(machine, settings, None)
        lost = cancellation(trajectory)
        if lost is None:
            return trajectory
        raise IntegrationError(lost, replace(trajectory, success=False, message=lost))
    last = min(step for step in (bad, parted) if step is not None)
    if last == 0:
        raise IntegrationError(fault)
    # The same run, stopped one step earlier: its last state is the last finite one.
    shorter = replace(settings, n_steps=last - 1)
    raise IntegrationError(fault, result(case.run(shorter, np.array([h]), [sequence]), shorter, fault))


def _stays_inside(case: Case, settings: Settings, h: float, sequence: np.random.SeedSequence, radius: float) -> bool:
    """Whether the descent without projection stays inside the ball."""
    every = replace(settings, record_every=1)
    machine = case.run(every, np.array([h]), [sequence])
    if first_bad_step(machine, 0, case)[0] is not None:
        return False
    weights = machine.read(0, every.n_steps + 1).weights
    squares = sum((values**2).sum(axis=1) for values in weights.values())
    return bool(np.max(squares) <= (radius * (1 - 1e-9)) ** 2)
