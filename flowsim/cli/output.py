"""Atomic writing of a folder of results."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowsim.json_values import json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: ``--format`` of commands that draw figures
figure_option = click.option(
    "--format", "kind", type=click.Choice(["png", "pdf", "svg"]), default="png", show_default=True, help="Of figures."
)


@contextlib.contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """A staging folder whose files are moved to `out` when the block succeeds, and removed when it fails.

    Figures of the block use a backend without windows.

    Raises ValueError at once if `out` cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=out))
    except OSError as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise ValueError(f"`--out` must be a folder that can be written; {out}: {error.strerror}.") from None
    try:
        yield staging
        for file in sorted(staging.iterdir()):
            os.replace(file, out / file.name)
        made = []
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def import_what_writes() -> None:
    """Import the modules for figures and files, which takes a second."""
    from matplotlib import artist as artists

    # Tables of the properties of every artist, in docstrings that a command does not show, took a third of the import.
    described, artists.kwdoc = artists.kwdoc, lambda artist: ""
    try:
        import matplotlib.pyplot  # noqa: F401
    finally:
        artists.kwdoc = described
    import flowsim.plot  # noqa: F401


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure and close it."""
    import matplotlib.pyplot as plt

    from flowsim.plot.style import save

    save(figure, file)
    plt.close(figure)


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write summary.json; numbers that are not finite become null."""
    text = json.dumps(json_value(summary, null=True), indent=2, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
