"""Thermal and colour frames from folders of pictures and from videos."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

PICTURES = (".png", ".tif", ".tiff", ".webp", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm")
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".webm")

_NEARLY_GRAY = 24
"""Largest difference between the channels of a gray picture after lossy chroma coding, in 8-bit steps."""


class FrameError(ValueError):
    """A frame, folder or video that cannot be read; the message names it."""


class FrameSequence(Protocol):
    """Frames of one camera, by index.

    Attributes:
        path: where they come from.
        fps: frames a second; None where the source does not say.
    """

    path: Path
    fps: float | None

    def __len__(self) -> int:
        """How many frames there are (as announced by the file, for a video)."""

    def stem(self, index: int) -> str:
        """Name of a frame."""

    def read(self, index: int) -> NDArray:
        """A frame; FrameError where it is broken."""

    def close(self) -> None:
        """Give back what is open."""


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts frame_2 before frame_10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order; hidden files are none."""
    if not folder.is_dir():
        return []
    files = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
    return sorted(files, key=natural_key)


def to_gray(image: NDArray, name: str) -> NDArray:
    """A decoded picture as one thermal channel.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), colours in OpenCV's BGR order.
        name: of the frame, for messages.

    Returns:
        (H, W) uint8, uint16 or float32. Three equal channels are the one channel they came from, exactly;
        nearly equal ones (a video's) their luminance.

    Raises:
        FrameError: a colour picture, or a pixel type no thermal camera has.
    """
    if image.ndim == 3:
        blue, green, red = (image[..., min(c, image.shape[2] - 1)] for c in range(3))
        if image.shape[2] in (1, 2) or (np.array_equal(blue, green) and np.array_equal(green, red)):
            image = blue
        else:
            unit = 1 if image.dtype == np.uint8 else 257
            spread = np.abs(red.astype(np.int32) - blue.astype(np.int32)) if image.dtype.kind == "u" else None
            if spread is None or np.percentile(spread, 99) > _NEARLY_GRAY * unit:
                raise FrameError(
                    f"{name} is a colour picture, not a thermal one: are thermal and RGB swapped?"
                )
            image = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2GRAY)
    if image.dtype == np.float64:
        image = image.astype(np.float32)
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise FrameError(
            f"{name} holds {image.dtype} pixels; thermal frames are 8- or 16-bit or 32-bit float"
        )
    return np.ascontiguousarray(image)


class PictureSequence:
    """Pictures of a folder (or one picture), one frame each.

    Args:
        path: folder or picture.
        color: read as RGB rather than as thermal.

    Raises:
        FrameError: no pictures there.
    """

    def __init__(self, path: Path, color: bool = False) -> None:
        self.path = path
        self.fps: float | None = None
        self.files = [path] if path.is_file() else pictures_in(path)
        self._color = color
        if not self.files:
            raise FrameError(f"{path}: no pictures ({', '.join(PICTURES)}) in it")

    def __len__(self) -> int:
        return len(self.files)

    def stem(self, index: int) -> str:
        """File name without its ending."""
        return self.files[index].stem

    def read(self, index: int) -> NDArray:
        """(H, W) thermal, or (H, W, 3) uint8 RGB.

        Raises:
            FrameError: the file is broken.
        """
        path = self.files[index]
        try:
            content = np.fromfile(path, np.uint8)  # cv2.imread says nothing about why it fails
            flags = cv2.IMREAD_COLOR if self._color else cv2.IMREAD_UNCHANGED
            image = cv2.imdecode(content, flags) if content.size else None
        except (OSError, cv2.error) as error:
            raise FrameError(f"{path}: cannot be read ({error})") from error
        if image is None:
            raise FrameError(f"{path}: broken, or not a picture")
        if self._color:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        return to_gray(image, str(path))

    def close(self) -> None:
        """Nothing is kept open."""


class VideoSequence:
    """Frames of a video, read forwards; going back reopens it.

    Args:
        path: video file.
        color: read as RGB rather than as thermal.

    Raises:
        FrameError: not a video.
    """

    def __init__(self, path: Path, color: bool = False) -> None:
        self.path = path
        self._color = color
        self._capture: cv2.VideoCapture | None = None
        self._next = 0
        self._last: tuple[int, NDArray] | None = None
        self._open()
        assert self._capture is not None
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = float(rate) if np.isfinite(rate) and rate > 0 else None
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._count: int = int(count) if np.isfinite(count) and count > 0 else 0
        if self._count == 0:
            self._count = self._count_by_reading()

    def _open(self) -> None:
        self.close()
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise FrameError(f"{self.path}: cannot be read as a video")
        self._capture, self._next = capture, 0

    def _count_by_reading(self) -> int:
        count = 0
        while self._capture is not None and self._capture.grab():
            count += 1
        if count == 0:
            raise FrameError(f"{self.path}: a video without frames")
        self._open()
        return count

    def __len__(self) -> int:
        return self._count

    def stem(self, index: int) -> str:
        """Frame number, as `enhance` names its outputs."""
        return f"{index:06d}"

    def read(self, index: int) -> NDArray:
        """(H, W) thermal, or (H, W, 3) uint8 RGB.

        Raises:
            FrameError: the video ends before, or is damaged there.
        """
        if self._last is not None and index == self._last[0]:
            return self._last[1]
        if self._capture is None or index < self._next:
            self._open()
        assert self._capture is not None
        while self._next < index:
            if not self._capture.grab():
                raise FrameError(f"{self.path}: ends at frame {self._next}, before frame {index}")
            self._next += 1
        good, image = self._capture.read()
        if not good or image is None:
            raise FrameError(f"{self.path}: frame {index} cannot be decoded")
        self._next += 1
        name = f"{self.path}, frame {index}"
        frame = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)) if self._color else to_gray(image, name)
        self._last = (index, frame)
        return frame

    def close(self) -> None:
        """Close the video."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None
            self._last = None


def open_sequence(path: str | Path, color: bool = False) -> FrameSequence:
    """The frames of a folder, a video or a single picture.

    Args:
        path: the folder or file.
        color: read as RGB rather than as thermal.

    Raises:
        FrameError: nothing there that could be read.
    """
    path = Path(path)
    if not path.exists():
        raise FrameError(f"{path}: no such file or folder")
    if path.is_file() and path.suffix.lower() in VIDEOS:
        return VideoSequence(path, color)
    if path.is_file() and path.suffix.lower() not in PICTURES:
        raise FrameError(
            f"{path}: neither a video ({', '.join(VIDEOS)}) nor a picture ({', '.join(PICTURES)})"
        )
    return PictureSequence(path, color)
