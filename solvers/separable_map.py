"""The monotone map from z to beta of :mod:`flowsim.solvers.separable`, one coordinate or many, in compiled loops."""

from __future__ import annotations

import math

import numpy as np

from flowsim.solvers.compilation import FAST, bare

__all__ = [
    "beta_of_products",
    "beta_of_terms",
    "evaluate", "evaluate_terms",
    "exponential",
    "gather_terms",
    "grown",
    "growth",
    "log_size",
    "product_and_slope",
    "threshold",
]  # fmt: skip

#: Exponentials smaller than exp(-_BLIND) times the largest of their coordinate are rounding ...
_BLIND = 40.0
#: ... and stay so during a step that moves none by more than this.
_MARGIN = 20.0

#: The series of a product in m^2/x^2 is used up to here, its Newton iteration in ln x so often.
_SERIES = 0.1
_NEWTON = 4

#: exp is taken of exponents up to this size; what lies beyond rejects the step by its error.
_LARGEST = 700.0
_LOG2_E = 1.4426950408889634
#: Adding it rounds to an integer, which then stands in the low bits.
_ROUND = 6755399441055744.0
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13 = (1.0 / math.factorial(k) for k in range(2, 14))


@bare(fastmath={"contract"}, inline="always")
def exponential(scratch, bits, mp):
    """scratch[2] = exp(scratch[0]), correct to 1 unit in the last place, in loops without branches that vectorise.

    ``exp(x) = 2^k exp(r)``, ``|r| <= ln(2)/2``, the second factor by its Taylor polynomial and the first by adding k
    to the exponent bits. ``bits`` are the bits of `scratch`.
    """
    for i in range(mp):
        y = min(max(scratch[0, i], -_LARGEST), _LARGEST)
        shifted = y * _LOG2_E + _ROUND
        k = shifted - _ROUND
        r = (y - k * _LN2_HIGH) - k * _LN2_LOW
        tail = _C8 + r * (_C9 + r * (_C10 + r * (_C11 + r * (_C12 + r * _C13))))
        tail = 1.0 + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * (_C7 + r * tail))))))
        scratch[1, i] = shifted
        scratch[2, i] = 1.0 + r * tail
    for i in range(mp):
        bits[2, i] += bits[1, i] << 52


@bare(inline="always")
def gather_terms(place, sign, slope, decay, which, m, mp, terms):
    """The exponentials of the coordinates `which` that matter, the first of each in layer 0, and how many layers.

    ``terms`` = [place, sign, slope, decay], each (K, width), padded with absent ones.
    """
    K = place.shape[0]
    several = False
    for s in range(m):
        i, best = which[s], 0
        for k in range(1, K):
            if place[k, i] > place[best, i]:
                best = k
        for k in range(K):
            if k != best and place[k, i] > place[best, i] - _BLIND - _MARGIN:
                several = True
        terms[0, 0, s], terms[1, 0, s] = place[best, i], sign[best, i]
        terms[2, 0, s], terms[3, 0, s] = slope[best, i], decay[best, i]
    for s in range(m, mp):
        terms[0, 0, s] = terms[1, 0, s] = terms[2, 0, s] = terms[3, 0, s] = 0.0
    if not several:
        return 1
    layers = 1
    for s in range(m):
        i, layer, largest = which[s], 0, terms[0, 0, s]
        for k in range(K):
            if place[k, i] > largest - _BLIND - _MARGIN:
                terms[0, layer, s], terms[1, layer, s] = place[k, i], sign[k, i]
                terms[2, layer, s], terms[3, layer, s] = slope[k, i], decay[k, i]
                layer += 1
        layers = max(layers, layer)
        for k in range(max(layer, 1), K):
            terms[0, k, s] = terms[1, k, s] = terms[2, k, s] = terms[3, k, s] = 0.0
    for k in range(1, layers):
        for s in range(m, mp):
            terms[0, k, s] = terms[1, k, s] = terms[2, k, s] = terms[3, k, s] = 0.0
    return layers


@bare(fastmath={"contract"})
def beta_of_terms(terms, layers, dz, dt, mp, scratch, bits, beta):
    """beta moved by (dz, dt) from where the terms were gathered.

    Increments rather than positions: z may be 10^6 and its rounding would swamp the differences of the stages.
    """
    for k in range(layers):
        for s in range(mp):
            scratch[0, s] = terms[0, k, s] + terms[2, k, s] * dz[s] - terms[3, k, s] * dt
        exponential(scratch, bits, mp)
        if k == 0:
            for s in range(mp):
                beta[s] = terms[1, k, s] * scratch[2, s]
        else:
            for s in range(mp):
                beta[s] += terms[1, k, s] * scratch[2, s]


