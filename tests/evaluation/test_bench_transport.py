import json
import math
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_enhance.evaluation import bench_transport as bench
from thermal_enhance.evaluation import bench_transport_result as report
from thermal_enhance.evaluation.bench_children import BenchmarkError, Children, graph_environment
from thermal_enhance.evaluation.bench_stats import LatencySummary, Spread, parse_process_cpu_s, process_cpu_s
from thermal_enhance.evaluation.bench_transport_driver import pattern, stamp_of
from thermal_enhance.evaluation.bench_transport_stock import FirstFitSynchronizer

MS = 1_000_000


def run_of(node, driver, p95, lost=0, sent=100):
    return report.TransportRun(
        node,
        driver,
        sent,
        sent - lost,
        sent - lost,
        LatencySummary(sent - lost, p95 / 2, p95, p95 * 2),
        1.0,
        0,
    )


def result_of(*runs):
    return report.TransportResult(report.TransportConfig(), {"processor": "x", "cores": 2}, runs)


# ---- percentiles, processor time ----------------------------------------------------------------


def test_latency_summary_interpolates_between_ranks():
    summary = LatencySummary.of(range(101))
    assert (summary.count, summary.median_ms, summary.p95_ms, summary.p99_ms) == (101, 50.0, 95.0, 99.0)


def test_no_latency_is_not_a_number():
    summary = LatencySummary.of([])
    assert summary.count == 0
    assert math.isnan(summary.p95_ms)


@given(st.lists(st.floats(0, 1e4), min_size=1))
def test_percentiles_are_ordered_and_within_the_data(values):
    summary = LatencySummary.of(values)
    assert min(values) - 1e-6 <= summary.median_ms <= summary.p95_ms + 1e-6
    assert summary.p95_ms <= summary.p99_ms + 1e-6
    assert summary.p99_ms <= max(values) + 1e-6


def test_spread_leaves_out_what_is_not_a_number():
    assert Spread.of([3.0, float("nan"), 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert math.isnan(Spread.of([float("nan")]).median)


def test_cpu_time_survives_parentheses_in_the_command():
    stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20 0 1 0 100"
    assert parse_process_cpu_s(stat, 100) == 4.0
    with pytest.raises(ValueError):
        parse_process_cpu_s("", 100)


def test_cpu_time_of_a_process_that_is_not_there_is_not_a_number():
    assert math.isnan(process_cpu_s(2**22 + 1))


# ---- frames ---------------------------------------------------------------------------------------


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 999_999_999), st.booleans())
def test_stamp_of_reads_either_byte_order(sec, nanosec, little):
    message = bytes([0, int(little), 0, 0]) + struct.pack("<iI" if little else ">iI", sec, nanosec)
    assert stamp_of(message) == sec * 10**9 + nanosec


def test_stamp_of_refuses_a_truncated_message():
    with pytest.raises(ValueError):
        stamp_of(b"\0\1\0\0\0\0\0\0\0\0\0")


def test_pattern_is_seeded_and_of_the_type_asked_for():
    thermal = pattern(4, 6, 1, 16, seed=1)
    assert (thermal.shape, thermal.dtype.name) == ((4, 6), "uint16")
    assert (thermal == pattern(4, 6, 1, 16, seed=1)).all()
    assert thermal.max() < 2**14
    assert pattern(4, 6, 3, 8, seed=1).shape == (4, 6, 3)


def test_match_frames_counts_what_was_measured_once():
    arrivals = [(1, 1 * MS), (10, 10 + 3 * MS), (10, 10 + 9 * MS), (20, 20 + 5 * MS)]
    latencies, received, paired = bench.match_frames([10, 20, 30], arrivals, paired=[20, 30, 1])
    assert sorted(latencies) == [3.0, 5.0]
    assert (received, paired) == (2, 1)
    assert bench.match_frames([10, 20, 30], arrivals, paired=None)[2] == 2


# ---- the stock node's pairing ---------------------------------------------------------------------


def message(stamp_ns):
    sec, nanosec = divmod(stamp_ns, 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)))


def test_first_fit_pairs_in_either_order_and_once():
    pairs = []
    sync = FirstFitSynchronizer(lambda a, b: pairs.append((a, b)), 10, 0.02)
    thermal, color, color2, thermal2 = (message(m * MS) for m in (1000, 1005, 1033, 1034))
    sync.add(0, thermal)
    sync.add(1, color)
    sync.add(1, color2)
    sync.add(0, thermal2)
    sync.add(0, message(1036 * MS))
    assert pairs == [(thermal, color), (thermal2, color2)]


def test_first_fit_is_strict_and_bounded():
    pairs = []
    sync = FirstFitSynchronizer(lambda a, b: pairs.append((a, b)), 2, 0.02)
    sync.add(0, message(0))
    sync.add(1, message(20 * MS))
    assert not pairs
    sync.add(0, message(100 * MS))
    sync.add(0, message(200 * MS))
    sync.add(1, message(1 * MS))
    assert not pairs  # the first thermal frame has left the queue of two


