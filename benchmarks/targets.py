"""What was asked of each case beside what was measured, read from the stored results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Point, Series, best, time_at_error
from benchmarks.ill_conditioned import TARGET as ILL_CONDITIONED_ERROR
from benchmarks.integrators import TARGET as ERROR

COLUMNS = ("target", "asked", "measured", "")


@dataclass(frozen=True)
class Target:
    """One target: what, the number measured, and the bound it should keep."""

    what: str
    measured: float
    bound: float
    least: bool = False  # the bound is the smallest number that is accepted

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.least else self.measured <= self.bound

    def row(self) -> list[str]:
        asked = f"{'>=' if self.least else '<='} {self.bound:.3g}"
        return [self.what, asked, f"{self.measured:.3g}", "met" if self.met else "missed"]


def _integrators(raw: dict[str, Any]) -> Iterator[Target]:
    for alpha, found in raw.items():
        if "ratio" in found:
            asked = 10.0 if int(alpha.split("e-")[1]) >= 60 else 5.0
            yield Target(f"one flow at {alpha}, fastest peer over flowsim", found["ratio"], asked, True)


def _losses(raw: dict[str, Any]) -> Iterator[Target]:
    for alpha, found in raw.items():
        if "ratio" in found:
            yield Target(f"logistic loss at {alpha}, fastest peer over flowsim", found["ratio"], 5.0, True)


def _ensembles(raw: dict[str, Any]) -> Iterator[Target]:
    for label, contenders in raw.items():
        seconds = {each["name"]: _time(each, ERROR) for each in contenders}
        own = seconds["flowsim, integrate_ensemble"]
        peers = [taken for name, taken in seconds.items() if taken and not name.startswith("flowsim")]
        if own and peers:
            yield Target(f"flows together, {label}, fastest peer over flowsim", min(peers) / own, 5.0, True)


def _limit(raw: dict[str, Any]) -> Iterator[Target]:
    for name, found in raw.items():
        if "per_jump" in found and "per_knot" in found:
            yield Target(
                f"limit process, {name}, a jump over a knot of LARS",
                best(found["per_jump"]) / best(found["per_knot"]),
                1.0,
            )


def _linear(raw: dict[str, Any]) -> Iterator[Target]:
    for condition in (1, 100):
        case = f"alpha 1e-3, condition of Sigma {condition}"
        seconds = {name.split()[0]: best(found["seconds"]) for name, found in raw.items() if name.endswith(f", {case}")}
        peers = [taken for name, taken in seconds.items() if name != "native"]
        if "native" in seconds and peers:
            what = f"linear network at 1e-3, condition {condition}, the faster of DOP853 and LSODA over flowsim"
            yield Target(what, min(peers) / seconds["native"], 5.0, True)
    scales = {name: best(found["seconds"]) for name, found in raw.items() if name.startswith("alpha ")}
    yield Target("linear network, time at 1e-1000 over 1e-8", scales["alpha 1e-1000"] / scales["alpha 1e-8"], 6.0)
    wide = "alpha 1e-100, width 1,000,000"
    yield Target("a million hidden units at 1e-100 from arrays, ms", 1e3 * scales[wide], 50.0)
    yield Target("the same from the default start, ms", 1e3 * scales[f"{wide}, default start"], 50.0)
    within = raw["width 30"]
    yield Target(
        "linear network at 0.1, time over that of its bare products", best(within["seconds"]) / within["floor"], 5.0
    )


def _ill_conditioned(raw: dict[str, Any]) -> Iterator[Target]:
    for name, contenders in raw.items():
        own, lsoda = (_time(contenders[key], ILL_CONDITIONED_ERROR) for key in ("flowsim", "LSODA"))
        if own and lsoda:
            yield Target(f"ill-conditioned features, {name}, LSODA over flowsim", lsoda / own, 5.0, True)


def _features(raw: dict[str, Any]) -> Iterator[Target]:
    for name, seconds in raw.items():
        if "flowsim run" in seconds:
            bound = 5.0 * best(seconds["flow"]) + best(seconds["start-up"])
            what = f"flowsim run, {name}, s (five flows and start-up)"
            yield Target(what, best(seconds["flowsim run"]), bound)


def _horizons(raw: dict[str, Any]) -> Iterator[Target]:
    for name in dict.fromkeys(each.rsplit(", ", 1)[0] for each in raw):
        ratio = best(raw[f"{name}, 1e+12"]["seconds"]) / best(raw[f"{name}, 1000"]["seconds"])
        yield Target(f"{name}, horizon 1e12 over 1e3", ratio, 1.2)


def _memory(raw: dict[str, Any]) -> Iterator[Target]:
    name, found = list(raw.items())[-1]
    yield Target(f"memory, {name}, over X and a vector", found["flow"] / (found["data"] + found["vector"]), 4.0)


def _first_use(raw: dict[str, Any]) -> Iterator[Target]:
    first, again = (seconds[0] for seconds in raw["flowsim run"])
    yield Target("first flowsim run, s", first, max(8.0, 5.0 * raw["trivial"][0]))
    yield Target("a later one, s", again, 3.0)
    for name, runs in raw.items():
        if name not in ("trivial", "flowsim run", "repeats"):
            yield Target(f"first use of {name} adds, s", runs[0][0] - runs[1][0], 5.0)


def _descent(raw: dict[str, Any]) -> Iterator[Target]:
    for (size, found), share in zip(raw.items(), (0.8, 1.0), strict=True):
        one = best(found["one run"])
        yield Target(
            f"gradient descent, {size}, one run over its products",
            one / best(found["two BLAS products, compiled loop"]),
            share,
        )
        for what, alone in (
            ("64 step sizes together, per run", "one run"),
            ("64 seeds together, per run", "one noisy run"),
        ):
            yield Target(
                f"gradient descent, {size}, one alone over {what}", best(found[alone]) / best(found[what]), 3.0, True
            )


#: case -> its targets, from the raw part of its result
CASES: dict[str, Callable[[dict[str, Any]], Iterator[Target]]] = {
    "integrators": _integrators,
    "losses": _losses,
    "ensembles": _ensembles,
    "linear": _linear,
    "ill_conditioned": _ill_conditioned,
    "horizons": _horizons,
    "limit": _limit,
    "descent": _descent,
    "features": _features,
    "memory": _memory,
    "first_use": _first_use,
}


def targets(folder: Path) -> list[Target]:
    """Every target of the results stored in ``folder``."""
    found: list[Target] = []
    for case, read in CASES.items():
        path = folder / f"{case}.json"
        if path.exists():
            found += read(json.loads(path.read_text(encoding="utf-8"))["raw"])
    return found


def _time(series: dict[str, Any], error: float) -> float | None:
    return time_at_error(Series(series["name"], [Point(**point) for point in series["points"]]), error)
