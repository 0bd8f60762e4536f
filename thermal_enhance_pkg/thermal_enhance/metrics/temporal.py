"""How steady a video is: flicker of what does not move, error after motion is taken out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def static_mask(frames: Sequence[NDArray[Any]] | NDArray[Any], k: float = 3.0) -> NDArray[np.bool_]:
    """Where nothing moves in a clip.

    A pixel is static while its 5x5 mean never leaves its median over time by more than `k` times what is
    usual in the picture. Whatever all pixels do alike (noise, flicker) is usual, so flicker does not hide
    itself. Take the mask from the input, so that all outputs are judged on the same pixels.

    Args:
        frames: T >= 2 frames (H, W); finite.
        k: tolerance.

    Returns:
        (H, W) bool. Meaningless where more than half of the picture moves.

    Raises:
        ValueError: fewer than two frames, different sizes or non-finite pixels.
    """
    clip = _clip(frames)
    smooth = np.stack([cv2.blur(frame, (5, 5), borderType=cv2.BORDER_REPLICATE) for frame in clip])
    activity = np.abs(smooth - np.median(smooth, axis=0)).max(axis=0)
    return activity <= k * np.median(activity)


def flicker(frames: Sequence[NDArray[Any]] | NDArray[Any], mask: NDArray[np.bool_] | None = None) -> float:
    """Standard deviation over time of the static part of a clip (METHODS 2.11).

    Args:
        frames: T >= 2 frames (H, W); finite.
        mask: (H, W) bool, pixels that count; None for `static_mask(frames)`.

    Returns:
        Median over the static pixels of their standard deviation over time (n - 1), in the units of the
        frames; NaN if the mask is empty. Sensor noise left in counts as flicker.

    Raises:
        ValueError: fewer than two frames, different sizes or non-finite pixels.
    """
    clip = _clip(frames)
    chosen = _chosen(clip, mask)
    return float(np.median(clip[:, chosen].std(axis=0, ddof=1))) if chosen.any() else math.nan


def global_flicker(
    frames: Sequence[NDArray[Any]] | NDArray[Any], mask: NDArray[np.bool_] | None = None
) -> float:
    """Pumping of the whole picture: standard deviation over time of the static part's mean.

    Args:
        frames: T >= 2 frames (H, W); finite.
        mask: (H, W) bool, pixels that count; None for `static_mask(frames)`.

    Returns:
        In the units of the frames (n - 1); NaN if the mask is empty.

    Raises:
        ValueError: fewer than two frames, different sizes or non-finite pixels.
    """
    clip = _clip(frames)
    chosen = _chosen(clip, mask)
    return float(clip[:, chosen].mean(axis=1).std(ddof=1)) if chosen.any() else math.nan


def optical_flow(image: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float32]:
    """Dense motion by DIS (Kroeger et al., 2016) on one common 8-bit scale.

    Args:
        image: (H, W), at least 16 pixels a side; finite.
        target: (H, W).

    Returns:
        (H, W, 2) float32 (dx, dy) in pixels: image(x, y) looks like target(x + dx, y + dy).

    Raises:
        ValueError: sizes differ or are too small, or pixels are not finite.
    """
    clip = _clip([image, target])
    if min(clip.shape[1:]) < 16:
        raise ValueError(f"optical flow needs at least 16 pixels a side, not {clip.shape[1:]}")
    low, high = np.percentile(clip, (0.5, 99.5))
    gray = np.clip((clip - low) * (255.0 / max(high - low, 1e-12)), 0, 255).astype(np.uint8)
    # Finer than the presets: small images and faint edges need patches at full resolution.
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setFinestScale(0)
    start = np.zeros((*gray.shape[1:], 2), np.float32)
    return np.asarray(method.calc(gray[0], gray[1], start), dtype=np.float32)


def occlusion_mask(flow: NDArray[np.floating[Any]], back: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Where a flow can be trusted: it stays inside the image, and the flow back returns.

    |f + b|**2 < 0.01 (|f|**2 + |b|**2) + 0.5 (Sundaram, Brox and Keutzer, 2010).

    Args:
        flow: (H, W, 2) pixels, from image to target.
        back: (H, W, 2) pixels, from target to image.

    Returns:
        (H, W) bool, True where both agree.
    """
    there = cv2.remap(back.astype(np.float32), *_sampling_points(flow), cv2.INTER_LINEAR)
    gap = np.square(flow + there).sum(axis=2)
    bound = 0.01 * (np.square(flow).sum(axis=2) + np.square(there).sum(axis=2)) + 0.5
    return _inside(flow) & (gap < bound)


def warp_error(
    prev: NDArray[Any],
    cur: NDArray[Any],
    flow: NDArray[np.floating[Any]] | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> float:
    """Change from one frame to the next that motion does not explain (after Lai et al., 2018).

    To compare methods, take flow and mask from a common clip (the input or the reference), else a method
    that blurs is rewarded twice.

    Args:
        prev: (H, W) frame before; finite.
        cur: (H, W) frame after.
        flow: (H, W, 2) pixels, from `cur` back to `prev`: cur(x, y) comes from prev(x + dx, y + dy). None to
            estimate it, together with its occlusions, from the two frames.
        mask: (H, W) bool, pixels that count.

    Returns:
        Root mean square of cur - warped prev over the pixels seen in both, in the units of the frames; NaN
        if there are none.

    Raises:
        ValueError: sizes do not fit, or pixels are not finite.
    """
    clip = _clip([prev, cur])
    shape = clip.shape[1:]
    if flow is None:
        flow = optical_flow(cur, prev)
        visible = occlusion_mask(flow, optical_flow(prev, cur))
    else:
        if flow.shape != (*shape, 2):
            raise ValueError(f"flow must be {(*shape, 2)} for frames of {shape}, not {flow.shape}")
        visible = _inside(flow)
    if mask is not None:
        if mask.shape != shape:
            raise ValueError(f"mask {mask.shape} does not fit frames of {shape}")
        visible = visible & mask
    if not visible.any():
        return math.nan
    warped = cv2.remap(clip[0], *_sampling_points(flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.sqrt(np.mean(np.square(clip[1] - warped)[visible])))


def _clip(frames: Sequence[NDArray[Any]] | NDArray[Any]) -> NDArray[np.float64]:
    if len(frames) < 2:
        raise ValueError(f"temporal metrics need at least two frames, not {len(frames)}")
    if len({frame.shape for frame in frames}) > 1 or frames[0].ndim != 2 or not frames[0].size:
        raise ValueError(f"frames must be (H, W) and of one size, not {sorted({f.shape for f in frames})}")
    clip = np.stack([np.asarray(frame, dtype=np.float64) for frame in frames])
    if not np.isfinite(clip).all():
        raise ValueError("frames have non-finite pixels")
    return clip


def _chosen(clip: NDArray[np.float64], mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    if mask is None:
        return static_mask(clip)
    if mask.shape != clip.shape[1:]:
        raise ValueError(f"mask {mask.shape} does not fit frames of {clip.shape[1:]}")
    return mask.astype(bool)


def _sampling_points(flow: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return (columns + flow[..., 0]).astype(np.float32), (rows + flow[..., 1]).astype(np.float32)


def _inside(flow: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    x, y = _sampling_points(flow)
    return (x >= 0) & (y >= 0) & (x <= flow.shape[1] - 1) & (y <= flow.shape[0] - 1)
