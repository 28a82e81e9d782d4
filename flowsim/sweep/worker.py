"""The functions that run in workers."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from flowsim.sweep.codec import encode, record
from flowsim.sweep.store import Outcome, Status, checksum

#: Seconds between two tests of a worker whether its parent is alive.
_WATCH = 1.0
_parent: int | None = None


def evaluate(key: str, function: Callable[..., Any] | bytes, parameters: bytes) -> Outcome:
    """Compute one point.

    Parameters are pickled even within one process, so that a function that modifies them affects no other point.
    """
    import cloudpickle

    if _parent is not None and os.getppid() != _parent:
        os._exit(1)  # the parent is gone
    call = _loaded(function) if isinstance(function, bytes) else function
    arguments: dict[str, Any] = cloudpickle.loads(parameters)
    started = time.perf_counter()
    try:
        payload = encode(record(call(**arguments)))
        status: Status = "done"
    except (Exception, SystemExit) as error:
        payload = _error(f"{type(error).__name__}: {error}", traceback.format_exc())
        status = "failed"
    return _outcome(key, status, time.perf_counter() - started, payload)


def failure(key: str, message: str) -> Outcome:
    """The outcome of a point whose worker died."""
    return _outcome(key, "failed", 0.0, _error(message, ""))


def start(parent: int) -> None:
    """Initialise a worker process: Ctrl-C is handled by the parent, and the worker ends with its parent."""
    global _parent
    _parent = parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH)
    os._exit(1)


@functools.lru_cache(maxsize=8)
def _loaded(function: bytes) -> Callable[..., Any]:
    import cloudpickle

    return cloudpickle.loads(function)


def _error(message: str, trace: str) -> bytes:
    return json.dumps({"error": message, "traceback": trace}).encode()


def _outcome(key: str, status: Status, seconds: float, payload: bytes) -> Outcome:
    return Outcome(key, status, seconds, payload, checksum(key, status, seconds, payload))
