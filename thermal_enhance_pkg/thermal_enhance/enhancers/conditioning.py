"""What is done to a thermal picture before it is enlarged: repair, noise, stripes, range, scenes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

_LAPLACIAN_PAIR = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def inpaint_non_finite(image: Image) -> tuple[Image, NDArray[np.bool_] | None]:
    """Fill non-finite pixels from their neighbours by normalised convolution.

    Args:
        image: (H, W) float32, may hold NaN and infinities.

    Returns:
        (H, W) finite float32 (the same array when nothing was to do), and the mask of filled pixels or None.

    Raises:
        ValueError: no pixel is finite.
    """
    known = np.isfinite(image)
    if known.all():
        return image, None
    if not known.any():
        raise ValueError("the thermal frame has no finite pixel")
    result = np.where(known, image, 0).astype(np.float32)
    # Work around the middle value: blurring large counts would lose the small differences in float32.
    middle = np.float32(np.median(image[known]))
    values = np.where(known, result - middle, 0).astype(np.float32)
    weights = known.astype(np.float32)
    missing = ~known
    sigma = 1.0
    while missing.any():
        if sigma > max(image.shape):
            result[missing] = middle
            break
        near = cv2.GaussianBlur(weights, (0, 0), sigma)
        fill = cv2.GaussianBlur(values, (0, 0), sigma)
        ready = missing & (near > 0.02)
        result[ready] = fill[ready] / near[ready] + middle
        missing &= ~ready
        sigma *= 2.0
    return result, ~known


def noise_sigma(image: Image) -> float:
    """Standard deviation of white noise (Immerkaer 1996, with the median in place of the mean).

    Args:
        image: (H, W) float32, any units.

    Returns:
        Sigma in the same units; 0 for pictures smaller than 3 x 3.
    """
    if min(image.shape) < 3:
        return 0.0
    response = cv2.filter2D(image, cv2.CV_32F, _LAPLACIAN_PAIR)[1:-1, 1:-1]
    step = max(1, min(image.shape) // 160)  # some 20000 samples are plenty for a median
    return float(np.median(np.abs(response[::step, ::step]))) / (0.6745 * 6.0)


def wiener_denoise(image: Image, sigma: float, radius: int = 2) -> Image:
    """Adaptive Wiener filter (Lee 1980): flat areas are averaged, structure above the noise is kept.

    Args:
        image: (H, W) float32.
        sigma: noise standard deviation, in the units of the image.
        radius: the window is 2 * radius + 1 pixels wide.
    """
    if sigma <= 0:
        return image
    side = (2 * radius + 1, 2 * radius + 1)
    offset = np.float32(image.mean())  # squares of large counts would cancel badly in float32
    centred = image - offset
    mean = cv2.blur(centred, side, borderType=cv2.BORDER_REFLECT)
    variance = cv2.blur(centred * centred, side, borderType=cv2.BORDER_REFLECT) - mean * mean
    noise = np.float32(sigma * sigma)
    keep = np.maximum(variance - noise, 0) / np.maximum(variance, noise)
    # Two estimates per pixel are averaged: the windows' gains are noisy themselves.
    keep = cv2.blur(keep, (3, 3), borderType=cv2.BORDER_REFLECT)
    return np.asarray(mean + keep * (centred - mean) + offset, np.float32)


class Destriper:
    """Slowly averaged column and row offsets of the sensor's fixed pattern.

    Args:
        blend: weight of a new frame in the average, (0, 1].
    """

    def __init__(self, blend: float = 0.1) -> None:
        if not 0.0 < blend <= 1.0:
            raise ValueError(f"destripe blend must lie in (0, 1], not {blend}")
        self.blend = blend
        self._columns: NDArray[np.float32] | None = None
        self._rows: NDArray[np.float32] | None = None

    def reset(self) -> None:
        """Forget the pattern (shutter, new size)."""
        self._columns = self._rows = None

    def __call__(self, image: Image, limit: float) -> Image:
        """Subtract the pattern, at most `limit` (units of the image) per axis and pixel."""
        if min(image.shape) < 8:
            return image
        columns = _offsets(image, axis=0)
        rows = _offsets(image, axis=1)
        known = self._columns is not None and self._columns.shape == columns.shape
        if not known or self._rows is None or self._columns is None or self._rows.shape != rows.shape:
            self._columns, self._rows = columns, rows
        else:
            self._columns = self._columns + np.float32(self.blend) * (columns - self._columns)
            self._rows = self._rows + np.float32(self.blend) * (rows - self._rows)
        return image - np.clip(self._columns, -limit, limit) - np.clip(self._rows, -limit, limit)


def _offsets(image: Image, axis: int) -> NDArray[np.float32]:
    """Median over `axis` of what sticks out of a smooth picture across the stripes; (1, W) or (H, 1)."""
    kernel = (7, 1) if axis == 0 else (1, 7)
    smooth = cv2.blur(image, kernel, borderType=cv2.BORDER_REFLECT)
    return np.asarray(np.median(image - smooth, axis=axis, keepdims=True), np.float32)


class NoiseTracker:
    """Noise level of a stream: single estimates, slewed so that the strength of denoising does not flicker.

    Args:
        blend: weight of a new frame, (0, 1].
    """

    def __init__(self, blend: float = 0.1) -> None:
        self.blend = blend
        self._level: float | None = None

    def reset(self) -> None:
        """Forget the level."""
        self._level = None

    def __call__(self, sigma: float) -> float:
        """Take one frame's `noise_sigma` in; the first counts in full. Returns the level, same units."""
        self._level = sigma if self._level is None else self._level + self.blend * (sigma - self._level)
        return self._level


