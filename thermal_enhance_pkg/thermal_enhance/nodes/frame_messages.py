"""Clips as the messages two cameras would send: rates, stamps, clock offset, jitter, misalignment, units."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.compressed import compress
from thermal_enhance.imaging.encodings import default_units, encode
from thermal_enhance.imaging.frames import Units
from thermal_enhance.imaging.geometry import CameraModel
from thermal_enhance.nodes import cdr
from thermal_enhance.nodes.bag_reader import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, BagMessage, BagTopic
from thermal_enhance.nodes.frame_config import THERMAL_DTYPES, FrameSourceConfig, image_topic, info_topic
from thermal_enhance.nodes.frame_files import FrameError
from thermal_enhance.nodes.frame_source import DEFAULT_RATE, NANO, FrameFolder, area_down

_ENCODINGS = {np.dtype(np.uint8): "mono8", np.dtype(np.uint16): "mono16", np.dtype(np.float32): "32FC1"}
_ZERO_CELSIUS = 273.15


def convert_units(data: NDArray, source: Units, units: Units) -> NDArray:
    """Thermal values in another unit of temperature, as float32.

    Args:
        data: (H, W) values in `source`.
        source: their unit.
        units: the unit wanted; the same unit leaves the array as it is.

    Raises:
        ValueError: counts and agc8 cannot become temperatures, nor the other way round.
    """
    if source is units:
        return data
    per_source, per_unit = source.kelvin_per_unit, units.kelvin_per_unit
    if per_source is None or per_unit is None:
        raise ValueError(f"units: {source.value} cannot become {units.value}: set source_units, or no units")
    kelvin = data.astype(np.float64) * per_source + (_ZERO_CELSIUS if source is Units.CELSIUS else 0.0)
    value = (kelvin - (_ZERO_CELSIUS if units is Units.CELSIUS else 0.0)) / per_unit
    return value.astype(np.float32)


def convert_encoding(data: NDArray, encoding: str) -> NDArray:
    """Thermal values in the pixel type of an encoding, the numbers kept.

    Raises:
        ValueError: they do not fit it.
    """
    dtype: np.dtype = np.dtype(THERMAL_DTYPES[encoding])
    if data.dtype == dtype or dtype.kind == "f":
        return data.astype(dtype, copy=False)
    whole = np.rint(data)
    limit = int(np.iinfo(dtype.name).max)
    if not np.isfinite(whole).all() or whole.min() < 0 or whole.max() > limit:
        raise ValueError(
            f"thermal_encoding {encoding} holds 0 to {limit}, and the frames {data.min()} to {data.max()}: "
            "choose mono16 or 32FC1"
        )
    return whole.astype(dtype)


def read_stamps(path: Path) -> tuple[list[int], list[int | None]]:
    """Thermal and RGB stamps (ns) of a CSV file: a row a frame, in seconds, perhaps with a heading.

    Raises:
        FrameError: unreadable, not numbers, or thermal stamps that do not increase.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row and row[0].strip() and not row[0].startswith("#")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FrameError(f"{path}: cannot be read ({error})") from error
    if rows and _nanoseconds(rows[0][0]) is None:
        rows = rows[1:]
    thermal: list[int] = []
    color: list[int | None] = []
    for number, row in enumerate(rows, 1):
        stamp = _nanoseconds(row[0])
        if stamp is None or (thermal and stamp <= thermal[-1]):
            raise FrameError(f"{path}, frame {number}: '{row[0]}' must be a time (s) later than the last")
        thermal.append(stamp)
        color.append(_nanoseconds(row[1]) if len(row) > 1 else None)
    return thermal, color


def _nanoseconds(text: str) -> int | None:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    return round(value * NANO) if value.is_finite() and abs(value) < 2**31 else None


@dataclass(frozen=True)
class _Stream:
    """What one camera sends; `events` are (arrival, stamp, frame of the clip) in order of arrival."""

    topic: str
    info: str
    frame_id: str
    events: list[tuple[int, int, int]]


