"""Atomic writing: of files, with permissions by the user's umask, and of several files together."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new empty file beside `path` that replaces it when the block succeeds, and is removed when it fails.

    ``tempfile.mkstemp`` makes files that only their owner can read, whatever the umask; this one is an ordinary file.

    Raises OSError if the folder of `path` cannot be written.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}-{secrets.token_hex(8)}"
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "No such folder", str(path.parent)) from None
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`, to which its files are moved when the block succeeds.

    Raises OSError if `folder` cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as staging:
        yield Path(staging)
        for file in sorted(Path(staging).iterdir()):
            os.replace(file, folder / file.name)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
