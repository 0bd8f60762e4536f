"""Loss terms of the cross-modal model, on pictures in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PSNR_FLOOR = 3e-4
"""Mean squared error (35 dB) below which the log loss stops rewarding: the gradient of flat crops, where
nothing but noise is left to learn, would drown that of the edges."""


def log_mse(made: Tensor, truth: Tensor, floor: float = PSNR_FLOOR) -> Tensor:
    """L2 as its metric sees it: mean over pictures of log(MSE + floor), so that each counts by its own PSNR.

    Args:
        made: (B, 1, H, W).
        truth: the same shape.
        floor: see `PSNR_FLOOR`.
    """
    error = (made - truth).square().mean(dim=(1, 2, 3))
    return torch.log(error + floor).mean()


def gain_db(made: Tensor, base: Tensor, truth: Tensor) -> float:
    """How much closer to the truth `made` is than `base`: mean over pictures, dB; for the log."""
    error, before = ((x - truth).square().mean(dim=(1, 2, 3)) + 1e-8 for x in (made, base))
    return float(10.0 * torch.log10(before / error).mean())


def gradient(made: Tensor, truth: Tensor) -> Tensor:
    """Error of the finite differences over their own size: stands in for LPIPS where that is not installed.

    A perceptual distance compares local structure; so does this, without a backbone to download. Dividing by
    the mean difference of the truth makes it alike for soft and crisp pictures.
    """
    total = made.new_zeros(())
    for axis in (-1, -2):
        wanted = truth.diff(dim=axis)
        error = (made.diff(dim=axis) - wanted).abs().mean(dim=(1, 2, 3))
        total = total + (error / (wanted.abs().mean(dim=(1, 2, 3)) + 2e-3)).mean()
    return total / 2.0


TERMS = {"psnr": log_mse, "gradient": gradient}


def weighted(weights: Mapping[str, float], made: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Sum of the terms.

    Args:
        weights: by name; see `TERMS`.
        made: (B, 1, H, W) in [0, 1].
        truth: the same shape.

    Returns:
        The loss and each term's own value.

    Raises:
        ValueError: an unknown term.
    """
    total, parts = made.new_zeros(()), {}
    for name, weight in weights.items():
        if name not in TERMS:
            raise ValueError(f"loss.{name} is unknown to cross_modal; known: {', '.join(TERMS)}")
        value = TERMS[name](made, truth)
        total = total + weight * value
        parts[name] = float(value.detach())
    return total, parts
