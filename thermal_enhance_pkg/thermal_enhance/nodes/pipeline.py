"""The enhancement pipeline of a node: frames in from any thread, results out in stamp order from one.

Callbacks only enqueue (`push_thermal`, `push_color`); one worker thread pairs, decodes and enhances.
Nothing is queued beyond what pairing needs: when work piles up the newest frame wins and the others
are counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from thermal_enhance.enhancers.base import EnhancedFrame, EnhanceRequest
from thermal_enhance.enhancers.ladder import QualityLadder
from thermal_enhance.imaging.encodings import decode_color, decode_thermal, default_units, thermal_encoding
from thermal_enhance.imaging.frames import ColorFrame, FfcState, ThermalFrame, Units
from thermal_enhance.imaging.raw import EncodingError, RawImage
from thermal_enhance.imaging.shutter import ShutterConfig, ShutterDetector
from thermal_enhance.imaging.telemetry import parse_lepton, split_telemetry
from thermal_enhance.imaging.tone import ToneConfig, ToneCurve
from thermal_enhance.nodes.age import AgeGauge
from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.statistics import FrameStatistics
from thermal_enhance.nodes.synchronizer import JUMP_NS, FramePair, Synchronizer, make_synchronizer
from thermal_enhance.nodes.topics import ImageItem
from thermal_enhance.pairing.clock import Jump, JumpDetector
from thermal_enhance.tasks.policy import PolicyConfig, RoutingPolicy

GAP_S = 1.0
"""A stream that paused longer than this starts afresh: what the tiers remember is stale."""


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
        prompt_hash: its prompt's hash.
        ffc_state: shutter state.
        value_range: (low, high) of the stream's tone curve.
        arrival_ns: when the thermal message arrived, monotonic.
        stage_ms: time by stage so far, milliseconds.
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


@dataclass
class _StreamState:
    """What is remembered of the thermal stream; dropped as a whole when the stream changes."""

    signature: tuple[object, ...] | None = None
    last_stamp_ns: int | None = None
    scale: int = 1
    service_s: float = 0.0
    period_s: float = field(default=0.0)


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
        self._publish = publish
        self._statistics = statistics
        self._now_ns = now_ns
        self._log = log
        self._condition = threading.Condition()
        self._synchronizer: Synchronizer = make_synchronizer(config, ladder.uses_rgb)
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._in_flight = 0
        self._policy: RoutingPolicy | None = None
        self._external_ffc: FfcState | None = None
        self._ffc_state = FfcState.NEVER
        self._shutter = ShutterDetector(ShutterConfig(freeze_s=config.freeze_after))
        self._jump = JumpDetector(JUMP_NS)
        self._tone = ToneCurve(ToneConfig(time_constant_s=config.tone_time_constant))
        self._age = AgeGauge()
        self._stream = _StreamState()
        self._color_cache: tuple[int, ColorFrame] | None = None
        self._pending_resets: list[str] = []

    # ---- called from any thread -------------------------------------------------------------

    def push_thermal(self, image: ImageItem, arrival_ns: int) -> None:
        """Enqueue a thermal frame."""
        with self._condition:
            if self._stopping:
                self._statistics.drop("inactive")
                return
            self._synchronizer.add_thermal(image, arrival_ns)
            self._condition.notify()

    def push_color(self, image: ImageItem, arrival_ns: int) -> None:
        """Enqueue an RGB frame."""
        with self._condition:
            if not self._stopping:
                self._synchronizer.add_color(image, arrival_ns)
                self._condition.notify()

    def set_ffc(self, state: FfcState | None) -> None:
        """What the camera's own shutter signal says; None when there is none."""
        self._external_ffc = state

    def set_tasks(self, policy: PolicyConfig) -> None:
        """Use these tasks from the next frame on."""
        # One assignment: the worker sees the old policy or the new one, never half of each.
        self._policy = RoutingPolicy(policy) if policy.tasks else None

    def set_ladder(self, ladder: QualityLadder) -> QualityLadder:
        """Use another ladder from the next frame on; returns the old one for closing."""
        with self._condition:
            old, self._ladder = self._ladder, ladder
            self._synchronizer.configure(self._config, ladder.uses_rgb)
            return old

    def configure(self, config: EnhancementConfig) -> None:
        """Take over changed parameters from the next frame on."""
        with self._condition:
            self._config = config
            self._synchronizer.configure(config, self._ladder.uses_rgb)
            self._shutter = ShutterDetector(ShutterConfig(freeze_s=config.freeze_after))

    def reset(self, reason: str) -> None:
        """Forget the past of the streams (the clock jumped, for example)."""
        with self._condition:
            self._statistics.drop("jump", self._synchronizer.reset(reason))
            self._pending_resets.append(reason)

    @property
    def ffc_state(self) -> FfcState:
        """Shutter state after the last frame."""
        return self._ffc_state

    @property
    def nearest_miss_ms(self) -> float | None:
        """How far the nearest RGB stamp was from the last thermal frame that found none in the slop."""
        return self._synchronizer.nearest_miss_ms

    @property
    def clock_offset_s(self) -> float | None:
        """Smallest age of recent stamps on arrival: large when the camera's clock is not the node's."""
        return self._age.baseline_s

    def start(self) -> None:
        """Start the worker."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="enhancement", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Stop the worker; frames that wait are counted as dropped, the one at work is finished."""
        with self._condition:
            self._stopping = True
            self._statistics.drop("inactive", self._synchronizer.reset("stop"))
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                self._log("error", "the enhancement thread did not stop; it is abandoned")
                self._statistics.drop("inactive", self._in_flight)
            self._thread = None

    def drain(self, timeout_s: float = 2.0) -> None:
        """Wait until everything that arrived has been published or dropped."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            with self._condition:
                if self._in_flight == 0 and self._synchronizer.waiting == 0:
                    return
            time.sleep(0.005)

    # ---- the worker -------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                pairs = self._next_pairs()
                if self._stopping:
                    self._statistics.drop("inactive", len(pairs))
                    return
                self._in_flight = len(pairs)
            for pair in pairs:
                self._process(pair)
                self._in_flight -= 1

    def _next_pairs(self) -> list[FramePair]:
        while True:
            if self._stopping:
                return []
            ready = self._synchronizer.poll(time.monotonic_ns())
            for reason, count in self._synchronizer.take_drops().items():
                self._statistics.drop(reason, count)
            if ready:
                return self._newest(ready)
            wait_ns = self._synchronizer.next_deadline_ns()
            timeout = 0.5 if wait_ns is None else max(0.0, (wait_ns - time.monotonic_ns()) * 1e-9)
            self._condition.wait(min(timeout + 2e-4, 0.5))

    def _newest(self, ready: list[FramePair]) -> list[FramePair]:
        """The newest frame; the others too where a resent fragment or an RGB frame released a burst that fits
        into one frame period: then nothing is gained by losing them."""
        stream = self._stream
        burst_fits = stream.service_s * len(ready) <= stream.period_s
        if len(ready) == 1 or burst_fits:
            return ready
        self._statistics.drop("superseded", len(ready) - 1)
        return ready[-1:]

    def _process(self, pair: FramePair) -> None:
        start = time.monotonic()
        try:
            self._enhance(pair, start)
        except EncodingError as error:
            self._statistics.drop(f"malformed_{error.reason}")
            self._log("warn", f"thermal frame refused: {error}")
        except Exception as error:
            # Whatever happens to one frame, the next one is served.
            self._statistics.drop("error")
            self._log("error", f"frame lost to an unexpected {type(error).__name__}: {error}")
        duration = time.monotonic() - start
        stream = self._stream
        stream.service_s = duration if stream.service_s == 0.0 else 0.8 * stream.service_s + 0.2 * duration

    def _enhance(self, pair: FramePair, start: float) -> None:
        config = self._config
        raw = pair.thermal
        stages = {
            "pairing": (pair.ready_ns - pair.arrival_ns) * 1e-6,
            "queue": start * 1e3 - pair.ready_ns * 1e-6,
        }
        age = self._age.update(raw.stamp_ns, self._now_ns(), (start * 1e9 - pair.arrival_ns) * 1e-9)
        if config.max_age > 0 and age > config.max_age:
            self._statistics.drop("stale")
            return
        for reason in self._take_resets():
            self._reset_stream(reason)
        self._watch_stamps(raw.stamp_ns)

        data = decode_thermal(raw)
        telemetry_ffc = None
        if config.telemetry_rows:
            data, rows = split_telemetry(data, config.telemetry_rows, config.telemetry_position)
            telemetry = parse_lepton(rows) if rows is not None else None
            telemetry_ffc = telemetry.ffc_state if telemetry is not None else None
        encoding = _encoding_of(raw)
        units = (
            default_units(encoding, data.dtype)
            if config.thermal_units == "auto"
            else Units(config.thermal_units)
        )
        frame = ThermalFrame(data, units, raw.stamp_ns, raw.frame_id)
        self._watch_signature(frame, encoding)

        event = self._shutter.update(
            data, raw.stamp_ns, self._external_ffc if telemetry_ffc is None else telemetry_ffc
        )
        self._ffc_state = event.ffc_state
        if event.duplicate and config.drop_duplicates and not event.frozen:
            self._statistics.drop("duplicate")
            return
        if event.reset:
            self._reset_stream("ffc")
        value_range = self._tone.update(data, raw.stamp_ns)
        color = self._color_of(pair)
        task = self._policy.next(frozenset()) if self._policy is not None else config.task
        stages["decode"] = (time.monotonic() - start) * 1e3

        enhance_start = time.monotonic()
        enhanced = self._ladder(
            EnhanceRequest(
                thermal=frame,
                color=color,
                scale=self._stream.scale,
                pair_skew_s=pair.skew_ns * 1e-9 if pair.skew_ns is not None else float("nan"),
                task=task,
                value_range=value_range,
            )
        )
        stages["enhance"] = (time.monotonic() - enhance_start) * 1e3
        stages.update({f"enhance/{stage}": value for stage, value in enhanced.stage_ms.items()})
        self._publish(
            FrameResult(
                frame=enhanced,
                encoding=thermal_encoding(enhanced.thermal.data.dtype, like=encoding),
                scale=self._stream.scale,
                input_frame=frame,
                pair=pair,
                task=task,
                prompt_hash="",
                ffc_state=event.ffc_state,
                value_range=value_range,
                arrival_ns=pair.arrival_ns,
                stage_ms=stages,
            )
        )

    def _color_of(self, pair: FramePair) -> ColorFrame | None:
        if pair.color is None or not self._config.use_rgb or not self._ladder.uses_rgb:
            return None
        if self._color_cache is not None and self._color_cache[0] == pair.color.stamp_ns:
            return self._color_cache[1]
        try:
            data = decode_color(pair.color)
        except EncodingError as error:
            self._statistics.event(f"rgb_malformed_{error.reason}")
            self._log("warn", f"RGB frame refused: {error}")
            return None
        stamp_ns = pair.color.stamp_ns + round(self._config.rgb_offset * 1e9)
        color = ColorFrame(np.ascontiguousarray(data), stamp_ns, pair.color.frame_id)
        self._color_cache = (pair.color.stamp_ns, color)
        return color

    # ---- what the stream remembers ----------------------------------------------------------

    def _take_resets(self) -> list[str]:
        with self._condition:
            reasons, self._pending_resets = self._pending_resets, []
        return reasons

    def _watch_stamps(self, stamp_ns: int) -> None:
        stream = self._stream
        if self._jump.update(stamp_ns) is Jump.BACKWARD:
            self._reset_stream("stamp_jump")
        elif stream.last_stamp_ns is not None:
            step = (stamp_ns - stream.last_stamp_ns) * 1e-9
            if step > GAP_S:
                self._reset_stream("gap")
            elif step > 0:
                stream.period_s = step if stream.period_s == 0.0 else 0.9 * stream.period_s + 0.1 * step
        self._stream.last_stamp_ns = stamp_ns

    def _watch_signature(self, frame: ThermalFrame, encoding: str) -> None:
        signature = (frame.size, encoding, frame.frame_id)
        if self._stream.signature != signature:
            if self._stream.signature is not None:
                self._reset_stream("format")
                self._log("info", f"thermal stream changed to {frame.size[0]}x{frame.size[1]} {encoding}")
            self._stream.signature = signature
        self._stream.scale = choose_scale(self._config, frame.size)

    def _reset_stream(self, reason: str) -> None:
        self._statistics.event(f"reset_{reason}")
        self._ladder.reset(reason)
        self._color_cache = None
        if reason in ("format", "stamp_jump"):
            self._tone.reset(reason)
            self._shutter = ShutterDetector(ShutterConfig(freeze_s=self._config.freeze_after))
        if reason == "stamp_jump":
            self._age = AgeGauge()


def choose_scale(config: EnhancementConfig, size: tuple[int, int]) -> int:
    """The configured scale, or the largest of 8, 4, 2, 1 whose output has at most max_output_pixels."""
    if config.scale:
        return config.scale
    pixels = size[0] * size[1]
    return next((s for s in (8, 4, 2) if pixels * s * s <= config.max_output_pixels), 1)


def _encoding_of(image: ImageItem) -> str:
    return image.encoding if isinstance(image, RawImage) else image.format
