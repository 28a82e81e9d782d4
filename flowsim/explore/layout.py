"""The page: controls, four figures, the table of jumps, the code."""

from __future__ import annotations

from typing import Any

from flowsim.explore.controls import CLOCKS, DEEPEST, FORMATS
from flowsim.explore.drawing import FIGURES
from flowsim.explore.redraw import Explorer, Shown
from flowsim.extras import need
from flowsim.network import NAMED_NOISES
from flowsim.studies.jumps import largest_jumps

#: Identifiers of the controls, in the order of the arguments of callbacks.
SETTERS = ("alpha", "eta", "noise", "decay", "depth", "formula", "clock")
_SUGGESTED = ("u*v", "u**2 - v**2", "2*u**2 - v**2", "u**3*v", "tanh(u)*v", "w1*w2*w3", "w1*w2*w3 - v1*v2*v3")
_MOST_JUMPS = 12
_AS_THE_SHEET_SAYS = {"height": "var(--plot)"}
#: Zoom by dragging, reset by a double click: the bar of buttons would cover the names.
_DRAWN = {"displayModeBar": False, "responsive": True}


def page(explorer: Explorer) -> Any:
    """The page; values of controls come from the address."""
    html, dcc = need("dash.html", "the page of sliders"), need("dash.dcc", "the page of sliders")
    problem = explorer.problem
    downloads = [html.A(kind, id=f"figure-{kind}", download=f"flowsim.{kind}") for kind in FORMATS]
    return html.Main(
        [
            dcc.Location(id="address", refresh=False),
            dcc.Store(id="query"),
            dcc.Store(id="tab"),
            dcc.Store(id="given"),
            html.Div(id="spoken", hidden=True),
            html.Header(
                [
                    html.H1("flowsim explore"),
                    html.P(f"{problem.n} × {problem.d} data, {problem.loss_function.name} loss", className="about"),
                ]
            ),
            html.Section(_controls(html, dcc), id="controls", **{"aria-label": "settings"}),
            html.P(id="error", role="alert", hidden=True),
            html.P(id="facts", **{"aria-live": "polite"}),
            html.Section(
                [
                    html.Figure(
                        [html.Figcaption(heading), dcc.Graph(id=name, config=_DRAWN, style=_AS_THE_SHEET_SAYS)],
                        **{"aria-label": heading},
                    )
                    for name, heading in FIGURES.items()
                ],
                id="figures",
            ),
            html.Section(
                [
                    html.Div([html.H2("Jumps"), html.Div(id="jumps", className="scroll")]),
                    html.Div(
                        [
                            html.H2("The same in Python"),
                            html.Div(
                                [dcc.Clipboard(target_id="code", id="copy", title="copy"), html.Pre(id="code")],
                                className="code",
                            ),
                            html.P(["The figure: ", *downloads], id="downloads"),
                        ]
                    ),
                ],
                id="below",
            ),
        ]
    )


def _controls(html: Any, dcc: Any) -> list[Any]:
    def slider(name: str, label: str, top: float, step: float, low: float = 0) -> Any:
        return html.Div(
            [
                html.Label([label, " ", html.Span(id=f"{name}-shown", className="value")], htmlFor=name),
                dcc.Input(id=name, type="range", min=low, max=top, step=step, value=low),
            ],
            className="control",
        )

    def choice(name: str, label: str, options: dict[str, str]) -> Any:
        listed = [{"label": text, "value": value} for value, text in options.items()]
        return html.Div(
            [
                html.Span(label, id=f"{name}-label", className="label"),
                html.Div(
                    dcc.RadioItems(id=name, options=listed, inline=True),
                    role="radiogroup",
                    **{"aria-labelledby": f"{name}-label"},
                ),
            ],
            className="control",
        )

    return [
        slider("alpha", "scale of initialisation α =", 1.0, 0.002),
        slider("eta", "weight noise η =", 2.0, 0.01),
        slider("decay", "weight decay λ =", 1.0, 0.005),
        slider("depth", "depth", DEEPEST, 1, low=2),
        html.Div(
            [
                html.Label("or a formula of your own", htmlFor="formula"),
                dcc.Input(
                    id="formula",
                    type="text",
                    debounce=True,
                    list="formulas",
                    placeholder="u*v",
                    spellCheck=False,
                    autoComplete="off",
                ),
                html.Datalist([html.Option(value=text) for text in _SUGGESTED], id="formulas"),
            ],
            className="control",
        ),
        choice("clock", "clock", CLOCKS),
        choice("noise", "distribution of the noise", {name: name for name in NAMED_NOISES}),
    ]


def facts(shown: Shown, seconds: float) -> str:
    """One line on the flow, with remarks."""
    traj = shown.traj
    notes = "".join(f"; {note}" for note in shown.notes)
    steps = traj.stats.get("steps", len(traj))
    return (
        f"{steps} steps of {traj.info['method']} in {traj.info['coordinates']} coordinates; "
        f"loss {traj.loss[-1]:.6g} at the end; limit and flow {1e3 * shown.seconds:.1f} ms, "
        f"all of it {1e3 * seconds:.0f} ms{notes}"
    )


def jumps(shown: Shown) -> Any:
    """The jumps of largest decrease of the loss, predicted and measured."""
    html = need("dash.html", "the page of sliders")
    found = shown.jumps
    if not found:
        return html.P("none to be listed")
    largest = largest_jumps(found, _MOST_JUMPS)
    heads = ("predicted", "measured", "feature", "sign", "kind")
    rows = []
    for jump in largest:
        measured = jump.get("why") if jump["measured"] is None else f"{jump['measured']:.5g}"
        cells = (f"{jump['predicted']:.5g}", measured, *(str(jump.get(head, "")) for head in heads[2:]))
        rows.append(html.Tr([html.Td(cell) for cell in cells]))
    more = len(found) - len(largest)
    return [
        html.Table([html.Thead(html.Tr([html.Th(head, scope="col") for head in heads])), html.Tbody(rows)]),
        html.P(f"in accelerated time; {more} smaller ones are not listed" if more else "in accelerated time"),
    ]
