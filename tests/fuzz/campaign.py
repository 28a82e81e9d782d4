"""Counts what is wrong, refused, slow or underestimated among random cases: ``python -m tests.fuzz.campaign 0 20000``.

With a log (a third argument) a campaign that was interrupted goes on where it stopped. Set ``FLOWSIM_INTERPRET=0``: the
times are those of compiled code.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import flowsim as fs
from tests.fuzz import oracles
from tests.fuzz.cases import Case, draw

DIGITS = 80
#: Errors beyond so many tolerances are wrong; estimates may be too small by so much.
WRONG, TOO_SMALL = 100.0, 2.0
#: What a run errs by rounding alone, relative to the largest coefficient, and to products of weights at the start.
ROUNDING, TERMS = 1e-11, 4e-15
#: Coefficients below this may be read as 0: descent squares mantissas of up to 2^64.
SMALLEST = 1e-284
#: Times the median of its family and method after which a run is slow, all of them compiled, in processor time; a
#: median is one of so many runs. Stiff runs of a method that was asked for by name are as slow as the method: they may
#: take so many times what SciPy takes in the plain weights (estimates of errors take two more runs, of more steps).
SLOW, MANY, PLAIN = 50.0, 10, 20.0
#: Runs of so many seconds are timed once more, as the first one may have compiled or derived something.
ONCE_MORE = 0.01
#: Refusals that are right, each with what must be so.
JUSTIFIED: dict[str, Callable[[Case], bool]] = {
    # SciPy's methods do not conserve the imbalance of a linear network: asked for by name, they may lose it.
    r"imbalance U\^T U - V\^T V is off .* use method='native'": lambda case: case.facts["method"] != "auto",
    # Nor do they follow products in log coordinates, or jumps shorter than the spacing of times: 'auto' does.
    r"log coordinates, .* `method` is|the step fell to the spacing of floats|beyond the range of floats": (
        lambda case: case.facts["family"] == "product" and case.facts["method"] != "auto"
    ),
    # Where y = 0 and beta is nearly 0, rates are rounding alone: SciPy's implicit methods take Newton iterations that
    # repeat them for divergent ones, and its explicit one rejects every step that an `atol` of nothing measures.
    r"the step fell to the spacing of floats": (
        lambda case: case.facts["method"] != "auto" and case.facts["kind"] == "y = 0"
    ),
    # Where descent by its definition, in arithmetic without a range, leaves that of floats as well.
    r"the descent diverged": lambda case: not np.isfinite(case.right(None)).all(),
    # Exponentials of hundreds: rates, or their squares, are no floats.
    r"whose square is beyond the range of floats": lambda case: has_steep_loss(case, 200.0),
    r"the state left the range of floats": lambda case: case.facts["method"] != "auto" and has_steep_loss(case, 200.0),
    # Squares of targets beyond 1e154 are no floats, and neither is the loss.
    r"the loss left the range of floats": lambda case: np.abs(case.facts["y"]).max() > 1e150,
}


def has_steep_loss(case: Case, e_folds: float) -> bool:
    """Whether the loss at the start, or its rates, may be exponentials of so many e-folds."""
    reach = float(case.facts["alpha"]) ** 2 * float(np.abs(case.facts["X"]).sum(axis=1).max())
    return case.facts.get("loss") in ("poisson", "exponential") and reach > e_folds


def is_justly_slow(case: Case, taken: float) -> bool:
    """A loss of e^hundreds at the start runs through as many e-folds of time, each of some steps."""
    if case.facts.get("loss") in ("poisson", "exponential") and float(case.facts["alpha"]) > 5:
        return True
    return case.plain is not None and taken <= PLAIN * case.plain()


def kind_of_run(facts: dict[str, Any], coordinates: str) -> str:
    """Runs of one kind are compared: by family, method and coordinates."""
    method = facts.get("method", "auto")
    if "schedule" in facts:  # the native method takes none, SciPy's do
        method += " with a schedule"
    if isinstance(facts.get("step"), list):  # each of which is set
        method += " with sizes of steps"
    return f"{facts['family']}, {method}, {coordinates}"


def judge(case: Case) -> tuple[str, dict[str, Any]]:
    """What is wrong with a case, "" if nothing; and figures."""
    began = time.process_time()
    try:
        what, beta = case.run()
    except (fs.IntegrationError, ValueError, ArithmeticError) as error:
        text = f"{type(error).__name__}: {error}"
        justified = any(re.search(pattern, text) and holds(case) for pattern, holds in JUSTIFIED.items())
        return f"{'justly ' if justified else ''}refused", {"why": text, "seconds": seconds(case, began)}
    except Exception as error:
        return "broken", {"why": f"{type(error).__name__}: {error}"}
    figures: dict[str, Any] = {"seconds": seconds(case, began)}
    figures["coordinates"] = getattr(what, "info", {}).get("coordinates", "")
    began = time.process_time()
    try:
        with oracles.precision(DIGITS):
            right = case.right(what)
    except oracles.TooLongError:
        return "no oracle", figures
    figures["oracle"] = time.process_time() - began
    size = float(np.abs(right).max(initial=0.0))
    right = right[len(right) - len(beta) :]
    error = np.abs(beta - right).reshape(len(right), -1).max(axis=1)
    figures["error"] = float(error.max())
    # Coefficients of y = 0 are the rounding of products of weights.
    floor = ROUNDING * (size + case.scale) + TERMS * case.terms + SMALLEST
    if not error.max() <= WRONG * case.rtol * (size + case.scale) + floor:
        return "wrong", figures | {"got": beta.tolist(), "right": right.tolist()}
    if case.estimated:
        figures["estimate"] = float(what.error_estimate.max())
        if not (error <= TOO_SMALL * what.error_estimate + floor).all():
            return "estimate too small", figures | {"errors": error.tolist(), "own": what.error_estimate.tolist()}
    return "", figures


def campaign(seeds: Iterable[int], log: Path | None = None) -> list[dict[str, Any]]:
    """Faults found, each with its seed and what was run; "no oracle" and "justly refused" are none."""
    found, times = [], defaultdict(list)
    counts: Counter[str] = Counter()
    for seed in seeds:
        case = draw(seed)
        fault, figures = judge(case)
        record = {"seed": seed, "fault": fault, **figures, "facts": case.facts}
        if "seconds" in figures:
            record["kind"] = kind_of_run(case.facts, figures.get("coordinates", fault))
            times[record["kind"]].append((figures["seconds"], record))
        counts[fault or "right"] += 1
        if fault not in ("", "no oracle", "justly refused"):
            found.append(record)
        if log is not None:
            with log.open("a") as file:
                file.write(json.dumps(record if fault else record | {"facts": None}) + "\n")
    for family, own in times.items():
        median, slowest = float(np.median([each for each, _ in own])), max(own, key=lambda pair: pair[0])
        print(
            f"{family}: {len(own)} runs, median {median:.2g} s, the slowest {slowest[0] / median:.3g} times, seed "
            f"{slowest[1]['seed']}"
        )
        if len(own) >= MANY:
            found += [
                record | {"fault": f"slow, {family}"}
                for each, record in own
                if each > SLOW * median and not is_justly_slow(draw(record["seed"]), each)
            ]
    print(dict(counts))
    return found


def seconds(case: Case, began: float) -> float:
    """Processor time of a run, once compiled."""
    first = time.process_time() - began
    if first < ONCE_MORE:
        return first
    began = time.process_time()
    with contextlib.suppress(fs.IntegrationError, ValueError, ArithmeticError):
        case.run()
    return min(first, time.process_time() - began)


def main() -> None:
    first, last = int(sys.argv[1]), int(sys.argv[2])
    log = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    if log is not None and log.exists():
        first = max([first, *(json.loads(line)["seed"] + 1 for line in log.read_text().splitlines())])
    for record in campaign(range(first, last), log):
        print(json.dumps(record))


if __name__ == "__main__":
    main()
