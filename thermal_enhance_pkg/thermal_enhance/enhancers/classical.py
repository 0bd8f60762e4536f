"""The classical tier: edge-aware upsampling, guided by RGB where RGB can be trusted, true to the input."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.base import EnhancedFrame, EnhanceRequest
from thermal_enhance.enhancers.guided import GuideConfig, GuidedDetail
from thermal_enhance.enhancers.observation import (
    GuideAligner,
    ObservationConfig,
    Observer,
    Stopwatch,
    settle,
)
from thermal_enhance.enhancers.upsampling import EdgeUpsampler, Image, UpsamplingConfig, resize_cubic
from thermal_enhance.imaging.alignment import Alignment
from thermal_enhance.imaging.frames import ThermalFrame


@dataclass(frozen=True, kw_only=True)
class ClassicalConfig(ObservationConfig):
    """Parameters of `ClassicalEnhancer`; those it shares with other tiers are in `ObservationConfig`.

    Attributes:
        quality: "full", or "fast": the work is done on at most `fast_pixels` and enlarged from there.
        fast_pixels: see `quality`.
        upsampling: see `UpsamplingConfig`.
        guide: see `GuideConfig`.
    """

    quality: str = "full"
    fast_pixels: int = 640 * 480
    upsampling: UpsamplingConfig = field(default_factory=UpsamplingConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("quality", ("full", "fast"))
        if self.fast_pixels < 1:
            raise ValueError(f"fast_pixels must be at least 1, not {self.fast_pixels}")


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
        self._observer = Observer(self.config)
        self._aligner = GuideAligner(self.config)
        self._size: tuple[int, int] | None = None

    @property
    def last_alignment(self) -> Alignment | None:
        """What was said about the latest frame with RGB; for diagnostics."""
        return self._aligner.last

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
        watch = Stopwatch()
        thermal = request.thermal
        if thermal.size != self._size:
            self.reset("size")
            self._size = thermal.size
        seen = self._observer(request, request.value_range)
        levels = seen.levels()
        watch.lap("prepare")

        alignment, gray = self._aligner(request, levels)
        if alignment is not None:
            watch.lap("align")
        trust = float("nan") if alignment is None else alignment.trust
        enlarged = seen.to_units(self._enlarge(levels, request.scale, alignment, gray, watch))
        data, residual = settle(enlarged, seen, request.scale, self.config)
        watch.lap("consistency")
        return EnhancedFrame(
            ThermalFrame(data, thermal.units, thermal.stamp_ns, thermal.frame_id),
            self.name,
            rgb_trust=trust,
            rgb_used="guide" in watch.stages,
            degradation=seen.degradation,
            consistency_residual=residual,
            stage_ms=watch.stages,
            repaired=seen.repaired,
        )

    def reset(self, reason: str) -> None:
        """Forget range, noise and stripes; the cameras' geometry only with a new size or scene."""
        self._observer.reset()
        if reason in ("size", "scene"):
            self._aligner.reset(reason)

    def close(self) -> None:
        """Nothing to free."""

    def _enlarge(
        self,
        unit: Image,
        scale: int,
        alignment: Alignment | None,
        gray: NDArray[np.uint8] | None,
        watch: Stopwatch,
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
