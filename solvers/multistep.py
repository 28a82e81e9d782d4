r"""Second-derivative multistep formulas of variable step and order, compiled for flows through a separable map.

With :math:`f = z' = c - G\beta(z, t)` the second derivative costs one more product and no exponential,

.. math:: f' = -G\,(D f + \beta_t), \qquad D = \mathrm{diag}(\partial\beta/\partial z),

which pays for Enright's formulas: f is interpolated at the last k points of time and, with its derivative, at the
new one,

.. math:: z_{n+1} = z_n + \int_{t_n}^{t_{n+1}} P\,dt, \qquad P = f \text{ at } t_n, \dots, t_{n+1-k}, \quad
          P = f,\; P' = f' \text{ at } t_{n+1},

of order k + 2, stiffly stable up to order 9, with error constants a tenth (order 3) to a fortieth (order 6) of those
of the backward differentiation formulas. Only z_n enters, so that any sequence of steps is stable. The history is kept
as modified divided differences of f. With A, B the weights of f_{n+1} and -f'_{n+1},

.. math:: z = z^\ast + A f - B f' \quad\Longrightarrow\quad
          \big(I + G (A D - B Q) + B\,(G D)^2\big)\,\Delta = R, \qquad Q_i = \partial \beta_i' / \partial z_i |_f,

a linear system on the coordinates that count, whose matrix is nearly :math:`(I + \sqrt{B}\,G D)^2`: the inverse of
that square root, kept over many steps, solves it to a tenth, and a few corrections to a part of the tolerance. One
evaluation of the exponentials is then a step, as a rule.

References
----------
W. H. Enright, Second derivative multistep methods for stiff ordinary differential equations, SIAM J. Numer. Anal. 11
(1974) 321-331; F. T. Krogh, Changing stepsize in the integration of differential equations using modified divided
differences, Lecture Notes in Mathematics 362 (1974) 22-71.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from flowsim.solvers.compiled_algebra import FAST, bare, compiled, factor, invert, padded, substitute
from flowsim.solvers.eight import (
    EIGHT,
    add_up,
    below,
    constant,
    exponential,
    gather,
    greater,
    largest,
    load,
    magnitude,
    only,
    pointer,
    spread,
    store,
    wider,
    widest,
)  # fmt: skip
from flowsim.solvers.loop import BUDGET, COMPLETED, FULL, NON_FINITE, STEP_FLOOR

__all__ = ["HISTORY", "MOST", "between", "march", "speeds", "workspace"]

#: Past values of f in a formula, at most: order 9.
MOST = 7
#: Differences of f that are kept, f among them: enough to judge the next order.
HISTORY = MOST + 3
#: Integrals of each polynomial, from the first to ...
_FOLDS = HISTORY + 6

#: The local error is held to the tolerance over this.
_CAUTION = 3.0
_SAFETY = 0.8
#: The first steps, of low order, err all one way, and nothing is at rest yet that would forget it: they, to this part.
_FIRST_STEPS, _FIRST_PART = 12, 0.3
#: Of the step a higher order promises: it will promise more once it is in use.
_HIGHER = 1.05
_SHRINK, _GROW = 0.2, 2.0
#: When a step has next to no error nothing happens, and the next may be this much longer.
_CALM, _GROW_CALM = 1e-3, 10.0
_QUIET, _GROW_QUIET = 1e-8, 1e3
_REJECTIONS = 40
#: Part of the first step before which a past point is made up.
_BEGIN = 1e-3
#: So many equal steps may end a run.
_LAST = 3
#: How long ago there was nothing.
_NEVER = 1e300

#: A coordinate counts once its effect on log weights over a step exceeds this part of the tolerance.
_NEGLIGIBLE = 0.05
#: So many e-foldings below that exponentials are listed with those that count.
_MARGIN = 1.0
#: e-foldings above that to which an exponential may grow in the step that meets it, and in any step after.
_ENTRY, _GROWTH = 1.0, 1.5
_TRIES = 20

#: Part of the tolerance to which a step's equations are solved ...
_SOLVED = 0.2
#: ... by corrections that shrink by this, at least; the matrix is made anew where it does not promise so much.
_CONTRACTION = 0.2
_CORRECTIONS = 30
_EVALUATIONS = 4
#: A guess further off than this, in log weights, is none.
_FAR = 0.5

#: A step is stiff from this trace of theta G D on: errors of what is stiff are not what they seem.
_STIFF = 1.0
_UNFILTERED = 0.1
#: From this on f is noise in what is stiff, unless that is put to rest, if within this part of the tolerance.
_RESTING, _REST = 10.0, 0.5
#: What the kept matrix may mistake of where that is, by coordinates whose W G is less than that; it is made anew for
#: what may be within so many tolerances.
_MISTAKEN, _LOOSE, _NEAR = 0.1, 0.9, 10.0

#: No step is asked to be more accurate than so many roundings of the exponents.
_ROUNDINGS = 4.0 * np.finfo(np.float64).eps
#: Up to this size the matrix is inverted; beyond, a factor is less work.
_SMALL = 64

_BY_MATRIX, _BY_COORDINATES, _BY_ROWS = range(3)
#: The first of all coordinates, not as a literal: functions are compiled once more for those.
_FIRST = np.int64(0)


@bare(fastmath=FAST)
def _coefficients(k, h, spans, ahead, behind, ratio, lean, weight):
    r"""What the history and the new step make of the formulas, for up to k + 2 past points.

    ``ahead[j]`` = 1/(t_{n+1} - t_{n-j}), ``behind[j]`` = 1/(t_n - t_{n-1-j}); ``ratio[j]`` takes the j-th difference to
    the new point; ``lean[j]`` is the slope there of the polynomial N_j that is 1 there and 0 at the last j points; and
    ``weight[j * _FOLDS + q]`` = :math:`q!\, h^{-q} / q` times its q-fold integral over the step.
    """
    now, before = h, 0.0
    ratio[0], lean[0] = 1.0, 0.0
    for q in range(1, k + 5):
        weight[q] = 1.0 / q
    for j in range(k + 2):
        before += spans[j]
        ahead[j], behind[j] = 1.0 / now, 1.0 / before
        ratio[j + 1] = ratio[j] * (now * behind[j])
        lean[j + 1] = lean[j] + ahead[j]
        part = h * ahead[j]
        for q in range(1, k + 5 - j):
            weight[(j + 1) * _FOLDS + q] = weight[j * _FOLDS + q] - part * weight[j * _FOLDS + q + 1]
        now += spans[j]


@bare()
def _predict(k, h, history, bend, ahead, behind, ratio, lean, weight, wp, known, guess, f_ahead, bend_ahead):
    """The part of the new z known from k past values, a guess with one more and the last f', and f, f' so predicted.

    As increments over the last z.
    """
    extra = h * weight[(k + 1) * _FOLDS + 1] * ratio[k] / ahead[k]
    for b in range(0, wp, EIGHT):
        turn, f_k = load(bend, b), load(history, b)
        z_k, b_k = h * f_k, constant(0.0)
        for j in range(1, k):
            value = load(history, j * wp + b)
            turn = turn - behind[j - 1] * value
            value = ratio[j] * value
            f_k = f_k + value
            z_k = z_k + (h * weight[j * _FOLDS + 1]) * value
            b_k = b_k + lean[j] * value
        value = load(history, k * wp + b)
        turn = turn - behind[k - 1] * value
        store(known, b, z_k)
        store(guess, b, z_k + (h * weight[k * _FOLDS + 1] * ratio[k]) * value + extra * turn)
        store(f_ahead, b, f_k)
        store(bend_ahead, b, b_k)


@bare()
def _exponents(logc, slope, decay, z, guess, t, K, wp, out):
    """Of every exponential, at z + guess and t."""
    for b in range(0, wp, EIGHT):
        moved = load(z, b) + load(guess, b)
        for j in range(K):
            a = j * wp + b
            store(out, a, load(logc, a) + load(slope, a) * moved - t * load(decay, a))


@bare()
def _surprise(exponent, before, level, cut, log_h, K, wp):
    """How far, at most, an exponential is beyond what one step may do, and beyond where an unlisted one counts."""
    over = new = constant(-np.inf)
    for b in range(0, wp, EIGHT):
        entry = load(level, b) + constant(_ENTRY - log_h)
        for j in range(K):
            a = j * wp + b
            now = load(exponent, a)
            over = greater(now - greater(load(before, a) + constant(_GROWTH), entry), over)
            new = greater(now - load(cut, a), new)
    return largest(over), largest(new) + log_h


@bare()
def _shorten(exponent, before, level, log_h, K, w, wp):
    """The part of the step after which no exponential is beyond what one step may do."""
    part = 1.0
    for j in range(K):
        for i in range(w):
            a = j * wp + i
            most = max(level[i] + _ENTRY - log_h, before[a] + _GROWTH)
            if exponent[a] > most:
                part = min(part, (most - before[a]) / (exponent[a] - before[a]))
    return max(part, 1e-3)


@bare()
def _exchange(room, rows, wp, i, j):
    """Two coordinates."""
    for a in range(0, rows * wp, wp):
        room[a + i], room[a + j] = room[a + j], room[a + i]
    for a in range(wp):
        room[i * wp + a], room[j * wp + a] = room[j * wp + a], room[i * wp + a]


@bare()
def _arrange(exponent, level, log_h, K, w, wp, room, rows, order, where, above):
    """Put the coordinates that count first, in all tables; how many they are."""
    for b in range(0, wp, EIGHT):
        most = load(exponent, b)
        for a in range(b + wp, K * wp, wp):
            most = greater(load(exponent, a), most)
        store(above, b, most - load(level, b))
    least, m = -log_h - _MARGIN, 0
    for i in range(w):
        m += above[i] > least
    j = m
    for i in range(m):
        if above[i] > least:
            continue
        while not above[j] > least:
            j += 1
        _exchange(room, rows, wp, i, j)
        above[i], above[j] = above[j], above[i]
        order[i], order[j] = order[j], order[i]
        where[order[i]], where[order[j]] = i, j
    return m


@bare()
def _list(exponent, level, log_h, K, w, wp, m, sign, slope, decay, cut, terms_at, signs, slopes, decays):
    """The exponentials of the first m coordinates that count, the first of each in layer 0; how many layers."""
    layers = 1
    for i in range(w):
        found, least = 0, level[i] - log_h - _MARGIN
        terms_at[i] = i
        for a in range(i, K * wp, wp):
            counts = i < m and exponent[a] > least
            cut[a] = np.inf if counts else level[i]
            if counts:
                at = found * wp + i
                terms_at[at] = a
                signs[at], slopes[at], decays[at] = sign[a], slope[a], decay[a]
                found += 1
        if i < m:
            for at in range(found * wp + i, K * wp, wp):
                terms_at[at] = terms_at[i]
                signs[at] = slopes[at] = decays[at] = 0.0
            layers = max(layers, found)
    for layer in range(K):
        for at in range(layer * wp + m, layer * wp + padded(m)):
            terms_at[at] = 0
            signs[at] = slopes[at] = decays[at] = 0.0
    return layers


@bare()
def _minus(S, stride, x, m, begin, end, base, out):
    """``out = base - sum_s x_s S_s`` from `begin` to `end`, by as many sums as hide the latency."""
    b = begin
    while b + 4 * EIGHT <= end:
        t_0, t_1 = load(base, b), load(base, b + EIGHT)
        t_2, t_3 = load(base, b + 2 * EIGHT), load(base, b + 3 * EIGHT)
        for s in range(m):
            value, a = spread(x, s), s * stride + b
            t_0 = t_0 - value * load(S, a)
            t_1 = t_1 - value * load(S, a + EIGHT)
            t_2 = t_2 - value * load(S, a + 2 * EIGHT)
            t_3 = t_3 - value * load(S, a + 3 * EIGHT)
        store(out, b, t_0)
        store(out, b + EIGHT, t_1)
        store(out, b + 2 * EIGHT, t_2)
        store(out, b + 3 * EIGHT, t_3)
        b += 4 * EIGHT
    left = end - b
    if left == 3 * EIGHT:
        t_0, t_1, t_2 = load(base, b), load(base, b + EIGHT), load(base, b + 2 * EIGHT)
        u_0 = u_1 = u_2 = constant(0.0)
        for s in range(0, m - 1, 2):
            value, a = spread(x, s), s * stride + b
            t_0 = t_0 - value * load(S, a)
            t_1 = t_1 - value * load(S, a + EIGHT)
            t_2 = t_2 - value * load(S, a + 2 * EIGHT)
            value, a = spread(x, s + 1), a + stride
            u_0 = u_0 - value * load(S, a)
            u_1 = u_1 - value * load(S, a + EIGHT)
            u_2 = u_2 - value * load(S, a + 2 * EIGHT)
        if m % 2:
            value, a = spread(x, m - 1), (m - 1) * stride + b
            u_0 = u_0 - value * load(S, a)
            u_1 = u_1 - value * load(S, a + EIGHT)
            u_2 = u_2 - value * load(S, a + 2 * EIGHT)
        store(out, b, t_0 + u_0)
        store(out, b + EIGHT, t_1 + u_1)
        store(out, b + 2 * EIGHT, t_2 + u_2)
    elif left == 2 * EIGHT:
        t_0, t_1 = load(base, b), load(base, b + EIGHT)
        u_0 = u_1 = constant(0.0)
        for s in range(0, m - 1, 2):
            value, a = spread(x, s), s * stride + b
            t_0 = t_0 - value * load(S, a)
            t_1 = t_1 - value * load(S, a + EIGHT)
            value, a = spread(x, s + 1), a + stride
            u_0 = u_0 - value * load(S, a)
            u_1 = u_1 - value * load(S, a + EIGHT)
        if m % 2:
            value, a = spread(x, m - 1), (m - 1) * stride + b
            u_0 = u_0 - value * load(S, a)
            u_1 = u_1 - value * load(S, a + EIGHT)
        store(out, b, t_0 + u_0)
        store(out, b + EIGHT, t_1 + u_1)
    elif left == EIGHT:
        t_0, u_0 = load(base, b), constant(0.0)
        for s in range(0, m - 1, 2):
            a = s * stride + b
            t_0 = t_0 - spread(x, s) * load(S, a)
            u_0 = u_0 - spread(x, s + 1) * load(S, a + stride)
        if m % 2:
            u_0 = u_0 - spread(x, m - 1) * load(S, (m - 1) * stride + b)
        store(out, b, t_0 + u_0)


@bare()
def _minus_by_rows(A, x, mp, r, wp, begin, end, half, base, out):
    """``out = base - A^T A x``."""
    for q in range(r):
        total = constant(0.0)
        for s in range(0, mp, EIGHT):
            total = total + load(A, q * wp + s) * load(x, s)
        half[q] = add_up(total)
    for b in range(begin, end, EIGHT):
        total = load(base, b)
        for q in range(r):
            total = total - half[q] * load(A, q * wp + b)
        store(out, b, total)


@bare()
def _push(way, G, A, m, mp, r, wp, x, half, begin, end, base, out):
    """``out = base - G x`` from `begin` to `end` for x on the coordinates that count."""
    if way == _BY_ROWS:
        _minus_by_rows(A, x, mp, r, wp, begin, end, half, base, out)
    else:
        _minus(G, wp, x, m, begin, end, base, out)


@bare()
def _resolve(S, stride, weight, m, mp, first, second):
    """S becomes ``(S^-1 + diag(weight))^-1``: :func:`flowsim.solvers.compiled_algebra.resolve` in whole vectors.

    Nothing is stored entry by entry: a vector that is read while part of it is on its way to memory waits for that.
    """
    for i in range(0, m - 1, 2):
        top, here = i * stride, i - i % EIGHT
        is_1, is_2 = only(i - here), only(i + 1 - here)
        others = constant(1.0) - is_1 - is_2
        corner = S[top + i + 1]
        shrink_1 = 1.0 / (1.0 + weight[i] * S[top + i])
        scale_1 = weight[i] * shrink_1
        mixed, crossed = corner * scale_1, corner * shrink_1
        shrink_2 = 1.0 / (1.0 + weight[i + 1] * (S[top + stride + i + 1] - mixed * corner))
        scale_2 = weight[i + 1] * shrink_2
        back = crossed * scale_2
        for b in range(0, mp, EIGHT):
            row = load(S, top + b)
            next_row = load(S, top + stride + b) - mixed * row
            if b == here:
                next_row = next_row * (constant(1.0) - is_1) + crossed * is_1
            store(first, b, row)
            store(second, b, next_row)
        for b in range(0, mp, EIGHT):
            x_1, x_2 = load(first, b), load(second, b)
            row, next_row = shrink_1 * x_1 - back * x_2, shrink_2 * x_2
            x_1, x_2 = scale_1 * x_1, scale_2 * x_2
            if b == here:
                row = row * (constant(1.0) - is_2) + (crossed * shrink_2) * is_2
                # The columns of the two, by what is taken from nothing.
                x_1 = x_1 * others - shrink_1 * is_1
                x_2 = x_2 * others + back * is_1 - shrink_2 * is_2
                for j in range(m):
                    at = j * stride + b
                    store(S, at, load(S, at) * others - spread(first, j) * x_1 - spread(second, j) * x_2)
            else:
                for j in range(m):
                    at = j * stride + b
                    store(S, at, load(S, at) - spread(first, j) * x_1 - spread(second, j) * x_2)
            store(S, top + b, row)
            store(S, top + stride + b, next_row)
    if m % 2:
        i = m - 1
        shrink_1 = 1.0 / (1.0 + weight[i] * S[i * stride + i])
        scale_1 = weight[i] * shrink_1
        for b in range(0, mp, EIGHT):
            store(first, b, load(S, i * stride + b))
        for b in range(0, mp, EIGHT):
            x_1 = scale_1 * load(first, b)
            for j in range(m):
                at = j * stride + b
                store(S, at, load(S, at) - spread(first, j) * x_1)
        for j in range(m):
            S[i * stride + j] = S[j * stride + i] = first[j] * shrink_1


@bare()
def _way(m, r):
    """What solves with m coordinates."""
    if m <= _SMALL:
        return _BY_MATRIX
    return _BY_ROWS if m > 2 * r else _BY_COORDINATES


@bare(fastmath=FAST)
def _prepare(way, G, A, W, m, mp, r, wp, root, S, stride, M, inverse, first, second):
    """What :func:`_shrink` works with."""
    if way == _BY_MATRIX:
        for s in range(m):
            for b in range(0, mp, EIGHT):
                store(S, s * stride + b, load(G, s * wp + b))
        _resolve(S, stride, W, m, mp, first, second)
        return True
    if way == _BY_ROWS:
        for p in range(r):
            for s in range(mp):
                first[s] = W[s] * A[p * wp + s]
            for q in range(p + 1):
                total = 0.0
                for s in range(mp):
                    total += first[s] * A[q * wp + s]
                M[p, q] = M[q, p] = total
            M[p, p] += 1.0
        return invert(M, r, padded(r), second) if r < _SMALL else factor(M, inverse, r)
    for s in range(m):
        root[s] = math.sqrt(W[s])
    for s in range(m):
        for j in range(s + 1):
            M[s, j] = root[s] * G[s * wp + j] * root[j]
        M[s, s] += 1.0
    return factor(M, inverse, m)


@bare()
def _renew(way, theta, D, most, G, A, W, m, mp, r, wp, root, S, stride, M, inverse, first, second):
    """W = theta D, what it can do to one coordinate alone at most, and what :func:`_shrink` works with."""
    for s in range(m):
        W[s] = theta * D[s]
        most[s] = min(G[s * wp + s], 1.0 / max(W[s], 1e-300))
    return _prepare(way, G, A, W, m, mp, r, wp, root, S, stride, M, inverse, first, second)


@bare(fastmath=FAST)
def _shrink_by_coordinates(G, wp, M, inverse, m, mp, root, x, v):
    for s in range(m):
        x[s] = root[s] * v[s]
    substitute(M, inverse, x, m)
    for s in range(m):
        x[s] *= root[s]
    _minus(G, wp, x, m, _FIRST, mp, v, v)


@bare(fastmath=FAST)
def _shrink_by_rows(M, inverse, A, W, mp, r, wp, half, solved, x, v):
    for s in range(mp):
        x[s] = W[s] * v[s]
    for q in range(r):
        total = 0.0
        for s in range(mp):
            total += A[q * wp + s] * x[s]
        half[q] = total
    if r < _SMALL:
        for p in range(r):
            total = 0.0
            for q in range(r):
                total += M[p, q] * half[q]
            solved[p] = total
    else:
        for q in range(r):
            solved[q] = half[q]
        substitute(M, inverse, solved, r)
    for q in range(r):
        value = solved[q]
        for s in range(mp):
            v[s] -= value * A[q * wp + s]


@bare(inline="always")
def _shrink(way, G, S, stride, M, inverse, A, W, m, mp, r, wp, root, half, solved, x, v):
    """``v = (I + G W)^-1 v`` on the coordinates that count."""
    if way == _BY_MATRIX:
        _scaled(W, v, mp, x)
        _minus(S, stride, x, m, _FIRST, mp, v, v)
    elif way == _BY_ROWS:
        _shrink_by_rows(M, inverse, A, W, mp, r, wp, half, solved, x, v)
    else:
        _shrink_by_coordinates(G, wp, M, inverse, m, mp, root, x, v)


@bare()
def _scaled(scale, values, count, out):
    for b in range(0, count, EIGHT):
        store(out, b, load(scale, b) * load(values, b))


@bare()
def _copied(values, count, out):
    for b in range(0, count, EIGHT):
        store(out, b, load(values, b))


@bare()
def _mismatch(theta, D, W, most, mp):
    """How much a solution with W instead of theta D leaves of an error, at most in one coordinate alone."""
    worst = constant(0.0)
    for s in range(0, mp, EIGHT):
        worst = wider(load(most, s) * magnitude(theta * load(D, s) - load(W, s)), worst)
    return widest(worst)


@bare()
def _filter(way, G, A, S, stride, M, inverse, W, m, mp, r, wp, root, half, solved, x, v, vector):
    """``vector = (I + G W)^-1 vector`` on all coordinates."""
    _copied(vector, mp, v)
    _shrink(way, G, S, stride, M, inverse, A, W, m, mp, r, wp, root, half, solved, x, v)
    _scaled(W, v, mp, x)
    _push(way, G, A, m, mp, r, wp, x, half, _FIRST, wp, vector, vector)


@bare()
def _mistaken(theta, D, W, most, f, gain, mp):
    """How far stiff coordinates are from rest by their own f, and what W instead of theta D makes of that, at most.

    The latter by coordinates that are not stiff: how fast they move, and it may be fast, is not to be felt.
    """
    own = by_others = constant(0.0)
    for b in range(0, mp, EIGHT):
        weight, reach, flow = load(W, b), load(most, b), load(f, b)
        mistake = load(gain, b) * magnitude(reach * (theta * load(D, b) - weight) * flow)
        rest = load(gain, b) * magnitude(reach * flow)
        loose = weight * reach
        by_others = wider(below(loose, constant(_LOOSE), mistake, constant(0.0)), by_others)
        own = wider(below(loose, constant(_LOOSE), constant(0.0), rest), own)
    return theta * widest(own), theta * widest(by_others)


@bare()
def _settle(
    way, theta, most, G, A, S, stride, M, inverse, W, D, Q, m, mp, r, wp, root, half, solved, x, once, twice, v, R,
    df, dturn, gain, gain_in, zero, f, turn, guess,
):  # fmt: skip
    r"""Puts to rest what is stiff and within `most` of its rest, where its f is noise for a longer step to come.

    With :math:`F = (I + \theta G D)^{-1}` the stiff part of f is :math:`(I - F)^2 f`, its distance from rest
    :math:`\theta F (I - F)^2 f`.
    """
    _copied(f, mp, v)
    _shrink(way, G, S, stride, M, inverse, A, W, m, mp, r, wp, root, half, solved, x, v)
    _copied(v, mp, once)
    _shrink(way, G, S, stride, M, inverse, A, W, m, mp, r, wp, root, half, solved, x, v)
    _copied(v, mp, twice)
    _shrink(way, G, S, stride, M, inverse, A, W, m, mp, r, wp, root, half, solved, x, v)
    for b in range(0, mp, EIGHT):
        less = load(v, b) - load(twice, b)
        store(once, b, load(once, b) - load(twice, b) + less)
        store(x, b, theta * (load(W, b) * less))
    if not theta * _size(once, gain_in, mp) <= most:
        return
    _push(way, G, A, m, mp, r, wp, x, half, _FIRST, wp, zero, R)
    # What a change of z by R does to f and f', to first order.
    _scaled(D, R, mp, x)
    _push(way, G, A, m, mp, r, wp, x, half, _FIRST, wp, zero, df)
    for b in range(0, mp, EIGHT):
        store(x, b, load(Q, b) * load(R, b) + load(D, b) * load(df, b))
    _push(way, G, A, m, mp, r, wp, x, half, _FIRST, wp, zero, dturn)
    for b in range(0, wp, EIGHT):
        store(f, b, load(f, b) + load(df, b))
        store(turn, b, load(turn, b) + load(dturn, b))
        store(guess, b, load(guess, b) + load(R, b))


@bare()
def _accept(guess, z, z_low, turn, bend, exponent, before, K, wp):
    """z, f' and the exponents of the new point."""
    for b in range(0, wp, EIGHT):
        old = load(z, b)
        step = load(guess, b) + load(z_low, b)
        moved = old + step
        store(z_low, b, step - (moved - old))
        store(z, b, moved)
        store(bend, b, load(turn, b))
    for a in range(0, K * wp, EIGHT):
        store(before, a, load(exponent, a))


