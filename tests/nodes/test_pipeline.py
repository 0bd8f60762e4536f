from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")

from thermal_enhance.enhancers.base import EnhancedFrame, EnhanceRequest
from thermal_enhance.enhancers.ladder import LadderConfig, QualityLadder
from thermal_enhance.imaging.encodings import encode
from thermal_enhance.imaging.frames import FfcState
from thermal_enhance.imaging.raw import RawImage
from thermal_enhance.imaging.telemetry import LeptonTelemetry, encode_lepton
from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.pipeline import EnhancementPipeline, FrameResult
from thermal_enhance.nodes.statistics import FrameStatistics
from thermal_enhance.nodes.stream import choose_scale
from thermal_enhance.tasks.policy import PolicyConfig

MS = 1_000_000
CONFIG = EnhancementConfig(mode="passthrough", scale=1, max_age=0.0)


class Tier:
    """Copies its input, as slowly as told, and remembers what it was asked."""

    name = "tier"
    needs_rgb = False
    uses_rgb = True
    isolated = False

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.requests: list[EnhanceRequest] = []
        self.resets: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, request: EnhanceRequest) -> EnhancedFrame:
        self.gate.wait(5)
        time.sleep(self.seconds)
        self.requests.append(request)
        return EnhancedFrame(replace(request.thermal, data=request.thermal.data.copy()), self.name)

    def reset(self, reason: str) -> None:
        self.resets.append(reason)

    def close(self) -> None: ...


class Rig:
    """A pipeline with its surroundings."""

    def __init__(self, config: EnhancementConfig = CONFIG, tier: Tier | None = None) -> None:
        self.tier = tier or Tier()
        self.results: list[FrameResult] = []
        self.stats = FrameStatistics()
        self.log: list[tuple[str, str]] = []
        ladder = QualityLadder([self.tier], LadderConfig(deadline_s=None))
        self.pipeline = EnhancementPipeline(
            config,
            ladder,
            self._publish,
            self.stats,
            time.time_ns,
            lambda level, text: self.log.append((level, text)),
        )

    def _publish(self, result: FrameResult) -> None:
        self.results.append(result)
        frame = result.frame
        self.stats.frame_out(frame.tier, frame.tier_reason, result.task, {"total": 1.0}, None)

    def __enter__(self) -> Rig:
        self.pipeline.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.pipeline.stop()

    def thermal(self, stamp_ns: int, data: np.ndarray | None = None, encoding: str = "mono16") -> None:
        picture = np.full((12, 16), stamp_ns % 1000, np.uint16) if data is None else data
        self.stats.thermal_in()
        self.pipeline.push_thermal(encode(picture, encoding, stamp_ns, "cam"), time.monotonic_ns())

    def color(self, stamp_ns: int) -> None:
        picture = np.zeros((24, 32, 3), np.uint8)
        self.pipeline.push_color(encode(picture, "rgb8", stamp_ns, "rgb"), time.monotonic_ns())

    def settle(self) -> None:
        self.pipeline.drain(5.0)
        time.sleep(0.01)

    def accounted(self) -> bool:
        frames_in, frames_out, dropped = self.stats.totals()
        return frames_in == frames_out + sum(dropped.values())


def test_frames_come_out_in_order_paired_and_unchanged() -> None:
    with Rig() as rig:
        for i in range(1, 11):
            rig.color(i * 33 * MS)
            rig.thermal(i * 33 * MS)
            rig.settle()
    assert [r.frame.thermal.stamp_ns for r in rig.results] == [i * 33 * MS for i in range(1, 11)]
    assert all(r.frame.thermal.frame_id == "cam" and r.encoding == "mono16" for r in rig.results)
    assert all(r.pair.skew_ns == 0 for r in rig.results)
    assert all(request.color is not None for request in rig.tier.requests)
    assert rig.accounted()


