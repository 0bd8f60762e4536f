"""Which topics of a recording are the thermal and the RGB camera."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from thermal_enhance.imaging.raw import EncodingError
from thermal_enhance.nodes import cdr
from thermal_enhance.nodes.bag_reader import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    BagError,
    BagMessage,
    BagTopic,
)

NONE = "none"
"""Topic name that says: there is no such camera."""

_THERMAL = re.compile(
    r"therm|infrared|lwir|flir|lepton|boson|tau2?|seek|optris|temperature|(^|[/_\d])ir([/_\d]|$)"
)
_COLOR = re.compile(r"rgb|colou?r|visible|(^|[/_\d])(vis|eo|cam\d*|usb_cam)([/_\d]|$)")
_NOT_A_CAMERA = re.compile(
    r"depth|disparity|enhanced|segmentation|label|mask|debug|overlay|(^|/)view($|/)|tasks/"
)
_GRAY = re.compile(r"mono|8uc1|16uc1|32fc1|16sc1", re.IGNORECASE)
_HIGH_DEPTH = re.compile(r"mono16|16uc1|32fc1", re.IGNORECASE)
_COLOR_ENCODING = re.compile(r"rgb|bgr|bayer|yuv|yuyv|uyvy|8uc3|8uc4|nv12|nv21", re.IGNORECASE)


class Recording(Protocol):
    """What is asked of a recording here; BagReader and FrameSource are such."""

    @property
    def topics(self) -> Mapping[str, BagTopic]:
        """{name: BagTopic}."""

    def messages(
        self, topics: Sequence[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Serialized messages in order of time."""


@dataclass(frozen=True)
class CameraTopics:
    """Topics of the cameras in a recording; "" where there is none."""

    thermal: str
    thermal_info: str = ""
    rgb: str = ""
    rgb_info: str = ""


def find_camera_topics(reader: Recording, thermal: str | None = None, rgb: str | None = None) -> CameraTopics:
    """Find the thermal and the RGB camera by the names, types and encodings of the image topics.

    Args:
        reader: the recording.
        thermal: the thermal image topic, where it is known.
        rgb: the RGB image topic, where it is known; "none" where there is none.

    Raises:
        BagError: no or several candidates, or a topic that is not there; it lists the image topics.
    """
    images = {
        name: _encoding(reader, name, topic)
        for name, topic in reader.topics.items()
        if topic.msgtype in (IMAGE, COMPRESSED_IMAGE) and topic.count
    }
    if thermal:
        thermal = _known(reader, images, thermal, "thermal_topic")
    else:
        thermal = _choose(_thermal_candidates(images), images, "thermal", "thermal_topic")
        if not thermal:
            raise BagError(f"no thermal camera among {_listing(images)}: name its topic (thermal_topic)")
    if rgb == NONE:
        rgb = ""
    elif rgb:
        rgb = _known(reader, images, rgb, "rgb_topic")
    else:
        rgb = _choose(_color_candidates(images, thermal), images, "RGB", "rgb_topic")
    return CameraTopics(thermal, _info_topic(reader, thermal), rgb, _info_topic(reader, rgb) if rgb else "")


def image_base(topic: str) -> str:
    """The topic of the uncompressed image: image_transport appends "/compressed"."""
    return topic[: -len("/compressed")] if topic.endswith("/compressed") else topic


def _encoding(reader: Recording, name: str, topic: BagTopic) -> str:
    """Encoding (or compressed format) of the first message; "" where it cannot be read."""
    message = next(iter(reader.messages([name])), None)
    if message is None:
        return ""
    try:
        if topic.msgtype == IMAGE:
            return cdr.parse_image(message.data).encoding
        return cdr.parse_compressed_image(message.data).format.split(";")[0]
    except EncodingError:
        return ""


def _thermal_candidates(images: Mapping[str, str]) -> list[list[str]]:
    """Groups of candidates, the most convincing first."""
    cameras = [
        n for n in images if not _NOT_A_CAMERA.search(n.lower()) and not _COLOR_ENCODING.match(images[n])
    ]
    named = [n for n in cameras if _THERMAL.search(n.lower())]
    deep = [n for n in cameras if _HIGH_DEPTH.match(images[n])]
    gray = [n for n in cameras if _GRAY.match(images[n]) and not _COLOR.search(n.lower())]
    return [named, deep, gray]


def _color_candidates(images: Mapping[str, str], thermal: str) -> list[list[str]]:
    cameras = [
        n
        for n in images
        if image_base(n) != image_base(thermal)
        and not _NOT_A_CAMERA.search(n.lower())
        and not _THERMAL.search(n.lower())
        and not _GRAY.match(images[n])
    ]
    return [[n for n in cameras if _COLOR.search(n.lower())], cameras]


def _choose(groups: Sequence[Sequence[str]], images: Mapping[str, str], what: str, parameter: str) -> str:
    for group in groups:
        # The same camera raw and compressed is one camera: raw it is.
        names = [n for n in group if n == image_base(n) or image_base(n) not in group]
        if len(names) > 1:
            # A driver's own picture before the ones derived from it (image_rect, image_color, ...).
            names = [n for n in names if image_base(n).endswith("image_raw")] or names
        if len(names) == 1:
            return names[0]
        if names:
            raise BagError(
                f"several topics may be the {what} camera: {', '.join(names)}. Name one ({parameter}); "
                f"the image topics are {_listing(images)}"
            )
    return ""


def _known(reader: Recording, images: Mapping[str, str], name: str, parameter: str) -> str:
    for candidate in (name, f"/{name.lstrip('/')}"):
        if candidate in images:
            return candidate
    if name in reader.topics and reader.topics[name].count == 0:
        raise BagError(f"{name} ({parameter}) has no messages; the image topics are {_listing(images)}")
    raise BagError(f"{name} ({parameter}) is not an image topic of the bag; those are {_listing(images)}")


def _info_topic(reader: Recording, image_topic: str) -> str:
    name = image_base(image_topic).rsplit("/", 1)[0] + "/camera_info"
    known = reader.topics.get(name)
    return name if known is not None and known.msgtype == CAMERA_INFO else ""


def _listing(images: Mapping[str, str]) -> str:
    return (
        ", ".join(f"{name} ({encoding or 'unreadable'})" for name, encoding in images.items())
        or "no image topics"
    )
