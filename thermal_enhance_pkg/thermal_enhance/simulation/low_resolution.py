"""Low-resolution thermal pictures made from sharp ones: the training mix of METHODS 1.10.

3M-TI does not publish its kernel. A real microbolometer integrates over its pixel behind blurring optics
(`psf_area`); benchmark sets were made by bicubic resizing with (`bicubic`) or without (`aliased`) an
antialiasing filter; ours is scored on plain block means without noise (`area`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.consistency import area_down, image_shape

KERNELS = ("area", "psf_area", "bicubic", "aliased")
_PSF_SCALE = 8
"""The factor that `psf_sigma` is given for."""


@dataclass(frozen=True)
class LowResolutionConfig:
    """How low-resolution pictures are made. Noise is in shares of `full_scale`, ranges are (low, high).

    Attributes:
        area: weight of plain block means.
        psf_area: weight of block means after a Gaussian point spread function.
        bicubic: weight of antialiased bicubic resizing.
        aliased: weight of cv2's bicubic resizing, which has no antialiasing filter.
        psf_sigma: its standard deviation in high-resolution pixels at x8; other factors scale it.
        noise_probability: how often noise is added at all.
        netd: white noise, standard deviation drawn from this range.
        fixed_pattern: column and row offsets, standard deviation of each drawn from this range.
        agc_probability: how often gain and offset are changed, in both pictures alike.
        agc_gain: factor on the deviation from the mean; reduced where it would clip.
        agc_offset: largest change of the mean, either way; reduced where it would clip.
        quantise: round to one of `levels` values, as an 8-bit camera does.
        levels: values from 0 to `full_scale`.
        full_scale: largest value, in the units of the picture (65535 for 16-bit counts, with as many levels).
    """

    area: float = 0.0
    psf_area: float = 0.6
    bicubic: float = 0.2
    aliased: float = 0.2
    psf_sigma: tuple[float, float] = (0.8, 2.4)
    noise_probability: float = 1.0
    netd: tuple[float, float] = (0.0, 2.5 / 255)
    fixed_pattern: tuple[float, float] = (0.0, 1.5 / 255)
    agc_probability: float = 0.0
    agc_gain: tuple[float, float] = (0.7, 1.2)
    agc_offset: float = 0.1
    quantise: bool = True
    levels: int = 256
    full_scale: float = 255.0

    def __post_init__(self) -> None:
        weights = [getattr(self, name) for name in KERNELS]
        if not (all(math.isfinite(w) and w >= 0 for w in weights) and sum(weights) > 0):
            raise ValueError(
                f"low_resolution.{', '.join(KERNELS)} must be weights of at least 0, not all 0: {weights}"
            )
        for name in ("psf_sigma", "netd", "fixed_pattern", "agc_gain"):
            low, high = getattr(self, name)
            if not (math.isfinite(high) and 0 <= low <= high):
                raise ValueError(
                    f"low_resolution.{name} must be a range within 0 <= low <= high: {low}, {high}"
                )
        for name in ("noise_probability", "agc_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"low_resolution.{name} must be within 0..1, not {getattr(self, name)}")
        if not 0 <= self.agc_offset <= 1:
            raise ValueError(f"low_resolution.agc_offset must be within 0..1, not {self.agc_offset}")
        if not (self.full_scale > 0 and math.isfinite(self.full_scale) and self.levels >= 2):
            raise ValueError(
                "low_resolution.full_scale must be greater than 0 and levels at least 2: "
                f"{self.full_scale}, {self.levels}"
            )

    @classmethod
    def plain(cls, full_scale: float = 255.0, levels: int = 256) -> LowResolutionConfig:
        """Block means, rounded, without noise: what validation uses."""
        return cls(1.0, 0.0, 0.0, 0.0, noise_probability=0.0, full_scale=full_scale, levels=levels)


@dataclass(frozen=True)
class LowResolution:
    """A pair to train on.

    Attributes:
        low: (h, w) float32, 0 to full_scale.
        high: (h * scale, w * scale) float32, 0 to full_scale; changed by the AGC alone.
        kernel: which one of `KERNELS` made it.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    kernel: str


