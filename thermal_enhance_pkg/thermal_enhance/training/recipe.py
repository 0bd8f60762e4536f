"""Recipes: everything that decides a training run, in one YAML file.

A recipe may name another as `base` (relative to itself) and say only what differs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from thermal_enhance.simulation.low_resolution import LowResolutionConfig
from thermal_enhance.simulation.misalignment import MisalignmentConfig
from thermal_enhance.training.manifest import LICENCES
from thermal_enhance.training.mapping import MappingError, from_mapping, to_mapping

PRECISIONS = ("fp32", "bf16")
_BUDGET = ("steps", "max_minutes", "log_every", "checkpoint_minutes", "description")
"""What may differ between a run and its continuation."""


class RecipeError(ValueError):
    """A recipe cannot be used; the message names the file, the key and the reason."""


@dataclass(frozen=True)
class SourceConfig:
    """One data set of the pack.

    Attributes:
        dataset: short name, see `manifest.Item.dataset`.
        weight: how often it is drawn from, against the other sources.
        stride: of clips, take every so-many-th frame.
        limit: at most so many pictures or clips, evenly thinned; 0 for all.
        ids: only items whose id starts with one of these; empty for all (an overfit control names one).
        use_rgb: load its RGB where there is some.
    """

    dataset: str
    weight: float = 1.0
    stride: int = 1
    limit: int = 0
    ids: tuple[str, ...] = ()
    use_rgb: bool = True

    def __post_init__(self) -> None:
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise ValueError(
                f"data.sources: weight of {self.dataset} must be greater than 0, not {self.weight}"
            )
        if self.stride < 1 or self.limit < 0:
            raise ValueError(
                f"data.sources: stride of {self.dataset} must be at least 1 and limit at least 0: "
                f"{self.stride}, {self.limit}"
            )


@dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Attributes:
        sources: the data sets.
        licences: licence classes allowed (`manifest.LICENCES`); empty for all.
        crop: side of the square crops, pixels, a multiple of 32.
        margin: pixels of real RGB kept around a crop, for warps.
        zoom_max: crops of up to this times the size are reduced to it (area): sharper truth, more variety.
        flip: mirror at random.
        rotate: turn by quarters at random.
        desync_frames: RGB of clips may come from up to so many frames earlier or later.
        desync_probability: how often it does.
        workers: threads that prepare batches.
    """

    sources: tuple[SourceConfig, ...]
    licences: tuple[str, ...] = ()
    crop: int = 256
    margin: int = 64
    zoom_max: float = 1.0
    flip: bool = True
    rotate: bool = True
    desync_frames: int = 0
    desync_probability: float = 0.0
    workers: int = 2

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("data.sources: at least one is needed")
        unknown = sorted(set(self.licences) - set(LICENCES))
        if unknown:
            raise ValueError(f"data.licences: unknown {', '.join(unknown)}; known: {', '.join(LICENCES)}")
        if self.crop < 32 or self.crop % 32:
            raise ValueError(f"data.crop must be a multiple of 32, not {self.crop}")
        if not 0 <= self.margin <= 4 * self.crop:
            raise ValueError(f"data.margin must be within 0..{4 * self.crop}, not {self.margin}")
        if not 1 <= self.zoom_max <= 4:
            raise ValueError(f"data.zoom_max must be within 1..4, not {self.zoom_max}")
        if self.desync_frames < 0 or not 0 <= self.desync_probability <= 1:
            raise ValueError(
                "data.desync_frames must be at least 0 and desync_probability within 0..1: "
                f"{self.desync_frames}, {self.desync_probability}"
            )
        if not 1 <= self.workers <= 64:
            raise ValueError(f"data.workers must be within 1..64, not {self.workers}")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW (3M-TI: lr 2e-5 constant, betas .9/.999, weight decay 1e-2, clip 1).

    Attributes:
        lr: peak learning rate.
        betas: decay of the two moments.
        weight_decay: of matrices and kernels; biases and norms have none.
        clip: largest norm of the gradient; 0 for no limit.
        warmup_steps: steps over which the rate rises from 0.
        schedule: "cosine" or "constant" after that.
        final_lr: rate at the end of the cosine, as a share of lr.
        ema: decay of the averaged weights, which are validated and saved; 0 for none.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    clip: float = 1.0
    warmup_steps: int = 100
    schedule: str = "cosine"
    final_lr: float = 0.01
    ema: float = 0.999

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"optimiser.lr must be greater than 0, not {self.lr}")
        if not all(0 <= beta < 1 for beta in (*self.betas, self.ema)):
            raise ValueError(f"optimiser.betas and ema must be within 0..1: {self.betas}, {self.ema}")
        if self.weight_decay < 0 or self.clip < 0 or self.warmup_steps < 0:
            raise ValueError("optimiser.weight_decay, clip and warmup_steps must not be negative")
        if self.schedule not in ("cosine", "constant") or not 0 <= self.final_lr <= 1:
            raise ValueError(
                "optimiser.schedule must be cosine or constant and final_lr within 0..1: "
                f"{self.schedule!r}, {self.final_lr}"
            )


