"""Every graph that ships must compile for RTX cards: compiled, not executed here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from thermal_enhance.runtime.backend import BackendError
from thermal_enhance.runtime.tensorrt_rtx import compile_graph

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "models").glob("*/*.onnx"))


@pytest.fixture
def library() -> Any:
    return pytest.importorskip(
        "tensorrt_rtx", reason="needs the tensorrt extra (make test)", exc_type=ImportError
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_graph_compiles(library: Any, path: Path) -> None:
    assert len(compile_graph(path).engine) > 1000


@pytest.mark.parametrize("role", ["two_view", "one_view"])
def test_exported_graph_compiles_with_its_weights(library: Any, toy: Any, role: str) -> None:
    compiled = compile_graph(toy.folder / f"{role}_16x16_fp32.onnx", compute_capabilities=("SM86", "SM89"))
    assert len(compiled.engine) > 2 * sum(tensor.numel() for tensor in toy.network.parameters())
    assert compiled.report.startswith("compiled, not executed here: ")
    assert "SM86, SM89" in compiled.report


def test_through_a_link(library: Any, toy: Any, tmp_path: Path) -> None:
    link = tmp_path / "linked.onnx"
    link.symlink_to(toy.folder / "one_view_16x16_fp32.onnx")
    assert compile_graph(link, compute_capabilities=("SM89",)).engine


def test_the_parsers_words(library: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the train extra (make test)")
    value = [onnx.helper.make_tensor_value_info(name, 1, [4, 1]) for name in ("x", "y")]
    node = onnx.helper.make_node("Bernoulli", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    path = tmp_path / "odd.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), path)
    with pytest.raises(BackendError, match=r"odd\.onnx: TensorRT-RTX cannot parse it: .*Bernoulli"):
        compile_graph(path)


def test_unknown_card(library: Any, toy: Any) -> None:
    with pytest.raises(BackendError, match="does not know 'SM1'"):
        compile_graph(toy.folder / "one_view_16x16_fp32.onnx", compute_capabilities=("SM1",))


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.onnx").touch()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendError, match=r"thermal_enhance\[tensorrt\]"):
        compile_graph(tmp_path / "a.onnx")
