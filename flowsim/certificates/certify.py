"""Certification of the theorems of the papers on the user's own data and network."""

from __future__ import annotations

import difflib
import html
import json
import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from flowsim.atomic import write_text
from flowsim.certificates.certificate import Certificate
from flowsim.certificates.registry import THEOREMS
from flowsim.certificates.setting import Setting
from flowsim.hints import hinting
from flowsim.network import Alpha, DiagonalNetwork, GivenWeights, InitialScale, LinearNetwork, quadratic_form
from flowsim.network.networks import check_types
from flowsim.plain_numbers import count
from flowsim.problem import MatrixSensing, Problem, Regression, single_target
from flowsim.results.saved import Saved

if TYPE_CHECKING:
    import pandas

#: The note under the table.
_MARGIN = "margin = 1 - error / tolerance: 1 is agreement to rounding, 0 the edge of what the run resolves"
#: Binary exponents of the largest entries up to which data are not scaled.
_ORDINARY = 100
#: Of the terminal's text.
_WIDTH, _INDENT = 110, 5 * " "
_VERDICTS = {"holds": "hold", "violated": "violated", "not resolved": "not resolved"}


@dataclass(frozen=True, eq=False)
class Certificates(Saved, Sequence[Certificate]):
    """One row per theorem; indexed by position or by name."""

    rows: tuple[Certificate, ...]
    title: str = ""

    @property
    def holds(self) -> bool:
        """Whether no theorem is violated and at least one holds; unresolved ones do not count."""
        told = [row.holds for row in self.rows if row.holds is not None]
        return bool(told) and all(told)

    @overload
    def __getitem__(self, key: int | str) -> Certificate: ...
    @overload
    def __getitem__(self, key: slice) -> Certificates: ...
    def __getitem__(self, key: int | str | slice) -> Certificate | Certificates:
        if isinstance(key, slice):
            return Certificates(self.rows[key], self.title)
        if isinstance(key, str):
            for row in self.rows:
                if row.name == key:
                    return row
            raise KeyError(key)
        return self.rows[key]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Certificate]:
        return iter(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"title": self.title, "holds": self.holds, "certificates": [row.to_dict() for row in self.rows]}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The rows as JSON text; written to `path`, atomically, if one is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        if path is not None:
            write_text(path, text)
        return text

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per theorem, indexed by name."""
        import pandas

        frame = pandas.DataFrame([row.to_dict() for row in self.rows])
        return frame.drop(columns="details").set_index("name") if len(frame) else frame

    def table(self, *, applicable_only: bool = False) -> str:
        """For the terminal: verdict, name, source, statement, hypothesis and numbers; first of theorems that apply."""
        applying, others = self._split()
        parts = [self.title] if self.title else []
        parts += map(_entry, applying if applicable_only else (*applying, *others))
        return "\n\n".join([*parts, _MARGIN])

    def _split(self) -> tuple[tuple[Certificate, ...], tuple[Certificate, ...]]:
        """Theorems that apply, and those that do not."""
        return tuple(row for row in self.rows if row.applies), tuple(row for row in self.rows if not row.applies)

    def __str__(self) -> str:
        hidden = len(self._split()[1])
        note = f"\n{hidden} of {len(self)} theorems do not apply: table() says why" if hidden else ""
        return self.table(applicable_only=True) + note

    def _repr_html_(self) -> str:
        tables = [
            Certificates(rows).to_dataframe().to_html(float_format=lambda value: f"{value:.4g}") if rows else ""
            for rows in self._split()
        ]
        summary = f"{len(self._split()[1])} of {len(self)} theorems do not apply"
        folded = f"<details><summary>{summary}</summary>{tables[1]}</details>" if tables[1] else ""
        return f"<div><strong>{html.escape(self.title)}</strong>{tables[0]}{folded}</div>"

    def __repr__(self) -> str:
        count = {status: sum(row.status == status for row in self.rows) for status in _VERDICTS}
        told = ", ".join(f"{number} {verdict}" for (status, verdict) in _VERDICTS.items() if (number := count[status]))
        return f"Certificates({len(self.rows)} theorems: {told or 'none applies'})"


@hinting
def certify(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    *,
    alpha: Alpha | InitialScale | None = None,
    start: GivenWeights | None = None,
    theorems: str | Sequence[str] | None = None,
    rtol: float = 1e-8,
    seed: int = 0,
    progress: bool = False,
) -> Certificates:
    """Test the theorems of three papers, and statements for any convex loss, on a network and data.

    Each row states a theorem, whether its hypothesis is met and why, its prediction, the value measured by a
    computation that does not use the theorem, and whether the two agree.

    Parameters
    ----------
    net : DiagonalNetwork or LinearNetwork
    problem : Problem
        Any loss: theorems on squares are not applicable to others.
    alpha : float, str, Decimal or Fraction, optional
        Scale at which limits of vanishing initialisation are measured; each is measured there and where the distance
        to the limit, x = 1/ln(1/alpha) or alpha^(L-2), is half. Default: small enough for the data's shortest plateau.
    start : mapping weight -> array, optional
        The direction that alpha multiplies.
    theorems : str or sequence of str, optional
        Names, or parts of a paper's title line such as ``"2304.00488"``. Default: all.
    rtol : float
        Tolerance of the flows.
    seed : int
        Seed of all random numbers.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Certificates
        A sequence of rows with ``name, paper, statement, applies, hypothesis, predicted, measured, error, tolerance,
        margin, holds``; ``margin = 1 - error/tolerance``, and ``holds`` is None where the theorem does not apply.

    Raises
    ------
    ValueError
        For invalid arguments and unknown names.

    References
    ----------
    Clara, Langer & Schmidt-Hieber, arXiv 2503.11891; Min, Tarmoun, Vidal & Mallada, arXiv 2105.06351;
    Pesme & Flammarion, arXiv 2304.00488.

    Examples
    --------
    >>> import flowsim as fs
    >>> problem = fs.Regression([[2.0, 0.0], [0.0, 1.0]], [2.0, 3.0])
    >>> rows = fs.certify(fs.DiagonalNetwork("u*v"), problem, theorems=["jump-times", "saddles"])
    >>> rows.holds, rows["jump-times"].status
    (True, 'holds')
    """
    check_types(net, problem)
    if isinstance(problem, MatrixSensing):
        raise ValueError(
            f"`problem` must have features X for the theorems; received {type(problem).__name__}. limit_study holds "
            "its flows against their limit."
        )
    if not (isinstance(rtol, int | float) and 0 < rtol < 1):
        raise ValueError(f"`rtol` must lie in (0, 1); received {rtol!r}.")
    seed = count("seed", seed, 0)
    chosen = _choose(theorems)
    if isinstance(net, DiagonalNetwork):
        problem = single_target(problem)
        net.direction(start, problem.d)
    if isinstance(problem, Regression) and not problem.y.any():
        raise ValueError("`problem` must have y != 0: at y = 0 the origin is the solution and nothing moves.")
    problem, units = _in_ordinary_units(net, problem)
    setting = Setting(net, problem, None if alpha is None else InitialScale.parse(alpha), start, float(rtol), seed)
    from tqdm.auto import tqdm

    rows = []
    with tqdm(chosen, desc="certify", disable=not progress, leave=False) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            rows.append(THEOREMS[name].certify(setting))
    return Certificates(tuple(rows), f"{net} on {problem.n} x {problem.d} data{units}")


def _in_ordinary_units(net: DiagonalNetwork | LinearNetwork, problem: Problem) -> tuple[Problem, str]:
    """X and y over powers of two where fourth powers may leave the range of floats, and a text that says so.

    Statements on homogeneous formulas without noise do not depend on units.
    """
    homogeneous = isinstance(net, DiagonalNetwork) and all(
        formula.product_of is not None or quadratic_form(formula) is not None for formula in net.distinct
    )
    squares = isinstance(problem, Regression)
    if not (homogeneous and net.noise is None and problem.is_dense and squares):
        return problem, ""
    p, q = (math.frexp(float(np.abs(values).max()))[1] for values in (problem.X, problem.y))
    if max(abs(p), abs(q)) <= _ORDINARY:
        return problem, ""
    scaled = Regression(np.ldexp(problem.X, -p), np.ldexp(problem.y, -q), problem.feature_names)
    return scaled, f", X in units of 2^{p} and y of 2^{q}"


def _choose(theorems: str | Sequence[str] | None) -> list[str]:
    if theorems is None:
        return list(THEOREMS)
    if not isinstance(theorems, Iterable) or not len(
        asked := [theorems] if isinstance(theorems, str) else list(theorems)
    ):
        raise ValueError(f"`theorems` must name theorems or papers; received {theorems!r}.")
    chosen: list[str] = []
    for each in asked:
        found = [each] if each in THEOREMS else [name for name, entry in THEOREMS.items() if str(each) in entry.paper]
        if not found or not str(each):
            near = difflib.get_close_matches(str(each).lower().replace("_", "-"), THEOREMS, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f". The theorems are {', '.join(THEOREMS)}."
            raise ValueError(f"`theorems` must name theorems or papers; received {each!r}{meant}")
        chosen += [name for name in found if name not in chosen]
    return chosen


def _entry(row: Certificate) -> str:
    """One theorem, for the terminal."""
    signs = {"holds": "yes", "violated": "NO", "not resolved": "?"}
    told = [row.statement, row.hypothesis if row.applies else f"not met: {row.hypothesis}"]
    if row.error is not None:
        told.append(f"predicted {_short(row.predicted)}, measured {_short(row.measured)}")
    if row.margin is not None:
        told[-1] += f", margin {row.margin:.3g}"
    folded = (textwrap.fill(each, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT) for each in told)
    return "\n".join([f"{signs.get(row.status, '-'):<{len(_INDENT)}}{row.name}  {row.paper}", *folded])


def _short(value: float | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.6g}"
