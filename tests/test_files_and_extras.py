"""Files have the user's permissions; what an extra brings is asked for by name; the command line speaks in options."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowsim as fs
from flowsim.atomic import replacing, write_text
from flowsim.extras import MissingExtraError, need


@pytest.fixture(params=[0o022, 0o027, 0o077])
def mode(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def test_files_have_the_permissions_the_umask_asks_for(mode: int, tmp_path: Path) -> None:
    write_text(tmp_path / "text", "α\n")
    problem = fs.Regression([[1.0]], [2.0])
    fs.gradient_flow(fs.DiagonalNetwork("u*v"), problem, 1.0, alpha=0.1).save(tmp_path / "trajectory.nc")
    fs.certify(fs.DiagonalNetwork("u*v"), problem, theorems=["saddles"]).to_json(tmp_path / "rows.json")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "α\n"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("before")
    with pytest.raises(NotADirectoryError), replacing(tmp_path / "kept") as temporary:
        (temporary / "inside a file").write_text("half")
    assert (tmp_path / "kept").read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingExtraError, match=r"the page needs plotly: pip install 'flowsim\[report\]'"):
        need("plotly.offline", "the page")


LIGHT = """
import sys
for name in ("plotly", "pyarrow", "loky", "pydantic", "distributed", "dask", "sklearn"):
    sys.modules[name] = None  # as if it were not installed
import flowsim as fs
from flowsim.cli import main
for arguments in (["report", "."], ["sweep", "x.toml"], ["run", "t.parquet", "--target", "y"]):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 2, arguments
try:
    fs.sweep(lambda x: x + 1.0, {"x": [1.0, 2.0]}, workers=2)
except ImportError as error:
    print(error, file=sys.stderr)
"""


def test_without_the_extras_every_message_names_the_one_that_is_needed(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True, cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert "flowsim[sweep]" in lines[1] and "flowsim[parquet]" in lines[2] and "flowsim[sweep]" in lines[3]


def test_compiling_is_said_once(tmp_path: Path) -> None:
    code = (
        "import numba\nfrom flowsim.compiling import compiling_note\n"
        "with compiling_note(True):\n    for k in range(2):\n        numba.njit(lambda x: x + 1)(k)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("compiling, once") == 1 and done.stdout == ""


def test_it_is_said_that_another_process_compiles(tmp_path: Path) -> None:
    code = (
        "from flowsim.compiling import compiling_note, expect\n"
        "with compiling_note(True): pass\nexpect()\nwith compiling_note(False): pass\n"
        "for k in range(2):\n    with compiling_note(True): pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("compiling, once") == 1 and done.stdout == ""


def test_the_import_is_quick() -> None:
    code = (
        "import sys, time\nbefore = time.process_time()\nimport flowsim\ntaken = time.process_time() - before\n"
        "assert taken < 0.1, taken\nassert not {'numpy', 'scipy', 'numba', 'sympy', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
