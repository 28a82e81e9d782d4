"""``flowsim run``: integrate a flow on a table, compare it with the limit, write figure and files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowsim.arrays import Array
from flowsim.cli.options import DataTable, NetworkOptions, clock_option, data_options, network_options
from flowsim.cli.output import output_folder, results_options, save_figure, say_written, write_summary
from flowsim.compiling import compiling_note
from flowsim.solvers.threads import one_blas_thread

if TYPE_CHECKING:
    from flowsim.limits import LinearSaddlePath, SaddlePath
    from flowsim.network import DiagonalNetwork, LinearNetwork
    from flowsim.problem import Problem
    from flowsim.results import Trajectory

#: Tolerance of the run relative to that of the reference of --check.
_REFERENCE_TIGHTENING = 1000.0
_REFERENCE_POINTS = 2000
#: Number of entries of X up to which one thread of BLAS is as fast as two.
_SMALL = 1 << 20
#: Largest number of rows printed.
_MOST_JUMPS = 20


@click.command()
@data_options
@network_options
@click.option("--alpha", default="1e-100", show_default=True, help="Scale of initialisation, any positive number.")
@clock_option("Unit of --horizon.")
@click.option(
    "--horizon",
    type=float,
    help="End of the run.  [default: 1.5 times the last predicted jump; with --clock time when it rests]",
)
@click.option("--method", default="auto", show_default=True, help="auto, native, LSODA, BDF, Radau or DOP853.")
@click.option("--rtol", type=float, default=1e-6, show_default=True, help="Relative accuracy of the weights.")
@click.option("--check", is_flag=True, help="Measure the error against a run with tolerances 1000 times tighter.")
@results_options("flowsim-run")
def run(
    *,
    table: DataTable,
    network: NetworkOptions,
    alpha: str,
    clock: Any,
    horizon: float | None,
    method: str,
    rtol: float,
    check: bool,
    kind: str,
    out: Path,
    progress: bool,
) -> None:
    """Integrate the gradient flow on DATA (.csv, .parquet, .npz; default: the bundled diabetes table).

    Prints the jumps, predicted by the limit of vanishing initialisation and measured on the flow, and writes
    figure.png, trajectory.nc and summary.json to the output folder.
    """
    problem = table.read(network.width)
    net = network.build()
    # A second thread would mostly wait for the first in products of small matrices.
    with output_folder(out) as staging, compiling_note(progress), one_blas_thread(problem.X.size <= _SMALL):
        flow = {"alpha": alpha, "clock": clock, "method": method, "rtol": rtol}
        summary, traj, path = _integrate(net, problem, horizon, flow, check, progress)
        summary["data"] = table.name
        summary["eta"] = network.eta
        _write(staging, kind, traj, path, summary)
    _print(summary, net, problem, out, kind)


def _integrate(
    net: DiagonalNetwork | LinearNetwork,
    problem: Problem,
    horizon: float | None,
    flow: dict[str, Any],
    check: bool,
    progress: bool,
) -> tuple[dict[str, Any], Trajectory, SaddlePath | LinearSaddlePath | None]:
    from flowsim.cli.output import import_what_writes
    from flowsim.flows import gradient_flow
    from flowsim.limits.horizons import last_jump, least_loss, limit_or_why
    from flowsim.studies import jump_table, one_sided

    path, without = limit_or_why(net, problem)
    if horizon is None:
        horizon = _default_horizon(last_jump(path), without, flow["clock"])
    import_what_writes()  # while another process may be compiling the loop of the flow
    traj = gradient_flow(net, problem, horizon, progress=progress, **flow)
    if horizon is None:
        horizon = float(traj.t[-1])
    summary: dict[str, Any] = {
        "network": repr(net),
        "n": problem.n,
        "d": problem.d,
        **traj.info,
        "alpha": flow["alpha"],
        "horizon": horizon,
        "seeds": [],
        "final_loss": float(traj.loss[-1]),
        "final_log_loss": _last(traj.log_loss),
        "loss": problem.loss_function.name,
        "least_loss": least_loss(problem, path),
        "imbalance_drift": traj.imbalance_drift,
        "stats": traj.stats,
        "jumps": [] if path is None else jump_table(traj, path),
        "order": 2 if path is None else getattr(path, "order", 2),
        "limit": "found" if path is not None else without,
    }
    if path is not None and path.escape is not None:
        summary["escape"] = path.message
    note = None if path is None else one_sided(path)
    if note is not None:
        summary["one_sided"] = note
    if check:
        summary["error"] = _error(net, problem, traj, horizon, flow)
    return summary, traj, path


def _default_horizon(last: float | None, without: str | None, clock: str) -> float | None:
    """Beyond the last jump, or None: until rest."""
    from flowsim.limits.horizons import BEYOND_LAST_JUMP

    if clock == "time":
        return None
    if last is None:
        raise ValueError(f"`--horizon` must be given: {without or 'the limit has no jump to set it by'}.")
    if clock != "accelerated":
        raise ValueError(f"`--horizon` must be given with --clock {clock}.")
    return BEYOND_LAST_JUMP * last


def _last(values: Array | None) -> float | None:
    return None if values is None or not math.isfinite(values[-1]) else float(values[-1])


def _error(
    net: DiagonalNetwork | LinearNetwork, problem: Problem, traj: Trajectory, horizon: float, flow: dict[str, Any]
) -> dict[str, float]:
    """Largest error of beta, relative to the largest coordinate, over points spread evenly in arc length."""
    import numpy as np

    from flowsim.flows import gradient_flow

    clock, rtol = flow["clock"], flow["rtol"]
    points = traj.at(np.linspace(0.0, traj.arclength[-1], _REFERENCE_POINTS), clock="arclength")
    own = points.clock_values(clock)
    own = np.minimum(np.maximum.accumulate(own), horizon)
    here = traj.at(np.minimum(own, traj.clock_values(clock)[-1]), clock=clock)
    tight = {**flow, "rtol": rtol / _REFERENCE_TIGHTENING, "atol": 1e-9 / _REFERENCE_TIGHTENING}
    reference = gradient_flow(net, problem, horizon, t_eval=own, **tight)
    worst = float(np.abs(here.beta - reference.beta).max() / np.abs(reference.beta).max())
    return {"relative_error": worst, "in_units_of_rtol": worst / rtol}


def _write(
    folder: Path, kind: str, traj: Trajectory, path: SaddlePath | LinearSaddlePath | None, summary: dict[str, Any]
) -> None:
    from flowsim import plot

    save_figure(plot.overview(traj, path), folder / f"figure.{kind}")
    traj.save(folder / "trajectory.nc")
    write_summary(folder, summary)


def _print_jumps(summary: dict[str, Any], net: DiagonalNetwork | LinearNetwork, problem: Problem) -> None:
    """Print the jumps of largest decrease of the loss, in order of time, and the total of the others."""
    from flowsim.studies.jumps import NOT_YET, largest_jumps
    from flowsim.text_table import text_table

    jumps = summary["jumps"]
    shown = largest_jumps(jumps, _MOST_JUMPS)
    click.echo(f"Jumps of {net} on {problem.n} x {problem.d} data, alpha = {summary['alpha']}")
    told = ("rank",) if "rank" in jumps[0] else ("feature", "sign", "kind")
    rows = [
        (
            _time(jump["predicted"]),
            jump.get("why") if jump["measured"] is None else _time(jump["measured"]),
            *(jump[heading] for heading in told),
        )
        for jump in shown
    ]
    click.echo(text_table(("predicted", "measured", *told), rows, left=("feature", "sign", "kind")))
    if len(shown) < len(jumps):
        steps = {jump["predicted"]: jump["fall"] for jump in jumps}  # several events share a jump
        seen = sum({jump["predicted"]: jump["fall"] for jump in shown}.values())
        share = 100.0 * (1.0 - seen / sum(steps.values())) if sum(steps.values()) > 0 else 0.0
        left = len(jumps) - len(shown)
        click.echo(f"{left} more make up {share:.2g} % of the fall of the loss; all are in summary.json")
    if any(jump.get("why") == NOT_YET for jump in jumps):
        click.echo("a later --horizon shows what is not yet crossed")
    order = summary["order"]
    clock = "t / ln(1/alpha)" if order == 2 else "t alpha" if order == 3 else f"t alpha^{order - 2}"
    click.echo(f"times in accelerated time {clock}")


def _time(value: float) -> str:
    return f"{value:.6f}" if 1e-3 <= value < 1e6 else f"{value:.6e}"


def another_formula(net: DiagonalNetwork | LinearNetwork) -> str:
    """A network of the same kind that reaches both signs."""
    from flowsim.network import DiagonalNetwork

    if not isinstance(net, DiagonalNetwork):
        return ""
    factors = net.distinct[0].product_of
    if factors is None or len(net.distinct) > 1:
        return ""
    twin = "*".join(f"v{layer}" for layer in range(1, len(factors) + 1))
    return f"; --formula '{'*'.join(factors)} - {twin}' reaches both signs"


def _final(summary: dict[str, Any]) -> str:
    log = summary["final_log_loss"]
    if summary["final_loss"] > 0 or log is None:
        return f"{summary['final_loss']:.6g}"
    return f"10^{log / math.log(10.0):.4f}, below the range of floats,"


def _print(
    summary: dict[str, Any], net: DiagonalNetwork | LinearNetwork, problem: Problem, out: Path, kind: str
) -> None:
    if summary["jumps"]:
        _print_jumps(summary, net, problem)
    else:
        click.echo(summary["limit"] if summary["limit"] != "found" else "the limit has no jump")
    least = "" if summary["least_loss"] is None else f" (least possible {summary['least_loss']:.6g})"
    click.echo(
        f"{summary['loss']} loss {_final(summary)}{least}; "
        f"conserved-quantity drift {summary['imbalance_drift']:.1e}; "
        f"{summary['stats']['steps']} steps of {summary['method']} in {summary['coordinates']} coordinates"
    )
    if summary.get("escape"):
        click.echo(f"limit: {summary['escape']}")
    if "one_sided" in summary:
        click.echo(f"note: {summary['one_sided']}{another_formula(net)}")
    if "error" in summary:
        error = summary["error"]
        click.echo(
            f"error against tolerances 1000 times tighter: {error['relative_error']:.1e} = "
            f"{error['in_units_of_rtol']:.2g} rtol"
        )
    say_written(out, f"figure.{kind}", "trajectory.nc", "summary.json")
