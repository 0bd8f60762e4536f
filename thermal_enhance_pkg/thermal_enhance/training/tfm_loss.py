"""Loss on what violates heat conduction (THERIS's TFM loss, METHODS 2.8).

Of three moments in a row, evenly spaced, R = (I_next - I_previous) / 2 - D Laplacian(I_middle), in shares of
the range a step; a step is half an input. Heat explains R = 0 where nothing moves; where something does, the
change is that of moving, and the loss would reward freezing and blur. Hence three kinds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

KINDS = ("paper", "gated", "match")
MAX_DIFFUSIVITY = 0.25
"""Pixels squared a step: beyond it the explicit scheme is unstable."""


@dataclass(frozen=True)
class TfmConfig:
    """Settings of the TFM loss; its weight is `loss.tfm`.

    Attributes:
        kind: "paper" as published; "gated" leaves out the pixels where the truth itself violates it; "match"
            wants the truth's residual, not 0.
        alpha: how fast the weight falls with the gradient, 1 / (range a pixel)**2.
        diffusivity: D at the start, pixels squared a step; it is learnt.
        quantile: of the truth's |R|, up to which "gated" counts a pixel.
        ramp: share of the training over which the weight rises from 0.
    """

    kind: str = "gated"
    alpha: float = 50.0
    diffusivity: float = 0.1
    quantile: float = 0.9
    ramp: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"task.tfm.kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if not 0 < self.diffusivity < MAX_DIFFUSIVITY:
            raise ValueError(
                f"task.tfm.diffusivity must lie within 0..{MAX_DIFFUSIVITY}, not {self.diffusivity}"
            )
        if not 0 < self.quantile <= 1 or not 0 <= self.ramp <= 1 or not self.alpha >= 0:
            raise ValueError(
                "task.tfm: quantile and ramp must lie in 0..1 and alpha be at least 0, not "
                f"{self.quantile}, {self.ramp} and {self.alpha}"
            )


class TfmLoss(nn.Module):
    """See the module.

    Args:
        config: see `TfmConfig`.
    """

    def __init__(self, config: TfmConfig) -> None:
        super().__init__()
        self.config = config
        self.rho = nn.Parameter(torch.tensor(math.log(math.expm1(config.diffusivity))))

    @property
    def diffusivity(self) -> Tensor:
        """D = softplus(rho), at most `MAX_DIFFUSIVITY`."""
        return functional.softplus(self.rho).clamp(max=MAX_DIFFUSIVITY)

    def forward(self, made: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean weighted residual, squared.

        Args:
            made: (B, 3, H, W) in [0, 1], three moments in a row.
            truth: the same of the truth.
            valid: (B,) 1 where a clip counts; None for all.

        Returns:
            A scalar, 0 where no clip counts.
        """
        residual = self.residual(made)
        with torch.no_grad():
            # Detached, else adding edges would lower the loss.
            middle = made[:, 1]
            across = (middle[:, 1:-1, 2:] - middle[:, 1:-1, :-2]) / 2
            down = (middle[:, 2:, 1:-1] - middle[:, :-2, 1:-1]) / 2
            weight = torch.exp(-self.config.alpha * (across.square() + down.square()))
            wanted = self.residual(truth)
            if self.config.kind == "gated":
                size = wanted.abs().flatten(1)
                bound = torch.quantile(size.float(), self.config.quantile, dim=1)
                weight = weight * (wanted.abs() <= bound[:, None, None])
            if valid is not None:
                weight = weight * valid.reshape(-1, 1, 1)
        if self.config.kind == "match":
            residual = residual - wanted
        share = 1.0 if valid is None else valid.mean().clamp_min(1.0 / len(made))
        return (weight * residual.square()).mean() / share

    def residual(self, frames: Tensor) -> Tensor:
        """R of the middle one: (B, 3, H, W) to (B, H - 2, W - 2), without the border."""
        before, middle, after = (frames[:, i] for i in range(3))
        change = (after - before)[:, 1:-1, 1:-1] / 2
        around = middle[:, 1:-1, 2:] + middle[:, 1:-1, :-2] + middle[:, 2:, 1:-1] + middle[:, :-2, 1:-1]
        return change - self.diffusivity * (around - 4 * middle[:, 1:-1, 1:-1])
