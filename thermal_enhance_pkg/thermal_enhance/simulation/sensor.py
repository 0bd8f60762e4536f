"""What a microbolometer does to a scene: optics, noise, fixed pattern, units. Seeded and 16-bit safe.

Used by the simulated rig and by training alike, so everything works on plain arrays in kelvin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import Units

REFERENCE_K = 300.0
"""Scene temperature at which a camera reads `counts_at_reference`."""

_ENCODINGS = {
    Units.COUNTS: ("mono16", "16UC1"),
    Units.CENTIKELVIN: ("mono16", "16UC1"),
    Units.KELVIN: ("32FC1",),
    Units.CELSIUS: ("32FC1",),
    Units.AGC8: ("mono8", "8UC1"),
}


@dataclass(frozen=True)
class ThermalConfig:
    """A thermal camera.

    Attributes:
        width: columns.
        height: rows, without telemetry.
        hfov_deg: horizontal field of view, degrees.
        rate_hz: frames a second as delivered.
        repeats: how often the driver delivers each frame (27 fps UVC over a 9 Hz core: 3).
        units: meaning of the pixels.
        encoding: ROS encoding name; must fit the units.
        big_endian: byte order of messages.
        telemetry_rows: rows of Lepton telemetry added to the picture, 0 for none.
        telemetry_position: "footer" or "header".
        netd_k: temporal noise (one standard deviation), kelvin.
        fpn_pixel_k: fixed pattern from pixel to pixel (one standard deviation), kelvin.
        fpn_column_k: from column to column.
        fpn_row_k: from row to row.
        shading_k: peak of the smooth shading over the picture, kelvin.
        fpn_drift_s: time in which the fixed pattern turns into an independent one, seconds; 0 for never.
        offset_drift_k: how far the whole picture drifts after a shutter event (time constant 60 s), kelvin.
        psf_sigma_px: optical blur, standard deviation in thermal pixels, on top of the pixel's own area.
        counts_per_k: gain of the counts, counts per kelvin (linear; a real core's gain varies with
            temperature).
        counts_at_reference: counts of a scene at 300 K.
        supersampling: rendered samples per pixel side (1, 2, 4 or 8).
        frame_id: coordinate frame.
    """

    width: int = 160
    height: int = 120
    hfov_deg: float = 57.0
    rate_hz: float = 30.0
    repeats: int = 1
    units: Units = Units.COUNTS
    encoding: str = "mono16"
    big_endian: bool = False
    telemetry_rows: int = 0
    telemetry_position: str = "footer"
    netd_k: float = 0.05
    fpn_pixel_k: float = 0.03
    fpn_column_k: float = 0.04
    fpn_row_k: float = 0.02
    shading_k: float = 0.15
    fpn_drift_s: float = 120.0
    offset_drift_k: float = 0.3
    psf_sigma_px: float = 0.45
    counts_per_k: float = 40.0
    counts_at_reference: float = 8000.0
    supersampling: int = 4
    frame_id: str = "thermal_optical_frame"

    def __post_init__(self) -> None:
        if not (8 <= self.width <= 4096 and 8 <= self.height <= 4096):
            raise ValueError(f"thermal.width and height must be within 8..4096: {self.width}x{self.height}")
        if not (0 < self.rate_hz <= 1000 and self.repeats >= 1):
            raise ValueError(
                f"thermal.rate_hz must be within 0..1000 and thermal.repeats at least 1: "
                f"{self.rate_hz}, {self.repeats}"
            )
        if self.encoding not in _ENCODINGS[self.units]:
            raise ValueError(
                f"thermal.encoding {self.encoding!r} cannot carry {self.units.value}: "
                f"use one of {', '.join(_ENCODINGS[self.units])}"
            )
        for name in ("netd_k", "fpn_pixel_k", "fpn_column_k", "fpn_row_k", "fpn_drift_s", "psf_sigma_px"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"thermal.{name} must be a finite number of at least 0, not {value}")
        if not self.counts_per_k > 0:
            raise ValueError(f"thermal.counts_per_k must be greater than 0, not {self.counts_per_k}")
        if self.supersampling not in (1, 2, 4, 8):
            raise ValueError(f"thermal.supersampling must be 1, 2, 4 or 8, not {self.supersampling}")
        if self.telemetry_rows and (self.width % 80 or self.encoding not in ("mono16", "16UC1")):
            raise ValueError(
                "thermal.telemetry_rows needs a 16-bit encoding and a width that is a multiple of 80 "
                f"(Lepton), not {self.encoding} and {self.width}"
            )
        if self.telemetry_rows < 0 or self.telemetry_position not in ("footer", "header"):
            raise ValueError(
                "thermal.telemetry_rows must not be negative and telemetry_position footer or header: "
                f"{self.telemetry_rows}, {self.telemetry_position!r}"
            )

    @property
    def sensor_rate_hz(self) -> float:
        """Different frames a second."""
        return self.rate_hz / self.repeats

    @property
    def netd_units(self) -> float:
        """Temporal noise in the units of the frame; NaN for agc8, which has no scale."""
        if self.units is Units.COUNTS:
            return self.netd_k * self.counts_per_k
        per_unit = self.units.kelvin_per_unit
        return self.netd_k / per_unit if per_unit else math.nan


def stream_rng(seed: int, *keys: int) -> np.random.Generator:
    """A generator that is a pure function of the seed and the keys (stream number, frame index)."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, *keys])))


