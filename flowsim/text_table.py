"""Tables as plain text, and texts that are too long."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest
from typing import Any

_GAP = "  "
#: A column is not made narrower than this.
_NARROWEST = 20


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters, with dots for what is left out."""
    return text if len(text) <= most else text[: most - 3] + "..."


def text_table(
    headings: Sequence[str], rows: Iterable[Sequence[Any]], *, left: Collection[str] = (), title: str = ""
) -> str:
    """Rows under headings, the columns `left` to the left; the widest are folded to the width of the terminal."""
    cells = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - shutil.get_terminal_size().columns
    while excess > 0 and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
        excess -= 1
    lines = [title] if title else []
    for number, row in enumerate(cells):
        folded = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*folded, fillvalue=""):
            placed = [
                part.ljust(width) if heading in left else part.rjust(width)
                for heading, part, width in zip(headings, parts, widths, strict=True)
            ]
            lines.append(_GAP.join(placed).rstrip())
        if number == 0:
            lines.append(_GAP.join("-" * width for width in widths))
    return "\n".join(lines)
