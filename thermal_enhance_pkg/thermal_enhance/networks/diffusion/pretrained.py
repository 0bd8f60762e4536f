"""The published autoencoders behind our `Autoencoder` face: Stable Diffusion's KL-VAE and TAESD.

Weights are those of diffusers, untouched: without skips both encode and decode exactly as diffusers does.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

KL_LORA_SUFFIXES = (
    "conv1",
    "conv2",
    "conv_in",
    "conv_shortcut",
    "conv",
    "conv_out",
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
)
"""Layers of a KL decoder that take LoRA (3M-TI release; METHODS 1.5)."""
_LEVELS = 4


class KlAutoencoder(nn.Module):
    """`AutoencoderKL` with taps at the input of each down block (3M-TI section 3.3; METHODS 1.4).

    Encodes to the mean of the posterior: a sample would flicker from frame to frame (METHODS trap B).

    Args:
        vae: a diffusers `AutoencoderKL` of four levels.

    Raises:
        ValueError: it has another number of levels.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        widths = tuple(vae.config.block_out_channels)
        if len(widths) != _LEVELS:
            raise ValueError(f"vae: block_out_channels must have {_LEVELS} entries, not {len(widths)}")
        self.vae = vae
        self.latent_channels: int = vae.config.latent_channels
        self.tap_channels: tuple[int, ...] = (widths[0], *widths[:-1])
        # Up block 3 takes the finest; each takes what the block before it puts out, the first the coarsest.
        self.skip_channels: tuple[int, ...] = (*widths[1:], widths[-1])

    def encode(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Autoencoder.encode`; both sides must be multiples of 8."""
        encoder = self.vae.encoder
        x = encoder.conv_in(picture)
        taps = []
        for block in encoder.down_blocks:
            taps.append(x)
            x = block(x)
        x = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(x))))
        if self.vae.quant_conv is not None:
            x = self.vae.quant_conv(x)
        mean = x[:, : self.latent_channels]
        shift, scale = self._scaling()
        return (mean - shift) * scale, taps

    def decode(self, latent: Tensor, skips: list[Tensor | None]) -> Tensor:
        """See `Autoencoder.decode`: (B, 3, H, W)."""
        shift, scale = self._scaling()
        x = latent / scale + shift
        if self.vae.post_quant_conv is not None:
            x = self.vae.post_quant_conv(x)
        decoder = self.vae.decoder
        x = decoder.mid_block(decoder.conv_in(x))
        for block, skip in zip(decoder.up_blocks, reversed(skips)):
            x = block(x if skip is None else x + skip)
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))

    def lora_targets(self) -> list[str]:
        """Full names, inside `vae`, of the decoder layers that take LoRA."""
        return [
            name
            for name, module in self.vae.named_modules()
            if name.startswith("decoder.")
            and isinstance(module, nn.Conv2d | nn.Linear)
            and any(name.endswith("." + suffix) for suffix in KL_LORA_SUFFIXES)
        ]

    def _scaling(self) -> tuple[float, float]:
        return float(self.vae.config.shift_factor or 0.0), float(self.vae.config.scaling_factor)


class TinyAutoencoder(nn.Module):
    """`AutoencoderTiny` (TAESD): a tenth of the KL-VAE's work in the same latent space.

    Its encoder's features just before each reduction are the taps; its decoder takes them before the blocks
    of the same stride.

    Args:
        vae: a diffusers `AutoencoderTiny` of four levels.

    Raises:
        ValueError: it has another number of levels.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        encoder = tuple(vae.config.encoder_block_out_channels)
        decoder = tuple(vae.config.decoder_block_out_channels)
        if len(encoder) != _LEVELS or len(decoder) != _LEVELS:
            raise ValueError(
                f"vae: encoder_block_out_channels and decoder_block_out_channels must have {_LEVELS} entries"
            )
        self.vae = vae
        self.latent_channels: int = vae.config.latent_channels
        self.tap_channels: tuple[int, ...] = encoder
        self.skip_channels: tuple[int, ...] = tuple(reversed(decoder))
        layers = list(vae.encoder.layers)
        strided = [i for i, m in enumerate(layers) if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
        self._taps = {*strided, len(layers) - 1}  # taken before these
        layers = list(vae.decoder.layers)
        # Taken after these: the first activation, and the convolution that follows each enlargement.
        self._joins = {1, *(i + 1 for i, m in enumerate(layers) if isinstance(m, nn.Upsample))}

    def encode(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Autoencoder.encode`; both sides must be multiples of 8."""
        x = picture.add(1).div(2)
        taps = []
        for index, layer in enumerate(self.vae.encoder.layers):
            if index in self._taps:
                taps.append(x)
            x = layer(x)
        return x * float(self.vae.config.scaling_factor), taps

    def decode(self, latent: Tensor, skips: list[Tensor | None]) -> Tensor:
        """See `Autoencoder.decode`: (B, 3, H, W)."""
        x = latent / float(self.vae.config.scaling_factor)
        x = (x / 3).tanh() * 3
        waiting = list(skips)  # the coarsest is last
        for index, layer in enumerate(self.vae.decoder.layers):
            x = layer(x)
            if index in self._joins:
                skip = waiting.pop()
                x = x if skip is None else x + skip
        return x.mul(2).sub(1)

    def lora_targets(self) -> list[str]:
        """Full names, inside `vae`, of the decoder's convolutions."""
        return [
            name
            for name, module in self.vae.named_modules()
            if name.startswith("decoder.") and isinstance(module, nn.Conv2d)
        ]
