r"""Generated code for tensor-product quadrature.

The field of a coordinate near 0 must keep its relative accuracy although nodes are at distance std from it. Each
integrand is therefore written ``f(z + x) = f(z) + [f(z + x) - f(z)]`` with the difference free of cancellation, and
the two parts are summed separately: the first vanishes exactly by symmetry, because nodes come in pairs +z, -z
and every level of the tensor rule has its own accumulator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flowsim.network import Noise

if TYPE_CHECKING:
    import sympy

    from flowsim.symbolic.expectation import Quadrature

#: Largest relative change of mean and second moment, with 1.5 times the nodes, of a converged rule.
CONVERGED = 1e-6


def check_convergence(
    phi: Callable[..., float],
    text: str,
    stds: Sequence[float],
    nodes: Sequence[int],
    exact: Sequence[bool],
    noise: Noise,
) -> None:
    """Compare mean and second moment with those under more nodes, at three points.

    Raises ValueError if their relative change exceeds `CONVERGED`: the moment may be infinite, or undefined (the
    logarithm of a negative number).
    """
    finer = [n if fixed else 3 * n // 2 for n, fixed in zip(nodes, exact, strict=True)]
    for scale in (0.0, 0.5, -0.5):
        point = [scale * (1.0 - 0.3 * index) for index in range(len(nodes))]
        moments = []
        for counts in (nodes, finer):
            total = np.zeros(2)
            rules = [noise.checked_rule(n) for n in counts]
            for index in np.ndindex(*counts):
                z = [table[0][j] for table, j in zip(rules, index, strict=True)]
                p = math.prod(table[1][j] for table, j in zip(rules, index, strict=True))
                at = [
                    x * (1 + std * node) if noise.multiplicative else x + std * node
                    for x, std, node in zip(point, stds, z, strict=True)
                ]
                try:
                    value = phi(*at)
                except (ValueError, OverflowError, ZeroDivisionError):
                    value = math.nan
                total += p * value, p * value * value
            moments.append(total)
        size = math.sqrt(abs(moments[1][1])) or 1.0
        change = np.abs(moments[0] - moments[1]) / (size, size**2)
        if not change.max() <= CONVERGED:
            sizes = " and ".join(" x ".join(map(str, counts)) for counts in (nodes, finer))
            raise ValueError(
                f"`noise`: the expectation of {text} does not converge at std {list(map(float, stds))}: "
                f"{sizes} nodes differ by {change.max():.1e}; it may be infinite or undefined."
            )


def node_tables(noise: Noise, counts: Sequence[int]) -> list[str]:
    """Module-level arrays of nodes and weights."""
    lines = []
    for count in sorted(set(counts)):
        z, p = noise.checked_rule(count)
        lines.append(f"Z{count} = np.array({z.tolist()})\nP{count} = np.array({p.tolist()})")
    return lines


def quadrature_lines(
    part: Quadrature, kernel: str, x: Sequence[sympy.Symbol], rows: Sequence[int], noise: Noise | None
) -> list[str]:
    """Code that adds the contribution of a part to `out` (rows of its weights are overwritten)."""
    import sympy

    assert noise is not None
    own = [x[index] for index in part.indices]
    row = [rows[index] for index in part.indices]
    shifts = [sympy.Symbol(f"z{r}", real=True) for r in row]
    at_node = {a: a * z if noise.multiplicative else z + a for a, z in zip(own, shifts, strict=True)}
    node = "1.0 + e{r}*Z{n}[j{r}]" if noise.multiplicative else "e{r}*Z{n}[j{r}]"
    headers = [
        (f"for j{r} in range({n}):", f"z{r} = {node.format(r=r, n=n)}", f"P{n}[j{r}]")
        for r, n in zip(row, part.nodes, strict=True)
    ]
    f = part.phi.subs(at_node, simultaneous=True)
    first = [f.diff(a) for a in own]
    pairs = [(a, b) for a in range(len(own)) for b in range(a, len(own))]

    lines: list[str] = []
    if kernel != "mean_gradient":
        lines += _weighted_sums("m", [f], own, headers, _plain)
    if kernel == "mean":
        return [*lines, "out[i] += mc0 + mr0"]
    if kernel == "variance":
        lines += _weighted_sums("v", [f], own, headers, lambda c, r: [("0.0", f"({c[0]} - mc0 + {r[0]} - mr0)**2")])
        return [*lines, "out[i] += vr0"]
    if kernel == "mean_gradient":
        lines += _weighted_sums("d", first, own, headers, _plain)
        return [*lines, *(f"out[{r}, i] = dc{q} + dr{q}" for q, r in enumerate(row))]
    if kernel == "field":
        # dV/2 = E (phi - m) dphi, with its part at x = 0 separate.
        def moments(c: Sequence[str], r: Sequence[str]) -> list[tuple[str, str]]:
            slopes = [(c[q], r[q]) for q in range(1, len(c))]
            return slopes + [
                (f"({c[0]} - mc0)*{dc}", f"(({c[0]} - mc0)*{dr} + ({r[0]} - mr0)*({dc} + {dr}))") for dc, dr in slopes
            ]

        lines += _weighted_sums("d", [f, *first], own, headers, moments)
        shift = len(own)
        return [
            *lines,
            *(
                f"out[{r}, i] = -(g[i]*(dc{q} + dr{q}) + s2[i]*(dc{q + shift} + dr{q + shift}))"
                for q, r in enumerate(row)
            ),
        ]
    # d2V/2 = E [ (dphi_a - dm_a) dphi_b + (phi - m) d2phi_ab ]
    lines += _weighted_sums("d", first, own, headers, _plain)
    size = len(own)

    def curvature(c: Sequence[str], r: Sequence[str]) -> list[tuple[str, str]]:
        v = [f"({a} + {b})" for a, b in zip(c, r, strict=True)]
        second = [("0.0", value) for value in v[1 + size :]]
        spread = [
            ("0.0", f"(({v[1 + a]} - dc{a} - dr{a})*{v[1 + b]} + ({v[0]} - mc0 - mr0)*{v[1 + size + q]})")
            for q, (a, b) in enumerate(pairs)
        ]
        return second + spread

    lines += _weighted_sums("h", [f, *first, *(f.diff(own[a], own[b]) for a, b in pairs)], own, headers, curvature)
    for q, (a, b) in enumerate(pairs):
        lines.append(f"out[{row[a]}, {row[b]}, i] = -(g[i]*hr{q} + s2[i]*hr{q + len(pairs)})")
        if a != b:
            lines.append(f"out[{row[b]}, {row[a]}, i] = out[{row[a]}, {row[b]}, i]")
    return lines


def _plain(constants: Sequence[str], rests: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(constants, rests, strict=True))


def _weighted_sums(
    name: str,
    expressions: Sequence[sympy.Expr],
    variables: Sequence[sympy.Symbol],
    headers: Sequence[tuple[str, str, str]],
    combine: Callable[[Sequence[str], Sequence[str]], list[tuple[str, str]]],
) -> list[str]:
    """Nested loops that leave the sums of the combined pairs in ``{name}c{q}`` and ``{name}r{q}``."""
    import sympy

    from flowsim.symbolic.printing import to_python
    from flowsim.symbolic.stable import expanded_near

    split = expanded_near(expressions, variables)
    flat = [e for pair in split for e in pair]
    shared, reduced = sympy.cse(flat, symbols=sympy.numbered_symbols(f"{name}t", real=True), order="canonical")
    texts = [to_python(e) for e in reduced]
    terms = combine(texts[0::2], texts[1::2])
    live = [(q, kind, text) for q, pair in enumerate(terms) for kind, text in zip("cr", pair, strict=True)]
    lines: list[str] = []
    depth = len(headers)
    for level, (loop, node, _) in enumerate(headers):
        pad = "    " * level
        lines += [f"{pad}{name}{kind}{q}{'_' * level} = 0.0" for q, kind, _ in live]
        lines += [pad + loop, f"{pad}    {node}"]
    pad = "    " * depth
    lines += [f"{pad}{symbol} = {to_python(value)}" for symbol, value in shared]
    for level in range(depth - 1, -1, -1):
        pad = "    " * (level + 1)
        mark, inner = "_" * level, "_" * (level + 1)
        for q, kind, text in live:
            term = text if level == depth - 1 else f"{name}{kind}{q}{inner}"
            lines.append(f"{pad}{name}{kind}{q}{mark} += {headers[level][2]}*{term}")
    return lines
