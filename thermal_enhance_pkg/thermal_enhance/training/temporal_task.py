"""Training of the temporal model: windows of video, loss on new and observed frames, validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thermal_enhance.enhancers.temporal_input import TemporalInputBuilder
from thermal_enhance.networks.temporal.configuration import TemporalConfig
from thermal_enhance.networks.temporal.exporting import CONFIG_KEY
from thermal_enhance.networks.temporal.model import TemporalModel
from thermal_enhance.networks.temporal.sizes import SIZES
from thermal_enhance.training import cross_modal_losses
from thermal_enhance.training.checkpoint import CheckpointError, load_tensors, save_tensors
from thermal_enhance.training.clips import ClipSampler, WindowConfig, WindowSampler, load_clips
from thermal_enhance.training.cross_modal_task import meet_block_means
from thermal_enhance.training.losses import WeightedLoss
from thermal_enhance.training.mapping import from_mapping
from thermal_enhance.training.recipe import Recipe
from thermal_enhance.training.temporal_validation import Validation, ValidationWindows
from thermal_enhance.training.tfm_loss import TfmConfig, TfmLoss

TFM = "tfm"
DEFAULT_LOSS = {"psnr": 1.0, "gradient": 0.2}


@dataclass(frozen=True)
class TemporalTraining:
    """Settings of `task:` in a temporal recipe.

    Attributes:
        windows: what is drawn of the clips, see `WindowConfig`.
        tfm: the heat conduction loss, whose weight is `loss.tfm`.
        project: meet the input's block means inside the loss, as the consistency step does live; observed
            frames alone, there is no input to hold a new one against.
        validation: how many windows of each set.
    """

    windows: WindowConfig = field(default_factory=WindowConfig)
    tfm: TfmConfig = field(default_factory=TfmConfig)
    project: bool = True
    validation: ValidationWindows = field(default_factory=ValidationWindows)


class TrainedTemporal(nn.Module):
    """The network, and what is learnt with it but not shipped.

    Args:
        model: the network.
        tfm: the loss whose diffusivity is learnt; None without it.
    """

    def __init__(self, model: TemporalModel, tfm: TfmLoss | None) -> None:
        super().__init__()
        self.model = model
        self.tfm = tfm

    def forward(self, frames: Tensor, grid: Tensor, tau: Tensor, cues: Tensor) -> Tensor:
        """See `TemporalModel.forward`."""
        made: Tensor = self.model(frames, grid, tau, cues)
        return made


class TemporalTask:
    """See `trainer.Task`.

    Args:
        recipe: the run.
        pack: folder of the data pack.

    Raises:
        ValueError: settings that do not go together.
    """

    def __init__(self, recipe: Recipe, pack: Path) -> None:
        self.recipe, self.pack = recipe, pack
        self.settings = from_mapping(TemporalTraining, recipe.task, "task")
        self.config = configuration(recipe.model)
        self.builder = TemporalInputBuilder(self.config.scale)
        weights = dict(recipe.loss or DEFAULT_LOSS)
        self._tfm_weight = float(weights.pop(TFM, 0.0))
        self._weights = weights
        self._loss: WeightedLoss | None = None
        self._validation: Validation | None = None
        if self._tfm_weight and self.settings.windows.reverse:
            raise ValueError("task.windows.reverse: heat flow does not run backwards; set loss.tfm to 0")
        if recipe.data.crop % (8 * self.config.scale):
            raise ValueError(
                f"data.crop must be a multiple of {8 * self.config.scale} for scale {self.config.scale}"
            )

    def build_model(self, recipe: Recipe) -> TrainedTemporal:
        """The network, and the learnt diffusivity where the TFM loss counts.

        Args:
            recipe: not looked at; a trainer has it as it was written, without the switches applied.
        """
        tfm = TfmLoss(self.settings.tfm) if self._tfm_weight else None
        return TrainedTemporal(TemporalModel(self.config), tfm)

    def sampler(self, recipe: Recipe, split: str) -> ClipSampler:
        """Batches of a split."""
        settings = self.settings.windows
        sources = load_clips(self.pack, recipe.data, split, clip_frames=settings.clip_frames)
        windows = WindowSampler(sources, recipe.data, settings, self.config.window, recipe.batch, recipe.seed)
        return ClipSampler(windows, recipe.low_resolution, self.builder, settings.motion)

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """Weighted terms of `loss:` over both outputs, and the TFM loss.

        The TFM loss needs three moments half an input apart, and a window has two outputs: the input before
        the new frame is put in front, from the truth. It could not be made worse by the network, and a third
        output would cost half as much again.
        """
        residual = model(batch["frames"], batch["grid"], batch["tau"], batch["cues"]).float()
        made = batch["base"] + residual
        new, observed = made[:, 0], made[:, 1]
        if self.settings.project:
            observed = meet_block_means(observed, batch["low"], batch["exact"])
        # In shares of the range: 0 to 1.
        pictures, truth, base = (
            (x.flatten(0, 1) + 1.0) / 2.0
            for x in (torch.stack([new, observed], 1), batch["truth"], batch["base"])
        )
        if self._loss is None:
            self._loss = WeightedLoss(self._weights, extra=cross_modal_losses.TERMS, device=made.device)
        loss, parts = self._loss(pictures, truth)
        if self._tfm_weight:
            tfm = getattr(model, "tfm", None)
            assert isinstance(tfm, TfmLoss)
            before = (batch["previous"] + 1.0) / 2.0
            three = [
                torch.cat([before, x.unflatten(0, made.shape[:2])[:, :, 0]], 1) for x in (pictures, truth)
            ]
            term = tfm(three[0], three[1], batch["even"])
            loss = loss + self._tfm_weight * self._ramp(step) * term
            parts |= {TFM: float(term.detach()), "diffusivity": float(tfm.diffusivity.detach())}
        gains = {
            f"{name}_gain_db": cross_modal_losses.gain_db(pictures[i::2].detach(), base[i::2], truth[i::2])
            for i, name in enumerate(("new", "observed"))
        }
        return loss, {**parts, **gains}

    def _ramp(self, step: int) -> float:
        """Weight of the TFM loss, 0 to 1: by steps, or by the warm-up where only the clock ends the run."""
        steps = self.recipe.steps
        length = self.settings.tfm.ramp * steps if steps else 5.0 * self.recipe.optimiser.warmup_steps
        return min(1.0, step / length) if length else 1.0

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Gains in dB, see `Validation.scores`; first the mean that decides which weights are best."""
        return self.validation.scores(model)

    def montage(self, model: nn.Module) -> NDArray[np.uint8]:
        """See `Validation.montage`."""
        return self.validation.montage(model)

    def save_weights(self, model: nn.Module, path: Path) -> None:
        """Write the network's weights, half precision, as they ship."""
        assert isinstance(model, TrainedTemporal)
        tensors = {
            name: tensor.detach().to("cpu", torch.float16).contiguous()
            for name, tensor in model.model.state_dict().items()
        }
        save_tensors(path, tensors, {"format": "pt", CONFIG_KEY: json.dumps(model.model.config.to_dict())})

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Start from shipped weights of the same shape.

        Raises:
            CheckpointError: they are of another.
        """
        assert isinstance(model, TrainedTemporal)
        found, _ = load_tensors(path)
        try:
            model.model.load_state_dict({name: tensor.float() for name, tensor in found.items()})
        except RuntimeError as error:
            raise CheckpointError(f"{path}: weights of another shape: {error}") from error

    @property
    def validation(self) -> Validation:
        """The validation windows, read when first needed."""
        if self._validation is None:
            settings = self.settings
            self._validation = Validation(
                self.pack, self.builder, self.config.window, settings.windows, settings.validation
            )
        return self._validation


def configuration(values: Mapping[str, object]) -> TemporalConfig:
    """The configuration of `model:`: what its `size` stands for, and what is said otherwise.

    Raises:
        ValueError: an unknown size or key, or a bad value.
    """
    size = str(values.get("size", "nano"))
    if size not in SIZES:
        raise ValueError(f"model.size must be one of {', '.join(SIZES)}, not {size!r}")
    return TemporalConfig.from_dict({**SIZES[size]().to_dict(), **values})


def build_task(recipe: Recipe, pack: Path) -> TemporalTask:
    """What `thermal-enhance train` calls; the switches of METHODS 2.12: mask, prompt, tfm, warp.

    Raises:
        ValueError: an unknown switch.
    """
    switches = dict(recipe.ablation)
    unknown = sorted(set(switches) - {"mask", "prompt", TFM, "warp"})
    if unknown:
        raise ValueError(f"ablation.{unknown[0]} is unknown; known: mask, prompt, tfm, warp")
    model, task, loss = dict(recipe.model), dict(recipe.task), dict(recipe.loss or DEFAULT_LOSS)
    if not switches.get("mask", True):
        model["spectral_mask"] = False
    if not switches.get("prompt", True):
        model["thermal_prompt"] = False
    if not switches.get(TFM, True):
        loss[TFM] = 0.0
    if not switches.get("warp", True):
        windows = dict(task.get("windows", {}))
        task["windows"] = {**windows, "motion": {"method": "none"}}
    return TemporalTask(replace(recipe, model=model, task=task, loss=loss), pack)
