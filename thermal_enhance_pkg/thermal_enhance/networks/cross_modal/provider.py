"""Models of size sd-turbo: published weights in diffusers' format, from a folder or the hub.

The weights are the user's to fetch, under their own licence; none are shipped. Only safetensors are read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from thermal_enhance.networks.cross_modal.adapter import add_adapter, load_adapter
from thermal_enhance.networks.cross_modal.configuration import CrossModalConfig, DenoiserConfig
from thermal_enhance.networks.cross_modal.model import CrossModalModel, build_unet
from thermal_enhance.networks.diffusion.context import PROMPT
from thermal_enhance.networks.diffusion.one_step import STEPS
from thermal_enhance.networks.diffusion.pretrained import KlAutoencoder, TinyAutoencoder
from thermal_enhance.networks.diffusion.text import encode_prompts

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
_SCHEDULE = {
    "prediction_type": "epsilon",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": STEPS,
}
"""What the one-step map's tables are made for (METHODS 0.2)."""
_PATTERNS = ("*.json", "*.txt", "*.safetensors")
_VARIANTS = ("*.fp16.*", "*.bf16.*", "*non_ema*", "*.onnx*", "safety_checker/*", "feature_extractor/*")


@dataclass(frozen=True)
class PretrainedConfig:
    """Where a model's weights come from and what is trained of them; keys of `model:` in a recipe.

    Attributes:
        pretrained: a diffusers pipeline: a folder, or an id of the hub.
        vae: an `AutoencoderTiny` or `AutoencoderKL` in place of the pipeline's: a folder or an id.
        adapter: folder with an adapter trained before.
        prompt: embedded once, for the fixed context.
        unet_trainable: "lora" or "full".
        unet_rank: of the UNet's LoRA.
        vae_rank: of the decoder's LoRA.
    """

    pretrained: str
    vae: str | None = None
    adapter: str | None = None
    prompt: str = PROMPT
    unet_trainable: str = "lora"
    unet_rank: int = 16
    vae_rank: int = 4


def build(values: dict[str, Any]) -> CrossModalModel:
    """A model from the `model:` of a recipe, in any size.

    Args:
        values: keys of `CrossModalConfig`; with `pretrained` among them, those of `PretrainedConfig` too.

    Raises:
        ValueError: an unknown key, a bad value, or weights that cannot be used.
    """
    settings, shape = split(values)
    if settings is None:
        if shape.size == "sd-turbo":
            raise ValueError("model.pretrained must name a diffusers folder or hub id for size sd-turbo")
        return CrossModalModel(shape)
    return load(settings, shape)


def split(values: dict[str, Any]) -> tuple[PretrainedConfig | None, CrossModalConfig]:
    """The two configurations in the `model:` of a recipe; the first only with `pretrained` among its keys."""
    names = {entry.name for entry in fields(PretrainedConfig)}
    ours = {key: value for key, value in values.items() if key in names}
    rest = {key: value for key, value in values.items() if key not in names}
    if values.get("pretrained") is None:
        # Left to the network's configuration, which names them as unknown.
        return None, CrossModalConfig.from_dict({k: v for k, v in values.items() if k != "pretrained"})
    return PretrainedConfig(**ours), CrossModalConfig.from_dict(rest)


def load(settings: PretrainedConfig, config: CrossModalConfig) -> CrossModalModel:
    """`load_pretrained` by a configuration."""
    return load_pretrained(
        settings.pretrained,
        config,
        settings.vae,
        adapter=settings.adapter,
        prompt=settings.prompt,
        unet_trainable=settings.unet_trainable,
        unet_rank=settings.unet_rank,
        vae_rank=settings.vae_rank,
    )


def load_pretrained(
    source: str | Path,
    config: CrossModalConfig,
    vae: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    context: Tensor | None = None,
    prompt: str = PROMPT,
    unet_trainable: str = "lora",
    unet_rank: int = 16,
    vae_rank: int = 4,
) -> CrossModalModel:
    """A model on published weights, with LoRA on them, float32, on the CPU.

    Args:
        source: a diffusers pipeline with unet/ and, unless given otherwise, vae/, text_encoder/ and
            tokenizer/: a folder, or an id of the hub, which is then downloaded.
        config: its `denoiser` is replaced by what the UNet is; `autoencoder` is not used.
        vae: folder or hub id of an `AutoencoderTiny` (TAESD) or `AutoencoderKL` in place of vae/.
        adapter: folder of `adapter.save_adapter` to go on from; a new adapter otherwise.
        context: (L, D) embedding in place of the prompt's; the text encoder is not needed then.
        prompt: embedded once; the text encoder is let go.
        unet_trainable: see `adapter.add_adapter`, as the ranks.
        unet_rank: of a new adapter.
        vae_rank: of a new adapter.

    Raises:
        ValueError: a folder, file or class is not what is needed; the message names it.
    """
    if config.residual:
        raise ValueError("model.residual must be false here: a published decoder makes the whole picture")
    folder = locate(source)
    _check_schedule(folder)
    unet = _read(folder / "unet", ("UNet2DConditionModel",), folder)
    autoencoder = _autoencoder(folder, None if vae is None else locate(vae))
    channels = autoencoder.latent_channels
    if (unet.config.in_channels, unet.config.out_channels) != (channels, channels):
        raise ValueError(
            f"{folder}/unet: takes {unet.config.in_channels} channels and gives {unet.config.out_channels}; "
            f"the autoencoder's latent has {channels}"
        )
    if context is None:
        context = encode_prompts(folder, [prompt])[0]
    if context.ndim != 2 or context.shape[1] != unet.config.cross_attention_dim:
        raise ValueError(
            f"the context must be (length, {unet.config.cross_attention_dim}) for {folder}/unet, "
            f"not {tuple(context.shape)}"
        )
    config = replace(config, denoiser=describe(unet, len(context), folder))
    model = CrossModalModel(config, autoencoder, unet, context)
    if adapter is None:
        add_adapter(model, unet_trainable, unet_rank, vae_rank)
    else:
        load_adapter(model, Path(adapter))
    return model


