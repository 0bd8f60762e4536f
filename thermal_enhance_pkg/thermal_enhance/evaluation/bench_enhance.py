"""Quality and speed of the classical tier: `thermal-enhance bench enhance`.

Quality: high-resolution thermal pictures of the data pack's validation split are area-averaged down by the
factor and brought back, with RGB aligned, misaligned, of another scene, dark or absent. Speed: a live stream
of the usual sizes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.base import EnhanceRequest
from thermal_enhance.enhancers.classical import ClassicalConfig, ClassicalEnhancer
from thermal_enhance.enhancers.media import read_color, read_thermal
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame, Units
from thermal_enhance.metrics.image import psnr, ssim

SETS = {"pbvsg": "PBVS-guided", "m3svd": "M3SVD", "road": "RoadScene", "msrs": "MSRS", "tisr": "PBVS-TISR"}
CONDITIONS = ("bicubic", "none", "aligned", "misaligned", "wrong", "dark")
SPEED_CASES = ((160, 120, 4), (160, 120, 8), (80, 60, 8), (640, 480, 2))

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Item:
    """One validation picture.

    Attributes:
        thermal: file of the high-resolution thermal picture.
        rgb: file of its RGB picture; None if it has none.
        scene: pictures of one scene do not serve each other as the wrong RGB.
    """

    thermal: Path
    rgb: Path | None
    scene: str


@dataclass(frozen=True)
class Quality:
    """Mean scores of one set, factor and condition.

    Attributes:
        dataset: short name, a key of `SETS`.
        scale: factor.
        condition: one of `CONDITIONS`.
        psnr: dB.
        ssim: 0 to 1.
        residual_max: largest departure of a block mean from the input over the set, grey levels.
        trust: mean RGB trust; NaN where no RGB was given.
        pictures: how many.
    """

    dataset: str
    scale: int
    condition: str
    psnr: float
    ssim: float
    residual_max: float
    trust: float
    pictures: int


@dataclass(frozen=True)
class Speed:
    """Time of one case of a live stream.

    Attributes:
        case: sizes in words.
        rgb: with a 640x480 guide.
        quality: ClassicalConfig.quality.
        median_ms: per frame.
        p95_ms: per frame.
        cpu_ms: median of the thread's own time per frame: what is left when nothing else runs.
        yardsticks: cpu_ms in units of one 1024^3 float32 matrix product on this machine.
    """

    case: str
    rgb: bool
    quality: str
    median_ms: float
    p95_ms: float
    cpu_ms: float
    yardsticks: float


def load_items(data: Path, dataset: str, split: str = "val", limit: int = 0) -> list[Item]:
    """Pictures of one set from the pack's manifests, evenly thinned to `limit` (0: all)."""
    folder = "thermal_sr" if dataset == "tisr" else "rgbt_pairs"
    items = []
    for line in (data / folder / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["split"] == split and (dataset == "tisr" or entry["id"].startswith(dataset)):
            rgb = data / entry["rgb"] if "rgb" in entry else None
            items.append(Item(data / entry["thermal"], rgb, str(entry.get("scene", entry["id"]))))
    if limit and len(items) > limit:
        items = [items[i] for i in np.linspace(0, len(items) - 1, limit).astype(int)]
    return items


def random_misalignment(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """Shift to 6 % of each side, scale 0.9 to 1.15, rotation to 8 degrees: 3x3, output to input pixels."""
    width, height = size
    scale, angle = 1 / rng.uniform(0.9, 1.15), math.radians(rng.uniform(-8, 8))
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    cx, cy = (width - 1) / 2, (height - 1) / 2
    dx, dy = rng.uniform(-0.06, 0.06) * width, rng.uniform(-0.06, 0.06) * height
    return np.array(
        [
            [cosine, -sine, cx - cosine * cx + sine * cy + dx],
            [sine, cosine, cy - sine * cx - cosine * cy + dy],
            [0.0, 0.0, 1.0],
        ]
    )


def measure_quality(
    data: Path,
    dataset: str,
    scale: int,
    *,
    limit: int = 0,
    split: str = "val",
    config: ClassicalConfig | None = None,
) -> list[Quality]:
    """Scores of one set at one factor under every condition it can serve."""
    config = config or ClassicalConfig(per_frame_alignment=True)
    items = load_items(data, dataset, split, limit)
    strangers = [
        other
        for name in SETS
        if name != "tisr"
        for other in load_items(data, name, split)
        if other.rgb is not None
    ]
    rng = np.random.default_rng(20240)
    scores: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in CONDITIONS}
    for item in items:
        truth = _cropped(read_thermal(item.thermal), scale)
        low = np.clip(np.rint(area_down(truth, scale)), 0, 255).astype(np.uint8)
        size = (truth.shape[1], truth.shape[0])
        bicubic = cv2.resize(low.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        plain = np.clip(np.rint(bicubic), 0, 255).astype(np.uint8)
        gap = float(np.abs(area_down(plain, scale) - low).max())
        scores["bicubic"].append((*_score(plain, truth), gap, math.nan))
        for name, color in _conditions(item, strangers, size, rng):
            # A fresh enhancer for each: nothing may be learnt from the condition before.
            enhancer = ClassicalEnhancer(config)
            frame = ThermalFrame(low, Units.AGC8)
            result = enhancer(EnhanceRequest(frame, color, scale, 0.0 if color else math.nan))
            made = np.asarray(result.thermal.data)
            scores[name].append((*_score(made, truth), result.consistency_residual, result.rgb_trust))
    return [_mean(dataset, scale, name, rows) for name, rows in scores.items() if rows]


def _conditions(
    item: Item, strangers: list[Item], size: tuple[int, int], rng: np.random.Generator
) -> Iterator[tuple[str, ColorFrame | None]]:
    yield "none", None
    if item.rgb is None:
        return
    aligned = np.ascontiguousarray(read_color(item.rgb)[: size[1], : size[0]])
    yield "aligned", ColorFrame(aligned)
    matrix = random_misalignment(rng, size)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    yield (
        "misaligned",
        ColorFrame(np.asarray(cv2.warpPerspective(aligned, matrix, size, flags=flags), np.uint8)),
    )
    others = [other.rgb for other in strangers if other.scene != item.scene and other.rgb is not None]
    wrong = others[int(rng.integers(len(others)))]
    yield "wrong", ColorFrame(np.asarray(cv2.resize(read_color(wrong), size), np.uint8))
    noise = rng.normal(0.0, 1.0, aligned.shape)
    yield "dark", ColorFrame(np.clip(aligned * 0.03 + noise, 0, 255).astype(np.uint8))


def _cropped(image: NDArray[Any], scale: int) -> Picture:
    height, width = (side // scale * scale for side in image.shape)
    return np.ascontiguousarray(image[:height, :width])


def _score(made: NDArray[Any], truth: Picture) -> tuple[float, float]:
    return psnr(made, truth, 255.0), ssim(made, truth, 255.0)


def _mean(dataset: str, scale: int, name: str, rows: list[tuple[float, float, float, float]]) -> Quality:
    table = np.array(rows)
    quality, structure = table[:, :2].mean(axis=0)
    trust = float(table[:, 3].mean())
    return Quality(
        dataset, scale, name, float(quality), float(structure), float(table[:, 2].max()), trust, len(rows)
    )


def gemm_seconds() -> float:
    """Time of one 1024^3 float32 matrix product: the machine's yardstick."""
    matrix = np.random.default_rng(0).random((1024, 1024), dtype=np.float32)
    times = []
    for _ in range(8):
        began = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def measure_speed(frames: int = 60) -> list[Speed]:
    """Time per frame of a live 16-bit stream (online alignment), OpenCV on one thread."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yardstick = gemm_seconds()
        results = []
        for width, height, scale in SPEED_CASES:
            stream = _stream(width, height, 8)
            for quality in ("fast", "full"):
                for color in (False, True):
                    enhancer = ClassicalEnhancer(ClassicalConfig(quality=quality, netd=4.0))
                    times = np.array(_times(enhancer, stream, scale, frames, color)) * 1e3
                    results.append(
                        Speed(
                            f"{width}x{height} -> {width * scale}x{height * scale}",
                            color,
                            quality,
                            float(np.median(times[:, 0])),
                            float(np.percentile(times[:, 0], 95)),
                            float(np.median(times[:, 1])),
                            float(np.median(times[:, 1])) / 1e3 / yardstick,
                        )
                    )
        return results
    finally:
        cv2.setNumThreads(threads)


def _stream(width: int, height: int, count: int) -> list[tuple[NDArray[Any], Picture]]:
    """Frames of a smooth random scene drifting sideways: (16-bit thermal, 640x480 RGB)."""
    rng = np.random.default_rng(1)
    scene = cv2.GaussianBlur(rng.random((480, 700)).astype(np.float32), (0, 0), 6)
    scene = np.asarray((scene > np.median(scene)) * 200 + rng.normal(0, 2, scene.shape) + 20, np.float32)
    frames = []
    for shift in range(count):
        view = scene[:, 2 * shift : 2 * shift + 640]
        thermal = cv2.resize(view, (width, height), interpolation=cv2.INTER_AREA) * 20 + 2000
        gray = np.clip(255 - view, 0, 255).astype(np.uint8)
        frames.append((thermal.astype(np.uint16), np.repeat(gray[..., None], 3, axis=2)))
    return frames


def _times(
    enhancer: ClassicalEnhancer,
    stream: list[tuple[NDArray[Any], Picture]],
    scale: int,
    frames: int,
    color: bool,
) -> list[tuple[float, float]]:
    """(wall, thread) seconds of each frame."""
    times = []
    for index in range(frames + 5):
        thermal, rgb = stream[index % len(stream)]
        request = EnhanceRequest(ThermalFrame(thermal), ColorFrame(rgb) if color else None, scale, 0.0)
        began = time.perf_counter(), time.thread_time()
        enhancer(request)
        times.append((time.perf_counter() - began[0], time.thread_time() - began[1]))
    return times[5:]


def quality_table(rows: Sequence[Quality]) -> str:
    """Markdown: one line a set and factor, PSNR / SSIM by condition."""
    lines = ["| set | x | n | " + " | ".join(CONDITIONS) + " |", "|" + "---|" * (len(CONDITIONS) + 3)]
    keys = list(dict.fromkeys((row.dataset, row.scale) for row in rows))
    for dataset, scale in keys:
        found = {row.condition: row for row in rows if (row.dataset, row.scale) == (dataset, scale)}
        cells = [
            f"{found[name].psnr:.2f} / {found[name].ssim:.4f}" if name in found else "-"
            for name in CONDITIONS
        ]
        count = found["bicubic"].pictures
        lines.append(f"| {SETS[dataset]} | {scale} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def speed_table(rows: Sequence[Speed]) -> str:
    """Markdown: one line a case."""
    lines = ["| case | RGB | quality | median ms | p95 ms | CPU ms | yardsticks |", "|" + "---|" * 7]
    for row in rows:
        lines.append(
            f"| {row.case} | {'640x480' if row.rgb else '-'} | {row.quality} | {row.median_ms:.1f} | "
            f"{row.p95_ms:.1f} | {row.cpu_ms:.1f} | {row.yardsticks:.2f} |"
        )
    return "\n".join(lines)


def find_data() -> Path | None:
    """The data pack beside the checkout (../shared/data), or None."""
    for parent in Path(__file__).resolve().parents:
        candidate = parent / "shared" / "data"
        if (candidate / "rgbt_pairs" / "manifest.jsonl").is_file():
            return candidate
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 on success, 2 when there is no data to run it on."""
    parser = argparse.ArgumentParser(prog="thermal-enhance bench enhance", description=__doc__)
    parser.add_argument("--data", type=Path, help="the data pack (default: ../shared/data of the checkout)")
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--scales", nargs="+", type=int, choices=(2, 4, 8), default=[8, 4])
    parser.add_argument("--split", choices=("train", "val"), default="val")
    parser.add_argument("--limit", type=int, default=0, help="pictures a set (default: all)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--only", choices=("quality", "speed"), help="one half of it")
    arguments = parser.parse_args(argv)
    quality: list[Quality] = []
    speed: list[Speed] = []
    say: Callable[[str], object] = sys.stdout.write
    if arguments.only != "speed":
        data = arguments.data or find_data()
        if data is None or not (data / "rgbt_pairs" / "manifest.jsonl").is_file():
            sys.stderr.write("bench enhance: no data pack found; give its folder as --data\n")
            return 2
        for dataset in arguments.sets:
            for scale in arguments.scales:
                quality += measure_quality(data, dataset, scale, limit=arguments.limit, split=arguments.split)
        say(quality_table(quality) + "\n")
    if arguments.only != "quality":
        speed = measure_speed()
        say(speed_table(speed) + "\n")
    if arguments.json is not None:
        figures = {"quality": [asdict(row) for row in quality], "speed": [asdict(row) for row in speed]}
        arguments.json.write_text(json.dumps(_plain(figures), indent=2) + "\n")
    return 0


def _plain(value: Any) -> Any:
    """NaN is no JSON: null instead."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
