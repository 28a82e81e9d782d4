"""Every example and every command of the documentation works as shown, and the site builds without a warning (slow)."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import flowsim as fs
from flowsim.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
#: A directive such as ```{include} has its name in braces.
FENCE = re.compile(r"^```(\w*|\{[^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def named(page: Path) -> str:
    return page.stem


def test_no_example_escapes_the_tests() -> None:
    for page in PAGES:
        for language, _ in FENCE.findall(page.read_text(encoding="utf-8")):
            tested = language in ("pycon", "sh", "toml", "") or language.startswith("{")
            assert tested, f"{page.name}: a {language} block is not tested"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "pycon")], ids=named)
def test_examples_print_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(
        "\n\n".join(blocks(page, "pycon")), {"__name__": "__main__"}, page.name, str(page), 0
    )
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=named)
def test_commands_run_in_the_order_of_the_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flowsim.plot.style.save", lambda figure, file, **options: Path(file).touch())
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((25, 3)), columns=["a", "b", "response"])
    frame.to_csv("table.csv", index=False)
    for body in blocks(page, "toml"):
        name = body.splitlines()[0].removeprefix("# ")
        Path(name).write_text(body, encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "flowsim":
            assert main(words[1:]) in (None, 0), line
        elif words[0] == "make":
            assert set(words[1:]) <= targets, line
        else:
            assert line == "pip install ."


def test_every_link_leads_to_a_page_that_is_there_and_to_a_heading_of_it() -> None:
    import importlib

    generated = {"reference/more.rst", *(f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb"))}
    checked = 0
    for page in (*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, heading = target.partition("#")
            if "://" in path or (page.parent == DOCS and path in generated):
                continue
            found = page.parent / path if path else page
            assert found.exists(), f"{page.name}: {target}"
            if heading:
                headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), flags=re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
                assert heading in slugs, f"{page.name}: {target}"
            checked += 1
    for name in re.findall(r"^   ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE):
        module, _, last = f"flowsim.{name}".rpartition(".")
        assert getattr(importlib.import_module(module), last).__doc__, name
        checked += 1
    assert checked > 100


def test_mathematics_of_pages_is_closed_and_read_from_the_sites_own_copy() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for paragraph in text.split("\n\n"):
            assert len(re.findall(r"(?<!\\)\$", paragraph)) % 2 == 0, f"{page.name}: {paragraph}"
    assert '"sphinx-mathjax-offline"' in (DOCS / "conf.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a warning and without network."""
    pytest.importorskip("myst_nb", reason="the extra `docs` is not installed")
    tmp_path = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-t", "quick"]
    command += ["-d", str(tmp_path / "trees")]
    # A proxy that answers nothing: whoever asks the network fails the build.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "site")], capture_output=True, text=True, env={**os.environ, **nowhere}
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "site"


@pytest.mark.slow
def test_the_site_has_every_page_and_every_command(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "flowsim" in home
    for page in (*(page.stem for page in PAGES), "notebooks/tiny_alpha", "reference/flowsim.gradient_flow"):
        assert (site / f"{page}.html").is_file(), page
    commands = (site / "cli.html").read_text(encoding="utf-8")
    reference = "".join((site / page).read_text(encoding="utf-8") for page in ("api.html", "reference/more.html"))
    for name in COMMANDS:
        assert f"Usage: flowsim {name}" in commands
    for name in fs.__all__:
        assert name.startswith("__") or f"#flowsim.{name}" in reference or f"flowsim.{name}." in reference, name


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    import importlib

    pages = {path.stem for path in (site / "reference").glob("*.html")}
    wanted = {f"flowsim.{name}" for name in fs.__all__ if not name.startswith("__")}
    modules = {"certificates", "datasets", "events", "losses", "plot", "solvers", "studies", "sweep", "problem"}
    for module in modules & {"datasets", "events", "plot", "studies"}:
        home = importlib.import_module(f"flowsim.{module}")
        wanted |= {f"flowsim.{module}.{name}" for name in home.__all__ if callable(getattr(home, name))}
    missing = {
        name
        for name in wanted
        if name not in pages
        and name.rsplit(".", 1)[-1] not in modules
        and f"flowsim.{name.rsplit('.', 1)[-1]}" not in pages
    }
    assert missing == set()


@pytest.mark.slow
def test_mathematics_is_read_without_network(site: Path) -> None:
    page = (site / "theory.html").read_text(encoding="utf-8")
    scripts = re.findall(r'<script[^>]*src="([^"]+)"', page)
    assert any("mathjax" in script for script in scripts)
    assert not any(script.startswith(("http:", "https:", "//")) for script in scripts)
    assert list((site / "_static" / "mathjax").glob("tex-*.js"))


@pytest.mark.slow
def test_search_finds_the_edge_of_stability(site: Path) -> None:
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "edge of stability" in index.lower()


@pytest.mark.slow
def test_the_gallery_shows_a_figure_for_every_script(site: Path) -> None:
    scripts = sorted((DOCS / "gallery").glob("*.py"))
    page = (site / "gallery.html").read_text(encoding="utf-8")
    assert len(scripts) >= 20
    for script in scripts:
        assert f"{script.stem}.png" in page and (site / "_images" / f"{script.stem}.png").stat().st_size > 5000


def test_the_picture_of_the_readme_is_what_the_code_draws_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import pictures

    pictures.diabetes(tmp_path / "new.png")
    assert pictures.difference(tmp_path / "new.png", DOCS / "diabetes.png") < pictures.TOLERANCE, "run `make docs`"
    assert "docs/pictures.py" in (ROOT / "Makefile").read_text(encoding="utf-8")
