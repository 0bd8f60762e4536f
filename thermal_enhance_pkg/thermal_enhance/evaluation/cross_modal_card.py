"""What the card of a cross-modal model says of its figures and limits."""

from __future__ import annotations

from collections.abc import Iterator

from thermal_enhance.evaluation.cross_modal_scores import BICUBIC, Scores
from thermal_enhance.evaluation.cross_modal_tables import report
from thermal_enhance.evaluation.cross_modal_verdicts import verdicts
from thermal_enhance.evaluation.model_card import Evidence, join_words
from thermal_enhance.evaluation.stills import SETS
from thermal_enhance.runtime.manifest import ModelManifest


def evidence(manifest: ModelManifest, scores: Scores) -> Evidence:
    """For `model_card.card`."""
    return Evidence(
        takes="Input: thermal of any bit depth, RGB of any size that sees about the same, or none.",
        made="RGB was misaligned, darkened or left out at random; low-resolution pictures were made from "
        "sharp ones.",
        measured="Every still is enhanced by itself, its alignment found from that pair alone.",
        report=report(scores, [manifest.name]),
        verdicts=verdicts(scores, manifest.name),
        limits=list(_limits(manifest, scores)),
    )


def _limits(manifest: ModelManifest, scores: Scores) -> Iterator[str]:
    yield (
        "- Measured on 8-bit pictures; low resolution is simulated, in training too. No radiometric truth "
        "was at hand: that temperatures stay true rests on the consistency step, not on the training."
    )
    yield f"- Scales {join_words([f'x{scale}' for scale in manifest.scales])} only."
    for dataset in scores.sets():
        gains = scores.gains(dataset, "area", (manifest.name, "aligned"), (BICUBIC, "aligned"))
        if gains and min(gains) < 0:
            yield (
                f"- {SETS[dataset]}: {sum(gain < 0 for gain in gains)} of {len(gains)} pictures come out "
                f"below bicubic, the worst by {-min(gains):.2f} dB."
            )
