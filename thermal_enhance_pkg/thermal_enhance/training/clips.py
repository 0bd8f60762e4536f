"""Seeded windows of thermal video to train the temporal model on.

From every clip or still, a few high-resolution frames: those that become the low-resolution inputs and those
that the outputs are held against. A batch is a pure function of (seed, step), as in `datasets`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thermal_enhance.enhancers.temporal_input import TemporalInputBuilder
from thermal_enhance.imaging.motion import MotionConfig, MotionEstimator
from thermal_enhance.simulation.low_resolution import KERNELS, LowResolutionConfig, downsample
from thermal_enhance.simulation.moving_clips import MovingClipConfig, moving_clip
from thermal_enhance.simulation.sensor import stream_rng
from thermal_enhance.training.footage import LEVELS_CODE, Clip, DataError, Source, chosen_items, load_item
from thermal_enhance.training.manifest import read_pack
from thermal_enhance.training.recipe import DataConfig

Image = NDArray[np.float32]

_BATCH_STREAM = 13
_PSF_SCALE = 8
_EXACT_LEVELS = 0.51


@dataclass(frozen=True)
class WindowConfig:
    """What windows look like; part of `task:` in a temporal recipe.

    Attributes:
        spacings: frames of the source from one input to the next, each at least 2, for a frame between them.
        spacing_weights: how often each is drawn.
        look_ahead: share of windows whose outputs lie one input before the last.
        any_time: share of windows whose new frame lies anywhere between two inputs, not halfway.
        reverse: play clips backwards at random. Not together with the TFM loss: heat flow does not run
            backwards (METHODS 2.8).
        clip_frames: at most so many frames of a video, its first.
        moving: clips made from stills.
        motion: as live.
    """

    spacings: tuple[int, ...] = (2, 4)
    spacing_weights: tuple[float, ...] = (0.7, 0.3)
    look_ahead: float = 0.2
    any_time: float = 0.15
    reverse: bool = False
    clip_frames: int = 90
    moving: MovingClipConfig = field(default_factory=MovingClipConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)

    def __post_init__(self) -> None:
        if len(self.spacings) != len(self.spacing_weights) or not self.spacings:
            raise ValueError("task.windows: spacings and spacing_weights need one entry each")
        if min(self.spacings) < 2 or any(spacing % 2 for spacing in self.spacings):
            raise ValueError(f"task.windows.spacings must be even and at least 2, not {self.spacings}")
        if min(self.spacing_weights) < 0 or sum(self.spacing_weights) <= 0:
            raise ValueError("task.windows.spacing_weights must be at least 0, not all 0")
        for name in ("look_ahead", "any_time"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"task.windows.{name} must lie in 0..1, not {getattr(self, name)}")
        if self.clip_frames < 1:
            raise ValueError(f"task.windows.clip_frames must be at least 1, not {self.clip_frames}")


@dataclass(frozen=True)
class Window:
    """High-resolution frames of one example, levels 0 to 255, all cut and turned alike.

    Attributes:
        inputs: X frames (c, c) float32; they become the low-resolution ones.
        truths: what each output should be: the new frame, then the observed one.
        taus: their times in inputs.
        previous: the input before the new frame: with the two outputs, three moments in a row.
        even: whether these three are evenly spaced.
        id: the item it comes from.
    """

    inputs: list[Image]
    truths: list[Image]
    taus: tuple[float, float]
    previous: Image
    even: bool
    id: str


@dataclass(frozen=True)
class _Plan:
    """Which frames of a clip a window takes, counted from its start."""

    inputs: list[int]
    new: float
    end: int
    taus: tuple[float, float]
    even: bool

    @property
    def length(self) -> int:
        return self.inputs[-1] + 1


class WindowSampler:
    """Draws windows of high-resolution frames.

    Args:
        sources: clips and stills in memory, at least one. Clips shorter than a window are taken for stills.
        data: crop, zoom, flips.
        config: see `WindowConfig`.
        window: X, inputs a window.
        batch: windows a step.
        seed: of the stream.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        data: DataConfig,
        config: WindowConfig,
        window: int,
        batch: int,
        seed: int,
    ) -> None:
        if not sources:
            raise DataError("data.sources: at least one is needed")
        if window < 2 or (config.look_ahead and window < 3):
            raise DataError(f"task.windows: a window of {window} is too short for its look_ahead")
        self._sources, self._data, self._config = list(sources), data, config
        self._window, self._batch, self._seed = window, batch, seed
        weights = np.array([source.weight for source in sources], np.float64)
        self._weights = weights / weights.sum()
        spacing = np.asarray(config.spacing_weights, np.float64)
        self._spacing_shares = spacing / spacing.sum()

    def rng(self, step: int) -> np.random.Generator:
        """The generator of a step; a task goes on with it for what it draws itself."""
        return stream_rng(self._seed, _BATCH_STREAM, step)

    def batch(self, rng: np.random.Generator) -> list[Window]:
        """The windows of a step, from its generator."""
        return [self._draw(rng) for _ in range(self._batch)]

    def _draw(self, rng: np.random.Generator) -> Window:
        source = self._sources[int(rng.choice(len(self._sources), p=self._weights))]
        clip = source.sequences[int(rng.integers(len(source.sequences)))]
        plan = self._plan(rng, len(clip.thermal))
        if len(clip.thermal) >= plan.length:
            frames = self._film(clip, plan, rng)
        else:
            other = source.sequences[int(rng.integers(len(source.sequences)))]
            frames = self._still(clip, other, plan, rng)
        frames = self._turn(frames, rng)
        inputs, new = frames[:-1], frames[-1]
        before = inputs[plan.end - 1]
        return Window(inputs, [new, inputs[plan.end]], plan.taus, before, plan.even, clip.id)

    def _plan(self, rng: np.random.Generator, frames: int) -> _Plan:
        config = self._config
        spacing = int(rng.choice(config.spacings, p=self._spacing_shares))
        ahead = int(rng.random() < config.look_ahead)
        anywhere, place = rng.random() < config.any_time, rng.random()
        if 1 < frames <= spacing * (self._window - 1):
            spacing = 2
        end = self._window - 1 - ahead
        # Only where there is a frame to hold it against; a still can be seen at any time.
        film = frames > spacing * (self._window - 1)
        part = 0.5
        if anywhere:
            part = (1 + int(place * (spacing - 1))) / spacing if film else 0.1 + 0.8 * place
        inputs = [i * spacing for i in range(self._window)]
        new = (end - 1 + part) * spacing
        return _Plan(inputs, new, end, (end - 1 + part, float(end)), part == 0.5)

    def _film(self, clip: Clip, plan: _Plan, rng: np.random.Generator) -> list[Image]:
        config, thermal = self._data, clip.thermal
        first = int(rng.integers(len(thermal) - plan.length + 1))
        places = [*plan.inputs, round(plan.new)]
        if self._config.reverse and rng.integers(2):
            places = [plan.length - 1 - place for place in places]
        height, width = thermal[0].shape
        zoom = min(rng.uniform(1.0, config.zoom_max), max(1.0, min(height, width) / config.crop))
        side = int(config.crop * zoom)
        top, left = (int(rng.integers(max(1, n - side + 1))) for n in (height, width))
        return [_part(thermal[first + place], top, left, side, config.crop) for place in places]

    def _still(self, clip: Clip, other: Clip, plan: _Plan, rng: np.random.Generator) -> list[Image]:
        picture, pieces = (c.thermal[int(rng.integers(len(c.thermal)))] for c in (clip, other))
        code = 255.0 * (LEVELS_CODE if picture.dtype == np.uint16 else 1)
        made = moving_clip(
            picture,
            plan.length,
            (self._data.crop, self._data.crop),
            rng,
            self._config.moving,
            pieces,
            code,
            times=[*plan.inputs, plan.new],
        )
        return list(made * np.float32(255.0 / code))

    def _turn(self, frames: list[Image], rng: np.random.Generator) -> list[Image]:
        turns = int(rng.integers(4)) if self._data.rotate else 0
        mirrored = bool(self._data.flip and rng.integers(2))
        turned = [np.rot90(frame, turns) for frame in frames]
        return [np.ascontiguousarray(frame[:, ::-1] if mirrored else frame) for frame in turned]


