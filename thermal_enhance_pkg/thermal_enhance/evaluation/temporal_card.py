"""What the card of a temporal model says of its figures and limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thermal_enhance.evaluation import model_card
from thermal_enhance.evaluation.model_card import Evidence
from thermal_enhance.evaluation.temporal_clips import SETS
from thermal_enhance.evaluation.temporal_methods import BICUBIC, FLOW, NEW, OBSERVED
from thermal_enhance.evaluation.temporal_scores import Scores
from thermal_enhance.evaluation.temporal_tables import report
from thermal_enhance.evaluation.temporal_verdicts import verdicts
from thermal_enhance.runtime.manifest import ModelManifest
from thermal_enhance.runtime.store import ModelStore


def write(
    store: ModelStore,
    name: str,
    data: Path,
    scores: Scores,
    where: Mapping[str, Any],
    run: model_card.Run | None = None,
) -> Path:
    """Write the card of a model into its folder; see `model_card.write`."""
    return model_card.write(store, name, data, lambda manifest: evidence(manifest, scores), where, run)


def evidence(manifest: ModelManifest, scores: Scores) -> Evidence:
    """For `model_card.card`."""
    window = manifest.parameters.get("window", "the last")
    return Evidence(
        takes=f"Input: thermal of any bit depth, {window} frames at a time; RGB is not looked at. Output: "
        "each frame, and one half way between two.",
        made="Clips were thinned to every other frame and reduced by block means; where the recipe says so, "
        "clips were made from stills by camera motion, with pieces of other stills moving through. Time was "
        "never reversed: heat does not flow back.",
        measured="Every other frame is shown, reduced x4; clips are enhanced frame after frame, as offline.",
        report=report(scores, [manifest.name]),
        verdicts=verdicts(scores, manifest.name),
        limits=list(_limits(manifest, scores)),
    )


def _limits(manifest: ModelManifest, scores: Scores) -> Iterator[str]:
    yield (
        "- Measured on 8-bit pictures; low resolution is simulated, in training too. No radiometric truth "
        "was at hand: that temperatures stay true rests on the consistency step, and between two "
        "frames on their envelope."
    )
    yield (
        "- The validation recordings are of cameras that stand still; how it does on a moving camera is told "
        "by clips made from stills."
    )
    for frames, other, words in ((OBSERVED, BICUBIC, "bicubic"), (NEW, FLOW, "optical flow")):
        for dataset in scores.sets():
            gains = scores.gains(dataset, frames, manifest.name, other)
            below = [name for name, gain in gains.items() if gain < 0]
            if below:
                worst = min(below, key=lambda name: gains[name])
                yield (
                    f"- {SETS[dataset]}, {frames} frames: {len(below)} of {len(gains)} clips come out below "
                    f"{words}, the worst ({worst}) by {-gains[worst]:.2f} dB."
                )
