"""Compressed image messages: JPEG, PNG (16 bits too), TIFF and WebP files, as image_transport sends them.

A file's header is read before it is decoded: a few hundred bytes that claim gigabytes are refused, and so
is a file whose end is missing, which decoders would otherwise fill up with gray.
"""

from __future__ import annotations

import re
import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.layouts import check_size
from thermal_enhance.imaging.raw import CompressedImage, EncodingError

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}
"""Channels after decoding, by PNG colour type (a palette becomes colours, gray + alpha becomes BGRA)."""
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset((0x01, *range(0xD0, 0xD8)))
_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}
_DEPTH_HEADER = struct.Struct("<iff")
"""compressedDepth's own header: kind, then the two quantisation parameters."""
_BAYER = re.compile(r"bayer_(rggb|bggr|gbrg|grbg)(8|16)")


def is_compressed_format(text: str) -> bool:
    """Whether `text` describes a compressed image rather than naming an encoding."""
    return re.search(r";|jpe?g|png|tiff?|webp|compresseddepth", text.lower()) is not None


def _bad(message: str) -> EncodingError:
    return EncodingError("bad_compressed", message)


def _probe_png(data: bytes) -> tuple[int, int, int]:
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    check_size(width, height, _PNG_CHANNELS.get(kind, 4) * (2 if depth == 16 else 1))
    at = len(_PNG)
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise _bad("PNG file is corrupt (checksum)")
        if data[at + 4 : at + 8] == b"IEND":
            return width, height, depth
        at = end
    raise _bad("PNG file is truncated: the publisher or the transport lost its end")


