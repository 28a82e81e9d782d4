"""Text files of plain decimal numbers, read without pandas, whose import takes longer than a flow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from flowsim.arrays import Array

#: Characters of a plain number; bytes of a file beyond which pandas is worth its import.
_PLAIN, _LARGEST = "0123456789+-.eE", 32_000_000


def read_plain(path: Path, sep: str) -> tuple[list[str], Array] | None:
    """Names, and values (n, d), of a file with a full row of finite decimal numbers on every line but the first.

    None for any other file: with gaps, texts, quotation marks, spaces, or a first line that pandas would complete.
    """
    if path.stat().st_size > _LARGEST or sep in _PLAIN or len(sep) != 1:
        return None
    try:
        head, _, rows = path.read_bytes().replace(b"\r\n", b"\n").partition(b"\n")
        names, rows = head.decode().split(sep), rows.rstrip(b"\n")
        others = rows.translate(None, f"{_PLAIN}{sep}\n".encode())
        if others or not rows or b"\n\n" in b"\n" + rows or len(set(names)) < len(names):
            return None
        if any(name != name.strip() or '"' in name or name.startswith(("Unnamed: ", "\ufeff", "# ")) for name in names):
            return None
        values = np.loadtxt(io.BytesIO(rows), delimiter=sep, comments=None, ndmin=2, encoding="ascii")
    except ValueError:  # an encoding other than UTF-8, an empty field, lines of several lengths
        return None
    fits = values.shape[1:] == (len(names),) and all(names) and bool(np.isfinite(values).all())
    return (names, values) if fits else None
