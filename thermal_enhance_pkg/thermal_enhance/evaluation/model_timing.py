"""Time and memory of a model's graph, and of the whole enhancer around it. Each in a process of its own."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.enhancers.base import Enhancer, EnhanceRequest
from thermal_enhance.enhancers.cross_modal import CrossModalEnhancer, CrossModalEnhancerConfig
from thermal_enhance.evaluation.bench_stats import LatencySummary
from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame
from thermal_enhance.runtime.store import ModelStore

T = TypeVar("T")
WARM_RUNS = 5
FRAME_S = 1 / 30


@dataclass(frozen=True)
class Subject:
    """What is timed.

    Attributes:
        folders: where models are looked for.
        model: name.
        role: of the graph; for an enhancer "two_view" is with RGB.
        profile: (width, height) of the graph.
        precision: of the graph.
        device: to run on.
        threads: CPU threads; 0 for all.
        runs: timed runs.
    """

    folders: tuple[Path, ...]
    model: str
    role: str
    profile: tuple[int, int]
    precision: str
    device: str
    threads: int
    runs: int


@dataclass(frozen=True)
class Timing:
    """What was measured.

    Attributes:
        latency: of a run or frame.
        cpu_ms: median processor time of one, all threads together: what is left when nothing else runs.
        device: it ran on.
        load_cold_ms: to the first result, files not in memory before; NaN for an enhancer.
        load_warm_ms: the same once more; NaN for an enhancer.
        peak_mb: most memory the process took beyond what it had before loading.
        rgb_used: share of frames in whose picture RGB had a part; NaN for a graph.
        stage_ms: median by stage, of an enhancer.
    """

    latency: LatencySummary
    cpu_ms: float = float("nan")
    device: str = ""
    load_cold_ms: float = float("nan")
    load_warm_ms: float = float("nan")
    peak_mb: float = float("nan")
    rgb_used: float = float("nan")
    stage_ms: dict[str, float] = field(default_factory=dict)


def alone(function: Callable[[Subject], T], subject: Subject) -> T:
    """Run it in a fresh process: peak memory and cold loading are a process's own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, subject).result()


def time_graph(subject: Subject) -> Timing:
    """Load a graph cold and warm, then run it on noise."""
    store = ModelStore(list(subject.folders))
    folder = store.folder(subject.model)
    for path in folder.iterdir():
        drop_from_memory(path)
    before = peak_mb()

    def load() -> tuple[Any, float]:
        began = time.perf_counter()
        graph = store.open(subject.model).load(
            subject.role,
            subject.profile,
            subject.device,
            precision=subject.precision,
            threads=subject.threads,
        )
        graph.warm_up()
        return graph, 1e3 * (time.perf_counter() - began)

    graph, cold = load()
    rng = np.random.default_rng(0)
    feeds = {name: rng.uniform(-1, 1, spec.shape).astype(spec.dtype) for name, spec in graph.inputs.items()}
    times = _times(lambda: graph.run(feeds), subject.runs)
    peak = peak_mb() - before
    device = graph.device
    graph.close()
    graph, warm = load()
    graph.close()
    return _timing(times, device=device, load_cold_ms=cold, load_warm_ms=warm, peak_mb=peak)


def time_enhancer(subject: Subject) -> Timing:
    """A live stream of 16-bit frames through the whole enhancer: alignment, guide, model, consistency."""
    store = ModelStore(list(subject.folders))
    with_rgb = subject.role == "two_view"
    before = peak_mb()
    config = CrossModalEnhancerConfig(
        model=subject.model,
        device=subject.device,
        threads=subject.threads,
        precision=subject.precision,
        netd=4.0,
    )
    scale = max(store.describe(subject.model).scales)
    enhancer: Enhancer = CrossModalEnhancer(config, store)
    frames = stream(subject.profile, scale, 8)
    used: list[bool] = []
    stages: list[dict[str, float]] = []
    times: list[tuple[float, float]] = []
    for index in range(WARM_RUNS + subject.runs):
        thermal, color = frames[index % len(frames)]
        request = EnhanceRequest(
            ThermalFrame(thermal, stamp_ns=round(index * FRAME_S * 1e9)),
            ColorFrame(color) if with_rgb else None,
            scale,
            0.0 if with_rgb else float("nan"),
        )
        began = _clocks()
        result = enhancer(request)
        if index >= WARM_RUNS:
            times.append(_since(began))
            used.append(result.rgb_used)
            stages.append(dict(result.stage_ms))
    enhancer.close()
    names = dict.fromkeys(name for stage in stages for name in stage)
    medians = {name: float(np.median([stage.get(name, 0.0) for stage in stages])) for name in names}
    return _timing(
        times,
        peak_mb=peak_mb() - before,
        rgb_used=float(np.mean(used)),
        stage_ms=medians,
    )


def stream(
    profile: tuple[int, int], scale: int, count: int
) -> Sequence[tuple[NDArray[np.uint16], NDArray[np.uint8]]]:
    """Frames of a random scene of blobs drifting sideways: (16-bit thermal, RGB of the output's size)."""
    width, height = profile
    rng = np.random.default_rng(1)
    scene = cv2.GaussianBlur(rng.random((height, width + 2 * count)).astype(np.float32), (0, 0), 6)
    scene = np.asarray((scene > np.median(scene)) * 200 + rng.normal(0, 2, scene.shape) + 20, np.float32)
    frames = []
    for shift in range(count):
        view = scene[:, 2 * shift : 2 * shift + width]
        size = (width // scale, height // scale)
        thermal = cv2.resize(view, size, interpolation=cv2.INTER_AREA) * 20 + 2000
        gray = np.clip(255 - view, 0, 255).astype(np.uint8)
        frames.append((thermal.astype(np.uint16), np.repeat(gray[..., None], 3, axis=2)))
    return frames


def peak_mb() -> float:
    """Most memory this process has had so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def drop_from_memory(path: Path) -> None:
    """Ask the kernel to forget a file's pages, so that reading it means the disk; needs no rights."""
    if not hasattr(os, "posix_fadvise") or not path.is_file():
        return
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _times(run: Callable[[], object], runs: int) -> list[tuple[float, float]]:
    """(wall, processor) milliseconds of each run after the first few."""
    times = []
    for index in range(WARM_RUNS + runs):
        began = _clocks()
        run()
        if index >= WARM_RUNS:
            times.append(_since(began))
    return times


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    wall, processor = _clocks()
    return 1e3 * (wall - began[0]), 1e3 * (processor - began[1])


def _timing(times: Sequence[tuple[float, float]], **figures: Any) -> Timing:
    wall, processor = zip(*times)
    return Timing(LatencySummary.of(wall), float(np.median(processor)), **figures)