class SceneWatch:
    """Tells where another scene begins in a row of pictures: stills of a folder, cuts of a video.

    Args:
        alike: correlation of two thumbnails above which they show one scene.
    """

    def __init__(self, alike: float = 0.9) -> None:
        self.alike = alike
        self._last: tuple[np.dtype[Any], tuple[int, ...], NDArray[np.float64]] | None = None

    def __call__(self, image: NDArray[Any]) -> bool:
        """Does (H, W) `image`, of any real dtype, show another scene than the picture before it?

        True for the first, for another size or dtype, and for flat pictures, which resemble nothing.
        """
        values = image.astype(np.float32)
        known = np.isfinite(values)
        if not known.all():
            values[~known] = np.median(values[known]) if known.any() else 0.0
        small = cv2.resize(values, (32, 24), interpolation=cv2.INTER_AREA).ravel().astype(np.float64)
        small -= small.mean()
        last, self._last = self._last, (image.dtype, image.shape, small)
        if last is None or last[:2] != (image.dtype, image.shape):
            return True
        strength = float(np.linalg.norm(small) * np.linalg.norm(last[2]))
        return not float(small @ last[2]) > self.alike * strength


class RangeTracker:
    """(low, high) of a stream where the caller gives none: percentiles, slewed so that gains do not flicker.

    Args:
        blend: weight of a new frame, (0, 1].
    """

    def __init__(self, blend: float = 0.1) -> None:
        self.blend = blend
        self._range: tuple[float, float] | None = None

    def reset(self) -> None:
        """Forget the range."""
        self._range = None

    def __call__(
        self, image: Image, given: tuple[float, float] | None, smallest: float
    ) -> tuple[float, float]:
        """Range to normalise by.

        Args:
            image: (H, W) finite float32.
            given: the stream's own range, used as it is when valid.
            smallest: span below which a picture counts as flat, in its units.

        Returns:
            (low, high) with high - low at least `smallest`.
        """
        if given is not None and np.isfinite(given).all() and given[1] > given[0]:
            low, high = given
        else:
            sample = image[:: max(1, image.shape[0] // 120), :: max(1, image.shape[1] // 160)]
            low, high = (float(v) for v in np.percentile(sample, (0.5, 99.5)))
            if self._range is not None:
                low = self._range[0] + self.blend * (low - self._range[0])
                high = self._range[1] + self.blend * (high - self._range[1])
            self._range = (low, high)
        return low, max(high, low + smallest)
