"""Weight decay on quadratic networks: the Lasso while it is on, a smaller effective scale once it is off."""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array
from flowsim.certificates.certificate import Evidence, NotMetError, UnresolvedError, assume
from flowsim.certificates.registry import theorem
from flowsim.certificates.setting import Setting
from flowsim.errors import IntegrationError
from flowsim.flows import gradient_flow
from flowsim.network import Decay, DecaySchedule, InitialScale, quadratic_form
from flowsim.studies import min_entropy, weighted_lasso

HOFF = "Hoff, arXiv 1611.00040"
WOODWORTH = "Woodworth et al., arXiv 2002.09277, with weight decay"

#: Accuracy of the objective of the end point, relative to that of 0.
_OBJECTIVE = 1e-7
#: Duration of the flow relative to its limit process.
_LONGER = 8.0
#: The effective scale is measured from this alpha, with decay until K = 1, and until the loss is this part of its
#: start.
_START, _K, _SOLVED = 0.1, 1.0, 1e-18
_ENTROPY = 1e-5
_DOUBLINGS = 12


def _decay(setting: Setting) -> float | Decay:
    net = setting.diagonal
    assume(net.weight_decay, "the network has no weight decay")
    assume(net.noise is None, "the network carries weight noise as well")
    assume(all(quadratic_form(formula) is not None for formula in net.distinct), "the theorem is on quadratic formulas")
    return net.weight_decay


@theorem(
    "decay-lasso", HOFF, "weight decay lambda selects the Lasso with penalties lambda t+ and lambda t-", with_decay=True
)
def decay_lasso(setting: Setting) -> Evidence:
    decay = _decay(setting)
    assume(not isinstance(decay, Decay), "the decay changes in time")
    path, problem = setting.path, setting.squares
    costs = tuple(np.broadcast_to(side, (problem.d,)) for side in path.penalties)

    def objective(beta: Array) -> float:
        return float(problem.loss(beta) + costs[0] @ np.maximum(beta, 0.0) + costs[1] @ np.maximum(-beta, 0.0))

    best = objective(weighted_lasso(problem, costs))
    end = setting.run(_LONGER * setting.horizon, alpha=setting.scales[1], clock="accelerated", t_eval=None).beta[-1]
    found = objective(end)
    return Evidence(
        f"quadratic network, weight decay {decay:g} at all times, alpha = {setting.scales[1]}",
        predicted=best,
        measured=found,
        error=abs(found - best) / float(problem.loss(np.zeros(problem.d))),
        tolerance=_OBJECTIVE,
        unit="objective, share of its value at 0",
    )


@theorem(
    "decay-effective-scale",
    WOODWORTH,
    "once decay is switched off, the flow ends at the entropy minimiser of alpha exp(-K)",
    with_decay=True,
)
def effective_scale(setting: Setting) -> Evidence:
    decay = _decay(setting)
    net, problem = setting.diagonal, setting.problem
    assume(setting.rank == problem.n, "the data cannot be interpolated by every target: X has no full row rank")
    if isinstance(decay, DecaySchedule):
        assume(decay.rates[-1] == 0, "the decay is not switched off")
        schedule = decay
    elif isinstance(decay, Decay):
        raise NotMetError("whether the decay is switched off for good is not known")
    else:
        schedule = DecaySchedule([_K / decay], [decay, 0.0])
    off = schedule.times[-1] if schedule.times else 0.0
    K = schedule.integral(off)
    scale = InitialScale.parse(_START if setting.alpha is None else setting.alpha)
    t_end, start = 2.0 * off + 1.0, float(problem.loss(np.zeros(problem.d)))
    for _ in range(_DOUBLINGS):
        try:
            flow = gradient_flow(
                net.variant(weight_decay=schedule),
                problem,
                t_end,
                alpha=scale.text,
                start=setting.start,
                rtol=setting.rtol,
            )
        except IntegrationError as failure:
            raise UnresolvedError(str(failure)) from None
        if flow.loss[-1] <= _SOLVED * start:
            break
        t_end *= 2.0
    else:
        raise UnresolvedError(f"the loss is {flow.loss[-1] / start:.1e} of its start by t = {t_end:g}")
    effective = InitialScale(f"{scale} exp(-{K:g})", scale.log - K)
    best = min_entropy(net.variant(), problem, effective, setting.start)  # type: ignore[arg-type]
    error = float(np.abs(flow.beta[-1] - best).max() / np.abs(best).max())
    return Evidence(
        f"interpolating data, decay off from t = {off:g}, K = {K:g}, alpha = {scale}",
        predicted=f"entropy minimiser at {math.exp(max(effective.log, -700.0)):.3e}",
        measured="end of the flow",
        error=error,
        tolerance=_ENTROPY,
        unit="largest coefficient",
        details={"K": K, "alpha_eff_log": effective.log},
    )
