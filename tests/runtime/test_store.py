from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thermal_enhance.runtime import reference, store, weights
from thermal_enhance.runtime.backend import BackendError, SelfCheckError
from thermal_enhance.runtime.manifest import FILE_NAME, ManifestError, ModelManifest
from thermal_enhance.runtime.store import ModelFileError, ModelStore, UnknownGraph, UnknownModel


@pytest.fixture
def models(toy: Any, tmp_path: Path) -> Path:
    """A folder with a copy of the toy model."""
    shutil.copytree(toy.folder, tmp_path / "models" / toy.folder.name)
    return tmp_path / "models"


def test_default_folders_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THERMAL_ENHANCE_MODELS", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(store.resources, "share_directories", lambda: [tmp_path / "share"])
    assert ModelStore().folders == [
        tmp_path / "a", tmp_path / "b", tmp_path / "data" / "thermal_enhance" / "models",
        tmp_path / "share" / "models",
    ]  # fmt: skip


def test_the_checkout_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THERMAL_ENHANCE_MODELS", raising=False)
    assert Path(__file__).resolve().parents[2] / "models" in ModelStore().folders


def test_names_and_description(models: Path, toy: Any) -> None:
    (models / "not_a_model").mkdir()
    found = ModelStore([models, models.parent / "absent"])
    assert found.names() == ("toy-edge",)
    assert found.describe("toy-edge") == toy.manifest


def test_the_first_folder_counts(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "mine")
    assert ModelStore([tmp_path / "mine", models]).folder("toy-edge") == tmp_path / "mine" / "toy-edge"


def test_unknown_model_lists_the_known_and_the_folders(models: Path) -> None:
    with pytest.raises(UnknownModel) as raised:
        ModelStore([models]).open("toy-base")
    text = str(raised.value)
    assert all(word in text for word in ("'toy-base'", "toy-edge", str(models), "THERMAL_ENHANCE_MODELS"))


def test_graphs_and_profiles(models: Path) -> None:
    model = ModelStore([models]).open("toy-edge")
    graph = model.manifest.graphs[0]
    sizes = [(512, 512), (64, 64), (640, 512)]
    manifest = dataclasses.replace(
        model.manifest, graphs=tuple(dataclasses.replace(graph, profile=size) for size in sizes)
    )
    model = store.StoredModel(model.folder, manifest)
    assert model.profiles("two_view") == ((64, 64), (512, 512), (640, 512))
    assert model.best_profile("two_view", 64, 64) == (64, 64)
    assert model.best_profile("two_view", 65, 10) == (512, 512)
    assert model.best_profile("two_view", 600, 500) == (640, 512)
    assert model.best_profile("two_view", 2000, 10) == (640, 512)
    with pytest.raises(UnknownGraph, match="no graph encoder fp32; it has two_view_512x512_fp32"):
        model.best_profile("encoder", 64, 64)


def test_graph_file(models: Path) -> None:
    model = ModelStore([models]).open("toy-edge")
    assert model.roles == ("two_view", "one_view")
    assert model.graph("two_view", 16, 16) == models / "toy-edge" / "two_view_16x16_fp32.onnx"
    with pytest.raises(UnknownGraph, match="one_view 16x16 fp16; it has two_view_16x16_fp32, one_view_16"):
        model.graph("one_view", 16, 16, "fp16")


def test_load_checks_itself_and_says_why(models: Path) -> None:
    model = ModelStore([models]).open("toy-edge")
    backend = model.load("one_view", (16, 16))
    assert model.self_check < 1e-5
    assert "onnxruntime" in model.choice_reason
    assert backend.choice_reason == model.choice_reason
    out = backend.run({"thermal": np.full((1, 3, 16, 16), 0.5, np.float32)})
    assert np.isfinite(out["enhanced"]).all()


@pytest.mark.parametrize("file", ["weights.safetensors", "one_view_16x16_fp32.onnx", "reference.safetensors"])
def test_damaged_or_missing_file_is_named(models: Path, file: str) -> None:
    found = ModelStore([models])
    found.open("toy-edge")
    path = models / "toy-edge" / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelFileError, match=f"{file} is not the file model.yaml was written for"):
        found.open("toy-edge")
    path.unlink()
    with pytest.raises(ModelFileError, match=f"{file} is missing"):
        found.open("toy-edge")


def test_unchanged_files_are_read_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def sha256(path: Path) -> str:
        read.append(path.name)
        return real(path)

    real = weights.sha256
    monkeypatch.setattr(store.weights, "sha256", sha256)
    found = ModelStore([models])
    found.open("toy-edge")
    assert len(read) == 4
    found.open("toy-edge")
    assert len(read) == 4
    path = models / "toy-edge" / "weights.safetensors"
    path.write_bytes(path.read_bytes())
    found.open("toy-edge")
    assert read[4:] == ["weights.safetensors"]


def test_a_renamed_folder_is_told(models: Path) -> None:
    (models / "toy-edge").rename(models / "mine")
    with pytest.raises(ManifestError, match="'toy-edge' must be that of its folder, 'mine'"):
        ModelStore([models]).describe("mine")


def test_a_model_of_linked_files_loads(models: Path, tmp_path: Path) -> None:
    """What colcon's --symlink-install makes of a share folder."""
    linked = tmp_path / "share" / "toy-edge"
    linked.mkdir(parents=True)
    for path in (models / "toy-edge").iterdir():
        (linked / path.name).symlink_to(path)
    model = ModelStore([tmp_path / "share"]).open("toy-edge")
    model.load("two_view", (16, 16), "cpu")
    assert model.self_check < 1e-5


def rewrite(folder: Path, **changes: Any) -> None:
    manifest = ModelManifest.from_yaml(folder / FILE_NAME)
    dataclasses.replace(manifest, **changes).to_yaml(folder / FILE_NAME)


def test_wrong_results_do_not_pass(models: Path) -> None:
    """The files are as signed and the results are not: a broken kernel, another version."""
    folder = models / "toy-edge"
    manifest = ModelManifest.from_yaml(folder / FILE_NAME)
    one = next(graph for graph in manifest.graphs if graph.role == "one_view")
    feeds = {"thermal": np.full((1, 3, 16, 16), 0.5, np.float32)}
    wrong = {"enhanced": np.zeros((1, 1, 16, 16), np.float32)}
    path = folder / reference.FILE_NAME
    reference.write(path, {one.key: ({"thermal": reference.shorten(feeds["thermal"])}, wrong)})
    assert manifest.reference is not None
    entry = dataclasses.replace(manifest.reference, sha256=weights.sha256(path))
    rewrite(folder, reference=entry)
    model = ModelStore([models]).open("toy-edge")
    with pytest.raises(SelfCheckError, match=r"one_view_16x16_fp32\.onnx on onnxruntime \(cpu\) is off"):
        model.load("one_view", (16, 16))
    assert model.choice_reason == ""


def test_manifest_and_graph_disagree(models: Path) -> None:
    folder = models / "toy-edge"
    graphs = ModelManifest.from_yaml(folder / FILE_NAME).graphs
    renamed = dataclasses.replace(graphs[1].inputs[0], name="infrared")
    rewrite(folder, graphs=(graphs[0], dataclasses.replace(graphs[1], inputs=(renamed,))))
    with pytest.raises(BackendError, match=r"thermal: float32 .*says infrared: float32"):
        ModelStore([models]).open("toy-edge").load("one_view", (16, 16))
