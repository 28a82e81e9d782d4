"""``flowsim limit``: flows at decreasing scales against the limit of vanishing initialisation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowsim.cli.options import DataTable, NetworkOptions, data_options, network_options
from flowsim.cli.output import output_folder, results_options, save_figure, say_written, write_summary
from flowsim.cli.run import another_formula
from flowsim.compiling import compiling_note

if TYPE_CHECKING:
    from flowsim.network import DiagonalNetwork, LinearNetwork
    from flowsim.studies import LassoLink, LimitStudy

TWO_LAYER_ALPHAS = "1e-10,1e-30,1e-100,1e-300,1e-1000,1e-3000"
DEEP_ALPHAS = "0.1,0.03,0.01,0.003,0.001"
#: For formulas without growth coordinates: weights of waiting coordinates may decay far below alpha.
WEIGHT_ALPHAS = "1e-3,1e-4,1e-5,1e-6,1e-8,1e-10"


@click.command()
@data_options
@network_options
@click.option(
    "--alphas",
    metavar="A,B,...",
    help=f"Scales of initialisation.  [default: {TWO_LAYER_ALPHAS}; formulas that are not quadratic: {WEIGHT_ALPHAS}; "
    f"depth L >= 3: {DEEP_ALPHAS}]",
)
@click.option("--rtol", type=float, default=1e-9, show_default=True, help="Relative accuracy of the flows.")
@results_options("flowsim-limit")
def limit(
    *, table: DataTable, network: NetworkOptions, alphas: str | None, rtol: float, kind: str, out: Path, progress: bool
) -> None:
    """Follow the flow on DATA (.csv, .parquet, .npz; default: the bundled diabetes table) as alpha decreases.

    Prints errors on plateaus, of jump times and at the end, with the fitted rate, and where the time average of
    the limit leaves the Lasso path; writes figure.png, errors.csv and summary.json to the output folder.
    """
    from flowsim.limits import LinearSaddlePath
    from flowsim.network import LinearNetwork, quadratic_form
    from flowsim.problem import Regression
    from flowsim.studies import lasso_link, limit_study
    from flowsim.symbolic import order_at_origin

    problem = table.read(network.width)
    net = network.build()
    if alphas is None:
        alphas = TWO_LAYER_ALPHAS
        if not isinstance(net, LinearNetwork) and quadratic_form(net.distinct[0]) is None:
            alphas = WEIGHT_ALPHAS if order_at_origin(net.distinct[0]) == 2 else DEEP_ALPHAS
    scales = [text.strip() for text in alphas.split(",") if text.strip()]
    with output_folder(out) as staging, compiling_note(progress):
        study = limit_study(net, problem, scales, rtol=rtol, progress=progress)
        path = study.path
        link = lasso_link(path) if isinstance(problem, Regression) and not isinstance(path, LinearSaddlePath) else None
        _write(staging, kind, study, link, repr(net), table.name)
    _print(study, link, net, out, kind)


def _write(folder: Path, kind: str, study: LimitStudy, link: LassoLink | None, net: str, data: str) -> None:
    from flowsim import plot
    from flowsim.version import __version__

    figure = plot.limit_overview(study, link)
    save_figure(figure, folder / f"figure.{kind}")
    study.table().to_csv(folder / "errors.csv", index=False)
    summary = {
        "flowsim": __version__,
        "network": net,
        "data": data,
        **study.summary(),
        "loss": study.path.problem.loss_function.name,
    }
    if link is not None:
        summary["lasso"] = {"departs_at": link.departs_at, "reason": link.reason}
    write_summary(folder, summary)


def _print(
    study: LimitStudy, link: LassoLink | None, net: DiagonalNetwork | LinearNetwork, out: Path, kind: str
) -> None:
    from flowsim.studies import one_sided
    from flowsim.text_table import text_table

    headings = ("alpha", "plateaus, median", "largest", "jump times, median", "jumps seen", "end")
    rows = [
        (
            row.alpha,
            *(f"{error:.1e}" for error in (row.plateau_median, row.plateau_max, row.jump_time_median)),
            row.jumps_seen,
            f"{row.end:.1e}",
        )
        for row in study.table().itertuples()
    ]
    title = f"{net!r}: {len(study.path.jump_times)} jumps; errors relative to the limit"
    click.echo(text_table(headings, rows, title=title))
    if math.isfinite(study.rate.order):
        click.echo(f"jump times converge at order {study.rate}; constant {study.rate.constant:.3g}")
    else:
        click.echo("no rate: it takes the same jumps seen at two scales or more")
    if link is not None:
        click.echo(f"Lasso: {link.reason}")
    note = one_sided(study.path)
    if note is not None:
        click.echo(f"note: {note}{another_formula(net)}")
    say_written(out, f"figure.{kind}", "errors.csv", "summary.json")