@bare()
def _size(values, gain, count):
    """The largest ``gain |value|``."""
    most = constant(0.0)
    for b in range(0, count, EIGHT):
        most = wider(load(gain, b) * magnitude(load(values, b)), most)
    return widest(most)


@bare()
def _size_of(values, first, count):
    """The largest ``|value|``."""
    most = constant(0.0)
    for b in range(first, first + count, EIGHT):
        most = wider(magnitude(load(values, b)), most)
    return widest(most)


@bare()
def _solve(
    way, fit, G, S, stride, M, inverse, A, W, D, Q, m, mp, r, wp, first, second, gain, goal, root, half, solved, x,
    zero, rest, R, delta, df,
):  # fmt: skip
    """delta with ``(I + G (first D - second Q) + second (G D)^2) delta = R``, to `goal`; False if not reached.

    And ``df = -G D delta``.
    """
    _copied(R, mp, delta)
    if fit:
        for _ in range(2):
            _shrink(way, G, S, stride, M, inverse, A, W, m, mp, r, wp, root, half, solved, x, delta)
    last = np.inf
    for _ in range(_CORRECTIONS):
        _scaled(D, delta, mp, x)
        _push(way, G, A, m, mp, r, wp, x, half, _FIRST, mp, zero, df)
        for b in range(0, mp, EIGHT):
            by = load(delta, b)
            bent = load(D, b) * load(df, b) + load(Q, b) * by
            store(x, b, first * load(x, b) - second * bent)
            store(rest, b, load(R, b) - by)
        _push(way, G, A, m, mp, r, wp, x, half, _FIRST, mp, rest, rest)
        # Before the matrix: what is left here moves the coordinates that are at rest no less than the others.
        now = _size(rest, gain, mp)
        if now <= goal:
            return True
        if not now < 0.7 * last:
            return False
        if fit:
            for _ in range(2):
                _shrink(way, G, S, stride, M, inverse, A, W, m, mp, r, wp, root, half, solved, x, rest)
        for b in range(0, mp, EIGHT):
            store(delta, b, load(delta, b) + load(rest, b))
        last = now
    return False


