"""The quality ladder: every frame leaves, by the best tier that can make it in time."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from thermal_enhance.enhancers.base import (
    EnhancedFrame,
    Enhancer,
    EnhanceRequest,
    FrameDeclined,
    LoadingEnhancer,
)
from thermal_enhance.enhancers.passthrough import PassthroughEnhancer
from thermal_enhance.enhancers.rungs import (
    Factory,
    LadderConfig,
    LadderStatus,
    Rung,
    TierStatus,
    defect,
    reserve,
)
from thermal_enhance.enhancers.worker import TierWorker, describe_error

__all__ = ["Factory", "LadderConfig", "LadderStatus", "QualityLadder", "TierStatus", "defect"]

_SHARE_OF_PERIOD = 0.9
"""What a model may take of a frame period on average: the rest is for reading and publishing."""


class QualityLadder:
    """Tries the tiers from the best down, for each frame anew; itself an `Enhancer` that does not raise.

    A tier that is late, raises, or gives something that is no valid frame is left out of this very frame and
    then for a while that doubles with every further failure. Tiers with `isolated = True` run on a
    `TierWorker` and may hang; the others run on the caller's thread and are judged by the 95th percentile of
    their times. Below all of them lies passthrough, which cannot fail.

    A tier that declines a frame (`FrameDeclined`) has not failed: it is asked again for the next one.

    A `LoadingEnhancer` on a worker loads there while the tiers below make the frames, reason "loading". A
    model that keeps its deadline and still cannot keep up with the stream steps down too ("rate"): every
    frame by one lower tier is better to look at, and to work with, than every other frame by the best one.

    `__call__` and `reset` belong to one thread; everything else may be called from any.

    Args:
        tiers: best first. An attribute `factory` (no arguments, gives a fresh enhancer) lets a hung one be
            replaced; its session is never used again.
        config: see `LadderConfig`.
        clock: monotonic seconds, replaceable in tests.
    """

    name = "ladder"
    needs_rgb = False
    isolated = False

    def __init__(
        self,
        tiers: Sequence[Enhancer] = (),
        config: LadderConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config or LadderConfig()
        self._clock = clock
        self._lock = threading.RLock()
        self._floor = PassthroughEnhancer()
        self._floor_rung = Rung(self._floor, None, self._config.window)
        self._rungs: list[Rung] = []
        self._current = ""
        self._reason = ""
        self._closed = False
        for tier in tiers:
            self.add_tier(tier)
        self._check_pin(self._config)

    @property
    def config(self) -> LadderConfig:
        """The parameters in force."""
        return self._config

    @property
    def uses_rgb(self) -> bool:
        """Would any tier that can still run look at an RGB frame?"""
        with self._lock:
            pin = self._config.pin
            return any(r.enhancer.uses_rgb for r in self._rungs if not r.disabled and pin in ("", r.name))

    def configure(self, config: LadderConfig) -> None:
        """Change the parameters while running.

        Raises:
            ValueError: `pin` names no tier.
        """
        self._check_pin(config)
        with self._lock:
            self._config = config

    def add_tier(
        self, enhancer: Enhancer, position: int | None = None, factory: Factory | None = None
    ) -> None:
        """Add a tier, at any time.

        Args:
            enhancer: the tier. Passthrough is there already and is not added twice.
            position: 0 for the top; by default below all tiers that are there.
            factory: how to build it anew; by default its attribute `factory`, if it has one.

        Raises:
            ValueError: a tier of this name is there already.
            RuntimeError: the ladder is closed.
        """
        if isinstance(enhancer, PassthroughEnhancer):
            return
        with self._lock:
            if self._closed:
                raise RuntimeError("the ladder is closed")
            if any(rung.name == enhancer.name for rung in self._rungs) or enhancer.name == self._floor.name:
                raise ValueError(f"the ladder has a tier {enhancer.name!r} already")
            rung = Rung(enhancer, factory or getattr(enhancer, "factory", None), self._config.window)
            if getattr(enhancer, "isolated", False):
                rung.worker = TierWorker(enhancer.name, lambda: enhancer, self._clock)
                rung.worker.wait_idle(1.0)  # nothing is built here: this is the thread's start
            self._rungs.insert(len(self._rungs) if position is None else position, rung)

    def remove(self, name: str) -> bool:
        """Take a tier out and close it (when its running call is over); False if there is none."""
        with self._lock:
            for rung in self._rungs:
                if rung.name == name:
                    self._rungs.remove(rung)
                    rung.removed = True
                    rung.close()
                    return True
            return False

    def __call__(self, request: EnhanceRequest) -> EnhancedFrame:
        """Enhance one frame by the best tier that can; never raises for a valid frame.

        Returns:
            The frame, with `tier_reason` saying why the best tier did not make it.
        """
        began = self._clock()
        with self._lock:
            self._watch(began)
            config, rungs = self._config, list(self._rungs)
            first_reason = "closed" if self._closed else ""
        if config.pin:
            rungs = [rung for rung in rungs if rung.name == config.pin]
        for index, rung in enumerate(rungs):
            frame, reason = self._try(rung, request, config, began, rungs[index + 1 :])
            if frame is not None:
                return self._leave(rung, frame, first_reason)
            first_reason = first_reason or reason
            with self._lock:
                rung.troubles[reason.partition(":")[0]] += 1
        return self._leave(self._floor_rung, self._floor(request), first_reason)

    def reset(self, reason: str) -> None:
        """Have every tier forget the past of the stream; a tier that cannot is left to its next failure."""
        with self._lock:
            rungs = list(self._rungs)
        for rung in rungs:
            if rung.worker is not None:
                rung.worker.reset(reason)
                continue
            try:
                rung.enhancer.reset(reason)
            except Exception as error:
                self._fail(rung, f"error: {describe_error(error)}", self._config)

    def close(self) -> None:
        """Close every tier (a running one when its call is over); returns at once even if one hangs.

        Frames still get passthrough, with the reason "closed".
        """
        with self._lock:
            self._closed = True
            rungs, self._rungs = self._rungs, []
            for rung in rungs:
                rung.removed = True
            for rung in rungs:
                rung.close()

    def status(self) -> LadderStatus:
        """A snapshot of the whole ladder."""
        with self._lock:
            now = self._clock()
            tiers = tuple(rung.status(now) for rung in [*self._rungs, self._floor_rung])
            return LadderStatus(self._current, self._reason, tiers)

    def _try(
        self, rung: Rung, request: EnhanceRequest, config: LadderConfig, began: float, below: list[Rung]
    ) -> tuple[EnhancedFrame | None, str]:
        """One tier's attempt: the frame, or why there is none."""
        now = self._clock()
        with self._lock:
            if rung.removed:
                return None, "closed" if self._closed else "removed"
            if rung.disabled:
                return None, f"disabled: {rung.disabled}"
            if request.color is None and rung.enhancer.needs_rgb:
                return None, "rgb_missing"
            if now < rung.retry_at and not config.pin:
                return None, rung.reason
            try:
                waiting = self._not_ready(rung, request, config)
            except Exception as error:  # whatever a tier does, the frame goes on to the next one
                waiting = f"error: {describe_error(error)}"
            if waiting:
                return None, waiting
            rung.running = True
        timeout = None
        if config.deadline_s is not None and not config.pin:
            timeout = max(0.1 * config.deadline_s, config.deadline_s - (now - began) - reserve(below))
        declined = False
        try:
            if rung.worker is not None:
                outcome = rung.worker.call(request, timeout)
                frame, reason, declined = outcome.frame, outcome.reason, outcome.declined
            else:
                frame, reason = rung.enhancer(request), ""
        except FrameDeclined as word:
            frame, reason, declined = None, word.reason, True
        except Exception as error:
            frame, reason = None, f"error: {describe_error(error)}"
        finally:
            with self._lock:
                rung.running = False
                if rung.removed and rung.worker is None:
                    rung.enhancer.close()
        if frame is not None:
            reason = defect(frame, request)
        took = self._clock() - now
        if reason:
            if reason != "busy" and not declined:  # the deadline it missed has been counted against it
                self._fail(rung, reason, config)
            return None, reason
        self._succeed(rung, took, config, request.period_s)
        return frame, ""

    def _not_ready(self, rung: Rung, request: EnhanceRequest, config: LadderConfig) -> str:
        """Why a loading tier cannot take this frame, which is no failure; has it load what it lacks."""
        worker = rung.worker
        if worker is None or not rung.loads or not isinstance(worker.enhancer, LoadingEnhancer):
            return ""
        refusal = worker.enhancer.refuses(request)
        if refusal:
            return refusal
        if worker.enhancer.is_loaded(request) or config.deadline_s is None or config.pin:
            return ""  # with no deadline, the call itself loads
        if worker.start_loading(request):
            rung.building = True
        return "loading"

    def _fail(self, rung: Rung, reason: str, config: LadderConfig) -> None:
        with self._lock:
            now = self._clock()
            pause = min(config.climb_after_s * config.backoff_factor**rung.failures, config.backoff_cap_s)
            rung.failures = min(rung.failures + 1, 64)
            rung.failed_at, rung.retry_at, rung.reason = now, now + pause, reason
            rung.times.clear()

    def _succeed(self, rung: Rung, took: float, config: LadderConfig, period_s: float) -> None:
        with self._lock:
            rung.times.append(took)
            rung.frames += 1
            # Good for as long as it was left alone: what happened before is forgiven.
            if rung.failures and self._clock() - rung.retry_at >= rung.retry_at - rung.failed_at:
                rung.failures, rung.reason = 0, ""
            if config.deadline_s is None or config.pin:
                return
            # Once it has failed, a few frames tell whether anything has changed.
            if len(rung.times) < min(3 if rung.failures and rung.worker is not None else 8, config.window):
                return
            reason = ""
            if rung.worker is None:
                reason = "deadline" if rung.p95() > config.deadline_s else ""
            elif config.hold_rate and np.mean(rung.times) > _SHARE_OF_PERIOD * period_s:
                reason = "rate"
            if reason:
                rung.troubles[reason] += 1
                self._fail(rung, reason, config)

    def _leave(self, rung: Rung, frame: EnhancedFrame, reason: str) -> EnhancedFrame:
        with self._lock:
            if rung is self._floor_rung:
                rung.frames += 1
            self._current, self._reason = frame.tier, reason
        return dataclasses.replace(frame, tier_reason=reason) if reason else frame

    def _watch(self, now: float) -> None:
        """Give up workers that hang; build anew or disable their tiers."""
        config = self._config
        for rung in self._rungs:
            if rung.worker is None or rung.disabled:
                continue
            if rung.worker.build_error:
                rung.disabled = rung.worker.build_error
                continue
            rung.building = rung.building and rung.worker.busy
            limit = config.build_timeout_s if rung.building else config.hang_timeout_s
            if rung.worker.busy_for() <= limit:
                continue
            rung.late += rung.worker.late_results
            rung.worker.close()
            if rung.factory is None or rung.respawns >= config.max_respawns:
                again = " again" if rung.respawns else ""
                rung.disabled = f"hung{again} for more than {limit:g} s"
                continue
            rung.respawns += 1
            rung.building, rung.retry_at = True, now
            rung.worker = TierWorker(rung.name, rung.factory, self._clock)

    def _check_pin(self, config: LadderConfig) -> None:
        names = [rung.name for rung in self._rungs] + [self._floor.name]
        if config.pin and config.pin not in names:
            raise ValueError(f"pin {config.pin!r} is not a tier of this ladder: {', '.join(names)}")
