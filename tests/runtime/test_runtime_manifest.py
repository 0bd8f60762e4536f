from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from thermal_enhance.runtime.backend import TensorSpec
from thermal_enhance.runtime.manifest import FileEntry, GraphEntry, ManifestError, ModelManifest

GRAPH = GraphEntry(
    role="two_view",
    profile=(512, 384),
    precision="fp32",
    file="two_view.onnx",
    sha256="a" * 64,
    inputs=(TensorSpec("thermal", (1, 3, 384, 512), "float32"), TensorSpec("step", (), "int64")),
    outputs=(TensorSpec("enhanced", (1, 1, 384, 512), "float32"),),
)
MANIFEST = ModelManifest(
    name="cross_modal-edge",
    method="cross_modal",
    size="edge",
    version="1.0",
    scales=(4, 8),
    licence="CC-BY-4.0",
    base="somebody/sd-turbo",
    tasks=("detection",),
    parameters={"normalise": {"low": 0.5, "high": 99.5}, "pad": 8},
    weights=FileEntry("weights.safetensors", "b" * 64),
    reference=FileEntry("reference.safetensors", "c" * 64),
    graphs=(GRAPH, dataclasses.replace(GRAPH, role="one_view", tolerance=0.002)),
    description="thermal, guided by RGB",
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    MANIFEST.to_yaml(path)
    assert ModelManifest.from_yaml(path) == MANIFEST


def test_what_is_optional_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    plain = dataclasses.replace(MANIFEST, base="", tasks=(), parameters={}, reference=None, description="")
    plain.to_yaml(path)
    assert not {"base", "tasks", "parameters", "reference"} & yaml.safe_load(path.read_text()).keys()
    assert ModelManifest.from_yaml(path) == plain


def test_nothing_to_write_before_the_export(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no graphs or weights"):
        dataclasses.replace(MANIFEST, graphs=()).to_yaml(tmp_path / "model.yaml")


def _set(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        (_set("name", value=None), "name", "missing"),
        (_set("name", value="Edge model"), "name", "lower-case"),
        (_set("method", value="magic"), "method", "cross_modal, temporal"),
        (_set("version", value=1.0), "version", "in quotes"),
        (_set("scales", value=[]), "scales", "one or more"),
        (_set("scales", value=[2.5]), "scales", "whole numbers"),
        (_set("licence", value=""), "licence", "must be a text"),
        (_set("tasks", value="detection"), "tasks", "list of texts"),
        (_set("parameters", value=[1]), "parameters", "mapping"),
        (_set("weights", value="weights.safetensors"), "weights", "mapping"),
        (_set("weights", "file", value="weights.pt"), "weights.file", "plain name of a .safetensors"),
        (_set("weights", "file", value="../weights.safetensors"), "weights.file", "plain name"),
        (_set("weights", "sha256", value="abc"), "weights.sha256", "64 hex digits"),
        (_set("graphs", value=[]), "graphs", "at least one"),
        (_set("graphs", 1, "role", value="two_view"), "graphs", "two_view_512x384_fp32 is listed twice"),
        (_set("graphs", 0, "file", value="/etc/two.onnx"), "graphs[0].file", "plain name of a .onnx"),
        (_set("graphs", 0, "file", value="two_view.pkl"), "graphs[0].file", ".onnx"),
        (_set("graphs", 0, "profile", value=[512]), "graphs[0].profile", "[width, height]"),
        (_set("graphs", 0, "precision", value="int4"), "graphs[0].precision", "fp32, fp16"),
        (_set("graphs", 0, "tolerance", value=0), "graphs[0].tolerance", "above 0"),
        (_set("graphs", 0, "inputs", 0, "shape", value=[1, -1]), "graphs[0].inputs[0].shape", "static"),
        (_set("graphs", 0, "inputs", 0, "dtype", value="real"), "graphs[0].inputs[0].dtype", "float32"),
        (_set("graphs", 1, "colour", value="red"), "graphs[1].colour", "unknown"),
        (_set("licens", value="MIT"), "licens", "unknown; known: base, description"),
    ],
)
def test_bad_field_is_named_with_file_and_reason(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], field: str, reason: str
) -> None:
    path = tmp_path / "model.yaml"
    MANIFEST.to_yaml(path)
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ManifestError) as raised:
        ModelManifest.from_yaml(path)
    text = str(raised.value)
    assert str(path) in text
    assert f"{field}" in text
    assert reason in text


@pytest.mark.parametrize("text", ["[1, 2", "- a\n", "", "\xff"])
def test_not_a_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ManifestError, match=r"model\.yaml"):
        ModelManifest.from_yaml(path)