@bare()
def _exponentiate(place, signs, slopes, decays, layers, mp, wp, beta, D, by_time, steep, mixed):
    """beta, its derivatives by z and t, and sums of slope^2 and of slope decay over its terms."""
    for s in range(0, mp, EIGHT):
        b_s = d_s = t_s = q_s = m_s = constant(0.0)
        for layer in range(layers):
            at = layer * wp + s
            value = load(signs, at) * exponential(load(place, at))
            b_s = b_s + value
            lifted = load(slopes, at) * value
            d_s = d_s + lifted
            q_s = q_s + load(slopes, at) * lifted
            t_s = t_s - load(decays, at) * value
            m_s = m_s - load(decays, at) * lifted
        store(beta, s, b_s)
        store(D, s, d_s)
        store(by_time, s, t_s)
        store(steep, s, q_s)
        store(mixed, s, m_s)


@bare()
def _speed_up(beta, D, by_time, steep, mixed, f, mp, x, Q):
    """``d beta/dt`` along f, and its derivative by z."""
    for b in range(0, mp, EIGHT):
        flow = load(f, b)
        store(x, b, load(D, b) * flow + load(by_time, b))
        store(Q, b, load(steep, b) * flow + load(mixed, b))


@bare()
def _residual(known, guess, f, turn, f_ahead, bend_ahead, first, second, mp, R):
    """How far the step's equation is from being solved; False if that is not a number."""
    check = constant(0.0)
    for b in range(0, mp, EIGHT):
        value = (load(known, b) - load(guess, b)) + first * (load(f, b) - load(f_ahead, b))
        value = value - second * (load(turn, b) - load(bend_ahead, b))
        store(R, b, value)
        check = wider(magnitude(value), check)
    return widest(check) < np.inf


