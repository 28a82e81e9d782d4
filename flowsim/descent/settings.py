"""The options of a descent, validated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.descent.schedules import read_batches
from flowsim.network import GaussianNoise, Noise
from flowsim.plain_numbers import count, finite

COORDINATES = ("auto", "growth", "weights")


@dataclass(frozen=True)
class Settings:
    """The options of :func:`flowsim.gradient_descent` that are common to all runs."""

    n_steps: int
    batch_size: int | None = None
    shuffle: bool = False
    label_noise: Noise | None = None
    momentum: float = 0.0
    nesterov: bool = False
    expected: bool = False
    radius: float | None = None
    record_every: int = 1
    coordinates: str = "auto"
    batches: Integers | None = None
    sizes: Array | None = None
    gradient_noise: Noise | None = None
    temperature: float = 0.0

    @classmethod
    def check(cls, n: int, **options: Any) -> Settings:
        """Validate the options of the caller; a batch of all n rows counts as full batch."""
        asked = cls(**options)
        steps = count("n_steps", asked.n_steps)
        every = count("record_every", asked.record_every)
        size = None if asked.batch_size is None else count("batch_size", asked.batch_size)
        given = read_batches(asked.batches, n, steps)
        if given is not None:
            if size is not None or asked.shuffle:
                raise ValueError("`batches` are the batches: `batch_size` and `shuffle` must be left out.")
            size = given.shape[1]
        if given is None and size is not None and size > n:
            raise ValueError(f"`batch_size` must be at most n = {n}; received {size}.")
        if asked.shuffle and size is None:
            raise ValueError("`shuffle` needs `batch_size`; received None.")
        mu = check_momentum(asked.momentum)
        if asked.nesterov and mu == 0.0:
            raise ValueError("`nesterov` needs `momentum` > 0; received momentum=0.")
        added = _noise("gradient_noise", asked.gradient_noise)
        heat = finite("temperature", asked.temperature, least=0.0)
        if heat and added is not None:
            raise ValueError("`temperature` is the size of a noise: `gradient_noise` must be left out beside it.")
        if asked.coordinates not in COORDINATES:
            raise ValueError(f"`coordinates` must be one of {', '.join(COORDINATES)}; received {asked.coordinates!r}.")
        return replace(
            asked,
            n_steps=steps,
            batch_size=None if size == n and given is None else size,
            shuffle=bool(asked.shuffle),
            label_noise=_noise("label_noise", asked.label_noise),
            momentum=mu,
            nesterov=bool(asked.nesterov),
            expected=bool(asked.expected),
            radius=None if asked.radius is None else finite("radius", asked.radius, above=0.0),
            record_every=every,
            batches=given,
            gradient_noise=GaussianNoise(1.0) if heat else added,
            temperature=heat,
        )

    def kick_sizes(self, steps: Array) -> Array:
        """Standard deviations of the noise that steps of these sizes subtract from the weights."""
        if self.gradient_noise is None:
            return np.zeros_like(steps)
        return np.sqrt(2.0 * self.temperature * steps) if self.temperature else steps * float(self.gradient_noise.std)  # type: ignore[arg-type]


def check_step(step: Any) -> float:
    """A step size > 0."""
    return finite("step", step, above=0.0)


def check_momentum(momentum: Any) -> float:
    """A momentum in [0, 1)."""
    value = finite("momentum", momentum)
    if not 0.0 <= value < 1.0:
        raise ValueError(f"`momentum` must lie in [0, 1); received {momentum!r}.")
    return value


def _noise(name: str, value: Any) -> Noise | None:
    """Additive noise from a number, the std of a Gaussian, or as given; None for 0."""
    if value is None:
        return None
    noise = value
    if not isinstance(value, Noise):
        noise = GaussianNoise(finite(name, value, least=0.0))
    if noise.multiplicative or not isinstance(noise.std, float):
        raise ValueError(f"`{name}` must be additive with one std; received a multiplicative or per-weight noise.")
    return noise if noise.std > 0 else None
