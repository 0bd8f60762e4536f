"""The pack's pictures and clips in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers import media
from thermal_enhance.training.manifest import Item, read_pack, select
from thermal_enhance.training.recipe import DataConfig, SourceConfig

LEVELS_CODE = 256
"""16-bit pictures are kept as grey levels times this."""


class DataError(ValueError):
    """The data cannot be used as the recipe says; the message names the source."""


@dataclass
class Clip:
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


def load_item(item: Item, *, use_rgb: bool = True, stride: int = 1, all_rgb: bool = False) -> Clip:
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
        thermal = _frames(item.thermal, item.frames, media.read_thermal, media.video_gray)
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
        return Clip(item.id, kept)
    if all_rgb:
        return Clip(item.id, kept, rgb[:count], chosen)
    return Clip(item.id, kept, [rgb[i] for i in chosen], list(range(len(chosen))))


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
    gain = 255 * LEVELS_CODE / max(float(high - low), 1.0)
    return [np.clip((f - low) * gain, 0, 255 * LEVELS_CODE).astype(np.uint16) for f in frames]


def _halve(image: NDArray[Any]) -> NDArray[Any]:
    size = (image.shape[1] // 2, image.shape[0] // 2)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


@dataclass
class Source:
    """A data set in memory: its sequences and how often it is drawn from."""

    name: str
    weight: float
    sequences: list[Clip]

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
        chosen = chosen_items(items, entry, split, config.licences)
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


def chosen_items(items: list[Item], entry: SourceConfig, split: str, licences: tuple[str, ...]) -> list[Item]:
    """What a recipe's source takes of the pack.

    Raises:
        DataError: the data set is unknown.
    """
    try:
        chosen = select(items, split, datasets=[entry.dataset], licences=licences)
    except ValueError as error:
        raise DataError(f"data.sources: {error}") from error
    if entry.ids:
        chosen = [item for item in chosen if item.id.startswith(entry.ids)]
    if entry.limit and len(chosen) > entry.limit:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, entry.limit).astype(int)]
    return chosen
