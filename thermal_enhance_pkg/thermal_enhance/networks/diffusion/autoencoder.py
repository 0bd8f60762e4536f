"""Autoencoders with taps: what the encoder saw at strides 1, 2, 4 and 8 can be handed to the decoder.

`PixelAutoencoder` is our own, cheap enough for a CPU; `KlAutoencoder` and `TinyAutoencoder` (in
`pretrained.py`) wrap the published ones behind the same face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class PixelAutoencoderConfig:
    """Shape of a `PixelAutoencoder`.

    Attributes:
        channels: width of the encoder at strides 1, 2, 4 and 8.
        decoder_channels: the same of the decoder.
        latent_channels: width of the latent.
        encoder_blocks: residual blocks at strides 1, 2, 4 and 8 of the encoder.
        decoder_blocks: the same of the decoder.
        out_channels: of the decoded picture.
    """

    channels: tuple[int, int, int, int] = (8, 16, 32, 48)
    decoder_channels: tuple[int, int, int, int] = (4, 16, 32, 48)
    latent_channels: int = 16
    encoder_blocks: tuple[int, int, int, int] = (0, 0, 0, 0)
    decoder_blocks: tuple[int, int, int, int] = (0, 1, 1, 2)
    out_channels: int = 1

    def __post_init__(self) -> None:
        for name in ("channels", "decoder_channels", "encoder_blocks", "decoder_blocks"):
            if len(getattr(self, name)) != 4:
                raise ValueError(f"autoencoder.{name} needs four numbers, for strides 1, 2, 4 and 8")
        if min(*self.channels, *self.decoder_channels, self.latent_channels, self.out_channels) < 1:
            raise ValueError("autoencoder: all channels must be positive")


class Autoencoder(Protocol):
    """What the cross-modal and restoration models need of an autoencoder."""

    tap_channels: tuple[int, ...]
    """Width of the encoder's taps, finest first (strides 1, 2, 4, 8)."""
    skip_channels: tuple[int, ...]
    """Width at which the decoder takes each of them, same order."""
    latent_channels: int

    def encode(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) in [-1, 1] to the latent (B, C, H/8, W/8), scaled, and the taps, finest first."""

    def decode(self, latent: Tensor, skips: list[Tensor | None]) -> Tensor:
        """Latent back to a picture (B, 1 or 3, H, W); `skips` are added on the way, finest first."""


_SLOPE = 0.1
"""Of the activation's negative side. With none, the few channels at stride 1 die in the first steps, and a
residual model then stays at its base for good."""


def _activate(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)  # small at first: near the identity

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(_activate(self.conv1(x)))


class PixelAutoencoder(nn.Module):
    """Strided by pixel (un)shuffling alone, leaky ReLU, no normalisation: what an inference engine fuses.

    Args:
        config: see `PixelAutoencoderConfig`.
    """

    def __init__(self, config: PixelAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        c1, c2, c4, c8 = config.decoder_channels
        self.tap_channels: tuple[int, ...] = config.channels
        self.skip_channels: tuple[int, ...] = config.decoder_channels
        self.latent_channels = config.latent_channels
        self.stem = nn.Conv2d(3, config.channels[0], 3, padding=1)
        # PixelUnshuffle(2) and a 1x1 convolution, written as the one strided convolution they equal: engines
        # keep their blocked layout over it, where the shuffle's transpose costs a fifth of the whole model.
        self.down = nn.ModuleList(
            [nn.Conv2d(a, b, 2, stride=2) for a, b in zip(config.channels[:-1], config.channels[1:])]
        )
        self.encoder_stages = nn.ModuleList(
            [
                nn.Sequential(*[_Residual(c) for _ in range(n)])
                for c, n in zip(config.channels, config.encoder_blocks)
            ]
        )
        # PixelUnshuffle(8) and back in one step beside the chain of twos: what a low-resolution pixel and its
        # neighbours say about each other reaches the latent, and the picture, by the shortest way.
        self.direct_in = nn.Conv2d(3, config.channels[3], 8, stride=8)
        self.direct_out = nn.Conv2d(c8, 64 * config.out_channels, 3, padding=1)
        self.to_latent = nn.Conv2d(config.channels[3], config.latent_channels, 1)
        self.from_latent = nn.Conv2d(config.latent_channels, c8, 3, padding=1)
        self.up = nn.ModuleList(
            [nn.Conv2d(c8, 4 * c4, 1), nn.Conv2d(c4, 4 * c2, 1), nn.Conv2d(c2, 4 * c1, 1)]
        )
        self.decoder_stages = nn.ModuleList(
            [
                nn.Sequential(*[_Residual(c) for _ in range(n)])
                for c, n in zip(config.decoder_channels, config.decoder_blocks)
            ]
        )
        self.to_picture = nn.Conv2d(c1, config.out_channels, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation: there is no normalisation to make up for torch's smaller default."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=_SLOPE, nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, _Residual):
                    module.conv2.weight.mul_(0.1)

    def encode(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Autoencoder.encode`; both sides must be multiples of 8."""
        x = self.encoder_stages[0](_activate(self.stem(picture)))
        taps = [x]
        for down, stage in zip(self.down, list(self.encoder_stages)[1:]):
            x = down(x)
            if len(taps) == 3:
                x = x + self.direct_in(picture)
            x = stage(_activate(x))
            taps.append(x)
        return self.to_latent(x), taps

    def decode(self, latent: Tensor, skips: list[Tensor | None]) -> Tensor:
        """See `Autoencoder.decode`."""
        x = self.from_latent(latent)
        for level in (3, 2, 1, 0):
            skip = skips[level]
            if skip is not None:
                x = x + skip
            x = self.decoder_stages[level](_activate(x))
            if level == 3:
                direct = functional.pixel_shuffle(self.direct_out(x), 8)
            if level:
                x = functional.pixel_shuffle(self.up[3 - level](x), 2)
        return self.to_picture(x) + direct
