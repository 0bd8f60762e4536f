"""How well the classical aligner finds the thermal picture in the RGB one: `thermal-enhance bench alignment`.

High-resolution thermal pictures of the data pack are area-averaged down by the factor; their registered RGB
is warped by a known homography, cropped so that RGB sees more, darkened, or replaced. One still pair at a
time, no tracking. Errors are in pixels of the enlarged picture and contain what parallax the pairs really
have: the line "identity" of `aligned` would be 0 by definition, a perfect estimator is not.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.guided import luma
from thermal_enhance.enhancers.media import read_color, read_thermal
from thermal_enhance.evaluation.bench_enhance import SETS, Item, find_data, load_items, random_misalignment
from thermal_enhance.imaging.alignment import Alignment, AlignmentConfig, AlignmentEstimator, unit_matrix
from thermal_enhance.imaging.consistency import area_down

CONDITIONS = ("aligned", "misaligned", "perspective", "combined", "wide", "wrong", "dark")
UNKNOWABLE = ("wrong", "dark")
"""Conditions without a true matrix: trust is an error there."""
WIDE = (1.62, 1.21)
"""How much more RGB sees than thermal, horizontally and vertically (74x59 against 50x50 degrees)."""
RGB_WIDTH = 320
"""What the enhancers hand to the estimator."""

Picture = NDArray[np.uint8]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One pair under one condition.

    Attributes:
        thermal: (h, w) uint8, the small picture.
        color: (H, W) uint8 luma.
        truth: 3x3 thermal to RGB over [0, 1] coordinates; None where there is none.
    """

    thermal: Picture
    color: Picture
    truth: Matrix | None


@dataclass(frozen=True)
class Row:
    """Figures of one set and condition.

    Attributes:
        dataset: short name, a key of `SETS`.
        condition: one of `CONDITIONS`.
        pairs: how many.
        median, p75, p90: mean error over the picture, output pixels, of all pairs, trusted or not.
        start: median error of the first guess (the identity), same units.
        trusted: share of pairs with trust above 0; for wrong and dark RGB these are false accepts.
        trust: mean trust.
        misled: share of pairs trusted by more than a half though off by more than one input pixel.
        median_ms, p90_ms: processor time per pair: what is left when nothing else runs.
    """

    dataset: str
    condition: str
    pairs: int
    median: float
    p75: float
    p90: float
    start: float
    trusted: float
    trust: float
    misled: float
    median_ms: float
    p90_ms: float


def corner_jitter(rng: np.random.Generator, size: tuple[int, int], share: float) -> Matrix:
    """Each corner moved by up to `share` of the side: 3x3, output to input pixels."""
    width, height = size
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    moved = corners + rng.uniform(-share, share, (4, 2)) * np.array(size)
    return np.asarray(cv2.getPerspectiveTransform(corners, moved.astype(np.float32)), np.float64)


def mild_misalignment(rng: np.random.Generator, size: tuple[int, int]) -> Matrix:
    """Half the shift, scale and rotation of `random_misalignment`, and corners jittered by 3 %."""
    full = random_misalignment(rng, size)
    half = np.eye(3) + 0.5 * (full - np.eye(3))
    return np.asarray(half @ corner_jitter(rng, size, 0.03))


def grid_error(estimate: Matrix, truth: Matrix, size: tuple[int, int]) -> float:
    """Mean distance between where two thermal-to-RGB matrices put the thermal picture.

    Args:
        estimate: 3x3 over [0, 1] coordinates.
        truth: the same.
        size: (width, height) of the thermal picture in the pixels to measure in.

    Returns:
        Pixels, over a grid of points that the RGB picture truly sees; inf for a matrix that folds over.
    """
    x, y = np.meshgrid((np.arange(16) + 0.5) / 16, (np.arange(12) + 0.5) / 12)
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    there = truth @ points
    seen = (np.abs(there[:2] / there[2] - 0.5) <= 0.5).all(axis=0)
    if not seen.any():
        seen[:] = True
    back = np.linalg.inv(truth) @ estimate @ points[:, seen]
    if not (np.isfinite(back).all() and (back[2] > 1e-6).all()):
        return math.inf
    apart = (back[:2] / back[2] - points[:2, seen]) * np.array(size)[:, None]
    return float(np.hypot(apart[0], apart[1]).mean())


