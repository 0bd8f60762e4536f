"""Frames as the suite passes them around: pixels, their unit, their time and place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

THERMAL_DTYPES = (np.uint8, np.uint16, np.float32)


class Units(str, Enum):
    """What a thermal pixel value means."""

    COUNTS = "counts"
    """Raw sensor counts: linear in radiance, no fixed zero."""
    CENTIKELVIN = "centikelvin"
    """Hundredths of a kelvin (Lepton TLinear)."""
    KELVIN = "kelvin"
    CELSIUS = "celsius"
    AGC8 = "agc8"
    """8-bit picture after the camera's own gain control: no temperature scale."""

    @property
    def radiometric(self) -> bool:
        """Is the value a measurement (anything but an AGC picture)?"""
        return self is not Units.AGC8

    @property
    def kelvin_per_unit(self) -> float | None:
        """Size of one unit in kelvin; None where the camera does not say (counts, agc8)."""
        return {Units.CENTIKELVIN: 0.01, Units.KELVIN: 1.0, Units.CELSIUS: 1.0}.get(self)


class FfcState(int, Enum):
    """Flat-field correction (shutter) state; the values are FrameInfo's constants."""

    NEVER = 0
    IMMINENT = 1
    IN_PROGRESS = 2
    COMPLETE = 3


@dataclass(frozen=True)
class ThermalFrame:
    """One thermal image.

    Attributes:
        data: (H, W) uint8, uint16 or float32 in native byte order; values in `units`.
        units: meaning of the values.
        stamp_ns: acquisition time, nanoseconds.
        frame_id: coordinate frame of the camera.
    """

    data: NDArray[np.generic]
    units: Units = Units.COUNTS
    stamp_ns: int = 0
    frame_id: str = ""

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or self.data.dtype.type not in THERMAL_DTYPES:
            raise ValueError(
                f"a thermal frame is (H, W) uint8, uint16 or float32, not {self.data.shape} {self.data.dtype}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.data.shape[1], self.data.shape[0]


@dataclass(frozen=True)
class ColorFrame:
    """One colour image.

    Attributes:
        data: (H, W, 3) uint8, channels in RGB order.
        stamp_ns: acquisition time, nanoseconds, in the thermal camera's clock (stream offset applied).
        frame_id: coordinate frame of the camera.
    """

    data: NDArray[np.uint8]
    stamp_ns: int = 0
    frame_id: str = ""

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or self.data.shape[2] != 3 or self.data.dtype != np.uint8:
            raise ValueError(
                f"a colour frame is (H, W, 3) uint8 RGB, not {self.data.shape} {self.data.dtype}"
            )
