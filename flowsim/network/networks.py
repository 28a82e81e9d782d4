"""The two classes of network: diagonal (coordinate-separable) and two-layer linear."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowsim.arrays import Array, Integers
from flowsim.hints import hinting
from flowsim.network.decay import Decay, DecaySchedule, check_decay
from flowsim.network.formula import Formula
from flowsim.network.noise import Noise
from flowsim.plain_numbers import count, reals
from flowsim.problem import Problem

#: Weights given by a caller: arrays (d,) or numbers, by name.
GivenWeights = Mapping[str, ArrayLike]


class Network:
    """What all networks have: named weights, their noise and decay; equal where all that is declared is."""

    noise: Noise | None
    weight_decay: float | Decay

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights."""
        raise NotImplementedError

    @property
    def _declared(self) -> tuple[Any, ...]:
        """What is declared besides noise and weight decay."""
        raise NotImplementedError

    def _set_noise(self, noise: Noise | None) -> None:
        if noise is not None and not isinstance(noise, Noise):
            raise ValueError(f"`noise` must be a noise such as GaussianNoise(0.1); received {type(noise).__name__}.")
        self.noise = noise

    @property
    def stds(self) -> Array:
        """Standard deviations of the noise on each weight; zeros without noise."""
        return np.zeros(len(self.weights)) if self.noise is None else self.noise.stds(self.weights)

    @property
    def is_noisy(self) -> bool:
        return self.noise is not None and bool(self.stds.any())

    def check_names(self, given: Any, name: str) -> None:
        """Raise ValueError unless what is given maps all weights, and nothing else, to values; it is called `name`."""
        if not isinstance(given, Mapping):
            raise ValueError(f"`{name}` must map weights to arrays; received {type(given).__name__}.")
        for weight in given:
            if weight not in self.weights:
                known = ", ".join(self.weights)
                raise ValueError(f"`{name}` names the unknown weight {weight!r}; the network has {known}.")
        for weight in self.weights:
            if weight not in given:
                raise ValueError(f"`{name}` must give every weight; {weight!r} is missing.")

    @cached_property
    def _identity(self) -> tuple[Any, ...]:
        """The key by which networks are compared and hashed."""
        return (type(self), *self._declared, self.noise, self.weight_decay)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def _shown(self, what: str) -> str:
        noise = "" if self.noise is None else f", noise={self.noise!r}"
        decay = f", weight_decay={self.weight_decay!r}" if self.weight_decay else ""
        return f"{type(self).__name__}({what}{noise}{decay})"