def make_cases(
    item: Item, strangers: Sequence[Item], scale: int, rng: np.random.Generator, names: Sequence[str]
) -> Iterator[tuple[str, Case]]:
    """The item under every condition in `names`; the same random numbers whatever `names` is."""
    full = read_thermal(item.thermal)
    if item.rgb is None:
        return
    height, width = (side // scale * scale for side in full.shape)
    size = (width, height)
    gray = np.ascontiguousarray(luma(read_color(item.rgb))[:height, :width])
    low = _down(full[:height, :width], scale)
    others = [other.rgb for other in strangers if other.scene != item.scene and other.rgb is not None]
    moves = {
        "misaligned": random_misalignment(rng, size),
        "perspective": corner_jitter(rng, size, 0.08),
        "combined": mild_misalignment(rng, size),
    }
    wrong = others[int(rng.integers(len(others)))]
    noise = rng.normal(0.0, 1.0, gray.shape)
    for name in names:
        if name == "aligned":
            yield name, Case(low, gray, np.eye(3))
        elif name in moves:
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            warped = cv2.warpPerspective(gray, moves[name], size, flags=flags)
            truth = unit_matrix(np.asarray(np.linalg.inv(moves[name]), np.float64), size, size)
            yield name, Case(low, np.asarray(warped, np.uint8), truth)
        elif name == "wide":
            yield name, _wide(full[:height, :width], gray, scale)
        elif name == "wrong":
            stranger = cv2.resize(luma(read_color(wrong)), size)
            yield name, Case(low, np.asarray(stranger, np.uint8), None)
        else:
            yield name, Case(low, np.clip(gray * 0.03 + noise, 0, 255).astype(np.uint8), None)


def _wide(thermal: Picture, gray: Picture, scale: int) -> Case:
    """Thermal keeps the middle only: what RGB sees is `WIDE` times as much."""
    height, width = thermal.shape
    inner = [int(side / ratio / scale) * scale for side, ratio in zip((width, height), WIDE)]
    x, y = (width - inner[0]) // 2, (height - inner[1]) // 2
    low = _down(thermal[y : y + inner[1], x : x + inner[0]], scale)
    truth = np.array(
        [[inner[0] / width, 0, x / width], [0, inner[1] / height, y / height], [0, 0, 1.0]], np.float64
    )
    return Case(low, gray, truth)


def _down(thermal: Picture, scale: int) -> Picture:
    return np.clip(np.rint(area_down(thermal, scale)), 0, 255).astype(np.uint8)


def solve(case: Case, config: AlignmentConfig) -> tuple[Alignment, float]:
    """What a fresh estimator says about the pair, and the seconds of processor time it took."""
    low, high = int(case.thermal.min()), int(case.thermal.max())
    thermal = np.asarray((case.thermal.astype(np.float32) - low) / max(16, high - low), np.float32)
    gray = case.color
    if gray.shape[1] > RGB_WIDTH:
        gray = _reduced(gray, RGB_WIDTH)
    brightness = np.asarray(gray.astype(np.float32) / 255.0, np.float32)
    began = time.thread_time()
    alignment = AlignmentEstimator(config).estimate(thermal, brightness)
    return alignment, time.thread_time() - began


def _reduced(gray: Picture, width: int) -> Picture:
    size = (width, max(8, round(gray.shape[0] * width / gray.shape[1])))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)