class FrameSource:
    """A clip as a recording: the same face as BagReader, made while it is read.

    Messages arrive at the moment the frame was taken; their stamps carry the clock offset and the jitter.
    camera_info comes before its image, with the same stamp. A broken frame is skipped.

    Args:
        folder: the frames.
        config: how they are sent.

    Attributes:
        path: of the thermal frames.
        topics: {name: BagTopic}, broken frames counted.
        start_ns: arrival of the first message.
        end_ns: arrival of the last.
        message_count: number of messages, broken frames counted.
        units: what a thermal value means.
        custom_data: {"thermal_units": ..., ...}, as `thermal-enhance bag` notes it in the recording.

    Raises:
        FrameError: no frames, or stamps that do not fit them.
        ValueError: a configuration that does not fit the frames.
    """

    def __init__(self, folder: FrameFolder, config: FrameSourceConfig | None = None) -> None:
        self.folder = folder
        self.config = config = config or FrameSourceConfig()
        self.path = folder.thermal.path
        first = next(iter(folder), None)
        if first is None:
            raise FrameError(f"{self.path}: none of its {len(folder)} frames can be read")
        self._source_units = (
            Units(config.source_units)
            if config.source_units
            else default_units(_ENCODINGS[first.original.dtype])
        )
        self.units = Units(config.units) if config.units else self._source_units
        reduced = self._convert(first.original)  # fails here, not in the middle of a recording
        self._models = (
            _resized(config.thermal_model, first.original, reduced, "thermal camera_info"),
            _resized(config.rgb_model, first.rgb, first.rgb, "rgb camera_info"),
        )
        self._thermal, self._rgb, period = _schedule(folder, config)
        kind = COMPRESSED_IMAGE if config.compressed else IMAGE
        self.topics: dict[str, BagTopic] = {}
        for stream in (self._thermal, self._rgb):
            if stream.events:
                count = len(stream.events) * config.loop
                self.topics[stream.topic] = BagTopic(kind, count, reliable=True)
                self.topics[stream.info] = BagTopic(CAMERA_INFO, count, reliable=True)
        self.message_count = sum(topic.count for topic in self.topics.values())
        arrivals = [event[0] for stream in (self._thermal, self._rgb) for event in stream.events]
        self._turn_ns = self._thermal.events[-1][0] - self._thermal.events[0][0] + period
        self.start_ns = min(arrivals)
        self.end_ns = max(arrivals) + (config.loop - 1) * self._turn_ns
        self.custom_data = _notes(self, config)

    @property
    def duration_ns(self) -> int:
        """Time from the first to the last message."""
        return self.end_ns - self.start_ns

    @property
    def camera_topics(self) -> tuple[str, str]:
        """(thermal, RGB) image topic; "" where there is no RGB."""
        return self._thermal.topic, self._rgb.topic if self._rgb.events else ""

    def messages(
        self, topics: Sequence[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """The messages in order of arrival, serialized; arguments as of `BagReader.messages`."""
        streams = [
            self._stream_messages(stream, topics, start_ns, stop_ns)
            for stream in (self._thermal, self._rgb)
            if topics is None or stream.topic in topics or stream.info in topics
        ]
        yield from heapq.merge(*streams, key=lambda message: message.timestamp_ns)

    def close(self) -> None:
        """Close the videos."""
        self.folder.close()

    def original_at(self, stamp_ns: int) -> NDArray | None:
        """The thermal frame at full resolution behind the message with this stamp; None where none is."""
        for _, stamp, index in self._thermal.events:
            if (stamp_ns - stamp) % self._turn_ns == 0:
                return self.folder.thermal_at(index)
        return None

    def _convert(self, original: NDArray) -> NDArray:
        """A thermal frame as it is sent: reduced, in its units and pixel type."""
        data = convert_units(area_down(original, self.config.downscale), self._source_units, self.units)
        encoding = self.config.thermal_encoding or _ENCODINGS[data.dtype]
        if self.units in (Units.KELVIN, Units.CELSIUS) and encoding != "32FC1":
            raise ValueError(
                f"thermal_encoding {encoding} rounds {self.units.value} to whole degrees: use 32FC1"
            )
        return convert_encoding(data, encoding)

    def _image(self, stream: _Stream, index: int) -> NDArray | None:
        if stream is self._thermal:
            original = self.folder.thermal_at(index)
            return None if original is None else self._convert(original)
        picture = self.folder.rgb_at(index)
        return None if picture is None else self.config.misalign.apply(picture)

    def _serialize(self, stream: _Stream, image: NDArray, stamp_ns: int) -> bytes:
        thermal = stream is self._thermal
        encoding = self.config.thermal_encoding or _ENCODINGS[image.dtype] if thermal else "rgb8"
        if not self.config.compressed:
            return cdr.serialize_image(encode(image, encoding, stamp_ns, stream.frame_id))
        if thermal:
            return cdr.serialize_compressed_image(
                compress(image, "png", stamp_ns, stream.frame_id, encoding=encoding)
            )
        return cdr.serialize_compressed_image(compress(image, "jpeg", stamp_ns, stream.frame_id))

    def _stream_messages(
        self, stream: _Stream, topics: Sequence[str] | None, start_ns: int | None, stop_ns: int | None
    ) -> Iterator[BagMessage]:
        model = self._models[0 if stream is self._thermal else 1]
        for turn in range(self.config.loop):
            shift = turn * self._turn_ns
            for arrival, stamp, index in stream.events:
                at, stamp_ns = arrival + shift, stamp + shift
                if stop_ns is not None and at >= stop_ns:
                    return
                if start_ns is not None and at < start_ns:
                    continue
                image = self._image(stream, index)
                if image is None:
                    continue
                if topics is None or stream.info in topics:
                    camera = model or CameraModel(image.shape[1], image.shape[0])
                    info = cdr.CameraInfoData.of(camera, stamp_ns, stream.frame_id)
                    yield BagMessage(at, stream.info, CAMERA_INFO, cdr.serialize_camera_info(info))
                if topics is None or stream.topic in topics:
                    kind = self.topics[stream.topic].msgtype
                    yield BagMessage(at, stream.topic, kind, self._serialize(stream, image, stamp_ns))


def _notes(source: FrameSource, config: FrameSourceConfig) -> dict[str, str]:
    thermal, color = source.camera_topics
    notes = {"thermal_units": source.units.value, "thermal_topic": thermal, "source": source.path.name}
    if color:
        warp = config.misalign
        notes["rgb_topic"] = color
        notes["rgb_offset"] = repr(config.rgb_offset)
        notes["rgb_misalignment"] = f"dx={warp.dx},dy={warp.dy},rot={warp.rot},scale={warp.scale}"
    notes["stamp_jitter"] = repr(config.jitter)
    return notes


def _resized(
    model: CameraModel | None, full: NDArray | None, sent: NDArray | None, name: str
) -> CameraModel | None:
    if model is None or full is None or sent is None:
        return None
    height, width = full.shape[:2]
    if (model.width, model.height) != (width, height):
        raise ValueError(
            f"{name} is for {model.width}x{model.height} pictures, and these are {width}x{height}"
        )
    return model.resized(sent.shape[1], sent.shape[0])


def _schedule(folder: FrameFolder, config: FrameSourceConfig) -> tuple[_Stream, _Stream, int]:
    """(thermal stream, RGB stream, time between thermal frames in ns)."""
    rate = config.rate or folder.fps or DEFAULT_RATE
    own = folder.fps or rate
    given: list[int | None] = []
    if config.stamps is not None:
        times, given = read_stamps(config.stamps)
        if len(times) != len(folder):
            raise FrameError(
                f"{config.stamps}: {len(times)} stamps for {len(folder)} frames of {folder.thermal.path}"
            )
        frames = list(range(len(times)))
        gaps = [later - earlier for earlier, later in pairwise(times)]
        period = round(median(gaps)) if gaps else round(NANO / rate)
    else:
        start = round(config.start * NANO)
        count = max(1, round(len(folder) / own * rate))
        times = [start + round(i * NANO / rate) for i in range(count)]
        # The small term keeps 2.9999999 from becoming frame 2.
        frames = [min(int(i * own / rate + 1e-6), len(folder) - 1) for i in range(count)]
        period = round(NANO / rate)
    color_times: list[int] = []
    color_frames: list[int] = []
    if folder.rgb is not None and any(stamp is not None for stamp in given):
        pairs = sorted((stamp, index) for index, stamp in enumerate(given) if stamp is not None)
        color_times, color_frames = [p[0] for p in pairs], [p[1] for p in pairs]
    elif folder.rgb is not None:
        color_rate = config.rgb_rate or NANO / period
        count = max(1, int((times[-1] - times[0] + period) / NANO * color_rate + 1e-6))
        color_times = [times[0] + round(j * NANO / color_rate) for j in range(count)]
        middles = [(earlier + later) / 2 for earlier, later in pairwise(times)]
        color_frames = [frames[int(i)] for i in np.searchsorted(middles, color_times)]
    streams = []
    for number, (topic, frame_id, at, index, offset) in enumerate(
        (
            (config.thermal_topic, config.thermal_frame_id, times, frames, 0),
            (
                config.rgb_topic,
                config.rgb_frame_id,
                color_times,
                color_frames,
                round(config.rgb_offset * NANO),
            ),
        )
    ):
        limit = config.jitter * NANO
        jitter = np.random.default_rng([config.seed, number]).uniform(-limit, limit, len(at))
        events = [(t, t + offset + round(float(j)), f) for t, f, j in zip(at, index, jitter)]
        streams.append(_Stream(image_topic(topic, config.compressed), info_topic(topic), frame_id, events))
    return streams[0], streams[1], period
