"""What the temporal methods are held against: bicubic with a linear blend, and with plain optical flow.

The flow baseline is written by itself, after Super SloMo's use of two flows (Jiang et al., 2018), and shares
nothing with the base that our network refines.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.metrics.temporal import optical_flow

Levels = NDArray[np.float32]
_LEAST = np.float32(1e-3)


def enlarge(low: NDArray[Any], scale: int) -> Levels:
    """Bicubic levels, not rounded."""
    size = (low.shape[1] * scale, low.shape[0] * scale)
    return np.asarray(cv2.resize(low.astype(np.float32), size, interpolation=cv2.INTER_CUBIC), np.float32)


def linear_blend(before: NDArray[Any], after: NDArray[Any], scale: int) -> Levels:
    """The frame half way between two: the mean of both enlarged."""
    return 0.5 * (enlarge(before, scale) + enlarge(after, scale))


def flow_interpolation(before: NDArray[Any], after: NDArray[Any], scale: int, time: float = 0.5) -> Levels:
    """The frame between two by optical flow (OpenCV's DIS) of the low-resolution frames in both directions.

    Each enlarged frame is warped along the flow that Super SloMo approximates at `time`, and both are mixed
    by nearness in time and by visibility: how well forward and backward flow agree there, and whether the
    place lies inside. A pixel that neither frame shows is a blend of both.

    Args:
        before: (h, w) levels.
        after: (h, w) levels.
        scale: factor in space.
        time: of the new frame, 0 at `before` to 1 at `after`.

    Returns:
        (h * scale, w * scale) float32 levels.
    """
    forward, backward = optical_flow(before, after), optical_flow(after, before)
    flows = (
        -(1 - time) * time * forward + time**2 * backward,
        (1 - time) ** 2 * forward - time * (1 - time) * backward,
    )
    total = weight = np.zeros((), np.float32)
    for frame, share, flow, there, back in (
        (before, 1 - time, flows[0], forward, backward),
        (after, time, flows[1], backward, forward),
    ):
        gap = np.square(there + _warp(back, there)).sum(axis=2)
        visible = np.exp(-_warp(gap, flow) / 2) * _inside(flow)
        mine = share * np.maximum(_enlarge_linearly(visible, scale), _LEAST)
        fine = scale * _enlarge_linearly(flow, scale)
        total = total + mine * _warp(enlarge(frame, scale), fine, cv2.INTER_CUBIC)
        weight = weight + mine
    return np.asarray(total / weight, np.float32)


def _enlarge_linearly(field: NDArray[Any], scale: int) -> Levels:
    size = (field.shape[1] * scale, field.shape[0] * scale)
    return np.asarray(cv2.resize(field, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _points(flow: NDArray[Any]) -> tuple[Levels, Levels]:
    rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return (columns + flow[..., 0]).astype(np.float32), (rows + flow[..., 1]).astype(np.float32)


def _inside(flow: NDArray[Any]) -> Levels:
    x, y = _points(flow)
    return ((x >= 0) & (y >= 0) & (x <= flow.shape[1] - 1) & (y <= flow.shape[0] - 1)).astype(np.float32)


def _warp(picture: Levels, flow: NDArray[Any], interpolation: int = cv2.INTER_LINEAR) -> Levels:
    x, y = _points(flow)
    warped = cv2.remap(picture, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)
