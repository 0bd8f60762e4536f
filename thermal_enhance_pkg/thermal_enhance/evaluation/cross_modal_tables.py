"""The cross-modal figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from thermal_enhance.evaluation.cross_modal_scores import BICUBIC, SCALE, Scores
from thermal_enhance.evaluation.stills import CONDITIONS, CROP, SETS

Y_PSNR_OFFSET_DB = 1.32
"""20 log10(255 / 219): luma of BT.601 spans 219 levels, and 3M-TI is scored on it (METHODS trap G)."""
_WHOLE = tuple(name for name in CONDITIONS if name not in ("late", "wide_fov"))
_SAMPLING_TEXT = {
    "area": "Input by block means",
    "challenge": "Input as the PBVS challenge made it (bicubic interpolation, no filter: it aliases)",
}


def report(scores: Scores, models: Sequence[str] = ()) -> str:
    """All tables.

    Args:
        scores: what was measured.
        models: with figures of these alone, beside bicubic and classical; empty for all.
    """
    parts = []
    methods = [
        name for name in scores.methods() if not models or name in (BICUBIC, "classical") or name in models
    ]
    for sampling in ("area", "challenge"):
        sets = scores.sets(sampling)
        if not sets:
            continue
        parts.append(f"{_SAMPLING_TEXT[sampling]}, x{SCALE}; PSNR dB / SSIM / GMSD, mean over pictures.")
        parts.append(_table(scores, sampling, sets, methods, _WHOLE))
        wide = _table(scores, sampling, sets, methods, (*CROP.values(), "wide_fov"))
        if wide:
            parts.append(
                "RGB that sees 1.62 x 1.21 times as much: thermal is the middle of the picture, and the "
                "other columns are of that middle."
            )
            parts.append(wide)
        late = _late_table(scores, sampling, sets, methods)
        if late:
            parts.append("RGB three frames (0.1 s) late: the frames of the clip that have one.")
            parts.append(late)
    parts.append(
        f"PSNR on the Y channel of YCbCr, as in the paper's table, is exactly {Y_PSNR_OFFSET_DB} dB higher "
        "for gray pictures; SSIM and GMSD are of the gray picture as well."
    )
    return "\n\n".join(parts)


def _table(
    scores: Scores, sampling: str, sets: Sequence[str], methods: Sequence[str], conditions: Sequence[str]
) -> str:
    """One line a set and method; columns without any figure are left out, empty without figures."""
    present = [
        name
        for name in conditions
        if any(scores.of(dataset, sampling, method, name) for dataset in sets for method in methods[1:])
    ]
    if not present:
        return ""
    lines = ["| set | n | method | " + " | ".join(_title(name) for name in present) + " |"]
    lines.append("|" + "---|" * (3 + len(present)))
    for dataset in sets:
        for method in methods:
            means = [
                # Bicubic does not look at RGB: once is enough.
                None
                if method == BICUBIC and name != present[0]
                else scores.mean(dataset, sampling, method, name)
                for name in present
            ]
            if any(means):
                count = max(len(scores.of(dataset, sampling, method, name)) for name in present)
                cells = " | ".join(map(_cell, means))
                lines.append(f"| {SETS[dataset]} | {count} | {method} | {cells} |")
    return "\n".join(lines)


def _late_table(scores: Scores, sampling: str, sets: Sequence[str], methods: Sequence[str]) -> str:
    lines = ["| set | n | method | none | aligned | late |", "|" + "---|" * 6]
    for dataset in sets:
        names = next((list(found) for m in methods if (found := scores.of(dataset, sampling, m, "late"))), [])
        names = [
            name
            for name in names
            if any(name in scores.of(dataset, sampling, m, "late") for m in methods if m != BICUBIC)
        ]
        if not names:
            continue
        for method in methods:
            means = [
                None
                if method == BICUBIC and condition != "none"
                else scores.mean(dataset, sampling, method, condition, names)
                for condition in ("none", "aligned", "late")
            ]
            lines.append(f"| {SETS[dataset]} | {len(names)} | {method} | {' | '.join(map(_cell, means))} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _title(condition: str) -> str:
    return {CROP["none"]: "none", CROP["aligned"]: "aligned", "wide_fov": "wide view"}.get(
        condition, condition
    )


def _cell(mean: tuple[float, float, float] | None) -> str:
    return "-" if mean is None else f"{mean[0]:.2f} / {mean[1]:.4f} / {mean[2]:.4f}"
