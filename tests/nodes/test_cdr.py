from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.imaging.geometry import CameraModel
from thermal_enhance.imaging.raw import CompressedImage, EncodingError, RawImage
from thermal_enhance.nodes import cdr

# No nul: a C string, which ROS's strings are, ends there.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
STAMP = st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1)
UINT32 = st.integers(0, 2**32 - 1)
FLOATS = st.floats(allow_nan=False)
RAW = st.builds(
    RawImage,
    stamp_ns=STAMP,
    frame_id=TEXT,
    height=UINT32,
    width=UINT32,
    encoding=TEXT,
    is_bigendian=st.booleans(),
    step=UINT32,
    data=st.binary(max_size=40),
)
COMPRESSED = st.builds(
    CompressedImage, stamp_ns=STAMP, frame_id=TEXT, format=TEXT, data=st.binary(max_size=40)
)
INFO = st.builds(
    cdr.CameraInfoData,
    stamp_ns=STAMP,
    frame_id=TEXT,
    height=UINT32,
    width=UINT32,
    distortion_model=TEXT,
    d=st.lists(FLOATS, max_size=14).map(tuple),
    k=st.tuples(*[FLOATS] * 9),
    r=st.tuples(*[FLOATS] * 9),
    p=st.tuples(*[FLOATS] * 12),
    binning_x=UINT32,
    binning_y=UINT32,
    roi=st.builds(cdr.RegionOfInterest, UINT32, UINT32, UINT32, UINT32, st.booleans()),
)
PARSERS = (
    cdr.parse_header,
    cdr.parse_image,
    cdr.parse_compressed_image,
    cdr.parse_camera_info,
    cdr.parse_string,
)
IMAGE = RawImage(1_500_000_000, "cam", 2, 3, "mono16", False, 6, bytes(range(12)))


