"""Compiled code on disk: never stale, never in the package, damaged files mended, old ones removed."""

import gc
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numba import float64, njit
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import TypingError
from numba.core.runtime import _nrt_python, rtsys

import flowsim
from flowsim.solvers import precompile
from flowsim.solvers.cache_folder import _KEPT, cache_folder, digest_of_sources, folder_of_digest
from flowsim.solvers.compilation import TABLE, VECTOR, address_of, bare, compiled, part
from flowsim.solvers.compilation.claims import Claim
from flowsim.solvers.compilation.garbage import PAUSE
from flowsim.solvers.simd import caller

ROOT = Path(flowsim.__file__).resolve().parents[1]

READ = """
import numpy as np
from flowsim.solvers.separable import reading
terms = tuple(np.full((1, 3), value) for value in (0.0, 1.0, 1.0, 0.0))
out = np.empty((1, 3))
reading.sums(terms, np.ones((1, 3)), np.zeros(1), reading.terms_of(terms), out)
print(abs(out[0, 0] - np.e) < 5e-16, sum(reading.sums.stats.cache_hits.values()))
"""


def run(root: Path, cache: Path) -> list[str]:
    environment = os.environ | {"FLOWSIM_CACHE_DIR": str(cache), "PYTHONPATH": str(root)}
    out = subprocess.run(
        [sys.executable, "-c", READ], cwd=cache.parent, env=environment, capture_output=True, text=True, check=True
    )
    return out.stdout.split()


