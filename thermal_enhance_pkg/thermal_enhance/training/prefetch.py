"""Batches prepared ahead of the step that needs them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Calls `make(step)` for coming steps in worker threads; a bounded number of results wait.

    As `make` is a pure function of the step, neither the number of workers nor a restart changes a batch.

    Args:
        make: prepares one step's batch; called from several threads.
        first: the step that will be asked for first.
        last: no step from here on is prepared; None for no end.
        workers: threads.
        depth: batches that are prepared or waiting at most.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        first: int = 0,
        last: int | None = None,
        *,
        workers: int = 2,
        depth: int = 4,
    ) -> None:
        self._make = make
        self._last = last
        self._depth = max(depth, workers)
        self._next = first
        self._pending: dict[int, Future[T]] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")

    def get(self, step: int) -> T:
        """The batch of a step; steps are asked for in order, any may be skipped.

        Raises:
            Exception: whatever `make` raised for this step.
        """
        for skipped in [s for s in self._pending if s < step]:
            self._pending.pop(skipped).cancel()
        self._next = max(self._next, step)
        while self._next < step + self._depth and (self._last is None or self._next < self._last):
            self._pending[self._next] = self._pool.submit(self._make, self._next)
            self._next += 1
        future = self._pending.pop(step, None)
        return self._make(step) if future is None else future.result()

    def close(self) -> None:
        """Drop what waits and end the threads."""
        for future in self._pending.values():
            future.cancel()
        self._pending.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
