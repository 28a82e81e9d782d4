"""Compilation in advance, in separate processes, while a command is parsed, imports modules and reads data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowsim.compiling import expect
from flowsim.solvers.precompile import compile_ahead

#: Functions ``"module:name"``: the loop of a flow, and the solution of its steps; those that write its problem and
#: read its steps.
_LOOP = ("flowsim.solvers.multistep.march:march",), ("flowsim.solvers.multistep.newton:newton",)
_AROUND = (
    "flowsim.solvers.multistep.problem:write_problem",
    "flowsim.solvers.separable.reading:sums",
    "flowsim.solvers.multistep.reading:between",
)
#: command -> groups of functions, one process each
COMPILED = {
    **dict.fromkeys(("run", "limit", "certify", "explore"), (*_LOOP, _AROUND)),
    "compare": (("flowsim.descent.growth_loop:run_plain",), *_LOOP, _AROUND),
}


#: Modules of NumPy that SciPy's copy of its names loads, half of the import, and that no command uses.
_UNUSED = "ctypeslib", "f2py", "testing"


def begin(command: str, arguments: Sequence[str]) -> None:
    """Start the compilation of what `command` needs for diagonal networks, unless only its help is requested."""
    if command not in COMPILED or {"--help", "-h"}.intersection(arguments):
        return
    diagonal = not any(argument.startswith("--width") for argument in arguments)
    if diagonal and compile_ahead(*COMPILED[command]):
        expect()
    _import_linear_algebra()


def _import_linear_algebra() -> None:
    unused = [name for name in _UNUSED if name not in vars(np)]
    for name in unused:
        setattr(np, name, None)
    try:
        import scipy.linalg  # noqa: F401
    finally:
        for name in unused:
            delattr(np, name)  # from here on they are imported when asked for, as before
