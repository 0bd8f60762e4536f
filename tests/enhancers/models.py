"""Models for the tests: one that is a manifest only, and one that computes something simple."""

from __future__ import annotations

from pathlib import Path

from thermal_enhance.runtime.backend import TensorSpec
from thermal_enhance.runtime.manifest import FILE_NAME, FileEntry, GraphEntry, ModelManifest


def stub_model(folder: Path, name: str, method: str = "cross_modal") -> Path:
    """A model.yaml without the files it speaks of: enough for whatever does not load it."""
    pictures = {
        role: tuple(TensorSpec(view, (1, 3, 64, 64), "float32") for view in views)
        for role, views in (("two_view", ("thermal", "rgb")), ("one_view", ("thermal",)))
    }
    graphs = tuple(
        GraphEntry(
            role=role,
            profile=(64, 64),
            precision="fp32",
            file=f"{role}.onnx",
            sha256="0" * 64,
            inputs=inputs,
            outputs=(TensorSpec("enhanced", (1, 1, 64, 64), "float32"),),
        )
        for role, inputs in pictures.items()
    )
    manifest = ModelManifest(
        name=name,
        method=method,
        size="edge",
        version="1",
        scales=(4, 8),
        licence="CC0-1.0",
        weights=FileEntry("weights.safetensors", "0" * 64),
        graphs=graphs,
    )
    (folder / name).mkdir()
    manifest.to_yaml(folder / name / FILE_NAME)
    return folder / name
