"""``flowsim compare`` and its figures."""

from __future__ import annotations

import json

import matplotlib as mpl
import numpy as np
import pytest

import flowsim as fs
from flowsim.cli import main

mpl.use("Agg")


def test_the_command_writes_its_figure_and_finds_orders_1_and_2(tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 5))
    np.savez(tmp_path / "data.npz", X=X, y=X[:, 0] - X[:, 1])
    out = tmp_path / "out"
    main(
        ["compare", str(tmp_path / "data.npz"), "--formula", "u*v", "--step", "0.05", "--t-end", "4", "--out", str(out)]
    )
    summary = json.loads((out / "summary.json").read_text())
    assert summary["order"] == pytest.approx(1.0, abs=0.15)
    assert summary["order to modified flow"] == pytest.approx(2.0, abs=0.15)
    assert len(summary["runs"]) == 3
    assert (out / "figure.png").stat().st_size > 10_000
    printed = capsys.readouterr()
    assert "modified flow" in printed.out and "descents" in printed.err


def test_the_command_takes_other_losses(tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 3))
    np.savez(tmp_path / "data.npz", X=X, y=np.sign(rng.standard_normal(12)))
    arguments = ["--loss", "logistic", "--step", "0.05", "--t-end", "4", "--out", str(tmp_path / "out")]
    main(["compare", str(tmp_path / "data.npz"), *arguments, "--no-progress"])
    assert not capsys.readouterr().err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["order to modified flow"] == pytest.approx(2.0, abs=0.15)


@pytest.mark.slow
def test_from_a_tiny_start_the_runs_last_until_something_moves(tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 3))
    np.savez(tmp_path / "data.npz", X=X, y=X[:, 0] - X[:, 1])
    table = str(tmp_path / "data.npz")
    main(["compare", table, "--alpha", "1e-300", "--out", str(tmp_path / "out")])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["runs"][0]["largest distance"] > 0.1
    assert all(value is not None for row in summary["runs"] for value in row.values())
    main(["compare", table, "--alpha", "1e-300", "--t-end", "0.2", "--out", str(tmp_path / "still")])
    assert "nothing has moved yet" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["compare", table, "--alpha", "1e-10000000", "--out", str(tmp_path / "never")])
    assert "--step" in capsys.readouterr().err


def test_sampled_runs_need_noise(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "--seeds", "3", "--out", str(tmp_path / "out")])
    assert "sampled runs need --noise" in capsys.readouterr().err


def test_figures_draw_on_the_axes_they_are_given_and_say_what_is_drawn() -> None:
    import matplotlib.pyplot as plt

    problem = fs.Regression([[1.0, 0.2], [0.1, 1.0]], [1.0, -1.0])
    net = fs.DiagonalNetwork("u*v", noise=fs.GaussianNoise(0.1))
    flow = fs.gradient_flow(net, problem, 2.0, alpha=0.3)
    runs = fs.gradient_descents(net, problem, 0.05, 40, alpha=0.3, runs=5, seed=0)
    single = [fs.gradient_descent(net, problem, h, round(2 / h), alpha=0.3, expected=True) for h in (0.1, 0.05)]
    study = fs.studies.edge_of_stability(fs.DiagonalNetwork("u*v"), problem, [0.1, 0.5], 50, alpha=0.3)
    figure, axes = plt.subplots(2, 2)
    assert fs.plot.compare(fs.compare(flow, single[0]), ax=axes[0, 0])
    assert fs.plot.compare(fs.compare(flow, runs), ax=axes[0, 1])
    assert fs.plot.orders(fs.compare(flow, single), ax=axes[1, 0])
    assert fs.plot.edge_of_stability(study, ax=axes[1, 1])
    for ax in axes.ravel():
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.get_legend() is not None
    plt.close(figure)


@pytest.mark.parametrize("wrong", [("--t-end", "0"), ("--seeds", "-1"), ("--workers", "0")], ids="".join)
def test_an_option_out_of_range_is_refused_by_name(wrong: tuple[str, str], tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *wrong, "--out", str(tmp_path / "out")])
    assert ended.value.code == 2 and wrong[0] in capsys.readouterr().err and not (tmp_path / "out").exists()
