"""The temporal model: encode frames, mix them at the asked times, refine, and draw what the base lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from thermal_enhance.networks.temporal.blocks import TssmBlock
from thermal_enhance.networks.temporal.configuration import FEATURE_STRIDE, TemporalConfig
from thermal_enhance.networks.temporal.mixing import HeatMixing, TimeEmbedding, between, mix, warp

INPUT_CHANNELS = 2
"""Of a frame: its level and its contrast to its surroundings."""
SLOPE = 0.1
SMALL = 0.1
"""Factor on the first weights of layers whose output is added to something."""


class TemporalModel(nn.Module):
    """Thermal video at `scale` times the resolution and at any times within a window (THERIS).

    Sizes: B windows, X frames, T times, C channels, (h, w) of a low-resolution frame (even numbers),
    h2, w2 = h / 2, w / 2.

    Args:
        config: shape.
    """

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.config = config
        width, tokens = config.channels, config.token_channels
        packed = FEATURE_STRIDE**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(FEATURE_STRIDE),
            nn.Conv2d(INPUT_CHANNELS * packed, width, 3, padding=1),
            *(ResidualBlock(width) for _ in range(config.encoder_blocks)),
        )
        self.embed = TimeEmbedding(config.window, width, config.embedding)
        self.mixing = HeatMixing(config.window, config.groups, config.embedding, config.exact_observed)
        self.history = nn.Conv2d(config.window * width, config.history_channels, 1)
        self.fuse = nn.Conv2d(width + config.history_channels + config.cues * packed, width, 1)
        stride = config.token_stride // FEATURE_STRIDE
        self.stride = stride
        self.to_tokens = nn.Conv2d(width, tokens, stride, stride=stride)
        self.blocks = nn.ModuleList(TssmBlock(config, shift=index % 2 == 1) for index in range(config.blocks))
        self.token_norm = nn.LayerNorm(tokens)
        self.from_tokens = nn.Linear(tokens, stride**2 * width)
        self.decoder = nn.Sequential(*(ResidualBlock(width) for _ in range(config.decoder_blocks)))
        self.upsampler = _upsampler(width, config.up_channels, config.scale)
        with torch.no_grad():
            # Small, not zero: behind a zero layer nothing would have a gradient.
            last = self.upsampler[-2]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            last.weight.mul_(SMALL)
            last.bias.zero_()

    def encode(self, frames: Tensor) -> Tensor:
        """Features of each frame by itself, so that a frame of a sliding window is encoded once.

        Args:
            frames: (N, 2, h, w): level / 127.5 - 1, and contrast.

        Returns:
            (N, C, h2, w2).
        """
        return self.encoder(frames)

    def mixed(self, features: Tensor, grid: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """TDIM on frames that are aligned to each time.

        Args:
            features, grid, tau: see `body`.

        Returns:
            G: (B, C, T, h2, w2), the aligned frames (B, X, C, T, h2, w2), and e: (B, T, embedding).
        """
        embedding = self.embed(tau, between(features, tau))
        warped = warp(features, grid)
        return mix(warped, self.mixing(tau, embedding)), warped, embedding

    def body(self, features: Tensor, grid: Tensor, tau: Tensor, cues: Tensor) -> Tensor:
        """What to add to the base at each time.

        Args:
            features: (B, X, C, h2, w2), oldest first.
            grid: (B, T, X, h2, w2, 2) where, in frame x, the content seen at time tau lies; in [-1, 1] as
                for `grid_sample(align_corners=False)`.
            tau: (B, T) times in frames, 0..X-1.
            cues: (B, T, 4, h, w), see `enhancers.temporal_input.CUES`.

        Returns:
            (B, T, 1, H, W) in units of 127.5 levels, `residual_scale` included.
        """
        config = self.config
        batch, times = tau.shape
        height, width = features.shape[-2:]
        mixed, warped, embedding = self.mixed(features, grid, tau)
        # The outputs lie side by side in one picture, which a 1x1 convolution does not mind.
        history = self.history(warped.reshape(batch, -1, times * height, width))
        seen = torch.cat(
            [
                mixed.reshape(batch, config.channels, times * height, width),
                functional.leaky_relu(history, SLOPE),
            ],
            dim=1,
        )
        seen = seen.reshape(batch, -1, times, height, width).transpose(1, 2).flatten(0, 1)
        packed = functional.pixel_unshuffle(cues.flatten(0, 1), FEATURE_STRIDE)
        start = self.fuse(torch.cat([seen, packed], dim=1))
        refined = start + self._refine(start, embedding)
        residual = self.upsampler(self.decoder(refined)) * config.residual_scale
        return residual.reshape(batch, times, 1, *residual.shape[-2:])

    def forward(self, frames: Tensor, grid: Tensor, tau: Tensor, cues: Tensor) -> Tensor:
        """Encoder and body at once, for training: frames (B, X, 2, h, w); the rest as for `body`."""
        features = self.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.body(features, grid, tau, cues)

    def _refine(self, start: Tensor, embedding: Tensor) -> Tensor:
        """The TSSM blocks on tokens: (B * T, C, h2, w2) to the same."""
        height, width = start.shape[-2:]
        missing = (-height % self.stride, -width % self.stride)
        if any(missing):
            start = functional.pad(start, (0, missing[1], 0, missing[0]), mode="replicate")
        tokens = self.to_tokens(start).permute(0, 2, 3, 1).unflatten(0, embedding.shape[:2])
        for block in self.blocks:
            tokens = block(tokens, embedding)
        planes = self.from_tokens(self.token_norm(tokens)).flatten(0, 1).permute(0, 3, 1, 2)
        planes = functional.pixel_shuffle(planes, self.stride) if self.stride > 1 else planes
        return planes[..., :height, :width] if any(missing) else planes


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(SMALL)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        return x + self.second(functional.leaky_relu(self.first(x), SLOPE))


def _upsampler(channels: int, width: int, scale: int) -> nn.Sequential:
    """From the features' stride to one channel at `scale` times the low resolution."""
    layers: list[nn.Module] = []
    rest = FEATURE_STRIDE * scale
    while rest > 2:
        layers += [
            nn.Conv2d(channels, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.LeakyReLU(SLOPE),
        ]
        channels, width, rest = width, width // 2, rest // 2
    layers += [nn.Conv2d(channels, 4, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)
