"""The three orders in which tokens are scanned: along rows, along time, along Hilbert curves (METHODS 2.5b).

Each order turns tokens (B, T, h, w, E) into sequences (S, L, E) and back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache

import torch
from torch import Tensor


class Order(ABC):
    """Tokens to sequences and back."""

    @abstractmethod
    def arrange(self, tokens: Tensor) -> Tensor:
        """(B, T, h, w, E) to (S, L, E)."""

    @abstractmethod
    def frames(self, values: Tensor, height: int, width: int) -> Tensor:
        """One value a frame, (B, T, E), for the tokens of each sequence: (S, L or 1, E)."""

    @abstractmethod
    def restore(self, sequences: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        """(S, L, E) to (B, T, h, w, E), the inverse of `arrange`; shape is (B, T, h, w)."""


class RasterOrder(Order):
    """Row after row of a frame; with `carry` the next frame goes on where the last one ended."""

    def __init__(self, carry: bool = False) -> None:
        self.carry = carry

    def arrange(self, tokens: Tensor) -> Tensor:  # noqa: D102
        batch, times, height, width, channels = tokens.shape
        if self.carry:
            return tokens.reshape(batch, times * height * width, channels)
        return tokens.reshape(batch * times, height * width, channels)

    def frames(self, values: Tensor, height: int, width: int) -> Tensor:  # noqa: D102
        if self.carry:
            return values.repeat_interleave(height * width, dim=1)
        return values.flatten(0, 1)[:, None]

    def restore(self, sequences: Tensor, shape: tuple[int, int, int, int]) -> Tensor:  # noqa: D102
        return sequences.reshape(*shape, sequences.shape[-1])


class TimeOrder(Order):
    """All times of a pixel, then the next pixel: sequences of T tokens."""

    def arrange(self, tokens: Tensor) -> Tensor:  # noqa: D102
        batch, times, height, width, channels = tokens.shape
        pixels = tokens.reshape(batch, times, height * width, channels)
        return pixels.transpose(1, 2).reshape(batch * height * width, times, channels)

    def frames(self, values: Tensor, height: int, width: int) -> Tensor:  # noqa: D102
        batch, times, channels = values.shape
        spread = values[:, None].expand(batch, height * width, times, channels)
        return spread.reshape(batch * height * width, times, channels)

    def restore(self, sequences: Tensor, shape: tuple[int, int, int, int]) -> Tensor:  # noqa: D102
        batch, times, height, width = shape
        channels = sequences.shape[-1]
        pixels = sequences.reshape(batch, height * width, times, channels)
        return pixels.transpose(1, 2).reshape(*shape, channels)


class HilbertOrder(Order):
    """The Hilbert curve inside square windows, which keeps neighbours of the plane near in the sequence.

    Args:
        window: side of a window, a power of two.
        shift: move the windows half a side up and left, so that the next block sees across their borders.
    """

    def __init__(self, window: int, shift: bool = False) -> None:
        self.window = window
        self.before = window // 2 if shift else 0

    def _padded(self, side: int) -> int:
        return -(-(side + self.before) // self.window) * self.window

    def _grow(self, tokens: Tensor, axis: int) -> Tensor:
        side = tokens.shape[axis]
        padded = self._padded(side)
        if padded == side:
            return tokens
        places = mirrored(side, self.before, padded)
        return tokens.index_select(axis, torch.tensor(places, device=tokens.device))

    def arrange(self, tokens: Tensor) -> Tensor:  # noqa: D102
        tokens = self._grow(self._grow(tokens, 2), 3)
        batch, times, height, width, channels = tokens.shape
        side, area = self.window, self.window**2
        tiles = tokens.reshape(batch * times, height // side, side, width // side, side, channels).transpose(
            2, 3
        )
        curve = torch.tensor(hilbert_curve(side), device=tokens.device)
        return tiles.reshape(-1, area, channels).index_select(1, curve)

    def frames(self, values: Tensor, height: int, width: int) -> Tensor:  # noqa: D102
        tiles = self._padded(height) * self._padded(width) // self.window**2
        return values.flatten(0, 1).repeat_interleave(tiles, dim=0)[:, None]

    def restore(self, sequences: Tensor, shape: tuple[int, int, int, int]) -> Tensor:  # noqa: D102
        batch, times, height, width = shape
        side, channels = self.window, sequences.shape[-1]
        rows, columns = self._padded(height) // side, self._padded(width) // side
        curve = hilbert_curve(side)
        back = sorted(range(len(curve)), key=curve.__getitem__)
        tiles = sequences.index_select(1, torch.tensor(back, device=sequences.device))
        tiles = tiles.reshape(batch * times, rows, columns, side, side, channels).transpose(2, 3)
        tokens = tiles.reshape(batch, times, rows * side, columns * side, channels)
        start = self.before
        if (rows * side, columns * side) == (height, width):
            return tokens
        return tokens[:, :, start : start + height, start : start + width]


def mirrored(side: int, before: int, padded: int) -> list[int]:
    """Row numbers that lengthen `side` rows to `padded`, mirrored at the ends as often as it takes."""
    period = max(1, 2 * (side - 1))
    places = []
    for place in range(-before, padded - before):
        folded = place % period
        places.append(min(folded, period - folded))
    return places


@cache
def hilbert_curve(side: int) -> tuple[int, ...]:
    """Raster index of each step of the Hilbert curve over a square; successive steps are neighbours.

    Args:
        side: a power of two.
    """
    path = []
    for step in range(side * side):
        x = y = 0
        rest, size = step, 1
        while size < side:
            right = (rest // 2) & 1
            up = (rest ^ right) & 1
            if not up:
                if right:
                    x, y = size - 1 - x, size - 1 - y
                x, y = y, x
            x, y = x + size * right, y + size * up
            rest //= 4
            size *= 2
        path.append(y * side + x)
    return tuple(path)
