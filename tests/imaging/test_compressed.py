import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thermal_enhance.imaging.compressed import compress, decode_compressed
from thermal_enhance.imaging.encodings import decode_color, decode_thermal
from thermal_enhance.imaging.raw import CompressedImage, EncodingError

REASONS = {"bad_compressed", "huge_size", "zero_size", "unsupported_encoding", "bad_header"}
NUMBERS = np.random.default_rng(5)
SMOOTH = cv2.GaussianBlur(NUMBERS.integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 3)
GRAY16 = NUMBERS.integers(0, 65536, (48, 64), np.uint16)


def file(extension, pixels, *parameters):
    return cv2.imencode(extension, pixels, list(parameters))[1].tobytes()


def sent(data, format="png"):
    return CompressedImage(7, "cam", format, data)


def reason(data, format="png"):
    with pytest.raises(EncodingError) as caught:
        decode_compressed(sent(data, format))
    assert str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@settings(deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 99))
def test_gray_png_round_trip_is_exact(dtype, height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width), dtype)
    message = compress(pixels, "png", 5, "cam")
    assert message.format == f"mono{8 * pixels.itemsize}; png compressed "
    assert (message.stamp_ns, message.frame_id) == (5, "cam")
    got = decode_thermal(message)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, pixels)


def test_rgb_round_trips():
    message = compress(SMOOTH, "png", 0, "")
    assert message.format == "rgb8; png compressed bgr8"
    np.testing.assert_array_equal(decode_color(message), SMOOTH)
    message = compress(SMOOTH[::-1], "JPEG", 0, "")
    assert message.format == "rgb8; jpeg compressed bgr8"
    assert np.abs(decode_color(message).astype(int) - SMOOTH[::-1]).max() < 12


def test_jpeg_gray_and_quality():
    gray = SMOOTH[..., 0]
    message = compress(gray, "jpeg", 0, "")
    assert message.format == "mono8; jpeg compressed "
    assert np.abs(decode_thermal(message).astype(int) - gray).max() < 8
    assert len(compress(gray, "jpeg", 0, "", 30).data) < len(message.data)
    with pytest.raises(ValueError, match="quality"):
        compress(gray, "jpeg", 0, "", 0)


def test_encoding_name_is_kept():
    assert compress(GRAY16, "png", 0, "", encoding="16UC1").format == "16UC1; png compressed "
    assert compress(GRAY16, "png", 0, "", encoding="mono8").format == "mono16; png compressed "


@pytest.mark.parametrize(
    ("pixels", "format", "why"),
    [
        (np.zeros((4, 4), np.float32), "png", "unsupported_encoding"),
        (GRAY16, "jpeg", "unsupported_encoding"),
        (np.zeros((4, 4, 4), np.uint8), "png", "unsupported_encoding"),
        (GRAY16, "gif", "unsupported_encoding"),
        (np.zeros((0, 4), np.uint8), "png", "zero_size"),
    ],
)
def test_compress_refuses(pixels, format, why):
    with pytest.raises(EncodingError) as caught:
        compress(pixels, format, 0, "")
    assert caught.value.reason == why


@pytest.mark.parametrize(
    "format", ["png", "PNG", "mono16; png compressed ", "16UC1; png compressed", "jpeg", ""]
)
def test_content_tells_the_kind_not_the_format(format):
    np.testing.assert_array_equal(decode_thermal(sent(file(".png", GRAY16), format)), GRAY16)


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview, lambda d: np.frombuffer(d, np.uint8)])
def test_any_buffer(buffer):
    np.testing.assert_array_equal(decode_thermal(sent(buffer(file(".png", GRAY16)))), GRAY16)


