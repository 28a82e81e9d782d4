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
    "reach_of",
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
#: The least distance from infinity.
_NEAREST = 1e-304
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
def beta_of_products(powers, place, dz, sign, slope, which, m, beta, D):
    """beta and d beta/dz of coordinates moved by dz from where their distances to infinity were taken."""
    for s in range(m):
        i = which[s]
        k = 0
        if place.shape[0] > 1 and place[1, i] < place[0, i]:
            k = 1
        beta[s], D[s] = product_and_slope(powers, k, i, place[k, i] - slope[k, i] * dz[s])
        beta[s] *= sign[k, i]
        D[s] *= abs(slope[k, i])


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
def evaluate(powers, place, dz, dt, sign, slope, decay, which, m, mp, terms, scratch, bits, beta, D, by_time):
    """The same for either map."""
    if powers.power == 0:
        return evaluate_terms(place, dz, dt, sign, slope, decay, which, m, mp, terms, scratch, bits, beta, D, by_time)
    for s in range(mp):
        beta[s] = D[s] = by_time[s] = 0.0
    beta_of_products(powers, place, dz, sign, slope, which, m, beta, D)
    return 1


@bare()
def _chebyshev(coefficients, p, x):
    """Clenshaw's sum."""
    b1 = b2 = 0.0
    for n in range(coefficients.shape[1] - 1, 0, -1):
        b1, b2 = coefficients[p, n] + 2.0 * x * b1 - b2, b1
    return coefficients[p, 0] + x * b1 - b2


@bare()
def _read_branch(powers, b, distance):
    """|beta| and its fall with the distance on one table; -1 where the power law holds, NaN beyond the end."""
    low, high = powers.first[b], powers.first[b + 1] - 1
    if high < low or distance >= powers.high[low]:
        return -1.0, -1.0
    if distance < powers.low[high]:
        if powers.rests[b] == 0:
            return np.nan, np.nan
        return _chebyshev(powers.size, high, -1.0), 0.0
    while low < high:
        middle = (low + high) // 2
        if distance >= powers.low[middle]:
            high = middle
        else:
            low = middle + 1
    x = (2.0 * distance - powers.low[low] - powers.high[low]) / (powers.high[low] - powers.low[low])
    return _chebyshev(powers.size, low, x), max(_chebyshev(powers.fall, low, x), 0.0)


@bare()
def product_and_slope(powers, k, i, distance):
    r"""|beta| and its fall with the distance, which is in units of exp(log_unit), on one side of a coordinate.

    Of a product x is the smallest weight, the others are sqrt(x^2 + m_j^2) and
    ``distance = int_x^inf dx / prod_j sqrt(x^2 + m_j^2)``, here as a series in m^2/x^2. Zero outside its range, where
    no coordinate that counts may be: a step that has one there is rejected. NaN beyond the singularity.
    """
    L, log_unit, squares, series = powers.power, powers.log_unit, powers.squares, powers.series
    if powers.branch[k, i] >= 0:
        unit = math.exp(log_unit)
        size, fall = _read_branch(powers, powers.branch[k, i], distance * unit)
        if size != -1.0:
            return size, fall * unit
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
    if squares.shape[0] == 0:
        return x**L, L * x ** (2 * L - 2) * scale ** (L - 2)
    product, growth = x ** (L - 1), 1.0
    for j in range(squares.shape[0]):
        ratio = squares[j, i] / (x * x)
        product *= math.sqrt(1.0 + ratio)
        growth += 1.0 / (1.0 + ratio)
    return x * product, product * product * growth * scale ** (L - 2)


@bare()
def _log_of_power(powers, k, i, place):
    power, log_unit = powers.power, powers.log_unit
    if powers.branch[k, i] >= 0:
        size, _ = _read_branch(powers, powers.branch[k, i], place * math.exp(log_unit))
        if size > 0.0:
            return math.log(size)
    if not place > 0.0:
        return np.inf
    return -power / (power - 2.0) * (math.log((power - 2.0) * place) + log_unit)


@bare()
def reach_of(powers, k, i, place):
    """The distance from infinity of a power law that grows as this side does here."""
    if powers.branch[k, i] >= 0:
        unit = math.exp(powers.log_unit)
        size, fall = _read_branch(powers, powers.branch[k, i], place * unit)
        if size > 0.0:
            return powers.power / (powers.power - 2.0) * size / (fall * unit) if fall > 0.0 else np.inf
    return max(place, _NEAREST)


@bare(inline="always")
def log_size(powers, k, i, place):
    """ln |beta| of one branch at its place: the exponent itself, or what the distance to infinity makes of it."""
    return place if powers.power == 0 else _log_of_power(powers, k, i, place)


@bare(inline="always")
def growth(powers, k, i, place, speed):
    """d ln |beta| / dt of a branch whose place moves with `speed` = slope F - decay."""
    if powers.power == 0:
        return speed
    return powers.power / (powers.power - 2.0) * speed / reach_of(powers, k, i, place)


@bare(inline="always")
def grown(powers, k, i, place, change):
    """ln |beta| of a branch once its place has moved by `change`."""
    return place + change if powers.power == 0 else _log_of_power(powers, k, i, place - change)


@bare()
def threshold(power, log_unit, level, speed, left):
    """The place at which a branch moving with `speed` begins to count: beta over its rate of growth at the level."""
    if power == 0:
        return level + math.log(max(speed, 1.0 / left))
    p = power / (power - 2.0)
    # ((L-2) Y unit)^-p Y / (p speed) = exp(level)
    return math.exp((level + math.log(p * speed) + p * (math.log(power - 2.0) + log_unit)) / (1.0 - p))
