"""Options shared by several commands, and the problem and network that they define."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from flowsim.cli.registry import make_network
from flowsim.network import NAMED_NOISES, DiagonalNetwork, LinearNetwork
from flowsim.problem import Problem
from flowsim.problem.losses import LOSSES

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class DataTable:
    """DATA and the options for reading it; without a file the bundled diabetes table."""

    data: Path | None
    target: tuple[str, ...]
    raw: bool
    sep: str | None
    columns: tuple[str, ...]
    drop: tuple[str, ...]
    dropna: bool
    index: str | None
    loss: str

    @property
    def name(self) -> str:
        """The name of the data in summaries."""
        return "diabetes" if self.data is None else str(self.data)

    @property
    def code(self) -> str:
        """The Python expression that reads it."""
        if self.data is None:
            return "fs.datasets.diabetes()"
        given = [repr(str(self.data))]
        if self.target:
            given.append(repr(self.target[0] if len(self.target) == 1 else list(self.target)))
        given += [f"{name}={value!r}" for name, value in self._given.items()]
        return f"fs.datasets.read_table({', '.join(given)})"

    @property
    def _given(self) -> dict[str, Any]:
        """The arguments of :func:`flowsim.datasets.read_table`, besides file and target, that are not its defaults."""
        found = {
            "raw": self.raw,
            "sep": {"tab": "\t", "\\t": "\t", "space": " "}.get(self.sep or "", self.sep),
            "columns": _split(self.columns),
            "drop": _split(self.drop),
            "dropna": self.dropna,
            "index": int(self.index) if self.index and self.index.lstrip("-").isdigit() else self.index,
            "loss": None if self.loss == "squared" else self.loss,
        }
        return {name: value for name, value in found.items() if value not in (None, []) and value is not False}

    def read(self, width: int | None = None) -> Problem:
        """The problem; warnings about its file are printed to standard error. Several targets need a width."""
        from flowsim import datasets

        if self.data is None:
            for option in ("target", *self._given) if self.target else self._given:
                why = ": the bundled table has a real target" if option == "loss" else ""
                raise ValueError(f"`--{option}` needs a data file{why}.")
            return datasets.diabetes()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            problem = datasets.read_table(self.data, self.target or None, **self._given)
        for each in said:
            click.echo(f"flowsim: {str(each.message).replace('`columns`', '`--columns`')}", err=True)
        if width is None and problem.y.ndim == 2:
            raise ValueError(
                f"`--target` must be one column for a diagonal network; received {problem.y.shape[1]}. "
                "`--width H` takes several."
            )
        return problem


def _split(given: tuple[str, ...]) -> list[str]:
    """``--drop a,b --drop '"c, d"'`` as three names: one with a comma stands in quotation marks."""
    names = (name.strip() for names in csv.reader(given, skipinitialspace=True) for name in names)
    return [name for name in names if name]


@dataclass(frozen=True)
class NetworkOptions:
    """The options that describe a network."""

    formula: str | None
    depth: int | None
    width: int | None
    noise: str | None
    eta: float
    weight_decay: float

    def build(self) -> DiagonalNetwork | LinearNetwork:
        """The network."""
        if self.noise is not None and not self.eta:
            raise ValueError(f"`--eta` must be given with --noise {self.noise}.")
        if self.width is not None and (self.formula is not None or self.depth is not None):
            raise ValueError("`--width` excludes --formula and --depth.")
        return make_network(vars(self))


def _grouped(command: F, name: str, kind: type, options: tuple[Any, ...]) -> Callable[..., Any]:
    """Decorator: `options` are passed to the command as one argument `name`."""

    @wraps(command)
    def called(**given: Any) -> Any:
        own = {field: given.pop(field) for field in kind.__dataclass_fields__}  # type: ignore[attr-defined]
        return command(**{name: kind(**own)}, **given)

    decorated: Callable[..., Any] = called
    for decorate in options:
        decorated = decorate(decorated)
    return decorated


def data_options(command: F) -> Callable[..., Any]:
    """DATA and the options for reading it, passed to the command as `table`."""
    options = (
        click.option(
            "--loss",
            type=click.Choice(list(LOSSES)),
            default="squared",
            show_default=True,
            help="Of one prediction; logistic and exponential take a target of any two values.",
        ),
        click.option("--index", metavar="NAME", help="Column, by name or place, that only numbers the rows."),
        click.option("--dropna", is_flag=True, help="Leave out rows with gaps."),
        click.option(
            "--drop", multiple=True, metavar="A,B,...", help='Leave these columns out; "A,B" names one with a comma.'
        ),
        click.option(
            "--columns", multiple=True, metavar="A,B,...", help='Only these features; "A,B" names one with a comma.'
        ),
        click.option(
            "--sep",
            metavar="TEXT",
            help="Between the columns of a text file: a character, tab or space.  [default: detected]",
        ),
        click.option("--raw", is_flag=True, help="Take columns as they are instead of standardising them."),
        click.option(
            "--target",
            metavar="NAME",
            multiple=True,
            help="Target column (NPZ: array, default y); repeat it, or give NAME,NAME,... for several with --width.",
        ),
        click.argument("data", required=False, type=click.Path(path_type=Path)),
    )
    return _grouped(command, "table", DataTable, options)


def network_options(command: F) -> Callable[..., Any]:
    """--formula, --depth or --width, --noise and --eta, --weight-decay, passed to the command as `network`."""
    options = (
        click.option(
            "--weight-decay",
            type=float,
            default=0.0,
            metavar="LAMBDA",
            show_default=True,
            help="Adds LAMBDA/2 times the squared norm of the weights to the loss.",
        ),
        click.option(
            "--eta", type=float, default=0.0, help="Standard deviation of the weight noise.", show_default=True
        ),
        click.option("--noise", type=click.Choice(list(NAMED_NOISES)), help="Distribution of the weight noise."),
        click.option("--width", type=int, metavar="H", help="A two-layer linear network U V^T of that width instead."),
        click.option("--depth", type=int, metavar="L", help="Short form for --formula w1*w2*...*wL."),
        click.option("--formula", metavar="TEXT", help="One coordinate of the network.  [default: u*v]"),
    )
    return _grouped(command, "network", NetworkOptions, options)


def clock_option(of: str) -> Callable[[F], F]:
    """``--clock``; `of` says what it is the clock of."""
    clocks = click.Choice(["time", "accelerated", "arclength"])
    return click.option("--clock", type=clocks, default="accelerated", show_default=True, help=of)


progress_option = click.option("--progress/--no-progress", default=True, show_default=True, help="Progress bar.")