def test_colour_files_are_bgr_inside():
    for extension in (".png", ".tiff"):
        data = file(extension, np.ascontiguousarray(SMOOTH[..., ::-1]))
        np.testing.assert_array_equal(decode_color(sent(data, "rgb8; png compressed bgr8")), SMOOTH)
        np.testing.assert_array_equal(decode_color(sent(data, "bgr8; png compressed bgr8")), SMOOTH)
    swapped = file(".png", SMOOTH)
    np.testing.assert_array_equal(decode_color(sent(swapped, "rgb8; png compressed rgb8")), SMOOTH)


def test_other_kinds():
    gray = SMOOTH[..., 1]
    np.testing.assert_array_equal(decode_thermal(sent(file(".tiff", GRAY16))), GRAY16)
    celsius = NUMBERS.normal(20, 3, (9, 11)).astype(np.float32)
    array, encoding = decode_compressed(sent(file(".tiff", celsius)))
    assert encoding == "32FC1"
    np.testing.assert_array_equal(array, celsius)
    lossless = file(".webp", cv2.merge([gray] * 3), cv2.IMWRITE_WEBP_QUALITY, 101)
    np.testing.assert_array_equal(decode_thermal(sent(lossless)), gray)
    lossy = file(".webp", SMOOTH[..., ::-1].copy(), cv2.IMWRITE_WEBP_QUALITY, 95)
    assert decode_color(sent(lossy)).shape == SMOOTH.shape
    alpha = np.dstack([SMOOTH[..., ::-1], gray])
    for extension in (".png", ".webp"):
        data = file(extension, np.ascontiguousarray(alpha), cv2.IMWRITE_WEBP_QUALITY, 101)
        array, encoding = decode_compressed(sent(data))
        assert encoding == "bgra8"
        if extension == ".png":
            np.testing.assert_array_equal(decode_color(sent(data)), SMOOTH)
    assert decode_compressed(sent(file(".png", np.dstack([GRAY16] * 3))))[1] == "bgr16"
    assert reason(file(".tiff", np.zeros((4, 4), np.float64))) == "unsupported_encoding"
    assert reason(file(".bmp", gray)) == "bad_compressed"


def test_compressed_bayer_is_demosaiced():
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[::2, ::2] = 255
    data = file(".png", mosaic)
    assert (decode_color(sent(data, "bayer_rggb8; png compressed ")) == (255, 0, 0)).all()
    assert (decode_color(sent(data, "bayer_bggr8; png compressed ")) == (0, 0, 255)).all()


def test_compressed_depth():
    header = struct.pack("<iff", 0, 0.0, 0.0)
    got = decode_thermal(sent(header + file(".png", GRAY16), "16UC1; compressedDepth png"))
    np.testing.assert_array_equal(got, GRAY16)
    got = decode_thermal(sent(header + file(".png", GRAY16), "16UC1; compressedDepth"))
    np.testing.assert_array_equal(got, GRAY16)
    # The plug-in's own quantisation of the inverse: q = a / z + b, 0 for missing.
    z = np.linspace(1, 9, 48, dtype=np.float32).reshape(6, 8)
    a, b = 100.0 * 101.0, 1 - 100.0 * 101.0 / 10.0
    q = (a / z + b).astype(np.uint16)
    q[0, 0] = 0
    data = struct.pack("<iff", 0, a, b) + file(".png", q)
    got = decode_thermal(sent(data, "32FC1; compressedDepth png"))
    assert got.dtype == np.float32 and np.isnan(got[0, 0])
    np.testing.assert_allclose(got.ravel()[1:], z.ravel()[1:], rtol=1e-2)
    assert reason(data, "16UC1; compressedDepth rvl") == "unsupported_encoding"
    assert reason(data[:10], "16UC1; compressedDepth png") == "bad_compressed"
    assert (
        reason(struct.pack("<iff", 0, a, b) + file(".jpg", SMOOTH), "32FC1; compressedDepth")
        == "bad_compressed"
    )


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_bombs_are_refused_unread(monkeypatch):
    def never(*_):
        raise AssertionError("a file of this size must not reach the decoder")

    files = {kind: file(kind, SMOOTH) for kind in (".jpg", ".webp", ".tiff", ".png")}
    monkeypatch.setattr(cv2, "imdecode", never)
    side = 60000
    png = files[".png"][:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    assert reason(png) == "huge_size"
    # Within the limit of each side, but not of the bytes.
    png = files[".png"][:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 12000, 12000, 16, 0, 0, 0, 0))
    assert reason(png) == "huge_size"
    png = files[".png"][:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 0, 0, 0, 0))
    assert reason(png) == "zero_size"
    jpeg = bytearray(files[".jpg"])
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", side, side)
    assert reason(bytes(jpeg)) == "huge_size"
    tiff = files[".tiff"]
    for tag in (256, 257):
        entry = tiff.index(struct.pack("<HH", tag, 3)) if struct.pack("<HH", tag, 3) in tiff else -1
        assert entry > 0
        tiff = tiff[: entry + 8] + struct.pack("<HH", side, 0) + tiff[entry + 12 :]
    assert reason(tiff) == "huge_size"
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (side).to_bytes(3, "little") * 2
    assert reason(b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended) == "huge_size"


