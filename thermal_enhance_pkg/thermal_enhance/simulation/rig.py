"""The simulated rig: a thermal and a colour camera in the simulated world, and the truth behind them."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.frames import ColorFrame, FfcState, ThermalFrame
from thermal_enhance.imaging.geometry import CameraModel
from thermal_enhance.imaging.raw import RawImage
from thermal_enhance.imaging.telemetry import LeptonTelemetry, encode_lepton
from thermal_enhance.simulation.actors import LABELS
from thermal_enhance.simulation.camera import STILL, Pose, plane_homography, rotation_matrix
from thermal_enhance.simulation.config import ColorConfig, RigConfig
from thermal_enhance.simulation.render import Renderer
from thermal_enhance.simulation.schedule import (
    Arrival,
    TimingConfig,
    arrivals,
    slot_at,
    slot_stamp_ns,
    slots,
)
from thermal_enhance.simulation.sensor import (
    FixedPattern,
    expose,
    from_kelvin,
    stream_rng,
    temporal_noise,
)
from thermal_enhance.simulation.truth import Box, RigTruth, visible_boxes
from thermal_enhance.simulation.world import World

__all__ = ["Box", "CameraRig", "ColorConfig", "RigConfig", "RigTruth"]

_NOISE, _COLOR_NOISE, _THERMAL_ARRIVALS, _COLOR_ARRIVALS = 2, 3, 4, 5
"""Random streams; 1 is the fixed pattern's."""
_OFFSET_TIME_S = 60.0


