"""``flowsim reproduce``: figure, data and checks of an experiment of the papers."""

from __future__ import annotations

from pathlib import Path

import click

from flowsim.compiling import compiling_note

_SIGNS = {"equals": "", "at most": "<= ", "at least": ">= "}


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "listing", is_flag=True, help="List the experiments.")
@click.option("--all", "everything", is_flag=True, help="Run all of them.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("flowsim-papers"),
    show_default=True,
    help="Folder.",
)
def reproduce(names: tuple[str, ...], listing: bool, everything: bool, out: Path) -> None:
    """Reproduce experiments of the papers and follow-ups: NAME.png, NAME.nc (data) and NAME.json (parameters, checks).

    Exit status 1 if a check fails.
    """
    import matplotlib

    from flowsim import papers
    from flowsim.text_table import text_table

    if listing or not (names or everything):
        listed = [(entry.name, entry.title, entry.paper) for entry in papers.EXPERIMENTS.values()]
        headings = ["name", "what it shows", "paper"]
        click.echo(text_table(headings, listed, left=headings))
        return
    if everything and names:
        raise ValueError("`--all` excludes names.")
    chosen = list(papers.EXPERIMENTS) if everything else list(names)
    for name in chosen:
        if name not in papers.EXPERIMENTS:
            raise ValueError(f"`NAME` must be one of {', '.join(papers.EXPERIMENTS)}; received {name!r}.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"`--out` must be a folder that can be written; {out}: {error.strerror}.") from None
    matplotlib.use("Agg")
    failed, seconds = 0, 0.0
    for name in chosen:
        with compiling_note(True):
            report = papers.reproduce(name, out)
        failed += not report.holds
        seconds += report.seconds
        rows = [
            (
                check.statement,
                f"{_SIGNS[check.kind]}{check.predicted:.6g}",
                f"{check.measured:.6g}",
                "yes" if check.holds else "NO",
            )
            for check in report.checks
        ]
        headings = ["check", "predicted", "measured", "holds"]
        click.echo(text_table(headings, rows, left=("check",), title=f"{name} ({report.seconds:.1f} s)"))
    click.echo(f"{len(chosen) - failed} of {len(chosen)} experiments hold, {seconds:.0f} s; wrote {out}")
    if failed:
        raise click.exceptions.Exit(1)