@pytest.fixture(params=["opencv", "lenient"])
def decoder(request, monkeypatch):
    """OpenCV, and an older one that fills up what is missing: what it is given must be checked before."""
    if request.param == "lenient":
        monkeypatch.setattr(cv2, "imdecode", lambda *_: SMOOTH)
    return request.param


@pytest.mark.parametrize("kind", [".png", ".jpg", ".webp", ".tiff"])
def test_truncation_anywhere_is_noticed(kind, decoder):
    if kind == ".tiff" and decoder == "lenient":
        pytest.skip("libtiff itself misses the strips of a TIFF file")
    data = file(kind, SMOOTH)
    for length in [*range(0, 64), *range(64, len(data) - 8, max(1, len(data) // 25)), len(data) - 9]:
        assert reason(data[:length]) in {"bad_compressed", "zero_size"}, length


def test_truncated_progressive_jpeg_with_thumbnail(decoder):
    data = file(".jpg", SMOOTH, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    thumbnail = file(".jpg", SMOOTH[:8, :8])
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    assert decode_compressed(sent(data))[0].shape == SMOOTH.shape
    assert decode_compressed(sent(data + bytes(9)))[0].shape == SMOOTH.shape
    for length in (len(data) - 2, len(data) // 2 + len(thumbnail) // 2, len(thumbnail) + 40):
        assert reason(data[:length]) == "bad_compressed"


def test_corrupt_png_is_noticed(decoder):
    data = bytearray(file(".png", GRAY16))
    for at in range(40, len(data) - 12, len(data) // 20):
        broken = data.copy()
        broken[at] ^= 0x10
        assert reason(bytes(broken)) == "bad_compressed"


def test_wrong_types_are_refused():
    assert reason(None) == "bad_header"
    assert reason([1, 2]) == "bad_header"
    assert reason(b"", None) == "bad_header"
    assert reason(b"") == "bad_compressed"


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150, deadline=None)
@given(
    seed=st.one_of(st.binary(max_size=80), st.sampled_from([".png", ".jpg", ".webp", ".tiff"])),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 200),
    format=st.one_of(
        st.sampled_from(["png", "16UC1; compressedDepth png", "32FC1; compressedDepth", "bayer_rggb8; png"]),
        st.text(max_size=20),
    ),
)
def test_arbitrary_files_decode_or_raise_encoding_error(seed, changes, cut, format):
    data = bytearray(file(seed, SMOOTH[:16, :16]) if isinstance(seed, str) else seed)
    for at, value in changes:
        if at < len(data):
            data[at] = value
    for read in (decode_thermal, decode_color):
        try:
            got = read(sent(bytes(data[: len(data) - cut] if cut < 40 else data), format))
        except EncodingError as error:
            assert error.reason in REASONS
        else:
            assert got.ndim == (2 if read is decode_thermal else 3)
