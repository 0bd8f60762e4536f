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
    assert 20 <= cost.stream_ms < cost.window_ms and cost.window_ms - cost.stream_ms >= 20
    assert 0.0 < cost.saved < 1.0
    assert {"encode", "align", "model", "consistency", "envelope"} <= set(cost.stage_ms)
    with pytest.raises(ValueError, match="at least 6 frames"):
        streaming_cost(enhancer, [frame(i) for i in range(5)])
