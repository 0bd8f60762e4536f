"""rosbag2 recordings without ROS, by one name: reading, writing, finding the cameras in them."""

from __future__ import annotations

from pathlib import Path

from thermal_enhance.nodes.bag_reader import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    STRING,
    BagError,
    BagMessage,
    BagReader,
    BagTopic,
)
from thermal_enhance.nodes.bag_writer import STORAGES, BagWriter, write_bag
from thermal_enhance.nodes.camera_topics import CameraTopics, Recording, find_camera_topics, image_base

__all__ = [
    "CAMERA_INFO",
    "COMPRESSED_IMAGE",
    "IMAGE",
    "STORAGES",
    "STRING",
    "BagError",
    "BagMessage",
    "BagReader",
    "BagTopic",
    "BagWriter",
    "CameraTopics",
    "Recording",
    "find_camera_topics",
    "image_base",
    "open_bag",
    "write_bag",
]


def open_bag(path: str | Path) -> BagReader:
    """Open a recording for reading.

    Args:
        path: bag folder, .mcap or .db3 file.

    Raises:
        BagError: missing, damaged or of a kind that cannot be read.
    """
    return BagReader(path)
