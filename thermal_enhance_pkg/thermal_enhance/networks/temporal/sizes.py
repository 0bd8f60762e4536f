"""The sizes a temporal model comes in: one network, two shapes."""

from __future__ import annotations

from thermal_enhance.networks.temporal.configuration import TemporalConfig


def nano() -> TemporalConfig:
    """For a CPU or a small Jetson: a window of three frames, tokens at a stride of 4."""
    return TemporalConfig()


def base() -> TemporalConfig:
    """For a GPU: the paper's width, four frames, four TSSM blocks on tokens at a stride of 2."""
    return TemporalConfig(
        size="base",
        window=4,
        channels=64,
        encoder_blocks=5,
        decoder_blocks=5,
        up_channels=32,
        history_channels=32,
        token_channels=96,
        token_stride=2,
        blocks=4,
        scan_window=16,
    )


SIZES = {"nano": nano, "base": base}
"""Configuration of each size by name."""
