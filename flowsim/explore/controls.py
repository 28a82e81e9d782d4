"""The settings of the page's controls: read from and written to its address, and written as Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, urlencode

from flowsim.network import NAMED_NOISES, DiagonalNetwork, InitialScale
from flowsim.plain_numbers import finite

CLOCKS = {"accelerated": "accelerated time", "time": "time", "arclength": "arc length"}
FORMATS = ("png", "pdf", "svg")
#: The slider of alpha ranges from 1 to 10**-SMALLEST.
SMALLEST = 1000
DEEPEST = 5


@dataclass(frozen=True)
class Controls:
    """The settings of the page.

    Raises ValueError if a value is invalid; the message names it.
    """

    formula: str = ""  #: one coordinate of the network; empty for the product of `depth` weights
    depth: int = 2
    alpha: str = "1e-100"
    noise: str = "gaussian"  #: name of the distribution; without effect for ``eta = 0``
    eta: float = 0.0  #: standard deviation of the weight noise
    weight_decay: float = 0.0
    clock: str = "accelerated"

    def __post_init__(self) -> None:
        if not 2 <= self.depth <= DEEPEST:
            raise ValueError(f"`depth` must be from 2 to {DEEPEST}; received {self.depth}.")
        if self.noise not in NAMED_NOISES:
            raise ValueError(f"`noise` must be one of {', '.join(NAMED_NOISES)}; received {self.noise!r}.")
        if self.clock not in CLOCKS:
            raise ValueError(f"`clock` must be one of {', '.join(CLOCKS)}; received {self.clock!r}.")
        for name in ("eta", "weight_decay"):
            finite(name, getattr(self, name), least=0.0)
        if self.scale.log > 0:
            raise ValueError(f"`alpha` must be at most 1 here; received {self.alpha}.")

    @property
    def scale(self) -> InitialScale:
        """alpha with its logarithm."""
        return InitialScale.parse(self.alpha)

    @property
    def network(self) -> DiagonalNetwork:
        """The network, whose constructor validates the formula."""
        noise = NAMED_NOISES[self.noise](self.eta) if self.eta else None
        if self.formula or self.depth == 2:
            return DiagonalNetwork(self.formula or "u*v", noise=noise, weight_decay=self.weight_decay)
        return DiagonalNetwork(depth=self.depth, noise=noise, weight_decay=self.weight_decay)

    @classmethod
    def from_query(cls, query: str, default: Controls | None = None) -> Controls:
        """The settings of an address; missing ones are as in `default`."""
        given = dict(parse_qsl(query.lstrip("?"), keep_blank_values=True))
        return cls.of({**vars(default or cls()), **given})

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Controls:
        """The settings of texts and numbers by name."""
        kinds = {field.name: {"str": str, "int": int, "float": float}[str(field.type)] for field in fields(cls)}
        unknown = sorted(set(values) - set(kinds))
        if unknown:
            raise ValueError(f"`{unknown[0]}` is not a setting of this page; there are {', '.join(kinds)}.")
        read: dict[str, Any] = {}
        for name, value in values.items():
            try:
                read[name] = kinds[name](value)
            except (TypeError, ValueError):
                raise ValueError(f"`{name}` must be a number; received {value!r}.") from None
        read["formula"] = " ".join(read.get("formula", "").split())
        return cls(**read)

    def query(self, default: Controls | None = None) -> str:
        """The query of the address: settings that differ from `default`."""
        usual = Controls() if default is None else default
        own = {name: value for name, value in vars(self).items() if value != getattr(usual, name)}
        texts = {name: repr(value) if isinstance(value, float) else value for name, value in own.items()}
        return "?" + urlencode(texts)

    def code(self, problem: str, horizon: float | None, clock: str) -> str:
        """The script that computes and draws the figures of the page.

        Parameters
        ----------
        problem : str
            The expression that defines the problem.
        horizon : float or None
            End of the run on `clock`; None for a run until rest.
        """
        options = [repr(self.formula or "u*v") if self.formula or self.depth == 2 else f"depth={self.depth}"]
        if self.eta:
            options.append(f"noise=fs.{NAMED_NOISES[self.noise].__name__}({self.eta!r})")
        if self.weight_decay:
            options.append(f"weight_decay={self.weight_decay!r}")
        end = "" if horizon is None else f"{horizon!r}, "
        limit = "None" if horizon is None else "fs.saddle_to_saddle(net, problem)  # the limit alpha -> 0"
        return (
            "import flowsim as fs\n\n"
            f"problem = {problem}\n"
            f"net = fs.DiagonalNetwork({', '.join(options)})\n"
            f'traj = fs.gradient_flow(\n    net, problem, {end}alpha="{self.alpha}", clock="{clock}"\n)\n'
            f"path = {limit}\n"
            'fs.plot.overview(traj, path).savefig("figure.png")\n'
        )


def alpha_at(place: float) -> str:
    """alpha at a position of the slider in [0, 1]; the exponent grows like a power, so that 1e-3 is accessible too."""
    digits = (SMALLEST + 1.0) ** min(max(place, 0.0), 1.0) - 1.0
    if digits >= 10:
        return f"1e-{round(digits)}"
    digits = round(digits, 1)
    return "1" if not digits else f"1e-{digits:.0f}" if digits == round(digits) else f"{10**-digits:.2g}"


def place_of(alpha: str) -> float:
    """The position of the slider for alpha; 1 below its end."""
    digits = max(-InitialScale.parse(alpha).log / math.log(10.0), 0.0)
    return min(math.log1p(digits) / math.log1p(SMALLEST), 1.0)
