"""The page of sliders without a browser: settings, what they show, and who may ask for it."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowsim as fs

pytest.importorskip("dash", reason="the extra `explore` is not installed")

from flowsim.explore import Controls, Explorer, make_app, start
from flowsim.explore.controls import alpha_at, place_of
from flowsim.explore.drawing import draw
from flowsim.explore.layout import facts

PROBLEM = fs.datasets.sparse_regression(20, 6, sparsity=2, seed=1)
SOURCE = "fs.datasets.sparse_regression(20, 6, sparsity=2, seed=1)"


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return Explorer(PROBLEM, SOURCE)


def decoded(packed: dict[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["bdata"]), dtype="<f8")


def test_the_slider_of_alpha_reaches_from_1_to_1e_minus_1000() -> None:
    assert alpha_at(0.0) == "1" and alpha_at(1.0) == "1e-1000"
    for alpha in ("1", "1e-1", "1e-3", "1e-10", "1e-100", "1e-1000"):
        assert alpha_at(place_of(alpha)) == alpha
    places = np.linspace(0, 1, 200)
    digits = [-fs.network.InitialScale.parse(alpha_at(place)).log for place in places]
    assert np.all(np.diff(digits) >= 0) and digits[-1] == pytest.approx(1000 * math.log(10))


@given(
    st.builds(
        Controls,
        st.sampled_from(["", "u*v", "u**2 - v**2"]), st.integers(2, 5), st.integers(0, 1000).map("1e-{}".format),
        st.sampled_from(["gaussian", "uniform", "rademacher", "laplace"]), st.floats(0, 1e9), st.floats(0, 1e9),
        st.sampled_from(["time", "accelerated", "arclength"]),
    )
)  # fmt: skip
def test_the_address_keeps_every_setting_to_the_last_digit(controls: Controls) -> None:
    assert Controls.from_query(controls.query()) == controls
    other = Controls("u*v", 3, "1e-7", "laplace", 0.25, 1.5, "time")
    assert Controls.from_query(controls.query(other), other) == controls


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("?alpha=none", "`alpha` must be"),
        ("?alpha=2", "`alpha` must be at most 1 here; received 2"),
        ("?depth=9", "`depth` must be from 2 to 5; received 9"),
        ("?depth=x", "`depth` must be a number; received 'x'"),
        ("?eta=-1", "`eta` must be >= 0"),
        ("?eta=nan", "`eta` must be finite"),
        ("?noise=pink", "`noise` must be one of gaussian, uniform"),
        ("?clock=wall", "`clock` must be one of"),
        ("?beta=1", "`beta` is not a setting of this page; there are formula, depth"),
    ],
)
def test_a_setting_that_is_none_is_named(query: str, text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("?", r"\?")):
        Controls.from_query(query)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "controls",
    [
        Controls(),
        Controls(alpha="1", clock="time"),
        Controls(alpha="1e-30", eta=0.3, weight_decay=0.02, clock="arclength"),
        Controls("u**2 - v**2", alpha="1e-1000", noise="laplace", eta=0.1),
    ],
    ids=lambda controls: controls.query(),
)
def test_the_code_computes_what_the_page_shows(
    explorer: Explorer, controls: Controls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = explorer.show(controls)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(shown.code, names)
    np.testing.assert_array_equal(names["traj"].beta, shown.traj.beta)
    np.testing.assert_array_equal(names["path"].jump_times, shown.path.jump_times)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    figures = draw(shown)
    flow = figures["coordinates"]["data"][-1]
    last = PROBLEM.feature_names.index(flow["name"])
    assert decoded(flow["y"])[-1] == pytest.approx(shown.traj.beta[-1, last], rel=1e-12)
    assert len(decoded(flow["x"])) <= 800
    assert "steps of native" in facts(shown, 0.1)


def test_accelerated_time_of_alpha_1_is_told_to_be_none(explorer: Explorer) -> None:
    shown = explorer.show(Controls(alpha="1"))
    assert shown.clock == "time" and shown.jumps == [] and "needs alpha < 1" in shown.notes[0]


def test_steps_of_the_limit_stand_at_its_jumps(explorer: Explorer) -> None:
    shown = explorer.show(Controls(alpha="1e-50"))
    limit = draw(shown)["loss"]["data"][0]
    edges = np.unique(decoded(limit["x"]))[1:-1]
    np.testing.assert_array_equal(edges, shown.path.jump_times)


def test_one_target_only() -> None:
    with pytest.raises(ValueError, match="must be a single column to be explored; received 2"):
        Explorer(fs.Regression(np.eye(3), np.eye(3)[:, :2]), "")


def test_the_server_answers_this_machine_only(explorer: Explorer) -> None:
    app = make_app(explorer)
    client = app.server.test_client()
    asked = client.get("/", base_url="http://127.0.0.1:1234")
    assert asked.status_code == 200 and "default-src 'self'" in asked.headers["Content-Security-Policy"]
    assert "http" not in asked.headers["Content-Security-Policy"]
    assert client.get("/", base_url="http://rebound.example").status_code == 403
    elsewhere = {"Origin": "http://other.example"}
    assert client.get("/_dash-layout", base_url="http://127.0.0.1:1234", headers=elsewhere).status_code == 403
    other_port = {"Origin": "http://127.0.0.1:99"}
    assert client.get("/_dash-layout", base_url="http://127.0.0.1:1234", headers=other_port).status_code == 403


def test_the_server_listens_on_loopback_and_says_when_a_port_is_taken(explorer: Explorer) -> None:
    server, address = start(make_app(explorer))
    try:
        assert server.server_address[0] == "127.0.0.1" and address == f"http://127.0.0.1:{server.server_port}/"
        with pytest.raises(ValueError, match="`port` must be free"):
            start(make_app(explorer), server.server_port)
    finally:
        server.server_close()


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("kind", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_figure_of_a_setting_is_one_click_away(explorer: Explorer, kind: str, begins: bytes) -> None:
    client = make_app(explorer).server.test_client()
    asked = client.get(f"/figure.{kind}?alpha=1e-20", base_url="http://127.0.0.1:1")
    assert asked.status_code == 200 and asked.data.startswith(begins)
    refused = client.get(f"/figure.{kind}?alpha=0", base_url="http://127.0.0.1:1")
    assert refused.status_code == 400 and "`alpha` must be" in refused.text
    assert client.get("/figure.exe", base_url="http://127.0.0.1:1").status_code == 404


def test_options_that_have_no_page_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from flowsim.cli import main

    for options, told in (
        (["--width", "3"], "`--width` has no page of sliders"),
        (["--formula", "u*v", "--depth", "3"], "`--formula` excludes --depth"),
        (["--alpha", "7"], "`--alpha` must be at most 1 here"),
        (["--raw"], "`--raw` needs a data file"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["explore", "--no-open", *options])
        assert ended.value.code == 2 and told in capsys.readouterr().err


def test_the_command_serves_what_its_options_say(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    from werkzeug.serving import BaseWSGIServer

    import flowsim.explore
    from flowsim.cli import main

    made: list[Explorer] = []
    own = flowsim.explore.Explorer
    monkeypatch.setattr(flowsim.explore, "Explorer", lambda *args: made.append(own(*args)) or made[0])
    monkeypatch.setattr(BaseWSGIServer, "serve_forever", lambda self: None)
    table = tmp_path / "table.csv"
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((12, 3))
    table.write_text("a;b;y\n" + "\n".join(";".join(f"{x:.6f}" for x in row) for row in rows) + "\n")
    main(["explore", str(table), "--target", "y", "--sep", ";", "--drop", "b", "--alpha", "1e-40", "--no-open"])
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert made[0].problem.feature_names == ("a",)
    names: dict[str, Any] = {"fs": fs}
    read = eval(made[0].source, names)
    np.testing.assert_array_equal(read.X, made[0].problem.X)
