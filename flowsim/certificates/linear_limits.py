r"""Two-layer linear networks from a vanishing start: saddles, jump times, ends; and the width bound with its constants.

Width: with entries :math:`\mathcal N(0, h^{-2a})` the rows of ``(U_1; V; U_2)`` (k = D + m of them) satisfy, by
Davidson and Szarek's bound on Gaussian singular values, :math:`\lVert Z Z^\top - h^{1-2a} \rVert \le h^{1-2a} \delta`,
:math:`\delta = 2\varepsilon + \varepsilon^2`, :math:`\varepsilon = (\sqrt k + t) / \sqrt h`, with probability at least
:math:`1 - 2 e^{-t^2/2}`. Then the level of imbalance is at least :math:`2 h^{1-2a} (1 - \delta)`, the start is within
:math:`h^{1-2a} \delta` of :math:`\beta = 0` and of the invariant set, and

.. math:: \lVert U V^\top(\infty) - \hat\beta \rVert_2 \le h^{1-2a} \delta \, \exp\Big(
          \frac{\lambda_1(\Sigma) \, \big( \lVert \hat\beta \rVert_F + \sqrt{\min(r, m)}\, h^{1-2a} \delta \big)}
          {2 \lambda_r(\Sigma) \, h^{1-2a} (1 - \delta)} \Big) = O(h^{1/2 - 2a}).
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array, Bools, Index
from flowsim.certificates.certificate import Evidence, NotMetError, UnresolvedError, assume
from flowsim.certificates.linear_networks import PAPER as MIN_ET_AL
from flowsim.certificates.linear_networks import WIDTH_EXPONENT, WIDTHS, plain_network, spectrum_of, wide_runs
from flowsim.certificates.registry import theorem
from flowsim.certificates.resolution import beyond_the_start
from flowsim.certificates.setting import Setting
from flowsim.errors import IntegrationError
from flowsim.limits import LinearSaddlePath, saddle_to_saddle
from flowsim.network import InitialScale
from flowsim.results import Trajectory
from flowsim.studies.jumps import measured_jump_times, plateau_times

GREEDY = "Gidel, Bach & Lacoste-Julien, arXiv 1904.13262; Li, Luo & Lyu, arXiv 2012.09839"
OWN = "flowsim, theory of linear networks (conjectured saddles: Jacot et al., arXiv 2106.15933)"

_LN10 = math.log(10.0)
#: Relative distance exp(-this) to the saddle in the middle of a plateau that counts as resolved.
_RESOLUTION = 30.0
_SMALLEST_GAMMA, _LARGEST_GAMMA = 200 * _LN10, 1e5 * _LN10
_BEYOND_LAST_JUMP = 1.5
#: Distances to saddles, relative to the largest coefficient, that flows of finite tolerance resolve.
_RESOLVED = 1e-6
#: Relative tolerance of jump times extrapolated from two scales.
_EXTRAPOLATED = 1e-4
#: Standard deviations of the Gaussian deviation inequality: fails with probability 2 exp(-t^2/2) = 7e-4.
_DEVIATION = 4.0


def _path(setting: Setting) -> LinearSaddlePath:
    """The limit process, if it exists and jumps."""
    try:
        path = saddle_to_saddle(setting.linear, setting.problem, setting.start)
    except (ValueError, IntegrationError) as error:
        raise NotMetError(f"no limit process: {str(error).rstrip('.')}") from None
    assume(len(path.jump_times), "the limit has no jump: noise outweighs the signal")
    assume(path.complete, f"the limit process is not known to its end: {path.message}")
    return path


def _horizon(setting: Setting) -> float:
    return _BEYOND_LAST_JUMP * float(setting.once(_path).jump_times[-1])


def _distances(setting: Setting) -> Array:
    """The e-folds, over ln(1/alpha), by which the flow has relaxed in the middle of each plateau.

    Waiting directions have size exp(-(1 - level) ln(1/alpha)); active ones have relaxed for half a plateau.
    """
    path = setting.once(_path)
    middles = plateau_times(path, _horizon(setting))
    halves = middles - path.edges()[:-1]
    levels = path.levels(middles)
    out = [1.0 - row[rank] if rank < path.width else math.inf for row, rank in zip(levels, path.ranks, strict=True)]
    relaxed = np.where(path.ranks > 0, halves * path.relaxation_rates, math.inf)
    return np.fmin(np.array(out), relaxed)


def _scales(setting: Setting) -> tuple[InitialScale, InitialScale]:
    if setting.alpha is not None:
        gamma = setting.alpha.gamma
        assume(gamma > 0, f"alpha = {setting.alpha} is not below 1: vanishing starts are out of reach")
    else:
        # Plateaus that no such scale resolves are ignored in the choice.
        distances = setting.once(_distances)
        within = distances[distances * _LARGEST_GAMMA >= _RESOLUTION]
        gamma = max(_RESOLUTION / float(within.min(initial=math.inf)), _SMALLEST_GAMMA)
    return InitialScale(f"exp(-{gamma:.6g})", -gamma), InitialScale(f"exp(-{2 * gamma:.6g})", -2 * gamma)


def _flows(setting: Setting) -> tuple[Trajectory, Trajectory]:
    first, second = setting.once(_scales)
    end = _horizon(setting)
    return (setting.run(end, alpha=first, clock="accelerated"), setting.run(end, alpha=second, clock="accelerated"))


def _formula(setting: Setting, rank: int) -> Array:
    """Reduced-rank regression, singular values shrunk under noise; from X and Y alone."""
    spectrum = setting.once(spectrum_of)
    root = np.sqrt(spectrum.curvatures)[:, None]
    left, values, right = np.linalg.svd(root * spectrum.target, full_matrices=False)
    kept = np.maximum(values - _threshold(setting), 0.0)[:rank]
    return spectrum.basis @ (((left[:, :rank] * kept) @ right[:rank]) / root)


def _threshold(setting: Setting) -> float:
    if setting.linear.noise is None:
        return 0.0
    stds = setting.linear.stds
    total = float(setting.once(spectrum_of).curvatures.sum())
    return float(stds[0] * stds[1]) * math.sqrt(setting.problem.n_targets * total)


def _coupled(setting: Setting) -> LinearSaddlePath:
    path = setting.once(_path)
    learning = [block for block in path.blocks if min(block.shape) and np.abs(block.signal).max() > 0]
    assume(len(learning) <= 1, "Sigma and X^T Y decouple exactly: parts of the data are learned independently")
    return path


def _resolved(setting: Setting) -> Bools:
    """Plateaus in whose middle the first flow has relaxed."""
    return np.asarray(setting.once(_distances) * setting.once(_scales)[0].gamma >= 0.5 * _RESOLUTION)


def _plateaus(setting: Setting) -> tuple[Index, Array]:
    """The plateaus that the first flow resolves, and beta in their middles."""
    kept = np.flatnonzero(_resolved(setting))
    kept = beyond_the_start(kept, setting.once(_scales)[0])
    middles = plateau_times(setting.once(_path), _horizon(setting))[kept]
    return kept, setting.once(_flows)[0].at(middles, clock="accelerated").beta


@theorem(
    "linear-saddles", GREEDY, "plateaus of U V^T are reduced-rank regressions, of soft-thresholded fits under noise"
)
def saddles(setting: Setting) -> Evidence:
    path = _coupled(setting)
    kept, beta = _plateaus(setting)
    expected = np.array([_formula(setting, int(rank)) for rank in path.ranks[kept]])
    size = float(np.abs(path.saddles).max())
    errors = np.abs(beta - expected).reshape(len(kept), -1).max(axis=1) / size
    return Evidence(
        f"{len(kept)} of {len(path.ranks)} plateaus resolved at alpha = {setting.once(_scales)[0]}",
        predicted="ranks " + ", ".join(map(str, path.ranks[kept])),
        error=float(errors.max()),
        tolerance=_RESOLVED,
        unit="distance at mid-plateau, relative to the largest coefficient",
        details={"errors": errors},
    )


@theorem(
    "linear-rank-minimisers", GREEDY, "plateaus of U V^T are stationary among the matrices of their rank", any_loss=True
)
def rank_minimisers(setting: Setting) -> Evidence:
    plain_network(setting)
    path, problem = setting.once(_path), setting.problem
    kept, betas = _plateaus(setting)
    shape = problem.beta_shape
    scale = float(np.linalg.norm(problem.gradient(np.zeros(shape))))
    largest = float(np.abs(path.singular_values).max())
    errors = []
    for beta, rank in zip(betas, path.ranks[kept], strict=True):
        left, values, right = np.linalg.svd(beta, full_matrices=False)
        G = problem.gradient(beta.reshape(shape)).reshape(beta.shape)
        along = max(float(np.linalg.norm(left[:, :rank].T @ G)), float(np.linalg.norm(G @ right[:rank].T)))
        errors.append(along / scale + float(values[rank:].max(initial=0.0)) / largest)
    return Evidence(
        f"{len(kept)} of {len(path.ranks)} plateaus resolved at alpha = {setting.once(_scales)[0]}",
        predicted="ranks " + ", ".join(map(str, path.ranks[kept])),
        error=float(max(errors)),
        tolerance=_RESOLVED,
        unit="gradient along the singular spaces, relative to that at 0, and what exceeds the rank",
        details={"errors": errors},
    )


@theorem(
    "linear-jump-times",
    OWN,
    "jump r + 1 comes when the sorted levels, rising at the spectrum of S, reach 1",
    with_decay=True,
    any_loss=True,
)
def jump_times(setting: Setting) -> Evidence:
    path = setting.once(_path)
    if "least coupling" in path.message:
        raise UnresolvedError(
            "the data decouple exactly; the rounding of a run couples them, at vanishing alpha visibly"
        )
    first, second = (measured_jump_times(flow, path) for flow in setting.once(_flows))
    seen = np.isfinite(first) & np.isfinite(second)
    if not seen.any():
        raise UnresolvedError("no jump is seen at both scales")
    # t(gamma) = T + c / gamma up to exponentially small terms.
    extrapolated = 2 * second - first
    off = np.abs(extrapolated / path.jump_times - 1)
    if (off[seen] > _EXTRAPOLATED).any():
        resolved = _resolved(setting)
        seen &= resolved[:-1] & resolved[1:]
        if not seen.any():
            raise UnresolvedError(
                f"alpha = {setting.once(_scales)[0]} is too large: plateaus beside jumps are too short"
            )
    errors = off[seen]
    order = np.log2(np.abs(first / path.jump_times - 1)[seen] / np.abs(second / path.jump_times - 1)[seen])
    return Evidence(
        f"{int(seen.sum())} of {len(seen)} jumps seen at both scales",
        predicted=_listed(path.jump_times),
        measured=_listed(extrapolated),
        error=float(errors.max()),
        tolerance=_EXTRAPOLATED,
        unit="largest relative error, extrapolated to alpha = 0",
        details={"order in 1/ln(1/alpha)": float(np.median(order)), "first": first, "second": second},
    )


def _listed(times: Array) -> str:
    return ", ".join(f"{time:.6g}" for time in times[:6]) + (", ..." if len(times) > 6 else "")


def _end(setting: Setting, hypothesis: str, expected: Array, name: str) -> Evidence:
    path, size = setting.once(_path), float(np.abs(expected).max()) or 1.0
    left = (_horizon(setting) - path.jump_times[-1]) * setting.once(_scales)[1].gamma
    if left * path.relaxation_rates[-1] < 0.5 * _RESOLUTION:
        raise UnresolvedError("the last plateau is reached too slowly for this alpha")
    error = float(np.abs(setting.once(_flows)[1].beta[-1] - expected).max()) / size
    return Evidence(
        hypothesis,
        predicted=name,
        error=error,
        tolerance=_RESOLVED,
        unit="relative to the largest coefficient",
    )


@theorem("linear-narrow-end", GREEDY, "width h below the rank: the flow ends at the best fit of rank h")
def narrow_end(setting: Setting) -> Evidence:
    path = _coupled(setting)
    most = int((np.linalg.svd(setting.once(spectrum_of).target, compute_uv=False) > 0).sum())
    assume(path.width < most, f"width {path.width} allows every rank up to {most}")
    return _end(setting, f"rank {path.width} of {most}", _formula(setting, path.width), "best fit of that rank")


@theorem(
    "linear-vanishing-min-norm", MIN_ET_AL, "alpha -> 0: the flow ends at the least-squares solution of least norm"
)
def min_norm_end(setting: Setting) -> Evidence:
    plain_network(setting)
    path = _coupled(setting)
    spectrum = setting.once(spectrum_of)
    assume(path.width >= min(spectrum.target.shape), f"width {path.width} is too narrow to reach it")
    return _end(
        setting, f"rank X = {setting.rank}, d = {setting.problem.d}", spectrum.basis @ spectrum.target, "least norm"
    )


@theorem(
    "linear-soft-thresholding", OWN, "noise: singular values of Sigma^(-1/2) X^T Y / n shrink by eta^2 sqrt(m tr Sigma)"
)
def soft_thresholding(setting: Setting) -> Evidence:
    assume(setting.linear.noise is not None, "the network has no weight noise")
    assume(
        setting.linear.stds.all(),
        "noise on one factor alone: that factor vanishes, and nothing is shrunk",
    )
    path = _coupled(setting)
    return _end(
        setting,
        f"threshold {_threshold(setting):.4g}, rank {path.ranks[-1]} at the end",
        _formula(setting, path.width),
        "soft-thresholded fit",
    )


@theorem(
    "linear-nuclear-norm",
    OWN,
    "weight decay lambda: the flow ends at the minimum of L + lambda ||beta||_*",
    with_decay=True,
)
def nuclear_norm(setting: Setting) -> Evidence:
    net, problem = setting.linear, setting.problem
    assume(net.weight_decay, "the network has no weight decay")
    assume(net.noise is None, "weight noise beside weight decay: the penalty is another norm")
    path = setting.once(_path)
    most = int(path.ranks[-1])
    full = min(setting.once(spectrum_of).target.shape)
    assume(most < path.width or most >= full, f"width {path.width} may be too narrow for the minimum")
    beta = setting.once(_flows)[1].beta[-1]
    force = setting.X.T @ (problem.y.reshape(problem.n, -1) - setting.X @ beta) / problem.n
    left, _, right = np.linalg.svd(beta, full_matrices=False)
    left, right = left[:, :most], right[:most]
    # Optimality: G = lambda (u v^T + w), w orthogonal to beta's singular spaces, ||w|| <= 1.
    rest = force - net.constant_decay * left @ right
    inside = max(float(np.abs(left.T @ rest).max()), float(np.abs(rest @ right.T).max()))
    outside = max(float(np.linalg.norm(rest, 2)) - net.constant_decay, 0.0)
    error = max(inside, outside) / (float(np.abs(setting.X.T @ problem.y).max()) / problem.n)
    return Evidence(
        f"lambda = {net.constant_decay:g}; rank {most} at the end",
        predicted="optimality conditions",
        error=error,
        tolerance=_RESOLVED,
        unit="largest violation, relative to X^T Y / n",
    )


@theorem(
    "linear-width-bound", MIN_ET_AL, "distance to the minimum-norm solution below an explicit bound in h, D, m, Sigma"
)
def width_bound(setting: Setting) -> Evidence:
    plain_network(setting)
    assume(
        setting.rank < setting.problem.d,
        f"X has full column rank {setting.problem.d}: the solution is unique at any width",
    )
    spectrum = setting.once(spectrum_of)
    k = setting.problem.d + setting.problem.n_targets
    bounds = np.array([_width_bound(width, k, spectrum.curvatures, spectrum.target) for width in WIDTHS])
    stated = np.isfinite(bounds)
    assume(stated.any(), f"the widths measured, up to {WIDTHS[-1]}, are too small for D + m = {k}: the bound is void")
    distances = setting.once(wide_runs).max(axis=1)
    ratio = (distances / bounds)[stated]
    chance = 2 * math.exp(-(_DEVIATION**2) / 2)
    return Evidence(
        f"widths {', '.join(str(w) for w, s in zip(WIDTHS, stated, strict=True) if s)}; a = {WIDTH_EXPONENT}; "
        f"each start may fail with probability {chance:.0e}",
        predicted=", ".join(f"{bound:.2g}" for bound in bounds[stated]),
        measured=", ".join(f"{d:.2g}" for d in distances[stated]),
        error=float(ratio.max()),
        tolerance=1.0,
        unit="largest operator-norm distance over its bound",
        details={"tightness": ratio, "widths": list(WIDTHS)},
    )


def _width_bound(width: int, k: int, curvatures: Array, target: Array) -> float:
    """The bound of this module's docstring; inf where delta >= 1."""
    epsilon = (math.sqrt(k) + _DEVIATION) / math.sqrt(width)
    delta = 2 * epsilon + epsilon**2
    if delta >= 1:
        return math.inf
    scale = float(width) ** (1 - 2 * WIDTH_EXPONENT)
    start = float(np.linalg.norm(target)) + math.sqrt(min(target.shape)) * scale * delta
    exponent = float(curvatures.max()) * start / (2 * float(curvatures.min()) * scale * (1 - delta))
    return scale * delta * math.exp(exponent) if exponent < 700 else math.inf
