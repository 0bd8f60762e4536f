"""What a method brings to the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from thermal_enhance.training.recipe import Recipe


class Sampler(Protocol):
    """Gives the batch of each step."""

    def batch(self, step: int) -> dict[str, Tensor]:
        """Tensors on the CPU; a pure function of the step, called from worker threads."""
        ...


class Task(Protocol):
    """What is trained: everything that differs between methods."""

    def build_model(self, recipe: Recipe) -> nn.Module:
        """The network, on the CPU, initialised from torch's generator; frozen parameters without gradient."""
        ...

    def sampler(self, recipe: Recipe, split: str) -> Sampler:
        """Batches of a split; `batch(step)` is called from worker threads."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        """(scalar to minimise, its parts for the log); the batch is on the model's device."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Scores with the averaged weights; in evaluation mode, without gradient."""
        ...

    def montage(self, model: nn.Module) -> NDArray[np.uint8]:
        """A picture of samples, (H, W, 3) uint8 RGB."""
        ...

    def save_weights(self, model: nn.Module, path: Path) -> None:
        """Write the model's weights as safetensors."""
        ...
