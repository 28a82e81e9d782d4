"""Starts of a two-layer linear network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from flowsim.arrays import Array
from flowsim.hints import hinting
from flowsim.network.compression import Compression, compress
from flowsim.network.linear_algebra import LinearData
from flowsim.network.networks import LinearNetwork
from flowsim.network.scale import InitialScale
from flowsim.plain_numbers import finite, read_seed, reals

if TYPE_CHECKING:
    from flowsim.problem import Problem

Kind = Literal["gaussian", "balanced", "unbalanced", "invariant"]
KINDS: tuple[Kind, ...] = ("gaussian", "balanced", "unbalanced", "invariant")


class LinearCase(NamedTuple):
    """What is integrated, and from where: the weights ``pretrained + alpha * start``."""

    net: LinearNetwork
    problem: Problem
    scale: InitialScale
    start: Mapping[str, Any] | None
    pretrained: Mapping[str, Any] | None = None


@hinting
def linear_start(
    net: LinearNetwork,
    problem: Problem,
    kind: Kind = "gaussian",
    *,
    exponent: float = 0.5,
    ratio: float = 10.0,
    seed: int | None = 0,
) -> dict[str, Array]:
    r"""A start direction for ``gradient_flow(LinearNetwork(h), problem, ..., start=...)``.

    .. math:: U_{ij}, V_{ij} \sim \mathcal N(0, h^{-2a}) \quad\text{(gaussian)}, \qquad
              U^\top U = V^\top V \quad\text{(balanced)}.

    Parameters
    ----------
    net, problem
        Give the shapes: U (D, h), V (m, h).
    kind : {"gaussian", "balanced", "unbalanced", "invariant"}
        gaussian: independent entries. balanced: equal Gram matrices, min(D, m, h) singular values 1 on random
        directions, U in the row space of X as far as its rank allows. unbalanced: gaussian with U times and V divided
        by sqrt(`ratio`). invariant: gaussian, made to satisfy ``U_2 V^T = 0, U_1 U_2^T = 0`` (U_1, U_2: parts of U
        inside and outside the row space of X), so that the flow ends at the minimum-norm solution.
    exponent : float
        a, for all but balanced.
    ratio : float
        > 0, for unbalanced.
    seed : int or None
        Seed of NumPy's default generator.

    Returns
    -------
    dict
        U (D, h) and V (m, h).
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}; received {kind!r}.")
    exponent, ratio = finite("exponent", exponent), finite("ratio", ratio, above=0.0)
    rng = np.random.default_rng(read_seed(seed))
    D, m, h = problem.d, problem.n_targets, net.width
    if kind == "balanced":
        data = LinearData.of(problem)
        inside = min(data.rank, m, h)
        size = min(D, m, h)
        left = _orthonormal(rng, data.rank, inside)
        U = data.directions @ left
        if size > inside:  # the row space is exhausted: complete outside it
            outside = rng.standard_normal((D, size - inside))
            outside -= data.directions @ (data.directions.T @ outside)
            U = np.concatenate([U, np.linalg.qr(outside)[0]], axis=1)
        hidden = _orthonormal(rng, h, size)
        return {"U": U @ hidden.T, "V": _orthonormal(rng, m, size) @ hidden.T}
    std = float(h) ** -exponent
    U = rng.standard_normal((D, h))
    V = rng.standard_normal((m, h))
    U *= std
    V *= std
    if kind == "unbalanced":
        U *= np.sqrt(ratio)
        V /= np.sqrt(ratio)
    if kind == "invariant":
        data = LinearData.of(problem)
        inside_U, outside_U = data.reduce(U)
        moving = np.concatenate([inside_U, V])
        if h > len(moving):
            rows = np.linalg.qr(moving.T)[0]
            outside_U -= (outside_U @ rows) @ rows.T
        else:
            outside_U = np.zeros_like(U)
        U = data.directions @ inside_U + outside_U
    return {"U": U, "V": V}


def compressed_start(net: LinearNetwork, problem: Problem, start: Mapping[str, Any] | None) -> Compression:
    """A start as given by users, in the basis of its row space.

    The default has the distribution of ``linear_start(net, problem)``; beyond width D + m it is drawn in compressed
    form (a Gaussian matrix is a triangular one with chi-distributed diagonal, times an independent orthonormal one), so
    that a default start is cheap at any width.

    Raises ValueError for unknown or missing weights, wrong shapes, entries that are not finite, or a start that is
    zero.
    """
    D, m, h = problem.d, problem.n_targets, net.width
    if start is None:
        if h > D + m:

            def basis() -> Array:
                return _orthonormal(np.random.default_rng([0, h]), h, D + m)

            return Compression(*compressed_gaussian(D, m, h), cache(basis))
        start = linear_start(net, problem)
    net.check_names(start, "start")
    found = []
    for name, rows in (("U", D), ("V", m)):
        array = reals(f"start[{name!r}]", start[name])
        if array.shape != (rows, h):
            raise ValueError(f"`start[{name!r}]` must have shape ({rows}, {h}); received {array.shape}.")
        found.append(array)
    compression = compress(*found)
    for name, inside in (("U", compression.A), ("V", compression.B)):
        if not np.isfinite(inside).all():
            raise ValueError(
                f"`start[{name!r}]` must be finite; received NaN, infinity, or numbers whose squares are infinite."
            )
    if not (compression.A.any() or compression.B.any()):
        raise ValueError("`start` must not be zero everywhere: the origin is a saddle that a flow never leaves.")
    return compression


def compressed_gaussian(
    D: int, m: int, h: int, *, exponent: float = 0.5, seed: int | list[int] = 0
) -> tuple[Array, Array]:
    """A (D, k), B (m, k), k = D + m <= h: independent Gaussian U, V of std ``h**-exponent`` in their row space.

    A Gaussian matrix is a triangular one with chi-distributed diagonal times an independent orthonormal one.
    """
    k = D + m
    rng = np.random.default_rng(seed)
    triangle = np.tril(rng.standard_normal((k, k)), -1)
    triangle[np.diag_indices(k)] = np.sqrt(rng.chisquare(h - np.arange(k)))
    triangle *= float(h) ** -exponent
    return triangle[:D].copy(), triangle[D:].copy()


def _orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]