def test_under_load_the_newest_wins_and_the_rest_is_counted() -> None:
    rig = Rig(tier=Tier(seconds=0.05))
    with rig:
        rig.tier.gate.clear()
        for i in range(1, 9):
            rig.thermal(i * 10 * MS)
            time.sleep(0.006)
        time.sleep(0.06)
        rig.tier.gate.set()
        rig.settle()
        time.sleep(0.2)
    stamps = [r.frame.thermal.stamp_ns for r in rig.results]
    assert stamps == sorted(stamps)
    assert stamps[-1] == 80 * MS
    assert rig.stats.totals()[2].get("superseded", 0) >= 4
    assert rig.accounted()


def test_stale_frames_are_dropped_and_counted() -> None:
    rig = Rig(replace(CONFIG, max_age=0.05))
    with rig:
        now = time.time_ns()
        rig.thermal(now)
        rig.settle()
        rig.tier.gate.clear()
        rig.thermal(now + 10 * MS)
        time.sleep(0.05)
        rig.thermal(now + 20 * MS)
        time.sleep(0.12)
        rig.tier.gate.set()
        rig.settle()
        time.sleep(0.05)
    assert rig.stats.totals()[2].get("stale", 0) >= 1
    assert rig.accounted()


def test_malformed_frames_cost_only_themselves() -> None:
    with Rig() as rig:
        rig.thermal(1 * MS)
        rig.settle()
        rig.stats.thermal_in()
        rig.pipeline.push_thermal(
            RawImage(2 * MS, "cam", 12, 16, "mono16", False, 4, b"12"), time.monotonic_ns()
        )
        rig.settle()
        rig.thermal(3 * MS)
        rig.settle()
    assert len(rig.results) == 2
    assert sum(n for r, n in rig.stats.totals()[2].items() if r.startswith("malformed")) == 1
    assert rig.accounted()


def test_a_bug_in_publishing_costs_one_frame_only() -> None:
    rig = Rig()
    publish = rig._publish
    calls = iter(range(100))

    def sometimes(result: FrameResult) -> None:
        if next(calls) == 1:
            raise RuntimeError("boom")
        publish(result)

    rig.pipeline._publish = sometimes
    with rig:
        for i in range(1, 4):
            rig.thermal(i * MS)
            rig.settle()
    assert len(rig.results) == 2
    assert rig.stats.totals()[2] == {"error": 1}
    assert any("boom" in text for level, text in rig.log if level == "error")


def test_duplicates_are_dropped_where_told_and_the_freeze_is_not() -> None:
    still = np.arange(192, dtype=np.uint16).reshape(12, 16)
    for drop, expected in ((True, 1), (False, 3)):
        with Rig(replace(CONFIG, drop_duplicates=drop)) as rig:
            for i in range(1, 4):
                rig.thermal(i * 30 * MS, still)
                rig.settle()
        assert len(rig.results) == expected
        assert rig.accounted()
    with Rig(replace(CONFIG, drop_duplicates=True)) as rig:
        for i in range(1, 40):
            rig.thermal(i * 30 * MS, still)
            rig.settle()
    assert len(rig.results) > 20, "a closed shutter must not stop the stream"
    assert rig.results[-1].ffc_state is FfcState.IN_PROGRESS


def test_telemetry_rows_are_stripped_and_their_shutter_state_wins() -> None:
    config = replace(CONFIG, telemetry_rows=2)
    with Rig(config) as rig:
        for i, state in enumerate([FfcState.NEVER, FfcState.IN_PROGRESS, FfcState.COMPLETE], start=1):
            rows = encode_lepton(LeptonTelemetry(time_counter_ms=1000 * i, ffc_state=state), 160)
            picture = np.full((120, 160), 3000 + i, np.uint16)
            rig.thermal(i * 111 * MS, np.concatenate([picture, rows]))
            rig.settle()
    assert [r.ffc_state for r in rig.results] == [FfcState.NEVER, FfcState.IN_PROGRESS, FfcState.COMPLETE]
    assert all(r.input_frame.size == (160, 120) for r in rig.results)
    assert "ffc" in rig.tier.resets


