from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_enhance.nodes.statistics import WINDOW, FrameStatistics, percentiles


def test_percentiles_ignore_what_is_not_finite() -> None:
    assert percentiles([]) == {}
    assert percentiles([float("nan")]) == {}
    assert percentiles([1.0, float("nan"), 3.0])["p50"] == 2.0
    numbers = percentiles(range(101))
    assert (numbers["p50"], numbers["p95"], numbers["p99"]) == (50.0, 95.0, 99.0)


@given(st.lists(st.sampled_from(["out", "stale", "superseded", "malformed_bad_step"]), max_size=60))
def test_every_frame_is_accounted_for(fates: list[str]) -> None:
    stats = FrameStatistics()
    for fate in fates:
        stats.thermal_in()
        if fate == "out":
            stats.frame_out("classical", "", "", {"total": 3.0}, None)
        else:
            stats.drop(fate)
    snapshot = stats.snapshot()
    assert snapshot["frames_in"] == len(fates)
    assert snapshot["frames_in"] == snapshot["frames_out"] + sum(snapshot["dropped"].values())
    json.dumps(snapshot)


def test_snapshot_names_tiers_tasks_stages_and_skew() -> None:
    stats = FrameStatistics()
    stats.frame_out("classical", "", "detection", {"decode": 1.0, "total": 9.0}, -0.010)
    stats.frame_out("passthrough", "deadline", "", {"decode": 3.0, "total": 11.0}, 0.020)
    snapshot = stats.snapshot()
    assert snapshot["tiers"] == {"classical": 1, "passthrough": 1}
    assert snapshot["tier_reasons"] == {"deadline": 1}
    assert snapshot["tasks"] == {"detection": 1, "none": 1}
    assert snapshot["latency_ms"]["p50"] == pytest.approx(10.0)
    assert snapshot["latency_ms"]["by_stage"]["decode"]["p50"] == pytest.approx(2.0)
    assert snapshot["pair_skew_ms"]["p50"] == pytest.approx(15.0)
    stats.reset()
    assert stats.snapshot()["frames_out"] == 0


def test_memory_is_bounded() -> None:
    stats = FrameStatistics()
    for i in range(3 * WINDOW):
        stats.frame_out("classical", "", "", {"total": float(i)}, 0.0)
    # Percentiles are of the recent past only.
    assert stats.snapshot()["latency_ms"]["p50"] > 2 * WINDOW