def big_endian_image(image: RawImage) -> bytes:
    """The same message from a big-endian machine, written by another way than cdr.py's."""
    out = bytearray()

    def put(code: str, value: int) -> None:
        size = struct.calcsize(code)
        out.extend(b"\0" * (-len(out) % size))
        out.extend(struct.pack(f">{code}", value))

    def text(value: str) -> None:
        raw = value.encode() + b"\0"
        put("I", len(raw))
        out.extend(raw)

    put("i", image.stamp_ns // 10**9)
    put("I", image.stamp_ns % 10**9)
    text(image.frame_id)
    put("I", image.height)
    put("I", image.width)
    text(image.encoding)
    put("B", image.is_bigendian)
    put("I", image.step)
    put("I", len(image.data))
    return b"\x00\x00\x00\x00" + bytes(out) + bytes(image.data)


@given(RAW)
def test_image_round_trip(image: RawImage) -> None:
    message = cdr.serialize_image(image)
    assert cdr.parse_image(message) == image
    assert cdr.parse_header(message) == (image.stamp_ns, image.frame_id)


@given(RAW)
def test_big_endian_messages_read_the_same(image: RawImage) -> None:
    assert cdr.parse_image(big_endian_image(image)) == image


@given(COMPRESSED)
def test_compressed_round_trip(image: CompressedImage) -> None:
    assert cdr.parse_compressed_image(cdr.serialize_compressed_image(image)) == image


@given(INFO)
def test_camera_info_round_trip(info: cdr.CameraInfoData) -> None:
    assert cdr.parse_camera_info(cdr.serialize_camera_info(info)) == info


def test_camera_info_of_a_model() -> None:
    info = cdr.CameraInfoData.of(CameraModel.pinhole(160, 120, 57.0), 7, "lepton")
    assert (info.width, info.height, info.stamp_ns, info.frame_id) == (160, 120, 7, "lepton")
    assert info.k[2] == pytest.approx(79.5)
    with pytest.raises(EncodingError, match="k has 3"):
        cdr.serialize_camera_info(cdr.CameraInfoData(k=(1.0, 2.0, 3.0)))


def test_pixels_are_not_copied_on_the_way_in() -> None:
    message = cdr.serialize_image(IMAGE)
    data = cdr.parse_image(message).data
    assert isinstance(data, memoryview) and data.obj is message


def test_image_from_an_array_view() -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    image = RawImage(0, "", 3, 4, "mono16", False, 8, memoryview(pixels))
    parsed = cdr.parse_image(cdr.serialize_image(image))
    np.testing.assert_array_equal(np.frombuffer(parsed.data, np.uint16).reshape(3, 4), pixels)


@pytest.mark.parametrize("kind", [b"\x00\x06", b"\x00\x07", b"\x00\x02", b"\x00\x0b", b"\x01\x01"])
def test_other_encapsulations_are_refused(kind: bytes) -> None:
    with pytest.raises(EncodingError, match="not plain CDR") as caught:
        cdr.parse_image(kind + cdr.serialize_image(IMAGE)[2:])
    assert caught.value.reason == "bad_header"


def test_every_truncation_is_refused() -> None:
    message = cdr.serialize_image(IMAGE)
    for end in range(len(message)):
        with pytest.raises(EncodingError) as caught:
            cdr.parse_image(message[:end])
        # Behind the length field only pixels are missing.
        assert caught.value.reason == ("short_data" if end >= len(message) - 12 else "bad_header")
    info = cdr.serialize_camera_info(cdr.CameraInfoData(d=(1.0,) * 5))
    for end in range(len(info)):
        with pytest.raises(EncodingError):
            cdr.parse_camera_info(info[:end])


@pytest.mark.parametrize("length", [13, 2**31, 2**32 - 1])
def test_promised_but_missing_data(length: int) -> None:
    message = bytearray(cdr.serialize_image(IMAGE))
    message[-16:-12] = struct.pack("<I", length)
    with pytest.raises(EncodingError) as caught:
        cdr.parse_image(bytes(message))
    assert caught.value.reason == "short_data"


@pytest.mark.parametrize("offset", [12])
def test_absurd_string_length_and_missing_nul(offset: int) -> None:
    message = bytearray(cdr.serialize_image(IMAGE))
    for length in (2**32 - 1, 500, 2):  # 2: the string "ca" then has no nul
        message[offset : offset + 4] = struct.pack("<I", length)
        with pytest.raises(EncodingError) as caught:
            cdr.parse_image(bytes(message))
        assert caught.value.reason == "bad_header"


@settings(max_examples=200)
@given(st.binary(max_size=120), st.sampled_from([b"", b"\x00\x01\x00\x00", b"\x00\x00\x00\x00"]))
def test_arbitrary_bytes_never_raise_anything_else(data: bytes, start: bytes) -> None:
    for parse in PARSERS:
        try:
            parse(start + data)
        except EncodingError as error:
            assert error.reason in ("bad_header", "short_data")


@settings(max_examples=200)
@given(RAW, st.data())
def test_mutated_messages_never_raise_anything_else(image: RawImage, data: st.DataObject) -> None:
    message = bytearray(cdr.serialize_image(image))
    for _ in range(data.draw(st.integers(1, 6))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    for parse in PARSERS:
        try:
            parse(bytes(message))
        except EncodingError as error:
            assert error.reason in ("bad_header", "short_data")


def test_what_no_message_can_carry_is_refused() -> None:
    for image in (
        RawImage(2**31 * 10**9, "", 1, 1, "mono8", False, 1, b"\0"),
        RawImage(0, "", -1, 1, "mono8", False, 1, b"\0"),
        RawImage(0, "\ud800", 1, 1, "mono8", False, 1, b"\0"),
    ):
        with pytest.raises(EncodingError):
            cdr.serialize_image(image)


def ros_or_skip() -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed")


def same_but_for_padding(ours: bytes, theirs: bytes, pads: list[int]) -> bool:
    """Fast CDR leaves what happens to be in memory in the bytes that align fields; ours are zero."""
    mine, other = bytearray(ours), bytearray(theirs)
    if len(mine) != len(other):
        return False
    for at in pads:
        mine[at] = other[at] = 0
    return mine == other


def padding(lengths: list[tuple[str, int]]) -> list[int]:
    """Positions of the padding bytes, given (kind, size) of each field in order."""
    at, pads = 4, []
    for kind, size in lengths:
        alignment = {"u8": 1, "u32": 4, "f64": 8, "bytes": 1}[kind]
        gap = -(at - 4) % alignment if size else 0
        pads += range(at, at + gap)
        at += gap + size
    return pads


def utf8(text: str) -> int:
    return len(text.encode()) + 1


@given(RAW)
@settings(max_examples=60)
def test_image_is_what_rclpy_sends(image: RawImage) -> None:
    ros_or_skip()
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import Image

    ours = cdr.serialize_image(image)
    message = deserialize_message(ours, Image)
    assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == image.stamp_ns
    assert (message.header.frame_id, message.encoding) == (image.frame_id, image.encoding)
    assert (message.height, message.width, message.step) == (image.height, image.width, image.step)
    assert bool(message.is_bigendian) == image.is_bigendian and bytes(message.data) == image.data
    theirs = bytes(serialize_message(message))
    pads = padding(
        [
            ("u32", 4), ("u32", 4), ("u32", 4), ("bytes", utf8(image.frame_id)), ("u32", 4), ("u32", 4),
            ("u32", 4), ("bytes", utf8(image.encoding)), ("u8", 1), ("u32", 4), ("u32", 4),
        ]
    )  # fmt: skip
    assert same_but_for_padding(ours, theirs, pads)
    assert cdr.parse_image(theirs) == image


@given(COMPRESSED)
@settings(max_examples=60)
def test_compressed_image_is_what_rclpy_sends(image: CompressedImage) -> None:
    ros_or_skip()
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import CompressedImage as Message

    ours = cdr.serialize_compressed_image(image)
    theirs = bytes(serialize_message(deserialize_message(ours, Message)))
    pads = padding(
        [
            ("u32", 4), ("u32", 4), ("u32", 4), ("bytes", utf8(image.frame_id)),
            ("u32", 4), ("bytes", utf8(image.format)), ("u32", 4),
        ]
    )  # fmt: skip
    assert same_but_for_padding(ours, theirs, pads)
    assert cdr.parse_compressed_image(theirs) == image


@given(INFO)
@settings(max_examples=60)
def test_camera_info_is_what_rclpy_sends(info: cdr.CameraInfoData) -> None:
    ros_or_skip()
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import CameraInfo

    ours = cdr.serialize_camera_info(info)
    theirs = bytes(serialize_message(deserialize_message(ours, CameraInfo)))
    pads = padding(
        [
            ("u32", 4), ("u32", 4), ("u32", 4), ("bytes", utf8(info.frame_id)), ("u32", 4), ("u32", 4),
            ("u32", 4), ("bytes", utf8(info.distortion_model)), ("u32", 4), ("f64", 8 * len(info.d)),
            ("f64", 8 * 30), *[("u32", 4)] * 6, ("u8", 1),
        ]
    )  # fmt: skip
    assert same_but_for_padding(ours, theirs, pads)
    assert cdr.parse_camera_info(theirs) == info


def test_string_and_clock_are_what_rclpy_sends() -> None:
    ros_or_skip()
    from rclpy.serialization import deserialize_message, serialize_message
    from rosgraph_msgs.msg import Clock
    from std_msgs.msg import String

    assert bytes(serialize_message(String(data="centikelvin"))) == cdr.serialize_string("centikelvin")
    assert cdr.parse_string(cdr.serialize_string("é")) == "é"
    clock = deserialize_message(cdr.serialize_clock(-1), Clock)
    assert (clock.clock.sec, clock.clock.nanosec) == (-1, 999_999_999)
