"""Image messages to arrays and back: every encoding a thermal or RGB camera is likely to send.

`decode`, `decode_thermal` and `decode_color` take what came over the wire and either give an array or
raise `EncodingError`, whatever the fields and bytes are; the nodes count its `reason`. Encodings are those
of ROS (REP 118 and sensor_msgs/image_encodings), read case-insensitively.
"""

from __future__ import annotations

import sys
from operator import index

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.compressed import compress, decode_compressed, is_compressed_format
from thermal_enhance.imaging.frames import Units
from thermal_enhance.imaging.layouts import (
    ENCODINGS,
    F32,
    LAYOUTS,
    MAX_BYTES,
    MAX_SIDE,
    THERMAL_NAMES,
    U8,
    U16,
    Layout,
    check_size,
    layout_of,
)
from thermal_enhance.imaging.raw import CompressedImage, EncodingError, RawImage

__all__ = [
    "ENCODINGS",
    "MAX_BYTES",
    "MAX_SIDE",
    "compress",
    "decode",
    "decode_color",
    "decode_compressed",
    "decode_thermal",
    "default_units",
    "encode",
    "is_color",
    "thermal_encoding",
]


def _key(encoding: object) -> str:
    """Table key of an encoding; of a compressed format's description, what was encoded."""
    return encoding.split(";")[0].strip().lower() if isinstance(encoding, str) else ""


def _integer(value: object, field: str) -> int:
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        raise EncodingError("bad_header", f"{field} is {type(value).__name__}, not an integer") from None
    if abs(number) >= 1 << 63:
        # Not printed: Python refuses to write out integers of thousands of digits.
        raise EncodingError("bad_header", f"{field} is beyond 64 bits")
    return number


def _from_array(array: object, layout: Layout, shape: tuple[int, ...], encoding: str) -> NDArray:
    if not isinstance(array, np.ndarray):
        raise EncodingError("bad_header", f"array is {type(array).__name__}, not a NumPy array")
    if array.shape != shape or array.dtype.newbyteorder("=") != layout.dtype:
        raise EncodingError(
            "bad_header",
            f"array is {array.shape} {array.dtype}, but {encoding} of this size is {shape} {layout.dtype}",
        )
    return np.ascontiguousarray(array, layout.dtype)


def decode(raw: RawImage) -> NDArray:
    """Give the pixels of an uncompressed image as they were sent, in native byte order.

    Nothing is copied where the rows lie without padding and in native byte order: the array is then a
    view of `raw.data` (or is `raw.array`), read-only if that buffer is, and sees later changes to it.
    Padded, byte-swapped or misaligned data is copied. Bytes after the last row are ignored, and the last
    row may lack its padding.

    Args:
        raw: the message. `raw.array` is used where it is set.

    Returns:
        C-contiguous (H, W) for gray and Bayer, (H, W, 3 or 4) for colour in the order sent, (H, W, 2) for
        4:2:2 YUV; uint8, uint16 or float32.

    Raises:
        EncodingError: the message is not an image that can be read; nothing else is ever raised.
    """
    layout = layout_of(raw.encoding)
    width, height = _integer(raw.width, "width"), _integer(raw.height, "height")
    check_size(width, height, layout.pixel_bytes)
    if layout.family == "yuv" and width % 2:
        raise EncodingError("bad_header", f"{raw.encoding} needs an even width, not {width}")
    shape = layout.shape(height, width)
    if raw.array is not None:
        return _from_array(raw.array, layout, shape, raw.encoding)

    step, row_bytes = _integer(raw.step, "step"), width * layout.pixel_bytes
    if step < row_bytes:
        raise EncodingError(
            "bad_step",
            f"step {step} is less than a row of {width} {raw.encoding} pixels, {row_bytes} bytes: "
            "the driver must set step to bytes per row",
        )
    try:
        data = memoryview(raw.data).cast("B")
    except (TypeError, ValueError, BufferError):
        raise EncodingError(
            "bad_header", f"data is {type(raw.data).__name__}, not contiguous bytes"
        ) from None
    needed = step * (height - 1) + row_bytes
    if data.nbytes < needed:
        raise EncodingError(
            "short_data",
            f"{data.nbytes} bytes of data, but {height} rows of step {step} need {needed}: "
            "check the driver's height and step against what it sends",
        )
    try:
        swapped = layout.dtype.itemsize > 1 and bool(raw.is_bigendian) != (sys.byteorder == "big")
    except (TypeError, ValueError):
        raise EncodingError("bad_header", "is_bigendian is not a truth value") from None
    stored = layout.dtype.newbyteorder("S") if swapped else layout.dtype
    # A single row has no next one: its step is then only a claim, and may be absurd as a stride.
    strides: tuple[int, ...] = (step if height > 1 else row_bytes, layout.pixel_bytes)
    if layout.channels > 1:
        strides += (layout.dtype.itemsize,)
    view: NDArray = np.ndarray(shape, stored, buffer=data, strides=strides)
    if swapped or not (view.flags.c_contiguous and view.flags.aligned):
        view = np.ascontiguousarray(view.astype(layout.dtype))
    return view


