"""How close one image is to another: fidelity, structure, edges, radiometry.

All take single-channel images of any real dtype and compute in double precision. `data_range` is the span
of possible (or tone-curve) values, in the units of the images; it is always given, never guessed from the
image, because a guess would make scores of different frames incomparable.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.consistency import area_down

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr(image: NDArray[Any], reference: NDArray[Any], data_range: float) -> float:
    """Peak signal-to-noise ratio.

    Args:
        image: (H, W).
        reference: (H, W), same units.
        data_range: span of values.

    Returns:
        10 log10(data_range**2 / mean squared error), dB; inf for equal images. Higher is better.

    Raises:
        ValueError: sizes differ, pixels are not finite, or data_range is not positive.
    """
    x, y = _pair(image, reference)
    span = _span(data_range)
    error = float(np.mean(np.square(x - y)))
    return math.inf if error == 0 else 10.0 * math.log10(span * span / error)


def fitted_psnr(image: NDArray[Any], reference: NDArray[Any], data_range: float) -> float:
    """PSNR after the best gain and offset (least squares of reference on image).

    Tells lost structure from a mere change of brightness or contrast.

    Args:
        image: (H, W).
        reference: (H, W).
        data_range: span of values of the reference.

    Returns:
        dB, never below `psnr`; inf for a perfect fit.

    Raises:
        ValueError: as for `psnr`.
    """
    x, y = _pair(image, reference)
    deviation = x - x.mean()
    variance = float(np.mean(np.square(deviation)))
    gain = float(np.mean(deviation * (y - y.mean()))) / variance if variance > 0 else 0.0
    return psnr(y.mean() + gain * deviation, y, data_range)


def ssim(image: NDArray[Any], reference: NDArray[Any], data_range: float) -> float:
    """Structural similarity (Wang et al., 2004): Gaussian 11x11 window, sigma 1.5, K1 0.01, K2 0.03.

    Windows that would reach over the border are left out, and the image is not downsampled first.

    Args:
        image: (H, W), at least 11x11.
        reference: (H, W).
        data_range: span of values.

    Returns:
        Mean over the windows, -1 to 1; 1 for equal images. Symmetric in its two images.

    Raises:
        ValueError: sizes differ or are below 11x11, pixels are not finite, or data_range is not positive.
    """
    x, y = _pair(image, reference)
    if min(x.shape) < _SSIM_WINDOW:
        raise ValueError(f"ssim needs at least {_SSIM_WINDOW}x{_SSIM_WINDOW} pixels, not {x.shape}")
    luminance, structure = _ssim_maps(x, y, _span(data_range))
    return float(np.mean(luminance * structure))


def ms_ssim(
    image: NDArray[Any], reference: NDArray[Any], data_range: float, levels: int = len(_MS_SSIM_WEIGHTS)
) -> float:
    """Multi-scale SSIM (Wang, Simoncelli and Bovik, 2003), halved by 2x2 means between levels.

    Args:
        image: (H, W), at least 11 * 2**(levels - 1) pixels a side: 176 for five levels.
        reference: (H, W).
        data_range: span of values.
        levels: number of scales, 1 to 5; with fewer than five the weights are rescaled to sum to 1.

    Returns:
        0 to 1; 1 for equal images. Negative structure terms count as 0.

    Raises:
        ValueError: as for `ssim`, too small for `levels`, or levels out of range.
    """
    x, y = _pair(image, reference)
    span = _span(data_range)
    if not 1 <= levels <= len(_MS_SSIM_WEIGHTS):
        raise ValueError(f"levels must be within 1..{len(_MS_SSIM_WEIGHTS)}, not {levels}")
    least = _SSIM_WINDOW * 2 ** (levels - 1)
    if min(x.shape) < least:
        raise ValueError(f"ms_ssim at {levels} levels needs at least {least} pixels a side, not {x.shape}")
    weights = np.array(_MS_SSIM_WEIGHTS[:levels])
    if levels < len(_MS_SSIM_WEIGHTS):
        weights /= weights.sum()
    score = 1.0
    for level, weight in enumerate(weights):
        luminance, structure = _ssim_maps(x, y, span)
        last = level == levels - 1
        term = float(np.mean(luminance * structure if last else structure))
        score *= max(term, 0.0) ** float(weight)
        if not last:
            x, y = _halve(x), _halve(y)
    return score


def gmsd(image: NDArray[Any], reference: NDArray[Any], data_range: float) -> float:
    """Gradient magnitude similarity deviation (Xue et al., 2014).

    Prewitt gradients of the image halved by 2x2 means, the constant 170 scaled from 8 bit to data_range;
    borders are replicated (the authors' code pads with zeros, which makes a gradient of the border).

    Args:
        image: (H, W), at least 2x2.
        reference: (H, W).
        data_range: span of values.

    Returns:
        Standard deviation of the similarity over the image; 0 for equal images, lower is better.

    Raises:
        ValueError: sizes differ or are below 2x2, pixels are not finite, or data_range is not positive.
    """
    x, y = _pair(image, reference)
    if min(x.shape) < 2:
        raise ValueError(f"gmsd needs at least 2x2 pixels, not {x.shape}")
    constant = 170.0 * (_span(data_range) / 255.0) ** 2
    gx, gy = _prewitt(_halve(x)), _prewitt(_halve(y))
    return float(np.std((2 * gx * gy + constant) / (gx * gx + gy * gy + constant)))


def edge_correlation(image: NDArray[Any], reference: NDArray[Any]) -> float:
    """Correlation of the gradient magnitudes (Sobel) of two images: are the edges in the same places?

    Independent of gain and offset, and of polarity, so it also compares a thermal with an RGB image.

    Args:
        image: (H, W).
        reference: (H, W).

    Returns:
        Pearson correlation, -1 to 1; 1 if neither image has any change of gradient, 0 if just one has.

    Raises:
        ValueError: sizes differ or pixels are not finite.
    """
    x, y = _pair(image, reference)
    a, b = (
        np.hypot(
            cv2.Sobel(z, cv2.CV_64F, 1, 0, borderType=cv2.BORDER_REPLICATE),
            cv2.Sobel(z, cv2.CV_64F, 0, 1, borderType=cv2.BORDER_REPLICATE),
        )
        for z in (x, y)
    )
    flat = [float(np.ptp(g)) <= 1e-9 * max(1.0, float(np.abs(z).max())) for g, z in ((a, x), (b, y))]
    if any(flat):
        return float(all(flat))
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(np.sum(a * b) / math.sqrt(np.sum(a * a) * np.sum(b * b)), -1.0, 1.0))


def radiometric_residual(enhanced: NDArray[Any], observed: NDArray[Any], scale: int) -> dict[str, float]:
    """How far an enhanced image strays from its measurement: area_down(enhanced) - observed.

    Args:
        enhanced: (h * scale, w * scale).
        observed: (h, w), same units; non-finite pixels are left out.
        scale: whole factor between the two, at least 1.

    Returns:
        "max" (largest absolute), "rms" and "bias" (mean, signed), in the units of the images; NaN each if
        no observed pixel is finite.

    Raises:
        ValueError: the sizes do not fit.
    """
    if observed.ndim != 2 or enhanced.shape != (observed.shape[0] * scale, observed.shape[1] * scale):
        raise ValueError(f"enhanced {enhanced.shape} is not observed {observed.shape} times scale {scale}")
    difference = area_down(enhanced, scale).astype(np.float64) - observed
    difference = difference[np.isfinite(observed)]
    if not difference.size:
        return {"max": math.nan, "rms": math.nan, "bias": math.nan}
    return {
        "max": float(np.abs(difference).max()),
        "rms": float(np.sqrt(np.mean(np.square(difference)))),
        "bias": float(difference.mean()),
    }


def _pair(image: NDArray[Any], reference: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if image.shape != reference.shape:
        raise ValueError(f"image {image.shape} and reference {reference.shape} differ in size")
    if image.ndim != 2 or not image.size:
        raise ValueError(f"metrics take non-empty (H, W) images, not {image.shape}")
    for name, array in (("image", image), ("reference", reference)):
        if array.dtype.kind not in "iufb":
            raise ValueError(f"{name} must hold real numbers, not {array.dtype}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} has non-finite pixels")
    return image.astype(np.float64), reference.astype(np.float64)


def _span(data_range: float) -> float:
    if not (math.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be a positive number, not {data_range}")
    return float(data_range)


def _halve(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """2x2 means; an odd last row or column is dropped."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    even = image[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float64)


def _windowed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    margin = _SSIM_WINDOW // 2
    blurred = cv2.GaussianBlur(image, (_SSIM_WINDOW, _SSIM_WINDOW), _SSIM_SIGMA)
    return np.asarray(blurred[margin:-margin, margin:-margin], dtype=np.float64)


def _ssim_maps(
    x: NDArray[np.float64], y: NDArray[np.float64], span: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Luminance and contrast-structure terms for each full window."""
    # Variances are differences of large squares: on kelvins or counts they cancel, so a common level is
    # taken off first and put back where means are compared.
    level = 0.5 * (float(x.mean()) + float(y.mean()))
    x, y = x - level, y - level
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_x, mean_y = _windowed(x), _windowed(y)
    var_x = _windowed(x * x) - mean_x * mean_x
    var_y = _windowed(y * y) - mean_y * mean_y
    covariance = _windowed(x * y) - mean_x * mean_y
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    mean_x, mean_y = mean_x + level, mean_y + level
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    return luminance, structure


def _prewitt(image: NDArray[np.float64]) -> NDArray[np.float64]:
    smooth, slope = np.full(3, 1 / 3), np.array([1.0, 0.0, -1.0])
    across = cv2.sepFilter2D(image, cv2.CV_64F, slope, smooth, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(image, cv2.CV_64F, smooth, slope, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(across, down)
