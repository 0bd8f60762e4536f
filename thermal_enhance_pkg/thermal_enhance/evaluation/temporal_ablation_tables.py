"""Table of the temporal ablations, and whether they point as the paper's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from thermal_enhance.evaluation.temporal_ablation_runs import NETWORK
from thermal_enhance.evaluation.temporal_clips import SETS
from thermal_enhance.evaluation.temporal_methods import BASE, BICUBIC, FLOW, NEW, OBSERVED
from thermal_enhance.evaluation.temporal_scores import Row, Scores

REFERENCE = "full"
PAPER = {
    "no_mask": "PSNR 21.37 -> 19.86",
    "no_prompt": "PSNR 21.37 -> 20.54",
    "no_tfm": "PSNR 21.37 -> 20.81",
}
"""What the paper says it costs; every one of its ablations is worse than the full method."""
OURS = ("no_warp", "tfm_paper", "tfm_match")
"""Beyond the paper: without motion, and other forms of the TFM loss."""
VARIANTS = (REFERENCE, *PAPER, *OURS)
MARGIN_DB = 0.02
"""Smaller differences are called none: runs of this size differ as much by their seed."""


def report(runs: Mapping[str, Any]) -> str:
    """Markdown: what every variant reaches, what it costs, and verdicts; empty without runs.

    Args:
        runs: results of `temporal_ablation_runs.train_and_score`, by `name/seed`.
    """
    found = by_name(runs)
    if not found:
        return ""
    first = scores_of(next(iter(found.values()))[0])
    places = [(dataset, group) for dataset in first.sets() for group in first.groups(dataset)]
    counts = [len(first.of(dataset, NETWORK, NEW, group)) for dataset, group in places]
    heads = [f"{SETS[d]}, {g} ({n})" for (d, g), n in zip(places, counts)]
    lines = [
        _head(found),
        "",
        f"| variant | parameters | {' | '.join(heads)} |",
        "|" + "---|" * (2 + len(places)),
    ]
    for words, methods in (
        ("bicubic, optical flow", (BICUBIC, FLOW)),
        (BASE, (BASE, BASE)),
    ):
        cells = [_cell([first], place, methods) for place in places]
        lines.append(f"| {words} | - | {' | '.join(cells)} |")
    for name, seeds in found.items():
        cells = [_cell([scores_of(run) for run in seeds], place, (NETWORK, NETWORK)) for place in places]
        lines.append(f"| {name} | {seeds[0]['parameters']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *verdicts(found)])


def verdicts(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """One line a variant: does leaving this out cost something, as in the paper?"""
    if REFERENCE not in found:
        return []
    lines = []
    for name in VARIANTS[1:]:
        if name not in found:
            continue
        both = [_costs(found[REFERENCE], run) for run in found[name]]
        # The paper's PSNR is of all frames of the output.
        means = [float(np.mean(list(cost.values()))) for cost in both]
        mean = float(np.mean(means))
        spread = f" ({min(means):+.3f} to {max(means):+.3f})" if len(means) > 1 else ""
        parts = ", ".join(f"{frames} {np.mean([c[frames] for c in both]):+.3f}" for frames in (OBSERVED, NEW))
        against = f" (paper: {PAPER[name]})" if name in PAPER else ""
        lines.append(f"- {_verdict(name, mean)}: {name} {mean:+.3f} dB{spread}: {parts}{against}")
    return lines


def _verdict(name: str, mean: float) -> str:
    if abs(mean) < MARGIN_DB:
        return "no difference"
    if name in PAPER:
        return "as the paper" if mean < 0 else "against the paper"
    return "worse than the full method" if mean < 0 else "better than the full method"


def _costs(reference: list[dict[str, Any]], run: dict[str, Any]) -> dict[str, float]:
    """PSNR less the reference's of the same seed, by kind of frame: mean over sets of the mean over clips."""
    other = next((one for one in reference if one["seed"] == run["seed"]), reference[0])
    mine, full = scores_of(run), scores_of(other)
    costs = {}
    for frames in (OBSERVED, NEW):
        means = []
        for dataset in mine.sets():
            rows, others = (s.of(dataset, NETWORK, frames) for s in (mine, full))
            shared = [rows[name].psnr - others[name].psnr for name in rows if name in others]
            if shared:
                means.append(float(np.mean(shared)))
        costs[frames] = float(np.mean(means)) if means else math.nan
    return costs


def scores_of(run: Mapping[str, Any]) -> Scores:
    """The rows of a run."""

    def row(values: Mapping[str, Any]) -> Row:
        known: dict[str, Any] = {key: math.nan if value is None else value for key, value in values.items()}
        return Row(**known)

    return Scores(map(row, run["rows"]))


def by_name(runs: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """`name/seed` entries gathered by name, seeds in order; the reference first, then the paper's order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in VARIANTS:
        seeds = [runs[key] for key in sorted(runs) if key.partition("/")[0] == name]
        if seeds:
            found[name] = seeds
    return found


def _head(found: Mapping[str, list[dict[str, Any]]]) -> str:
    runs = [run for seeds in found.values() for run in seeds]
    steps = " / ".join(map(str, sorted({run["steps"] for run in runs})))
    minutes, seeds = [run["minutes"] for run in runs], len({run["seed"] for run in runs})
    return (
        f"x4 in space, x2 in time, {steps} steps of {runs[0]['batch']} windows, {min(minutes):.1f} to "
        f"{max(minutes):.1f} min a run, {seeds} seed{'s' if seeds > 1 else ''}; "
        f"{runs[0]['machine']['processor']}, {runs[0]['device']}; PSNR dB of observed / new frames."
    )


def _cell(runs: list[Scores], place: tuple[str, str], methods: tuple[str, str]) -> str:
    dataset, group = place
    means = [
        float(np.mean([scores.mean(dataset, method, frames, group, "psnr") for scores in runs]))
        for method, frames in zip(methods, (OBSERVED, NEW))
    ]
    return " / ".join(f"{value:.2f}" for value in means)
