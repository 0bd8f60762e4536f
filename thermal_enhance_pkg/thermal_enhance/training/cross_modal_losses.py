"""Loss terms of the cross-modal model, on pictures in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from thermal_enhance.training.losses import Features, Term, WeightedLoss

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


TERMS: Mapping[str, Term] = {"psnr": log_mse, "gradient": gradient}
"""What a recipe's `loss` may name besides `losses.TERMS`; "gradient" here is relative."""


def build(weights: Mapping[str, float], device: str | torch.device, autoencoder: Path | None) -> WeightedLoss:
    """The loss of a recipe.

    Args:
        weights: by name: `TERMS`, `losses.TERMS`, "lpips", or "features".
        device: of the terms that have weights of their own.
        autoencoder: weights of a trained cross-modal model, whose encoder "features" compares by.

    Raises:
        ValueError: an unknown or impossible term.
        ModuleNotFoundError, RuntimeError: LPIPS is asked for and cannot be had.
    """
    features = encoder_features(autoencoder, device) if weights.get("features") and autoencoder else None
    return WeightedLoss(weights, extra=TERMS, features=features, device=device)


def encoder_features(path: Path, device: str | torch.device) -> Features:
    """Taps of a trained model's encoder, strides 1 to 8, frozen: LPIPS without a download.

    Args:
        path: weights with their configuration in the header.
        device: where to compare.

    Raises:
        ValueError: not the weights of a model with an autoencoder of our own.
    """
    # Here, not above: most recipes do without.
    from thermal_enhance.networks.cross_modal.exporting import read_configuration
    from thermal_enhance.networks.cross_modal.provider import build as build_model
    from thermal_enhance.training.checkpoint import load_tensors

    config = read_configuration(path)
    model = build_model(config.to_dict())
    state, _ = load_tensors(path)
    wanted = {name: tensor.float() for name, tensor in state.items() if name.startswith("autoencoder.")}
    missing = model.load_state_dict(wanted, strict=False).missing_keys
    if any(name.startswith("autoencoder.") for name in missing):
        raise ValueError(f"task.features_from: {path} lacks tensors of the autoencoder")
    model.to(device).requires_grad_(False).eval()

    def taps(picture: Tensor) -> Sequence[Tensor]:
        # Gray from 0 to 1; the contrast and detail channels of the thermal view stay empty.
        signed = torch.nn.functional.pad(2.0 * picture - 1.0, (0, 0, 0, 0, 0, 2))
        found: Sequence[Tensor] = model.autoencoder.encode(signed)[1]
        return found

    return taps
