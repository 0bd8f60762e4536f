"""Guided upsampling: detail of an aligned RGB picture where, and only where, thermal is seen to share it.

The detail that upsampling cannot know is `guide - upsample(area_down(guide))`. How much of it thermal has is
measured one octave lower, where both are known: inside every window the finest observed band of thermal is
regressed on that of the guide. The gain is the regression's slope (of either sign), weighted by the squared
correlation, so texture that RGB alone has is not copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.upsampling import EdgeUpsampler, Image, resize_area, resize_cubic
from thermal_enhance.imaging.alignment import pixel_matrix
from thermal_enhance.imaging.registration import inside_mask


@dataclass(frozen=True)
class GuideConfig:
    """Parameters of `GuidedDetail`; thermal is scaled so that the stream's range is 0 to 255.

    Attributes:
        window_sigma: Gaussian window of the regression, input pixels.
        blur: blur of the guide, input pixels: its last half octave is more often parallax than detail.
        regularisation: added to the guide's band variance: a flat guide gives no gain.
        thermal_floor: added to thermal's band variance: below it correlation is taken for chance.
        gain_limit: largest slope used.
        detail_limit: largest detail added, in 1/255 of the range.
    """

    window_sigma: float = 1.5
    blur: float = 0.18
    regularisation: float = 6.0
    thermal_floor: float = 1.5
    gain_limit: float = 2.0
    detail_limit: float = 64.0

    def __post_init__(self) -> None:
        if self.window_sigma <= 0 or self.blur < 0:
            raise ValueError("guide.window_sigma must be positive and guide.blur not negative")
        if min(self.regularisation, self.thermal_floor, self.gain_limit, self.detail_limit) <= 0:
            raise ValueError("guide.regularisation, thermal_floor, gain_limit, detail_limit must be positive")


def luma(color: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8 luma of an (H, W, 3) uint8 RGB picture."""
    return np.asarray(cv2.cvtColor(color, cv2.COLOR_RGB2GRAY), np.uint8)


