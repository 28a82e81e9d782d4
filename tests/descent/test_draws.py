"""The generator of all noise: its distributions, its bits, its independence."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import mpmath
import numpy as np
import pytest
from scipy import stats

import flowsim as fs
from flowsim.descent import draws
from flowsim.descent.draws import Draws

NOISES = [fs.GaussianNoise, fs.UniformNoise, fs.RademacherNoise, fs.LaplaceNoise]
LAWS = {
    fs.GaussianNoise: stats.norm(),
    fs.UniformNoise: stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    fs.LaplaceNoise: stats.laplace(scale=math.sqrt(0.5)),
}


def sample(noise, steps=2000, runs=8, size=101, seed=0):
    """(steps, size, runs)"""
    made = Draws(noise, np.random.SeedSequence(seed).spawn(runs), np.ones(size))
    return made.block(steps).reshape(steps, size, runs)


@pytest.mark.parametrize("kind", NOISES)
def test_moments_up_to_the_eighth_are_those_of_the_distribution(kind) -> None:
    noise = kind(1.0)
    z = sample(noise).ravel()
    for order in range(1, 9):
        spread = math.sqrt(noise.moment(2 * order) - noise.moment(order) ** 2)
        assert abs((z**order).mean() - noise.moment(order)) <= 5 * spread / math.sqrt(z.size) + 1e-12


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", LAWS)
def test_the_distribution_passes_kolmogorov_and_smirnov_as_a_whole_and_at_every_place(kind) -> None:
    z = sample(kind(1.0))
    law = LAWS[kind]
    assert stats.kstest(z.ravel(), law.cdf).pvalue > 1e-3
    # Every coordinate and every run by itself: p-values of a good generator are uniform.
    p = [stats.kstest(z[:, i, r], law.cdf).pvalue for i in range(0, 101, 4) for r in (0, 5)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_the_far_tails_of_the_normal_are_as_heavy_as_they_should_be() -> None:
    z = np.abs(sample(fs.GaussianNoise(1.0), steps=10_000).ravel())
    for bound in (3.0, 4.0, 4.5):
        expected = z.size * 2 * stats.norm.sf(bound)
        assert abs((z > bound).sum() - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("kind", NOISES)
def test_coordinates_steps_and_runs_are_uncorrelated(kind) -> None:
    z = sample(kind(1.0), steps=4000, size=6, runs=3)
    flat = z.reshape(4000, -1)
    pairs = np.concatenate([flat[1:], flat[:-1]], axis=1)  # with the step before
    for values in (pairs, pairs**2 if kind is not fs.RademacherNoise else pairs):
        correlation = np.corrcoef(values, rowvar=False)
        off = correlation[~np.eye(len(correlation), dtype=bool)]
        assert np.abs(off).max() < 5.5 / math.sqrt(4000)


def test_words_are_those_of_the_published_generator() -> None:
    """SplitMix64 from state 1234567 with the golden increment: the first outputs of its reference implementation."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        counter = np.uint64(1234567) + golden * np.arange(1, 6, dtype=np.uint64)
    out = np.empty(5, np.uint64)
    draws._words(counter, np.zeros(5, np.uint64), out)
    assert out.tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


def test_logarithm_and_angle_are_correct_to_rounding() -> None:
    words = np.random.default_rng(0).integers(0, 2**64, 400, dtype=np.uint64)
    words[:6] = 0, 2**64 - 1, 2**63, 2**63 - 1, 2**61, 2**62 - 1
    words[6:70] = np.uint64(1) << np.arange(64, dtype=np.uint64)
    logs = np.empty(400)
    draws._minus_logs(words, logs)
    x, y = np.ones(400), np.empty(400)
    draws._turn(words, x, y)
    for i, word in enumerate(words.tolist()):
        with mpmath.workdps(30):
            true = -mpmath.log((mpmath.mpf(word >> 1) + 0.5) / 2**63)
            assert abs(logs[i] / true - 1) < 2e-15 or abs(logs[i] - true) < 2e-16
            signed = (word << 2) % 2**64
            angle = (mpmath.mpf(signed - 2**64 if signed >= 2**63 else signed) / 2**63 + 1) * mpmath.pi / 4
            left, down = word >> 63, (word >> 62) & 1
            assert abs(x[i] - (-1) ** left * mpmath.sqrt(2) * mpmath.cos(angle)) < 6e-16
            assert abs(y[i] - (-1) ** down * mpmath.sqrt(2) * mpmath.sin(angle)) < 6e-16


def test_normal_numbers_reach_beyond_nine_standard_deviations() -> None:
    logs = np.empty(1)
    draws._minus_logs(np.zeros(1, np.uint64), logs)
    assert math.sqrt(2 * logs[0]) > 9.4


def test_an_increment_whose_bits_hardly_change_is_mended() -> None:
    class Poor(np.random.SeedSequence):
        def generate_state(self, n_words, dtype=np.uint32):
            return np.array([5, 2**64 - 1], dtype=np.uint64)

    _, gamma = draws._key_and_increment(Poor(0))
    assert gamma % 2 == 1
    assert (gamma ^ gamma >> 1).bit_count() >= 24


def test_a_distribution_of_ones_own_is_drawn_by_its_own_method(problem) -> None:
    class TwoPoint(fs.GaussianNoise):
        def draw(self, rng, shape):
            return np.where(rng.random(shape) < 0.2, 2.0, -0.5)

    net = fs.DiagonalNetwork("u*v", noise=TwoPoint(0.1))
    runs = fs.gradient_descents(net, problem, 0.02, 30, alpha=0.3, runs=3, seed=4)
    for r, seed in enumerate(np.random.SeedSequence(4).spawn(3)):
        alone = fs.gradient_descent(net, problem, 0.02, 30, alpha=0.3, seed=seed)
        np.testing.assert_allclose(runs.beta[r], alone.beta, atol=1e-13)
    values = Draws(TwoPoint(1.0), np.random.SeedSequence(0).spawn(2), np.ones(5)).block(50)
    assert set(np.unique(values)) == {-0.5, 2.0}


_DIGEST = """
import hashlib, numpy as np, flowsim as fs
from flowsim.descent.draws import Draws
digest = hashlib.sha256()
for kind in (fs.GaussianNoise, fs.UniformNoise, fs.RademacherNoise, fs.LaplaceNoise):
    digest.update(Draws(kind(1.0), np.random.SeedSequence(0).spawn(3), np.ones(301)).block(20).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_a_processor_without_wide_vectors_draws_the_same_bits(tmp_path) -> None:
    def digest(name, **processor):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / name)} | processor
        result = subprocess.run([sys.executable, "-c", _DIGEST], env=environment, capture_output=True, check=True)
        return result.stdout

    assert digest("own") == digest("plain", NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
