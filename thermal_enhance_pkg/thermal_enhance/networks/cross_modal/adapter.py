"""What is trained of a model with published weights: LoRA and skips, saved apart from those weights.

A folder holds unet/ and vae/ as peft adapters and skips.safetensors with what is trained in full: the skips,
the layers that a fusion ablation adds, a task LoRA that is not all zeros, and the context the rest was
trained with. With the whole UNet trained, unet.safetensors takes the place of unet/.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from thermal_enhance.networks.cross_modal.model import CrossModalModel
from thermal_enhance.networks.diffusion import lora
from thermal_enhance.networks.diffusion.pretrained import KlAutoencoder, TinyAutoencoder
from thermal_enhance.networks.diffusion.task_lora import TaskLoraLinear, without_task_lora

SKIPS_FILE = "skips.safetensors"
UNET_FILE = "unet.safetensors"
UNET_TRAINABLE = ("lora", "full")


def add_adapter(
    model: CrossModalModel, unet_trainable: str = "lora", unet_rank: int = 16, vae_rank: int = 4
) -> None:
    """Make a model with published weights trainable as in the paper; its output stays the same.

    LoRA on the UNet and on the decoder, skips in full, the encoder frozen (METHODS 1.5). A task LoRA is
    frozen too, until prompts are trained.

    Args:
        model: with a published autoencoder; changed in place.
        unet_trainable: "lora"; or "full", which is what the paper's released trainer does (METHODS trap F).
        unet_rank: r of the UNet's LoRA (paper: 16).
        vae_rank: r of the decoder's (paper: 4).

    Raises:
        ValueError: unknown `unet_trainable`, a rank below 1, or an adapter is there already.
    """
    if unet_trainable not in UNET_TRAINABLE:
        raise ValueError(f"unet_trainable must be one of {', '.join(UNET_TRAINABLE)}, not {unet_trainable!r}")
    for name, rank in (("unet_rank", unet_rank), ("vae_rank", vae_rank)):
        if rank < 1:
            raise ValueError(f"{name} must be at least 1, not {rank}")
    model.requires_grad_(False)
    autoencoder = _autoencoder(model)
    lora.inject(autoencoder.vae, vae_rank, autoencoder.lora_targets())
    if unet_trainable == "lora":
        lora.inject(model.unet, unet_rank, lora.UNET_TARGETS)
    else:
        model.unet.requires_grad_(True)
    _set_trainable(model)


def save_adapter(model: CrossModalModel, folder: Path) -> None:
    """Write what was trained; the folder appears whole or not at all, in place of an older one.

    Raises:
        ValueError: there is nothing to save: merged already, or never added.
    """
    from safetensors.torch import save_file

    vae = _autoencoder(model).vae
    if not lora.has_lora(vae):
        raise ValueError("the model has no adapter to save (merged already?)")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        lora.save(vae, partial / "vae")
        if lora.has_lora(model.unet):
            lora.save(model.unet, partial / "unet")
        else:
            save_file(_unet_state(model), str(partial / UNET_FILE), {"format": "pt"})
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in _rest(model).items()},
            str(partial / SKIPS_FILE),
            {"format": "pt"},
        )
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_adapter(model: CrossModalModel, folder: Path) -> None:
    """Put a saved adapter on a model, in place of any it has; what it holds is trainable again.

    Args:
        model: made of the same published weights, with the same configuration.
        folder: see `save_adapter`.

    Raises:
        ValueError: a file is missing or does not fit; the message names it.
    """
    from safetensors.torch import load_file

    if not (folder / SKIPS_FILE).is_file():
        raise ValueError(f"{folder}: not an adapter: it has no {SKIPS_FILE}")
    model.requires_grad_(False)
    lora.load(_autoencoder(model).vae, folder / "vae")
    if (folder / UNET_FILE).is_file():
        lora.remove(model.unet)
        _fill(_unet_state(model, copy=False), load_file(str(folder / UNET_FILE)), folder / UNET_FILE)
        model.unet.requires_grad_(True)
    else:
        lora.load(model.unet, folder / "unet")
    rest = load_file(str(folder / SKIPS_FILE))
    needed = rest.keys() | _rest(model).keys()
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name in needed}
    _fill(wanted, rest, folder / SKIPS_FILE)
    _set_trainable(model)


def merge_adapter(model: CrossModalModel) -> None:
    """Add LoRA to the weights it belongs to, for export; the model cannot be trained on after this."""
    lora.merge(_autoencoder(model).vae)
    lora.merge(model.unet)
    model.requires_grad_(False)


def has_adapter(model: nn.Module) -> bool:
    """Is it a model whose adapter is trained, rather than all its weights?"""
    vae = getattr(getattr(model, "autoencoder", None), "vae", None)
    return vae is not None and lora.has_lora(vae)


def _autoencoder(model: CrossModalModel) -> KlAutoencoder | TinyAutoencoder:
    autoencoder = model.autoencoder
    if not isinstance(autoencoder, KlAutoencoder | TinyAutoencoder):
        raise ValueError("adapters are for published autoencoders; edge and base train all their weights")
    return autoencoder


def _set_trainable(model: CrossModalModel) -> None:
    """Injection freezes the whole network it works on; what is trained in full is released again."""
    for name, parameter in model.named_parameters():
        if name.startswith(("skips.", "guide_skips.")) or ".processor." in name:
            parameter.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, TaskLoraLinear):
            module.lora_down.requires_grad_(False)
            module.lora_up.requires_grad_(False)


def _rest(model: CrossModalModel) -> dict[str, Tensor]:
    """What skips.safetensors holds, by the names of the model."""
    tasks = [m for m in model.modules() if isinstance(m, TaskLoraLinear)]
    used = any(bool(m.lora_up.any()) for m in tasks)
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name == "context"
        or name.startswith(("skips.", "guide_skips."))
        or ".processor." in name
        or (used and name.endswith((".lora_down", ".lora_up")))
    }


def _unet_state(model: CrossModalModel, copy: bool = True) -> dict[str, Tensor]:
    """The UNet's own weights, under their stock names."""
    with without_task_lora(model.unet):
        state = {n: t for n, t in model.unet.state_dict().items() if ".processor." not in n}
    return {n: t.detach().cpu().contiguous() for n, t in state.items()} if copy else state


@torch.no_grad()
def _fill(wanted: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found or name not in wanted or found[name].shape != wanted[name].shape:
            raise ValueError(f"{path}: does not fit the model's configuration, {name} first")
        wanted[name].copy_(found[name])
