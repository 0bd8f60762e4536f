"""Graphs of a trained temporal model, for `thermal-enhance export`.

Two roles: `encoder`, which each frame passes once, and `body`, which takes the features of a window. Both are
made of the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thermal_enhance.networks.temporal.configuration import FEATURE_STRIDE, TemporalConfig
from thermal_enhance.networks.temporal.model import INPUT_CHANNELS, TemporalModel

PROFILES = ((80, 64), (160, 120), (320, 256), (640, 512))
"""(width, height) of the low-resolution frame, as exported by default."""
CONFIG_KEY = "temporal_config"
"""Key of the configuration, as JSON, in the header of a weights file."""
OUTPUTS = 2
"""Times that a body computes at once: the new frame between the last two, and the newest."""
CHANNELS = ("level", "contrast")
CUES = ("contrast", "difference", "gap", "outside")


@dataclass(frozen=True)
class TemporalGraph:
    """One graph to export; see `runtime.export.GraphExport`."""

    role: str
    profile: tuple[int, int]
    module: nn.Module
    example_inputs: Mapping[str, Tensor]
    output_names: Sequence[str]


class _Encoder(nn.Module):
    def __init__(self, model: TemporalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: Tensor) -> Tensor:
        return self.model.encode(frame)


class _Body(nn.Module):
    def __init__(self, model: TemporalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, grid: Tensor, tau: Tensor, cues: Tensor) -> Tensor:
        return self.model.body(features, grid, tau, cues)


def read_configuration(checkpoint: Path) -> TemporalConfig:
    """The configuration in the header of a weights file.

    Raises:
        ValueError: there is none, or it does not fit this version.
    """
    from safetensors import safe_open

    with safe_open(str(checkpoint), framework="pt") as file:
        text = (file.metadata() or {}).get(CONFIG_KEY)
    if text is None:
        raise ValueError(f"{checkpoint}: its header has no {CONFIG_KEY}: weights of another method?")
    return TemporalConfig.from_dict(json.loads(text))


def load_model(checkpoint: Path) -> TemporalModel:
    """The trained model, in evaluation mode, on the CPU, scanning as a graph does.

    Raises:
        ValueError: the file is not one of this method's, or tensors are missing.
    """
    from safetensors.torch import load_file

    model = TemporalModel(replace(read_configuration(checkpoint), scan_backend="ssd"))
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in load_file(str(checkpoint)).items()})
    except RuntimeError as error:
        raise ValueError(f"{checkpoint}: its tensors are not those of its configuration: {error}") from error
    return model.eval().requires_grad_(False)


def graphs(checkpoint: Path, profiles: Sequence[tuple[int, int]] = ()) -> list[TemporalGraph]:
    """Both roles in every profile.

    Args:
        checkpoint: weights as the training wrote them.
        profiles: (width, height) pairs of low-resolution frames, multiples of the token stride; empty for
            `PROFILES`.

    Raises:
        ValueError: a profile is no multiple of the token stride.
    """
    model = load_model(checkpoint)
    model.as_graph = True
    made = []
    for width, height in profiles or PROFILES:
        stride = model.config.token_stride
        if width % stride or height % stride:
            raise ValueError(f"profile {width}x{height}: both sides must be multiples of {stride}")
        inputs = example_inputs(model.config, width, height)
        frame = {"frame": inputs.pop("frame")}
        profile = (width, height)
        made.append(TemporalGraph("encoder", profile, _Encoder(model), frame, ("features",)))
        made.append(TemporalGraph("body", profile, _Body(model), inputs, ("residual",)))
    return made


def example_inputs(config: TemporalConfig, width: int, height: int) -> dict[str, Tensor]:
    """Inputs of both graphs by name, of the sizes and about the ranges that they will see."""
    generator = torch.Generator().manual_seed(0)
    window = config.window
    rows, columns = height // FEATURE_STRIDE, width // FEATURE_STRIDE
    y, x = (((torch.arange(side) * 2 + 1) / side - 1) for side in (rows, columns))
    straight = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1)
    shape = (1, OUTPUTS, window, rows, columns, 2)
    pixel = torch.tensor([2 / columns, 2 / rows])
    grid = straight.expand(shape) + pixel * torch.randn(shape, generator=generator)
    return {
        "frame": torch.rand(1, INPUT_CHANNELS, height, width, generator=generator) * 2 - 1,
        "features": torch.randn(1, window, config.channels, rows, columns, generator=generator),
        "grid": grid,
        "tau": torch.tensor([[window - 1.5, window - 1.0]]),
        "cues": torch.rand(1, OUTPUTS, config.cues, height, width, generator=generator) * 2 - 1,
    }


def manifest(checkpoint: Path) -> dict[str, Any]:
    """What the checkpoint knows of its model.yaml."""
    config = read_configuration(checkpoint)
    return {
        "size": config.size,
        "version": "1",
        "scales": (config.scale,),
        "description": f"thermal video x{config.scale} in space and at any time between frames (THERIS)",
        "parameters": {
            "window": config.window,
            "scale": config.scale,
            "channels": list(CHANNELS),
            "cues": list(CUES),
            "size": config.size,
            "network": config.to_dict(),
        },
    }


def metadata(checkpoint: Path) -> dict[str, str]:
    """The configuration again, so that the shipped weights can be trained on."""
    return {CONFIG_KEY: json.dumps(read_configuration(checkpoint).to_dict())}
