r"""Growth of products of L >= 3 weights: the distance of z from the blow-up of the weights.

With ``c`` the weight of smallest modulus and ``m_j^2 = w_j^2 - c^2`` conserved, ``dc/dz = prod_j sqrt(c^2 + m_j^2)``.
"""

from __future__ import annotations

import math

import numpy as np

from flowsim.arrays import Array, Index, log_abs

#: Series terms, and the ratio m/x below which they reach rounding.
_TERMS, _SERIES = 16, 0.25
_PANEL, _NODES, _PANELS = 0.5, 12, 64
_NEWTON = 8


class ProductShape:
    r"""The inverse of ``R(x) = int_x^inf dx / prod_j sqrt(x^2 + m_j^2)``, x >= 0.

    Above ``x_0``, some m_max, a series in m^2/x^2; below, Gauss panels in asinh(x/m_min), or in ln x if m_min = 0.
    """

    def __init__(self, squares: Array) -> None:
        self.squares = squares  # ascending
        self.count = len(squares)  # L - 1
        self.balanced = not squares.any()
        self.series = np.zeros(_TERMS)
        self.series[0] = 1.0
        for square in squares[squares > 0]:
            factor = np.ones(_TERMS)
            for k in range(1, _TERMS):
                factor[k] = factor[k - 1] * square * (0.5 - k) / k
            self.series = np.array([self.series[: k + 1] @ factor[k::-1] for k in range(_TERMS)])
        if self.balanced:
            return
        self.crosses = bool(squares[0] > 0)
        top = math.sqrt(squares[-1]) / _SERIES
        self.low = math.sqrt(squares[0])
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        self.nodes, self.gauss = (nodes + 1) / 2, weights / 2
        self.top = math.asinh(top / self.low) if self.crosses else math.log(top)
        self.at_top = float(self._far(np.array([math.log(top)]))[0])
        panels = max(1, math.ceil(self.top / _PANEL)) if self.crosses else _PANELS
        width = self.top / panels if self.crosses else _PANEL
        self.edges, self.values = np.array([self.top]), np.array([self.at_top])
        self._extend(panels, width)

    def inverse(self, logs: Array) -> Array:
        """``ln x`` where ln R(x) = logs."""
        power = self.count - 1
        out = -(logs + math.log(power)) / power
        if self.balanced:
            return out
        far = logs <= math.log(self.at_top)
        for _ in range(_NEWTON):
            # R x^(L-2) is nearly constant, and so is its logarithm.
            out[far] = (np.log(self._series(out[far])) - logs[far]) / power
        near = ~far
        wanted = np.exp(logs[near])
        if self.crosses:
            wanted = np.minimum(wanted, self.values[-1])
        while len(wanted) and not self.crosses and self.values[-1] < wanted.max():
            self._extend(_PANELS, _PANEL)
        panel = np.clip(np.searchsorted(self.values, wanted), 1, len(self.edges) - 1)
        start, end = self.edges[panel - 1], self.edges[panel]
        first, last = self.values[panel - 1], self.values[panel]
        y = start + (end - start) * (wanted - first) / (last - first)
        for _ in range(_NEWTON):
            y = np.clip(y + (self._near(y, panel) - wanted) / self._density(y), end, start)
        if self.crosses:
            out[near] = math.log(self.low) + log_abs(np.sinh(y))
        else:
            out[near] = y
        return out

    def _extend(self, panels: int, width: float) -> None:
        edges = self.edges[-1] - width * np.arange(1, panels + 1)
        if self.crosses:
            edges[-1] = 0.0
        inner = edges[:, None] + width * self.nodes
        steps = width * (self._density(inner.ravel()).reshape(inner.shape) @ self.gauss)
        self.edges = np.append(self.edges, edges)
        self.values = np.append(self.values, self.values[-1] + np.cumsum(steps))

    def _near(self, y: Array, panel: Index) -> Array:
        start = self.edges[panel - 1]
        inner = y[:, None] + (start - y)[:, None] * self.nodes
        density = self._density(inner.ravel()).reshape(inner.shape)
        return self.values[panel - 1] + (start - y) * (density @ self.gauss)

    def _density(self, y: Array) -> Array:
        """The integrand in y; the root of the smallest m is the substitution's own."""
        x = self.low * np.sinh(y) if self.crosses else np.exp(y)
        return 1 / np.sqrt(x[:, None] ** 2 + self.squares[1:]).prod(axis=1)

    def _far(self, logs: Array) -> Array:
        """R by its series, at ln x."""
        return self._series(logs) * np.exp(-(self.count - 1) * logs)

    def _series(self, logs: Array) -> Array:
        """``R x^(L-2)``, which is in the range of floats for every x."""
        u = np.exp(-2 * logs)
        total = np.zeros(len(logs))
        for k in range(_TERMS - 1, -1, -1):
            total = total * u + self.series[k] / (self.count - 1 + 2 * k)
        return total
