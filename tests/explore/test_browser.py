"""The page of sliders as its user meets it, in a headless browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import flowsim as fs
from tests.browsers import driver as driver
from tests.browsers import needs_browser

pytest.importorskip("dash", reason="the extra `explore` is not installed")

from flowsim.explore import Controls, Explorer, make_app, start

pytestmark = needs_browser

PROBLEM = fs.datasets.sparse_regression(20, 6, sparsity=2, seed=1)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    explorer = Explorer(PROBLEM, "fs.datasets.sparse_regression(20, 6, sparsity=2, seed=1)")
    explorer.show(Controls())
    server, address = start(make_app(explorer))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def page(driver: Any, address: str) -> Any:
    driver.get_log("browser")
    opened(driver, address)
    return driver


def drawn(page: Any) -> int:
    return int(page.execute_script("return document.documentElement.dataset.ready || '0'"))


def opened(page: Any, address: str) -> None:
    page.get(address)
    WebDriverWait(page, 60).until(lambda d: drawn(d) > 0 and curve(d, "loss", -1))


def curve(page: Any, figure: str, which: int) -> list[float] | None:
    """Ordinates that a figure draws."""
    values: list[float] | None = page.execute_script(
        "const plot = document.querySelector(`#${arguments[0]} .js-plotly-plot`);"
        "if (!plot || !plot._fullData || !plot._fullData.length) return null;"
        "return Array.from(plot._fullData.at(arguments[1]).y)",
        figure, which,
    )  # fmt: skip
    return values


def redrawn(page: Any, change: Any) -> None:
    before = drawn(page)
    change()
    WebDriverWait(page, 30).until(lambda d: drawn(d) > before)


def text(page: Any, identity: str) -> str:
    found: str = page.execute_script(f"return document.getElementById('{identity}').innerText")
    return found


def test_every_figure_is_drawn_without_an_error(page: Any) -> None:
    for figure in ("loss", "coordinates", "plane", "limit"):
        WebDriverWait(page, 10).until(lambda d, name=figure: curve(d, name, -1))
    assert page.get_log("browser") == []
    assert "steps of native" in text(page, "facts") and not text(page, "error")
    assert "fs.gradient_flow" in text(page, "code")


def test_the_keyboard_moves_a_slider_and_figures_address_and_code_follow(page: Any) -> None:
    before = curve(page, "loss", -1)
    slider = page.find_element("id", "alpha")
    redrawn(page, lambda: slider.send_keys(Keys.HOME))
    assert text(page, "alpha-shown") == "1" and slider.get_attribute("aria-valuetext") == "1"
    assert curve(page, "loss", -1) != before
    redrawn(page, lambda: slider.send_keys(Keys.END))
    assert text(page, "alpha-shown") == "1e-1000"
    assert "alpha=1e-1000" in page.current_url and 'alpha="1e-1000"' in text(page, "code")
    redrawn(page, lambda: page.find_element("id", "eta").send_keys(Keys.ARROW_RIGHT))
    assert "eta=0.01" in page.current_url and "noise=fs.GaussianNoise(0.01)" in text(page, "code")
    assert page.find_element("id", "figure-pdf").get_attribute("href").endswith(page.current_url.split("/")[-1])


def test_an_address_brings_back_its_setting(page: Any, address: str) -> None:
    opened(page, address + "?alpha=3e-7&eta=0.123&clock=time&weight_decay=0.0312")
    WebDriverWait(page, 20).until(lambda d: "3e-7" in text(d, "code"))
    code = text(page, "code")
    assert 'alpha="3e-7"' in code and "GaussianNoise(0.123)" in code and "weight_decay=0.0312" in code
    assert "time" in text(page, "loss") and "accelerated" not in text(page, "loss")


def test_a_formula_that_is_none_is_told_and_the_figures_stay(page: Any) -> None:
    before = curve(page, "loss", -1)
    field = page.find_element("id", "formula")
    field.send_keys("u*", Keys.ENTER)
    WebDriverWait(page, 20).until(lambda d: text(d, "error"))
    assert "formula" in text(page, "error") and "u*" in text(page, "error")
    assert page.find_element("id", "error").get_attribute("role") == "alert"
    assert curve(page, "loss", -1) == before
    field.send_keys(Keys.BACKSPACE, Keys.BACKSPACE, "u**2 - v**2", Keys.ENTER)
    WebDriverWait(page, 60).until(lambda d: "u**2 - v**2" in text(d, "code"))
    assert not text(page, "error") and page.find_element("id", "depth").get_attribute("disabled")


def test_a_dark_screen_and_a_telephone(page: Any, address: str) -> None:
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    ground = "return getComputedStyle(document.body).backgroundColor"
    ink = "return getComputedStyle(document.querySelector('#loss .xtitle')).fill"
    assert page.execute_script(ground) == "rgb(22, 24, 28)" and page.execute_script(ink) == "rgb(232, 232, 232)"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    screen = {"width": 360, "height": 812, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    opened(page, address)
    wide = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    page.execute_script(
        "document.querySelectorAll('#jumps td:nth-child(3)').forEach(c => c.innerText = 'x'.repeat(40))"
    )
    page.execute_script("document.querySelectorAll('#jumps td:nth-child(5)').forEach(c => c.innerText = 'deactivated')")
    table = page.execute_script("const t = document.querySelector('#jumps'); return [t.scrollWidth, t.clientWidth]")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide[0] <= wide[1] == 360 and table[0] <= table[1]


@pytest.mark.slow
def test_every_control_has_a_name(page: Any) -> None:
    unnamed = page.execute_script(
        "return [...document.querySelectorAll('#controls input')].filter(i => !i.labels.length).map(i => i.outerHTML)"
    )
    assert unnamed == []
