"""The local server, which listens on the loopback address alone and refuses requests of other origins."""

from __future__ import annotations

import io
import secrets
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowsim.errors import IntegrationError
from flowsim.explore.controls import FORMATS, Controls, alpha_at, place_of
from flowsim.explore.drawing import FIGURES, draw
from flowsim.explore.layout import SETTERS, facts, jumps, page
from flowsim.explore.redraw import Explorer
from flowsim.extras import need

HOST = "127.0.0.1"
_OURS = (HOST, "localhost")
#: Content policy: no requests to other hosts, whatever a table contains.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; form-action 'none'"
)
_REFUSED = (ValueError, NotImplementedError, IntegrationError)
_DIGITS = 3


def make_app(explorer: Explorer, default: Controls | None = None) -> Any:
    """The Dash application of a problem.

    Parameters
    ----------
    explorer : Explorer
    default : Controls, optional
        The settings of an address without any.
    """
    dash = need("dash", "the page of sliders")
    default = Controls() if default is None else default
    app = dash.Dash(
        "flowsim.explore",
        assets_folder=str(Path(__file__).parent / "assets"),
        title="flowsim explore",
        update_title="",
        meta_tags=[
            {"name": "viewport", "content": "width=device-width, initial-scale=1"},
            {"name": "color-scheme", "content": "light dark"},
        ],
        add_log_handler=False,
    )
    app.layout = page(explorer)
    _guard(app.server)
    _figures(app.server, explorer, default)
    _callbacks(dash, app, explorer, default)
    return app


def start(app: Any, port: int = 0) -> tuple[Any, str]:
    """A bound server and its address; ``serve_forever`` runs it.

    Raises ValueError if the port is taken.
    """
    import logging

    serving = need("werkzeug.serving", "the page of sliders")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        server = serving.make_server(HOST, port, app.server, threaded=True)
    except (OSError, OverflowError, SystemExit):
        raise ValueError(f"`port` must be free on {HOST}; {port} is taken or none.") from None
    return server, f"http://{HOST}:{server.server_port}/"


def _guard(server: Any) -> None:
    """Refuse other host names and origins, against DNS rebinding by pages elsewhere."""
    flask = need("flask", "the page of sliders")

    @server.before_request
    def own() -> None:
        asked = flask.request.headers.get("Origin")
        hosts = {urlsplit(f"//{flask.request.host}").hostname, *([urlsplit(asked).hostname] if asked else [])}
        if not hosts <= set(_OURS) or (asked and urlsplit(asked).netloc != flask.request.host):
            flask.abort(403)

    @server.after_request
    def policy(response: Any) -> Any:
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _figures(server: Any, explorer: Explorer, default: Controls) -> None:
    """``/figure.png?...``: the overview figure of a setting."""
    flask = need("flask", "the page of sliders")

    @server.route("/figure.<kind>")
    def figure(kind: str) -> Any:
        if kind not in FORMATS:
            flask.abort(404)
        try:
            shown = explorer.show(Controls.from_query(flask.request.query_string.decode(), default))
        except _REFUSED as error:
            return flask.Response(str(error), status=400, mimetype="text/plain")
        return flask.send_file(_drawn(explorer, shown, kind), download_name=f"flowsim.{kind}")


def _drawn(explorer: Explorer, shown: Any, kind: str) -> io.BytesIO:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from flowsim.plot import overview
    from flowsim.plot.style import save

    with explorer.lock:
        figure = overview(shown.traj, shown.path)
        file = io.BytesIO()
        save(figure, file, format=kind)
        plt.close(figure)
    file.seek(0)
    return file


class _Newest:
    """Of settings that wait for the same tab while one is computed, only the last is computed."""

    def __init__(self) -> None:
        self._tickets: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, tab: str) -> int:
        with self._lock:
            self._tickets[tab] = self._tickets.get(tab, 0) + 1
            return self._tickets[tab]

    def is_old(self, tab: str, ticket: int) -> bool:
        return self._tickets[tab] > ticket


