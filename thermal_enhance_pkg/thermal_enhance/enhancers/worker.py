"""One thread that owns a heavy tier: it may be late or hang, its caller never is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from thermal_enhance.enhancers.base import (
    EnhancedFrame,
    Enhancer,
    EnhanceRequest,
    FrameDeclined,
    LoadingEnhancer,
)
from thermal_enhance.entry import TIER_THREAD


@dataclass(frozen=True)
class WorkerResult:
    """Outcome of one call.

    Attributes:
        frame: the enhanced frame, or None.
        reason: why there is none: "busy", "deadline", "closed", "error: ..." or the tier's own word; empty
            with a frame.
        declined: the tier left the frame to others, which is no failure.
    """

    frame: EnhancedFrame | None
    reason: str = ""
    declined: bool = False


class TierWorker:
    """Runs an enhancer on a daemon thread of its own.

    Everything the enhancer does (calls, `reset`, `close`) happens on that one thread, so a model's device
    context has one owner. The caller waits at most until its deadline; a result that comes later is counted
    and thrown away. A worker that hangs is abandoned: nothing waits for it, and being a daemon it does not
    keep the process alive.

    Args:
        name: of the tier, for the thread's name.
        build: gives the enhancer; called on the worker's thread, which is "busy" until it returns.
        clock: monotonic seconds, replaceable in tests.
    """

    def __init__(
        self, name: str, build: Callable[[], Enhancer], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.late_results = 0
        """Results that came after their caller had gone on."""
        self.build_error = ""
        """Why `build`, or loading, failed; empty while neither has."""
        self._build = build
        self._clock = clock
        self._condition = threading.Condition()
        self.enhancer: Enhancer | None = None
        """What `build` gave; None before."""
        self._job: _Job | None = None
        self._reset_reason: str | None = None
        self._running_since: float | None = clock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=TIER_THREAD + name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Is a call (or reset) still running?"""
        with self._condition:
            return self._running_since is not None or self._job is not None

    def busy_for(self) -> float:
        """Seconds the running call has taken so far, by the clock; 0 when idle."""
        with self._condition:
            return 0.0 if self._running_since is None else self._clock() - self._running_since

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait (real seconds) until nothing runs; False if something still does."""
        with self._condition:
            return self._condition.wait_for(
                lambda: self._running_since is None and self._job is None, timeout_s
            )

    def call(self, request: EnhanceRequest, timeout_s: float | None) -> WorkerResult:
        """Enhance one frame.

        Args:
            request: what to enhance.
            timeout_s: longest wait in real seconds; None waits to the end (offline).

        Returns:
            The frame, or why there is none.
        """
        with self._condition:
            if self._closed:
                return WorkerResult(None, "closed")
            if self._running_since is not None or self._job is not None:
                return WorkerResult(None, "busy")
            job = _Job(request)
            self._job = job
            self._running_since = self._clock()
            self._condition.notify_all()
            self._condition.wait_for(lambda: job.done or self._closed, timeout_s)
            if not job.done:
                job.abandoned = True
                return WorkerResult(None, "closed" if self._closed else "deadline")
            if isinstance(job.error, FrameDeclined):
                return WorkerResult(None, job.error.reason, declined=True)
            if job.error is not None:
                return WorkerResult(None, f"error: {describe_error(job.error)}")
            return WorkerResult(job.frame)

    def start_loading(self, request: EnhanceRequest) -> bool:
        """Have a `LoadingEnhancer` load what frames like this need; returns at once.

        Returns:
            False when the thread is at something else.
        """
        with self._condition:
            if self._closed or self._running_since is not None or self._job is not None:
                return False
            self._job = _Job(request, load=True)
            self._running_since = self._clock()
            self._condition.notify_all()
            return True

    def reset(self, reason: str) -> None:
        """Have the tier forget the past, before its next call; returns at once."""
        with self._condition:
            self._reset_reason = reason
            self._condition.notify_all()

    def close(self) -> None:
        """Ask the thread to close the enhancer and end; returns at once, even if it hangs."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end after `close`; False if it has not."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            enhancer = self._build()
        except BaseException as caught:
            with self._condition:
                self.build_error, self._closed = describe_error(caught), True
                self._running_since = None
                self._condition.notify_all()
            return
        with self._condition:
            self.enhancer = enhancer
            self._running_since = None
            self._condition.notify_all()
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._job is not None)
                if self._closed:
                    break
                job, self._job = self._job, None
                reason, self._reset_reason = self._reset_reason, None
            assert job is not None
            frame, error = None, None
            try:
                if reason is not None:
                    enhancer.reset(reason)
                if not job.load:
                    frame = enhancer(job.request)
                elif isinstance(enhancer, LoadingEnhancer):
                    enhancer.load(job.request)
            except BaseException as caught:  # the thread must outlive whatever the model does
                error = caught
            with self._condition:
                if job.load and error is not None:
                    self.build_error = describe_error(error)
                job.frame, job.error, job.done = frame, error, True
                if job.abandoned:
                    self.late_results += 1
                self._running_since = None
                self._condition.notify_all()
        try:
            enhancer.close()
        except BaseException:  # nobody is left to tell, and the session is gone either way
            return


class _Job:
    """One request on its way through the thread."""

    def __init__(self, request: EnhanceRequest, load: bool = False) -> None:
        self.request = request
        self.load = load
        self.frame: EnhancedFrame | None = None
        self.error: BaseException | None = None
        self.done = False
        self.abandoned = False


def describe_error(error: BaseException) -> str:
    """Type and first line of the message, short enough for a status field."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text[:160]
