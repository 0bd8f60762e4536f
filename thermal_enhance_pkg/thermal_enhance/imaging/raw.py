"""Image messages without ROS: what a driver sent, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray

Buffer = bytes | bytearray | memoryview
"""Bytes of a message. A view into the serialized message costs nothing; it keeps that message alive."""


@dataclass(frozen=True)
class RawImage:
    """An uncompressed image as sent (the fields of sensor_msgs/Image).

    Attributes:
        stamp_ns: header stamp, nanoseconds.
        frame_id: header frame_id.
        height: rows.
        width: columns.
        encoding: ROS encoding name ("mono16", "rgb8", "bayer_rggb8", ...).
        is_bigendian: byte order of multi-byte channels.
        step: bytes from one row to the next.
        data: the pixels; at least `step * (height - 1)` bytes and a full last row.
        array: the same pixels as an array where the sender is in this process; None otherwise.
    """

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    encoding: str
    is_bigendian: bool
    step: int
    data: Buffer
    array: NDArray | None = None


@dataclass(frozen=True)
class CompressedImage:
    """A compressed image as sent (the fields of sensor_msgs/CompressedImage).

    Attributes:
        stamp_ns: header stamp, nanoseconds.
        frame_id: header frame_id.
        format: image_transport's description, for example "mono16; png compressed " or "jpeg".
        data: the compressed file.
    """

    stamp_ns: int
    frame_id: str
    format: str
    data: Buffer


class EncodingError(ValueError):
    """A message that cannot be read as an image.

    Attributes:
        reason: short machine-readable cause, counted per reason by the nodes: unsupported_encoding,
            bad_step, short_data, zero_size, huge_size, bad_compressed or bad_header.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
