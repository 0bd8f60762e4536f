"""Scores of a temporal model while it trains: whole validation frames, area-averaged, without noise.

Windows are taken from video at its own rate, every second frame held back, and from seeded moving clips made
of stills. Observed frames are held against bicubic, new ones against a blend of the two frames around them,
against plain interpolation along DIS flow, and against the base that the network adds to.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thermal_enhance.enhancers.temporal_input import TemporalBodyInput, TemporalInputBuilder, to_levels
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.motion import Image, MotionEstimator, pixel_grid
from thermal_enhance.metrics import image as image_metrics
from thermal_enhance.metrics.temporal import optical_flow
from thermal_enhance.simulation.moving_clips import moving_clip
from thermal_enhance.simulation.sensor import stream_rng
from thermal_enhance.training.clips import WindowConfig
from thermal_enhance.training.footage import LEVELS_CODE, load_item
from thermal_enhance.training.manifest import Item, read_pack, select

SYNTHETIC = "synthetic"
_SYNTHETIC_SEED = 77
_SYNTHETIC_SIZE = (320, 256)
_STILLS = ("tisr", "hituav")


@dataclass(frozen=True)
class ValidationWindows:
    """How many windows of each set are scored.

    Attributes:
        m3svd_lossless: windows of 640x480.
        m3svd_mp4: of 320x240.
        drone_ir: of 320x256.
        synthetic: of 320x256, moving clips of validation stills.
    """

    m3svd_lossless: int = 4
    m3svd_mp4: int = 6
    drone_ir: int = 4
    synthetic: int = 8

    def __post_init__(self) -> None:
        counts = [getattr(self, name) for name in self.__dataclass_fields__]
        if min(counts) < 0 or not any(counts):
            raise ValueError(f"task.validation must be numbers of at least 0, not all 0: {counts}")


@dataclass
class _Case:
    """A window: its last input is the observed output, the frame before that the new one."""

    dataset: str
    frames: NDArray[np.float32]
    ready: TemporalBodyInput
    low: Image
    truths: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    baselines: dict[str, Image]
    scores: dict[str, float]


class Validation:
    """Validation windows with their network inputs.

    Args:
        pack: folder of the data pack; sets it does not have are left out.
        builder: makes the network's input.
        window: X.
        config: motion, and how moving clips move.
        counts: see `ValidationWindows`.
    """

    def __init__(
        self,
        pack: Path,
        builder: TemporalInputBuilder,
        window: int,
        config: WindowConfig,
        counts: ValidationWindows,
    ) -> None:
        self._builder = builder
        motion = MotionEstimator(config.motion)
        items = read_pack(pack)
        length = 2 * window - 1
        self._cases: list[_Case] = []
        for dataset in ("m3svd_lossless", "m3svd_mp4", "drone_ir"):
            if dataset in {item.dataset for item in items}:
                chosen = select(items, "val", datasets=[dataset])
                for frames in _film(chosen, getattr(counts, dataset), length):
                    self._cases.append(_case(dataset, frames, builder, motion))
        stills = [item for item in items if item.split == "val" and item.dataset in _STILLS]
        for frames in _moving(stills, counts.synthetic, length, config):
            self._cases.append(_case(SYNTHETIC, frames, builder, motion))
        if not self._cases:
            raise ValueError(f"{pack}: nothing to validate a temporal model on")

    def scores(self, model: nn.Module) -> dict[str, float]:
        """Mean PSNR gains in dB.

        Returns:
            `gain`: mean over the sets of the gain over the base, new and observed frames alike; then for
            each set `_observed` (over bicubic), `_new_over_linear`, `_new_over_dis` and `_new_over_base`.
        """
        table: dict[str, list[float]] = {}
        for case in self._cases:
            made = self._enhance(model, case)
            new, observed = (_psnr(p, t) for p, t in zip(made, case.truths))
            gains = {"observed": observed - case.scores["bicubic"]}
            gains |= {f"new_over_{n}": new - case.scores[n] for n in ("linear", "dis", "base")}
            for name, gain in gains.items():
                table.setdefault(f"{case.dataset}_{name}", []).append(gain)
        means = {key: float(np.mean(values)) for key, values in table.items()}
        deciding = [v for k, v in means.items() if k.endswith(("_observed", "_new_over_base"))]
        return {"gain": float(np.mean(deciding)), **means}

    def montage(self, model: nn.Module, side: int = 192) -> NDArray[np.uint8]:
        """One row a set: new by linear blend, base, enhanced, truth; observed bicubic, enhanced, truth."""
        rows = []
        for dataset in dict.fromkeys(case.dataset for case in self._cases):
            case = next(c for c in self._cases if c.dataset == dataset)
            new, observed = self._enhance(model, case)
            bases = case.baselines
            tiles = [bases["linear"], case.ready.base[0], new, case.truths[0]]
            tiles += [bases["bicubic"], observed, case.truths[1]]
            y, x = (max(0, (n - side) // 2) for n in case.truths[0].shape)
            cut = [_fit(_levels(tile[y : y + side, x : x + side]), side) for tile in tiles]
            rows.append(np.hstack([cv2.copyMakeBorder(tile, 0, 2, 0, 2, 0) for tile in cut]))
        return np.repeat(np.vstack(rows)[..., None], 3, axis=2)

    def _enhance(self, model: nn.Module, case: _Case) -> tuple[Image, Image]:
        """(new, observed) in levels, the observed one with its block means met."""
        # Imported here: the task imports this module.
        from thermal_enhance.training.cross_modal_task import meet_block_means

        device = next(model.parameters()).device

        def tensor(array: NDArray[np.float32]) -> Tensor:
            return torch.from_numpy(array)[None].to(device)

        ready = case.ready
        residual = model(tensor(case.frames), tensor(ready.grid), tensor(ready.tau), tensor(ready.cues))
        made = to_levels(ready.base, residual[0, :, 0].float().cpu().numpy())
        low = torch.from_numpy(case.low)[None, None]
        observed = meet_block_means(torch.from_numpy(made[1])[None, None], low)
        return made[0], observed[0, 0].numpy()


def linear_blend(first: Image, second: Image, scale: int) -> Image:
    """The frame between two: their bicubic enlargements, averaged."""
    height, width = first.shape
    return _enlarged((first + second) * np.float32(0.5), (width * scale, height * scale))


def dis_interpolation(first: Image, second: Image, scale: int) -> Image:
    """The frame between two along DIS flow, as Super SloMo approximates it; no masks, nothing learnt."""
    there, back = optical_flow(first, second), optical_flow(second, first)
    height, width = (n * scale for n in first.shape)
    points = (pixel_grid(height, width) + np.float32(0.5)) / np.float32(scale) - np.float32(0.5)
    made = np.zeros((height, width), np.float32)
    for frame, flow in ((first, (back - there) / 4), (second, (there - back) / 4)):
        moved = points + cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
        made += cv2.remap(  # type: ignore[call-overload]
            frame, moved, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
    return np.asarray(made / 2, np.float32)


def _film(items: Sequence[Item], count: int, length: int) -> Iterator[list[Image]]:
    """Windows spread over clips and their time."""
    for index in range(count if items else 0):
        item = items[index % len(items)]
        turn, turns = index // len(items), -(-count // len(items))
        frames = min(item.frames, 120)
        start = round((frames - length) * (turn + 0.5) / turns)
        if start < 0:
            continue
        clip = load_item(replace(item, frames=start + length), use_rgb=False)
        yield [_as_levels(frame) for frame in clip.thermal[start:]]


def _moving(items: Sequence[Item], count: int, length: int, config: WindowConfig) -> Iterator[list[Image]]:
    chosen = [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]
    stills = [_as_levels(load_item(item, use_rgb=False).thermal[0]) for item in chosen]
    for index, still in enumerate(stills):
        size = tuple(min(a, b // 32 * 32) for a, b in zip(_SYNTHETIC_SIZE, still.shape[::-1]))
        rng = stream_rng(_SYNTHETIC_SEED, index)
        made = moving_clip(still, length, (size[0], size[1]), rng, config.moving, stills[index - 1])
        yield list(made)


def _case(dataset: str, frames: list[Image], builder: TemporalInputBuilder, motion: MotionEstimator) -> _Case:
    scale = builder.scale
    # The sides that every size of the network takes.
    height, width = (n // (8 * scale) * 8 * scale for n in frames[0].shape)
    sharp = [np.clip(np.rint(f[:height, :width]), 0, 255).astype(np.uint8) for f in frames]
    low = [np.rint(area_down(frame, scale)) for frame in sharp[::2]]
    last = len(low) - 1
    ready = builder(low, [motion(a, b) for a, b in itertools.pairwise(low)], (last - 0.5, float(last)))
    baselines = {
        "bicubic": ready.base[1],
        "base": ready.base[0],
        "linear": linear_blend(low[-2], low[-1], scale),
        "dis": dis_interpolation(low[-2], low[-1], scale),
    }
    truths = (sharp[-2], sharp[-1])
    scores = {n: _psnr(p, truths[n == "bicubic"]) for n, p in baselines.items()}
    encoded = np.stack([builder.encode(frame) for frame in low])
    return _Case(dataset, encoded, ready, low[-1], truths, baselines, scores)


def _as_levels(frame: NDArray[np.generic]) -> Image:
    levels = frame.astype(np.float32)
    return levels / np.float32(LEVELS_CODE) if frame.dtype == np.uint16 else levels


def _enlarged(levels: Image, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_CUBIC), np.float32)


def _levels(picture: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.clip(np.rint(np.asarray(picture, np.float32)), 0, 255).astype(np.uint8)


def _psnr(picture: Image, truth: NDArray[np.uint8]) -> float:
    """At most 60 dB: a featureless picture can be met exactly, and a mean must stay finite."""
    return min(image_metrics.psnr(_levels(picture), truth, 255.0), 60.0)


def _fit(tile: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    bottom, right = side - tile.shape[0], side - tile.shape[1]
    return np.asarray(cv2.copyMakeBorder(tile, 0, bottom, 0, right, cv2.BORDER_CONSTANT), np.uint8)
