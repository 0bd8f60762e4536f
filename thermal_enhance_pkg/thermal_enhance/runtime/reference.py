"""The self-check: inputs and outputs of each graph, stored with the model and small whatever its size.

Large inputs are stored as their beginning and repeated to full length; large outputs as every n-th value.
So every graph of a model has a reference of some tens of kilobytes, made by torch when it was exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from thermal_enhance.runtime import weights
from thermal_enhance.runtime.backend import Array, Backend, SelfCheckError, TensorSpec
from thermal_enhance.runtime.manifest import GraphEntry

FILE_NAME = "reference.safetensors"
WHOLE = 16384
"""Inputs of up to this many values are stored whole."""
PERIOD = 4093
"""Values stored of a larger input; prime, so that rows of a picture do not repeat each other."""
SAMPLES = 2048
"""About how many values are stored of an output."""


def shorten(value: Array) -> Array:
    """What is stored of an input: all of it, or the first PERIOD values, flat."""
    flat = np.ascontiguousarray(value).reshape(-1)
    return flat if flat.size <= WHOLE else flat[:PERIOD]


def lengthen(stored: Array, spec: TensorSpec) -> Array:
    """The input that a stored one stands for.

    Args:
        stored: flat values.
        spec: the input it is for.
    """
    return np.resize(stored, spec.shape).astype(spec.dtype, copy=False)


def stride(size: int) -> int:
    """Every how many values of an output of `size` values one is stored; odd, to meet all columns."""
    return max(1, size // SAMPLES) | 1


def sample(value: Array) -> Array:
    """What is stored of an output, flat."""
    return np.ascontiguousarray(value).reshape(-1)[:: stride(value.size)].copy()


def write(path: Path, cases: Mapping[str, tuple[Mapping[str, Array], Mapping[str, Array]]]) -> None:
    """Write references.

    Args:
        path: the file.
        cases: by `GraphEntry.key`: (shortened inputs, full outputs for the lengthened inputs).
    """
    tensors = {}
    for key, (inputs, outputs) in cases.items():
        tensors.update({f"{key}/input/{name}": value for name, value in inputs.items()})
        tensors.update({f"{key}/output/{name}": sample(value) for name, value in outputs.items()})
    weights.write(path, tensors)


def check(path: Path, entry: GraphEntry, backend: Backend) -> float:
    """Run a loaded graph on its reference.

    Returns:
        The largest difference, relative to the largest reference value (at least 1).

    Raises:
        SelfCheckError: outputs are not finite, differ by more than the graph's tolerance, or the reference
            does not fit the graph.
    """
    from safetensors import safe_open

    worst = 0.0
    try:
        with safe_open(str(path), framework="numpy") as file:
            feeds = {
                spec.name: lengthen(file.get_tensor(f"{entry.key}/input/{spec.name}"), spec)
                for spec in entry.inputs
            }
            outputs = backend.run(feeds)
            for spec in entry.outputs:
                expected = file.get_tensor(f"{entry.key}/output/{spec.name}")
                worst = max(worst, _difference(entry, spec.name, sample(outputs[spec.name]), expected))
    except SelfCheckError:
        raise
    except Exception as error:  # safetensors' error class derives from Exception alone
        raise SelfCheckError(f"{path}: cannot check {entry.file} against it: {error}") from error
    if worst > entry.tolerance:
        raise SelfCheckError(
            f"{entry.file} on {backend.name} ({backend.device}) is off its reference by {worst:.2g}, more "
            f"than {entry.tolerance:.2g}: choose another device, or export or fetch the model again"
        )
    return worst


def _difference(entry: GraphEntry, name: str, got: Array, expected: Array) -> float:
    if got.shape != expected.shape:
        raise SelfCheckError(f"{entry.file}: output {name!r} has another size than its reference")
    if not np.isfinite(got).all():
        raise SelfCheckError(f"{entry.file}: output {name!r} is not finite on the reference input")
    gap = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
    return float(gap / max(1.0, np.abs(expected).max(initial=0.0)))
