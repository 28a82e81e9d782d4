"""Where points are computed: this process, worker processes, or a given executor."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError, ThreadPoolExecutor
from typing import Any

from flowsim.sweep import worker
from flowsim.sweep.host import THREAD_VARIABLES

#: Points submitted per worker process, enough to keep it busy.
_AHEAD = 4
#: Points submitted to a given executor, whose size may change during the sweep.
_FOREIGN_WINDOW = 1024


class Pool:
    """A common interface for every kind of `workers`.

    Attributes
    ----------
    window : int
        Number of points submitted at a time.
    is_ours : bool
        Whether its processes were started here, and so may be restarted and stopped.
    shares_memory : bool
        Whether points are computed in this process, by the given function object.
    """

    def __init__(self, workers: Any) -> None:
        self.is_ours = False
        self._count = 0
        self._executor: Any = None
        if isinstance(workers, int) and not isinstance(workers, bool):
            if workers < 1:
                raise ValueError(f"`workers` must be >= 1; received {workers}.")
            self._count = workers
            self.window = 1 if workers == 1 else _AHEAD * workers
            if workers == 1:
                self._executor = _Here()
            else:
                self.is_ours = True
        elif isinstance(workers, Executor):
            self._executor = workers
            self.window = _FOREIGN_WINDOW
        elif hasattr(workers, "get_executor") and hasattr(workers, "submit"):  # a distributed.Client
            self._executor = _Dask(workers)
            self.window = _FOREIGN_WINDOW
        else:
            raise ValueError(
                "`workers` must be a number of processes, a concurrent.futures.Executor or a distributed.Client; "
                f"received {type(workers).__name__}."
            )
        self.shares_memory = isinstance(self._executor, _Here | ThreadPoolExecutor)

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self._executor is None:
            try:
                from loky import ProcessPoolExecutor
            except ImportError:
                raise ImportError("`workers` above 1 needs loky: pip install 'flowsim[sweep]'.", name="loky") from None

            # Loky rather than the standard library's pool: it needs no `if __name__ == "__main__"` in scripts,
            # and starts workers with their own environment, so that BLAS has one thread when it loads.
            self._executor = ProcessPoolExecutor(
                self._count, initializer=worker.start, initargs=(os.getpid(),), env=THREAD_VARIABLES
            )
        return self._executor.submit(call, *arguments)

    def stop(self) -> None:
        """Stop the worker processes started here, busy or not; the next point would start new ones."""
        if self.is_ours and self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None
        elif isinstance(self._executor, _Dask):
            self._executor.shutdown()


class _Here(Executor):
    """Computes immediately, in this process."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*arguments, **named))
        return future


class _Dask(Executor):
    """Computes on a ``distributed.Client``.

    Its own ``get_executor()`` requests a result and then, separately, its status; when the worker that holds the
    result dies in between, the outcome is lost. Here a single request returns the outcome.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._running: set[Any] = set()

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        ours: Future[Any] = Future()
        theirs = self._client.submit(call, *arguments, pure=False, **named)
        self._running.add(theirs)
        theirs.add_done_callback(functools.partial(self._hand_over, ours))
        return ours

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:
        """Cancel points that have not been computed; the client stays open."""
        if self._running:
            self._client.cancel(list(self._running), force=True)
            self._running.clear()

    def _hand_over(self, ours: Future[Any], theirs: Any) -> None:
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            try:
                ours.set_result(theirs.result())
            except BaseException as error:
                ours.set_exception(error)
        self._running.discard(theirs)