@pytest.mark.parametrize(
    ("stamps", "reason"), [([1000, 1033, 20], "stamp_jump"), ([1000, 1033, 4000], "gap")]
)
def test_time_breaks_reset_the_tiers(stamps: list[int], reason: str) -> None:
    with Rig() as rig:
        for stamp in stamps:
            rig.thermal(stamp * MS)
            rig.settle()
    assert len(rig.results) == 3
    assert reason in rig.tier.resets


def test_a_new_size_resets_and_goes_on() -> None:
    with Rig() as rig:
        rig.thermal(1 * MS)
        rig.settle()
        rig.thermal(2 * MS, np.zeros((20, 20), np.float32), "32FC1")
        rig.settle()
    assert [r.encoding for r in rig.results] == ["mono16", "32FC1"]
    assert "format" in rig.tier.resets


def test_tasks_take_turns_by_weight_from_the_next_frame_on() -> None:
    with Rig() as rig:
        rig.pipeline.set_tasks(PolicyConfig("round_robin", ("detection", "segmentation"), (2, 1)))
        for i in range(1, 8):
            rig.thermal(i * MS)
            rig.settle()
        rig.pipeline.set_tasks(PolicyConfig("fixed", ()))
        rig.thermal(8 * MS)
        rig.settle()
    tasks = [r.task[:1] for r in rig.results]
    assert tasks == ["d", "d", "s", "d", "d", "s", "d", ""]


def test_stopping_counts_what_waited() -> None:
    rig = Rig(replace(CONFIG, slop=0.5))
    with rig:
        rig.color(1 * MS)
        rig.tier.gate.clear()
        for i in range(2, 6):
            rig.thermal(i * 100 * MS)
        time.sleep(0.05)
        rig.tier.gate.set()
    assert rig.accounted()
    rig.thermal(900 * MS)
    assert rig.stats.totals()[2].get("inactive", 0) >= 1
    assert rig.accounted()


@pytest.mark.parametrize(
    ("size", "limit", "scale"),
    [
        ((160, 120), 1_310_720, 8),
        ((640, 480), 1_310_720, 2),
        ((640, 512), 400_000, 1),
        ((4000, 3000), 1024, 1),
    ],
)
def test_automatic_scale_stays_within_the_limit(size: tuple[int, int], limit: int, scale: int) -> None:
    assert choose_scale(EnhancementConfig(scale=0, max_output_pixels=limit), size) == scale
    assert choose_scale(EnhancementConfig(scale=4, max_output_pixels=limit), size) == 4


@pytest.mark.parametrize("jump_s", [-10.0, 10.0, -0.7, 3600.0])
def test_a_clock_jump_of_any_size_blacks_nothing_out(jump_s: float) -> None:
    rig = Rig(replace(CONFIG, max_age=0.3))
    with rig:
        for i in range(10):
            rig.thermal(time.time_ns() + i)
            rig.settle()
        before = len(rig.results)
        for i in range(20):
            rig.thermal(time.time_ns() + round(jump_s * 1e9) + i)
            rig.settle()
    assert before == 10
    # A clock that is set forward or back costs a few frames at most, until it is known for what it is.
    assert len(rig.results) - before >= 15, rig.stats.totals()
    assert rig.accounted()


def test_drops_counted_by_pairing_survive_a_reset() -> None:
    rig = Rig(replace(CONFIG, slop=0.2))
    with rig:
        rig.color(1 * MS)
        rig.tier.gate.clear()
        for stamp in (100, 100, 133, 120, 90):
            rig.thermal(stamp * MS)
        rig.pipeline.reset("clock_jump")
        rig.tier.gate.set()
        rig.settle()
    assert rig.accounted(), rig.stats.totals()


