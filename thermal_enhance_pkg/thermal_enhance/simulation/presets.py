"""Rigs that imitate real cameras: encoding, rate and habits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from thermal_enhance.imaging.frames import Units
from thermal_enhance.simulation.camera import MotionConfig
from thermal_enhance.simulation.config import ColorConfig, RigConfig
from thermal_enhance.simulation.schedule import FfcConfig, TimingConfig
from thermal_enhance.simulation.sensor import ThermalConfig

_HAND_HELD = MotionConfig(pan_deg=1.5, sway_m=0.15, forward_m=0.25)
_COLOR_TIMING = TimingConfig(latency_s=0.012, jitter_s=0.004)


def _default() -> RigConfig:
    return RigConfig(
        thermal_timing=TimingConfig(latency_s=0.008, jitter_s=0.003),
        color_timing=_COLOR_TIMING,
        ffc=FfcConfig(period_s=60.0, first_s=12.0, freeze_s=0.5),
        motion=_HAND_HELD,
    )


def _lepton() -> RigConfig:
    """FLIR Lepton 3.5 on a PureThermal board: 9 Hz core, 27 fps UVC, TLinear, two telemetry rows."""
    return RigConfig(
        thermal=ThermalConfig(
            width=160,
            height=120,
            hfov_deg=57.0,
            rate_hz=27.0,
            repeats=3,
            units=Units.CENTIKELVIN,
            encoding="16UC1",
            telemetry_rows=2,
            telemetry_position="footer",
            netd_k=0.05,
            fpn_column_k=0.05,
            psf_sigma_px=0.55,
        ),
        thermal_timing=TimingConfig(latency_s=0.025, jitter_s=0.008),
        color_timing=_COLOR_TIMING,
        ffc=FfcConfig(period_s=180.0, first_s=10.0, freeze_s=1.2, imminent_s=2.0, jump_k=0.6),
        motion=_HAND_HELD,
    )


def _boson() -> RigConfig:
    """FLIR Boson 320: 14-bit counts before AGC, 60 Hz."""
    return RigConfig(
        thermal=ThermalConfig(
            width=320,
            height=256,
            hfov_deg=50.0,
            rate_hz=60.0,
            units=Units.COUNTS,
            encoding="mono16",
            netd_k=0.04,
            counts_per_k=45.0,
            supersampling=2,
        ),
        thermal_timing=TimingConfig(latency_s=0.006, jitter_s=0.002),
        color_timing=_COLOR_TIMING,
        ffc=FfcConfig(period_s=300.0, first_s=10.0, freeze_s=0.4),
        motion=_HAND_HELD,
    )


def _seek() -> RigConfig:
    """Seek Compact class: celsius as 32FC1, 9 Hz, strong stripes, a shutter that clicks all the time."""
    return RigConfig(
        thermal=ThermalConfig(
            width=206,
            height=156,
            hfov_deg=36.0,
            rate_hz=9.0,
            units=Units.CELSIUS,
            encoding="32FC1",
            netd_k=0.10,
            fpn_pixel_k=0.08,
            fpn_column_k=0.12,
            fpn_row_k=0.05,
            shading_k=0.5,
            fpn_drift_s=40.0,
            offset_drift_k=0.8,
            psf_sigma_px=0.6,
        ),
        thermal_timing=TimingConfig(latency_s=0.04, jitter_s=0.015),
        color_timing=_COLOR_TIMING,
        ffc=FfcConfig(period_s=15.0, first_s=6.0, freeze_s=0.35, imminent_s=0.0, jump_k=0.5),
        motion=_HAND_HELD,
    )


def _oak_t() -> RigConfig:
    """Luxonis OAK Thermal: 256x192 at 25 fps beside the board's own colour camera."""
    return RigConfig(
        thermal=ThermalConfig(
            width=256,
            height=192,
            hfov_deg=50.0,
            rate_hz=25.0,
            units=Units.COUNTS,
            encoding="16UC1",
            netd_k=0.06,
            fpn_pixel_k=0.05,
            counts_per_k=64.0,
            supersampling=2,
        ),
        thermal_timing=TimingConfig(latency_s=0.02, jitter_s=0.006),
        color_timing=_COLOR_TIMING,
        ffc=FfcConfig(period_s=60.0, first_s=8.0, freeze_s=0.6, imminent_s=0.0),
        motion=_HAND_HELD,
        baseline_m=(-0.04, 0.0, 0.0),
    )


