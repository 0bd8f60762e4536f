"""Arithmetic of graphs against torch's own count, and the tables and verdicts of bench models."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from thermal_enhance.evaluation import bench_models as bench
from thermal_enhance.evaluation import graph_arithmetic, model_timing
from thermal_enhance.evaluation.bench_stats import LatencySummary
from thermal_enhance.evaluation.model_timing import Timing


def test_macs_are_those_torch_counts(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the train extra (make test)")
    pytest.importorskip("onnxscript", reason="needs the train extra (make test)")
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
            self.linear = nn.Linear(8, 24)
            self.wide = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)

        def forward(self, x):
            x = self.grouped(self.enter(x))
            tokens = x.flatten(2).transpose(1, 2)
            q, k, v = self.linear(tokens).chunk(3, -1)
            mixed = (q @ k.transpose(1, 2)).softmax(-1) @ v
            return self.wide(mixed.transpose(1, 2).reshape(x.shape))

    network, picture = Network().eval(), torch.rand(1, 3, 16, 24)
    path = tmp_path / "small.onnx"
    with torch.no_grad():
        torch.onnx.export(network, (picture,), dynamo=True, verbose=False).save(str(path))
        with FlopCounterMode(display=False) as counter:
            network(picture)
    found = graph_arithmetic.count(path)
    assert 2 * found.macs == counter.get_total_flops()
    assert found.gflop == pytest.approx(2e-9 * found.macs)
    assert sum(found.by_operator.values()) == found.macs and set(found.by_operator) >= {
        "Conv",
        "ConvTranspose",
    }


def test_macs_by_hand_and_shapes_that_are_missing(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the train extra (make test)")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT

    def save(name, middle, rows=5, domain=""):
        nodes = [
            helper.make_node("Gemm", ["a", "b"], ["c"], transA=1, transB=1, domain=domain),
            helper.make_node("MatMul", ["c", "d"], ["e"]),
            helper.make_node("Relu", ["e"], ["f"]),
        ]
        values = [("a", [rows, 2]), ("b", [3, rows]), ("d", [3, 4])]
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info(n, kind, s) for n, s in values],
            [helper.make_tensor_value_info("f", kind, [2, 4])],
            value_info=[helper.make_tensor_value_info(n, kind, s) for n, s in middle],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / name)
        return tmp_path / name

    counted = {"Gemm": 2 * 3 * 5, "MatMul": 2 * 4 * 3}
    whole = save("whole.onnx", [("c", [2, 3]), ("e", [2, 4])])
    assert graph_arithmetic.count(whole).by_operator == counted
    # As exported: the shapes in between are left to the reader.
    assert graph_arithmetic.count(save("bare.onnx", [])).by_operator == counted
    with pytest.raises(ValueError, match=r"foreign.onnx: Gemm .*no shape for 'c'"):
        graph_arithmetic.count(save("foreign.onnx", [], domain="elsewhere"))
    with pytest.raises(ValueError, match="not static"):
        graph_arithmetic.count(save("open.onnx", [], rows="n"))


def test_the_machines_rate_is_a_rate():
    assert 0.01 < graph_arithmetic.gemm_rate(sizes=(64,), repeats=2) < 1e6


GRAPH = Timing(LatencySummary(9, 50.0, 60.0, 70.0), 48.0, "cpu", 300.0, 100.0, 80.0)
WHOLE = Timing(
    LatencySummary(9, 80.0, 100.0, 120.0),
    78.0,
    peak_mb=120.0,
    rgb_used=1.0,
    stage_ms={"align": 5.0, "model": 60.0},
)
ROW = bench.Row("cross_modal-edge", "edge", "two_view", (512, 512), "fp32", 2.0, GRAPH, WHOLE, 2)


def test_the_ratio_is_to_the_time_of_the_arithmetic():
    assert ROW.ratio(100.0) == pytest.approx(2.5)  # 2 GFLOP at 100 GFLOP/s are 20 ms
    assert ROW.cpu_ratio(100.0) == pytest.approx(1.2)  # 48 ms on two threads
    assert math.isnan(replace(ROW, graph=replace(GRAPH, device="cuda:0")).ratio(100.0))


@pytest.mark.parametrize(
    ("rate", "p95", "passed"), [(100.0, 100.0, ["yes", "yes"]), (150.0, 120.0, ["no", "no"])]
)
def test_edge_is_held_to_its_goals(rate, p95, passed):
    row = replace(ROW, enhancer=replace(WHOLE, latency=LatencySummary(9, 80.0, p95, 130.0)))
    others = [replace(row, profile=(256, 256)), replace(row, size="base"), replace(row, role="one_view")]
    lines = list(bench.verdicts([*others, row], rate))
    assert [line[2:].partition(":")[0] for line in lines] == passed


def test_tables_have_a_line_a_graph():
    alone = replace(ROW, role="one_view", enhancer=None, gflop=math.nan)
    lines = bench.table([ROW, alone], 100.0).splitlines()
    assert lines[2] == (
        "| cross_modal-edge | two_view | 512x512 | fp32 | cpu | 2.00 | 50.0 / 60.0 / 70.0 | 48.0 | "
        "2.50 / 1.20 | 80.0 / 100.0 / 120.0 | 78.0 | 100% | 80 | 120 | 300 / 100 |"
    )
    assert lines[3].endswith("| - | 50.0 / 60.0 / 70.0 | 48.0 | - / - | - | - | - | 80 | - | 300 / 100 |")
    assert (
        bench.stage_table([ROW, alone]).splitlines()[2]
        == "| cross_modal-edge | two_view | 512x512 | 5.0 | 60.0 |"
    )
    assert bench.stage_table([alone]) == ""


def test_the_command_times_what_is_there(tmp_path, capsys, monkeypatch):
    assert bench.main(["--folder", str(tmp_path)]) == 2
    assert "no models in" in capsys.readouterr().err
    monkeypatch.setattr(bench, "measure", lambda *_arguments, **_options: [ROW])
    monkeypatch.setattr(graph_arithmetic, "gemm_rate", lambda: 100.0)
    assert bench.main(["--folder", str(tmp_path), "--model", "m", "--json", str(tmp_path / "f.json")]) == 0
    text = capsys.readouterr().out
    assert "matrix products run at 100 GFLOP/s" in text and "- yes: cross_modal-edge 512x512" in text
    content = json.loads((tmp_path / "f.json").read_text())
    assert content["rows"][0]["ratio"] == 2.5 and content["rows"][0]["enhancer"]["load_cold_ms"] is None
    monkeypatch.undo()
    assert bench.main(["--folder", str(tmp_path), "--model", "nothing"]) == 1
    assert "unknown model 'nothing'" in capsys.readouterr().err


def test_the_stream_is_of_the_profiles_size():
    frames = model_timing.stream((128, 96), 8, 3)
    assert len(frames) == 3
    for thermal, color in frames:
        assert thermal.shape == (12, 16) and thermal.dtype == np.uint16
        assert color.shape == (96, 128, 3) and color.dtype == np.uint8
    assert not np.array_equal(frames[0][0], frames[2][0])


def test_a_file_can_be_forgotten_and_read_again(tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    model_timing.drop_from_memory(tmp_path / "a")
    model_timing.drop_from_memory(tmp_path / "missing")
    assert (tmp_path / "a").read_bytes() == b"weights" and model_timing.peak_mb() > 1
