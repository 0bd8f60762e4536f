from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thermal_enhance.runtime import weights
from thermal_enhance.runtime.export import ExportError, GraphExport, export_model
from thermal_enhance.runtime.manifest import FILE_NAME, ModelManifest
from thermal_enhance.runtime.onnxruntime_backend import OnnxRuntimeBackend
from thermal_enhance.runtime.store import ModelStore

torch = pytest.importorskip("torch", reason="needs the train extra (make test)")
onnx = pytest.importorskip("onnx", reason="needs the train extra (make test)")

MANIFEST = ModelManifest("one", "restore", "edge", "1", (1,), "CC0-1.0")


def graph_of(toy: Any, role: str) -> Any:
    return onnx.load(toy.folder / f"{role}_16x16_fp32.onnx", load_external_data=False)


def externals(model: Any) -> dict[str, dict[str, str]]:
    return {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.external_data
    }


@pytest.mark.parametrize("role", ["two_view", "one_view"])
def test_every_weight_lies_in_the_one_file_under_its_own_name(toy: Any, role: str) -> None:
    model = graph_of(toy, role)
    slots, _ = weights.read_header(toy.folder / weights.FILE_NAME)
    linked = externals(model)
    parameters = {name for name, _ in toy.network.named_parameters()}
    assert set(linked) == parameters | {"mixing"}
    for name, data in linked.items():
        assert data["location"] == "weights.safetensors"
        assert (int(data["offset"]), int(data["length"])) == (slots[name].offset, slots[name].length)


def test_nothing_is_stored_twice(toy: Any) -> None:
    """Not a transposed copy of a linear layer, not a folded norm: only small constants are inside."""
    model = graph_of(toy, "two_view")
    inline = sum(
        onnx.numpy_helper.to_array(tensor).nbytes
        for tensor in model.graph.initializer
        if not tensor.external_data
    )
    assert inline < 1024
    assert (toy.folder / "two_view_16x16_fp32.onnx").stat().st_size < 20000
    stored = sum(path.stat().st_size for path in toy.folder.glob("*.safetensors"))
    values = sum(tensor.numel() for tensor in toy.network.parameters())
    assert stored < 2 * values + 4 * 64 * 64 + 20000


def test_stored_as_half_computed_as_float(toy: Any) -> None:
    model = graph_of(toy, "one_view")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["wide.weight"] == onnx.TensorProto.FLOAT16
    assert types["mixing"] == onnx.TensorProto.FLOAT
    assert types["tiny"] == onnx.TensorProto.FLOAT, "values that fp16 would flush stay fp32"
    casts = {node.input[0]: node.attribute[0].i for node in model.graph.node if node.op_type == "Cast"}
    halves = {name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT16}
    assert casts == dict.fromkeys(halves, onnx.TensorProto.FLOAT)


def test_small_tables_stay_exact_and_inline(toy: Any) -> None:
    model = graph_of(toy, "one_view")
    alpha = toy.network.alpha.numpy()[9]
    inline = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if not t.external_data]
    assert any(a.dtype == np.float32 and a.size == 1 and a.item() == alpha for a in inline)


def test_graph_is_portable(toy: Any) -> None:
    model = graph_of(toy, "two_view")
    assert model.opset_import[0].version >= 17
    assert model.ir_version <= 10
    text = str(model)
    assert "site-packages" not in text
    assert str(Path.home()) not in text
    sizes = [d for v in (*model.graph.input, *model.graph.output) for d in v.type.tensor_type.shape.dim]
    assert all(d.HasField("dim_value") for d in sizes), "static shapes"


def test_torch_loads_the_same_file(toy: Any) -> None:
    from safetensors.torch import load_file

    state = load_file(toy.folder / weights.FILE_NAME)
    assert set(state) == set(toy.network.state_dict())
    toy.network.load_state_dict(state)
    assert state["enter.weight"].dtype == torch.float16
    assert torch.equal(state["alpha"], toy.network.alpha)