@bare(fastmath=FAST)
def beta_of_products(power, log_unit, place, dz, sign, slope, squares, series, which, m, beta, D):
    """beta and d beta/dz of products, moved by dz from where their distances to infinity were taken."""
    for s in range(m):
        i = which[s]
        k = 0
        if place.shape[0] > 1 and place[1, i] < place[0, i]:
            k = 1
        beta[s], D[s] = product_and_slope(power, log_unit, place[k, i] - slope[k, i] * dz[s], squares, series, i)
        beta[s] *= sign[k, i]


@bare(fastmath={"contract"})
def evaluate_terms(place, dz, dt, sign, slope, decay, which, m, mp, terms, scratch, bits, beta, D, by_time):
    """beta, d beta/dz and d beta/dt of the coordinates `which`, moved by (dz, dt) from where ``place`` was taken.

    Returns the layers of `terms`, which are gathered on the way.
    """
    for s in range(mp):
        beta[s] = D[s] = by_time[s] = 0.0
    layers = gather_terms(place, sign, slope, decay, which, m, mp, terms)
    for k in range(layers):
        for s in range(mp):
            scratch[0, s] = terms[0, k, s] + terms[2, k, s] * dz[s] - terms[3, k, s] * dt
        exponential(scratch, bits, mp)
        for s in range(mp):
            value = terms[1, k, s] * scratch[2, s]
            beta[s] += value
            D[s] += terms[2, k, s] * value
            by_time[s] -= terms[3, k, s] * value
    return layers


@bare()
def evaluate(
    power, log_unit, place, dz, dt, sign, slope, decay, squares, series, which, m, mp, terms, scratch, bits, beta, D,
    by_time,
):  # fmt: skip
    """The same for either map."""
    if power == 0:
        return evaluate_terms(place, dz, dt, sign, slope, decay, which, m, mp, terms, scratch, bits, beta, D, by_time)
    for s in range(mp):
        beta[s] = D[s] = by_time[s] = 0.0
    beta_of_products(power, log_unit, place, dz, sign, slope, squares, series, which, m, beta, D)
    return 1


@bare()
def product_and_slope(L, log_unit, distance, squares, series, i):
    r"""beta and d beta/dz of a product of L weights whose smallest, x, is ``distance`` away from infinity in z.

    The others are sqrt(x^2 + m_j^2), and ``distance = int_x^inf dx / prod_j sqrt(x^2 + m_j^2)``, here as a series in
    m^2/x^2; z and the distance in units of exp(log_unit). Zero outside its range, where no coordinate that counts may
    be: a step that has one there is rejected. NaN beyond the singularity.
    """
    if not distance > 0.0:
        return np.nan, np.nan
    # How much larger x is in the units of z.
    scale = math.exp(log_unit / (L - 2)) if log_unit > 0.0 else 1.0
    x = ((L - 2) * distance) ** (-1.0 / (L - 2)) / scale
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
            x *= 1.0 + (total - distance * (x * scale) ** (L - 2)) * math.sqrt(root)
    product, growth = x ** (L - 1), 1.0
    for j in range(squares.shape[0]):
        ratio = squares[j, i] / (x * x)
        product *= math.sqrt(1.0 + ratio)
        growth += 1.0 / (1.0 + ratio)
    return x * product, product * product * growth * scale ** (L - 2)


@bare()
def log_size(power, log_unit, place):
    """ln |beta| of one branch at its place: the exponent itself, or a power of the distance to infinity."""
    if power == 0:
        return place
    if not place > 0.0:
        return np.inf
    return -power / (power - 2.0) * (math.log((power - 2.0) * place) + log_unit)


@bare()
def growth(power, place, speed):
    """d ln |beta| / dt of a branch whose place moves with `speed` = slope F - decay."""
    if power == 0:
        return speed
    return power / (power - 2.0) * speed / place


@bare()
def grown(power, log_unit, place, change):
    """ln |beta| of a branch once its place has moved by `change`."""
    return place + change if power == 0 else log_size(power, log_unit, place - change)


@bare()
def threshold(power, log_unit, level, speed, left):
    """The place at which a branch moving with `speed` begins to count: beta over its rate of growth at the level."""
    if power == 0:
        return level + math.log(max(speed, 1.0 / left))
    p = power / (power - 2.0)
    # ((L-2) Y unit)^-p Y / (p speed) = exp(level)
    return math.exp((level + math.log(p * speed) + p * (math.log(power - 2.0) + log_unit)) / (1.0 - p))