def _spinnaker() -> RigConfig:
    """FLIR AX5 (A65 class) through the Spinnaker driver: 14-bit signal-linear counts, 30 Hz, GigE."""
    return RigConfig(
        thermal=ThermalConfig(
            width=640,
            height=512,
            hfov_deg=45.0,
            rate_hz=30.0,
            units=Units.COUNTS,
            encoding="mono16",
            netd_k=0.05,
            fpn_pixel_k=0.02,
            fpn_column_k=0.02,
            counts_per_k=40.0,
            supersampling=1,
        ),
        thermal_timing=TimingConfig(latency_s=0.015, jitter_s=0.005),
        color_timing=_COLOR_TIMING,
        ffc=FfcConfig(period_s=240.0, first_s=10.0, freeze_s=0.5, imminent_s=0.0),
        motion=_HAND_HELD,
        color=ColorConfig(hfov_deg=60.0),
    )


_PRESETS: dict[str, Callable[[], RigConfig]] = {
    "default": _default,
    "lepton": _lepton,
    "boson": _boson,
    "seek": _seek,
    "oak_t": _oak_t,
    "spinnaker": _spinnaker,
}
PRESETS = tuple(_PRESETS)
"""Names that `rig_preset` knows."""


def rig_preset(
    name: str,
    *,
    thermal_rate: float | None = None,
    rgb_rate: float | None = None,
    thermal_offset: float | None = None,
    rgb_offset: float | None = None,
    ffc_period: float | None = None,
    rgb_dropout: float | Sequence[float] | None = None,
    **overrides: Any,
) -> RigConfig:
    """Configuration of a rig that imitates a real camera.

    Args:
        name: one of `PRESETS`.
        thermal_rate: thermal frames a second as delivered (repeats included); None or 0 for the preset's.
        rgb_rate: colour frames a second; None or 0 for the preset's.
        thermal_offset: stamp minus exposure time of thermal frames, seconds.
        rgb_offset: the same of colour frames, seconds.
        ffc_period: seconds between shutter events, 0 for none; None or negative for the preset's. The first
            event comes after at most one period.
        rgb_dropout: share of colour frames lost, 0..1, or intervals without colour as a flat list: start,
            duration, start, duration, ... seconds.
        **overrides: any field of `RigConfig` (seed, night, motion, world, ...); None, and a negative night,
            leave the preset's.

    Raises:
        ValueError: an unknown preset or field, or a value out of range (the message names it).
    """
    if name not in _PRESETS:
        raise ValueError(f"preset {name!r} is not known: use one of {', '.join(PRESETS)}")
    chosen = {key: value for key, value in overrides.items() if value is not None}
    if chosen.get("night", 0) < 0:
        del chosen["night"]
    unknown = sorted(set(chosen) - set(RigConfig.__dataclass_fields__))
    if unknown:
        raise ValueError(f"{unknown[0]} is not a setting of the rig: see rig_preset and RigConfig")
    config = replace(_PRESETS[name](), **chosen)
    if thermal_rate:
        config = replace(config, thermal=replace(config.thermal, rate_hz=float(thermal_rate)))
    if rgb_rate:
        config = replace(config, color=replace(config.color, rate_hz=float(rgb_rate)))
    if thermal_offset is not None:
        timing = replace(config.thermal_timing, stamp_offset_s=float(thermal_offset))
        config = replace(config, thermal_timing=timing)
    if rgb_offset is not None:
        timing = replace(config.color_timing, stamp_offset_s=float(rgb_offset))
        config = replace(config, color_timing=timing)
    if ffc_period is not None and ffc_period >= 0:
        first = min(config.ffc.first_s, ffc_period) if ffc_period > 0 else config.ffc.first_s
        config = replace(config, ffc=replace(config.ffc, period_s=float(ffc_period), first_s=float(first)))
    if rgb_dropout is not None:
        config = replace(config, color_timing=_with_dropout(config.color_timing, rgb_dropout))
    return config


def _with_dropout(timing: TimingConfig, dropout: float | Sequence[float]) -> TimingConfig:
    if isinstance(dropout, (int, float)):
        if not 0 <= dropout <= 1:
            raise ValueError(f"rgb_dropout must be a share within 0..1 or a list of intervals, not {dropout}")
        return replace(timing, drop=float(dropout))
    values = [float(value) for value in dropout]
    if len(values) % 2 or any(value < 0 for value in values):
        raise ValueError(f"rgb_dropout must be start, duration, start, duration, ... seconds, not {values}")
    return replace(timing, gaps=tuple(zip(values[::2], values[1::2])))
