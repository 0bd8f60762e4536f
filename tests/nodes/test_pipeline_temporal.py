"""The temporal tier behind the pipeline: what leaves, in which order, and what never does."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")
pytest.importorskip("thermal_enhance_msgs", reason="needs the built interfaces (make setup)")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (make setup)")

from tests.enhancers.models import TemporalStore
from thermal_enhance.enhancers.base import EnhancedFrame, EnhanceRequest
from thermal_enhance.enhancers.classical import ClassicalConfig
from thermal_enhance.enhancers.ladder import LadderConfig, QualityLadder
from thermal_enhance.enhancers.registry import build_ladder
from thermal_enhance.enhancers.temporal import TemporalOptions
from thermal_enhance.imaging.consistency import area_down
from thermal_enhance.imaging.encodings import encode
from thermal_enhance.imaging.frames import FfcState, ThermalFrame
from thermal_enhance.imaging.raw import RawImage
from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.messages import frame_info, from_time
from thermal_enhance.nodes.pipeline import EnhancementPipeline, FrameResult
from thermal_enhance.nodes.statistics import FrameStatistics
from thermal_enhance.nodes.stream import choose_scale
from thermal_enhance.simulation.camera import MotionConfig
from thermal_enhance.simulation.config import RigConfig
from thermal_enhance.simulation.rig import CameraRig
from thermal_enhance.simulation.schedule import FfcConfig
from thermal_enhance.simulation.sensor import ThermalConfig

MS = 1_000_000
T0 = 1_000_000_000_000
CONFIG = EnhancementConfig(mode="temporal", max_age=0.0, netd=0.0)


def scene(i: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(32), np.arange(24))
    return (3000 + 400 * np.sin((x + 0.7 * i) / 4.0) + 300 * np.cos(y / 3.0)).astype(np.uint16)


class Rig:
    """A pipeline with a temporal ladder whose model numpy computes."""

    def __init__(self, folder: Path, config: EnhancementConfig = CONFIG) -> None:
        self.results: list[FrameResult] = []
        self.inputs: dict[int, np.ndarray] = {}
        self.stats = FrameStatistics()
        self.log: list[tuple[str, str]] = []
        options = TemporalOptions(look_ahead=config.look_ahead, fps_out=config.fps_out)
        ladder = build_ladder(
            "temporal",
            ClassicalConfig(guided=False),
            LadderConfig(deadline_s=None),
            store=TemporalStore(folder, (32, 24), (80, 64)),
            temporal=options,
        )
        self.pipeline = EnhancementPipeline(
            config, ladder, self._publish, self.stats, time.time_ns, lambda *words: self.log.append(words)
        )

    def _publish(self, result: FrameResult) -> None:
        self.results.append(result)
        if result.interpolated:
            self.stats.interpolated_out()
        else:
            frame = result.frame
            self.stats.frame_out(frame.tier, frame.tier_reason, result.task, {"total": 1.0}, None)

    def __enter__(self) -> Rig:
        self.pipeline.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.pipeline.stop()

    def send(self, image: RawImage) -> None:
        self.stats.thermal_in()
        self.pipeline.push_thermal(image, time.monotonic_ns())
        self.pipeline.drain(10.0)

    def thermal(self, ms: float, data: np.ndarray) -> None:
        stamp = T0 + round(ms * MS)
        self.inputs[stamp] = data
        self.send(encode(data, "mono16", stamp, "cam"))

    @property
    def stamps(self) -> list[float]:
        return [(r.frame.thermal.stamp_ns - T0) / MS for r in self.results]

    @property
    def kinds(self) -> str:
        """One letter a frame: interpolated, temporal, classical."""
        return "".join("i" if r.interpolated else r.frame.tier[0] for r in self.results)

    def accounted(self) -> bool:
        frames_in, frames_out, dropped = self.stats.totals()
        return frames_in == frames_out + sum(dropped.values())


def rising(numbers: list[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(numbers))


def test_frames_leave_in_stamp_order_the_interpolated_ones_marked(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        for i in range(6):
            rig.thermal(i * 100, scene(i))
    assert rig.kinds == "c" + "it" * 5
    assert rig.stamps == [0, *(50 * i for i in range(1, 11))]
    assert rig.accounted() and rig.stats.totals()[:2] == (6, 6)
    assert rig.stats.snapshot()["interpolated_out"] == 5
    for result in rig.results:
        message = frame_info(result, "temporal", rig.stats.totals(), 1.0)
        assert message.interpolated == result.interpolated
        assert from_time(message.header.stamp) == result.frame.thermal.stamp_ns
        assert np.isnan(message.consistency_residual) == result.interpolated
    last = frame_info(rig.results[-1], "temporal", rig.stats.totals(), 1.0)
    assert [(from_time(stamp) - T0) / MS for stamp in last.source_stamps] == [300, 400, 500]
    assert not any(r.aside for r in rig.results)
    assert rig.results[-2].frame.extra == ()


def test_the_newest_may_go_first_and_the_others_aside(tmp_path: Path) -> None:
    with Rig(tmp_path, replace(CONFIG, newest_first=True)) as rig:
        for i in range(5):
            rig.thermal(i * 100, scene(i))
    assert rig.kinds == "c" + "ti" * 4
    main = [r.frame.thermal.stamp_ns for r in rig.results if not r.aside]
    aside = [r.frame.thermal.stamp_ns for r in rig.results if r.aside]
    assert [(s - T0) / MS for s in main] == [0, 100, 200, 300, 400]
    assert [(s - T0) / MS for s in aside] == [50, 150, 250, 350]
    assert all(r.aside == r.interpolated for r in rig.results)


def test_looking_ahead_costs_a_frame_and_never_goes_back(tmp_path: Path) -> None:
    with Rig(tmp_path, replace(CONFIG, look_ahead=1)) as rig:
        for i in range(5):
            rig.thermal(i * 100, scene(i))
        rig.pipeline.reset("ffc")  # falls back to classical, which does not look ahead, and climbs again
        for i in range(5, 10):
            rig.thermal(i * 100, scene(i))
    assert rising(rig.stamps)
    assert rig.stamps == [0, 50, 100, 150, 200, 250, 300, 500, 550, 600, 650, 700, 750, 800]
    assert rig.kinds == "cititit" + "cititit"
    assert rig.stats.totals()[2] == {"already_shown": 2} and rig.accounted()
    for result in rig.results:
        if result.interpolated:
            continue
        stamp = result.frame.thermal.stamp_ns
        assert result.input_frame.stamp_ns == stamp == result.pair.thermal.stamp_ns
        assert np.abs(area_down(result.frame.thermal.data, 4) - rig.inputs[stamp]).max() <= 0.5


def test_a_tier_that_comes_back_with_an_older_frame_is_not_shown(tmp_path: Path) -> None:
    """Whatever a tier gives: no stamp of a topic is repeated or goes back."""

    class Behind:
        name, needs_rgb, uses_rgb, isolated = "behind", False, False, False

        def __init__(self) -> None:
            self.past: list[ThermalFrame] = []

        def __call__(self, request: EnhanceRequest) -> EnhancedFrame:
            self.past.append(request.thermal)
            back = self.past[-1 - (0, 0, 0, 1, 2, 0, 3, 1, 0, 2, 0, 4)[len(self.past) - 1]]
            early = replace(back, stamp_ns=back.stamp_ns - 150 * MS)
            return EnhancedFrame(back, self.name, extra=(early,), observed=back)

        def reset(self, reason: str) -> None: ...

        def close(self) -> None: ...

    with Rig(tmp_path, replace(CONFIG, scale=1)) as rig:
        rig.pipeline.set_ladder(QualityLadder([Behind()], LadderConfig(deadline_s=None)))
        for i in range(12):
            rig.thermal(i * 100, scene(i))
    assert rising(rig.stamps) and rig.accounted()
    dropped = rig.stats.totals()[2]
    assert dropped["already_shown"] > 0 and dropped["out_of_order"] > 0
    assert rig.stats.snapshot()["events"]["interpolated_late"] >= 5


def test_stamps_may_start_again_after_a_jump_of_the_clock(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        for turn in range(2):
            for i in range(4):
                rig.thermal(5000 - 1000 * turn + i * 100, scene(10 * turn + i))
    assert rig.kinds == "cititit" * 2
    assert rig.stamps[7:] == [4000, 4050, 4100, 4150, 4200, 4250, 4300]


def test_a_lost_frame_starts_over_and_nothing_is_made_up_across_it(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        for i in (0, 1, 2, 3, 6, 7, 8):
            rig.thermal(i * 100, scene(i))
    assert rig.kinds == "cititit" + "citit"
    assert 450 not in rig.stamps and rising(rig.stamps)


def test_the_mode_may_change_while_frames_come(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with Rig(tmp_path) as rig:
        for i in range(3):
            rig.thermal(i * 100, scene(i))
        rig.pipeline.set_ladder(build_ladder("classical", ladder=LadderConfig(deadline_s=None)))
        for i in range(3, 5):
            rig.thermal(i * 100, scene(i))
        other = TemporalStore(tmp_path / "other")
        rig.pipeline.set_ladder(build_ladder("temporal", ladder=LadderConfig(deadline_s=None), store=other))
        for i in range(5, 8):
            rig.thermal(i * 100, scene(i))
    assert rig.kinds == "citit" + "cc" + "citit" and rising(rig.stamps) and rig.accounted()


def test_the_ladder_that_makes_a_frame_is_told_what_it_must_forget(tmp_path: Path) -> None:
    """Another one may take its place between reading a frame and enhancing it."""
    with Rig(tmp_path) as rig:
        for i in range(4):
            rig.thermal(i * 100, scene(i))
        assert rig.pipeline._worker is not None
        stream = rig.pipeline._worker.stream
        read = stream.read

        def slowly(*arguments: object) -> object:
            rig.pipeline.set_ladder(build_ladder("classical", ladder=LadderConfig(deadline_s=None)))
            return read(*arguments)  # type: ignore[arg-type]

        stream.read = slowly  # type: ignore[assignment,method-assign]
        rig.thermal(400, scene(4) + np.uint16(2000))  # a shutter that only its offset tells of
    assert rig.kinds == "cititit" + "c" and 350 not in rig.stamps


def test_a_bug_in_publishing_an_interpolated_frame_costs_no_real_one(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    publish = rig._publish

    def failing(result: FrameResult) -> None:
        if result.interpolated:
            raise RuntimeError("boom")
        publish(result)

    rig.pipeline._publish = failing
    with rig:
        for i in range(4):
            rig.thermal(i * 100, scene(i))
    assert rig.kinds == "cttt" and rig.accounted()
    assert rig.stats.snapshot()["events"]["interpolated_failed"] == 3
    assert any("boom" in text for _, text in rig.log)


def test_scale_is_the_modes_own_where_nobody_says() -> None:
    assert choose_scale(CONFIG, (160, 120)) == 4
    assert choose_scale(replace(CONFIG, mode="cross_modal"), (160, 120)) == 8
    assert choose_scale(CONFIG, (640, 512)) == 2
    assert choose_scale(replace(CONFIG, scale=8), (160, 120)) == 8


# ---- the simulated rig: camera motion and the shutter -------------------------------------------


def camera(freeze_s: float, telemetry_rows: int = 0) -> CameraRig:
    ffc = FfcConfig(period_s=1.6, first_s=0.8, freeze_s=freeze_s, imminent_s=0.2, jump_k=8.0)
    thermal = ThermalConfig(
        width=80, height=60, rate_hz=20.0, telemetry_rows=telemetry_rows, encoding="16UC1", supersampling=1
    )
    motion = MotionConfig(pan_deg=6.0, pan_period_s=3.0)
    return CameraRig(RigConfig(thermal=thermal, ffc=ffc, motion=motion, epoch_ns=T0))


@pytest.mark.parametrize(
    ("told_by", "look_ahead", "freeze_s"),
    # The last: so short that neither a freeze nor a gap tells of it, but only the offset after it.
    [("nobody", 0, 0.5), ("nobody", 1, 0.5), ("topic", 0, 0.5), ("telemetry", 0, 0.5), ("nobody", 0, 0.0)],
)
def test_no_ghost_across_a_shutter_and_no_old_frame_shown_as_new(
    tmp_path: Path, told_by: str, look_ahead: int, freeze_s: float
) -> None:
    rows = 2 if told_by == "telemetry" else 0
    rig = Rig(tmp_path, replace(CONFIG, look_ahead=look_ahead, telemetry_rows=rows))
    source = camera(freeze_s, rows)
    config = source.config
    with rig:
        for index in range(68):
            frame = source.thermal_frame(index)
            if told_by == "topic":
                rig.pipeline.set_ffc(config.ffc.state(index / 20.0))
            rig.inputs[frame.stamp_ns] = frame.data[:60]
            rig.send(encode(frame.data, "mono16", frame.stamp_ns, "cam"))

    def epoch(stamp_ns: int) -> tuple[int, bool]:
        t_s = (stamp_ns - T0) * 1e-9
        return config.ffc.epoch(t_s)[0], config.ffc.in_progress(t_s)

    assert rising(rig.stamps) and rig.accounted()
    between = [r for r in rig.results if r.interpolated]
    assert len(between) > 25, rig.kinds
    observed = {r.frame.thermal.stamp_ns: r.frame.thermal.data for r in rig.results if not r.interpolated}
    real = sorted(rig.inputs)
    for result in between:
        stamp = result.frame.thermal.stamp_ns
        before = max(s for s in real if s < stamp)
        after = min(s for s in real if s > stamp)
        assert (before + after) // 2 == stamp
        # Nothing is made up of the two sides of a shutter, nor while it is closed.
        assert epoch(before) == epoch(after) and not epoch(after)[1], result.frame.source_stamps_ns
        assert len({epoch(s)[0] for s in result.frame.source_stamps_ns}) == 1
        # And no pixel is of another time: within what its neighbours have nearby.
        around = np.stack([rig.inputs[before], rig.inputs[after]]).astype(float)
        mean = area_down(result.frame.thermal.data, 4).mean()
        assert around.mean((1, 2)).min() - 40 <= mean <= around.mean((1, 2)).max() + 40, "the offset is 320"
    for stamp, data in observed.items():
        off = np.abs(area_down(data, 4) - rig.inputs[stamp]).max()
        assert off <= 0.5, "each frame is that of its own stamp"
    closed = [r for r in rig.results if epoch(r.frame.thermal.stamp_ns)[1]]
    assert bool(closed) == (freeze_s > 0) and not any(r.interpolated for r in closed), (
        "the stream goes on, nothing is added to it"
    )
    if told_by != "nobody":
        assert all(r.ffc_state is FfcState.IN_PROGRESS for r in closed)
    events = rig.stats.snapshot()["events"]
    assert events["reset_ffc"] >= 2
