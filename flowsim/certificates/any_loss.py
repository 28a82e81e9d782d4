"""Statements for every convex loss: energy dissipation, and convergence of the limit process to a minimum."""

from __future__ import annotations

import numpy as np

from flowsim.arrays import Array, gauss_points
from flowsim.certificates.certificate import Evidence, NotMetError, assume
from flowsim.certificates.noise import formula_functions
from flowsim.certificates.registry import theorem
from flowsim.certificates.resolution import PAPER, ZERO, end_tolerance
from flowsim.certificates.setting import Setting
from flowsim.network import LinearNetwork
from flowsim.problem import Problem, matrix_targets
from flowsim.results import State

SANTAMBROGIO = "Santambrogio, arXiv 1609.03890 (energy dissipation of a gradient flow)"

#: Gauss nodes per step of the integrator: with the error of the run a fiftieth of the tolerance.
_NODES = 3
#: Duration of the run, in relaxation times of the largest eigenvalue of the Hessian.
_RELAXATIONS = 5.0
_BALANCE = 1e-5


@theorem("energy-balance", SANTAMBROGIO, "L(0) - L(t) = int ||theta'||^2 dt: the loss never rises", any_loss=True)
def energy_balance(setting: Setting) -> Evidence:
    net, problem = setting.net, setting.problem
    assume(net.noise is None, "weight noise: the expected loss falls instead")
    assume(setting.correlation.any(), "grad L(0) = 0: nothing moves")
    rtol = max(setting.rtol, 0.01 * _BALANCE)
    if isinstance(net, LinearNetwork):
        problem = matrix_targets(problem)
        flow = setting.run(_RELAXATIONS / setting.stiffness, alpha=1.0, rtol=rtol)
    else:
        size = setting.size or 1.0
        flow = setting.run(_RELAXATIONS / (setting.stiffness * size), alpha=0.5 * np.sqrt(size), rtol=rtol)
    points, weights = gauss_points(flow.t, _NODES)
    rate = _speed_squared(setting, problem, flow.at(points.ravel())).reshape(points.shape)
    spent = np.append(0.0, np.cumsum((weights * rate).sum(axis=1)))
    loss = np.asarray(problem.loss(flow.beta))
    fallen = loss[0] - loss
    total = float(spent[-1])
    rise = float(np.diff(loss).max(initial=0.0)) / total
    error = max(float(np.abs(fallen - spent).max()) / total, rise)
    return Evidence(
        f"no noise and no decay; {len(points)} steps in {flow.info['coordinates']} coordinates",
        predicted=total,
        measured=float(fallen[-1]),
        error=error,
        tolerance=_BALANCE,
        unit="largest difference along the run, or rise of the loss, over the whole fall",
        details={"rise": rise},
    )


def _speed_squared(setting: Setting, problem: Problem, state: State) -> Array:
    """``||theta'||^2`` (T,) from weights and loss alone: ``theta_i' = -g_i grad phi_i``, or ``(G V, G^T U)``."""
    beta = np.asarray(state.beta)
    if isinstance(setting.net, LinearNetwork):
        G = np.array([problem.gradient(each) for each in beta])
        U, V = state.weights["U"], state.weights["V"]
        parts = (G @ V, np.swapaxes(G, 1, 2) @ U)
        return sum(np.sum(part**2, axis=(1, 2)) for part in parts)
    _, slopes = formula_functions(setting.diagonal, problem.d)
    w = np.array([state.weights[name] for name in setting.diagonal.weights])
    gradients = problem.gradients(beta)
    return np.sum(gradients**2 * np.sum(slopes(w) ** 2, axis=0), axis=1)


@theorem(
    "stationary-end", PAPER, "the end minimises the loss among the signs that this start allows (KKT)", any_loss=True
)
def stationary_end(setting: Setting) -> Evidence:
    path, problem = setting.path, setting.problem
    assume(setting.diagonal.noise is None, "weight noise: the end minimises a penalised loss instead")
    if path.escape is not None:
        raise NotMetError(f"beta escapes to infinity at {path.escape.time:.6g}: the loss has no minimum there")
    beta = setting.flows[1].beta[-1]
    upper, lower = (np.broadcast_to(side, (problem.d,)) for side in path.thresholds)
    # Coefficients that are active may be small next to the largest, and waiting ones belong to the tolerance.
    active = np.abs(beta) > ZERO * np.abs(beta).max(initial=0.0)
    active[path.active_sets[-1]] = True
    g = problem.gradient(beta)
    # At 0 only signs that the start can reach count.
    at_zero = np.maximum(np.where(np.isfinite(upper), -g, 0.0), np.where(np.isfinite(lower), g, 0.0))
    slack = np.where(active, np.abs(g), np.maximum(at_zero, 0.0)) / np.abs(setting.correlation).max()
    worst = int(np.argmax(slack))
    return Evidence(
        f"convex loss ({problem.loss_function.name}); {int(active.sum())} of {problem.d} coordinates active at the end",
        predicted="KKT conditions",
        error=float(slack[worst]),
        tolerance=end_tolerance(setting, float(slack[worst])),
        unit="largest violation of the optimality conditions, relative to max |grad L(0)|",
        details={"coordinate": problem.feature_names[worst], "loss": float(problem.loss(beta))},
    )
