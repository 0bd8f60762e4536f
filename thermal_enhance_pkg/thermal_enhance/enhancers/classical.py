"""The classical tier: edge-aware upsampling, guided by RGB where RGB can be trusted, true to the input."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.base import EnhancedFrame, EnhanceRequest
from thermal_enhance.enhancers.conditioning import (
    Destriper,
    NoiseTracker,
    RangeTracker,
    inpaint_non_finite,
    noise_sigma,
    wiener_denoise,
)
from thermal_enhance.enhancers.guided import GuideConfig, GuidedDetail, luma
from thermal_enhance.enhancers.upsampling import (
    EdgeUpsampler,
    Image,
    UpsamplingConfig,
    resize_cubic,
    sharpen_for_cubic,
)
from thermal_enhance.imaging.alignment import Alignment, AlignmentConfig, AlignmentEstimator
from thermal_enhance.imaging.consistency import area_down, back_project, to_dtype
from thermal_enhance.imaging.frames import ThermalFrame

_FULL = 255.0
_ESTIMATE_CAP = 0.01
"""Share of the value range an estimated noise may move a block mean by: texture looks like noise."""


@dataclass(frozen=True)
class ClassicalConfig:
    """Parameters of `ClassicalEnhancer`.

    Attributes:
        netd: sensor noise (one standard deviation) in units of the frame. 0 means not known: with
            `estimate_noise` it is estimated from the stream, without it the output follows the input exactly.
        estimate_noise: only for netd 0: the noise measured in the frames (`noise_sigma`, averaged over the
            stream) takes the place of netd, and K times it never exceeds 1 % of the stream's value range.
            A clean stream measures next to none and is followed exactly.
        consistency_k: K: block means of the output stay within K * netd of the input.
        sampling: "area" where a sensor pixel averages over its area, "off" for aliased input.
        quality: "full", or "fast": the work is done on at most `fast_pixels` and enlarged from there.
        fast_pixels: see `quality`.
        guided: use RGB at all.
        min_trust: RGB trusted less than this is not used.
        per_frame_alignment: align every pair to the end by itself (offline) rather than bit by bit online.
        denoise: adaptive Wiener filter within the K * netd (given or estimated) that consistency allows.
        destripe: remove column and row offsets, within the same bound.
        non_finite: "inpaint" leaves repaired pixels filled, "restore" puts NaN back into their blocks.
        upsampling: see `UpsamplingConfig`.
        guide: see `GuideConfig`.
        alignment: see `AlignmentConfig`.
    """

    netd: float = 0.0
    estimate_noise: bool = False
    consistency_k: float = 1.0
    sampling: str = "area"
    quality: str = "full"
    fast_pixels: int = 640 * 480
    guided: bool = True
    min_trust: float = 0.05
    per_frame_alignment: bool = False
    denoise: bool = True
    destripe: bool = False
    non_finite: str = "inpaint"
    upsampling: UpsamplingConfig = field(default_factory=UpsamplingConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.netd) and self.netd >= 0.0):
            raise ValueError(f"netd must be finite and at least 0, not {self.netd}")
        if not (math.isfinite(self.consistency_k) and self.consistency_k >= 0.0):
            raise ValueError(f"consistency_k must be finite and at least 0, not {self.consistency_k}")
        for name, known in (
            ("sampling", ("area", "off")),
            ("quality", ("full", "fast")),
            ("non_finite", ("inpaint", "restore")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.fast_pixels < 1 or not 0.0 <= self.min_trust <= 1.0:
            raise ValueError("fast_pixels must be at least 1 and min_trust lie in 0..1")

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


class ClassicalEnhancer:
    """Learned-weight-free super-resolution for uint8, uint16 and float32 frames of any unit.

    Args:
        config: see `ClassicalConfig`.
    """

    name = "classical"
    needs_rgb = False
    isolated = False

    def __init__(self, config: ClassicalConfig | None = None) -> None:
        self.config = config or ClassicalConfig()
        self.uses_rgb = self.config.guided
        self._upsampler = EdgeUpsampler(self.config.upsampling, self.config.sampling == "area")
        self._guide = GuidedDetail(self.config.guide, self._upsampler)
        self._alignment = AlignmentEstimator(self.config.alignment)
        self._destriper = Destriper()
        self._range = RangeTracker()
        self._noise = NoiseTracker()
        self._size: tuple[int, int] | None = None
        self.last_alignment: Alignment | None = None
        """What the estimator said about the latest frame with RGB; for diagnostics."""

    def __call__(self, request: EnhanceRequest) -> EnhancedFrame:
        """Enhance one frame.

        Returns:
            A frame of `request.scale` times the size, dtype and units of the input, with rgb_trust (NaN
            without RGB), degradation (noise, 0 to 1) and the measured consistency residual.

        Raises:
            ValueError: scale below 1 or above 16, or no finite pixel in the frame.
        """
        if not 1 <= request.scale <= 16:
            raise ValueError(f"scale must be 1 to 16, not {request.scale}")
        watch = _Stopwatch()
        thermal = request.thermal
        if thermal.size != self._size:
            self.reset("size")
            self._size = thermal.size
        observed, holes = inpaint_non_finite(np.asarray(thermal.data, np.float32))
        smallest = (
            16.0 if thermal.data.dtype != np.float32 else max(1e-3, 1e-6 * float(np.abs(observed).max()))
        )
        low, high = self._range(observed, request.value_range, smallest)
        gain = _FULL / (high - low)
        sigma = noise_sigma(observed)
        rounding = 0.5 if thermal.data.dtype != np.float32 else 2.0**-20 * float(np.abs(observed).max())
        level = self._noise(sigma)
        limit = self.config.limit(level, high - low)
        clean = self._condition(observed, sigma if self.config.netd > 0.0 else level, limit, rounding)
        unit = (clean - np.float32(low)) * np.float32(gain)
        watch.lap("prepare")

        alignment, gray = self._align(request, unit, watch)
        trust = float("nan") if alignment is None else alignment.trust
        enlarged = self._enlarge(unit, request.scale, alignment, gray, watch)
        enlarged *= np.float32(1.0 / gain)
        enlarged += np.float32(low)

        if self.config.sampling == "area":
            _meet_block_means(enlarged, clean, request.scale)
        data: NDArray[Any] = to_dtype(enlarged, thermal.data.dtype)
        residual = _residual(data, observed, request.scale, holes)
        if self.config.sampling == "area" and residual > max(limit, rounding):
            # Saturation took from some blocks what it did not take from their means.
            enlarged, _ = back_project(
                enlarged, clean, request.scale, 0.0, value_range=_dtype_range(thermal.data.dtype)
            )
            data = to_dtype(enlarged, thermal.data.dtype)
            residual = _residual(data, observed, request.scale, holes)
        if holes is not None and self.config.non_finite == "restore":
            data[np.repeat(np.repeat(holes, request.scale, axis=1), request.scale, axis=0)] = np.nan
        watch.lap("consistency")
        return EnhancedFrame(
            ThermalFrame(data, thermal.units, thermal.stamp_ns, thermal.frame_id),
            self.name,
            rgb_trust=trust,
            degradation=1.0 - math.exp(-sigma * gain / (0.02 * _FULL)),
            consistency_residual=residual,
            stage_ms=watch.stages,
            repaired=0 if holes is None else int(holes.sum()),
        )

    def reset(self, reason: str) -> None:
        """Forget range, noise and stripes; the cameras' geometry only with a new size or scene."""
        self._range.reset()
        self._noise.reset()
        self._destriper.reset()
        if reason in ("size", "scene"):
            self._alignment.reset(reason)

    def close(self) -> None:
        """Nothing to free."""

    def _condition(self, observed: Image, sigma: float, limit: float, rounding: float) -> Image:
        """Denoise and destripe, never further from the input than consistency will allow."""
        room = limit - rounding  # the output's own rounding comes on top
        if room <= 0.0:
            return observed
        clean = self._destriper(observed, room) if self.config.destripe else observed
        if self.config.denoise:
            clean = wiener_denoise(clean, min(sigma, limit))
        return np.asarray(np.clip(clean, observed - room, observed + room), np.float32)

    def _align(
        self, request: EnhanceRequest, unit: Image, watch: _Stopwatch
    ) -> tuple[Alignment | None, NDArray[np.uint8] | None]:
        """Where RGB lies and how far to trust it; (None, None) without usable RGB."""
        if request.color is None or not self.config.guided:
            return None, None
        gray = luma(request.color.data)
        if min(unit.shape) < 16 or min(gray.shape) < 16:
            return Alignment(self.config.alignment.first_guess(), 0.0, False, "too_small"), None
        wide = 320
        small = gray
        if gray.shape[1] > wide:
            height = max(8, round(gray.shape[0] * wide / gray.shape[1]))
            small = np.asarray(cv2.resize(gray, (wide, height), interpolation=cv2.INTER_AREA), np.uint8)
        picture = np.clip(unit * np.float32(1.0 / _FULL), 0.0, 1.0)
        brightness = small.astype(np.float32) * np.float32(1.0 / _FULL)
        if self.config.per_frame_alignment:
            alignment = self._alignment.follow(picture, brightness, request.pair_skew_s)
        else:
            alignment = self._alignment.update(
                picture, brightness, request.thermal.stamp_ns, request.pair_skew_s
            )
        self.last_alignment = alignment
        watch.lap("align")
        return alignment, gray

    def _enlarge(
        self,
        unit: Image,
        scale: int,
        alignment: Alignment | None,
        gray: NDArray[np.uint8] | None,
        watch: _Stopwatch,
    ) -> Image:
        """Thermal base plus trusted detail, on the working grid, then to the output size."""
        if scale == 1:
            return unit.copy()
        height, width = unit.shape
        work = self._working_scale(width * height, scale)
        detail: Image | None = None
        if (
            alignment is not None
            and gray is not None
            and alignment.trust >= self.config.min_trust
            and self._guide.finer(gray, alignment.homography, width)
        ):
            guide, mask = self._guide.place(gray, alignment.homography, (width, height), work)
            sharp = self.config.quality == "full"
            detail = self._guide(unit, guide, mask * np.float32(alignment.trust), work, sharp)
            watch.lap("guide")
        enlarged = self._upsampler(unit, work)
        if detail is not None:
            enlarged += detail
        if work != scale:
            enlarged = resize_cubic(enlarged, (width * scale, height * scale))
        watch.lap("upsample")
        return enlarged

    def _working_scale(self, pixels: int, scale: int) -> int:
        """Largest divisor of `scale` (at least 2) that keeps the working grid within `fast_pixels`."""
        if self.config.quality == "full":
            return scale
        divisors = [d for d in range(2, scale + 1) if scale % d == 0]
        fitting = [d for d in divisors if pixels * d * d <= self.config.fast_pixels]
        return max(fitting, default=divisors[0])


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


def _residual(data: NDArray[Any], observed: Image, scale: int, holes: NDArray[np.bool_] | None) -> float:
    """Max |area_down(data) - observed| over what was observed, measured on what leaves the house."""
    gap = np.abs(area_down(data, scale) - observed)
    return float(gap.max() if holes is None else gap[~holes].max())


def _dtype_range(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    if dtype == np.float32:
        return None
    info = np.iinfo(dtype)
    return float(info.min), float(info.max)


class _Stopwatch:
    """Milliseconds by stage, in order."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
