"""The examples in docstrings, of every module there is."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules_with_examples() -> list[str]:
    found = []
    for top in ("flowsim", "solvers"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                parts = path.relative_to(ROOT).with_suffix("").parts
                name = ".".join(part for part in parts if part != "__init__")
                found.append(name.replace("solvers", "flowsim.solvers", 1) if top == "solvers" else name)
    return found


def test_the_front_doors_have_examples() -> None:
    found = modules_with_examples()
    for module in (
        "flowsim.problem.problems",
        "flowsim.symbolic.loss_formula",
        "flowsim.network.networks",
        "flowsim.flows.gradient_flow",
        "flowsim.sweep.execution",
    ):
        assert module in found


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples_hold(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    report: list[str] = []
    attempted = 0
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for test in doctest.DocTestFinder().find(module, name, module=module):
        attempted += len(test.examples)
        assert runner.run(test, out=report.append).failed == 0, "".join(report)
    assert attempted > 0
