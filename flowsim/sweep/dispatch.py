"""Tasks out, outcomes in, also when workers die."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor, Future
from typing import Any

from flowsim.sweep import worker
from flowsim.sweep.pool import Pool
from flowsim.sweep.store import Outcome

#: key, function (pickled unless the pool shares our memory) and parameters (pickled)
Task = tuple[str, Callable[..., Any] | bytes, bytes]

#: A point that took down this many workers while nothing else ran is given up.
_STRIKES = 3
#: Workers that die this often in a row, whatever they compute, are not the points' fault.
_HOPELESS = 30


def compute(tasks: Iterable[Task], pool: Pool, keep: Callable[[Sequence[Outcome]], None]) -> None:
    """Send every task to the pool and hand the outcomes to `keep`, all that wait at a time.

    Raises
    ------
    RuntimeError
        If the workers themselves fail. What finished before was kept; so it is when this is interrupted.
    """
    flight = _Flight(tasks, pool)
    try:
        while flight.fill():
            batch = flight.wait()
            if batch:
                keep(batch)
    finally:
        rest = flight.abandon()
        if rest:
            keep(rest)
        pool.stop()


class _Flight:
    """The tasks under way.

    A worker's death ends every task its executor holds, without saying which one is to blame. So those tasks go
    again one at a time: the next death names its cause.
    """

    def __init__(self, tasks: Iterable[Task], pool: Pool) -> None:
        self._tasks = iter(tasks)
        self._pool = pool
        self._again: deque[Task] = deque()
        self._strikes: dict[str, int] = {}  # of the tasks under suspicion
        self._flying: dict[Future[Outcome], Task] = {}
        self._landed: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self._deaths = 0

    def fill(self) -> bool:
        """Submit as many tasks as the pool likes; False when there is nothing left to do."""
        while len(self._flying) < (1 if self._strikes else self._pool.window):
            task = self._again.popleft() if self._again else next(self._tasks, None)
            if task is None:
                break
            try:
                future = self._pool.submit(worker.evaluate, *task)
            except BrokenExecutor as error:
                self._again.appendleft(task)
                self._mourn(error)
                if self._flying:
                    break
                continue
            self._flying[future] = task
            future.add_done_callback(self._landed.put)
        return bool(self._flying)

    def wait(self) -> list[Outcome]:
        """Wait for one task to land, then take all that have."""
        batch = []
        landed = [self._landed.get()]
        while not self._landed.empty():
            landed.append(self._landed.get())
        for future in landed:
            alone = len(self._flying) == 1
            task = self._flying.pop(future)
            try:
                batch.append(future.result())
            except BrokenExecutor as error:
                given_up = self._suspect(task, alone)
                if given_up is not None:
                    batch.append(given_up)
                if not self._flying:
                    self._mourn(error)
            except Exception as error:
                if type(error).__name__ != "KilledWorker":  # distributed's own verdict on a deadly task
                    raise RuntimeError(
                        f"the workers cannot compute ({type(error).__name__}: {error}); finished points are kept."
                    ) from error
                batch.append(worker.failure(task[0], f"its worker died: {error}"))
            else:
                self._strikes.pop(task[0], None)
                self._deaths = 0
        return batch

    def abandon(self) -> list[Outcome]:
        """Cancel what flies; what has landed meanwhile is not lost."""
        for future in self._flying:
            future.cancel()
        done = [f for f in self._flying if f.done() and not f.cancelled() and f.exception() is None]
        return [future.result() for future in done]

    def _suspect(self, task: Task, alone: bool) -> Outcome | None:
        key = task[0]
        self._strikes[key] = self._strikes.get(key, 0) + alone
        if self._strikes[key] < _STRIKES:
            self._again.append(task)
            return None
        del self._strikes[key]
        return worker.failure(key, f"its worker process died {_STRIKES} times")

    def _mourn(self, error: BrokenExecutor) -> None:
        self._deaths += 1
        if not self._pool.is_ours:
            raise RuntimeError(f"the executor is broken ({error}); finished points are kept.") from error
        if self._deaths > _HOPELESS:
            raise RuntimeError("worker processes die as soon as they start; finished points are kept.") from error
        self._pool.stop()
