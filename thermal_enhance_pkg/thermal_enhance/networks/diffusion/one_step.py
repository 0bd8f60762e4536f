"""The deterministic one-step map of both diffusion methods: x0 = a_t z - b_t eps.

In closed form rather than through a scheduler: schedulers look the step up in their own grid, and some add
noise of their own (METHODS 0.3, traps A and B). The tables are float32 whatever the network computes in:
at late steps an error in z or eps is amplified up to 15 times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 1000


def alphas_cumprod() -> Tensor:
    """(1000,) float64 cumulative signal shares of the Stable Diffusion schedule (scaled linear beta)."""
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - beta, dim=0)


def log_snr() -> Tensor:
    """(1000,) float64 log signal-to-noise ratio by step; strictly decreasing."""
    abar = alphas_cumprod()
    return torch.log(abar / (1.0 - abar))


class OneStepMap(nn.Module):
    """Clean latent from a degraded one and the predicted noise (3M-TI section 3.1, InfraredIR eq. 2)."""

    a: Tensor
    b: Tensor

    def __init__(self) -> None:
        super().__init__()
        abar = alphas_cumprod()
        # Not persistent: constants of the method, not weights.
        self.register_buffer("a", abar.rsqrt().float(), persistent=False)
        self.register_buffer("b", ((1.0 - abar) / abar).sqrt().float(), persistent=False)

    def forward(self, latent: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Apply the map.

        Args:
            latent: (B, C, h, w) z, unscaled.
            noise: (B, C, h, w) predicted eps.
            timestep: () or (B,) int64 in 0..999.

        Returns:
            (B, C, h, w) x0 in the dtype of `latent`.
        """
        a = self.a[timestep].reshape(-1, 1, 1, 1)
        b = self.b[timestep].reshape(-1, 1, 1, 1)
        return (a * latent.float() - b * noise.float()).to(latent.dtype)
