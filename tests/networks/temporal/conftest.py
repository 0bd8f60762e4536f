"""A model of a few thousand parameters, and inputs for it."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from thermal_enhance.networks.temporal.configuration import TemporalConfig


@pytest.fixture
def tiny() -> TemporalConfig:
    return TemporalConfig(
        size="tiny",
        channels=8,
        encoder_blocks=1,
        decoder_blocks=1,
        up_channels=4,
        history_channels=4,
        token_channels=8,
        blocks=1,
        state=4,
        head_dim=8,
        scan_window=4,
        groups=2,
        embedding=8,
    )


def straight(height: int, width: int) -> Any:
    """A sampling grid that moves nothing."""
    y = (torch.arange(height) * 2 + 1) / height - 1
    x = (torch.arange(width) * 2 + 1) / width - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def window_inputs(
    config: TemporalConfig, height: int, width: int, batch: int = 1, times: int = 2
) -> tuple[Any, Any, Any, Any]:
    """Frames, grid, tau and cues of the live case, with a little motion."""
    shape = (batch, times, config.window, height // 2, width // 2, 2)
    return (
        torch.randn(batch, config.window, 2, height, width),
        straight(height // 2, width // 2).expand(shape) + 0.05 * torch.randn(shape),
        (config.window - 1 - 0.5 * torch.arange(times).flip(0)).expand(batch, times),
        torch.randn(batch, times, config.cues, height, width),
    )
