"""Options that several commands share, and how they become a problem and a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from flowsim.network import (
    DiagonalNetwork,
    GaussianNoise,
    LaplaceNoise,
    Noise,
    RademacherNoise,
    UniformNoise,
)
from flowsim.problem import Regression

__all__ = ["build_network", "build_problem", "data_options", "network_options"]

F = TypeVar("F", bound=Callable[..., Any])

NOISES: dict[str, type[Noise]] = {
    noise.name: noise for noise in (GaussianNoise, UniformNoise, RademacherNoise, LaplaceNoise)
}


def data_options(command: F) -> F:
    """DATA, --target and --raw."""
    for decorate in (
        click.option("--raw", is_flag=True, help="Take columns as they are instead of standardising them."),
        click.option("--target", metavar="NAME", help="Target column (NPZ: array, default y)."),
        click.argument("data", required=False, type=click.Path(path_type=Path)),
    ):
        command = decorate(command)
    return command


def network_options(command: F) -> F:
    """--formula or --depth, --noise and --eta."""
    for decorate in (
        click.option(
            "--eta", type=float, default=0.0, help="Standard deviation of the weight noise.", show_default=True
        ),
        click.option("--noise", type=click.Choice(list(NOISES)), help="Distribution of the weight noise."),
        click.option("--depth", type=int, metavar="L", help="Short form for --formula w1*w2*...*wL."),
        click.option("--formula", metavar="TEXT", help="One coordinate of the network.  [default: u*v]"),
    ):
        command = decorate(command)
    return command


def build_problem(data: Path | None, target: str | None, raw: bool) -> Regression:
    """The named file, or the bundled diabetes table."""
    from flowsim import datasets

    if data is None:
        if target is not None or raw:
            raise ValueError(f"`{'--target' if target is not None else '--raw'}` needs a data file.")
        return datasets.diabetes()
    return datasets.read_table(data, target, raw=raw)


def build_network(formula: str | None, depth: int | None, noise: str | None, eta: float) -> DiagonalNetwork:
    """The network that the options describe."""
    if noise is None and eta:
        noise = "gaussian"
    if noise is not None and not eta:
        raise ValueError(f"`--eta` must be given with --noise {noise}.")
    drawn = None if noise is None else NOISES[noise](eta)
    if formula is None and depth is None:
        formula = "u*v"
    return DiagonalNetwork(formula, depth=depth, noise=drawn)
