"""Scores of a cross-modal model while it trains: a few validation pictures of each set, x8, area-averaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thermal_enhance.enhancers import media
from thermal_enhance.enhancers.cross_modal_input import CrossModalInputBuilder
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.metrics.image import psnr
from thermal_enhance.training.manifest import read_pack, select

SETS = ("pbvsg", "m3svd", "road", "msrs")
SCALE = 8
_MULTIPLE = 64


@dataclass
class _Case:
    dataset: str
    truth: NDArray[np.uint8]
    low: NDArray[np.float32]
    bicubic: NDArray[np.uint8]
    score: float
    alone: NDArray[np.float32]
    guided: NDArray[np.float32]
    rgb: NDArray[np.float32]


class Validation:
    """Validation pictures with their network inputs, RGB as registered by the data sets.

    Args:
        pack: folder of the data pack.
        builder: makes the network's input.
        limit: at most so many pictures of each set.
    """

    def __init__(self, pack: Path, builder: CrossModalInputBuilder, limit: int) -> None:
        self._cases: list[_Case] = []
        items = read_pack(pack)
        for dataset in SETS:
            chosen = select(items, "val", datasets=[dataset])
            for index in np.unique(np.linspace(0, len(chosen) - 1, min(limit, len(chosen))).astype(int)):
                item = chosen[index]
                assert item.rgb is not None
                truth, rgb = media.read_thermal(item.thermal), media.read_color(item.rgb)
                self._cases.append(_case(dataset, truth, rgb, builder))

    def scores(self, model: nn.Module) -> dict[str, float]:
        """Mean gain over bicubic in dB: `gain`, the mean over sets with RGB, then each set and condition."""
        table: dict[str, list[float]] = {}
        for case in self._cases:
            for name in ("aligned", "none"):
                made = self._enhance(model, case, name == "aligned")
                gain = psnr(made, case.truth, 255.0) - case.score
                table.setdefault(f"{case.dataset}_{name}", []).append(gain)
        means = {key: float(np.mean(values)) for key, values in table.items()}
        overall = float(np.mean([means[f"{dataset}_aligned"] for dataset in SETS]))
        return {"gain": overall, **means}

    def montage(self, model: nn.Module, side: int = 192) -> NDArray[np.uint8]:
        """One row a set: bicubic, classical with RGB, enhanced without RGB, with RGB, truth, RGB."""
        rows = []
        for dataset in SETS:
            case = next(c for c in self._cases if c.dataset == dataset)
            tiles = [
                case.bicubic,
                _levels(case.guided[0]),
                self._enhance(model, case, False),
                self._enhance(model, case, True),
                case.truth,
            ]
            y, x = (max(0, (n - side) // 2) for n in case.truth.shape)
            cut = [np.repeat(t[y : y + side, x : x + side, None], 3, axis=2) for t in tiles]
            cut.append(_levels(case.rgb.transpose(1, 2, 0))[y : y + side, x : x + side])
            rows.append(np.hstack([cv2.copyMakeBorder(_fit(t, side), 0, 2, 0, 2, 0) for t in cut]))
        return np.vstack(rows)

    def _enhance(self, model: nn.Module, case: _Case, with_rgb: bool) -> NDArray[np.uint8]:
        # Imported here: the task imports this module.
        from thermal_enhance.training.cross_modal_task import meet_block_means

        height, width = case.truth.shape
        device = next(model.parameters()).device

        def tensor(picture: NDArray[np.float32]) -> Tensor:
            pad = ((0, 0), (0, -height % _MULTIPLE), (0, -width % _MULTIPLE))
            return torch.from_numpy(np.pad(picture, pad, mode="reflect"))[None].to(device)

        thermal = tensor(case.guided if with_rgb else case.alone)
        made = model(thermal, tensor(case.rgb) if with_rgb else None).float()[..., :height, :width]
        low = torch.from_numpy(case.low)[None, None].to(device) / 127.5 - 1.0
        return _levels(meet_block_means(made, low)[0, 0].cpu().numpy())


def _case(
    dataset: str,
    thermal: NDArray[Any],
    rgb: NDArray[np.uint8],
    builder: CrossModalInputBuilder,
) -> _Case:
    height, width = (n // SCALE * SCALE for n in thermal.shape)
    truth = np.ascontiguousarray(thermal[:height, :width])
    low = np.clip(np.rint(area_down(truth, SCALE)), 0, 255).astype(np.float32)
    size = (width // SCALE, height // SCALE)
    guide = builder.place_color(np.ascontiguousarray(rgb[:height, :width]), np.eye(3), size, SCALE)
    guided, alone = builder(low, SCALE, guide), builder(low, SCALE)
    assert guided.rgb is not None
    enlarged = cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC)
    bicubic = np.clip(np.rint(enlarged), 0, 255).astype(np.uint8)
    score = psnr(bicubic, truth, 255.0)
    return _Case(dataset, truth, low, bicubic, score, alone.thermal, guided.thermal, guided.rgb)


def _levels(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint((picture + 1.0) * 127.5), 0, 255).astype(np.uint8)


def _fit(tile: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    bottom, right = side - tile.shape[0], side - tile.shape[1]
    return np.asarray(cv2.copyMakeBorder(tile, 0, bottom, 0, right, cv2.BORDER_CONSTANT), np.uint8)