@bare()
def _bend(D, Q, delta, df, beta, x, mp, bent):
    """beta and its derivative by t along f after a step by delta, the change of the latter in `bent`."""
    for b in range(0, mp, EIGHT):
        by = load(delta, b)
        store(beta, b, load(beta, b) + load(D, b) * by)
        change = load(Q, b) * by + load(D, b) * load(df, b)
        store(bent, b, change)
        store(x, b, load(x, b) + change)


@bare()
def _move(f, turn, df, dturn, R, first, second, gain, mp):
    """f and f' by their changes; the size of what the step's equation makes of them."""
    most = constant(0.0)
    for b in range(0, mp, EIGHT):
        change, bent = load(df, b), load(dturn, b)
        store(f, b, load(f, b) + change)
        store(turn, b, load(turn, b) + bent)
        by = load(R, b) + first * change - second * bent
        most = wider(load(gain, b) * magnitude(by), most)
    return widest(most)


@bare()
def _follow(known, guess, f, turn, f_ahead, bend_ahead, first, second, gain, m, mp, wp):
    """The coordinates from m on go where the step's equation has them; how far that is from the guess."""
    most = constant(0.0)
    for i in range(m, mp):
        there = known[i] + first * (f[i] - f_ahead[i]) - second * (turn[i] - bend_ahead[i])
        most = wider(constant(gain[i] * abs(there - guess[i])), most)
        guess[i] = there
    for b in range(mp, wp, EIGHT):
        there = load(known, b) + first * (load(f, b) - load(f_ahead, b))
        there = there - second * (load(turn, b) - load(bend_ahead, b))
        most = wider(load(gain, b) * magnitude(there - load(guess, b)), most)
        store(guess, b, there)
    return widest(most)


