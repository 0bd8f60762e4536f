"""Seeded random crops of the training pictures.

A batch is a pure function of (seed, step): a resumed run goes on with the same stream, whatever the number
of worker threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.simulation.sensor import stream_rng
from thermal_enhance.training.footage import LEVELS_CODE, Clip, DataError, Source, load_item, load_sources
from thermal_enhance.training.recipe import DataConfig

__all__ = ["Clip", "CropSampler", "DataError", "Sample", "Source", "load_item", "load_sources"]

_BATCH_STREAM = 11


class Sample(TypedDict):
    """One training example.

    hr: (c, c) float32 thermal truth, 0 to 255.
    rgb: (c, c, 3) uint8, aligned with hr; None without RGB.
    rgb_context: (c + 2 m, c + 2 m, 3) uint8, the same with the recipe's margin of surroundings, mirrored
        where the picture ends; None without RGB. It is what `warp_color(..., margin=m)` takes.
    id: the item it comes from.
    """

    hr: NDArray[np.float32]
    rgb: NDArray[np.uint8] | None
    rgb_context: NDArray[np.uint8] | None
    id: str


class CropSampler:
    """Random crops of the sources.

    Args:
        sources: at least one.
        config: crop, margin, zoom, flips, desync.
        batch: samples a step.
        seed: of the stream.
    """

    def __init__(self, sources: Sequence[Source], config: DataConfig, batch: int, seed: int) -> None:
        if not sources:
            raise DataError("data.sources: at least one is needed")
        self._sources = list(sources)
        weights = np.array([source.weight for source in sources], np.float64)
        self._weights = weights / weights.sum()
        self._config = config
        self._batch = batch
        self._seed = seed

    def rng(self, step: int) -> np.random.Generator:
        """The generator of a step; a task goes on with it for what it draws itself."""
        return stream_rng(self._seed, _BATCH_STREAM, step)

    def batch(self, step: int, rng: np.random.Generator | None = None) -> list[Sample]:
        """The samples of a step; the same for the same seed and step."""
        generator = self.rng(step) if rng is None else rng
        return [self._draw(generator) for _ in range(self._batch)]

    def _draw(self, rng: np.random.Generator) -> Sample:
        source = self._sources[int(rng.choice(len(self._sources), p=self._weights))]
        index, frame = source.frames[int(rng.integers(len(source.frames)))]
        return self.crop(source.sequences[index], frame, rng)

    def crop(self, sequence: Clip, frame: int, rng: np.random.Generator) -> Sample:
        """A random crop of one frame of a sequence."""
        config, thermal = self._config, sequence.thermal[frame]
        height, width = thermal.shape
        zoom = min(rng.uniform(1.0, config.zoom_max), max(1.0, min(height, width) / config.crop))
        # Sizes at which the margin is whole pixels, too: else the two views would differ in scale.
        quantum = config.crop // math.gcd(config.crop, config.margin)
        side = int(config.crop * zoom) // quantum * quantum
        top = int(rng.integers(max(1, height - side + 1)))
        left = int(rng.integers(max(1, width - side + 1)))
        # A picture smaller than the crop is centred; its mirror image fills the rest.
        top = top if height >= side else (height - side) // 2
        left = left if width >= side else (width - side) // 2
        turns = int(rng.integers(4)) if config.rotate else 0
        mirrored = bool(config.flip and rng.integers(2))
        colored = self._color(sequence, frame, rng)

        def view(image: NDArray[Any], margin: int, dtype: type) -> NDArray[Any]:
            around = margin * side // config.crop
            part: NDArray[Any] = _window(image, top - around, left - around, side + 2 * around).astype(
                dtype, copy=False
            )
            size = config.crop + 2 * margin
            if part.shape[0] != size:
                part = np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA))
            part = np.rot90(part, turns)
            return np.ascontiguousarray(part[:, ::-1] if mirrored else part)

        truth = view(thermal, 0, np.float32)
        if thermal.dtype == np.uint16:
            truth /= np.float32(LEVELS_CODE)
        if colored is None:
            return {"hr": truth, "rgb": None, "rgb_context": None, "id": sequence.id}
        margin = config.margin
        context = view(colored, margin, np.uint8)
        inner = np.ascontiguousarray(context[margin : margin + config.crop, margin : margin + config.crop])
        return {"hr": truth, "rgb": inner, "rgb_context": context, "id": sequence.id}

    def _color(self, sequence: Clip, frame: int, rng: np.random.Generator) -> NDArray[np.uint8] | None:
        late = rng.random() < self._config.desync_probability
        shift = int(rng.integers(-self._config.desync_frames, self._config.desync_frames + 1))
        if not sequence.rgb:
            return None
        index = sequence.rgb_index[frame] + (shift if late else 0)
        return sequence.rgb[min(max(index, 0), len(sequence.rgb) - 1)]


def _window(image: NDArray[Any], top: int, left: int, side: int) -> NDArray[Any]:
    """A square part of a picture that may reach over its edges: mirrored there."""
    height, width = image.shape[:2]
    y0, y1, x0, x1 = max(top, 0), min(top + side, height), max(left, 0), min(left + side, width)
    part = image[y0:y1, x0:x1]
    pad = (y0 - top, top + side - y1, x0 - left, left + side - x1)
    if not any(pad):
        return part
    return np.asarray(cv2.copyMakeBorder(part, *pad, borderType=cv2.BORDER_REFLECT_101))
