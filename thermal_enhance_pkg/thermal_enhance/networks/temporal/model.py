"""The temporal model: encode frames, mix them at the asked times, refine, and draw what the base lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from thermal_enhance.networks.temporal.blocks import TssmBlock
from thermal_enhance.networks.temporal.configuration import FEATURE_STRIDE, TemporalConfig
from thermal_enhance.networks.temporal.mixing import HeatMixing, TimeEmbedding, between, mix, warp
from thermal_enhance.networks.temporal.scan import ScanTables
from thermal_enhance.networks.temporal.spectral import hartley

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

    Attributes:
        as_graph: compute the same by operations that graphs have and engines are fast at: frames sampled by
            gathers (`mixing.warp`), spectra by matrices (`spectral.SpectralMask`).
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
        self.history = nn.Linear(config.window * width, config.history_channels)
        self.fuse = nn.Linear(width + config.history_channels + config.cues * packed, width)
        self.stride = config.token_stride // FEATURE_STRIDE
        self.to_tokens = nn.Linear(self.stride**2 * width, tokens)
        self.blocks = nn.ModuleList(TssmBlock(config, shift=index % 2 == 1) for index in range(config.blocks))
        self.token_norm = nn.LayerNorm(tokens)
        self.from_tokens = nn.Linear(tokens, self.stride**2 * width)
        self.decoder = nn.Sequential(*(ResidualBlock(width) for _ in range(config.decoder_blocks)))
        last = nn.Conv2d(config.up_channels, config.scale**2, 3, padding=1)
        self.upsampler = nn.Sequential(
            nn.Conv2d(width, FEATURE_STRIDE**2 * config.up_channels, 3, padding=1),
            PixelShuffle(FEATURE_STRIDE),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(config.up_channels, config.up_channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            last,
            PixelShuffle(config.scale),
        )
        self.as_graph = False
        with torch.no_grad():
            # Small, not zero: behind a zero layer nothing would have a gradient.
            last.weight.mul_(SMALL)
            assert last.bias is not None
            nn.init.zeros_(last.bias)

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
            features: as for `body`.
            grid: as for `body`.
            tau: as for `body`.

        Returns:
            G: (B, T, h2, w2, C), the aligned frames: (B, T, h2, w2, X * C), and e: (B, T, embedding).
        """
        embedding = self.embed(tau, between(features, tau))
        warped = torch.cat(warp(features, grid, self.as_graph).unbind(1), dim=-1)
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
        batch, times = tau.shape
        mixed, warped, embedding = self.mixed(features, grid, tau)
        history = functional.leaky_relu(self.history(warped), SLOPE)
        packed = functional.pixel_unshuffle(cues.flatten(0, 1), FEATURE_STRIDE).permute(0, 2, 3, 1)
        seen = torch.cat([mixed.flatten(0, 1), history.flatten(0, 1), packed], dim=-1)
        start = self.fuse(seen)
        refined = (start + self._refine(start, embedding)).permute(0, 3, 1, 2)
        residual = self.upsampler(self.decoder(refined)) * self.config.residual_scale
        return residual.reshape(batch, times, 1, *residual.shape[-2:])

    def forward(self, frames: Tensor, grid: Tensor, tau: Tensor, cues: Tensor) -> Tensor:
        """Encoder and body at once, for training: frames (B, X, 2, h, w); the rest as for `body`."""
        features = self.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.body(features, grid, tau, cues)

    def _refine(self, start: Tensor, embedding: Tensor) -> Tensor:
        """The TSSM blocks on tokens: (B * T, h2, w2, C) to the same."""
        height, width = start.shape[1:3]
        side = self.stride
        missing = (-height % side, -width % side)
        if any(missing):
            edges = (0, missing[1], 0, missing[0])
            padded = functional.pad(start.permute(0, 3, 1, 2), edges, mode="replicate")
            start = padded.permute(0, 2, 3, 1)
        rows, columns = (height + missing[0]) // side, (width + missing[1]) // side
        squares = start.reshape(-1, rows, side, columns, side, self.config.channels).transpose(2, 3)
        tokens = self.to_tokens(squares.reshape(*embedding.shape[:2], rows, columns, -1))
        transforms, tables = None, ScanTables()
        if self.as_graph:
            transforms = hartley(rows, start.device), hartley(columns, start.device)
        for block in self.blocks:
            tokens = block(tokens, embedding, transforms, tables)
        squares = self.from_tokens(self.token_norm(tokens))
        squares = squares.reshape(-1, rows, columns, side, side, self.config.channels).transpose(2, 3)
        planes = squares.reshape(-1, rows * side, columns * side, self.config.channels)
        return planes[:, :height, :width] if any(missing) else planes


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


class PixelShuffle(nn.Module):
    """torch's PixelShuffle in two moves of one axis, which ONNX Runtime does several times as fast."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(N, factor^2 C, h, w) to (N, C, factor h, factor w)."""
        count, channels, height, width = x.shape
        side = self.factor
        rows = x.reshape(count, channels // side, side, height * width).transpose(2, 3)
        rows = rows.reshape(count * channels // side**2, side, height, width * side).transpose(1, 2)
        return rows.reshape(count, channels // side**2, height * side, width * side)
