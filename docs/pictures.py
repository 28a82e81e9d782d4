"""Pictures that stand in the repository, drawn anew by ``make docs``: README and pages show what the code draws now."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np

import flowsim as fs

HERE = Path(__file__).parent
#: Pixels that may differ, in the mean over all: fonts are set differently on other machines.
TOLERANCE = 2.0


def diabetes(file: Path) -> None:
    """The overview that README and the first page show."""
    import matplotlib

    matplotlib.use("Agg")
    problem = fs.datasets.diabetes()
    net = fs.DiagonalNetwork("u*v")
    path = fs.saddle_to_saddle(net, problem)
    traj = fs.gradient_flow(net, problem, 1.5 * path.jump_times[-1], alpha="1e-100", clock="accelerated")
    fs.plot.overview(traj, path).savefig(file, dpi=110)


def explore(file: Path) -> bool:
    """The page of sliders, where a browser is installed."""
    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (browser and driver):
        return False
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    from flowsim.explore import Explorer, make_app, start

    explorer = Explorer(fs.datasets.diabetes(), "fs.datasets.diabetes()")
    server, address = start(make_app(explorer))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,1045"):
        options.add_argument(flag)
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        page.get(address + "?alpha=1e-5")
        for figure in ("loss", "coordinates", "plane", "limit"):
            WebDriverWait(page, 60).until(lambda d, name=figure: d.find_elements("css selector", f"#{name} .js-line"))
        # Milliseconds change with every run.
        page.execute_script("document.getElementById('facts').textContent = ''")
        page.save_screenshot(str(file))
    finally:
        page.quit()
        server.shutdown()
        server.server_close()
    return True


def difference(first: Path, second: Path) -> float:
    """Mean difference of the grey values of two pictures, of 255; infinite for other sizes."""
    from PIL import Image

    one, two = (np.asarray(Image.open(file).convert("L"), dtype=float) for file in (first, second))
    return float(np.abs(one - two).mean()) if one.shape == two.shape else float("inf")


def renew() -> None:
    """Draw each picture, and replace the stored one where they differ."""
    with tempfile.TemporaryDirectory() as folder:
        for draw in (diabetes, explore):
            new, stored = Path(folder) / f"{draw.__name__}.png", HERE / f"{draw.__name__}.png"
            if draw(new) is False:
                print(f"{stored.name} is kept: no browser is installed to draw it")
            elif not stored.exists() or difference(new, stored) > TOLERANCE:
                shutil.copyfile(new, stored)
                print(f"{stored.name} is drawn anew")


if __name__ == "__main__":
    renew()
