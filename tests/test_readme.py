"""What the README shows works as shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flowsim.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.mark.parametrize("code", [body for language, body in BLOCKS if language == "python"])
def test_python_examples_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "jumps.png").stat().st_size > 10_000


COMMANDS = [
    line.split("  #")[0].strip() for language, body in BLOCKS if language == "sh" for line in body.splitlines() if line
]


SHELL = [body for language, body in BLOCKS if language == "sh" and "flowsim " in body]


@pytest.mark.parametrize("block", SHELL)
def test_flowsim_commands_run_in_order(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((25, 3)), columns=["a", "b", "response"])
    frame.to_csv(tmp_path / "table.csv", index=False)
    for command in block.splitlines():
        if command.startswith("flowsim"):
            main(shlex.split(command)[1:])
    assert list(tmp_path.rglob("summary.json"))


def test_every_other_command_is_a_make_target_or_the_installation() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for command in COMMANDS:
        words = command.split()
        if words[0] == "make":
            assert set(words[1:]) <= targets
        else:
            assert words[0] == "flowsim" or command == "pip install ."


def test_links_to_files_hold() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_it_is_one_screen() -> None:
    assert len(TEXT.splitlines()) < 70
    assert sum(len(body.splitlines()) for language, body in BLOCKS if language == "python") <= 11


def test_contributing_names_make_targets_and_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for line in re.findall(r"^make ([a-z -]+)", text, flags=re.MULTILINE):
        assert set(line.split("#")[0].split()) <= targets
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
