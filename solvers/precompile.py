"""Compile in advance, in processes of their own, the functions that a run will need.

Numba compiles on one core, holding Python's lock. While a run reads its data and derives its equations, or compiles
something else, another core compiles the integrator's loop; a caller of a function that is being compiled waits for it
(:mod:`flowsim.solvers.compilation.disk`). One process loads the compiler, and is copied for every group of functions;
they collect no garbage and end without Python's finalisation. Numba would import SciPy's linear algebra, which takes a
fifth of its own import; only functions that call ``np.dot`` and its like need it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from flowsim.solvers.cache_folder import FOLDER_VARIABLE, cache_folder, folder_of_digest
from flowsim.solvers.compilation.claims import Claim

_ROOT = str(Path(str(sys.modules[__name__.partition(".")[0]].__file__)).resolve().parents[1])
#: Functions for which this process has started others, which take a second to say so on disk: many short runs would
#: start as many.
_STARTED: set[tuple[Path, str]] = set()
_CODE = """
import gc, os, sys
gc.disable()
sys.path.append({root!r})
if not {linear_algebra!r}:
    sys.modules["scipy.linalg"] = None
from flowsim.solvers.precompile import compile_now
compile_now({groups!r})
os._exit(0)
"""


def compile_ahead(*groups: Sequence[str], room: str = "", linear_algebra: bool = False) -> bool:
    """Start processes for groups of functions ``"module:name"`` of a package, as far as they are not begun yet.

    Returns whether any was started. None is on a single core, or where there is no ``posix_spawn``.
    """
    folder = folder_of_digest(cache_folder())
    named = [[f"{room}.{name}" if room else name for name in group] for group in groups]
    missing = [[name for name in group if not _is_begun(folder, name)] for group in named]
    missing = [names for names in missing if names]
    if missing and sys.executable and hasattr(os, "posix_spawn") and _cores() > 1:
        _STARTED.update((folder, name) for names in missing for name in names)
        _start(missing, linear_algebra)
    return bool(missing)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_begun(folder: Path, name: str) -> bool:
    """Whether a function is compiled, being compiled by another process, or about to be."""
    if (folder, name) in _STARTED:
        return True
    module, _, function = name.partition(":")
    claims = [Claim(path) for path in (folder / module).glob(f"{function}-*.lock")]
    under_way = [claim for claim in claims if not claim.take()]
    for claim in claims:
        claim.release()
    return bool(under_way) or any((folder / module).glob(f"{function}-*.nbi"))


def _start(groups: Sequence[Sequence[str]], linear_algebra: bool) -> None:
    code = _CODE.format(root=_ROOT, groups=groups, linear_algebra=linear_algebra)
    environment = os.environ | {FOLDER_VARIABLE: str(cache_folder())}
    quiet = [(os.POSIX_SPAWN_OPEN, file, os.devnull, os.O_RDWR, 0) for file in range(3)]
    # -P: a module of that name in the user's folder is not imported.
    child = os.posix_spawn(sys.executable, [sys.executable, "-P", "-c", code], environment, file_actions=quiet)
    threading.Thread(target=_reap, args=(child,), daemon=True).start()


def _reap(child: int) -> None:
    """Wait for a process, so that it does not stay in the table of processes of a long session."""
    with contextlib.suppress(OSError):
        os.waitpid(child, 0)


def compile_now(groups: Sequence[Sequence[str]]) -> None:
    """Compile each function for its declared argument types, unless another process does; each group in a process."""
    from numba.core import event, utils
    from numba.core.registry import cpu_target

    from flowsim.solvers.compilation import _pipelines

    names = [[name.partition(":")[::2] for name in group] for group in groups]
    functions = [[getattr(importlib.import_module(module), name) for module, name in group] for group in names]
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
    # In this process alone: nobody listens to events, signatures are kept, and `min`, `max` and conversions are parts,
    # not compiled to machine code by every copy.
    event.start_event = event.end_event = lambda *_, **__: None
    utils.pysignature = cache(utils.pysignature)
    for function in (min, max, int):
        for template in cpu_target.typing_context.resolve_value_type(function).templates:
            if hasattr(template, "_jit_options"):
                template._jit_options = {**template._jit_options, **_pipelines.part}
    mine = next((number for number in range(1, len(groups)) if os.fork() == 0), 0)
    for function in functions[mine]:
        function = getattr(function, "entry", function)  # how Python calls it, if it is called in other ways
        dispatcher = getattr(function, "compiled", function)
        if dispatcher._cache.claim.take():
            dispatcher.compile(function.declared)