def _probe_jpeg(data: bytes) -> None:
    at, size_known = 2, False
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise _bad("JPEG file is corrupt (no marker where one must be)")
        marker = data[at + 1]
        if marker == 0xFF or marker in _JPEG_BARE:  # fill byte, or a marker without a segment
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            # In entropy-coded data 0xFF is always followed by 0 or a restart marker, so that an
            # end-of-image marker after the scan's start can only be the real one.
            if size_known and data.rfind(b"\xff\xd9") > at:
                return
            break
        length = struct.unpack_from(">H", data, at + 2)[0]
        if marker in _JPEG_FRAMES and at + 10 <= len(data):
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            check_size(width, height, max(components, 1) * ((bits + 7) // 8))
            size_known = True
        at += 2 + max(length, 2)
    raise _bad("JPEG file is truncated: the publisher or the transport lost its end")


def _probe_webp(data: bytes) -> None:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise _bad("WebP file is truncated: the publisher or the transport lost its end")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    else:
        raise _bad("WebP file is corrupt (no image in it)")
    check_size(width, height, 4)


def _probe_tiff(data: bytes) -> None:
    order = "<" if data[:2] == b"II" else ">"
    directory = struct.unpack_from(order + "I", data, 4)[0]
    tags: dict[int, int] = {}
    for entry in range(struct.unpack_from(order + "H", data, directory)[0]):
        at = directory + 2 + 12 * entry
        tag, kind, count = struct.unpack_from(order + "HHI", data, at)
        if kind not in _TIFF_TYPES or tag not in (256, 257, 258, 277):
            continue
        code = order + _TIFF_TYPES[kind]
        # Values that do not fit the entry's four bytes (bits of each channel) lie elsewhere; one is enough.
        fits = struct.calcsize(code) * count <= 4
        where = at + 8 if fits else struct.unpack_from(order + "I", data, at + 8)[0]
        tags[tag] = struct.unpack_from(code, data, where)[0]
    check_size(tags.get(256, 0), tags.get(257, 0), max(1, tags.get(258, 8) * tags.get(277, 1) // 8))


def _probe(data: bytes) -> None:
    """Check a file's kind, claimed size and completeness without decoding it."""
    try:
        if data.startswith(_PNG):
            _probe_png(data)
        elif data.startswith(b"\xff\xd8\xff"):
            _probe_jpeg(data)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            _probe_webp(data)
        elif data.startswith((b"II*\0", b"MM\0*")):
            _probe_tiff(data)
        else:
            raise _bad("data is no JPEG, PNG, TIFF or WebP file: set the publisher's format to png or jpeg")
    except struct.error:
        raise _bad("file is truncated within its header") from None


def _decode_file(data: bytes) -> NDArray:
    _probe(data)
    try:
        # UNCHANGED keeps 16 bits and ignores EXIF rotation, which camera_info knows nothing of.
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError):
        array = None
    if array is None:
        raise _bad("file cannot be decoded: it is corrupt or of a kind that OpenCV does not read")
    return array


def _decode_depth(data: bytes, declared: str, described: str) -> NDArray:
    """compressedDepth: a 12-byte header, then a PNG of the values or of their quantised inverse."""
    if "rvl" in described:
        raise EncodingError("unsupported_encoding", "compressedDepth rvl: set the publisher's format to png")
    bare = data.startswith(_PNG)
    if not bare and len(data) <= _DEPTH_HEADER.size:
        raise _bad("compressedDepth message is truncated within its header")
    array = _decode_file(data if bare else data[_DEPTH_HEADER.size :])
    if declared != "32fc1" or bare:
        return array
    if array.ndim != 2 or array.dtype != np.uint16:
        raise _bad(f"32FC1 compressedDepth must hold a 16-bit gray PNG, not {array.shape} {array.dtype}")
    _, scale, offset = _DEPTH_HEADER.unpack_from(data)
    with np.errstate(all="ignore"):
        values = np.float32(scale) / (array.astype(np.float32) - np.float32(offset))
    values[array == 0] = np.nan  # the sender's mark of a missing or too large value
    return values


def decode_compressed(message: CompressedImage) -> tuple[NDArray, str]:
    """Decode a compressed image.

    The file's kind is told by its content; `message.format` only tells compressedDepth, Bayer mosaics and
    the channel order. A JPEG damaged in its middle but with its end in place decodes with wrong pixels:
    that kind of file has no checksum.

    Args:
        message: the message; formats are read case-insensitively ("jpeg", "mono16; png compressed ", ...).

    Returns:
        C-contiguous (H, W) uint8, uint16 or float32, or (H, W, 3 or 4) uint8 or uint16 array, and its
        encoding: mono8, mono16, 32FC1, bgr8, bgra8, bgr16, bgra16, rgb8, rgb16 or bayer_*.

    Raises:
        EncodingError: bad_compressed, huge_size, zero_size, unsupported_encoding or bad_header.
    """
    if not isinstance(message.format, str):
        raise EncodingError("bad_header", f"format is {type(message.format).__name__}, not a string")
    try:
        data = memoryview(message.data).cast("B").tobytes()
    except (TypeError, ValueError, BufferError):
        raise EncodingError(
            "bad_header", f"data is {type(message.data).__name__}, not contiguous bytes"
        ) from None
    declared, _, described = (part.strip() for part in message.format.lower().partition(";"))
    if "compresseddepth" in message.format.lower():
        array = _decode_depth(data, declared, described)
    else:
        array = _decode_file(data)
    channels = 1 if array.ndim == 2 else array.shape[2]
    bits = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}.get(array.dtype)
    if array.dtype == np.float32 and channels == 1:
        return np.ascontiguousarray(array), "32FC1"
    names = {1: "mono", 3: "bgr", 4: "bgra"}
    if bits is None or channels not in names:
        raise EncodingError(
            "unsupported_encoding",
            f"file holds {channels} channels of {array.dtype}; set the publisher to 8 or 16 bits",
        )
    name = f"{names[channels]}{bits}"
    if channels == 1 and _BAYER.fullmatch(declared) and declared.endswith(str(bits)):
        name = declared
    elif channels == 3 and "compressed rgb" in described:
        name = f"rgb{bits}"
    return np.ascontiguousarray(array), name


def compress(
    array: NDArray, format: str, stamp_ns: int, frame_id: str, quality: int = 95, *, encoding: str = ""
) -> CompressedImage:
    """Compress an image as image_transport's compressed publisher does, so that its subscribers read it.

    Args:
        array: (H, W) uint8 or uint16 gray, or (H, W, 3) uint8 RGB.
        format: "png" (lossless) or "jpeg" (8 bits only).
        stamp_ns: header stamp, nanoseconds.
        frame_id: header frame_id.
        quality: JPEG quality, 1 to 100.
        encoding: name of a gray image's encoding, where it is 8UC1 or 16UC1 rather than mono8 or mono16.

    Returns:
        The message; its format reads like "mono16; png compressed " or "rgb8; jpeg compressed bgr8".

    Raises:
        EncodingError: unsupported_encoding for floats and other shapes, 16-bit JPEG or another format;
            zero_size or huge_size.
        ValueError: `quality` out of range.
    """
    kind = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg"}.get(format.lower())
    if kind is None:
        raise EncodingError("unsupported_encoding", f"format {format!r}: set it to png or jpeg")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, not {quality}")
    gray = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    if not gray and not (array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8):
        raise EncodingError(
            "unsupported_encoding",
            f"{array.shape} {array.dtype} cannot be compressed, only 8- or 16-bit gray and 8-bit RGB: "
            "subscribe to the raw topic instead",
        )
    if kind == "jpeg" and array.dtype == np.uint16:
        raise EncodingError(
            "unsupported_encoding", "JPEG has 8 bits: set the format to png for 16-bit images"
        )
    check_size(array.shape[1], array.shape[0], array.dtype.itemsize * (1 if gray else 3))
    bits = 8 * array.dtype.itemsize
    name = f"mono{bits}" if gray else "rgb8"
    if gray and encoding.lower() in (f"mono{bits}", f"{bits}uc1"):
        name = encoding
    pixels = np.ascontiguousarray(array if gray else array[..., ::-1], array.dtype.newbyteorder("="))
    ok, file = cv2.imencode(f".{kind}", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "jpeg" else [])
    if not ok:
        raise _bad(f"OpenCV could not write {name} as {kind}")
    described = f"{name}; {kind} compressed " + ("" if gray else "bgr8")
    return CompressedImage(stamp_ns, frame_id, described, file.tobytes())
