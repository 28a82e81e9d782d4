r"""A start from the state of an earlier run, with the conserved quantities of its own start.

As floats, grown weights have lost what the flow conserves: ``u = v = 1`` says nothing of ``u^2 - v^2 =
1e-600``, which decides where a coordinate goes that shrinks again. A state keeps its logarithm. With the components
``c_k = q_k^T w`` of a quadratic formula and the conserved ``J = c_0^{e_0} c_k^{e_k}``, a component that cancels is

.. math:: \ln|c_k| = (\ln|J| - e_0 \ln|c_0|) / e_k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, log_abs
from flowsim.growth.modes import conserved_exponents, diagonalise
from flowsim.network import DiagonalNetwork, GivenWeights, InitialScale, Logs, Start, quadratic_form, read_start
from flowsim.results import State

#: A component below this part of its terms is computed from the conserved quantity.
_CANCELS = math.log(1e-3)
#: Conserved quantities of other formulas are significant in floats of the weights above this part of their terms.
_KEPT = math.log(1e-9)


def read_any_start(
    net: DiagonalNetwork,
    start: Mapping[str, ArrayLike | Logs] | State | None,
    pretrained: GivenWeights | None,
    scale: InitialScale,
    d: int,
) -> Array | Start:
    """The direction (k, d) that alpha multiplies; the start itself where a state, logarithms or `pretrained` give it.

    Raises ValueError for a start that is zero everywhere, and for `pretrained` weights beside a state.
    """
    if isinstance(start, State):
        if pretrained is not None:
            raise ValueError("`pretrained` must be left out where `start` is a state.")
        return start_from_state(net, start, d)
    parts = read_start(net, start, pretrained, scale, d)
    if parts is not None:
        return parts
    direction = net.direction(cast("GivenWeights | None", start), d)
    if not direction.any():
        raise ValueError("`start` must not be zero everywhere: the origin is a saddle that a flow never leaves.")
    return direction


def start_from_state(net: DiagonalNetwork, state: State, d: int) -> Start:
    """The start at the last time of `state`, as terms that cancel exactly.

    Raises ValueError for the state of another network, and where the conserved quantity is lost to cancellation in the
    weights.
    """
    if np.ndim(state.beta) == 2:
        state = state[-1]
    if np.shape(state.beta) != (d,) or set(state.weights) != set(net.weights):
        raise ValueError(
            f"`start` must be a state of this network, of {', '.join(net.weights)} in {d} coordinates; received "
            f"{', '.join(state.weights)} of shape {np.shape(state.beta)}."
        )
    # Signs survive where floats are zeros.
    log = np.array([state.log_abs_weights[name] for name in net.weights])
    sign = np.where(np.isneginf(log), 0.0, np.copysign(1.0, [state.weights[name] for name in net.weights]))
    if not sign.any():
        raise ValueError("`start` must not be zero everywhere: the origin is a saddle that a flow never leaves.")
    if any(quadratic_form(formula) is None for formula in net.distinct):
        _require_kept(net, state, log)
        return Start(((sign, log),))
    k = len(net.weights)
    parts = [(np.zeros((k, d)), np.full((k, d), -np.inf)) for _ in range(k)]
    for formula, _, here in net.parts(d):
        values, vectors = diagonalise(formula, net.weights)
        conserved = np.copysign(1.0, state.imbalance[:, here]), state.log_imbalance[:, here]
        signs, logs = _components(vectors, conserved_exponents(values), sign[:, here], log[:, here], conserved)
        basis = vectors / (vectors**2).sum(axis=0)
        for a, (part_sign, part_log) in enumerate(parts):
            part_sign[:, here] = np.sign(basis[:, a, None]) * signs[a]
            part_log[:, here] = log_abs(basis[:, a, None]) + logs[a]
    return Start(tuple(parts))


def _components(
    vectors: Array, exponents: Array, sign: Array, log: Array, conserved: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Signs and logarithms (k, d) of the components; those that cancel are computed from the conserved quantities."""
    signs, logs = Start(((sign, log),)).components(vectors)
    terms = (log_abs(vectors.T)[:, :, None] + log[None]).max(axis=1)
    lost = logs < terms + _CANCELS
    for pair, row in enumerate(exponents):
        k = pair + 1
        for one, other in ((0, k), (k, 0)):
            if row[one] == 0:
                continue
            here = lost[one] & (~lost[other] if row[other] else True)
            known = row[other] * np.where(signs[other] == 0, 0.0, logs[other]) if row[other] else 0.0
            found = (conserved[1][pair] - known) / row[one]
            if row[one] % 2:
                odd = signs[other] if row[other] % 2 else 1.0
                signs[one] = np.where(here, np.where(np.isneginf(found), 0.0, conserved[0][pair] * odd), signs[one])
            logs[one] = np.where(here, found, logs[one])
            lost[one] &= ~here
    return signs, logs


def _require_kept(net: DiagonalNetwork, state: State, log: Array) -> None:
    """Require that the conserved quantities of other formulas are significant in floats of the weights."""
    remedy = "run from the first start to the end instead"
    if len(state.log_imbalance) < len(net.weights) - 1:
        texts = ", ".join(repr(formula.text) for formula in net.distinct)
        raise ValueError(
            f"`start` is a state of {texts}, of which no conserved polynomials are known that tell whether floats of "
            f"its weights keep what decides later signs; {remedy}, or, where `alpha` was not small, give the weights."
        )
    kept = (state.log_imbalance > 2 * log.max(axis=0) + _KEPT) | np.isneginf(state.log_imbalance)
    if not kept.all():
        raise ValueError(
            f"`start` is a state whose weights, as floats, have lost what the formula conserves; {remedy}."
        )
