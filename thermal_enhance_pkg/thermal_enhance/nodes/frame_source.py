"""Folders and videos of frames, paired and timed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.nodes.clips import Clip
from thermal_enhance.nodes.frame_files import FrameError, FrameSequence, PictureSequence, open_sequence

DEFAULT_RATE = 30.0
NANO = 1_000_000_000

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceFrame:
    """One moment of a clip.

    Attributes:
        index: number of the frame within the clip.
        stamp_ns: its time.
        thermal: (H, W) uint8, uint16 or float32, reduced by `downscale`.
        rgb: (H, W, 3) uint8 RGB; None where there is none.
        original: the thermal frame before it was reduced (the same array with a `downscale` of 1).
        name: file stem or frame number.
    """

    index: int
    stamp_ns: int
    thermal: NDArray
    rgb: NDArray[np.uint8] | None
    original: NDArray
    name: str


def area_down(image: NDArray, factor: int) -> NDArray:
    """Mean over squares of `factor` pixels, in the image's own type; what does not divide is cropped."""
    if factor == 1:
        return image
    height, width = image.shape[0] // factor, image.shape[1] // factor
    if not (height and width):
        raise FrameError(
            f"downscale {factor} leaves nothing of {image.shape[1]}x{image.shape[0]}: make it smaller"
        )
    cropped = image[: height * factor, : width * factor]
    mean = cropped.reshape(height, factor, width, factor).mean(axis=(1, 3), dtype=np.float64)
    if image.dtype == np.float32:
        return mean.astype(np.float32)
    return np.rint(mean).astype(image.dtype)


class FrameFolder:
    """Frames of a thermal clip with the RGB frames that belong to them.

    RGB is matched by file stem between folders, else by position. A broken frame is named in the log,
    skipped, and counted in `skipped`; the others keep their index and time.

    Args:
        thermal: folder of pictures, video, or picture.
        rgb: the same of the RGB camera; None without one.
        rate: frames a second; 0: the video's own, or 30.
        downscale: reduce the thermal frames by this factor.
        start_ns: stamp of the first frame.

    Attributes:
        fps: frames a second; None where nothing says.
        rate: `fps`, or 30.
        skipped: {frame: what is wrong with it} of the frames that could not be read so far.

    Raises:
        FrameError: nothing there.
    """

    def __init__(
        self,
        thermal: str | Path,
        rgb: str | Path | None = None,
        rate: float = 0.0,
        downscale: int = 1,
        start_ns: int = 0,
    ) -> None:
        self.thermal: FrameSequence = open_sequence(thermal)
        self.rgb: FrameSequence | None = open_sequence(rgb, color=True) if rgb is not None else None
        self.fps = rate or self.thermal.fps
        self.rate = self.fps or DEFAULT_RATE
        self.downscale = downscale
        self.start_ns = start_ns
        self.skipped: dict[str, str] = {}
        self._rgb_index = _match(self.thermal, self.rgb)

    @classmethod
    def of(cls, clip: Clip, rate: float = 0.0, downscale: int = 1, start_ns: int = 0) -> FrameFolder:
        """The frames of a clip, at its own rate by default."""
        return cls(clip.thermal, clip.rgb, rate or clip.fps or 0.0, downscale, start_ns)

    def __len__(self) -> int:
        return len(self.thermal)

    def __iter__(self) -> Iterator[SourceFrame]:
        for index in range(len(self)):
            frame = self.frame(index)
            if frame is not None:
                yield frame

    def stamp_ns(self, index: int) -> int:
        """Time of a frame, nanoseconds."""
        return self.start_ns + round(index * NANO / self.rate)

    def frame(self, index: int) -> SourceFrame | None:
        """One frame with its RGB; None where the thermal frame is broken."""
        original = self.thermal_at(index)
        if original is None:
            return None
        reduced = area_down(original, self.downscale)
        rgb = self.rgb_at(index)
        return SourceFrame(index, self.stamp_ns(index), reduced, rgb, original, self.thermal.stem(index))

    def thermal_at(self, index: int) -> NDArray | None:
        """A thermal frame at full resolution; None where it is broken."""
        return self._read(self.thermal, index)

    def rgb_at(self, index: int) -> NDArray | None:
        """The RGB frame that belongs to a thermal frame; None where there is none or it is broken."""
        position = self._rgb_index[index] if index < len(self._rgb_index) else None
        return None if position is None or self.rgb is None else self._read(self.rgb, position)

    def close(self) -> None:
        """Close the videos."""
        self.thermal.close()
        if self.rgb is not None:
            self.rgb.close()

    def _read(self, sequence: FrameSequence, index: int) -> NDArray | None:
        try:
            return sequence.read(index)
        except FrameError as error:
            name = f"{sequence.path}#{sequence.stem(index)}"
            if name not in self.skipped:
                self.skipped[name] = str(error)
                _LOG.warning("skipped: %s", error)
            return None


def _match(thermal: FrameSequence, rgb: FrameSequence | None) -> list[int | None]:
    """For each thermal frame, the RGB frame that belongs to it."""
    count = len(thermal)
    if rgb is None:
        return [None] * count
    if isinstance(thermal, PictureSequence) and isinstance(rgb, PictureSequence):
        by_stem = {rgb.stem(index): index for index in range(len(rgb))}
        matched = [by_stem.get(thermal.stem(index)) for index in range(count)]
        if any(position is not None for position in matched):
            return matched
        if len(rgb) != count:
            raise FrameError(
                f"{rgb.path}: no file is named as in {thermal.path}, and the numbers differ "
                f"({len(rgb)} and {count}): name matching frames alike"
            )
    return [index if index < len(rgb) else None for index in range(count)]
