"""What commands compile ahead, each in a process of its own, while they are parsed, imported and read their data."""

from __future__ import annotations

from collections.abc import Sequence

from flowsim.compiling import expect
from flowsim.solvers.ahead import compile_ahead

#: Functions ``"module:name"``, first needed first: the loop of a flow; what writes its problem and reads its steps.
_MARCH = ("flowsim.solvers.multistep.march:march",)
_AROUND = (
    "flowsim.solvers.multistep.problem:write_problem",
    "flowsim.solvers.separable.reading:sums",
    "flowsim.solvers.multistep.reading:speeds",
    "flowsim.solvers.multistep.reading:between",
    "flowsim.solvers.separable.reading:locate",
)
#: command -> groups of functions, a process for each
COMPILED = {
    **dict.fromkeys(("run", "limit", "certify", "explore"), (_MARCH, _AROUND)),
    "compare": (("flowsim.descent.growth_loop:run_growth",), _MARCH, _AROUND),
}


def begin(command: str, arguments: Sequence[str]) -> None:
    """Start what `command` needs of diagonal networks, unless it is only asked for its help."""
    diagonal = not any(argument.startswith("--width") for argument in arguments)
    if (
        command in COMPILED
        and diagonal
        and not {"--help", "-h"}.intersection(arguments)
        and compile_ahead(*COMPILED[command])
    ):
        expect()
