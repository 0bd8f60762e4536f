"""What the cross-modal model must show, each line decided by the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from thermal_enhance.evaluation.cross_modal_scores import BICUBIC, Scores
from thermal_enhance.evaluation.stills import CROP, SETS
from thermal_enhance.evaluation.verdict import Verdict, at_least

WANTED_DB = {"pbvsg": 1.5, "m3svd": 1.6, "road": 0.6, "msrs": 0.8}
"""Over bicubic, x8, block means, aligned RGB."""
USED_DB = {"pbvsg": 0.3, "m3svd": 0.2}
"""Aligned over none: what a guided filter gets."""
KEPT = 2 / 3
"""Share of that gain that misaligned RGB must keep."""
LOST_DB = 0.3
"""Most that misaligned RGB may lose against aligned."""
HARM_DB = 0.1
"""Most that wrong or dark RGB may cost against none."""
HARD_LOST_DB = 0.5
"""Most that a wide view, perspective or a late frame may lose against aligned."""
RESIDUAL_RMS = 0.5


def verdicts(scores: Scores, model: str) -> list[Verdict]:
    """Every line that the measured sets and conditions can decide, for one model."""
    found: list[Verdict] = []
    for parts in (_wanted, _used, _misaligned, _harmless, _hard, _residual):
        found += parts(scores, model)
    return found


def _mean(scores: Scores, dataset: str, one: tuple[str, str], other: tuple[str, str]) -> float | None:
    gains = scores.gains(dataset, "area", one, other)
    return float(np.mean(gains)) if gains else None


def _wanted(scores: Scores, model: str) -> Iterator[Verdict]:
    for dataset, wanted in WANTED_DB.items():
        gain = _mean(scores, dataset, (model, "aligned"), (BICUBIC, "aligned"))
        if gain is not None:
            yield Verdict(
                f"{SETS[dataset]}, aligned RGB, at least {wanted:g} dB over bicubic",
                at_least(gain, wanted),
                f"{gain:+.2f} dB",
            )


def _used(scores: Scores, model: str) -> Iterator[Verdict]:
    for dataset, wanted in USED_DB.items():
        gain = _mean(scores, dataset, (model, "aligned"), (model, "none"))
        if gain is not None:
            yield Verdict(
                f"{SETS[dataset]}, aligned RGB at least {wanted:g} dB over none",
                at_least(gain, wanted),
                f"{gain:+.2f} dB",
            )


def _misaligned(scores: Scores, model: str) -> Iterator[Verdict]:
    for dataset in WANTED_DB:
        lost = _mean(scores, dataset, (model, "misaligned"), (model, "aligned"))
        if lost is None:
            continue
        if dataset in USED_DB:
            full = _mean(scores, dataset, (model, "aligned"), (model, "none"))
            kept = _mean(scores, dataset, (model, "misaligned"), (model, "none"))
            if full is not None and kept is not None:
                share = f", {kept / full:.0%}" if full > 0 else ""
                yield Verdict(
                    f"{SETS[dataset]}, misaligned RGB keeps two thirds of what aligned gives",
                    full > 0 and kept >= KEPT * full,
                    f"{kept:+.2f} of {full:+.2f} dB{share}",
                )
        yield Verdict(
            f"{SETS[dataset]}, misaligned RGB at most {LOST_DB:g} dB below aligned",
            at_least(lost, -LOST_DB),
            f"{lost:+.2f} dB",
        )


def _harmless(scores: Scores, model: str) -> Iterator[Verdict]:
    for condition in ("wrong", "dark"):
        for dataset in WANTED_DB:
            harm = _mean(scores, dataset, (model, condition), (model, "none"))
            if harm is not None:
                yield Verdict(
                    f"{SETS[dataset]}, {condition} RGB at most {HARM_DB:g} dB below none",
                    at_least(harm, -HARM_DB),
                    f"{harm:+.2f} dB",
                )


def _hard(scores: Scores, model: str) -> Iterator[Verdict]:
    """A wide view and perspective on every set, a late frame on the clip; each against its own grid's RGB."""
    cases: Sequence[tuple[str, str, str, str, Sequence[str]]] = (
        ("wide view of 1.62 x 1.21", "wide_fov", CROP["aligned"], CROP["none"], tuple(WANTED_DB)),
        ("perspective of 8 %", "perspective", "aligned", "none", tuple(WANTED_DB)),
        ("RGB three frames late", "late", "aligned", "none", ("m3svd_clip",)),
    )
    for words, condition, aligned, none, sets in cases:
        for dataset in sets:
            lost = _mean(scores, dataset, (model, condition), (model, aligned))
            above = _mean(scores, dataset, (model, condition), (model, none))
            if lost is None or above is None:
                continue
            worst = min(scores.gains(dataset, "area", (model, condition), (model, none)))
            yield Verdict(
                f"{SETS[dataset]}, {words}: at most {HARD_LOST_DB:g} dB below aligned, not below none",
                at_least(lost, -HARD_LOST_DB) and at_least(above, 0.0),
                f"{lost:+.2f} dB to aligned, {above:+.2f} dB to none (worst still {worst:+.2f})",
            )


def _residual(scores: Scores, model: str) -> Iterator[Verdict]:
    values = [row.residual_rms for row in scores.rows if row.method == model and row.sampling == "area"]
    if values:
        worst = max(values)
        yield Verdict(
            f"block means within {RESIDUAL_RMS:g} grey level RMS of the input",
            worst <= RESIDUAL_RMS,
            f"{worst:.2f} in the worst of {len(values)} pictures",
        )
