"""A digest changes with everything a result rests on, and with nothing else."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
import types
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import flowsim as fs
from flowsim.sweep.identity import digest, identify


def compiled(source: str, name: str = "f", **variables: Any) -> Any:
    """A function from text, as if its script had been run."""
    module = types.ModuleType("__main__")
    module.__dict__.update(variables)
    exec(compile(source, "script.py", "exec"), module.__dict__)
    return module.__dict__[name]


BASE = """
SCALE = 2.0
def helper(x):
    return x * SCALE
def f(x, shift=1.0):
    return [helper(y) + shift for y in [x]][0]
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE = 2.0", "SCALE = 2.5"),
        ("x * SCALE", "x / SCALE"),
        ("shift=1.0", "shift=1.5"),
        ("+ shift", "- shift"),
        ("for y in [x]", "for y in [x, x]"),
    ],
    ids=["global", "helper", "default", "body", "nested"],
)
def test_a_change_of_what_the_function_reaches_changes_its_code(old: str, new: str) -> None:
    assert old in BASE
    assert identify(compiled(BASE)).code != identify(compiled(BASE.replace(old, new))).code


@pytest.mark.parametrize(
    ("old", "new"),
    [("def f", "# a comment\ndef f"), ("SCALE = 2.0", "SCALE = 2.0\nUNUSED = 3"), ("\n", "\n\n")],
)
def test_comments_and_unused_names_do_not_change_its_code(old: str, new: str) -> None:
    assert identify(compiled(BASE)).code == identify(compiled(BASE.replace(old, new))).code


def test_enclosed_values_and_bound_arguments_count() -> None:
    def make(factor: Any) -> Any:
        return lambda x: x * factor

    assert identify(make(1)).code == identify(make(1)).code
    assert identify(make(1)).code != identify(make(2)).code
    assert identify(make(np.ones(2))).code != identify(make(np.zeros(2))).code
    assert identify(make({"a": 1})).code != identify(make({"a": 2})).code
    assert identify(functools.partial(pow, exp=2)).code != identify(functools.partial(pow, exp=3)).code


def test_what_the_function_writes_to_does_not_count() -> None:
    calls: list[int] = []
    counter = {"n": 0}

    def f(x: int) -> int:
        calls.append(x)
        counter["n"] += 1
        return x

    before = identify(f).code
    f(3)
    assert identify(f).code == before


def test_functions_that_call_each_other_have_an_identity() -> None:
    source = "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)"
    assert identify(compiled(source, "even")).code == identify(compiled(source, "even")).code
    assert identify(compiled(source, "even")).code != identify(compiled(source, "odd")).code


def test_methods_and_callable_objects_count_by_class_and_state() -> None:
    class Scaled:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def __call__(self, x: float) -> float:
            return self.factor * x

        def method(self, x: float) -> float:
            return self.factor + x

    assert identify(Scaled(1.0)).code == identify(Scaled(1.0)).code
    codes = {identify(function).code for one in (1.0, 2.0) for function in (Scaled(one), Scaled(one).method)}
    assert len(codes) == 4


def test_installed_packages_count_by_version_and_are_recorded() -> None:
    import scipy

    identity = identify(compiled("import numpy as np\ndef f(x):\n    import scipy\n    return np.sin(x)"))
    assert identity.packages == {"numpy": np.__version__, "scipy": scipy.__version__}


def test_a_package_being_written_counts_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "under_construction"
    package.mkdir()
    (package / "__init__.py").write_text("from under_construction.parts import f\n")
    (package / "parts.py").write_text("def f(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("under_construction").f
    before = identify(function)
    assert before.name == "under_construction.parts:f"
    assert identify(function) == before
    (package / "elsewhere.py").write_text("STEP = 1\n")
    assert identify(function).code != before.code
    del sys.modules["under_construction"], sys.modules["under_construction.parts"]


def test_solvers_are_part_of_flowsim_wherever_their_folder_is() -> None:
    from flowsim.sweep.identity import _content

    folder = Path(fs.__file__).parent
    alone = _content("something-else", [folder])
    assert _content("flowsim", [folder]) != alone


def test_digests_agree_between_processes() -> None:
    value = {"b": np.arange(3.0), "a": (1, "x", None, 2.5, {3, 4, 5}), "c": fs.DiagonalNetwork(depth=3)}
    code = (
        "import numpy as np, flowsim as fs; from flowsim.sweep.identity import digest, identify;"
        "v = {'a': (1, 'x', None, 2.5, {5, 4, 3}), 'b': np.arange(3.0), 'c': fs.DiagonalNetwork(depth=3)};"
        "print(digest(v), identify(fs.DiagonalNetwork).code)"
    )
    for seed in ("1", "2"):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                             env={"PYTHONHASHSEED": seed})  # fmt: skip
        assert out.stdout.split() == [digest(value), identify(fs.DiagonalNetwork).code]