# ---- configuration, verdicts, report --------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 0},
        {"rate": float("nan")},
        {"warmup_s": -1},
        {"repeats": 0},
        {"thermal": (0, 5)},
        {"nodes": ("other",)},
        {"nodes": ()},
    ],
)
def test_configuration_names_what_is_wrong(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        report.TransportConfig(**change)


def test_sizes():
    assert bench.parse_sizes("640x512,1920X1080") == ((640, 512), (1920, 1080))
    for text in ("640x512", "640,512", "a,b", "1x2,3x4,5x6"):
        with pytest.raises(ValueError, match="--sizes"):
            bench.parse_sizes(text)


def test_ratio_is_of_medians_with_the_spread_of_single_repetitions():
    result = result_of(
        *(run_of(report.STOCK, "default", p95) for p95 in (100, 80, 120)),
        *(run_of(report.PAIRED, "profile", p95) for p95 in (10, 20, 40)),
    )
    assert result.ratio(report.PAIRED, "profile") == Spread(5.0, 3.0, 10.0)
    assert result.ratio(report.OURS, "profile") is None


def full(fast=20.0, plain=60.0, lost=0, stock_lost=0):
    return result_of(
        run_of(report.PAIRED, "default", plain, lost),
        run_of(report.PAIRED, "profile", fast),
        run_of(report.OURS, "default", plain),
        run_of(report.OURS, "profile", fast),
        run_of(report.STOCK, "default", 60.0, stock_lost),
        run_of(report.STOCK, "profile", 30.0),
    )


def test_checks_pass_at_the_goal_and_fail_short_of_it():
    assert full().passed
    assert full(fast=24.0).passed
    assert not full(fast=24.1).passed
    assert not full(plain=60.1).passed
    assert full(lost=2, stock_lost=2).passed
    assert not full(lost=3, stock_lost=2).passed


def test_nothing_received_is_no_pass():
    assert not full(fast=float("nan")).passed


def test_a_row_is_of_one_kind():
    with pytest.raises(ValueError):
        report.summarise([])
    with pytest.raises(ValueError):
        report.summarise([run_of(report.OURS, "default", 1), run_of(report.OURS, "profile", 1)])


def test_report_is_valid_json_and_a_table():
    result = full(fast=float("nan"))
    data = json.loads(result.to_json(), parse_constant=pytest.fail)
    assert data["rows"][1]["p95_ms"]["median"] is None
    assert [row["node"] for row in data["rows"]] == [node for node in report.NODES for _ in report.DRIVERS]
    table = [line for line in result.to_markdown().splitlines() if line.startswith("|")]
    assert len(table) == 2 + 6
    assert len({line.count("|") for line in table}) == 1


def test_bad_arguments_are_one_sentence(capsys):
    assert bench.main(["--repeats", "0"]) == 2
    assert "repeats must be at least 1" in capsys.readouterr().err


# ---- processes ------------------------------------------------------------------------------------


def test_environment_closes_the_graph_and_chooses_the_transport():
    base = {"PATH": "p", "FASTRTPS_DEFAULT_PROFILES_FILE": "theirs", "ROS_DOMAIN_ID": "0"}
    plain = graph_environment(base, 42, None)
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in plain
    assert (plain["PATH"], plain["ROS_DOMAIN_ID"]) == ("p", "42")
    assert plain["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert graph_environment(base, 42, Path("ours"))["FASTRTPS_DEFAULT_PROFILES_FILE"] == "ours"
    assert base["FASTRTPS_DEFAULT_PROFILES_FILE"] == "theirs"


def test_children_end_even_when_the_benchmark_is_interrupted():
    waits = """import time; print('{"event": "up"}', flush=True); time.sleep(60)"""
    with pytest.raises(KeyboardInterrupt), Children(42) as children:
        child = children.start("child", ["-c", waits], None)
        child.event("up", 30.0)
        assert not math.isnan(process_cpu_s(child.pid))
        raise KeyboardInterrupt
    assert math.isnan(process_cpu_s(child.pid))


def test_a_child_that_fails_tells_why():
    with Children(42) as children:
        child = children.start("child", ["-c", "print('noise'); raise SystemExit('no such camera')"], None)
        with pytest.raises(BenchmarkError, match="no such camera"):
            child.event("up", 30.0)


@pytest.mark.ros
def test_smoke():
    pytest.importorskip("rclpy")
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    from thermal_enhance.resources import resource

    config = report.TransportConfig(
        seconds=1.0, rate=10.0, warmup_s=2.0, thermal=(160, 120), color=(320, 240), repeats=1
    )
    profile = resource("config", "fastdds.xml")
    for node in (report.PAIRED, report.STOCK):
        one = bench.run_once(config, node, "profile", profile)
        assert one.sent == 10
        assert 0 < one.received <= 10
        assert 0 < one.paired <= one.received
        assert one.latency.median_ms > 0
        assert one.cpu_s >= 0
