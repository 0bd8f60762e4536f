"""The cross-modal model: encode both views, one joint denoising step, decode the thermal view."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from thermal_enhance.networks.cross_modal.configuration import CrossModalConfig, DenoiserConfig
from thermal_enhance.networks.diffusion import attention, task_lora
from thermal_enhance.networks.diffusion.autoencoder import Autoencoder, PixelAutoencoder
from thermal_enhance.networks.diffusion.one_step import OneStepMap
from thermal_enhance.networks.diffusion.views import denoise


class CrossModalModel(nn.Module):
    """RGB-guided thermal super-resolution in one step (3M-TI), thermal-only with the same weights.

    Args:
        config: shape.
        autoencoder: see `Autoencoder`; None for our own.
        unet: a diffusers `UNet2DConditionModel`; None for our own.
        context: (L, D) text embedding that stands for every picture; None for a learnt one.
    """

    def __init__(
        self,
        config: CrossModalConfig,
        autoencoder: Any | None = None,
        unet: Any | None = None,
        context: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.autoencoder: Autoencoder = autoencoder or PixelAutoencoder(config.autoencoder)
        self.unet = unet or build_unet(config.denoiser, self.autoencoder.latent_channels)
        attention.install(self.unet, config.fusion, config.query_chunk)
        self.tasks: task_lora.TaskMatrices | None = None
        if config.task_rank:
            scale = config.task_alpha / config.task_rank
            self.tasks = task_lora.add_task_lora(self.unet, config.task_rank, scale)
        self.one_step = OneStepMap()
        if context is None:
            shape = (config.denoiser.context_length, config.denoiser.context_dim)
            self.context = nn.Parameter(torch.randn(shape) * 0.02)
        else:
            self.context = nn.Parameter(context, requires_grad=False)
        taps, skips = self.autoencoder.tap_channels, self.autoencoder.skip_channels
        self.skips = _projections(taps, skips) if config.skips else None
        self.guide_skips = _projections(taps, skips) if config.guide_skips else None
        if config.residual and isinstance(self.autoencoder, PixelAutoencoder):
            # Small, not zero: behind zero skips a zero layer would leave both without a gradient.
            with torch.no_grad():
                self.autoencoder.to_picture.weight.mul_(0.1)
                self.autoencoder.direct_out.weight.mul_(0.1)

    def forward(
        self,
        thermal: Tensor,
        rgb: Tensor | None = None,
        task: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Enhance.

        Args:
            thermal: (B, 3, H, W) in [-1, 1], upsampled to the output grid. Channel 0 is the base that a
                residual model adds to; H and W must be multiples of `config.denoiser.multiple`.
            rgb: (B, 3, H, W) in [-1, 1], or None for the thermal-only path.
            task: (groups, r, r) C of the task LoRA; None for the identity.
            context: (B, L, D) text or tag embeddings; None for the model's own.

        Returns:
            (B, 1, H, W), not clamped.
        """
        views = 1 if rgb is None else 2
        batch = thermal.shape[0]
        # Each view by itself: slicing them apart again would cost a copy of every tap.
        shown = thermal[:, :1].expand(-1, 3, -1, -1) if self.config.grey_view else thermal
        latent, taps = self.autoencoder.encode(shown)
        guide_taps: list[Tensor] = []
        if rgb is not None:
            guide_latent, guide_taps = self.autoencoder.encode(rgb)
            latent = torch.stack([latent, guide_latent], dim=1).flatten(0, 1)
        words = self.context.expand(batch, -1, -1) if context is None else context
        if views > 1:
            words = words.repeat_interleave(views, dim=0)
        if self.tasks is not None:
            self.tasks.value = task
        step = torch.full((latent.shape[0],), self.config.timestep, dtype=torch.int64, device=latent.device)
        noise = denoise(self.unet, latent, step, words, views)
        clean = self.one_step(latent[::views], noise, step[::views])
        picture = self.autoencoder.decode(clean, self._skips(taps, guide_taps)).mean(dim=1, keepdim=True)
        if not self.config.residual:
            return picture
        return thermal[:, :1] + picture * self.config.residual_scale

    def _skips(self, taps: list[Tensor], guide_taps: list[Tensor]) -> list[Tensor | None]:
        found: list[Tensor | None] = [None] * len(taps)
        if self.skips is not None:
            found = [project(tap) for project, tap in zip(self.skips, taps)]
        if self.guide_skips is not None and guide_taps:
            guides = [project(tap) for project, tap in zip(self.guide_skips, guide_taps)]
            found = [guide if mine is None else mine + guide for mine, guide in zip(found, guides)]
        return found


def build_unet(config: DenoiserConfig, latent_channels: int) -> Any:
    """A randomly initialised diffusers UNet of this shape."""
    from diffusers import UNet2DConditionModel

    down = tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in config.attention)
    up = tuple("CrossAttnUpBlock2D" if on else "UpBlock2D" for on in reversed(config.attention))
    return UNet2DConditionModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=config.channels,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=config.layers,
        # Named "attention_head_dim" for historical reasons, it is the number of heads.
        attention_head_dim=tuple(max(1, width // config.head_dim) for width in config.channels),
        cross_attention_dim=config.context_dim,
        norm_num_groups=config.groups,
        use_linear_projection=True,
    )


def _projections(taps: tuple[int, ...], skips: tuple[int, ...]) -> nn.ModuleList:
    """Zero 1x1 convolutions: at first the skips leave the output unchanged."""
    layers = [nn.Conv2d(a, b, 1, bias=False) for a, b in zip(taps, skips)]
    for layer in layers:
        nn.init.zeros_(layer.weight)
    return nn.ModuleList(layers)
