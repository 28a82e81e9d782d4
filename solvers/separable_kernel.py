r"""The compiled loop behind :mod:`flowsim.solvers.separable`: one call takes many steps.

In the unknowns :math:`B_i = \int \beta_i\,dt` of the coordinates that are not negligible, the flow reads

.. math:: B' = \beta(z, t), \qquad z = z_0 + (t - t_0)\, c - G B, \qquad G = A^\top A / n,\; c = A^\top b / n,

so that a stage u of the method and what it does to z, :math:`\kappa = G u`, come from one symmetric matrix:

.. math:: \Big(\frac{I}{h\gamma} + D G\Big) u = x \quad\Longrightarrow\quad
          \kappa = h\gamma\, S x, \quad u = h\gamma\, (x - D \kappa), \quad S = (G^{-1} + h\gamma D)^{-1}.

A step costs S once, in the number of such coordinates, or a Cholesky factor of
:math:`I + h\gamma\, A D A^\top / n` in the number of rows where that is smaller. All other
coordinates move by the same B, and where nothing is active the motion is a straight line, taken in one step.

A growing exponential is invisible until it is there, so a step ends where a negligible coordinate would begin
to count, a coordinate is taken along as soon as it does, and the step is repeated if one was left out wrongly.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers import rodas
from flowsim.solvers.compilation import FAST, bare, compiled, padded
from flowsim.solvers.compiled_algebra import (
    dot,
    factor,
    fill_wide,
    invert,
    move,
    move_two,
    multiply,
    resolve,
    substitute,
)
from flowsim.solvers.loop import BUDGET, COMPLETED, FULL, NON_FINITE, REFRESH, STEP_FLOOR
from flowsim.solvers.separable_map import (
    beta_of_products,
    beta_of_terms,
    evaluate,
    grown,
    growth,
    log_size,
    reach_of,
    threshold,
)

__all__ = ["advance", "log_level", "speeds", "states"]

_A, _C, _H = rodas.A, rodas.C, rodas.H
_ALPHA, _GAMMA_SUM, _GAMMA = rodas.ALPHA, rodas.GAMMA_SUM, rodas.GAMMA
_STAGES = rodas.STAGES

#: A coordinate counts once its effect on log weights over a step exceeds this part of the tolerance.
_NEGLIGIBLE = 0.05
#: Slack, in units of ln, with which a coordinate left out is allowed to end a step above that level.
_LATE = math.log(4.0)
#: e-foldings a coordinate that counts may grow in one step.
_GROWTH = 4.0

#: A power blows up at distance 0: of that distance one step may cover so much.
_APPROACH = 0.6
#: An active coordinate whose rate is below so many roundings of its terms stands still.
_STILL = 64 * np.finfo(np.float64).eps
#: Arrivals that differ by less than this, relatively, are one.
_TIE = 1e-13

#: No step is asked to be more accurate than so many roundings of the exponents.
_ROUNDINGS = 4.0 * np.finfo(np.float64).eps

_SAFETY = 0.9
_SHRINK, _GROW = 0.2, 30.0
#: When a step has next to no error nothing happens, and the next may be this much longer.
_QUIET, _GROW_QUIET = 1e-8, 1e4
_BETA = 0.04
_REJECTIONS = 40
#: Up to this size S is formed, and a factor inverted; beyond, the work of it outweighs what the solves save.
_SMALL = 64

#: What solves the stages: S itself, a factor in the coordinates, or a factor in the rows.
_BY_MATRIX, _BY_COORDINATES, _BY_ROWS = range(3)


@bare(fastmath=FAST)
def _combine(U, kappa, stage, mp, dz, c_sum):
    """``sum_j a_ij kappa_j`` and ``sum_j c_ij u_j``."""
    for s in range(mp):
        dz[s] = 0.0
        c_sum[s] = 0.0
    for j in range(stage):
        a_j, c_j = _A[stage, j], _C[stage, j]
        for s in range(mp):
            dz[s] += a_j * kappa[j, s]
            c_sum[s] += c_j * U[j, s]


@bare(fastmath=FAST)
def _interpolate(U, mp, out):
    """The coefficients ``sum_j h_lj u_j`` of the continuous extension."""
    for power in range(len(out)):
        for s in range(mp):
            out[power, s] = 0.0
        for j in range(len(U)):
            h_j = _H[power, j]
            for s in range(mp):
                out[power, s] += h_j * U[j, s]


@bare(fastmath=FAST)
def _prepare(way, GS, AQ, D, hg, n, m, mp, r, weight, S, M, inverse, first, second):
    """What the stages of a step are solved with; False if there is no such thing."""
    if way == _BY_MATRIX:
        for s in range(m):
            for j in range(mp):
                S[s, j] = GS[s, j]
        for s in range(m):
            weight[s] = hg * D[s]
        resolve(S, weight, m, mp, first, second)
        return True
    if way == _BY_ROWS:
        fill_wide(M, AQ, D, hg / n, mp, r, first)
        return invert(M, r, padded(r), second) if r < _SMALL else factor(M, inverse, r)
    for s in range(m):
        weight[s] = math.sqrt(D[s])
    for s in range(m):
        scale = hg * weight[s]
        for j in range(s + 1):
            M[s, j] = scale * GS[s, j] * weight[j]
        M[s, s] += 1.0
    return factor(M, inverse, m)


@bare(fastmath=FAST)
def _solve_stage(way, GS, AQ, D, hg, n, m, mp, r, weight, S, M, inverse, half, x, stage, U, kappa):
    """u and kappa of one stage from its right-hand side x."""
    if way == _BY_COORDINATES:
        for s in range(m):
            x[s] = x[s] / weight[s] if weight[s] > 0.0 else 0.0
        substitute(M, inverse, x, m)
        for s in range(m):
            x[s] *= hg * weight[s]
            U[stage, s] = x[s]
        multiply(GS, x, m, mp, 1.0, kappa, stage)
        return
    if way == _BY_MATRIX:
        multiply(S, x, m, mp, hg, kappa, stage)
    else:
        rp = padded(r)
        for q in range(r):
            total = 0.0
            for s in range(mp):
                total += AQ[q, s] * x[s]
            half[0, q] = total * (hg / n)
        solved = 0
        if r < _SMALL:
            solved = 1
            for p in range(r):
                total = 0.0
                for q in range(rp):
                    total += M[p, q] * half[0, q]
                half[1, p] = total
        else:
            substitute(M, inverse, half[0], r)
        for s in range(mp):
            kappa[stage, s] = 0.0
        for q in range(r):
            value = half[solved, q]
            for s in range(mp):
                kappa[stage, s] += value * AQ[q, s]
    for s in range(mp):
        U[stage, s] = hg * (x[s] - D[s] * kappa[stage, s])


@bare(fastmath=FAST)
def _apply_gram(wide, GS, AS, m, r, n, v, work, out):
    """out = G v on the active coordinates."""
    if wide:
        for q in range(r):
            work[q] = 0.0
        for s in range(m):
            value = v[s] / n
            for q in range(r):
                work[q] += value * AS[s, q]
        for s in range(m):
            total = 0.0
            for q in range(r):
                total += AS[s, q] * work[q]
            out[s] = total
    else:
        for s in range(m):
            total = 0.0
            for j in range(m):
                total += GS[s, j] * v[j]
            out[s] = total


@bare()
def _settle(G, AT, grams, which, m, n, beta, D, rate, drive):
    """Rates that are rounding of the terms they are made of become zero; True if none of the active moves beta."""
    settled = True
    for s in range(m):
        i = which[s]
        if rate[i] == 0.0 or D[s] == 0.0:
            continue
        scale = abs(drive[i])
        for j in range(m):
            product = G[i, which[j]] if grams else dot(AT, i, AT, which[j], AT.shape[1]) / n
            scale += abs(product * beta[j])
        if abs(rate[i]) <= _STILL * scale:
            rate[i] = 0.0
        else:
            settled = False
    return settled


@bare()
def _add(high, low, increment):
    """(high, low) + increment, with low the part that does not fit into high."""
    step = increment + low
    result = high + step
    return result, step - (result - high)


@bare(fastmath=FAST)
def _someone_outside(out_exponent, out_rate, out_reach, out_level, since, distance, log_h):
    """Could a coordinate that is not loaded have come to count?"""
    worst = -np.inf
    for k in range(out_exponent.shape[0]):
        for i in range(len(out_level)):
            above = out_exponent[k, i] + out_rate[k, i] * since + out_reach[k, i] * distance - out_level[i]
            worst = max(worst, above)
    return worst + log_h > 0.0


def log_level(reach, tol):
    """ln of beta times the length of the step at which a coordinate begins to count."""
    return math.log(_NEGLIGIBLE * tol) - np.log(np.maximum(reach, 1e-300))


@bare()
def _exponents(logc, slope, decay, z, z_low, t, t_low, place, top):
    """The exponents at (z, t), each given by two numbers, and the largest of every coordinate."""
    w = len(z)
    for i in range(w):
        top[i] = -np.inf
    for k in range(logc.shape[0]):
        for i in range(w):
            exponent = (
                ((logc[k, i] + slope[k, i] * z[i]) - decay[k, i] * t) + slope[k, i] * z_low[i] - decay[k, i] * t_low
            )
            place[k, i] = exponent
            top[i] = exponent if exponent > top[i] else top[i]


@bare()
def _near(power, place, slope, decay, F, h, longest, level, ahead, near_k, near_i):
    """The exponentials (or sides) that could count before h has passed, moving as they do now; how many."""
    w = len(F)
    count = 0
    if power > 0:
        for i in range(w):
            for k in range(place.shape[0]):
                if place[k, i] < np.inf:
                    near_k[count], near_i[count] = k, i
                    count += 1
        return count
    for k in range(place.shape[0]):
        for i in range(w):
            ahead[k, i] = place[k, i] + max(slope[k, i] * F[i] - decay[k, i], 0.0) * h + longest - level[i]
        for i in range(w):
            if ahead[k, i] >= 0.0:
                near_k[count], near_i[count] = k, i
                count += 1
    return count


@bare()
def _overdue(place, slope, decay, dz, h, log_h, level, alive):
    """Has an exponential of a coordinate left out come to count?"""
    count = 0
    for k in range(place.shape[0]):
        for i in range(len(dz)):
            late = place[k, i] + (slope[k, i] * dz[i] - decay[k, i] * h) + log_h > level[i] + _LATE
            count += late and not alive[i]
    return count > 0


@compiled()
def advance(
    G, AT, n, drive, powers, logc, sign, slope, decay, reach, tol, t_end, max_steps,
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
    power, log_unit = powers.power, powers.log_unit
    grams = G.shape[0] == w
    n_out = out_exponent.shape[1]

    which = np.empty(w, np.int64)
    previous = np.full(w, -1, np.int64)
    m_previous = np.int64(-1)
    alive = np.zeros(w, np.bool_)
    forced = np.zeros(w, np.bool_)
    level, gain = np.empty(w), np.empty(w)
    # Exponents, and z with them, are known to roundings of the terms they are sums of.
    largest = fastest = 0.0
    for i in range(w):
        # An exponential is a weight squared: its relative error is half the slope times that of z.
        gain[i] = 0.0
        for k in range(K):
            if logc[k, i] > -np.inf:
                gain[i] = max(gain[i], 0.5 * abs(slope[k, i]))
                largest, fastest = max(largest, abs(logc[k, i])), max(fastest, abs(decay[k, i]))
        level[i] = math.log(_NEGLIGIBLE * tol) - math.log(max(reach[i], 1e-300)) - log_unit

    narrow = min(w, 2 * r) if grams else 0
    wp = padded(w)
    GS = np.empty((narrow, padded(narrow)))
    S = np.empty((min(narrow, _SMALL), padded(min(narrow, _SMALL))))
    size_M = r if w > narrow else 0
    if narrow > _SMALL:
        size_M = max(size_M, narrow)
    M = np.zeros((size_M, padded(size_M)))
    AQ = np.zeros((r if w > narrow else 0, wp))
    inverse = np.empty(size_M)
    # Rows of zeros, so that what stands behind the last active coordinate stays zero or is made so.
    U, kappa = np.zeros((_STAGES, wp)), np.zeros((_STAGES, wp))
    terms, scratch, first, second = np.zeros((4, K, wp)), np.zeros((3, wp)), np.zeros(wp), np.zeros(wp)
    bits = scratch.view(np.int64)
    dense = np.zeros((3, wp))
    dz, beta, D, bt = np.zeros(wp), np.zeros(wp), np.zeros(wp), np.zeros(wp)
    weight, x, ft, c_sum = np.zeros(wp), np.zeros(wp), np.zeros(wp), np.zeros(wp)
    drift, beta_0, inner = np.zeros(wp), np.zeros(wp), np.zeros(wp)
    F, shift, error_shift, dz_all, straight = np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w)
    total, last = np.empty(w), np.empty(wp)
    work, half, nu_new = np.empty(r), np.zeros((2, padded(r))), np.empty(r)
    order_counted, others, beta_counted = np.empty(w, np.int64), np.empty(w, np.int64), np.zeros(wp)
    terms_counted, D_counted, bt_counted = np.zeros((4, K, wp)), np.zeros(wp), np.zeros(wp)
    top, ahead = np.empty(w), np.empty((K, w))
    near_k, near_i = np.empty(K * w, np.int64), np.empty(K * w, np.int64)
    m_counted = np.int64(0)
    layers = layers_counted = 1

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
            if power == 0:
                _exponents(logc, slope, decay, z, z_low, t, clock[1], place, top)
            else:
                for i in range(w):
                    top[i] = -np.inf
                    for k in range(K):
                        top[i] = max(top[i], log_size(powers, k, i, place[k, i]))
            m = np.int64(0)
            for i in range(w):
                if top[i] + longest > level[i] - 10.0:
                    order_counted[m] = i
                    m += 1
            mp = padded(m)
            for s in range(mp):
                dz[s] = 0.0
            layers_counted = evaluate(
                powers, place, dz, 0.0, sign, slope, decay, order_counted, m, mp, terms_counted, scratch, bits,
                beta_counted, D_counted, bt_counted,
            )  # fmt: skip
            m_counted = m
            counts[2] += 1
            move(G, AT, grams, order_counted, m, r, n, beta_counted, work, shift)
            for i in range(w):
                F[i] = drive[i] - shift[i]
            if power > 0:
                _settle(G, AT, grams, order_counted, m, n, beta_counted, D_counted, F, drive)
            known = True
        h = min(clock[2], left)
        arrival = False
        # Only these can come to count within h, however short it turns out to be.
        near = _near(power, place, slope, decay, F, h, longest, level, ahead, near_k, near_i)
        for e in range(near):
            k, i = near_k[e], near_i[e]
            speed = slope[k, i] * F[i] - decay[k, i]
            if power > 0 and speed < 0.0 and place[k, i] < 0.0:
                # On its way back from a critical point of its formula.
                h = min(h, (_APPROACH * abs(place[k, i]) + math.exp(-log_unit)) / -speed)
            if speed <= 0.0 or grown(powers, k, i, place[k, i], speed * h) + longest < level[i]:
                continue
            wait = (threshold(power, log_unit, level[i], speed, left) - place[k, i]) / speed
            if power > 0:
                wait = -wait
            if wait * growth(powers, k, i, place[k, i], speed) >= 0.5:
                if wait < h:
                    h, arrival = wait, True
            else:
                most = (_GROWTH if power == 0 else _APPROACH * reach_of(powers, k, i, place[k, i])) / speed
                if most < h:
                    h, arrival = most, False
        if h >= left * (1.0 - 1e-12):
            h = left
        elif h > 0.5 * left and not arrival:
            h = 0.5 * left
        log_h = math.log(h)
        for i in range(w):
            alive[i] = forced[i]
        for e in range(near):
            k, i = near_k[e], near_i[e]
            if alive[i]:
                continue
            speed = slope[k, i] * F[i] - decay[k, i]
            now = log_size(powers, k, i, place[k, i])
            then = now if speed <= 0.0 else grown(powers, k, i, place[k, i], speed * h)
            if then + log_h <= level[i]:
                continue
            rate = growth(powers, k, i, place[k, i], speed)
            span = log_h if abs(rate) * h <= 1.0 else -math.log(abs(rate))
            if rate > 0.0 and now + span >= level[i] - 0.5:
                alive[i] = True
            elif power == 0 or not arrival:
                alive[i] = then + span > level[i] + 0.01
            else:
                # At the moment of arrival rounding of a long way is not to be read as a size.
                close = abs(place[k, i] - speed * h) <= _TIE * place[k, i]
                alive[i] = then + span > level[i] + 0.01 and not close
        m = np.int64(0)
        for i in range(w):
            if alive[i]:
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
            mp = padded(m)
            if not grams or m > 2 * r:
                way = _BY_ROWS
            elif m <= _SMALL:
                way = _BY_MATRIX
            else:
                way = _BY_COORDINATES
            same = m == m_previous
            if same:
                for s in range(m):
                    if which[s] != previous[s]:
                        same = False
                        break
            if not same:
                for s in range(m):
                    previous[s] = which[s]
                    i = which[s]
                    if way == _BY_ROWS:
                        for q in range(r):
                            AQ[q, s] = AT[i, q]
                    else:
                        for j in range(m):
                            GS[s, j] = G[i, which[j]]
                        for j in range(m, mp):
                            GS[s, j] = 0.0
                if way == _BY_ROWS:
                    for q in range(r):
                        for s in range(m, mp):
                            AQ[q, s] = 0.0
                m_previous = m
            # The motion at constant beta is taken out of the step, exactly: what is left is small on a plateau,
            # where a step of 10^6 would otherwise drown in the rounding of its own length. It is F, without what
            # the coordinates do that were evaluated and do not count.
            rest, found = np.int64(0), np.int64(0)
            for e in range(m_counted):
                i = order_counted[e]
                if alive[i]:
                    for k in range(layers_counted if power == 0 else 0):
                        for part in range(4):
                            terms[part, k, found] = terms_counted[part, k, e]
                    beta_0[found], D[found], bt[found] = beta_counted[e], D_counted[e], bt_counted[e]
                    found += 1
                else:
                    others[rest], beta[rest] = i, beta_counted[e]
                    rest += 1
            layers = layers_counted
            if found < m:
                for s in range(mp):
                    dz[s] = 0.0
                layers = evaluate(
                    powers, place, dz, 0.0, sign, slope, decay, which, m, mp, terms, scratch, bits, beta_0, D, bt,
                )  # fmt: skip
            else:
                for s in range(m, mp):
                    beta_0[s] = D[s] = bt[s] = 0.0
                    for k in range(layers if power == 0 else 0):
                        for part in range(4):
                            terms[part, k, s] = 0.0
            if found == m and rest == 0:
                for i in range(w):
                    straight[i] = F[i]
            elif found == m and power == 0:
                move(G, AT, grams, others, rest, r, n, beta, work, shift)
                for i in range(w):
                    straight[i] = F[i] + shift[i]
            else:
                move(G, AT, grams, which, m, r, n, beta_0, work, shift)
                for i in range(w):
                    straight[i] = drive[i] - shift[i]
            still = power > 0 and _settle(G, AT, grams, which, m, n, beta_0, D, straight, drive)
            hg = h * _GAMMA
            for s in range(m):
                drift[s] = straight[which[s]]
                # At a critical point of its formula a coordinate stands.
                if not (D[s] > 0.0 or (D[s] == 0.0 and beta_0[s] != 0.0)):
                    good = False
            for s in range(m, mp):
                drift[s] = 0.0
            if still:
                # What is active has come to rest: the rest of the plateau is a straight line, however long.
                for s in range(m):
                    total[s] = h * beta_0[s]
                    inner[s] = 0.0
                    for j in range(len(U)):
                        U[j, s] = 0.0
                for i in range(w):
                    dz_all[i] = straight[i] * h
            elif good:
                good = _prepare(way, GS, AQ, D, hg, n, m, mp, r, weight, S, M, inverse, first, second)
                counts[3] += 1
            if good and not still:
                for s in range(mp):
                    ft[s] = D[s] * drift[s] + bt[s]
                    x[s] = h * _GAMMA_SUM[0] * ft[s]
                for stage in range(len(U)):
                    alpha_h = _ALPHA[stage] * h
                    if stage > 0:
                        _combine(U, kappa, stage, mp, dz, c_sum)
                        for s in range(mp):
                            dz[s] = alpha_h * drift[s] - dz[s]
                        if power > 0:
                            beta_of_products(powers, place, dz, sign, slope, which, m, beta, bt)
                        else:
                            beta_of_terms(terms, layers, dz, alpha_h, mp, scratch, bits, beta)
                        gamma_h = h * _GAMMA_SUM[stage]
                        for s in range(mp):
                            x[s] = (beta[s] - beta_0[s]) + c_sum[s] / h + gamma_h * ft[s]
                    _solve_stage(way, GS, AQ, D, hg, n, m, mp, r, weight, S, M, inverse, half, x, stage, U, kappa)
                counts[2] += _STAGES - 1
                # The last stage was taken at the weights a of the new state, which has the last u on top.
                for s in range(mp):
                    inner[s] = last[s] = U[_STAGES - 1, s]
                for j in range(len(U) - 1):
                    a_j = _A[_STAGES - 1, j]
                    for s in range(mp):
                        inner[s] += a_j * U[j, s]
                for s in range(m):
                    total[s] = inner[s] + h * beta_0[s]
                move_two(G, AT, grams, which, m, r, n, last, inner, work, error_shift, shift)
                for i in range(w):
                    dz_all[i] = straight[i] * h - shift[i]
                for s in range(m):
                    dz_all[which[s]] = dz[s] - kappa[_STAGES - 1, s]
                for i in range(w):
                    size = abs(error_shift[i])
                    if power == 0:
                        size *= gain[i]
                    else:
                        # In ln of the weight, as everywhere; and an error made while the weight is small has grown
                        # with it by the time it is 1.
                        near = math.exp(-log_unit) / (power - 2)
                        for k in range(K):
                            near = min(near, reach_of(powers, k, i, place[k, i]))
                        size /= (power - 2) * near
                    if not size <= error:  # also catches NaN
                        error = size
                error /= max(tol, _ROUNDINGS * (largest + fastest * t))
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
        for i in range(w if power > 0 or _overdue(place, slope, decay, dz_all, h, log_h, level, alive) else 0):
            if alive[i]:
                continue
            for k in range(K):
                if not place[k, i] < np.inf:
                    continue
                change = slope[k, i] * dz_all[i] - decay[k, i] * h
                if power > 0 and arrival and abs(place[k, i] - change) <= _TIE * place[k, i]:
                    continue
                then = grown(powers, k, i, place[k, i], change)
                if then + log_h <= level[i] + _LATE:
                    continue
                if power > 0:
                    change = growth(powers, k, i, place[k, i] - change, change)
                if then + log_h - math.log(max(abs(change), 1.0)) > level[i] + _LATE:
                    forced[i] = True
                    missed = True
        if n_out > 0 and not missed:
            distance = 0.0
            since = clock[4] + h
            for q in range(r):
                nu_new[q] = nu[q] + h * b_rows[q]
            for s in range(m):
                i, value = which[s], total[s]
                for q in range(r):
                    nu_new[q] -= value * AT[i, q]
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
        if m > 0:
            _interpolate(U, padded(m), dense)
        for s in range(m):
            rec_which[entry + s] = which[s]
            rec_coef[entry + s, 0] = h * beta_0[s]
            rec_coef[entry + s, 1] = inner[s]
            rec_coef[entry + s, 2] = dense[0, s]
            rec_coef[entry + s, 3] = dense[1, s]
            rec_coef[entry + s, 4] = dense[2, s]
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
                            goal = threshold(power, log_unit, level[i], slope[k, i] * straight[i], left)
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


@bare(fastmath=FAST)
def _read(coefficients, first, m, theta, straight, moved):
    """The integral of beta since the start of the step: its straight part and the rest."""
    for s in range(m):
        e = first + s
        inner = coefficients[e, 2] + theta * (coefficients[e, 3] + theta * coefficients[e, 4])
        straight[s] = theta * coefficients[e, 0]
        moved[s] = theta * (coefficients[e, 1] + (1.0 - theta) * inner)


@compiled(fastmath=FAST)
def states(
    gram, columns, n, power, slope, h, z, rate, places, pointer, which, coefficients, b, nu, step, theta, out, out_nu,
):  # fmt: skip
    """z (distances of products) of the loaded coordinates at positions `theta` of steps; nu where it is known."""
    w, r, K = z.shape[1], columns.shape[1], slope.shape[0]
    grams = gram.shape[0] == w
    straight, moved, pull = np.empty(w), np.empty(w), np.empty(w)
    index, work = np.empty(w, np.int64), np.empty(r)
    for row in range(len(step)):
        at = step[row]
        first = pointer[at]
        m = pointer[at + 1] - first
        passed = theta[row] * h[at]
        _read(coefficients, first, m, theta[row], straight, moved)
        for s in range(m):
            index[s] = which[first + s]
        if nu.shape[0] > 0:
            for q in range(r):
                out_nu[row, q] = nu[at, q] + passed * b[q]
            for s in range(m):
                i, total = index[s], straight[s] + moved[s]
                for q in range(r):
                    out_nu[row, q] -= total * columns[i, q]
        if theta[row] == 1.0:
            # Exactly the end of the step.
            for i in range(w):
                if power == 0:
                    out[row, i] = z[at + 1, i]
                for k in range(K if power > 0 else 0):
                    out[row, k * w + i] = places[at + 1, k, i]
            continue
        move(gram, columns, grams, index, m, r, n, moved, work, pull)
        for i in range(w):
            change = passed * rate[at, i] - pull[i]
            if power == 0:
                out[row, i] = z[at, i] + change
            for k in range(K if power > 0 else 0):
                out[row, k * w + i] = places[at, k, i] - slope[k, i] * change


@compiled()
def speeds(
    gram, columns, n, powers, logc, sign, slope, decay, t, h, z, rate, places, pointer, which, coefficients, nodes, out,
):  # fmt: skip
    """``|d beta/dt|`` at the positions `nodes` of every step, on the coordinates that the step carried."""
    S, w, power = len(h), z.shape[1], powers.power
    grams = gram.shape[0] == w
    K, r = logc.shape[0], columns.shape[1]
    place, straight, moved = np.empty((K, w)), np.empty(w), np.empty(w)
    wp = padded(w)
    dz, beta, D, bt, pull = np.zeros(wp), np.zeros(wp), np.zeros(wp), np.zeros(wp), np.zeros(wp)
    terms, scratch = np.zeros((4, K, wp)), np.zeros((3, wp))
    bits = scratch.view(np.int64)
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
                for q in range(r):
                    AS[s, q] = columns[i, q]
        for q in range(len(nodes)):
            theta = nodes[q]
            passed = theta * h[step]
            _read(coefficients, first, m, theta, straight, moved)
            _apply_gram(not grams, GS, AS, m, r, n, moved, work, pull)
            for s in range(m):
                dz[s] = passed * rate[step, index[s]] - pull[s]
            for s in range(m, padded(m)):
                dz[s] = 0.0
            evaluate(
                powers, place, dz, passed, sign, slope, decay, index, m, padded(m), terms, scratch, bits, beta, D, bt,
            )  # fmt: skip
            # Along the continuous extension, not by the vector field, which a stiff system turns into noise.
            for s in range(m):
                e = first + s
                inner = coefficients[e, 2] + theta * (coefficients[e, 3] + theta * coefficients[e, 4])
                slanted = coefficients[e, 3] + 2.0 * theta * coefficients[e, 4]
                moved[s] = coefficients[e, 1] + (1.0 - 2.0 * theta) * inner + theta * (1.0 - theta) * slanted
            _apply_gram(not grams, GS, AS, m, r, n, moved, work, pull)
            # What beta moves in the step: its speed may leave the range of floats once it is squared.
            square = 0.0
            for s in range(m):
                square += (D[s] * (h[step] * rate[step, index[s]] - pull[s]) + h[step] * bt[s]) ** 2
            out[step, q] = math.sqrt(square) / h[step]
