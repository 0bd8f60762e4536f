"""How frames of a clip become messages of two cameras."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.frames import Units
from thermal_enhance.imaging.geometry import CameraModel

THERMAL_DTYPES = {"mono8": np.uint8, "mono16": np.uint16, "16UC1": np.uint16, "32FC1": np.float32}
"""Pixel type of each encoding a thermal camera may send."""


@dataclass(frozen=True)
class Misalignment:
    """How the RGB camera is turned and shifted against where it should look.

    Attributes:
        dx: shift to the right, RGB pixels.
        dy: shift down, RGB pixels.
        rot: rotation about the centre, degrees, counter-clockwise.
        scale: magnification.
    """

    dx: float = 0.0
    dy: float = 0.0
    rot: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        values = (self.dx, self.dy, self.rot, self.scale)
        if not np.isfinite(values).all() or self.scale <= 0:
            raise ValueError(f"misalign needs finite numbers and a positive scale, not {values}")

    @classmethod
    def parse(cls, text: str) -> Misalignment:
        """Read "dx=4,dy=-2,rot=1.5,scale=1.02"; what is not named stays as it is.

        Raises:
            ValueError: something else.
        """
        values: dict[str, float] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, _, value = part.partition("=")
            if name.strip() not in ("dx", "dy", "rot", "scale"):
                raise ValueError(f"misalign: '{part}' is not one of dx=, dy=, rot=, scale=")
            try:
                values[name.strip()] = float(value)
            except ValueError:
                raise ValueError(f"misalign: '{part}' needs a number") from None
        return cls(**values)

    def apply(self, image: NDArray) -> NDArray:
        """The picture a camera misaligned so would take; the border is mirrored."""
        if self == Misalignment():
            return image
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), self.rot, self.scale)
        matrix[0, 2] += self.dx
        matrix[1, 2] += self.dy
        return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)


@dataclass(frozen=True)
class FrameSourceConfig:
    """How frames become messages.

    Attributes:
        rate: thermal frames a second; 0: the clip's own, or 30. Of a clip whose own rate is known, the frames
            of those moments are sent; frames without a rate of their own are all sent, at this rate.
        rgb_rate: RGB frames a second; 0: as thermal.
        start: stamp of the first thermal frame, seconds.
        stamps: CSV file of stamps in seconds: thermal first, then (optionally) RGB; overrides `rate`.
        rgb_offset: added to every RGB stamp, seconds: an RGB clock that runs ahead (or behind, negative).
        jitter: every stamp is off by up to this much either way, seconds, evenly distributed.
        misalign: warp of the RGB picture.
        thermal_encoding: mono8, mono16, 16UC1 or 32FC1; "": what the frames are.
        source_units: what a value in the files means; "": agc8 for 8-bit files, else counts.
        units: what a value in the messages means; "": as in the files.
        thermal_model: calibration at full resolution; None: camera_info without calibration.
        rgb_model: calibration of the RGB camera; None: without.
        downscale: thermal frames are reduced by this factor (mean over the area), to imitate a cheap camera.
        compressed: send CompressedImage: lossless PNG thermal, JPEG RGB.
        thermal_topic: image topic; camera_info is beside it.
        rgb_topic: the same of the RGB camera.
        thermal_frame_id: header frame_id.
        rgb_frame_id: header frame_id.
        loop: how often the clip is sent, one after the other, time going on.
        seed: of the jitter.
    """

    rate: float = 0.0
    rgb_rate: float = 0.0
    start: float = 1_700_000_000.0
    stamps: Path | None = None
    rgb_offset: float = 0.0
    jitter: float = 0.0
    misalign: Misalignment = Misalignment()
    thermal_encoding: str = ""
    source_units: str = ""
    units: str = ""
    thermal_model: CameraModel | None = None
    rgb_model: CameraModel | None = None
    downscale: int = 1
    compressed: bool = False
    thermal_topic: str = "/thermal/image_raw"
    rgb_topic: str = "/rgb/image_raw"
    thermal_frame_id: str = "thermal_optical_frame"
    rgb_frame_id: str = "rgb_optical_frame"
    loop: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rate", "rgb_rate", "jitter", "start"):
            if not 0 <= getattr(self, name) < 1e10:
                raise ValueError(f"{name} must be zero or more, not {getattr(self, name)}")
        if not abs(self.rgb_offset) < 1e6:
            raise ValueError(f"rgb_offset must be a time in seconds, not {self.rgb_offset}")
        if self.downscale < 1 or self.loop < 1:
            raise ValueError(f"downscale and loop must be at least 1, not {self.downscale} and {self.loop}")
        if self.thermal_encoding not in ("", *THERMAL_DTYPES):
            raise ValueError(
                f"thermal_encoding must be {', '.join(THERMAL_DTYPES)}, not '{self.thermal_encoding}'"
            )
        for name in ("units", "source_units"):
            if getattr(self, name) not in ("", *(u.value for u in Units)):
                known = ", ".join(u.value for u in Units)
                raise ValueError(f"{name} must be one of {known}, not '{getattr(self, name)}'")
        if image_topic(self.thermal_topic, self.compressed) == image_topic(self.rgb_topic, self.compressed):
            raise ValueError("thermal_topic and rgb_topic must differ")


def image_topic(topic: str, compressed: bool) -> str:
    """Name under which an image is sent: image_transport appends "/compressed"."""
    topic = f"/{topic.strip('/')}"
    return f"{topic}/compressed" if compressed else topic


def info_topic(topic: str) -> str:
    """The camera_info topic beside an image topic."""
    return f"/{topic.strip('/')}".rsplit("/", 1)[0] + "/camera_info"
