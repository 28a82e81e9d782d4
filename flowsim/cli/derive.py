"""``flowsim derive``: everything that follows from a formula, step by step."""

from __future__ import annotations

from typing import Any

import click

from flowsim.network import NAMED_NOISES

_STYLES: dict[str, Any] = {
    "bold": {"bold": True},
    "bold cyan": {"bold": True, "fg": "cyan"},
    "dim": {"dim": True},
    "": {},
}


@click.command()
@click.argument("formula", nargs=-1, metavar="[FORMULA]...")
@click.option("--depth", type=int, metavar="L", help="Short form for the formula w1*w2*...*wL.")
@click.option("--width", type=int, metavar="H", help="A two-layer linear network U V^T of that width instead.")
@click.option("--noise", type=click.Choice(list(NAMED_NOISES)), help="Distribution of the weight noise.")
@click.option("--eta", type=float, default=0.0, help="Standard deviation of the weight noise.", show_default=True)
@click.option("--weight-decay", type=float, default=0.0, metavar="LAMBDA", help="Weight decay.", show_default=True)
@click.option("--multiplicative", is_flag=True, help="Noise scales with the weight, w (1 + xi).")
@click.option("--degree", type=int, default=4, show_default=True, help="Search conserved polynomials up to here.")
@click.option("--latex", is_flag=True, help="Print LaTeX instead.")
def derive(
    formula: tuple[str, ...],
    depth: int | None,
    width: int | None,
    noise: str | None,
    eta: float,
    weight_decay: float,
    multiplicative: bool,
    degree: int,
    latex: bool,
) -> None:
    """Derive the equations of a network from its FORMULA (default u*v); several formulas make a mixed network.

    \b
    flowsim derive "u*v" --noise gaussian --eta 0.1
    flowsim derive "2*u**2 - v**2"
    flowsim derive --depth 3 --latex
    flowsim derive --width 50 --eta 0.1
    """
    from flowsim.cli.registry import make_network
    from flowsim.symbolic import derive as derivation_of

    if noise is not None and not eta:
        raise ValueError(f"`--eta` must be given with --noise {noise}.")
    if multiplicative and not eta:
        raise ValueError("`--multiplicative` needs --eta.")
    if formula and depth is not None:
        raise ValueError("give either FORMULA or `--depth`; received both.")
    if width is not None and (formula or depth is not None):
        raise ValueError("`--width` excludes FORMULA and --depth.")
    net = make_network(
        {
            "formula": formula[0] if len(formula) == 1 else list(formula) or None,
            "depth": depth,
            "width": width,
            "noise": noise,
            "eta": eta,
            "multiplicative": multiplicative,
            "weight_decay": weight_decay,
        }
    )
    result: Any = derivation_of(net) if width is not None else derivation_of(net, degree=degree)
    if latex:
        click.echo(result.latex())
    else:
        pieces = (click.style(text, **_STYLES[style]) for text, style in result.pieces())
        click.echo("".join(pieces).rstrip())
