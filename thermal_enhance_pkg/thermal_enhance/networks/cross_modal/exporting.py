"""Graphs of a trained cross-modal model, for `thermal-enhance export`.

Two roles: `two_view` (thermal, rgb, task) and `one_view` (thermal, task), where nothing of the RGB view is
computed. Both are made of the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thermal_enhance.networks.cross_modal import provider
from thermal_enhance.networks.cross_modal.adapter import merge_adapter
from thermal_enhance.networks.cross_modal.configuration import CrossModalConfig
from thermal_enhance.networks.cross_modal.model import CrossModalModel
from thermal_enhance.networks.diffusion.task_lora import identity

PROFILES = ((256, 256), (512, 512), (640, 480), (640, 512))
"""(width, height) exported by default: a tile, the paper's size, VGA, and a 640x512 camera."""
CONFIG_KEY = "cross_modal_config"
"""Key of the configuration, as JSON, in the header of a weights file."""
PRETRAINED_KEY = "cross_modal_pretrained"
"""Key of the `PretrainedConfig` of a file that holds an adapter and not all weights, as JSON."""


@dataclass(frozen=True)
class CrossModalGraph:
    """One graph to export; see `runtime.export.GraphExport`."""

    role: str
    profile: tuple[int, int]
    module: nn.Module
    example_inputs: Mapping[str, Tensor]
    output_names: Sequence[str] = ("enhanced",)


class _TwoView(nn.Module):
    def __init__(self, model: CrossModalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, thermal: Tensor, rgb: Tensor, task: Tensor) -> Tensor:
        return self.model(thermal, rgb, task)


class _OneView(nn.Module):
    def __init__(self, model: CrossModalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, thermal: Tensor, task: Tensor) -> Tensor:
        return self.model(thermal, None, task)


def read_configuration(checkpoint: Path) -> CrossModalConfig:
    """The configuration in the header of a weights file.

    Raises:
        ValueError: there is none, or it does not fit this version.
    """
    text = _header(checkpoint).get(CONFIG_KEY)
    if text is None:
        raise ValueError(f"{checkpoint}: its header has no {CONFIG_KEY}: weights of another method?")
    return CrossModalConfig.from_dict(json.loads(text))


def _header(checkpoint: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(str(checkpoint), framework="pt") as file:
        return dict(file.metadata() or {})


def load_model(checkpoint: Path) -> CrossModalModel:
    """The trained model, in evaluation mode, on the CPU; an adapter is merged into the weights it names.

    Raises:
        ValueError: the file is not one of this method's, or tensors are missing.
    """
    from safetensors.torch import load_file

    config = read_configuration(checkpoint)
    source = _header(checkpoint).get(PRETRAINED_KEY)
    tensors = {name: tensor.float() for name, tensor in load_file(str(checkpoint)).items()}
    if source is None:
        model = CrossModalModel(config)
        needed = set(model.state_dict())
    else:
        model = provider.load(provider.PretrainedConfig(**json.loads(source)), config)
        needed = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    try:
        if absent := sorted(needed - tensors.keys()):
            raise RuntimeError(f"{len(absent)} missing, {absent[0]} first")
        model.load_state_dict({**model.state_dict(), **tensors})
    except RuntimeError as error:
        raise ValueError(f"{checkpoint}: its tensors are not those of its configuration: {error}") from error
    if source is not None:
        merge_adapter(model)
    return model.eval().requires_grad_(False)


def graphs(checkpoint: Path, profiles: Sequence[tuple[int, int]] = ()) -> list[CrossModalGraph]:
    """Both roles in every profile.

    Args:
        checkpoint: weights as the training wrote them.
        profiles: (width, height) pairs, multiples of the model's stride; empty for those of
            `PROFILES` that are such.

    Raises:
        ValueError: a profile is no multiple of the stride.
    """
    model = load_model(checkpoint)
    stride = model.config.denoiser.multiple
    task = identity(model.config.task_rank or 1)
    generator = torch.Generator().manual_seed(0)
    made = []
    usual = [size for size in PROFILES if not any(side % stride for side in size)]
    for width, height in profiles or usual:
        if width % stride or height % stride:
            raise ValueError(f"profile {width}x{height}: both sides must be multiples of {stride}")
        thermal, rgb = (torch.rand(1, 3, height, width, generator=generator) * 2 - 1 for _ in range(2))
        made.append(
            CrossModalGraph(
                "two_view", (width, height), _TwoView(model), {"thermal": thermal, "rgb": rgb, "task": task}
            )
        )
        made.append(
            CrossModalGraph("one_view", (width, height), _OneView(model), {"thermal": thermal, "task": task})
        )
    return made


def manifest(checkpoint: Path) -> dict[str, Any]:
    """What the checkpoint knows of its model.yaml."""
    config = read_configuration(checkpoint)
    return {
        "size": config.size,
        "version": "1",
        "scales": (4, 8),
        "description": "RGB-guided thermal super-resolution (3M-TI), thermal-only with the same weights",
        "parameters": {
            "stride": config.denoiser.multiple,
            "thermal_channels": ["guided", "contrast", "detail"],
            "timestep": config.timestep,
            "network": config.to_dict(),
        },
    }


def metadata(checkpoint: Path) -> dict[str, str]:
    """The configuration again, so that the shipped weights can be trained on."""
    return {CONFIG_KEY: json.dumps(read_configuration(checkpoint).to_dict())}
