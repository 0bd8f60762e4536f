"""Radiometric consistency where the output has the size of its input: restored and interpolated frames.

* restoration: `LowFrequencyHold` keeps slow low frequencies, `refit_gain_offset` undoes a change of contrast;
* interpolated frames: `clamp_to_envelope` bounds them by their neighbours.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.consistency import (
    area_down,
    image_shape,
    invert_sampling,
    to_dtype,
    upsample_field,
)


class LowFrequencyHold:
    """Holds the slow low frequencies of a restored stream to those of its input.

    Restoration removes noise and stripes from single frames, so their fine structure must not be forced
    back. What is held is the difference of block means, input minus output, averaged over stream time: the
    noise of one frame averages out of it, and a moving object does not smear, because it is in both.

    Args:
        block: side of a block in pixels, at least 2.
        time_constant_s: memory of the average, seconds; 0 holds every frame by itself.
    """

    def __init__(self, block: int = 16, time_constant_s: float = 1.0) -> None:
        if block < 2:
            raise ValueError(f"low-frequency hold: block must be at least 2, not {block}")
        if not time_constant_s >= 0:
            raise ValueError(f"low-frequency hold: time_constant_s must not be negative: {time_constant_s}")
        self.block = block
        self.time_constant_s = time_constant_s
        self._bias: NDArray[np.float64] | None = None
        self._known: NDArray[np.bool_] | None = None
        self._stamp_ns = 0

    def reset(self) -> None:
        """Forget the average (gap, clock jump, shutter)."""
        self._bias = None
        self._known = None

    def update(self, output: NDArray[Any], observed: NDArray[Any], stamp_ns: int) -> NDArray[np.float32]:
        """Take in one frame and correct it.

        Args:
            output: (H, W) restored image, finite.
            observed: (H, W) its input, same units; non-finite pixels are ignored.
            stamp_ns: stream time. A stamp before the last one, or a new size, starts afresh.

        Returns:
            (H, W) float32. Its block means equal the input's up to the averaged-out part.

        Raises:
            ValueError: sizes differ or the output has non-finite pixels.
        """
        image_shape(observed, "observed")
        if output.shape != observed.shape:
            raise ValueError(f"output {output.shape} and observed {observed.shape} differ in size")
        corrected = output.astype(np.float32)
        if not np.isfinite(corrected).all():
            raise ValueError("the restored image has non-finite pixels")
        difference, known = _block_means_where_finite(observed.astype(np.float32) - corrected, self.block)
        same_stream = (
            stamp_ns >= self._stamp_ns and self._known is not None and known.shape == self._known.shape
        )
        if self._bias is None or self._known is None or not same_stream:
            self._bias, self._known = difference, known
        else:
            elapsed_s = (stamp_ns - self._stamp_ns) * 1e-9
            weight = 1.0 if self.time_constant_s == 0 else -math.expm1(-elapsed_s / self.time_constant_s)
            step = np.where(self._known, weight, 1.0) * (difference - self._bias)
            self._bias = np.where(known, self._bias + step, self._bias)
            self._known = self._known | known
        self._stamp_ns = stamp_ns
        if not self._known.any():
            return corrected
        # Blocks never seen are taken for average: a step to zero would ring into their neighbours.
        bias = np.where(self._known, self._bias, self._bias[self._known].mean())
        field = upsample_field(invert_sampling(bias, 0.0, self.block, 8), self.block)
        corrected += field[: corrected.shape[0], : corrected.shape[1]]
        return corrected


def hold_low_frequencies(
    output: NDArray[Any], observed: NDArray[Any], state: LowFrequencyHold, stamp_ns: int
) -> NDArray[np.float32]:
    """`state.update(output, observed, stamp_ns)`: hold a restored frame to its input's low frequencies."""
    return state.update(output, observed, stamp_ns)


