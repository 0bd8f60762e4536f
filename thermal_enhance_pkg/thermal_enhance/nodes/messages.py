"""Our dataclasses as ROS messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from thermal_enhance_msgs.msg import FrameInfo

from thermal_enhance.imaging.geometry import CameraModel, Roi

if TYPE_CHECKING:
    from thermal_enhance.nodes.pipeline import FrameResult

NANO = 1_000_000_000


def to_time(stamp_ns: int) -> Time:
    """Nanoseconds as a message."""
    seconds, nanoseconds = divmod(stamp_ns, NANO)
    return Time(sec=seconds, nanosec=nanoseconds)


def from_time(stamp: Time) -> int:
    """A message as nanoseconds."""
    return int(stamp.sec) * NANO + int(stamp.nanosec)


def to_header(stamp_ns: int, frame_id: str) -> Header:
    """Header with exactly this stamp and frame."""
    return Header(stamp=to_time(stamp_ns), frame_id=frame_id)


def camera_model(info: CameraInfo) -> CameraModel:
    """The camera of a CameraInfo message."""
    return CameraModel(
        width=info.width,
        height=info.height,
        k=tuple(info.k),
        d=tuple(info.d),
        r=tuple(info.r),
        p=tuple(info.p),
        distortion_model=info.distortion_model,
        binning_x=info.binning_x,
        binning_y=info.binning_y,
        roi=Roi(
            info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height, bool(info.roi.do_rectify)
        ),
        frame_id=info.header.frame_id,
    )


def fields_of_view(model: CameraModel) -> tuple[float, float] | None:
    """(horizontal, vertical) field of view in degrees; None for an uncalibrated camera (K of zeros)."""
    sent = model.delivered()
    if sent.k[0] <= 0 or sent.k[4] <= 0:
        return None
    angles = [
        math.degrees(2 * math.atan(size / (2 * focal)))
        for size, focal in ((sent.width, sent.k[0]), (sent.height, sent.k[4]))
    ]
    return (angles[0], angles[1]) if all(0 < angle < 170 for angle in angles) else None


def camera_info(model: CameraModel, stamp_ns: int, frame_id: str) -> CameraInfo:
    """The CameraInfo message of a camera, stamped as its image."""
    message = CameraInfo()
    message.header = to_header(stamp_ns, frame_id)
    message.width = model.width
    message.height = model.height
    message.distortion_model = model.distortion_model
    message.d = [float(x) for x in model.d]
    message.k = [float(x) for x in model.k]
    message.r = [float(x) for x in model.r]
    message.p = [float(x) for x in model.p]
    message.binning_x = model.binning_x
    message.binning_y = model.binning_y
    roi = message.roi
    roi.x_offset, roi.y_offset, roi.width, roi.height, roi.do_rectify = model.roi
    return message


def frame_info(
    result: FrameResult, mode: str, totals: tuple[int, int, dict[str, int]], total_ms: float
) -> FrameInfo:
    """What was done to a frame, for publication beside it."""
    frame, pair = result.frame, result.pair
    message = FrameInfo()
    message.header = to_header(frame.thermal.stamp_ns, frame.thermal.frame_id)
    message.mode = mode
    message.tier = frame.tier
    message.tier_reason = frame.tier_reason
    message.task = result.task
    message.prompt_hash = result.prompt_hash
    message.source_stamps = [
        to_time(stamp_ns) for stamp_ns in frame.source_stamps_ns or (result.input_frame.stamp_ns,)
    ]
    message.interpolated = result.interpolated
    message.rgb_paired = pair.color is not None
    if pair.color is not None:
        message.rgb_stamp = to_time(pair.color.stamp_ns)
    message.pair_skew = pair.skew_ns * 1e-9 if pair.skew_ns is not None else math.nan
    message.rgb_trust = float(frame.rgb_trust)
    message.degradation = float(frame.degradation)
    message.units = result.input_frame.units.value
    message.consistency_residual = float(frame.consistency_residual)
    message.ffc_state = int(result.ffc_state)
    stages = {**result.stage_ms, "total": total_ms}
    message.stage_names = list(stages)
    message.stage_ms = [float(value) for value in stages.values()]
    frames_in, frames_out, dropped = totals
    message.frames_in = frames_in
    message.frames_out = frames_out
    message.drop_reasons = list(dropped)
    message.drop_counts = list(dropped.values())
    return message
