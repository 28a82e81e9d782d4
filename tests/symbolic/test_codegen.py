"""Generated files: whole or not at all, mended when damaged, compiled once for all processes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flowsim as fs
from flowsim.solvers.cache_folder import FOLDER_VARIABLE
from flowsim.symbolic import codegen, kernels

DOUBLE = "from flowsim.solvers.compilation import compiled\n\n\n@compiled()\ndef double(x):\n    return 2.0 * x\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def forget() -> None:
    """What a new process would start from."""
    codegen._loaded.clear()


def in_new_process(code: str, folder: Path, **variables: str) -> str:
    environment = os.environ | {FOLDER_VARIABLE: str(folder)} | variables
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_generated_source_is_imported_from_the_cache_folder(folder: Path) -> None:
    module = codegen.load_generated(DOUBLE, "double")
    assert module.double(3.0) == 6.0
    assert module.SOURCE == DOUBLE
    assert Path(module.__file__).parent == folder
    assert codegen.load_generated(DOUBLE, "double") is module


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "binary"])
def test_a_damaged_file_is_written_again(folder: Path, damage: str) -> None:
    path = Path(codegen.load_generated(DOUBLE, "double").__file__)
    good = path.read_bytes()
    bad = {
        "truncated": good[: len(good) // 2],
        "flipped": good.replace(b"2.0", b"3.0"),
        "emptied": b"",
        "binary": bytes(range(256)),
    }[damage]
    path.write_bytes(bad)
    forget()
    assert codegen.load_generated(DOUBLE, "double").double(3.0) == 6.0
    assert path.read_bytes() == good


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_truncated_compiled_code_is_compiled_again(folder: Path, kind: str, keep: float) -> None:
    module = codegen.load_generated(DOUBLE, "double")
    assert module.double(3.0) == 6.0
    (compiled,) = folder.rglob(f"double*.{kind}")
    content = compiled.read_bytes()
    compiled.write_bytes(content[: int(keep * len(content))])
    forget()
    again = codegen.load_generated(DOUBLE, "double")
    assert again is not module
    assert again.double(3.0) == 6.0
    assert sum(again.double.stats.cache_hits.values()) == 0


def test_an_intact_file_is_not_generated_again(folder: Path) -> None:
    codegen.load_generated(lambda: DOUBLE, "double", key="k")
    forget()

    def never() -> str:
        raise AssertionError("generated again")

    assert codegen.load_generated(never, "double", key="k").double(1.0) == 2.0


def test_a_folder_that_cannot_be_written_gives_way_to_a_temporary_one(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file" / "cache"))
    module = codegen.load_generated(DOUBLE, "double")
    assert module.double(3.0) == 6.0
    assert tmp_path not in Path(module.__file__).parents


def test_a_failed_generation_leaves_nothing_behind(folder: Path) -> None:
    def fail() -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        codegen.load_generated(fail, "broken", key="k")
    assert list(folder.glob("*")) == []


@pytest.mark.slow
def test_processes_that_publish_at_once_agree_on_one_intact_file(tmp_path: Path) -> None:
    code = (
        "from flowsim.symbolic.codegen import load_generated\n"
        f"print(load_generated({('X = 1' + chr(10)) * 2000!r}, 'race').X)"
    )
    environment = os.environ | {FOLDER_VARIABLE: str(tmp_path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [run.communicate()[0].strip() for run in runs] == ["1"] * 4
    assert [path.name for path in tmp_path.glob("*.py")] == [path.name for path in tmp_path.glob("race_*.py")]
    assert len(list(tmp_path.glob("*.py"))) == 1
    assert not list(tmp_path.glob(".*"))


LOAD = """
import sys, time
import numpy as np, numba
import flowsim as fs
from flowsim.network import DiagonalNetwork
from flowsim.symbolic import kernels
{warm}
started = time.process_time()
net = DiagonalNetwork({formula!r}, noise=fs.GaussianNoise(0.1))
K = kernels(net)
loaded = time.process_time() - started
k = len(net.weights)
out = np.empty((k, 4))
K.field(np.ones((k, 4)), net.kinds(4), np.full(k, 0.1), np.ones(4), np.ones(4), out)
hits = sum(K.field.stats.cache_hits.values()), sum(K.field.stats.cache_misses.values())
print(loaded, time.process_time() - started, "sympy" in sys.modules, *hits)
"""


@pytest.mark.parametrize(
    "formula", ["2*u**2 - v**2", pytest.param("a*tanh(a) - (exp(b) - 1)**2", marks=pytest.mark.slow)]
)
def test_a_second_process_neither_imports_sympy_nor_compiles(tmp_path: Path, formula: str) -> None:
    code = LOAD.format(formula=formula, warm="")
    first = in_new_process(code, tmp_path).split()
    assert first[2:] == ["True", "0", "1"]
    loaded, called, *rest = in_new_process(code, tmp_path).split()
    assert rest == ["False", "1", "0"]
    assert float(loaded) < 0.3  # excludes `import numba`
    assert float(called) < 3.0  # the first call also starts Numba's dispatcher


def test_different_formulas_noises_and_moments_have_different_files() -> None:
    nets = [
        fs.DiagonalNetwork("u*v"),
        fs.DiagonalNetwork("u*v*w"),
        fs.DiagonalNetwork("u**2 - v**2"),
        fs.DiagonalNetwork("u**3 - v**2", noise=fs.GaussianNoise(0.1)),
        fs.DiagonalNetwork("u**3 - v**2", noise=fs.GaussianNoise(0.1, multiplicative=True)),
        fs.DiagonalNetwork("u**3 - v**2", noise=fs.LaplaceNoise(0.1)),
        fs.DiagonalNetwork("u**3 - v**2", noise=fs.MomentNoise(0.1, moments=(1, 0, 1, 0, 2, 0, 9))),
        fs.DiagonalNetwork("u**3 - v**2", noise=fs.MomentNoise(0.1, moments=(1, 0, 1, 0.5, 3, 0, 15))),
        fs.DiagonalNetwork(["u*v", "u**2 - v**2"]),
        fs.DiagonalNetwork(["u**2 - v**2", "u*v"]),
    ]
    assert len({kernels(net).source for net in nets}) == len(nets)


def test_the_std_is_not_baked_into_the_code() -> None:
    quiet, loud = (fs.DiagonalNetwork("u**3 - v**2", noise=fs.GaussianNoise(std)) for std in (0.1, 0.2))
    assert kernels(quiet).source == kernels(loud).source
    assert kernels(quiet).field is kernels(loud).field


def test_kernels_run_without_the_global_lock_and_on_read_only_arrays() -> None:
    K = kernels(fs.DiagonalNetwork("u*v"))
    w, out = np.ones((2, 3)), np.empty(3)
    w.setflags(write=False)
    K.value(w, np.zeros(3, dtype=np.int64), out)
    assert out.tolist() == [1.0, 1.0, 1.0]
    assert K.value.targetoptions["nogil"]
    assert not K.value.targetoptions.get("fastmath", False)


def test_a_network_stays_picklable_once_it_has_kernels() -> None:
    net = fs.DiagonalNetwork("2*u**2 - v**2", noise=fs.GaussianNoise(0.1))
    source = kernels(net).source
    again = pickle.loads(pickle.dumps(net))
    assert kernels(again).source == source
    assert kernels(again).field is kernels(net).field
