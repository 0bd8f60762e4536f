"""A picture of what the temporal methods make of one clip, an observed and a new frame side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from thermal_enhance.evaluation.temporal_clips import Picture, TemporalClip
from thermal_enhance.evaluation.temporal_methods import BICUBIC, BLEND, FLOW, NEW, OBSERVED, Made

CROP = (160, 120)
"""Width and height of what is shown, pixels of the truth."""
ENLARGED = 2
_CAPTION = 18


class Montage:
    """Keeps what is to be shown of the clips that are measured: of the one named, or of the most moving.

    Args:
        name: set and name of a clip ("synthetic moving/3"); empty for the one that moves most.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._clip: TemporalClip | None = None
        self._made: Mapping[str, Made] = {}

    def __call__(self, clip: TemporalClip, made: Mapping[str, Made]) -> None:
        """Look at a clip and what was made of it."""
        if self.name:
            if f"{clip.dataset} {clip.name}" == self.name:
                self._clip, self._made = clip, made
        elif self._clip is None or clip.motion > self._clip.motion:
            self._clip, self._made = clip, made

    def picture(self) -> Picture | None:
        """(H, W) uint8; None when no clip of the name came by."""
        return None if self._clip is None else montage(self._clip, self._made)


def montage(clip: TemporalClip, made: Mapping[str, Made]) -> Picture:
    """Two rows, an observed frame and the new one after it; a column each for input, methods and truth.

    Args:
        clip: the clip.
        made: by method.
    """
    index = len(clip.low) // 2
    place = _busiest(clip, 2 * index + 1)
    observed = {name: one.observed for name, one in made.items()}
    new = {name: one.new for name, one in made.items()}
    return np.concatenate(
        [
            _row(clip, OBSERVED, 2 * index, place, observed, index),
            _row(clip, NEW, 2 * index + 1, place, new, index),
        ]
    )


def _row(
    clip: TemporalClip,
    frames: str,
    number: int,
    place: tuple[slice, slice],
    made: Mapping[str, Mapping[int, Picture]],
    index: int,
) -> Picture:
    coarse = clip.low[index].repeat(clip.scale, axis=0).repeat(clip.scale, axis=1)
    tiles = [_tile(coarse[place], "input" if frames == OBSERVED else "input before")]
    for name, pictures in made.items():
        words = BICUBIC if frames == OBSERVED and name in (BLEND, FLOW) else name
        if index in pictures:
            tiles.append(_tile(pictures[index][place], words))
        else:
            tiles.append(_tile(np.zeros_like(coarse[place]), f"{words}: none"))
    tiles.append(_tile(clip.truth[number][place], f"truth, {frames}"))
    return np.concatenate(tiles, axis=1)


def _tile(picture: Picture, words: str) -> Picture:
    size = (picture.shape[1] * ENLARGED, picture.shape[0] * ENLARGED)
    large = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)
    caption = np.zeros((_CAPTION, size[0]), np.uint8)
    cv2.putText(caption, words, (3, _CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 255, 1, cv2.LINE_AA)
    return np.pad(np.concatenate([caption, large]), ((0, 2), (0, 2)))


def _busiest(clip: TemporalClip, number: int) -> tuple[slice, slice]:
    """Where the truth changes most around a frame: detail that moves."""
    truth: Sequence[Picture] = clip.truth
    change = cv2.absdiff(truth[number - 1], truth[min(number + 1, len(truth) - 1)])
    height, width = min(CROP[1], change.shape[0]), min(CROP[0], change.shape[1])
    energy = cv2.boxFilter(change, cv2.CV_32F, (width, height), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    valid = energy[: change.shape[0] - height + 1, : change.shape[1] - width + 1]
    top, left = np.unravel_index(int(valid.argmax()), valid.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)
