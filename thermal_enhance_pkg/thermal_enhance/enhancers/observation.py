"""What every super-resolving tier does around its own work: read the input, place RGB, stay true to it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.base import EnhanceRequest
from thermal_enhance.enhancers.conditioning import (
    Destriper,
    NoiseTracker,
    RangeTracker,
    inpaint_non_finite,
    noise_sigma,
    wiener_denoise,
)
from thermal_enhance.enhancers.guided import luma
from thermal_enhance.enhancers.upsampling import Image, resize_cubic, sharpen_for_cubic
from thermal_enhance.imaging.alignment import Alignment, AlignmentConfig, AlignmentEstimator
from thermal_enhance.imaging.consistency import area_down, back_project, to_dtype

FULL = 255.0
"""Pictures are scaled so that the stream's value range is 0 to this."""
_ESTIMATE_CAP = 0.01
"""Share of the value range an estimated noise may move a block mean by: texture looks like noise."""
_ALIGNMENT_WIDTH = 320


@dataclass(frozen=True, kw_only=True)
class ObservationConfig:
    """Parameters that all super-resolving tiers share.

    Attributes:
        netd: sensor noise (one standard deviation) in units of the frame. 0 means not known: with
            `estimate_noise` it is estimated from the stream, without it the output follows the input exactly.
        estimate_noise: only for netd 0: the noise measured in the frames (`noise_sigma`, averaged over the
            stream) takes the place of netd, and K times it never exceeds 1 % of the stream's value range.
            A clean stream measures next to none and is followed exactly.
        consistency_k: K: block means of the output stay within K * netd of the input.
        sampling: "area" where a sensor pixel averages over its area, "off" for aliased input.
        denoise: adaptive Wiener filter within the K * netd (given or estimated) that consistency allows.
        destripe: remove column and row offsets, within the same bound.
        non_finite: "inpaint" leaves repaired pixels filled, "restore" puts NaN back into their blocks.
        guided: use RGB at all.
        min_trust: RGB trusted less than this is not used.
        per_frame_alignment: align every pair to the end by itself (offline) rather than bit by bit online.
        alignment: see `AlignmentConfig`.
    """

    netd: float = 0.0
    estimate_noise: bool = False
    consistency_k: float = 1.0
    sampling: str = "area"
    denoise: bool = True
    destripe: bool = False
    non_finite: str = "inpaint"
    guided: bool = True
    min_trust: float = 0.05
    per_frame_alignment: bool = False
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)

    def __post_init__(self) -> None:
        for name in ("netd", "consistency_k"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"{name} must be finite and at least 0, not {value}")
        self.check_choice("sampling", ("area", "off"))
        self.check_choice("non_finite", ("inpaint", "restore"))
        if not 0.0 <= self.min_trust <= 1.0:
            raise ValueError(f"min_trust must lie in 0..1, not {self.min_trust}")

    def check_choice(self, name: str, known: tuple[str, ...]) -> None:
        """See that a field has one of the known values.

        Raises:
            ValueError: it has not.
        """
        if getattr(self, name) not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

    def limit(self, estimated: float, span: float) -> float:
        """Largest departure of a block mean from the input.

        Args:
            estimated: noise measured in the stream, in units of the frame.
            span: width of the stream's value range, same units.

        Returns:
            K * netd where netd is given; else K * estimated, capped, or 0; in units of the frame.
        """
        if self.netd > 0.0 or not self.estimate_noise:
            return self.netd * self.consistency_k
        return min(estimated * self.consistency_k, _ESTIMATE_CAP * span)


