"""What the command line compiles ahead is what its commands call."""

import importlib

import pytest

import flowsim as fs
from flowsim import compiling
from flowsim.cli import first_use, main


def test_functions_are_compiled_ahead_for_the_arguments_they_are_called_with():
    problem = fs.datasets.sparse_regression(12, 4, sparsity=2, seed=1)
    net = fs.DiagonalNetwork("u*v")
    traj = fs.gradient_flow(net, problem, 5.0, alpha=1e-3)
    assert traj.at(2.0).arclength > 0.0
    fs.studies.measured_jump_times(traj, fs.saddle_to_saddle(net, problem))
    fs.gradient_descent(net, problem, 0.05, 10, alpha=0.1)
    for name in {name for groups in first_use.COMPILED.values() for group in groups for name in group}:
        module, _, function = name.partition(":")
        dispatcher = getattr(importlib.import_module(module), function)
        assert tuple(dispatcher.declared) in dispatcher.overloads, name


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [(["run"], True), (["run", "--help"], False), (["run", "--width", "8"], False), (["derive", "u*v"], False)],
)
def test_only_what_a_command_needs_is_compiled_ahead(arguments, starts, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(first_use, "compile_ahead", lambda *groups: asked.append(groups))
    first_use.begin(arguments[0], arguments[1:])
    assert bool(asked) == starts


def test_comparing_says_that_it_compiles(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(compiling, "_SAID", [])
    monkeypatch.setattr(compiling, "_EXPECTED", [True])
    main(["compare", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err.splitlines()[0] == compiling.NOTE


def test_help_compiles_nothing(monkeypatch, capsys):
    monkeypatch.setattr(first_use, "compile_ahead", lambda *groups: pytest.fail("a process was started"))
    main(["compare", "--help"])
    assert "--seeds" in capsys.readouterr().out