@bare()
def _errors(k, h, history, f, bend, f_ahead, bend_ahead, ahead, ratio, lean, weight, gain, wp, lower, higher, R):
    r"""Local errors of the formulas with k, k - 1 and k + 1 past points.

    One more interpolation point, the next in the past, would change the integral by
    :math:`h^3 w\,(b - e/\tau)/\tau`: e and b are the parts of f and f' at the new point that the past points (one more
    for e) do not predict, tau is how far the next is.
    """
    last_0, last_1, last_2 = ahead[k], ahead[k - 1], ahead[k + 1]
    now = below = above = constant(0.0)
    for b in range(0, wp, EIGHT):
        scale = load(gain, b)
        e, turn = load(f, b) - load(f_ahead, b), load(bend, b) - load(bend_ahead, b)
        past = ratio[k] * load(history, k * wp + b)
        error = turn - lean[k] * e - last_0 * (e - past)
        store(R, b, error)
        now = wider(magnitude(error) * scale, now)
        if lower:
            nearer = ratio[k - 1] * load(history, (k - 1) * wp + b)
            error = (turn + lean[k - 1] * nearer) - lean[k - 1] * (e + nearer) - last_1 * e
            below = wider(magnitude(error) * scale, below)
        if higher:
            error = turn - lean[k] * past - lean[k + 1] * (e - past)
            error = error - last_2 * (e - past - ratio[k + 1] * load(history, (k + 1) * wp + b))
            above = wider(magnitude(error) * scale, above)
    cube = h * h * h
    return (
        cube * weight[k * _FOLDS + 3] * last_0 * widest(now),
        cube * weight[(k - 1) * _FOLDS + 3] * last_1 * widest(below),
        cube * weight[(k + 1) * _FOLDS + 3] * last_2 * widest(above),
    )


