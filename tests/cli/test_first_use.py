"""What a first `flowsim run` waits for: the functions that it compiles, each for one kind of arguments."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

#: Every one adds a tenth of a second or more to a first run; the loop over steps makes up half of it.
COMPILED = {
    "write_problem", "march",  # flow
    "between", "sums",  # reading it
}  # fmt: skip
RUN = """
import json, sys
from flowsim.cli import main
main(["run", "--no-progress", "--out", sys.argv[1]])
from numba.core.dispatcher import Dispatcher
found = {}
for module in [value for name, value in sys.modules.items() if name.startswith("flowsim.")]:
    for function in list(vars(module).values()):
        if isinstance(function, Dispatcher) and not function.targetoptions.get("no_cpython_wrapper"):
            found[function.py_func.__name__] = len(function.overloads)
print(json.dumps({name: count for name, count in found.items() if count}))
print("numba.np.arraymath" in sys.modules)
heavy = {"dask", "h5py", "numpy.f2py", "pandas", "scipy.io", "scipy.optimize", "scipy.sparse", "sympy", "xarray"}
heavy.add("flowsim.solvers.frames")
print(json.dumps(sorted(heavy.intersection(sys.modules))))
"""
#: Processor time of a run that compiles nothing, in imports of the libraries that it needs: it takes three.
IMPORTS, LATER = "import numba, matplotlib.pyplot, scipy.linalg", 5.0


def processor_seconds(command: list[str], folder: Path) -> tuple[float, list[str]]:
    """Of a process, and the lines that it prints."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout.splitlines()


def test_a_first_run_compiles_four_functions_for_one_kind_of_arguments_each_and_a_later_one_is_short(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", RUN, str(tmp_path / "out")]
    for later in (False, True):
        seconds, (*_, compiled, prepared, imported) = processor_seconds(command, tmp_path)
        assert json.loads(compiled) == dict.fromkeys(COMPILED, 1)
        assert not later or prepared == "False", "what Numba needs to compile takes half a second to import"
        assert json.loads(imported) == [], "each takes a tenth of a second or more to import"
        assert not later or seconds < LATER * processor_seconds([sys.executable, "-c", IMPORTS], tmp_path)[0]


def test_a_command_ends_without_a_search_for_garbage(tmp_path: Path) -> None:
    shown = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0)); "
    command = [sys.executable, "-c", shown + "from flowsim.cli import main; main(['--version'])"]
    assert processor_seconds(command, tmp_path)[1][-1] == "True"