def test_an_edited_callee_and_a_damaged_file_are_compiled_anew(tmp_path):
    root, cache = tmp_path / "checkout", tmp_path / "cache"
    shutil.copytree(ROOT / "flowsim", root / "flowsim", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "solvers", root / "solvers", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(root, cache) == ["True", "0"]
    assert not list(root.rglob("*.nb[ic]"))
    for file in cache.rglob("*.nb[ic]"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert run(root, cache) == ["True", "0"]
    # The same sources elsewhere, as after another installation; the damaged files were mended.
    (root / "flowsim").rename(tmp_path / "flowsim")
    (root / "solvers").rename(tmp_path / "solvers")
    assert run(tmp_path, cache) == ["True", "1"]
    called = tmp_path / "solvers" / "simd" / "exp.py"
    text = called.read_text(encoding="utf-8")
    assert text.count("return constant(1.0) + (r + s * tail)") == 1
    called.write_text(text.replace("constant(1.0) + (r + s", "constant(2.0) + (r + s"))
    is_e, hits = run(tmp_path, cache)
    assert is_e == "False"
    assert hits == "0"


def test_only_the_last_digests_are_kept(tmp_path):
    for number in range(_KEPT + 3):
        folder = tmp_path / "compiled" / f"old{number:02d}"
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    recent = tmp_path / "compiled" / "recent"  # in use, with many newer ones
    for number in range(_KEPT):
        (tmp_path / "compiled" / f"new{number}").mkdir()
    recent.mkdir()
    os.utime(recent, (time.time() - 3600.0,) * 2)
    own = folder_of_digest(tmp_path)
    assert recent.exists()
    assert own.name == digest_of_sources()
    kept = sorted(path.name for path in own.parent.iterdir() if path != own)
    assert kept == sorted([f"new{number}" for number in range(_KEPT)] + ["recent"])


def test_a_part_has_no_entry_for_python_and_is_called_from_compiled_code():
    @bare()
    def double(x):
        return 2.0 * x

    @njit
    def twice(x):
        return double(double(x))

    assert twice(1.5) == 6.0
    if "pipeline_class" in bare.keywords:
        with pytest.raises((ValueError, TypeError)):
            double(1.0)


def test_variables_of_parts_keep_their_values_in_branches_and_loops_and_arrays_are_freed():
    @bare()
    def collatz(n, most):
        steps, total = 0, 0
        while n != 1 and steps < most:
            if n % 2 == 0:
                half, total = n // 2, total + 1
                n = half
                continue
            n, total = 3 * n + 1, total + 0.5
            steps += 1
        last = n if n == 1 else -1
        return last, total

    @part()
    def largest(n):
        best = np.zeros(1)
        for k in range(n):
            trial = np.full(k + 1, float(k))
            if trial.sum() > best[0]:
                best = trial[:1] * (k + 1)
        return best[0]

    @njit
    def both(n):
        return collatz(n, 100), largest(n)

    expected = (1, 4 + 0.5), 20.0
    assert both(5) == expected
    _nrt_python.memsys_enable_stats()
    before = rtsys.get_allocation_stats()
    assert both(5) == expected
    after = rtsys.get_allocation_stats()
    _nrt_python.memsys_disable_stats()
    assert after.alloc - before.alloc == after.free - before.free > 0


def test_a_part_that_needs_more_passes_takes_them():
    @part()
    def extended(table):
        value = np.zeros((2, *table.shape))
        value = value.sum() + table[0, 0]
        return value

    @njit
    def whole(table):
        return extended(table)

    assert whole(np.full((2, 3), 4.0)) == 4.0


def test_a_signature_compiles_at_once_and_options_are_those_of_numba():
    @compiled("float64(float64)", error_model="python")
    def inverse(x):
        return 1.0 / x

    assert inverse(4.0) == 0.25
    with pytest.raises(ZeroDivisionError):
        inverse(0.0)


def test_a_function_is_called_by_its_address_with_arguments_of_its_types_alone():
    @njit
    def add(row, table):
        for i in range(row.size):
            table[1, i] += row[i]

    call = caller(VECTOR, TABLE)

    @njit
    def twice(address, row, table):
        call(address, (row, table))
        call(address, (row, table))

    address, table = address_of(add, VECTOR, TABLE), np.zeros((2, 3))
    twice(address, np.arange(3.0), table)
    np.testing.assert_array_equal(table, [[0.0, 0.0, 0.0], [0.0, 2.0, 4.0]])
    for wrong in (np.zeros((3, 2)).T, np.zeros((2, 3), dtype=int), np.zeros(3)):
        with pytest.raises(TypingError):
            twice(address, np.arange(3.0), wrong)


def test_a_function_is_compiled_by_one_process_at_a_time(tmp_path):
    first, second = Claim(tmp_path / "folder" / "lock"), Claim(tmp_path / "folder" / "lock")
    assert first.take() and first.take()
    before = time.monotonic()
    assert not second.take() and not second.take(0.1)
    assert time.monotonic() - before >= 0.1
    first.release()
    assert second.take()


def test_what_is_compiled_ahead_is_found_by_another_process(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWSIM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(precompile, "_cores", lambda: 2)
    group = ["flowsim.solvers.multistep.reading:between"]
    assert precompile.compile_ahead(group)
    end = time.monotonic() + 120.0
    while not list(tmp_path.rglob("between-*.nbi")) and time.monotonic() < end:
        time.sleep(0.05)
    assert not precompile.compile_ahead(group)


def test_what_another_process_compiles_is_not_begun_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWSIM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(precompile, "_start", lambda groups: pytest.fail(f"a process was started for {groups}"))
    module, name = "flowsim.solvers.multistep.reading", "between"
    claim = Claim(folder_of_digest(cache_folder()) / module / f"{name}-1.py311.lock")
    assert claim.take()
    assert not precompile.compile_ahead([f"reading:{name}"], room="flowsim.solvers.multistep")


def test_what_compiles_ahead_imports_no_linear_algebra(tmp_path):
    """Numba asks for BLAS where SciPy has it: a fifth of what the process imports before it can compile."""
    groups = [["flowsim.solvers.multistep.reading:between"]]
    code = precompile._CODE.format(root=precompile._ROOT, groups=groups, linear_algebra=False)
    code = code.replace("os._exit(0)", "print(any(name.startswith('scipy.linalg.') for name in sys.modules))")
    environment = os.environ | {"FLOWSIM_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout == "False\n" and list(tmp_path.rglob("between-*.nbi"))


def test_compiling_here_imports_no_linear_algebra_and_leaves_it_to_functions_that_need_it(tmp_path):
    code = "\n".join([
        "import sys, numpy as np, numba",
        "from flowsim.solvers.multistep.reading import between",
        "between.compile(between.declared)",
        "print('scipy.linalg' in sys.modules)",
        "print(numba.njit(lambda x: np.dot(x, x))(np.ones((2, 2)))[0, 0])",
    ])  # fmt: skip
    environment = os.environ | {"FLOWSIM_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["False", "2.0"]


def test_no_garbage_is_collected_while_a_function_compiles_and_little_right_after():
    before = gc.get_threshold()
    gc.set_threshold(2000)
    try:
        with global_compiler_lock, PAUSE:
            assert not gc.isenabled()
            kept = [[] for _ in range(5000)]
        assert gc.isenabled() and gc.get_count()[0] < 1000 and len(kept) == 5000
    finally:
        gc.set_threshold(*before)


def test_nothing_is_started_on_one_core(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWSIM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(precompile, "_cores", lambda: 1)
    monkeypatch.setattr(precompile, "_start", lambda *_: pytest.fail("a process was started"))
    assert precompile.compile_ahead(["flowsim.solvers.multistep.reading:between"])


def test_what_an_inlined_function_calls_is_not_copied_to_all_callers_too():
    @bare()
    def called(x):
        return x + 1.0

    @bare(forceinline=True)
    def copied(x):
        return called(x)

    copied.compile((float64,))
    kept, inlined = (str(f.overloads[(float64,)].library._final_module) for f in (called, copied))
    assert "alwaysinline" in inlined
    assert "alwaysinline" not in kept


def test_many_short_runs_start_one_process_for_a_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each is interpreted, and done, before the process has said on disk what it compiles."""
    started: list[object] = []
    monkeypatch.setattr(precompile, "_STARTED", set())
    monkeypatch.setattr(precompile, "_cores", lambda: 2)
    monkeypatch.setattr(precompile, "_start", lambda groups, linear_algebra: started.append(groups))
    monkeypatch.setattr(precompile, "folder_of_digest", lambda folder: tmp_path)
    asked = [precompile.compile_ahead(["flowsim.solvers.roots:anything"]) for _ in range(5)]
    assert asked == [True, False, False, False, False] and len(started) == 1
