"""Write a trained network as a model of the store: graphs, one weights file, reference and model.yaml."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from thermal_enhance.runtime import manifest as manifests
from thermal_enhance.runtime import onnx_graph, reference, weights
from thermal_enhance.runtime.backend import Array, TensorSpec
from thermal_enhance.runtime.manifest import FileEntry, GraphEntry, ModelManifest
from thermal_enhance.runtime.onnx_graph import ExportError

__all__ = ["ExportError", "GraphExport", "GraphLike", "export_model"]

MAX_HALF = 65504.0
Progress = Callable[[str], None]


class GraphLike(Protocol):
    """What is asked of a graph to export; networks may have a class of their own for it."""

    @property
    def role(self) -> str: ...  # noqa: D102  (see GraphExport)
    @property
    def profile(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def module(self) -> Any: ...  # noqa: D102
    @property
    def example_inputs(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def output_names(self) -> Sequence[str]: ...  # noqa: D102


@dataclass(frozen=True)
class GraphExport:
    """One graph to export.

    Attributes:
        role: what it computes ("two_view", "one_view", "encoder", "body").
        profile: (width, height) in pixels of the picture it works on.
        module: torch module with tensors in and tensors out, no control flow that depends on data.
        example_inputs: a tensor for each input by name, in the order of `forward`; their sizes become the
            graph's and their range that of the inputs it is checked with.
        output_names: names of its outputs, in order.
    """

    role: str
    profile: tuple[int, int]
    module: Any
    example_inputs: Mapping[str, Any]
    output_names: Sequence[str]


def export_model(
    modules: Sequence[GraphLike],
    state_dict: Mapping[str, Any],
    folder: str | Path,
    manifest: ModelManifest,
    *,
    tolerance: float = 1e-3,
    metadata: Mapping[str, str] | None = None,
    progress: Progress = lambda _text: None,
) -> ModelManifest:
    """Export a network and check what was written against torch.

    Everything is written and checked in a temporary folder beside, then renamed file by file, model.yaml
    last; other files of the folder (its README.md) stay.

    Args:
        modules: the graphs. Their parameters must be those of `state_dict`; a wrapper's prefix before the
            names does no harm.
        state_dict: every tensor to store, by name. Parameters are stored as fp16, floating-point buffers
            and what fp16 cannot hold as fp32.
        folder: models/<name>; made if need be.
        manifest: what to write into model.yaml besides graphs, weights and reference.
        tolerance: largest difference between ONNX Runtime and torch, relative to the largest output (at
            least 1), on the example inputs and on random ones of the same range.
        metadata: texts for the header of the weights file, for example the network's configuration.
        progress: is told what is being done.

    Returns:
        The complete manifest.

    Raises:
        ValueError: the manifest's name is not the folder's, or there is nothing to export.
        ExportError: torch cannot export a module, or the graph and torch disagree.
        BackendError: ONNX Runtime is missing or refuses the graph.
    """
    folder = Path(folder).resolve()
    if manifest.name != folder.name:
        raise ValueError(f"the model is named {manifest.name!r} and its folder {folder.name!r}: must be one")
    if not modules:
        raise ValueError(f"model {manifest.name}: no graphs to export")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        scratch = Path(temporary)
        progress("weights")
        tables = _buffer_names(modules, state_dict)
        _write_weights(scratch / weights.FILE_NAME, state_dict, tables, metadata)
        slots, _ = weights.read_header(scratch / weights.FILE_NAME)
        entries, cases = [], {}
        for graph in modules:
            entry, case = _export_graph(graph, slots, tables, scratch, tolerance, progress)
            entries.append(entry)
            cases[entry.key] = case
        reference.write(scratch / reference.FILE_NAME, cases)
        manifest = dataclasses.replace(
            manifest,
            graphs=tuple(entries),
            weights=_file_entry(scratch / weights.FILE_NAME),
            reference=_file_entry(scratch / reference.FILE_NAME),
        )
        manifest.to_yaml(scratch / manifests.FILE_NAME)
        ModelManifest.from_yaml(scratch / manifests.FILE_NAME)
        _publish(scratch, folder, manifest)
    return manifest


def _write_weights(
    path: Path, state_dict: Mapping[str, Any], tables: set[str], metadata: Mapping[str, str] | None
) -> None:
    arrays = {}
    for name, tensor in state_dict.items():
        value = tensor.detach().cpu()
        if value.is_floating_point():
            value = value.float()
            value = value.half() if name not in tables and _fits_half(value) else value
        arrays[name] = np.ascontiguousarray(value.numpy())
    weights.write(path, arrays, {"format": "pt", **(metadata or {})})


def _fits_half(tensor: Any) -> bool:
    """Does fp16 hold the tensor to its usual three digits (not overflowing, not all subnormal)?"""
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    return largest == 0.0 or 1e-4 <= largest < MAX_HALF


def _buffer_names(modules: Sequence[GraphLike], state_dict: Mapping[str, Any]) -> set[str]:
    """Entries of the state dict that are tables rather than weights."""
    buffers: set[str] = set()
    parameters: set[str] = set()
    for graph in modules:
        for name, _ in graph.module.named_buffers():
            buffers.update(onnx_graph.endings(name))
        for name, _ in graph.module.named_parameters():
            parameters.update(onnx_graph.endings(name))
    return (buffers - parameters) & set(state_dict)


def _export_graph(
    graph: GraphLike,
    slots: Mapping[str, weights.Slot],
    tables: set[str],
    folder: Path,
    tolerance: float,
    progress: Progress,
) -> tuple[GraphEntry, tuple[dict[str, Array], dict[str, Array]]]:
    """Write and check one graph; returns its entry and its reference case."""
    import torch

    profile = (int(graph.profile[0]), int(graph.profile[1]))
    key = manifests.graph_key(graph.role, profile, "fp32")
    module = _rounded(graph.module, slots)
    examples = {name: tensor.detach().cpu() for name, tensor in graph.example_inputs.items()}
    progress(f"{key}: tracing")
    model = onnx_graph.trace(module, examples, graph.output_names, key)
    names = onnx_graph.match_names(model.graph.initializers, slots, key)
    proto = onnx_graph.link_weights(model, slots, names, tables, weights.FILE_NAME)
    path = folder / f"{key}.onnx"
    onnx_graph.save(proto, path)

    entry = GraphEntry(
        role=graph.role,
        profile=profile,
        precision="fp32",
        file=path.name,
        sha256=weights.sha256(path),
        inputs=tuple(
            TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in examples.items()
        ),
        outputs=(),
        tolerance=tolerance,
    )
    stored = {name: reference.shorten(tensor.numpy()) for name, tensor in examples.items()}
    cases = {
        "its example inputs": {s.name: reference.lengthen(stored[s.name], s) for s in entry.inputs},
        "random inputs": {name: _random_like(tensor.numpy()) for name, tensor in examples.items()},
    }
    progress(f"{key}: checking against torch")
    results = {}
    for title, feeds in cases.items():
        with torch.no_grad():
            value = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in feeds.values()))
        value = value if isinstance(value, (tuple, list)) else (value,)
        results[title] = dict(zip(graph.output_names, (item.numpy() for item in value)))
    outputs = results["its example inputs"]
    entry = dataclasses.replace(
        entry,
        outputs=tuple(TensorSpec(name, array.shape, str(array.dtype)) for name, array in outputs.items()),
    )
    _compare(path, cases, results, entry)
    return entry, (stored, outputs)


def _rounded(module: Any, slots: Mapping[str, weights.Slot]) -> Any:
    """A copy in evaluation mode whose weights are what is stored of them, so that it is exactly the graph."""
    import torch

    module = copy.deepcopy(module).cpu().float().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            slot = next((slots[key] for key in onnx_graph.endings(name) if key in slots), None)
            if slot is not None and slot.dtype == "F16":
                parameter.copy_(parameter.half().float())
    return module


def _random_like(example: Array) -> Array:
    """Random values of the example's range; seeded, since an export is to be repeatable."""
    if example.dtype.kind != "f" or not example.size:
        return example
    generator = np.random.default_rng(0)
    return generator.uniform(example.min(), example.max(), example.shape).astype(example.dtype)


