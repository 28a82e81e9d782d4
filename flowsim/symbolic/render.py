"""Derivations as text, step by step: LaTeX for notebooks, Unicode for terminals."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Expressions with more operations than this are not shown.
_LONG = 220
_WIDTH = 110


@dataclass(frozen=True)
class Line:
    """One equation ``left = right``, or a text. `left` is (LaTeX, plain text); `right` an expression or such a pair."""

    left: tuple[str, str] = ("", "")
    right: Any = None
    words: str = ""


def say(words: str) -> Line:
    """A sentence, mathematics between dollars."""
    return Line(words=words)


#: A title and its lines.
Step = tuple[str, list[Line]]


class Rendered:
    """The base class of derivations that render themselves: a subclass defines :meth:`chapters`."""

    def chapters(self) -> Sequence[tuple[str, list[Step]]]:
        """Pairs of a heading and its steps."""
        raise NotImplementedError

    def latex(self) -> str:
        """One ``aligned`` block: titles in bold, one line for each equation or sentence."""
        lines = []
        for _, steps in self.chapters():
            for title, body in steps:
                lines.append(rf"& \textbf{{{title}}}")
                lines += [_latex_line(line) for line in body if line.words or line.left[0]]
        text = " \\\\\n".join(lines)
        return f"\\begin{{aligned}}\n{text}\n\\end{{aligned}}"

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex()}\n$$"

    def __str__(self) -> str:
        """The steps on lines of Unicode mathematics."""
        return "".join(text for text, _ in _pieces(self.chapters()))

    def __repr__(self) -> str:
        return f"derive({self.net!r})"  # type: ignore[attr-defined]

    def pieces(self) -> Iterator[tuple[str, str]]:
        """The text in pieces, each with a style: "bold", "bold cyan", "dim" or ""."""
        return _pieces(self.chapters())


def _latex_line(line: Line) -> str:
    if line.words:
        pieces = line.words.split("$")
        pieces[0::2] = [_escape(piece) for piece in pieces[0::2]]
        pieces[1::2] = [f"${_latex_math(piece)}$" for piece in pieces[1::2]]
        return rf"& \quad\text{{{''.join(pieces)}}}"
    if line.right is None:
        return rf"& \quad {line.left[0]}"
    if isinstance(line.right, tuple):
        return f"{line.left[0]} &= {line.right[0]}"
    if _is_long(line.right):
        return rf"{line.left[0]} &= \text{{{sympy.count_ops(line.right)} operations, not shown}}"
    return f"{line.left[0]} &= {sympy.latex(line.right)}"


_GREEK = re.compile(r"(?<![A-Za-z])(alpha|beta|eta|lambda|phi|sigma|tau|theta|xi|Sigma)(?![A-Za-z])")
_REPLACED = (
    (_GREEK, r"\\\1 "),
    (re.compile(r"\b(sum|int|ln|exp|sin|cos|tan|sinh|cosh|tanh|log)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"_([a-z]{2,})"), r"_{\1}"),
    (re.compile(r"(?<![A-Za-z\\])([a-z])(\d+)"), r"\1_{\2}"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\^(\d\d+)"), r"^{\1}"),
    (re.compile(r"\*"), r"\\,"),
    (re.compile(r"\^T\b"), r"^\\top "),
    (re.compile(r"\b(d?)t~"), r"\1\\tilde t"),
    (re.compile(r"\bt([+-])"), r"t^\1"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"->"), r"\\to "),
)


def _latex_math(text: str) -> str:
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    return text


def _escape(words: str) -> str:
    return words.replace("\\", "").replace("_", r"\_").replace("^", r"\string^").replace("`", "")


def _pieces(chapters: Sequence[tuple[str, list[Step]]]) -> Iterator[tuple[str, str]]:
    for heading, body in chapters:
        yield f"{heading}\n", "bold"
        for number, (title, lines) in enumerate(body, 1):
            yield f"\n{number}. {title}\n", "bold cyan"
            for line in lines:
                for text in _plain_line(line):
                    yield text + "\n", "dim" if line.words else ""
        yield "\n", ""


def _plain_line(line: Line) -> list[str]:
    if line.words:
        return _wrapped("   ", _unicode(line.words))
    if line.right is None:
        return []
    left = f"   {_unicode(line.left[1])} = "
    if isinstance(line.right, tuple):
        return _wrapped(left, _unicode(line.right[1]))
    if isinstance(line.right, sympy.MatrixBase):
        table = [[_unicode(entry) for entry in line.right.row(row)] for row in range(line.right.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        if len(left) + sum(widths) + 3 * len(widths) + 1 > _WIDTH:
            return [f"{left}{line.right.rows} x {line.right.cols}, too wide to show; see `.jacobian`"]
        rows = ["[ " + "   ".join(e.ljust(w) for e, w in zip(row, widths, strict=True)) + " ]" for row in table]
        return [(left if row == 0 else " " * len(left)) + text for row, text in enumerate(rows)]
    if _is_long(line.right):
        return [f"{left}... ({sympy.count_ops(line.right)} operations, not shown)"]
    return _wrapped(left, _unicode(line.right))


def _is_long(e: Any) -> bool:
    return bool(sympy.count_ops(e) > _LONG)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False)


_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_LETTERS = {
    "alpha": "α",
    "beta": "β",
    "eta": "η",
    "lambda": "λ",
    "tau": "τ",
    "phi": "φ",
    "sigma": "σ",
    "Sigma": "Σ",
    "theta": "θ",
    "xi": "ξ",
}


def _unicode(e: Any) -> str:
    """One line, with superscript powers and products with a dot."""
    text = "∞" if e == sympy.oo else str(e).replace("$", "")
    text = _GREEK.sub(lambda found: _LETTERS[found[1]], text)
    text = re.sub(r"(?:\*\*|\^)(\d+)\b(?!\.\d)", lambda found: found[1].translate(_SUPERSCRIPTS), text)
    return text.replace("**", "^").replace("*", "·")
