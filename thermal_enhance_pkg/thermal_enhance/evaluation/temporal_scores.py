"""Scores of temporal methods on validation clips, shown and new frames apart: what the tables are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.evaluation.stills import Score
from thermal_enhance.evaluation.temporal_baselines import enlarge
from thermal_enhance.evaluation.temporal_clips import Picture, TemporalClip
from thermal_enhance.evaluation.temporal_methods import (
    BICUBIC,
    BLEND,
    FLOW,
    NEW,
    OBSERVED,
    Made,
    Method,
    baselines,
    interleaved,
    to_picture,
)
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.metrics.temporal import flicker, occlusion_mask, optical_flow, static_mask, warp_error

INPUT, TRUTH = "input", "truth"
WARM_UP = 3
"""Shown frames at the start of a clip that count for no method: a window of four frames is not full yet."""
MOST_DB = 60.0
_NAMES = {(BLEND, OBSERVED): BICUBIC, (FLOW, OBSERVED): ""}
"""Baselines differ in new frames alone: bicubic stands once among the observed ones."""


class MissingFrame(ValueError):  # noqa: N818  (it reads as what it says)
    """A method did not make a frame that counts."""


@dataclass(frozen=True)
class Row:
    """One clip and method, shown or new frames.

    Attributes:
        dataset: key of `temporal_clips.SETS`.
        clip: name.
        group: "static" or "moving", by `motion`.
        motion: low-resolution pixels that edges travel between shown frames.
        method: a baseline, "input", "truth" or a model's name.
        frames: "observed", or "new" for those between; flicker and warp error of the latter are of all frames
            in order of time, as they are seen.
        count: frames that `psnr`, `ssim` and `gmsd` are means over.
        psnr: dB; NaN of input and truth.
        ssim: 0 to 1.
        gmsd: lower is better.
        flicker: of block means on what stands still in the input, grey levels; NaN in moving clips.
        flicker_fine: the same pixel by pixel; of "input" that of the input enlarged bicubically.
        warp_error: from frame to frame along the truth's motion, grey levels.
    """

    dataset: str
    clip: str
    group: str
    motion: float
    method: str
    frames: str
    count: int
    psnr: float
    ssim: float
    gmsd: float
    flicker: float
    flicker_fine: float
    warp_error: float


Watch = Callable[[TemporalClip, Mapping[str, Made]], object]
"""Is shown every clip and what each method made of it."""


def measure(
    clips: Iterable[TemporalClip],
    methods: Mapping[str, Method],
    *,
    warm_up: int = WARM_UP,
    trailing: int = 0,
    watch: Watch = lambda _clip, _made: None,
) -> list[Row]:
    """Score methods on clips; the baselines come by themselves.

    Args:
        clips: what to enhance.
        methods: by name.
        warm_up: shown frames at the start of a clip that do not count; at least one frame less than the
            largest window.
        trailing: shown frames at its end that do not count, with the new ones before them: the largest
            look-ahead.
        watch: see `Watch`.

    Raises:
        MissingFrame: a method did not make a frame that counts.
        ValueError: a clip is too short.
    """
    rows: list[Row] = []
    for clip in clips:
        made = {name: method(clip) for name, method in {**baselines(), **methods}.items()}
        rows += score_clip(clip, made, warm_up, trailing)
        watch(clip, made)
    return rows


def score_clip(clip: TemporalClip, made: Mapping[str, Made], warm_up: int, trailing: int = 0) -> list[Row]:
    """Rows of one clip; see `measure`."""
    first, last = warm_up, len(clip.low) - 1 - trailing
    if last - first < 1:
        raise ValueError(
            f"{clip.dataset} {clip.name}: {len(clip.low)} shown frames are too few: {warm_up} at the start "
            f"and {trailing} at the end do not count"
        )
    judge = _Judge(clip, first, last)
    rows = judge.references()
    for name, one in made.items():
        for frames, wanted, found in (
            (OBSERVED, range(first, last + 1), one.observed),
            # The new frame before the first that counts is made by a full window too.
            (NEW, range(first - 1, last), one.new),
        ):
            row_name = _NAMES.get((name, frames), name)
            if not found or not row_name:
                continue
            missing = [index for index in wanted if index not in found]
            if missing:
                raise MissingFrame(
                    f"{name} made no {frames} frame {missing[0]} of {clip.dataset} {clip.name}: is the "
                    f"warm-up of {warm_up} frames shorter than its window?"
                )
            rows.append(judge.row(row_name, frames, one, wanted))
    return rows


class _Judge:
    """What all methods are held against on one clip, computed once."""

    def __init__(self, clip: TemporalClip, first: int, last: int) -> None:
        self.clip, self.first, self.last = clip, first, last
        self._shown = [clip.low[i].astype(np.float32) for i in range(first, last + 1)]
        self._static = static_mask(self._shown) if clip.group == "static" else None
        self._truth = {
            OBSERVED: [clip.truth[2 * i] for i in range(first, last + 1)],
            NEW: list(clip.truth[2 * first : 2 * last + 1]),
        }
        # One motion for all, the truth's: a method that blurs would be rewarded twice by its own.
        self._motion = {key: [_motion(*pair) for pair in pairwise(t)] for key, t in self._truth.items()}

    def references(self) -> list[Row]:
        """The input's flicker, and flicker and warp error of the truth."""
        enlarged = [to_picture(enlarge(frame, self.clip.scale)) for frame in self._shown]
        found = [
            self._row(INPUT, OBSERVED, _NO_SCORE, self._flicker(self._shown), self._fine(enlarged), math.nan)
        ]
        for frames, truth in self._truth.items():
            found.append(self._row(TRUTH, frames, _NO_SCORE, *self._steadiness(frames, truth)))
        return found

    def row(self, name: str, frames: str, made: Made, wanted: Sequence[int]) -> Row:
        """Score what a method made."""
        observed = [made.observed[i] for i in range(self.first, self.last + 1)]
        pictures, offset = (made.observed, 0) if frames == OBSERVED else (made.new, 1)
        scores = [Score.of(pictures[i], self.clip.truth[2 * i + offset]) for i in wanted]
        seen = observed
        if frames == NEW:
            seen = interleaved(observed, [made.new[i] for i in range(self.first, self.last)])
        return self._row(name, frames, scores, *self._steadiness(frames, seen))

    def _steadiness(self, frames: str, seen: Sequence[Picture]) -> tuple[float, float, float]:
        means = [area_down(picture, self.clip.scale) for picture in seen]
        return self._flicker(means), self._fine(seen), self._warp_error(frames, seen)

    def _flicker(self, seen: Sequence[NDArray[np.float32]]) -> float:
        return math.nan if self._static is None else flicker(seen, self._static)

    def _fine(self, seen: Sequence[NDArray[np.generic]]) -> float:
        if self._static is None:
            return math.nan
        scale = self.clip.scale
        return flicker(seen, self._static.repeat(scale, axis=0).repeat(scale, axis=1))

    def _warp_error(self, frames: str, seen: Sequence[Picture]) -> float:
        errors = [
            warp_error(before, after, flow, visible)
            for before, after, (flow, visible) in zip(seen, seen[1:], self._motion[frames])
        ]
        return float(np.nanmean(errors)) if np.isfinite(errors).any() else math.nan

    def _row(
        self,
        method: str,
        frames: str,
        scores: Sequence[Score],
        coarse: float,
        fine: float,
        warped: float,
    ) -> Row:
        # A featureless picture can be met exactly, and a mean must stay finite.
        table = np.array([(min(s.psnr, MOST_DB), s.ssim, s.gmsd) for s in scores])
        psnr, ssim, gmsd = table.mean(axis=0) if len(scores) else (math.nan,) * 3
        clip = self.clip
        return Row(
            clip.dataset, clip.name, clip.group, clip.motion, method, frames, len(scores),
            float(psnr), float(ssim), float(gmsd), coarse, fine, warped,
        )  # fmt: skip