def _callbacks(dash: Any, app: Any, explorer: Explorer, default: Controls) -> None:
    Input, Output, State, kept = dash.Input, dash.Output, dash.State, dash.no_update
    newest = _Newest()

    @app.callback(
        *[Output(name, "value") for name in SETTERS],
        Output("tab", "data"),
        Output("given", "data"),
        Input("address", "search"),
        State("tab", "data"),
    )
    def set_controls(search: str | None, tab: str | None) -> list[Any]:
        try:
            controls = Controls.from_query(search or "", default)
        except ValueError:
            controls = default
        given = {"alpha": controls.alpha, "weight_decay": controls.weight_decay}
        values = (
            place_of(controls.alpha),
            controls.eta,
            controls.noise,
            explorer.share(controls.weight_decay),
            controls.depth,
            controls.formula,
            controls.clock,
        )
        return [*values, tab or secrets.token_hex(8), given]

    @app.callback(
        *[Output(name, "figure") for name in FIGURES],
        *[Output(name, "children") for name in ("facts", "jumps", "code", "error")],
        Output("error", "hidden"),
        *[Output(f"{name}-shown", "children") for name in ("alpha", "eta", "decay", "depth")],
        Output("depth", "disabled"),
        Output("query", "data"),
        *[Output(f"figure-{kind}", "href") for kind in FORMATS],
        *[Input(name, "value") for name in SETTERS],
        Input("tab", "data"),
        State("given", "data"),
        prevent_initial_call=True,
    )
    def redraw(*values: Any) -> list[Any]:
        *settings, tab, given = values
        ticket = newest.take(tab)
        with explorer.lock:
            if newest.is_old(tab, ticket):
                raise dash.exceptions.PreventUpdate
            return _answer(explorer, default, dict(zip(SETTERS, settings, strict=True)), given, kept)

    app.clientside_callback(
        dash.ClientsideFunction("explore", "follow"),
        Output("spoken", "children"),
        Input("query", "data"),
        prevent_initial_call=True,
    )


def _settings(explorer: Explorer, values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The values of the controls; those of sliders that were not moved are exactly as in the address."""
    place, share = float(values["alpha"] or 0), float(values["decay"] or 0)
    decay = float(f"{share * explorer.largest_decay:.{_DIGITS}g}")
    return {
        "alpha": given["alpha"] if place == place_of(given["alpha"]) else alpha_at(place),
        "weight_decay": given["weight_decay"] if share == explorer.share(given["weight_decay"]) else decay,
        "eta": values["eta"] or 0,
        "noise": values["noise"],
        "depth": values["depth"] or 2,
        "formula": values["formula"] or "",
        "clock": values["clock"],
    }


def _answer(
    explorer: Explorer, default: Controls, values: dict[str, Any], given: dict[str, Any], kept: Any
) -> list[Any]:
    """All outputs of a change of a control; for an invalid setting the reason, with the previous figures."""
    began = time.perf_counter()
    asked = _settings(explorer, values, given)
    own = bool(str(asked["formula"]).strip())
    labels = [asked["alpha"], f"{float(asked['eta']):g}", f"{asked['weight_decay']:g}"]
    labels.append("that of the formula" if own else str(asked["depth"]))
    files = len(FORMATS)
    try:
        controls = Controls.of(asked)
        shown = explorer.show(controls)
        figures = draw(shown)
        listed = jumps(shown)
    except _REFUSED as error:
        text = " ".join(str(error).split())
        return [*[kept] * len(FIGURES), kept, kept, kept, text, False, *labels, own, kept, *[kept] * files]
    query = controls.query(default)
    links = [f"/figure.{kind}{query}" for kind in FORMATS]
    said = facts(shown, time.perf_counter() - began)
    return [*figures.values(), said, listed, shown.code, "", True, *labels, own, query, *links]
