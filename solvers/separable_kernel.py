r"""The compiled loop behind :mod:`flowsim.solvers.separable`: one call takes many steps.

In the unknowns :math:`B_i = \int \beta_i\,dt` of the coordinates that are not negligible, the flow reads

.. math:: B' = \beta(z, t), \qquad z = z_0 + (t - t_0)\, c - G B, \qquad G = A^\top A / n,\; c = A^\top b / n,

so that a step costs one Cholesky factorisation of :math:`I + h\gamma\, D^{1/2} G D^{1/2}` in the number of such
coordinates, or of :math:`I + h\gamma\, A D A^\top / n` in the number of rows where that is smaller. All other
coordinates move by the same B, and where nothing is active the motion is a straight line, taken in one step.

A growing exponential is invisible until it is there, so a step ends where a negligible coordinate would begin
to count, a coordinate is taken along as soon as it does, and the step is repeated if one was left out wrongly.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from flowsim.solvers import rodas

__all__ = ["BUDGET", "COMPLETED", "FULL", "NON_FINITE", "REFRESH", "STEP_FLOOR", "advance", "log_level", "speeds"]

COMPLETED, FULL, BUDGET, REFRESH, STEP_FLOOR, NON_FINITE = range(6)

#: Reassociated sums vectorise; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}

_A, _C, _H = rodas.A, rodas.C, rodas.H
_ALPHA, _GAMMA_SUM, _GAMMA = rodas.ALPHA, rodas.GAMMA_SUM, rodas.GAMMA
_STAGES = rodas.STAGES

#: A coordinate counts once its effect on log weights over a step exceeds this part of the tolerance.
_NEGLIGIBLE = 0.05
#: Slack, in units of ln, with which a coordinate left out is allowed to end a step above that level.
_LATE = math.log(4.0)
#: e-foldings a coordinate that counts may grow in one step.
_GROWTH = 4.0
#: Exponentials smaller than exp(-_BLIND) times the largest of their coordinate are rounding.
_BLIND = 40.0

#: A power blows up at distance 0: of that distance one step may cover so much.
_APPROACH = 0.6
#: The series of a product in m^2/x^2 is used up to here, its Newton iteration in ln x so often.
_SERIES = 0.1
_NEWTON = 4
#: An active coordinate whose rate is below so many roundings of its terms stands still.
_STILL = 64 * np.finfo(np.float64).eps
#: Arrivals that differ by less than this, relatively, are one.
_TIE = 1e-13

_SAFETY = 0.9
_SHRINK, _GROW = 0.2, 30.0
#: When a step has next to no error nothing happens, and the next may be this much longer.
_QUIET, _GROW_QUIET = 1e-8, 1e4
_BETA = 0.04
_REJECTIONS = 40
#: Up to this size a factor is inverted; beyond, the work of it outweighs what the solves save.
_SMALL = 64


@njit(cache=True, nogil=True, fastmath=_FAST, inline="never")
def _dot(x, y, k):
    total = 0.0
    for j in range(k):
        total += x[j] * y[j]
    return total


@njit(cache=True, nogil=True, fastmath=_FAST)
def _factor(M, inverse, m):
    """Lower Cholesky factor in place, reciprocal diagonal aside; False if M is not positive definite."""
    for i in range(m):
        row = M[i]
        for j in range(i):
            row[j] = (row[j] - _dot(row, M[j], j)) * inverse[j]
        pivot = row[i] - _dot(row, row, i)
        if not (pivot > 0.0 and pivot < np.inf):
            return False
        row[i] = math.sqrt(pivot)
        inverse[i] = 1.0 / row[i]
    return True


@njit(cache=True, nogil=True, fastmath=_FAST)
def _invert(M, inverse, m):
    """The inverse of a lower triangular factor in its place: eight solves wait less for products than for divisions."""
    for i in range(m):
        row = M[i]
        for k in range(i):
            # row k of M is inverted already
            value, other = row[k], M[k]
            for j in range(k):
                row[j] += value * other[j]
            row[k] = value * other[k]
        for j in range(i):
            row[j] *= -inverse[i]
        row[i] = inverse[i]


@njit(cache=True, nogil=True, fastmath=_FAST)
def _solve(M, x, y, m):
    """x becomes ``M^T M x`` for the inverted factor M."""
    for i in range(m):
        y[i] = _dot(M[i], x, i + 1)
    for j in range(m):
        x[j] = 0.0
    for i in range(m):
        value, row = y[i], M[i]
        for j in range(i + 1):
            x[j] += value * row[j]


@njit(cache=True, nogil=True, fastmath=_FAST)
def _substitute(M, inverse, x, m):
    for i in range(m):
        x[i] = (x[i] - _dot(M[i], x, i)) * inverse[i]
    for i in range(m - 1, -1, -1):
        x[i] *= inverse[i]
        value, row = x[i], M[i]
        for j in range(i):
            x[j] -= value * row[j]


@njit(cache=True, nogil=True, fastmath=_FAST)
def _evaluate(power, place, dz, dt, sign, slope, decay, squares, series, which, m, beta, D, by_time):
    """beta, d beta/dz and d beta/dt of the coordinates `which`, moved by (dz, dt) from where ``place`` was taken.

    Increments rather than positions: z may be 10^6 and its rounding would swamp the differences of the stages.
    """
    K = place.shape[0]
    if power > 0:
        for s in range(m):
            i = which[s]
            k = 0
            if K > 1 and place[1, i] < place[0, i]:
                k = 1
            beta[s], D[s] = _product(power, place[k, i] - slope[k, i] * dz[s], squares, series, i)
            beta[s] *= sign[k, i]
            by_time[s] = 0.0
        return
    for s in range(m):
        i = which[s]
        top = -np.inf
        for k in range(K):
            top = max(top, place[k, i] + slope[k, i] * dz[s] - decay[k, i] * dt)
        b = d = e = 0.0
        for k in range(K):
            exponent = place[k, i] + slope[k, i] * dz[s] - decay[k, i] * dt
            if exponent > top - _BLIND:
                value = sign[k, i] * math.exp(exponent)
                b += value
                d += slope[k, i] * value
                e -= decay[k, i] * value
        beta[s], D[s], by_time[s] = b, d, e


@njit(cache=True, nogil=True)
def _product(L, distance, squares, series, i):
    r"""beta and d beta/dz of a product of L weights whose smallest, x, is ``distance`` away from infinity in z.

    The others are sqrt(x^2 + m_j^2), and ``distance = int_x^inf dx / prod_j sqrt(x^2 + m_j^2)``, here as a series in
    m^2/x^2. Zero outside its range, where no coordinate that counts may be: a step that has one there is rejected.
    NaN beyond the singularity.
    """
    if not distance > 0.0:
        return np.nan, np.nan
    x = ((L - 2) * distance) ** (-1.0 / (L - 2))
    largest = 0.0
    for j in range(squares.shape[0]):
        largest = max(largest, squares[j, i])
    if largest > 0.0:
        if largest > _SERIES * x * x:
            return 0.0, 0.0
        for _ in range(_NEWTON):
            u, total = 1.0 / (x * x), 0.0
            for k in range(series.shape[0] - 1, -1, -1):
                total = total * u + series[k, i] / (L - 2 + 2 * k)
            root = 1.0
            for j in range(squares.shape[0]):
                root *= 1.0 + squares[j, i] * u
            # In ln x, where the function is nearly a straight line.
            x *= 1.0 + (total - distance * x ** (L - 2)) * math.sqrt(root)
    product, growth = x ** (L - 1), 1.0
    for j in range(squares.shape[0]):
        ratio = squares[j, i] / (x * x)
        product *= math.sqrt(1.0 + ratio)
        growth += 1.0 / (1.0 + ratio)
    return x * product, product * product * growth


@njit(cache=True, nogil=True)
def _log_size(power, place):
    """ln |beta| of one branch at its place: the exponent itself, or a power of the distance to infinity."""
    if power == 0:
        return place
    if not place > 0.0:
        return np.inf
    return -power / (power - 2.0) * math.log((power - 2.0) * place)


@njit(cache=True, nogil=True)
def _growth(power, place, speed):
    """d ln |beta| / dt of a branch whose place moves with `speed` = slope F - decay."""
    if power == 0:
        return speed
    return power / (power - 2.0) * speed / place


@njit(cache=True, nogil=True)
def _grown(power, place, change):
    """ln |beta| of a branch once its place has moved by `change`."""
    return place + change if power == 0 else _log_size(power, place - change)


@njit(cache=True, nogil=True)
def _threshold(power, level, speed, left):
    """The place at which a branch moving with `speed` begins to count: beta over its rate of growth at the level."""
    if power == 0:
        return level + math.log(max(speed, 1.0 / left))
    p = power / (power - 2.0)
    # ((L-2) Y)^-p Y / (p speed) = exp(level)
    return math.exp((level + math.log(p * speed) + p * math.log(power - 2.0)) / (1.0 - p))


@njit(cache=True, nogil=True, fastmath=_FAST)
def _apply_gram(wide, GS, AS, m, r, n, v, work, out):
    """out = G v on the active coordinates."""
    if wide:
        for q in range(r):
            work[q] = 0.0
        for s in range(m):
            value, row = v[s] / n, AS[s]
            for q in range(r):
                work[q] += value * row[q]
        for s in range(m):
            out[s] = _dot(AS[s], work, r)
    else:
        for s in range(m):
            out[s] = _dot(GS[s], v, m)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _move(G, AT, grams, which, m, r, n, v, work, out):
    """out = G[:, which] v on all loaded coordinates."""
    w = len(out)
    if grams and m <= 2 * r:
        for j in range(w):
            out[j] = 0.0
        for s in range(m):
            value, row = v[s], G[which[s]]
            for j in range(w):
                out[j] += value * row[j]
    else:
        for q in range(r):
            work[q] = 0.0
        for s in range(m):
            value, row = v[s] / n, AT[which[s]]
            for q in range(r):
                work[q] += value * row[q]
        for j in range(w):
            out[j] = _dot(AT[j], work, r)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _combine(U, stage, m, v, c_sum):
    """The stage's argument ``sum_j a_ij u_j`` and ``sum_j c_ij u_j``."""
    for s in range(m):
        v[s] = 0.0
        c_sum[s] = 0.0
    for j in range(stage):
        a_j, c_j, u_j = _A[stage, j], _C[stage, j], U[j]
        for s in range(m):
            v[s] += a_j * u_j[s]
            c_sum[s] += c_j * u_j[s]


