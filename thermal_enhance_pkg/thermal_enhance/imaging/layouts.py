"""Pixel layouts: how each ROS encoding lies in memory, and how large an image may be.

Names are those of REP 118 and sensor_msgs/image_encodings.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from thermal_enhance.imaging.raw import EncodingError

MAX_SIDE = 16384
"""Most pixels a side of an image may have."""
MAX_BYTES = 256 * 1024 * 1024
"""Most bytes the decoded pixels of an image may take."""


@dataclass(frozen=True)
class Layout:
    """How the bytes of one pixel lie.

    Attributes:
        dtype: native NumPy type of a channel.
        channels: channels a pixel; 1 decodes to (H, W), more to (H, W, channels).
        family: "gray", "color" (interleaved), "bayer" or "yuv".
        to_rgb: OpenCV conversion to RGB; None where none is needed.
        to_gray: OpenCV conversion to luminance; None where none is needed.
    """

    dtype: np.dtype
    channels: int
    family: str
    to_rgb: int | None = None
    to_gray: int | None = None

    @property
    def pixel_bytes(self) -> int:
        """Bytes a pixel takes."""
        return self.dtype.itemsize * self.channels

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the decoded array."""
        return (height, width) if self.channels == 1 else (height, width, self.channels)


U8, U16, F32 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32)


def _bayer(dtype: np.dtype, to_rgb: int, to_gray: int) -> Layout:
    return Layout(dtype, 1, "bayer", to_rgb, to_gray)


def _bgr(dtype: np.dtype) -> Layout:
    return Layout(dtype, 3, "color", cv2.COLOR_BGR2RGB, cv2.COLOR_BGR2GRAY)


def _rgb(dtype: np.dtype) -> Layout:
    return Layout(dtype, 3, "color", None, cv2.COLOR_RGB2GRAY)


def _bgra(dtype: np.dtype) -> Layout:
    return Layout(dtype, 4, "color", cv2.COLOR_BGRA2RGB, cv2.COLOR_BGRA2GRAY)


def _rgba(dtype: np.dtype) -> Layout:
    return Layout(dtype, 4, "color", cv2.COLOR_RGBA2RGB, cv2.COLOR_RGBA2GRAY)


_UYVY = Layout(U8, 2, "yuv", cv2.COLOR_YUV2RGB_UYVY, cv2.COLOR_YUV2GRAY_UYVY)
_YUYV = Layout(U8, 2, "yuv", cv2.COLOR_YUV2RGB_YUYV, cv2.COLOR_YUV2GRAY_YUYV)

# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row's first two:
# ROS rggb is OpenCV BG, and so on. The newer OpenCV aliases by the ROS names are missing in Ubuntu 22.04's.
_RGGB = (cv2.COLOR_BayerBG2RGB, cv2.COLOR_BayerBG2GRAY)
_BGGR = (cv2.COLOR_BayerRG2RGB, cv2.COLOR_BayerRG2GRAY)
_GBRG = (cv2.COLOR_BayerGR2RGB, cv2.COLOR_BayerGR2GRAY)
_GRBG = (cv2.COLOR_BayerGB2RGB, cv2.COLOR_BayerGB2GRAY)

LAYOUTS: dict[str, Layout] = {
    "mono8": Layout(U8, 1, "gray"),
    "8uc1": Layout(U8, 1, "gray"),
    "mono16": Layout(U16, 1, "gray"),
    "16uc1": Layout(U16, 1, "gray"),
    "32fc1": Layout(F32, 1, "gray"),
    "rgb8": _rgb(U8),
    "bgr8": _bgr(U8),
    "rgba8": _rgba(U8),
    "bgra8": _bgra(U8),
    "rgb16": _rgb(U16),
    "bgr16": _bgr(U16),
    "rgba16": _rgba(U16),
    "bgra16": _bgra(U16),
    # The generic types say nothing about channel order; OpenCV's own order is what their senders have.
    "8uc3": _bgr(U8),
    "8uc4": _bgra(U8),
    "16uc3": _bgr(U16),
    "16uc4": _bgra(U16),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "bayer_rggb8": _bayer(U8, *_RGGB),
    "bayer_bggr8": _bayer(U8, *_BGGR),
    "bayer_gbrg8": _bayer(U8, *_GBRG),
    "bayer_grbg8": _bayer(U8, *_GRBG),
    "bayer_rggb16": _bayer(U16, *_RGGB),
    "bayer_bggr16": _bayer(U16, *_BGGR),
    "bayer_gbrg16": _bayer(U16, *_GBRG),
    "bayer_grbg16": _bayer(U16, *_GRBG),
}
"""Every encoding that is understood, by its name in lower case."""

THERMAL_NAMES = {"mono8": "mono8", "8uc1": "8UC1", "mono16": "mono16", "16uc1": "16UC1", "32fc1": "32FC1"}
"""Encodings a thermal image is published in: key in `LAYOUTS` to the name as ROS spells it."""

ENCODINGS: tuple[str, ...] = tuple(THERMAL_NAMES.get(key, key.replace("uc", "UC")) for key in LAYOUTS)
"""Encodings of uncompressed images that are understood."""


def layout_of(encoding: object) -> Layout:
    """Layout of an encoding, by its name in any case.

    Raises:
        EncodingError: unsupported_encoding.
    """
    layout = LAYOUTS.get(encoding.strip().lower()) if isinstance(encoding, str) else None
    if layout is None:
        raise EncodingError(
            "unsupported_encoding",
            f"encoding {str(encoding)[:40]!r} is not supported; set the driver's encoding (pixel format) "
            f"to one of {', '.join(ENCODINGS)}",
        )
    return layout


def check_size(width: int, height: int, pixel_bytes: int) -> None:
    """Refuse images that are empty or larger than `MAX_SIDE` and `MAX_BYTES`.

    Raises:
        EncodingError: zero_size or huge_size.
    """
    if width <= 0 or height <= 0:
        raise EncodingError("zero_size", f"image is {width}x{height}: the driver must set width and height")
    if width > MAX_SIDE or height > MAX_SIDE or width * height * pixel_bytes > MAX_BYTES:
        raise EncodingError(
            "huge_size",
            f"image is {width}x{height} of {pixel_bytes} bytes a pixel; at most {MAX_SIDE} a side and "
            f"{MAX_BYTES >> 20} MiB are accepted: lower the driver's resolution",
        )
