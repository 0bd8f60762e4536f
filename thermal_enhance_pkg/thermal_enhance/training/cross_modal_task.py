"""Training of the cross-modal model: samples with imperfectly aligned RGB, loss, validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from thermal_enhance.enhancers.cross_modal_input import CrossModalInputBuilder, Guide
from thermal_enhance.networks.cross_modal.adapter import has_adapter, save_adapter
from thermal_enhance.networks.cross_modal.exporting import CONFIG_KEY, PRETRAINED_KEY
from thermal_enhance.networks.cross_modal.model import CrossModalModel
from thermal_enhance.networks.cross_modal.provider import build, split
from thermal_enhance.simulation.low_resolution import downsample, synthesize
from thermal_enhance.simulation.misalignment import (
    Matrix,
    degrade_color,
    random_homography,
    warp_color,
)
from thermal_enhance.training import cross_modal_losses as losses
from thermal_enhance.training.cross_modal_validation import Validation
from thermal_enhance.training.datasets import CropSampler, Sample, Source, load_sources
from thermal_enhance.training.ema import trained_state
from thermal_enhance.training.losses import WeightedLoss
from thermal_enhance.training.mapping import from_mapping
from thermal_enhance.training.recipe import Recipe


@dataclass(frozen=True)
class CrossModalTraining:
    """Settings of `task:` in a cross-modal recipe.

    Attributes:
        scales: factors trained on.
        scale_weights: how often each is drawn.
        thermal_only: share of steps without RGB (its dropout, METHODS 1.11), on which thermal-only data is
            used as well.
        alignment_error_px: standard deviations, at x8, of what the alignment leaves at the corners; one is
            drawn for each sample. Live, the estimated alignment has taken the rest out already.
        alignment_error_weights: how often each is drawn.
        raw_misalignment: share of samples whose RGB is misaligned as `misalignment` says, with no alignment
            at all: 0 with an alignment stage in front, 1 as in the paper.
        classical_guide: feed the classical guided result; without it the base has no RGB in it.
        project: meet the input's block means inside the loss, as the consistency step does live.
        validation_pictures: at most so many of each set.
        features_from: weights of a trained cross-modal model, for the loss term "features".
    """

    scales: tuple[int, ...] = (8, 4)
    scale_weights: tuple[float, ...] = (0.75, 0.25)
    thermal_only: float = 0.2
    alignment_error_px: tuple[float, ...] = (0.3, 1.5, 4.0)
    alignment_error_weights: tuple[float, ...] = (0.4, 0.4, 0.2)
    raw_misalignment: float = 0.05
    classical_guide: bool = True
    project: bool = True
    validation_pictures: int = 8
    features_from: Path | None = None

    def __post_init__(self) -> None:
        for values, weights in (
            ("scales", "scale_weights"),
            ("alignment_error_px", "alignment_error_weights"),
        ):
            if len(getattr(self, values)) != len(getattr(self, weights)) or not getattr(self, values):
                raise ValueError(f"task.{values} and task.{weights} need one entry each")
        if any(scale not in (2, 4, 8) for scale in self.scales):
            raise ValueError(f"task.scales may hold 2, 4 and 8, not {self.scales}")
        for name in ("thermal_only", "raw_misalignment"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"task.{name} must lie in 0..1, not {getattr(self, name)}")
        if self.validation_pictures < 1:
            raise ValueError(f"task.validation_pictures must be at least 1, not {self.validation_pictures}")


class CrossModalSampler:
    """Batches of ready network inputs; every step has one scale and either one or two views.

    Args:
        recipe: data, low_resolution, misalignment, batch, seed.
        settings: see `CrossModalTraining`.
        sources: pictures in memory.
        builder: makes the network's input, as live.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: CrossModalTraining,
        sources: list[Source],
        builder: CrossModalInputBuilder,
    ) -> None:
        self.recipe, self.settings, self.builder = recipe, settings, builder
        paired = [_with_rgb(source) for source in sources]
        paired = [source for source in paired if source.sequences]
        self._all = CropSampler(sources, recipe.data, recipe.batch, recipe.seed)
        self._paired = CropSampler(paired, recipe.data, recipe.batch, recipe.seed) if paired else None

    def batch(self, step: int) -> dict[str, Tensor]:
        """Inputs of one step.

        Returns:
            thermal (B, 3, c, c) in [-1, 1]; rgb likewise, absent on thermal-only steps; truth (B, 1, c, c)
            in [-1, 1]; low (B, 1, c / scale, c / scale) in [-1, 1]; exact (B,), 1 where `low` is the block
            means of the truth.
        """
        settings, rng = self.settings, self._all.rng(step)
        alone = self._paired is None or rng.random() < settings.thermal_only
        scale = int(rng.choice(settings.scales, p=_shares(settings.scale_weights)))
        source = self._all if alone or self._paired is None else self._paired
        samples = source.batch(step, rng)
        made = [self._make(sample, scale, not alone, rng) for sample in samples]
        names = made[0].keys()
        return {name: torch.from_numpy(np.stack([entry[name] for entry in made])) for name in names}

    def _make(
        self, sample: Sample, scale: int, use_rgb: bool, rng: np.random.Generator
    ) -> dict[str, NDArray[np.float32]]:
        low = synthesize(sample["hr"], scale, rng, self.recipe.low_resolution)
        guide = self._guide(sample, scale, rng) if use_rgb else None
        ready = self.builder(low.low, scale, guide)
        means = downsample(low.high, scale)
        exact = float(low.kernel == "area" and np.abs(means - low.low).max() <= 0.51)
        entry = {
            "thermal": ready.thermal,
            "truth": _signed(low.high)[None],
            "low": _signed(low.low)[None],
            "exact": np.float32(exact),
        }
        if use_rgb:
            assert ready.rgb is not None
            entry["rgb"] = ready.rgb
        return entry

    def _guide(self, sample: Sample, scale: int, rng: np.random.Generator) -> Guide:
        config = self.recipe
        side = config.data.crop
        context = sample["rgb_context"]
        assert context is not None  # the paired sources hold nothing else
        matrix, fill = self._misalignment((side, side), scale, rng)
        color = warp_color(context, matrix, fill, margin=config.data.margin)
        color = degrade_color(color, rng, config.misalignment)
        coverage = np.ones((side // scale, side // scale), np.float32)
        return Guide(color.astype(np.float32), coverage)

    def _misalignment(
        self, size: tuple[int, int], scale: int, rng: np.random.Generator
    ) -> tuple[Matrix, str]:
        settings = self.settings
        if rng.random() < settings.raw_misalignment:
            return random_homography(rng, size, self.recipe.misalignment)
        sigma = rng.choice(settings.alignment_error_px, p=_shares(settings.alignment_error_weights))
        sigma = float(sigma) * scale / 8
        if sigma == 0.0:
            return np.eye(3), "black"
        width, height = size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
        # Mostly a common shift: what a crop sees of a small error of the whole frame.
        moved = corners + rng.normal(0, sigma, 2) + rng.normal(0, 0.3 * sigma, (4, 2))
        matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
        return np.asarray(matrix, np.float64), "reflect"


class CrossModalTask:
    """See `trainer.Task`.

    Args:
        recipe: the run.
        pack: folder of the data pack.
    """

    def __init__(self, recipe: Recipe, pack: Path) -> None:
        self.recipe, self.pack = recipe, pack
        self.settings = from_mapping(CrossModalTraining, recipe.task, "task")
        self.builder = CrossModalInputBuilder(guided_base=self.settings.classical_guide)
        self._validation: Validation | None = None
        self._loss: WeightedLoss | None = None

    def build_model(self, recipe: Recipe) -> CrossModalModel:
        """The network; a task LoRA stays frozen until prompts are trained."""
        model = build(recipe.model)
        for name, parameter in model.named_parameters():
            if name.endswith((".lora_down", ".lora_up")):
                parameter.requires_grad_(False)
        return model

    def sampler(self, recipe: Recipe, split: str) -> CrossModalSampler:
        """Batches of a split."""
        return CrossModalSampler(
            recipe, self.settings, load_sources(self.pack, recipe.data, split), self.builder
        )

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """Weighted terms of `loss:`; see `cross_modal_losses.build`."""
        made = model(batch["thermal"], batch.get("rgb")).float()
        if self.settings.project:
            made = meet_block_means(made, batch["low"], batch["exact"])
        # In shares of the range: 0 to 1.
        made, truth = (made + 1.0) / 2.0, (batch["truth"] + 1.0) / 2.0
        if self._loss is None:
            weights = self.recipe.loss or {"psnr": 1.0, "gradient": 0.5}
            self._loss = losses.build(weights, made.device, self.settings.features_from)
        loss, parts = self._loss(made, truth)
        base = (batch["thermal"][:, :1] + 1.0) / 2.0
        return loss, {**parts, "gain_db": losses.gain_db(made.detach(), base, truth)}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Gain over bicubic, dB, by set and condition; first the mean with aligned RGB."""
        return self.validation.scores(model)

    def montage(self, model: nn.Module) -> NDArray[np.uint8]:
        """Bicubic, base, enhanced without and with RGB, truth, RGB; one row a picture."""
        return self.validation.montage(model)

    def save_weights(self, model: nn.Module, path: Path) -> None:
        """Write the weights, half precision, as they ship; of published weights the adapter alone.

        The adapter is written as a folder beside them too (see `adapter.save_adapter`).
        """
        from thermal_enhance.training.checkpoint import save_tensors

        assert isinstance(model, CrossModalModel)
        state = model.state_dict()
        header = {"format": "pt", CONFIG_KEY: json.dumps(model.config.to_dict())}
        if has_adapter(model):
            state = trained_state(model)
            settings, _ = split(self.recipe.model)
            assert settings is not None
            header[PRETRAINED_KEY] = json.dumps(asdict(settings))
            # The trainer renames the file once it is whole; the folder gets its final name at once.
            save_adapter(model, path.with_name(path.stem.removeprefix(".part-") + ".adapter"))
        tensors = {
            name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in state.items()
        }
        save_tensors(path, tensors, header)

    @property
    def validation(self) -> Validation:
        """The validation pictures, read when first needed."""
        if self._validation is None:
            self._validation = Validation(self.pack, self.builder, self.settings.validation_pictures)
        return self._validation


def build_task(recipe: Recipe, pack: Path) -> CrossModalTask:
    """What `thermal-enhance train` calls; the ablation switch `rgb: false` trains without RGB."""
    if not recipe.ablation.get("rgb", True):
        recipe = replace(recipe, task={**recipe.task, "thermal_only": 1.0})
    return CrossModalTask(recipe, pack)


def meet_block_means(made: Tensor, low: Tensor, exact: Tensor | None = None) -> Tensor:
    """Back-projection to the input's block means: smoothly, then the rest (`imaging.consistency`).

    Args:
        made: (B, 1, H, W).
        low: (B, 1, h, w), same range.
        exact: (B,) 1 where it applies; None for everywhere.
    """
    scale = made.shape[-1] // low.shape[-1]
    weight = 1.0 if exact is None else exact.reshape(-1, 1, 1, 1)
    gap = (low - functional.avg_pool2d(made, scale)) * weight
    made = made + functional.interpolate(gap, scale_factor=scale, mode="bilinear", align_corners=False)
    rest = (low - functional.avg_pool2d(made, scale)) * weight
    return made + functional.interpolate(rest, scale_factor=scale, mode="nearest")


def _with_rgb(source: Source) -> Source:
    return Source(source.name, source.weight, [s for s in source.sequences if s.rgb])


def _signed(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    return levels / np.float32(127.5) - np.float32(1.0)


def _shares(weights: tuple[float, ...]) -> NDArray[np.float64]:
    values = np.asarray(weights, np.float64)
    return values / values.sum()