@dataclass(frozen=True)
class Observation:
    """One thermal frame, read.

    Attributes:
        observed: (h, w) float32, the input with its holes filled, in units of the frame.
        holes: (h, w) bool, where the input was not finite; None where it was everywhere.
        clean: (h, w) float32, denoised and destriped within `limit` of `observed`.
        low, high: the value range that levels 0 and 255 stand for, in units of the frame.
        sigma: noise of this frame, in units of the frame.
        limit: K * netd: largest departure of a block mean from the input.
        rounding: what the output's own precision adds to that.
        dtype: of the input.
    """

    observed: Image
    holes: NDArray[np.bool_] | None
    clean: Image
    low: float
    high: float
    sigma: float
    limit: float
    rounding: float
    dtype: np.dtype[Any]

    @property
    def gain(self) -> float:
        """Levels per unit of the frame."""
        return FULL / (self.high - self.low)

    @property
    def degradation(self) -> float:
        """Noise as a share of the range, squeezed into 0 to 1."""
        return 1.0 - math.exp(-self.sigma * self.gain / (0.02 * FULL))

    @property
    def repaired(self) -> int:
        """Number of pixels filled from their neighbours."""
        return 0 if self.holes is None else int(self.holes.sum())

    def levels(self) -> Image:
        """(h, w) float32: the clean picture, 0 to 255 over the value range."""
        return (self.clean - np.float32(self.low)) * np.float32(self.gain)

    def to_units(self, levels: Image) -> Image:
        """Levels of any size back to units of the frame, in place."""
        levels *= np.float32(1.0 / self.gain)
        levels += np.float32(self.low)
        return levels


class Observer:
    """Reads the thermal frames of one stream: holes, range, noise, stripes.

    Args:
        config: see `ObservationConfig`.
    """

    def __init__(self, config: ObservationConfig) -> None:
        self.config = config
        self._destriper = Destriper()
        self._range = RangeTracker()
        self._noise = NoiseTracker()

    def reset(self) -> None:
        """Forget range, noise and stripes."""
        self._range.reset()
        self._noise.reset()
        self._destriper.reset()

    def __call__(self, request: EnhanceRequest, value_range: tuple[float, float] | None) -> Observation:
        """Read one frame.

        Args:
            request: the frame.
            value_range: (low, high) to normalise by, in its units; None to follow the stream's percentiles.

        Raises:
            ValueError: no pixel of the frame is finite.
        """
        dtype = request.thermal.data.dtype
        observed, holes = inpaint_non_finite(np.asarray(request.thermal.data, np.float32))
        largest = float(np.abs(observed).max())
        smallest = 16.0 if dtype != np.float32 else max(1e-3, 1e-6 * largest)
        low, high = self._range(observed, value_range, smallest)
        sigma = noise_sigma(observed)
        rounding = 0.5 if dtype != np.float32 else 2.0**-20 * largest
        level = self._noise(sigma)
        limit = self.config.limit(level, high - low)
        clean = self._condition(observed, sigma if self.config.netd > 0.0 else level, limit, rounding)
        return Observation(observed, holes, clean, low, high, sigma, limit, rounding, dtype)

    def _condition(self, observed: Image, sigma: float, limit: float, rounding: float) -> Image:
        """Denoise and destripe, never further from the input than consistency will allow."""
        room = limit - rounding  # the output's own rounding comes on top
        if room <= 0.0:
            return observed
        clean = self._destriper(observed, room) if self.config.destripe else observed
        if self.config.denoise:
            clean = wiener_denoise(clean, min(sigma, limit))
        return np.asarray(np.clip(clean, observed - room, observed + room), np.float32)


