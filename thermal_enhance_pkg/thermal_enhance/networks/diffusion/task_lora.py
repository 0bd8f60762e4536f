"""Task-aware LoRA: dW = s * A C B with C given at run time (InfraredIR section 3.3).

One C a group of layers, shared by all of them; the identity by default, which makes it an ordinary LoRA.
Being an input of the exported graph, another task is the next frame's business: nothing is rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

GROUPS = ("down", "mid", "up")
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")


class TaskMatrices:
    """The C of the frame at hand: (groups, r, r) shared by a model's LoRA layers; None for the identity."""

    def __init__(self) -> None:
        self.value: Tensor | None = None


class TaskLoraLinear(nn.Module):
    """A linear layer with task LoRA: y = W x + s * up(C^T down(x)).

    Args:
        base: the layer; its weights stay where they are in the state dict (under `base`).
        rank: of the update.
        scale: s, alpha / rank.
        group: index into the matrices.
        matrices: holder shared with the model.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float, group: int, matrices: TaskMatrices) -> None:
        super().__init__()
        self.base, self.scale, self.group = base, scale, group
        self.lora_down = nn.Parameter(torch.randn(rank, base.in_features) / rank)
        self.lora_up = nn.Parameter(torch.zeros(base.out_features, rank))
        self._matrices = matrices

    @property
    def in_features(self) -> int:
        """Of the base layer."""
        return self.base.in_features

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        low = x @ self.lora_down.T
        if self._matrices.value is not None:
            low = low @ self._matrices.value[self.group]
        return self.base(x) + (low @ self.lora_up.T) * self.scale

    def merged(self, matrix: Tensor | None = None) -> Tensor:
        """(out, in) weight of one task: W + s * up C^T down.

        Raises:
            ValueError: the base layer has an unmerged LoRA of its own.
        """
        if not isinstance(self.base, nn.Linear):
            raise ValueError("merge the ordinary LoRA first: its update is not in the layer's weight yet")
        core = torch.eye(len(self.lora_down)).to(self.lora_down) if matrix is None else matrix
        return self.base.weight + self.scale * self.lora_up @ core.T @ self.lora_down


def add_task_lora(unet: Any, rank: int, scale: float) -> TaskMatrices:
    """Wrap the linear layers of a UNet's transformer blocks.

    Args:
        unet: a diffusers `UNet2DConditionModel`, changed in place.
        rank: of the update.
        scale: alpha / rank.

    Returns:
        The holder through which C is set before a forward pass.
    """
    matrices = TaskMatrices()
    for name, module in list(unet.named_modules()):
        if not isinstance(module, nn.Linear) or "transformer_blocks" not in name:
            continue
        if not name.endswith(TARGETS) or ".processor." in name:
            continue
        group = GROUPS.index(name.split("_", 1)[0])
        replace_module(unet, name, TaskLoraLinear(module, rank, scale, group, matrices))
    return matrices


@contextmanager
def without_task_lora(network: nn.Module) -> Iterator[None]:
    """The network with its task LoRA taken off, as long as the context lasts.

    Layers have their stock names then. Those that were replaced meanwhile are wrapped again as they are.
    """
    worn = {name: m for name, m in network.named_modules() if isinstance(m, TaskLoraLinear)}
    for name, layer in worn.items():
        replace_module(network, name, layer.base)
    try:
        yield
    finally:
        for name, layer in worn.items():
            layer.base = network.get_submodule(name)  # type: ignore[assignment]
            replace_module(network, name, layer)


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in another's place, by its dotted name."""
    path, _, child = name.rpartition(".")
    parent = network.get_submodule(path)
    if isinstance(parent, nn.ModuleList | nn.Sequential):
        parent[int(child)] = module
    else:
        setattr(parent, child, module)


def identity(rank: int) -> Tensor:
    """(groups, r, r) float32 identity matrices: no task."""
    return torch.eye(rank).repeat(len(GROUPS), 1, 1)