@njit(cache=True, nogil=True, fastmath=_FAST)
def _fill_wide(M, AS, D, scale, m, r):
    """Lower triangle of ``I + scale A D A^T``."""
    for p in range(r):
        for q in range(p + 1):
            M[p, q] = 0.0
        M[p, p] = 1.0
    for s in range(m):
        row, weight = AS[s], scale * D[s]
        for p in range(r):
            value, target = weight * row[p], M[p]
            for q in range(p + 1):
                target[q] += value * row[q]


@njit(cache=True, nogil=True)
def _settle(G, AT, grams, which, m, r, n, beta, rate, drive):
    """Rates that are rounding of the terms they are made of become zero; True if none of the active is left."""
    settled = True
    for s in range(m):
        i = which[s]
        if rate[i] == 0.0:
            continue
        scale = abs(drive[i])
        for j in range(m):
            product = G[i, which[j]] if grams else _dot(AT[i], AT[which[j]], r) / n
            scale += abs(product * beta[j])
        if abs(rate[i]) <= _STILL * scale:
            rate[i] = 0.0
        else:
            settled = False
    return settled


@njit(cache=True, nogil=True)
def _add(high, low, increment):
    """(high, low) + increment, with low the part that does not fit into high."""
    step = increment + low
    result = high + step
    return result, step - (result - high)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _someone_outside(out_exponent, out_rate, out_reach, out_level, since, distance, log_h):
    """Could a coordinate that is not loaded have come to count?"""
    worst = -np.inf
    for k in range(out_exponent.shape[0]):
        exponent, rate, reach = out_exponent[k], out_rate[k], out_reach[k]
        for i in range(len(out_level)):
            worst = max(worst, exponent[i] + rate[i] * since + reach[i] * distance - out_level[i])
    return worst + log_h > 0.0