def test_an_abandoned_worker_publishes_nothing_more() -> None:
    rig = Rig()
    rig.pipeline.start()
    rig.thermal(1 * MS)
    rig.settle()
    rig.tier.gate.clear()
    rig.thermal(2 * MS)
    time.sleep(0.05)
    rig.pipeline.stop(timeout_s=0.05)
    assert any("abandoned" in text for _, text in rig.log)
    assert rig.accounted()
    rig.pipeline.start()
    rig.tier.gate.set()
    time.sleep(0.1)
    rig.thermal(3 * MS)
    rig.settle()
    rig.pipeline.stop()
    assert [r.frame.thermal.stamp_ns for r in rig.results] == [1 * MS, 3 * MS]
    assert rig.accounted()
    assert sum(thread.name == "enhancement" for thread in threading.enumerate()) == 0


def test_a_parameter_change_during_a_freeze_keeps_the_freeze() -> None:
    still = np.arange(192, dtype=np.uint16).reshape(12, 16)
    with Rig() as rig:
        for i in range(1, 30):
            rig.thermal(i * 30 * MS, still)
            rig.settle()
        assert rig.results[-1].ffc_state is FfcState.IN_PROGRESS
        rig.pipeline.configure(replace(CONFIG, colormap="jet"))
        rig.thermal(30 * 30 * MS, still)
        rig.settle()
        assert rig.results[-1].ffc_state is FfcState.IN_PROGRESS
        rig.thermal(31 * 30 * MS, still + np.uint16(100))
        rig.settle()
    assert rig.results[-1].ffc_state is FfcState.COMPLETE
    assert "ffc" in rig.tier.resets


def test_a_new_ladder_is_used_from_the_next_frame_and_the_old_one_closed() -> None:
    with Rig() as rig:
        rig.thermal(1 * MS)
        rig.settle()
        other = Tier()
        rig.pipeline.set_ladder(QualityLadder([other], LadderConfig(deadline_s=None)))
        rig.thermal(2 * MS)
        rig.settle()
    assert (len(rig.tier.requests), len(other.requests)) == (1, 1)


def test_rows_that_are_no_telemetry_are_named() -> None:
    with Rig(replace(CONFIG, telemetry_rows=2)) as rig:
        rig.thermal(1 * MS, np.full((20, 160), 29_000, np.uint16))
        rig.settle()
    assert any("telemetry" in text for level, text in rig.log if level == "warn")


def test_eight_bits_are_no_temperature_whatever_the_parameter_says() -> None:
    with Rig(replace(CONFIG, thermal_units="centikelvin")) as rig:
        rig.thermal(1 * MS, np.zeros((12, 16), np.uint8), "mono8")
        rig.settle()
        rig.thermal(2 * MS, np.zeros((12, 16), np.uint16))
        rig.settle()
        rig.settle()
    units = [r.input_frame.units.value for r in rig.results]
    assert units == ["agc8", "centikelvin"]
    assert any("gain control" in text for level, text in rig.log if level == "warn")


def test_unknown_encodings_go_through_cv_bridge_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    strange = RawImage(1 * MS, "cam", 2, 3, "64FC1", False, 24, bytes(48))
    with Rig() as rig:
        rig.stats.thermal_in()
        rig.pipeline.push_thermal(strange, time.monotonic_ns())
        rig.settle()
    assert rig.stats.totals()[2] == {"malformed_unsupported_encoding": 1}

    bridge = ModuleType("cv_bridge")

    class CvBridge:
        def imgmsg_to_cv2(self, message):
            assert message.encoding == "64FC1"
            return np.frombuffer(bytes(message.data), np.float64).reshape(2, 3).astype(np.float32)

    bridge.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, "cv_bridge", bridge)
    with Rig() as rig:
        rig.stats.thermal_in()
        rig.pipeline.push_thermal(strange, time.monotonic_ns())
        rig.settle()
    assert rig.accounted()
