"""The before/after picture of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.colormap import colorize
from thermal_enhance.imaging.encodings import decode_color
from thermal_enhance.imaging.raw import EncodingError

if TYPE_CHECKING:
    from thermal_enhance.nodes.enhancement_node import EnhancementNode
    from thermal_enhance.nodes.pipeline import FrameResult

SETTLE_FRAMES = 60
"""Frames before the picture is worth taking: the alignment needs a second or two."""
PANEL_HEIGHT = 480
MARGIN = 8
CAPTION = 28


class PictureTap:
    """Keeps the most telling frame of a run by reference; nothing is computed until `write`.

    Args:
        node: the enhancement node to watch.
    """

    def __init__(self, node: EnhancementNode) -> None:
        self._kept: FrameResult | None = None
        self._count = 0
        node.tap = self._take

    def _take(self, result: FrameResult) -> None:
        self._count += 1
        if self._count <= SETTLE_FRAMES or self._kept is None or self._richer(result):
            self._kept = result

    def _richer(self, result: FrameResult) -> bool:
        """RGB beats none; between equals the one kept stays, so that the picture is not of the last frame."""
        assert self._kept is not None
        return result.pair.color is not None and self._kept.pair.color is None

    def write(self, folder: Path) -> str | None:
        """Write before_after.png; returns its name, or None when no frame came out."""
        if self._kept is None:
            return None
        name = "before_after.png"
        image = before_after(self._kept)
        if not cv2.imwrite(str(folder / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
            raise OSError(f"{folder / name} could not be written")
        return name


def before_after(result: FrameResult) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: the input as the camera gave it, the output, and the RGB frame where there was one."""
    low, high = _display_range(result.input_frame.data)
    before = colorize(_to8(result.input_frame.data, low, high), "inferno")
    after = colorize(_to8(result.frame.thermal.data, low, high), "inferno")
    size_in, size_out = result.input_frame.size, result.frame.thermal.size
    panels = [
        _panel(before, f"camera, {size_in[0]}x{size_in[1]}", cv2.INTER_NEAREST),
        _panel(after, f"{result.frame.tier}, {size_out[0]}x{size_out[1]}", cv2.INTER_AREA),
    ]
    if result.pair.color is not None:
        try:
            color = decode_color(result.pair.color)
            panels.append(_panel(color, f"RGB, trust {result.frame.rgb_trust:.2f}", cv2.INTER_AREA))
        except EncodingError:
            pass  # a broken RGB frame is not worth a panel; it has been counted
    gap = np.full((panels[0].shape[0], MARGIN, 3), 255, np.uint8)
    row: list[NDArray[np.uint8]] = []
    for panel in panels:
        row += [panel, gap]
    return np.concatenate(row[:-1], axis=1)


def _display_range(data: NDArray) -> tuple[float, float]:
    finite = data[np.isfinite(data)].astype(np.float32) if data.dtype.kind == "f" else data.astype(np.float32)
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(finite, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-3))


def _to8(data: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    scaled = (np.nan_to_num(data.astype(np.float32), nan=low) - low) * (255.0 / (high - low))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _panel(image: NDArray[np.uint8], caption: str, interpolation: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    size = (max(1, round(width * PANEL_HEIGHT / height)), PANEL_HEIGHT)
    if height < PANEL_HEIGHT and interpolation == cv2.INTER_AREA:
        interpolation = cv2.INTER_CUBIC
    resized = cv2.resize(image, size, interpolation=interpolation)
    strip = np.full((CAPTION, size[0], 3), 255, np.uint8)
    cv2.putText(strip, caption, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (20, 20, 20), 1, cv2.LINE_AA)
    return np.concatenate([strip, resized.astype(np.uint8)], axis=0)