def log_level(reach, tol):
    """ln of beta times the length of the step at which a coordinate begins to count."""
    return math.log(_NEGLIGIBLE * tol) - np.log(np.maximum(reach, 1e-300))


@njit(cache=True, nogil=True)
def advance(
    G, AT, n, drive, power, logc, sign, slope, decay, squares, series, reach, tol, t_end, max_steps,
    out_exponent, out_rate, out_reach, out_level, b_rows, nu_ref, rate_ref,
    clock, z, z_low, place, nu, counts,
    rec_t, rec_h, rec_z, rec_rate, rec_place, rec_nu, rec_ptr, rec_which, rec_coef,
):  # fmt: skip
    """Take steps until `t_end`, a full record, a spent budget, or a need for coordinates that are not loaded.

    Carried on from call to call: ``clock`` = [t, its rounding error, proposed step, last error, time since the
    reference], ``z`` with its rounding error ``z_low``, ``place`` (exponents, made from z; or, for ``power`` > 0, the
    distances to infinity, which z cannot hold), ``nu`` (only with coordinates outside), and
    ``counts`` = [steps, rejected, nfev, factorisations, records, recorded entries].

    Of the coordinates that are not loaded only a bound is known: their exponents were ``out_exponent`` at
    ``nu_ref`` and grow by ``out_rate`` along ``rate_ref``, give or take ``out_reach`` times the distance of nu
    from that straight line.
    """
    w = len(z)
    K = logc.shape[0]
    r = AT.shape[1]
    grams = G.shape[0] == w
    n_out = out_exponent.shape[1]

    which = np.empty(w, np.int64)
    previous = np.full(w, -1, np.int64)
    m_previous = np.int64(-1)
    alive = np.zeros(w, np.bool_)
    forced = np.zeros(w, np.bool_)
    level, gain = np.empty(w), np.empty(w)
    for i in range(w):
        # An exponential is a weight squared: its relative error is half the slope times that of z.
        gain[i] = 0.0
        for k in range(K):
            if logc[k, i] > -np.inf:
                gain[i] = max(gain[i], 0.5 * abs(slope[k, i]))
        level[i] = math.log(_NEGLIGIBLE * tol) - math.log(max(reach[i], 1e-300))

    narrow = min(w, 2 * r) if grams else 0
    GS = np.empty((narrow, narrow))
    size_M = max(narrow, r) if (w > narrow) else narrow
    M = np.empty((size_M, size_M))
    AS = np.empty((w if w > narrow else 0, r))
    U = np.empty((_STAGES, w))
    inverse = np.empty(size_M)
    F, move, dz_all, straight, beta_0 = np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w)
    dz, beta, D, bt = np.zeros(w), np.empty(w), np.empty(w), np.empty(w)
    root, v, x, gv, ft = np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w)
    total, inner, c_sum = np.empty(w), np.empty(w), np.empty(w)
    work, half, nu_new = np.empty(r), np.empty(r), np.empty(r)

    known = False  # are base and F up to date
    fresh = True  # no step taken since the call began
    rejections = 0
    steps_here = 0
    while True:
        t = clock[0]
        left = (t_end - t) - clock[1]
        if left <= 0.0:
            return COMPLETED
        if steps_here >= max_steps:
            return BUDGET
        if counts[4] >= len(rec_h) or counts[5] + w > len(rec_which):
            return FULL
        longest = math.log(left)

        # ---- who counts, and how far may the step reach (np.int64: a literal would compile every helper twice)
        if not known:
            m = np.int64(0)
            for i in range(w):
                top = -np.inf
                for k in range(K):
                    if power == 0:
                        place[k, i] = (
                            ((logc[k, i] + slope[k, i] * z[i]) - decay[k, i] * t)
                            + slope[k, i] * z_low[i] - decay[k, i] * clock[1]
                        )  # fmt: skip
                    top = max(top, _log_size(power, place[k, i]))
                if top + longest > level[i] - 10.0:
                    dz[m] = 0.0
                    which[m] = i
                    m += 1
            _evaluate(power, place, dz, 0.0, sign, slope, decay, squares, series, which, m, beta, D, bt)
            counts[2] += 1
            _move(G, AT, grams, which, m, r, n, beta, work, move)
            for i in range(w):
                F[i] = drive[i] - move[i]
            if power > 0:
                _settle(G, AT, grams, which, m, r, n, beta, F, drive)
            known = True
        h = min(clock[2], left)
        arrival = False
        for i in range(w):
            for k in range(K):
                speed = slope[k, i] * F[i] - decay[k, i]
                if speed <= 0.0 or not place[k, i] < np.inf:
                    continue
                if _grown(power, place[k, i], speed * h) + longest < level[i]:
                    continue
                wait = (_threshold(power, level[i], speed, left) - place[k, i]) / speed
                if power > 0:
                    wait = -wait
                if wait * _growth(power, place[k, i], speed) >= 0.5:
                    if wait < h:
                        h, arrival = wait, True
                else:
                    most = _GROWTH / speed if power == 0 else _APPROACH * place[k, i] / speed
                    if most < h:
                        h, arrival = most, False
        if h >= left * (1.0 - 1e-12):
            h = left
        elif h > 0.5 * left and not arrival:
            h = 0.5 * left
        log_h = math.log(h)
        m = np.int64(0)
        for i in range(w):
            inside = forced[i]
            for k in range(K):
                if inside or not place[k, i] < np.inf:
                    continue
                speed = slope[k, i] * F[i] - decay[k, i]
                now = _log_size(power, place[k, i])
                top = now if speed <= 0.0 else _grown(power, place[k, i], speed * h)
                if top + log_h <= level[i]:
                    continue
                rate = _growth(power, place[k, i], speed)
                span = min(log_h, -math.log(max(abs(rate), 1e-300)))
                if rate > 0.0 and now + span >= level[i] - 0.5:
                    inside = True
                elif power == 0 or not arrival:
                    inside = top + span > level[i] + 0.01
                else:
                    # At the moment of arrival rounding of a long way is not to be read as a size.
                    close = abs(place[k, i] - speed * h) <= _TIE * place[k, i]
                    inside = top + span > level[i] + 0.01 and not close
            alive[i] = inside
            if inside:
                which[m] = i
                m += 1

        # ---- the step
        error = 0.0
        good = True
        if m == 0:
            for i in range(w):
                straight[i] = drive[i]
                dz_all[i] = drive[i] * h
        else:
            still = False
            wide = (not grams) or m > 2 * r
            same = m == m_previous
            if same:
                for s in range(m):
                    if which[s] != previous[s]:
                        same = False
                        break
            if not same:
                for s in range(m):
                    previous[s] = which[s]
                    if wide:
                        AS[s] = AT[which[s]]
                    else:
                        row = G[which[s]]
                        for j in range(s + 1):
                            GS[s, j] = row[which[j]]
                            GS[j, s] = GS[s, j]
                m_previous = m
            for s in range(m):
                dz[s] = 0.0
            _evaluate(power, place, dz, 0.0, sign, slope, decay, squares, series, which, m, beta, D, bt)
            # The motion at constant beta is taken out of the step, exactly: what is left is small on a plateau,
            # where a step of 10^6 would otherwise drown in the rounding of its own length.
            _move(G, AT, grams, which, m, r, n, beta, work, move)
            for i in range(w):
                straight[i] = drive[i] - move[i]
            for s in range(m):
                beta_0[s] = beta[s]
            still = power > 0 and _settle(G, AT, grams, which, m, r, n, beta, straight, drive)
            hg = h * _GAMMA
            order = r if wide else m
            for s in range(m):
                if not D[s] > 0.0:
                    good = False
            if still:
                # What is active has come to rest: the rest of the plateau is a straight line, however long.
                for s in range(m):
                    straight[which[s]] = 0.0
                    total[s] = h * beta_0[s]
                    inner[s] = 0.0
                    for j in range(_STAGES):
                        U[j, s] = 0.0
                for i in range(w):
                    dz_all[i] = straight[i] * h
            elif wide:
                _fill_wide(M, AS, D, hg / n, m, r)
            else:
                for s in range(m):
                    root[s] = math.sqrt(D[s])
                for s in range(m):
                    scale, row, target = hg * root[s], GS[s], M[s]
                    for j in range(s + 1):
                        target[j] = scale * row[j] * root[j]
                    target[s] += 1.0
            if good and not still:
                good = _factor(M, inverse, order)
                if good and order < _SMALL:
                    _invert(M, inverse, order)
                counts[3] += 1
            if good and not still:
                for s in range(m):
                    ft[s] = D[s] * straight[which[s]] + bt[s]
                for stage in range(_STAGES):
                    alpha_h = _ALPHA[stage] * h
                    u = U[stage]
                    if stage > 0:
                        _combine(U, stage, m, v, c_sum)
                        _apply_gram(wide, GS, AS, m, r, n, v, work, gv)
                        for s in range(m):
                            dz[s] = alpha_h * straight[which[s]] - gv[s]
                        _evaluate(
                            power, place, dz, alpha_h, sign, slope, decay, squares, series, which, m, beta, gv, bt
                        )
                        for s in range(m):
                            x[s] = (beta[s] - beta_0[s]) + c_sum[s] / h + h * _GAMMA_SUM[stage] * ft[s]
                    else:
                        for s in range(m):
                            x[s] = h * _GAMMA_SUM[0] * ft[s]
                    if wide:
                        for q in range(r):
                            half[q] = 0.0
                        for s in range(m):
                            value, row = x[s] / n * hg, AS[s]
                            for q in range(r):
                                half[q] += value * row[q]
                        if order < _SMALL:
                            _solve(M, half, work, r)
                        else:
                            _substitute(M, inverse, half, r)
                        for s in range(m):
                            u[s] = hg * (x[s] - D[s] * _dot(AS[s], half, r))
                    else:
                        for s in range(m):
                            u[s] = x[s] / root[s]
                        if order < _SMALL:
                            _solve(M, u, gv, m)
                        else:
                            _substitute(M, inverse, u, m)
                        for s in range(m):
                            u[s] *= hg * root[s]
                counts[2] += _STAGES - 1
                # v now holds the increment at which the last stage was taken
                for s in range(m):
                    inner[s] = v[s] + U[_STAGES - 1, s]
                    total[s] = inner[s] + h * beta_0[s]
                _move(G, AT, grams, which, m, r, n, U[_STAGES - 1], work, move)
                for i in range(w):
                    size = abs(move[i])
                    if power == 0:
                        size *= gain[i]
                    else:
                        # In ln of the weight, as everywhere; and an error made while the weight is small has grown
                        # with it by the time it is 1.
                        near = 1.0 / (power - 2)
                        for k in range(K):
                            near = min(near, place[k, i])
                        size /= (power - 2) * near
                    if not size <= error:  # also catches NaN
                        error = size
                error /= tol
                _move(G, AT, grams, which, m, r, n, inner, work, move)
                for i in range(w):
                    dz_all[i] = straight[i] * h - move[i]
            if not (good and error < np.inf):
                error = np.inf
        if error > 1.0:
            counts[1] += 1
            rejections += 1
            if rejections > _REJECTIONS:
                return NON_FINITE if error == np.inf else STEP_FLOOR
            clock[2] = h * (0.25 if error == np.inf else max(_SHRINK, _SAFETY * error ** (-1.0 / rodas.ORDER)))
            continue

        # ---- was anyone left out who should not have been
        missed = False
        for i in range(w):
            if alive[i]:
                continue
            for k in range(K):
                if not place[k, i] < np.inf:
                    continue
                change = slope[k, i] * dz_all[i] - decay[k, i] * h
                if power > 0 and arrival and abs(place[k, i] - change) <= _TIE * place[k, i]:
                    continue
                top = _grown(power, place[k, i], change)
                if top + log_h <= level[i] + _LATE:
                    continue
                if power > 0:
                    change = _growth(power, max(place[k, i] - change, 1e-300), change)
                if top + log_h - math.log(max(abs(change), 1.0)) > level[i] + _LATE:
                    forced[i] = True
                    missed = True
        if n_out > 0 and not missed:
            distance = 0.0
            since = clock[4] + h
            for q in range(r):
                nu_new[q] = nu[q] + h * b_rows[q]
            for s in range(m):
                value, row = total[s], AT[which[s]]
                for q in range(r):
                    nu_new[q] -= value * row[q]
            for q in range(r):
                distance += (nu_new[q] - nu_ref[q] - since * rate_ref[q]) ** 2
            if _someone_outside(out_exponent, out_rate, out_reach, out_level, since, math.sqrt(distance), log_h):
                if not fresh:
                    return REFRESH
                counts[1] += 1
                rejections += 1
                if rejections > _REJECTIONS:
                    return STEP_FLOOR
                clock[2] = 0.5 * h
                continue
        if missed:
            counts[1] += 1
            rejections += 1
            if rejections > _REJECTIONS:
                return STEP_FLOOR
            if rejections > 3:
                clock[2] = 0.5 * h
            continue

        # ---- accept: record, then move on
        record, entry = counts[4], counts[5]
        for s in range(m):
            rec_which[entry + s] = which[s]
            rec_coef[entry + s, 0] = h * beta_0[s]
            rec_coef[entry + s, 1] = inner[s]
            for row_h in range(3):
                value = 0.0
                for j in range(_STAGES):
                    value += _H[row_h, j] * U[j, s]
                rec_coef[entry + s, 2 + row_h] = value
        counts[4] = record + 1
        counts[5] = entry + m
        rec_ptr[record + 1] = entry + m
        rec_h[record] = h
        if h == left:
            clock[0], clock[1] = t_end, 0.0
        else:
            clock[0], clock[1] = _add(t, clock[1], h)
        for i in range(w):
            z[i], z_low[i] = _add(z[i], z_low[i], dz_all[i])
            rec_z[record + 1, i] = z[i]
            rec_rate[record, i] = straight[i]
            forced[i] = False
            if power > 0:
                for k in range(K):
                    if place[k, i] < np.inf:
                        far = place[k, i]
                        place[k, i] = far - slope[k, i] * dz_all[i]
                        if arrival and not alive[i] and place[k, i] < 0.5 * far:
                            goal = _threshold(power, level[i], slope[k, i] * straight[i], left)
                            if abs(place[k, i] - goal) <= _TIE * far:
                                # The way here was longer than floats can tell from the goal.
                                place[k, i] = goal
                    rec_place[record + 1, k, i] = place[k, i]
        if n_out > 0:
            clock[4] += h
            for q in range(r):
                nu[q] = nu_new[q]
                rec_nu[record + 1, q] = nu[q]
        rec_t[record + 1] = clock[0]
        counts[0] += 1
        steps_here += 1
        if m > 0:
            quiet = error < _QUIET
            error = max(error, 1e-20)
            factor = _SAFETY * error ** (-(1.0 / rodas.ORDER - 0.75 * _BETA)) * clock[3] ** _BETA
            most = _GROW_QUIET if quiet else _GROW
            factor = min(most, max(_SHRINK, factor))
            if rejections > 0:
                factor = min(factor, 1.0)
            proposal = h * factor
            if h < clock[2] and factor >= 1.0:
                # A step cut short for another reason than accuracy does not shorten the proposal.
                proposal = max(proposal, min(clock[2], h * most))
            clock[2] = proposal
            clock[3] = max(error, 1e-4)
        rejections = 0
        known = False
        fresh = False