@bare()
def _remember(k, history, f, f_ahead, ratio, wp):
    """The differences of f at the new point."""
    for b in range(0, wp, EIGHT):
        value = load(f, b) - load(f_ahead, b)
        beyond = value - ratio[k] * load(history, k * wp + b)
        store(history, (k + 2) * wp + b, beyond - ratio[k + 1] * load(history, (k + 1) * wp + b))
        store(history, (k + 1) * wp + b, beyond)
        store(history, k * wp + b, value)
        for j in range(k - 1, -1, -1):
            value = value + ratio[j] * load(history, j * wp + b)
            store(history, j * wp + b, value)


@bare()
def _slope(k, history, ahead, wp, turn):
    """f' at the new point from the differences of f there."""
    for b in range(0, wp, EIGHT):
        slope = constant(0.0)
        for j in range(k + 1):
            slope = slope + ahead[j] * load(history, (j + 1) * wp + b)
        store(turn, b, slope)


@bare()
def _record(z, f, bend, where, w, row, rec_z, rec_f, rec_bend):
    """In the order of the caller."""
    for i in range(w):
        at = where[i]
        rec_z[row, i], rec_f[row, i], rec_bend[row, i] = z[at], f[at], bend[at]


#: In the workspace of :func:`march`, behind the problem: vectors and tables of exponentials that are kept from step to
#: step, or to its end, ...
_KEPT, _KEPT_TABLES = 9 + HISTORY, 2
#: ... those that are not, and coefficients.
_VECTORS, _TABLES, _COEFFICIENTS = 20, 5, (5 + _FOLDS) * (HISTORY + 2)


