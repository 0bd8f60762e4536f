"""Everything a run needs to go on, in one safetensors file: tensors, and the scalars as JSON in its header.

There is no pickle in it, so opening one runs no code. It appears under its name whole or not at all, and
carries a checksum of its tensors.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

FORMAT = 1
_HEADER = "thermal_enhance"


class CheckpointError(ValueError):
    """A checkpoint or weights file cannot be used; the message names the file and the reason."""


def save_checkpoint(
    path: Path, groups: Mapping[str, Mapping[str, Tensor]], scalars: Mapping[str, Any]
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: file to make or replace.
        groups: tensors by group ("model", "ema", ...) and name.
        scalars: whatever JSON can hold.
    """
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    header = {"format": FORMAT, "checksum": _checksum(tensors), "scalars": dict(scalars)}
    save_tensors(path, tensors, {_HEADER: json.dumps(header)})


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, tensors of any device and layout: under another name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        plain = {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}
        # Not `save_file`, whose files nobody else may read.
        with partial.open("wb") as file:
            file.write(save(plain, dict(metadata or {})))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read a checkpoint: (tensors by group and name, scalars).

    Raises:
        CheckpointError: cut off, damaged, or not a checkpoint.
    """
    tensors, metadata = load_tensors(path)
    try:
        header = json.loads(metadata[_HEADER])
        version, checksum, scalars = header["format"], header["checksum"], dict(header["scalars"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of ours (weights alone?)") from error
    if version != FORMAT:
        raise CheckpointError(f"{path}: format {version}; this version reads format {FORMAT}")
    if _checksum(tensors) != checksum:
        raise CheckpointError(f"{path}: damaged: its tensors do not match its checksum")
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = tensor
    return groups, scalars


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: (tensors, header).

    Raises:
        CheckpointError: missing, cut off, or of another format.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cut off or not a safetensors file: {error}") from error


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        tensor = tensors[name].detach().contiguous().reshape(-1)
        value = zlib.crc32(tensor.view(torch.uint8).numpy().data if tensor.numel() else b"", value)
    return value
