"""A learnable mask over the spectrum of each frame (METHODS 2.5a)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

ROWS, COLUMNS = 17, 9
"""The mask is stored on this grid over |fy| and |fx| from 0 to 1/2 and stretched to any picture."""


def hartley(size: int, device: torch.device | None = None) -> Tensor:
    """The orthonormal, symmetric matrix cas(2 pi i j / size) / sqrt(size), cas = cos + sin.

    A mask that is real and depends on |fy| and |fx| alone treats cos and sin of a frequency alike, and so
    their sum: two real matrices do the work of a Fourier transform, without complex numbers.
    """
    index = torch.arange(size, dtype=torch.float32, device=device)
    product = index[:, None] * index[None, :]
    # Whole turns taken off while they are exact: sizes up to 4096.
    turns = (product - torch.floor(product / size) * size) / size
    angle = 2 * math.pi * turns
    return (torch.cos(angle) + torch.sin(angle)) / math.sqrt(size)


def _stretch(frequency: Tensor, count: int) -> Tensor:
    """(n, count) weights of linear interpolation at frequencies 0..1/2 from `count` even supports."""
    supports = torch.arange(count, dtype=torch.float32, device=frequency.device)
    return torch.relu(1 - (frequency[:, None] * (2 * (count - 1)) - supports[None, :]).abs())


def _frequencies(size: int, device: torch.device | None) -> Tensor:
    """|f| of each row of the transform: 0, 1, 2, ..., 2, 1 over size."""
    index = torch.arange(size, device=device)
    return torch.minimum(index, size - index).to(torch.float32) / size


class SpectralMask(nn.Module):
    """y = inverse transform of (mask * transform of x), the identity at first.

    Args:
        channels: one mask each.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(channels, ROWS, COLUMNS))

    def mask(self, height: int, width: int) -> Tensor:
        """(C, height, width): the mask at each row and column of the transform."""
        rows = _stretch(_frequencies(height, self.gain.device), ROWS)
        columns = _stretch(_frequencies(width, self.gain.device), COLUMNS)
        return 1 + rows @ self.gain @ columns.transpose(0, 1)

    def forward(self, frames: Tensor, transforms: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Mask the spectra of frames.

        Args:
            frames: (N, C, h, w).
            transforms: `hartley(h)` and `hartley(w)`, to transform by matrices instead of torch.fft: for
                graphs, which have no usable DFT.

        Returns:
            (N, C, h, w).
        """
        height, width = frames.shape[-2:]
        mask = self.mask(height, width)
        if transforms is not None:
            rows, columns = transforms
            return rows @ ((rows @ frames @ columns) * mask) @ columns
        spectrum = torch.fft.rfft2(frames.float(), norm="ortho") * mask[..., : width // 2 + 1]
        return torch.fft.irfft2(spectrum, s=(height, width), norm="ortho").to(frames.dtype)