def expose(scene_k: NDArray[np.float32], factor: int, psf_sigma_px: float) -> NDArray[np.float32]:
    """Optics and pixel area: a fine scene as the sensor's pixels see it, without noise.

    Args:
        scene_k: (H * factor, W * factor) float32, kelvin.
        factor: samples per pixel side.
        psf_sigma_px: blur in pixels of the sensor. It is applied at up to twice the sensor's resolution,
            where a Gaussian of half a pixel is still sampled well.

    Returns:
        (H, W) float32, kelvin.
    """
    fine = min(factor, 2)
    image: NDArray[Any] = area_down(scene_k, factor // fine)
    if psf_sigma_px > 0:
        sigma = psf_sigma_px * fine
        size = 2 * max(1, math.ceil(3.5 * sigma)) + 1
        image = cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT)
    return area_down(image, fine) if fine > 1 else image


def temporal_noise(shape: tuple[int, int], netd_k: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """White Gaussian noise of one frame: (H, W) float32, kelvin."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(netd_k)


def fixed_pattern(
    shape: tuple[int, int],
    *,
    pixel_k: float,
    column_k: float,
    row_k: float,
    shading_k: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Fixed-pattern noise of a microbolometer: pixels, columns, rows, smooth shading.

    Args:
        shape: (H, W).
        pixel_k: standard deviation from pixel to pixel, kelvin.
        column_k: of column offsets.
        row_k: of row offsets.
        shading_k: peak of a smooth random shading.
        rng: source of randomness.

    Returns:
        (H, W) float32, kelvin.
    """
    height, width = shape
    pattern = rng.standard_normal(shape, dtype=np.float32) * np.float32(pixel_k)
    pattern += rng.standard_normal((1, width), dtype=np.float32) * np.float32(column_k)
    pattern += rng.standard_normal((height, 1), dtype=np.float32) * np.float32(row_k)
    coarse = rng.uniform(-1, 1, (4, 4)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return pattern + np.float32(shading_k) * np.clip(smooth, -1, 1)


class FixedPattern:
    """A fixed pattern that drifts: cos(a) P + sin(a) Q keeps its strength while it turns from P to Q.

    P and Q are fields of their own for each shutter event, because the correction removes the old pattern.

    Args:
        config: the camera.
        seed: source of all patterns.
    """

    def __init__(self, config: ThermalConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._event = -1
        self._fields: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def at(self, event: int, since_s: float) -> NDArray[np.float32]:
        """Pattern (H, W) float32 in kelvin, `since_s` seconds after the correction number `event`."""
        c = self._config
        if self._fields is None or event != self._event:
            p, q = (
                fixed_pattern(
                    (c.height, c.width),
                    pixel_k=c.fpn_pixel_k,
                    column_k=c.fpn_column_k,
                    row_k=c.fpn_row_k,
                    shading_k=c.shading_k,
                    rng=stream_rng(self._seed, 1, event, part),
                )
                for part in (0, 1)
            )
            self._fields, self._event = (p, q), event
        # A quarter turn makes it independent.
        angle = 0.5 * math.pi * since_s / c.fpn_drift_s if c.fpn_drift_s else 0.0
        return np.float32(math.cos(angle)) * self._fields[0] + np.float32(math.sin(angle)) * self._fields[1]


def from_kelvin(temperature_k: NDArray[np.float32], config: ThermalConfig) -> NDArray[Any]:
    """Kelvin to what the camera delivers.

    Args:
        temperature_k: (H, W) float32.
        config: units, gain and offset.

    Returns:
        (H, W) uint16 (counts within 14 bits, centikelvin), float32 (kelvin, celsius) or uint8 (agc8, min to
        max of this very frame: the flickering habit of simple drivers).
    """
    if config.units is Units.KELVIN:
        return temperature_k.astype(np.float32)
    if config.units is Units.CELSIUS:
        return temperature_k - np.float32(273.15)
    if config.units is Units.CENTIKELVIN:
        return np.clip(np.rint(temperature_k * np.float32(100)), 0, 65535).astype(np.uint16)
    if config.units is Units.COUNTS:
        counts = (temperature_k - np.float32(REFERENCE_K)) * np.float32(config.counts_per_k)
        return np.clip(np.rint(counts + np.float32(config.counts_at_reference)), 0, 16383).astype(np.uint16)
    low, high = float(temperature_k.min()), float(temperature_k.max())
    scaled = (temperature_k - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))
    return np.rint(scaled).astype(np.uint8)


def to_kelvin(data: NDArray[Any], config: ThermalConfig) -> NDArray[np.float32]:
    """What the camera delivers (telemetry rows stripped) back to kelvin.

    Args:
        data: (H, W) in the camera's units.
        config: units, gain and offset.

    Raises:
        ValueError: the units are agc8, which keep no temperature.
    """
    values = data.astype(np.float32)
    if config.units is Units.KELVIN:
        return values
    if config.units is Units.CELSIUS:
        return values + np.float32(273.15)
    if config.units is Units.CENTIKELVIN:
        return values * np.float32(0.01)
    if config.units is Units.COUNTS:
        kelvin = (values - np.float32(config.counts_at_reference)) / np.float32(config.counts_per_k)
        return kelvin + np.float32(REFERENCE_K)
    raise ValueError("thermal.units agc8 keeps no temperature: choose counts, centikelvin, kelvin or celsius")