def _demosaic(mosaic: NDArray, code: int) -> NDArray:
    height, width = mosaic.shape
    if min(height, width) >= 4:
        return cv2.cvtColor(mosaic, code)
    if min(height, width) < 2:
        raise EncodingError("bad_header", f"a Bayer image needs 2x2 pixels at least, not {width}x{height}")
    # OpenCV leaves images this small unfilled; mirrored about the border pixel the pattern continues.
    return np.ascontiguousarray(cv2.cvtColor(np.pad(mosaic, 2, mode="reflect"), code)[2:-2, 2:-2])


def _read(image: RawImage | CompressedImage) -> tuple[NDArray, Layout]:
    """Array and layout of either kind of message."""
    if isinstance(image, RawImage):
        return decode(image), layout_of(image.encoding)
    array, encoding = decode_compressed(image)
    return array, layout_of(encoding)


def decode_thermal(image: RawImage | CompressedImage) -> NDArray:
    """Give a thermal image: one value a pixel, unscaled.

    Colour, YUV and Bayer input (a picture the camera has colour-mapped already) becomes its luminance;
    ask `is_color` to warn about it. Non-finite floats are kept for the caller to judge.

    Args:
        image: raw or compressed message.

    Returns:
        C-contiguous (H, W) uint8, uint16 or float32, native byte order; possibly a read-only view of the
        message, see `decode`.

    Raises:
        EncodingError: the message cannot be read.
    """
    array, layout = _read(image)
    if layout.to_gray is None:
        return array
    if layout.family == "bayer":
        return _demosaic(array, layout.to_gray)
    return cv2.cvtColor(array, layout.to_gray)


def decode_color(image: RawImage | CompressedImage) -> NDArray[np.uint8]:
    """Give an 8-bit RGB picture of any colour or gray image.

    16-bit channels keep their upper 8 bits, gray is replicated, Bayer is demosaiced bilinearly, YUV is
    read as BT.601 video range, alpha is dropped.

    Args:
        image: raw or compressed message.

    Returns:
        C-contiguous (H, W, 3) uint8, RGB; possibly a read-only view of the message (rgb8), see `decode`.

    Raises:
        EncodingError: the message cannot be read, or holds floats, which have no fixed range.
    """
    array, layout = _read(image)
    if layout.dtype == F32:
        raise EncodingError(
            "unsupported_encoding",
            "32FC1 is not a colour picture; remap the rgb topic to the colour camera's image",
        )
    if layout.family == "bayer" and layout.to_rgb is not None:
        array = _demosaic(array, layout.to_rgb)
    if array.dtype == U16:
        array = (array >> 8).astype(np.uint8)
    if layout.family == "gray":
        array = cv2.cvtColor(array, cv2.COLOR_GRAY2RGB)
    elif layout.family != "bayer" and layout.to_rgb is not None:
        array = cv2.cvtColor(array, layout.to_rgb)
    return np.asarray(array, np.uint8)


