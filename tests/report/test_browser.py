"""The page as a reader meets it, in a headless browser without network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from flowsim.report import write_report
from tests.browsers import driver as driver
from tests.browsers import needs_browser
from tests.report.conftest import CERTIFICATES

pytestmark = needs_browser


@pytest.fixture
def page(driver: Any, runs: Path, tmp_path: Path) -> Any:
    driver.get_log("browser")
    driver.get(write_report(runs, tmp_path / "report.html").as_uri())
    WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.documentElement.dataset.ready"))
    return driver


def curve(page: Any, plot: str) -> list[float]:
    """What is drawn: the decoded ordinates of the first curve of a plot."""
    values: list[float] = page.execute_script(
        f"return Array.from(document.getElementById('{plot}')._fullData[0].y.slice(0))"
    )
    return values


def move(page: Any, identity: str, **changes: Any) -> None:
    page.execute_async_script(
        "const [id, changes, done] = arguments; const it = document.getElementById(id);"
        "Object.assign(it, changes); it.dispatchEvent(new Event('input'));"
        "requestAnimationFrame(() => setTimeout(done, 300));",
        identity, changes,
    )  # fmt: skip


def visible_text(page: Any, identity: str) -> str:
    text: str = page.execute_script(f"return document.getElementById('{identity}').innerText")
    return text


def test_all_figures_are_drawn_without_an_error_or_a_request(page: Any) -> None:
    for plot, least in (("loss", 1), ("coordinates", 2), ("drift", 1), ("comparison", 1)):
        paths = page.execute_script(
            f"return [...document.querySelectorAll('#{plot} .scatterlayer path.js-line')].map(p => p.getAttribute('d'))"
        )
        assert len(paths) >= least and all("L" in path and "NaN" not in path for path in paths), plot
    assert page.execute_script("return document.documentElement.dataset.error || null") is None
    assert page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert [line for line in page.get_log("browser") if line["level"] == "SEVERE"] == []


def test_the_slider_shows_another_run_in_every_figure_and_table(page: Any) -> None:
    first, jumps = curve(page, "loss"), visible_text(page, "jumps")
    assert visible_text(page, "slider-label") == "α = 1e-3"
    move(page, "slider", value=2)
    assert visible_text(page, "slider-label") == "α = 1e-1000"
    assert curve(page, "loss") != first and visible_text(page, "jumps") != jumps
    assert "1e-1000" in visible_text(page, "facts")


def test_a_zoom_by_mouse_survives_the_slider_and_ends_with_a_double_click(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ranges = "return document.getElementById('loss')._fullLayout.xaxis.range"
    full = page.execute_script(ranges)
    area = page.find_element("css selector", "#loss .nsewdrag")
    mouse = ActionChains(page).move_to_element_with_offset(area, -60, 0).click_and_hold()
    mouse.move_by_offset(60, 1).move_by_offset(60, 1).release().perform()
    zoomed = page.execute_script(ranges)
    assert full[0] < zoomed[0] < zoomed[1] < full[1]
    move(page, "slider", value=1)
    assert page.execute_script(ranges) == zoomed
    ActionChains(page).double_click(area).perform()
    WebDriverWait(page, 10).until(lambda d: d.execute_script(ranges) != zoomed)


def test_clocks_and_logarithms_change_the_axes(page: Any) -> None:
    move(page, "clock", value="arclength")
    assert "arc length" in visible_text(page, "loss")
    move(page, "log-loss", checked=True)
    assert page.execute_script("return document.getElementById('loss')._fullLayout.yaxis.type") == "log"


def test_certificates_appear_with_the_run_that_has_them(page: Any) -> None:
    hidden = "return document.getElementById('certificates-box').hidden"
    assert page.execute_script(hidden) is True
    move(page, "slider", value=2)
    assert page.execute_script(hidden) is False
    rows = page.execute_script(
        "return [...document.querySelectorAll('#certificates tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    assert len(rows) == len(CERTIFICATES)
    assert rows[0][0] == "Balancing" and rows[0][-1] == "yes" and rows[1][0] == "<b>Rate</b>"
    assert rows[1][-1] == "no"


def test_hostile_names_are_shown_and_never_run(page: Any) -> None:
    assert page.execute_script("return window.stolen || null") is None
    assert "<script>" in visible_text(page, "jumps") and "weight & height" in page.page_source.replace("&amp;", "&")
    assert page.execute_script("return document.querySelectorAll('img').length") == 0


def test_nothing_is_offered_that_sends_data_away(page: Any) -> None:
    titles = page.execute_script(
        "return [...document.querySelectorAll('.modebar-btn')].map(b => b.getAttribute('data-title') || '')"
    )
    assert titles and not any(word in title.lower() for title in titles for word in ("cloud", "share", "edit in"))


def test_plateaus_are_not_simplified_and_tables_say_what_their_cells_are(page: Any) -> None:
    assert page.execute_script("return document.getElementById('loss')._fullData[0].line.simplify") is False
    assert page.execute_script("return [...document.querySelectorAll('th')].every(cell => cell.scope)")
    heads = "return [...document.querySelectorAll('#jumps th[scope=col]')].map(cell => cell.textContent)"
    assert page.execute_script(heads) == ["predicted", "measured", "difference", "feature", "sign", "kind"]
    move(page, "slider", value=2)
    assert (
        page.execute_script("return document.getElementById('slider').getAttribute('aria-valuetext')") == "α = 1e-1000"
    )


def test_the_page_follows_a_dark_screen(page: Any) -> None:
    ground = "return document.getElementById('loss')._fullLayout.paper_bgcolor"
    assert page.execute_script(ground) == "#fff"
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    WebDriverWait(page, 10).until(lambda d: d.execute_script(ground) == "#16181c")
    ink = page.execute_script("return getComputedStyle(document.body).color")
    assert ink == "rgb(232, 232, 232)"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_telephone_shows_the_page_without_sideways_scrolling(page: Any) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 812, "deviceScaleFactor": 2, "mobile": True}
    )
    page.refresh()
    WebDriverWait(page, 60).until(lambda d: d.execute_script("return document.documentElement.dataset.ready"))
    wide = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    move(page, "slider", value=2)  # the run with certificates
    cells = page.execute_script(
        "return [...document.querySelectorAll('#certificates td')].map(c => [c.dataset.label, c.clientWidth])"
    )
    lines = page.execute_script(
        "const lines = (c) => [...c.childNodes].flatMap(n => { const r = document.createRange(); r.selectNode(n);"
        "  return [...r.getClientRects()]; }).length;"
        "return [...document.querySelectorAll('#jumps td')].filter(c => c.cellIndex != 3).map(lines)"
    )
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert lines and max(lines) == 1  # long names are broken, not numbers
    assert wide[0] <= wide[1] == 360
    # A certificate is a block of named lines: nine columns would have a letter each.
    assert cells and all(label and width > 150 for label, width in cells)