def measure(
    data: Path,
    dataset: str,
    *,
    scale: int = 8,
    limit: int = 0,
    split: str = "val",
    names: Sequence[str] = CONDITIONS,
    config: AlignmentConfig | None = None,
) -> list[Row]:
    """Figures of one set under every condition; each pair by itself, one thread."""
    config = config or AlignmentConfig()
    strangers = [
        other for name in SETS if name != "tisr" for other in load_items(data, name, split) if other.rgb
    ]
    rng = np.random.default_rng(7)
    results: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in names}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for item in load_items(data, dataset, split, limit):
            for name, case in make_cases(item, strangers, scale, rng, names):
                alignment, seconds = solve(case, config)
                error = start = math.nan
                if case.truth is not None:
                    size = (case.thermal.shape[1] * scale, case.thermal.shape[0] * scale)
                    error = grid_error(alignment.homography, case.truth, size)
                    start = grid_error(config.first_guess(), case.truth, size)
                results[name].append((error, start, alignment.trust, seconds * 1e3))
    finally:
        cv2.setNumThreads(threads)
    return [_row(dataset, name, scale, rows) for name, rows in results.items() if rows]


def _row(dataset: str, condition: str, scale: int, rows: list[tuple[float, float, float, float]]) -> Row:
    error, start, trust, spent = np.array(rows).T
    lower, middle, upper = np.percentile(error, [50, 75, 90])
    misled = float(((error > scale) & (trust > 0.5)).mean()) if condition not in UNKNOWABLE else math.nan
    return Row(
        dataset,
        condition,
        len(rows),
        float(lower),
        float(middle),
        float(upper),
        float(np.median(start)),
        float((trust > 0).mean()),
        float(trust.mean()),
        misled,
        float(np.median(spent)),
        float(np.percentile(spent, 90)),
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown: one line a set and condition."""
    lines = [
        "| set | RGB | n | first guess px | median px | p75 | p90 | trust > 0 | mean trust | misled | CPU ms "
        "| p90 |",
        "|" + "---|" * 12,
    ]
    for row in rows:
        errors = [f"{value:.1f}" if math.isfinite(value) else "-" for value in (row.start, row.median)]
        errors += [f"{value:.1f}" if not math.isnan(value) else "-" for value in (row.p75, row.p90)]
        misled = "-" if math.isnan(row.misled) else f"{row.misled:.0%}"
        lines.append(
            f"| {SETS[row.dataset]} | {row.condition} | {row.pairs} | {' | '.join(errors)} | "
            f"{row.trusted:.0%} | {row.trust:.2f} | {misled} | {row.median_ms:.0f} | {row.p90_ms:.0f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 on success, 2 when there is no data to run it on."""
    parser = argparse.ArgumentParser(prog="thermal-enhance bench alignment", description=__doc__)
    known = [name for name in SETS if name != "tisr"]
    parser.add_argument("--data", type=Path, help="the data pack (default: ../shared/data of the checkout)")
    parser.add_argument("--sets", nargs="+", choices=known, default=known)
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--scale", type=int, choices=(2, 4, 8), default=8)
    parser.add_argument("--model", help="AlignmentConfig.model to use")
    parser.add_argument("--split", choices=("train", "val"), default="val")
    parser.add_argument("--limit", type=int, default=0, help="pictures a set (default: all)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args(argv)
    data = arguments.data or find_data()
    if data is None or not (data / "rgbt_pairs" / "manifest.jsonl").is_file():
        sys.stderr.write("bench alignment: no data pack found; give its folder as --data\n")
        return 2
    config = AlignmentConfig()
    if arguments.model:
        config = replace(config, model=arguments.model)
    rows: list[Row] = []
    for dataset in arguments.sets:
        rows += measure(
            data,
            dataset,
            scale=arguments.scale,
            limit=arguments.limit,
            split=arguments.split,
            names=arguments.conditions,
            config=config,
        )
    sys.stdout.write(table(rows) + "\n")
    if arguments.json is not None:
        plain = [{key: _plain(value) for key, value in asdict(row).items()} for row in rows]
        arguments.json.write_text(json.dumps(plain, indent=2) + "\n")
    return 0


def _plain(value: object) -> object:
    """NaN and infinity are no JSON: null instead."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