@cache
def workspace(w, K, r):
    """For w coordinates of K exponentials and r rows: sizes of matrices, floats and integers."""
    wp, rp = (-(-size // EIGHT) * EIGHT for size in (w, r))
    # Beyond that many coordinates the work is done in the rows of A.
    narrow = min(wp, max(_SMALL, 2 * rp))
    by_rows = w > max(_SMALL, 2 * r)
    small, wide = min(wp, _SMALL), 0 if w <= _SMALL else max(narrow, rp) if by_rows else narrow
    rows = w + r + 1 + 4 * K + _KEPT + _KEPT_TABLES * K + _VECTORS + _TABLES * K
    floats = rows * wp + 2 * rp + small * small + wide * wide + wide + _COEFFICIENTS
    return (small, wide), floats, (2 + K) * wp + 5


@compiled()
def lay_out(A, b, n, log_coefficient, sign, slope, decay, room, with_gram):
    """Write a problem to a workspace of zeros: ``A^T A / n`` if asked for, ``A / sqrt(n)``, ``A^T b / n``, terms."""
    r, w = A.shape
    K, wp, scale = len(sign), padded(w), 1.0 / math.sqrt(n)
    design, drive, exponentials = w * wp, (w + r) * wp, (w + r + 1) * wp
    rows, column = pointer(room, design), np.empty(r)
    for q in range(r):
        for i in range(w):
            room[design + q * wp + i] = scale * A[q, i]
        column[q] = -scale * b[q]
    _minus(rows, wp, pointer(column, 0), r, _FIRST, wp, pointer(room, drive), pointer(room, drive))
    if with_gram:
        for i in range(w):
            for q in range(r):
                column[q] = -rows[q * wp + i]
            _minus(rows, wp, pointer(column, 0), r, _FIRST, wp, pointer(room, i * wp), pointer(room, i * wp))
    for k in range(K):
        for i in range(w):
            at = exponentials + k * wp + i
            room[at], room[at + K * wp] = log_coefficient[k, i], sign[k, i]
            room[at + 2 * K * wp], room[at + 3 * K * wp] = slope[k, i], decay[k, i]
        room[exponentials + k * wp + w : exponentials + (k + 1) * wp] = -np.inf


@compiled()
def march(K, r, tol, t_end, max_steps, sizes, room, integers, clock, counts, rec_t, rec_h, rec_z, rec_f, rec_bend):
    """Take steps until `t_end`, a full record or a spent budget.

    Carried on from call to call, so that where one ends makes no difference: the workspace, which begins with the
    problem, ``clock`` = [t, its rounding error, proposed step], and ``counts`` = [steps, rejected, nfev, matrices,
    records].
    """
    w = rec_z.shape[1]
    wp, rp = padded(w), padded(r)
    small, wide = sizes

    # Coordinates that count come first, in every row of what is kept.
    G, A, drive = pointer(room, 0), pointer(room, w * wp), pointer(room, (w + r) * wp)
    at, table = (w + r + 1) * wp, K * wp
    logc, sign = pointer(room, at), pointer(room, at + table)
    slope, decay = pointer(room, at + 2 * table), pointer(room, at + 3 * table)
    exponent, before = pointer(room, at + 4 * table), pointer(room, at + 5 * table)
    at += (4 + _KEPT_TABLES) * table
    z, z_low, bend, level = (
        pointer(room, at),
        pointer(room, at + wp),
        pointer(room, at + 2 * wp),
        pointer(room, at + 3 * wp),
    )
    known, guess, f_ahead = pointer(room, at + 4 * wp), pointer(room, at + 5 * wp), pointer(room, at + 6 * wp)
    bend_ahead, gain, history = pointer(room, at + 7 * wp), pointer(room, at + 8 * wp), pointer(room, at + 9 * wp)
    at += _KEPT * wp
    kept = at // wp
    zero, f, turn, df = (
        pointer(room, at),
        pointer(room, at + wp),
        pointer(room, at + 2 * wp),
        pointer(room, at + 3 * wp),
    )
    dturn, R, beta, D = (
        pointer(room, at + 4 * wp), pointer(room, at + 5 * wp), pointer(room, at + 6 * wp), pointer(room, at + 7 * wp)
    )  # fmt: skip
    by_time, steep, mixed = pointer(room, at + 8 * wp), pointer(room, at + 9 * wp), pointer(room, at + 10 * wp)
    Q, W, x = pointer(room, at + 11 * wp), pointer(room, at + 12 * wp), pointer(room, at + 13 * wp)
    y, most_in, rest = pointer(room, at + 14 * wp), pointer(room, at + 15 * wp), pointer(room, at + 16 * wp)
    delta, gain_in, root = pointer(room, at + 17 * wp), pointer(room, at + 18 * wp), pointer(room, at + 19 * wp)
    at += _VECTORS * wp
    place, cut, signs = pointer(room, at), pointer(room, at + table), pointer(room, at + 2 * table)
    slopes, decays = pointer(room, at + 3 * table), pointer(room, at + 4 * table)
    at += _TABLES * table
    half, solved, S = pointer(room, at), pointer(room, at + rp), pointer(room, at + 2 * rp)
    at += 2 * rp + small * small
    M, inverse = room[at : at + wide * wide].reshape(wide, wide), pointer(room, at + wide * wide)
    at += wide * wide + wide
    ahead, behind = pointer(room, at), pointer(room, at + HISTORY + 2)
    ratio, lean = pointer(room, at + 2 * (HISTORY + 2)), pointer(room, at + 3 * (HISTORY + 2))
    spans, weight = pointer(room, at + 4 * (HISTORY + 2)), pointer(room, at + 5 * (HISTORY + 2))
    # Which coordinate stands where, and where each one stands.
    order, where, terms_at = pointer(integers, 0), pointer(integers, wp), pointer(integers, 2 * wp)
    state = pointer(integers, (2 + K) * wp)

    k, depth, m, layers, fit = state[0], state[1], state[2], state[3], state[4] > 0
    started = k > 0
    largest_exponent = fastest = 0.0
    for i in range(w):
        reach, steepest = _size_of(G, i * wp, wp), 0.0
        level[i] = math.log(_NEGLIGIBLE * tol) - math.log(max(reach, 1e-300))
        for a in range(i, K * wp, wp):
            if logc[a] > -np.inf:
                largest_exponent, fastest = max(largest_exponent, abs(logc[a])), max(fastest, abs(decay[a]))
                steepest = max(steepest, abs(slope[a]))
        # An exponential is a weight squared: its relative error is half the slope times that of z.
        gain[i] = 0.5 * steepest
    if not started:
        for i in range(w, wp):
            level[i] = np.inf
        for i in range(w):
            order[i] = where[i] = i
        for a in range(K * wp):
            cut[a] = level[a % wp]
        for a in range(HISTORY + 2):
            spans[a] = _NEVER
        k = 1
    mp = padded(m)
    way = _way(m, r)
    rejections = steps_here = 0
    while True:
        t = clock[0]
        left = (t_end - t) - clock[1]
        if left <= 0.0 or steps_here >= max_steps or counts[4] >= len(rec_h):
            state[0], state[1], state[2], state[3], state[4] = k, depth, m, layers, fit
            return COMPLETED if left <= 0.0 else BUDGET if steps_here >= max_steps else FULL
        h = min(clock[2], left)
        if h >= left * (1.0 - 1e-12):
            h = left
        elif h * (_LAST + 1e-6) > left:
            h = left / math.ceil(left / h)
        new = 1.0
        if started:
            for _ in range(_TRIES):
                if depth == 0:
                    # No past yet: f as its derivative has it.
                    spans[0] = _BEGIN * h
                    for i in range(wp):
                        history[wp + i] = spans[0] * bend[i]
                _coefficients(k, h, spans, ahead, behind, ratio, lean, weight)
                _predict(
                    k, h, history, bend, ahead, behind, ratio, lean, weight, wp, known, guess, f_ahead, bend_ahead
                )  # fmt: skip
                log_h = math.log(h)
                _exponents(logc, slope, decay, z, guess, t + h, K, wp, exponent)
                over, new = _surprise(exponent, before, level, cut, log_h, K, wp)
                if over <= 0.01:
                    break
                h *= _shorten(exponent, before, level, log_h, K, w, wp)
        else:
            log_h = math.log(h)
            _exponents(logc, slope, decay, z, zero, t, K, wp, exponent)

        # ---- who counts
        if new > 0.0:
            m = _arrange(exponent, level, log_h, K, w, wp, G, kept, order, where, y)
            layers = _list(
                exponent, level, log_h, K, w, wp, m, sign, slope, decay, cut, terms_at, signs, slopes, decays
            )  # fmt: skip
            mp = padded(m)
            fit, way = False, _way(m, r)
            for s in range(mp):
                gain_in[s] = gain[s] if s < m else 0.0
                W[s], most_in[s] = 0.0, G[s * wp + s] if s < m else 0.0
        for at in range(0, layers * wp, wp):
            for b in range(at, at + mp, EIGHT):
                store(place, b, gather(exponent, terms_at, b))

        # ---- the step
        first = second = theta = 0.0
        if started:
            second = h * h * weight[k * _FOLDS + 2]
            first = h * weight[k * _FOLDS + 1] + second * lean[k]
            theta = math.sqrt(second)
        part = _FIRST_PART if depth < _FIRST_STEPS else 1.0
        allowed = max(part * tol / _CAUTION, _ROUNDINGS * (largest_exponent + fastest * t))
        goal = _SOLVED * allowed
        good, fresh, stiff = True, False, 0.0
        for evaluation in range(_EVALUATIONS):
            _exponentiate(place, signs, slopes, decays, layers, mp, wp, beta, D, by_time, steep, mixed)
            counts[2] += 1
            _push(way, G, A, m, mp, r, wp, beta, half, _FIRST, mp, drive, f)
            _speed_up(beta, D, by_time, steep, mixed, f, mp, x, Q)
            _push(way, G, A, m, mp, r, wp, x, half, _FIRST, mp, zero, turn)
            if not started:
                break
            good = _residual(known, guess, f, turn, f_ahead, bend_ahead, first, second, mp, R)
            if not good or (evaluation > 0 and _size(R, gain_in, mp) <= goal):
                break
            stiff = 0.0
            for s in range(m):
                stiff += theta * D[s] * G[s * wp + s]
            contraction = _mismatch(theta, D, W, most_in, mp)
            for attempt in range(2):
                if attempt == 1 or contraction > _CONTRACTION:
                    if fresh:
                        good = False
                        break
                    counts[3] += 1
                    fit = fresh = True
                    good = _renew(way, theta, D, most_in, G, A, W, m, mp, r, wp, root, S, small, M, inverse, y, rest)
                    if not good:
                        break
                good = _solve(
                    way, fit, G, S, small, M, inverse, A, W, D, Q, m, mp, r, wp, first, second, gain_in, goal, root,
                    half, solved, y, zero, rest, R, delta, df,
                )  # fmt: skip
                if good:
                    break
            if not good:
                break
            _bend(D, Q, delta, df, beta, x, mp, y)
            _push(way, G, A, m, mp, r, wp, y, half, _FIRST, mp, zero, dturn)
            change = _move(f, turn, df, dturn, R, first, second, gain_in, mp)
            if not change <= _FAR:
                good = False
                break
            for s in range(m):
                # By what f has moved: what is left of the equation would be noise in f where the system is stiff.
                guess[s] += delta[s]
            change = _size(delta, gain_in, mp) * (1.0 + stiff)
            if change * change <= goal:
                break
            good = evaluation < _EVALUATIONS - 1
            for at in range(0, layers * wp, wp):
                for s in range(m):
                    place[at + s] += slopes[at + s] * delta[s]
        if good:
            _push(way, G, A, m, mp, r, wp, beta, half, mp, wp, drive, f)
            _push(way, G, A, m, mp, r, wp, x, half, mp, wp, zero, turn)
            if started:
                change = _follow(known, guess, f, turn, f_ahead, bend_ahead, first, second, gain, m, mp, wp)
                good = change <= _FAR
        if not started:
            for i in range(wp):
                history[i] = f[i]
                bend[i] = turn[i]
            for a in range(K * wp):
                before[a] = exponent[a]
            started = True
            continue
        if not good:
            counts[1] += 1
            rejections += 1
            if rejections > _REJECTIONS:
                return NON_FINITE
            fit = False
            for s in range(m):
                W[s], most_in[s] = 0.0, G[s * wp + s]
            clock[2] = 0.4 * h
            continue
        lower, higher = k > 1, k < MOST and depth > k
        now, below, above = _errors(
            k, h, history, f, turn, f_ahead, bend_ahead, ahead, ratio, lean, weight, gain, wp, lower, higher, R
        )  # fmt: skip
        error = now / allowed
        if error > _UNFILTERED and fit and stiff > _STIFF:
            # What is stiff makes of rounding, and of what the equations are solved to, an error that is not one.
            raw = _size(R, gain, wp)
            _filter(way, G, A, S, small, M, inverse, W, m, mp, r, wp, root, half, solved, x, y, R)
            error *= math.sqrt(_size(R, gain, wp) / raw)
        if not error <= 1.0:
            counts[1] += 1
            rejections += 1
            if rejections > _REJECTIONS:
                return STEP_FLOOR
            clock[2] = h * max(_SHRINK, 0.9 * min(error, 1e100) ** (-1.0 / (k + 3)))
            if rejections > 1 and k > 1:
                k -= 1
            continue

        settled = fit and stiff > _RESTING
        if settled:
            own, by_others = _mistaken(theta, D, W, most_in, f, gain_in, mp)
            if own <= _NEAR * allowed and by_others > _MISTAKEN * _REST * allowed:
                counts[3] += 1
                settled = fit = _renew(
                    way, theta, D, most_in, G, A, W, m, mp, r, wp, root, S, small, M, inverse, y, rest
                )  # fmt: skip
        if settled:
            _settle(
                way, theta, _REST * allowed, G, A, S, small, M, inverse, W, D, Q, m, mp, r, wp, root, half, solved,
                x, rest, y, delta, R, df, dturn, gain, gain_in, zero, f, turn, guess,
            )  # fmt: skip

        # ---- accept
        if counts[4] == 0:
            rec_t[0] = t
            _record(z, history, bend, where, w, 0, rec_z, rec_f, rec_bend)
        _remember(k, history, f, f_ahead, ratio, wp)
        if stiff > _RESTING and depth > k:
            _slope(k, history, ahead, wp, turn)
        _accept(guess, z, z_low, turn, bend, exponent, before, K, wp)
        for j in range(HISTORY, 0, -1):
            spans[j] = spans[j - 1]
        spans[0] = h
        record = counts[4]
        rec_h[record] = h
        if h == left:
            clock[0], clock[1] = t_end, 0.0
        else:
            step = h + clock[1]
            moved = t + step
            clock[0], clock[1] = moved, step - (moved - t)
        rec_t[record + 1] = clock[0]
        _record(z, history, bend, where, w, record + 1, rec_z, rec_f, rec_bend)
        counts[4] = record + 1
        counts[0] += 1
        steps_here += 1
        depth += 1

        # ---- the next order and step: what promises the longest
        best, next_k = -math.log(max(error, 1e-30)) / (k + 3), k
        if lower:
            promise = -math.log(max(below / allowed, 1e-30)) / (k + 2)
            if promise >= best:
                best, next_k = promise, k - 1
        if higher:
            promise = -math.log(max(above / allowed, 1e-30)) / (k + 4) + math.log(_HIGHER)
            if promise > best:
                best, next_k = promise, k + 1
        k = next_k
        factor_h = _SAFETY * math.exp(best)
        if rejections > 0:
            factor_h = min(factor_h, 1.0)
        rejections = 0
        most = _GROW if error > _CALM or stiff > _STIFF else _GROW_CALM if error > _QUIET else _GROW_QUIET
        clock[2] = h * min(most, max(_SHRINK, factor_h))


@compiled(fastmath=FAST)
def between(h, z, f, bend, step, theta, out):
    """z at positions `theta` of steps: the polynomial of degree 5 with z, f and f' of both ends."""
    for row in range(len(step)):
        a, x = step[row], theta[row]
        length = h[a]
        if x == 1.0:
            for i in range(z.shape[1]):
                out[row, i] = z[a + 1, i]
            continue
        y, cube = 1.0 - x, x * x * x
        along = cube * (10.0 - x * (15.0 - 6.0 * x))
        from_left, from_right = (
            length * (x - cube * (6.0 - x * (8.0 - 3.0 * x))),
            -length * cube * (4.0 - x * (7.0 - 3.0 * x)),
        )
        half = 0.5 * length * length
        bent_left, bent_right = half * x * x * y * y * y, half * cube * y * y
        for i in range(z.shape[1]):
            straight = z[a, i] + along * (z[a + 1, i] - z[a, i]) + from_left * f[a, i] + from_right * f[a + 1, i]
            out[row, i] = straight + bent_left * bend[a, i] + bent_right * bend[a + 1, i]


@compiled(fastmath=FAST)
def speeds(logc, sign, slope, decay, t, h, z, f, bend, nodes, out):
    """``|d beta/dt|`` at the positions `nodes` of every step."""
    K, w = logc.shape
    for a in range(len(h)):
        length = h[a]
        square = length * length
        for j in range(len(nodes)):
            x = nodes[j]
            now, total = t[a] + x * length, 0.0
            for i in range(w):
                line, curve = length * f[a, i], 0.5 * square * bend[a, i]
                p = (z[a + 1, i] - z[a, i]) - line - curve
                q = length * (f[a + 1, i] - f[a, i]) - square * bend[a, i]
                s = 0.5 * square * (bend[a + 1, i] - bend[a, i])
                c_3, c_4, c_5 = 10.0 * p - 4.0 * q + s, 7.0 * q - 15.0 * p - 2.0 * s, 6.0 * p - 3.0 * q + s
                there = z[a, i] + x * (line + x * (curve + x * (c_3 + x * (c_4 + x * c_5))))
                moving = line + x * (2.0 * curve + x * (3.0 * c_3 + x * (4.0 * c_4 + x * 5.0 * c_5)))
                speed = 0.0
                for c in range(K):
                    power = logc[c, i] + slope[c, i] * there - decay[c, i] * now
                    if power > -745.0:
                        speed += sign[c, i] * math.exp(power) * (slope[c, i] * moving / length - decay[c, i])
                total += speed * speed
            out[a, j] = math.sqrt(total)
