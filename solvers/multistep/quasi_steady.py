r"""Projection of stiff modes onto their quasi-steady state, where their part of f is noise for longer steps.

With :math:`F = (I + \theta G D)^{-1}` the stiff part of f is :math:`(I - F)^2 f`, its distance from the quasi-steady
state :math:`\theta F (I - F)^2 f`.
"""

from __future__ import annotations

import math

from flowsim.solvers.compilation import bare
from flowsim.solvers.multistep.constants import FIRST, LOOSE, NO_FLOAT, ONCE, TWICE
from flowsim.solvers.multistep.iteration_matrix import copied, scaled, shrink, size
from flowsim.solvers.multistep.products import subtract_gram
from flowsim.solvers.multistep.workspace import Active, Loss, Matrix, Newton, Problem, Sizes, Trial, Values
from flowsim.solvers.simd import EIGHT, below, constant, load, magnitude, store, view, wider, widest


@bare()
def distances(ws, theta):
    """Distance of stiff coordinates from rest, and a bound on its error from W instead of theta D.

    The latter by coordinates that are not stiff, whose velocity must not affect the projection. ``reach / G_ii``
    is ``1 / (W G_ii)``, at most 1: the distance does not depend on units.
    """
    matrix, beta_z, f, gain = view(Matrix, ws), view(Values, ws).beta_z, view(Trial, ws).f, view(Newton, ws).gain
    diagonal, curvature = view(Problem, ws).diagonal, math.exp(view(Loss, ws).log_curvature[0])
    own = by_others = constant(0.0)
    for b in range(0, view(Active, ws).padded, EIGHT):
        weight, reach, flow = load(matrix.weight, b), load(matrix.reach, b), load(f, b)
        mistake = load(gain, b) * magnitude(reach * (theta * load(beta_z, b) - weight) * flow)
        rest = load(gain, b) * magnitude(reach * flow) / (curvature * load(diagonal, b) + constant(NO_FLOAT))
        loose = weight * reach
        by_others = wider(below(loose, constant(LOOSE), mistake, constant(0.0)), by_others)
        own = wider(below(loose, constant(LOOSE), constant(0.0), rest), own)
    return theta * widest(own), theta * widest(by_others)


@bare(forceinline=True)
def scaled_by(number, values, count, out):
    for b in range(0, count, EIGHT):
        store(out, b, number * load(values, b))


@bare()
def project(ws, theta, most):
    """Move stiff modes to their quasi-steady state if that is within `most`, and f and f' with them, to first order."""
    values, newton, matrix, trial = view(Values, ws), view(Newton, ws), view(Matrix, ws), view(Trial, ws)
    count, width = view(Active, ws).padded, view(Sizes, ws).padded
    once, v, change = newton.rest, newton.delta, trial.residual
    scaled_by(-theta, trial.df, count, v)
    shrink(ws, v, TWICE)
    copied(v, count, once)
    shrink(ws, v, ONCE)
    for b in range(0, count, EIGHT):
        less = load(v, b)
        store(once, b, load(once, b) - less)
        store(newton.work, b, -theta * (load(matrix.weight, b) * less))
    if not theta * size(once, newton.gain, count) <= most:
        return
    subtract_gram(ws, newton.work, FIRST, width, newton.zero, change)
    scaled(values.beta_z, change, count, newton.work)
    subtract_gram(ws, newton.work, FIRST, width, newton.zero, newton.change_f)
    for b in range(0, count, EIGHT):
        bent = load(values.velocity_z, b) * load(change, b) + load(values.beta_z, b) * load(newton.change_f, b)
        store(newton.work, b, bent)
    subtract_gram(ws, newton.work, FIRST, width, newton.zero, newton.change_df)
    for b in range(0, width, EIGHT):
        store(trial.f, b, load(trial.f, b) + load(newton.change_f, b))
        store(trial.df, b, load(trial.df, b) + load(newton.change_df, b))
        store(trial.guess, b, load(trial.guess, b) + load(change, b))
