"""Validation clips for the temporal methods: every other frame is shown, the ones between are the truth.

Real clips are reduced by block means (x4 in space) and thinned (x2 in time). Those in the pack are all from
cameras that stand still; moving clips are made from validation stills (`simulation.moving_clips`), and some
that stand still beside them, seeded, so that each gives the same figures every time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.metrics.temporal import optical_flow
from thermal_enhance.simulation.moving_clips import MovingClipConfig, moving_clip
from thermal_enhance.training.footage import load_item
from thermal_enhance.training.manifest import Item, read_pack, select

SEED = 20244
STILLS = ("tisr", "pbvsg", "hituav")
"""What synthetic clips are made of: the sharpest."""
SYNTHETIC_SIZE = (320, 240)
SYNTHETIC_FRAMES = 25
NOISE_LEVELS = 1.0
"""Of the synthetic clips' input: without it frames of a camera that stands still would be bit-identical."""

Picture = NDArray[np.uint8]

SETS = {
    "m3svd_lossless": "M3SVD lossless",
    "m3svd_mp4": "M3SVD mp4, halved",
    "drone_ir": "drone_ir",
    "synthetic": "synthetic from stills",
}
"""Validation sets by short name."""
GROUPS = ("static", "moving")
MOVING_PX = 0.125
"""Low-resolution pixels that edges travel from one shown frame to the next, on average, in a moving clip:
half a pixel of the truth at x4."""
SEGMENTS = {"m3svd_mp4": 3}
"""Clips taken from one recording, where it is long and its set has few."""
PERIOD_NS = 66_666_666
"""Between shown frames: those of a 30 Hz camera, every other one. Even, so that the middle is exact."""