class GuidedDetail:
    """Computes the detail to add to an upsampled thermal picture.

    Args:
        config: see `GuideConfig`.
        upsampler: the one that made the thermal base: the guide must lose what thermal lost.
    """

    def __init__(self, config: GuideConfig | None = None, upsampler: EdgeUpsampler | None = None) -> None:
        self.config = config or GuideConfig()
        self.upsampler = upsampler or EdgeUpsampler()

    def finer(self, gray: NDArray[np.uint8], homography: NDArray[np.float64], width: int) -> bool:
        """Has the guide more pixels across the thermal view than thermal (`width`) itself?"""
        return _spread(homography) * gray.shape[1] > 1.2 * width

    def place(
        self, gray: NDArray[np.uint8], homography: NDArray[np.float64], size: tuple[int, int], scale: int
    ) -> tuple[Image, Image]:
        """Bring the guide onto the thermal grid.

        Args:
            gray: (H, W) uint8 luma of the RGB frame.
            homography: thermal to RGB over [0, 1] coordinates (`Alignment.homography`).
            size: (width, height) of the thermal input.
            scale: enlargement of the working grid.

        Returns:
            (h * scale, w * scale) float32 guide in 0..255, and (h, w) float32 mask, 1 where RGB looks.
        """
        grid = (size[0] * scale, size[1] * scale)
        warped, source = self.warp(gray, homography, grid)
        return self.soften(warped, scale), self.coverage(homography, size, source)

    def warp(
        self, picture: NDArray[np.uint8], homography: NDArray[np.float64], grid: tuple[int, int]
    ) -> tuple[Image, tuple[int, int]]:
        """Bring a luma or RGB picture onto a (width, height) grid, replicated beyond its edges.

        Returns:
            float32 picture, and the (width, height) to which the source was reduced first.
        """
        picture = self.reduce(picture, homography, grid[0])
        source = (picture.shape[1], picture.shape[0])
        matrix = pixel_matrix(homography, grid, source)
        if source == grid and np.abs(matrix - np.eye(3)).max() < 1e-3:
            return picture.astype(np.float32), source
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpPerspective(picture, matrix, grid, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(warped).astype(np.float32), source

    def soften(self, guide: Image, scale: int) -> Image:
        """Blur a luma guide by what the lens of a thermal camera blurs."""
        sigma = self.config.blur * scale
        return np.asarray(cv2.GaussianBlur(guide, (0, 0), sigma), np.float32) if sigma > 0.2 else guide

    def reduce(
        self, picture: NDArray[np.uint8], homography: NDArray[np.float64], width: int
    ) -> NDArray[np.uint8]:
        """(H, W) or (H, W, 3) RGB picture, reduced where it is so fine that on the grid it would alias.

        Args:
            picture: luma or RGB.
            homography: thermal to RGB over [0, 1] coordinates.
            width: of the working grid.
        """
        rows, columns = picture.shape[:2]
        factor = width / max(_spread(homography) * columns, 1e-6)  # working pixels per RGB pixel
        if factor >= 0.7:
            return picture
        reduced = (max(1, round(columns * factor)), max(1, round(rows * factor)))
        return np.asarray(cv2.resize(picture, reduced, interpolation=cv2.INTER_AREA), np.uint8)

    def coverage(
        self, homography: NDArray[np.float64], size: tuple[int, int], source: tuple[int, int]
    ) -> Image:
        """(h, w) float32 on the input grid, (width, height) `size`: 1 where RGB of `source` size looks."""
        mask = inside_mask(pixel_matrix(homography, size, source), size, source)
        # The border of the guide would feed replicated pixels into the band: fade it out.
        core = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1.0)
        return np.asarray(cv2.blur(core, (3, 3)) * core, np.float32)

    def gains(self, thermal: Image, guide_low: Image) -> Image:
        """Signed, correlation-weighted gain per input pixel.

        Args:
            thermal: (h, w) float32 input, range 0 to 255.
            guide_low: (h, w) float32 guide, area-averaged to the same grid.

        Returns:
            (h, w) float32, thermal units per guide unit, within +-gain_limit.
        """
        config = self.config
        a, b = _band(thermal), _band(guide_low)
        covariance = self._window(a * b)
        power_b = self._window(b * b) + np.float32(config.regularisation)
        power_a = self._window(a * a) + np.float32(config.thermal_floor)
        slope = covariance / power_b
        weighted = slope * (covariance * slope / power_a)
        return np.clip(weighted, -config.gain_limit, config.gain_limit)

    def __call__(self, thermal: Image, guide: Image, mask: Image, scale: int, sharp: bool = True) -> Image:
        """Detail to add to the thermal base at the working grid.

        Args:
            thermal: (h, w) float32 input, range 0 to 255.
            guide: (h * scale, w * scale) float32 from `place`.
            mask: (h, w) float32 0..1: where, and with how much trust, to use it.
            scale: enlargement of the working grid.
            sharp: upsample the guide's base as thermal's (True) or bicubically (False, faster).

        Returns:
            (h * scale, w * scale) float32, added detail in 1/255 of the range.
        """
        height, width = thermal.shape
        size = (width * scale, height * scale)
        low = resize_area(guide, (width, height))
        if sharp:
            base = self.upsampler(low, scale)
        else:
            base = resize_cubic(self.upsampler.linear_base(low, scale), size)
        gain = self.gains(thermal, low) * mask
        fine = np.asarray(cv2.resize(gain, size, interpolation=cv2.INTER_LINEAR), np.float32)
        detail = np.subtract(guide, base, out=base)
        np.multiply(detail, fine, out=detail)
        limit = self.config.detail_limit
        return np.clip(detail, -limit, limit, out=detail)

    def _window(self, image: Image) -> Image:
        blurred = cv2.GaussianBlur(image, (0, 0), self.config.window_sigma, borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred, np.float32)


def _spread(homography: NDArray[np.float64]) -> float:
    """Share of the RGB picture's side that the thermal view covers."""
    return float(np.sqrt(abs(np.linalg.det(homography[:2, :2] / homography[2, 2]))))


def _band(image: Image) -> Image:
    """The finest octave: what halving and bicubic doubling loses."""
    height, width = image.shape
    half = resize_area(image, (max(1, width // 2), max(1, height // 2)))
    return image - resize_cubic(half, (width, height))
