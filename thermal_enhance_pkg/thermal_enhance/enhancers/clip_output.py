"""Where the offline face puts its frames, in files or a video, and those between two frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from thermal_enhance.enhancers import media
from thermal_enhance.enhancers.base import EnhancedFrame

MIDDLE = "_mid"
"""Added to the stem of a frame for the one halfway to the next."""


class ClipOutput:
    """Writes results in order.

    A video at twice the rate has a frame in every place: where nothing lies between two frames (another scene
    begins, a file was broken), the one before is held.

    Args:
        sink: the video; None to write files.
        doubled: does the video run at twice the rate of the input?
    """

    def __init__(self, sink: media.VideoSink | None, doubled: bool = False) -> None:
        self._sink = sink
        self._doubled = doubled
        self._last: tuple[Path, str, NDArray[Any]] | None = None

    def write(self, result: EnhancedFrame, folder: Path, stem: str) -> int:
        """Write a frame, and before it the one that lies between the last one and it.

        Args:
            result: the frame; at most one in `extra`.
            folder: where its file goes.
            stem: of its file.

        Returns:
            Number of interpolated frames written.

        Raises:
            MediaError: it cannot be written.
        """
        last, count = self._last, 0
        if last is not None:
            for extra in result.extra:
                self._put(extra.data, last[0], last[1] + MIDDLE)
                count += 1
            if self._sink is not None and self._doubled and not count:
                self._sink.write(last[2])
        self._put(result.thermal.data, folder, stem)
        self._last = folder, stem, result.thermal.data
        return count

    def _put(self, data: NDArray[Any], folder: Path, stem: str) -> None:
        if self._sink is not None:
            self._sink.write(data)
        else:
            media.write_image(data, folder, stem)
