"""The TSSM block: spectral mask, then three selective-state blocks with a thermal prompt (METHODS 2.5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from thermal_enhance.networks.temporal.configuration import TemporalConfig
from thermal_enhance.networks.temporal.orders import HilbertOrder, Order, RasterOrder, TimeOrder
from thermal_enhance.networks.temporal.scan import ScanTables, selective_scan
from thermal_enhance.networks.temporal.spectral import SpectralMask

DIRECTIONS = 2
"""Every sequence is scanned forward and backward."""
LEAST_STEP, MOST_STEP = 1e-3, 0.1
MOST_RATE = 16.0


class ScanBlock(nn.Module):
    """One selective-state block and its gated feed-forward.

    Args:
        config: shape.
        order: in which order the tokens are scanned.
    """

    def __init__(self, config: TemporalConfig, order: Order) -> None:
        super().__init__()
        width, inner = config.token_channels, config.expand * config.token_channels
        self.order, self.state, self.head_dim = order, config.state, config.head_dim
        self.heads = inner // config.head_dim
        self.backend, self.chunk = config.scan_backend, config.scan_chunk
        self.norm = nn.LayerNorm(width)
        # Values and gates have matrices of their own: splitting one product would copy both.
        self.enter = nn.Linear(width, inner)
        self.gate = nn.Linear(width, inner)
        self.local = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.select_in = nn.Linear(inner, DIRECTIONS * self.state, bias=False)
        self.select_out = nn.Linear(inner, DIRECTIONS * self.state, bias=False)
        self.select_step = nn.Linear(inner, self.heads)
        self.log_rate = nn.Parameter(torch.log(1 + torch.rand(DIRECTIONS, self.heads) * (MOST_RATE - 1)))
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.leave_norm = nn.LayerNorm(inner)
        self.leave = nn.Linear(inner, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 2 * width)
        self.feed_gate = nn.Linear(width, 2 * width)
        self.feed_out = nn.Linear(2 * width, width)
        with torch.no_grad():
            self.select_step.bias.copy_(_step_bias(self.heads))
        self.prompt: nn.Sequential | None = None
        if config.thermal_prompt:
            last = nn.Linear(config.embedding, self.state)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.prompt = nn.Sequential(nn.Linear(config.embedding, config.embedding), nn.SiLU(), last)

    def forward(self, tokens: Tensor, embedding: Tensor, tables: ScanTables | None = None) -> Tensor:
        """(B, T, h, w, D) tokens and (B, T, e) time embeddings to tokens."""
        batch, times, height, width, _ = tokens.shape
        normed = self.norm(tokens)
        values = self.enter(normed)
        planes = values.flatten(0, 1).permute(0, 3, 1, 2)
        values = functional.silu(self.local(planes)).permute(0, 2, 3, 1).reshape(values.shape)
        prompt = None
        if self.prompt is not None:
            prompt = self.order.frames(self.prompt(embedding), height, width)
        mixed = self._scan(self.order.arrange(values), prompt, tables)
        mixed = self.order.restore(mixed, (batch, times, height, width))
        tokens = tokens + self.leave(self.leave_norm(mixed) * functional.silu(self.gate(normed)))
        normed = self.feed_norm(tokens)
        return tokens + self.feed_out(self.feed_in(normed) * functional.silu(self.feed_gate(normed)))

    def _scan(self, values: Tensor, prompt: Tensor | None, tables: ScanTables | None) -> Tensor:
        sequences, length, inner = values.shape
        maps = (sequences, length, DIRECTIONS, self.state)
        y = selective_scan(
            values.reshape(sequences, length, self.heads, self.head_dim),
            functional.softplus(self.select_step(values)),
            -torch.exp(self.log_rate),
            self.select_in(values).reshape(maps),
            self.select_out(values).reshape(maps),
            self.skip,
            prompt=None if prompt is None else prompt[:, :, None],
            backend=self.backend,
            chunk=self.chunk,
            tables=tables,
        )
        return y.reshape(sequences, length, inner)


def _step_bias(heads: int) -> Tensor:
    """Inverse softplus of log-uniform step sizes."""
    low, high = math.log(LEAST_STEP), math.log(MOST_STEP)
    steps = torch.exp(low + torch.rand(heads) * (high - low))
    return steps + torch.log(-torch.expm1(-steps))


class TssmBlock(nn.Module):
    """Spectral mask, raster (SMB), time (TMB) and Hilbert (HMB) block.

    Args:
        config: shape.
        shift: shift the Hilbert windows, as every second block does.
    """

    def __init__(self, config: TemporalConfig, shift: bool) -> None:
        super().__init__()
        width = config.token_channels
        self.mask: SpectralMask | None = None
        if config.spectral_mask:
            self.mask = SpectralMask(width)
            self.project = nn.Conv2d(width, width, 1)
        orders = (RasterOrder(config.carry), TimeOrder(), HilbertOrder(config.scan_window, shift))
        self.scans = nn.ModuleList(ScanBlock(config, order) for order in orders)

    def forward(
        self,
        tokens: Tensor,
        embedding: Tensor,
        transforms: tuple[Tensor, Tensor] | None = None,
        tables: ScanTables | None = None,
    ) -> Tensor:
        """Refine tokens.

        Args:
            tokens: (B, T, h, w, D).
            embedding: (B, T, e) time embeddings.
            transforms: see `SpectralMask`.
            tables: of the run, see `selective_scan`.

        Returns:
            (B, T, h, w, D).
        """
        if self.mask is not None:
            planes = tokens.flatten(0, 1).permute(0, 3, 1, 2)
            planes = self.project(self.mask(planes, transforms))
            tokens = tokens + planes.permute(0, 2, 3, 1).reshape(tokens.shape)
        for scan in self.scans:
            tokens = scan(tokens, embedding, tables)
        return tokens
