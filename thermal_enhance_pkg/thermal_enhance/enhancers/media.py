"""Pictures and videos on disk: reading thermal and RGB frames, writing results whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".webp", ".jpg", ".jpeg", ".bmp", ".pgm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".m4v")


class MediaError(ValueError):
    """A file cannot be used; the message says which and why."""


def is_video(path: Path) -> bool:
    """Does the name say video?"""
    return path.suffix.lower() in VIDEO_SUFFIXES


def list_images(folder: Path, recursive: bool) -> list[Path]:
    """Picture files in a folder in natural order (frame2 before frame10); hidden ones are left out."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    images = (p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    return sorted((p for p in images if not p.name.startswith(".")), key=_natural)


def _natural(path: Path) -> tuple[tuple[bool, int, str], ...]:
    pieces: list[str] = [""]
    for character in str(path):
        if pieces[-1] and pieces[-1][-1].isdecimal() == character.isdecimal():
            pieces[-1] += character
        else:
            pieces.append(character)
    keys = ((p.isdecimal() and p.isascii(), p) for p in pieces)
    return tuple((not number, int(p) if number else 0, p) for number, p in keys)


def read_thermal(path: Path) -> NDArray[Any]:
    """(H, W) uint8, uint16 or float32, values as stored.

    Raises:
        MediaError: unreadable, of another depth, or coloured.
    """
    return gray_of(_read(path, cv2.IMREAD_UNCHANGED), str(path))


def gray_of(image: NDArray[Any], name: str) -> NDArray[Any]:
    """One channel of a gray picture, however many equal ones (and alpha) it is stored in.

    Raises:
        MediaError: the channels differ, or the depth is not 8 or 16 bit or float.
    """
    if image.ndim == 3:
        first = image[..., 0]
        if any(not np.array_equal(first, image[..., c]) for c in range(1, min(3, image.shape[2]))):
            raise MediaError(f"{name}: coloured picture; thermal input must be gray, not colour-mapped")
        image = first
    if image.dtype == np.float64:
        image = image.astype(np.float32)
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise MediaError(f"{name}: {image.dtype} pixels; thermal input must be 8 or 16 bit or 32-bit float")
    return np.ascontiguousarray(image)


def read_color(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB.

    Raises:
        MediaError: unreadable.
    """
    return rgb_of(_read(path, cv2.IMREAD_COLOR))


def rgb_of(bgr: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an OpenCV BGR picture."""
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _read(path: Path, flags: int) -> NDArray[Any]:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or error}") from error
    try:
        image = cv2.imdecode(data, flags) if data.size else None
    except cv2.error as error:
        raise MediaError(f"{path}: not a readable picture") from error
    if image is None:
        raise MediaError(f"{path}: not a readable picture")
    return np.asarray(image)


class VideoReader:
    """Frames of a video file, in order.

    Raises:
        MediaError: the file cannot be opened or holds no frame.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise MediaError(f"{path}: not a readable video")
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate_hz = rate if 0.5 < rate < 1000 else 30.0

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) uint8 BGR frames, until the file ends."""
        while True:
            ok, frame = self._capture.read()
            if not ok or frame is None:
                self._capture.release()
                return
            yield np.asarray(frame, np.uint8)

    def close(self) -> None:
        """Give the file back."""
        self._capture.release()


def video_gray(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8 of a decoded frame; a gray video decodes to channels that may differ by rounding."""
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), np.uint8)


def write_image(data: NDArray[Any], folder: Path, stem: str) -> Path:
    """Write `<stem>.png` (8, 16 bit) or `<stem>.tiff` (float): under another name first, then renamed.

    Raises:
        MediaError: the file cannot be written.
    """
    suffix = ".tiff" if data.dtype == np.float32 else ".png"
    path = folder / f"{stem}{suffix}"
    ok, encoded = cv2.imencode(suffix, np.ascontiguousarray(data))
    if not ok:
        raise MediaError(f"{path}: cannot be encoded")
    partial = folder / f".{path.name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        encoded.tofile(partial)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise MediaError(f"{path}: {error.strerror or error}") from error
    return path


@dataclass
class VideoSink:
    """A gray 8-bit video that appears under its name when it is complete.

    Attributes:
        path: .mp4, .avi or .mkv file to make.
        rate_hz: frames per second.
    """

    path: Path
    rate_hz: float

    def __post_init__(self) -> None:
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")

    def write(self, data: NDArray[Any]) -> None:
        """Append an (H, W) uint8 frame.

        Raises:
            MediaError: another depth or size than the first, or the file cannot be written.
        """
        if data.dtype != np.uint8:
            raise MediaError(f"{data.dtype} frames do not fit into a video; give a folder as --out")
        size = (data.shape[1], data.shape[0])
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            codec = "MJPG" if self.path.suffix.lower() == ".avi" else "mp4v"
            code = cv2.VideoWriter.fourcc(*codec)
            self._writer = cv2.VideoWriter(str(self._partial), code, self.rate_hz, size, True)
            self._size = size
            if not self._writer.isOpened():
                raise MediaError(f"{self.path}: cannot be written as video")
        if size != self._size:
            raise MediaError(
                f"{size[0]}x{size[1]} frame does not fit into a {self._size[0]}x{self._size[1]} video"
            )
        self._writer.write(cv2.cvtColor(data, cv2.COLOR_GRAY2BGR))

    def close(self, keep: bool = True) -> None:
        """Finish the file; with `keep` false, or without a frame, nothing is left behind."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            if keep:
                os.replace(self._partial, self.path)
        self._partial.unlink(missing_ok=True)
