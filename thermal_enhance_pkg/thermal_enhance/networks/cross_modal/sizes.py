"""The sizes a cross-modal model comes in: one network, three shapes."""

from __future__ import annotations

from thermal_enhance.networks.cross_modal.configuration import CrossModalConfig, DenoiserConfig
from thermal_enhance.networks.diffusion.autoencoder import PixelAutoencoderConfig


def edge() -> CrossModalConfig:
    """For a CPU or a small Jetson: joint attention at 1/32 of the picture's resolution alone."""
    return CrossModalConfig()


def base() -> CrossModalConfig:
    """For a GPU: 20 M parameters, 39 MiB in half precision.

    Joint attention at 1/16 and 1/32 of the picture's resolution, which are 32x32 and 16x16 tokens a view at
    512x512.
    """
    return CrossModalConfig(
        size="base",
        autoencoder=PixelAutoencoderConfig(
            channels=(16, 32, 64, 96),
            decoder_channels=(16, 32, 64, 96),
            latent_channels=32,
            encoder_blocks=(0, 1, 1, 1),
            decoder_blocks=(1, 2, 2, 1),
        ),
        denoiser=DenoiserConfig(
            channels=(96, 160, 192), attention=(False, True, True), layers=2, head_dim=32, groups=16
        ),
    )


def sd_turbo() -> CrossModalConfig:
    """The paper's backbone: Stable Diffusion 2.1 at 866 M parameters, loaded by `provider.load_pretrained`.

    As in the paper the decoder makes the whole picture and only the thermal view has skips. At 512x512 the
    joint sequence has 8192 tokens, which an engine without fused attention could not hold at once.
    """
    return CrossModalConfig(
        size="sd-turbo",
        denoiser=DenoiserConfig(
            channels=(320, 640, 1280, 1280),
            attention=(True, True, True, False),
            layers=2,
            head_dim=64,
            context_dim=1024,
            context_length=77,
            groups=32,
        ),
        guide_skips=False,
        residual=False,
        grey_view=True,
        query_chunk=1024,
    )


SIZES = {"edge": edge, "base": base, "sd-turbo": sd_turbo}
"""Configuration of each size by name."""