def _compare(
    path: Path,
    cases: Mapping[str, Mapping[str, Array]],
    results: Mapping[str, Mapping[str, Array]],
    entry: GraphEntry,
) -> None:
    from thermal_enhance.runtime.onnxruntime_backend import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(path)
    try:
        for kind in ("inputs", "outputs"):
            expected, got = getattr(entry, kind), tuple(getattr(backend, kind).values())
            if got != expected:
                raise ExportError(
                    f"{path.name}: {kind} are {', '.join(map(str, got))}; torch has "
                    f"{', '.join(map(str, expected))}"
                )
        for title, feeds in cases.items():
            for name, value in backend.run(feeds).items():
                wanted = results[title][name]
                gap = np.abs(value.astype(np.float64) - wanted).max() / max(1.0, np.abs(wanted).max())
                if not gap <= entry.tolerance:  # written so that NaN fails
                    raise ExportError(
                        f"{path.name}: output {name!r} is off torch by {gap:.2g} on {title}, more than "
                        f"{entry.tolerance:.2g}"
                    )
    finally:
        backend.close()


def _file_entry(path: Path) -> FileEntry:
    return FileEntry(path.name, weights.sha256(path))


def _publish(scratch: Path, folder: Path, manifest: ModelManifest) -> None:
    """Move the files in place, model.yaml last, and remove graphs the model no longer has."""
    folder.mkdir(exist_ok=True)
    last = scratch / manifests.FILE_NAME
    for path in sorted(scratch.iterdir()):
        if path != last:
            path.replace(folder / path.name)
    last.replace(folder / last.name)
    kept = {graph.file for graph in manifest.graphs}
    for path in folder.glob("*.onnx"):
        if path.name not in kept:
            path.unlink()