def synthesize(
    high: NDArray[Any], scale: int, rng: np.random.Generator, config: LowResolutionConfig
) -> LowResolution:
    """Draw one low-resolution picture of a sharp one.

    Args:
        high: (H, W) of any real dtype, 0 to config.full_scale.
        scale: whole factor that divides H and W.
        rng: source of randomness; the same state gives the same picture.
        config: the mix.

    Raises:
        ValueError: scale does not divide the picture.
    """
    sharp = np.ascontiguousarray(high, np.float32)
    if config.agc_probability and rng.random() < config.agc_probability:
        sharp = _change_gain(sharp, rng, config)
    weights = np.array([getattr(config, name) for name in KERNELS], np.float64)
    kernel = KERNELS[int(rng.choice(len(KERNELS), p=weights / weights.sum()))]
    sigma = rng.uniform(*config.psf_sigma) * scale / _PSF_SCALE
    low = downsample(sharp, scale, kernel, psf_sigma_px=sigma)
    if config.noise_probability and rng.random() < config.noise_probability:
        low = low + _noise(low.shape, rng, config)
    if config.quantise:
        step = config.full_scale / (config.levels - 1)
        low = np.rint(low / np.float32(step)) * np.float32(step)
    low = np.clip(low, 0, np.float32(config.full_scale)).astype(np.float32)
    return LowResolution(low, sharp, kernel)


def downsample(
    high: NDArray[Any], scale: int, kernel: str = "area", *, psf_sigma_px: float = 0.0
) -> NDArray[np.float32]:
    """Reduce a picture by a whole factor, without noise or rounding.

    Args:
        high: (H, W) of any real dtype.
        scale: whole factor that divides H and W.
        kernel: one of `KERNELS`.
        psf_sigma_px: blur of `psf_area`, standard deviation in high-resolution pixels.

    Returns:
        (H / scale, W / scale) float32, same units. The bicubic kernels may overshoot.

    Raises:
        ValueError: unknown kernel, or scale does not divide the picture.
    """
    height, width = image_shape(high, "high")
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, not {kernel!r}")
    if scale < 1 or height % scale or width % scale:
        raise ValueError(f"scale {scale} does not divide a picture of {width}x{height}")
    sharp = np.ascontiguousarray(high, np.float32)
    if kernel == "bicubic":
        rows, columns = _bicubic_matrix(height, scale), _bicubic_matrix(width, scale)
        return np.asarray(rows @ sharp @ columns.T, np.float32)
    if kernel == "aliased":
        size = (width // scale, height // scale)
        return np.asarray(cv2.resize(sharp, size, interpolation=cv2.INTER_CUBIC), np.float32)
    if kernel == "psf_area" and psf_sigma_px > 0:
        side = 2 * max(1, math.ceil(3.5 * psf_sigma_px)) + 1
        blurred = cv2.GaussianBlur(sharp, (side, side), psf_sigma_px, borderType=cv2.BORDER_REFLECT)
        return area_down(blurred, scale)
    return area_down(sharp, scale)


@lru_cache(maxsize=32)
def _bicubic_matrix(size: int, scale: int) -> NDArray[np.float32]:
    """Antialiased bicubic resizing (a = -0.5, support times the factor): (size / scale, size) matrix."""
    centres = (np.arange(size // scale) + 0.5) * scale - 0.5
    x = np.abs(np.arange(size)[None, :] - centres[:, None]) / scale
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    # Weights that would lie outside the picture are left out, and the rest scaled to sum to 1.
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _noise(
    shape: tuple[int, ...], rng: np.random.Generator, config: LowResolutionConfig
) -> NDArray[np.float32]:
    """Temporal noise and a column and row pattern: (h, w) float32 in the units of the picture."""
    height, width = shape
    white, columns, rows = (
        np.float32(rng.uniform(*bounds) * config.full_scale)
        for bounds in (config.netd, config.fixed_pattern, config.fixed_pattern)
    )
    noise = rng.standard_normal((height, width), dtype=np.float32) * white
    noise += rng.standard_normal((1, width), dtype=np.float32) * columns
    noise += rng.standard_normal((height, 1), dtype=np.float32) * rows
    return noise


def _change_gain(
    sharp: NDArray[np.float32], rng: np.random.Generator, config: LowResolutionConfig
) -> NDArray[np.float32]:
    """Another gain and offset, as an automatic gain control would set, without clipping anything."""
    low, high, mean = float(sharp.min()), float(sharp.max()), float(sharp.mean())
    gain = min(rng.uniform(*config.agc_gain), config.full_scale / max(high - low, 1e-6))
    down, up = mean - gain * (mean - low), config.full_scale - mean - gain * (high - mean)
    reach = config.agc_offset * config.full_scale
    bounds = np.clip((-reach, reach), -down, up)
    shifted = (sharp - np.float32(mean)) * np.float32(gain) + np.float32(mean + rng.uniform(*bounds))
    return np.clip(shifted, 0, np.float32(config.full_scale))
