"""Compilation in advance, in separate processes, while a command is parsed, imports modules and reads data."""

from __future__ import annotations

from collections.abc import Sequence

from flowsim.compiling import expect
from flowsim.solvers.precompile import compile_ahead, load

#: Functions ``"module:name"``: the loop of a flow, and the solution of its steps; those that write its problem and
#: read its steps.
_LOOP = ("flowsim.solvers.multistep.march:march",), ("flowsim.solvers.multistep.newton:newton",)
_AROUND = (
    "flowsim.solvers.multistep.problem:write_problem",
    "flowsim.solvers.separable.reading:sums",
    "flowsim.solvers.multistep.reading:speeds",
    "flowsim.solvers.multistep.reading:between",
    "flowsim.solvers.separable.reading:locate",
)
#: command -> groups of functions, one process each
COMPILED = {
    **dict.fromkeys(("run", "limit", "certify", "explore"), (*_LOOP, _AROUND)),
    "compare": (("flowsim.descent.growth_loop:run_plain",), *_LOOP, _AROUND),
}


_BEGUN: list[str] = []


def load_begun() -> None:
    """Load what reads steps and writes files while another process still compiles the loop of the flow."""
    load(_BEGUN)
    if _BEGUN:
        import scipy.io  # noqa: F401  # of NetCDF files


def begin(command: str, arguments: Sequence[str]) -> None:
    """Start the compilation of what `command` needs for diagonal networks, unless only its help is requested."""
    diagonal = not any(argument.startswith("--width") for argument in arguments)
    if (
        command in COMPILED
        and diagonal
        and not {"--help", "-h"}.intersection(arguments)
        and compile_ahead(*COMPILED[command])
    ):
        expect()
        _BEGUN.extend(_AROUND)