@dataclass
class Setting:
    rate: float
    name: str = "s"


DIFFERENT = [
    None, False, True, 0, 1, 0.0, -0.0, 1.0, float("nan"), 1j, "", "1", b"1", (), (1,), (1, 1), [1], [[1]], {1}, {1: 1},
    {1: 2}, np.float32(1), np.array(1.0), np.array([1.0]), np.array([[1.0]]), np.array([1]), np.array([1], dtype="<i2"),
    np.array(["1"]), np.array([1, None], dtype=object), Decimal("1"), Fraction(1), Setting(1.0), Setting(2.0),
    Setting(1.0, "t"), fs.Regression([[1.0]], [1.0]), fs.Regression([[2.0]], [1.0]), fs.DiagonalNetwork("u*v"),
    fs.DiagonalNetwork("u*w"), fs.GaussianNoise(0.1), fs.UniformNoise(0.1), Path("a"), pandas.Series([1.0]),
    pandas.Series([2.0]), np.random.SeedSequence(1), int, float, np.sin, np.cos, len, Setting, OrderedDict({1: 1}),
    ..., range(2), slice(1), 2**70,
]  # fmt: skip


def test_different_values_have_different_digests() -> None:
    digests = [digest(value) for value in DIFFERENT]
    assert len(set(digests)) == len(DIFFERENT)
    assert digests == [digest(value) for value in DIFFERENT]


def test_equal_values_have_equal_digests_however_they_are_made() -> None:
    shared = [1, 2]
    assert digest([shared, shared]) == digest([[1, 2], [1, 2]])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(np.arange(6).reshape(2, 3).T) == digest(np.arange(6).reshape(2, 3).T.copy())
    problem = fs.Regression([[1.0, 2.0]], [1.0])
    before = digest(problem)
    assert problem.feature_variances.shape == (2,)  # remembered on the object from now on
    assert digest(problem) == before


def test_circles_have_a_digest() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    other: list[Any] = [2]
    other.append(other)
    assert digest(circle) != digest(other)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)


@given(nested, nested)
def test_digests_are_equal_exactly_when_values_print_alike(a: Any, b: Any) -> None:
    # repr tells 1 from 1.0 and 0.0 from -0.0, which == does not, but it keeps the order of a dict.
    def canonical(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ",".join(sorted(f"{key!r}:{canonical(entry)}" for key, entry in value.items())) + "}"
        if isinstance(value, list | tuple):
            return f"{type(value).__name__}({','.join(canonical(entry) for entry in value)})"
        return repr(value)

    assert (digest(a) == digest(b)) == (canonical(a) == canonical(b))


def test_changed_code_never_reuses_old_points(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = tmp_path / "store"
    grid = {"x": [1.0, 2.0]}
    first = fs.sweep(compiled(BASE), grid, store=store)
    changed = compiled(BASE.replace("SCALE = 2.0", "SCALE = 3.0"))
    second = fs.sweep(changed, grid, store=store)
    assert_array_equal(first["value"], [3.0, 5.0])
    assert_array_equal(second["value"], [4.0, 7.0])
    assert "also holds 2 points of __main__:f with other code, versions or fixed arguments" in caplog.text
    again = fs.sweep(compiled(BASE), grid, store=store)  # the old ones are still there
    assert_array_equal(again["value"], first["value"])


def test_changed_parameters_never_reuse_old_points(tmp_path: Path) -> None:
    calls: list[float] = []

    def f(x: float, y: float = 0.0) -> float:
        calls.append(x)
        return x + y

    store = tmp_path / "store"
    fs.sweep(f, {"x": [1.0, 2.0]}, store=store)
    wider = fs.sweep(f, {"x": [1.0, 2.0, 3.0]}, store=store)
    assert calls == [1.0, 2.0, 3.0]
    shifted = fs.sweep(f, {"x": [1.0, 2.0], "y": 1.0}, store=store)
    assert_array_equal(wider["value"], [1.0, 2.0, 3.0])
    assert_array_equal(shifted["value"], [2.0, 3.0])
