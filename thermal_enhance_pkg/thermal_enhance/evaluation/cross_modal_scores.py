"""Scores of enhancers on validation stills under every condition of the RGB: what the tables are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thermal_enhance.enhancers.base import Enhancer, EnhanceRequest
from thermal_enhance.evaluation import stills
from thermal_enhance.evaluation.stills import Picture, Score, Still, View
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame, Units

SCALE = 8
BICUBIC = "bicubic"
CHALLENGE_SETS = ("pbvsg",)
"""Sets whose publishers made low-resolution pictures in a way of their own."""

MakeEnhancer = Callable[[str], Enhancer]
"""A fresh enhancer for a sampling: "area" or "off"."""


@dataclass(frozen=True)
class Row:
    """One still, condition and method.

    Attributes:
        dataset: key of `stills.SETS`.
        sampling: how the input was made, one of `stills.SAMPLINGS`.
        still: name.
        condition: of the RGB; see `stills.View`.
        method: "bicubic", "classical" or a model's name.
        psnr: dB.
        ssim: 0 to 1.
        gmsd: lower is better.
        residual_rms: of the block means against the input, grey levels; NaN where the input is not made so.
        residual_max: the largest.
        trust: RGB trust; NaN without RGB.
    """

    dataset: str
    sampling: str
    still: str
    condition: str
    method: str
    psnr: float
    ssim: float
    gmsd: float
    residual_rms: float
    residual_max: float
    trust: float


def measure(
    data: Path,
    methods: Mapping[str, MakeEnhancer],
    *,
    sets: Sequence[str] = tuple(stills.SETS),
    samplings: Sequence[str] = stills.SAMPLINGS,
    conditions: Sequence[str] = stills.CONDITIONS,
    limit: int = 0,
    scale: int = SCALE,
    advance: Callable[[float, str], object] = lambda _share, _text: None,
) -> list[Row]:
    """Enhance every still under every condition it can serve; each by a fresh enhancer.

    Args:
        data: the data pack.
        methods: makes the enhancers, by name; bicubic comes by itself.
        sets: keys of `stills.SETS`.
        samplings: of `stills.SAMPLINGS`; "challenge" is for `CHALLENGE_SETS` alone.
        conditions: of `stills.CONDITIONS`.
        limit: stills a set; 0 for all.
        scale: factor.
        advance: told the share that is done and what comes next.
    """
    work = [
        (still, sampling)
        for dataset in sets
        for sampling in samplings
        if sampling == "area" or dataset in CHALLENGE_SETS
        for still in stills.list_stills(data, dataset, limit=limit)
    ]
    strangers = stills.list_strangers(data) if "wrong" in conditions else []
    rows: list[Row] = []
    for index, (still, sampling) in enumerate(work):
        advance(index / len(work), f"{stills.SETS[still.dataset]} ({sampling}): {still.name}")
        for view in stills.views(still, strangers, scale, sampling, conditions):
            rows += _score(still, sampling, view, methods, scale)
    return rows


def _score(
    still: Still, sampling: str, view: View, methods: Mapping[str, MakeEnhancer], scale: int
) -> Iterable[Row]:
    # Bicubic is the same whatever the RGB: once a grid.
    if view.color is None:
        made = stills.enlarge(view.low, scale)
        yield _row(still, sampling, view, BICUBIC, made, math.nan, scale)
    for name, make in methods.items():
        enhancer = make("area" if sampling == "area" else "off")
        try:
            color = None if view.color is None else ColorFrame(np.ascontiguousarray(view.color))
            frame = ThermalFrame(view.low, Units.AGC8)
            result = enhancer(EnhanceRequest(frame, color, scale, math.nan if color is None else 0.0))
        finally:
            enhancer.close()
        yield _row(still, sampling, view, name, np.asarray(result.thermal.data), result.rgb_trust, scale)


def _row(
    still: Still, sampling: str, view: View, method: str, made: Picture, trust: float, scale: int
) -> Row:
    score = Score.of(made, view.truth)
    rms = largest = math.nan
    if sampling == "area":
        gap = area_down(made, scale) - view.low.astype(np.float32)
        rms, largest = float(np.sqrt(np.square(gap).mean())), float(np.abs(gap).max())
    return Row(
        still.dataset,
        sampling,
        still.name,
        view.condition,
        method,
        score.psnr,
        score.ssim,
        score.gmsd,
        rms,
        largest,
        float(trust),
    )


class Scores:
    """Rows, asked for by what they are about.

    Args:
        rows: of `measure`.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._found: dict[tuple[str, str, str, str], dict[str, Row]] = {}
        for row in self.rows:
            key = (row.dataset, row.sampling, row.method, row.condition)
            self._found.setdefault(key, {})[row.still] = row

    def of(self, dataset: str, sampling: str, method: str, condition: str) -> dict[str, Row]:
        """Rows by still; for bicubic those of its grid, whatever the RGB."""
        if method == BICUBIC:
            cropped = condition in (*stills.CROP.values(), "wide_fov")
            condition = stills.CROP["none"] if cropped else "none"
        return self._found.get((dataset, sampling, method, condition), {})

    def mean(
        self, dataset: str, sampling: str, method: str, condition: str, among: Iterable[str] | None = None
    ) -> tuple[float, float, float] | None:
        """(PSNR, SSIM, GMSD), mean over stills (those of `among`); None where there are none."""
        found = self.of(dataset, sampling, method, condition)
        chosen = [found[name] for name in (found if among is None else among) if name in found]
        if not chosen:
            return None
        table = np.array([(row.psnr, row.ssim, row.gmsd) for row in chosen])
        psnr, ssim, gmsd = table.mean(axis=0)
        return float(psnr), float(ssim), float(gmsd)

    def gains(self, dataset: str, sampling: str, one: tuple[str, str], other: tuple[str, str]) -> list[float]:
        """PSNR of one (method, condition) over another's, dB, on each still that has both."""
        mine, theirs = (self.of(dataset, sampling, *key) for key in (one, other))
        return [mine[name].psnr - theirs[name].psnr for name in mine if name in theirs]

    def sets(self, sampling: str = "area") -> list[str]:
        """Sets that were measured, in order."""
        return list(dict.fromkeys(row.dataset for row in self.rows if row.sampling == sampling))

    def methods(self) -> list[str]:
        """Methods that were measured, bicubic first."""
        found = dict.fromkeys(row.method for row in self.rows)
        return [BICUBIC, *(name for name in found if name != BICUBIC)] if BICUBIC in found else list(found)
