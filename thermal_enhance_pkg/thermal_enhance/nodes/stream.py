"""What the enhancement node remembers of the thermal stream: its format, clock, shutter and tone curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.registry import default_scale
from thermal_enhance.imaging.encodings import decode_thermal, default_units
from thermal_enhance.imaging.frames import FfcState, ThermalFrame, Units
from thermal_enhance.imaging.raw import EncodingError, RawImage
from thermal_enhance.imaging.shutter import ShutterConfig, ShutterDetector
from thermal_enhance.imaging.telemetry import parse_lepton, split_telemetry
from thermal_enhance.imaging.tone import ToneConfig, ToneCurve
from thermal_enhance.nodes.age import AgeGauge
from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.foreign import decode_foreign
from thermal_enhance.nodes.synchronizer import JUMP_NS, FramePair
from thermal_enhance.nodes.topics import ImageItem
from thermal_enhance.pairing.clock import Jump, JumpDetector

GAP_S = 1.0
"""A stream that paused longer than this starts afresh: what the tiers remember is stale."""


class FrameDropped(Exception):  # noqa: N818  (control flow, reads as what it says)
    """A frame that will not be enhanced.

    Attributes:
        reason: what it is counted under.
        resets: why the tiers must forget the past all the same.
    """

    def __init__(self, reason: str, resets: list[str]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.resets = tuple(resets)


@dataclass(frozen=True)
class StreamFrame:
    """A thermal frame as the tiers get it.

    Attributes:
        thermal: decoded, without telemetry rows.
        encoding: ROS encoding or compressed format it came in.
        ffc_state: shutter state.
        value_range: (low, high) of the stream's tone curve.
        scale: output size over input size.
        resets: why the tiers must forget the past before this frame, in order; usually empty.
    """

    thermal: ThermalFrame
    encoding: str
    ffc_state: FfcState
    value_range: tuple[float, float]
    scale: int
    resets: tuple[str, ...]


class ThermalStream:
    """Reads one thermal stream. Belongs to the worker thread.

    Args:
        config: the node's parameters.
        log: called with (level, sentence).
    """

    def __init__(self, config: EnhancementConfig, log: Callable[[str, str], None]) -> None:
        self._config = config
        self._log = log
        self._jump = JumpDetector(JUMP_NS)
        self._signature: tuple[object, ...] | None = None
        self._last_stamp_ns: int | None = None
        self._age = AgeGauge()
        self._shutter = self._new_shutter()
        self._tone = self._new_tone()
        self.ffc_state = FfcState.NEVER

    @property
    def clock_offset_s(self) -> float | None:
        """Smallest age of recent stamps on arrival; None before the first."""
        return self._age.baseline_s

    def configure(self, config: EnhancementConfig) -> None:
        """Take over changed parameters; what they do not concern is kept."""
        old, self._config = self._config, config
        if config.freeze_after != old.freeze_after:
            self._shutter = self._new_shutter()
        if config.tone_time_constant != old.tone_time_constant:
            self._tone = self._new_tone()

    def read(
        self, pair: FramePair, now_ns: int, waited_s: float, ffc: FfcState | None, pending: list[str]
    ) -> StreamFrame:
        """Decode a frame and say what it means for the stream.

        Args:
            pair: the frame.
            now_ns: the node's clock.
            waited_s: time since its arrival.
            ffc: shutter state from a topic, or None.
            pending: resets asked for from outside (clock jumps).

        Raises:
            FrameDropped: it is too old, or a repeat that is not wanted.
            EncodingError: it cannot be read.
        """
        config = self._config
        raw = pair.thermal
        resets = list(pending)
        self._watch_stamps(raw.stamp_ns, resets)
        if {"clock_jump", "stamp_jump"} & set(resets):
            self._age = AgeGauge()
        age = self._age.update(raw.stamp_ns, now_ns, waited_s)
        if config.max_age > 0 and age > config.max_age:
            raise FrameDropped("stale", resets)

        data, telemetry_ffc = self._decode(raw)
        encoding = raw.encoding if isinstance(raw, RawImage) else raw.format
        thermal = ThermalFrame(data, self._units(encoding, data.dtype), raw.stamp_ns, raw.frame_id)
        self._watch_signature(thermal, encoding, resets)
        if {"format", "stamp_jump"} & set(resets):
            self._tone.reset(resets[-1])
            self._shutter = self._new_shutter()

        event = self._shutter.update(data, raw.stamp_ns, ffc if telemetry_ffc is None else telemetry_ffc)
        self.ffc_state = event.ffc_state
        if event.reset and "format" not in resets:
            resets.append("ffc")
        if event.duplicate and config.drop_duplicates and not event.frozen:
            raise FrameDropped("duplicate", resets)
        return StreamFrame(
            thermal=thermal,
            encoding=encoding,
            ffc_state=event.ffc_state,
            value_range=self._tone.update(data, raw.stamp_ns),
            scale=choose_scale(config, thermal.size),
            resets=tuple(resets),
        )

    def _decode(self, raw: ImageItem) -> tuple[NDArray[Any], FfcState | None]:
        """(picture, shutter state of the telemetry or None)."""
        try:
            data = decode_thermal(raw)
        except EncodingError as error:
            if error.reason != "unsupported_encoding" or not isinstance(raw, RawImage):
                raise
            data = decode_foreign(raw, error)
        config = self._config
        if not config.telemetry_rows:
            return data, None
        picture, rows = split_telemetry(data, config.telemetry_rows, config.telemetry_position)
        telemetry = parse_lepton(rows) if rows is not None else None
        if telemetry is None:
            self._log(
                "warn",
                f"the {config.telemetry_rows} rows stripped as telemetry do not read as telemetry: "
                "switch it on in the camera, or set telemetry_rows to 0 so that no picture is lost",
            )
            return picture, None
        return picture, telemetry.ffc_state

    def _units(self, encoding: str, dtype: np.dtype) -> Units:
        natural = default_units(encoding, dtype)
        if self._config.thermal_units == "auto":
            return natural
        chosen = Units(self._config.thermal_units)
        if natural is Units.AGC8 and chosen.radiometric:
            self._log(
                "warn",
                f"thermal_units is {chosen.value} but the frames are 8-bit ({encoding}): the camera's own "
                "gain control is on, so they are treated as agc8; switch the camera to its 16-bit format",
            )
            return natural
        return chosen

    def _watch_stamps(self, stamp_ns: int, resets: list[str]) -> None:
        jump = self._jump.update(stamp_ns)
        if jump is Jump.BACKWARD:
            resets.append("stamp_jump")
        elif self._last_stamp_ns is not None and stamp_ns - self._last_stamp_ns > GAP_S * 1e9:
            resets.append("gap")
        if jump is Jump.FORWARD:
            # Hours ahead or a pause: either way the ages of before say nothing about those to come.
            self._age = AgeGauge()
        self._last_stamp_ns = stamp_ns

    def _watch_signature(self, frame: ThermalFrame, encoding: str, resets: list[str]) -> None:
        signature = (frame.size, encoding, frame.frame_id)
        if self._signature is not None and self._signature != signature:
            resets.append("format")
            self._log("info", f"thermal stream changed to {frame.size[0]}x{frame.size[1]} {encoding}")
        self._signature = signature

    def _new_shutter(self) -> ShutterDetector:
        return ShutterDetector(ShutterConfig(freeze_s=self._config.freeze_after))

    def _new_tone(self) -> ToneCurve:
        return ToneCurve(ToneConfig(time_constant_s=self._config.tone_time_constant))


def choose_scale(config: EnhancementConfig, size: tuple[int, int]) -> int:
    """The configured scale, or the largest of 8, 4, 2, 1 whose output has at most max_output_pixels.

    A mode whose models make one scale only has that for the largest.
    """
    if config.scale:
        return config.scale
    pixels = size[0] * size[1]
    largest = default_scale(config.mode) if config.mode.endswith("temporal") else 8
    fitting = (s for s in (8, 4, 2) if s <= largest and pixels * s * s <= config.max_output_pixels)
    return next(fitting, 1)