@njit(cache=True, nogil=True)
def speeds(
    gram, columns, n, power, logc, sign, slope, decay, squares, series,
    t, h, z, rate, places, pointer, which, coefficients, nodes, out,
):  # fmt: skip
    """``|d beta/dt|`` at the positions `nodes` of every step, on the coordinates that the step carried."""
    S, w = len(h), z.shape[1]
    grams = gram.shape[0] == w
    K, r = logc.shape[0], columns.shape[1]
    place, moved = np.empty((K, w)), np.empty(w)
    dz, beta, D, bt, pull = np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w)
    index, work = np.empty(w, np.int64), np.empty(r)
    GS, AS = np.empty((w if grams else 0, w)), np.empty((0 if grams else w, r))
    for step in range(S):
        first = pointer[step]
        m = pointer[step + 1] - first
        for s in range(m):
            index[s] = which[first + s]
        for s in range(m):
            i = index[s]
            for k in range(K):
                if power == 0:
                    place[k, i] = logc[k, i] + slope[k, i] * z[step, i] - decay[k, i] * t[step]
                else:
                    place[k, i] = places[step, k, i]
            if grams:
                for j in range(m):
                    GS[s, j] = gram[i, index[j]]
            else:
                AS[s] = columns[i]
        for q in range(len(nodes)):
            theta = nodes[q]
            passed = theta * h[step]
            for s in range(m):
                c = coefficients[first + s]
                moved[s] = theta * (c[1] + (1.0 - theta) * (c[2] + theta * (c[3] + theta * c[4])))
            _apply_gram(not grams, GS, AS, m, r, n, moved, work, pull)
            for s in range(m):
                dz[s] = passed * rate[step, index[s]] - pull[s]
            _evaluate(power, place, dz, passed, sign, slope, decay, squares, series, index, m, beta, D, bt)
            # Along the continuous extension, not by the vector field, which a stiff system turns into noise.
            for s in range(m):
                c = coefficients[first + s]
                inner = c[2] + theta * (c[3] + theta * c[4])
                moved[s] = c[1] + (1.0 - 2.0 * theta) * inner + theta * (1.0 - theta) * (c[3] + 2.0 * theta * c[4])
            _apply_gram(not grams, GS, AS, m, r, n, moved, work, pull)
            square = 0.0
            for s in range(m):
                square += (D[s] * (rate[step, index[s]] - pull[s] / h[step]) + bt[s]) ** 2
            out[step, q] = math.sqrt(square)
