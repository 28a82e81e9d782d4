"""Hostile and broken input ends in the documented error: no crash, no hang, nothing executed, nothing misread."""

from __future__ import annotations

import ast
import json
import operator
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowsim as fs
from flowsim.network import Formula

FUZZ = Path(__file__).with_name("fuzz.py")
FILES = ["trajectory", "store", "payload", "experiment", "table"]
#: Cases of one fuzzing process.
BATCH = 5000


def fuzz(target: str, count: int, folder: Path, first: int = 0) -> dict[str, int]:
    """Run cases in a process of their own; a crash, a hang or running code shows in how it ends."""
    done = subprocess.run(
        [sys.executable, str(FUZZ), target, str(first), str(count), str(folder)],
        capture_output=True, cwd=folder, check=False,
    )  # fmt: skip
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, (
        f"case {lines[-1:]} ended the process: {done.returncode}\n{done.stderr.decode()[-2000:]}"
    )
    found: dict[str, int] = json.loads(lines[-1])
    assert set(found) <= {"read", "ValueError"}, found
    assert sum(found.values()) == count
    assert not (folder / "hacked").exists()
    return found


@pytest.mark.slow
def test_two_thousand_hostile_formulas_are_read_or_refused(tmp_path: Path) -> None:
    found = fuzz("formula", 2000, tmp_path)
    assert min(found["read"], found["ValueError"]) > 200  # both sides of the fence are tried


@pytest.mark.sampled(2)
@pytest.mark.parametrize("target", FILES)
def test_mutated_files_are_read_right_or_refused(target: str, tmp_path: Path) -> None:
    fuzz(target, 60, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_hostile_formulas(tmp_path: Path) -> None:
    for first in range(0, 100_000, 10 * BATCH):
        fuzz("formula", 10 * BATCH, tmp_path, first)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", FILES)
def test_ten_thousand_mutated_files(target: str, tmp_path: Path) -> None:
    for first in range(0, 10_000, BATCH):
        fuzz(target, BATCH, tmp_path, first)


@pytest.mark.slow
def test_the_fuzzer_sees_a_hang_a_crash_and_running_code(tmp_path: Path) -> None:
    """A net with holes would catch nothing either."""
    for body, code in (
        ("while True: pass", -26),  # SIGVTALRM
        ("os.kill(os.getpid(), 11)", -11),
        ("eval('1')", 3),
        ("os.system('true')", 3),
        ("__import__('pickle').loads(b'cos\\ngetcwd\\n.')", 3),
    ):
        source = FUZZ.read_text().replace("        text = formula_text(rng)\n", f"        {body}; text = 'u'\n")
        assert body in source
        (tmp_path / "holed.py").write_text(source)
        done = subprocess.run(
            [sys.executable, str(tmp_path / "holed.py"), "formula", "0", "1"],
            capture_output=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == code, (body, done.stderr.decode())


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_formula_or_an_error_that_names_it(text: str) -> None:
    try:
        weights: object = Formula.parse(text).weights
    except ValueError as error:
        weights = str(error).startswith("`formula`")
    assert weights


numbers = st.integers(0, 9).map(str) | st.sampled_from(["0.5", "1.25", ".5", "2."])
expressions = st.recursive(
    numbers | st.sampled_from(["u", "v"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", " * ", "/"]), inner).map("".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"-{text}"),
        inner.map(lambda text: f"+ {text}"),
        st.tuples(inner, st.integers(-3, 3)).map(lambda pair: f"({pair[0]})**{pair[1]}"),
        st.tuples(st.sampled_from(["u", "v", "2", "(u+1)"]), st.integers(0, 2), st.integers(0, 2)).map(
            lambda parts: f"{parts[0]}**{parts[1]}**{parts[2]}"
        ),
    ),
    max_leaves=8,
)


@given(expressions, st.fractions(-3, 3, max_denominator=7), st.fractions(-3, 3, max_denominator=7))
@settings(max_examples=150, deadline=None)
def test_the_reader_means_what_python_means(text: str, u: Fraction, v: Fraction) -> None:
    # The grammar is a part of Python's: signs, powers and brackets must bind as there, in exact arithmetic.
    try:
        expected = python_value(ast.parse(text.lstrip(), mode="eval").body, {"u": u, "v": v})
    except ZeroDivisionError:
        return
    import sympy

    symbols = {
        sympy.Symbol(name, real=True): sympy.Rational(value.numerator, value.denominator)
        for name, value in (("u", u), ("v", v))
    }
    value = Formula.parse(f"u*v - u*v + {text}").expression.subs(symbols, simultaneous=True)
    assert Fraction(int(value.p), int(value.q)) == expected


def python_value(node: ast.expr, names: dict[str, Fraction]) -> Fraction:
    """What Python would compute, in fractions."""
    if isinstance(node, ast.BinOp):
        left, right = python_value(node.left, names), python_value(node.right, names)
        apply: Any = {
            ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
            ast.Pow: operator.pow,
        }[type(node.op)]  # fmt: skip
        return Fraction(apply(left, right))
    if isinstance(node, ast.UnaryOp):
        value = python_value(node.operand, names)
        return -value if isinstance(node.op, ast.USub) else value
    return names[node.id] if isinstance(node, ast.Name) else Fraction(str(ast.literal_eval(node)))


def test_a_trajectory_file_changed_in_one_bit_is_refused(tmp_path: Path) -> None:
    problem = fs.Regression([[1.0, 0.0], [0.0, 2.0]], [1.0, 1.0])
    path = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 1.0, alpha=0.1).save(tmp_path / "run.nc")
    content = path.read_bytes()
    for place in range(0, len(content), 499):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot be read as one \(its checksum does not match|it has no checksum"):
            fs.load(path)
    path.write_bytes(content)
    assert fs.load(path).success


def test_other_programs_read_a_trajectory_file_too(tmp_path: Path) -> None:
    import xarray

    problem = fs.Regression([[1.0]], [1.0])
    run = fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 1.0, alpha=0.1)
    with xarray.open_dataset(run.save(tmp_path / "run.nc"), engine="scipy") as opened:
        assert (opened["beta"].values == run.beta).all()
