import array as stdlib_array

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thermal_enhance.imaging import encodings
from thermal_enhance.imaging.encodings import (
    ENCODINGS,
    decode,
    decode_color,
    decode_thermal,
    default_units,
    encode,
    is_color,
    thermal_encoding,
)
from thermal_enhance.imaging.frames import THERMAL_DTYPES, Units
from thermal_enhance.imaging.layouts import LAYOUTS
from thermal_enhance.imaging.raw import EncodingError, RawImage

REASONS = {"unsupported_encoding", "bad_step", "short_data", "zero_size", "huge_size", "bad_header"}


def image(encoding, height, width, seed=0):
    layout = LAYOUTS[encoding.lower()]
    shape = layout.shape(height, width)
    numbers = np.random.default_rng(seed)
    if layout.dtype == np.float32:
        return numbers.normal(20, 5, shape).astype(np.float32)
    return numbers.integers(0, np.iinfo(layout.dtype).max + 1, shape, layout.dtype)


def message(pixels, encoding, padding=0, bigendian=False, last_padding=True):
    """Write a message by hand, independently of `encode`."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if bigendian else "<")).reshape(height, -1)
    rows = np.ascontiguousarray(rows).view(np.uint8).reshape(height, -1)
    step = rows.shape[1] + padding
    padded = np.full((height, step), 0xA5, np.uint8)
    padded[:, : rows.shape[1]] = rows
    data = padded.tobytes()
    if not last_padding and padding:
        data = data[:-padding]
    return RawImage(1, "thermal", height, width, encoding, bigendian, step, data)


def raw(encoding="mono8", height=2, width=4, step=None, data=b"\0" * 64, *, pixels=None):
    return RawImage(0, "", height, width, encoding, False, 4 if step is None else step, data, pixels)


@settings(deadline=None)
@given(
    encoding=st.sampled_from(ENCODINGS),
    height=st.integers(1, 9),
    half_width=st.integers(1, 6),
    padding=st.integers(0, 9),
    bigendian=st.booleans(),
    last_padding=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_step_and_byte_order_decodes(
    *, encoding, height, half_width, padding, bigendian, last_padding, seed
):
    pixels = image(encoding, height, 2 * half_width, seed)
    got = decode(message(pixels, encoding, padding, bigendian, last_padding))
    assert got.dtype == pixels.dtype and got.dtype.isnative
    assert got.flags.c_contiguous and got.flags.aligned
    np.testing.assert_array_equal(got, pixels)


@settings(deadline=None)
@given(encoding=st.sampled_from(ENCODINGS), height=st.integers(1, 7), half_width=st.integers(1, 6))
def test_encode_decode_round_trip(encoding, height, half_width):
    pixels = image(encoding, height, 2 * half_width)
    sent = encode(pixels, encoding, 123, "cam")
    assert (sent.stamp_ns, sent.frame_id, sent.encoding) == (123, "cam", encoding)
    assert not sent.is_bigendian and sent.step * height == memoryview(sent.data).nbytes
    assert bytes(sent.data) == bytes(message(pixels, encoding).data)
    np.testing.assert_array_equal(decode(sent), pixels)
    by_wire = RawImage(0, "", height, 2 * half_width, encoding, False, sent.step, bytes(sent.data))
    np.testing.assert_array_equal(decode(by_wire), pixels)


def test_encode_of_a_strided_and_swapped_array():
    pixels = image("mono16", 8, 10)
    sent = encode(pixels[::2, ::2].astype(">u2"), "mono16", 0, "")
    np.testing.assert_array_equal(sent.array, pixels[::2, ::2])
    np.testing.assert_array_equal(np.frombuffer(sent.data, "<u2").reshape(4, 5), pixels[::2, ::2])


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview, lambda d: stdlib_array.array("B", d)])
def test_contiguous_data_is_viewed_not_copied(buffer):
    data = buffer(bytes(range(64)))
    got = decode(raw("mono16", 4, 8, 16, data))
    assert np.shares_memory(got, np.frombuffer(data, np.uint8))
    assert got.flags.writeable == (not memoryview(data).readonly)


def test_array_is_used_where_the_sender_gave_one():
    pixels = image("mono16", 3, 5)
    assert decode(raw("mono16", 3, 5, pixels=pixels, data=b"")) is pixels
    for wrong in (pixels[:2], pixels.astype(np.uint8), pixels[..., None], [1, 2]):
        with pytest.raises(EncodingError) as caught:
            decode(raw("mono16", 3, 5, pixels=wrong, data=b""))
        assert caught.value.reason == "bad_header"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"width": 0}, "zero_size"),
        ({"height": 0}, "zero_size"),
        ({"width": -4}, "zero_size"),
        ({"width": 16385, "step": 16385}, "huge_size"),
        ({"width": 16384, "height": 16384, "encoding": "mono16", "step": 32768}, "huge_size"),
        ({"width": 10**5000}, "bad_header"),
        ({"step": 10**5000}, "bad_header"),
        ({"width": 4.0}, "bad_header"),
        ({"height": None}, "bad_header"),
        ({"step": 3}, "bad_step"),
        ({"step": 0}, "bad_step"),
        ({"encoding": "mono16"}, "bad_step"),
        ({"data": b"1234567"}, "short_data"),
        ({"step": 2**62}, "short_data"),
        ({"data": [1, 2, 3]}, "bad_header"),
        ({"data": None}, "bad_header"),
        ({"data": memoryview(bytes(128))[::2]}, "bad_header"),
        ({"encoding": "64FC1"}, "unsupported_encoding"),
        ({"encoding": ""}, "unsupported_encoding"),
        ({"encoding": None}, "unsupported_encoding"),
        ({"encoding": b"mono8"}, "unsupported_encoding"),
        ({"encoding": "yuv422", "width": 3, "step": 6}, "bad_header"),
    ],
)
def test_malformed_messages_are_refused_with_the_reason(fields, reason):
    for read in (decode, decode_thermal, decode_color):
        with pytest.raises(EncodingError) as caught:
            read(raw(**fields))
        assert caught.value.reason == reason
        assert str(caught.value)


def test_a_single_row_ignores_an_absurd_step():
    got = decode(raw("mono8", 1, 4, 2**62, b"abcd"))
    assert got.tobytes() == b"abcd" and got.strides == (4, 1)


def test_misaligned_data_is_copied():
    pixels = image("32FC1", 3, 5)
    data = memoryview(b"x" + pixels.tobytes())[1:]
    got = decode(raw("32FC1", 3, 5, 20, data))
    assert got.flags.aligned
    np.testing.assert_array_equal(got, pixels)


anything = st.one_of(
    st.none(), st.integers(), st.integers(-3, 12), st.floats(), st.text(max_size=5), st.binary(max_size=64)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(
    encoding=st.one_of(st.sampled_from(ENCODINGS), anything),
    height=st.one_of(st.integers(-1, 5), anything),
    width=st.one_of(st.integers(-1, 9), anything),
    step=st.one_of(st.integers(0, 40), anything),
    data=st.one_of(st.binary(max_size=200), anything),
    bigendian=anything,
)
def test_arbitrary_messages_decode_or_raise_encoding_error(*, encoding, height, width, step, data, bigendian):
    sent = RawImage(0, "", height, width, encoding, bigendian, step, data)
    for read in (decode, decode_thermal, decode_color):
        try:
            got = read(sent)
        except EncodingError as error:
            assert error.reason in REASONS
        else:
            assert got.shape[:2] == (height, width)
            if read is decode_thermal:
                assert got.ndim == 2 and got.dtype.type in THERMAL_DTYPES
            if read is decode_color:
                assert got.shape[2:] == (3,) and got.dtype == np.uint8


@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "mono16", "16UC1", "32FC1"])
def test_thermal_values_are_untouched(encoding):
    pixels = image(encoding, 6, 8)
    if encoding == "32FC1":
        pixels[0, 0], pixels[0, 1] = np.nan, np.inf
    for bigendian in (False, True):
        np.testing.assert_array_equal(decode_thermal(message(pixels, encoding, 3, bigendian)), pixels)


@pytest.mark.parametrize(
    "encoding", [e for e in ENCODINGS if is_color(e) and "yuv" not in e and "uy" not in e]
)
def test_gray_in_colour_is_the_same_gray(encoding):
    layout = LAYOUTS[encoding.lower()]
    value = 77 if layout.dtype == np.uint8 else 40000
    pixels = np.full(layout.shape(6, 8), value, layout.dtype)
    got = decode_thermal(message(pixels, encoding))
    assert got.shape == (6, 8) and got.dtype == layout.dtype
    assert (got == value).all()


def test_thermal_of_yuv_is_its_luminance_channel():
    for encoding, at in (("yuv422", 1), ("uyvy", 1), ("yuv422_yuy2", 0), ("yuyv", 0)):
        pixels = image(encoding, 4, 6)
        np.testing.assert_array_equal(decode_thermal(message(pixels, encoding)), pixels[..., at])


COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "odd": (200, 100, 30)}


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "8UC3", "8UC4", "rgb16", "bgra16"])
def test_channel_order(encoding, colour):
    layout = LAYOUTS[encoding.lower()]
    order = "bgra" if encoding.startswith(("b", "8")) else "rgba"
    pixel = [{"r": colour[0], "g": colour[1], "b": colour[2], "a": 9}[c] for c in order[: layout.channels]]
    pixels = np.full(layout.shape(3, 4), pixel, layout.dtype) * (256 if layout.dtype == np.uint16 else 1)
    assert (decode_color(message(pixels.astype(layout.dtype), encoding, 5)) == colour).all()


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (2, 2), (3, 2), (2, 7)])
def test_bayer_patterns(pattern, colour, bits, size):
    height, width = size
    values = dict(zip("rgb", colour))
    rows, columns = np.mgrid[:height, :width]
    mosaic = np.array([values[c] for c in pattern], np.uint16)[2 * (rows % 2) + columns % 2]
    pixels = (mosaic * 256 if bits == 16 else mosaic).astype(np.uint16 if bits == 16 else np.uint8)
    got = decode_color(message(pixels, f"bayer_{pattern}{bits}"))
    assert got.shape == (height, width, 3)
    assert (got == colour).all()
    luminance = cv2.cvtColor(np.full((1, 1, 3), colour, np.uint8), cv2.COLOR_RGB2GRAY)[0, 0]
    gray = decode_thermal(message(pixels, f"bayer_{pattern}{bits}"))
    assert np.abs(gray / (256 if bits == 16 else 1) - luminance).max() <= 1.5


def test_bayer_smaller_than_its_pattern_is_refused():
    with pytest.raises(EncodingError, match="2x2"):
        decode_color(raw("bayer_rggb8", 1, 4))


# BT.601 video range: Y, U, V of the primaries.
@pytest.mark.parametrize(
    ("yuv", "rgb"),
    [((81, 90, 240), (255, 0, 0)), ((145, 54, 34), (0, 255, 0)), ((41, 240, 110), (0, 0, 255))],
)
def test_yuv_orders(yuv, rgb):
    y, u, v = yuv
    for names, pair in ((("yuv422", "uyvy"), (u, y, v, y)), (("yuv422_yuy2", "yuyv"), (y, u, y, v))):
        for encoding in names:
            pixels = np.tile(np.array(pair, np.uint8), (3, 4)).reshape(3, 8, 2)
            got = decode_color(message(pixels, encoding, 2)).astype(int)
            assert np.abs(got - rgb).max() <= 3, encoding


def test_color_of_gray():
    pixels = image("mono16", 4, 5)
    got = decode_color(message(pixels, "mono16", bigendian=True))
    np.testing.assert_array_equal(got, np.repeat((pixels >> 8).astype(np.uint8)[..., None], 3, 2))
    with pytest.raises(EncodingError) as caught:
        decode_color(message(image("32FC1", 4, 5), "32FC1"))
    assert caught.value.reason == "unsupported_encoding"


def test_read_only_messages_convert():
    for encoding in ENCODINGS:
        sent = message(image(encoding, 6, 8), encoding)
        assert decode_thermal(sent).ndim == 2
        if encoding != "32FC1":
            assert decode_color(sent).shape == (6, 8, 3)


@pytest.mark.parametrize(
    ("pixels", "encoding", "reason"),
    [
        (np.zeros((4, 4), np.float64), "32FC1", "bad_header"),
        (np.zeros((4, 4, 3), np.uint8), "mono8", "bad_header"),
        (np.zeros((0, 4), np.uint8), "mono8", "zero_size"),
        (np.zeros((4, 3, 2), np.uint8), "yuyv", "bad_header"),
        (np.zeros(4, np.uint8), "mono8", "bad_header"),
        (np.zeros((4, 4), np.uint8), "mono9", "unsupported_encoding"),
    ],
)
def test_encode_refuses_what_does_not_fit(pixels, encoding, reason):
    with pytest.raises(EncodingError) as caught:
        encode(pixels, encoding, 0, "")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("encoding", "units"),
    [
        ("mono8", Units.AGC8),
        ("8UC1", Units.AGC8),
        ("bgr8", Units.AGC8),
        ("yuv422", Units.AGC8),
        ("rgb16", Units.AGC8),
        ("mono16", Units.COUNTS),
        ("16UC1", Units.COUNTS),
        ("32FC1", Units.CELSIUS),
        ("mono16; png compressed ", Units.COUNTS),
        ("16UC1; compressedDepth png", Units.COUNTS),
        ("mono16; jpeg compressed ", Units.AGC8),
        ("rgb8; jpeg compressed bgr8", Units.AGC8),
        ("png", Units.AGC8),
        ("jpeg", Units.AGC8),
    ],
)
def test_default_units(encoding, units):
    assert default_units(encoding) is units


def test_default_units_of_what_the_format_does_not_name():
    assert default_units("png", np.uint16) is Units.COUNTS
    assert default_units("tiff", np.dtype(np.float32)) is Units.CELSIUS
    assert default_units("rgb16; png compressed bgr16", np.uint16) is Units.AGC8
    with pytest.raises(EncodingError):
        default_units("64FC1")


def test_output_encoding_is_the_inputs():
    for encoding, dtype in (
        ("mono8", "u1"),
        ("8UC1", "u1"),
        ("mono16", "u2"),
        ("16UC1", "u2"),
        ("32FC1", "f4"),
    ):
        assert thermal_encoding(np.dtype(dtype), encoding) == encoding
        assert thermal_encoding(np.dtype(dtype), f"{encoding}; png compressed ") == encoding
    for encoding in ("bgr8", "yuv422", "bayer_rggb8", "jpeg", "mono16; jpeg compressed "):
        assert thermal_encoding(np.uint8, encoding) == "mono8"
    assert thermal_encoding(np.uint16, "png") == "mono16"
    with pytest.raises(EncodingError):
        thermal_encoding(np.float64, "32FC1")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_thermal_output_can_be_published_as_thermal_encoding_says(encoding):
    got = decode_thermal(message(image(encoding, 4, 6), encoding))
    sent = encode(got, thermal_encoding(got.dtype, encoding), 0, "")
    np.testing.assert_array_equal(decode_thermal(sent), got)


def test_is_color():
    assert is_color("bgr8") and is_color("YUV422") and is_color("rgb8; jpeg compressed bgr8")
    assert not any(map(is_color, ("mono8", "16UC1", "mono16; png compressed ", "jpeg", "nonsense")))


def test_face():
    assert encodings.MAX_SIDE == 16384 and encodings.MAX_BYTES == 256 * 2**20
