"""Tables of the ablations and the control, and whether they point as the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from thermal_enhance.evaluation.stills import SETS

REFERENCE = "csm"
PAPER = {
    "no_rgb": "LPIPS .1787 -> .2106",
    "no_misalignment": "MUSIQ 36.66 -> 34.94",
    "no_skip": "PSNR 30.09 -> 29.86",
    "cross": "LPIPS .1787 -> .1953",
    "concat": "LPIPS .1787 -> .2164",
}
"""What the paper says it costs; every one of its ablations is worse than the full method."""
DECIDED_BY = {
    "no_rgb": "aligned",
    "no_misalignment": "misaligned",
    "no_skip": "aligned",
    "cross": "misaligned",
    "concat": "misaligned",
}
"""The condition in which each difference should show: fusions differ in what they make of misaligned RGB."""
MARGIN_DB = 0.02
"""Smaller differences are called none: runs of this size differ as much by their seed."""


def ablation_report(runs: Mapping[str, Any]) -> str:
    """Markdown: PSNR / SSIM / GMSD of every variant, what it costs, and verdicts; empty without runs."""
    found = by_name({key: run for key, run in runs.items() if not key.startswith("overfit")})
    if not found:
        return ""
    lines = [_head(found), "", "| variant | RGB | " + " | ".join(_sets(found)) + " |"]
    lines.append("|" + "---|" * (2 + len(_sets(found))))
    for name in ("bicubic", *found):
        seeds = next(iter(found.values())) if name == "bicubic" else found[name]
        for condition in _conditions(seeds):
            if (condition == "bicubic") == (name == "bicubic"):
                cells = [_cell(seeds, key, condition) for key in _set_keys(found)]
                lines.append(f"| {name} | {'-' if name == 'bicubic' else condition} | {' | '.join(cells)} |")
    lines.append("")
    lines += verdicts(found)
    return "\n".join(lines)


def verdicts(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """One line an ablation: does leaving this out cost something, as in the paper?"""
    if REFERENCE not in found:
        return []
    lines = []
    for name, paper in PAPER.items():
        if name not in found:
            continue
        decided = DECIDED_BY[name]
        costs = {c: _cost(found[REFERENCE], found[name], c) for c in ("aligned", "misaligned")}
        mean = float(np.mean(costs[decided]))
        spread = (
            f" ({min(costs[decided]):+.3f} to {max(costs[decided]):+.3f})" if len(costs[decided]) > 1 else ""
        )
        verdict = "as the paper" if mean <= -MARGIN_DB else "against the paper"
        if abs(mean) < MARGIN_DB:
            verdict = "no difference"
        lines.append(
            f"- {verdict}: {name} {mean:+.3f} dB{spread} against {REFERENCE} with {decided} RGB; "
            + ", ".join(f"{c} {np.mean(v):+.3f}" for c, v in costs.items() if c != decided)
            + f" (paper: {paper})"
        )
    return lines


def _cost(reference: list[dict[str, Any]], variant: list[dict[str, Any]], condition: str) -> list[float]:
    """PSNR of the variant less the reference's, seed by seed: mean over sets of the mean over pictures."""
    by_seed = {run["seed"]: run for run in reference}
    costs = []
    for run in variant:
        other = by_seed.get(run["seed"], reference[0])
        mine, full = _by_still(run, condition), _by_still(other, condition)
        shared = [key for key in mine if key in full]
        sets = {key[0] for key in shared}
        costs.append(
            float(np.mean([np.mean([mine[k] - full[k] for k in shared if k[0] == s]) for s in sorted(sets)]))
        )
    return costs


def _by_still(run: Mapping[str, Any], condition: str) -> dict[tuple[str, str], float]:
    # A network trained without RGB makes the same picture whatever stands beside thermal.
    if not any(row["condition"] == condition for row in run["scores"]):
        condition = "none"
    return {(row["set"], row["still"]): row["psnr"] for row in run["scores"] if row["condition"] == condition}


def control_report(runs: Mapping[str, Any]) -> str:
    """Markdown: the overfit control; empty without runs."""
    found = by_name({key: run for key, run in runs.items() if key.startswith("overfit")})
    if not found:
        return ""
    lines = [
        "Scored on the very pictures it was trained on: an upper bound of what RGB can give, no quality.",
        _head(found),
        "",
        "| method | RGB | " + " | ".join(_sets(found)) + " |",
        "|" + "---|" * (2 + len(_sets(found))),
    ]
    first = next(iter(found.values()))
    rows = [("bicubic", first, "bicubic")]
    rows += [("classical", first, name) for name in _conditions(first) if name.startswith("classical")]
    for name, seeds in found.items():
        trained = "overfit without RGB" if name.endswith("no_rgb") else "overfit with RGB"
        rows += [(trained, seeds, c) for c in _conditions(seeds) if c in ("none", "aligned")]
    for words, seeds, condition in rows:
        cells = " | ".join(_cell(seeds, key, condition) for key in _set_keys(found))
        rgb = "-" if condition == "bicubic" else condition.removeprefix("classical ")
        lines.append(f"| {words} | {rgb} | {cells} |")
    if {"overfit_rgb", "overfit_no_rgb"} <= found.keys():
        gain = float(np.mean(_cost(found["overfit_no_rgb"], found["overfit_rgb"], "aligned")))
        lines += ["", f"- trained and asked with aligned RGB, against without any: {gain:+.2f} dB"]
    return "\n".join(lines)


def by_name(runs: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """`name/seed` entries gathered by name, seeds in order; the reference first, then the paper's order."""
    order = [REFERENCE, *PAPER]
    found: dict[str, list[dict[str, Any]]] = {}
    for key in sorted(
        runs, key=lambda k: (order.index(n) if (n := k.partition("/")[0]) in order else len(order), k)
    ):
        found.setdefault(key.partition("/")[0], []).append(runs[key])
    return found


def _head(found: Mapping[str, list[dict[str, Any]]]) -> str:
    runs = [run for seeds in found.values() for run in seeds]
    steps, batch = " / ".join(map(str, sorted({run["steps"] for run in runs}))), runs[0]["batch"]
    minutes = [run["minutes"] for run in runs]
    seeds = len({run["seed"] for run in runs})
    return (
        f"x8, {steps} steps of {batch} crops, {min(minutes):.1f} to {max(minutes):.1f} min a run, "
        f"{seeds} seed{'s' if seeds > 1 else ''}; {runs[0]['machine']['processor']}, {runs[0]['device']}; "
        "PSNR dB / SSIM / GMSD."
    )


def _set_keys(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    return list(dict.fromkeys(row["set"] for seeds in found.values() for row in seeds[0]["scores"]))


def _sets(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    first = next(iter(found.values()))[0]["scores"]
    counts: Callable[[str], int] = lambda key: len({row["still"] for row in first if row["set"] == key})  # noqa: E731
    return [f"{SETS.get(key, key)} ({counts(key)})" for key in _set_keys(found)]


def _conditions(seeds: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["condition"] for row in seeds[0]["scores"]))


def _cell(seeds: list[dict[str, Any]], dataset: str, condition: str) -> str:
    rows = [
        row
        for run in seeds
        for row in run["scores"]
        if (row["set"], row["condition"]) == (dataset, condition)
    ]
    if not rows:
        return "-"
    means = [float(np.mean([row[key] for row in rows])) for key in ("psnr", "ssim", "gmsd")]
    return f"{means[0]:.2f} / {means[1]:.4f} / {means[2]:.4f}"
