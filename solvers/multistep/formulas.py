r"""Second-derivative multistep formulas on any spacing, from modified divided differences of f = z'.

f is interpolated at the last k points of time and, with its derivative, at the new one,

.. math:: z_{n+1} = z_n + \int_{t_n}^{t_{n+1}} P\,dt, \qquad P = f \text{ at } t_n, \dots, t_{n+1-k}, \quad
          P = f,\; P' = f' \text{ at } t_{n+1}.

Row j of the history is the j-th modified divided difference
:math:`(t_n - t_{n-1}) \cdots (t_n - t_{n-j})\, f[t_n, \dots, t_{n-j}]`.
"""

from __future__ import annotations

from flowsim.solvers.compilation import FAST, bare
from flowsim.solvers.multistep.constants import FOLDS
from flowsim.solvers.multistep.workspace import Formula, History, Scales, Sizes, Trial
from flowsim.solvers.simd import EIGHT, constant, load, magnitude, store, view, wider, widest


@bare(fastmath=FAST)
def coefficients(ws, k, h):
    r"""Coefficients of the formulas for the past spacings and the new step, for up to k + 2 past points.

    ``inverse_new[j]`` = 1/(t_{n+1} - t_{n-j}), ``inverse_old[j]`` = 1/(t_n - t_{n-1-j}); ``ratio[j]`` takes the j-th
    difference to the new point; ``end_slope[j]`` is the slope at the new point of the polynomial N_j that is 1 there
    and 0 at the last j points; and ``integral[j * FOLDS + q]`` = :math:`q!\, h^{-q} / q` times its q-fold integral over
    the step.
    """
    formula = view(Formula, ws)
    inverse_new, inverse_old, integral = formula.inverse_new, formula.inverse_old, formula.integral
    ratio, end_slope = formula.ratio, formula.end_slope
    step, spans = formula.step, view(History, ws).spans
    now, before, step[0] = h, 0.0, h
    ratio[0], end_slope[0] = 1.0, 0.0
    for q in range(1, k + 5):
        integral[q] = 1.0 / q
    for j in range(k + 2):
        before += spans[j]
        inverse_new[j], inverse_old[j] = 1.0 / now, 1.0 / before
        ratio[j + 1] = ratio[j] * (now * inverse_old[j])
        end_slope[j + 1] = end_slope[j] + inverse_new[j]
        part = h * inverse_new[j]
        for q in range(1, k + 5 - j):
            integral[(j + 1) * FOLDS + q] = integral[j * FOLDS + q] - part * integral[j * FOLDS + q + 1]
        now += spans[j]


@bare()
def predict(ws, k, h):
    """The known part of the new z from k past values, a guess with one more and the last f', and the predicted f, f'.

    All as increments from the last z.
    """
    formula = view(Formula, ws)
    inverse_new, inverse_old, integral = formula.inverse_new, formula.inverse_old, formula.integral
    ratio, end_slope = formula.ratio, formula.end_slope
    history, trial, padded = view(History, ws), view(Trial, ws), view(Sizes, ws).padded
    extra = h * integral[(k + 1) * FOLDS + 1] * ratio[k] / inverse_new[k]
    for b in range(0, padded, EIGHT):
        slope, f_k = load(history.df, b), load(history.f, b)
        z_k, b_k = h * f_k, constant(0.0)
        for j in range(1, k):
            value = load(history.f, j * padded + b)
            slope = slope - inverse_old[j - 1] * value
            value = ratio[j] * value
            f_k = f_k + value
            z_k = z_k + (h * integral[j * FOLDS + 1]) * value
            b_k = b_k + end_slope[j] * value
        value = load(history.f, k * padded + b)
        slope = slope - inverse_old[k - 1] * value
        store(trial.known, b, z_k)
        store(trial.guess, b, z_k + (h * integral[k * FOLDS + 1] * ratio[k]) * value + extra * slope)
        store(trial.f_predicted, b, f_k)
        store(trial.df_predicted, b, b_k)


@bare()
def local_errors(ws, k, h, lower, higher):
    r"""Local errors of the formulas with k, k - 1 and k + 1 past points; the first by coordinate.

    One more interpolation point, the next in the past, would change the integral by
    :math:`h^3 w\,(b - e/\tau)/\tau`: e and b are the parts of f and f' at the new point that the past points (one more
    for e) do not predict, tau is the distance of the next past point.
    """
    formula = view(Formula, ws)
    inverse_new, ratio, end_slope, integral = formula.inverse_new, formula.ratio, formula.end_slope, formula.integral
    history, trial, padded, gain = view(History, ws), view(Trial, ws), view(Sizes, ws).padded, view(Scales, ws).gain
    last_0, last_1, last_2 = inverse_new[k], inverse_new[k - 1], inverse_new[k + 1]
    now = below = above = constant(0.0)
    for b in range(0, padded, EIGHT):
        scale = load(gain, b)
        e, slope = load(trial.f, b) - load(trial.f_predicted, b), load(trial.df, b) - load(trial.df_predicted, b)
        past = ratio[k] * load(history.f, k * padded + b)
        error = slope - end_slope[k] * e - last_0 * (e - past)
        store(trial.residual, b, error)
        now = wider(magnitude(error) * scale, now)
        if lower:
            nearer = ratio[k - 1] * load(history.f, (k - 1) * padded + b)
            error = (slope + end_slope[k - 1] * nearer) - end_slope[k - 1] * (e + nearer) - last_1 * e
            below = wider(magnitude(error) * scale, below)
        if higher:
            error = slope - end_slope[k] * past - end_slope[k + 1] * (e - past)
            error = error - last_2 * (e - past - ratio[k + 1] * load(history.f, (k + 1) * padded + b))
            above = wider(magnitude(error) * scale, above)
    cube = h * h * h
    return (
        cube * integral[k * FOLDS + 3] * last_0 * widest(now),
        cube * integral[(k - 1) * FOLDS + 3] * last_1 * widest(below),
        cube * integral[(k + 1) * FOLDS + 3] * last_2 * widest(above),
    )


@bare()
def remember(ws, k):
    """Update the differences of f to the new point."""
    history, trial, padded, ratio = view(History, ws), view(Trial, ws), view(Sizes, ws).padded, view(Formula, ws).ratio
    for b in range(0, padded, EIGHT):
        value = load(trial.f, b) - load(trial.f_predicted, b)
        beyond = value - ratio[k] * load(history.f, k * padded + b)
        store(history.f, (k + 2) * padded + b, beyond - ratio[k + 1] * load(history.f, (k + 1) * padded + b))
        store(history.f, (k + 1) * padded + b, beyond)
        store(history.f, k * padded + b, value)
        for j in range(k - 1, -1, -1):
            value = value + ratio[j] * load(history.f, j * padded + b)
            store(history.f, j * padded + b, value)


@bare()
def derivative_from_differences(ws, k, out):
    """f' at the new point from the differences of f there."""
    history, padded, inverse_new = view(History, ws), view(Sizes, ws).padded, view(Formula, ws).inverse_new
    for b in range(0, padded, EIGHT):
        slope = constant(0.0)
        for j in range(k + 1):
            slope = slope + inverse_new[j] * load(history.f, (j + 1) * padded + b)
        store(out, b, slope)
