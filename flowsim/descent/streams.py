"""Randomness of one run: three independent streams, so that no draw depends on how steps are grouped into blocks."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from flowsim.network import Noise

__all__ = ["Seed", "Streams", "child_seeds", "read_seed"]

Array = NDArray[np.float64]
Seed = int | np.random.SeedSequence | None


def read_seed(seed: Seed) -> np.random.SeedSequence:
    """The seed as a SeedSequence; fresh entropy, which is recorded, for None."""
    if isinstance(seed, np.random.SeedSequence):
        return seed
    if seed is None:
        return np.random.SeedSequence()
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"`seed` must be an integer >= 0, a SeedSequence or None; received {seed!r}.")
    return np.random.SeedSequence(int(seed))


def child_seeds(seed: np.random.SeedSequence, count: int) -> list[np.random.SeedSequence]:
    """What ``seed.spawn(count)`` gives the first time, without counting as a call of it."""
    return [
        np.random.SeedSequence(entropy=seed.entropy, spawn_key=(*seed.spawn_key, index), pool_size=seed.pool_size)
        for index in range(count)
    ]


class Streams:
    """Batches, label noise and weight noise of one run, drawn in blocks of steps.

    Parameters
    ----------
    seed : SeedSequence
    n : int
        Number of observations.
    batch_size : int or None
        Rows of a batch, drawn without replacement at every step; None for all rows.
    label_noise : Noise or None
    weight_noise : Noise or None
    stds, shape : array (k,), (k, d)
        Standard deviations and shape of the weight noise; stds may be given entry by entry.
    n_labels : int, optional
        Entries of y, if not n.
    """

    def __init__(
        self,
        seed: np.random.SeedSequence,
        n: int,
        batch_size: int | None,
        label_noise: Noise | None,
        weight_noise: Noise | None,
        stds: Array,
        shape: tuple[int, ...],
        n_labels: int | None = None,
    ) -> None:
        children = child_seeds(seed, 3)
        wanted = batch_size is not None, label_noise is not None, weight_noise is not None
        self._batch, self._label, self._weight = (
            np.random.default_rng(child) if used else None for child, used in zip(children, wanted, strict=True)
        )
        self.n_labels = n if n_labels is None else n_labels
        self.n, self.batch_size, self.shape = n, batch_size, shape
        self.label_noise, self.weight_noise, self.stds = label_noise, weight_noise, stds
        self._order = np.arange(n)

    def rows(self, steps: int) -> NDArray[np.int64]:
        """Batches, shape (steps, b); (0, 0) for full batches."""
        if self.batch_size is None or self._batch is None:
            return np.empty((0, 0), np.int64)
        return _subsets(self._order, self._batch.random((steps, self.batch_size)))

    def labels(self, steps: int) -> Array:
        """Noise on y, shape (steps, n_labels); (0, n_labels) without."""
        if self.label_noise is None or self._label is None:
            return np.empty((0, self.n_labels))
        return float(self.label_noise.std) * self.label_noise.draw(self._label, (steps, self.n_labels))  # type: ignore[arg-type]

    def weights(self, steps: int) -> Array:
        """Noise on the weights, shape (steps, *shape); (0, *shape) without."""
        if self.weight_noise is None or self._weight is None:
            return np.empty((0, *self.shape))
        drawn = self.weight_noise.draw(self._weight, (steps, *self.shape))
        return drawn * (self.stds if len(self.shape) == 1 else self.stds[:, None])


@njit(cache=True)
def _subsets(order, uniform):
    # A partial Fisher-Yates shuffle: uniform over subsets whatever the order it starts from.
    steps, size = uniform.shape
    out = np.empty((steps, size), np.int64)
    n = order.size
    for k in range(steps):
        for j in range(size):
            pick = j + int(uniform[k, j] * (n - j))
            order[j], order[pick] = order[pick], order[j]
            out[k, j] = order[j]
    return out
