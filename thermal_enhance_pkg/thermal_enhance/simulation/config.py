"""Settings of the simulated rig as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from thermal_enhance.simulation.camera import MotionConfig
from thermal_enhance.simulation.schedule import FfcConfig, TimingConfig
from thermal_enhance.simulation.sensor import ThermalConfig
from thermal_enhance.simulation.world import WorldConfig


@dataclass(frozen=True)
class ColorConfig:
    """A colour camera.

    Attributes:
        width: columns.
        height: rows.
        hfov_deg: horizontal field of view, degrees.
        rate_hz: frames a second.
        noise: noise (one standard deviation) by day, 8-bit levels; it triples in full night.
        encoding: "rgb8" or "bgr8", the channel order of messages.
        frame_id: coordinate frame.
    """

    width: int = 640
    height: int = 480
    hfov_deg: float = 66.0
    rate_hz: float = 30.0
    noise: float = 2.0
    encoding: str = "rgb8"
    frame_id: str = "rgb_optical_frame"

    def __post_init__(self) -> None:
        if not (8 <= self.width <= 8192 and 8 <= self.height <= 8192):
            raise ValueError(f"color.width and height must be within 8..8192: {self.width}x{self.height}")
        if not 0 < self.rate_hz <= 1000:
            raise ValueError(f"color.rate_hz must be within 0..1000, not {self.rate_hz}")
        if not 0 <= self.noise <= 30:
            raise ValueError(f"color.noise must be within 0..30 levels, not {self.noise}")
        if self.encoding not in ("rgb8", "bgr8"):
            raise ValueError(f"color.encoding must be rgb8 or bgr8, not {self.encoding!r}")


@dataclass(frozen=True)
class RigConfig:
    """The rig.

    Attributes:
        world: what it looks at.
        thermal: the thermal camera.
        color: the colour camera.
        thermal_timing: how thermal frames are stamped and delivered.
        color_timing: how colour frames are stamped and delivered.
        ffc: shutter events of the thermal camera.
        motion: how the rig moves.
        baseline_m: (x, y, z) of the colour camera in the thermal camera's optical axes, metres.
        rotation_deg: (roll, pitch, yaw) of the colour camera against the thermal camera, degrees.
        night: 0 (day) to 1 (the colour camera sees next to nothing).
        clock_jumps: (time, jump) pairs in seconds: stamps of both cameras from that time on are `jump` off.
        epoch_ns: stamp of time 0, nanoseconds.
        seed: everything random is a function of it.
    """

    world: WorldConfig = field(default_factory=WorldConfig)
    thermal: ThermalConfig = field(default_factory=ThermalConfig)
    color: ColorConfig = field(default_factory=ColorConfig)
    thermal_timing: TimingConfig = field(default_factory=TimingConfig)
    color_timing: TimingConfig = field(default_factory=TimingConfig)
    ffc: FfcConfig = field(default_factory=FfcConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    baseline_m: tuple[float, float, float] = (0.06, -0.02, 0.0)
    rotation_deg: tuple[float, float, float] = (0.4, -0.3, 0.6)
    night: float = 0.0
    clock_jumps: tuple[tuple[float, float], ...] = ()
    epoch_ns: int = 1_000_000_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, not {self.seed}")
        if not 0 <= self.night <= 1:
            raise ValueError(f"night must be within 0..1, not {self.night}")
        if any(len(jump) != 2 for jump in self.clock_jumps):
            raise ValueError(f"clock_jumps must be (time, jump) pairs in seconds, not {self.clock_jumps}")
