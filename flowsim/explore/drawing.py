"""The four figures of the page, as Plotly figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from flowsim.arrays import Array, Index
from flowsim.errors import IntegrationError
from flowsim.explore.controls import CLOCKS
from flowsim.explore.redraw import Shown
from flowsim.json_values import typed_array
from flowsim.limits.horizons import least_loss
from flowsim.plot.curves import MOST_NAMES, NEGLIGIBLE, drawn, sample_times, simplified
from flowsim.plot.style import spans_decade

#: name -> heading
FIGURES = {
    "loss": "Excess loss",
    "coordinates": "Coefficients of the flow",
    "plane": "The flow in two coefficients",
    "limit": "The limit α → 0",
}
#: What a screen resolves, relative to the height of a figure; points of a limit path by arc length.
_RESOLVED, _SAMPLES = 1e-3, 400
#: Largest number of curves without a name.
_MOST_GREY = 30
#: Fraction of its first value down to which excess loss is drawn: below it is rounding.
_FLOOR = 1e-14
_GREY = "#8a8a8a"
_SADDLE = {"color": _GREY, "size": 7, "symbol": "circle-open"}


def draw(shown: Shown) -> dict[str, dict[str, Any]]:
    """Figures by name."""
    curves = drawn(shown.traj, shown.clock)
    axis = _clock_axis(shown)
    kept = _drawn_points(curves.x, curves.beta, axis)
    named = [int(i) for i in curves.index[curves.named]]
    colours = dict(zip(named, _palette(), strict=False))
    x, beta = curves.x[kept], dict(zip(curves.index.tolist(), curves.beta[kept].T, strict=True))
    return {
        "loss": _loss(shown, axis),
        "coordinates": _coordinates(shown, x, beta, colours, axis),
        "plane": _plane(shown, beta, colours),
        "limit": _limit(shown, colours, axis),
    }


@cache
def _palette() -> list[str]:
    """The first colours of Matplotlib figures."""
    import matplotlib.style

    from flowsim.plot.style import STYLE, colours

    with matplotlib.style.context(STYLE):
        # Black is invisible on a dark screen.
        return [
            "#8a8a8a" if colour.lstrip("#") == "000000" else f"#{colour.lstrip('#')}" for colour in colours(MOST_NAMES)
        ]


def _drawn_points(x: Array, curves: Array, axis: dict[str, Any]) -> Index:
    """Of the points of curves (K, m) those that a screen resolves on that axis."""
    if axis["type"] == "log":
        x = np.log(np.maximum(x, 10.0 ** axis["range"][0]))
    size = np.ptp(curves) if curves.size else 1.0
    return simplified(x, curves / (size or 1.0), _RESOLVED)


def _curve(x: Any, y: Any, **options: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "x": typed_array(x), "y": typed_array(y)} | options


def _figure(traces: list[dict[str, Any]], x: dict[str, Any], y: dict[str, Any], **layout: Any) -> dict[str, Any]:
    shared = {"zeroline": False, "showline": True, "ticks": "outside", "gridcolor": "rgba(128,128,128,.22)"}
    return {
        "data": traces,
        "layout": {
            "xaxis": shared | x,
            "yaxis": shared | y,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 60, "r": 12, "t": 8, "b": 44},
            "font": {"size": 12, "color": _GREY},
            "hovermode": "closest",
            "legend": {"orientation": "v", "itemsizing": "constant"},
            "colorway": _palette(),
            # The zoom is kept while sliders move, as long as the axes are the same.
            "uirevision": f"{x.get('type')} {x['title']['text']}",
        }
        | layout,
    }


def _clock_axis(shown: Shown) -> dict[str, Any]:
    title: dict[str, Any] = {"title": {"text": CLOCKS[shown.clock]}}
    times = _clock_of_jumps(shown)
    if spans_decade(times):
        last = float(shown.traj.clock_values(shown.clock)[-1])
        return title | {"type": "log", "range": [float(np.log10(times[0] / 2)), float(np.log10(last))]}
    return title | {"type": "linear"}


def _clock_of_jumps(shown: Shown) -> Array:
    """Jump times of the limit on the clock of the abscissa; none by arc length, where jumps are intervals."""
    if shown.path is None or shown.clock == "arclength":
        return np.zeros(0)
    return shown.path.jump_times / (shown.rate if shown.clock == "time" else 1.0)


def _steps(shown: Shown, values: Array) -> tuple[Array, Array]:
    """The limit as steps on the clock: abscissae, and the value of each plateau at both of its ends."""
    last = float(shown.traj.clock_values(shown.clock)[-1])
    times = _clock_of_jumps(shown)
    seen = int(np.searchsorted(times, last))
    edges = np.concatenate([[0.0], times[:seen], [last]])
    if seen:
        edges[0] = times[0] / 100  # for a logarithmic axis
    return np.repeat(edges, 2)[1:-1], np.repeat(values[: seen + 1], 2, axis=0)


def _loss(shown: Shown, axis: dict[str, Any]) -> dict[str, Any]:
    traj = shown.traj
    state = traj if traj.dense is None else traj.at(sample_times(traj), clock="arclength")
    least = least_loss(shown.problem, shown.path)
    shift = 0.0 if least is None else least
    floor = max(_FLOOR * float(state.loss[0] - shift), np.finfo(float).tiny)
    losses, x = np.maximum(state.loss - shift, floor), state.clock_values(shown.clock)
    kept = _drawn_points(x, np.log(losses)[:, None], axis)
    traces = []
    if shown.path is not None and shown.clock != "arclength":
        times, of_limit = _steps(shown, np.asarray(shown.path.losses))
        line = {"color": _GREY, "dash": "dot", "width": 1.2}
        traces.append(_curve(times, np.maximum(of_limit - shift, floor), name="limit", line=line))
    flow = {"color": _palette()[0], "width": 2}
    traces.append(_curve(x[kept], losses[kept], name=f"α = {shown.controls.alpha}", line=flow))
    y = {"type": "log", "title": {"text": "L(β) − L*" if least is not None else "L(β)"}, "exponentformat": "power"}
    return _figure(traces, axis, y, showlegend=True, legend={"x": 0.01, "y": 0.02, "bgcolor": "rgba(0,0,0,0)"})


def _coordinates(
    shown: Shown, x: Array, beta: dict[int, Array], colours: dict[int, str], axis: dict[str, Any]
) -> dict[str, Any]:
    names = shown.traj.feature_names
    grey = [i for i in beta if i not in colours][:_MOST_GREY]
    traces = [_curve(x, beta[i], name=names[i], line={"color": _GREY, "width": 0.6}, showlegend=False) for i in grey]
    traces += [_curve(x, beta[i], name=names[i], line={"color": colour, "width": 2}) for i, colour in colours.items()]
    jumps = [
        {
            "type": "line",
            "x0": time,
            "x1": time,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": _GREY, "dash": "dot", "width": 1},
            "layer": "below",
        }
        for time in _clock_of_jumps(shown)[:40].tolist()
    ]
    return _figure(traces, axis, {"title": {"text": "coefficient β"}}, shapes=jumps, showlegend=True)


def _plane(shown: Shown, beta: dict[int, Array], colours: dict[int, str]) -> dict[str, Any]:
    """The flow in the plane of its two largest coefficients, with the saddles of the limit."""
    names = shown.traj.feature_names
    by_size = sorted(colours or beta, key=lambda i: -float(np.abs(beta[i]).max()))
    if len(by_size) < 2:
        by_size = (by_size + [i for i in beta if i not in by_size])[:2]
    if len(by_size) < 2:
        only = {"title": {"text": "one coefficient has no plane"}}
        return _figure([], only, {"title": {"text": ""}})
    first, second = by_size[:2]
    traces = [_curve(beta[first], beta[second], name="flow", line={"color": _palette()[0], "width": 2})]
    if shown.path is not None:
        saddles = shown.path.saddles[:, [first, second]]
        text = [f"saddle {k}" for k in range(len(saddles))]
        traces.append(
            _curve(*saddles.T, name="saddles of the limit", text=text, hoverinfo="text", mode="markers", marker=_SADDLE)
        )
    place = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"}
    x, y = ({"title": {"text": names[i]}} for i in (first, second))
    margin = {"l": 60, "r": 12, "t": 30, "b": 44}
    return _figure(traces, x, y, showlegend=True, legend=place, margin=margin)


def _limit(shown: Shown, colours: dict[int, str], axis: dict[str, Any]) -> dict[str, Any]:
    """Coefficients of the limit on the same clock."""
    path, title = shown.path, {"title": {"text": "coefficient β"}}
    if path is None:
        return _figure([], axis, title, annotations=_said("there is no limit to draw"))
    used = sorted({*path.used, *colours})
    if shown.clock == "arclength":
        try:
            x = np.linspace(0.0, float(path.arclength(path.drawn_until)), _SAMPLES)
            values = path.curve(x)[:, used]
        except (ValueError, IntegrationError):
            return _figure([], axis, title, annotations=_said("the orbits of this path are not known"))
    else:
        x, values = _steps(shown, path.saddles[:, used])
    values = values + np.broadcast_to(path.offset, (path.problem.d,))[used]
    peak = np.abs(values).max(initial=0.0)
    names: Sequence[str] = path.problem.feature_names
    traces = []
    for i, column in zip(used, values.T, strict=True):
        if np.abs(column).max() <= NEGLIGIBLE * peak:
            continue
        line = {"color": colours.get(i, _GREY), "width": 2 if i in colours else 0.6}
        traces.append(_curve(x, column, name=names[i], line=line, showlegend=i in colours))
    return _figure(traces, axis, title, showlegend=True)


def _said(text: str) -> list[dict[str, Any]]:
    return [{"text": text, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}]
