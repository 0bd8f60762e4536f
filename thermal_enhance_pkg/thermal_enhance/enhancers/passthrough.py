"""The floor of the ladder: the input itself, or its exact replication. It cannot fail."""

from __future__ import annotations

import time

import numpy as np

from thermal_enhance.enhancers.base import EnhancedFrame, EnhanceRequest
from thermal_enhance.imaging.frames import ThermalFrame


class PassthroughEnhancer:
    """Copies nothing at scale 1 and repeats pixels above; works for every valid frame, NaN included."""

    name = "passthrough"
    needs_rgb = False
    uses_rgb = False
    isolated = False

    def __call__(self, request: EnhanceRequest) -> EnhancedFrame:
        """The input frame at `request.scale`.

        Returns:
            Scale 1: the very same array. Above: every pixel as a scale x scale block, bit for bit.
        """
        began = time.perf_counter()
        thermal = request.thermal
        scale = max(1, request.scale)
        if scale > 1:
            data = np.repeat(np.repeat(thermal.data, scale, axis=1), scale, axis=0)
            thermal = ThermalFrame(data, thermal.units, thermal.stamp_ns, thermal.frame_id)
        elapsed_ms = (time.perf_counter() - began) * 1e3
        return EnhancedFrame(thermal, self.name, stage_ms={"upsample": elapsed_ms})

    def reset(self, reason: str) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Nothing to free."""
