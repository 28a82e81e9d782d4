"""``flowsim compare``: gradient descent against the gradient flow and the modified flow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowsim.cli.options import DataTable, NetworkOptions, data_options, network_options
from flowsim.cli.output import output_folder, results_options, save_figure, say_written, write_summary
from flowsim.compiling import compiling_note

if TYPE_CHECKING:
    from flowsim.studies import HalvedSteps


@click.command()
@data_options
@network_options
@click.option("--alpha", default="0.1", show_default=True, help="Scale of initialisation, e.g. 1e-1000.")
@click.option(
    "--step", type=float, help="Largest step size; halved twice for the orders.  [default: a tenth of what is stable]"
)
@click.option(
    "--t-end",
    type=float,
    help="Length of the runs in time h k.  [default: 200 largest steps, or until the first coordinate has moved]",
)
@click.option("--momentum", type=float, default=0.0, show_default=True, help="Heavy ball.")
@click.option(
    "--seeds", type=click.IntRange(0), default=0, show_default=True, help="With noise: average this many sampled runs."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sampled runs.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Threads of the sampled runs.")
@results_options("flowsim-compare")
def compare(
    *,
    table: DataTable,
    network: NetworkOptions,
    alpha: str,
    step: float | None,
    t_end: float | None,
    momentum: float,
    seeds: int,
    seed: int,
    workers: int,
    kind: str,
    out: Path,
    progress: bool,
) -> None:
    """Descend on DATA (.csv, .parquet, .npz; default: the bundled diabetes table) at three step sizes.

    Prints the distance to the flow and to the modified flow, in time and along the path, the decay by discrete steps of
    the imbalance, and the empirical orders; writes figure.png, distances.csv and summary.json to the output folder.
    With noise the descents follow the expected gradient; --seeds adds the mean of sampled runs
    with its band, in a figure of its own.
    """
    from flowsim.studies import compare_halved_steps, first_move, tenth_of_stable

    problem = table.read(network.width)
    net = network.build()
    if seeds and net.noise is None:
        raise click.BadParameter("sampled runs need --noise.", param_hint="--seeds")
    largest = tenth_of_stable(net, problem, momentum) if step is None else step
    end = max(200 * largest, first_move(net, problem, alpha) * (1 - momentum)) if t_end is None else t_end
    with output_folder(out) as staging, compiling_note(progress):
        found = compare_halved_steps(
            net,
            problem,
            largest,
            end,
            alpha=alpha,
            momentum=momentum,
            runs=seeds,
            seed=seed,
            workers=workers,
            progress=progress,
        )
        summary: dict[str, Any] = {"network": repr(net), "data": table.name, "alpha": alpha, "momentum": momentum}
        summary |= found.summary()
        if "sampled" in summary:
            summary["sampled"] = {"runs": seeds, "seed": seed, **summary["sampled"]}
        _write(staging, kind, found, summary)
    _print(summary, out, kind)


def _write(folder: Path, kind: str, found: HalvedSteps, summary: dict[str, Any]) -> None:
    import matplotlib.pyplot as plt
    import pandas as pd

    from flowsim import plot
    from flowsim.version import __version__

    plain, better, ensemble = found.to_flow, found.to_modified, found.sampled
    figure = plot.compare_overview(plain[0], plain, better)
    save_figure(figure, folder / f"figure.{kind}")
    if ensemble is not None:
        figure, ax = plt.subplots(layout="constrained")
        plot.compare(ensemble, ax=ax)
        save_figure(figure, folder / f"sampled.{kind}")
    rows = [
        pd.DataFrame({"step": item.step, "t": item.t, "distance": item.distance, "to_modified": close.distance})
        for item, close in zip(plain, better, strict=True)
    ]
    pd.concat(rows).to_csv(folder / "distances.csv", index=False)
    write_summary(folder, {"flowsim": __version__, **summary})


def _print(summary: dict[str, Any], out: Path, kind: str) -> None:
    from flowsim.text_table import text_table

    headings = ("step", "largest distance", "to modified flow", "along path", "at end", "gain")
    kinds = ("largest distance", "largest distance to modified flow", "largest along path", "distance at end")
    rows = [
        (f"{row['step']:.3g}", *(f"{row[kind]:.2e}" for kind in kinds), f"{row.get('largest gain', 0.0):.2e}")
        for row in summary["runs"]
    ]
    title = f"{summary['network']} at alpha = {summary['alpha']}: descent against flow"
    click.echo(text_table(headings, rows, title=title))
    if math.isfinite(summary["order"]):
        click.echo(
            f"order {summary['order']:.2f} to the flow, {summary['order to modified flow']:.2f} to the modified flow"
        )
    else:
        click.echo("nothing has moved yet, so there is no order: give a larger --t-end")
    if "sampled" in summary:
        sampled = summary["sampled"]
        click.echo(
            f"mean of {sampled['runs']} sampled runs: at most {sampled['largest deviation in standard errors']:.1f} "
            f"standard errors from the expected-gradient flow, the O(h) of the steps included"
        )
    figures = [f"figure.{kind}", *([f"sampled.{kind}"] if "sampled" in summary else [])]
    say_written(out, *figures, "distances.csv", "summary.json")