class ClipSampler:
    """Batches of ready network inputs. See `task.Sampler`.

    Args:
        windows: where the frames come from.
        low_resolution: how inputs are made of them.
        builder: makes the network's input, as live.
        motion: as live.
    """

    def __init__(
        self,
        windows: WindowSampler,
        low_resolution: LowResolutionConfig,
        builder: TemporalInputBuilder,
        motion: MotionConfig,
    ) -> None:
        self._windows, self._low, self._builder, self._motion = windows, low_resolution, builder, motion

    def batch(self, step: int) -> dict[str, Tensor]:
        """Inputs of one step.

        Returns:
            frames (B, X, 2, h, w), grid, tau and cues as `TemporalBodyInput` has them with B in front; base
            and truth (B, T, 1, c, c) in [-1, 1], T = 2, the new frame and the observed one; low (B, 1, h, w)
            in [-1, 1], the input of the observed output; exact (B,), 1 where it is the block means of the
            truth; previous (B, 1, c, c) in [-1, 1] and even (B,), see `Window`.
        """
        rng = self._windows.rng(step)
        # OpenCV's DIS keeps buffers, and workers share this sampler.
        estimator = MotionEstimator(self._motion)
        made = [self._make(window, rng, estimator) for window in self._windows.batch(rng)]
        return {name: torch.from_numpy(np.stack([entry[name] for entry in made])) for name in made[0]}

    def _make(
        self, window: Window, rng: np.random.Generator, estimator: MotionEstimator
    ) -> dict[str, NDArray[np.float32]]:
        low = degrade(window.inputs, self._builder.scale, rng, self._low)
        motions = [estimator(a, b) for a, b in itertools.pairwise(low)]
        ready = self._builder(low, motions, window.taus)
        observed = low[round(window.taus[1])]
        means = downsample(window.truths[1], self._builder.scale)
        return {
            "frames": np.stack([self._builder.encode(frame) for frame in low]),
            "grid": ready.grid,
            "tau": ready.tau,
            "cues": ready.cues,
            "base": _signed(ready.base)[:, None],
            "truth": _signed(np.stack(window.truths))[:, None],
            "low": _signed(observed)[None],
            "exact": np.float32(np.abs(means - observed).max() <= _EXACT_LEVELS),
            "previous": _signed(window.previous)[None],
            "even": np.float32(window.even),
        }


