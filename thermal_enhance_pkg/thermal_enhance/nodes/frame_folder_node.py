"""Folders or videos of frames as a pair of live cameras."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermal_enhance.imaging.encodings import encode
from thermal_enhance.imaging.raw import RawImage
from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.clips import choose_clips, discover_clips
from thermal_enhance.nodes.frame_source import FrameFolder, area_down
from thermal_enhance.nodes.parameters import parameter
from thermal_enhance.nodes.process import run_node
from thermal_enhance.nodes.source import ScheduledFrame, SourceNode

ENCODINGS = {np.uint8: "mono8", np.uint16: "mono16", np.float32: "32FC1"}


@dataclass(frozen=True)
class FrameFolderConfig:
    """Parameters of the folder cameras; every field is a ROS parameter of the same name."""

    data: str = parameter(
        "",
        "Folder with thermal/ and rgb/ frames, or with clips; those with RGB are preferred.",
        read_only=True,
    )
    rate: float = parameter(
        0.0, "Frames a second; 0 for each clip's own.", low=0.0, high=240.0, read_only=True
    )
    downscale: int = parameter(
        1, "Thermal frames are averaged down by this factor first, as a cheaper camera would see them.",
        low=1, high=16, read_only=True,
    )  # fmt: skip
    rgb: bool = parameter(True, "Play the RGB frames too, where there are any.", read_only=True)
    loop: bool = parameter(True, "Start again after the last clip; time goes on.", read_only=True)


class FrameFolderNode(SourceNode):
    """Lifecycle node `frame_folder_node`: recorded frames on thermal/image_raw and rgb/image_raw.

    Stamps are those of a live camera: they start now and go on through all clips and loops.
    """

    config_type = FrameFolderConfig

    def __init__(self, bus: LocalBus | None = None, name: str = "frame_folder_node", **kwargs: Any) -> None:
        self._clips: list[FrameFolder] = []
        super().__init__(name, bus, **kwargs)

    def open_source(self) -> None:
        """Find the clips.

        Raises:
            ValueError: there are no frames in the folder.
        """
        config: FrameFolderConfig = self.config
        if not config.data:
            raise ValueError("parameter data is empty: name a folder of frames")
        found = discover_clips(config.data)
        clips = choose_clips(found, with_rgb=config.rgb)
        self._clips = [FrameFolder.of(clip, rate=config.rate, downscale=config.downscale) for clip in clips]
        self.get_logger().info(
            f"{len(clips)} of {len(found)} clips, {sum(len(folder) for folder in self._clips)} frames"
        )

    def schedule(self) -> Iterator[ScheduledFrame]:
        """All clips one after the other, the streams in step."""
        start_s = 0.0
        while True:
            for folder in self._clips:
                for index in range(len(folder)):
                    due_s = start_s + index / folder.rate
                    yield ScheduledFrame("thermal", due_s, self._thermal(folder, index, due_s))
                    if self.config.rgb and folder.rgb is not None:
                        yield ScheduledFrame("rgb", due_s, self._rgb(folder, index, due_s))
                start_s += len(folder) / folder.rate
            if not self.config.loop:
                return

    def cleanup(self) -> None:
        """Close the files."""
        super().cleanup()
        for folder in self._clips:
            folder.close()
        self._clips = []

    @staticmethod
    def _thermal(folder: FrameFolder, index: int, due_s: float) -> Callable[[int], RawImage | None]:
        def make(base_ns: int) -> RawImage | None:
            data = folder.thermal_at(index)
            if data is None:
                return None
            data = area_down(data, folder.downscale)
            return encode(data, ENCODINGS[data.dtype.type], base_ns + round(due_s * 1e9), "thermal_camera")

        return make

    @staticmethod
    def _rgb(folder: FrameFolder, index: int, due_s: float) -> Callable[[int], RawImage | None]:
        def make(base_ns: int) -> RawImage | None:
            data = folder.rgb_at(index)
            if data is None:
                return None
            return encode(data, "rgb8", base_ns + round(due_s * 1e9), "rgb_camera")

        return make


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(FrameFolderNode, args)


if __name__ == "__main__":
    sys.exit(main())
