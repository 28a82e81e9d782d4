"""The page: template, style, script, Plotly and data, in one file."""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path

from flowsim.atomic import write_text
from flowsim.extras import need
from flowsim.report.folder import Run, read_runs
from flowsim.report.payload import payload


def write_report(folder: str | Path, out: str | Path | None = None, title: str | None = None) -> Path:
    """Write the page of a run folder, or of a folder of run folders.

    Raises ValueError if the folder holds no run, or one that is incomplete or damaged.

    Parameters
    ----------
    folder : path
        A folder with ``summary.json`` and ``trajectory.nc`` (and ``certificates.json``, if it exists), or of
        such folders; a slider then selects among them.
    out : path, optional
        The file; ``report.html`` in the folder by default. It is written atomically.
    title : str, optional
    """
    runs = read_runs(folder)
    out = Path(folder) / "report.html" if out is None else Path(out)
    text = render(runs, title)
    try:
        write_text(out, text)
    except OSError as error:
        raise ValueError(f"`--out` must be a file that can be written; {out}: {error.strerror}.") from None
    return out


def render(runs: list[Run], title: str | None = None) -> str:
    """The page as text; its content policy forbids the browser any network access."""
    get_plotlyjs = need("plotly.offline", "the page of a run").get_plotlyjs

    title = title or f"Gradient flow on {runs[0].summary.get('data', runs[0].name)}"
    parts = {
        "title": html.escape(title),
        "style": _text("page.css"),
        "data": _script_safe(json.dumps(payload(runs, title), allow_nan=False, separators=(",", ":"))),
        "plotly": get_plotlyjs(),
        "script": _text("page.js"),
    }
    page = _text("page.html")
    pieces = page.split("@@")  # text, name, text, name, ..., text
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def _text(name: str) -> str:
    return resources.files("flowsim.report").joinpath(name).read_text(encoding="utf-8")


def _script_safe(text: str) -> str:
    """JSON escaped for a script element, whatever the names of features."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
