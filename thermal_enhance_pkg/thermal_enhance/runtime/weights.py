"""The weights file: one safetensors file that torch loads and that ONNX graphs point into by offset."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_NAME = "weights.safetensors"
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""Names of types: numpy's to safetensors'."""
_LENGTH = struct.Struct("<Q")
_HEADER_LIMIT = 100 << 20
"""Largest header the format allows, bytes."""


class WeightsError(ValueError):
    """A safetensors file is damaged; the message names it."""


@dataclass(frozen=True)
class Slot:
    """Where a tensor's bytes lie in the file.

    Attributes:
        dtype: safetensors name of its type ("F16", "F32", "I64", ...).
        shape: its shape.
        offset: first byte, counted from the start of the file.
        length: number of bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def read_header(path: Path) -> tuple[dict[str, Slot], dict[str, str]]:
    """(slots by tensor name, metadata) of a safetensors file, without reading the tensors.

    The library itself does not tell offsets, and they are what external data needs.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: not a safetensors file, or cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(_LENGTH.size)
        count = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        if not 2 <= count <= min(_HEADER_LIMIT, size - _LENGTH.size):
            raise WeightsError(f"{path}: not a safetensors file (its header is {count} bytes long)")
        text = stream.read(count)
    try:
        header: dict[str, Any] = json.loads(text)
        metadata = header.pop("__metadata__", {})
        start = _LENGTH.size + count
        slots = {
            name: Slot(
                str(entry["dtype"]),
                tuple(entry["shape"]),
                start + entry["data_offsets"][0],
                entry["data_offsets"][1] - entry["data_offsets"][0],
            )
            for name, entry in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(f"{path}: not a safetensors file ({error})") from error
    if any(slot.offset + slot.length > size for slot in slots.values()):
        raise WeightsError(f"{path}: cut short: fetch or export it again")
    return slots, dict(metadata)


def write(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write numpy arrays, each aligned to its element size; the same ones make the same bytes.

    The library itself writes metadata in an order of its own each time.

    Raises:
        ValueError: an array has a type that the format or we do not know.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        array = tensors[name]
        kind = DTYPES.get(str(array.dtype))
        if kind is None:
            raise ValueError(f"{path.name}: {name} is {array.dtype}; known: {', '.join(DTYPES)}")
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(_LENGTH.pack(len(text)))
        stream.write(text)
        for name in names:
            stream.write(tensors[name].tobytes())


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