class DiagonalNetwork(Network):
    r"""A coordinate-separable network, :math:`\beta_i = \phi_i(\theta_i)`.

    Parameters
    ----------
    formula : str or sequence of str
        phi for every coordinate (``"u*v"``, ``"2*u**2 - v**2"``), or one formula per coordinate.
    depth : int, optional
        Short form for ``w1*w2*...*wL``, L >= 2; instead of `formula`.
    noise : Noise, optional
        Weight noise (stochastic SAM): flows then follow the expected gradient.
    weight_decay : float, DecaySchedule or Decay
        lambda >= 0, adds ``lambda/2 ||theta||^2`` to the loss that is minimised; or lambda as a function of time
        (:class:`flowsim.DecaySchedule`, or an object with the methods ``rate(t)`` and ``integral(t)``). The
        `loss` of trajectories is that of the data alone.

    Notes
    -----
    Weights are named by the formula, in order of first appearance, and stored as an array (k, d): the k-th
    weight of all coordinates. In a mixed network the names are the union over its formulas; a weight that a
    coordinate's formula does not use is constant there.

    Examples
    --------
    >>> import flowsim as fs
    >>> fs.DiagonalNetwork("u*v").weights
    ('u', 'v')
    >>> fs.DiagonalNetwork(depth=3)
    DiagonalNetwork('w1*w2*w3')
    """

    @hinting
    def __init__(
        self,
        formula: str | Sequence[str] | None = None,
        *,
        depth: int | None = None,
        noise: Noise | None = None,
        weight_decay: float | Decay = 0.0,
    ) -> None:
        if (formula is None) == (depth is None):
            raise ValueError("give either `formula` or `depth`; received " + ("neither." if depth is None else "both."))
        if depth is not None:
            if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or not 2 <= depth <= 64:
                raise ValueError(f"`depth` must be an integer from 2 to 64; received {depth!r}.")
            formula = "*".join(f"w{layer}" for layer in range(1, int(depth) + 1))
        self._set_noise(noise)
        if not isinstance(formula, str | Sequence | np.ndarray):
            raise ValueError(f"`formula` must be text or a list of texts; received {type(formula).__name__}.")
        self.is_mixed = not isinstance(formula, str)
        texts = [formula] if isinstance(formula, str) else list(formula)
        if not texts:
            raise ValueError("`formula` must not be an empty list.")
        known: dict[str, Formula] = {}
        for text in texts:
            if not isinstance(text, str):
                raise ValueError(f"`formula` must be text such as 'u*v'; received {type(text).__name__}.")
            if text not in known:
                known[text] = Formula.parse(text)
        self.formulas = tuple(known[text] for text in texts)
        self.weight_decay = check_decay(weight_decay)
        if noise is not None:
            noise.stds(self.weights)  # checks names and lengths

    def variant(self, noise: Noise | None = None, weight_decay: float | Decay = 0.0) -> DiagonalNetwork:
        """The network of the same formulas with this noise and weight decay."""
        texts = [formula.text for formula in self.formulas]
        return DiagonalNetwork(texts if self.is_mixed else texts[0], noise=noise, weight_decay=weight_decay)

    @cached_property
    def distinct(self) -> tuple[Formula, ...]:
        """The different formulas, in order of first use."""
        return tuple(dict.fromkeys(self.formulas))

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """Names of the k weights of a coordinate."""
        return tuple(dict.fromkeys(name for formula in self.formulas for name in formula.weights))

    def kinds(self, d: int) -> Integers:
        """Index into `distinct` for each of d coordinates.

        Raises ValueError if the network lists a number of formulas other than d.
        """
        if not self.is_mixed:
            return np.zeros(d, dtype=np.int64)
        if len(self.formulas) != d:
            raise ValueError(f"`formula` lists {len(self.formulas)} coordinates; the problem has d={d}.")
        index = {formula: kind for kind, formula in enumerate(self.distinct)}
        return np.array([index[formula] for formula in self.formulas], dtype=np.int64)

    @cached_property
    def _default_columns(self) -> Array:
        """The default direction of a coordinate of each kind, shape (k, kinds)."""
        columns = np.ones((len(self.weights), len(self.distinct)))
        for kind, formula in enumerate(self.distinct):
            factors = formula.product_of
            if factors is not None and len(factors) == 2:
                columns[self.weights.index(factors[0]), kind] = math.sqrt(2.0)
                columns[self.weights.index(factors[1]), kind] = 0.0
        return columns

    def direction(self, start: GivenWeights | None, d: int, name: str = "start") -> Array:
        """The direction that alpha multiplies, shape (k, d); errors call it `name`.

        Default: ``sqrt(2)`` on the first weight and 0 on the second of a product of two (``u*v``), ones elsewhere.
        Where all coordinates start alike it is a read-only view of one number per weight.

        Raises
        ------
        ValueError
            For an unknown or missing weight, a wrong shape, or a non-finite entry.
        """
        if start is None:
            if not self.is_mixed:
                return _everywhere(tuple(self._default_columns[:, 0].tolist()), d)
            return np.take(self._default_columns, self.kinds(d), axis=1)
        self.check_names(start, name)
        rows = []
        for weight in self.weights:
            if hasattr(start[weight], "log_abs"):
                raise ValueError(f"`{name}[{weight!r}]` as Logs is for `start` of flows, descent and limits alone.")
            row = reals(f"{name}[{weight!r}]", start[weight])
            if row.shape not in ((), (d,)):
                raise ValueError(f"`{name}[{weight!r}]` must be a number or have shape ({d},); received {row.shape}.")
            if not np.isfinite(row).all():
                raise ValueError(f"`{name}[{weight!r}]` must be finite; received NaN or infinity.")
            rows.append(row)
        if not any(row.ndim for row in rows):
            return _everywhere(tuple(float(row) for row in rows), d)
        return np.array([np.broadcast_to(row, (d,)) for row in rows])

    def rows(self, formula: Formula) -> Integers:
        """Places of a formula's weights among the network's."""
        return np.array([self.weights.index(name) for name in formula.weights], dtype=np.int64)

    def parts(self, d: int) -> Iterator[tuple[Formula, Integers, Integers]]:
        """Every distinct formula, its `rows`, and the coordinates of d that have it, in the order of `distinct`."""
        kinds = self.kinds(d)
        for kind, formula in enumerate(self.distinct):
            yield formula, self.rows(formula), np.flatnonzero(kinds == kind)

    @property
    def _declared(self) -> tuple[Any, ...]:
        return self.is_mixed, tuple(formula.text for formula in self.formulas)

    def __repr__(self) -> str:
        texts = [formula.text for formula in self.formulas]
        return self._shown(repr(texts if self.is_mixed else texts[0]))


@lru_cache(maxsize=256)
def _everywhere(column: tuple[float, ...], d: int) -> Array:
    return np.broadcast_to(np.array(column)[:, None], (len(column), d))


class LinearNetwork(Network):
    r"""A two-layer linear network, :math:`\beta = U V^\top` with U (D, h) and V (m, h).

    Parameters
    ----------
    width : int
        h >= 1.
    noise : Noise, optional
        Weight noise on U and V.
    weight_decay : float or DecaySchedule
        lambda >= 0: the loss gains ``lambda/2 (||U||^2 + ||V||^2)``.
    """

    @hinting
    def __init__(self, width: int, *, noise: Noise | None = None, weight_decay: float | DecaySchedule = 0.0) -> None:
        width = count("width", width)
        self._set_noise(noise)
        decay = check_decay(weight_decay)
        if not isinstance(decay, float | DecaySchedule):
            raise ValueError(
                f"`weight_decay` must be a number or a DecaySchedule for a LinearNetwork; received {weight_decay!r}."
            )
        self.width = int(width)
        self.weight_decay: float | DecaySchedule = decay
        if noise is not None:
            noise.stds(self.weights)  # checks names and lengths

    @property
    def constant_decay(self) -> float:
        """The weight decay. Raises ValueError for a schedule, for what has no limit."""
        if isinstance(self.weight_decay, DecaySchedule):
            raise ValueError("`weight_decay` must be constant for the limit of a LinearNetwork; received a schedule.")
        return self.weight_decay

    @property
    def weights(self) -> tuple[str, str]:
        return ("U", "V")

    @property
    def _declared(self) -> tuple[Any, ...]:
        return (self.width,)

    def __repr__(self) -> str:
        return self._shown(f"width={self.width}")


def check_types(net: Any, problem: Any) -> None:
    """Raise ValueError unless they are a network and a problem."""
    if not isinstance(net, DiagonalNetwork | LinearNetwork):
        raise ValueError(f"`net` must be a DiagonalNetwork or LinearNetwork; received {type(net).__name__}.")
    if not isinstance(problem, Problem):
        raise ValueError(f"`problem` must be a Problem; received {type(problem).__name__}.")
