"""The house as DESIGN draws it: what exists is packaged, and imports run downwards only."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Floors from the ground up; a room imports only from floors below its own (and from itself).
FLOORS = [
    {"solvers", "sweep", "errors", "atomic", "card", "compiling", "extras", "hints"},
    {"problem"},
    {"network", "datasets", "results"},
    {"symbolic"},
    {"growth", "losses", "events"},
    {"limits", "descent"},
    {"flows"},
    {"studies", "plot", "loading", "estimators"},
    {"certificates"},
    {"papers", "report"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> list[tuple[str, Path]]:
    found = [("solvers", path) for path in (ROOT / "solvers").rglob("*.py")]
    for path in (ROOT / "flowsim").rglob("*.py"):
        inside = path.relative_to(ROOT / "flowsim")
        if inside.parts[0] == "solvers":  # the link to the top-level folder
            continue
        if str(inside) != "__init__.py":
            found.append((inside.parts[0].removesuffix(".py"), path))
    return found


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    type_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in type_only:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "flowsim":
                names = [f"flowsim.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("flowsim.")}
    return rooms - {"__version__"}


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda value: str(value).removeprefix(str(ROOT)))
def test_a_room_imports_only_from_floors_below(room: str, path: Path) -> None:
    for other in imported_rooms(path) - {room}:
        assert LEVEL[other] < LEVEL[room], f"{path} ({room}) imports {other}"


def test_solvers_and_sweep_know_nothing_of_flowsim() -> None:
    for room, path in modules():
        if room in ("solvers", "sweep"):
            assert imported_rooms(path) <= {room}


def test_every_package_on_disk_is_packaged() -> None:
    packages = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts).replace("solvers", "flowsim.solvers", 1)
        for top in ("flowsim", "solvers")
        for path in (ROOT / top).rglob("__init__.py")
        if path.relative_to(ROOT).parts[:2] != ("flowsim", "solvers")
    }
    assert packages == on_disk
