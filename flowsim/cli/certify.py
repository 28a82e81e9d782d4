"""``flowsim certify``: the theorems of the papers on a table, predicted against measured."""

from __future__ import annotations

from pathlib import Path

import click

from flowsim.cli.options import DataTable, NetworkOptions, data_options, network_options, progress_option
from flowsim.compiling import compiling_note


@click.command()
@data_options
@network_options
@click.option("--alpha", help="Scale at which limits are measured.  [default: fitting the shortest plateau]")
@click.option("--theorem", "theorems", multiple=True, metavar="NAME", help="Only this theorem or paper; repeatable.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything drawn.")
@click.option("--all-rows/--applicable", default=False, show_default=True, help="Show what does not apply, and why.")
@click.option(
    "--out",
    "--json",
    "out",
    type=click.Path(path_type=Path),
    help="A file for the rows, JSON; or a folder of `flowsim run`, whose report then shows them.",
)
@progress_option
def certify(
    *,
    table: DataTable,
    network: NetworkOptions,
    alpha: str | None,
    theorems: tuple[str, ...],
    seed: int,
    all_rows: bool,
    out: Path | None,
    progress: bool,
) -> None:
    """Test the theorems of the papers on DATA (.csv, .parquet, .npz; default: the bundled diabetes table).

    One row per theorem: whether its hypothesis is met and why, the prediction, the measurement, and whether they agree.
    Exit status 1 if a theorem is violated; a theorem that these runs cannot decide is marked ?, with the reason.
    """
    from flowsim.certificates import certify as run

    problem = table.read(network.width)
    net = network.build()
    if out is not None and out.is_dir():
        out /= "certificates.json"
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"`--out` must name a file in an existing folder; there is none at {out.parent}.")
    with compiling_note(progress):
        rows = run(net, problem, alpha=alpha, theorems=list(theorems) or None, seed=seed, progress=progress)
    click.echo(rows.table(applicable_only=not all_rows))
    applying = [row for row in rows if row.applies]
    hidden = "" if all_rows else f"; {len(rows) - len(applying)} do not apply (--all-rows says why)"
    unresolved = sum(row.status == "not resolved" for row in applying)
    open_rows = f", {unresolved} not resolved" if unresolved else ""
    click.echo(f"{sum(row.holds is True for row in applying)} of {len(applying)} theorems hold{open_rows}{hidden}")
    if out is not None:
        rows.to_json(out)
        click.echo(f"wrote {out}")
    if any(row.holds is False for row in applying):
        raise click.exceptions.Exit(1)
