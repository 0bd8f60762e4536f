"""False-colour palettes for looking at thermal images."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

_OPENCV_PALETTES = {
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "plasma": cv2.COLORMAP_PLASMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "turbo": cv2.COLORMAP_TURBO,
    "jet": cv2.COLORMAP_JET,
    "hot": cv2.COLORMAP_HOT,
    "bone": cv2.COLORMAP_BONE,
    "rainbow": cv2.COLORMAP_RAINBOW,
}

# Iron bow as thermographers know it: black, violet, magenta, orange, yellow, white. (gray level, R, G, B)
_IRONBOW_KNOTS = (
    (0, 0, 0, 10),
    (32, 40, 0, 110),
    (80, 140, 0, 155),
    (128, 210, 45, 90),
    (168, 240, 105, 15),
    (208, 255, 175, 20),
    (240, 255, 235, 130),
    (255, 255, 255, 245),
)


def palette_names() -> tuple[str, ...]:
    """Names that `colorize` takes."""
    return ("white_hot", "black_hot", "ironbow", *_OPENCV_PALETTES)


@lru_cache(maxsize=32)
def palette(name: str) -> NDArray[np.uint8]:
    """Colours of a palette.

    Args:
        name: one of `palette_names()`.

    Returns:
        (256, 3) uint8 RGB, read-only, coldest first.

    Raises:
        ValueError: no such palette; the message lists the names.
    """
    ramp = np.arange(256, dtype=np.uint8)
    if name == "white_hot":
        table = np.repeat(ramp[:, None], 3, axis=1)
    elif name == "black_hot":
        table = np.repeat(ramp[::-1, None], 3, axis=1)
    elif name == "ironbow":
        knots = np.array(_IRONBOW_KNOTS, dtype=np.float64)
        channels = [np.interp(ramp, knots[:, 0], knots[:, c]) for c in (1, 2, 3)]
        table = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    elif name in _OPENCV_PALETTES:
        bgr = cv2.applyColorMap(ramp[:, None], _OPENCV_PALETTES[name])
        table = np.asarray(bgr[:, 0, ::-1], dtype=np.uint8)
    else:
        raise ValueError(f"no palette named {name!r}; palettes: {', '.join(palette_names())}")
    table = np.ascontiguousarray(table)
    table.setflags(write=False)
    return table


def colorize(gray8: NDArray[np.uint8], name: str = "inferno") -> NDArray[np.uint8]:
    """Colour a gray picture.

    Args:
        gray8: (H, W) uint8, 0 coldest (`ToneCurve.to_view8` makes one).
        name: one of `palette_names()`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the picture is not (H, W) uint8, or there is no such palette.
    """
    if gray8.ndim != 2 or gray8.dtype != np.uint8 or not gray8.size:
        raise ValueError(f"colorize takes a non-empty (H, W) uint8 picture, not {gray8.shape} {gray8.dtype}")
    return np.asarray(cv2.applyColorMap(gray8, palette(name)[:, None, :]), dtype=np.uint8)
