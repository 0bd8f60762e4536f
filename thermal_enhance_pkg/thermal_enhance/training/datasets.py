"""Training pictures in memory, and seeded random crops of them.

A batch is a pure function of (seed, step): a resumed run goes on with the same stream, whatever the number
of worker threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers import media
from thermal_enhance.simulation.sensor import stream_rng
from thermal_enhance.training.manifest import Item, read_pack, select
from thermal_enhance.training.recipe import DataConfig, SourceConfig

_CODE = 256
"""16-bit pictures are kept as grey levels times this."""
_BATCH_STREAM = 11


class DataError(ValueError):
    """The data cannot be used as the recipe says; the message names the source."""


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


@dataclass
class Sequence_:  # noqa: N801  (`Sequence` is taken)
    """A picture or clip in memory.

    Attributes:
        id: of the item.
        thermal: (H, W) uint8, or uint16 in 1/256 grey level.
        rgb: (H, W, 3) uint8 of every frame; empty without RGB.
        rgb_index: which RGB frame belongs to which thermal frame.
    """

    id: str
    thermal: list[NDArray[Any]]
    rgb: list[NDArray[np.uint8]] = field(default_factory=list)
    rgb_index: list[int] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Memory that the pixels take."""
        return sum(image.nbytes for image in (*self.thermal, *self.rgb))


def load_item(item: Item, *, use_rgb: bool = True, stride: int = 1, all_rgb: bool = False) -> Sequence_:
    """Read an item into memory.

    Args:
        item: a picture or clip.
        use_rgb: read its RGB too.
        stride: every so-many-th frame of a clip.
        all_rgb: keep the RGB of the frames between, too (for time desync).

    Raises:
        DataError: a file is missing, not readable, or RGB and thermal differ in size.
    """
    try:
        thermal = _frames(item.thermal, item.frames, _thermal_reader, _thermal_of)
        rgb: list[NDArray[Any]] = []
        if use_rgb and item.rgb is not None:
            rgb = _frames(item.rgb, item.frames, media.read_color, media.rgb_of)
    except (media.MediaError, OSError) as error:
        raise DataError(f"{item.id}: {error}") from error
    if item.bits > 8:
        thermal = _to_levels(thermal)
    if item.halve:
        thermal, rgb = [_halve(t) for t in thermal], [_halve(c) for c in rgb]
    count = min(len(thermal), len(rgb)) if rgb else len(thermal)
    if not count:
        raise DataError(f"{item.id}: no frame in {item.thermal}")
    if rgb and any(t.shape != c.shape[:2] for t, c in zip(thermal, rgb)):
        raise DataError(f"{item.id}: RGB of {rgb[0].shape[:2]} beside thermal of {thermal[0].shape}")
    chosen = list(range(0, count, stride))
    kept = [thermal[i] for i in chosen]
    if not rgb:
        return Sequence_(item.id, kept)
    if all_rgb:
        return Sequence_(item.id, kept, rgb[:count], chosen)
    return Sequence_(item.id, kept, [rgb[i] for i in chosen], list(range(len(chosen))))


def _thermal_reader(path: Path) -> NDArray[Any]:
    image = media.read_thermal(path)
    return image


