"""``python -m benchmarks``: run cases, write ``benchmarks/results/*.json``, a Markdown table and figures."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import draw
from benchmarks.harness import Report
from benchmarks.targets import COLUMNS, targets

#: case -> one line; each is a module with ``run(quick) -> Report``
CASES = {
    "integrators": "one flow, n=20, d=50: flowsim against the stiff integrators of Python at equal error",
    "losses": "logistic, n=20, d=50, against the same integrators; separable data down to a loss of 1e-1000000",
    "ensembles": "256 scales of the start at once: flowsim against CyRK in a parallel Numba loop and diffrax vmap",
    "limit": "the limit process beside LARS, and on a million sparse features",
    "linear": "two-layer linear networks: a million hidden units, drift and time against SciPy at equal error",
    "descent": "gradient descent beside the two BLAS products of a step; 64 runs beside one",
    "ill_conditioned": "spectra and polynomial features beside SciPy's LSODA and Radau in the row space",
    "formulas": "general formulas, depth 3 and 4, noise at depth 3: beside SciPy in the weights",
    "features": "7,000 and a million features: flow, jump times, figure, limit and `flowsim run`",
    "horizons": "what a longer horizon costs, from 1e3 to 1e12",
    "scaling": "time, steps and passes over X per jump against n, d, density, depth and alpha",
    "memory": "what a flow adds to a process that holds X",
    "first_use": "each entry point in a process of its own with empty caches: seconds",
    "startup": "import flowsim, flowsim --help, deriving and compiling a network",
}


def table(folder: Path) -> str:
    """Every stored result in one Markdown page, with its figures."""
    parts: list[str] = []
    machines: dict[str, None] = {}
    for case in CASES:
        path = folder / f"{case}.json"
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            machines[_machine(content.pop("environment"))] = None
            parts.append(Report(**content).markdown())
    kept = Report("targets", "Targets", list(COLUMNS), [each.row() for each in targets(folder)])
    parts = ["# Benchmarks\n", *machines, "Each result holds its raw repeats.\n", kept.markdown(), *parts]
    parts += [f"![{path.stem}]({path.name})\n" for path in draw(folder)]
    return "\n".join(parts)


def _machine(environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    machine = f"{environment['processor']}, {environment['cores']} cores"
    return f"Processor: {machine}; Python {environment['python']}; {versions}.\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one of {', '.join(CASES)}; all if left out")
    parser.add_argument("--quick", action="store_true", help="smaller problems, fewer repeats: under two minutes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder for the results")
    options = parser.parse_args(arguments)
    unknown = [case for case in options.cases if case not in CASES]
    if unknown:
        parser.error(f"unknown case {unknown[0]!r}; there are {', '.join(CASES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.cases or CASES:
        began = time.perf_counter()
        report = importlib.import_module(f"benchmarks.{name}").run(options.quick)
        report.write(options.out)
        print(report.markdown(), flush=True)
        print(f"({name}: {time.perf_counter() - began:.0f} s)\n", flush=True)
    (options.out / "README.md").write_text(table(options.out), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
