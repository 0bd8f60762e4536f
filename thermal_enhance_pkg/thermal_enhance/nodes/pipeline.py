"""The enhancement pipeline of a node: frames in from any thread, results out in stamp order from one.

Callbacks only enqueue (`push_thermal`, `push_color`); one worker thread pairs, decodes and enhances.
Nothing is queued beyond what pairing needs: when work piles up the newest frame wins and the others
are counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from thermal_enhance.enhancers.base import EnhancedFrame, EnhanceRequest
from thermal_enhance.enhancers.ladder import QualityLadder
from thermal_enhance.imaging.encodings import decode_color, thermal_encoding
from thermal_enhance.imaging.frames import ColorFrame, FfcState, ThermalFrame
from thermal_enhance.imaging.raw import EncodingError
from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.outlet import Outlet
from thermal_enhance.nodes.statistics import FrameStatistics
from thermal_enhance.nodes.stream import FrameDropped, ThermalStream
from thermal_enhance.nodes.synchronizer import FramePair, Synchronizer, make_synchronizer
from thermal_enhance.nodes.topics import ImageItem
from thermal_enhance.tasks.policy import PolicyConfig, RoutingPolicy


@dataclass(frozen=True)
class FrameResult:
    """One finished frame, for the node to publish.

    Attributes:
        frame: the enhancer's result.
        encoding: ROS encoding of the output.
        scale: output size over input size.
        input_frame: the decoded thermal input.
        pair: what it was paired with.
        task: active task, empty for none.
        prompt_hash: its prompt's hash; empty while the task has no prompt.
        ffc_state: shutter state.
        value_range: (low, high) of the stream's tone curve.
        arrival_ns: when the thermal message arrived, monotonic.
        stage_ms: time by stage so far, milliseconds.
        interpolated: it lies between two real frames; `input_frame` and `arrival_ns` are the later one's.
        aside: it is for the topics of interpolated frames, not for those of the stream.
    """

    frame: EnhancedFrame
    encoding: str
    scale: int
    input_frame: ThermalFrame
    pair: FramePair
    task: str
    prompt_hash: str
    ffc_state: FfcState
    value_range: tuple[float, float]
    arrival_ns: int
    stage_ms: dict[str, float]
    interpolated: bool = False
    aside: bool = False


@dataclass(frozen=True)
class _Context:
    """What is known of an input frame beside its pixels; a tier that looks ahead gives its picture later."""

    stamp_ns: int
    pair: FramePair
    ffc_state: FfcState
    value_range: tuple[float, float]


@dataclass(eq=False)
class _Worker:
    """One run of the worker thread; what it alone touches goes with it when it is abandoned."""

    stream: ThermalStream
    outlet: Outlet
    thread: threading.Thread | None = None
    stopping: bool = False
    abandoned: bool = False
    in_flight: int = 0
    service_s: float = 0.0
    color: tuple[int, ColorFrame] | None = None
    configs: list[EnhancementConfig] = field(default_factory=list)
    resets: list[str] = field(default_factory=list)
    recent: deque[_Context] = field(default_factory=lambda: deque(maxlen=4))


class EnhancementPipeline:
    """Pairs, decodes and enhances on a thread of its own.

    Args:
        config: the node's parameters.
        ladder: the tiers.
        publish: called on the worker thread with each result, in stamp order.
        statistics: where every frame is accounted for.
        now_ns: the node's clock (simulated or wall), nanoseconds.
        log: called with (level, sentence); level is "debug", "info", "warn" or "error".
    """

    def __init__(
        self,
        config: EnhancementConfig,
        ladder: QualityLadder,
        publish: Callable[[FrameResult], None],
        statistics: FrameStatistics,
        now_ns: Callable[[], int],
        log: Callable[[str, str], None],
    ) -> None:
        self._config = config
        self._ladder = ladder
        self._retired: list[QualityLadder] = []
        self._publish = publish
        self._statistics = statistics
        self._now_ns = now_ns
        self._log = log
        self._condition = threading.Condition()
        self._synchronizer: Synchronizer = make_synchronizer(config, ladder.uses_rgb)
        self._worker: _Worker | None = None
        self._policy: RoutingPolicy | None = None
        self._external_ffc: FfcState | None = None
        self._period_s = 0.0
        self._last_arrival_ns: int | None = None

    # ---- called from any thread -------------------------------------------------------------

    def push_thermal(self, image: ImageItem, arrival_ns: int) -> None:
        """Enqueue a thermal frame."""
        with self._condition:
            if self._worker is None or self._worker.stopping:
                self._statistics.drop("inactive")
                return
            if self._last_arrival_ns is not None:
                step = (arrival_ns - self._last_arrival_ns) * 1e-9
                self._period_s = step if self._period_s == 0.0 else 0.9 * self._period_s + 0.1 * step
            self._last_arrival_ns = arrival_ns
            self._synchronizer.add_thermal(image, arrival_ns)
            self._condition.notify()

    def push_color(self, image: ImageItem, arrival_ns: int) -> None:
        """Enqueue an RGB frame."""
        with self._condition:
            if self._worker is not None and not self._worker.stopping:
                self._synchronizer.add_color(image, arrival_ns)
                self._condition.notify()

    def set_ffc(self, state: FfcState | None) -> None:
        """What the camera's own shutter signal says; None when there is none."""
        self._external_ffc = state

    def set_tasks(self, policy: PolicyConfig) -> None:
        """Use these tasks from the next frame on."""
        # One assignment: the worker sees the old policy or the new one, never half of each.
        self._policy = RoutingPolicy(policy) if policy.tasks else None

    def set_ladder(self, ladder: QualityLadder) -> None:
        """Use another ladder from the next frame on; the old one is closed between two frames."""
        with self._condition:
            self._retired.append(self._ladder)
            self._ladder = ladder
            self._synchronizer.configure(self._config, ladder.uses_rgb)
            if self._worker is None:
                self._close_retired()

    def configure(self, config: EnhancementConfig) -> None:
        """Take over changed parameters from the next frame on."""
        with self._condition:
            self._config = config
            self._synchronizer.configure(config, self._ladder.uses_rgb)
            if self._worker is not None:
                self._worker.configs.append(config)

    def reset(self, reason: str) -> None:
        """Forget the past of the streams (the clock jumped, for example)."""
        with self._condition:
            self._forget_waiting("jump", reason)
            if self._worker is not None:
                self._worker.resets.append(reason)

    @property
    def ffc_state(self) -> FfcState:
        """Shutter state after the last frame."""
        return self._worker.stream.ffc_state if self._worker is not None else FfcState.NEVER

    @property
    def nearest_miss_ms(self) -> float | None:
        """How far the nearest RGB stamp was from the last thermal frame that found none in the slop."""
        return self._synchronizer.nearest_miss_ms

    @property
    def rgb_drops(self) -> dict[str, int]:
        """RGB frames that served no thermal frame, by reason."""
        return self._synchronizer.rgb_drops

    @property
    def clock_offset_s(self) -> float | None:
        """Smallest age of recent stamps on arrival: large when the camera's clock is not the node's."""
        return self._worker.stream.clock_offset_s if self._worker is not None else None

    def start(self) -> None:
        """Start the worker."""
        outlet = Outlet(self._publish, self._statistics, self._log)
        worker = _Worker(ThermalStream(self._config, self._log), outlet)
        worker.thread = threading.Thread(target=self._run, args=(worker,), name="enhancement", daemon=True)
        with self._condition:
            self._worker = worker
            self._last_arrival_ns = None
        worker.thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Stop the worker; frames that wait are counted as dropped, the one at work is finished."""
        with self._condition:
            worker = self._worker
            if worker is None:
                return
            worker.stopping = True
            self._forget_waiting("inactive", "stop")
            self._condition.notify()
        assert worker.thread is not None
        worker.thread.join(timeout_s)
        with self._condition:
            if worker.thread.is_alive():
                # Its frames are given up here and now; whatever it still does is not published.
                worker.abandoned = True
                self._statistics.drop("inactive", worker.in_flight)
                self._log("error", "the enhancement thread did not stop; it is abandoned")
            self._worker = None
            self._close_retired()

    def drain(self, timeout_s: float = 2.0) -> None:
        """Wait until everything that arrived has been published or dropped."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            with self._condition:
                busy = self._worker.in_flight if self._worker is not None else 0
                if busy == 0 and self._synchronizer.waiting == 0:
                    return
            time.sleep(0.005)

    def _forget_waiting(self, count_as: str, reason: str) -> None:
        """Empty the synchronizer; its own drops first, which a reset would forget."""
        self._count_drops()
        self._statistics.drop(count_as, self._synchronizer.reset(reason))

    def _count_drops(self) -> None:
        for reason, count in self._synchronizer.take_drops().items():
            self._statistics.drop(reason, count)

    def _close_retired(self) -> None:
        for ladder in self._retired:
            ladder.close()
        self._retired.clear()

    # ---- the worker -------------------------------------------------------------------------

    def _run(self, worker: _Worker) -> None:
        while True:
            with self._condition:
                pairs = self._next_pairs(worker)
                if not pairs:
                    return
                worker.in_flight = len(pairs)
            for pair in pairs:
                self._process(worker, pair)
                with self._condition:
                    if worker.abandoned:
                        return
                    worker.in_flight -= 1

    def _next_pairs(self, worker: _Worker) -> list[FramePair]:
        """The next frames to work on; none once the worker is to stop."""
        while not worker.stopping:
            ready = self._synchronizer.poll(time.monotonic_ns())
            self._count_drops()
            if ready:
                return self._newest(worker, ready)
            wait_ns = self._synchronizer.next_deadline_ns()
            timeout = 0.5 if wait_ns is None else max(0.0, (wait_ns - time.monotonic_ns()) * 1e-9)
            self._condition.wait(min(timeout + 2e-4, 0.5))
        return []

    def _newest(self, worker: _Worker, ready: list[FramePair]) -> list[FramePair]:
        """The newest frame; the others of a burst too where they fit into one frame period.

        A resent fragment or one RGB frame can release several frames at once; nothing is gained by losing
        those that the worker can catch up with.
        """
        burst_fits = 0.0 < worker.service_s * len(ready) <= self._period_s
        if len(ready) == 1 or burst_fits:
            return ready
        self._statistics.drop("superseded", len(ready) - 1)
        return ready[-1:]

    def _process(self, worker: _Worker, pair: FramePair) -> None:
        start = time.monotonic()
        dropped = ""
        try:
            result = self._enhance(worker, pair, start)
            with self._condition:
                if worker.abandoned:
                    return
            dropped = worker.outlet.send(result, self._config.newest_first)
        except FrameDropped as drop:
            dropped = drop.reason
            self._tell_tiers(worker, self._ladder, drop.resets)
        except EncodingError as error:
            dropped = f"malformed_{error.reason}"
            self._log("warn", f"thermal frame refused: {error}")
        except Exception as error:
            # Whatever happens to one frame, the next one is served.
            dropped = "error"
            self._log("error", f"frame lost to an unexpected {type(error).__name__}: {error}")
        if dropped:
            with self._condition:
                if not worker.abandoned:
                    self._statistics.drop(dropped)
            return
        duration = time.monotonic() - start
        worker.service_s = duration if worker.service_s == 0.0 else 0.8 * worker.service_s + 0.2 * duration

    def _enhance(self, worker: _Worker, pair: FramePair, start: float) -> FrameResult:
        with self._condition:
            configs, worker.configs = worker.configs, []
            pending, worker.resets = worker.resets, []
            ladder = self._ladder
            self._close_retired()
            config = self._config
            period_s = self._period_s or float("nan")
        for changed in configs:
            worker.stream.configure(changed)
        stages = {
            "pairing": (pair.ready_ns - pair.arrival_ns) * 1e-6,
            "queue": start * 1e3 - pair.ready_ns * 1e-6,
        }
        waited_s = start - pair.arrival_ns * 1e-9
        frame = worker.stream.read(pair, self._now_ns(), waited_s, self._external_ffc, pending)
        self._tell_tiers(worker, ladder, frame.resets)
        color = self._color_of(worker, pair, config)
        policy = self._policy
        task = policy.next(frozenset()) if policy is not None else config.task
        stages["decode"] = (time.monotonic() - start) * 1e3

        enhance_start = time.monotonic()
        enhanced = ladder(
            EnhanceRequest(
                thermal=frame.thermal,
                color=color,
                scale=frame.scale,
                pair_skew_s=pair.skew_ns * 1e-9 if pair.skew_ns is not None else float("nan"),
                task=task,
                value_range=frame.value_range,
                period_s=period_s,
                shutter_closed=frame.ffc_state is FfcState.IN_PROGRESS,
            )
        )
        now = _Context(frame.thermal.stamp_ns, pair, frame.ffc_state, frame.value_range)
        known = _context_of(worker, enhanced, now)
        stages["enhance"] = (time.monotonic() - enhance_start) * 1e3
        stages.update({f"enhance/{stage}": value for stage, value in enhanced.stage_ms.items()})
        return FrameResult(
            frame=enhanced,
            encoding=thermal_encoding(enhanced.thermal.data.dtype, like=frame.encoding),
            scale=frame.scale,
            input_frame=enhanced.observed or frame.thermal,
            pair=known.pair,
            task=task,
            prompt_hash="",
            ffc_state=known.ffc_state,
            value_range=known.value_range,
            arrival_ns=known.pair.arrival_ns,
            stage_ms=stages,
        )

    def _tell_tiers(self, worker: _Worker, ladder: QualityLadder, resets: tuple[str, ...]) -> None:
        """Have a ladder forget: the one that makes this frame, whatever has taken its place meanwhile."""
        if {"stamp_jump", "clock_jump"} & set(resets):
            worker.outlet.restart()
            worker.recent.clear()
        for reason in resets:
            self._statistics.event(f"reset_{reason}")
            ladder.reset(reason)
            worker.color = None

    def _color_of(self, worker: _Worker, pair: FramePair, config: EnhancementConfig) -> ColorFrame | None:
        """The RGB frame, decoded once however many thermal frames it serves."""
        if pair.color is None or not config.use_rgb or not self._ladder.uses_rgb:
            return None
        if worker.color is not None and worker.color[0] == pair.color.stamp_ns:
            return worker.color[1]
        try:
            data = decode_color(pair.color)
        except EncodingError as error:
            self._statistics.event(f"rgb_malformed_{error.reason}")
            self._log("warn", f"RGB frame refused: {error}")
            return None
        stamp_ns = pair.color.stamp_ns + round(config.rgb_offset * 1e9)
        color = ColorFrame(np.ascontiguousarray(data), stamp_ns, pair.color.frame_id)
        worker.color = (pair.color.stamp_ns, color)
        return color


def _context_of(worker: _Worker, enhanced: EnhancedFrame, now: _Context) -> _Context:
    """That of the input which the frame is the picture of: this one, or one before."""
    worker.recent.append(now)
    if enhanced.observed is None:
        return now
    stamp_ns = enhanced.observed.stamp_ns
    return next((known for known in worker.recent if known.stamp_ns == stamp_ns), now)
