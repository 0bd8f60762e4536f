"""Shape of a cross-modal model, in every size."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from thermal_enhance.networks.diffusion.attention import FUSIONS
from thermal_enhance.networks.diffusion.autoencoder import PixelAutoencoderConfig


@dataclass(frozen=True)
class DenoiserConfig:
    """Shape of a diffusers `UNet2DConditionModel`, at the latent's stride of 8.

    Attributes:
        channels: width by level, each at half the resolution of the one before.
        attention: which levels have transformer blocks (with joint attention).
        layers: residual blocks a level in the encoder half; one more in the decoder half.
        head_dim: channels of an attention head.
        context_dim: width of the text or tag embeddings.
        context_length: how many of them.
        groups: of group normalisation.
    """

    channels: tuple[int, ...] = (48, 72, 96)
    attention: tuple[bool, ...] = (False, False, True)
    layers: int = 1
    head_dim: int = 16
    context_dim: int = 32
    context_length: int = 8
    groups: int = 8

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.attention) or len(self.channels) < 2:
            raise ValueError("denoiser.channels and denoiser.attention need one entry a level, at least two")
        if any(width % self.groups for width in self.channels):
            raise ValueError(f"denoiser.channels must be multiples of groups ({self.groups})")
        if any(width % self.head_dim for width, on in zip(self.channels, self.attention) if on):
            raise ValueError(
                f"denoiser.channels with attention must be multiples of head_dim ({self.head_dim})"
            )

    @property
    def multiple(self) -> int:
        """Both sides of a picture must be multiples of this."""
        return 8 * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class CrossModalConfig:
    """Everything that decides the shape of a `CrossModalModel`.

    Attributes:
        size: edge, base or sd-turbo; a name, nothing is derived from it.
        autoencoder: of our own sizes; unused by sd-turbo, whose autoencoder is loaded.
        denoiser: the same of the UNet.
        timestep: of the one-step map, 0 to 999 (3M-TI: 199).
        fusion: csm, asym, cross, concat or none (see `JointAttention`).
        skips: encoder-to-decoder skips of the thermal view (3M-TI section 3.3).
        guide_skips: skips of the RGB view as well. Not in the paper: its joint attention sits at 1/8
            resolution and below, where an aligned RGB picture's fine edges are lost.
        query_chunk: attend to so many query tokens at a time (0: all), the same result in less memory: for
            engines without fused attention where a sequence is long (METHODS trap D).
        residual: the decoder adds to the thermal base instead of making the picture.
        residual_scale: factor on what it adds. What is left to add is some hundredths of the range; without
            the factor the last layer's weights would be as small as the optimiser's steps and never settle.
        grey_view: show the encoder channel 0 three times, as an autoencoder of photographs expects, and not
            the contrast and detail channels.
        task_rank: rank of the task LoRA (0: none); C is then an input, identity by default.
        task_alpha: the LoRA's scale is task_alpha / task_rank.
    """

    size: str = "edge"
    autoencoder: PixelAutoencoderConfig = field(default_factory=PixelAutoencoderConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    timestep: int = 199
    fusion: str = "csm"
    skips: bool = True
    guide_skips: bool = True
    query_chunk: int = 0
    residual: bool = True
    residual_scale: float = 0.05
    grey_view: bool = False
    task_rank: int = 8
    task_alpha: float = 8.0

    def __post_init__(self) -> None:
        if not 0 <= self.timestep <= 999:
            raise ValueError(f"timestep must lie in 0..999, not {self.timestep}")
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, not {self.fusion!r}")
        for name in ("task_rank", "query_chunk"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CrossModalConfig:
        """From plain YAML values.

        Raises:
            ValueError: an unknown key (named, with the known ones) or a bad value.
        """
        given = dict(values)
        for name, kind in (("autoencoder", PixelAutoencoderConfig), ("denoiser", DenoiserConfig)):
            if name in given:
                given[name] = _build(kind, given[name], f"model.{name}")
        return _build(cls, given, "model")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for model.yaml."""
        return _plain(asdict(self))


def _build(kind: Any, values: dict[str, Any], where: str) -> Any:
    known = kind.__dataclass_fields__
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a mapping of keys to values, not {values!r}")
    for key in values:
        if key not in known:
            raise ValueError(f"{where}.{key} is unknown; known: {', '.join(known)}")
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    for key, value in given.items():
        wanted, got = _kind(getattr(kind(), key)), _kind(value)
        if got != wanted:
            raise ValueError(f"{where}.{key} must be {wanted}, not {value!r}")
    try:
        return kind(**given)
    except TypeError as error:  # a list of something else than numbers
        raise ValueError(f"{where}: {error}") from error


def _kind(value: Any) -> str:
    """What a value is, in words; a whole number will do for a number."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, tuple) else "a mapping"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value
