"""The options of a descent, validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowsim.descent.schedules import read_batches
from flowsim.network import GaussianNoise, Noise
from flowsim.plain_numbers import count, finite

COORDINATES = ("auto", "growth", "weights")


@dataclass(frozen=True)
class Settings:
    """The options of :func:`flowsim.gradient_descent` that are common to all runs."""

    n_steps: int
    batch_size: int | None
    shuffle: bool
    label_noise: Noise | None
    momentum: float
    nesterov: bool
    expected: bool
    radius: float | None
    record_every: int
    coordinates: str
    batches: NDArray[np.int64] | None = None
    sizes: NDArray[np.float64] | None = None
    gradient_noise: Noise | None = None
    temperature: float = 0.0

    @classmethod
    def check(
        cls,
        n: int,
        *,
        n_steps: Any,
        batch_size: Any = None,
        shuffle: Any = False,
        label_noise: Any = 0.0,
        record_every: Any = 1,
        momentum: Any = 0.0,
        nesterov: Any = False,
        expected: Any = False,
        radius: Any = None,
        coordinates: Any = "auto",
        gradient_noise: Any = 0.0,
        temperature: Any = 0.0,
        batches: Any = None,
        sizes: NDArray[np.float64] | None = None,
    ) -> Settings:
        """Validate the options of the caller; a batch of all n rows counts as full batch."""
        steps = count("n_steps", n_steps)
        every = count("record_every", record_every)
        size = None if batch_size is None else count("batch_size", batch_size)
        given = read_batches(batches, n, steps)
        if given is not None:
            if size is not None or shuffle:
                raise ValueError("`batches` are the batches: `batch_size` and `shuffle` must be left out.")
            size = given.shape[1]
        if given is None and size is not None and size > n:
            raise ValueError(f"`batch_size` must be at most n = {n}; received {size}.")
        if shuffle and size is None:
            raise ValueError("`shuffle` needs `batch_size`; received None.")
        mu = finite("momentum", momentum)
        if not 0.0 <= mu < 1.0:
            raise ValueError(f"`momentum` must lie in [0, 1); received {momentum!r}.")
        if nesterov and mu == 0.0:
            raise ValueError("`nesterov` needs `momentum` > 0; received momentum=0.")
        if radius is not None and not finite("radius", radius) > 0.0:
            raise ValueError(f"`radius` must be > 0; received {radius!r}.")
        added = _noise("gradient_noise", gradient_noise)
        heat = finite("temperature", temperature)
        if heat < 0.0:
            raise ValueError(f"`temperature` must be >= 0; received {temperature!r}.")
        if heat and added is not None:
            raise ValueError("`temperature` is the size of a noise: `gradient_noise` must be left out beside it.")
        if coordinates not in COORDINATES:
            raise ValueError(f"`coordinates` must be one of {', '.join(COORDINATES)}; received {coordinates!r}.")
        return cls(
            n_steps=steps,
            batch_size=None if size == n and given is None else size,
            shuffle=bool(shuffle),
            label_noise=_noise("label_noise", label_noise),
            momentum=mu,
            nesterov=bool(nesterov),
            expected=bool(expected),
            radius=None if radius is None else float(radius),
            record_every=every,
            coordinates=coordinates,
            batches=given,
            sizes=sizes,
            gradient_noise=GaussianNoise(1.0) if heat else added,
            temperature=heat,
        )

    def kick_sizes(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviations of the noise that steps of these sizes subtract from the weights."""
        if self.gradient_noise is None:
            return np.zeros_like(steps)
        return np.sqrt(2.0 * self.temperature * steps) if self.temperature else steps * float(self.gradient_noise.std)  # type: ignore[arg-type]


def check_step(step: Any) -> float:
    """A step size > 0."""
    value = finite("step", step)
    if not value > 0.0:
        raise ValueError(f"`step` must be > 0; received {step!r}.")
    return value


def _noise(name: str, value: Any) -> Noise | None:
    """Additive noise from a number, the std of a Gaussian, or as given; None for 0."""
    if value is None:
        return None
    noise = value
    if not isinstance(value, Noise):
        std = finite(name, value)
        if std < 0:
            raise ValueError(f"`{name}` must be >= 0; received {value!r}.")
        noise = GaussianNoise(std)
    if noise.multiplicative or not isinstance(noise.std, float):
        raise ValueError(f"`{name}` must be additive with one std; received a multiplicative or per-weight noise.")
    return noise if noise.std > 0 else None
