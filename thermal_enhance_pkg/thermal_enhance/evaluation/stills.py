"""Validation stills and what may be wrong with the RGB beside them, seeded picture by picture.

Every condition of every still has a random generator of its own: figures do not depend on which sets,
conditions or how many stills were asked for.
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

from thermal_enhance.enhancers import media
from thermal_enhance.evaluation.bench_alignment import WIDE, corner_jitter
from thermal_enhance.evaluation.bench_enhance import random_misalignment
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.metrics.image import gmsd, psnr, ssim
from thermal_enhance.training.manifest import Item, read_pack, select

SETS = {
    "pbvsg": "PBVS-guided",
    "m3svd": "M3SVD",
    "m3svd_clip": "M3SVD clip",
    "road": "RoadScene",
    "msrs": "MSRS",
}
"""Validation sets by short name; `m3svd_clip` is all of the lossless clip that `m3svd` has four frames of."""
CONDITIONS = ("none", "aligned", "misaligned", "perspective", "wrong", "dark", "late", "wide_fov")
CROP = {"none": "crop_none", "aligned": "crop_aligned"}
"""The same conditions on the middle of the picture, which is all that thermal sees under `wide_fov`."""
SAMPLINGS = ("area", "challenge")
LATE_FRAMES = 3
PERSPECTIVE = 0.08
SEED = 20241

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Still:
    """A validation picture.

    Attributes:
        name: unique within the pack.
        dataset: key of `SETS`.
        thermal: file of the high-resolution thermal picture.
        rgb: file of its registered RGB.
        scene: stills of one scene do not serve each other as the wrong RGB.
        late: the RGB of `LATE_FRAMES` frames before; None where there is none.
    """

    name: str
    dataset: str
    thermal: Path
    rgb: Path
    scene: str
    late: Path | None = None


@dataclass(frozen=True)
class View:
    """A still under one condition.

    Attributes:
        condition: one of `CONDITIONS`, or of the values of `CROP`.
        truth: (H, W) uint8; both sides divide by the scale.
        low: (h, w) uint8, the input.
        color: (H', W', 3) uint8 RGB, or None.
    """

    condition: str
    truth: Picture
    low: Picture
    color: Picture | None


@dataclass(frozen=True)
class Score:
    """How near a picture comes to the truth: dB, 0 to 1 (higher is better), deviation (lower is better)."""

    psnr: float
    ssim: float
    gmsd: float

    @classmethod
    def of(cls, made: NDArray[Any], truth: Picture) -> Score:
        """Score an 8-bit picture."""
        return cls(psnr(made, truth, 255.0), ssim(made, truth, 255.0), gmsd(made, truth, 255.0))


def list_stills(
    data: Path, dataset: str, *, split: str = "val", limit: int = 0, ids: Sequence[str] = ()
) -> list[Still]:
    """Stills of one set.

    Args:
        data: the data pack.
        dataset: key of `SETS`.
        split: "val" or "train".
        limit: evenly thinned to so many; 0 for all.
        ids: only items whose id starts with one of these; empty for all.

    Raises:
        ManifestError: the pack's manifests cannot be used.
    """
    items = read_pack(data)
    source = "m3svd_lossless" if dataset == "m3svd_clip" else dataset
    if source not in {item.dataset for item in items}:
        return []
    chosen = [item for item in select(items, split, datasets=[source]) if item.rgb is not None]
    if ids:
        chosen = [item for item in chosen if item.id.startswith(tuple(ids))]
    stills = [still for item in chosen for still in _stills(item, dataset)]
    if limit and len(stills) > limit:
        stills = [stills[i] for i in np.linspace(0, len(stills) - 1, limit).astype(int)]
    return stills


def _stills(item: Item, dataset: str) -> Iterator[Still]:
    assert item.rgb is not None
    if item.frames == 1:
        yield Still(item.id, dataset, item.thermal, item.rgb, item.scene)
        return
    thermal, rgb = (media.list_images(folder, recursive=False) for folder in (item.thermal, item.rgb))
    for index, (cold, color) in enumerate(zip(thermal, rgb)):
        late = rgb[index - LATE_FRAMES] if index >= LATE_FRAMES else None
        yield Still(f"{item.id}/{cold.stem}", dataset, cold, color, item.scene, late)


def list_strangers(data: Path, split: str = "val") -> list[Still]:
    """What the wrong RGB is drawn from: the stills of all sets."""
    return [still for name in SETS if name != "m3svd_clip" for still in list_stills(data, name, split=split)]


def generator(still: Still, condition: str) -> np.random.Generator:
    """The randomness of one condition of one still."""
    return np.random.default_rng([SEED, *(zlib.crc32(text.encode()) for text in (still.name, condition))])


def read(still: Still, scale: int) -> tuple[Picture, Picture]:
    """(truth (H, W), RGB (H, W, 3)), cropped so that both sides divide by the scale."""
    thermal, color = media.read_thermal(still.thermal), media.read_color(still.rgb)
    height, width = (side // scale * scale for side in thermal.shape)
    return (
        np.ascontiguousarray(thermal[:height, :width], np.uint8),
        np.ascontiguousarray(color[:height, :width]),
    )


def reduce(truth: Picture, scale: int, sampling: str) -> Picture:
    """The input.

    Args:
        truth: (H, W).
        scale: factor that divides both sides.
        sampling: "area" for block means, as a sensor's pixels take them; "challenge" as the PBVS challenge
            made its own, by bicubic interpolation without a filter before it.
    """
    if sampling == "area":
        return np.clip(np.rint(area_down(truth, scale)), 0, 255).astype(np.uint8)
    if sampling != "challenge":
        raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, not {sampling!r}")
    size = (truth.shape[1] // scale, truth.shape[0] // scale)
    return np.asarray(cv2.resize(truth, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def enlarge(low: Picture, scale: int) -> Picture:
    """Bicubic: what every method is held against."""
    size = (low.shape[1] * scale, low.shape[0] * scale)
    bicubic = cv2.resize(low.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(bicubic), 0, 255).astype(np.uint8)


def warped(color: Picture, matrix: NDArray[np.float64]) -> Picture:
    """RGB seen through a homography, output to input pixels; black outside."""
    size = (color.shape[1], color.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpPerspective(color, matrix, size, flags=flags), np.uint8)


def misaligned(color: Picture, still: Still) -> Picture:
    """Shift to 6 % of each side, scale 0.9 to 1.15, rotation to 8 degrees."""
    return warped(
        color, random_misalignment(generator(still, "misaligned"), (color.shape[1], color.shape[0]))
    )


def views(
    still: Still, strangers: Sequence[Still], scale: int, sampling: str, conditions: Sequence[str]
) -> Iterator[View]:
    """The still under every condition it can serve; `wide_fov` brings those of `CROP` with it."""
    truth, color = read(still, scale)
    low = reduce(truth, scale, sampling)
    for name in conditions:
        if name == "wide_fov":
            yield from _wide(truth, color, scale, sampling)
        elif name == "none":
            yield View(name, truth, low, None)
        elif name == "late":
            if still.late is not None:
                yield View(name, truth, low, media.read_color(still.late)[: color.shape[0], : color.shape[1]])
        else:
            yield View(name, truth, low, _changed(color, still, strangers, name))


def _changed(color: Picture, still: Still, strangers: Sequence[Still], condition: str) -> Picture:
    rng, size = generator(still, condition), (color.shape[1], color.shape[0])
    if condition == "aligned":
        return color
    if condition == "misaligned":
        return misaligned(color, still)
    if condition == "perspective":
        return warped(color, corner_jitter(rng, size, PERSPECTIVE))
    if condition == "wrong":
        others = [other for other in strangers if other.scene != still.scene]
        if not others:
            raise ValueError(f"{still.name}: there is no RGB of another scene for the condition 'wrong'")
        stranger = media.read_color(others[int(rng.integers(len(others)))].rgb)
        return np.asarray(cv2.resize(stranger, size), np.uint8)
    if condition == "dark":
        return np.clip(color * 0.03 + rng.normal(0.0, 1.0, color.shape), 0, 255).astype(np.uint8)
    raise ValueError(f"condition must be one of {', '.join(CONDITIONS)}, not {condition!r}")


def _wide(truth: Picture, color: Picture, scale: int, sampling: str) -> Iterator[View]:
    """Thermal keeps the middle only: RGB sees `WIDE` times as much."""
    height, width = truth.shape
    inner = [int(side / ratio / scale) * scale for side, ratio in zip((width, height), WIDE)]
    x, y = (width - inner[0]) // 2, (height - inner[1]) // 2
    middle = np.ascontiguousarray(truth[y : y + inner[1], x : x + inner[0]])
    low = reduce(middle, scale, sampling)
    yield View(CROP["none"], middle, low, None)
    yield View(CROP["aligned"], middle, low, np.ascontiguousarray(color[y : y + inner[1], x : x + inner[0]]))
    yield View("wide_fov", middle, low, color)
