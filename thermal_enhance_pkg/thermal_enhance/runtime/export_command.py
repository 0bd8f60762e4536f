"""`thermal-enhance export`: a trained checkpoint as a model: ONNX graphs and one weights file."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thermal_enhance import resources
from thermal_enhance.runtime.backend import BackendError
from thermal_enhance.runtime.manifest import METHODS, ModelManifest
from thermal_enhance.runtime.onnx_graph import ExportError


@dataclass(frozen=True)
class Exporter:
    """What a method's `thermal_enhance.networks.<method>.exporting` module offers.

    Attributes:
        graphs: (checkpoint, profiles) -> graphs to export, see `runtime.export.GraphExport`; profiles are
            (width, height) pairs, an empty list for the method's own.
        manifest: checkpoint -> fields of `ModelManifest` that it knows (size, version, scales, licence, base,
            tasks, parameters, description).
        state_dict: checkpoint -> all tensors to store; by default those of the graphs' modules.
        metadata: checkpoint -> texts for the header of the weights file.
    """

    graphs: Callable[[Path, list[tuple[int, int]]], Sequence[Any]]
    manifest: Callable[[Path], Mapping[str, Any]] = lambda _path: {}
    state_dict: Callable[[Path], Mapping[str, Any]] | None = None
    metadata: Callable[[Path], Mapping[str, str]] = lambda _path: {}


def find_exporter(method: str) -> Exporter:
    """The exporter of a method.

    Raises:
        ExportError: the method has none, or torch is not installed.
    """
    name = f"thermal_enhance.networks.{method}.exporting"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("thermal_enhance."):
            raise ExportError(f"--method {method}: there is no {name} yet") from error
        raise ExportError(
            f"exporting needs the Python package {error.name}: `pip install 'thermal_enhance[train]'`"
        ) from error
    offered = {
        part: getattr(module, part)
        for part in ("graphs", "manifest", "state_dict", "metadata")
        if hasattr(module, part)
    }
    if "graphs" not in offered:
        raise ExportError(f"{name} has no graphs(checkpoint, profiles)")
    return Exporter(**offered)


def parse_profile(text: str) -> tuple[int, int]:
    """`512x512` as (width, height).

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} must be WIDTHxHEIGHT in pixels, e.g. 512x512")
    return int(width), int(height)


def union_of_states(graphs: Sequence[Any]) -> dict[str, Any]:
    """State dict of the network inside the graphs' modules, a wrapper's common prefix taken off.

    Raises:
        ExportError: the modules do not share one network, so that a name would be ambiguous.
    """
    united: dict[str, Any] = {}
    for graph in graphs:
        state: dict[str, Any] = dict(graph.module.state_dict())
        while all("." in key for key in state) and len({key.partition(".")[0] for key in state}) == 1:
            state = {key.partition(".")[2]: tensor for key, tensor in state.items()}
        for key, tensor in state.items():
            if united.setdefault(key, tensor).data_ptr() != tensor.data_ptr():
                raise ExportError(
                    f"{key} is another tensor in each graph: the exporting module must offer state_dict"
                )
    return united


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0 when exported and checked, 1 when not."""
    parser = argparse.ArgumentParser(prog="thermal-enhance export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="trained weights, as the training wrote them")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--name", required=True, help="name of the model, e.g. cross_modal-edge")
    parser.add_argument(
        "--out", type=Path, help="folder of models to write into (default: yours, see models)"
    )
    parser.add_argument(
        "--profile",
        type=parse_profile,
        action="append",
        default=[],
        metavar="WxH",
        help="size of a graph; repeat",
    )
    parser.add_argument("--licence", help="terms of the weights (default: what the checkpoint says)")
    parser.add_argument("--version", help="version of the weights (default: what the checkpoint says)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-3, help="largest difference to torch (default 1e-3)"
    )
    arguments = parser.parse_args(argv)
    try:
        return _export(arguments)
    except (ExportError, BackendError, ValueError, OSError) as error:
        sys.stderr.write(f"export: {error}\n")
        return 1


def _export(arguments: argparse.Namespace) -> int:
    from thermal_enhance.runtime.export import export_model

    checkpoint: Path = arguments.checkpoint
    if not checkpoint.exists():
        raise ExportError(f"there is no checkpoint {checkpoint}")
    exporter = find_exporter(arguments.method)
    fields = dict(exporter.manifest(checkpoint))
    for key in ("licence", "version"):
        if getattr(arguments, key) is not None:
            fields[key] = getattr(arguments, key)
    missing = sorted({"size", "version", "scales", "licence"} - fields.keys())
    if missing:
        raise ExportError(f"the checkpoint does not tell {', '.join(missing)}: pass --{missing[0]}")
    fields["scales"] = tuple(fields["scales"])
    fields["tasks"] = tuple(fields.get("tasks", ()))
    manifest = ModelManifest(name=arguments.name, method=arguments.method, **fields)
    graphs = exporter.graphs(checkpoint, arguments.profile)
    state = union_of_states(graphs) if exporter.state_dict is None else exporter.state_dict(checkpoint)
    folder = (arguments.out or resources.user_directory() / "models") / arguments.name
    written = export_model(
        graphs,
        state,
        folder,
        manifest,
        tolerance=arguments.tolerance,
        metadata=exporter.metadata(checkpoint),
        progress=_say,
    )
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    sys.stdout.write(f"{written.name}: {len(written.graphs)} graphs, {size / 1e6:.1f} MB in {folder}\n")
    return 0


def _say(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"  {text}\n")
