"""Errors of unknown keyword arguments, with the one that was probably meant, and of arguments of another class."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: A name of an argument here -> its names in other libraries, in lower case.
_ELSEWHERE = {
    "alpha": "init_scale scale",
    "batch_size": "batch",
    "depth": "layers",
    "feature_names": "columns features names",
    "formula": "formulas",
    "max_steps": "max_iter",
    "method": "solver",
    "n_steps": "epochs iterations max_iter n_epochs n_iter steps",
    "noise": "eta sigma std",
    "progress": "verbose",
    "rtol": "tol",
    "runs": "n_runs n_seeds seeds",
    "seed": "random_state",
    "start": "init theta0 w0 y0",
    "std": "eta scale sigma",
    "step": "dt eta learning_rate lr step_size",
    "t_end": "duration horizon t t_final t_max t_span tmax until",
    "weight_decay": "l2 lambda_ wd",
    "width": "hidden",
    "workers": "n_jobs",
}


def hinting(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: an unknown keyword raises the usual error with a suggestion, such as ``step`` for ``lr``.

    Keywords that a function passes on are left to the function called, except for synonyms of its own. An argument
    that lacks an attribute because it is not of the class it is annotated with is named in a ValueError.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = frozenset(each.name for each in parameters if each.kind in by_name) - {"self"}

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if known.issuperset(kwargs):
            try:
                return function(*args, **kwargs)
            except AttributeError as error:
                wrong = _of_another_class(signature, args, kwargs, error.obj)
                if wrong is None:
                    raise
                raise ValueError(wrong) from error
        for unknown in (name for name in kwargs if name not in known):
            if not hands_on or _synonyms(unknown, known):
                whose = function.__qualname__.removesuffix(".__init__")
                raise TypeError(f"{whose}() got an unexpected keyword argument {unknown!r}{_meant(unknown, known)}")
        return function(*args, **kwargs)

    return called


def _of_another_class(signature: inspect.Signature, args: Any, kwargs: Any, culprit: Any) -> str | None:
    """The message on an argument that is not of a class of its annotation, if it is the culprit."""
    kinds = {"None"} if culprit is None else {kind.__name__ for kind in type(culprit).__mro__}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        many = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        if not any(each is culprit for each in (value if many else (value,))):
            continue
        wanted = str(signature.parameters[name].annotation)
        if wanted[0].isupper() and kinds.isdisjoint(re.findall(r"\w+", wanted)):
            return f"`{name}` must be of class {wanted.replace(' | ', ' or ')}; received {type(culprit).__name__}."
    return None


def _synonyms(unknown: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if unknown.lower() in _ELSEWHERE.get(name, "").split()]


def _meant(unknown: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = _synonyms(unknown, known) or difflib.get_close_matches(unknown.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else f"; it takes {', '.join(known)}"
