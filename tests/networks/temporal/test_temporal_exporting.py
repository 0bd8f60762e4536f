"""From a checkpoint through `thermal-enhance export` to ONNX Runtime and an RTX engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx", reason="needs the train extra (make test)")

from safetensors.torch import save_file

from thermal_enhance import cli
from thermal_enhance.networks.temporal import exporting
from thermal_enhance.networks.temporal.configuration import TemporalConfig
from thermal_enhance.networks.temporal.model import TemporalModel
from thermal_enhance.runtime.onnxruntime_backend import OnnxRuntimeBackend
from thermal_enhance.runtime.store import ModelStore

pytestmark = pytest.mark.timeout(600)

FORBIDDEN = {"DFT", "CumSum", "Einsum", "Loop", "Scan", "If", "Col2Im", "GridSample"}


@dataclass
class Exported:
    """A model whose layers that start at zero were moved, its checkpoint and its folder."""

    model: TemporalModel
    checkpoint: Path
    folder: Path


def write_checkpoint(path: Path, model: TemporalModel) -> None:
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, {exporting.CONFIG_KEY: json.dumps(model.config.to_dict())})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    # Several chunks a frame, windows that need padding; one block, since exporting takes its time.
    config = TemporalConfig(
        size="tiny", channels=8, encoder_blocks=1, decoder_blocks=1, up_channels=4, history_channels=4,
        token_channels=8, blocks=1, state=4, head_dim=8, scan_window=4, scan_chunk=16, groups=2, embedding=8,
    )  # fmt: skip
    model = TemporalModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
        parameter.copy_(parameter.half().float())
    folder = tmp_path_factory.mktemp("temporal")
    checkpoint = folder / "best.safetensors"
    write_checkpoint(checkpoint, model)
    words = [
        "export",
        str(checkpoint),
        "--method",
        "temporal",
        "--name",
        "temporal-tiny",
        "--licence",
        "CC0-1.0",
    ]
    assert cli.main([*words, "--out", str(folder), "--profile", "40x24"]) == 0
    return Exported(model, checkpoint, folder / "temporal-tiny")


def graph(exported: Exported, role: str) -> Path:
    return exported.folder / f"{role}_40x24_fp32.onnx"


def test_graphs_equal_the_model_that_is_trained(exported: Exported) -> None:
    """With torch.fft and grid_sample on the one side, matrices and gathers on the other."""
    inputs = exporting.example_inputs(exported.model.config, 40, 24)
    inputs["grid"] = inputs["grid"] * 1.3  # beyond the border too
    inputs["tau"] = torch.tensor([[0.3, 1.0]])
    frame = inputs.pop("frame")
    wanted = exported.model.encode(frame), exported.model.body(*inputs.values())
    feeds: list[Mapping[str, Any]] = [{"frame": frame.numpy()}, {k: v.numpy() for k, v in inputs.items()}]
    for role, name, feed, value in zip(("encoder", "body"), ("features", "residual"), feeds, wanted):
        backend = OnnxRuntimeBackend(graph(exported, role), threads=1)
        got = backend.run(feed)[name]
        backend.close()
        scale = value.abs().max().item()
        assert scale > 1e-4
        assert np.abs(got - value.numpy()).max() < 1e-3 * scale


def test_no_operator_that_an_engine_lacks(exported: Exported) -> None:
    for role in ("encoder", "body"):
        model = onnx.load(graph(exported, role), load_external_data=False)
        assert not {node.op_type for node in model.graph.node} & FORBIDDEN


def test_model_yaml_tells_what_the_caller_must_know(exported: Exported) -> None:
    stored = ModelStore([exported.folder.parent]).open("temporal-tiny")
    manifest = stored.manifest
    assert (manifest.method, manifest.size, manifest.scales) == ("temporal", "tiny", (4,))
    parameters = manifest.parameters
    assert (parameters["window"], parameters["scale"], parameters["size"]) == (3, 4, "tiny")
    assert parameters["channels"] == ["level", "contrast"]
    assert parameters["cues"] == ["contrast", "difference", "gap", "outside"]
    assert TemporalConfig.from_dict(parameters["network"]) == exported.model.config
    specs = {entry.role: [str(spec) for spec in (*entry.inputs, *entry.outputs)] for entry in manifest.graphs}
    assert specs == {
        "encoder": ["frame: float32 [1, 2, 24, 40]", "features: float32 [1, 8, 12, 20]"],
        "body": [
            "features: float32 [1, 3, 8, 12, 20]", "grid: float32 [1, 2, 3, 12, 20, 2]",
            "tau: float32 [1, 2]", "cues: float32 [1, 2, 4, 24, 40]", "residual: float32 [1, 2, 1, 96, 160]",
        ],
    }  # fmt: skip


def test_shipped_weights_can_be_trained_on(exported: Exported) -> None:
    model = exporting.load_model(exported.folder / "weights.safetensors")
    assert model.config == exported.model.config
    wanted = exported.model.state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name])


@pytest.mark.parametrize("role", ["encoder", "body"])
def test_compiles_for_rtx_cards(exported: Exported, role: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the tensorrt extra (make test)", exc_type=ImportError)
    from thermal_enhance.runtime.tensorrt_rtx import compile_graph

    assert compile_graph(graph(exported, role), compute_capabilities=("SM89",)).engine


def test_a_graph_never_scans_token_by_token(tiny: TemporalConfig, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", TemporalModel(replace(tiny, scan_backend="reference")))
    assert exporting.load_model(tmp_path / "a").config.scan_backend == "ssd"


def test_profiles(exported: Exported) -> None:
    made = exporting.graphs(exported.checkpoint)
    assert [(entry.role, entry.profile) for entry in made[:4]] == [
        ("encoder", (80, 64)), ("body", (80, 64)), ("encoder", (160, 120)), ("body", (160, 120)),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="profile 42x24: both sides must be multiples of 4"):
        exporting.graphs(exported.checkpoint, [(42, 24)])


def test_other_files_are_refused(exported: Exported, tiny: TemporalConfig, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other", {"cross_modal_config": "{}"})
    with pytest.raises(ValueError, match="no temporal_config: weights of another method"):
        exporting.graphs(tmp_path / "other")
    metadata = {exporting.CONFIG_KEY: json.dumps(tiny.to_dict())}
    save_file({"a": torch.zeros(1)}, tmp_path / "torn", metadata)
    with pytest.raises(ValueError, match="not those of its configuration"):
        exporting.graphs(tmp_path / "torn")
