"""Distribution of tasks to workers and collection of outcomes, also when workers die."""

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

#: A point whose worker died this many times while no other task ran is recorded as failed.
_STRIKES = 3
#: Successive deaths of workers after which the executor counts as broken.
_MOST_DEATHS = 30


def compute(tasks: Iterable[Task], pool: Pool, keep: Callable[[Sequence[Outcome]], None]) -> None:
    """Send every task to the pool and pass outcomes to `keep`, all available ones at a time.

    Raises RuntimeError if the workers themselves fail. Finished points are kept, also after an interruption.
    """
    tasks_in_progress = _Tasks(tasks, pool)
    try:
        while tasks_in_progress.fill():
            batch = tasks_in_progress.wait()
            if batch:
                keep(batch)
    finally:
        rest = tasks_in_progress.abandon()
        if rest:
            keep(rest)
        pool.stop()


class _Tasks:
    """The tasks in progress.

    The death of a worker cancels every task of its executor, without identifying the cause. Those tasks are run
    again one at a time, so that the next death identifies it.
    """

    def __init__(self, tasks: Iterable[Task], pool: Pool) -> None:
        self._tasks = iter(tasks)
        self._pool = pool
        self._again: deque[Task] = deque()
        self._strikes: dict[str, int] = {}  # deaths of workers per suspected task
        self._running: dict[Future[Outcome], Task] = {}
        self._finished: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self._deaths = 0

    def fill(self) -> bool:
        """Submit tasks up to the pool's window; returns False when none is left."""
        while len(self._running) < (1 if self._strikes else self._pool.window):
            task = self._again.popleft() if self._again else next(self._tasks, None)
            if task is None:
                break
            try:
                future = self._pool.submit(worker.evaluate, *task)
            except BrokenExecutor as error:
                self._again.appendleft(task)
                self._note_death(error)
                if self._running:
                    break
                continue
            self._running[future] = task
            future.add_done_callback(self._finished.put)
        return bool(self._running)

    def wait(self) -> list[Outcome]:
        """Wait for one task to finish, and return all finished outcomes."""
        batch = []
        finished = [self._finished.get()]
        while not self._finished.empty():
            finished.append(self._finished.get())
        for future in finished:
            alone = len(self._running) == 1
            task = self._running.pop(future)
            try:
                batch.append(future.result())
            except BrokenExecutor as error:
                given_up = self._suspect(task, alone)
                if given_up is not None:
                    batch.append(given_up)
                if not self._running:
                    self._note_death(error)
            except Exception as error:
                if type(error).__name__ != "KilledWorker":  # distributed's error for a task that kills workers
                    raise RuntimeError(
                        f"the workers cannot compute ({type(error).__name__}: {error}); finished points are kept."
                    ) from error
                batch.append(worker.failure(task[0], f"its worker died: {error}"))
            else:
                self._strikes.pop(task[0], None)
                self._deaths = 0
        return batch

    def abandon(self) -> list[Outcome]:
        """Cancel tasks in progress, and return outcomes that have finished meanwhile."""
        for future in self._running:
            future.cancel()
        done = [f for f in self._running if f.done() and not f.cancelled() and f.exception() is None]
        return [future.result() for future in done]

    def _suspect(self, task: Task, alone: bool) -> Outcome | None:
        key = task[0]
        self._strikes[key] = self._strikes.get(key, 0) + alone
        if self._strikes[key] < _STRIKES:
            self._again.append(task)
            return None
        del self._strikes[key]
        return worker.failure(key, f"its worker process died {_STRIKES} times")

    def _note_death(self, error: BrokenExecutor) -> None:
        self._deaths += 1
        if not self._pool.is_ours:
            raise RuntimeError(f"the executor is broken ({error}); finished points are kept.") from error
        if self._deaths > _MOST_DEATHS:
            raise RuntimeError("worker processes die as soon as they start; finished points are kept.") from error
        self._pool.stop()
