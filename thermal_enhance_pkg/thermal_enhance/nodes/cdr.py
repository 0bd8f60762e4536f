"""Image messages to and from their serialized bytes (CDR) without rclpy: no copy of the pixels on the way in.

rclpy turns the pixels of every message into Python objects and back, which costs more than the transport
itself; a raw subscription hands over the serialized bytes, and a publisher sends bytes as they are. What is
left to do is the header, a few dozen bytes.

The format is OMG CDR (the encoding of DDS, DDSI-RTPS 2.5 section 10): a 4-byte encapsulation that names the
byte order, then the fields in order, each aligned to its own size counted from the end of the encapsulation;
a string is its length with the terminating nul (uint32), the characters and the nul.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from thermal_enhance.imaging.geometry import CameraModel
from thermal_enhance.imaging.raw import Buffer, CompressedImage, EncodingError, RawImage

ENCAPSULATION = b"\x00\x01\x00\x00"
"""Little-endian CDR, the byte order of every platform the suite runs on."""

_NANOSECONDS = 1_000_000_000
_PLAIN_CDR = {0x00: ">", 0x01: "<"}
_UINT32 = {"<": struct.Struct("<I"), ">": struct.Struct(">I")}
_STAMP = {"<": struct.Struct("<iII"), ">": struct.Struct(">iII")}
_NUL = b"\x00"


@dataclass(frozen=True)
class RegionOfInterest:
    """The part of the sensor an image shows (sensor_msgs/RegionOfInterest); all zero means all of it."""

    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0
    do_rectify: bool = False


@dataclass(frozen=True)
class CameraInfoData:
    """The fields of sensor_msgs/CameraInfo.

    Attributes:
        stamp_ns: header stamp, nanoseconds.
        frame_id: header frame_id.
        height: rows.
        width: columns.
        distortion_model: "plumb_bob", "rational_polynomial", "equidistant" or "".
        d: distortion coefficients.
        k: 9 values, row major: intrinsic matrix.
        r: 9 values, row major: rectification rotation.
        p: 12 values, row major: projection matrix.
        binning_x: pixels binned horizontally (0 means 1).
        binning_y: pixels binned vertically (0 means 1).
        roi: part of the full sensor shown.
    """

    stamp_ns: int = 0
    frame_id: str = ""
    height: int = 0
    width: int = 0
    distortion_model: str = ""
    d: Sequence[float] = ()
    k: Sequence[float] = (0.0,) * 9
    r: Sequence[float] = (0.0,) * 9
    p: Sequence[float] = (0.0,) * 12
    binning_x: int = 0
    binning_y: int = 0
    roi: RegionOfInterest = RegionOfInterest()

    @classmethod
    def of(cls, model: CameraModel, stamp_ns: int, frame_id: str) -> CameraInfoData:
        """The camera_info of a camera, stamped as its image."""
        x, y, width, height, do_rectify = model.roi
        return cls(
            stamp_ns,
            frame_id,
            model.height,
            model.width,
            model.distortion_model,
            model.d,
            model.k,
            model.r,
            model.p,
            model.binning_x,
            model.binning_y,
            RegionOfInterest(x, y, height, width, do_rectify),
        )


class _Reader:
    """Walks over a serialized message; whatever does not fit in it is an EncodingError."""

    __slots__ = ("order", "position", "size", "view")

    def __init__(self, message: Buffer) -> None:
        view = memoryview(message)
        if view.format != "B" or view.ndim != 1:
            if not view.c_contiguous:
                raise EncodingError("bad_header", "a serialized message must be one contiguous run of bytes")
            view = view.cast("B")
        self.view = view
        self.size = len(view)
        if self.size < 4:
            raise EncodingError("bad_header", f"a message of {self.size} bytes has no CDR encapsulation")
        order = _PLAIN_CDR.get(view[1]) if view[0] == 0 else None
        if order is None:
            raise EncodingError(
                "bad_header",
                f"CDR encapsulation {view[0]:02x} {view[1]:02x} is not plain CDR (00 00 or 00 01): "
                "set the publisher's data representation to XCDR1",
            )
        self.order = order
        self.position = 4

    def _advance(self, size: int, alignment: int) -> int:
        # The encapsulation is 4 bytes and not counted: the shift matters for 8-byte fields.
        start = self.position + (4 - self.position) % alignment
        if start + size > self.size:
            raise EncodingError(
                "bad_header", f"message ends at byte {self.size}, inside the field at {start} ({size} bytes)"
            )
        self.position = start + size
        return start

    def uint8(self) -> int:
        return self.view[self._advance(1, 1)]

    def uint32(self) -> int:
        return int(_UINT32[self.order].unpack_from(self.view, self._advance(4, 4))[0])

    def doubles(self, count: int) -> tuple[float, ...]:
        if count == 0:
            return ()
        # Checked before the format string is built: a count from the wire may be anything.
        start = self._advance(8 * count, 8)
        return struct.unpack_from(f"{self.order}{count}d", self.view, start)

    def text(self, length: int) -> str:
        if length == 0:  # not by the letter, but some writers send "" without its nul
            return ""
        start = self._advance(length, 1)
        if self.view[start + length - 1] != 0:
            raise EncodingError("bad_header", f"the string at byte {start} does not end with a nul")
        try:
            return str(self.view[start : start + length - 1], "utf-8")
        except UnicodeDecodeError as error:
            raise EncodingError("bad_header", f"the string at byte {start} is not UTF-8: {error}") from None

    def string(self) -> str:
        return self.text(self.uint32())

    def header(self) -> tuple[int, str]:
        seconds, nanoseconds, length = _STAMP[self.order].unpack_from(self.view, self._advance(12, 4))
        return seconds * _NANOSECONDS + nanoseconds, self.text(length)

    def bytes_sequence(self) -> memoryview:
        length = self.uint32()
        start = self.position
        if start + length > self.size:
            raise EncodingError(
                "short_data", f"the message promises {length} bytes of data and holds {self.size - start}"
            )
        self.position = start + length
        return self.view[start : start + length]


def parse_header(message: Buffer) -> tuple[int, str]:
    """Stamp (ns) and frame_id of any message that begins with a std_msgs/Header.

    Raises:
        EncodingError: "bad_header": truncated, not plain CDR, or a string that is none.
    """
    return _Reader(message).header()


def parse_image(message: Buffer) -> RawImage:
    """A serialized sensor_msgs/Image as a RawImage whose `data` is a view into `message`.

    Whether `data` fits height, step and encoding is the decoder's business (imaging/encodings.py).

    Raises:
        EncodingError: "bad_header" as in `parse_header`; "short_data": fewer bytes of data than promised.
    """
    reader = _Reader(message)
    stamp_ns, frame_id = reader.header()
    height = reader.uint32()
    width = reader.uint32()
    encoding = reader.string()
    is_bigendian = reader.uint8() != 0
    step = reader.uint32()
    data = reader.bytes_sequence()
    return RawImage(stamp_ns, frame_id, height, width, encoding, is_bigendian, step, data)


def parse_compressed_image(message: Buffer) -> CompressedImage:
    """A serialized sensor_msgs/CompressedImage; `data` is a view into `message`.

    Raises:
        EncodingError: as `parse_image`.
    """
    reader = _Reader(message)
    stamp_ns, frame_id = reader.header()
    return CompressedImage(stamp_ns, frame_id, reader.string(), reader.bytes_sequence())


def parse_camera_info(message: Buffer) -> CameraInfoData:
    """A serialized sensor_msgs/CameraInfo.

    Raises:
        EncodingError: "bad_header" as in `parse_header`.
    """
    reader = _Reader(message)
    stamp_ns, frame_id = reader.header()
    height = reader.uint32()
    width = reader.uint32()
    distortion_model = reader.string()
    d = reader.doubles(reader.uint32())
    k = reader.doubles(9)
    r = reader.doubles(9)
    p = reader.doubles(12)
    binning_x = reader.uint32()
    binning_y = reader.uint32()
    x_offset, y_offset, roi_height, roi_width = (reader.uint32() for _ in range(4))
    roi = RegionOfInterest(x_offset, y_offset, roi_height, roi_width, reader.uint8() != 0)
    return CameraInfoData(
        stamp_ns, frame_id, height, width, distortion_model, d, k, r, p, binning_x, binning_y, roi
    )


def parse_string(message: Buffer) -> str:
    """The text of a serialized std_msgs/String.

    Raises:
        EncodingError: "bad_header" as in `parse_header`.
    """
    return _Reader(message).string()


class _Writer:
    """Collects the fields of one message, aligned."""

    __slots__ = ("buffer",)

    def __init__(self) -> None:
        self.buffer = bytearray(ENCAPSULATION)

    def align(self, alignment: int) -> None:
        self.buffer += bytes((4 - len(self.buffer)) % alignment)

    def uint32(self, *values: int) -> None:
        self.align(4)
        try:
            self.buffer += struct.pack(f"<{len(values)}I", *values)
        except struct.error:
            raise EncodingError(
                "bad_header", f"{values} do not fit the message's unsigned 32-bit fields"
            ) from None

    def doubles(self, values: Sequence[float]) -> None:
        if values:
            self.align(8)
            self.buffer += struct.pack(f"<{len(values)}d", *values)

    def string(self, text: str) -> None:
        try:
            encoded = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise EncodingError("bad_header", f"{text!r} cannot be sent: {error}") from None
        self.uint32(len(encoded) + 1)
        self.buffer += encoded
        self.buffer += _NUL

    def time(self, stamp_ns: int) -> None:
        seconds, nanoseconds = divmod(stamp_ns, _NANOSECONDS)
        if not -(2**31) <= seconds < 2**31:
            raise EncodingError("bad_header", f"a stamp of {stamp_ns} ns does not fit a ROS time")
        self.align(4)
        self.buffer += struct.pack("<iI", seconds, nanoseconds)

    def header(self, stamp_ns: int, frame_id: str) -> None:
        self.time(stamp_ns)
        self.string(frame_id)

    def with_data(self, data: Buffer) -> bytes:
        self.uint32(data.nbytes if isinstance(data, memoryview) else len(data))
        return b"".join((self.buffer, data))


def serialize_image(image: RawImage) -> bytes:
    """A RawImage as a serialized sensor_msgs/Image; the pixels are copied once.

    Raises:
        EncodingError: "bad_header": a stamp, size or string no message can carry.
    """
    writer = _Writer()
    writer.header(image.stamp_ns, image.frame_id)
    writer.uint32(image.height, image.width)
    writer.string(image.encoding)
    writer.buffer += b"\x01" if image.is_bigendian else b"\x00"
    writer.uint32(image.step)
    return writer.with_data(image.data)


def serialize_compressed_image(image: CompressedImage) -> bytes:
    """A CompressedImage as a serialized sensor_msgs/CompressedImage.

    Raises:
        EncodingError: as `serialize_image`.
    """
    writer = _Writer()
    writer.header(image.stamp_ns, image.frame_id)
    writer.string(image.format)
    return writer.with_data(image.data)


def serialize_camera_info(info: CameraInfoData) -> bytes:
    """A serialized sensor_msgs/CameraInfo.

    Raises:
        EncodingError: "bad_header": a value no message can carry, or a matrix of the wrong size.
    """
    for name, values, count in (("k", info.k, 9), ("r", info.r, 9), ("p", info.p, 12)):
        if len(values) != count:
            raise EncodingError(
                "bad_header", f"camera_info {name} has {len(values)} values and needs {count}"
            )
    writer = _Writer()
    writer.header(info.stamp_ns, info.frame_id)
    writer.uint32(info.height, info.width)
    writer.string(info.distortion_model)
    writer.uint32(len(info.d))
    for values in (info.d, info.k, info.r, info.p):
        writer.doubles(values)
    roi = info.roi
    writer.uint32(info.binning_x, info.binning_y, roi.x_offset, roi.y_offset, roi.height, roi.width)
    writer.buffer += b"\x01" if roi.do_rectify else b"\x00"
    return bytes(writer.buffer)


def serialize_string(text: str) -> bytes:
    """A serialized std_msgs/String."""
    writer = _Writer()
    writer.string(text)
    return bytes(writer.buffer)


def serialize_clock(now_ns: int) -> bytes:
    """A serialized rosgraph_msgs/Clock."""
    writer = _Writer()
    writer.time(now_ns)
    return bytes(writer.buffer)
