"""Min, Tarmoun, Vidal & Mallada, arXiv 2105.06351: two-layer linear networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from flowsim.arrays import Array
from flowsim.certificates.certificate import Evidence, UnresolvedError, assume
from flowsim.certificates.registry import theorem
from flowsim.certificates.setting import Setting
from flowsim.network import LinearNetwork, linear_start
from flowsim.problem import Regression
from flowsim.results import Trajectory
from flowsim.studies.linear_rates import rate_bound

PAPER = "Min, Tarmoun, Vidal & Mallada, arXiv 2105.06351"

#: The runs start at this scale unless the user gives one.
_ALPHA = 1.0
WIDTHS = (100, 1000, 10_000, 100_000)
WIDTH_EXPONENT = 0.5
_WIDTH_SEEDS = 6
_DOUBLINGS = 12
#: Rounding of U^T U, relative to the imbalance, from which on the imbalance is lost to cancellation.
_IMBALANCE_ROUNDING = 1e-10
#: Excess loss, relative to its start, at which a run has converged.
_ENDED = 1e-20


@dataclass(frozen=True)
class _Spectrum:
    """``X = W diag(s) Phi^T`` and quantities of the theorems, computed independently of the flow."""

    basis: Array
    curvatures: Array
    target: Array
    least_loss: float


def spectrum_of(setting: Setting) -> _Spectrum:
    X, problem = setting.X, setting.problem
    Y = problem.y.reshape(problem.n, -1)
    values, vectors = np.linalg.eigh(X.T @ X / problem.n)
    keep = values > values.max() * max(X.shape) * np.finfo(float).eps
    basis, curvatures = vectors[:, keep], values[keep]
    target = (basis.T @ (X.T @ Y) / problem.n) / curvatures[:, None]
    least = float(np.sum((Y - X @ (basis @ target)) ** 2)) / (2 * problem.n)
    return _Spectrum(basis, curvatures, target, least)


def _start(setting: Setting, kind: str = "gaussian") -> dict[str, Array]:
    if setting.start is not None and kind == "gaussian":
        return {name: np.asarray(value, dtype=float) for name, value in setting.start.items()}
    return linear_start(setting.linear, setting.problem, kind, seed=setting.seed)  # type: ignore[arg-type]


def _to_the_end(setting: Setting, start: Mapping[str, Array]) -> Trajectory:
    """Run until the excess loss is below its tolerance."""
    spectrum = setting.once(spectrum_of)
    alpha = setting.alpha if setting.alpha is not None else _ALPHA
    t_end = 20.0 / float(spectrum.curvatures.min())
    # At a width below the rank of the solution U V^T ends above it.
    narrow = setting.linear.width < min(spectrum.target.shape)
    for _ in range(_DOUBLINGS):
        flow = setting.run(t_end, alpha=alpha, start=dict(start))
        gap = _gap(spectrum, flow.beta)
        if gap[-1] < _ENDED * gap[0] or (narrow and gap[-1] >= (1 - 1e-12) * _gap(spectrum, flow.at(t_end / 2).beta)):
            return flow
        t_end *= 2
    raise UnresolvedError(f"the loss has not converged by t = {t_end / 2:.3g}")


def _gap(spectrum: _Spectrum, beta: Array) -> Array:
    """``L - min L`` without cancellation, (T,)."""
    inside = spectrum.basis.T @ beta - spectrum.target
    return 0.5 * np.sum(spectrum.curvatures[:, None] * inside**2, axis=(-2, -1))


def _default_run(setting: Setting) -> Trajectory:
    return _to_the_end(setting, _start(setting))


def plain_network(setting: Setting) -> LinearNetwork:
    net = setting.linear
    assume(net.noise is None, "stated without weight noise")
    return net


@theorem("linear-imbalance", PAPER, "U^T U - V^T V is conserved (measured on the weights of the flow)", any_loss=True)
def imbalance_conserved(setting: Setting) -> Evidence:
    net = plain_network(setting)
    assume(net.width <= 2000, "the weights themselves are too wide to be examined; the compressed drift is in the flow")
    if isinstance(setting.problem, Regression):
        flow = setting.once(_default_run)
    else:
        alpha = setting.alpha if setting.alpha is not None else _ALPHA
        flow = setting.run(20.0 / setting.stiffness, alpha=alpha, start=_start(setting))
    picked = np.unique(np.linspace(0, len(flow.t) - 1, 25).astype(int))
    U, V = (np.array([flow.weights[name][k] for k in picked]) for name in ("U", "V"))
    gap = np.swapaxes(U, 1, 2) @ U - np.swapaxes(V, 1, 2) @ V
    size = float(np.linalg.norm(gap[0])) or float(np.linalg.norm(U[0]) ** 2 + np.linalg.norm(V[0]) ** 2)
    largest = float(max(np.linalg.norm(U, axis=(1, 2)).max(), np.linalg.norm(V, axis=(1, 2)).max())) ** 2
    if not np.finfo(float).eps * largest < _IMBALANCE_ROUNDING * size:
        raise UnresolvedError(
            f"the imbalance, of size {size:.1e}, is lost in the rounding of squared weights that grow to {largest:.1e}"
        )
    drift = float(np.linalg.norm(gap - gap[0], axis=(1, 2)).max()) / size
    moved = float(np.linalg.norm(V[-1] - V[0])) / (float(np.linalg.norm(V, axis=(1, 2)).max()) or 1.0)
    return Evidence(
        f"no noise; V moves by {moved:.2g} of its largest norm",
        predicted=0.0,
        error=drift,
        tolerance=1e-9,
        unit="largest change in Frobenius norm, relative to the start",
    )


@theorem("linear-rate", PAPER, "L(t) - L* <= exp(-2 lambda_r(Sigma) c t) (L(0) - L*), c from imbalance and margin")
def exponential_rate(setting: Setting) -> Evidence:
    net, alpha = plain_network(setting), _ALPHA if setting.alpha is None else setting.alpha
    bound = rate_bound(net, setting.squares, alpha=alpha, start=_start(setting))
    level, rate = bound.c_u + bound.c_v, bound.rate
    assume(level > 0, "neither imbalance nor margin at this start: the bound is void (c = 0)")
    flow = setting.once(_default_run)
    gap = _gap(setting.once(spectrum_of), flow.beta)
    seen = gap > 1e-24 * gap[0]
    ratio = np.log(gap[seen] / gap[0]) + rate * flow.t[seen]
    late = np.flatnonzero(seen)[-1]
    observed = float(-np.log(gap[late] / gap[0]) / flow.t[late])
    return Evidence(
        f"c = {level:.4g}, margin {bound.margin:.3g}",
        predicted=rate,
        measured=observed,
        error=math.exp(min(float(ratio.max()), 700.0)),
        tolerance=1.0 + 1e-6,
        unit="largest loss over its bound; average observed rate shown against the predicted one",
        details={"tightness": rate / observed, "c": level, "margin": bound.margin},
    )


def _min_norm(setting: Setting) -> Array:
    spectrum = setting.once(spectrum_of)
    return spectrum.basis @ spectrum.target


@theorem("linear-invariant-set", PAPER, "started on {U2 V^T = 0, U1 U2^T = 0} the flow stays there")
def invariant_set(setting: Setting) -> Evidence:
    net = plain_network(setting)
    assume(setting.rank < setting.problem.d, f"X has full column rank {setting.problem.d}: there is no U2")
    assume(net.width <= 2000, "the weights themselves are too wide to be examined")
    flow = setting.once(_invariant_run)
    spectrum = setting.once(spectrum_of)
    U, V = flow.weights["U"][-1], flow.weights["V"][-1]
    inside = spectrum.basis.T @ U
    outside = U - spectrum.basis @ inside
    size = float(np.linalg.norm(U) * max(np.linalg.norm(V), np.linalg.norm(U)))
    error = float(max(np.linalg.norm(outside @ V.T), np.linalg.norm(inside @ outside.T))) / size
    hypothesis = f"rank {setting.rank} < d = {setting.problem.d}; start made to lie on the set"
    if np.linalg.norm(outside) <= 1e-12 * np.linalg.norm(U):
        hypothesis += f" (at width {net.width} only U2 = 0 is possible)"
    return Evidence(
        hypothesis,
        predicted=0.0,
        error=error,
        tolerance=1e-9,
        unit="||U2 V^T||, ||U1 U2^T|| at the end, relative to ||U|| ||V||",
    )


def _invariant_run(setting: Setting) -> Trajectory:
    return _to_the_end(setting, _start(setting, "invariant"))


@theorem("linear-min-norm", PAPER, "from the invariant set the flow ends at the minimum-norm solution")
def end_at_min_norm(setting: Setting) -> Evidence:
    net = plain_network(setting)
    assume(setting.rank < setting.problem.d, f"X has full column rank {setting.problem.d}: the solution is unique")
    assume(
        net.width >= min(setting.rank, setting.problem.n_targets),
        f"width {net.width} is too narrow for U V^T to reach the solution",
    )
    target = _min_norm(setting)
    error = float(np.linalg.norm(setting.once(_invariant_run).beta[-1] - target) / np.linalg.norm(target))
    return Evidence(
        f"rank {setting.rank} < d = {setting.problem.d}; start made to lie on the set",
        predicted=0.0,
        error=error,
        tolerance=1e-6,
        unit="distance of U V^T to the minimum-norm solution, relative to its norm",
    )


def wide_runs(setting: Setting) -> Array:
    """Operator-norm distances of U V^T to the minimum-norm solution, one row per width, one column per seed."""
    target = _min_norm(setting)
    distances = np.empty((len(WIDTHS), _WIDTH_SEEDS))
    for row, width in enumerate(WIDTHS):
        for seed in range(_WIDTH_SEEDS):
            wide = LinearNetwork(width)
            start = linear_start(wide, setting.problem, exponent=WIDTH_EXPONENT, seed=setting.seed + seed)
            flow = _to_the_end(replace(setting, net=wide, alpha=None, start=None, _known=setting._known), start)
            distances[row, seed] = np.linalg.norm(flow.beta[-1] - target, 2)
    return distances


@theorem("linear-width-law", PAPER, "entries N(0, h^-2a): distance to the minimum-norm solution falls as h^(1/2 - 2a)")
def width_law(setting: Setting) -> Evidence:
    plain_network(setting)
    assume(
        setting.rank < setting.problem.d,
        f"X has full column rank {setting.problem.d}: the solution is unique at any width",
    )
    a = WIDTH_EXPONENT
    distances = np.sqrt(np.mean(setting.once(wide_runs) ** 2, axis=1)).tolist()
    x, z = np.log(np.array(WIDTHS, dtype=float)), np.log(np.array(distances))
    slope, deviation = np.polyfit(x, z, 1, cov="unscaled")
    residual = z - np.polyval(slope, x)
    error = math.sqrt(float(residual @ residual) / (len(x) - 2) * float(deviation[0, 0]))
    predicted = 0.5 - 2 * a
    return Evidence(
        f"rank {setting.rank} < d = {setting.problem.d}; widths {WIDTHS[0]} to {WIDTHS[-1]}, a = {a}",
        predicted=predicted,
        measured=float(slope[0]),
        error=abs(float(slope[0]) - predicted),
        tolerance=max(0.05, 4 * error),
        unit="difference of the fitted slope; tolerance 0.05 or four standard errors",
        details={"widths": list(WIDTHS), "distances": distances, "std": error},
    )