_NO_SCORE: tuple[Score, ...] = ()


def _motion(before: Picture, after: Picture) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(flow from after back to before, where it can be trusted)."""
    flow = optical_flow(after, before)
    return flow, occlusion_mask(flow, optical_flow(before, after))


class Scores:
    """Rows, asked for by what they are about.

    Args:
        rows: of `measure`.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._found: dict[tuple[str, str, str], dict[str, Row]] = {}
        for row in self.rows:
            self._found.setdefault((row.dataset, row.method, row.frames), {})[row.clip] = row

    def of(self, dataset: str, method: str, frames: str, group: str = "") -> dict[str, Row]:
        """Rows by clip; of one group, or of both."""
        found = self._found.get((dataset, method, frames), {})
        return {name: row for name, row in found.items() if not group or row.group == group}

    def mean(self, dataset: str, method: str, frames: str, group: str, figure: str) -> float:
        """Mean of a figure over clips; NaN where there are none."""
        values = [getattr(row, figure) for row in self.of(dataset, method, frames, group).values()]
        values = [value for value in values if not math.isnan(value)]
        return float(np.mean(values)) if values else math.nan

    def gains(
        self, dataset: str, frames: str, one: str, other: str, group: str = "", figure: str = "psnr"
    ) -> dict[str, float]:
        """A figure of one method less another's, on each clip that has both."""
        mine, theirs = (self.of(dataset, name, frames, group) for name in (one, other))
        return {
            name: getattr(mine[name], figure) - getattr(theirs[name], figure)
            for name in mine
            if name in theirs
        }

    def sets(self) -> list[str]:
        """Sets that were measured, in order."""
        return list(dict.fromkeys(row.dataset for row in self.rows))

    def groups(self, dataset: str) -> list[str]:
        """Groups of a set's clips, static ones first."""
        found = {row.group for row in self.rows if row.dataset == dataset}
        return [group for group in ("static", "moving") if group in found]

    def methods(self, frames: str) -> list[str]:
        """Methods that made such frames, in order; without input and truth."""
        names = dict.fromkeys(row.method for row in self.rows if row.frames == frames)
        return [name for name in names if name not in (INPUT, TRUTH)]
