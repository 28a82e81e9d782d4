"""The list of theorems that can be certified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flowsim.certificates.certificate import Certificate, Evidence, NotMetError, UnresolvedError, assume
from flowsim.certificates.setting import Setting
from flowsim.problem import Regression


@dataclass(frozen=True)
class Theorem:
    """A statement and the function that tests it; that function raises `NotMetError` where it does not apply."""

    name: str
    paper: str
    statement: str
    test: Callable[[Setting], Evidence]
    #: whether it applies to networks with weight decay
    with_decay: bool = False
    #: whether it applies to losses other than squares
    any_loss: bool = False

    def certify(self, setting: Setting) -> Certificate:
        """The certificate of the theorem on the user's network and data."""
        stated = self.name, self.paper, self.statement
        try:
            self._check_hypotheses(setting)
            found = self.test(setting)
        except NotMetError as reason:
            return Certificate(*stated, False, str(reason))
        except UnresolvedError as reason:
            return Certificate(*stated, True, f"not resolved: {reason}")
        return Certificate(*stated, True, **vars(found))

    def _check_hypotheses(self, setting: Setting) -> None:
        """Raise NotMetError where a hypothesis that many theorems share does not hold."""
        assume(not getattr(setting.net, "weight_decay", 0.0) or self.with_decay, "stated without weight decay")
        assume(
            self.any_loss or isinstance(setting.problem, Regression),
            f"stated for the squared loss; this one is {setting.problem.loss_function.name}",
        )
        assume(setting.problem.feature_variances.any(), "X = 0: nothing moves")


#: All theorems, in the order of the papers.
THEOREMS: dict[str, Theorem] = {}


def theorem(
    name: str, paper: str, statement: str, *, with_decay: bool = False, any_loss: bool = False
) -> Callable[[Callable[[Setting], Evidence]], Theorem]:
    """Decorator that registers a function in `THEOREMS`."""

    def enter(test: Callable[[Setting], Evidence]) -> Theorem:
        entry = Theorem(name, paper, statement, test, with_decay, any_loss)
        THEOREMS[name] = entry
        return entry

    return enter
