"""Shape of a temporal model, in every size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

BACKENDS = ("reference", "ssd", "mamba_ssm")
"""Implementations of the selective scan (see `scan.selective_scan`)."""
FEATURE_STRIDE = 2
"""Low-resolution pixels between two features."""


@dataclass(frozen=True)
class TemporalConfig:
    """Everything that decides the shape of a `TemporalModel`.

    Attributes:
        size: nano or base; a name, nothing is derived from it.
        window: frames of a window (X).
        scale: output size over input size, 2 or 4.
        channels: of the features (C), at a stride of 2.
        encoder_blocks: residual blocks of the shallow encoder.
        decoder_blocks: residual blocks of the decoder, at the features' stride.
        up_channels: width at the low resolution's own stride, from where a picture is drawn.
        history_channels: width of what is kept of all aligned frames beside their mixture. Not in the paper,
            whose sequence holds every observed frame; live, only two times are asked for, and the mixture at
            an observed one is that frame alone.
        token_channels: width of the tokens of the TSSM blocks.
        token_stride: low-resolution pixels between two tokens: 2 or 4.
        blocks: TSSM blocks (N).
        state: state dimension of the selective scan.
        expand: inner width of a scan block over its outer one.
        head_dim: channels that share one decay.
        scan_window: side of a Hilbert window in tokens, a power of two.
        scan_chunk: most tokens of a chunk of the `ssd` scan; changes speed, not results.
        carry: let the raster scan run on from one output to the next; otherwise it starts anew.
        groups: channel groups with a heat kernel of their own.
        embedding: width of the time embedding e_i.
        cues: channels of the cues.
        spectral_mask, thermal_prompt: switches of the paper's ablation.
        exact_observed: kappa = 0 at whole taus, so that a measured frame is not smoothed in time.
        scan_backend: one of BACKENDS; the exported graphs always use ssd.
        residual_scale: factor on what is added to the base. What is left to add is some hundredths of the
            range; without the factor the last weights would be as small as the optimiser's steps.
    """

    size: str = "nano"
    window: int = 3
    scale: int = 4
    channels: int = 32
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    up_channels: int = 16
    history_channels: int = 16
    token_channels: int = 48
    token_stride: int = 4
    blocks: int = 2
    state: int = 16
    expand: int = 2
    head_dim: int = 32
    scan_window: int = 8
    scan_chunk: int = 64
    carry: bool = False
    groups: int = 8
    embedding: int = 64
    cues: int = 4
    spectral_mask: bool = True
    thermal_prompt: bool = True
    exact_observed: bool = True
    scan_backend: str = "ssd"
    residual_scale: float = 0.05

    def __post_init__(self) -> None:
        least = {"window": 2, "encoder_blocks": 0, "decoder_blocks": 0, "blocks": 0}
        for name, kind in self.__dataclass_fields__.items():
            if kind.type == "int" and getattr(self, name) < least.get(name, 1):
                raise ValueError(f"{name} must be at least {least.get(name, 1)}, not {getattr(self, name)}")
        if self.scale not in {2, 4}:
            raise ValueError(f"scale must be 2 or 4, not {self.scale}")
        if self.token_stride not in {2, 4}:
            raise ValueError(f"token_stride must be 2 or 4, not {self.token_stride}")
        if self.channels % self.groups:
            raise ValueError(f"channels ({self.channels}) must be a multiple of groups ({self.groups})")
        inner = self.expand * self.token_channels
        if inner % self.head_dim:
            raise ValueError(
                f"expand * token_channels ({inner}) must be a multiple of head_dim ({self.head_dim})"
            )
        if self.scan_window < 2 or self.scan_window & (self.scan_window - 1):
            raise ValueError(f"scan_window must be a power of two, not {self.scan_window}")
        if self.scan_backend not in BACKENDS:
            raise ValueError(f"scan_backend must be one of {', '.join(BACKENDS)}, not {self.scan_backend!r}")
        if self.residual_scale <= 0:
            raise ValueError(f"residual_scale must be above 0, not {self.residual_scale}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TemporalConfig:
        """From plain YAML values.

        Raises:
            ValueError: an unknown key (named, with the known ones) or a bad value.
        """
        if not isinstance(values, dict):
            raise ValueError(f"model must be a mapping of keys to values, not {values!r}")
        known = cls.__dataclass_fields__
        for key, value in values.items():
            if key not in known:
                raise ValueError(f"model.{key} is unknown; known: {', '.join(known)}")
            wanted, fits = _KINDS[known[key].type]
            if not isinstance(value, fits) or (isinstance(value, bool) and bool not in fits):
                raise ValueError(f"model.{key} must be {wanted}, not {value!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for model.yaml."""
        return asdict(self)


_KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "bool": ("true or false", (bool,)),
    "str": ("a text", (str,)),
}
