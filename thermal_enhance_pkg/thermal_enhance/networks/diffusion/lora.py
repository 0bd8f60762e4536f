"""Ordinary LoRA through peft, on one network at a time, in peft's own file format.

A folder made by `save` opens with `peft.PeftModel.from_pretrained`, and one made by peft with `load`. The
networks may wear task LoRA (`task_lora`) as well: the order is peft inside, task LoRA outside, and whatever
peft does happens with the task LoRA taken off, so that layers have their stock names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from thermal_enhance.networks.diffusion.task_lora import replace_module, without_task_lora

UNET_TARGETS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "conv",
    "conv1",
    "conv2",
    "conv_shortcut",
    "conv_out",
    "proj_in",
    "proj_out",
    "ff.net.0.proj",
    "ff.net.2",
)
"""Suffixes of the UNet layers that take LoRA in all three releases (METHODS 0.6)."""
ALPHA = 8
"""The releases leave it at peft's default, so the scale is 8 / rank (METHODS 0.6)."""
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_ADAPTER = "default"
_PREFIX = "base_model.model."
"""What peft writes before the names of a network's layers."""
# Layers that a fusion ablation brings along are trained in full; their names end like the targets'.
_NOT_PROCESSORS = r".*\.processor\..*"


def inject(network: nn.Module, rank: int, targets: Sequence[str]) -> None:
    """Put LoRA on layers of a network; its other parameters are frozen.

    Args:
        network: a diffusers model, changed in place. The output stays the same: B is zero.
        rank: r.
        targets: endings of layer names.

    Raises:
        ValueError: no layer has such a name, or rank is below 1.
    """
    from peft import LoraConfig

    bring_layers = any(".processor." in name for name, _ in network.named_parameters())
    config = LoraConfig(
        r=rank,
        lora_alpha=ALPHA,
        init_lora_weights="gaussian",
        target_modules=list(targets),
        exclude_modules=_NOT_PROCESSORS if bring_layers else None,
    )
    _inject(network, config)


def has_lora(network: nn.Module) -> bool:
    """Does it have LoRA layers of peft's?"""
    return any(True for _ in _layers(network))


def merge(network: nn.Module) -> None:
    """Add the updates to the weights and take the LoRA layers out; nothing happens where there are none."""
    with without_task_lora(network):
        for name, layer in list(_layers(network)):
            layer.merge(safe_merge=True)
            replace_module(network, name, layer.get_base_layer())
        _forget(network)


def remove(network: nn.Module) -> None:
    """Take the LoRA layers out, unmerged."""
    with without_task_lora(network):
        for name, layer in list(_layers(network)):
            replace_module(network, name, layer.get_base_layer())
        _forget(network)


def save(network: nn.Module, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors.

    Raises:
        ValueError: the network has no LoRA layers.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    if not has_lora(network):
        raise ValueError(f"{type(network).__name__} has no LoRA to save (merged already?)")
    with without_task_lora(network):
        tensors: dict[str, Tensor] = get_peft_model_state_dict(network, adapter_name=_ADAPTER)
        folder.mkdir(parents=True, exist_ok=True)
        plain = {_PREFIX + name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        save_file(plain, str(folder / WEIGHTS_FILE), {"format": "pt"})
        config: Any = network.peft_config
        config[_ADAPTER].save_pretrained(str(folder))


def load(network: nn.Module, folder: Path) -> None:
    """Put the LoRA of a folder on a network, in place of any it has.

    Raises:
        ValueError: a file is missing, or its tensors do not fit the network; the message names the folder.
    """
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file

    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: not a LoRA adapter: it has no {name}")
    config = LoraConfig.from_pretrained(str(folder), local_files_only=True)
    config.inference_mode = False
    tensors = {n.removeprefix(_PREFIX): t for n, t in load_file(str(folder / WEIGHTS_FILE)).items()}
    remove(network)
    with without_task_lora(network):
        try:
            _inject(network, config)
            found: Any = set_peft_model_state_dict(network, tensors, adapter_name=_ADAPTER)
        except (RuntimeError, ValueError) as error:
            remove(network)
            raise ValueError(f"{folder}: does not fit this {type(network).__name__}: {error}") from error
        lost = [name for name in found.missing_keys if "lora_" in name]
        if lost or found.unexpected_keys:
            remove(network)
            first = (lost or list(found.unexpected_keys))[0]
            raise ValueError(
                f"{folder}: does not fit this {type(network).__name__}: {len(lost)} tensors missing, "
                f"{len(found.unexpected_keys)} unknown, {first} first"
            )


def _inject(network: nn.Module, config: Any) -> None:
    from peft import inject_adapter_in_model

    if has_lora(network):
        raise ValueError(f"{type(network).__name__} has LoRA already: merge or remove it first")
    with without_task_lora(network):
        inject_adapter_in_model(config, network, adapter_name=_ADAPTER)


def _layers(network: nn.Module) -> Any:
    from peft.tuners.lora import LoraLayer

    return ((name, m) for name, m in network.named_modules() if isinstance(m, LoraLayer))


def _forget(network: nn.Module) -> None:
    """Peft leaves its configuration on the network; a later injection would add to it."""
    if hasattr(network, "peft_config"):
        del network.peft_config
