"""``flowsim sweep``: an experiment file over its grid, resumed after an interruption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowsim.atomic import staged

if TYPE_CHECKING:
    import xarray

    from flowsim.cli.experiment import ExperimentFile
    from flowsim.sweep import Forecast


@click.command()
@click.argument("experiment", required=False, type=click.Path(path_type=Path))
@click.option("--workers", type=int, help="Processes on this machine.  [default: as the experiment says, else 1]")
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler to compute on, such as tcp://10.0.0.1:8786.")
@click.option("--store", type=click.Path(path_type=Path), help="Finished points.  [default: EXPERIMENT.sweep]")
@click.option("--out", type=click.Path(path_type=Path), help="Result.  [default: EXPERIMENT.nc]")
@click.option("--retry-failed", is_flag=True, help="Compute failed points again.")
@click.option("--dry-run", is_flag=True, help="Only count the points and estimate the time.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of experiments.")
@click.option("--progress/--no-progress", default=None, help="Progress bar.  [default: on a terminal]")
@click.pass_context
def sweep(
    context: click.Context,
    experiment: Path | None,
    workers: int | None,
    scheduler: str | None,
    store: Path | None,
    out: Path | None,
    retry_failed: bool,
    dry_run: bool,
    schema: bool,
    progress: bool | None,
) -> None:
    """Compute a function over the grid of EXPERIMENT (.toml).

    Every finished point is stored at once: after an interruption the same command continues. Writes the
    labelled result (.nc) and a table with one row for each point (.csv). Exit status 1 if points failed.
    """
    from flowsim.extras import need

    need("pydantic", "`flowsim sweep`")
    from flowsim.cli.experiment import read_experiment
    from flowsim.cli.schema import experiment_schema

    if schema:
        click.echo(json.dumps(experiment_schema(), indent=2))
        return
    if experiment is None:
        raise click.UsageError("Missing argument 'EXPERIMENT'.")
    if workers is not None and scheduler is not None:
        raise ValueError("give either `--workers` or `--scheduler`; received both.")
    read = read_experiment(experiment)
    count = workers if workers is not None else read.workers or 1
    if count < 1:
        raise ValueError(f"`--workers` must be >= 1; received {count}.")
    store = store or _beside(experiment, read.store, ".sweep")
    out = out or _beside(experiment, read.out, ".nc")
    if out.suffix != ".nc":
        raise ValueError(f"`--out` must end in .nc; received {out}.")
    if dry_run:
        _dry_run(read, store, count)
        return

    import flowsim
    from flowsim.sweep import sweep as compute

    try:
        with _workers(count, scheduler) as where:
            result = compute(
                read.call(),
                read.axes(),
                workers=where,
                store=store,
                progress=progress,
                seed=read.seed,
                retry_failed=retry_failed,
            )
    except RuntimeError as error:  # failure of the workers: errors of points are part of the result
        raise click.ClickException(str(error)) from error
    result.attrs |= {
        "title": read.title or experiment.stem,
        "flowsim": flowsim.__version__,
        "experiment": experiment.read_text(encoding="utf-8"),
    }
    _write(result, out)
    if _summarise(result, out):
        context.exit(1)


def _beside(experiment: Path, given: str | None, suffix: str) -> Path:
    return experiment.parent / given if given else experiment.with_suffix(suffix)


@contextmanager
def _workers(count: int, scheduler: str | None) -> Iterator[Any]:
    if scheduler is None:
        yield count
        return
    from flowsim.extras import need

    with need("distributed", "`--scheduler`").Client(scheduler) as client:
        yield client


def _dry_run(read: ExperimentFile, store: Path, workers: int) -> None:
    from flowsim.sweep import forecast, plan

    expected: Forecast = forecast(plan(read.call(), read.axes(), seed=read.seed), store)
    click.echo(
        f"{expected.total} points: {expected.finished} finished, {expected.failed} failed, {expected.left} to compute"
    )
    duration = expected.duration(workers)
    if not expected.left or duration is None:
        return
    source = "computed just now" if expected.measured_here else "of the store"
    click.echo(
        f"about {_time(duration)} on {workers} worker{'s' if workers > 1 else ''}: {_time(min(expected.seconds))} to "
        f"{_time(max(expected.seconds))} a point, by {len(expected.seconds)} points {source}"
    )


def _time(seconds: float) -> str:
    for unit, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{1000 * seconds:.3g} ms"


def _summarise(result: xarray.Dataset, out: Path) -> int:
    errors = [str(error) for error in result["error"].values.ravel() if error]
    total = result["error"].size
    click.echo(f"{total} points: {total - len(errors)} done, {len(errors)} failed")
    for error in sorted(set(errors), key=errors.count, reverse=True)[:5]:
        click.echo(f"  {errors.count(error)} x {' '.join(error.split())[:160]}")
    if errors:
        click.echo("compute them again with --retry-failed")
    click.echo(f"wrote {out}, {out.with_suffix('.csv')}")
    return len(errors)


def _write(result: xarray.Dataset, out: Path) -> None:
    """Write both files, or none."""
    from flowsim.results.netcdf import Labelled, write_plain
    from flowsim.sweep import to_dataframe

    out.parent.mkdir(parents=True, exist_ok=True)
    with staged(out.parent) as folder:
        part = folder / out.name
        write_plain(Labelled.of_xarray(result), part)
        # The full environment of every point is in the .nc only.
        to_dataframe(result.drop_vars("info", errors="ignore")).to_csv(part.with_suffix(".csv"), index=False)