def encode(array: NDArray, encoding: str, stamp_ns: int, frame_id: str) -> RawImage:
    """Make an uncompressed image message of pixels that already are in `encoding`.

    Args:
        array: what `decode` gives for this encoding: shape, dtype and channel order are not converted.
        encoding: one of `ENCODINGS`.
        stamp_ns: header stamp, nanoseconds.
        frame_id: header frame_id.

    Returns:
        Little-endian message without row padding. Its `array`, and on little-endian machines `data`, share
        the memory of `array` where that is contiguous and native: do not write to it afterwards.

    Raises:
        EncodingError: the array does not fit the encoding, or is empty or too large.
    """
    layout = layout_of(encoding)
    if not isinstance(array, np.ndarray) or array.ndim < 2:
        raise EncodingError("bad_header", f"{encoding} is encoded from an array of rows and columns")
    height, width = array.shape[:2]
    check_size(width, height, layout.pixel_bytes)
    if layout.family == "yuv" and width % 2:
        raise EncodingError("bad_header", f"{encoding} needs an even width, not {width}")
    pixels = _from_array(array, layout, layout.shape(height, width), encoding)
    little = np.ascontiguousarray(pixels, layout.dtype.newbyteorder("<"))
    return RawImage(
        stamp_ns=stamp_ns,
        frame_id=frame_id,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=False,
        step=width * layout.pixel_bytes,
        data=little.reshape(-1).view(np.uint8).data,
        array=pixels,
    )


def is_color(encoding: str) -> bool:
    """Whether pixels of this encoding (or compressed format) are colours, not values.

    A bare "jpeg" or "png" does not say what it holds, and gives False.
    """
    layout = LAYOUTS.get(_key(encoding))
    return layout is not None and layout.family != "gray"


def default_units(encoding: str, dtype: np.dtype | type | None = None) -> Units:
    """Units of a thermal stream that nothing else is known of.

    Args:
        encoding: encoding of a raw image, or `format` of a compressed one.
        dtype: of the decoded image; needed only for compressed formats that do not name the encoding.

    Returns:
        agc8 for 8 bits and colour, counts for 16-bit gray, celsius for floats.

    Raises:
        EncodingError: unknown encoding.
    """
    layout = LAYOUTS.get(_key(encoding))
    if is_compressed_format(encoding):
        if dtype is None and (layout is None or "jp" in encoding.lower()):
            # A JPEG file has 8 bits, whatever was compressed into it.
            return Units.AGC8
        kind = layout.dtype if dtype is None and layout is not None else np.dtype(dtype)
    else:
        kind = layout_of(encoding).dtype
    if is_color(encoding):
        return Units.AGC8
    return {U16: Units.COUNTS, F32: Units.CELSIUS}.get(kind, Units.AGC8)


def thermal_encoding(dtype: np.dtype | type, like: str) -> str:
    """Encoding to publish a thermal image in, so that it equals the input's.

    Args:
        dtype: of the image: uint8, uint16 or float32.
        like: the input's encoding or compressed format.

    Returns:
        `like` where it is mono8, 8UC1, mono16, 16UC1 or 32FC1 and fits `dtype`; otherwise (colour, YUV and
        Bayer input, formats that do not say) mono8, mono16 or 32FC1 by `dtype`.

    Raises:
        EncodingError: no thermal encoding has this dtype.
    """
    kind = np.dtype(dtype)
    key = _key(like)
    if key in THERMAL_NAMES and LAYOUTS[key].dtype == kind:
        return THERMAL_NAMES[key]
    names = {U8: "mono8", U16: "mono16", F32: "32FC1"}
    if kind not in names:
        raise EncodingError(
            "unsupported_encoding", f"a thermal image is uint8, uint16 or float32, not {kind}"
        )
    return names[kind]