def _thermal_of(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return media.video_gray(bgr)


def _frames(
    path: Path,
    count: int,
    read: Callable[[Path], NDArray[Any]],
    convert: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
) -> list[NDArray[Any]]:
    if media.is_video(path):
        return [convert(frame) for frame, _ in zip(media.VideoReader(path), range(count))]
    if path.is_dir():
        return [read(file) for file in media.list_images(path, recursive=False)[:count]]
    return [read(path)]


def _to_levels(frames: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """16-bit frames to 0..255 in steps of 1/256, by one range for the clip: per frame it would flicker."""
    low, high = np.percentile(np.stack([f[::4, ::4] for f in frames]), (0.1, 99.9))
    gain = 255 * _CODE / max(float(high - low), 1.0)
    return [np.clip((f - low) * gain, 0, 255 * _CODE).astype(np.uint16) for f in frames]


def _halve(image: NDArray[Any]) -> NDArray[Any]:
    size = (image.shape[1] // 2, image.shape[0] // 2)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


@dataclass
class Source:
    """A data set in memory: its sequences and how often it is drawn from."""

    name: str
    weight: float
    sequences: list[Sequence_]

    def __post_init__(self) -> None:
        self.frames = [
            (s, i) for s, sequence in enumerate(self.sequences) for i in range(len(sequence.thermal))
        ]


def load_sources(
    pack: Path,
    config: DataConfig,
    split: str = "train",
    note: Callable[[str], object] = lambda _text: None,
) -> list[Source]:
    """Read what a recipe trains on into memory.

    Args:
        pack: folder of the data pack.
        config: sources, licences, crop.
        split: "train" or "val".
        note: told one line a source: how much was read, what was left out.

    Raises:
        ManifestError: the pack's manifests cannot be used.
        DataError: a source is unknown or has nothing to offer, or a file cannot be read.
    """
    items = read_pack(pack)
    sources = []
    for entry in config.sources:
        try:
            chosen = select(items, split, datasets=[entry.dataset], licences=config.licences)
        except ValueError as error:
            raise DataError(f"data.sources: {error}") from error
        chosen = _narrow(chosen, entry)
        every = config.desync_frames > 0 and config.desync_probability > 0
        sequences = [
            load_item(item, use_rgb=entry.use_rgb, stride=entry.stride, all_rgb=every) for item in chosen
        ]
        # Below half the crop, most of a sample would be mirrored border.
        fitting = [s for s in sequences if 2 * min(s.thermal[0].shape) >= config.crop]
        if not fitting:
            licences = f" under {', '.join(config.licences)}" if config.licences else ""
            raise DataError(
                f"data.sources: {entry.dataset} has no {split} item{licences} for crops of {config.crop}"
            )
        source = Source(entry.dataset, entry.weight, fitting)
        size = sum(s.nbytes for s in fitting) / 2**20
        small = f", {len(sequences) - len(fitting)} too small" if len(fitting) < len(sequences) else ""
        paired = sum(bool(s.rgb) for s in fitting)
        note(
            f"{entry.dataset}: {len(source.frames)} pictures of {len(fitting)} items "
            f"({paired} with RGB), {size:.0f} MiB{small}"
        )
        sources.append(source)
    return sources


def _narrow(items: list[Item], entry: SourceConfig) -> list[Item]:
    if entry.ids:
        items = [item for item in items if item.id.startswith(entry.ids)]
    if entry.limit and len(items) > entry.limit:
        items = [items[i] for i in np.linspace(0, len(items) - 1, entry.limit).astype(int)]
    return items


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

    def crop(self, sequence: Sequence_, frame: int, rng: np.random.Generator) -> Sample:
        """A random crop of one frame of a sequence."""
        config, thermal = self._config, sequence.thermal[frame]
        height, width = thermal.shape
        zoom = min(rng.uniform(1.0, config.zoom_max), max(1.0, min(height, width) / config.crop))
        side = round(config.crop * zoom)
        top = int(rng.integers(max(1, height - side + 1)))
        left = int(rng.integers(max(1, width - side + 1)))
        # A picture smaller than the crop is centred; its mirror image fills the rest.
        top = top if height >= side else (height - side) // 2
        left = left if width >= side else (width - side) // 2
        turns = int(rng.integers(4)) if config.rotate else 0
        mirrored = bool(config.flip and rng.integers(2))
        colored = self._color(sequence, frame, rng)

        def view(image: NDArray[Any], margin: int) -> NDArray[Any]:
            around = round(margin * side / config.crop)
            part = _window(image, top - around, left - around, side + 2 * around)
            size = config.crop + 2 * margin
            if part.shape[0] != size:
                part = np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA))
            part = np.rot90(part, turns)
            return np.ascontiguousarray(part[:, ::-1] if mirrored else part)

        truth = _window(thermal, top, left, side).astype(np.float32)
        if thermal.dtype == np.uint16:
            truth /= np.float32(_CODE)
        if side != config.crop:
            truth = np.asarray(
                cv2.resize(truth, (config.crop,) * 2, interpolation=cv2.INTER_AREA), np.float32
            )
        truth = np.rot90(truth, turns)
        truth = np.ascontiguousarray(truth[:, ::-1] if mirrored else truth)
        if colored is None:
            return {"hr": truth, "rgb": None, "rgb_context": None, "id": sequence.id}
        context, margin = view(colored, config.margin), config.margin
        inner = np.ascontiguousarray(context[margin : margin + config.crop, margin : margin + config.crop])
        return {"hr": truth, "rgb": inner, "rgb_context": context, "id": sequence.id}

    def _color(self, sequence: Sequence_, frame: int, rng: np.random.Generator) -> NDArray[np.uint8] | None:
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
