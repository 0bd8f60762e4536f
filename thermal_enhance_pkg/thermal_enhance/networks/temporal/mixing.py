"""TDIM: features at any time, as heat that spreads along the rod of frames (THERIS; METHODS 2.3, 2.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

FREQUENCIES = 8
"""Octaves of the Fourier features of tau."""
KAPPA_BIAS = -4.6
"""softplus of it is 0.01: mixing starts as almost exact cosine interpolation."""
WHOLE = 1e-4
"""A tau this close to a whole number is an observed frame's."""


def mixing_matrix(tau: Tensor, kappa: Tensor, positions: Tensor | None = None) -> Tensor:
    """M of G_i = sum_x M_ix F_x: cosine transform over the frames, heat kernel, inverse transform at tau.

    The frames are a rod of length X with insulated ends, F_x at x + 1/2. Its n-th mode decays as
    exp(-kappa_n (n pi / X)^2); mode 0 does not, so that rows sum to 1 whatever kappa is.

    Args:
        tau: (...) times in units of frames, any real number; 0 is the first frame, X - 1 the last.
        kappa: (..., X) heat per mode, at least 0; leading axes broadcast with tau's. 0 interpolates.
        positions: (X,) where the frames really lie, in the same unit, if not at 0..X-1: the modes' amplitudes
            are then found by least squares.

    Returns:
        (..., X).
    """
    count = kappa.shape[-1]
    modes = torch.arange(count, dtype=kappa.dtype, device=kappa.device) * (math.pi / count)
    at_tau = torch.cos((tau[..., None] + 0.5) * modes) * torch.exp(-kappa * modes.square())
    if positions is None:
        frames = torch.arange(count, dtype=kappa.dtype, device=kappa.device)
        norm = torch.where(modes > 0, 2.0 / count, 1.0 / count)
        analysis = torch.cos((frames[None, :] + 0.5) * modes[:, None]) * norm[:, None]
    else:
        analysis = torch.linalg.pinv(torch.cos((positions[:, None].to(modes) + 0.5) * modes))
    return at_tau @ analysis


def between(features: Tensor, tau: Tensor) -> Tensor:
    """Mean over space of |F_floor - F_ceil| of the two frames around each tau; 0 at a frame.

    Args:
        features: (B, X, C, h, w).
        tau: (B, T).

    Returns:
        (B, T, C).
    """
    steps = (features[:, 1:] - features[:, :-1]).abs().mean(dim=(-2, -1))
    # Chosen by weights rather than by index: the graph must not depend on the data.
    starts = torch.arange(steps.shape[1], dtype=tau.dtype, device=tau.device)
    chosen = (torch.floor(tau)[..., None] == starts).to(steps.dtype) * _fractional(tau)[..., None]
    return chosen @ steps


def _fractional(tau: Tensor) -> Tensor:
    return ((tau - torch.floor(tau + 0.5)).abs() > WHOLE).to(tau.dtype)


