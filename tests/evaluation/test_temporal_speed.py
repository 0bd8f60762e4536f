"""Speed of temporal models: the tables and verdicts, and a stream through a stub of a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.enhancers.models import TemporalStore
from thermal_enhance.evaluation import bench_temporal as bench
from thermal_enhance.evaluation import temporal_speed as speed
from thermal_enhance.evaluation.bench_stats import LatencySummary
from thermal_enhance.evaluation.model_timing import Subject, Timing
from thermal_enhance.evaluation.temporal_cost import StreamingCost


def row(p95: float = 80.0, gflop: float = 3.0, window_ms: float = 70.0) -> speed.Row:
    graphs = {
        role: Timing(LatencySummary(9, ms, ms, ms), ms, device="cpu")
        for role, ms in (("encoder", 10.0), ("body", 30.0))
    }
    cost = StreamingCost(50.0, window_ms, {"encode": 12.0, "model": 31.0})
    live = speed.StreamTiming(LatencySummary(9, 50.0, p95, 90.0), cost)
    flop = {"encoder": 1.0, "body": gflop - 1.0}
    return speed.Row("temporal-nano", "nano", (160, 120), 3, 2, graphs, flop, live)


def test_tables_tell_ratios_and_stages():
    text = speed.report([row()], "a CPU", 100.0)
    # 3 GFLOP at 100 GFLOP/s take 30 ms, the graphs 40.
    figures = "10.0 / 30.0 | 1.33 / 0.67 | 50.0 / 80.0 / 90.0 | 70.0 against 50.0 | 29% |"
    assert f"| temporal-nano | 160x120 | 2 | 3.00 | {figures}" in text
    assert (
        "| model | input | encode | model |" in text and "| temporal-nano | 160x120 | 12.0 | 31.0 |" in text
    )
    on_gpu = replace(row(), graphs={k: replace(t, device="cuda:0") for k, t in row().graphs.items()})
    assert "| 10.0 / 30.0 | - / - |" in speed.table([on_gpu], 100.0)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, [True, True, True]),
        ({"gflop": 5.1}, [False, True, True]),
        ({"p95": 112.0}, [True, False, True]),
        ({"window_ms": 49.0}, [True, True, False]),
    ],
)
def test_each_verdict_has_its_own_figure(changes, wanted):
    assert [line.passed for line in speed.verdicts([row(**changes)])] == wanted


def test_a_stream_is_timed(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    store = TemporalStore(tmp_path)
    monkeypatch.setattr(speed, "ModelStore", lambda _folders: store)
    timed = speed.time_stream(Subject((tmp_path,), "numpy", "body", (32, 24), "fp32", "cpu", 1, 6))
    assert timed.latency.count == 6 and timed.latency.median_ms > 0
    assert timed.cost.window_ms > timed.cost.stream_ms and "model" in timed.cost.stage_ms


def test_without_a_model_there_is_nothing_to_time(tmp_path, capsys):
    assert bench.main(["--speed", "--folder", str(tmp_path)]) == 2
    assert "no temporal models in" in capsys.readouterr().err