def test_onnx_equals_torch_with_the_stored_weights(toy: Any) -> None:
    from safetensors.torch import load_file

    from tests.runtime.conftest import build_network

    network = build_network()
    network.load_state_dict(load_file(toy.folder / weights.FILE_NAME))
    generator = np.random.default_rng(3)
    feeds = {name: generator.random((1, 3, 16, 16), np.float32) for name in ("thermal", "rgb")}
    with torch.no_grad():
        wanted = network(*map(torch.from_numpy, feeds.values())).numpy()
    got = OnnxRuntimeBackend(toy.folder / "two_view_16x16_fp32.onnx", threads=1).run(feeds)["enhanced"]
    assert np.abs(got - wanted).max() < 1e-5


def test_manifest_tells_what_was_written(toy: Any) -> None:
    manifest = ModelManifest.from_yaml(toy.folder / FILE_NAME)
    assert manifest == toy.manifest
    assert [str(spec) for spec in manifest.graphs[0].inputs] == [
        "thermal: float32 [1, 3, 16, 16]", "rgb: float32 [1, 3, 16, 16]",
    ]  # fmt: skip
    assert manifest.parameters == {"rgb": "optional", "range": [0, 1]}
    ModelStore([toy.folder.parent]).open("toy-edge")


def small(scale: float = 1.0) -> tuple[Any, GraphExport]:
    torch.manual_seed(1)
    module = torch.nn.Linear(4, 4)
    with torch.no_grad():
        module.weight *= scale
    return module, GraphExport("body", (4, 1), module, {"x": torch.rand(1, 4)}, ["y"])


def test_an_export_replaces_the_former_and_keeps_the_card(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "README.md").write_text("the card")
    (folder / "former_8x8_fp32.onnx").write_bytes(b"")
    module, graph = small()
    export_model([graph], module.state_dict(), folder, MANIFEST, metadata={"configuration": "{}"})
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "body_4x1_fp32.onnx", "model.yaml", "reference.safetensors", "weights.safetensors",
    ]  # fmt: skip
    assert weights.read_header(folder / weights.FILE_NAME)[1] == {"configuration": "{}", "format": "pt"}
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    export_model([graph], module.state_dict(), folder, MANIFEST, metadata={"configuration": "{}"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first, "repeatable to the byte"


def test_a_failed_export_leaves_the_former_alone(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    module, graph = small()
    export_model([graph], module.state_dict(), folder, MANIFEST)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = {name: tensor + 0.1 for name, tensor in module.state_dict().items()}
    with pytest.raises(ExportError, match=r"body_4x1_fp32\.onnx: output 'y' is off torch by 0\."):
        export_model([graph], other, folder, MANIFEST)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_half_cannot_hold_stays_float(tmp_path: Path) -> None:
    module, graph = small(scale=1e6)
    export_model([graph], module.state_dict(), tmp_path / "one", MANIFEST)
    slots, _ = weights.read_header(tmp_path / "one" / weights.FILE_NAME)
    assert (slots["weight"].dtype, slots["bias"].dtype) == ("F32", "F16")


def test_refusals_say_what_to_change(tmp_path: Path) -> None:
    module, graph = small()
    state = module.state_dict()
    with pytest.raises(ValueError, match="'one' and its folder 'two'"):
        export_model([graph], state, tmp_path / "two", MANIFEST)
    with pytest.raises(ValueError, match="no graphs"):
        export_model([], state, tmp_path / "one", MANIFEST)

    class Undecided(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    undecided = dataclasses.replace(graph, module=Undecided())
    with pytest.raises(ExportError, match=r"body_4x1_fp32: torch cannot export it: .*data-dependent"):
        export_model([undecided], {}, tmp_path / "one", MANIFEST)

    large = torch.nn.Linear(64, 64)
    stranger = GraphExport("body", (4, 1), large, {"x": torch.rand(1, 64)}, ["y"])
    with pytest.raises(ExportError, match=r"weight \[64, 64\] is not in the state dict"):
        export_model([stranger], {}, tmp_path / "one", MANIFEST)
    assert list(tmp_path.iterdir()) == []
