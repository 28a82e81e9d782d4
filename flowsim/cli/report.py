"""``flowsim report``: a run folder as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The page.  [default: RUN_FOLDER/report.html]")
@click.option("--title", help="Heading of the page.")
def report(run_folder: Path, out: Path | None, title: str | None) -> None:
    """Write one HTML page with zoomable figures, jump table and certificates of RUN_FOLDER.

    RUN_FOLDER is the output of `flowsim run --out RUN_FOLDER`, or a folder of such folders; a slider then selects among
    them, for instance over initialisation scales or noise levels. The page needs no network.
    """
    from flowsim.report import write_report

    page = write_report(run_folder, out, title)
    click.echo(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB)")
