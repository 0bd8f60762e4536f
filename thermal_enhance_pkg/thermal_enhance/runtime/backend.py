"""The backend seam: one static graph, named arrays in, named arrays out, whatever library runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class BackendError(RuntimeError):
    """A graph cannot be loaded or run here; the message says what to change."""


class SelfCheckError(BackendError):
    """A loaded graph does not compute what the reference stored with its model says."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph.

    Attributes:
        name: its name in the graph.
        shape: static shape, every size at least 1; () for a scalar.
        dtype: numpy name of the element type, for example "float32".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {list(self.shape)}"


@runtime_checkable
class Backend(Protocol):
    """One loaded graph. Called from one thread at a time."""

    name: str
    """Library that runs it, for example "onnxruntime"."""
    device: str
    """Where it runs: "cpu", "cuda:0", ..."""
    precision: str
    """Precision of the graph as its model says: "fp32" or "fp16"."""
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    choice_reason: str
    """Why this backend and this device were taken; empty where nobody chose."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs.

        Args:
            feeds: one C-contiguous or strided array for each input, of exactly its shape and dtype.

        Returns:
            New arrays, which the caller may keep and change.

        Raises:
            ValueError: an input is missing, unknown, or of another shape or dtype.
            BackendError: the library failed.
        """

    def warm_up(self) -> None:
        """Run on zeros, so that the first frame finds memory and kernels ready."""

    def close(self) -> None:
        """Free the graph and its memory; `run` raises from then on. Closing twice is harmless."""


def check_feeds(feeds: Mapping[str, Array], inputs: Mapping[str, TensorSpec]) -> None:
    """See that feeds are what a graph takes.

    Raises:
        ValueError: naming the input, what came and what is expected.
    """
    for name, spec in inputs.items():
        value = feeds.get(name)
        if value is None:
            raise ValueError(f"input {name!r} is missing: the graph takes {_listing(inputs)}")
        if not isinstance(value, np.ndarray):
            raise ValueError(f"input {name!r} must be a numpy array, not {type(value).__name__}")
        if value.shape != spec.shape:
            raise ValueError(
                f"input {name!r} has shape {list(value.shape)}; the graph takes {list(spec.shape)}"
            )
        if value.dtype != np.dtype(spec.dtype):
            raise ValueError(f"input {name!r} is {value.dtype}; the graph takes {spec.dtype}")
    unknown = sorted(set(feeds) - set(inputs))
    if unknown:
        raise ValueError(f"input {unknown[0]!r} is unknown: the graph takes {_listing(inputs)}")


def zeros(inputs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Feeds of zeros."""
    return {name: np.zeros(spec.shape, spec.dtype) for name, spec in inputs.items()}


def _listing(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(map(str, specs.values()))
