"""Averaged weights: what is validated and saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: trainable parameters and persistent buffers, by name, not copied."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


class Ema:
    """Exponential moving average of a model's trained state.

    The decay rises as (1 + n) / (10 + n) up to its value, so that early averages do not hold on to the random
    beginning. Integer buffers are copied.

    Args:
        model: averaged from its present weights on.
        decay: 0 to 1; 0 follows the model exactly.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.shadow = {name: tensor.detach().clone() for name, tensor in trained_state(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's weights by one step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = trained_state(model)
        averaged = [name for name, tensor in state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self.shadow[n] for n in averaged], [state[n].detach() for n in averaged], 1 - decay
        )
        for name in state.keys() - set(averaged):
            self.shadow[name].copy_(state[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model with the averaged weights in evaluation mode, as long as the context lasts."""
        training = model.training
        state = trained_state(model)
        kept = {name: tensor.detach().clone() for name, tensor in state.items()}
        copy_state(self.shadow, state)
        model.eval()
        try:
            yield model
        finally:
            copy_state(kept, trained_state(model))
            model.train(training)


@torch.no_grad()
def copy_state(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Write tensors into others of the same names, in place."""
    for name, tensor in target.items():
        tensor.copy_(source[name])
