"""The architecture of CONTRIBUTING.md: every package on disk is packaged, and imports run downwards only."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Layers from the lowest up; a package imports only from layers below its own (and from itself).
LAYERS = [
    {
        "arrays",
        "atomic",
        "card",
        "compiling",
        "errors",
        "extras",
        "hints",
        "json_values",
        "text_table",
        "version",
    }
    | {"solvers", "sweep"},
    {"plain_numbers"},
    {"problem"},
    {"network", "datasets", "results"},
    {"symbolic"},
    {"growth", "losses", "events"},
    {"limits", "descent"},
    {"flows"},
    {"studies", "plot", "estimators"},
    {"certificates"},
    {"loading"},
    {"papers", "report", "explore"},
    {"cli"},
    {"__main__"},
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def modules() -> list[tuple[str, Path]]:
    found = [("solvers", path) for path in (ROOT / "solvers").rglob("*.py")]
    for path in (ROOT / "flowsim").rglob("*.py"):
        inside = path.relative_to(ROOT / "flowsim")
        if inside.parts[0] == "solvers":  # the link to the top-level folder
            continue
        if str(inside) != "__init__.py":
            found.append((inside.parts[0].removesuffix(".py"), path))
    return found


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported_packages(path: Path) -> set[str]:
    packages = set()
    tree = parsed(path)
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
        packages |= {name.split(".")[1] for name in names if name.startswith("flowsim.")}
    return packages


def test_a_package_imports_only_from_layers_below() -> None:
    for package, path in modules():
        for other in imported_packages(path) - {package}:
            assert LEVEL[other] < LEVEL[package], f"{path} ({package}) imports {other}"


def test_solvers_and_sweep_know_nothing_of_flowsim() -> None:
    for package, path in modules():
        if package in ("solvers", "sweep"):
            assert imported_packages(path) <= {package}


def test_every_package_on_disk_is_packaged() -> None:
    packages = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts).replace("solvers", "flowsim.solvers", 1)
        for top in ("flowsim", "solvers")
        for path in (ROOT / top).rglob("__init__.py")
        if path.relative_to(ROOT).parts[:2] != ("flowsim", "solvers")
    }
    # Folders of other files are packages to setuptools; what they hold is packaged by the ending of its name.
    assert packages == on_disk | {"flowsim.explore.assets"}


def test_the_solvers_are_importable_from_the_checkout_without_a_wheel() -> None:
    import flowsim.solvers

    assert (ROOT / "flowsim" / "solvers").is_symlink()
    assert Path(str(flowsim.solvers.__file__)).resolve() == ROOT / "solvers" / "__init__.py"


#: Lines of a file, lines of a function without its docstring, arguments of a compiled function.
LONGEST_FILE, LONGEST_FUNCTION, MOST_ARGUMENTS = 400, 80, 10

#: What is still longer, with how much it may be: lists that may only shrink.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}
MANY_ARGUMENTS: dict[str, int] = {}
#: Public classes whose name another one has.
SHARED_CLASSES = {"Event", "Formula", "History", "Loss", "Occurrence", "Problem", "State"}
#: Files whose name another one has, apart from those that do in one package what the package is for.
SHARED_FILES = {
    "certify", "checks", "compare", "coordinates", "curves", "decay", "events", "experiment", "files", "frame",
    "linear", "linear_limits", "linear_networks", "losses", "noise", "problem",
    "products", "reading", "registry", "run", "sharpness", "solution", "trajectory", "weights",
}  # fmt: skip


@cache
def trees() -> dict[str, tuple[Path, ast.Module]]:
    """Every module by name; a package by its own."""
    found = {}
    for _, path in [*modules(), ("", ROOT / "flowsim" / "__init__.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(("flowsim", *parts) if parts[0] == "solvers" else parts).removesuffix(".__init__")
        found[name] = path, parsed(path)
    return found


def imports() -> dict[str, set[str]]:
    """What each module imports, anywhere in it and for type checkers too; but for the front door, which imports all."""
    graph = {}
    for name, (_, tree) in trees().items():
        graph[name] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {each for each in inner if each in trees()} or {str(node.module)}
            elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
                graph[name] |= {each.value for each in node.args if isinstance(each, ast.Constant)}
        graph[name] = (graph[name] & set(trees())) - {name, "flowsim"}
    return graph


def test_no_module_imports_one_that_imports_it() -> None:
    graph = imports()
    del graph["flowsim"]
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_only_commands_and_papers_import_from_the_front_door() -> None:
    for name, (path, tree) in trees().items():
        if name.split(".")[1:2] not in (["cli"], ["papers"], []):
            for node in ast.walk(tree):
                assert not (isinstance(node, ast.ImportFrom) and node.module == "flowsim"), path


def shrinking(measured: dict[str, int], limit: int, allowed: dict[str, int]) -> None:
    """Nothing beyond the limit but what is listed, and no more than listed."""
    assert {name: size for name, size in measured.items() if size > allowed.get(name, limit)} == {}


def test_files_are_read_in_one_sitting() -> None:
    shrinking(
        {name: len(path.read_text(encoding="utf-8").splitlines()) for name, (path, _) in trees().items()},
        LONGEST_FILE,
        LONG_FILES,
    )


def test_a_constant_is_assigned_once() -> None:
    for module, (_, tree) in trees().items():
        bound = Counter(
            name.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            for name in ast.walk(target)
            if isinstance(name, ast.Name) and name.id.strip("_").isupper()
        )
        assert [name for name, times in bound.items() if times > 1] == [], module


@cache
def functions() -> dict[str, ast.FunctionDef]:
    return {
        f"{module}.{node.name}": node
        for module, (_, tree) in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }


def test_functions_fit_on_two_screens() -> None:
    lengths = {}
    for name, node in functions().items():
        documented = ast.get_docstring(node) is not None
        first = node.body[0]
        text = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
        assert node.end_lineno
        lengths[name] = node.end_lineno - node.lineno + 1 - text
    shrinking(lengths, LONGEST_FUNCTION, LONG_FUNCTIONS)


def test_compiled_functions_take_few_arguments() -> None:
    counts = {
        name: len(node.args.args) + len(node.args.kwonlyargs)
        for name, node in functions().items()
        if any(word in ast.unparse(each) for each in node.decorator_list for word in ("jit", "compiled", "bare"))
    }
    shrinking(counts, MOST_ARGUMENTS, MANY_ARGUMENTS)


def test_one_name_has_one_meaning() -> None:
    classes = Counter(
        node.name
        for _, tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    files = Counter(path.stem for path, _ in trees().values() if path.stem not in ("__init__", "__main__"))
    assert {name for name, count in classes.items() if count > 1} <= SHARED_CLASSES
    assert {name for name, count in files.items() if count > 1} <= SHARED_FILES
