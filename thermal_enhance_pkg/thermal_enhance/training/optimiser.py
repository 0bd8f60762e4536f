"""AdamW for a task's model, and its state by the names of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from thermal_enhance.training.recipe import OptimiserConfig

_PREFIX = "optimiser."


def build_optimiser(task: object, model: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW over what is trainable; biases and norms are not decayed.

    Args:
        task: may have `parameter_groups(model)`, which gives {"params": [...], "lr_scale": factor} entries.
        model: on its device.
        config: rate, moments, decay.

    Returns:
        The optimiser; every group has an "lr_scale".

    Raises:
        ValueError: nothing is trainable.
    """
    groups_of = getattr(task, "parameter_groups", None)
    given = groups_of(model) if groups_of else [{"params": list(model.parameters())}]
    groups: list[dict[str, Any]] = []
    for group in given:
        trained = [p for p in group["params"] if p.requires_grad]
        scale = float(cast(float, group.get("lr_scale", 1.0)))
        for members, decay in (
            ([p for p in trained if p.ndim >= 2], config.weight_decay),
            ([p for p in trained if p.ndim < 2], 0.0),
        ):
            if members:
                groups.append({"params": members, "weight_decay": decay, "lr_scale": scale})
    if not groups:
        raise ValueError("the model has no parameter to train")
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def optimiser_state(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Its tensors: {"optimiser.<key>": {parameter name: tensor}}, not copied."""
    names = {id(p): name for name, p in model.named_parameters()}
    state: dict[str, dict[str, Tensor]] = {}
    for parameter, entries in optimiser.state.items():
        for key, tensor in entries.items():
            state.setdefault(_PREFIX + key, {})[names[id(parameter)]] = tensor
    return state


def load_optimiser_state(
    optimiser: torch.optim.Optimizer, model: nn.Module, groups: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Take over what `optimiser_state` gave; other groups are left alone.

    Raises:
        KeyError: a parameter that the model does not have.
    """
    parameters = dict(model.named_parameters())
    for group, members in groups.items():
        if not group.startswith(_PREFIX):
            continue
        key = group.removeprefix(_PREFIX)
        for name, tensor in members.items():
            parameter = parameters[name]
            # AdamW keeps its step count on the CPU, and the moments in the layout of the parameter.
            if key == "step":
                optimiser.state[parameter][key] = tensor
            else:
                optimiser.state[parameter][key] = torch.empty_like(parameter, requires_grad=False).copy_(
                    tensor
                )
