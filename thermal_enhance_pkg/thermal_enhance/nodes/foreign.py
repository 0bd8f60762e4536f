"""Encodings that our codec does not know, through cv_bridge where a distribution has it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from thermal_enhance.imaging.frames import THERMAL_DTYPES
from thermal_enhance.imaging.raw import EncodingError, RawImage


def decode_foreign(raw: RawImage, refusal: EncodingError) -> NDArray[Any]:
    """(H, W) uint8, uint16 or float32 picture of an image that our codec refused.

    Args:
        raw: the image.
        refusal: our codec's refusal, raised again where cv_bridge is not installed or refuses too.

    Raises:
        EncodingError: nobody can read it as a thermal picture.
    """
    try:
        from cv_bridge import CvBridge
    except ImportError:
        raise refusal from None
    message = Image(
        height=raw.height,
        width=raw.width,
        encoding=raw.encoding,
        is_bigendian=int(raw.is_bigendian),
        step=raw.step,
    )
    message.data.frombytes(memoryview(raw.data).cast("B"))
    try:
        picture = np.asarray(CvBridge().imgmsg_to_cv2(message))
    except Exception as error:
        # cv_bridge raises its own and OpenCV's errors; to us they all mean that it cannot.
        raise EncodingError("unsupported_encoding", f"{refusal}; cv_bridge: {error}") from None
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[..., 0]
    if picture.ndim != 2 or picture.dtype.type not in THERMAL_DTYPES:
        raise refusal
    return picture
