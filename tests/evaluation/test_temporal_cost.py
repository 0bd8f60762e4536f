"""Both ways are measured on the same frames, and the ring is what makes the difference."""

import time

import pytest

from tests.enhancers.models import TemporalStore
from tests.enhancers.test_temporal import frame, tier
from thermal_enhance.evaluation.temporal_cost import streaming_cost


def test_a_window_anew_costs_its_encoders_and_flows(tmp_path):
    pytest.importorskip("onnxruntime")
    store = TemporalStore(tmp_path)
    store.work = lambda: time.sleep(0.01)
    enhancer = tier(store)
    cost = streaming_cost(enhancer, [frame(i) for i in range(8)])
    assert len(enhancer.ring) == 0 and enhancer.counters["resets_benchmark"] == 1
    # An encoder and a body of 10 ms each; two encoders more without the ring.
    assert 20 <= cost.stream_ms < cost.window_ms and cost.window_ms - cost.stream_ms >= 15
    assert 0.0 < cost.saved < 1.0
    assert {"encode", "align", "model", "consistency", "envelope"} <= set(cost.stage_ms)
    with pytest.raises(ValueError, match="at least 6 frames"):
        streaming_cost(enhancer, [frame(i) for i in range(5)])


def test_the_window_has_one_flow_less_than_frames(tmp_path, monkeypatch):
    """By a clock that only encoders, flows and the body move: nothing is counted twice."""
    pytest.importorskip("onnxruntime")
    store = TemporalStore(tmp_path)
    now = [0.0]

    def spend(seconds):
        now[0] += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    store.work = lambda: spend(0.001)
    enhancer = tier(store)
    estimate = enhancer.ring._estimate
    enhancer.ring._estimate = lambda a, b: (spend(0.1), estimate(a, b))[1]
    cost = streaming_cost(enhancer, [frame(i) for i in range(9)])
    assert cost.stream_ms == pytest.approx(1 + 100 + 1)
    assert cost.window_ms == pytest.approx(3 * 1 + 2 * 100 + 1)
