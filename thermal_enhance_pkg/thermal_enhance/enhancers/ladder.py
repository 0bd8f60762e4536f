"""The quality ladder: every frame leaves, by the best tier that can make it in time."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from thermal_enhance.enhancers.base import EnhancedFrame, Enhancer, EnhanceRequest, LoadingEnhancer
from thermal_enhance.enhancers.passthrough import PassthroughEnhancer
from thermal_enhance.enhancers.worker import TierWorker, describe_error

Factory = Callable[[], Enhancer]
_SHARE_OF_PERIOD = 0.9
"""What a model may take of a frame period on average: the rest is for reading and publishing."""


@dataclass(frozen=True)
class LadderConfig:
    """Parameters of `QualityLadder`.

    Attributes:
        deadline_s: time for one frame, all tiers together; None for no deadline (offline).
        climb_after_s: how long a tier that failed is left alone the first time.
        backoff_factor: how much longer each further time.
        backoff_cap_s: and at most how long.
        hang_timeout_s: a call that runs longer has hung; its worker is abandoned.
        build_timeout_s: the same for building a tier anew.
        max_respawns: how often a hung tier is built anew before it is disabled.
        window: calls over which an inline tier's 95th percentile, and a model's mean time, are taken.
        hold_rate: step down from a model whose mean time is more than a frame period; otherwise it works on
            the newest frame and the others are lost.
        pin: name of the one tier to use, without deadlines or backing off; empty for the whole ladder.
    """

    deadline_s: float | None = 0.1
    climb_after_s: float = 2.0
    backoff_factor: float = 2.0
    backoff_cap_s: float = 60.0
    hang_timeout_s: float = 10.0
    build_timeout_s: float = 300.0
    max_respawns: int = 1
    window: int = 20
    hold_rate: bool = True
    pin: str = ""

    def __post_init__(self) -> None:
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ValueError(f"deadline_s must be positive (None for no deadline), not {self.deadline_s}")
        for name in ("climb_after_s", "backoff_cap_s", "hang_timeout_s", "build_timeout_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, not {value}")
        if self.backoff_factor < 1 or self.max_respawns < 0 or self.window < 4:
            raise ValueError("backoff_factor must be at least 1, max_respawns 0, window 4")


@dataclass(frozen=True)
class TierStatus:
    """One tier as diagnostics see it.

    Attributes:
        name: of the tier.
        state: ok, busy, backing_off or disabled.
        reason: why it is not ok, or the last trouble it had.
        retry_in_s: seconds until it is tried again; 0 unless backing off.
        frames: how many frames it made.
        troubles: how many frames it did not make, by reason.
        late_results: results that came after their deadline.
        p95_ms: 95th percentile of its recent times, milliseconds; NaN before the first.
        detail: which model it runs, on what; empty for tiers without one and before it is loaded.
    """

    name: str
    state: str
    reason: str
    retry_in_s: float
    frames: int
    troubles: dict[str, int]
    late_results: int
    p95_ms: float
    detail: str = ""


@dataclass(frozen=True)
class LadderStatus:
    """The ladder as diagnostics see it.

    Attributes:
        current: tier that made the latest frame; empty before the first.
        reason: why it was not the top one; empty if it was.
        tiers: best first.
    """

    current: str
    reason: str
    tiers: tuple[TierStatus, ...]


@dataclass(eq=False)
class _Rung:
    """A tier and what has happened to it."""

    enhancer: Enhancer
    factory: Factory | None
    window: int
    worker: TierWorker | None = None
    failures: int = 0
    failed_at: float = -math.inf
    retry_at: float = -math.inf
    reason: str = ""
    disabled: str = ""
    respawns: int = 0
    building: bool = False
    running: bool = False
    removed: bool = False
    frames: int = 0
    late: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    times: deque[float] = field(default_factory=deque)
    loads: bool = False

    def __post_init__(self) -> None:
        self.times = deque(maxlen=self.window)
        self.loads = isinstance(self.enhancer, LoadingEnhancer)

    @property
    def name(self) -> str:
        return self.enhancer.name

    @property
    def building_what(self) -> str:
        return "starting anew" if self.respawns else "loading"

    def p95(self) -> float:
        return float(np.percentile(self.times, 95)) if self.times else math.nan

    def close(self) -> None:
        """Never waits: an isolated tier closes on its own thread, when that comes back."""
        if self.worker is not None:
            self.worker.close()
        elif not self.running:
            self.enhancer.close()


class QualityLadder:
    """Tries the tiers from the best down, for each frame anew; itself an `Enhancer` that does not raise.

    A tier that is late, raises, or gives something that is no valid frame is left out of this very frame and
    then for a while that doubles with every further failure. Tiers with `isolated = True` run on a
    `TierWorker` and may hang; the others run on the caller's thread and are judged by the 95th percentile of
    their times. Below all of them lies passthrough, which cannot fail.

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
        self._floor_rung = _Rung(self._floor, None, self._config.window)
        self._rungs: list[_Rung] = []
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
            rung = _Rung(enhancer, factory or getattr(enhancer, "factory", None), self._config.window)
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
            tiers = tuple(self._status_of(rung, now) for rung in [*self._rungs, self._floor_rung])
            return LadderStatus(self._current, self._reason, tiers)

    def _try(
        self, rung: _Rung, request: EnhanceRequest, config: LadderConfig, began: float, below: list[_Rung]
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
            waiting = self._not_ready(rung, request, config)
            if waiting:
                return None, waiting
            rung.running = True
        timeout = None
        if config.deadline_s is not None and not config.pin:
            timeout = max(0.1 * config.deadline_s, config.deadline_s - (now - began) - _reserve(below))
        try:
            if rung.worker is not None:
                outcome = rung.worker.call(request, timeout)
                frame, reason = outcome.frame, outcome.reason
            else:
                frame, reason = rung.enhancer(request), ""
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
            if reason != "busy":  # the deadline it missed has been counted against it
                self._fail(rung, reason, config)
            return None, reason
        self._succeed(rung, took, config, request.period_s)
        return frame, ""

    def _not_ready(self, rung: _Rung, request: EnhanceRequest, config: LadderConfig) -> str:
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

    def _fail(self, rung: _Rung, reason: str, config: LadderConfig) -> None:
        with self._lock:
            now = self._clock()
            pause = min(config.climb_after_s * config.backoff_factor**rung.failures, config.backoff_cap_s)
            rung.failures = min(rung.failures + 1, 64)
            rung.failed_at, rung.retry_at, rung.reason = now, now + pause, reason
            rung.times.clear()

    def _succeed(self, rung: _Rung, took: float, config: LadderConfig, period_s: float) -> None:
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

    def _leave(self, rung: _Rung, frame: EnhancedFrame, reason: str) -> EnhancedFrame:
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

    def _status_of(self, rung: _Rung, now: float) -> TierStatus:
        wait = max(0.0, rung.retry_at - now)
        state, reason = "ok", rung.reason
        if rung.disabled:
            state, reason = "disabled", rung.disabled
        elif rung.worker is not None and rung.worker.busy and not rung.running:
            state, reason = "busy", rung.building_what if rung.building else rung.reason
        elif wait > 0:
            state = "backing_off"
        late = rung.late + (rung.worker.late_results if rung.worker is not None else 0)
        return TierStatus(
            rung.name,
            state,
            reason,
            0.0 if rung.disabled else wait,
            rung.frames,
            dict(rung.troubles),
            late,
            rung.p95() * 1e3,
            _detail(rung),
        )

    def _check_pin(self, config: LadderConfig) -> None:
        names = [rung.name for rung in self._rungs] + [self._floor.name]
        if config.pin and config.pin not in names:
            raise ValueError(f"pin {config.pin!r} is not a tier of this ladder: {', '.join(names)}")


def defect(frame: EnhancedFrame, request: EnhanceRequest) -> str:
    """Why a tier's result must not leave; empty for a valid one.

    Non-finite pixels are allowed where the input had none finite to offer either.
    """
    given, made = request.thermal, frame.thermal
    size = (given.size[0] * request.scale, given.size[1] * request.scale)
    if made.size != size:
        return f"error: output is {made.size[0]}x{made.size[1]}, not {size[0]}x{size[1]}"
    if made.data.dtype != given.data.dtype:
        return f"error: output is {made.data.dtype}, not {given.data.dtype}"
    if (made.stamp_ns, made.frame_id, made.units) != (given.stamp_ns, given.frame_id, given.units):
        return "error: output has another stamp, frame_id or unit than its input"
    if made.data.dtype == np.float32 and not np.isfinite(made.data).all():
        bad = ~np.isfinite(given.data)
        blocks = np.repeat(np.repeat(bad, request.scale, axis=0), request.scale, axis=1)
        if not bad.any() or (~np.isfinite(made.data) & ~blocks).any():
            return "non_finite"
    return ""


def _detail(rung: _Rung) -> str:
    enhancer = rung.worker.enhancer if rung.worker is not None else rung.enhancer
    return enhancer.description if isinstance(enhancer, LoadingEnhancer) else ""


def _reserve(below: list[_Rung]) -> float:
    """Time to keep back for the inline tier that would have to step in."""
    inline = [rung.p95() for rung in below if rung.worker is None and not rung.disabled and rung.times]
    return max(inline, default=0.0)
