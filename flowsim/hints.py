"""Errors of unknown keyword arguments, with a suggestion of the one that was probably meant."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: An argument's name in other libraries -> its names here.
_ELSEWHERE = {
    "batch": ("batch_size",),
    "dt": ("step",),
    "epochs": ("n_steps",),
    "eta": ("step", "std"),
    "features": ("feature_names",),
    "formulas": ("formula",),
    "hidden": ("width",),
    "horizon": ("t_end",),
    "init": ("start",),
    "init_scale": ("alpha",),
    "iterations": ("n_steps",),
    "l2": ("weight_decay",),
    "lambda_": ("weight_decay",),
    "layers": ("depth",),
    "learning_rate": ("step",),
    "lr": ("step",),
    "max_iter": ("n_steps", "max_steps"),
    "n_epochs": ("n_steps",),
    "n_iter": ("n_steps",),
    "n_jobs": ("workers",),
    "names": ("feature_names",),
    "random_state": ("seed",),
    "scale": ("alpha", "std"),
    "sigma": ("std",),
    "solver": ("method",),
    "step_size": ("step",),
    "t_final": ("t_end",),
    "t_max": ("t_end",),
    "t_span": ("t_end",),
    "theta0": ("start",),
    "tol": ("rtol",),
    "verbose": ("progress",),
    "w0": ("start",),
    "wd": ("weight_decay",),
    "y0": ("start",),
}


def hinting(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: an unknown keyword raises the usual error with a suggestion, such as ``step`` for ``lr``.

    Keywords that a function passes on are left to the function called, except for synonyms of its own.
    """
    parameters = inspect.signature(function).parameters.values()
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    known = frozenset(each.name for each in named) - {"self"}

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if known.issuperset(kwargs):
            return function(*args, **kwargs)
        unknown = next(name for name in kwargs if name not in known)
        if not hands_on or known.intersection(_ELSEWHERE.get(unknown.lower(), ())):
            raise TypeError(
                f"{function.__qualname__.removesuffix('.__init__')}() got an unexpected keyword argument {unknown!r}"
                f"{_meant(unknown, known)}"
            )
        return function(*args, **kwargs)

    return called


def _meant(unknown: str, known: Iterable[str]) -> str:
    known = sorted(known)
    elsewhere = [name for name in _ELSEWHERE.get(unknown.lower(), ()) if name in known]
    near = elsewhere or difflib.get_close_matches(unknown.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else f"; it takes {', '.join(known)}"
