"""What a new frame costs the temporal tier: on a stream, with its ring, and as a window computed anew."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thermal_enhance.enhancers.base import EnhanceRequest, FrameDeclined
from thermal_enhance.enhancers.temporal import TemporalEnhancer
from thermal_enhance.imaging.frames import ThermalFrame


@dataclass(frozen=True)
class StreamingCost:
    """Times of one new frame (it and the one before it), milliseconds.

    Attributes:
        stream_ms: median, features and motion of the frames before kept.
        window_ms: median, features and motion of the whole window computed anew for each frame.
        stage_ms: median of each stage on the stream.
    """

    stream_ms: float
    window_ms: float
    stage_ms: dict[str, float]

    @property
    def saved(self) -> float:
        """Share of the time that the ring saves, 0 to 1."""
        return 1.0 - self.stream_ms / self.window_ms


def streaming_cost(enhancer: TemporalEnhancer, frames: Sequence[ThermalFrame]) -> StreamingCost:
    """Measure both ways on the same frames; the two alternate, so that what else runs here slows both.

    Args:
        enhancer: the tier; it is reset before and after.
        frames: consecutive frames of one stream, at least twice its window.

    Raises:
        ValueError: too few frames.
        Exception: whatever the tier raises on such frames.
    """
    if len(frames) < 2 * enhancer.window:
        raise ValueError(f"at least {2 * enhancer.window} frames are needed, not {len(frames)}")
    scale = enhancer.manifest.scales[0]
    enhancer.reset("benchmark")
    streamed, anew = [], []
    stages: dict[str, list[float]] = {}
    for index, frame in enumerate(frames):
        began = time.perf_counter()
        try:
            result = enhancer(EnhanceRequest(frame, scale=scale))
        except FrameDeclined:
            continue
        took = time.perf_counter() - began
        if index < enhancer.window:
            continue
        streamed.append(took)
        for stage, milliseconds in result.stage_ms.items():
            stages.setdefault(stage, []).append(milliseconds)
        # Without a ring every frame of the window would be encoded, and all motion found, in place of the
        # newest one's.
        began = time.perf_counter()
        enhancer.ring.invalidate()
        whole = time.perf_counter() - began
        anew.append(took - 1e-3 * result.stage_ms["encode"] + whole)
    enhancer.reset("benchmark")
    return StreamingCost(
        float(np.median(streamed)) * 1e3,
        float(np.median(anew)) * 1e3,
        {stage: float(np.median(values)) for stage, values in stages.items()},
    )
