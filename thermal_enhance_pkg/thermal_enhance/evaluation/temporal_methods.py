"""What the temporal benchmark compares: each method makes the shown frames large, and the ones between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.base import Enhancer, EnhanceRequest, FrameDeclined
from thermal_enhance.enhancers.cross_modal import CrossModalEnhancer, CrossModalEnhancerConfig
from thermal_enhance.enhancers.temporal import TemporalEnhancer, TemporalEnhancerConfig
from thermal_enhance.enhancers.temporal_input import TemporalInputBuilder
from thermal_enhance.evaluation.shared_models import SharedModels
from thermal_enhance.evaluation.temporal_baselines import enlarge, flow_interpolation, linear_blend
from thermal_enhance.evaluation.temporal_clips import PERIOD_NS, Picture, TemporalClip
from thermal_enhance.imaging.frames import ThermalFrame, Units
from thermal_enhance.imaging.motion import MotionConfig, MotionEstimator

OBSERVED, NEW = "observed", "new"
"""Frames that were shown, and those between."""
BICUBIC = "bicubic"
BLEND = "bicubic, linear blend"
FLOW = "bicubic, optical flow"
BASE = "input base"
"""Where our network starts from, without the network."""
BASELINES = (BICUBIC, BLEND, FLOW)


@dataclass
class Made:
    """What a method made of a clip.

    Attributes:
        observed: (H, W) uint8 by index of the shown frame.
        new: (H, W) uint8 by index of the shown frame before it; empty for a method in space alone.
    """

    observed: dict[int, Picture] = field(default_factory=dict)
    new: dict[int, Picture] = field(default_factory=dict)


Method = Callable[[TemporalClip], Made]


def interpolating(between: Callable[[Any, Any, int], NDArray[np.float32]]) -> Method:
    """Bicubic, and new frames by a function of the two around, as float levels."""

    def make(clip: TemporalClip) -> Made:
        low = [frame.astype(np.float32) for frame in clip.low]
        return Made(
            {i: to_picture(enlarge(frame, clip.scale)) for i, frame in enumerate(low)},
            {i: to_picture(between(*pair, clip.scale)) for i, pair in enumerate(pairwise(low))},
        )

    return make


def baselines() -> dict[str, Method]:
    """Bicubic with a linear blend and with optical flow."""
    return {BLEND: interpolating(linear_blend), FLOW: interpolating(flow_interpolation)}


def input_base(motion: str = "dense") -> Method:
    """The base that the temporal network adds its residual to, by itself."""
    estimate = MotionEstimator(MotionConfig(method=motion))

    def between(before: Any, after: Any, scale: int) -> NDArray[np.float32]:
        builder = TemporalInputBuilder(scale=scale)
        return builder((before, after), (estimate(before, after),), (0.5,)).base[0]

    return interpolating(between)


def in_space(models: SharedModels, name: str, device: str = "auto") -> Method:
    """A cross-modal model without RGB, frame by frame.

    Raises:
        ModelUnavailableError: there is no such model, or nothing here runs models.
    """
    config = CrossModalEnhancerConfig(model=name, device=device)
    return streaming(lambda: CrossModalEnhancer(config, models))


def temporal(models: SharedModels, name: str, device: str = "auto", **options: Any) -> Method:
    """A temporal model through its enhancer, called as offline.

    Args:
        models: where it is.
        name: of the model.
        device: to run on.
        options: others of `TemporalEnhancerConfig`.

    Raises:
        ModelUnavailableError: there is no such model, or nothing here runs models.
    """
    config = TemporalEnhancerConfig(model=name, device=device, keep_repeats=True, **options)
    return streaming(lambda: TemporalEnhancer(config, models))


def streaming(make: Callable[[], Enhancer]) -> Method:
    """A fresh enhancer for every clip, given one frame after the other."""
    make().close()  # A model that cannot be had is told before minutes of work, not after.

    def run(clip: TemporalClip) -> Made:
        enhancer = make()
        made = Made()
        try:
            for index, low in enumerate(clip.low):
                frame = ThermalFrame(low, Units.AGC8, index * PERIOD_NS)
                try:
                    result = enhancer(EnhanceRequest(frame, None, clip.scale, period_s=PERIOD_NS * 1e-9))
                except FrameDeclined:
                    continue
                for picture in (result.thermal, *result.extra):
                    before, phase = divmod(picture.stamp_ns, PERIOD_NS)
                    (made.new if phase else made.observed)[before] = np.asarray(picture.data, np.uint8)
        finally:
            enhancer.close()
        return made

    return run


def to_picture(levels: NDArray[Any]) -> Picture:
    """Rounded to 8 bit."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def interleaved(observed: Sequence[Picture], new: Sequence[Picture]) -> list[Picture]:
    """The output in order of time: a new frame after each observed one but the last."""
    if len(new) != len(observed) - 1:
        raise ValueError(f"{len(new)} new frames do not lie between {len(observed)} observed ones")
    return [picture for pair in zip(observed, new) for picture in pair] + [observed[-1]]
