"""The temporal figures as Markdown."""

from __future__ import annotations

import math
from collections.abc import Collection

from thermal_enhance.evaluation.temporal_clips import MOVING_PX, SETS
from thermal_enhance.evaluation.temporal_methods import BASE, BASELINES, NEW, OBSERVED
from thermal_enhance.evaluation.temporal_scores import INPUT, TRUTH, Scores

_COLUMNS = ("psnr", "ssim", "gmsd", "flicker", "flicker_fine", "warp_error")
_DIGITS = {"psnr": 2, "ssim": 4, "gmsd": 4}
_TITLES = {
    OBSERVED: "Observed frames",
    NEW: "New frames between them (flicker and warp error: of all frames in order of time)",
}


def report(scores: Scores, models: Collection[str] = ()) -> str:
    """Both tables.

    Args:
        scores: what was measured.
        models: figures of these models alone, beside the baselines and methods in space; empty for all.
    """
    parts = [
        "PSNR dB / SSIM / GMSD are means over frames, then clips. Flicker is of what stands still, in grey "
        "levels: of block means, which compare with the input's pixels, and pixel by pixel (the input's: "
        "enlarged bicubically). Warp error, in grey levels, is along the truth's motion. A clip is moving "
        f"where edges travel {MOVING_PX:g} or more low-resolution pixels between shown frames."
    ]
    for frames, title in _TITLES.items():
        table = _table(scores, frames, models)
        if table:
            parts += [f"{title}:", table]
    return "\n\n".join(parts)


def is_temporal(scores: Scores, method: str) -> bool:
    """Is it a model that makes new frames, and no baseline?"""
    return method in scores.methods(NEW) and method not in (*BASELINES, BASE)


def _table(scores: Scores, frames: str, models: Collection[str]) -> str:
    heads = "PSNR | SSIM | GMSD | flicker | fine flicker | warp error"
    lines = [f"| set | clips | n | motion px | method | {heads} |", "|" + "---|" * 11]
    methods = [
        name
        for name in scores.methods(frames)
        if not models or name in models or not is_temporal(scores, name)
    ]
    for dataset in scores.sets():
        for group in scores.groups(dataset):
            for method in (INPUT, *methods, TRUTH):
                found = scores.of(dataset, method, frames, group)
                if not found:
                    continue
                motion = sum(row.motion for row in found.values()) / len(found)
                cells = [_cell(scores.mean(dataset, method, frames, group, c), c) for c in _COLUMNS]
                if set(cells) == {"-"}:
                    continue
                lines.append(
                    f"| {SETS[dataset]} | {group} | {len(found)} | {motion:.2f} | {method} | "
                    f"{' | '.join(cells)} |"
                )
    return "\n".join(lines) if len(lines) > 2 else ""


def _cell(value: float, figure: str) -> str:
    return "-" if math.isnan(value) else f"{value:.{_DIGITS.get(figure, 3)}f}"
