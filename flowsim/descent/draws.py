r"""Random numbers for many steps of several runs at once, in vectorised loops.

The random bits are SplitMix64: word j of a run is a bijective hash of ``key + j * gamma`` modulo 2^64, with key and odd
gamma from the run's seed. Being counter-based, no word depends on the one before, and no draw on how
steps are grouped or on other runs. Words become numbers by sums, products, quotients and square
roots alone, which IEEE arithmetic rounds alike on every processor, so that a seed gives the same noise everywhere.
Normal numbers reach 9.4 standard deviations, by 63 bits.

References
----------
Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Box, Muller, "A note on the
generation of random normal deviates", 1958.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowsim.arrays import Array
from flowsim.descent.tiles import aligned, aligned_buffer
from flowsim.network import GaussianNoise, LaplaceNoise, Noise, RademacherNoise, UniformNoise
from flowsim.solvers.compilation import compiled

Words = NDArray[np.uint64]

_GAUSSIAN, _UNIFORM, _RADEMACHER, _LAPLACE = range(4)
_KINDS = {GaussianNoise: _GAUSSIAN, UniformNoise: _UNIFORM, RademacherNoise: _RADEMACHER, LaplaceNoise: _LAPLACE}
#: Numbers processed together; their temporaries stay in the first-level cache.
_CHUNK = 256
#: Least number of bit changes of an increment; others are corrected (Steele et al., section 5).
_FEWEST_CHANGES, _ALTERNATING = 24, 0xAAAAAAAAAAAAAAAA

_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _12, _52, _2, _1 = (np.uint64(shift) for shift in (30, 27, 31, 12, 52, 2, 1))
_UNIT = 2.0**-52
#: The bits of sqrt(1/2): floats are split at odd halves of powers of 2 in the logarithm's scale.
_SPLIT = np.uint64(np.float64(math.sqrt(0.5)).view(np.uint64))
_LN2, _SQRT3, _SQRT_HALF, _EIGHTH = math.log(2.0), math.sqrt(3.0), math.sqrt(0.5), math.pi / 4.0 / 2.0**63
#: Polynomials in s^2 and a^2, the lowest power first, through Chebyshev points: (2 atanh(s) - 2 s) / s^3 for s up to
#: 3 - sqrt(8), (sin(a) - a) / a^3 and (cos(a) - 1 + a^2 / 2) / a^4 for a up to pi/4. Their errors are below rounding.
_L0, _L1, _L2, _L3, _L4, _L5, _L6 = (
    0.666666666666667, 0.39999999999899444, 0.2857142862600327, 0.22222211130259878, 0.18182889455674947,
    0.15331710618210773, 0.14616585424888623,
)  # fmt: skip
_S0, _S1, _S2, _S3, _S4, _S5 = (
    -0.16666666666666666, 0.008333333333330948, -0.00019841269836756774, 2.7557316101617874e-06,
    -2.505113165023518e-08, 1.5918115263265974e-10,
)  # fmt: skip
_C0, _C1, _C2, _C3, _C4, _C5 = (
    0.041666666666666664, -0.0013888888888887398, 2.480158729876456e-05, -2.7557317271145144e-07,
    2.087614614655861e-09, -1.1382623647474604e-11,
)  # fmt: skip


class Draws:
    """Independent noise at every step, of unit or given standard deviations, for several runs.

    `seeds`: one for each run; `stds` (m,): standard deviation of each of the numbers a run draws in a step.
    """

    def __init__(self, noise: Noise, seeds: Sequence[np.random.SeedSequence], stds: Array) -> None:
        self.noise, self.lanes, self.stds = noise, len(seeds), aligned(np.repeat(stds, len(seeds)))
        self.kind = _KINDS.get(type(noise))
        if self.kind is None:  # a custom distribution
            self._generators = [np.random.default_rng(seed) for seed in seeds]
            return
        keys, gammas = np.array([_key_and_increment(seed) for seed in seeds], dtype=np.uint64).T
        size = len(stds) + len(stds) % 2  # normals come in pairs
        with np.errstate(over="ignore"):
            self._counter = aligned((keys + np.arange(size, dtype=np.uint64)[:, None] * gammas).ravel())
            self._stride = aligned(np.tile(np.uint64(size) * gammas, size))
        self._buffer = np.empty((0, len(self.stds)))

    def block(self, steps: int) -> Array:
        """The next numbers, (steps, m * lanes), runs innermost; valid until the next call."""
        if self.kind is None:
            shape = steps, len(self.stds) // self.lanes
            drawn = np.stack([self.noise.draw(generator, shape) for generator in self._generators], axis=-1)
            return drawn.reshape(steps, -1) * self.stds
        if len(self._buffer) < steps:  # allocating memory would cost more than the numbers
            self._buffer = np.empty((steps, len(self.stds)))
        out = self._buffer[:steps]
        _fill(self.kind, self._counter, self._stride, self.stds, out)
        return out


def _key_and_increment(seed: np.random.SeedSequence) -> tuple[int, int]:
    key, gamma = (int(word) for word in seed.generate_state(2, np.uint64))
    gamma |= 1
    if (gamma ^ gamma >> 1).bit_count() < _FEWEST_CHANGES:
        gamma ^= _ALTERNATING
    return key, gamma


@compiled()
def _words(counter, stride, out):
    """Hash the counters into random words, and advance them."""
    for i in range(out.size):
        z = counter[i]
        counter[i] = z + stride[i]
        z = (z ^ (z >> _30)) * _FIRST
        z = (z ^ (z >> _27)) * _SECOND
        out[i] = z ^ (z >> _31)


@compiled()
def _minus_logs(words, out):
    """``-ln u`` for u = (k + 1/2) / 2^63, k the upper 63 bits."""
    for i in range(words.size):
        bits = np.float64(np.float64(np.int64(words[i] >> _1)) + 0.5).view(np.uint64)
        exponent = np.int64(bits - _SPLIT) >> np.int64(52)
        mantissa = np.uint64(bits - (np.uint64(exponent) << _52)).view(np.float64)
        s = (mantissa - 1.0) / (mantissa + 1.0)
        z = s * s
        zz = z * z
        # In pairs, for instruction-level parallelism.
        tail = ((_L0 + _L1 * z) + zz * (_L2 + _L3 * z)) + (zz * zz) * ((_L4 + _L5 * z) + zz * _L6)
        out[i] = (63.0 - np.float64(exponent)) * _LN2 - (2.0 * s + (s * z) * tail)


@compiled()
def _turn(words, x, y):
    """Two independent normal numbers from -ln u: a point of radius sqrt(-2 ln u) at a uniform angle."""
    for i in range(words.size):
        # Two bits for the signs, the others for an angle a from -pi/4 to pi/4: the point lies at pi/4 + a.
        radius = math.sqrt(x[i])
        a = np.float64(np.int64(words[i] << _2)) * _EIGHTH
        z = a * a
        zz = z * z
        sine = a + (a * z) * ((_S0 + _S1 * z) + zz * ((_S2 + _S3 * z) + zz * (_S4 + _S5 * z)))
        cosine = (1.0 - 0.5 * z) + zz * ((_C0 + _C1 * z) + zz * ((_C2 + _C3 * z) + zz * (_C4 + _C5 * z)))
        x[i] = math.copysign(radius * (cosine - sine), np.float64(np.int64(words[i])))
        y[i] = math.copysign(radius * (cosine + sine), np.float64(np.int64(words[i] << _1)))


@compiled()
def _scaled(stds, x, out):
    for i in range(out.size):
        out[i] = stds[i] * x[i]


@compiled()
def _fill(kind, counter, stride, stds, out):
    steps, size = out.shape
    half = counter.size // 2
    first, second = aligned_buffer(_CHUNK).view(np.uint64), aligned_buffer(_CHUNK).view(np.uint64)
    x, y = aligned_buffer(_CHUNK), aligned_buffer(_CHUNK)
    for k in range(steps):
        row = out[k]
        span = half if kind == _GAUSSIAN else size
        for start in range(0, span, _CHUNK):
            count = min(_CHUNK, span - start)
            here = slice(start, start + count)
            _words(counter[here], stride[here], first[:count])
            if kind == _GAUSSIAN:
                later = slice(half + start, half + start + count)
                _words(counter[later], stride[later], second[:count])
                _minus_logs(first[:count], x[:count])
                _turn(second[:count], x[:count], y[:count])
                later = slice(half + start, min(half + start + count, size))
                _scaled(stds[later], y, row[later])
            elif kind == _UNIFORM:
                for i in range(count):
                    x[i] = _SQRT3 * (2.0 * ((np.float64(np.int64(first[i] >> _12)) + 0.5) * _UNIT) - 1.0)
            elif kind == _RADEMACHER:
                for i in range(count):
                    x[i] = 1.0 - 2.0 * np.float64(np.int64(first[i] >> np.uint64(63)))
            else:
                # The lowest bit is independent of those used for the logarithm.
                _minus_logs(first[:count], x[:count])
                for i in range(count):
                    x[i] *= _SQRT_HALF * (1.0 - 2.0 * np.float64(np.int64(first[i] & _1)))
            _scaled(stds[here], x, row[here])