def degrade(
    frames: Sequence[Image], scale: int, rng: np.random.Generator, config: LowResolutionConfig
) -> list[Image]:
    """Low-resolution frames of one camera: kernel and fixed pattern stay, temporal noise does not.

    Args:
        frames: (H, W) float32 levels.
        scale: whole factor that divides them.
        rng: source of randomness.
        config: the mix; gain changes (`agc_probability`) are not made.

    Returns:
        (H / scale, W / scale) float32 each.
    """
    weights = np.array([getattr(config, name) for name in KERNELS], np.float64)
    kernel = KERNELS[int(rng.choice(len(KERNELS), p=weights / weights.sum()))]
    sigma = rng.uniform(*config.psf_sigma) * scale / _PSF_SCALE
    low = [downsample(frame, scale, kernel, psf_sigma_px=sigma) for frame in frames]
    if rng.random() < config.noise_probability:
        height, width = low[0].shape
        netd, columns, rows = (
            np.float32(rng.uniform(*bounds) * config.full_scale)
            for bounds in (config.netd, config.fixed_pattern, config.fixed_pattern)
        )
        pattern = rng.standard_normal((1, width), dtype=np.float32) * columns
        pattern = pattern + rng.standard_normal((height, 1), dtype=np.float32) * rows
        low = [
            frame + pattern + rng.standard_normal((height, width), dtype=np.float32) * netd for frame in low
        ]
    if config.quantise:
        step = np.float32(config.full_scale / (config.levels - 1))
        low = [np.rint(frame / step) * step for frame in low]
    return [np.clip(frame, 0, np.float32(config.full_scale)).astype(np.float32) for frame in low]


def load_clips(
    pack: Path,
    data: DataConfig,
    split: str = "train",
    *,
    clip_frames: int = 90,
    note: Callable[[str], object] = lambda _text: None,
) -> list[Source]:
    """Read what a recipe trains on into memory: thermal alone, consecutive frames of videos.

    Args:
        pack: folder of the data pack.
        data: sources, licences, crop. A source's `stride` does not apply: windows need every frame.
        split: "train" or "val".
        clip_frames: at most so many frames of a video.
        note: told one line a source.

    Raises:
        ManifestError: the pack's manifests cannot be used.
        DataError: a source is unknown or has nothing to offer, or a file cannot be read.
    """
    items = read_pack(pack)
    sources = []
    for entry in data.sources:
        chosen = chosen_items(items, entry, split, data.licences)
        clips = [
            load_item(replace(item, frames=min(item.frames, clip_frames)), use_rgb=False) for item in chosen
        ]
        fitting = [clip for clip in clips if min(clip.thermal[0].shape) >= data.crop]
        if not fitting:
            raise DataError(f"data.sources: {entry.dataset} has no {split} item for crops of {data.crop}")
        sources.append(Source(entry.dataset, entry.weight, fitting))
        size = sum(clip.nbytes for clip in fitting) / 2**20
        note(f"{entry.dataset}: {len(fitting)} clips or stills, {size:.0f} MiB")
    return sources


def _part(frame: NDArray[Any], top: int, left: int, side: int, size: int) -> Image:
    part = frame[top : top + side, left : left + side].astype(np.float32)
    if part.shape[0] != size:
        part = np.asarray(cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    return part / np.float32(LEVELS_CODE) if frame.dtype == np.uint16 else part


def _signed(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    return levels / np.float32(127.5) - np.float32(1.0)
