"""What the cross-modal network is fed, the same in training and live.

The thermal view has three channels, all on the output grid: the classical result with the trusted RGB detail
in it (the base that the network adds to), its local contrast without RGB, and the RGB detail alone, both
amplified. The network thus starts from what the guided filter knows already and learns what it does not
(METHODS 1.17); and the contrast, from which alone edges are inferred, does not drown in the brightness. The
RGB view is the colour picture brought onto the thermal grid by the estimated alignment.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.guided import GuideConfig, GuidedDetail
from thermal_enhance.enhancers.upsampling import EdgeUpsampler, Image, UpsamplingConfig

_HALF = np.float32(127.5)
AMPLIFICATION = 5.0
"""Of the contrast and detail channels."""


@dataclass(frozen=True)
class Guide:
    """RGB on the output grid.

    Attributes:
        color: (H, W, 3) float32 RGB, 0 to 255; what lies outside the RGB frame is replicated from its edge.
        mask: (h, w) float32 on the input grid, 1 where RGB really looks, 0 outside.
    """

    color: Image
    mask: Image


@dataclass(frozen=True)
class CrossModalInput:
    """One frame for the network.

    Attributes:
        thermal: (3, H, W) float32, about [-1, 1]: guided base, local contrast, RGB detail (0 without RGB).
        rgb: (3, H, W) float32 in [-1, 1], or None.
    """

    thermal: Image
    rgb: Image | None


@dataclass(frozen=True)
class CrossModalInputBuilder:
    """Makes the network's input from pictures in 0..255 of the stream's range.

    Attributes:
        upsampling: of the classical base.
        guide: of the RGB detail in it.
        area_sampled: see `EdgeUpsampler`.
        guided_base: put the guided filter's RGB detail into the base; off for ablations.
    """

    upsampling: UpsamplingConfig = field(default_factory=UpsamplingConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)
    area_sampled: bool = True
    guided_base: bool = True

    def __call__(self, thermal: Image, scale: int, guide: Guide | None = None) -> CrossModalInput:
        """Build.

        Args:
            thermal: (h, w) float32, 0 to 255 over the stream's range.
            scale: 2, 4 or 8.
            guide: see `place_color`; None for the thermal-only path.
        """
        upsampler = EdgeUpsampler(self.upsampling, self.area_sampled)
        base = upsampler(thermal, scale)
        contrast = base - np.asarray(cv2.GaussianBlur(base, (0, 0), 1.0 * scale), np.float32)
        detail, rgb = np.zeros_like(base), None
        if guide is not None:
            gray = np.asarray(cv2.cvtColor(guide.color, cv2.COLOR_RGB2GRAY), np.float32)
            if self.guided_base:
                filter_ = GuidedDetail(self.guide, upsampler)
                detail = filter_(thermal, filter_.soften(gray, scale), guide.mask, scale)
            rgb = np.ascontiguousarray(guide.color.transpose(2, 0, 1)) / _HALF - np.float32(1.0)
        amplify = np.float32(AMPLIFICATION / _HALF)
        pictures = np.stack([(base + detail) / _HALF - np.float32(1.0), contrast * amplify, detail * amplify])
        return CrossModalInput(pictures, rgb)

    def place_color(
        self, color: NDArray[np.uint8], homography: NDArray[np.float64], size: tuple[int, int], scale: int
    ) -> Guide:
        """Bring an RGB frame onto the output grid.

        Args:
            color: (H, W, 3) uint8 RGB, any size.
            homography: thermal to RGB over [0, 1] coordinates.
            size: (width, height) of the thermal input.
            scale: output size over input size.
        """
        grid = (size[0] * scale, size[1] * scale)
        placer = GuidedDetail(self.guide)
        warped, source = placer.warp(color, homography, grid)
        return Guide(warped, placer.coverage(homography, size, source))


def to_levels(picture: NDArray[np.float32]) -> Image:
    """Network output in [-1, 1] back to 0..255 of the stream's range."""
    return np.asarray((picture + np.float32(1.0)) * _HALF, np.float32)