@dataclass(frozen=True)
class TemporalClip:
    """A clip to enhance and its truth.

    Attributes:
        name: unique within the set.
        dataset: key of `SETS`.
        truth: 2n - 1 pictures (H, W) uint8; both sides divide by the scale.
        low: the n shown ones, (H / scale, W / scale) uint8, of the even pictures of `truth`.
        scale: factor in space.
        motion: low-resolution pixels that edges travel between shown frames, on average.
    """

    name: str
    dataset: str
    truth: tuple[Picture, ...]
    low: tuple[Picture, ...]
    scale: int
    motion: float

    @property
    def group(self) -> str:
        """One of `GROUPS`."""
        return "moving" if self.motion >= MOVING_PX else "static"

    @classmethod
    def of(
        cls,
        name: str,
        dataset: str,
        frames: Sequence[Picture],
        scale: int,
        noise: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> TemporalClip:
        """Make the input of a clip at full rate and size; without a frame after it, a new one's truth goes.

        Args:
            name: of the clip.
            dataset: key of `SETS`.
            frames: (H, W) uint8, three or more.
            scale: factor in space.
            noise: standard deviation that the input gets, levels, where the clip has no sensor's own.
            rng: source of the noise.

        Raises:
            ValueError: fewer than three frames.
        """
        if len(frames) < 3:
            raise ValueError(f"{name}: a clip needs at least three frames, not {len(frames)}")
        height, width = (side // scale * scale for side in frames[0].shape)
        count = len(frames) - 1 + len(frames) % 2
        truth = tuple(np.ascontiguousarray(frame[:height, :width], np.uint8) for frame in frames[:count])
        low = tuple(_reduce(frame, scale, noise, rng) for frame in truth[::2])
        return cls(name, dataset, truth, low, scale, measured_motion(low))


def _reduce(frame: Picture, scale: int, noise: float, rng: np.random.Generator | None) -> Picture:
    means: NDArray[np.floating[Any]] = area_down(frame, scale)
    if noise and rng is not None:
        means = means + rng.normal(0.0, noise, means.shape)
    return np.clip(np.rint(means), 0, 255).astype(np.uint8)


def measured_motion(low: Sequence[Picture], pairs: int = 6) -> float:
    """How far edges travel from one frame to the next, pixels: the flow's length weighted by the gradient.

    Where nothing is to be seen, flow says nothing; what a blend would make a ghost of are edges.

    Args:
        low: two or more frames.
        pairs: of neighbours to look at, spread over the clip.
    """
    lengths = []
    for index in np.unique(np.linspace(0, len(low) - 2, pairs).astype(int)):
        here, there = (low[i].astype(np.float32) for i in (index, index + 1))
        flow = optical_flow(here, there)
        weight = np.hypot(cv2.Sobel(here, cv2.CV_32F, 1, 0), cv2.Sobel(here, cv2.CV_32F, 0, 1))
        total = float(weight.sum())
        lengths.append(float((np.hypot(flow[..., 0], flow[..., 1]) * weight).sum()) / total if total else 0.0)
    return float(np.mean(lengths))


def list_clips(
    data: Path, sets: Sequence[str] = tuple(SETS), *, limit: int = 41, scale: int = 4, split: str = "val"
) -> Iterator[TemporalClip]:
    """Clips of some sets, one at a time: all in memory would be large.

    Args:
        data: the data pack.
        sets: keys of `SETS`; one that the pack lacks gives nothing.
        limit: frames of a clip at full rate, taken from its middle; 0 for all.
        scale: factor in space.
        split: "val" or "train".

    Raises:
        ManifestError: the pack's manifests cannot be used.
        DataError: a file cannot be read.
    """
    items = read_pack(data)
    for dataset in sets:
        if dataset == "synthetic":
            yield from synthetic_clips(data, scale=scale, split=split, limit=limit)
        elif dataset in {item.dataset for item in items}:
            for item in select(items, split, datasets=[dataset]):
                yield from _segments(item, limit, scale)


def _segments(item: Item, limit: int, scale: int) -> Iterator[TemporalClip]:
    frames = load_item(item, use_rgb=False).thermal
    name = item.id.rpartition("/")[2]
    parts = SEGMENTS.get(item.dataset, 1) if limit else 1
    share = len(frames) // parts
    for part in range(parts):
        stretch = frames[part * share : (part + 1) * share]
        if limit and len(stretch) > limit:
            first = (len(stretch) - limit) // 2
            stretch = stretch[first : first + limit]
        yield TemporalClip.of(f"{name}/{part}" if parts > 1 else name, item.dataset, stretch, scale)


def synthetic_clips(
    data: Path, *, scale: int = 4, split: str = "val", limit: int = 0, moving: int = 16, still: int = 8
) -> Iterator[TemporalClip]:
    """Clips made from sharp stills, camera moving or standing still; the shown frames carry sensor noise.

    Args:
        data: the data pack.
        scale: factor in space.
        split: of the stills.
        limit: frames of a clip at most; 0 for `SYNTHETIC_FRAMES`.
        moving: clips whose camera moves.
        still: clips whose camera does not; objects move through some of them.
    """
    items = read_pack(data)
    known = {item.dataset for item in items}
    stills_of = select(items, split, datasets=[name for name in STILLS if name in known])
    frames = min(limit or SYNTHETIC_FRAMES, SYNTHETIC_FRAMES)
    for kind, count, standing in (("moving", moving, 0.0), ("still", still, 1.0)):
        for index, item in enumerate(_spread(stills_of, count)):
            name = f"{kind}/{index}"
            rng = np.random.default_rng((SEED, zlib.crc32(name.encode())))
            here, other = (
                np.asarray(load_item(i, use_rgb=False).thermal[0])
                for i in (item, stills_of[int(rng.integers(len(stills_of)))])
            )
            # Every other clip of a camera that stands still shows nothing that moves at all.
            objects = (0, 0) if standing and index % 2 else MovingClipConfig.objects
            config = MovingClipConfig(static_probability=standing, objects=objects)
            made = moving_clip(here, frames, SYNTHETIC_SIZE, rng, config, other)
            truth = [np.clip(np.rint(frame), 0, 255).astype(np.uint8) for frame in made]
            yield TemporalClip.of(name, "synthetic", truth, scale, NOISE_LEVELS, rng)


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """So many of them, evenly spread; some twice where there are fewer."""
    if not items:
        return []
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]
