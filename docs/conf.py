"""The documentation site: MyST pages, stored notebooks, reference from docstrings. Building needs no network."""

from __future__ import annotations

import importlib
import re
import shutil
from html import escape
from pathlib import Path

import click
from docutils.nodes import make_id

import flowsim
from flowsim.cli import COMMANDS
from flowsim.cli import flowsim as command_line

HERE = Path(__file__).parent

project = "flowsim"
author = "flowsim contributors"
project_copyright = author
version = release = flowsim.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # the site's own copy: mathematics is read without network
]
if not tags.has("quick"):  # noqa: F821, given by Sphinx
    extensions.append("sphinx.ext.viewcode")  # a fifth of the time
exclude_patterns = ["_build", "**/.ipynb_checkpoints", "reference/_*", "gallery"]
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"flowsim {release}"
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

# Notebooks are stored executed, and the tests execute them again; the site shows what is stored.
nb_execution_mode = "off"
nb_merge_streams = True

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# What exists is documented: each command by its own help, and every public name that api.md does not place.
GENERATED = HERE / "reference"
shutil.rmtree(GENERATED, ignore_errors=True)  # pages of names that are gone
GENERATED.mkdir()


def command_help(name: str) -> str:
    command = command_line.get_command(click.Context(command_line), name)
    text = command.get_help(click.Context(command, info_name=f"flowsim {name}", max_content_width=100))
    return f"## flowsim {name}\n\n{COMMANDS[name][1]}\n\n```text\n{text}\n```\n"


placed = set(re.findall(r"^   ([\w.]+)$", (HERE / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE))
rest = [
    name
    for name in sorted(flowsim.__all__)
    if not (name.startswith("__") or name in placed or any(entry.startswith(f"{name}.") for entry in placed))
]
#: modules whose public names are listed too, unless they are names of flowsim itself
MODULES = ("datasets", "events", "losses", "plot", "studies", "certificates", "report")
for module in MODULES:
    home = importlib.import_module(f"flowsim.{module}")
    names = [name for name in home.__all__ if name not in flowsim.__all__ and f"{module}.{name}" not in placed]
    names = [name for name in names if callable(getattr(home, name))]  # constants stand with what uses them
    rest += [f"{module}.{name}" for name in sorted(names)]
names = ".. currentmodule:: flowsim\n.. autosummary::\n   :toctree: .\n\n" + "".join(f"   {name}\n" for name in rest)
title = "More names\n==========\n\n"
(GENERATED / "more.rst").write_text(title + (names if rest else "None.\n"), encoding="utf-8")
(GENERATED / "_commands.md").write_text("\n".join(map(command_help, COMMANDS)), encoding="utf-8")


def _keys(properties: dict) -> str:
    """A table of the keys of a section, from its schema."""
    rows = []
    for name, entry in properties.items():
        kinds = entry.get("type") or [each.get("type") for each in entry.get("anyOf", [])]
        kinds = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind and kind != "null"]
        values = entry.get("enum") or [value for each in entry.get("anyOf", []) for value in each.get("enum", [])]
        kind = " or ".join(f"`{value}`" for value in values) if values else " or ".join(kinds)
        text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", entry.get("description", "")).replace("``", "`").replace("|", r"\|")
        rows.append(f"| `{name}` | {kind} | {text} |")
    return "\n".join(["| key | value | meaning |", "|---|---|---|", *rows, ""])


def sweep_keys() -> str:
    """Every key of an experiment file."""
    from flowsim.cli.registry import FUNCTIONS
    from flowsim.cli.schema import experiment_schema, parameter_schema

    sections = experiment_schema()["properties"]
    parts = ["### Top of the file\n", _keys({k: v for k, v in sections.items() if k not in ("problem", "network")})]
    for name in ("problem", "network"):
        parts += [f"### [{name}]\n", _keys(sections[name]["properties"])]
    for function in FUNCTIONS:
        parts += [f"### [parameters] of {function}\n", _keys(parameter_schema(function))]
    return "\n".join(parts)


(GENERATED / "_sweep.md").write_text(sweep_keys(), encoding="utf-8")


def gallery() -> None:
    """Every script of gallery/ is run, its figure and its text shown side by side: neither can be stale."""
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    pictures = GENERATED / "gallery"
    pictures.mkdir(exist_ok=True)
    thumbnails, parts = [], []
    for script in sorted((HERE / "gallery").glob("*.py")):
        text = script.read_text(encoding="utf-8")
        title, code = text.split('"""')[1].strip(), text.split('"""', 2)[2].strip()
        plt.close("all")
        with matplotlib.rc_context({"figure.figsize": (6.0, 4.0)}):
            exec(compile(text, str(script), "exec"), {"__name__": "__main__"})
            plt.gcf().savefig(pictures / f"{script.stem}.png", dpi=110)
        heading = title.rstrip(".")
        thumbnails.append(
            f'<a href="#{make_id(heading)}"><img src="_images/{script.stem}.png" alt="{escape(heading)}" '
            f'title="{escape(heading)}" style="width: 10.5rem"></a>'
        )
        parts.append(f"## {heading}\n\n![{heading}](reference/gallery/{script.stem}.png)\n\n```python\n{code}\n```\n")
    plt.close("all")
    overview = "<p>\n" + "\n".join(thumbnails) + "\n</p>\n"
    (GENERATED / "_gallery.md").write_text("\n".join([overview, *parts]), encoding="utf-8")


gallery()

(HERE / "notebooks").mkdir(exist_ok=True)
for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
    shutil.copy(notebook, HERE / "notebooks" / notebook.name)