class CameraRig:
    """Two cameras in the simulated world. Every frame is a pure function of the configuration and its index.

    Times are seconds since the start of the simulation. A camera exposes at its slots only, slot i at
    i / rate_hz; `thermal` and `color` take a time and give the frame of the nearest slot, `thermal_frame` and
    `color_frame` take the slot's index. `truth` takes any time, between slots too.

    Args:
        config: the rig.

    Attributes:
        config: the configuration.
        world: the world it looks at.
        thermal_camera: intrinsics of the thermal camera, without telemetry rows.
        color_camera: intrinsics of the colour camera.
    """

    def __init__(self, config: RigConfig | None = None) -> None:
        self.config = c = config or RigConfig()
        self.world = World(c.world, c.seed)
        t = c.thermal
        self.thermal_camera = CameraModel.pinhole(t.width, t.height, t.hfov_deg, frame_id=t.frame_id)
        self.color_camera = CameraModel.pinhole(
            c.color.width, c.color.height, c.color.hfov_deg, frame_id=c.color.frame_id
        )
        self._turn = rotation_matrix(*(math.radians(angle) for angle in c.rotation_deg))
        self._pattern = FixedPattern(t, c.seed)
        self._thermal_renderers: dict[int, Renderer] = {}
        self._color_renderer: Renderer | None = None
        self._color_noise: NDArray[np.int8] | None = None
        self._delivered: tuple[int, NDArray[Any]] | None = None

    # --- thermal -----------------------------------------------------------------------------------------

    def thermal(self, t_s: float) -> ThermalFrame:
        """The thermal frame of the slot nearest to a time."""
        return self.thermal_frame(slot_at(t_s, self.config.thermal.rate_hz))

    def thermal_frame(self, index: int) -> ThermalFrame:
        """A thermal frame as the driver delivers it: repeated, frozen, with telemetry rows.

        Args:
            index: slot, at least 0.

        Returns:
            Frame of (H + telemetry_rows, W) in the camera's units; its stamp is the slot's own, even where
            the picture is an earlier one.
        """
        c = self.config
        content = self.content_index(index)
        if self._delivered is None or self._delivered[0] != content:
            self._delivered = (content, from_kelvin(self._measure(content), c.thermal))
        data = self._delivered[1]
        if c.thermal.telemetry_rows:
            rows = self._telemetry(index, data)
            footer = c.thermal.telemetry_position == "footer"
            data = np.concatenate([data, rows] if footer else [rows, data])
        else:
            data = data.copy()
        stamp = slot_stamp_ns(
            index, c.thermal.rate_hz, c.thermal_timing.stamp_offset_s, c.epoch_ns, c.clock_jumps
        )
        return ThermalFrame(data, c.thermal.units, stamp, c.thermal.frame_id)

    def thermal_raw(self, index: int) -> RawImage:
        """The same frame as an image message, with the driver's encoding and byte order."""
        frame = self.thermal_frame(index)
        t = self.config.thermal
        pixels = frame.data.astype(frame.data.dtype.newbyteorder(">" if t.big_endian else "<"))
        return _raw(pixels, t.encoding, t.big_endian, frame.stamp_ns, frame.frame_id)

    def content_index(self, index: int) -> int:
        """Slot whose exposure a delivered thermal frame really shows (repeats and shutter freezes)."""
        if index < 0:
            raise ValueError(f"a frame index must be at least 0, not {index}")
        t = self.config.thermal
        core = index // t.repeats
        core_s = core / t.sensor_rate_hz
        if self.config.ffc.in_progress(core_s):
            closed = self.config.ffc.start(self.config.ffc.started(core_s))
            core = max(0, math.ceil(closed * t.sensor_rate_hz - 1e-6) - 1)
        return core * t.repeats

    def content_time(self, index: int) -> float:
        """Exposure time of what a delivered thermal frame shows, seconds: where to ask `truth`."""
        return self.content_index(index) / self.config.thermal.rate_hz

    def noiseless(self, t_s: float) -> NDArray[np.float32]:
        """What the sensor would measure with optics and pixel area but no noise: (H, W) float32 kelvin."""
        t = self.config.thermal
        scene = self._thermal_renderer(t.supersampling).picture(self.world.at(t_s), self._pose(t_s))
        return expose(scene, t.supersampling, t.psf_sigma_px)

    def offset_k(self, t_s: float) -> float:
        """Error of the whole picture at a time (shutter jump and drift), kelvin."""
        event, since = self.config.ffc.epoch(t_s)
        drift = self.config.thermal.offset_drift_k * -math.expm1(-since / _OFFSET_TIME_S)
        return self.config.ffc.offset_k(event) + drift

    def pattern_k(self, t_s: float) -> NDArray[np.float32]:
        """Fixed-pattern noise at a time: (H, W) float32 kelvin."""
        return self._pattern.at(*self.config.ffc.epoch(t_s))

    def ffc_state(self, t_s: float) -> FfcState:
        """Shutter state at a time."""
        return self.config.ffc.state(t_s)

    def thermal_times(self, duration_s: float, start_s: float = 0.0) -> list[Arrival]:
        """Deliveries of thermal frames exposed within [start, start + duration), in order of arrival."""
        c, rate = self.config, self.config.thermal.rate_hz
        indices = slots(duration_s, start_s, rate)
        return self._arrivals(indices, rate, c.thermal_timing, _THERMAL_ARRIVALS)

    def _measure(self, index: int) -> NDArray[np.float32]:
        t_s = index / self.config.thermal.rate_hz
        measured = self.noiseless(t_s)
        measured += self.pattern_k(t_s)
        rng = stream_rng(self.config.seed, _NOISE, index)
        measured += temporal_noise(measured.shape, self.config.thermal.netd_k, rng)
        measured += np.float32(self.offset_k(t_s))
        return measured

    def _telemetry(self, index: int, data: NDArray[Any]) -> NDArray[np.uint16]:
        t = self.config.thermal
        # The rows belong to the core's frame: a driver that repeats it repeats them.
        core = index // t.repeats
        now_s = core / t.sensor_rate_hz
        event = self.config.ffc.started(now_s)
        last_ms = round(self.config.ffc.start(event) * 1000) if event else 0
        telemetry = LeptonTelemetry(
            time_counter_ms=round(now_s * 1000) + 1000,
            ffc_state=self.config.ffc.state(now_s),
            frame_counter=core,
            frame_mean=round(float(data.mean())),
            ffc_time_ms=last_ms + (1000 if event else 0),
        )
        return encode_lepton(telemetry, t.width, t.telemetry_rows)

    def _thermal_renderer(self, factor: int) -> Renderer:
        if factor not in self._thermal_renderers:
            t = self.config.thermal
            k = self.thermal_camera.scaled(factor).camera_matrix
            self._thermal_renderers[factor] = Renderer(
                self.world, t.width * factor, t.height * factor, k, rest=STILL, thermal=True
            )
        return self._thermal_renderers[factor]

    # --- colour ------------------------------------------------------------------------------------------

    def color(self, t_s: float) -> ColorFrame:
        """The colour frame of the slot nearest to a time."""
        return self.color_frame(slot_at(t_s, self.config.color.rate_hz))

    def color_frame(self, index: int) -> ColorFrame:
        """A colour frame, RGB, stamped as its driver does.

        Args:
            index: slot, at least 0. A frame inside a gap is given too: `color_times` leaves it out.
        """
        if index < 0:
            raise ValueError(f"a frame index must be at least 0, not {index}")
        c = self.config
        t_s = index / c.color.rate_hz
        if self._color_renderer is None:
            self._color_renderer = Renderer(
                self.world,
                c.color.width,
                c.color.height,
                self.color_camera.camera_matrix,
                rest=self._color_pose(STILL),
                thermal=False,
            )
        picture = self._color_renderer.picture(self.world.at(t_s), self._color_pose(self._pose(t_s)))
        if c.night > 0:
            light = 1 - 0.95 * c.night
            tint = np.array([light * (1 - 0.25 * c.night), light * (1 - 0.12 * c.night), light])
            table = np.rint(np.arange(256)[None, :, None] * tint).astype(np.uint8)
            picture = cv2.LUT(picture, table)
        if c.color.noise > 0:
            picture = cv2.add(picture, self._color_noise_at(index, picture.shape), dtype=cv2.CV_8U)
        stamp = slot_stamp_ns(
            index, c.color.rate_hz, c.color_timing.stamp_offset_s, c.epoch_ns, c.clock_jumps
        )
        return ColorFrame(picture, stamp, c.color.frame_id)

    def color_raw(self, index: int) -> RawImage:
        """The same frame as an image message, in the driver's channel order."""
        frame = self.color_frame(index)
        encoding = self.config.color.encoding
        pixels = frame.data if encoding == "rgb8" else np.ascontiguousarray(frame.data[..., ::-1])
        return _raw(pixels, encoding, False, frame.stamp_ns, frame.frame_id)

    def color_times(self, duration_s: float, start_s: float = 0.0) -> list[Arrival]:
        """Deliveries of colour frames exposed within [start, start + duration), in order of arrival."""
        c, rate = self.config, self.config.color.rate_hz
        indices = slots(duration_s, start_s, rate)
        return self._arrivals(indices, rate, c.color_timing, _COLOR_ARRIVALS)

    def _color_noise_at(self, index: int, shape: tuple[int, ...]) -> NDArray[np.int8]:
        # A million fresh normal numbers cost more than the whole scene: a frame takes a window of a bank.
        size = math.prod(shape)
        if self._color_noise is None:
            sigma = self.config.color.noise * (1 + 2 * self.config.night)
            bank = stream_rng(self.config.seed, _COLOR_NOISE).standard_normal(size + (1 << 17), np.float32)
            self._color_noise = np.clip(np.rint(bank * sigma), -127, 127).astype(np.int8)
        start = int(stream_rng(self.config.seed, _COLOR_NOISE, index).integers(1 << 17))
        return self._color_noise[start : start + size].reshape(shape)

    # --- truth -------------------------------------------------------------------------------------------

    def truth(self, t_s: float, scale: int = 4, min_visible: float = 0.2) -> RigTruth:
        """What was really there at a time.

        Args:
            t_s: the moment, seconds; for a delivered frame, `content_time(index)`.
            scale: 1, 2, 4 or 8 times the thermal camera's resolution. Up to `thermal.supersampling` it is
                averaged from the very samples that the sensor gets.
            min_visible: boxes of actors with a smaller visible share are left out.

        Raises:
            ValueError: scale is not one of these.
        """
        if scale not in (1, 2, 4, 8):
            raise ValueError(f"scale must be 1, 2, 4 or 8, not {scale}")
        t = self.config.thermal
        factor = max(scale, t.supersampling)
        renderer = self._thermal_renderer(factor)
        scene, instances, sightings = renderer.labelled(self.world.at(t_s), self._pose(t_s))
        size = (t.width * scale, t.height * scale)
        boxes = visible_boxes(sightings, instances, factor // scale, size, min_visible)
        labels = np.zeros(256, np.uint8)
        for sighting in sightings:
            labels[sighting.track_id] = LABELS.index(sighting.label)
        if factor != scale:
            scene = cv2.resize(scene, size, interpolation=cv2.INTER_AREA)
            # The sample right of and below the middle: labels cannot be averaged.
            half = factor // scale // 2
            step = factor // scale
            instances = np.ascontiguousarray(instances[half::step, half::step])
        return RigTruth(scene, labels[instances], instances, boxes, scale, t_s)

    def homography(self, depth_m: float) -> NDArray[np.float64]:
        """Homography (3, 3) from colour to thermal pixels for a plane parallel to the thermal image.

        Args:
            depth_m: its distance along the thermal camera's axis, metres.
        """
        return plane_homography(
            self.color_camera.camera_matrix,
            self.thermal_camera.camera_matrix,
            self._turn,
            self.config.baseline_m,
            depth_m,
        )

    def _arrivals(self, indices: range, rate_hz: float, timing: TimingConfig, stream: int) -> list[Arrival]:
        c = self.config
        return arrivals(
            indices,
            rate_hz,
            timing,
            epoch_ns=c.epoch_ns,
            jumps=c.clock_jumps,
            seed=c.seed,
            stream=stream,
        )

    def _pose(self, t_s: float) -> Pose:
        return self.config.motion.pose(t_s)

    def _color_pose(self, pose: Pose) -> Pose:
        return pose.moved(self.config.baseline_m, self._turn)


def _raw(pixels: NDArray[Any], encoding: str, big_endian: bool, stamp_ns: int, frame_id: str) -> RawImage:
    height, width = pixels.shape[:2]
    step = pixels.strides[0]
    array = pixels if pixels.dtype.isnative else None
    data = pixels.data.cast("B") if array is not None else pixels.tobytes()
    return RawImage(stamp_ns, frame_id, height, width, encoding, big_endian, step, data, array)
