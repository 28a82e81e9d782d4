"""``flowsim explore``: a local page of sliders."""

from __future__ import annotations

import click

from flowsim.cli.options import DataTable, NetworkOptions, clock_option, data_options, network_options
from flowsim.compiling import compiling_note


@click.command()
@data_options
@network_options
@click.option(
    "--alpha",
    default="1e-100",
    show_default=True,
    help="Scale of initialisation, at most 1; the slider ends at 1e-1000.",
)
@clock_option("Of the figures.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page.  [default: a free one]")
@click.option("--open/--no-open", "opened", default=True, show_default=True, help="Open the page in a browser.")
def explore(*, table: DataTable, network: NetworkOptions, alpha: str, clock: str, port: int, opened: bool) -> None:
    """Explore flows on DATA on a page of sliders (.csv, .parquet, .npz; default: the bundled diabetes table).

    Scale, noise, weight decay, depth, formula and clock are sliders; loss, coefficients and the limit are redrawn as
    they move. The page's address holds the settings; the page shows the Python code and the figure of each. It is
    served on this machine only, at 127.0.0.1. The options are the initial settings; Ctrl-C ends it.
    """
    from flowsim.extras import need

    need("dash", "`flowsim explore`")
    from flowsim.explore import Controls, Explorer, make_app, start

    if network.width is not None:
        raise ValueError("`--width` has no page of sliders; networks U V^T are run by `flowsim run --width H`.")
    if network.formula is not None and network.depth is not None:
        raise ValueError("`--formula` excludes --depth.")
    first = Controls(
        network.formula or "",
        2 if network.depth is None else network.depth,
        alpha,
        network.noise or "gaussian",
        network.eta,
        network.weight_decay,
        clock,
    )
    explorer = Explorer(table.read(), table.code)
    with compiling_note(True):
        explorer.show(first)
        app = make_app(explorer, first)
    server, address = start(app, port)
    click.echo(f"{address} (Ctrl-C ends it)")
    if opened:
        import webbrowser

        webbrowser.open(address)
    try:
        server.serve_forever()
    finally:
        server.server_close()