class TimeEmbedding(nn.Module):
    """e_i from Fourier features of tau and the change between its two frames (METHODS 2.4).

    Args:
        window: frames of a window (X).
        channels: of the features.
        width: of the embedding.
    """

    def __init__(self, window: int, channels: int, width: int) -> None:
        super().__init__()
        self.window = window
        self.layers = nn.Sequential(
            nn.Linear(2 * FREQUENCIES + 1 + channels, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, tau: Tensor, change: Tensor) -> Tensor:
        """(B, T) taus and (B, T, C) changes to (B, T, width)."""
        phase = (tau / (self.window - 1))[..., None]
        octaves = torch.arange(FREQUENCIES, dtype=tau.dtype, device=tau.device)
        angles = phase * (math.pi * torch.exp2(octaves))
        return self.layers(torch.cat([phase, torch.sin(angles), torch.cos(angles), change], dim=-1))


class HeatMixing(nn.Module):
    """The mixing matrix of each channel group, its heat from the time embedding.

    Args:
        window: frames of a window (X).
        groups: channel groups (G).
        width: of the embedding.
        exact_observed: no heat at whole taus.
    """

    def __init__(self, window: int, groups: int, width: int, exact_observed: bool) -> None:
        super().__init__()
        self.window, self.groups, self.exact_observed = window, groups, exact_observed
        self.hidden = nn.Linear(width, width)
        self.kappa = nn.Linear(width, window * groups)
        nn.init.zeros_(self.kappa.weight)
        nn.init.constant_(self.kappa.bias, KAPPA_BIAS)

    def forward(self, tau: Tensor, embedding: Tensor) -> Tensor:
        """(B, T) taus and (B, T, width) embeddings to M: (B, T, G, X)."""
        kappa = functional.softplus(self.kappa(functional.silu(self.hidden(embedding))))
        kappa = kappa.reshape(*tau.shape, self.groups, self.window)
        if self.exact_observed:
            kappa = kappa * _fractional(tau)[..., None, None]
        return mixing_matrix(tau[..., None], kappa)


def warp(features: Tensor, grid: Tensor, by_gather: bool = False) -> Tensor:
    """Every frame as it looks at every tau.

    Args:
        features: (B, X, C, h, w), h and w at least 2.
        grid: (B, T, X, h, w, 2) where to look, in [-1, 1] (`align_corners=False`); beyond the border it sees
            the border.
        by_gather: the same from four gathers, as in graphs: ONNX Runtime's GridSample takes longer than all
            the rest of the model.

    Returns:
        (B, X, T, h, w, C).
    """
    batch, window, channels, height, width = features.shape
    times = grid.shape[1]
    # The outputs of one frame lie side by side, so that no frame is copied for each.
    stacked = grid.transpose(1, 2).reshape(batch * window, times * height, width, 2)
    if by_gather:
        warped = _gathered(features.flatten(0, 1), stacked)
    else:
        warped = functional.grid_sample(
            features.flatten(0, 1), stacked, mode="bilinear", padding_mode="border", align_corners=False
        ).permute(0, 2, 3, 1)
    return warped.reshape(batch, window, times, height, width, channels)


def _gathered(features: Tensor, grid: Tensor) -> Tensor:
    """`grid_sample` (bilinear, border) of (N, C, h, w) at (N, H, W, 2): (N, H, W, C)."""
    count, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels)
    x = (grid[..., 0] * (width / 2) + (width - 1) / 2).clamp(0, width - 1)
    y = (grid[..., 1] * (height / 2) + (height - 1) / 2).clamp(0, height - 1)
    # On the last row and column the second corner has all the weight.
    left, top = torch.floor(x).clamp(max=width - 2), torch.floor(y).clamp(max=height - 2)
    right_part, low_part = (x - left)[..., None], (y - top)[..., None]
    first = torch.arange(count, device=features.device)[:, None, None] * (height * width)
    corner = ((top * width + left).to(torch.int64) + first).flatten()
    weights = (
        (1 - right_part) * (1 - low_part),
        right_part * (1 - low_part),
        (1 - right_part) * low_part,
        right_part * low_part,
    )
    total = None
    for step, weight in zip((0, 1, width, width + 1), weights):
        seen = rows.index_select(0, corner + step).reshape(*grid.shape[:-1], channels) * weight
        total = seen if total is None else total + seen
    assert total is not None
    return total


def mix(frames: Tensor, matrix: Tensor) -> Tensor:
    """G_i = sum_x M_ix F_x, M by channel group.

    Args:
        frames: (B, T, h, w, X * C), the aligned frames one behind the other.
        matrix: (B, T, G, X).

    Returns:
        (B, T, h, w, C).
    """
    batch, times, groups, window = matrix.shape
    channels = frames.shape[-1] // window
    by_channel = matrix.transpose(2, 3).repeat_interleave(channels // groups, dim=3)[..., None]
    # As one product with a matrix of diagonal blocks: X times the arithmetic in a fraction of the time.
    blocks = by_channel * torch.eye(channels, dtype=matrix.dtype, device=matrix.device)
    rows = frames.reshape(batch, times, -1, window * channels)
    mixed = rows @ blocks.reshape(batch, times, window * channels, channels)
    return mixed.reshape(*frames.shape[:-1], channels)
