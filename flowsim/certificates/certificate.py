"""The result of testing a theorem on data: evidence, and a certificate."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, Literal

from flowsim.json_values import json_value

Value = float | str
Status = Literal["holds", "violated", "not resolved", "not applicable"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The measurement of a theorem's function.

    Attributes
    ----------
    hypothesis : str
        Why the theorem applies here.
    predicted, measured : float or str
        The prediction of the theorem and the measured value; text where no single number describes them. By default
        what was measured is the error itself.
    error : float
        Distance between the two, >= 0.
    tolerance : float
        The largest `error` that counts as agreement; the bound itself where the theorem is an inequality.
    unit : str
        The meaning of `error`.
    details : dict
        Further numbers, plain JSON values.
    """

    hypothesis: str
    _: KW_ONLY
    predicted: Value
    measured: Value | None = None
    error: float
    tolerance: float
    unit: str
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.measured is None:
            value = f"off by {self.error:.1e}" if isinstance(self.predicted, str) else self.error
            object.__setattr__(self, "measured", value)


class NotMetError(Exception):
    """A hypothesis does not hold for these data or this network; the text says which and why."""


def assume(condition: object, otherwise: str) -> None:
    """State a hypothesis of a theorem; raise `NotMetError` with the text `otherwise` where it does not hold."""
    if not condition:
        raise NotMetError(otherwise)


class UnresolvedError(Exception):
    """A theorem applies, but the runs cannot decide it; the text says why."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """One theorem on one problem: it holds, is violated, or is not resolved by the runs made.

    Attributes
    ----------
    name : str
        Short name, e.g. ``"jump-times"``.
    paper : str
        Authors and arXiv number.
    statement : str
        The theorem in one line.
    applies : bool
        Whether its hypothesis is met.
    hypothesis : str
        Why, or why not.
    predicted, measured : float, str or None
        None where the theorem does not apply.
    error, tolerance : float or None
        The distance between prediction and measurement, and the largest that counts as agreement.
    unit : str
        The meaning of `error`.
    margin : float or None
        ``1 - error / tolerance``: the unused fraction of the tolerance, negative if the theorem is violated.
    holds : bool or None
        None where the theorem does not apply or is not resolved; `hypothesis` then says why.
    status : {"holds", "violated", "not resolved", "not applicable"}
    details : dict
    """

    name: str
    paper: str
    statement: str
    applies: bool
    hypothesis: str
    predicted: Value | None = None
    measured: Value | None = None
    error: float | None = None
    tolerance: float | None = None
    unit: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def margin(self) -> float | None:
        if self.error is None or not self.tolerance:
            return None
        return 1.0 - self.error / self.tolerance

    @property
    def holds(self) -> bool | None:
        if not self.applies or self.error is None:
            return None
        # NaN compares false: the theorem then counts as violated.
        return self.tolerance is not None and bool(self.error <= self.tolerance)

    @property
    def status(self) -> Status:
        if not self.applies:
            return "not applicable"
        if self.error is None:
            return "not resolved"
        return "holds" if self.holds else "violated"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite become text."""
        given = {each.name: json_value(getattr(self, each.name)) for each in fields(self) if each.name != "details"}
        told = {"margin": json_value(self.margin), "holds": self.holds, "status": self.status}
        return {**given, **told, "details": json_value(self.details)}