@dataclass(frozen=True)
class ValidationConfig:
    """When to validate and what decides the best weights.

    Attributes:
        every: steps between validations; 0 for only at the end.
        monitor: key of the task's scores; empty for its first.
        mode: "max" or "min".
    """

    every: int = 500
    monitor: str = ""
    mode: str = "max"

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"validation.every must be at least 0, not {self.every}")
        if self.mode not in ("max", "min"):
            raise ValueError(f"validation.mode must be max or min, not {self.mode!r}")


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes:
        name: of the run and of the model it makes.
        method: which task trains it, for instance "cross_modal".
        data: what is trained on.
        description: one line.
        model: the network's configuration; the method knows its keys.
        task: settings of the method's own, such as curricula and validation sets.
        ablation: the method's switches of METHODS 1.12.
        loss: weights of the loss terms.
        low_resolution: how low-resolution inputs are made.
        misalignment: what happens to the RGB.
        optimiser: AdamW and its schedule.
        validation: when and by what.
        batch: pictures a step.
        steps: end of the run; None if only the clock ends it.
        max_minutes: the run ends, annealed, after so long; None for no limit.
        seed: everything random is a function of it.
        precision: "fp32" or "bf16" (autocast).
        channels_last: memory layout of the network; often faster for convolutions.
        compile: run the network through torch.compile.
        log_every: steps between rows of the log.
        checkpoint_minutes: time between checkpoints.
        init_from: weights to start from (safetensors), relative to the recipe.
    """

    name: str
    method: str
    data: DataConfig
    description: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    ablation: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, float] = field(default_factory=dict)
    low_resolution: LowResolutionConfig = field(default_factory=LowResolutionConfig)
    misalignment: MisalignmentConfig = field(default_factory=MisalignmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    batch: int = 4
    steps: int | None = None
    max_minutes: float | None = None
    seed: int = 0
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    log_every: int = 20
    checkpoint_minutes: float = 5.0
    init_from: Path | None = None

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name must be a word without slashes, not {self.name!r}")
        if self.steps is None and self.max_minutes is None:
            raise ValueError("steps or max_minutes: one of them must say when the run ends")
        if (self.steps is not None and self.steps < 1) or not (
            self.max_minutes is None or self.max_minutes > 0
        ):
            raise ValueError(
                f"steps and max_minutes must be greater than 0: {self.steps}, {self.max_minutes}"
            )
        if self.batch < 1 or self.log_every < 1:
            raise ValueError(f"batch and log_every must be at least 1: {self.batch}, {self.log_every}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be within 0..{2**31 - 1}, not {self.seed}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if not self.checkpoint_minutes > 0:
            raise ValueError(f"checkpoint_minutes must be greater than 0, not {self.checkpoint_minutes}")

    def to_mapping(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return to_mapping(self)

    def identity(self) -> dict[str, str]:
        """A digest of each key that a continued run must have unchanged."""
        plain = {key: value for key, value in self.to_mapping().items() if key not in _BUDGET}
        return {
            key: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
            for key, value in plain.items()
        }


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file.
        overrides: `key=value` texts with dotted keys, value in YAML, applied last.

    Raises:
        RecipeError: unreadable, an unknown key, or a value that does not fit; the message names the file.
    """
    mapping = _read(path, ())
    for text in overrides:
        _override(mapping, text)
    try:
        recipe = from_mapping(Recipe, mapping)
    except MappingError as error:
        raise RecipeError(f"{path}: {error}") from error
    return recipe


def _read(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(mapping, dict):
        raise RecipeError(f"{path}: must be a mapping of keys to values")
    if isinstance(mapping.get("init_from"), str):
        mapping["init_from"] = str((path.parent / mapping["init_from"]).resolve())
    base = mapping.pop("base", None)
    if base is None:
        return mapping
    target = (path.parent / str(base)).resolve()
    if target in (path.resolve(), *below):
        raise RecipeError(f"{path}: base: {base} leads back to this file")
    return merge(_read(target, (path.resolve(), *below)), mapping)


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `change` laid over it, mappings merged and everything else replaced."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _override(mapping: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {text}: must be key=value, for instance optimiser.lr=2e-4")
    *path, last = key.split(".")
    place: Any = mapping
    for part in path:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise RecipeError(f"--set {text}: {part} has no keys of its own")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {text}: the value is not YAML: {error}") from error