def fit_gain_offset(
    output: NDArray[Any], observed: NDArray[Any], gain_limits: tuple[float, float] = (0.2, 5.0)
) -> tuple[float, float]:
    """Gain and offset that map an output to its observation: observed ~ gain * output + offset.

    Least squares on 4x4 block means (noise in `output` would bias the gain low), reweighted with Tukey's
    biweight so that dead pixels and removed stripes do not pull.

    Args:
        output: (H, W) image.
        observed: (H, W) its input; non-finite pixels are ignored.
        gain_limits: a gain outside means that the two do not match; then only the offset is fitted.

    Returns:
        (gain, offset); (1, median difference) for a flat or unrelated output, (1, 0) without any finite
        pixel.

    Raises:
        ValueError: sizes differ.
    """
    height, width = image_shape(observed, "observed")
    if output.shape != observed.shape:
        raise ValueError(f"output {output.shape} and observed {observed.shape} differ in size")
    block = 4 if min(height, width) >= 16 else 1
    crop = np.s_[: height - height % block, : width - width % block]
    x = area_down(output[crop], block).ravel().astype(np.float64)
    y = area_down(observed[crop], block).ravel().astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if not x.size:
        return 1.0, 0.0
    # Two numbers do not need more than some thousand points.
    thin = max(1, x.size // 5000)
    x, y = x[::thin], y[::thin]
    weight = np.ones_like(x)
    gain, offset = 1.0, float(np.median(y - x))
    for _ in range(5):
        total = weight.sum()
        mean_x, mean_y = float((weight * x).sum() / total), float((weight * y).sum() / total)
        variance = float((weight * np.square(x - mean_x)).sum() / total)
        if variance <= (1e-6 * max(1.0, abs(mean_x))) ** 2:
            return 1.0, float(np.median(y - x))
        gain = float((weight * (x - mean_x) * (y - mean_y)).sum() / total / variance)
        offset = mean_y - gain * mean_x
        error = np.abs(y - gain * x - offset)
        spread = 1.4826 * float(np.median(error))
        if spread <= 1e-9 * max(1.0, abs(mean_y)):
            break
        weight = np.square(np.clip(1.0 - np.square(error / (4.685 * spread)), 0.0, None))
    if not gain_limits[0] <= gain <= gain_limits[1]:
        return 1.0, float(np.median(y - x))
    return gain, offset


def refit_gain_offset(output: NDArray[Any], observed: NDArray[Any]) -> NDArray[np.float32]:
    """Undo a change of gain and offset, for radiometric units; see `fit_gain_offset`.

    Args:
        output: (H, W) restored image.
        observed: (H, W) its input in the units wanted.

    Returns:
        (H, W) float32, gain * output + offset.

    Raises:
        ValueError: sizes differ.
    """
    gain, offset = fit_gain_offset(output, observed)
    # In double: a gain on kelvins in float32 would round away a tenth of a millikelvin per step.
    return (gain * output.astype(np.float64) + offset).astype(np.float32)


def clamp_to_envelope(
    mid: NDArray[Any], a: NDArray[Any], b: NDArray[Any], margin: float = 0.0, radius: int = 1
) -> tuple[NDArray[Any], float]:
    """Bound an interpolated frame by its two neighbours.

    Args:
        mid: (H, W) interpolated frame, finite.
        a: (H, W) frame before; a non-finite pixel leaves the bound to the other frame.
        b: (H, W) frame after.
        margin: how far outside is still allowed, in the units of the frame.
        radius: the envelope is taken over (2 * radius + 1)**2 pixels, so that an edge between its places in
            `a` and `b` is not cut; 0 compares pixel by pixel.

    Returns:
        The bounded frame in `mid`'s dtype, and the share of pixels that were outside, 0 to 1.

    Raises:
        ValueError: sizes differ, `mid` has non-finite pixels, margin or radius is negative.
    """
    image_shape(mid, "mid")
    if not mid.shape == a.shape == b.shape:
        raise ValueError(f"mid {mid.shape}, a {a.shape} and b {b.shape} differ in size")
    if not margin >= 0 or radius < 0:
        raise ValueError(f"margin ({margin}) and radius ({radius}) must not be negative")
    value = mid.astype(np.float32)
    if not np.isfinite(value).all():
        raise ValueError("the interpolated image has non-finite pixels")
    first, second = (np.where(np.isfinite(x), x, np.nan).astype(np.float32) for x in (a, b))
    low, high = np.fmin(first, second), np.fmax(first, second)
    unknown = np.isnan(low)
    low[unknown], high[unknown] = -np.inf, np.inf
    if radius:
        kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        low, high = cv2.erode(low, kernel), cv2.dilate(high, kernel)
    low -= np.float32(margin)
    high += np.float32(margin)
    outside = float(np.mean((value < low) | (value > high)))
    return to_dtype(np.clip(value, low, high), mid.dtype), outside


def _block_means_where_finite(
    image: NDArray[np.float32], block: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Means over blocks, the last row and column cut short by the border: (ceil(H/b), ceil(W/b))."""
    height, width = image.shape
    finite = np.isfinite(image)
    padding = (0, -height % block, 0, -width % block)
    values = cv2.copyMakeBorder(np.where(finite, image, np.float32(0)), *padding, cv2.BORDER_CONSTANT)
    weights = cv2.copyMakeBorder(finite.astype(np.float32), *padding, cv2.BORDER_CONSTANT)
    share = area_down(weights, block).astype(np.float64)
    known = share > 0
    return np.where(known, area_down(values, block) / np.where(known, share, 1.0), 0.0), known
