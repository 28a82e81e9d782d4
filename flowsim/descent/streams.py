"""Random numbers of a run: independent streams, so that no draw depends on how steps are grouped into blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowsim.arrays import Array, Integers
from flowsim.descent.draws import Draws
from flowsim.network import Noise
from flowsim.solvers.compilation import compiled

Seed = int | np.random.SeedSequence | None


def child_seeds(seed: np.random.SeedSequence, count: int) -> list[np.random.SeedSequence]:
    """The result of a first call of ``seed.spawn(count)``, without changing the state of `seed`."""
    return [
        np.random.SeedSequence(entropy=seed.entropy, spawn_key=(*seed.spawn_key, index), pool_size=seed.pool_size)
        for index in range(count)
    ]


class Streams:
    """Batches, label noise and weight noise of one run or several, drawn in blocks of steps.

    Parameters
    ----------
    seeds : sequence of SeedSequence
        One per run.
    n : int
        Number of observations.
    batch_size : int or None
        Rows of a batch, drawn without replacement; None for all rows. Batches are those of a single run.
    shuffle : bool
        Cut batches from passes over all rows, each in a new order.
    stds, shape : array (k,), (k, d)
        Standard deviations and shape of the weight noise; stds may be given entry by entry.
    label_scale : array (n_labels,), optional
        By which the noise on each entry of y is multiplied; ones (n,) by default.
    given : array (n_steps, b), optional
        Given batches, instead of random ones.
    """

    def __init__(
        self,
        seeds: Sequence[np.random.SeedSequence],
        n: int,
        batch_size: int | None,
        shuffle: bool,
        label_noise: Noise | None,
        weight_noise: Noise | None,
        stds: Array,
        shape: tuple[int, ...],
        label_scale: Array | None = None,
        given: Integers | None = None,
    ) -> None:
        self.lanes, self.n, self.batch_size, self.shape = len(seeds), n, batch_size, shape
        label_scale = np.ones(n) if label_scale is None else label_scale
        self.n_labels = len(label_scale)
        self._order, self._shuffle, self._pass = np.arange(n), shuffle, np.empty(0, np.int64)
        self._batch: np.random.Generator | None = None
        self._given, self._taken = given, 0
        self._label: Draws | None = None
        self._weight: Draws | None = None
        if batch_size is None and label_noise is None and weight_noise is None:
            return
        batch, label, weight = zip(*(child_seeds(seed, 3) for seed in seeds), strict=True)
        if batch_size is not None and given is None:
            self._batch = np.random.default_rng(batch[0])
        if label_noise is not None:
            self._label = Draws(label_noise, label, float(label_noise.std) * label_scale)  # type: ignore[arg-type]
        if weight_noise is not None:
            self._weight = Draws(weight_noise, weight, np.repeat(stds, int(np.prod(shape)) // len(stds)))

    @property
    def per_step(self) -> int:
        """Numbers drawn in one step."""
        drawn = (self.batch_size or 0) + (self.n_labels if self._label is not None else 0)
        return self.lanes * (drawn + (int(np.prod(self.shape)) if self._weight is not None else 0))

    def rows(self, steps: int) -> Integers:
        """Batches, shape (steps, b); (0, 0) for full batches."""
        if self._given is not None:
            self._taken += steps
            return np.ascontiguousarray(self._given[self._taken - steps : self._taken])
        if self.batch_size is None or self._batch is None:
            return np.empty((0, 0), np.int64)
        if not self._shuffle:
            return _subsets(self._order, self._batch.random((steps, self.batch_size)))
        needed = steps * self.batch_size
        passes = max(-(-(needed - len(self._pass)) // self.n), 0)
        ahead = np.concatenate([self._pass, _subsets(self._order, self._batch.random((passes, self.n))).ravel()])
        self._pass = ahead[needed:]
        return ahead[:needed].reshape(steps, self.batch_size)

    def labels(self, steps: int) -> Array:
        """Noise on y, (steps, n_labels * lanes), runs innermost, valid until the next call; (0, ...) without noise."""
        if self._label is None:
            return np.empty((0, self.n_labels * self.lanes))
        return self._label.block(steps)

    def weights(self, steps: int) -> Array:
        """Noise on the weights, (steps, *shape) with the last axis times lanes, likewise; (0, ...) without noise."""
        shape = (*self.shape[:-1], self.shape[-1] * self.lanes)
        if self._weight is None:
            return np.empty((0, *shape))
        return self._weight.block(steps).reshape(steps, *shape)


@compiled(error_model="python")
def _subsets(order, uniform):
    # A partial Fisher-Yates shuffle: uniform over subsets for any initial order.
    steps, size = uniform.shape
    out = np.empty((steps, size), np.int64)
    n = order.size
    for k in range(steps):
        for j in range(size):
            pick = j + int(uniform[k, j] * (n - j))
            order[j], order[pick] = order[pick], order[j]
            out[k, j] = order[j]
    return out