class GuideAligner:
    """Says of each frame where its RGB lies, and how far to trust it.

    Args:
        config: see `ObservationConfig`.
    """

    def __init__(self, config: ObservationConfig) -> None:
        self.config = config
        self._estimator = AlignmentEstimator(config.alignment)
        self.last: Alignment | None = None
        """What the estimator said about the latest frame with RGB; for diagnostics."""

    def reset(self, reason: str) -> None:
        """Go back to the first guess."""
        self._estimator.reset(reason)

    def __call__(
        self, request: EnhanceRequest, levels: Image
    ) -> tuple[Alignment | None, NDArray[np.uint8] | None]:
        """Take one pair in.

        Args:
            request: the frame, with or without RGB.
            levels: (h, w) float32, its thermal picture in 0 to 255.

        Returns:
            The alignment and the (H, W) uint8 luma of the RGB frame; (None, None) without RGB.
        """
        if request.color is None or not self.config.guided:
            return None, None
        gray = luma(request.color.data)
        if min(levels.shape) < 16 or min(gray.shape) < 16:
            self.last = Alignment(self.config.alignment.first_guess(), 0.0, False, "too_small")
            return self.last, None
        small = gray
        if gray.shape[1] > _ALIGNMENT_WIDTH:
            height = max(8, round(gray.shape[0] * _ALIGNMENT_WIDTH / gray.shape[1]))
            reduced = cv2.resize(gray, (_ALIGNMENT_WIDTH, height), interpolation=cv2.INTER_AREA)
            small = np.asarray(reduced, np.uint8)
        picture = np.clip(levels * np.float32(1.0 / FULL), 0.0, 1.0)
        brightness = small.astype(np.float32) * np.float32(1.0 / FULL)
        if self.config.per_frame_alignment:
            alignment = self._estimator.follow(picture, brightness, request.pair_skew_s)
        else:
            alignment = self._estimator.update(
                picture, brightness, request.thermal.stamp_ns, request.pair_skew_s
            )
        self.last = alignment
        return alignment, gray


def settle(
    enlarged: Image, seen: Observation, scale: int, config: ObservationConfig
) -> tuple[NDArray[Any], float]:
    """Make a result true to its input, and a picture of the input's type.

    Args:
        enlarged: (h * scale, w * scale) float32 in units of the frame; changed in place.
        seen: the input.
        scale: output size over input size.
        config: sampling, non_finite.

    Returns:
        The output picture, and max |area_down(output) - input| over what was observed, measured on it.
    """
    if config.sampling == "area":
        _meet_block_means(enlarged, seen.clean, scale)
    data: NDArray[Any] = to_dtype(enlarged, seen.dtype)
    residual = _residual(data, seen, scale)
    if config.sampling == "area" and residual > max(seen.limit, seen.rounding):
        # Saturation took from some blocks what it did not take from their means.
        enlarged, _ = back_project(enlarged, seen.clean, scale, 0.0, value_range=_dtype_range(seen.dtype))
        data = to_dtype(enlarged, seen.dtype)
        residual = _residual(data, seen, scale)
    if seen.holes is not None and config.non_finite == "restore":
        data[np.repeat(np.repeat(seen.holes, scale, axis=1), scale, axis=0)] = np.nan
    return data, residual


def _meet_block_means(enlarged: Image, target: Image, scale: int) -> None:
    """`consistency.back_project` to zero, in place and in a quarter of its time: smoothly, then the rest.

    `target` is within the limit of the input, so meeting it keeps the output there as well, and the sensor's
    noise, which `target` has lost, does not come back.
    """
    size = (enlarged.shape[1], enlarged.shape[0])
    if scale > 1:
        gap = sharpen_for_cubic(target - area_down(enlarged, scale), scale, 2)
        np.add(enlarged, resize_cubic(gap, size), out=enlarged)
    rest = target - area_down(enlarged, scale)
    np.add(enlarged, cv2.resize(rest, size, interpolation=cv2.INTER_NEAREST), out=enlarged)


def _residual(data: NDArray[Any], seen: Observation, scale: int) -> float:
    gap = np.abs(area_down(data, scale) - seen.observed)
    return float(gap.max() if seen.holes is None else gap[~seen.holes].max())


def _dtype_range(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    if dtype == np.float32:
        return None
    info = np.iinfo(dtype)
    return float(info.min), float(info.max)


class Stopwatch:
    """Milliseconds by stage, in order."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Time since the last lap is this stage's; several laps of one stage add up."""
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
