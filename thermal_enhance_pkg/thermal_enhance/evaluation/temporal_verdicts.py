"""What the temporal model must show, each line decided by the figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thermal_enhance.evaluation.temporal_clips import SETS
from thermal_enhance.evaluation.temporal_methods import BICUBIC, BLEND, FLOW, NEW, OBSERVED
from thermal_enhance.evaluation.temporal_scores import INPUT, TRUTH, Scores
from thermal_enhance.evaluation.verdict import ROUNDING_DB, Verdict, at_least

OBSERVED_DB = 1.0
"""Over bicubic, observed frames of the lossless clips."""
NEW_DB = 0.5
"""Over optical-flow interpolation, new frames of moving clips."""
FLICKER_ROUNDING = 0.0005
"""Grey levels; two figures that print alike are taken to be equal."""


def verdicts(scores: Scores, model: str) -> list[Verdict]:
    """Every line that the measured sets can decide, for one model (or the input base)."""
    return [line for part in (_observed, _moving, _static, _flicker) for line in part(scores, model)]


def _observed(scores: Scores, model: str) -> Iterator[Verdict]:
    gains = scores.gains("m3svd_lossless", OBSERVED, model, BICUBIC)
    if gains:
        gain = float(np.mean(list(gains.values())))
        yield Verdict(
            f"{SETS['m3svd_lossless']}, observed frames, at least {OBSERVED_DB:g} dB over bicubic",
            at_least(gain, OBSERVED_DB),
            f"{gain:+.2f} dB",
        )


def _moving(scores: Scores, model: str) -> Iterator[Verdict]:
    for dataset in scores.sets():
        gains = scores.gains(dataset, NEW, model, FLOW, "moving")
        if gains:
            gain = float(np.mean(list(gains.values())))
            yield Verdict(
                f"{SETS[dataset]}, new frames of moving clips, at least {NEW_DB:g} dB over optical flow",
                at_least(gain, NEW_DB),
                f"{gain:+.2f} dB (worst of {len(gains)} {min(gains.values()):+.2f})",
            )


def _static(scores: Scores, model: str) -> Iterator[Verdict]:
    """Never below: every clip decides."""
    for dataset in scores.sets():
        for other, words in ((FLOW, "optical flow"), (BLEND, "the linear blend")):
            gains = scores.gains(dataset, NEW, model, other, "static")
            if gains:
                below = sum(gain < -ROUNDING_DB for gain in gains.values())
                gain, worst = float(np.mean(list(gains.values()))), min(gains.values())
                yield Verdict(
                    f"{SETS[dataset]}, new frames of static clips never below {words}",
                    not below,
                    f"{gain:+.2f} dB, worst {worst:+.3f}, {below} of {len(gains)} clips below",
                )


def _flicker(scores: Scores, model: str) -> Iterator[Verdict]:
    """Block means against the input's own pixels, and fine pixels against the input enlarged."""
    for dataset in scores.sets():
        # Flicker of all frames in order of time where there are new ones: that is what is seen.
        frames = NEW if scores.of(dataset, model, NEW, "static") else OBSERVED
        for figure, words in (("flicker", "block means"), ("flicker_fine", "fine pixels")):
            mine = scores.mean(dataset, model, frames, "static", figure)
            theirs = scores.mean(dataset, INPUT, OBSERVED, "static", figure)
            if not (np.isnan(mine) or np.isnan(theirs)):
                truth = scores.mean(dataset, TRUTH, frames, "static", figure)
                beside = "" if np.isnan(truth) else f" (truth: {truth:.3f})"
                yield Verdict(
                    f"{SETS[dataset]}, flicker of {words} no higher than the input's",
                    mine <= theirs + FLICKER_ROUNDING,
                    f"{mine:.3f} against {theirs:.3f} grey levels{beside}",
                )
