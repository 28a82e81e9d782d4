r"""Numbers drawn for many steps of several runs at once, in loops that compile to vector instructions.

The random bits are SplitMix64: word j of a run is a bijective hash of ``key + j * gamma`` modulo 2^64, with key and odd
gamma from the run's seed. A counter instead of a state: no word waits for the one before, and no draw depends on how
steps are grouped or on what runs beside it. From words to numbers there are only sums, products, quotients and square
roots, which every processor rounds alike, so a seed gives the same noise everywhere.

References
----------
Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Box, Muller, "A note on the
generation of random normal deviates", 1958.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from flowsim.network import GaussianNoise, LaplaceNoise, Noise, RademacherNoise, UniformNoise

__all__ = ["Draws"]

Array = NDArray[np.float64]
Words = NDArray[np.uint64]

_GAUSSIAN, _UNIFORM, _RADEMACHER, _LAPLACE = range(4)
_KINDS = {GaussianNoise: _GAUSSIAN, UniformNoise: _UNIFORM, RademacherNoise: _RADEMACHER, LaplaceNoise: _LAPLACE}
#: Numbers treated together; their intermediate results stay in the first-level cache.
_CHUNK = 256
#: An increment whose bits change too seldom is mended (Steele et al., section 5).
_FEWEST_CHANGES, _ALTERNATING = 24, 0xAAAAAAAAAAAAAAAA

_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _12, _62, _52, _2 = (np.uint64(shift) for shift in (30, 27, 31, 12, 62, 52, 2))
_UNIT = 2.0**-52
#: The bits of sqrt(1/2): floats are split at odd halves of powers of 2 in the logarithm's scale.
_SPLIT = np.uint64(np.float64(math.sqrt(0.5)).view(np.uint64))
_LN2, _SQRT3, _SQRT_HALF, _QUARTER = math.log(2.0), math.sqrt(3.0), math.sqrt(0.5), math.pi / 2.0
#: Taylor coefficients, the highest power first; the first left out is below 1e-18 of the value.
_ATANH = tuple(1.0 / (2 * j + 1) for j in range(11, 0, -1))
_SIN = tuple((-1.0) ** j / math.factorial(2 * j + 1) for j in range(9, 0, -1))
_COS = tuple((-1.0) ** j / math.factorial(2 * j) for j in range(9, 0, -1))


class Draws:
    """Noise of unit or given standard deviations, fresh at every step, for several runs.

    Parameters
    ----------
    noise : Noise
    seeds : sequence of SeedSequence
        One for each run.
    stds : array (m,)
        Standard deviation of each of the numbers a run draws in a step.
    """

    def __init__(self, noise: Noise, seeds: Sequence[np.random.SeedSequence], stds: Array) -> None:
        self.noise, self.lanes, self.stds = noise, len(seeds), np.repeat(stds, len(seeds))
        self.kind = _KINDS.get(type(noise))
        if self.kind is None:  # a distribution of the user's own
            self._generators = [np.random.default_rng(seed) for seed in seeds]
            return
        keys, gammas = np.array([_key_and_increment(seed) for seed in seeds], dtype=np.uint64).T
        size = len(stds) + len(stds) % 2  # normals come in pairs
        with np.errstate(over="ignore"):
            self._counter = (keys + np.arange(size, dtype=np.uint64)[:, None] * gammas).ravel()
            self._stride = np.tile(np.uint64(size) * gammas, size)

    def block(self, steps: int) -> Array:
        """The next numbers, (steps, m * lanes), runs innermost."""
        if self.kind is None:
            shape = steps, len(self.stds) // self.lanes
            drawn = np.stack([self.noise.draw(generator, shape) for generator in self._generators], axis=-1)
            return drawn.reshape(steps, -1) * self.stds
        out = np.empty((steps, len(self.stds)))
        _fill(self.kind, self._counter, self._stride, self.stds, out)
        return out


def _key_and_increment(seed: np.random.SeedSequence) -> tuple[int, int]:
    key, gamma = (int(word) for word in seed.generate_state(2, np.uint64))
    gamma |= 1
    if (gamma ^ gamma >> 1).bit_count() < _FEWEST_CHANGES:
        gamma ^= _ALTERNATING
    return key, gamma


@njit(nogil=True, cache=True, error_model="numpy")
def _words(counter, stride, out):
    """Hash the counters into random words and move them on."""
    for i in range(out.size):
        z = counter[i]
        counter[i] = z + stride[i]
        z = (z ^ (z >> _30)) * _FIRST
        z = (z ^ (z >> _27)) * _SECOND
        out[i] = z ^ (z >> _31)


@njit(nogil=True, cache=True, error_model="numpy")
def _minus_logs(words, exponent, out):
    """``-ln u`` for u = (k + 1/2) / 2^52, k the upper 52 bits."""
    size = words.size
    bits = out.view(np.uint64)
    for i in range(size):
        out[i] = np.float64(np.int64(words[i] >> _12)) + 0.5
    for i in range(size):
        e = np.int64(bits[i] - _SPLIT) >> np.int64(52)
        exponent[i] = np.float64(e)
        bits[i] = bits[i] - (np.uint64(e) << _52)
    for i in range(size):
        s = (out[i] - 1.0) / (out[i] + 1.0)
        square = s * s
        tail = 0.0
        for coefficient in _ATANH:
            tail = (tail + coefficient) * square
        out[i] = (52.0 - exponent[i]) * _LN2 - 2.0 * (s + s * tail)


@njit(nogil=True, cache=True, error_model="numpy")
def _turn(words, x, y):
    """Multiply (x, 0) by a rotation through a uniform angle: (x, y) on a circle of radius x."""
    for i in range(words.size):
        # Two bits for the quadrant, 52 for the angle within it, from -pi/4 to pi/4.
        angle = ((np.float64(np.int64((words[i] << _2) >> _12)) + 0.5) * _UNIT - 0.5) * _QUARTER
        square = angle * angle
        sine = cosine = 0.0
        for coefficient in _SIN:
            sine = (sine + coefficient) * square
        for coefficient in _COS:
            cosine = (cosine + coefficient) * square
        sine, cosine = x[i] * (angle + angle * sine), x[i] * (1.0 + cosine)
        quadrant = np.int64(words[i] >> _62)
        flip = 1.0 - np.float64(quadrant & 2)
        odd = (quadrant & 1) != 0
        x[i] = flip * (-sine if odd else cosine)
        y[i] = flip * (cosine if odd else sine)


@njit(nogil=True, cache=True, error_model="numpy")
def _fill(kind, counter, stride, stds, out):
    steps, size = out.shape
    half = counter.size // 2
    first, second = np.empty(_CHUNK, np.uint64), np.empty(_CHUNK, np.uint64)
    x, y = np.empty(_CHUNK), np.empty(_CHUNK)
    for k in range(steps):
        row = out[k]
        span = half if kind == _GAUSSIAN else size
        for start in range(0, span, _CHUNK):
            count = min(_CHUNK, span - start)
            here = slice(start, start + count)
            _words(counter[here], stride[here], first[:count])
            if kind == _GAUSSIAN:
                there = slice(half + start, half + start + count)
                _words(counter[there], stride[there], second[:count])
                _minus_logs(first[:count], y[:count], x[:count])
                for i in range(count):
                    x[i] = math.sqrt(2.0 * x[i])
                _turn(second[:count], x[:count], y[:count])
                for i in range(min(count, size - half - start)):
                    row[half + start + i] = stds[half + start + i] * y[i]
            elif kind == _UNIFORM:
                for i in range(count):
                    x[i] = _SQRT3 * (2.0 * ((np.float64(np.int64(first[i] >> _12)) + 0.5) * _UNIT) - 1.0)
            elif kind == _RADEMACHER:
                for i in range(count):
                    x[i] = 1.0 - 2.0 * np.float64(np.int64(first[i] >> np.uint64(63)))
            else:
                # The lowest bit is not among those of the logarithm.
                _minus_logs(first[:count], y[:count], x[:count])
                for i in range(count):
                    x[i] *= _SQRT_HALF * (1.0 - 2.0 * np.float64(np.int64(first[i] & np.uint64(1))))
            for i in range(count):
                row[start + i] = stds[start + i] * x[i]