def random_model(config: CrossModalConfig, autoencoder: str = "AutoencoderKL") -> CrossModalModel:
    """An untrained model of the published shape: to measure speed and memory without the weights.

    Args:
        config: for instance `sizes.sd_turbo()`.
        autoencoder: class name, "AutoencoderKL" or "AutoencoderTiny" (TAESD), in Stable Diffusion's shape.
    """
    import diffusers

    if autoencoder not in AUTOENCODERS:
        raise ValueError(f"autoencoder must be one of {', '.join(AUTOENCODERS)}, not {autoencoder!r}")
    if autoencoder == "AutoencoderTiny":
        wrapped: KlAutoencoder | TinyAutoencoder = TinyAutoencoder(diffusers.AutoencoderTiny())
    else:
        wrapped = KlAutoencoder(
            diffusers.AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
            )
        )
    return CrossModalModel(config, wrapped, build_unet(config.denoiser, wrapped.latent_channels))


def locate(source: str | Path) -> Path:
    """The folder of a pipeline: itself, or a hub id's after its download.

    Raises:
        ValueError: neither a folder nor an id, or the download failed.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    text = str(source)
    if isinstance(source, Path) or text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise ValueError(f"{source}: no such folder (an id of the hub has the form owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(text, allow_patterns=list(_PATTERNS), ignore_patterns=list(_VARIANTS)))
    except Exception as error:  # network, authorisation, unknown id: a class of its own for each
        raise ValueError(f"{source}: neither a folder here nor to be had from the hub: {error}") from error


def describe(unet: Any, context_length: int, where: Path) -> DenoiserConfig:
    """The configuration of a loaded UNet.

    Raises:
        ValueError: it has blocks or a conditioning that the method does not know.
    """
    found = unet.config
    known = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
    if any(kind not in known for kind in found.down_block_types):
        raise ValueError(f"{where}/unet: down_block_types may hold {', '.join(known)} alone")
    for name in ("class_embed_type", "addition_embed_type", "encoder_hid_dim_type", "time_embedding_act_fn"):
        if getattr(found, name, None) is not None:
            raise ValueError(f"{where}/unet: {name} must be null, not {getattr(found, name)!r}")
    if not isinstance(found.layers_per_block, int) or found.center_input_sample:
        raise ValueError(f"{where}/unet: layers_per_block must be one number and center_input_sample false")
    heads = found.num_attention_heads or found.attention_head_dim
    return DenoiserConfig(
        channels=tuple(found.block_out_channels),
        attention=tuple(known[kind] for kind in found.down_block_types),
        layers=found.layers_per_block,
        head_dim=found.block_out_channels[0] // (heads if isinstance(heads, int) else heads[0]),
        context_dim=found.cross_attention_dim,
        context_length=context_length,
        groups=found.norm_num_groups,
    )


def _autoencoder(folder: Path, instead: Path | None) -> KlAutoencoder | TinyAutoencoder:
    if instead is None:
        place = folder / "vae"
    else:
        # A repository of an autoencoder alone has no subfolder.
        place = instead if (instead / "config.json").is_file() else instead / "vae"
    vae = _read(place, AUTOENCODERS, instead or folder)
    return TinyAutoencoder(vae) if type(vae).__name__ == "AutoencoderTiny" else KlAutoencoder(vae)


def _read(place: Path, classes: tuple[str, ...], where: Path) -> Any:
    """A diffusers model from its own folder, after a look at what it is."""
    import diffusers

    try:
        text = (place / "config.json").read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{where}: has no {place.name}/config.json: not a diffusers folder?") from error
    try:
        kind = json.loads(text).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{place}/config.json: not JSON: {error}") from error
    if kind not in classes:
        raise ValueError(f"{place}: holds a {kind}; needed: {' or '.join(classes)}")
    try:
        return (
            getattr(diffusers, kind)
            .from_pretrained(str(place), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False)
            .float()
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{place}: cannot be read: {error}") from error


def _check_schedule(folder: Path) -> None:
    """The map is for noise prediction on Stable Diffusion's schedule; another would give wrong pictures."""
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for key, wanted in _SCHEDULE.items():
        if found.get(key, wanted) != wanted:
            raise ValueError(f"{path}: {key} must be {wanted!r}, not {found[key]!r}")
